"""Link-local addresses (RFC 4291 §2.5.6): the one that follows from a MAC, and those that guests choose for themselves.

One rule: first come, first served, as in RFC 6620. A VIF's own are the address that its MAC gives, those declared for it, and what it chose
before any other VIF of its network did. An address that is another's own by MAC or declaration is never chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from socket import AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Any, Protocol

from vnet.grammar.nodes import ListNode, TextNode, clip
from vnet.grammar.value_types import Column, ValueRefused, ValueType

if TYPE_CHECKING:
    from vnet.grammar.nodes import Node
    from vnet.grammar.source import Source
    from vnet.grammar.value_types import Failed, JsonSchema

MAX_LINK_LOCALS = 4  # that one VIF has chosen; the oldest goes where another one comes
_EUI64 = b"\xff\xfe"  # in the middle of an interface identifier that follows from a MAC (RFC 4291 appendix A)


@dataclass(frozen=True, slots=True, order=True)
class LinkLocal:
    """An address that a guest chose. since: milliseconds since 1970, when its host granted it."""

    since: int
    address: str


class OtherIdentity(Protocol):
    """What a VIF is besides its own MAC."""

    @property
    def mac(self) -> str: ...
    @property
    def addresses(self) -> tuple[str, ...]: ...


class Neighbour(Protocol):
    """What of a binding says which addresses its VIF has."""

    @property
    def vif(self) -> str: ...
    @property
    def mac(self) -> str: ...
    @property
    def addresses(self) -> tuple[str, ...]: ...
    @property
    def also(self) -> tuple[OtherIdentity, ...]: ...
    @property
    def link_locals(self) -> tuple[LinkLocal, ...]: ...


def link_local(mac: str) -> str:
    """The address that IPv6 derives from a MAC (RFC 4291 appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return str(IPv6Address(bytes((0xFE, 0x80, *bytes(6), octets[0] ^ 2, *octets[1:3], *_EUI64, *octets[3:]))))


def mac_of(address: str) -> str | None:
    """The MAC that gives a link-local address; None where none does."""
    octets = inet_pton(AF_INET6, address)
    if octets[:8] != b"\xfe\x80" + bytes(6) or octets[11:13] != _EUI64:
        return None
    return bytes((octets[8] ^ 2, *octets[9:11], *octets[13:])).hex(":")


def is_link_local(address: bytes) -> bool:
    """Whether 16 bytes are an address of fe80::/10."""
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def chosen(bindings: Iterable[Neighbour]) -> tuple[LinkLocal, ...]:
    """The addresses that a VIF has chosen, by its bindings: while it moves, both hosts take them in."""
    first: dict[str, int] = {}
    for binding in bindings:
        for entry in binding.link_locals:
            first[entry.address] = min(entry.since, first.get(entry.address, entry.since))
    if not first:
        return ()
    return tuple(sorted(LinkLocal(since, address) for address, since in first.items())[-MAX_LINK_LOCALS:])


def with_another(before: tuple[LinkLocal, ...], address: str, now_ms: int) -> tuple[LinkLocal, ...]:
    """The chosen addresses once another one is granted."""
    since = max([now_ms, *(entry.since + 1 for entry in before)])  # it is the newest, whatever the clock says
    return tuple(sorted((*before, LinkLocal(since, address)))[-MAX_LINK_LOCALS:])


def owner(address: str, vif: str, bindings: Iterable[Neighbour]) -> Neighbour | None:
    """The binding of another VIF of the network that has a link-local address; None where a VIF may choose it."""
    mac = mac_of(address)
    for binding in bindings:
        if binding.vif != vif and (
            binding.mac == mac
            or address in binding.addresses
            or any(mac == identity.mac or address in identity.addresses for identity in binding.also)
            or any(entry.address == address for entry in binding.link_locals)
        ):
            return binding
    return None


def comes_before(address: str, first: Neighbour, second: Neighbour) -> bool:
    """Whether of two VIFs that both have an address the first keeps it: by its MAC or declaration, then by the time of the choice."""
    return _rank(address, first) < _rank(address, second)


def _rank(address: str, binding: Neighbour) -> tuple[int, str]:
    if any(address in of.addresses or address == link_local(of.mac) for of in (binding, *binding.also)):
        return -1, binding.vif
    since = (entry.since for entry in binding.link_locals if entry.address == address)
    return next(since, 1 << 63), binding.vif


def _decoded(cell: Mapping[str, int]) -> tuple[LinkLocal, ...]:
    for address in cell:
        try:
            octets = inet_pton(AF_INET6, address)
        except OSError:
            octets = bytes(16)
        if not is_link_local(octets) or inet_ntop(AF_INET6, octets) != address:
            raise ValueRefused("wrong-address", f"{clip(address)} is no link-local address")
    return tuple(sorted(LinkLocal(since, address) for address, since in cell.items()))


class LinkLocalList(ValueType[tuple[LinkLocal, ...]]):
    """Addresses that a guest chose, the oldest first, each with its time: agents write them, and no document has them."""

    expected = "a list of link-local addresses"
    column = Column(
        "string", "integer", many=True,
        encode=lambda entries: {entry.address: entry.since for entry in entries},
        decode=lambda cell: _decoded(cell) if cell else (),
    )  # fmt: skip
    python = "list[str]"

    def read(self, node: Node, source: Source) -> tuple[LinkLocal, ...] | Failed:
        """As answers have them: the oldest first, without their times."""
        if not isinstance(node, ListNode):
            return self.wrong(node, source)
        return tuple(LinkLocal(n, item.text) for n, item in enumerate(node.items) if isinstance(item, TextNode))

    def check(self, value: tuple[LinkLocal, ...]) -> None:
        if not isinstance(value, tuple):
            raise ValueRefused("wrong-type", f"wanted {self.expected}")

    def plain(self, value: tuple[LinkLocal, ...]) -> Any:
        return [entry.address for entry in value]

    def schema(self) -> JsonSchema:
        return {"type": "array"}
