"""Trials: revisions that are taken back unless somebody confirms them in time.

One rule: a trial and its end are in the pool database, in the transaction of its revision, so whichever controller leads takes it back, and none needs to
have been there. While it runs, no change is let in that would keep it from being taken back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from ovsctl.ovsdb import Operation, Wait
from vnet import api
from vnet.api.errors import Conflict, NotFound
from vnet.controller.apply import followed_by_hosts, show_plan
from vnet.controller.endpoint import Call
from vnet.controller.presenters import show_trial
from vnet.controller.service import Service, refusing_pool_errors
from vnet.controller.trial_guard import TrialGuard
from vnet.db.changes import DeleteObject
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.rows import TABLE_OF
from vnet.db.writes import Step, Write, configuration_write, runtime_write
from vnet.objects import Event
from vnet.objects.trial import Trial
from vnet.plan.decide import Admission, Inadmissible
from vnet.plan.past import take_back
from vnet.plan.pool import costs_of

WAIT_S = 30


async def taking_back(
    database: PoolDatabase, guard: TrialGuard, trial: Trial, *first: Operation
) -> tuple[Write, Admission]:
    """The write that takes a trial back, and its plan. first: operations that go before.

    Raises PoolUnreachable, ValueError without its record, Inadmissible where the pool as it is now cannot be as it was.
    """
    changes = await guard.changes_of(trial)
    view = database.view()
    admission = take_back(view, [changes], f"revision {trial.revision - 1}", wherever=True)
    ended = DeleteObject(trial)
    rows = database.mirror
    if admission.changes:
        write = configuration_write([*admission.changes, ended], view.state.pool, generation=True, rows=rows)
    else:
        write = runtime_write([ended], rows=rows)
    steps = (*map(Step, first), still_on(trial), *write.steps)
    return Write(steps, write.changes, write.revision, write.generation), admission


def still_on(trial: Trial) -> Step:
    """Refuses a write once a trial has ended."""
    row = {"revision": trial.revision, "ends": trial.ends}
    wait = Wait(TABLE_OF[Trial], (), tuple(row), (row,))
    return Step(wait, ("no-trial", f"revision {trial.revision} is not on trial any more", "trial"))


# --- the calls ------------------------------------------------------------------------------------


def _trial(call: Call[None]) -> Trial:
    """The trial that a call means. Raises NotFound."""
    call.service.view()
    trial = call.service.database.mirror.trial
    expected = call.number("revision", 0, 1, 2**63 - 1) if "revision" in call.query else None
    if trial is None or expected not in (None, trial.revision):
        what = "nothing" if expected is None else f"revision {expected}"
        raise NotFound("no-trial", f"{what} is on trial: it was confirmed or taken back ('vnet history')", "trial")
    return trial


async def get_trial(call: Call[None]) -> api.Trial:
    """The revision that is on trial."""
    return show_trial(_trial(call), now_ms())


async def confirm(call: Call[None]) -> api.Trial:
    """Keep the revision that is on trial."""
    async with call.service.writing:
        trial = _trial(call)
        write = runtime_write([DeleteObject(trial)], rows=call.service.database.mirror)
        write = Write((still_on(trial), *write.steps), write.changes)
        await call.service.write(write, [Event(now_ms(), "confirmed", f"revision {trial.revision} is confirmed")])
    await call.service.database.wait_for(lambda _: call.service.database.mirror.trial is None, 5.0)
    return show_trial(trial, now_ms())


async def revert(call: Call[None]) -> AsyncIterator[tuple[str, api.Applied]]:
    """Take the revision that is on trial back at once.

    Then follows the hosts as they follow.
    """
    applied = await _revert(call.service, _trial(call))
    async for line, followed in followed_by_hosts(call.service, applied, WAIT_S):
        yield line, followed


async def _revert(service: Service, trial: Trial) -> api.Applied:
    async with service.writing:
        try:
            with refusing_pool_errors():
                write, admission = await taking_back(service.database, service.trials, trial)
        except (Inadmissible, ValueError) as error:
            raise Conflict(
                "not-as-it-is-now", f"revision {trial.revision} cannot be taken back: {error}", "trial"
            ) from None
        shown = show_plan(admission.plan, nothing="Nothing to take back.")
        await service.write(write, [reverted(trial, service.caller.name)], costs_of(admission.plan))
    pool = service.view().state.pool
    generation = pool.generation if pool is not None else 0
    return api.Applied(plan=shown, revision=pool.revision if pool is not None else 0, generation=generation)


def reverted(trial: Trial, by: str = "") -> Event:
    """The event of a trial that was taken back: by somebody, or because nobody confirmed it."""
    reason = f"by {by}" if by else "since nobody confirmed it in time"
    return Event(now_ms(), "taken-back", f"revision {trial.revision} is taken back {reason}")
