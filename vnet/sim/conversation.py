"""Conversations in a pool: whether two ends reach each other, and if not, where a packet of theirs ended.

One rule: a conversation is what a guest does. It asks for the other's MAC, sends, and is answered; it works if every packet of
it arrives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import NamedTuple

from vnet.objects import Protocol, Vif
from vnet.sim.deliveries import Station
from vnet.sim.errors import AmbiguousVif, NotPlugged
from vnet.sim.fabric import Fabric
from vnet.sim.packets import CLIENT_PORT, End, Part, Talk, resolve
from vnet.sim.trace import NO_COMMON_VERSION, Leg, Trace, follow

OUTSIDE_MAC = "02:76:6e:65:74:01"
NOWHERE = ("192.0.2.1", "2001:db8::1")  # documentation addresses (RFC 5737, RFC 3849): nobody's


@dataclass(frozen=True, slots=True)
class Party:
    """An end of a conversation: a VIF ('web1/0') or an outside station, with its name and addresses."""

    endpoint: str | Station
    name: str
    mac: str
    addresses: tuple[str, ...]

    @property
    def delivery(self) -> str:
        """Its name in deliveries."""
        return self.endpoint if isinstance(self.endpoint, str) else self.endpoint.name

    @property
    def versions(self) -> frozenset[int]:
        """The IP versions that it has addresses of."""
        return frozenset(ip_address(address).version for address in self.addresses)

    def address(self, version: int) -> str:
        """Its first address of an IP version."""
        return next(a for a in self.addresses if ip_address(a).version == version)


class PlannedPacket(NamedTuple):
    """A packet of a conversation. aside: it only helps the others, as ARP does."""

    title: str
    sender: Party
    receiver: Party
    frame: bytes
    aside: bool


def party_of(label: str, vif: Vif) -> Party:
    """A VIF as an end. A VIF without addresses gets unused ones, as its guest could set them."""
    return Party(label, label, vif.mac, vif.addresses or _unused_addresses(vif))


def party(pool: Fabric, vif: Vif) -> Party:
    """A VIF of a pool as an end."""
    return party_of(pool.label(vif), vif)


def _unused_addresses(vif: Vif) -> tuple[str, ...]:
    low = int(vif.mac.replace(":", "")[-4:], 16)
    v4 = f"198.18.{low >> 8}.{low & 0xFF}"  # RFC 2544's range for tests between hosts
    return v4, f"2001:db8::{low:x}"


def outside(pool: Fabric, vif: Vif) -> Party | None:
    """An outside station on the VIF's network; None if the network has no uplink."""
    network = pool.state.networks.get(vif.network)
    if network is None or network.uplink not in pool.physical:
        return None
    station = pool.station(network.uplink, network.tag or None)
    return Party(station, f"outside ({station.name})", OUTSIDE_MAC, NOWHERE)


def ends_named(pool: Fabric, source: str, target: str) -> tuple[Vif | None, Vif | None]:
    """The VIFs of two names: a VIF, a VM, or 'outside' (None). Of a VM's VIFs it is the one on a network with the other end.

    Raises UnknownName, AmbiguousVif.
    """
    ours, theirs = _choices(pool, source), _choices(pool, target)
    if len(ours) > 1 or len(theirs) > 1:
        shared = [(a, b) for a in ours for b in theirs if _share_network(pool, a, b)]
        if len(shared) == 1:
            return shared[0]
        pairs = shared or [(a, b) for a in ours for b in theirs]
        for name, vifs in ((source, [a for a, _ in pairs]), (target, [b for _, b in pairs])):
            if len(set(labels := [f"{pool.label(vif)} ({vif.network})" for vif in vifs if vif])) > 1:
                raise AmbiguousVif(name, dict.fromkeys(labels))
    return ours[0], theirs[0]


def _choices(pool: Fabric, name: str) -> list[Vif | None]:
    return [None] if name == "outside" else [*(pool.vifs_of(name) or [pool.vif(name)])]


