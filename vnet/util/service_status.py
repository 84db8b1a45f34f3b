"""The state of a daemon: whether it works, and else the obstacle. The service manager and the log have it from here.

One rule: a daemon is ready once it works. As long as an obstacle keeps it from that, the log has the obstacle at once and every minute.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vnet.util.printable import on_one_line
from vnet.util.sd_notify import sd_notify, watchdog_s

log = logging.getLogger(__name__)

LOOK_S = 0.25  # between two looks of a daemon at itself
LASTING_S = 1.0  # an obstacle that is gone by then is part of a start
AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Obstacle:
    """The thing that a daemon waits for. topic: stays the same while the text differs from attempt to attempt. works: whether it does its
    work all the same."""

    topic: str
    text: str
    works: bool = False


class ServiceStatus:
    """Tells the service manager and the log. clock: seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock: Final = clock
        self._ready = False
        self._status = ""
        self._topic = ""  # of the obstacle, "" for none
        self._log_at_s = 0.0
        self._logged = False  # this obstacle
        self._watchdog_s: Final = watchdog_s()
        self._alive_at_s = 0.0

    def show(self, obstacle: Obstacle | None, activity: str = "") -> None:
        """Takes the state as of now. activity: the daemon's work, where there is no obstacle."""
        states = [f"STATUS={on_one_line(obstacle.text if obstacle else activity)}"]
        if (obstacle is None or obstacle.works) and not self._ready:
            self._ready = True
            states.insert(0, "READY=1")
        if states != [self._status]:
            self._status = states[-1]
            sd_notify(*states)
        self._log(obstacle)

    def _log(self, obstacle: Obstacle | None) -> None:
        now_s, topic = self._clock(), obstacle.topic if obstacle else ""
        if topic != self._topic:
            if self._logged and obstacle is None:
                log.info("works")
            self._topic, self._logged, self._log_at_s = topic, False, now_s + LASTING_S
        if obstacle is not None and now_s >= self._log_at_s:
            log.warning("waits: %s", obstacle.text)
            self._logged, self._log_at_s = True, now_s + AGAIN_S

    def alive(self) -> None:
        """Keeps the watchdog from ending this process. To be called by the loop that does the work."""
        now_s = self._clock()
        if self._watchdog_s is not None and now_s >= self._alive_at_s:
            self._alive_at_s = now_s + self._watchdog_s / 4
            sd_notify("WATCHDOG=1")
