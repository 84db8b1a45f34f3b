"""The part of the underlay's MTU that is left to the VM once a network's frames are encapsulated."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from vnet.objects.carriers import NetworkType, Way
from vnet.objects.limits import MAX_MTU

ETHERNET_MTU = 1500  # what stations on a physical network expect of each other unless told (RFC 894)


def overhead_bytes(network_type: NetworkType, vtep: str | None) -> int:
    """The bytes of the underlay's MTU that the encapsulation of every frame takes; 0 for a type without tunnels."""
    carrier = network_type.carrier
    if carrier.way is not Way.TUNNEL or carrier.encapsulation is None:
        return 0
    return carrier.encapsulation.overhead(vtep)


def mtu_arithmetic(network_type: NetworkType, underlay_mtu: int, vtep: str | None) -> str:
    """The computation, as a person would write it: '1500 (underlay) - 50 (vxlan over IPv4) = 1450'."""
    family = "IPv6" if vtep is not None and ip_address(vtep).version == 6 else "IPv4"
    cost = overhead_bytes(network_type, vtep)
    return f"{underlay_mtu} (underlay) - {cost} ({network_type.value} over {family}) = {underlay_mtu - cost}"


def mtu_capacity(
    network_type: NetworkType, underlay_mtu: int, vtep: str | None, uplinks: Iterable[int | None] = ()
) -> int:
    """The largest MTU a network can have. uplinks: of a network on an uplink, the uplink's MTU on each host, None if not stated."""
    match network_type.carrier.way:
        case Way.NONE:
            return MAX_MTU
        case Way.UPLINK:
            return min((underlay_mtu if mtu is None else mtu for mtu in uplinks), default=underlay_mtu)
        case Way.TUNNEL:
            return underlay_mtu - overhead_bytes(network_type, vtep)


def default_mtu(network_type: NetworkType, capacity: int) -> int:
    """The MTU of a network that does not say: all that a tunnel leaves; elsewhere what other stations expect."""
    return capacity if network_type.carrier.way is Way.TUNNEL else min(ETHERNET_MTU, capacity)
