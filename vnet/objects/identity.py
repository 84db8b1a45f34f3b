"""The identities of a VIF: its MAC with its addresses, and what it may be besides.

One rule: a MAC is one VIF's on its network. The virtual MACs of VRRP (RFC 9568 §7.3) are the exception: they are of all VIFs that have its
virtual router, and so are the addresses stated with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from vnet.grammar.declare import Declared, StructOf, attr, unchecked
from vnet.grammar.value_types import Column, Integer, ListOf
from vnet.objects.link_local import link_local
from vnet.objects.words import ADDRESS, MAC_KIND, ip_version

MAX_ALSO, MAX_ADDRESSES, MAX_VRRP = 16, 16, 16  # a locked VIF's flows grow with the square of its IPv6 addresses
_VIRTUAL = {4: "00:00:5e:00:01:", 6: "00:00:5e:00:02:"}  # RFC 9568 §7.3


@dataclass(frozen=True, slots=True)
class Identity(Declared):
    """A MAC that a VIF may have besides its own, with the addresses that go with it."""

    TITLE: ClassVar[str] = "an identity"

    mac: str = attr(MAC_KIND, "The MAC address.", also=("mac-address", "hwaddr"))
    addresses: tuple[str, ...] = attr(
        ListOf(ADDRESS, "a list of addresses", ordered=True, most=MAX_ADDRESSES),
        "The IP addresses that it has as that MAC. Left out, any.",
        default=(),
        also=("address", "ip", "ips"),
    )


class Identities(ListOf[Identity]):
    """Identities in the order of their MACs; their row has them in a map from MAC to addresses."""

    column = Column(
        "string",
        "string",
        many=True,
        encode=lambda found: {identity.mac: " ".join(identity.addresses) for identity in found},
        decode=lambda cell: tuple(Identity(mac, tuple(cell[mac].split())) for mac in sorted(cell)),
    )

    def _value(self, values: list[Identity]) -> tuple[Identity, ...]:
        return tuple(sorted(values, key=lambda identity: identity.mac))


ALSO = Identities(StructOf(Identity), "a list of identities", unique=False, most=MAX_ALSO)
VRRP = ListOf(
    Integer("a virtual router, 1..255", 1, 255, bounded=False), "a list of virtual routers", ordered=True, most=MAX_VRRP
)  # RFC 9568 §5.2.3


class HasIdentities(Protocol):
    """A VIF, or a binding of one."""

    @property
    def mac(self) -> str: ...
    @property
    def addresses(self) -> tuple[str, ...]: ...
    @property
    def also(self) -> tuple[Identity, ...]: ...
    @property
    def vrrp(self) -> tuple[int, ...]: ...


def virtual_router(mac: str) -> int | None:
    """The virtual router that a MAC is of; None of an ordinary one."""
    return int(mac[-2:], 16) or None if mac.startswith(tuple(_VIRTUAL.values())) else None


def virtual_macs_of(router: int) -> tuple[str, ...]:
    """The virtual MACs of a virtual router: that of IPv4, then that of IPv6."""
    return tuple(f"{prefix}{router:02x}" for prefix in _VIRTUAL.values())


def macs_of(of: HasIdentities) -> tuple[str, ...]:
    """The MACs that are a VIF's alone, its own first."""
    if not of.also:
        return (of.mac,)
    return (of.mac, *(identity.mac for identity in of.also if virtual_router(identity.mac) is None))


def own_identities(of: HasIdentities) -> Iterator[Identity]:
    """What a VIF is alone: its own MAC first."""
    yield unchecked(Identity, {"mac": of.mac, "addresses": of.addresses})
    yield from (identity for identity in of.also if virtual_router(identity.mac) is None)


def virtual_identities(of: HasIdentities) -> Iterator[Identity]:
    """What a VIF may be as a virtual router: as the virtual MAC it has the virtual addresses, and advertises itself from its own (RFC 9568
    §5.1.1.1, §5.1.2.1). Where it may have any address as its own MAC, so it may as a virtual one."""
    if not of.vrrp:
        return
    stated: Mapping[str, tuple[str, ...]] = {identity.mac: identity.addresses for identity in of.also}
    for version, prefix in _VIRTUAL.items():
        own = [address for address in of.addresses if ip_version(address) == version]
        for router in of.vrrp:
            mac = f"{prefix}{router:02x}"
            addresses = [*own, *stated.get(mac, ())]
            if addresses and version == 6:
                addresses.append(link_local(of.mac))
            if addresses or not of.addresses:
                yield Identity(mac, tuple(sorted(addresses)) if of.addresses else ())
