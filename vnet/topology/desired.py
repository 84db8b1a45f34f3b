"""A document and the pool as it is, to the pool as it should be.

One rule: the document owns the objects that it made, the toolstack its own. Objects that the document no longer has go; those of the
toolstack stay; a document that would take something from the toolstack is refused. Ids that a document leaves out are kept from
the pool as it is, or allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vnet.grammar.declare import Declared, Stated, attrs_of, unchecked
from vnet.grammar.nodes import entry_of
from vnet.grammar.source import Source, place_of
from vnet.objects import Host, Owner, Pool, PoolState, Vif, Vm
from vnet.objects.index import VifIndex
from vnet.objects.proposal import Proposal
from vnet.objects.renames import RENAMED, renamed
from vnet.objects.resolve import Resolver
from vnet.objects.rules import faults
from vnet.objects.state import CONFIGURED, Renames
from vnet.topology.document import Document, last_name, read_document
from vnet.topology.yaml_tree import decode, parse_files
from vnet.util.gc_pause import collector_held


def load(data: bytes, filename: str) -> Document:
    """The document that a file's bytes hold; `filename` is only for messages.

    Raises TopologyErrors with all that is wrong with it: text (size, encoding, YAML), grammar, then references and clashes.
    """
    with collector_held():
        document = parse_document(data, filename)
        state = _desired_state(document, PoolState(), VifIndex(), document.source)
        document.source.finish()
        return replace(document, state=state)


def parse_document(data: bytes, filename: str) -> Document:
    """A document of which only the text and the grammar are checked. Raises TopologyErrors for text that is no document."""
    with collector_held():
        source = decode(data, filename)
        return read_document(parse_files(source), source)


def desired_state(document: Document, current: PoolState, index: VifIndex | None = None) -> PoolState:
    """The pool once the document is applied. index: of the current VIFs, where the caller has it.

    Bindings, epochs, prepared migrations, revision and generation are kept; bindings of VIFs and hosts that go, and the agents
    of hosts that go, are left out. Raises TopologyErrors with all that is wrong: with the text, between the document's objects,
    and between them and the toolstack's.
    """
    with collector_held():
        source = document.source.again()
        state = _desired_state(document, current, index or VifIndex(current.vifs.values()), source)
        source.finish()
        return state


def _desired_state(document: Document, current: PoolState, index: VifIndex, source: Source) -> PoolState:
    _same_pool(document, current, source)
    if renames := _renames(document, current, source):
        current = renamed(current, renames)
        index = VifIndex(current.vifs.values())
    document = _with_kept_ids(document, current, source)
    pool = _pool(document, current.pool)
    inputs = {declared: found.stated for declared, found in document.inputs.items()}
    inputs[Vm] = _where_they_run(inputs, current)
    resolver = Resolver(current, pool, index, Owner.DOCUMENT)
    changes = resolver.resolve(inputs, complete=True)
    if pool is not current.pool:
        changes["pool"] = {"": pool}
    proposal = Proposal(current, changes, index, Owner.DOCUMENT, document.refused)
    document.report([*resolver.faults, *faults(proposal)], source)
    return _state(document, current, pool, changes)


def _state(document: Document, current: PoolState, pool: Pool, changes: Mapping[str, Mapping[str, Any]]) -> PoolState:
    """The toolstack's objects, then the document's in its order, each sort in a plain dict."""
    tables: dict[str, Any] = {}
    for declared in CONFIGURED:
        name = declared.NOUN.state
        old, new = getattr(current, name), changes.get(name, {})
        theirs = {key: value for key, value in old.items() if value.owner is Owner.TOOLSTACK}
        ours = {key: new[key] if key in new else old[key] for key in document.inputs[declared].stated}
        tables[name] = {**theirs, **ours}
    hosts, vifs = tables["hosts"], tables["vifs"]
    bindings = {key: binding for key, binding in current.bindings.items() if key[0] in vifs and key[1] in hosts}
    agents = {host: agent for host, agent in current.agents.items() if host in hosts}
    return PoolState(pool=pool, bindings=bindings, agents=agents, renames=current.renames, **tables)


def _renames(document: Document, current: PoolState, source: Source) -> Renames:
    """The renames that the pool has not seen yet."""
    found: dict[str, dict[str, str]] = {}
    for declared in RENAMED:
        noun, names = declared.NOUN, document.moved.get(declared.NOUN.state, {})
        there = getattr(current, noun.state)
        for old in names:
            new = last_name(old, names)
            if old not in there or new is None or old in document.inputs[declared].stated:
                continue
            if (other := new if new in there else found.get(noun.state, {}).get(new)) is not None:
                message = f"{noun.text} {old} cannot be renamed to {new}: the pool has {other} as well"
                source.add(
                    "moved",
                    message,
                    document.moved_at(noun.plural, old),
                    "they are two objects: delete one of them first",
                )
            elif there[old].owner is Owner.TOOLSTACK:
                message = f"{noun.text} {old} was made by the toolstack, which alone renames it"
                source.add("moved", message, document.moved_at(noun.plural, old))
            else:
                found.setdefault(noun.state, {})[new] = old
    return found


def _with_kept_ids(document: Document, current: PoolState, source: Source) -> Document:
    """A VIF whose id is left out keeps the one that it has: that of its port, also where its VM is called another name by now."""
    kept = {
        f"{vif.vm}/{vif.index}": vif.id
        for vif in current.vifs.values()
        if vif.owner is Owner.DOCUMENT and vif.vm is not None and vif.id != f"{vif.vm}/{vif.index}"
    }
    found = document.inputs[Vif]
    if kept.keys().isdisjoint(found.stated):
        return document
    stated: dict[str, Stated] = {}
    for name, vif in found.stated.items():
        id = kept.get(name, name) if entry_of(vif.node, "id") is None else name
        made = replace(vif, values={**vif.values, "id": id})
        other = stated.setdefault(id, made)
        if other is not made:
            keeps, new = (vif, other) if id != name else (other, vif)
            message = f"VIF {id} is that of VM {keeps.values['vm']}, which has kept it since it was renamed"
            hint = "give this one an id of its own: 'id: NAME'"
            source.add("duplicate-id", message, place_of(new.node) if new.node is not None else None, hint)
    return replace(document, inputs={**document.inputs, Vif: replace(found, stated=stated)})


def _pool(document: Document, before: Pool | None) -> Pool:
    stated: dict[str, Any] = {"name": document.pool}
    for name in ("underlay_mtu", "locking_mode", "encryption"):
        stated[name] = document.fields.values.get(name, attrs_of(Pool)[name].default)
    if before is None:
        return unchecked(Pool, stated)
    return (
        before if all(getattr(before, name) == value for name, value in stated.items()) else replace(before, **stated)
    )


def _where_they_run(inputs: Mapping[type[Declared], Mapping[str, Stated]], current: PoolState) -> Mapping[str, Stated]:
    """The document states where a VM starts; while it is plugged in, the toolstack states where it is."""
    plugged = {current.vifs[vif].vm for vif, _ in current.bindings if vif in current.vifs}
    hosts, vms = inputs[Host], inputs[Vm]
    moved = {
        name: replace(stated, values={**stated.values, "host": current.vms[name].host})
        for name, stated in vms.items()
        if name in plugged and name in current.vms and current.vms[name].host in hosts
    }
    return {**vms, **moved} if moved else vms


def _same_pool(document: Document, current: PoolState, source: Source) -> None:
    """Applied to another pool, a document would take away all that is there."""
    if current.pool is None or current.pool.name == document.pool:
        return
    tables: list[Mapping[str, Any]] = [getattr(current, declared.NOUN.state) for declared in CONFIGURED]
    if any(value.owner is Owner.DOCUMENT for table in tables for value in table.values()):
        message = f"this document is for pool {document.pool}, and the database holds pool {current.pool.name}"
        hint = "applied here, it would remove all that the other pool's document made"
        source.add("other-pool", message, document.place("pool", "", "name"), hint)
