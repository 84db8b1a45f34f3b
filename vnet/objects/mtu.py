"""The part of the underlay's MTU that is left to the VM once a network's frames are encapsulated."""

from __future__ import annotations

from collections.abc import Iterable

from vnet.objects.carriers import IPV6_MORE_BYTES, NetworkType, Way
from vnet.objects.encryption import wireguard_bytes
from vnet.objects.limits import MAX_MTU
from vnet.objects.words import ip_version

TAG_BYTES = 4
ETHERNET_MTU = 1500  # what stations on a physical network expect of each other unless told (RFC 894)


def overhead_bytes(network_type: NetworkType, vtep: str | None, *, encrypted: bool = False) -> int:
    """The bytes of the underlay's MTU that the encapsulation of every frame takes; 0 for a type without tunnels. Encrypted tunnels are
    of IPv6 inside WireGuard."""
    carrier = network_type.carrier
    if carrier.way is not Way.TUNNEL or carrier.encapsulation is None:
        return 0
    if encrypted:
        return carrier.encapsulation.overhead_bytes + IPV6_MORE_BYTES + wireguard_bytes(vtep)
    return carrier.encapsulation.overhead(vtep)


def mtu_arithmetic(network_type: NetworkType, underlay_mtu: int, vtep: str | None, *, encrypted: bool = False) -> str:
    """The computation, as a person would write it: '1500 (underlay) - 50 (vxlan over IPv4) = 1450'."""
    family = "IPv6" if vtep is not None and ip_version(vtep) == 6 else "IPv4"
    cost = overhead_bytes(network_type, vtep, encrypted=encrypted)
    if encrypted:
        outer = wireguard_bytes(vtep)
        parts = f"{cost - outer} ({network_type.value} over IPv6) - {outer} (WireGuard over {family})"
        return f"{underlay_mtu} (underlay) - {parts} = {underlay_mtu - cost}"
    return f"{underlay_mtu} (underlay) - {cost} ({network_type.value} over {family}) = {underlay_mtu - cost}"


def mtu_capacity(
    network_type: NetworkType,
    underlay_mtu: int,
    vtep: str | None,
    uplinks: Iterable[int | None] = (),
    *,
    encrypted: bool = False,
    service: bool = False,
) -> int:
    """The largest MTU a network can have. uplinks: of a network on an uplink, the uplink's MTU on each host, None if not stated.
    service: its tag is a service tag, inside which guests may have one of their own."""
    match network_type.carrier.way:
        case Way.NONE:
            return MAX_MTU
        case Way.UPLINK:
            carried = min((underlay_mtu if mtu is None else mtu for mtu in uplinks), default=underlay_mtu)
            return carried - TAG_BYTES * service  # a NIC counts all tags but the outer one
        case Way.TUNNEL:
            return underlay_mtu - overhead_bytes(network_type, vtep, encrypted=encrypted)


def default_mtu(network_type: NetworkType, capacity: int) -> int:
    """The MTU of a network that does not say: all that a tunnel leaves; elsewhere what other stations expect."""
    return capacity if network_type.carrier.way is Way.TUNNEL else min(ETHERNET_MTU, capacity)
