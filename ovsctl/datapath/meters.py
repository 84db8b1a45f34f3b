"""Meters as Open vSwitch's userspace datapath runs them (dpif-netdev.c, dp_netdev_run_meter): a token bucket per band.

One rule: time is an argument, in microseconds, and counts in whole milliseconds as it does there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ovsctl.datapath.errors import UnsupportedFlowError
from ovsctl.openflow import Band, BandType, Meter


@dataclass(slots=True)
class BandState:
    """A band's tokens, in bits or in thousandths of packets, and the packets that it dropped."""

    rate: int
    limit: int
    tokens: int
    packets: int = 0
    octets: int = 0

    @classmethod
    def of(cls, band: Band) -> BandState:
        """A full bucket. A band without a burst holds what its rate gives in one second."""
        limit = 1000 * (band.burst or band.rate)
        return cls(band.rate, limit, limit)


@dataclass(slots=True)
class TokenBucketMeter:
    """A meter, its bands, and the packets that came to it. Raises UnsupportedFlowError for bands that do not drop."""

    meter: Meter
    bands: list[BandState] = field(init=False)
    packets: int = 0
    octets: int = 0
    used_us: int = 0

    def __post_init__(self) -> None:
        if any(band.type is not BandType.DROP for band in self.meter.bands):
            raise UnsupportedFlowError(f"meter {self.meter.meter_id}: a band that does not drop")
        self.bands = [BandState.of(band) for band in self.meter.bands]

    def admits(self, size: int, now_us: int) -> bool:
        """Count a packet of `size` bytes; False if a band drops it. Of several the one with the highest rate counts it."""
        elapsed_ms = max(now_us // 1000 - self.used_us // 1000, 0)
        self.used_us = now_us
        self.packets += 1
        self.octets += size
        cost = 1000 if self.meter.packets else 8 * size
        exceeded: BandState | None = None
        for band in self.bands:
            band.tokens = min(band.tokens + elapsed_ms * band.rate, band.limit)
            if band.tokens >= cost:
                band.tokens -= cost
            elif exceeded is None or band.rate > exceeded.rate:
                exceeded = band
        if exceeded is None:
            return True
        exceeded.packets += 1
        exceeded.octets += size
        return False

    def copy(self) -> TokenBucketMeter:
        """An independent meter with the same tokens and counters."""
        other = TokenBucketMeter(self.meter, self.packets, self.octets, self.used_us)
        other.bands = [BandState(b.rate, b.limit, b.tokens, b.packets, b.octets) for b in self.bands]
        return other
