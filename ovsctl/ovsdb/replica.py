"""A copy of chosen tables, folded from monitor updates (ovsdb-server(7) §4.1.12 to §4.1.15).

The one rule: a fold either applies a whole message and reports exactly what it changed, or raises
and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from .callbacks import call_each
from .errors import ConnectionLost, DecodeError, OvsdbError, UnmonitoredColumn
from .jsontext import JSON_ERRORS, decode_json
from .operations import Where, encode_where
from .rows import Row, RowCodec, no_collection
from .schema import Json, Schema, TableSchema
from .values import ZERO_UUID, Uuid, is_uuid

Condition: TypeAlias = Where | bool | None
"""Which rows are monitored: those for which any clause holds; () and None: all; False: none."""


class Monitor(msgspec.Struct, frozen=True):
    """The part of one table to replicate. `columns` None is all of them."""

    columns: Sequence[str] | None = None
    where: Condition = None


class Change(msgspec.Struct, frozen=True):
    """One row before and after; None where there was, or is, no such row."""

    table: str
    uuid: Uuid
    old: Row | None
    new: Row | None


Batch: TypeAlias = tuple[Change, ...]
"""The changes of one update message: all of a transaction's, in some order."""

TableUpdates: TypeAlias = dict[str, dict[Uuid, Any]]
"""Decoded row updates by table and row, in their wire types."""

ConditionRequest: TypeAlias = Callable[[str, Condition], Awaitable[None]]


class Decoder:
    """The compiled decoder of one monitor's messages."""

    def __init__(self, schema: Schema, monitors: Mapping[str, Monitor]) -> None:
        self.schema = schema
        self.codecs: dict[str, RowCodec] = {}
        self._fields: dict[str, str] = {}
        fields: list[tuple[str, Any, Any]] = []
        for number, (name, monitor) in enumerate(monitors.items()):
            table = schema.table(name)
            columns = tuple(table.columns) if monitor.columns is None else tuple(monitor.columns)
            codec = self.codecs[name] = RowCodec(table, columns)
            self._fields[name] = f"table_{number}"
            type_ = dict[str, codec.update_type] | UnsetType  # type: ignore[name-defined]
            fields.append((self._fields[name], type_, msgspec.field(default=UNSET, name=name)))
        updates_type = msgspec.defstruct("TableUpdates", fields)
        self._updates = msgspec.json.Decoder(updates_type)
        self._initial: Any = msgspec.json.Decoder(tuple[bool, Uuid, updates_type])  # type: ignore[valid-type]

    def initial(self, raw: msgspec.Raw) -> tuple[bool, Uuid, TableUpdates]:
        """(found, last transaction id, updates) of an answer to monitor_cond_since."""
        with no_collection():
            try:
                found, last_id, updates = self._initial.decode(raw)
            except JSON_ERRORS:
                found, last_id, rest = decode_json(_ANSWER, raw, "answer to monitor_cond_since")
                return found, last_id, self.updates(rest)
            return found, last_id, self._tables(updates)

    def updates(self, raw: msgspec.Raw) -> TableUpdates:
        """The updates of an update3."""
        try:
            return self._tables(self._updates.decode(raw))
        except JSON_ERRORS:
            normal = self._normalise(decode_json(_OBJECT, raw, "table updates"))
        return self._tables(decode_json(self._updates, msgspec.json.encode(normal), "table updates"))

    def _normalise(self, plain: dict[str, Json]) -> Json:
        return {name: self.codecs[name].normalise(rows) for name, rows in plain.items() if name in self.codecs}

    def _tables(self, updates: Any) -> TableUpdates:
        tables = {name: getattr(updates, field) for name, field in self._fields.items()}
        return {name: rows for name, rows in tables.items() if rows is not UNSET}


_ANSWER = msgspec.json.Decoder(tuple[bool, Uuid, msgspec.Raw])
_OBJECT: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


