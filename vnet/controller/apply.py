"""Documents: what one would change, making the pool so, and writing the pool as one.

One rule: a document is applied whole, in one transaction against the revision it was planned for, or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from functools import lru_cache

import msgspec

from vnet import api
from vnet.controller.endpoint import Call, Text
from vnet.controller.errors import Conflict, Invalid
from vnet.controller.impact_analysis import expectations, reachability, refuse_broken
from vnet.controller.presenters import problems_of_hosts
from vnet.controller.service import Service
from vnet.db.changes import state_changes
from vnet.db.database import now_ms
from vnet.db.errors import WriteConflict
from vnet.db.view import PoolView
from vnet.db.writes import Locate, Write, configuration_write
from vnet.objects import Event, PoolState
from vnet.plan import NothingToExport, PoolPlan, desired_state, export_document, plan_dict, plan_pool, render_plan
from vnet.topology import Document, TopologyErrors, parse_document
from vnet.util.gc_pause import collector_held

MAX_WAIT_S = 600


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
    plan: PoolPlan, expected: list[api.Expected] | None = None, reach: list[api.Difference] | None = None
) -> api.Plan:
    """A plan for the API."""
    plain = plan_dict(plan)
    return api.Plan(
        revision=plan.base_revision or 0,
        disruption=str(plain["disruption"]),
        changes=msgspec.convert(plain["changes"], list[api.Change]),
        text=render_plan(plan),
        expectations=expected or [],
        reachability=reach,
    )


def _frozen(state: PoolState) -> PoolState:
    """The state as it is now, for a thread to read while the pool goes on."""
    return PoolState(state.pool, *(dict(getattr(state, entry.name)) for entry in fields(state) if entry.name != "pool"))


def _filename(call: Call[bytes]) -> str:
    return call.query.get("filename", "document")[:200]


async def plan(call: Call[bytes]) -> api.Plan:
    """What an apply would do."""
    document = await asyncio.to_thread(read, call.body, _filename(call))
    state = _frozen(call.service.view().state)
    desired = await asyncio.to_thread(wanted, document, state)
    expected = await asyncio.to_thread(expectations, replace(document, state=desired), state, desired)
    reach = await asyncio.to_thread(reachability, state, desired) if call.flag("reachability") else None
    return await asyncio.to_thread(_shown, state, desired, expected, reach)


def _shown(
    state: PoolState, desired: PoolState, expected: list[api.Expected], reach: list[api.Difference] | None = None
) -> api.Plan:
    with collector_held():
        return show_plan(plan_pool(state, desired), expected, reach)


async def export(call: Call[None]) -> Text:
    """The pool as a document."""
    state = call.service.view().state
    try:
        return Text(export_document(state), "application/yaml")
    except NothingToExport as error:
        raise Conflict("no-pool", str(error)) from None


async def apply(call: Call[bytes]) -> AsyncIterator[tuple[str, api.Applied]]:
    """Make the pool what the document says, then follow the hosts as they follow."""
    document = await asyncio.to_thread(read, call.body, _filename(call))
    expected = call.number("revision", 0, 0, 2**63 - 1) if "revision" in call.query else None
    wait_s = call.number("wait_s", 30, 0, MAX_WAIT_S)
    applied = await _apply(call.service, document, expected, force=call.flag("force"))
    yield f"revision {applied.revision}: {len(applied.plan.changes)} changes", applied
    async for line, followed in _followed(call.service, applied, wait_s):
        yield line, followed


async def _apply(service: Service, document: Document, expected: int | None, *, force: bool) -> api.Applied:
    async with service.writing:
        state = service.view().state
        revision = state.pool.revision if state.pool is not None else 0
        if expected is not None and expected != revision:
            message = f"the pool is at revision {revision}, the plan was made at {expected}: plan again"
            raise Conflict("stale-revision", message, "revision")
        frozen = _frozen(state)
        desired = await asyncio.to_thread(wanted, document, frozen)
        promised = await asyncio.to_thread(expectations, replace(document, state=desired), frozen, desired)
        if not force:
            refuse_broken(promised)
        shown = await asyncio.to_thread(_shown, frozen, desired, promised)
        write = await asyncio.to_thread(_write_of, frozen, desired, service.database.mirror.locate)
        if write is None:
            generation = state.pool.generation if state.pool is not None else 0
            return api.Applied(plan=shown, revision=revision, generation=generation)
        text = f"document of pool {document.pool}: {len(shown.changes)} changes"
        await service.write(write, [Event(now_ms(), "applied", text)])
        return api.Applied(plan=shown, revision=write.revision or 0, generation=write.generation or 0)


def _write_of(state: PoolState, desired: PoolState, locate: Locate) -> Write | None:
    """The transaction that makes the one the other, None where they are the same."""
    with collector_held():
        changes = state_changes(state, desired)
        try:
            return configuration_write(changes, state.pool, generation=True, locate=locate) if changes else None
        except WriteConflict as conflict:
            raise Conflict(conflict.code, conflict.message, conflict.where) from None


async def _followed(service: Service, applied: api.Applied, wait_s: float) -> AsyncIterator[tuple[str, api.Applied]]:
    """Who has programmed the generation, told as it changes, until all live hosts have or the time is over."""
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
