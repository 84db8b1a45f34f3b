"""Refused calls on record: how many records they cost, whoever makes them. On a stub of the database that takes what is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast

from vnet.api.errors import Conflict, Forbidden, NotFound, Unauthorized
from vnet.controller.refused_calls import AGAIN_MS, MOST, RefusedCalls
from vnet.db.database import PoolDatabase
from vnet.db.errors import PoolUnreachable
from vnet.db.history import Author, HistoryRecord


class Written:
    """What was written. away: whether the database does not answer."""

    def __init__(self) -> None:
        self.records: list[HistoryRecord] = []
        self.away = False
        self.now_ms = 10 * AGAIN_MS
        self.calls = RefusedCalls(cast(PoolDatabase, self), lambda: self.now_ms)

    async def note_all(self, records: Iterable[HistoryRecord]) -> None:
        if self.away:
            raise PoolUnreachable("away")
        self.records += records

    def look(self) -> list[HistoryRecord]:
        """The records that are written now."""
        self.records.clear()
        try:
            asyncio.run(self.calls.write())
        except PoolUnreachable:
            assert self.away
        return self.records


def stranger(number: int) -> Author:
    return Author("a stranger", f"10.0.{number // 250}.{number % 250}", "", "GET /v1/status")


REFUSED = Unauthorized("unauthorized", "show a token\nplease")


def test_a_thousand_strangers_cost_as_many_records_as_are_bounded_and_nobody_elses() -> None:
    written = Written()
    for number in range(1000):
        written.calls.note(stranger(number), REFUSED, proved=False)
    written.calls.note(Author("token ci", "10.1.0.1", "", "DELETE /v1/vms/a"), Forbidden("role", "no", ""), proved=True)
    records = [*written.look()]
    assert len(records) == MOST + 2
    assert sum(record.count for record in records) == 1001
    assert {record.caller: record.count for record in records}["others"] == 1000 - MOST
    assert [(it.caller, it.call) for it in records if not it.stranger] == [("token ci", "DELETE /v1/vms/a")]
    assert all(record.summary.isprintable() for record in records)
    for _ in range(5):
        written.calls.note(stranger(1), REFUSED, proved=False)
    assert written.look() == []
    written.now_ms += AGAIN_MS
    (again,) = written.look()
    assert (again.source, again.count) == ("10.0.0.1", 5)
    written.now_ms += AGAIN_MS
    assert written.look() == []
    written.calls.note(stranger(5000), REFUSED, proved=False)  # those who do not come any more make room
    assert [record.source for record in written.look()] == ["10.0.20.0"]


def test_what_the_database_did_not_take_is_written_later_and_other_refusals_never() -> None:
    written = Written()
    written.away = True
    for refused in (
        REFUSED,
        NotFound("unknown-vm", "no vm", ""),
        Conflict("migrating", "", ""),
        Conflict("over-quota", ""),
    ):
        written.calls.note(stranger(1), refused, proved=False)
    assert written.look() == []
    written.away = False
    assert sorted(record.refused for record in written.look()) == ["over-quota", "unauthorized"]