class Replica:
    """Tables as of the last update. `replica["Bridge"]` is a live mapping from UUID to `Row`."""

    def __init__(
        self, schema: Schema, monitors: Mapping[str, Monitor], request_condition: ConditionRequest | None = None
    ) -> None:
        self.monitors = dict(monitors)
        self.last_id = ZERO_UUID
        self.synced = False
        self._filled = False  # the first state is what one finds, not a change
        self.error: OvsdbError | None = None
        self._request_condition = request_condition
        self._subscribers: list[Callable[[Batch], None]] = []
        self._streams: list[ChangeStream] = []
        self._rows: dict[str, dict[Uuid, Row]] = {name: {} for name in monitors}
        self._views = {name: MappingProxyType(rows) for name, rows in self._rows.items()}
        self._settled = asyncio.Event()
        self.use_schema(schema)

    # --- reading --------------------------------------------------------------------------------

    def __getitem__(self, table: str) -> Mapping[Uuid, Row]:
        return self._views[table]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def subscribe(self, callback: Callable[[Batch], None]) -> Callable[[], None]:
        """Call `callback(batch)` as each update is folded in; returns what ends it.

        The callback must be short: it runs before the next message is read. Its exceptions go to
        the event loop's exception handler.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def changes(self, limit: int = 1000) -> ChangeStream:
        """Batches from now on. A reader that lags by more than `limit` changes gets them folded."""
        stream = ChangeStream(self, limit)
        self._streams.append(stream)
        return stream

    async def set_condition(self, table: str, where: Condition) -> None:
        """Change which rows of `table` are monitored; returns when the rows are in.

        Raises UsageError for a condition that does not fit the schema or names a column that is not monitored,
        RequestError if the server refuses it; waits over a lost connection.
        """
        self.encode_condition(table, where)
        columns = self.monitors[table].columns if table in self.monitors else None
        if columns is not None and where is not None and not isinstance(where, bool):
            for column, _, _ in where:
                if column not in columns:
                    raise UnmonitoredColumn(table, column)
        if self._request_condition is None:
            raise ConnectionLost("this replica has no client")
        await self._request_condition(table, where)

    async def wait_synced(self) -> None:
        """Return when the replica is up to date with its server; raises what made that impossible."""
        while not self.synced:
            if self.error is not None:
                raise self.error
            self._settled.clear()
            await self._settled.wait()

    # --- for the client -------------------------------------------------------------------------

    def use_schema(self, schema: Schema) -> None:
        """Decode by this schema from now on; a different one makes the next answer a full one."""
        self._decoder = Decoder(schema, self.monitors)
        self.schema = schema
        self.last_id = ZERO_UUID

    def encode_condition(self, table: str, where: Condition) -> list[Json]:
        """The "where" of a monitor request; raises UsageError."""
        return encode_condition(self.schema.table(table), where)

    def encode_monitors(self) -> Json:
        """<monitor-cond-requests>."""
        return {
            name: [
                {
                    "columns": list(self._decoder.codecs[name].columns),
                    "where": self.encode_condition(name, monitor.where),
                }
            ]
            for name, monitor in self.monitors.items()
        }

    def preload(self, tables: Mapping[str, Mapping[Uuid, Mapping[str, Json]]]) -> None:
        """Take rows, in wire form, that a server had once. The first answer of a server emits what it differs in.

        Raises DecodeError and takes nothing if they do not fit the schema.
        """
        for table, uuid in ((table, uuid) for table, rows in tables.items() for uuid in rows):
            if not is_uuid(uuid):
                raise DecodeError(f"{table}: expected a UUID, got {uuid[:40]!r}")
        inserts = {table: {uuid: {"insert": row} for uuid, row in rows.items()} for table, rows in tables.items()}
        with no_collection():
            self._replace(self._decoder.updates(msgspec.Raw(msgspec.json.encode(inserts))))

    def fold_initial(self, raw: msgspec.Raw) -> Batch:
        """Take an answer to monitor_cond_since; emits and returns the true difference."""
        found, last_id, updates = self._decoder.initial(raw)
        with no_collection():
            batch = self._fold(updates) if found else self._replace(updates)
        self.last_id = last_id
        self.synced = True
        self._settled.set()
        self._emit(batch)
        return batch

    def fold_update(self, last_id: Uuid, raw: msgspec.Raw) -> Batch:
        """Take an update3's contents; emits and returns what changed."""
        batch = self._fold(self._decoder.updates(raw))
        self.last_id = last_id
        self._emit(batch)
        return batch

    def lost(self, *, resume: bool) -> None:
        """The connection ended. Without `resume` the next answer must be a full one."""
        self.synced = False
        if not resume:
            self.last_id = ZERO_UUID

    def close(self, error: OvsdbError | None) -> None:
        """No more updates will come: streams end, with `error` if there is one."""
        self.synced = False
        self.error = error or ConnectionLost("the client is closed")
        self._settled.set()
        for stream in self._streams:
            stream.close(error)

    # --- folding --------------------------------------------------------------------------------

    def _fold(self, updates: TableUpdates) -> Batch:
        changes: list[Change] = []
        for table, row_updates in updates.items():
            changes += self._table_changes(table, row_updates)
        for change in changes:
            rows = self._rows[change.table]
            if change.new is None:
                rows.pop(change.uuid, None)
            else:
                rows[change.uuid] = change.new
        return tuple(changes)

    def _table_changes(self, table: str, updates: Mapping[Uuid, Any]) -> Iterator[Change]:
        rows, codec = self._rows[table], self._decoder.codecs[table]
        fresh = codec.fresh(updates)
        for uuid, update in updates.items():
            old = rows.get(uuid)
            if uuid in fresh:
                new: Row | None = fresh[uuid]
            elif update.modify is UNSET:
                new = None
            elif old is None:
                raise DecodeError(f"{table} row {uuid} is modified but was never inserted")
            else:
                new = codec.apply(old, update.modify)
            if new != old:
                yield Change(table, uuid, old, new)

    def _replace(self, updates: TableUpdates) -> Batch:
        """Take a full state, keeping the Row objects of rows that are as they were."""
        codecs = self._decoder.codecs
        fresh = {table: codecs[table].fresh(updates.get(table, {})) for table in self._rows}
        for table, rows in fresh.items():
            if len(rows) != len(updates.get(table, {})):
                raise DecodeError(f"{table}: a full state with something else than whole rows")
        changes: list[Change] = []
        for table, rows in self._rows.items():
            if self._filled:
                changes += _difference(table, rows, fresh[table])
            rows.clear()
            rows.update(fresh[table])
        self._filled = True
        return tuple(changes)

    def _emit(self, batch: Batch) -> None:
        if batch:
            call_each(self._subscribers, batch, "a replica's subscriber")
            for stream in self._streams:
                stream.put(batch)

    def drop_stream(self, stream: ChangeStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)


