"""What an agent measures of its own work as it goes: latencies of plugs, of changes and of the pool database, its loop's lag, moves of VIFs, events.

One rule: to measure costs no message to the switch but two for a VIF that moves here with a pause.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ovsctl.openflow.messages import PortStats
from vnet.util.exposition import Histogram

MAX_CHANGES = 4096  # revisions that no switch holds yet; of more, the oldest are not measured
MAX_MOVES = 256  # VIFs whose last move here is remembered


@dataclass(frozen=True, slots=True)
class MeasuredMove:
    """A VIF's last move to this host. pause_s: from the toolstack's `switch` until it was active. waited: frames that its port took meanwhile;
    lost: those that the port had no room for. None where the switch was not asked in time."""

    pause_s: float
    waited: int | None
    lost: int | None


@dataclass(frozen=True, slots=True)
class OpenedPort:
    """A port that was opened for a guest that is paused: when, and its counters then."""

    at_s: float
    counters: asyncio.Future[PortStats | None]


class Measures:
    """clock: seconds that only grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.plugs: Final = Histogram()  # from a port in the switch to its flows in the switch
        self.changes: Final = Histogram()  # from a turn that changed flows to the barrier's answer
        self.database: Final = Histogram()  # a transaction of the pool database: the heartbeat
        self.lag: Final = Histogram()
        self.events: Final[Counter[str]] = Counter()  # by their topic
        self.moves: Final[dict[str, MeasuredMove]] = {}  # by VIF, the last one last
        self.clock: Final = clock
        self._opened: Final[dict[str, OpenedPort]] = {}
        self._plugged: Final[dict[str, float]] = {}  # VIFs whose ports have come, and no flows were sent for them yet
        self._sent: Final[deque[tuple[int, float, Histogram]]] = deque(maxlen=MAX_CHANGES)

    def ports(self, before: Iterable[str], now: Iterable[str]) -> None:
        """The VIFs with ports here are others."""
        had, have = set(before), set(now)
        self._plugged.update(dict.fromkeys(have - had, self.clock()))
        for vif in had - have:
            self._plugged.pop(vif, None)

    def turned(self, revision: int, is_programmed: Callable[[str], bool], *, changed: bool) -> None:
        """A turn has made a revision. is_programmed: whether a VIF has its flows by it. changed: whether it differs from the one before."""
        if changed:
            self._sent.append((revision, self.clock(), self.changes))
        for vif in [vif for vif in self._plugged if is_programmed(vif)]:
            self._sent.append((revision, self._plugged.pop(vif), self.plugs))

    def held(self, revision: int) -> None:
        """The switch holds a revision."""
        now_s = self.clock()
        while self._sent and self._sent[0][0] <= revision:
            _, since_s, found = self._sent.popleft()
            found.observe(now_s - since_s)

    def opened(self, vif: str, counters: asyncio.Future[PortStats | None]) -> None:
        """The port of a VIF that moves here is opened for a guest that is paused. counters: the port's, as before."""
        self._opened.setdefault(vif, OpenedPort(self.clock(), counters))
        while len(self._opened) > MAX_MOVES:
            self._opened.pop(next(iter(self._opened)))

    def is_opened(self, vif: str) -> bool:
        return vif in self._opened

    def arrived(self, vif: str, counters: PortStats | None) -> None:
        """The VIF is active here, with these counters of its port."""
        if (opened := self._opened.pop(vif, None)) is None:
            return
        first = opened.counters.result() if opened.counters.done() and not opened.counters.cancelled() else None
        self.moves.pop(vif, None)
        self.moves[vif] = MeasuredMove(
            self.clock() - opened.at_s,
            _grown(first, counters, lambda stats: stats.tx_packets),
            _grown(first, counters, lambda stats: stats.tx_dropped),
        )
        while len(self.moves) > MAX_MOVES:
            self.moves.pop(next(iter(self.moves)))


def _grown(first: PortStats | None, last: PortStats | None, counter: Callable[[PortStats], int | None]) -> int | None:
    before, after = (counter(stats) if stats is not None else None for stats in (first, last))
    return max(0, after - before) if before is not None and after is not None else None
