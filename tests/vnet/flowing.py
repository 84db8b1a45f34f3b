"""Whether streams go on: bounds on what a fault costs that no clock judges."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from tests.servers import wait_until
from vnet.lab.streams import Received, RunningStream

AFTER = 200  # frames of each stream, 1 ms apart, that must all arrive once what broke is whole again
# A frame each millisecond: the kernel's queue before ovs-vswitchd holds some 270. A machine so busy that a process waits for
# longer loses the next ones, which shows by how late the last ones before them are.
QUEUE_MS = 200
K = TypeVar("K", bound=Hashable)


def go_on(running: Mapping[K, tuple[RunningStream, str]]) -> dict[K, int]:
    """Return when each stream (with who receives it) has brought a frame that was not sent yet at the call; how many it
    has sent by then."""
    before = {key: len(stream.so_far().sent) for key, (stream, _) in running.items()}
    sent: dict[K, int] = {}

    def goes_on(key: K) -> bool:
        stream, to = running[key]
        report = stream.so_far()
        sent[key] = len(report.sent)
        arrivals = report.at(to).arrivals
        return bool(arrivals) and arrivals[-1][0] >= before[key]

    for key in running:
        wait_until(lambda key=key: goes_on(key), f"stream {key} goes on")  # type: ignore[misc]
    return sent


def wait_sent(running: Mapping[K, tuple[RunningStream, str]], counts: Mapping[K, int]) -> None:
    """Return once each stream has sent that many frames and AFTER more."""
    for key, (stream, _) in running.items():
        wait_until(lambda s=stream, n=counts[key] + AFTER: len(s.so_far().sent) >= n, "frames are sent")  # type: ignore[misc]


def overrun(got: Received) -> int:
    """How many frames of a stream, 1 ms apart, a machine may have lost that let them wait for so long."""
    return int(got.worst_latency_ms) if got.worst_latency_ms > QUEUE_MS else 0
