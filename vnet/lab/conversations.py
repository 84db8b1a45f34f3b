"""Conversations between the VIFs and stations of a lab, packet by packet, as the simulator plays them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from vnet.lab.packets import LabPackets
from vnet.objects import Protocol
from vnet.sim.conversation import Party, PlannedPacket, party_of, plan, talk_of, title_of
from vnet.sim.deliveries import Station
from vnet.sim.packets import CLIENT_PORTS, Part
from vnet.sim.trace import NO_COMMON_VERSION, Leg, Trace

# Each conversation has a port of its own, so that the hosts' connection trackers take none for a part of another.
_source_ports = itertools.cycle(range(*CLIENT_PORTS))
next(itertools.islice(_source_ports, os.getpid() % 16384, None))


@dataclass(slots=True)
class LabConversation:
    """A conversation under way: its packets, and the legs of those that were sent."""

    source: Party
    target: Party
    protocol: Protocol
    port: int
    source_port: int = field(default_factory=_source_ports.__next__)
    packets: list[PlannedPacket] = field(init=False)
    legs: list[Leg] = field(default_factory=list)
    lost: bool = False

    def __post_init__(self) -> None:
        self.packets = plan(self.source, self.target, self.protocol, self.port, self.source_port)

    @property
    def next(self) -> PlannedPacket | None:
        """The packet to send next; None at the end, or after one that did not arrive."""
        return None if self.lost or len(self.legs) == len(self.packets) else self.packets[len(self.legs)]

    @property
    def reset(self) -> bytes | None:
        """The frame that ends a TCP connection which hosts may track; None without one."""
        talk = talk_of(self.source, self.target, self.protocol, self.port, self.source_port)
        if talk is None or self.protocol is not Protocol.TCP or not any(not leg.aside and leg.to for leg in self.legs):
            return None
        return talk.frame(Part.RESET)

    @property
    def trace(self) -> Trace:
        """The legs, without hops: a lab sees only the receivers of a packet."""
        title = title_of(self.source, self.target, self.protocol, self.port)
        if not self.packets:
            return Trace(f"{title}: {NO_COMMON_VERSION}", (), False)
        return Trace(title, tuple(self.legs), not self.lost and self.next is None)


def play(lab: LabPackets, conversations: Sequence[LabConversation]) -> None:
    """Play conversations side by side: in each round all that one sender sends next goes out together."""
    while going := [(talk, packet) for talk in conversations if (packet := talk.next) is not None]:
        rounds: dict[str | Station, list[tuple[LabConversation, PlannedPacket]]] = {}
        for talk, packet in going:
            rounds.setdefault(packet.sender.endpoint, []).append((talk, packet))
        for sender, turns in rounds.items():
            received = lab.send(sender, [packet.frame for _, packet in turns])
            for talk, packet in turns:
                items = tuple(item for item in received if _is_copy(item.frame, packet.frame))
                verdict = f"delivered to {', '.join(sorted(item.to for item in items)) or 'nobody'}"
                talk.legs.append(Leg(packet.title, (), items, (), verdict, packet.aside))
                talk.lost = packet.receiver.delivery not in talk.legs[-1].to
    for talk in conversations:
        if (frame := talk.reset) is not None:
            lab.send(talk.source.endpoint, frame)


def _is_copy(received: bytes, sent: bytes) -> bool:
    """Whether a frame is a copy of a sent one: a trunk VIF receives it with a tag, and Linux bridges cut its padding off."""
    return received.rstrip(b"\0").endswith(sent[14:].rstrip(b"\0"))


def connect(lab: LabPackets, source: str, target: str, protocol: Protocol, port: int) -> Trace:
    """Play one conversation between two VIFs."""
    ours, theirs = (party_of(lab.label(vif), vif) for vif in (lab.vif(source), lab.vif(target)))
    talk = LabConversation(ours, theirs, protocol, port)
    play(lab, [talk])
    return talk.trace
