"""Conversations between the VIFs of a lab, packet by packet, as the simulator plays them."""

from __future__ import annotations

import itertools
import os

from vnet.lab.packets import LabPackets
from vnet.objects import Protocol
from vnet.sim.conversation import party_of, plan, talk_of, title_of
from vnet.sim.packets import CLIENT_PORTS, Part
from vnet.sim.trace import Leg, Trace

# Each conversation has a port of its own, so that the hosts' connection trackers take none for a part of another.
_source_ports = itertools.cycle(range(*CLIENT_PORTS))
next(itertools.islice(_source_ports, os.getpid() % 16384, None))


def connect(lab: LabPackets, source: str, target: str, protocol: Protocol, port: int) -> Trace:
    """Send the packets of a conversation, up to the first that does not arrive. The trace's legs have no hops."""
    ours, theirs = (party_of(lab.label(vif), vif) for vif in (lab.vif(source), lab.vif(target)))
    source_port, title = next(_source_ports), title_of(ours, theirs, protocol, port)
    legs: list[Leg] = []
    for packet in (packets := plan(ours, theirs, protocol, port, source_port)):
        received = lab.send(packet.sender.endpoint, packet.frame)
        verdict = f"delivered to {', '.join(received.to) or 'nobody'}"
        legs.append(Leg(packet.title, (), received.items, (), verdict, packet.aside))
        if packet.receiver.delivery not in received.to:
            break
    reached = len(legs) == len(packets) > 0 and packets[-1].receiver.delivery in legs[-1].to
    talk = talk_of(ours, theirs, protocol, port, source_port)
    if talk is not None and protocol is Protocol.TCP and any(not leg.aside and leg.to for leg in legs):
        lab.send(source, talk.frame(Part.RESET))
    return Trace(title if packets else f"{title}: they have no IP version in common", tuple(legs), reached)
