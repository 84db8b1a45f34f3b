"""The pool at its earlier revisions: as it was, what differs, and the way back.

One rule: what is said of the past follows from records that are all there; where one since then is missing, nothing is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ovsctl.ovsdb import Select, by_uuid
from vnet import api
from vnet.api.errors import Conflict, Invalid, NotFound, Unavailable
from vnet.controller.apply import MAX_WAIT_S, check_revision, followed_by_hosts, show_plan, trial_s, write_plan
from vnet.controller.endpoint import Call, Text
from vnet.controller.impact_analysis import expectations, refuse_broken
from vnet.controller.presenters import timestamp
from vnet.controller.service import Service, refusing_pool_errors
from vnet.controller.threads import in_thread
from vnet.db.database import now_ms
from vnet.db.history import HistoryRecord, RecordedChange, decoded
from vnet.db.view import PoolView
from vnet.objects import Event, PoolState
from vnet.plan import NothingToExport, document_of, export_document
from vnet.plan.decide import Admission, Inadmissible
from vnet.plan.past import as_it_was, difference, objects_of, take_back
from vnet.plan.pool import costs_of
from vnet.util.gc_pause import collector_held

ATTEMPTS = 20
LISTED = 5  # faults in a refusal
HEADERS = ("_uuid", "time", "revision")
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Moment:
    """The pool after a revision, or at a time. since: the changes of each record after it, the newest first; of revisions alone, and of steps as well.

    now: the pool now. live: the hosts that report.
    """

    revision: int
    time: int
    now: PoolState
    live: frozenset[str]
    of_revisions: tuple[Sequence[RecordedChange], ...] = ()
    since: tuple[Sequence[RecordedChange], ...] = ()

    @property
    def name(self) -> str:
        return f"revision {self.revision}"

    @property
    def state(self) -> PoolState:
        """The pool as it was, VIFs where they were wanted as far as steps are kept. It may take a while."""
        return as_it_was(self.now, self.since)

    @property
    def configuration(self) -> PoolState:
        """The pool as it was configured, VIFs where they are now."""
        return as_it_was(self.now, self.of_revisions)


async def moment(service: Service, at: str) -> Moment:
    """The pool at a revision, a record's id, or an RFC 3339 time. Raises Invalid, NotFound, Unavailable."""
    view, rows, newest = await _present(service)
    position = _position(rows, at, newest)
    later = rows[position:]
    first = min((row["revision"] for row in later if row["revision"]), default=newest + 1)
    if [row["revision"] for row in later if row["revision"]] != list(range(first, newest + 1)):
        raise NotFound("unknown-revision", f"not all changes since {at[:60]} are kept", "at")
    time = rows[position - 1]["time"] if position else 0
    changes = await _changes(service, later)
    newest_first = list(reversed(later))
    return Moment(
        first - 1,
        time,
        view.state,
        view.live,
        tuple(changes[row["_uuid"]] for row in newest_first if row["revision"]),
        tuple(changes[row["_uuid"]] for row in newest_first),
    )


async def _present(service: Service) -> tuple[PoolView, list[Row], int]:
    """The pool now, the records of all changes till now in their order, and its revision."""
    for _ in range(ATTEMPTS):
        view = service.view()
        view = replace(view, state=view.state.snapshot())
        if view.state.pool is None:
            raise NotFound("no-pool", "the pool is empty: apply a document first")
        revision = view.state.pool.revision
        with refusing_pool_errors():
            rows = _in_order(await service.database.records((("refused", "==", ""),), HEADERS))
        if max((row["revision"] for row in rows), default=0) == revision:
            return view, rows, revision
        await asyncio.sleep(0.05)  # a write is on its way here
    raise Unavailable("records-missing", f"revision {revision} has no record yet: try again")


def _in_order(rows: Sequence[Row]) -> list[Row]:
    """Records in the order of their changes: revisions by number, steps between them by time. Clocks of controllers may differ."""
    keyed, latest = [], 0
    for row in sorted((row for row in rows if row["revision"]), key=lambda row: row["revision"]):
        latest = max(latest, row["time"])
        keyed.append(((latest, 1, row["revision"], ""), row))
    keyed += [((row["time"], 0, 0, str(row["_uuid"])), row) for row in rows if not row["revision"]]
    return [row for _, row in sorted(keyed, key=lambda item: item[0])]


def _position(rows: Sequence[Row], at: str, newest: int) -> int:
    """The position of the first record after a moment."""
    if at.isascii() and at.isdigit():
        revision = int(at)
        oldest = min((row["revision"] for row in rows if row["revision"]), default=newest + 1)
        if not max(oldest - 1, 1) <= revision <= newest:
            raise NotFound(
                "unknown-revision", f"there is no revision {at[:20]}: {max(oldest - 1, 1)} to {newest} are kept", "at"
            )
        after = (n for n, row in enumerate(rows) if row["revision"] == revision)
        following = (n for n, row in enumerate(rows) if row["revision"] == revision + 1)
        return next((n + 1 for n in after), next(following, len(rows)))
    if (time := _milliseconds(at)) is not None:
        position = next((n for n, row in enumerate(rows) if row["time"] > time), len(rows))
        if not position:
            oldest_time = timestamp(rows[0]["time"]) if rows else None
            raise NotFound("unknown-revision", f"the oldest change that is kept is of {oldest_time}", "at")
        return position
    try:
        id = str(UUID(at))
    except ValueError:
        text = f"{at[:60]!r} is neither a revision, nor the id of a record, nor a time such as 2026-01-31T10:42:00Z"
        raise Invalid("at", text, "at") from None
    found = next((n + 1 for n, row in enumerate(rows) if str(row["_uuid"]) == id), None)
    if found is None:
        raise NotFound("unknown-revision", f"there is no record {at[:60]}: the oldest are not kept", "at")
    return found


