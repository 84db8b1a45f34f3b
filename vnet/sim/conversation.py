"""Conversations in a pool: does one end reach the other, and if not, which packet died where.

A conversation is what a guest does: ask for the other's MAC, send, be answered. It works if every packet of it arrives at the
one it is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from vnet.objects import Protocol, Vif
from vnet.sim.deliveries import Station
from vnet.sim.errors import NotPlugged
from vnet.sim.fabric import Fabric
from vnet.sim.packets import CLIENT_PORT, End, Part, Talk, resolve
from vnet.sim.trace import Leg, Trace, follow

OUTSIDE_MAC = "02:76:6e:65:74:01"
NOWHERE = ("192.0.2.1", "2001:db8::1")  # documentation addresses (RFC 5737, RFC 3849): nobody's


@dataclass(frozen=True, slots=True)
class Party:
    """An end of a conversation in a pool: a VIF or an outside station, what it is called, and its addresses."""

    where: str | Station
    name: str
    mac: str
    addresses: tuple[str, ...]

    @property
    def delivery(self) -> str:
        """What deliveries to it are called."""
        return self.where if isinstance(self.where, str) else self.where.name

    @property
    def versions(self) -> frozenset[int]:
        return frozenset(ip_address(address).version for address in self.addresses)

    def address(self, version: int) -> str:
        return next(a for a in self.addresses if ip_address(a).version == version)


def party(pool: Fabric, vif: Vif) -> Party:
    """A VIF as an end. One without addresses has one of nobody's, which a guest could have set itself."""
    return Party(pool.label(vif), pool.label(vif), vif.mac, vif.addresses or _stand_in(vif))


def _stand_in(vif: Vif) -> tuple[str, ...]:
    low = int(vif.mac.replace(":", "")[-4:], 16)
    v4 = f"198.18.{low >> 8}.{low & 0xFF}"  # RFC 2544's range for tests between hosts
    return v4, f"2001:db8::{low:x}"


def outside(pool: Fabric, vif: Vif) -> Party | None:
    """An outside station where this VIF's network meets the physical one; None where it does not."""
    network = pool.state.networks.get(vif.network)
    if network is None or network.uplink not in pool.physical:
        return None
    station = pool.station(network.uplink, network.tag or None)
    return Party(station, f"outside ({station.name})", OUTSIDE_MAC, NOWHERE)


def version_of(source: Party, target: Party) -> int | None:
    """The IP version that two ends talk, None where they have none in common."""
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
) -> list[tuple[str, Party, Party, bytes]]:
    """The packets of a conversation: what each is, who sends it to whom, and its bytes. Empty without a common IP version."""
    talk = talk_of(source, target, protocol, port, source_port)
    if talk is None:
        return []
    what = name_of(protocol, port)
    asked, told = resolve(talk)
    kind = "ARP" if ip_address(talk.source.address).version == 4 else "neighbour discovery"
    packets = [
        (f"{kind} from {source.name}", source, target, asked),
        (f"{kind} answer from {target.name}", target, source, told),
        (f"{what} from {source.name}", source, target, talk.frame(Part.REQUEST)),
        (f"{what} answer from {target.name}", target, source, talk.frame(Part.ANSWER)),
    ]
    if protocol is Protocol.TCP:
        packets.append((f"end of the {what} handshake", source, target, talk.frame(Part.CONFIRM)))
    return packets


def name_of(protocol: Protocol, port: int) -> str:
    """What people call a conversation."""
    return f"{protocol.value} {port}" if port else "ping"


def reaches(pool: Fabric, source: Party, target: Party, protocol: Protocol = Protocol.ICMP, port: int = 0) -> bool:
    """Whether a whole conversation works."""
    packets = plan(source, target, protocol, port)
    try:
        return bool(packets) and all(
            receiver.delivery in pool.send(sender.where, frame).to for _, sender, receiver, frame in packets
        )
    except NotPlugged:
        return False


def trace(pool: Fabric, source: Party, target: Party, protocol: Protocol = Protocol.ICMP, port: int = 0) -> Trace:
    """Every packet of a conversation, to the first that does not arrive. Raises NotPlugged."""
    what = name_of(protocol, port)
    title = f"{source.name} to {target.name}, {what}"
    packets = plan(source, target, protocol, port)
    if not packets:
        return Trace(f"{title}: they have no IP version in common", (), False)
    legs: list[Leg] = []
    with pool.undone():
        for name, sender, receiver, frame in packets:
            leg = follow(pool, sender.where, frame, name, aside=not name.startswith(what))
            legs.append(leg)
            if receiver.delivery not in leg.to:
                return Trace(title, tuple(legs), False)
    return Trace(title, tuple(legs), True)
