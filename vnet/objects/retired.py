"""Numbers on the wire that networks and mirrors have given up: tunnel keys, and VLAN tags of uplinks.

One rule: a number that some host may still use is no other network's. A host that is cut off forwards as it was last programmed
(docs/adr/0012-numbers-that-networks-gave-up.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.mirror import TRANSPORT, FrameMirror, TargetType
from vnet.objects.network import Network
from vnet.objects.words import COUNT, LINE

WireNumber = tuple[str, int]  # the encapsulation or the uplink, and the key or the tag


@dataclass(frozen=True, slots=True)
class RetiredNumber(Declared):
    """A number that a network has given up. Hosts that have acknowledged `generation` use it no more."""

    NOUN: ClassVar[Noun] = Noun(
        "retired-number", "retired-numbers", "retired number", "RetiredNumber", "retired", key="medium", second="number"
    )
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    medium: str = attr(LINE, "The encapsulation, or the uplink, that the number is of.")
    number: int = attr(COUNT, "The tunnel key or VLAN tag.")
    network: str = attr(LINE, "The network whose it was.")
    generation: int = attr(COUNT, "The pool's generation without it.")


def wire_numbers(network: Network | FrameMirror) -> Iterator[WireNumber]:
    """The numbers by which hosts and the physical network tell the frames of a network, or of a mirror, apart."""
    if isinstance(network, FrameMirror):
        yield TRANSPORT.name, network.key
        if network.to.type is TargetType.VLAN:
            yield f"uplink {network.to.name}", network.to.id
        return
    if (encapsulation := network.carrier.encapsulation) is not None and network.key is not None:
        yield encapsulation.name, network.key
    if network.uplink is not None and network.tag is not None:
        yield f"uplink {network.uplink}", network.tag


def retired(old: Network | FrameMirror, new: Network | FrameMirror | None, generation: int) -> Iterator[RetiredNumber]:
    """The numbers that a network gives up as it changes, or without `new` as it goes."""
    kept = set(wire_numbers(new)) if new is not None else set()
    for medium, number in wire_numbers(old):
        if (medium, number) not in kept:
            yield RetiredNumber(medium, number, old.name, generation)
