"""Documents: what one would change, making the pool so, and writing the pool as one.

One rule: a document is applied whole, in one transaction against the revision it was planned for, or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec

from vnet import api
from vnet.api.errors import Conflict, Invalid
from vnet.controller.endpoint import Call
from vnet.controller.entity_tags import tag_of_changes
from vnet.controller.impact_analysis import expectations, reachability, refuse_broken
from vnet.controller.old_agents import check_encryption
from vnet.controller.presenters import problems_of_hosts, show_trial
from vnet.controller.service import Service
from vnet.controller.threads import in_thread
from vnet.db.changes import InsertObject, RowChange, state_changes
from vnet.db.database import now_ms
from vnet.db.errors import WriteConflict
from vnet.db.history import Costs
from vnet.db.view import PoolView
from vnet.db.writes import Rows, Write, configuration_write
from vnet.objects import Event, Pool, PoolState
from vnet.objects.trial import Trial
from vnet.plan import PoolPlan, desired_state, plan_dict, plan_pool, render_plan
from vnet.plan.pool import costs_of
from vnet.plan.render import NOTHING
from vnet.topology import Document, TopologyErrors, parse_document
from vnet.util.gc_pause import collector_held

MAX_WAIT_S = 600
MAX_TRIAL_S = 24 * 3600


class InvalidDocument(Invalid):
    """A document that is refused, with all that is wrong with it."""

    def __init__(self, errors: TopologyErrors) -> None:
        super().__init__("invalid-document", str(errors))
        self.problems = msgspec.convert(errors.as_dicts(), list[api.InputProblem])


@lru_cache(maxsize=1)
def read(body: bytes, filename: str) -> Document:
    """The document, judged by its grammar alone; raises InvalidDocument. The last one is kept: an apply mostly follows its plan."""
    try:
        return parse_document(body, filename)
    except TopologyErrors as errors:
        raise InvalidDocument(errors) from None


def wanted(document: Document, current: PoolState) -> PoolState:
    """The pool as the document wants it; raises InvalidDocument for clashes with what is there."""
    try:
        return desired_state(document, current)
    except TopologyErrors as errors:
        raise InvalidDocument(errors) from None


def show_plan(
    plan: PoolPlan,
    expected: list[api.Expected] | None = None,
    reach: list[api.Difference] | None = None,
    nothing: str = NOTHING,
    pool_id: str | None = None,
) -> api.Plan:
    """A plan for the API. nothing: the text of an empty one. pool_id: of a plan that has an id."""
    plain = plan_dict(plan)
    return api.Plan(
        revision=plan.base_revision or 0,
        disruption=str(plain["disruption"]),
        changes=msgspec.convert(plain["changes"], list[api.Change]),
        text=render_plan(plan, nothing),
        expectations=expected or [],
        reachability=reach,
        id=tag_of_changes(pool_id, plain["changes"]) if pool_id is not None else "",
    )


def _filename(call: Call[bytes]) -> str:
    return call.query.get("filename", "document")[:200]


async def plan(call: Call[bytes]) -> api.Plan:
    """The changes that applying a document would make."""
    document = await in_thread(read, call.body, _filename(call))
    state = call.service.view().state.snapshot()
    desired = await in_thread(wanted, document, state)
    expected = await in_thread(expectations, replace(document, state=desired), state, desired)
    reach = await in_thread(reachability, state, desired) if call.flag("reachability") else None
    return (await in_thread(_planned, state, desired, expected, reach))[1]


def _planned(
    state: PoolState, desired: PoolState, expected: list[api.Expected], reach: list[api.Difference] | None = None
) -> tuple[PoolPlan, api.Plan]:
    with collector_held():
        found = plan_pool(state, desired)
        return found, show_plan(found, expected, reach, pool_id=state.pool.id if state.pool is not None else "")


async def apply(call: Call[bytes]) -> AsyncIterator[tuple[str, api.Applied]]:
    """Make the pool as a document says; all of it, or nothing.

    Then follows the hosts as they follow.
    """
    document = await asyncio.to_thread(read, call.body, _filename(call))
    expected = call.number("revision", 0, 0, 2**63 - 1) if "revision" in call.query else None
    wait_s = call.number("wait_s", 30, 0, MAX_WAIT_S)
    same = call.query.get("plan")
    applied = await _apply(call.service, document, expected, same, trial_s(call), force=call.flag("force"))
    async for line, followed in followed_by_hosts(call.service, applied, wait_s):
        yield line, followed


def trial_s(call: Call[Any]) -> int | None:
    """The seconds of a trial; None for what stays. Raises Invalid."""
    return call.number("try_s", 60, 1, MAX_TRIAL_S) if "try_s" in call.query else None


async def _apply(
    service: Service, document: Document, expected: int | None, same: str | None, try_s: int | None, *, force: bool
) -> api.Applied:
    """same: the id of the plan that is meant."""
    async with service.writing:
        service.trials.check_none()
        state = service.view().state
        check_revision(state.pool, expected)
        frozen = state.snapshot()
        desired = await asyncio.to_thread(wanted, document, frozen)
        promised = await asyncio.to_thread(expectations, replace(document, state=desired), frozen, desired)
        check_encryption(service.view(), desired.networks.values())
        if not force:
            refuse_broken(promised)
        found, shown = await asyncio.to_thread(_planned, frozen, desired, promised)
        if same not in (None, shown.id):
            message = "the document would change something else in the pool as it is now than the plan says: plan again"
            raise Conflict("another-plan", message, "plan")
        changes, costs = await asyncio.to_thread(_changes, frozen, desired, found)
        text = f"document of pool {document.pool}: {len(shown.changes)} changes"
        event = Event(now_ms(), "applied", text)
        return await write_plan(service, shown, costs, changes, frozen.pool, event, try_s)


def _changes(current: PoolState, desired: PoolState, found: PoolPlan) -> tuple[Sequence[RowChange], Costs]:
    with collector_held():
        return state_changes(current, desired), costs_of(found)


def check_revision(pool: Pool | None, expected: int | None) -> None:
    """Raises Conflict if the pool's revision is not the expected one."""
    revision = pool.revision if pool is not None else 0
    if expected is not None and expected != revision:
        message = f"the pool is at revision {revision}, the plan was made at {expected}: plan again"
        raise Conflict("stale-revision", message, "revision")


