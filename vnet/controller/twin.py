"""The twin of the pool as it is, for who asks it.

One rule: the loop computes nothing of it. One question at a time is answered, in a thread, for as long as its caller waits; the twin is kept for the next one
until the pool changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from vnet.api.errors import Conflict, Invalid, Unavailable
from vnet.controller.threads import in_thread
from vnet.db.database import PoolDatabase
from vnet.db.mirror import Delta
from vnet.db.view import PoolView
from vnet.objects import AgentStatus, Event, PoolState
from vnet.plan import NothingToExport, document_of
from vnet.topology import TopologyErrors
from vnet.util.gc_pause import collector_held

if TYPE_CHECKING:
    from vnet.sim import SimPool

T = TypeVar("T")

WAITING_MOST = 8  # questions that wait; who comes then is refused
DOCUMENT = "pool.vnet.yaml"  # the pool's document in places, as 'vnet export' prints it


class Twin:
    """The twin of a pool, made when somebody asks."""

    def __init__(self, database: PoolDatabase) -> None:
        self._made: SimPool | None = None
        self._changed = True
        self._lock: Final = asyncio.Lock()
        self._waiting = 0
        database.subscribe(self._note)

    def _note(self, deltas: list[Delta]) -> None:
        """An agent that reports, and what happened, change no packet's way."""
        self._changed = self._changed or any(
            not isinstance(delta.new or delta.old, AgentStatus | Event) for delta in deltas
        )

    async def ask(self, view: Callable[[], PoolView], question: Callable[[SimPool], T]) -> T:
        """The answer of the twin of the pool now, as `view` shows it. Raises Invalid for what it refuses, Unavailable, Conflict."""
        async with self._turn():
            if self._changed:
                self._changed, self._made = False, None
            state = view().state.snapshot() if self._made is None else None
            return await in_thread(self._answer, state, question)

    async def run(self, answer: Callable[[], T]) -> T:
        """An answer that needs another twin, in its turn. Raises as `ask`."""
        async with self._turn():
            return await in_thread(_refusing, answer)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING_MOST:
            raise Unavailable("busy", f"{self._waiting} questions wait for the twin: try again")
        self._waiting += 1
        try:
            async with self._lock:
                yield
        finally:
            self._waiting -= 1

    def _answer(self, state: PoolState | None, question: Callable[[SimPool], T]) -> T:
        if state is not None:
            with collector_held():
                self._made = twin_of(state)
        if self._made is None:
            raise Unavailable("busy", "the pool changes: try again")
        twin = self._made
        return _refusing(lambda: question(twin))


def _refusing(answer: Callable[[], T]) -> T:
    from ovsctl.datapath import DatapathError  # noqa: PLC0415 - a controller that nobody asks need not load it
    from vnet.sim import SimError  # noqa: PLC0415

    try:
        return answer()
    except (SimError, DatapathError) as error:
        raise Invalid("question", str(error)) from None


def twin_of(state: PoolState) -> SimPool:
    """The twin of a pool with its VIFs where they run, and its document for places. Raises Conflict."""
    from vnet.sim import SimPool  # noqa: PLC0415

    made = SimPool.of(state, claim=False)
    try:
        made.document = document_of(state, DOCUMENT)
    except NothingToExport as error:
        raise Conflict("no-pool", str(error)) from None
    except TopologyErrors as errors:
        raise Conflict("no-document", f"the pool is no document: {errors}") from None
    return made
