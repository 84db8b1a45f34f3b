"""The asyncio client: connects, keeps the best server, resumes replicas and locks by itself.

The one rule: what may have reached the server is never sent twice. A transaction whose answer was
lost ends with OutcomeUnknown; monitors and locks, which are safe to repeat, are taken up again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from .callbacks import call_each, report
from .connection import Connection
from .errors import (
    BadRemote,
    BadValue,
    Canceled,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    NotConnected,
    OutcomeUnknown,
    OvsdbError,
    RequestError,
    transact_error,
)
from .jsontext import decode_json
from .locks import Lock
from .operations import Operation
from .remotes import Remote, Tls
from .replica import Condition, Monitor, Replica
from .schema import Json, Schema
from .server_info import SERVER_DATABASE, ServerInfo
from .server_selection import Met, Wanted, find
from .session import MAX_MESSAGE_BYTES, Notification
from .values import Uuid

_BACKOFF_S = (0.05, 2.0)
# With others to go to, silence for this long is asked about, and no answer for as long again has us look at them.
_DOUBT_AFTER_S = 0.75
_CANCEL_GRACE_S = 1.0
_CHECK_TIMEOUT_S = 10.0


class Patience:
    """The time that transactions in a cluster may take before they are given up, to be repeated: more after each one that was.

    A server that forwarded one to a leader that then stood still does not forward it again to the next one. It gives it up
    after two election timeouts, and as the next leader itself only once it has nothing to write for a while.
    """

    def __init__(self, least_s: float = 1.0, most_s: float = 30.0) -> None:
        self.now_s = self._least_s = least_s
        self._most_s = most_s

    def lost(self) -> None:
        self.now_s = min(1.5 * self.now_s, self._most_s)

    def kept(self) -> None:
        self.now_s = max(self.now_s / 1.5, self._least_s)


class OvsdbClient:
    """A connection to one database on one of several servers.

    Connects on `async with`, and again by itself whenever it is lost. With `leader_only` only the
    cluster's leader will do. `shuffle` tries the remotes in random order, so that many clients
    spread over the servers. `connect_timeout_s` None waits for a first connection without end.
    `patience` is for those who repeat what ended with OutcomeUnknown. `check` looks at each server before
    it is taken up: it is called with a function that does a transaction there, and raises an OvsdbError
    if the server will not do; it is left then, and the next one is tried.
    """

    def __init__(
        self,
        remotes: Sequence[str] | str,
        database: str,
        *,
        leader_only: bool = False,
        shuffle: bool = False,
        tls: Tls | ssl.SSLContext | None = None,
        connect_timeout_s: float | None = 10.0,
        probe_interval_s: float | None = 5.0,
        backoff_s: tuple[float, float] = _BACKOFF_S,
        patience: Patience | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        rng: random.Random | None = None,
        check: Callable[[Callable[..., Awaitable[list[Any]]]], Awaitable[None]] | None = None,
    ) -> None:
        texts = [remotes] if isinstance(remotes, str) else list(remotes)
        if not texts:
            raise BadValue("at least one remote", remotes)
        self.database = database
        self.leader_only = leader_only
        self._remotes = [Remote.parse(text) for text in texts]
        if shuffle:
            (rng or random.Random()).shuffle(self._remotes)  # noqa: S311 - spreads load, hides nothing
        if isinstance(tls, Tls):
            tls.context()  # raises now what would fail every connection
        if tls is None and any(remote.secure for remote in self._remotes):
            raise BadRemote("an ssl: remote needs the key and certificates: give tls")
        self._connect_timeout_s = connect_timeout_s
        self._probe_interval_s, self._max_message_bytes = probe_interval_s, max_message_bytes
        self._backoff_s, self._patience, self._check = backoff_s, patience, check
        self._wanted_server = Wanted(
            database, leader_only, tls, backoff_s, self._new_connection, self._heard, self._lost
        )
        self._connection: Connection | None = None
        self._schema: Schema | None = None
        self._met: Met | None = None  # the server in use, or being taken up
        self._led = False  # whether it was the leader when we last looked
        self._replicas: dict[int, Replica] = {}
        # The numbers of changes of conditions that a replica's user has asked for, and that the server is known to have.
        self._wanted: dict[int, int] = {}
        self._applied: dict[int, int] = {}
        self._locks: dict[str, Lock] = {}
        self._next_monitor = 0
        self._callbacks: list[Callable[[bool], None]] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> OvsdbClient:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect; raises ConnectFailed with each remote's reason after `connect_timeout_s`."""
        self._task = asyncio.create_task(self._run(), name=f"ovsdb client of {self.database}")
        try:
            await self.wait_connected(self._connect_timeout_s)
        except BaseException:
            await self.close()
            raise

    def leave(self, reason: str) -> None:
        """Disconnect from the server in use, and look for one as after a loss."""
        if self._met is not None:
            self._met.close(reason)

    async def close(self) -> None:
        """Disconnect and end all replicas' streams."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            self._changed.set()
        if self._met is not None:
            self._met.close("the client is closed")
        for replica in self._replicas.values():
            replica.close(None)
        for lock in self._locks.values():
            lock.fail(NotConnected("the client is closed"))

    @property
    def connected(self) -> bool:
        """Whether there is a usable connection and all replicas are in step with it."""
        return self._connection is not None

    @property
    def reasons(self) -> Mapping[str, str]:
        """By remote, why it was not used when it was last tried."""
        return dict(self._wanted_server.reasons)

    @property
    def schema(self) -> Schema:
        """The server's schema, as of the last connection; raises NotConnected before the first."""
        if self._schema is None:
            raise NotConnected(f"no server of {self.database} was reached yet")
        return self._schema

    @property
    def server(self) -> ServerInfo | None:
        """The facts about the server in use; None while there is none."""
        return self._met.info if self._met is not None and self.connected else None

    def on_connection_change(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Call `callback(connected)` at each change; returns what ends it."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Return when connected; raises ConnectFailed after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._connection is None:
                    if self._task is None:
                        raise NotConnected("the client is not open")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise ConnectFailed(self._wanted_server.reasons) from None

    # --- requests -------------------------------------------------------------------------------

    async def transact(self, *operations: Operation, timeout_s: float | None = None) -> list[Any]:
        """Do all operations or none; returns one result per operation, as its class says.

        Raises UsageError before anything is sent if an operation does not fit the schema,
        TransactError (by kind) if the server refuses it, NotConnected if nothing could be sent,
        and OutcomeUnknown if the answer did not come. After `timeout_s` the server is told to
        give up; whether that was in time is not known, unless it says Canceled. Where no `timeout_s` is
        given, it is what the client's `patience` says.
        """
        return await self.send(*operations, timeout_s=timeout_s)

    def send(self, *operations: Operation, timeout_s: float | None = None) -> Awaitable[list[Any]]:
        """A transaction that has left by the time this returns. To be awaited for what `transact` returns or raises."""
        try:
            connection, schema = self._usable(), self.schema
            params = [self.database, *(operation.encode(schema) for operation in operations)]
            call = connection.call("transact", params, lambda raw: _results(schema, operations, raw))
        except OvsdbError as error:
            return _Failed(error)
        patience = self._patience if timeout_s is None and self._is_clustered() else None
        return _outcome(connection, call, timeout_s, patience)

    async def request(self, method: str, *params: object) -> object:
        """Any other request, such as list_dbs; returns the result as plain JSON values."""
        return decode_json(_ANY, await self._usable().call(method, list(params)), f"answer to {method}")

    async def monitor(self, tables: Mapping[str, Monitor]) -> Replica:
        """A replica of `tables`, returned with its first rows in.

        Raises UsageError if the schema has no such table, column or value, RequestError if the
        server refuses it.
        """
        number, replica = self._new_replica(self.schema, tables)
        self._keep(number, replica)
        try:
            await replica.wait_synced()
        except BaseException:
            self._forget(number)
            raise
        return replica

    def preload(
        self,
        schema: Schema,
        tables: Mapping[str, Monitor],
        rows: Mapping[str, Mapping[Uuid, Mapping[str, Json]]],
    ) -> Replica:
        """A replica that holds these rows, in wire form and by a schema known beforehand, before any server is reached.

        The first server that is does as the next one after a loss: the replica's subscribers get what it differs in. If its
        schema lacks what is monitored, the replica ends with that error. Raises UsageError, and DecodeError for rows that do
        not fit.
        """
        number, replica = self._new_replica(schema, tables)
        replica.preload(rows)
        if self._schema is None:
            self._schema = schema
        elif self._schema != schema:
            replica.use_schema(self._schema)
        self._keep(number, replica)
        return replica

    def _new_replica(self, schema: Schema, tables: Mapping[str, Monitor]) -> tuple[int, Replica]:
        self._next_monitor += 1
        number = self._next_monitor

        async def change(table: str, where: Condition) -> None:
            await self._change_condition(number, table, where)

        replica = Replica(schema, tables, change)
        replica.encode_monitors()
        return number, replica

    def _keep(self, number: int, replica: Replica) -> None:
        """Have a replica follow the server in use, and each one after it."""
        self._replicas[number] = replica
        self._wanted[number] = self._applied[number] = 0
        if self._connection is not None:
            self._start(self._connection, number)

    async def cancel(self, replica: Replica) -> None:
        """End a monitor; its streams end, its rows stay as they are."""
        for number, known in tuple(self._replicas.items()):
            if known is replica:
                self._forget(number)
                replica.close(None)
                if self._connection is not None:
                    with contextlib.suppress(ConnectionLost):
                        await self._connection.call("monitor_cancel", [number])

    def lock(self, name: str) -> Lock:
        """The lock of this name; nothing is asked of the server until it is acquired."""
        return self._locks.setdefault(name, Lock(self, name))

    # --- for locks ------------------------------------------------------------------------------

    def want_lock(self, lock: Lock) -> None:
        if self._connection is not None:
            lock.ask(self._connection, self._is_leader())

    async def steal_lock(self, lock: Lock) -> None:
        connection = self._usable()
        if not self._is_leader():
            raise lock.not_leader()
        await lock.send(connection, "steal")

    async def drop_lock(self, lock: Lock) -> None:
        if self._connection is not None and self._is_leader():
            with contextlib.suppress(ConnectionLost, RequestError):
                await self._connection.call("unlock", [lock.name])

    def is_retried(self, error: OvsdbError) -> bool:
        """Whether the next connection will take this up again."""
        return isinstance(error, ConnectionLost) and self._task is not None

    def _is_leader(self) -> bool:
        return self._met is not None and self._met.info.leader

    def _is_clustered(self) -> bool:
        """Whether it is a cluster's server, or forwards to one."""
        return self._met is not None and self._met.info.model != "standalone"

    # --- connecting -----------------------------------------------------------------------------

    async def _run(self) -> None:
        least_s, most_s = self._backoff_s
        wait_s, remotes, met = least_s, self._remotes, None
        while True:
            if met is None and (met := await find(remotes, self._wanted_server)) is None:
                continue  # which a search that nothing ends never says
            remotes = [remote for remote in remotes if remote is not met.remote] + [met.remote]
            if await self._took_up(met):
                wait_s = least_s
                met = await self._until_left(met, remotes[:-1])
            else:
                met = None
            if met is None:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, most_s)

    async def _took_up(self, met: Met) -> bool:
        """Whether the server is in use now, with everything taken up there; the reason is kept where it is not."""
        try:
            await self._take_up(met)
        except OvsdbError as error:
            self._wanted_server.reasons[met.remote.text] = str(error)
            met.close(str(error))
        except asyncio.CancelledError:
            met.close("the client is closed")
            raise
        except Exception as error:  # the top of the loop: whatever it was, the next try may do
            report(error, f"taking up {met.remote.text} failed")
            self._wanted_server.reasons[met.remote.text] = repr(error)
            met.close(repr(error))
        else:
            return True
        return False

    async def _until_left(self, met: Met, others: list[Remote]) -> Met | None:
        """The server to use instead of this one, None if it is lost. While this one is silent we look for another, so that
        one that stands still is left as soon as another will do, and a slow one never for nothing."""
        connection = met.connection
        while others and not connection.lost.is_set():
            await connection.doubted.wait()
            found = await find(others, self._wanted_server, unless=connection.heard)
            if found is not None:
                met.close(f"the server was silent, and {found.remote.text} will do")
                return found
        await connection.lost.wait()
        return None

    def _new_connection(
        self, heard: Callable[[Connection, Notification], None], lost: Callable[[Connection], None]
    ) -> Connection:
        return Connection(
            heard,
            lost,
            probe_interval_s=self._probe_interval_s,
            doubt_after_s=_DOUBT_AFTER_S if len(self._remotes) > 1 else None,
            max_message_bytes=self._max_message_bytes,
        )

    async def _take_up(self, met: Met) -> None:
        """Make the server the one in use, after all replicas are in step with it."""
        if self._check is not None:
            await self._check(partial(_transact_on, met.connection, self.database, met.schema))
        changed = self._schema is not None and met.schema != self._schema
        self._schema, self._met = met.schema, met
        for number, replica in tuple(self._replicas.items()):
            if changed:
                self._use_schema(number, replica, met.schema)
        starting = [self._start(met.connection, number) for number in tuple(self._replicas)]
        await asyncio.gather(*starting, return_exceptions=True)  # each replica keeps its own error
        if met.connection.error is not None:
            raise met.connection.error
        if met.unfit is not None:  # it may have changed meanwhile
            raise ConnectionLost(met.unfit)
        self._connection = met.connection
        self._led = met.info.leader
        for number in self._replicas:  # those that were asked for meanwhile
            if not self._replicas[number].synced:
                self._start(met.connection, number)
        for lock in self._locks.values():
            if lock.wanted:
                lock.ask(met.connection, self._led)
        self._announce(True)

    def _use_schema(self, number: int, replica: Replica, schema: Schema) -> None:
        try:
            replica.use_schema(schema)
            replica.encode_monitors()
        except OvsdbError as error:
            self._forget(number)
            replica.close(error)

    def _start(self, connection: Connection, number: int) -> asyncio.Future[Any]:
        replica = self._replicas[number]
        params = [self.database, number, replica.encode_monitors(), replica.last_id]
        version = self._wanted[number]

        def started(raw: msgspec.Raw) -> None:
            self._applied[number] = version
            replica.fold_initial(raw)

        call = connection.call("monitor_cond_since", params, started)
        call.add_done_callback(lambda done: self._started(number, done))
        return call

    def _started(self, number: int, done: asyncio.Future[Any]) -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, RequestError) and number in self._replicas:
            self._replicas[number].close(error)
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._replicas.pop(number, None)

    # --- events ---------------------------------------------------------------------------------

    def _heard(self, met: Met, event: Notification) -> None:
        match event.method:
            case "update3":
                monitor, last_id, updates = _params(event, _UPDATE3)
                if monitor == SERVER_DATABASE:
                    met.update(last_id, updates)
                    self._check_server(met)
                elif isinstance(monitor, int) and monitor in self._replicas:
                    self._replicas[monitor].fold_update(last_id, updates)
            case "locked" | "stolen":
                (name,) = _params(event, _LOCK)
                lock = self._locks.get(name)
                if lock is not None:
                    lock.notified(event.method == "locked")
            case _:
                pass  # such as monitor_canceled: the server disconnects us as well

    def _check_server(self, met: Met) -> None:
        """The state of a server changed: leave it if it is in use and will not do any more."""
        if met.connection is not self._connection:
            return
        if met.unfit is not None:
            met.close(met.unfit)
            return
        led, self._led = self._led, met.info.leader
        if led and not self._led:
            for lock in self._locks.values():
                if lock.wanted:
                    met.connection.call("unlock", [lock.name])
                    lock.ask(met.connection, False)

    def _lost(self, met: Met) -> None:
        if met is not self._met:
            return
        self._met = None
        for number, replica in self._replicas.items():
            replica.lost(resume=self._applied[number] == self._wanted[number])
        if self._connection is not None:
            self._connection = None
            for lock in self._locks.values():
                lock.set_held(False)
            self._announce(False)

    def _announce(self, connected: bool) -> None:
        self._changed.set()
        call_each(self._callbacks, connected, "a callback of the connection's state")

    def _usable(self) -> Connection:
        if self._connection is None:
            raise NotConnected(f"not connected to {self.database}")
        return self._connection

    # --- conditions -----------------------------------------------------------------------------

    async def _change_condition(self, number: int, table: str, where: Condition) -> None:
        replica = self._replicas.get(number)
        if replica is None:
            raise NotConnected("the replica is closed")
        before = replica.monitors[table]
        replica.monitors[table] = Monitor(before.columns, where)
        self._wanted[number] += 1
        version = self._wanted[number]
        while self._applied[number] < version:
            connection = await self._in_step(replica)
            with contextlib.suppress(ConnectionLost):  # then the next connection starts with it
                try:
                    await self._send_conditions(connection, number, replica)
                except RequestError:
                    replica.monitors[table] = before
                    raise

    def _send_conditions(self, connection: Connection, number: int, replica: Replica) -> asyncio.Future[Any]:
        """Send all conditions as they are wanted now; the rows come before the answer."""
        version = self._wanted[number]
        wheres = {
            table: [{"where": replica.encode_condition(table, monitor.where)}]
            for table, monitor in replica.monitors.items()
        }

        def answered(_: msgspec.Raw) -> None:
            self._applied[number] = version

        return connection.call("monitor_cond_change", [number, number, wheres], answered)

    async def _in_step(self, replica: Replica) -> Connection:
        """The connection, once the replica is in step with it."""
        while self._connection is None or not replica.synced:
            await self.wait_connected()
            await replica.wait_synced()
        return self._connection


