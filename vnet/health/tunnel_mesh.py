"""Whether frames pass through the tunnel to each peer and back, by hellos; pure, but for the clocks that it is given.

One rule: a host decides by what it has heard. A direction is broken when hellos that were to come did not, and the receiver says so in its own hellos, which come the
other way: so the sender of a tunnel that works one way knows as well. Each host sends at one rate however many peers it has, and says in each hello when the next one comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from vnet.db.health import StatedTunnel
from vnet.util.frames import MINIMUM_FRAME_BYTES
from vnet.util.hello_frames import HostHello

MOST_HELLOS_S = 20.0  # frames a second that a host sends to all peers together
LOST_AFTER = 4  # intervals without a frame
MOST_INTERVAL_S = 30.0  # that a peer may state
GRACE_S = 5.0  # for a peer that is new here: it may have heard of us later
LARGE_EVERY = 4  # intervals: a frame as large as networks need
LARGE_TRIES = 3  # in a row that did not come, after which the largest that does is looked for
RUNGS = 8  # frames of as many sizes at once
HEADER_BYTES = 14  # of Ethernet, before the packet that an MTU is of
SAMPLES = 16  # of round trips: the quickest tells the clocks' difference best
AHEAD_MS = 1000  # less than that is no finding; what is stated is in whole seconds


class MeshPath(NamedTuple):
    """A way to a peer. via: an encapsulation, and whether it is encrypted, as StatedTunnel has it."""

    peer: str
    via: str


@dataclass(slots=True)
class SizeSearch:
    """Looks for the largest frame that comes to a peer. needs: in bytes, what is sent now and then; passes: None while that comes, or nobody knows, else the largest that does.

    A round's frames are of sizes between one that comes and one that does not, evenly; the peer says of which the largest came.
    """

    needs: int
    passes: int | None = None
    misses: int = 0
    low: int = 0  # comes
    high: int = 0  # does not; 0 while nothing is looked for
    sent: tuple[int, ...] = ()
    arrived: bool = False  # whether the large one has ever come, or was found not to

    def judge(self, largest: int) -> None:
        """Takes in what the peer says after a round."""
        if not self.sent:
            return
        if largest >= self.needs:
            self.passes, self.misses, self.high, self.arrived = None, 0, 0, True
        elif self.high:
            came = [size for size in self.sent if size <= largest]
            self.low = max([self.low, *came])
            self.high = min([size for size in self.sent if size > self.low], default=self.high)
            if self.high - self.low <= 1:
                self.passes, self.high, self.arrived = self.low, 0, True
        elif self.passes is None or largest < self.passes:
            self.misses += 1
            if self.misses >= LARGE_TRIES:
                self.misses, self.low, self.high = 0, MINIMUM_FRAME_BYTES, self.needs

    def round(self) -> tuple[int, ...]:
        """The sizes to send in the next one."""
        if not self.high:
            self.sent = (self.needs,) if self.passes is None else (self.passes, self.needs)
        else:
            span = self.high - self.low
            self.sent = tuple(
                sorted({self.low + span * rung // (RUNGS + 1) for rung in range(1, RUNGS + 1)} - {self.low})
            )
        return self.sent


@dataclass(slots=True)
class PeerState:
    """What is known of the path to a peer. Times are in seconds, by a clock that only grows."""

    began_s: float
    search: SizeSearch
    due_s: float
    round_due_s: float
    sequence: int = 0
    last: HostHello | None = None
    last_s: float = 0.0
    last_us: int = 0  # by the clock of the day
    sizes: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))
    samples: deque[tuple[int, int]] = field(
        default_factory=lambda: deque(maxlen=SAMPLES)
    )  # round trip, offset, in microseconds

    def interval_s(self, own_s: float) -> float:
        """The longer of both ends' intervals."""
        return own_s if self.last is None else min(max(own_s, self.last.interval_ms / 1000), MOST_INTERVAL_S)

    def largest(self, now_s: float, window_s: float) -> int:
        return max((size for at_s, size in self.sizes if now_s - at_s <= window_s), default=0)


