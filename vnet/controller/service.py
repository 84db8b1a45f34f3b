"""The calls of the controller: each takes a decision on the pool as it is, writes it, and waits where the call says so.

One rule: a decision is taken anew when another write came first, so a call either holds or says why not.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vnet.api.errors import Conflict, NoRoom, NotFound, Unavailable
from vnet.controller.access import Caller
from vnet.controller.admission import find
from vnet.controller.event_builder import events_of
from vnet.controller.event_log import Feed
from vnet.controller.joining import Joining
from vnet.controller.metrics import ControllerMeasures, PoolMetrics
from vnet.controller.old_agents import check_encryption
from vnet.controller.quotas import Quotas
from vnet.controller.refused_calls import RefusedCalls
from vnet.controller.trial_guard import TrialGuard
from vnet.controller.twin import Twin
from vnet.controller.vif_status import Presence, Whereabouts, host_problem, place_problem, whereabouts
from vnet.db.accounting import Counts
from vnet.db.changes import DeleteObject, RowChange, UpdateObject
from vnet.db.database import STEP, PoolDatabase, now_ms
from vnet.db.errors import DatabaseFull, PoolUnreachable, WriteConflict
from vnet.db.history import Costs
from vnet.db.mirror import Delta
from vnet.db.view import PoolView
from vnet.db.writes import Write, configuration_write, runtime_write
from vnet.objects import Event, Network
from vnet.objects.state import NOUNS
from vnet.plan.decide import Admission
from vnet.plan.pool import costs_of
from vnet.util.logs import about
from vnet.util.shared_answer import SharedAnswer

log = logging.getLogger("vnet.controller")

ATTEMPTS = 10
MAX_COUNTING = 4  # calls at once that ask hosts for the counters of rules; the others wait
ACCOUNTS_S = 5.0  # for which what hosts have written of all VIFs is read once
TRAFFIC_S = 2.0  # for which what VIFs have received and sent is one answer to all who ask
OVERTAKEN = ("stale-revision", "row-changed")

Step = Callable[[PoolView], Sequence[RowChange]]


@contextmanager
def refusing_pool_errors() -> Iterator[None]:
    """A pool database that does not answer, or cannot write, refuses the call."""
    try:
        yield
    except PoolUnreachable as error:
        raise Unavailable("database-unreachable", str(error)) from None
    except DatabaseFull as error:
        raise NoRoom("database-full", str(error)) from None


class Service:
    """The pool, to read and to write. certificate_problems: reads files and may be called in a thread. certificates: the directory of those files. caller: who reads and writes."""

    def __init__(
        self,
        database: PoolDatabase,
        version: str = "",
        certificate_problems: Callable[[], tuple[str, ...]] = tuple,
        joining: Joining | None = None,
        certificates: Path | None = None,
    ) -> None:
        self.database = database
        self.version = version
        self.certificate_problems = certificate_problems
        self.joining = joining or Joining()
        self.feed = Feed(database.mirror.events)
        database.subscribe(lambda deltas: self.feed.take(deltas, now_ms()))
        self.writing = asyncio.Lock()
        self.counting = asyncio.Semaphore(MAX_COUNTING)
        self.quotas = Quotas(database)
        self.trials = TrialGuard(database)
        self.twin = Twin(database)
        self.refused_calls = RefusedCalls(database, now_ms)
        self.measures = ControllerMeasures()
        self.traffic: SharedAnswer[Any] = SharedAnswer(TRAFFIC_S)
        self.accounts: SharedAnswer[dict[str, tuple[Counts, int]]] = SharedAnswer(ACCOUNTS_S)
        self.metrics = PoolMetrics(self.view, self.measures, certificates)
        self.caller = Caller()
        database.subscribe(self._count)

    def _count(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            if isinstance(delta.new, Event) and delta.old is None:
                self.measures.event(delta.new)

    def by(self, caller: Caller) -> Service:
        """The same for a caller: its writes are in its name, and within its scope."""
        made = copy.copy(self)
        made.caller = caller
        return made

    def view(self) -> PoolView:
        """The pool now; raises Unavailable while the database is away, for what we hold may be old."""
        if not self.database.connected:
            raise Unavailable("database-unreachable", f"the pool database {self.database.remotes[0]} does not answer")
        return self.database.view()

    def seen(self) -> PoolView:
        """The pool as the caller may see it, to show; raises Unavailable."""
        view, scope = self.view(), self.caller.scope
        return view if scope is None else view.within(scope)

    def check_visible(self, noun: str, name: str) -> None:
        """Raises NotFound for an object that is not there for a caller with a scope. Without its scope's names, none is meant."""
        if self.caller.scope is not None and name not in getattr(self.seen().state, NOUNS[noun].state):
            text = f"{NOUNS[noun].text} {name} is not in the scope of {self.caller.name}"
            self.refused_calls.add(self.caller.author, "scope", text, proved=True)
            raise NotFound(f"unknown-{noun}", f"there is no {NOUNS[noun].text} {name}", name)

    async def configure(self, decide: Callable[[PoolView], Admission]) -> Admission:
        """Write a decision as configuration: it raises the pool's revision. Returns the decision that was written."""
        taken: list[Admission] = []

        def changes(view: PoolView) -> Sequence[RowChange]:
            taken.append(decide(view))
            return taken[-1].changes

        await self._write(changes, self._configuration, lambda: costs_of(taken[-1].plan))
        return taken[-1]

    def _configuration(self, changes: Sequence[RowChange], view: PoolView) -> Write:
        return configuration_write(changes, view.state.pool, rows=self.database.mirror)

    async def step(self, decide: Step) -> bool:
        """Write a decision as a step of what runs; whether there was anything to write."""
        return await self._write(decide, lambda changes, _: runtime_write(changes, rows=self.database.mirror))

    async def note(self, summary: str) -> None:
        """Record what the caller does beside the pool's rows; raises Unavailable, NoRoom."""
        with refusing_pool_errors():
            await self.database.note(self.caller.author, summary)

    async def write(self, write: Write, events: Sequence[Event], costs: Costs = STEP) -> None:
        """One write, as it is; raises Conflict if another one came first."""
        begun_s = time.monotonic()
        try:
            with refusing_pool_errors():
                await self.database.write(write, events, self.caller.author, costs)
            self.measures.writes.observe(time.monotonic() - begun_s)
            _log(write, events)
        except WriteConflict as conflict:
            raise Conflict(conflict.code, conflict.message, conflict.subject) from None

    def admit(self, changes: Sequence[RowChange], view: PoolView) -> None:
        """Raises Forbidden for a change that the caller may not make, Conflict for one beyond its quota or that an older agent would not follow."""
        check_encryption(view, (change.new for change in changes if isinstance(change.new, Network)))
        self.caller.check_changes(changes, view)
        if (scope := self.caller.scope) is not None:
            self.quotas.check(scope.resolved(view.state.networks.values()), changes, view.state)

    async def _write(
        self,
        decide: Step,
        build: Callable[[Sequence[RowChange], PoolView], Write],
        costs: Callable[[], Costs] = Costs,
    ) -> bool:
        async with self.writing:
            for _ in range(ATTEMPTS):
                view = self.view()
                changes = decide(view)
                if not changes:
                    return False
                self.admit(changes, view)
                with refusing_pool_errors():
                    await self.trials.check(changes, view)
                try:
                    write = build(changes, view)
                except WriteConflict as conflict:
                    raise Conflict(conflict.code, conflict.message, conflict.subject) from None
                try:
                    await self.write(write, events_of(changes, now_ms()), costs())
                except Conflict as conflict:
                    if conflict.code not in OVERTAKEN:
                        raise
                    await asyncio.sleep(0.01)  # what overtook us is on its way here
                else:
                    return True
        raise Conflict("busy", f"other writes came first {ATTEMPTS} times: try again")

    # --- plugging -----------------------------------------------------------------------------------

    async def plug(self, id: str, host: str, wait_s: float, *, awaited: bool) -> None:
        """Want a VIF on a host, and wait until it is ready there, or with `awaited` until a number is reserved, at most `wait_s`.
        The port itself is added on that host."""

        def decide(view: PoolView) -> Sequence[RowChange]:
            vif = find("vif", id, view.state.vifs)
            if vif.incoming is not None:
                raise Conflict("migrating", f"VIF {id} is on its way to host {vif.incoming}", id)
            reason = place_problem(view, vif, host)
            if reason is not None:
                raise Conflict(reason.code, f"VIF {id} cannot be on host {host}: {reason.text}", "host")
            wanted = replace(vif, host=host, awaited=awaited or vif.awaited)
            return () if wanted == vif else (UpdateObject(vif, wanted),)

        await self.step(decide)

        def ready(view: PoolView) -> bool:
            vif = view.state.vifs.get(id)
            at = whereabouts(view, vif) if vif is not None else None
            enough = (Presence.READY, Presence.AWAITED) if awaited else (Presence.READY,)
            return at is None or (at.presence in enough and at.host == host)

        begun_s = time.monotonic()
        await self.database.wait_for(ready, wait_s)
        self.measures.plugs.observe(time.monotonic() - begun_s)

    async def unplug(self, id: str) -> None:
        """Want a VIF nowhere in particular, and forget it on dead hosts. Raises Conflict while a live host has its port."""

        def decide(view: PoolView) -> Sequence[RowChange]:
            vif = find("vif", id, view.state.vifs)
            if vif.incoming is not None:
                raise Conflict("migrating", f"VIF {id} is on its way to host {vif.incoming}: abort or finish that", id)
            bindings = view.bindings_of.get(id, {})
            alive = sorted(host for host, at in bindings.items() if at.plugged and host_problem(view, host) is None)
            if alive:
                there = ", ".join(alive)
                raise Conflict(
                    "port-there", f"host {there} has the port of VIF {id}: take it away there (vnet vif unplug)", id
                )
            changes: list[RowChange] = [DeleteObject(binding) for binding in bindings.values()]
            if vif.host is not None:
                changes.append(UpdateObject(vif, replace(vif, host=None, awaited=False)))
            return changes

        await self.step(decide)

    def place(self, id: str) -> Whereabouts:
        """The place of a VIF; raises NotFound."""
        view = self.view()
        vif = view.state.vifs.get(id)
        if vif is None:
            raise NotFound("unknown-vif", f"there is no vif {id}", id)
        return whereabouts(view, vif)


def _log(write: Write, events: Sequence[Event]) -> None:
    for event in events:
        fields = {"host": event.host or None, "network": event.network or None, "vif": event.vif or None}
        log.info(
            "%s: %s",
            event.kind,
            event.text,
            extra=about(**fields, revision=write.revision, generation=write.generation),
        )
