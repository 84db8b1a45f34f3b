"""What came out when something was sent: who got which bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Delivery:
    """A frame as it arrived. to: a VIF as 'web1/0', or a station's name. after_ms: time since the first frame was sent."""

    to: str
    frame: bytes
    after_ms: float = 0.0

    @property
    def packet(self) -> Any:
        """The frame, dissected by scapy."""
        from scapy.layers.l2 import Ether  # noqa: PLC0415 - half a second that not every lab needs

        return Ether(self.frame)


@dataclass(frozen=True, slots=True)
class Deliveries:
    """All that one `send` gave, in order of arrival."""

    items: tuple[Delivery, ...] = ()

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Delivery:
        return self.items[index]

    @property
    def counts(self) -> Counter[str]:
        """How many frames each got."""
        return Counter(item.to for item in self.items)

    @property
    def to(self) -> list[str]:
        """Who got a frame, sorted; twice for whoever got two."""
        return sorted(item.to for item in self.items)

    def at(self, who: str) -> list[bytes]:
        """The frames that one VIF or station got."""
        return [item.frame for item in self.items if item.to == who]


def frames_of(packets: Any) -> list[bytes]:
    """One packet or several, as scapy packets or bytes, as frames on the wire."""
    if isinstance(packets, bytes) or hasattr(packets, "layers"):
        return [bytes(packets)]
    many: Iterable[Any] = packets
    return [bytes(packet) for packet in many]
