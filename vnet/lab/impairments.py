"""Links of a lab that are worse than a cable: late, lossy, slow, with a small MTU, without some VLANs.

One rule: a frame's fate is decided when it comes, from the impairment that holds then. The packet bridge carries it out, for the kernel here may
have no `netem` (tc-netem(8)), and the dummy driver has no kernel's network at all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from vnet.lab.ports import ETHERNET_HEADER, TAG_TYPES, VLAN_TAG_BYTES, Sink

QUEUE_S = 0.1  # what a slow link keeps, as time on the wire; what comes beyond is lost
QUEUE_FRAMES = 10  # that it keeps at least
MAX_DELAY_MS = 10_000
MAX_UNDER_WAY = 20_000  # frames of all links, delayed; what comes beyond is lost
UNTAGGED = 0


@dataclass(frozen=True, slots=True)
class Impairment:
    """A link's faults, alike in both directions. delay_ms, loss_percent, rate_bps: per direction. mtu: the largest IP packet in bytes.
    without_vlans: tags of frames that are lost, 0 is untagged ones. cut: nothing passes."""

    delay_ms: float = 0.0
    loss_percent: float = 0.0
    rate_bps: int | None = None
    mtu: int | None = None
    without_vlans: tuple[int, ...] = ()
    cut: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.delay_ms <= MAX_DELAY_MS:
            raise ValueError(f"a delay is 0 to {MAX_DELAY_MS} ms")
        if not 0 <= self.loss_percent <= 100:
            raise ValueError("a loss is 0 to 100 percent")
        if self.rate_bps is not None and self.rate_bps <= 0:
            raise ValueError("a rate is more than 0")
        if any(not UNTAGGED <= tag <= 4094 for tag in self.without_vlans):
            raise ValueError("a VLAN's tag is 1 to 4094; 0 stands for untagged frames")

    def __str__(self) -> str:
        parts = [
            f"delay {self.delay_ms:g} ms" if self.delay_ms else "",
            f"loss {self.loss_percent:g} %" if self.loss_percent else "",
            f"rate {self.rate_bps / 1e6:g} Mbit/s" if self.rate_bps else "",
            f"MTU {self.mtu}" if self.mtu else "",
            f"without VLAN {', '.join(str(tag or 'untagged') for tag in self.without_vlans)}" if self.without_vlans else "",
            "cut" if self.cut else "",
        ]  # fmt: skip
        return ", ".join(filter(None, parts)) or "as a cable"

    def carries(self, frame: bytes, random: Random) -> bool:
        """Whether a frame passes."""
        tagged = frame[12:14] in TAG_TYPES
        vlan = int.from_bytes(frame[14:16]) & 0xFFF if tagged else UNTAGGED
        room = (self.mtu or len(frame)) + ETHERNET_HEADER + (VLAN_TAG_BYTES if tagged else 0)
        lost = self.loss_percent and random.uniform(0, 100) < self.loss_percent
        return not (self.cut or lost or vlan in self.without_vlans or len(frame) > room)

    def as_request(self) -> dict[str, Any]:
        """Its fields for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Impairment:
        """The impairment of such fields. Raises ValueError, TypeError."""
        return cls(**fields | {"without_vlans": tuple(fields.get("without_vlans", ()))})


CABLE = Impairment()


@dataclass(slots=True)
class OneWay:
    """One way through a link. free_at: when its wire has sent all frames that it took, on the clock of `due`."""

    random: Random = field(default_factory=lambda: Random(7))  # noqa: S311 - the same frames are lost each time
    free_at: float = 0.0

    def due(self, impairment: Impairment, frame: bytes, now: float) -> float | None:
        """When a frame that comes now leaves the link; None if it is lost."""
        if not impairment.carries(frame, self.random):
            return None
        if impairment.rate_bps is not None:
            wire_s = 8 * len(frame) / impairment.rate_bps
            self.free_at = max(now, self.free_at)
            if self.free_at - now > max(QUEUE_S, QUEUE_FRAMES * wire_s):
                return None
            self.free_at += wire_s
        return max(now, self.free_at if impairment.rate_bps else now) + impairment.delay_ms / 1000


@dataclass(order=True, slots=True)
class UnderWay:
    """A frame that a link holds until `due`; `number` keeps the order of those that are due together."""

    due: float
    number: int
    frame: bytes = field(compare=False)
    sink: Sink = field(compare=False)
