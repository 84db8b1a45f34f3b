"""QoS classes: rate limits by name, for VIFs one by one, or for all VIFs of a network together.

One rule: a rate is written with its unit, held in bits per second, and counts whole Ethernet frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vnet.grammar.declare import Declared, Flaw, SetBy, attr
from vnet.grammar.nodes import Node, TextNode, clip, is_null
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import FAILED, Boolean, Column, Failed, Integer, JsonSchema, ValueRefused, ValueType
from vnet.objects.enums import Owner
from vnet.objects.impact import FLOWS, NOTHING, Cost, Disruption, Usage
from vnet.objects.words import NAME_KIND, OWNER

if TYPE_CHECKING:
    from vnet.grammar.source import Source

KBIT = 1_000  # a meter counts in these (OpenFlow 1.5.1 §7.3.4.5)
KIB = 8 * 1_024  # XenServer's kilobyte: xenopsd multiplies `kbps` by 1,024
MIN_RATE_BPS, MAX_RATE_BPS = 64 * KBIT, 1_000_000_000_000
MIN_BURST_BITS, MAX_BURST_BITS = 128 * KBIT, 4_000_000_000 * KBIT  # ten full frames; a band counts kbit in 32 bits
MAX_PACKETS_PER_S = 100_000_000
MAX_DSCP = 63  # RFC 2474 §3
# A meter drops and never queues. TCP halves its window at a drop, and a bucket that is too small drops again before it has grown:
# with 0.1 s one stream got half of its rate, with 0.5 s all of it at every rate that was measured (docs/qos.md).
DEFAULT_BURST_S = 0.5

_WRITTEN = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([A-Za-z/]*)")
_BYTES = {"gb": 8 * KBIT**3, "mb": 8 * KBIT**2, "kb": 8 * KBIT}
_BITS = {"gbit": KBIT**3, "mbit": KBIT**2, "kbit": KBIT}


@dataclass(frozen=True, slots=True, eq=False)
class Quantity(ValueType[int]):
    """A number with a unit. units: the size of each, those that a value is written in first, largest to smallest.

    read_only: units that are read and never written. hints: what to say of units that mean something else elsewhere.
    """

    expected: str
    low: int
    high: int
    units: Mapping[str, int]
    read_only: Mapping[str, int]
    hints: Mapping[str, str]
    column: Column = Column("integer")
    python: str = "str"

    def read(self, node: Node, source: Source) -> int | Failed:
        if not isinstance(node, TextNode) or is_null(node):
            return self.wrong(node, source)
        try:
            return self.parse(node.text)
        except ValueRefused as refused:
            source.add(refused.code, refused.message, node, refused.hint)
            return FAILED

    def parse(self, text: str) -> int:
        """The value of a text. Raises ValueRefused for a number without a unit, and for what is no number."""
        found = _WRITTEN.fullmatch(text.strip())
        if found is None:
            raise ValueRefused("wrong-rate", f"'{clip(text)}' is no number with a unit: wanted {self.expected}")
        number, unit = found.groups()
        size = {**self.units, **self.read_only}.get(unit.lower())
        if size is None:
            shown = f"has the unit '{unit}'" if unit else "has no unit"
            hint = self.hints.get(unit.lower(), "").format(number)
            raise ValueRefused("wrong-rate", f"'{clip(text)}' {shown}: wanted {self.expected}", hint)
        whole, _, fraction = number.partition(".")
        scale: int = 10 ** len(fraction)
        value, rest = divmod(int(whole + fraction) * size, scale)
        if rest:
            raise ValueRefused("wrong-rate", f"'{clip(text)}' is no whole number of bits or packets")
        if not self.low <= value <= self.high:
            low, high = self.plain(self.low), self.plain(self.high)
            raise ValueRefused("out-of-range", f"{clip(text)} is out of range: wanted {low} to {high}")
        return value

    def check(self, value: int) -> None:
        if not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueRefused("out-of-range", f"{clip(str(value))} is outside {self.low}..{self.high}")

    def plain(self, value: int) -> str:
        """The value in the largest unit that it is a whole number of, else in the smallest."""
        for unit, size in self.units.items():
            if value % size == 0:
                return f"{value // size}{unit}"
        unit, size = list(self.units.items())[-1]
        return f"{value / size:.3f}".rstrip("0") + unit

    def schema(self) -> JsonSchema:
        units = "|".join((*self.units, *self.read_only))
        return {"type": "string", "pattern": f"^[0-9]+(\\.[0-9]+)? ?({units})$"}


RATE = Quantity(
    "a rate, as 100mbit, 1.5gbit or 500kbit per second",
    MIN_RATE_BPS,
    MAX_RATE_BPS,
    _BITS,
    {"kib/s": KIB, "mib/s": KIB * 1_024},
    {
        "kbps": "for kilobits write {0}kbit; for XenServer's qos_algorithm_params:kbps, which is kilobytes, {0}kib/s",
        "mbps": "for megabits write {0}mbit",
        "kb": "for kilobits write {0}kbit",
        "mb": "for megabits write {0}mbit",
        "": "for megabits per second write {0}mbit",
    },
)
BURST = Quantity(
    "an amount, as 1mb or 256kb (bytes) or 8mbit",
    MIN_BURST_BITS,
    MAX_BURST_BITS,
    _BYTES | {"kbit": KBIT},
    {"mbit": KBIT**2, "gbit": KBIT**3},
    {"": "for bytes write {0}kb or {0}mb"},
)
PACKETS = Quantity(
    "packets per second, as 20kpps or 500pps",
    1,
    MAX_PACKETS_PER_S,
    {"mpps": KBIT**2, "kpps": KBIT, "pps": 1},
    {},
    {"": "write {0}pps", "k": "write {0}kpps"},
)
_STORM = ("broadcast", "multicast", "unknown")  # the limits of what is flooded
_IN_PLACE: Cost = (FLOWS[0], "meters change in place, ports stay as they are")


@dataclass(frozen=True, slots=True)
class QosClass(Declared):
    """Rate limits: of each VIF that names it, or with `aggregate` of all VIFs together of a network that names it."""

    NOUN: ClassVar[Noun] = Noun(
        "qos-class", "qos", "QoS class", "QosClass", "qos", doc="Rate limits of VIFs and networks, by name.",
        also=("rates", "rate-limits", "bandwidth", "shaping"), held=True,
    )  # fmt: skip
    TITLE: ClassVar[str] = "a QoS class"

    name: str = attr(NAME_KIND, "Its name.", set_by=SetBy.NAME)
    from_vm: int | None = attr(
        RATE,
        "The rate of what the VM sends. Packets above it are dropped. XenServer's `qos_algorithm_params:kbps=100` is `100kib/s`.",
        default=None,
        also=("egress", "tx", "upload", "outbound", "rate", "kbps"),
        change=_IN_PLACE,
    )
    to_vm: int | None = attr(
        RATE,
        "What the VM may be sent.",
        default=None,
        also=("ingress", "rx", "download", "inbound"),
        change=_IN_PLACE,
    )
    burst: int | None = attr(
        BURST,
        "How much may pass at once, each way. Left out: what the rate gives in half a second.",
        default=None,
        also=("burst-size",),
        change=_IN_PLACE,
    )
    packets: int | None = attr(
        PACKETS, "Packets per second, each way.", default=None, also=("pps", "packet-rate"), change=_IN_PLACE
    )
    broadcast: int | None = attr(
        PACKETS,
        "Broadcast frames that the VM may send per second.",
        default=None,
        also=("broadcasts", "storm", "storm-control"),
        change=_IN_PLACE,
    )
    multicast: int | None = attr(
        PACKETS, "Multicast frames that the VM may send per second.", default=None, change=_IN_PLACE
    )
    unknown: int | None = attr(
        PACKETS,
        "Frames per second that the VM may send to a MAC which no VIF has; they are flooded.",
        default=None,
        also=("unknown-unicast",),
        change=_IN_PLACE,
    )
    dscp: int | None = attr(
        Integer(f"a DSCP, 0..{MAX_DSCP}", 0, MAX_DSCP),
        "What IP packets from the VM are marked with (RFC 2474); their ECN bits stay.",
        default=None,
        also=("tos", "mark"),
        change=(FLOWS[0], "packets are marked otherwise"),
    )
    aggregate: bool = attr(
        Boolean(),
        "Whether it limits all VIFs of a network together. The rate is split evenly over the hosts with VIFs of the network.",
        default=False,
        also=("shared", "total"),
        change=_IN_PLACE,
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME
    )

    def flaws(self) -> Iterator[Flaw]:
        if self.burst is not None and self.from_vm is None and self.to_vm is None:
            yield Flaw("no-rate", "burst", "a burst needs a rate: 'from-vm' or 'to-vm'", relies_on=("from_vm", "to_vm"))
        if self.aggregate and self.dscp is not None:
            hint = "the class of the VIFs themselves marks packets"
            yield Flaw("aggregate-dscp", "dscp", "an aggregate limits a network and marks no packets", hint)
        for field in _STORM if self.aggregate else ():
            if getattr(self, field) is not None:
                hint = f"a class without 'aggregate' as the network's 'vif-qos' gives each of its VIFs a '{field}' of its own"
                yield Flaw(
                    "aggregate-storm", field, f"an aggregate limits no {field} frames: one VIF would use it up", hint
                )
        relies_on = ("from_vm", "to_vm", "burst", "packets", *_STORM, "dscp")
        if all(getattr(self, field) is None for field in relies_on):
            message = f"QoS class {self.name} limits nothing"
            hint = "say 'from-vm', 'to-vm', 'packets', 'broadcast', 'multicast', 'unknown' or 'dscp'"
            yield Flaw("no-rate", "", message, hint, relies_on=relies_on)

    def burst_of(self, rate_bps: int) -> int:
        """The bits that may pass at once with one of the rates."""
        return self.burst if self.burst is not None else max(MIN_BURST_BITS, round(rate_bps * DEFAULT_BURST_S))

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        words = [f"from-vm {RATE.plain(self.from_vm)}"] if self.from_vm is not None else []
        words += [f"to-vm {RATE.plain(self.to_vm)}"] if self.to_vm is not None else []
        words += [f"burst {BURST.plain(self.burst)}"] if self.burst is not None else []
        words += [f"packets {PACKETS.plain(self.packets)}"] if self.packets is not None else []
        words += [f"{name} {PACKETS.plain(value)}" for name in _STORM if (value := getattr(self, name)) is not None]
        words += [f"dscp {self.dscp}"] if self.dscp is not None else []
        return " ".join(words + ["aggregate"] * self.aggregate)

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return (Disruption.NONE, "nothing is limited by it")