class TunnelMesh:
    """The paths of a host to its peers. clock_s: seconds that only grow; clock_us: of the day, in microseconds since 1970; period_s: the interval while peers are few."""

    def __init__(self, me: str, period_s: float, clock_s: Callable[[], float], clock_us: Callable[[], int]) -> None:
        self._me: Final = me
        self._period_s: Final = period_s
        self._clock_s: Final = clock_s
        self._clock_us: Final = clock_us
        self._peers: Final[dict[MeshPath, PeerState]] = {}

    @property
    def interval_s(self) -> float:
        """Between two hellos to one peer: longer where peers are many."""
        return max(self._period_s, len(self._peers) / MOST_HELLOS_S)

    def follow(self, paths: Mapping[MeshPath, int]) -> None:
        """These paths are the host's from now on, each with the largest frame that its networks need, in bytes."""
        now_s = self._clock_s()
        for path in self._peers.keys() - paths.keys():
            del self._peers[path]
        for place, (path, needs) in enumerate(sorted(paths.items())):
            known = self._peers.get(path)
            if known is None:
                # Not all in one moment.
                due_s = now_s + self._period_s * (place % 16) / 16
                self._peers[path] = PeerState(now_s, SizeSearch(needs), due_s, now_s + LARGE_EVERY * self._period_s)
            elif known.search.needs != needs:
                known.search = SizeSearch(needs)

    def next_s(self) -> float:
        """When `due` has something next, by the clock; a period from now where there are no peers."""
        return min((state.due_s for state in self._peers.values()), default=self._clock_s() + self._period_s)

    def due(self, pool: bytes) -> Iterator[tuple[MeshPath, HostHello, int]]:
        """The hellos to send now, each with the frame's size."""
        now_s, own_s = self._clock_s(), self.interval_s
        for path, state in self._peers.items():
            if state.due_s > now_s:
                continue
            state.due_s = max(state.due_s + own_s, now_s)
            sizes: tuple[int, ...] = (0,)
            if state.round_due_s <= now_s:
                state.round_due_s = now_s + LARGE_EVERY * state.interval_s(own_s)
                if self._is_heard(state) is not False:
                    state.search.judge(state.last.largest if state.last is not None and self._hears(state) else 0)
                    sizes = (0, *state.search.round())
            for size in sizes:
                yield path, self._hello(pool, state, now_s, own_s), size

    def _hello(self, pool: bytes, state: PeerState, now_s: float, own_s: float) -> HostHello:
        state.sequence += 1
        last, window_s = state.last, (LARGE_EVERY + 2) * state.interval_s(own_s)
        return HostHello(
            pool, self._me, "", state.sequence, round(own_s * 1000), self._clock_us(),
            hears=self._hears(state) is True,
            echo_us=last.sent_us if last is not None else 0,
            came_us=state.last_us if last is not None else 0,
            largest=state.largest(now_s, window_s),
        )  # fmt: skip

    def hear(self, path: MeshPath, hello: HostHello, size: int) -> None:
        """A hello came by a path, in a frame of so many bytes."""
        state = self._peers.get(path)
        if state is None:
            return
        now_s, now_us = self._clock_s(), self._clock_us()
        state.sizes.append((now_s, size))
        if size > MINIMUM_FRAME_BYTES * 4:  # of its own round, and no news
            return
        if hello.echo_us:
            trip_us = (now_us - hello.echo_us) - (hello.sent_us - hello.came_us)
            if 0 <= trip_us < 60_000_000:
                state.samples.append((trip_us, ((hello.came_us - hello.echo_us) + (hello.sent_us - now_us)) // 2))
        state.last, state.last_s, state.last_us = hello, now_s, now_us

    def _hears(self, state: PeerState) -> bool | None:
        """Whether frames come from the peer; None while it is too early to say."""
        now_s = self._clock_s()
        if state.last is None:
            patience_s = LOST_AFTER * self.interval_s + GRACE_S
            return None if now_s - state.began_s < patience_s else False
        return now_s - state.last_s < LOST_AFTER * state.interval_s(self._period_s)

    def _is_heard(self, state: PeerState) -> bool | None:
        """Whether the peer says that frames come there; None where it says nothing now, or may not have heard of us yet."""
        if state.last is None or not self._hears(state):
            return None
        settled = self._clock_s() - state.began_s >= LOST_AFTER * state.interval_s(self.interval_s) + GRACE_S
        return True if state.last.hears else False if settled else None

    def health(self, *, measured: bool) -> tuple[StatedTunnel, ...]:
        """What is known of each path. measured: with times as they are; else only what is a finding, which changes seldom."""
        found = (self._health(path, state, measured=measured) for path, state in sorted(self._peers.items()))
        return tuple(it for it in found if measured or it != StatedTunnel(it.peer, it.via))

    def _health(self, path: MeshPath, state: PeerState, *, measured: bool) -> StatedTunnel:
        hears, heard, passes = self._hears(state), self._is_heard(state), state.search.passes
        trip_us, ahead_us = min(state.samples, default=(None, None))
        ahead_ms = ahead_us // 1000 if ahead_us is not None else None
        needs = state.search.needs - HEADER_BYTES if passes is not None or measured else 0
        mtu = passes - HEADER_BYTES if passes is not None else None
        if measured:
            if mtu is None and state.search.arrived and heard:
                mtu = needs
            return StatedTunnel(path.peer, path.via, hears, heard, needs, mtu, trip_us, ahead_ms)
        if ahead_ms is not None:
            ahead_ms = round(ahead_ms / 1000) * 1000 if abs(ahead_ms) >= AHEAD_MS else None
        return StatedTunnel(
            path.peer, path.via, None if hears else hears, None if heard else heard, needs, mtu, None, ahead_ms
        )