def _milliseconds(at: str) -> int | None:
    """An RFC 3339 time in milliseconds since 1970."""
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        return None
    if found.tzinfo is None:
        raise Invalid("at", f"{at[:60]!r}: a time needs its offset, as 2026-01-31T10:42:00Z", "at")
    return round(found.astimezone(UTC).timestamp() * 1000)


async def _changes(service: Service, rows: Sequence[Row]) -> dict[Any, Sequence[RecordedChange]]:
    """The changes of records."""
    if not rows:
        return {}
    table = HistoryRecord.NOUN.table
    with refusing_pool_errors():
        answers = await service.database.transact(
            *(Select(table, by_uuid(row["_uuid"]), ("_uuid", "changes")) for row in rows)
        )
    found = {row["_uuid"]: row["changes"] for answer in answers for row in answer}
    if len(found) < len(rows):
        raise NotFound("unknown-revision", "the oldest of these records went meanwhile", "at")
    return await asyncio.to_thread(_decoded, found)


def _decoded(texts: Mapping[Any, str]) -> dict[Any, Sequence[RecordedChange]]:
    try:
        return {id: decoded(text or "[]") for id, text in texts.items()}
    except ValueError as error:
        raise NotFound("damaged-record", f"a record since then: {error}", "at") from None


# --- the calls ------------------------------------------------------------------------------------


async def get_past(call: Call[None]) -> api.PastPool:
    """All objects of the pool as they were, in words of the API: a revision, the id of a record, or a time (RFC 3339)."""
    then = await moment(call.service, call.id)
    objects = await asyncio.to_thread(lambda: objects_of(then.state))
    return api.PastPool(revision=then.revision, time=timestamp(then.time) or "", objects=objects)


async def diff(call: Call[None]) -> api.Plan:
    """What differs between the pool at two moments, as a plan.

    VIFs where they are now.
    """
    if "from" not in call.query:
        raise Invalid("query", "from: the revision to compare with is missing", "from")
    old = await moment(call.service, call.query["from"])
    new = await moment(call.service, call.query["to"]) if "to" in call.query else replace(old, of_revisions=())
    source = new.name if "to" in call.query else "the present"
    return await asyncio.to_thread(_difference, old, new, source)


def _difference(old: Moment, new: Moment, source: str) -> api.Plan:
    with collector_held():
        found = difference(old.configuration, new.configuration, source)
        return show_plan(replace(found, base_revision=old.revision), nothing="Nothing differs.")


async def export(call: Call[None]) -> Text:
    """The pool as a document."""
    if "at" not in call.query:
        state = call.service.view().state
    else:
        state = (await moment(call.service, call.query["at"])).configuration
    try:
        return Text(await asyncio.to_thread(export_document, state.snapshot()), "application/yaml")
    except NothingToExport as error:
        raise Conflict("no-pool", str(error)) from None


async def plan_rollback(call: Call[None]) -> api.Plan:
    """The changes that a rollback would make: a revision, the id of a record, or a time (RFC 3339)."""
    then = await moment(call.service, call.id)
    admission = await in_thread(_taken_back, then)
    expected = await in_thread(_expected, then, admission)
    return show_plan(admission.plan, expected, nothing=_nothing(then))


async def rollback(call: Call[None]) -> AsyncIterator[tuple[str, api.Applied]]:
    """Make the pool what it was; all of it, or nothing. VIFs and VMs stay where they are.

    Then follows the hosts as they follow.
    """
    wait_s = call.number("wait_s", 30, 0, MAX_WAIT_S)
    expected = call.number("revision", 0, 0, 2**63 - 1) if "revision" in call.query else None
    applied = await _rollback(call.service, call.id, expected, trial_s(call), force=call.flag("force"))
    async for line, followed in followed_by_hosts(call.service, applied, wait_s):
        yield line, followed


async def _rollback(service: Service, at: str, expected: int | None, try_s: int | None, *, force: bool) -> api.Applied:
    async with service.writing:
        service.trials.check_none()
        then = await moment(service, at)
        pool = then.now.pool
        check_revision(pool, expected)
        admission = await asyncio.to_thread(_taken_back, then)
        promised = await asyncio.to_thread(_expected, then, admission)
        if not force:
            refuse_broken(promised)
        shown = show_plan(admission.plan, promised, nothing=_nothing(then))
        text = f"back to revision {then.revision}: {len(shown.changes)} changes"
        event, costs = Event(now_ms(), "rolled-back", text), costs_of(admission.plan)
        return await write_plan(service, shown, costs, admission.changes, pool, event, try_s)


def _nothing(then: Moment) -> str:
    return f"Nothing to change: the pool is as it was at {then.name}."


def _taken_back(then: Moment) -> Admission:
    """Raises Conflict where the pool cannot be so again."""
    try:
        with collector_held():
            return take_back(PoolView.of(then.now, then.live), then.of_revisions, then.name)
    except Inadmissible as error:
        broken = "; ".join(f"{fault.noun} {fault.name}: {fault.message}" for fault in error.faults[:LISTED])
        raise Conflict("not-as-it-is-now", f"the pool cannot be as it was at {then.name}: {broken}", "id") from None


def _expected(then: Moment, admission: Admission) -> list[api.Expected]:
    """The expectations of the pool that it becomes."""
    desired = then.configuration
    if not desired.expectations or not admission.plan:
        return []
    document = document_of(desired, then.name)
    return expectations(document, then.now, desired)
