"""Metrics as Prometheus reads them: families of samples as text (its exposition format, version 0.0.4), and histograms to count in.

One rule: a family that is shown has a bounded number of samples; whoever makes one says by which bound. The library prometheus-client would
cost an agent 5 MB and 0.1 s, for the same text.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper bounds of durations in seconds: a flow is in after milliseconds, a pool that is behind after tens of seconds.
DURATIONS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LAG_PERIOD_S = 1.0


class MetricType(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Histogram:
    """Counts values by their size. bounds: upper ones, inclusive, ascending; values above the last are counted as well."""

    def __init__(self, bounds: tuple[float, ...] = DURATIONS_S) -> None:
        self.bounds: Final = bounds
        self.counts: Final = [0] * (len(bounds) + 1)
        self._sum: Final = [0.0]

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self._sum[0] += value

    @property
    def sum(self) -> float:
        return self._sum[0]


Labels = Mapping[str, str]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """A metric: its name without any suffix, a line about it, and a sample for each combination of labels."""

    name: str
    type: MetricType
    help: str
    samples: Iterable[Sample | tuple[Labels, Histogram]]

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.type.value}"
        for labels, value in self.samples:
            if isinstance(value, Histogram):
                yield from _histogram(self.name, labels, value)
            else:
                yield f"{self.name}{_labelled(labels)} {_number(value)}"


def counter(name: str, help: str, samples: Iterable[Sample]) -> MetricFamily:
    return MetricFamily(name, MetricType.COUNTER, help, samples)


def gauge(name: str, help: str, samples: Iterable[Sample]) -> MetricFamily:
    return MetricFamily(name, MetricType.GAUGE, help, samples)


def value(name: str, help: str, number: float) -> MetricFamily:
    """A gauge without labels."""
    return gauge(name, help, [({}, number)])


def histogram(name: str, help: str, found: Histogram) -> MetricFamily:
    return MetricFamily(name, MetricType.HISTOGRAM, help, [({}, found)])


def exposition(families: Iterable[MetricFamily]) -> str:
    """The text of a scrape's answer."""
    return "".join(f"{line}\n" for family in families for line in family.lines())


def _histogram(name: str, labels: Labels, found: Histogram) -> Iterator[str]:
    below = 0
    for bound, count in zip((*map(_number, found.bounds), "+Inf"), found.counts, strict=True):
        below += count
        yield f"{name}_bucket{_labelled({**labels, 'le': bound})} {below}"
    yield f"{name}_sum{_labelled(labels)} {_number(found.sum)}"
    yield f"{name}_count{_labelled(labels)} {below}"


def _labelled(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()) + "}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


async def measure_lag(found: Histogram, period_s: float = LAG_PERIOD_S) -> None:
    """Without end: counts by how many seconds a timer of this event loop is late."""
    clock = asyncio.get_running_loop().time
    while True:
        due_s = clock() + period_s
        await asyncio.sleep(period_s)
        found.observe(max(0.0, clock() - due_s))
