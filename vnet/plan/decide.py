"""A toolstack's call to make, change or remove one object, and what it comes to in the pool as it is. One rule: all or nothing.

Making an object that is there already changes nothing; another object under its name is refused, field by field, but for nouns
that are replaced. Objects of the document are changed in the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vnet.db.changes import DeleteObject, InsertObject, RowChange, UpdateObject
from vnet.db.view import PoolView
from vnet.grammar.declare import Declared, Stated, attrs_of
from vnet.objects import Owner, Vif, Vm
from vnet.objects.impact import Usage
from vnet.objects.proposal import Fault, Proposal
from vnet.objects.resolve import Resolver, new_vm, pass_on
from vnet.objects.rules import faults
from vnet.objects.state import CONFIGURED, NOUNS
from vnet.plan.pool import PoolPlan, plan_proposal
from vnet.util.suggest import nearest


@dataclass(frozen=True, slots=True)
class Admission:
    """The outcome of a call. name: the object's. changes: the rows to write, none where it is so already. plan: the same in words."""

    name: str
    changes: tuple[RowChange, ...]
    plan: PoolPlan


class Inadmissible(Exception):
    """The pool would not be valid; `faults` has every reason, at least one."""

    def __init__(self, found: Iterable[Fault]) -> None:
        self.faults = tuple(found)
        super().__init__("; ".join(fault.message for fault in self.faults))


class NotThere(Exception):
    """There is no object of this name. nearest: the name that was probably meant."""

    def __init__(self, noun: str, name: str, among: Iterable[str]) -> None:
        self.noun = noun
        self.name = name
        self.nearest = nearest(name, list(among))
        super().__init__(f"there is no {NOUNS[noun].text} {name}")


def make(view: PoolView, declared: type[Declared], name: str | None, stated: Stated) -> Admission:
    """An object that is new, or is there already as stated. name: None where the VM and index of a VIF make it."""
    noun = declared.NOUN
    name = name if name is not None else name_of(declared, stated)
    if name is None:
        message = "a VIF needs an id, or a VM and an index, which make one"
        raise Inadmissible([Fault("no-id", declared.NOUN.word, "", declared.NOUN.key, message)])
    before = getattr(view.state, noun.state).get(name)
    if before is not None and not noun.replaced:
        if differing := list(_differing(declared, name, before, stated)):
            raise Inadmissible(differing)
        return _decided(view, name, {})
    if before is not None and before.owner is Owner.DOCUMENT and not list(_differing(declared, name, before, stated)):
        return _decided(view, name, {})
    if declared is Vif:
        stated = _wanted_where_its_vm_is(view, stated)
    return _resolved(view, declared, name, stated, partial=False)


def change(view: PoolView, declared: type[Declared], name: str, stated: Stated) -> Admission:
    """An object that is there, with other values in the fields that are stated. Raises NotThere, Inadmissible."""
    objects = getattr(view.state, declared.NOUN.state)
    before = objects.get(name)
    if before is None:
        raise NotThere(declared.NOUN.word, name, objects)
    if before.owner is Owner.DOCUMENT and not list(_differing(declared, name, before, stated)):
        return _decided(view, name, {})
    return _resolved(view, declared, name, stated, partial=True)


def quarantine(view: PoolView, name: str, stated: Stated) -> Admission:
    """A VIF on the stated network till `release`. It is known where it was. Raises NotThere, Inadmissible."""
    before = _vif(view, name)
    if before.former_network is not None and before.network == stated.values.get("network"):
        return _decided(view, name, {})
    if before.network == stated.values.get("network"):
        message = f"VIF {name} is on network {before.network}: that is no quarantine"
        raise Inadmissible([Fault("no-quarantine", "vif", name, "network", message, "another network")])
    network, addresses = before.former_network, before.former_addresses
    if network is None:
        network, addresses = before.network, before.addresses
    return _resolved(view, Vif, name, stated, partial=True, former=(network, addresses))


def release(view: PoolView, name: str) -> Admission:
    """A VIF as it was before its quarantine; nothing to do if it is in none. Raises NotThere, Inadmissible."""
    before = _vif(view, name)
    if before.former_network is None:
        return _decided(view, name, {})
    stated = Stated(Vif, {"network": before.former_network, "addresses": before.former_addresses})
    return _resolved(view, Vif, name, stated, partial=True)


