"""The state of the running pool, read from the controller, and its twin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, json, structs

from vnet.grammar.declare import Declared, attrs_of, json_word, unchecked
from vnet.grammar.json_tree import json_tree
from vnet.grammar.kinds import FAILED, Failed
from vnet.grammar.nodes import List, entry_of, is_null
from vnet.grammar.source import Source
from vnet.objects import Binding, LockingMode, PoolState
from vnet.objects.state import CONFIGURED
from vnet.topology import Document, desired_state, load

if TYPE_CHECKING:
    from vnet.client import Client
    from vnet.sim import SimPool

D = TypeVar("D", bound=Declared)


def running_state(client: Client) -> tuple[PoolState, Document]:
    """The objects of the document and of the toolstack, and the document for their positions."""
    document = load(client.export().encode(), "the pool")
    known = desired_state(document, PoolState())
    objects: dict[str, Any] = {}
    for declared in CONFIGURED:
        noun = declared.NOUN
        answers = getattr(client, noun.plural.replace("-", "_"))()
        objects[noun.state] = {getattr(answer, noun.key): _object(declared, answer) for answer in answers}
    # The key of a VLAN network, for relays, is in no answer; the document's networks have been allocated alike.
    for name, network in objects["networks"].items():
        if network.key is None and name in known.networks:
            objects["networks"][name] = replace(network, key=known.networks[name].key)
    vifs = objects["vifs"]
    bindings = {
        (answer.vif, answer.host): _object(
            Binding,
            structs.replace(answer, since=None),
            unlocked=vifs[answer.vif].locking_mode is LockingMode.UNLOCKED,
        )
        for answer in client.bindings()
        if answer.vif in vifs and answer.network in objects["networks"]
    }
    return replace(known, **objects, bindings=bindings), document


def _object(declared: type[D], answer: Struct, **more: Any) -> D:
    """The object of an answer. more: fields that answers lack."""
    node, paths = json_tree(json.encode(answer))
    source, values = Source("", paths=paths), dict(more)
    for found in attrs_of(declared).values():
        for spelling in found.spellings:
            entry = entry_of(node, json_word(found, spelling).replace("_", "-"))
            empty = entry is None or is_null(entry[1]) or (isinstance(entry[1], List) and not entry[1].items)
            value = FAILED if entry is None or empty else spelling.kind.read(entry[1], source)
            if not isinstance(value, Failed):
                values[found.name] = value
    source.finish()
    return unchecked(declared, values)


def twin_of_running(client: Client) -> SimPool:
    """The twin of the running pool, with every VIF on the host that has it."""
    from vnet.sim import SimPool  # noqa: PLC0415

    state, document = running_state(client)
    running = SimPool.of(state, claim=False)
    running.document = document
    return running
