"""The pool database over one connection: its content as values, and writes that hold or are refused.

One rule: nothing is assumed of a write whose answer was lost; its caller reads and repeats, which every call allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from ovsctl.ovsdb import (
    Change,
    Commit,
    Delete,
    Insert,
    Lock,
    Monitor,
    Operation,
    OvsdbClient,
    Schema,
    Select,
    Tls,
    Wait,
    Where,
)
from ovsctl.ovsdb.errors import (
    ConnectFailed,
    ConnectionLost,
    InputOutputError,
    OutcomeUnknown,
    ResourcesExhausted,
    TransactError,
    WaitTimedOut,
)
from vnet.db.errors import DatabaseFull, PoolError, PoolUnreachable, SchemaMismatch
from vnet.db.health import HealthQuery
from vnet.db.history import Author, Costs, HistoryRecord, record_of
from vnet.db.mirror import Delta, PoolMirror
from vnet.db.probes import Probe
from vnet.db.rows import SCHEMA_NAME, SCHEMA_TEXT, by_key, to_columns
from vnet.db.rule_queries import RuleQuery
from vnet.db.tables import TABLES
from vnet.db.traffic_queries import TrafficQuery
from vnet.db.view import HOST_DOWN_AFTER_S, PoolView
from vnet.db.writes import Write
from vnet.objects import Event

T = TypeVar("T")
Question = Probe | RuleQuery | HealthQuery | TrafficQuery

WRITE_TIMEOUT_S = 10.0
WRITE_OPERATIONS_PER_S = 1_000  # and more, for a large document: some 20,000 are usual
READ_TIMEOUT_S = 60.0  # a pool of 100,000 VIFs takes a few seconds
MANY_CHANGES = 200  # whose record is made in a thread
UNKNOWN = Author()
STEP = Costs()
OUR_SCHEMA = Schema.parse(SCHEMA_TEXT)


def check_version(version: tuple[int, ...]) -> bool:
    """Whether a database of this schema version needs no conversion; raises SchemaMismatch for a newer one."""
    ours = OUR_SCHEMA.version_tuple
    if version > ours:
        theirs = ".".join(map(str, version))
        raise SchemaMismatch(
            f"the pool database has schema {theirs}, this vnet knows {OUR_SCHEMA.version}: upgrade vnet"
        )
    return version == ours


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _time_for(operations: Sequence[Operation], least_s: float) -> float:
    return least_s + len(operations) / WRITE_OPERATIONS_PER_S


class PoolDatabase:
    """A connection to the pool database and a mirror of it. `convert`: bring an older schema up to ours.

    With `leader_only`, only the leader of a cluster will do: locks hold there alone, and what it answers is the newest.
    """

    def __init__(
        self, remotes: Sequence[str], *, leader_only: bool = True, convert: bool = False, tls: Tls | None = None
    ) -> None:
        self.remotes = tuple(remotes)
        self.mirror = PoolMirror()
        self._leader_only = leader_only
        self._convert = convert
        self._tls = tls
        self._client = self._new_client()
        self._listeners: list[Callable[[list[Delta]], None]] = []
        self._changed = asyncio.Event()  # set at the next change, and then replaced

    async def open(self, timeout_s: float = 10.0) -> None:
        """Connect within `timeout_s`, and read everything; raises PoolUnreachable, SchemaMismatch."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.open()
            async with asyncio.timeout(READ_TIMEOUT_S):
                if not check_version(self._client.schema.version_tuple):
                    await self._bring_up_to_date()
                replica = await self._client.monitor({table: Monitor() for table in TABLES})
        except (ConnectFailed, ConnectionLost, TimeoutError) as error:
            await self._client.close()
            reason = str(error) or str(ConnectFailed(self._client.reasons))
            raise PoolUnreachable(f"pool database {', '.join(self.remotes)}: {reason}") from None
        except BaseException:
            await self._client.close()
            raise
        replica.subscribe(self._fold)
        self._client.on_connection_change(lambda _: self._wake())
        self._fold(tuple(Change(t, uuid, None, row) for t in TABLES for uuid, row in replica[t].items()))

    async def close(self) -> None:
        await self._client.close()

    @property
    def connected(self) -> bool:
        return self._client.connected

    def view(self) -> PoolView:
        """The pool now, with who is alive."""
        return self.mirror.view(self.mirror.live_hosts(now_ms(), HOST_DOWN_AFTER_S))

    def subscribe(self, listener: Callable[[list[Delta]], None]) -> Callable[[], None]:
        """Call `listener(deltas)` as each transaction is folded in; returns what ends it. It must be short and not raise."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def lock(self, name: str) -> Lock:
        return self._client.lock(name)

    async def transact(self, *operations: Operation, timeout_s: float = WRITE_TIMEOUT_S) -> list[Any]:
        """Do all or none; raises PoolUnreachable, DatabaseFull, TransactError."""
        try:
            return await self._client.transact(*operations, timeout_s=_time_for(operations, timeout_s))
        except OutcomeUnknown as error:
            raise PoolUnreachable(f"the pool database did not answer; repeat the call: {error}") from None
        except ConnectionLost as error:
            raise PoolUnreachable(f"the pool database is not reachable: {error}") from None
        except (InputOutputError, ResourcesExhausted) as error:
            raise DatabaseFull(f"the pool database cannot write, nothing has changed: {error}") from None

    async def ask(self, questions: Sequence[Question], timeout_s: float) -> list[str]:
        """Ask hosts' agents, all of one table, and return what they answer, each "" if it does not within `timeout_s`. Raises PoolUnreachable.

        The database itself waits (RFC 7047 section 5.2.6), so nothing is polled and nobody else is told the answers.
        """
        table = questions[0].NOUN.table if questions else ""
        mine = [by_key(question) for question in questions]
        silent = [Wait(table, one, ("answer",), ({"answer": ""},), "!=", int(timeout_s * 1000)) for one in mine]
        answers = [Select(table, one, ("answer",)) for one in mine]
        await self.transact(*(Insert(table, to_columns(question)) for question in questions))
        try:
            with contextlib.suppress(WaitTimedOut):
                await self.transact(*silent, timeout_s=timeout_s + WRITE_TIMEOUT_S)
            found = await self.transact(*answers)
        finally:
            # What this ends by counts; questions that stay are the leader's to delete.
            with contextlib.suppress(PoolError):
                await self.transact(*(Delete(table, one) for one in mine))
        return [next((row["answer"] for row in rows), "") for rows in found]

    async def write(
        self, write: Write, events: Sequence[Event] = (), author: Author = UNKNOWN, costs: Costs = STEP
    ) -> None:
        """Do a write, with its record and the events that tell of it, and return when it is on disk and the mirror shows it.

        Raises WriteConflict if the pool is not as the write's maker saw it, PoolUnreachable, DatabaseFull.
        """
        told = [Insert("Event", to_columns(event)) for event in events]
        record = await self._record(write, author, costs)
        try:
            # A standalone ovsdb-server answers before it has written: killed then, it would forget what it acknowledged.
            await self.transact(*write.operations, *told, record, Commit(durable=True))
        except TransactError as error:
            conflict = write.conflict(error)
            if conflict is None:
                raise
            raise conflict from None
        if write.revision is not None:
            shown_s = _time_for(write.operations, 5.0)
            await self.wait_for(
                lambda view: view.state.pool and view.state.pool.revision >= (write.revision or 0), shown_s
            )

    async def _record(self, write: Write, author: Author, costs: Costs) -> Insert:
        arguments = (write.changes, author, write.revision or 0, costs, now_ms())
        many = len(write.changes) > MANY_CHANGES
        record = await asyncio.to_thread(record_of, *arguments) if many else record_of(*arguments)
        return Insert(HistoryRecord.NOUN.table, to_columns(record))

    async def note(self, author: Author, summary: str) -> None:
        """Record what changes no row of the pool. Raises PoolUnreachable, DatabaseFull."""
        record = record_of((), author, 0, STEP, now_ms(), summary)
        await self.transact(Insert(HistoryRecord.NOUN.table, to_columns(record)), Commit(durable=True))

    async def note_all(self, records: Iterable[HistoryRecord]) -> None:
        """Record calls that changed nothing. Raises PoolUnreachable, DatabaseFull."""
        await self.transact(*(Insert(HistoryRecord.NOUN.table, to_columns(record)) for record in records))

    async def records(self, condition: Where, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of the records that a condition leaves, in no order. Raises PoolUnreachable."""
        (rows,) = await self.transact(Select(HistoryRecord.NOUN.table, condition, tuple(columns)))
        return list(rows)

    async def wait_for(self, condition: Callable[[PoolView], T], timeout_s: float) -> T:
        """The first true answer of `condition`, asked at every change; its last answer when the time is over."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            changed = self._changed
            answer = condition(self.view())
            left_s = deadline - asyncio.get_running_loop().time()
            if answer or left_s <= 0:
                return answer
            with contextlib.suppress(TimeoutError):
                # Who is alive changes with time alone, so ask now and then without a change too.
                async with asyncio.timeout(min(left_s, 1.0)):
                    await changed.wait()

    def _new_client(self) -> OvsdbClient:
        return OvsdbClient(
            self.remotes, SCHEMA_NAME, leader_only=self._leader_only, connect_timeout_s=None, tls=self._tls
        )

    async def _bring_up_to_date(self) -> None:
        if not self._convert:
            raise SchemaMismatch(
                f"the pool database has schema {self._client.schema.version}, this vnet needs {OUR_SCHEMA.version}: "
                "start a controller of this version, which converts it"
            )
        with contextlib.suppress(ConnectionLost):  # the server may drop its clients as it converts
            await self._client.request("convert", SCHEMA_NAME, msgspec.json.decode(SCHEMA_TEXT))
        await self._client.close()
        self._client = self._new_client()
        await self._client.open()

    def _fold(self, batch: Sequence[Change]) -> None:
        deltas = self.mirror.fold(batch, now_ms())
        if deltas:
            for listener in tuple(self._listeners):
                listener(deltas)
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
