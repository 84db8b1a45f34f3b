"""MACs behind an unlocked VIF: of guests, containers or stations that a VM bridges to its network.

One rule: who was heard last has a MAC. A VIF's own MAC is never another's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vnet.grammar.nodes import ListNode, TextNode, clip
from vnet.grammar.value_types import Column, ValueRefused, ValueType
from vnet.objects.identity import HasIdentities, macs_of, virtual_router
from vnet.objects.words import MAC_KIND, NO_MAC

if TYPE_CHECKING:
    from vnet.grammar.nodes import Node
    from vnet.grammar.source import Source
    from vnet.grammar.value_types import Failed, JsonSchema

MAX_BEHIND = 64  # of one VIF


@dataclass(frozen=True, slots=True, order=True)
class MacBehind:
    """A MAC that a VIF sends as. since: milliseconds since 1970, when its host first heard it there."""

    since: int
    mac: str


class Heard(Protocol):
    """What of a binding says which MACs are behind its VIF."""

    @property
    def behind(self) -> tuple[MacBehind, ...]: ...


def known_behind(bindings: Iterable[Heard]) -> tuple[MacBehind, ...]:
    """The MACs behind a VIF, by its bindings, the oldest first: while it moves, both hosts have them."""
    last: dict[str, int] = {}
    for binding in bindings:
        for entry in binding.behind:
            last[entry.mac] = max(entry.since, last.get(entry.mac, 0))
    return tuple(sorted(MacBehind(since, mac) for mac, since in last.items())[-MAX_BEHIND:])


def with_heard(
    before: tuple[MacBehind, ...], frame: bytes, most: int, bindings: Iterable[HasIdentities], now_ms: int
) -> tuple[MacBehind, ...]:
    """The MACs behind a VIF once its host has heard a frame of it. most: how many it may have; bindings: those of its network."""
    mac = frame[6:12].hex(":")
    if mac == NO_MAC or frame[6] & 1 or len(before) >= most or any(entry.mac == mac for entry in before):
        return before
    if virtual_router(mac) is not None or any(mac in macs_of(binding) for binding in bindings):
        return before  # a VIF's own, or a virtual router's
    return tuple(sorted((*before, MacBehind(now_ms, mac))))


def _decoded(cell: Mapping[str, int]) -> tuple[MacBehind, ...]:
    if len(cell) > MAX_BEHIND:
        raise ValueRefused("too-many", f"{len(cell)} MACs: at most {MAX_BEHIND}")
    for mac in cell:
        if MAC_KIND.parse(mac) != mac:
            raise ValueRefused("wrong-mac", f"{clip(mac)} is not written as a MAC address")
    return tuple(sorted(MacBehind(since, mac) for mac, since in cell.items()))


class MacsBehind(ValueType[tuple[MacBehind, ...]]):
    """MACs behind a VIF, the oldest first, each with its time: agents write them, and no document has them."""

    expected = "a list of MAC addresses"
    column = Column(
        "string", "integer", many=True,
        encode=lambda entries: {entry.mac: entry.since for entry in entries},
        decode=lambda cell: _decoded(cell) if cell else (),
    )  # fmt: skip
    python = "list[str]"

    def read(self, node: Node, source: Source) -> tuple[MacBehind, ...] | Failed:
        """As answers have them: the oldest first, without their times."""
        if not isinstance(node, ListNode):
            return self.wrong(node, source)
        return tuple(MacBehind(n, item.text) for n, item in enumerate(node.items) if isinstance(item, TextNode))

    def check(self, value: tuple[MacBehind, ...]) -> None:
        if not isinstance(value, tuple):
            raise ValueRefused("wrong-type", f"wanted {self.expected}")

    def plain(self, value: tuple[MacBehind, ...]) -> Any:
        return [entry.mac for entry in value]

    def schema(self) -> JsonSchema:
        return {"type": "array"}
