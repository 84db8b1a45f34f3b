"""The deliveries of sent packets: receivers and bytes. The simulator and the lab both return them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vnet.sim.errors import PacketError

FRAME_MIN, FRAME_MAX = 14, 65535  # bytes
Trail = tuple[Any, ...]  # (the trail so far, the next port), so that a hop costs one tuple


def flat(trail: Trail) -> tuple[str, ...]:
    """The ports of a trail, in order."""
    ports: list[str] = []
    while trail:
        trail, port = trail
        ports.append(port)
    return tuple(reversed(ports))


@dataclass(frozen=True, slots=True)
class Station:
    """A device of the physical network, on the switch of one uplink. With a tag it sees and sends that VLAN only, untagged;
    without, all frames as they are on the wire."""

    name: str
    uplink: str
    tag: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A frame as it arrived. to: a VIF as 'web1/0', or a station's name.

    after_ms: time since the first frame was sent, 0 in the simulator.
    """

    to: str
    frame: bytes
    after_ms: float = 0.0
    trail: Trail = field(default=(), compare=False, repr=False)

    @property
    def path(self) -> tuple[str, ...]:
        """The ports it passed, from the sender to the receiver; empty in the lab."""
        return flat(self.trail)

    @property
    def packet(self) -> Any:
        """The frame, dissected by scapy."""
        from scapy.layers.l2 import Ether  # noqa: PLC0415 - half a second that only this needs

        return Ether(self.frame)


@dataclass(frozen=True, slots=True)
class Loss:
    """A frame that was dropped between switches: the place and the reason."""

    place: str
    reason: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The deliveries of one `send`, in order of arrival. lost: the frames dropped outside of the flows; empty in the lab."""

    items: tuple[Delivery, ...] = ()
    lost: tuple[Loss, ...] = ()

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Delivery:
        return self.items[index]

    @property
    def counts(self) -> Counter[str]:
        """The number of frames by receiver."""
        return Counter(item.to for item in self.items)

    @property
    def to(self) -> list[str]:
        """The receivers, sorted; each as often as it received a frame."""
        return sorted(item.to for item in self.items)

    def at(self, receiver: str) -> list[bytes]:
        """The frames that one VIF or station received."""
        return [item.frame for item in self.items if item.to == receiver]


def frames_of(packets: Any) -> list[bytes]:
    """One packet or several, as scapy packets or bytes, as frames on the wire. Raises PacketError for anything else."""
    if isinstance(packets, bytes | bytearray) or hasattr(packets, "layers"):
        frame = bytes(packets)
        if not FRAME_MIN <= len(frame) <= FRAME_MAX:
            raise PacketError(f"{len(frame)} bytes are no Ethernet frame: it has {FRAME_MIN} to {FRAME_MAX}")
        return [frame]
    if isinstance(packets, str | int) or not isinstance(packets, Iterable):
        raise PacketError(f"{type(packets).__name__} is no packet: give bytes, a scapy packet, or several of them")
    return [frame for packet in packets for frame in frames_of(packet)]