async def _transact_on(connection: Connection, database: str, schema: Schema, *operations: Operation) -> list[Any]:
    params = [database, *(operation.encode(schema) for operation in operations)]
    call = connection.call("transact", params, lambda raw: _results(schema, operations, raw))
    return await _outcome(
        connection, call, _CHECK_TIMEOUT_S, None
    )  # a cluster without a leader takes a write and does not answer


class _Failed:
    """The result of a transaction that was not sent: awaiting it raises the reason."""

    def __init__(self, error: OvsdbError) -> None:
        self._error = error

    def __await__(self) -> Generator[Any, Any, list[Any]]:
        raise self._error
        yield


async def _outcome(
    connection: Connection, call: asyncio.Future[Any], timeout_s: float | None, patience: Patience | None
) -> list[Any]:
    limit_s = timeout_s if patience is None else patience.now_s
    try:
        results: list[Any] = await _answer(connection, call, limit_s)
    except ConnectionLost as error:
        raise OutcomeUnknown(f"no answer to the transaction: {error}") from error
    except (TimeoutError, Canceled) as error:
        if patience is None and isinstance(error, Canceled):
            raise
        if patience is not None:
            patience.lost()
        raise OutcomeUnknown(f"no answer to the transaction within {limit_s} s") from None
    if patience is not None:
        patience.kept()
    return results


