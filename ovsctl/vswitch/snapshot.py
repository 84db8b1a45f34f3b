"""The present rows of an Open vSwitch, found by name. Rule: a view with a hole in it is refused, never planned on.

A plan on half of a database would take what it cannot see for missing, and what it need not see for superfluous.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from ovsctl.ovsdb import Monitor, Schema, UnknownColumn
from ovsctl.vswitch.errors import IncompleteSnapshot
from ovsctl.vswitch.rows import BRIDGE_PARTS, EXACT, REFERENCES, ROOT, SAMPLE_SETS, RowId


class AnyRow(Protocol):
    """A row of a replica, or a dict."""

    def __getitem__(self, column: str, /) -> Any: ...


class Tables(Protocol):
    """Table to uuid to row: a `Replica`, or dicts."""

    def __getitem__(self, table: str, /) -> Mapping[str, AnyRow]: ...


COLUMNS: Mapping[str, tuple[str, ...]] = {
    table: (*EXACT.get(table, ()), *REFERENCES.get(table, ()), "external_ids") for table in (ROOT.table, *EXACT)
}
"""The tables and columns that a plan needs, all rows."""


def monitors(schema: Schema) -> dict[str, Monitor]:
    """The columns to monitor for `plan`: `COLUMNS`, without those that this version of Open vSwitch lacks."""
    return {
        table: Monitor([column for column in columns if column in schema.table(table).columns])
        for table, columns in COLUMNS.items()
    }


@dataclass(frozen=True, slots=True)
class OwnerMark:
    """The mark on what is ours: `external_ids:key=name` on each row."""

    key: str = "vnet-owner"
    name: str = "agent"

    @property
    def keys_key(self) -> str:
        """The key under which a row lists which of its external_ids are ours, so that a later owner can remove one."""
        return f"{self.key}-keys"

    def owns(self, row: AnyRow) -> bool:
        return bool(row["external_ids"].get(self.key) == self.name)

    def own_keys(self, row: AnyRow) -> frozenset[str]:
        """The keys of this row's external_ids that are ours. A list that others have spoilt counts as empty."""
        try:
            noted = msgspec.json.decode(row["external_ids"].get(self.keys_key, "[]"), type=frozenset[str])
        except msgspec.DecodeError:
            noted = frozenset()
        return noted | {self.key, self.keys_key}

    def marked(self, external_ids: Mapping[str, str]) -> dict[str, str]:
        """A row's external_ids with our mark on it."""
        noted = {self.keys_key: msgspec.json.encode(sorted(external_ids)).decode()} if external_ids else {}
        return {**external_ids, self.key: self.name, **noted}


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row that is there. `parent` is the row that it hangs in, for what hangs in one."""

    id: RowId
    uuid: str
    row: AnyRow
    ours: bool
    parent: RowId | None = None


class Snapshot:
    """An index of the rows of one Open vSwitch database, by name.

    `tables` maps table to uuid to row, with the columns of `COLUMNS` as plain Python values: a replica of
    ovsctl.ovsdb will do once it is in sync. Raises `IncompleteSnapshot` if a table or a column that refers to rows is
    missing, there is no Open_vSwitch row, or a row refers to one that is not there. Other columns may be missing, as
    they are in older versions' schemas: see `absent`.
    """

    __slots__ = ("_by_uuid", "_found", "_tables", "absent", "owner")

    def __init__(self, tables: Tables, owner: OwnerMark) -> None:
        self.owner = owner
        self._found: dict[RowId, FoundRow] = {}
        self._by_uuid: dict[str, RowId] = {}
        if not getattr(tables, "synced", True):
            raise IncompleteSnapshot("the replica is not in sync with its server")
        try:
            self._tables = {table: tables[table] for table in COLUMNS}
        except KeyError as error:
            raise IncompleteSnapshot(f"table {error} is not monitored") from error
        self.absent = frozenset(_absent_columns(self._tables))
        roots = self._tables[ROOT.table]
        if len(roots) != 1:
            raise IncompleteSnapshot(f"{len(roots)} rows in Open_vSwitch, which has one once it is set up and synced")
        for uuid, row in roots.items():
            self._add(ROOT, uuid, row, ours=False)
            self._index(row)

    def __getitem__(self, row_id: RowId) -> FoundRow:
        return self._found[row_id]

    def get(self, row_id: RowId) -> FoundRow | None:
        return self._found.get(row_id)

    def __iter__(self) -> Iterator[FoundRow]:
        return iter(self._found.values())

    def name(self, uuid: str) -> RowId:
        """Which row a uuid is; one of a table that we do not index gets a nameless id."""
        return self._by_uuid.get(uuid, RowId("row", (uuid,)))

    def users(self, table: str, column: str) -> Mapping[str, frozenset[RowId]]:
        """By uuid of the row referred to: which rows of `table` refer to it in `column`."""
        users: dict[str, set[RowId]] = {}
        for user, row in self._tables[table].items():
            for uuid in uuids(row[column]):
                users.setdefault(uuid, set()).add(self.name(user))
        return {uuid: frozenset(ids) for uuid, ids in users.items()}

    def _index(self, root: AnyRow) -> None:
        for uuid, row in self._rows("Open_vSwitch", root, "manager_options", "Manager"):
            self._add(RowId("Manager", (row["target"],)), uuid, row, parent=ROOT)
        for uuid, row in self._rows("Open_vSwitch", root, "bridges", "Bridge"):
            bridge = self._add(RowId("Bridge", (row["name"],)), uuid, row, parent=ROOT)
            self._index_bridge(bridge)
        self._index_sample_sets()
        self._index_strays("QoS")
        self._index_strays("Queue")
        self._index_strays(SAMPLE_SETS)

    def _index_bridge(self, bridge: FoundRow) -> None:
        for table, column in BRIDGE_PARTS.items():
            rows = self._rows("Bridge", bridge.row, column, table)
            for uuid, row in sorted(rows, key=lambda item: not self.owner.owns(item[1])):
                self._add(_bridge_part_id(table, bridge.id, row), uuid, row, parent=bridge.id)
        for uuid, row in self._rows("Bridge", bridge.row, "ports", "Port"):
            # A bridge's local port comes and goes with the bridge, so it has the bridge's owner.
            local = row["name"] == bridge.row["name"]
            ours = bridge.ours if local else self.owner.owns(row)
            port = self._add(RowId("Port", (row["name"],)), uuid, row, parent=bridge.id, ours=ours)
            self._index_port(port)

    def _index_port(self, port: FoundRow) -> None:
        # Interfaces come and go with their port, so they have its owner.
        for uuid, row in self._rows("Port", port.row, "interfaces", "Interface"):
            self._add(RowId("Interface", (row["name"],)), uuid, row, parent=port.id, ours=port.ours)
        if not port.ours:
            return
        for uuid, row in self._rows("Port", port.row, "qos", "QoS"):
            if self.owner.owns(row) and uuid not in self._by_uuid:
                self._add(RowId("QoS", port.id.key), uuid, row)
                self._index_queues(port.id, row)

    def _index_queues(self, port: RowId, qos: AnyRow) -> None:
        for number, uuid in qos["queues"].items():
            row = self._row("QoS", "queues", "Queue", uuid)
            if self.owner.owns(row) and uuid not in self._by_uuid:
                self._add(RowId("Queue", (*port.key, number)), uuid, row)

    def _index_sample_sets(self) -> None:
        for uuid, row in self._tables[SAMPLE_SETS].items():
            bridge = self._by_uuid.get(row["bridge"])
            if bridge is None:  # a row that Open_vSwitch does not have any more: this reference keeps it
                continue
            found = self._add(RowId(SAMPLE_SETS, (*bridge.key, row["id"])), uuid, row, parent=bridge)
            for ipfix_uuid, ipfix in self._rows(SAMPLE_SETS, row, "ipfix", "IPFIX"):
                if ipfix_uuid not in self._by_uuid:
                    self._add(RowId("IPFIX", found.id.key), ipfix_uuid, ipfix, parent=found.id, ours=found.ours)

    def _index_strays(self, table: str) -> None:
        """Ours, but no port or bridge of ours has them any more: named by uuid, so that nobody wants them."""
        for uuid, row in self._tables[table].items():
            if self.owner.owns(row) and uuid not in self._by_uuid:
                self._add(RowId(table, (uuid,)), uuid, row)

    def _add(
        self, row_id: RowId, uuid: str, row: AnyRow, *, parent: RowId | None = None, ours: bool | None = None
    ) -> FoundRow:
        if row_id in self._found:  # a second row of that name, where the schema has no index to forbid it
            row_id = RowId(row_id.table, (*row_id.key, uuid))
        found = FoundRow(row_id, uuid, row, self.owner.owns(row) if ours is None else ours, parent)
        self._found[row_id] = found
        self._by_uuid[uuid] = row_id
        return found

    def _rows(self, holder: str, row: AnyRow, column: str, table: str) -> list[tuple[str, AnyRow]]:
        return [(uuid, self._row(holder, column, table, uuid)) for uuid in sorted(uuids(row[column]))]

    def _row(self, holder: str, column: str, table: str, uuid: str) -> AnyRow:
        try:
            return self._tables[table][uuid]
        except KeyError as error:
            raise IncompleteSnapshot(f"{holder}.{column} refers to {table} {uuid}, which is not there") from error


def _absent_columns(tables: Mapping[str, Mapping[str, AnyRow]]) -> Iterator[tuple[str, str]]:
    for table, columns in COLUMNS.items():
        for row in itertools.islice(tables[table].values(), 1):  # all rows of a table have the same columns
            for column in columns:
                try:
                    row[column]
                except (KeyError, UnknownColumn) as error:
                    if column in ("name", "external_ids", *REFERENCES.get(table, ())):
                        raise IncompleteSnapshot(f"{table}.{column} is not monitored") from error
                    yield table, column


def uuids(value: object) -> Iterable[str]:
    """The rows that a column refers to, whether it is optional, a set, or a map to rows."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping):
        return tuple(value.values())
    return value if isinstance(value, frozenset) else ()


def _bridge_part_id(table: str, bridge: RowId, row: AnyRow) -> RowId:
    match table:
        case "Mirror":
            return RowId(table, (*bridge.key, row["name"]))
        case "Controller":
            return RowId(table, (*bridge.key, row["target"]))
        case _:
            return RowId(table, bridge.key)