def _share_network(pool: Fabric, source: Vif | None, target: Vif | None) -> bool:
    if source is None or target is None:
        vif = source or target
        network = pool.state.networks.get(vif.network) if vif is not None else None
        return network is not None and network.uplink is not None
    return source.network == target.network


def version_of(source: Party, target: Party) -> int | None:
    """The IP version that two ends use, None if they have none in common."""
    common = source.versions & target.versions
    return min(common) if common else None


def talk_of(source: Party, target: Party, protocol: Protocol, port: int, source_port: int = CLIENT_PORT) -> Talk | None:
    """The conversation between two ends; None without a common IP version."""
    version = version_of(source, target)
    if version is None:
        return None
    ends = (End(source.mac, source.address(version)), End(target.mac, target.address(version)))
    return Talk(*ends, protocol, port, source_port)


def plan(
    source: Party, target: Party, protocol: Protocol, port: int, source_port: int = CLIENT_PORT
) -> list[PlannedPacket]:
    """The packets of a conversation. Empty without a common IP version."""
    talk = talk_of(source, target, protocol, port, source_port)
    if talk is None:
        return []
    service = name_of(protocol, port)
    request, reply = resolve(talk)
    resolution = "ARP" if ip_address(talk.source.address).version == 4 else "neighbour discovery"
    packets = [
        PlannedPacket(f"{resolution} from {source.name}", source, target, request, True),
        PlannedPacket(f"{resolution} answer from {target.name}", target, source, reply, True),
        PlannedPacket(f"{service} from {source.name}", source, target, talk.frame(Part.REQUEST), False),
        PlannedPacket(f"{service} answer from {target.name}", target, source, talk.frame(Part.ANSWER), False),
    ]
    if protocol is Protocol.TCP:
        packets.append(
            PlannedPacket(f"end of the {service} handshake", source, target, talk.frame(Part.CONFIRM), False)
        )
    return packets


def name_of(protocol: Protocol, port: int) -> str:
    """The name of a conversation for people: "tcp 443", "ping"."""
    return f"{protocol.value} {port}" if port else "ping"


def title_of(source: Party, target: Party, protocol: Protocol, port: int) -> str:
    """The title of a trace."""
    return f"{source.name} to {target.name}, {name_of(protocol, port)}"


def reaches(pool: Fabric, source: Party, target: Party, protocol: Protocol = Protocol.ICMP, port: int = 0) -> bool:
    """Whether a whole conversation works."""
    packets = plan(source, target, protocol, port)
    try:
        return bool(packets) and all(
            packet.receiver.delivery in pool.send(packet.sender.endpoint, packet.frame).to for packet in packets
        )
    except NotPlugged:
        return False


def trace(pool: Fabric, source: Party, target: Party, protocol: Protocol = Protocol.ICMP, port: int = 0) -> Trace:
    """Every packet of a conversation, up to the first that does not arrive. Raises NotPlugged."""
    title = title_of(source, target, protocol, port)
    packets = plan(source, target, protocol, port)
    if not packets:
        return Trace(f"{title}: {NO_COMMON_VERSION}", (), False)
    legs: list[Leg] = []
    with pool.undone():
        for packet in packets:
            leg = follow(pool, packet.sender.endpoint, packet.frame, packet.title, packet.aside)
            legs.append(leg)
            if packet.receiver.delivery not in leg.to:
                return Trace(title, (*legs[:-1], _without_port(pool, packet, leg)), False)
    return Trace(title, tuple(legs), True)


def _without_port(pool: Fabric, packet: PlannedPacket, leg: Leg) -> Leg:
    """A leg that did not arrive; its verdict says so if no host has a port of the receiver."""
    receiver = packet.receiver.endpoint
    if isinstance(receiver, Station) or pool.is_plugged(pool.vif(receiver)):
        return leg
    return replace(leg, verdict=f"no host has a port of {receiver}; {leg.verdict}")
