"""Questions of controllers to this host: rows of a table of the pool database, answered one after another in their column `answer`.

One rule: a question that cannot be answered is answered with the reason, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from ovsctl.ovsdb import Change, Monitor, OvsdbClient, OvsdbError, Update
from vnet.db.replies import HostReply
from vnet.db.rows import from_row
from vnet.grammar.declare import Declared
from vnet.objects import InvalidValue

log = logging.getLogger(__name__)

MAX_WAITING = 256  # questions; more than these at once are not answered
SCHEMA_PERIOD_S = 5.0

Q = TypeVar("Q", bound=Declared)


async def follow_rows(
    client: OvsdbClient, table: str, rows: Monitor, take: Callable[[tuple[Change, ...]], None]
) -> bool:
    """Has `take` hear of a table's rows, first of those that are there; whether it could. The controller brings the database up to date, and agents may be newer than it for a while."""
    if table not in client.schema.tables:
        return False
    try:
        replica = await client.monitor({table: rows})
    except OvsdbError as error:
        log.info("%s: not followed yet: %s", table, error)
        return False
    replica.subscribe(take)
    take(tuple(Change(table, uuid, None, row) for uuid, row in replica[table].items()))
    return True


class Questions(Generic[Q]):
    """The questions of one table to `host`. reply: what answers are."""

    def __init__(
        self,
        asked: type[Q],
        host: str,
        client: OvsdbClient,
        answer: Callable[[Q], Awaitable[HostReply]],
        reply: type[HostReply],
    ) -> None:
        self._asked: Final = asked
        self._table: Final = asked.NOUN.table
        self._host: Final = host
        self._client: Final = client
        self._answer: Final = answer
        self._reply: Final = reply
        self._waiting: Final[deque[tuple[str, Q | str]]] = deque(maxlen=MAX_WAITING)
        self._work: Final = asyncio.Event()

    async def run(self) -> None:
        """Answers until cancelled."""
        mine = Monitor(where=(("host", "==", self._host),))
        while True:
            if await follow_rows(self._client, self._table, mine, self._take):
                break
            await asyncio.sleep(SCHEMA_PERIOD_S)
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                id, question = self._waiting.popleft()
                await self._write(id, await self.reply_to(question))

    async def reply_to(self, question: Q | str) -> HostReply:
        """The answer to a question, or to a row that is none, given as its problem."""
        if isinstance(question, str):
            return self._reply(problem=question)
        try:
            return await self._answer(question)
        except Exception as error:  # rows come from outside: a question that nobody foresaw ends no agent
            log.exception("%s: a question", self._table)
            return self._reply(problem=f"{type(error).__name__}: {error}")

    def _take(self, batch: tuple[Change, ...]) -> None:
        for change in batch:
            if change.new is None or change.old is not None or change.new["answer"]:
                continue
            try:
                self._waiting.append((change.new["id"], from_row(self._asked, change.new)))
            except InvalidValue as error:
                self._waiting.append((change.new["id"], str(error)))
            except Exception as error:
                log.exception("%s: row %s", self._table, change.uuid)
                self._waiting.append((change.new["id"], f"{type(error).__name__}: {error}"))
        self._work.set()

    async def _write(self, id: str, answer: HostReply) -> None:
        try:
            await self._client.transact(Update(self._table, (("id", "==", id),), {"answer": answer.encode()}))
        except OvsdbError as error:
            log.info("%s: a question is left unanswered: %s", self._table, error)
