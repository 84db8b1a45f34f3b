"""The calls that read the history of the pool. One rule: a list costs no record's changes, which are read one record at a time."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import msgspec

from ovsctl.ovsdb import Where, by_uuid
from vnet import api
from vnet.api.errors import Invalid, NotFound, Unavailable
from vnet.controller.endpoint import Call
from vnet.controller.presenters import timestamp
from vnet.db.errors import PoolUnreachable
from vnet.db.history import MAX_KEPT, decoded

COLUMNS = (
    "_uuid",
    "time",
    "revision",
    "caller",
    "source",
    "reason",
    "call",
    "disruption",
    "summary",
    "count",
    "refused",
)


async def list_history(call: Call[None]) -> list[api.HistoryEntry]:
    """The newest changes of the pool, oldest first: who made them, from where, why."""
    limit = call.number("limit", 100, 1, 2 * MAX_KEPT)
    caller = call.query.get("caller")
    which: Where = (("refused", "!=" if call.flag("refused") else "==", ""),)
    found = await _rows(call, which if caller is None else (*which, ("caller", "==", caller)), COLUMNS)
    found.sort(key=lambda row: (row["time"], row["revision"]))
    return [_shown(row) for row in found[-limit:]]


async def get_record(call: Call[None]) -> api.HistoryEntry:
    """A change, as the revision that it made or by its id, with what was before and after."""
    found = await _rows(call, _named(call.id), (*COLUMNS, "changes"))
    if not found:
        raise NotFound("unknown-revision", f"there is no record {call.id[:60]}: the oldest are not kept", "id")
    newest = max(found, key=lambda row: row["time"])
    try:
        changes = await asyncio.to_thread(decoded, newest["changes"] or "[]")
    except ValueError as error:
        raise NotFound("damaged-record", f"record {call.id[:60]}: {error}", "id") from None
    shown = msgspec.convert(changes, list[api.HistoryChange], from_attributes=True)
    return msgspec.structs.replace(_shown(newest), changes=shown)


def _named(id: str) -> Where:
    if id.isascii() and id.isdigit() and 0 < int(id) < 2**63:
        return (("revision", "==", int(id)),)
    try:
        return by_uuid(str(UUID(id)))
    except ValueError:
        raise Invalid("id", f"{id[:60]!r} is neither a revision nor the id of a record", "id") from None


async def _rows(call: Call[Any], condition: Where, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    call.service.view()
    try:
        return await call.service.database.records(condition, columns)
    except PoolUnreachable as error:
        raise Unavailable("database-unreachable", str(error)) from None


def _shown(row: dict[str, Any]) -> api.HistoryEntry:
    shown = {
        "id": str(row["_uuid"]),
        "revision": row["revision"] or None,
        "time": timestamp(row["time"]) or "",
        "changes": None,
    }
    return msgspec.convert({**row, **shown}, api.HistoryEntry)
