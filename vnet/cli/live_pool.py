"""The state of the running pool, read from the controller, and its twin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, json, structs

from vnet.grammar.declare import Declared
from vnet.grammar.read_back import read_back
from vnet.objects import Binding, PoolState
from vnet.objects.binding import published
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
    # Hosts' addresses inside WireGuard follow from it.
    pool = replace(known.pool, id=client.pool().id) if known.pool is not None else None
    state = replace(known, **objects, pool=pool)
    return replace(state, bindings=bindings_of(client, state)), document


# The fields of a VIF that answers about its bindings have; the others its agent has copied.
ANSWERED = frozenset({"network", "mac", "addresses", "groups"})


def bindings_of(client: Client, state: PoolState) -> dict[tuple[str, str], Binding]:
    """The bindings, as they are now, of a state's VIFs."""
    return {
        (answer.vif, answer.host): _object(
            Binding,
            structs.replace(answer, since=None),
            **{name: value for name, value in published(state.vifs[answer.vif]).items() if name not in ANSWERED},
        )
        for answer in client.bindings()
        if answer.vif in state.vifs and answer.network in state.networks
    }


def _object(declared: type[D], answer: Struct, **more: Any) -> D:
    """The object of an answer. more: fields that answers lack."""
    return read_back(declared, json.encode(answer), **more)


def twin_of_running(client: Client) -> SimPool:
    """The twin of the running pool, with every VIF on the host that has it."""
    from vnet.sim import SimPool  # noqa: PLC0415

    state, document = running_state(client)
    running = SimPool.of(state, claim=False)
    running.document = document
    return running
