"""Whether streams go on: bounds on what a fault costs that no clock judges."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from tests.polling import wait_until
from vnet.lab.streams import RunningStream

AFTER = 200  # frames of each stream, 1 ms apart, that must all arrive once what broke is whole again
K = TypeVar("K", bound=Hashable)


def go_on(running: Mapping[K, tuple[RunningStream, str]]) -> dict[K, int]:
    """Return when each stream (with who receives it) has brought a frame that was not sent yet at the call; how many it
    has sent by then."""
    before = {key: stream.progress().sent for key, (stream, _) in running.items()}
    sent: dict[K, int] = {}

    def goes_on(key: K) -> bool:
        stream, to = running[key]
        progress = stream.progress()
        sent[key] = progress.sent
        return progress.latest(to) >= before[key]

    for key in running:
        wait_until(lambda key=key: goes_on(key), f"stream {key} goes on")  # type: ignore[misc]
    return sent


def wait_sent(running: Mapping[K, tuple[RunningStream, str]], counts: Mapping[K, int]) -> None:
    """Return once each stream has sent that many frames and AFTER more."""
    for key, (stream, _) in running.items():
        wait_until(lambda s=stream, n=counts[key] + AFTER: s.progress().sent >= n, "frames are sent")  # type: ignore[misc]
