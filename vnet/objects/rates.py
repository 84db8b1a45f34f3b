"""Rate limits of VIFs, as frozen values, and how people and toolstacks write them.

One rule: rates are bits per second, a burst is bits, and a number that is written carries its unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vnet.grammar.declare import InvalidValue

KBIT = 1_000  # a meter counts in these (OpenFlow 1.5.1 §7.3.4.5)
MIN_RATE_BPS, MAX_RATE_BPS = 64 * KBIT, 1_000_000_000_000
MIN_BURST_BITS, MAX_BURST_BITS = 128 * KBIT, (2**32 - 1) * KBIT  # 128 kbit: ten full frames
MAX_PACKETS_PER_S = 100_000_000
MAX_DSCP = 63  # RFC 2474 §3
# A meter drops and never queues. TCP halves its window at a drop, and a bucket that is too small drops again before it has grown:
# with 0.1 s one stream got half of its rate, with 0.5 s all of it at every rate that was measured (docs/pipeline.md).
DEFAULT_BURST_S = 0.5

_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_BITS = {"kbit": KBIT, "mbit": KBIT**2, "gbit": KBIT**3}
_BYTES = {"kb": 8 * KBIT, "mb": 8 * KBIT**2, "gb": 8 * KBIT**3}
_PACKETS = {"pps": 1, "kpps": KBIT, "mpps": KBIT**2}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The limits of one VIF, or with `aggregate` of all VIFs of a network together. None is no limit.

    from_vm_bps, to_vm_bps: bits per second of Ethernet frames, headers included. burst_bits: how much may pass at once, each way;
    None for the default. packets_per_s: each way. dscp: what IP packets from the VM are marked with.
    """

    from_vm_bps: int | None = None
    to_vm_bps: int | None = None
    burst_bits: int | None = None
    packets_per_s: int | None = None
    dscp: int | None = None
    aggregate: bool = False

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("from_vm", self.from_vm_bps, MIN_RATE_BPS, MAX_RATE_BPS),
            ("to_vm", self.to_vm_bps, MIN_RATE_BPS, MAX_RATE_BPS),
            ("burst", self.burst_bits, MIN_BURST_BITS, MAX_BURST_BITS),
            ("packets", self.packets_per_s, 1, MAX_PACKETS_PER_S),
            ("dscp", self.dscp, 0, MAX_DSCP),
        ):
            if value is not None and not low <= value <= high:
                raise InvalidValue(name, f"{value} is outside {low}..{high}")
        if self.burst_bits is not None and self.from_vm_bps is None and self.to_vm_bps is None:
            raise InvalidValue("burst", "a burst needs a rate: say 'from-vm' or 'to-vm'")
        if self.aggregate and self.dscp is not None:
            raise InvalidValue("dscp", "an aggregate limits a network; packets are marked by the VIF's own class")

    def burst_of(self, rate_bps: int) -> int:
        """The burst in bits that goes with one of the rates."""
        return (
            self.burst_bits if self.burst_bits is not None else max(MIN_BURST_BITS, round(rate_bps * DEFAULT_BURST_S))
        )


def parse_rate(field: str, text: str) -> int:
    """Bits per second of '100mbit', '1.5gbit', '500kbit'. Raises InvalidValue for anything else, a bare number too."""
    return _parse(field, text, _BITS, "a rate is in kbit, mbit or gbit per second, as 100mbit")


def parse_burst(field: str, text: str) -> int:
    """Bits of '1mb', '256kb' (bytes) or '8mbit'. Raises InvalidValue for anything else, a bare number too."""
    return _parse(field, text, _BYTES | _BITS, "a burst is in kb, mb (bytes), kbit or mbit, as 1mb")


def parse_packets(field: str, text: str) -> int:
    """Packets per second of '20kpps' or '500pps'. Raises InvalidValue for anything else, a bare number too."""
    return _parse(field, text, _PACKETS, "packets per second are in pps, kpps or mpps, as 20kpps")


def _parse(field: str, text: str, units: dict[str, int], usage: str) -> int:
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise InvalidValue(field, f"{text!r} is no number with a unit: {usage}")
    number, unit = found.groups()
    if not unit:
        raise InvalidValue(field, f"{text!r} has no unit: {usage}")
    if unit.lower() not in units:
        raise InvalidValue(field, f"{text!r}: {unit!r} is no unit here: {usage}")
    whole, _, fraction = number.partition(".")
    scale: int = 10 ** len(fraction)
    value, rest = divmod(int(whole + fraction) * units[unit.lower()], scale)
    if rest:
        raise InvalidValue(field, f"{text!r} is no whole number of {'packets' if units is _PACKETS else 'bits'}")
    return value


def rate_from_xenserver(kbps: str) -> int:
    """Bits per second of XenServer's `qos_algorithm_params:kbps`, which is kilobytes of 1,024 bytes. Raises InvalidValue."""
    if not kbps.isascii() or not kbps.isdecimal() or int(kbps) == 0:
        raise InvalidValue("kbps", f"{kbps!r} is no whole number of kilobytes per second")
    return int(kbps) * 1024 * 8


def format_rate(bps: int) -> str:
    """A rate as it is written: '100mbit'. Rates below a kbit's precision are written in kbit with decimals."""
    for unit, size in reversed(_BITS.items()):
        if bps % size == 0:
            return f"{bps // size}{unit}"
    return f"{bps / KBIT:.3f}".rstrip("0") + "kbit"
