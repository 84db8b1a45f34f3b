"""A document's expectations, tried with packets between the VIFs of a lab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vnet.lab.errors import UnknownName
from vnet.lab.lab import Lab
from vnet.lab.matrix import running_vifs
from vnet.lab.streams import packet_between
from vnet.model import Protocol, Vif
from vnet.topology.document import Expectation, Reach

OUTSIDE = "outside"
TCP_SYN = "S"
ECHO_REQUEST = 8
SOURCE_PORT = 40000


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an expectation held. reached: the pairs of VIFs between which a packet arrived."""

    text: str
    held: bool
    reached: tuple[tuple[str, str], ...]


def check(lab: Lab, expectation: Expectation) -> Outcome:
    """Send the expectation's packet between all VIFs that it names. 'reachable' holds if any pair is, 'unreachable' if none."""
    senders, receivers = endpoint(lab, expectation.from_), endpoint(lab, expectation.to)
    reached = []
    for sender in senders:
        targets = [vif for vif in receivers if vif is not sender]
        found = lab.send(lab.label(sender), [_packet(expectation, sender, to) for to in targets]) if targets else ()
        reached += [
            (lab.label(sender), lab.label(to))
            for to in targets
            if any(item.to == lab.label(to) and item.frame[:6] == _mac(to) for item in found)
        ]
    held = bool(reached) == (expectation.expect is Reach.REACHABLE)
    return Outcome(describe(expectation), held, tuple(reached))


def endpoint(lab: Lab, name: str) -> list[Vif]:
    """The VIFs that run behind an endpoint: a VIF, a VM, or a network. Raises UnknownName."""
    vifs = running_vifs(lab)
    chosen = [vif for vif in vifs if name in (vif.id, lab.label(vif), vif.vm, vif.network)]
    known = {vif.network for vif in vifs} | {vif.vm or vif.id for vif in vifs}
    if not chosen and name not in {network.name for network in lab.spec.networks}:
        raise UnknownName("endpoint that runs", name, sorted(known))
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
