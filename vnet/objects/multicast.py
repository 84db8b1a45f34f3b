"""Multicast groups that VIFs listen to, on a network that snoops on IGMP and MLD (RFC 4541).

One rule: a VIF of which nothing is known gets every group. So what was never asked, is not heard any more, or is too much is flooded, and not lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol

from vnet.grammar.nodes import ListNode, TextNode, clip
from vnet.grammar.value_types import Column, ValueRefused, ValueType

if TYPE_CHECKING:
    from vnet.grammar.nodes import Node
    from vnet.grammar.source import Source
    from vnet.grammar.value_types import Failed, JsonSchema

MAX_GROUPS = 64  # of one VIF: with more it gets every group
MAX_GROUPS_OF_NETWORK = 1024  # with more, multicast of the network is flooded
# The words for a VIF's state beside its groups: it was asked, it is a router, it listens to too many.
ASKED, ROUTER, EVERY = "asked", "router", "every"

LINK_SCOPE = 2  # RFC 4291 §2.7

DEFAULT_INTERVAL_S = 125  # between general queries (RFC 3376 §8.2, RFC 3810 §9.2)
MAX_INTERVAL_S = 3600
ROBUSTNESS = 2  # RFC 3376 §8.1
MAX_RESPONSE_MS = 10_000  # RFC 3376 §8.3
ROUTER_MS = 255_000  # how long a router is one that was heard once (RFC 3376 §8.5)
LAST_QUERY_MS = 2_000  # how long a group is kept that may have been left: two queries, a second each (RFC 3376 §8.8)


@dataclass(frozen=True, slots=True)
class Listening:
    """What a VIF that was asked listens to. groups: in order. router: a multicast router, which gets every group and the reports; every: it
    listens to more groups than are kept, so it gets every group."""

    groups: tuple[str, ...] = ()
    router: bool = False
    every: bool = False

    @property
    def gets_all(self) -> bool:
        """Whether it gets groups that it has not joined."""
        return self.router or self.every


class Listener(Protocol):
    """What of a binding says which groups its VIF listens to."""

    @property
    def listening(self) -> Listening | None: ...


def listening_of(bindings: Iterable[Listener]) -> Listening | None:
    """What a VIF listens to, by its bindings: while it moves, what either host has heard. None where neither has asked."""
    known = [binding.listening for binding in bindings if binding.listening is not None]
    return united(known) if known else None


def united(known: Iterable[Listening]) -> Listening:
    """What all of these say together."""
    found = list(known)
    groups = {group for listening in found for group in listening.groups}
    if len(groups) > MAX_GROUPS or any(listening.every for listening in found):
        return Listening((), any(listening.router for listening in found), True)
    return Listening(tuple(sorted(groups)), any(listening.router for listening in found))


def is_flooded(group: str) -> bool:
    """Whether a group is flooded, so that nobody has to join it: 224.0.0.0/24 (RFC 4541 §2.1.2), and IPv6 groups of up to link-local scope,
    with all nodes (RFC 4541 §3) and solicited nodes."""
    octets = ip_address(group).packed
    return octets[:3] == b"\xe0\0\0" if len(octets) == 4 else octets[1] & 0x0F <= LINK_SCOPE


def response_ms(interval_s: int) -> int:
    """Within how many milliseconds a general query is to be answered, where one is sent each `interval_s` seconds."""
    return min(MAX_RESPONSE_MS, interval_s * 1000 // 2)


def kept_ms(interval_s: int) -> int:
    """How long a group is kept that was reported once (RFC 3376 §8.4)."""
    return ROBUSTNESS * interval_s * 1000 + response_ms(interval_s)


def words_of(listening: Listening | None) -> list[str]:
    """What a VIF listens to, as answers have it; empty where it was not asked."""
    if listening is None:
        return []
    return [ASKED, *([ROUTER] if listening.router else []), *([EVERY] if listening.every else []), *listening.groups]


def _decoded(cell: frozenset[str] | Iterable[str]) -> Listening | None:
    found = set(cell)
    if not found:
        return None
    groups = sorted(found - {ASKED, ROUTER, EVERY})
    if len(groups) > MAX_GROUPS:
        raise ValueRefused("too-many", f"{len(groups)} groups: at most {MAX_GROUPS}")
    for group in groups:
        if not _is_group(group):
            raise ValueRefused("wrong-address", f"{clip(group)} is no multicast group")
    return Listening(tuple(groups), ROUTER in found, EVERY in found)


def _is_group(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return address.is_multicast and str(address) == text and not is_flooded(text)


class ListeningKind(ValueType[Listening]):
    """The groups that a VIF listens to: agents write them, and no document has them."""

    expected = "a list of multicast groups"
    column = Column("string", many=True, encode=lambda listening: frozenset(words_of(listening)), decode=_decoded)
    python = "list[str]"

    def read(self, node: Node, source: Source) -> Listening | Failed:
        """As answers have it: the words and groups."""
        if not isinstance(node, ListNode):
            return self.wrong(node, source)
        return _decoded(item.text for item in node.items if isinstance(item, TextNode)) or Listening()

    def check(self, value: Listening) -> None:
        if not isinstance(value, Listening):
            raise ValueRefused("wrong-type", f"wanted {self.expected}")

    def plain(self, value: Listening) -> Any:
        return words_of(value)

    def schema(self) -> JsonSchema:
        return {"type": "array"}
