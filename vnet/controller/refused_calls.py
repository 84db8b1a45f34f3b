"""Calls that were refused because of who made them, for the history: who, from where, what, why, and how often.

One rule: however many there are, and whoever makes them, they cost a bounded number of records, and none has what was shown as a token.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from vnet.api.errors import Forbidden, Refused, Unauthorized, WrongServer
from vnet.db.database import PoolDatabase
from vnet.db.errors import PoolUnreachable
from vnet.db.history import Author, HistoryRecord
from vnet.util.printable import on_one_line

log = logging.getLogger(__name__)

LOOK_S = 0.5  # from a refusal to its record
AGAIN_MS = 60_000  # from a record to the next one of the same key, which counts what came meanwhile
MOST = 50  # at a time, of callers that proved who they are, and as many of others
OVER_QUOTA, SEVERAL = "over-quota", "several"
MAX_TEXT = 300

RefusalKey = tuple[str, str, str]  # caller, source and code


@dataclass(frozen=True, slots=True)
class Refusals:
    """Refusals of one key: the first call of them since the last record. written_ms: when that was, 0 for never."""

    call: str = ""
    text: str = ""
    time_ms: int = 0
    count: int = 0
    written_ms: int = 0

    def is_due(self, now_ms: int) -> bool:
        return self.count > 0 and now_ms - self.written_ms >= AGAIN_MS


class RefusedCalls:
    """Keeps them, and writes them to the pool database."""

    def __init__(self, database: PoolDatabase, now_ms: Callable[[], int]) -> None:
        self._database: Final = database
        self._now_ms: Final = now_ms
        self._refusals: Final[dict[bool, dict[RefusalKey, Refusals]]] = {
            True: {},
            False: {},
        }  # by whether the caller has proved who it is

    def note(self, author: Author, refused: Refused, *, proved: bool) -> None:
        """Takes a refusal in, if it is because of who called."""
        if isinstance(refused, Unauthorized | Forbidden | WrongServer) or refused.code == OVER_QUOTA:
            self.add(author, refused.code, refused.message, proved=proved)

    def add(self, author: Author, code: str, text: str, *, proved: bool) -> None:
        """Takes one in. Of more than are kept the rest are one."""
        table, key = self._refusals[proved], (author.caller, author.source, code)
        if key not in table and len(table) >= MOST:
            key = "others", "", ""
        known = table.get(key, Refusals())
        if not known.count:
            call, text = on_one_line(author.call)[:MAX_TEXT], on_one_line(text)[:MAX_TEXT]
            known = replace(known, call=call, text=text, time_ms=self._now_ms())
        table[key] = replace(known, count=known.count + 1)

    async def run(self) -> None:
        """Writes them for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.write()
            except PoolUnreachable as error:
                log.info("refused calls are recorded later: %s", error)

    async def write(self) -> None:
        """Writes what is due, and forgets those that do not come any more. Raises PoolUnreachable."""
        now_ms = self._now_ms()
        due = [
            (table, key) for table in self._refusals.values() for key, found in table.items() if found.is_due(now_ms)
        ]
        if due:
            await self._database.note_all(
                [_record(key, table[key], proved=table is self._refusals[True]) for table, key in due]
            )
        for table, key in due:
            table[key] = Refusals(written_ms=now_ms)
        for table in self._refusals.values():
            for key in [
                key for key, found in table.items() if not found.count and now_ms - found.written_ms >= AGAIN_MS
            ]:
                del table[key]


def _record(key: RefusalKey, found: Refusals, *, proved: bool) -> HistoryRecord:
    caller, source, code = key
    return HistoryRecord(
        found.time_ms,
        0,
        caller,
        source,
        call=found.call,
        summary=found.text,
        count=found.count,
        refused=code or SEVERAL,
        stranger=not proved,
    )
