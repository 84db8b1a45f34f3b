"""Streams of numbered frames: those that were lost, doubled or late.

with lab.stream("web1/0", "db1/0") as stream:
    lab.move("db1", "xen3")
assert stream.report.at("db1/0").lost == 0
"""

from __future__ import annotations

import base64
import itertools
import os
import time
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from vnet.lab.numbered import STREAM_MAGIC, STREAM_TAIL
from vnet.lab.packet_bridge_client import WiresClient
from vnet.objects import Vif

UDP_PORT = 9  # discard
EXPERIMENTAL = 0x88B5  # IEEE 802: local experimental ethertype
LEAST_PERIOD = "VNET_LAB_LEAST_PERIOD_MS"  # environment variable: between frames of a stream, where the machine is slow
_numbers = itertools.count(time.monotonic_ns() & 0xFFFFFF)


@dataclass(frozen=True, slots=True)
class Received:
    """The frames of a stream that one receiver got. Times in ms; a gap is the time between two arrivals, ends of the stream excluded."""

    frames: int
    lost: int
    duplicated: int
    reordered: int
    worst_gap_ms: float
    worst_latency_ms: float
    lost_numbers: tuple[int, ...] = field(repr=False)
    arrivals: tuple[tuple[int, int], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StreamReport:
    """The frames that a stream sent (times in monotonic ns, by number), and those that each receiver got."""

    sent: tuple[int, ...] = field(repr=False)
    received: Mapping[str, Received]

    def at(self, receiver: str) -> Received:
        """The frames that one receiver got; all count as lost if it never got any."""
        if receiver in self.received:
            return self.received[receiver]
        count = len(self.sent)
        return Received(0, count, 0, 0, 0.0, 0.0, tuple(range(count)), ())


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """How far a stream has come: frames sent; of each receiver how many frames came, and the number of the latest."""

    sent: int
    received: Mapping[str, tuple[int, int]]

    def frames(self, receiver: str) -> int:
        return self.received.get(receiver, (0, -1))[0]

    def latest(self, receiver: str) -> int:
        """The number of the frame that came last; -1 before the first."""
        return self.received.get(receiver, (0, -1))[1]


def received(sent: tuple[int, ...], seqs: array[int], times: array[int]) -> Received:
    """One receiver's part of a report."""
    counts = Counter(seqs)
    lost = tuple(seq for seq in range(len(sent)) if seq not in counts)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    latencies = [at - sent[seq] for seq, at in zip(seqs, times, strict=True) if seq < len(sent)]
    return Received(
        frames=len(seqs),
        lost=len(lost),
        duplicated=len(seqs) - len(counts),
        reordered=sum(after < before for before, after in itertools.pairwise(seqs)),
        worst_gap_ms=max(gaps, default=0) / 1e6,
        worst_latency_ms=max(latencies, default=0) / 1e6,
        lost_numbers=lost,
        arrivals=tuple(zip(seqs, times, strict=True)),
    )


class StreamDriver(Protocol):
    """The part of a lab's driver that its streams use."""

    def forwarding(self) -> list[str]: ...


class StreamLab(Protocol):
    """The part of a lab that its streams use."""

    @property
    def wires(self) -> WiresClient: ...

    @property
    def driver(self) -> StreamDriver: ...

    def settled_after_s(self) -> float: ...

    def receiver(self, wire: str) -> str: ...


class RunningStream:
    """A stream that runs until `stop`; a context manager that stops at its end."""

    def __init__(self, lab: StreamLab, source: str, packet: Any, period_ms: float) -> None:
        self._lab = lab
        self._number = next(_numbers) & 0xFFFFFFFF
        self._report: StreamReport | None = None
        payload = STREAM_MAGIC + STREAM_TAIL.pack(self._number, 0, 0xFFFF)
        frame = bytes(packet / payload)
        encoded = base64.b64encode(frame).decode()
        request: dict[str, Any] = {
            "from": source,
            "number": self._number,
            "frame": encoded,
            "period_s": max(period_ms, float(os.environ.get(LEAST_PERIOD, "0"))) / 1000,
        }
        lab.wires.call("stream", **request)

    def __enter__(self) -> RunningStream:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def progress(self) -> StreamProgress:
        """How far the stream has come. It costs the same however long the stream is, so it may be polled."""
        answer = self._lab.wires.call("stream_progress", number=self._number)
        return StreamProgress(
            answer["sent"], {self._lab.receiver(wire): tuple(count) for wire, count in answer["received"].items()}
        )

    def so_far(self) -> StreamReport:
        """The report up to now; the stream goes on. Frames that are under way count as lost."""
        return self._fetch(end=False)

    def stop(self) -> StreamReport:
        """End the stream, wait until nothing of it comes any more, and report."""
        if self._report is None:
            self._lab.wires.call("stop_sending", number=self._number)
            before = -1
            while (now := self._arrived()) != before:
                before = now
                self._lab.wires.call("forward", switches=self._lab.driver.forwarding())
                time.sleep(self._lab.settled_after_s())
            self._report = self._fetch(end=True)
        return self._report

    @property
    def report(self) -> StreamReport:
        """The report of a stream that was stopped."""
        return self.stop()

    def _arrived(self) -> int:
        return sum(frames for frames, _ in self.progress().received.values())

    def _fetch(self, end: bool) -> StreamReport:
        answer = self._lab.wires.call("stream_result", number=self._number, end=end)
        sent = tuple(_numbers_in(answer["sent"]))
        found = {
            self._lab.receiver(who): received(sent, _numbers_in(seqs), _numbers_in(times))
            for who, (seqs, times) in answer["received"].items()
        }
        return StreamReport(sent, found)


def _numbers_in(text: str) -> array[int]:
    values = array("q")
    values.frombytes(base64.b64decode(text))
    return values


def ip_ends(source: Vif, to: Vif) -> tuple[str, str] | None:
    """The addresses that one VIF sends to another with: of the first IP version that both have, None if there is none."""
    for is_version6 in (False, True):
        ours = [a for a in source.addresses if (":" in a) is is_version6]
        theirs = [a for a in to.addresses if (":" in a) is is_version6]
        if ours and theirs:
            return ours[0], theirs[0]
    return None


def packet_between(source: Vif, to: Vif, port: int = UDP_PORT) -> Any:
    """A scapy packet from one VIF to another, UDP over a family that both have addresses of, else of an experimental ethertype.

    port: its source port.
    """
    from scapy.layers.inet import IP, UDP  # noqa: PLC0415 - half a second that not every lab needs
    from scapy.layers.inet6 import IPv6  # noqa: PLC0415
    from scapy.layers.l2 import Ether  # noqa: PLC0415

    if (ends := ip_ends(source, to)) is not None:
        layer = IPv6 if ":" in ends[0] else IP
        return Ether(src=source.mac, dst=to.mac) / layer(src=ends[0], dst=ends[1]) / UDP(sport=port, dport=UDP_PORT)
    return Ether(src=source.mac, dst=to.mac, type=EXPERIMENTAL)
