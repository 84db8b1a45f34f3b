"""Driving migrations: the single calls, and the whole way from prepare to finish.

One rule: nothing is remembered between steps. A driver that died is replaced by calling again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from vnet.api import Unit
from vnet.api.errors import Conflict, Refused, TimedOut
from vnet.controller import migration_state
from vnet.controller.migration_state import Migration, Phase, unit_of, vifs_of
from vnet.controller.service import Service
from vnet.db.changes import RowChange
from vnet.db.database import now_ms
from vnet.db.view import PoolView

UNITS_AT_ONCE = 10  # of an evacuation: each has its frames sent to two hosts from when it is prepared
SLOT_S = 60.0  # a unit that takes longer goes on beside the next one: guests that never announce themselves stop nobody


def status(service: Service, unit: Unit) -> Migration:
    """How far a unit's migration is."""
    view = service.view()
    return migration_state.unit_migration(view, vifs_of(view, unit))


async def prepare(service: Service, unit: Unit, to: str, *, force: bool = False) -> Migration:
    """Make `to` an incoming host of the whole unit, in one transaction."""
    await service.step(lambda view: migration_state.prepare(view, vifs_of(view, unit), to, force=force))
    return status(service, unit)


async def switch(service: Service, unit: Unit, *, force: bool = False) -> Migration:
    """Ask the destination's agent to let in what arrives."""
    await service.step(lambda view: migration_state.switch(view, vifs_of(view, unit), now_ms(), force=force))
    return status(service, unit)


async def activate(service: Service, unit: Unit, *, force: bool = False) -> Migration:
    """Make the destination the place where the unit runs."""
    await service.step(lambda view: migration_state.activate(view, vifs_of(view, unit), now_ms(), force=force))
    return status(service, unit)


async def finish(service: Service, unit: Unit, *, force: bool = False) -> Migration:
    """End the migration at its destination."""

    def decide(view: PoolView) -> Sequence[RowChange]:
        return migration_state.finish(
            view,
            vifs_of(view, unit),
            now_ms(),
            vm=view.state.vms.get(unit.id) if unit.plural == "vms" else None,
            force=force,
        )

    await service.step(decide)
    return status(service, unit)


async def abort(service: Service, unit: Unit) -> Migration:
    """End the migration at its source."""
    await service.step(lambda view: migration_state.abort(view, vifs_of(view, unit)))
    return status(service, unit)


async def migrate(service: Service, unit: Unit, to: str, *, activated: bool, timeout_s: float) -> AsyncIterator[str]:
    """The whole way, as lines of progress; returns when the unit runs on `to`.

    Waits for the guest's own announcement unless `activated`. Raises Conflict if it is aborted meanwhile, TimedOut with
    what is missing; what was done stays, and calling again goes on from there.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    await prepare(service, unit, to)
    said = ""
    while True:
        view = service.view()
        now = migration_state.unit_migration(view, vifs_of(view, unit))
        if now.phase is Phase.NONE:
            if migration_state.runs_on(view, vifs_of(view, unit), to):
                yield f"{unit} runs on host {to}"
                return
            raise Conflict("aborted", f"{unit}: the migration to host {to} was aborted")
        if now.phase is Phase.ACTIVE:
            yield f"{unit} is active on host {to}"
            await finish(service, unit)
            continue
        if now.phase is Phase.PREPARED and activated:
            yield f"{unit} is prepared on host {to}"
            await activate(service, unit)
            continue
        text = _progress(unit, now)
        if text != said:
            yield text
            said = text
        left_s = deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise TimedOut("timeout", f"not within {timeout_s:g} s: {text}", str(to))
        await _changed(service, unit, now, left_s)


async def evacuate(
    service: Service, host: str, to: str | None, *, activated: bool, timeout_s: float
) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Move all that runs on a host, some units at once; lines of progress, each with what has moved so far and where."""
    view = service.view()
    plan = migration_state.plan_evacuation(view, host, to)
    moved: dict[str, str] = {}
    lines: asyncio.Queue[str | Refused | None] = asyncio.Queue()
    slots, now_s = asyncio.Semaphore(UNITS_AT_ONCE), asyncio.get_running_loop().time
    deadline = now_s() + timeout_s

    async def drive(unit: Unit, destination: str) -> None:
        try:
            async with _slot(slots):
                if (left_s := round(deadline - now_s(), 1)) <= 0:
                    raise TimedOut("timeout", f"{unit} was not begun within {timeout_s:g} s", destination)
                async for line in migrate(service, unit, destination, activated=activated, timeout_s=left_s):
                    lines.put_nowait(line)
            moved[unit.id] = destination
        except Refused as error:
            lines.put_nowait(error)
        finally:
            lines.put_nowait(None)

    units = {unit_of(view.state.vifs[vifs[0]]): destination for vifs, destination in plan.items()}
    failed: list[Refused] = []
    async with asyncio.TaskGroup() as tasks:
        for unit, destination in units.items():
            tasks.create_task(drive(unit, destination))
        running = len(units)
        while running:
            line = await lines.get()
            running -= line is None
            if isinstance(line, Refused):
                failed.append(line)
            elif line is not None:
                yield line, dict(moved)
    if failed:
        raise TimedOut("not-evacuated", "; ".join(error.message for error in failed), host)
    yield f"host {host} runs nothing", dict(moved)


@asynccontextmanager
async def _slot(slots: asyncio.Semaphore) -> AsyncIterator[None]:
    """Holds one of the slots, for SLOT_S at most."""
    await slots.acquire()
    loop = asyncio.get_running_loop()
    timer = loop.call_later(SLOT_S, slots.release)
    try:
        yield
    finally:
        if loop.time() < timer.when():
            timer.cancel()
            slots.release()


def _progress(unit: Unit, now: Migration) -> str:
    dead = f" (not waited for: {', '.join(now.not_waited)})" if now.not_waited else ""
    match now.phase:
        case Phase.PREPARING:
            return f"{unit} is being prepared: {'; '.join(now.waiting)}{dead}"
        case Phase.PREPARED:
            return f"{unit} is prepared on host {now.destination}{dead}: waiting for the guest's announcement there"
        case _:
            return f"{unit} is {now.phase.word} on host {now.destination}"


async def _changed(service: Service, unit: Unit, now: Migration, timeout_s: float) -> None:
    def differs(view: PoolView) -> bool:
        vifs = [view.state.vifs.get(vif.id) for vif in vifs_of(view, unit)]
        return migration_state.unit_migration(view, [vif for vif in vifs if vif is not None]) != now

    await service.database.wait_for(differs, timeout_s)
