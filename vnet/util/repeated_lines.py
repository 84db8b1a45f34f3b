"""Lines of a log that somebody outside can cause as often as they like.

One rule: of lines of one kind the first few of each period are logged, and the next period's first says how many were left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

FEW = 5
PERIOD_S = 60.0
BEGINNING = 60  # characters of a line's format that make its kind: some logs put what differs into it
KINDS = 1000


@dataclass(frozen=True, slots=True)
class Repetition:
    """How often a line came since `since`, in the clock's seconds."""

    since: float
    count: int = 0


class RepeatedLines(logging.Filter):
    """A filter of a logger. Lines whose formats begin alike are of one kind, whatever stands in them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock: Final = clock
        self._repeated: Final[dict[str, Repetition]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, kind = self._clock(), str(record.msg)[:BEGINNING]
        if len(self._repeated) > KINDS:
            self._repeated.clear()
        known = self._repeated.get(kind, Repetition(now))
        if now - known.since >= PERIOD_S:
            left_out = known.count - FEW
            if left_out > 0:
                record.msg, record.args = f"{record.getMessage()} ({left_out} more of the kind were left out)", ()
            known = Repetition(now)
        self._repeated[kind] = replace(known, count=known.count + 1)
        return known.count < FEW
