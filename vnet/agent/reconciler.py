"""One reconciler for all that an agent changes: flows, Open vSwitch rows, rows of the pool database.

One rule: a target is changed towards the desired values only, and is pruned of everything else only after one complete desired state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, Protocol, TypeVar

K = TypeVar("K")
V = TypeVar("V")
V_contra = TypeVar("V_contra", contravariant=True)


class Retry(Exception):
    """A target did not take a change, and its content is not known. after_s: when to try again; None where the driver
    calls `distrust` once the target is back."""

    def __init__(self, after_s: float | None = None) -> None:
        super().__init__(after_s)
        self.after_s: Final = after_s


class TargetDriver(Protocol[K, V_contra]):
    """A target that holds values by key. Both verbs may be repeated; both raise Retry."""

    async def change(self, changes: Mapping[K, V_contra | None]) -> None:
        """Updates these values and deletes those that are None, in one step where the target has one. Returns once it is done."""

    async def prune(self, desired: Callable[[], Mapping[K, V_contra]]) -> None:
        """Makes the target hold the desired values, and of ours nothing else. The driver asks for them once it has read
        the target."""


class Revisions:
    """The one counter of revisions: each turn of the agent's loop makes one, and each target says which it holds.

    newest: 0 before the first complete desired state. on_held: called when a target holds more.
    """

    def __init__(self, on_held: Callable[[], None] = lambda: None) -> None:
        self.newest = 0
        self._on_held: Final = on_held
        self._held: Final[dict[str | None, int]] = {}  # by bridge; None: the Open vSwitch rows
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def flows(self) -> int:
        """The newest revision that every bridge holds, answered by a barrier."""
        return min((revision for bridge, revision in self._held.items() if bridge is not None), default=0)

    @property
    def rows(self) -> int:
        """The newest revision that the Open vSwitch rows hold."""
        return self._held.get(None, 0)

    def holds(self, bridge: str | None, revision: int) -> None:
        """A bridge, or the Open vSwitch rows, hold a revision."""
        self._held[bridge] = revision
        self._tell()

    def forget(self, bridge: str) -> None:
        """A bridge is no more."""
        self._held.pop(bridge, None)
        self._tell()

    async def reached(self, revision: int) -> None:
        """Returns once every bridge holds this revision."""
        if revision > self.flows:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((revision, future))
            await future

    def _tell(self) -> None:
        held, waiting, self._waiting = self.flows, self._waiting, []
        for revision, future in waiting:
            if revision > held:
                self._waiting.append((revision, future))
            elif not future.done():
                future.set_result(None)
        self._on_held()


class Reconciler(Generic[K, V]):
    """Keeps a target to the desired values, through a driver. A key is pending from its change until the target holds it.

    changes: how often keys were marked as pending. on_held: called with the revision that the target holds. is_due: whether a value may be written already.
    """

    def __init__(
        self,
        driver: TargetDriver[K, V],
        revisions: Revisions,
        on_held: Callable[[int], None],
        is_due: Callable[[V], bool] = lambda _: True,
    ) -> None:
        self.desired: Final[dict[K, V]] = {}
        self.pending: dict[K, int] = {}  # key to the number of its last change
        self._driver: Final = driver
        self._revisions: Final = revisions
        self._on_held: Final = on_held
        self._is_due: Final = is_due
        self._suspect = True  # the target's content is not known
        self.changes = 0
        self._work: Final = asyncio.Event()

    @property
    def settled(self) -> bool:
        """Whether the target holds all that is desired."""
        return not (self.pending or self._suspect)

    def want(self, changes: Mapping[K, V | None], after_s: float = 0.0) -> None:
        """Changes desired values, to be written in `after_s` at the latest; None is no value."""
        for key, value in changes.items():
            if value is None:
                self.desired.pop(key, None)
            else:
                self.desired[key] = value
        if not changes and self.settled:
            self._on_held(self._revisions.newest)
            return
        self._mark(changes)
        if after_s:
            asyncio.get_running_loop().call_later(after_s, self._work.set)
        else:
            self._work.set()

    def again(self, keys: Iterable[K] = ()) -> None:
        """Has these keys written, whatever the target was sent before."""
        self._mark(keys)
        self._work.set()

    def _mark(self, keys: Iterable[K]) -> None:
        marked = dict.fromkeys(keys, self.changes + 1)
        if marked:
            self.pending |= marked
            self.changes += 1

    def forget(self, keys: Iterable[K]) -> None:
        """Drops keys: what the target holds of them is no longer the agent's."""
        for key in keys:
            self.desired.pop(key, None)
            self.pending.pop(key, None)

    def distrust(self) -> None:
        """Has the target compared with all that is desired: its content is not known any more."""
        self._suspect = True
        self._work.set()

    async def run(self) -> None:
        """Writes for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            if self._revisions.newest:  # else the desired values are not complete
                await self._round()

    async def _round(self) -> None:
        revision, last = self._revisions.newest, self.changes
        taken: Iterable[K] = self.pending

        def desired() -> Mapping[K, V]:
            nonlocal revision, last
            revision, last = self._revisions.newest, self.changes
            self._suspect = False
            return self.desired

        try:
            if self._suspect:
                await self._driver.prune(desired)
            else:
                taken = due = {key: self.desired.get(key) for key in self.pending if self._may_go(key)}
                await self._driver.change(due)
        except Retry as error:
            self._suspect = True
            if error.after_s is not None:
                asyncio.get_running_loop().call_later(error.after_s, self._work.set)
            return
        for key in [key for key in taken if self.pending.get(key, last + 1) <= last]:
            del self.pending[key]
        self._on_held(revision)

    def _may_go(self, key: K) -> bool:
        value = self.desired.get(key)
        return value is None or self._is_due(value)