async def _answer(connection: Connection, call: asyncio.Future[Any], timeout_s: float | None) -> Any:
    """The call's answer; after `timeout_s`, or when we are cancelled, the server is told to give up."""
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(call)
    except asyncio.CancelledError:
        connection.cancel(call)
        raise
    except TimeoutError:
        connection.cancel(call)
        # Answers come in order: once the echo is back, none is to be expected any more.
        echo = connection.call("echo", [])
        await asyncio.wait({call, echo}, timeout=_CANCEL_GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        if call.done():
            return call.result()
        raise


def _results(schema: Schema, operations: Sequence[Operation], raw: msgspec.Raw) -> list[Any]:
    """The results of a transaction's answer; raises TransactError, DecodeError."""
    answers = decode_json(_RESULTS, raw, "answer to transact")
    for index, answer in enumerate(answers):
        match answer:
            case {"error": str(name)}:
                # The second is ovsdb-server's: the system's own words.
                details = ": ".join(str(answer[key]) for key in ("details", "io-error") if answer.get(key))
                at = index if index < len(operations) else None
                raise transact_error(name, details, at, operations, _inserted(answers))
    if len(answers) != len(operations):
        raise DecodeError(f"{len(answers)} results of {len(operations)} operations")
    return [operation.decode(schema, answer) for operation, answer in zip(operations, answers, strict=True)]


def _inserted(answers: list[Json]) -> dict[str, int]:
    """The operation by the UUID of the row that it inserted."""
    found = {}
    for index, answer in enumerate(answers):
        match answer:
            case {"uuid": ["uuid", str(uuid)]}:
                found[uuid] = index
    return found


_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_RESULTS: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[Any])
_UPDATE3: msgspec.json.Decoder[tuple[Any, str, msgspec.Raw]] = msgspec.json.Decoder(tuple[Any, str, msgspec.Raw])
_LOCK: msgspec.json.Decoder[tuple[str]] = msgspec.json.Decoder(tuple[str])


def _params(event: Notification, decoder: msgspec.json.Decoder[Any]) -> Any:
    return decode_json(decoder, event.params, event.method)
