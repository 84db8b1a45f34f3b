"""Renames: objects that go on under another name, with all that names them.

One rule: a rename changes names alone. What an object has, its ids, MACs and addresses among it, stays (docs/adr/0049-a-rename-is-one-transaction.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vnet.grammar.declare import Declared, references_of
from vnet.objects.address_set import AddressSet
from vnet.objects.expectation import Expectation
from vnet.objects.flow_collector import FlowCollector
from vnet.objects.qos import QosClass
from vnet.objects.security import Rule, SecurityGroup
from vnet.objects.state import CONFIGURED, PoolState, Renames
from vnet.objects.subnet import Subnet
from vnet.objects.vm import Vm

# Hosts see all rows of these, or none. Rows of networks and groups they ask for by name, so a host would lose one that is renamed till it has asked anew.
# A host's name is its agent's, and in its certificate; a plug bridge's is the bridge's own.
RENAMED: tuple[type[Declared], ...] = (QosClass, FlowCollector, Subnet, AddressSet, Vm)
Names = Mapping[str, Mapping[str, str]]  # by the word of a noun: the old name to the new one


def renamed(state: PoolState, renames: Renames) -> PoolState:
    """The pool as if these objects had always had their new names. Objects that it does not concern are the same ones. renames: as PoolState has them."""
    names = {
        declared.NOUN.word: {old: new for new, old in renames[declared.NOUN.state].items()}
        for declared in RENAMED
        if renames.get(declared.NOUN.state)
    }
    if not names:
        return state
    tables: dict[str, Any] = {}
    for declared in CONFIGURED:
        own = names.get(declared.NOUN.word, {})
        tables[declared.NOUN.state] = {
            own.get(name, name): _renamed(value, name, own, names)
            for name, value in getattr(state, declared.NOUN.state).items()
        }
    return replace(state, renames=renames, **tables)


def _renamed(value: Any, name: str, own: Mapping[str, str], names: Names) -> Any:
    changes: dict[str, Any] = {value.NOUN.key: own[name]} if name in own else {}
    for field, refers in references_of(type(value), runtime=True):
        if refers in names and (now := _among(content := getattr(value, field), names[refers])) != content:
            changes[field] = now
    match value:
        case SecurityGroup() if sets := names.get("address-set"):
            rules = tuple(_rule(rule, sets) for rule in value.rules)
            changes |= {"rules": rules} if rules != value.rules else {}
        case Expectation():
            vms = names.get("vm", {})
            changes |= {field: vms[end] for field in ("from_", "to") if (end := getattr(value, field)) in vms}
    return replace(value, **changes) if changes else value


def _among(content: Any, names: Mapping[str, str]) -> Any:
    """What a field holds, a name or several, with the new ones."""
    if content is None:
        return None
    if isinstance(content, str):
        return names.get(content, content)
    made = [names.get(name, name) for name in content]
    return frozenset(made) if isinstance(content, frozenset) else tuple(sorted(made))


def _rule(rule: Rule, sets: Mapping[str, str]) -> Rule:
    remote = tuple(sorted(sets.get(each, each) for each in rule.remote))
    return rule if remote == rule.remote else replace(rule, remote=remote)
