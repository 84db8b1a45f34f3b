"""The call of toolstacks' followers that decides which of them writes. One rule: it holds only if the row is as it was when it was decided."""

from __future__ import annotations

from collections.abc import Iterator

from ovsctl.ovsdb import Insert, Operation, Select, Update, Wait, WaitTimedOut
from vnet import api
from vnet.api.errors import Conflict, Invalid
from vnet.controller.endpoint import Call
from vnet.controller.service import ATTEMPTS, Service, refusing_pool_errors
from vnet.db.database import now_ms
from vnet.db.rows import TABLE_OF, by_key, from_row, to_columns
from vnet.objects import Event
from vnet.objects.follower import ToolstackFollower
from vnet.objects.limits import NAME

MAX_FOLLOWED, MAX_TEXT = 64, 200
TABLE = TABLE_OF[ToolstackFollower]


async def follow(call: Call[api.FollowCall]) -> api.ToolstackFollower:
    """Ask to be the follower of a toolstack: of several one is, and the others stand by.

    Or say that one has ended.
    """
    body, known = call.body, call.service.database.mirror.followers
    if not NAME.fullmatch(call.id):
        raise Invalid("wrong-name", f"{call.id[:60]!r} is no name of a toolstack", "name")
    if not 0 < len(body.caller) <= MAX_TEXT or not body.caller.isprintable():
        raise Invalid("wrong-value", f"caller: wanted 1 to {MAX_TEXT} characters that can be shown", "caller")
    if call.id not in known and len(known) >= MAX_FOLLOWED:
        raise Conflict("too-many", f"{MAX_FOLLOWED} toolstacks are followed already", "name")
    for _ in range(ATTEMPTS):
        old = await _row(call.service, call.id)
        before = old or ToolstackFollower(call.id)
        now = before.left(body.caller) if body.ends else before.asked(body.caller, body.silent_at)
        try:
            with refusing_pool_errors():
                await call.service.database.transact(*_write(old, now))
        except WaitTimedOut:
            continue  # another follower was faster
        return _shown(now)
    raise Conflict("busy", f"other followers came first {ATTEMPTS} times: try again")


def listed(service: Service) -> list[api.ToolstackFollower]:
    """The followers of toolstacks, for the pool's status."""
    return [_shown(row) for _, row in sorted(service.database.mirror.followers.items()) if row.holder]


def _shown(row: ToolstackFollower) -> api.ToolstackFollower:
    return api.ToolstackFollower(name=row.name, holder=row.holder, standby=row.standby, beat=row.beat)


async def _row(service: Service, name: str) -> ToolstackFollower | None:
    service.view()
    columns = tuple(to_columns(ToolstackFollower(name)))
    with refusing_pool_errors():
        (rows,) = await service.database.transact(Select(TABLE, (("name", "==", name),), columns))
    return from_row(ToolstackFollower, rows[0]) if rows else None


def _write(old: ToolstackFollower | None, now: ToolstackFollower) -> Iterator[Operation]:
    columns = to_columns(now)
    names = tuple(columns)
    yield Wait(TABLE, by_key(now), names, () if old is None else (to_columns(old),))
    yield Insert(TABLE, columns) if old is None else Update(TABLE, by_key(now), columns)
    if text := _occurrence(old or ToolstackFollower(now.name), now):
        yield Insert("Event", to_columns(Event(now_ms(), "follower", text)))


def _occurrence(old: ToolstackFollower, now: ToolstackFollower) -> str:
    if now.holder != old.holder and now.holder:
        return f"{now.name} is followed by {now.holder}" + (f": {old.holder} is silent" if old.holder else "")
    if now.standby != old.standby and now.standby:
        return f"{now.name} is followed by {now.holder}; {now.standby} stands by"
    return ""
