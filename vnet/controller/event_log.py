"""The pool's events in the order in which they came, for any number of readers.

One rule: readers share one bounded list and keep only their place in it, so a slow one costs nothing and stops nobody. An event is encoded once,
and who reads many takes them in batches, of which one is handed out in a turn of the loop, whoever else waits for more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from vnet.controller.presenters import show_event
from vnet.db.mirror import Delta
from vnet.objects import Binding, Event, Vif

KEPT = 2000
BATCH = 100  # events that a reader takes at once: some 25 kB


@dataclass(frozen=True, slots=True)
class Entry:
    """position grows by one with each event that this controller saw; id is the same on every controller. data: as the API shows it, in JSON,
    which has no line breaks."""

    position: int
    id: str
    event: Event
    data: bytes = b""


class Feed:
    """Events as they come. `first`: those already in the database, by row UUID."""

    def __init__(self, first: Mapping[str, Event], kept: int = KEPT) -> None:
        self._entries: deque[Entry] = deque(maxlen=kept)
        self._next = 1
        self._defined: dict[str, int] = {}
        self._arrived = asyncio.Event()
        self._turn: Final = asyncio.Lock()  # of those who have a whole batch to read
        for uuid, event in sorted(first.items(), key=lambda item: (item[1].time, item[0])):
            self._add(uuid, event)

    def take(self, deltas: Iterable[Delta], now_ms: int) -> None:
        """Add the events among what changed in the pool, and note which VIFs lost a host."""
        added: list[tuple[int, str, Event]] = []
        for delta in deltas:
            if isinstance(delta.new, Event) and delta.old is None:
                added.append((delta.new.time, str(delta.key), delta.new))
            elif isinstance(delta.old, Binding) and delta.new is None:
                self._defined[delta.old.vif] = now_ms
            elif isinstance(delta.old, Vif) and delta.new is None:
                self._defined.pop(delta.old.id, None)
        for _, uuid, event in sorted(added, key=lambda item: item[:2]):  # one transaction's come in no order
            self._add(uuid, event)
        if added:
            self._arrived.set()
            self._arrived = asyncio.Event()

    def _add(self, uuid: str, event: Event) -> None:
        id = f"{event.time}-{uuid}"
        self._entries.append(Entry(self._next, id, event, msgspec.json.encode(show_event(id, event))))
        self._next += 1
        if event.kind == "vif-created":
            self._defined[event.vif] = event.time

    def defined_since(self, vif: str) -> int | None:
        """When a VIF came to be, or lost its host, in milliseconds since 1970; None if that was before our time."""
        return self._defined.get(vif)

    def latest(self, limit: int) -> list[Entry]:
        """The newest entries, oldest first."""
        return list(self._entries)[-limit:] if limit > 0 else []

    def position_after(self, id: str) -> int:
        """Where to go on after the event `id`, which this controller may never have seen: then after its time."""
        for entry in reversed(self._entries):
            if entry.id == id:
                return entry.position
        try:
            return self.position_at(int(id.split("-", 1)[0]))
        except ValueError:
            return self.end

    def position_at(self, time: int) -> int:
        """The place before the first event after a time, in milliseconds since 1970."""
        return next((entry.position - 1 for entry in self._entries if entry.event.time > time), self.end)

    @property
    def end(self) -> int:
        """The place after the last event."""
        return self._next - 1

    def after(self, position: int) -> list[Entry]:
        """The next events after `position`, at most BATCH."""
        if position >= self.end:
            return []
        skipped = max(0, position + 1 - self._entries[0].position)
        return list(islice(self._entries, skipped, skipped + BATCH))

    async def follow(self, position: int, idle_s: float) -> AsyncIterator[list[Entry]]:
        """Every event after `position`, in batches, without end; an empty one whenever there was none for `idle_s`."""
        while True:
            arrived = self._arrived
            if self.end - position >= BATCH:
                async with self._turn:
                    new = self.after(position)
                    await asyncio.sleep(0)
            else:
                new = self.after(position)
            if new:
                position = new[-1].position
                yield new
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(idle_s):
                    await arrived.wait()
                continue
            yield []