async def write_plan(
    service: Service,
    shown: api.Plan,
    costs: Costs,
    changes: Sequence[RowChange],
    pool: Pool | None,
    event: Event,
    try_s: int | None = None,
) -> api.Applied:
    """Make the changes of a plan, in one transaction. pool: as it was planned for. try_s: take them back after so many seconds unless they are confirmed.

    Raises Conflict if the pool is another one now.
    """
    if not changes:
        return api.Applied(plan=shown, revision=pool.revision if pool else 0, generation=pool.generation if pool else 0)
    trial = None
    if try_s is not None:
        if pool is None:
            raise Conflict(
                "no-pool", "the first document of a pool cannot be tried: there is nothing to go back to", "try_s"
            )
        author = service.caller.author
        ends = now_ms() + 1000 * try_s
        trial = Trial(pool.revision + 1, ends, author.caller, author.source, author.reason)
        changes = [*changes, InsertObject(trial)]
        event = replace(event, text=f"{event.text}, on trial for {try_s} s")
    write = await asyncio.to_thread(_write_of, changes, pool, service.database.mirror)
    with collector_held():
        await service.write(write, [event], costs)
    shown_trial = show_trial(trial, now_ms()) if trial is not None else None
    return api.Applied(plan=shown, revision=write.revision or 0, generation=write.generation or 0, trial=shown_trial)


def _write_of(changes: Sequence[RowChange], pool: Pool | None, rows: Rows) -> Write:
    with collector_held():
        try:
            return configuration_write(changes, pool, generation=True, rows=rows)
        except WriteConflict as conflict:
            raise Conflict(conflict.code, conflict.message, conflict.subject) from None


async def followed_by_hosts(
    service: Service, applied: api.Applied, wait_s: float
) -> AsyncIterator[tuple[str, api.Applied]]:
    """Who has programmed the generation, told as it changes, until all live hosts have or the time is over."""
    yield f"revision {applied.revision}: {len(applied.plan.changes)} changes", applied
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        now = followers(service.view(), applied.generation)
        followed, waiting, dead = now
        problems = problems_of_hosts(service.view(), followed)
        shown = msgspec.structs.replace(applied, acknowledged=followed, waiting=waiting, dead=dead, problems=problems)
        yield f"{len(followed)} of {len(followed) + len(waiting)} live hosts have followed", shown
        left_s = deadline - asyncio.get_running_loop().time()
        if not waiting or left_s <= 0:
            return
        await service.database.wait_for(_other_than(now, applied.generation), left_s)


Followers = tuple[list[str], list[str], list[str]]


def _other_than(now: Followers, generation: int) -> Callable[[PoolView], bool]:
    return lambda view: followers(view, generation) != now


def followers(view: PoolView, generation: int) -> Followers:
    """The hosts that have programmed this generation, those that have not yet, and those that do not report."""
    have = {host for host, agent in view.state.agents.items() if agent.generation >= generation}
    hosts = sorted(view.state.hosts)
    return (
        [host for host in hosts if host in have],
        [host for host in hosts if host not in have and host in view.live],
        [host for host in hosts if host not in have and host not in view.live],
    )
