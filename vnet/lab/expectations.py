"""A document's expectations, tried with packets between the VIFs of a lab."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from vnet.lab.deliveries import Deliveries
from vnet.lab.errors import NotInLab
from vnet.lab.lab import Lab
from vnet.lab.matrix import running_vifs
from vnet.lab.netns import switch_ports
from vnet.lab.packets import TAG_TYPE
from vnet.lab.streams import packet_between
from vnet.objects import Protocol, Vif
from vnet.topology.document import Expectation, Reach

OUTSIDE = "outside"
TCP_SYN = "S"
ECHO_REQUEST = 8
SOURCE_PORT = 40000
OUTSIDE_MAC = "0e:00:00:00:00:fe"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an expectation held. reached: the pairs of VIFs between which a packet arrived."""

    text: str
    held: bool
    reached: tuple[tuple[str, str], ...]


def check(lab: Lab, expectation: Expectation) -> Outcome:
    """Send the expectation's packet between all VIFs that it names. 'reachable' holds if any pair is, 'unreachable' if none.

    'outside' is a station on every uplink's physical switch, which sends on the VLAN of the VIF's network (untagged to others').
    """
    outside = OUTSIDE in (expectation.from_, expectation.to)
    stations = [lab.station(name) for name in sorted(switch_ports(lab.spec))] if outside else []
    if expectation.from_ == OUTSIDE:
        reached = [
            (OUTSIDE, lab.label(to))
            for to in endpoint(lab, expectation.to)
            for station in stations
            if _arrived(lab, to, lab.send(station, _from_outside(lab, expectation, to)))
        ]
    elif expectation.to == OUTSIDE:
        names = {station.name for station in stations}
        reached = []
        for sender in endpoint(lab, expectation.from_):
            found = lab.send(lab.label(sender), _packet(expectation, sender, _outsider(lab, sender)))
            reached += [(lab.label(sender), OUTSIDE)] if any(item.to in names for item in found) else []
    else:
        reached = _between(lab, expectation)
    held = bool(reached) == (expectation.expect is Reach.REACHABLE)
    return Outcome(describe(expectation), held, tuple(dict.fromkeys(reached)))


def _between(lab: Lab, expectation: Expectation) -> list[tuple[str, str]]:
    receivers = endpoint(lab, expectation.to)
    reached = []
    for sender in endpoint(lab, expectation.from_):
        targets = [vif for vif in receivers if vif is not sender]
        if targets:
            found = lab.send(lab.label(sender), [_packet(expectation, sender, to) for to in targets])
            reached += [(lab.label(sender), lab.label(to)) for to in targets if _arrived(lab, to, found)]
    return reached


def _arrived(lab: Lab, to: Vif, found: Deliveries) -> bool:
    return any(item.to == lab.label(to) and item.frame[:6] == _mac(to) for item in found)


def _outsider(lab: Lab, peer: Vif) -> Vif:
    """An interface of a device outside, on the network of `peer` and with the last address of its subnet."""
    nets = [ip_network(address, strict=False) for address in lab.spec.guest_addresses(peer)]
    last = tuple(sorted(str(net.broadcast_address - 1) for net in nets))
    return Vif(OUTSIDE, peer.network, OUTSIDE_MAC, addresses=last)


def _from_outside(lab: Lab, expectation: Expectation, to: Vif) -> bytes:
    frame, tag = _packet(expectation, _outsider(lab, to), to), lab.spec.network(to.network).tag
    return frame[:12] + TAG_TYPE + tag.to_bytes(2) + frame[12:] if tag else frame


def endpoint(lab: Lab, name: str) -> list[Vif]:
    """The VIFs that run behind an endpoint: a VIF, a VM, a network, or a security group. Raises NotInLab."""
    vifs = running_vifs(lab)
    chosen = [vif for vif in vifs if name in (vif.id, lab.label(vif), vif.vm, vif.network, *vif.groups)]
    known = {vif.network for vif in vifs} | {vif.vm or vif.id for vif in vifs}.union(*(vif.groups for vif in vifs))
    if not chosen and name not in {network.name for network in lab.spec.networks}:
        raise NotInLab("endpoint that runs", name, sorted(known))
    return chosen


def describe(expectation: Expectation) -> str:
    """An expectation as a line."""
    kind = expectation.protocol.value if expectation.protocol else "ping"
    port = f" {expectation.port}" if expectation.port else ""
    what = f"{expectation.from_} to {expectation.to}, {kind}{port}: {expectation.expect.value}"
    return f"{expectation.name} ({what})" if expectation.name else what


def _mac(vif: Vif) -> bytes:
    return bytes.fromhex(vif.mac.replace(":", ""))


def _packet(expectation: Expectation, sender: Vif, to: Vif) -> bytes:
    from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: PLC0415 - half a second that not every lab needs

    plain: Any = packet_between(sender, to)
    if IP not in plain:
        return bytes(plain / b"vnet expectation")
    plain[IP].remove_payload()
    port = expectation.port or 0
    match expectation.protocol:
        case Protocol.TCP:
            return bytes(plain / TCP(sport=SOURCE_PORT, dport=port, flags=TCP_SYN))
        case Protocol.UDP:
            return bytes(plain / UDP(sport=SOURCE_PORT, dport=port))
        case _:
            return bytes(plain / ICMP(type=ECHO_REQUEST) / b"vnet expectation")
