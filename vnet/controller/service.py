"""The calls of the controller: each takes a decision on the pool as it is, writes it, and waits where the call says so.

One rule: a decision is taken anew when another write came first, so a call either holds or says why not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vnet.controller.admission import find
from vnet.controller.errors import Conflict, InsufficientStorage, NotFound, Unavailable
from vnet.controller.event_builder import events_of
from vnet.controller.event_log import Feed
from vnet.controller.joining import Joining
from vnet.controller.vif_status import Presence, Whereabouts, host_problem, place_problem, whereabouts
from vnet.db.changes import Delete, RowChange, Update
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.errors import DatabaseFull, PoolUnreachable, WriteConflict
from vnet.db.view import PoolView
from vnet.db.writes import Write, configuration_write, runtime_write
from vnet.objects import Event, Vif, Vm
from vnet.plan.decide import Admission
from vnet.util.logs import about

log = logging.getLogger("vnet.controller")

ATTEMPTS = 10
MAX_COUNTING = 4  # calls at once that ask hosts for the counters of rules; the others wait
OVERTAKEN = ("stale-revision", "row-changed")

Step = Callable[[PoolView], Sequence[RowChange]]


@dataclass(frozen=True, slots=True)
class Unit:
    """The VIFs that move as one: a VM with all its VIFs, or a single VIF. Exactly one of the two is given."""

    vm: str | None = None
    vif: str | None = None

    def __str__(self) -> str:
        return f"VM {self.vm}" if self.vm is not None else f"VIF {self.vif}"

    def vifs(self, view: PoolView) -> tuple[Vif, ...]:
        """Its VIFs now; raises NotFound, and Conflict for a VM without any."""
        if self.vif is not None:
            return (find("vif", self.vif, view.state.vifs),)
        find("vm", self.vm or "", view.state.vms)
        vifs = view.vifs(self.vm or "")
        if not vifs:
            raise Conflict("no-vifs", f"VM {self.vm} has no VIFs", self.vm or "")
        return vifs

    def row(self, view: PoolView) -> Vm | None:
        """The VM's row; None for a single VIF."""
        return view.state.vms.get(self.vm) if self.vm is not None else None


class Service:
    """The pool, to read and to write. certificate_problems: reads files and may be called in a thread."""

    def __init__(
        self,
        database: PoolDatabase,
        version: str = "",
        certificate_problems: Callable[[], tuple[str, ...]] = tuple,
        joining: Joining | None = None,
    ) -> None:
        self.database = database
        self.version = version
        self.certificate_problems = certificate_problems
        self.joining = joining or Joining()
        self.feed = Feed(database.mirror.events)
        database.subscribe(lambda deltas: self.feed.take(deltas, now_ms()))
        self.writing = asyncio.Lock()
        self.counting = asyncio.Semaphore(MAX_COUNTING)

    def view(self) -> PoolView:
        """The pool now; raises Unavailable while the database is away, for what we hold may be old."""
        if not self.database.connected:
            raise Unavailable("database-unreachable", f"the pool database {self.database.remotes[0]} does not answer")
        return self.database.view()

    async def configure(self, decide: Callable[[PoolView], Admission]) -> Admission:
        """Write a decision as configuration: it raises the pool's revision. Returns the decision that was written."""
        taken: list[Admission] = []

        def changes(view: PoolView) -> Sequence[RowChange]:
            taken.append(decide(view))
            return taken[-1].changes

        await self._write(changes, self._configuration)
        return taken[-1]

    def _configuration(self, changes: Sequence[RowChange], view: PoolView) -> Write:
        return configuration_write(changes, view.state.pool, locate=self.database.mirror.locate)

    async def step(self, decide: Step) -> bool:
        """Write a decision as a step of what runs; whether there was anything to write."""
        return await self._write(decide, lambda changes, _: runtime_write(changes, locate=self.database.mirror.locate))

    async def write(self, write: Write, events: Sequence[Event]) -> None:
        """One write, as it is; raises Conflict if another one came first."""
        try:
            await self.database.write(write, events)
            _log(write, events)
        except WriteConflict as conflict:
            raise Conflict(conflict.code, conflict.message, conflict.where) from None
        except PoolUnreachable as error:
            raise Unavailable("database-unreachable", str(error)) from None
        except DatabaseFull as error:
            raise InsufficientStorage("database-full", str(error)) from None

    async def _write(self, decide: Step, build: Callable[[Sequence[RowChange], PoolView], Write]) -> bool:
        async with self.writing:
            for _ in range(ATTEMPTS):
                view = self.view()
                changes = decide(view)
                if not changes:
                    return False
                try:
                    write = build(changes, view)
                except WriteConflict as conflict:
                    raise Conflict(conflict.code, conflict.message, conflict.where) from None
                try:
                    await self.write(write, events_of(changes, now_ms()))
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
            return () if wanted == vif else (Update(vif, wanted),)

        await self.step(decide)

        def ready(view: PoolView) -> bool:
            vif = view.state.vifs.get(id)
            at = whereabouts(view, vif) if vif is not None else None
            enough = (Presence.READY, Presence.AWAITED) if awaited else (Presence.READY,)
            return at is None or (at.presence in enough and at.host == host)

        await self.database.wait_for(ready, wait_s)

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
            changes: list[RowChange] = [Delete(binding) for binding in bindings.values()]
            if vif.host is not None:
                changes.append(Update(vif, replace(vif, host=None, awaited=False)))
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