def _difference(table: str, rows: Mapping[Uuid, Row], fresh: dict[Uuid, Row]) -> Iterator[Change]:
    """The changes from `rows` to `fresh`; puts the old object into `fresh` where nothing changed."""
    for uuid, old in rows.items():
        new = fresh.get(uuid)
        if new is None:
            yield Change(table, uuid, old, None)
        elif not same_row(old, new):
            yield Change(table, uuid, old, new)
        elif type(old) is type(new):
            fresh[uuid] = old
    for uuid, new in fresh.items():
        if uuid not in rows:
            yield Change(table, uuid, None, new)


def same_row(old: Row, new: Row) -> bool:
    """Whether the rows hold the same, also where a new schema made their types differ."""
    return old == new or (type(old) is not type(new) and old.as_dict() == new.as_dict())


def encode_condition(table: TableSchema, where: Condition) -> list[Json]:
    """The "where" of a monitor request (ovsdb-server(7) §4.1.12); raises UsageError."""
    if isinstance(where, bool):
        return [where]
    return encode_where(table, where) if where else [True]


class ChangeStream:
    """An asynchronous iterator over batches, whose memory is bounded by folding them per row."""

    def __init__(self, replica: Replica, limit: int) -> None:
        self._replica, self._limit = replica, limit
        self._batches: deque[Batch] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._closed = False
        self._error: OvsdbError | None = None

    def __aiter__(self) -> ChangeStream:
        return self

    async def __anext__(self) -> Batch:
        while not self._batches:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        batch = self._batches.popleft()
        self._size -= len(batch)
        return batch

    def put(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._size += len(batch)
        if self._size > self._limit and len(self._batches) > 1:
            folded = fold_batches(self._batches)
            self._batches = deque([folded] if folded else [])
            self._size = len(folded)
        self._wake.set()

    def close(self, error: OvsdbError | None = None) -> None:
        """End the iteration after what is queued, and take no more."""
        self._closed, self._error = True, error
        self._wake.set()
        self._replica.drop_stream(self)


def fold_batches(batches: Sequence[Batch] | deque[Batch]) -> Batch:
    """One batch with the effect of all: the first old and the last new of each row."""
    folded: dict[tuple[str, Uuid], Change] = {}
    for batch in batches:
        for change in batch:
            key = (change.table, change.uuid)
            first = folded.get(key)
            old = change.old if first is None else first.old
            folded[key] = Change(change.table, change.uuid, old, change.new)
    return tuple(change for change in folded.values() if change.old != change.new)
