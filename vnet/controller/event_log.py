"""The pool's events in the order in which they came, for any number of readers.

One rule: readers share one bounded list and keep only their place in it, so a slow one costs nothing and stops nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from vnet.db.mirror import Delta
from vnet.objects import Binding, Event, Vif

KEPT = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """position grows by one with each event that this controller saw; id is the same on every controller."""

    position: int
    id: str
    event: Event


class Feed:
    """Events as they come. `first`: those already in the database, by row UUID."""

    def __init__(self, first: Mapping[str, Event], kept: int = KEPT) -> None:
        self._entries: deque[Entry] = deque(maxlen=kept)
        self._next = 1
        self._defined: dict[str, int] = {}
        self._arrived = asyncio.Event()
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
        self._entries.append(Entry(self._next, f"{event.time}-{uuid}", event))
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
            time = int(id.split("-", 1)[0])
        except ValueError:
            return self.end
        return next((entry.position - 1 for entry in self._entries if entry.event.time > time), self.end)

    @property
    def end(self) -> int:
        """The place after the last event."""
        return self._next - 1

    async def follow(self, position: int, idle_s: float) -> AsyncIterator[Entry | None]:
        """Every event after `position`, without end; None whenever there was none for `idle_s`."""
        while True:
            arrived = self._arrived
            new = [entry for entry in self._entries if entry.position > position] if position < self.end else []
            for entry in new:
                position = entry.position
                yield entry
            if new:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(idle_s):
                    await arrived.wait()
                continue
            yield None