def _vif(view: PoolView, name: str) -> Vif:
    found = view.state.vifs.get(name)
    if found is None:
        raise NotThere(Vif.NOUN.word, name, view.state.vifs)
    return found


def remove(view: PoolView, declared: type[Declared], name: str) -> Admission:
    """No object of that name. A VM goes with its VIFs."""
    if name not in getattr(view.state, declared.NOUN.state):
        return _decided(view, name, {})
    changes: dict[str, dict[str, Any]] = {declared.NOUN.state: {name: None}}
    if declared is Vm:
        changes["vifs"] = {vif.id: None for vif in view.vifs(name)}
    pass_on(Proposal(view.state, dict(changes), view.index, Owner.TOOLSTACK), changes)
    return _decided(view, name, changes)


def name_of(declared: type[Declared], stated: Stated) -> str | None:
    """A VIF's id, which the caller chooses one way or the other: else a repeated call would make a second VIF."""
    values = stated.values
    if declared is Vif and values.get("id"):
        return str(values["id"])
    if declared is Vif and values.get("vm") is not None and values.get("index") is not None:
        return f"{values['vm']}/{values['index']}"
    return None


def _wanted_where_its_vm_is(view: PoolView, stated: Stated) -> Stated:
    vm = view.state.vms.get(stated.values.get("vm") or "")
    if stated.values.get("host") is not None or vm is None:
        return stated
    return Stated(stated.type, {**stated.values, "host": vm.host}, stated.node, stated.partial)


def _differing(declared: type[Declared], name: str, before: Any, stated: Stated) -> Iterable[Fault]:
    noun, attrs = declared.NOUN, attrs_of(declared)
    for field, value in stated.values.items():
        if field == "awaited" or field not in attrs:
            continue
        have = getattr(before, field)
        if value != have:
            type = attrs[field].type
            message = f"{noun.text} {name} exists with {attrs[field].word} {_spelled(type, have)}, not {_spelled(type, value)}"
            yield Fault(f"{noun.word}-exists", noun.word, name, field, message)


def _spelled(of: Any, value: Any) -> str:
    """A value as a call would spell it."""
    shown = None if value is None else of.plain(value)
    if isinstance(shown, list):
        return (
            ", ".join(str(item.get("name", item)) if isinstance(item, dict) else str(item) for item in shown) or "none"
        )
    return "none" if shown is None else str(shown)


def _resolved(
    view: PoolView,
    declared: type[Declared],
    name: str,
    stated: Stated,
    *,
    partial: bool,
    former: tuple[str, tuple[str, ...]] | None = None,
) -> Admission:
    """former: the network and the addresses of a VIF that goes into quarantine."""
    state = view.state
    resolver = Resolver(state, state.pool, view.index, Owner.TOOLSTACK, partial=partial)
    changes = resolver.resolve({declared: {name: stated}})
    after = changes.get(declared.NOUN.state, {}).get(name)
    if isinstance(after, Vif) and former is not None:
        network, addresses = former
        after = replace(after, former_network=network, former_addresses=addresses)
        changes["vifs"] = {name: after}
    if isinstance(after, Vif) and (vms := new_vm(state, after)):
        changes["vms"] = dict(vms)
    return _decided(view, name, changes, resolver.faults)


def _decided(
    view: PoolView, name: str, changes: Mapping[str, Mapping[str, Any]], found: Iterable[Fault] = ()
) -> Admission:
    proposal = Proposal(view.state, changes, view.index, Owner.TOOLSTACK)
    if refused := [*found, *faults(proposal)]:
        raise Inadmissible(refused)
    plan = plan_proposal(proposal, Usage(view.state, view.bindings_of))
    return Admission(name, tuple(row_changes(proposal)), plan)


def row_changes(proposal: Proposal) -> Iterable[RowChange]:
    """The rows to write: what goes after what stood on it, what comes after what it stands on."""
    pool = proposal.changes.get("pool", {}).get("")
    if pool is not None and proposal.before.pool is not None:
        yield UpdateObject(proposal.before.pool, pool)
    for declared in reversed(CONFIGURED):
        old = getattr(proposal.before, declared.NOUN.state)
        for gone in proposal.removed(declared.NOUN.state):
            yield DeleteObject(old[gone])
    for declared in CONFIGURED:
        old = getattr(proposal.before, declared.NOUN.state)
        for name, new in proposal.changed(declared.NOUN.state).items():
            yield UpdateObject(old[name], new) if name in old else InsertObject(new)
