"""What a network's frames cost on the wire, and so how much of the underlay's MTU is left to the VM."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from vnet.objects.values import MAX_MTU, NetworkType

# Outer IPv4 (20), the encapsulation with its key, and the inner Ethernet header (14), which the outer packet carries too.
# VXLAN: UDP 8 + 8 (RFC 7348 §5). Geneve without options: UDP 8 + 8 (RFC 8926 §3.4). GRE with a key: 8 (RFC 2890 §2).
OVERHEAD_IPV4 = {NetworkType.VXLAN: 50, NetworkType.GENEVE: 50, NetworkType.GRE: 42}
ETHERNET_MTU = 1500  # what stations on a physical network expect of each other unless told (RFC 894)
IPV6_MORE = 20  # RFC 8200 §3: the IPv6 header has 40 bytes


def overhead_bytes(kind: NetworkType, vtep: str | None) -> int:
    """Bytes of the underlay's MTU that the encapsulation takes, over the family of the VTEP address; 0 without a tunnel."""
    base = OVERHEAD_IPV4.get(kind, 0)
    return base + IPV6_MORE if base and vtep is not None and ip_address(vtep).version == 6 else base


def mtu_arithmetic(kind: NetworkType, underlay_mtu: int, vtep: str | None) -> str:
    """The computation, as a person would write it: '1500 (underlay) - 50 (vxlan over IPv4) = 1450'."""
    family = "IPv6" if vtep is not None and ip_address(vtep).version == 6 else "IPv4"
    cost = overhead_bytes(kind, vtep)
    return f"{underlay_mtu} (underlay) - {cost} ({kind.value} over {family}) = {underlay_mtu - cost}"


def mtu_capacity(kind: NetworkType, underlay_mtu: int, vtep: str | None, uplinks: Iterable[int | None] = ()) -> int:
    """The largest MTU a network can have. uplinks: for a VLAN network, its uplink's MTU on each host, None if not stated."""
    if kind is NetworkType.INTERNAL:
        return MAX_MTU
    if kind is NetworkType.VLAN:
        return min((underlay_mtu if mtu is None else mtu for mtu in uplinks), default=underlay_mtu)
    return underlay_mtu - overhead_bytes(kind, vtep)


def default_mtu(kind: NetworkType, capacity: int) -> int:
    """The MTU of a network that does not say: all that a tunnel leaves; elsewhere what other stations expect."""
    return capacity if kind.is_tunnel else min(ETHERNET_MTU, capacity)
