"""The pool as values, kept current by folding in what a replica of the database reports.

One rule: a change costs what the change is, never what the pool is. A row that no pool may hold is left out and named in
`problems`; it stops nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ovsctl.ovsdb import Where, by_uuid
from vnet.db.rows import TABLE_OF, Value, from_row, host_from_rows, key_of, uplink_from_row
from vnet.db.view import PoolView
from vnet.db.writes import by_key
from vnet.objects import (
    AgentStatus,
    Binding,
    Event,
    Host,
    Network,
    Pool,
    PoolState,
    SecurityGroup,
    Subnet,
    Uplink,
    Vif,
    Vm,
)


class MirrorRow(Protocol):
    """What the mirror needs of a replica's row: its UUID and its columns."""

    @property
    def uuid(self) -> str: ...

    def __getitem__(self, column: str) -> Any: ...


class RowEdit(Protocol):
    """One row before and after a transaction, None where there is none: ovsctl.ovsdb.Change is one."""

    @property
    def table(self) -> str: ...

    @property
    def old(self) -> MirrorRow | None: ...

    @property
    def new(self) -> MirrorRow | None: ...


@dataclass(frozen=True, slots=True)
class Delta:
    """One object before and after; None where there is none. A host's uplinks are part of it. key: as in PoolState."""

    key: str | tuple[str, str]
    old: Value | None
    new: Value | None


_KINDS: dict[str, type[Any]] = {
    "Pool": Pool,
    "Network": Network,
    "Subnet": Subnet,
    "SecurityGroup": SecurityGroup,
    "Vm": Vm,
    "Vif": Vif,
    "Binding": Binding,
    "Agent": AgentStatus,
    "Event": Event,
}
_KEYS: dict[str, Callable[[Any], Any]] = {
    "Pool": lambda row: "",
    "Network": lambda row: row["name"],
    "Subnet": lambda row: row["name"],
    "SecurityGroup": lambda row: row["name"],
    "Vm": lambda row: row["name"],
    "Vif": lambda row: row["id"],
    "Binding": lambda row: (row["vif"], row["host"]),
    "Agent": lambda row: row["host"],
    "Event": lambda row: row.uuid,
}


@dataclass(slots=True)
class _HostRows:
    """What a host is made of, as it comes."""

    row: MirrorRow | None = None
    uplinks: dict[str, Uplink] = field(default_factory=dict)


class PoolMirror:
    """A pool that follows its database. `state` and `view` are live: they show each change once it is folded in."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Any, Any]] = {table: {} for table in (*_KINDS, "Host")}
        self._hosts: dict[str, _HostRows] = {}
        self._bindings_of: dict[str, dict[str, Binding]] = {}
        self._members: dict[str, dict[str, int]] = {}  # network to host to how many bindings
        self._vifs_of: dict[str, dict[str, None]] = {}
        self._uuids: dict[tuple[str, Any], str] = {}
        self._heard: dict[str, tuple[int, int]] = {}  # host to (its heartbeat, when we saw it change)
        self.problems: dict[str, str] = {}

    @property
    def state(self) -> PoolState:
        """The pool now; its mappings are the mirror's own and go on changing."""
        tables = self._tables
        return PoolState(
            tables["Pool"].get(""),
            tables["Host"],
            tables["Network"],
            tables["Subnet"],
            tables["Vm"],
            tables["Vif"],
            tables["Binding"],
            tables["Agent"],
            tables["SecurityGroup"],
        )

    @property
    def events(self) -> dict[str, Event]:
        """Events by row UUID, in no order of their times."""
        return self._tables["Event"]

    def locate(self, value: Value) -> Where:
        """The row that holds a value: by its UUID, which costs the server nothing, else by its key.

        A row that was replaced meanwhile is not found, so a write must be guarded by the pool's revision or the row's columns.
        """
        table = TABLE_OF[type(value)]
        key = key_of(value)
        uuid = self._uuids.get((table, key[0][1] if len(key) == 1 else tuple(part for _, part in key)))
        return by_uuid(uuid) if uuid is not None else by_key(value)

    def view(self, live: Iterable[str] = ()) -> PoolView:
        """The pool with its indexes; `live`: see `live_hosts`."""
        return PoolView(self.state, frozenset(live), self._bindings_of, self._members, self._vifs_of)

    def live_hosts(self, now_ms: int, down_after_s: float) -> frozenset[str]:
        """The hosts whose heartbeat changed in the last `down_after_s`, by our clock: theirs may be wrong."""
        limit = now_ms - int(down_after_s * 1000)
        return frozenset(host for host, (_, heard) in self._heard.items() if heard >= limit)

    def fold(self, edits: Iterable[RowEdit], now_ms: int = 0) -> list[Delta]:
        """Fold in what one transaction changed, or the first content; returns what it means.

        `now_ms` says when, for `live_hosts`. What goes is folded in first: a name may pass from one row to another.
        """
        ordered = sorted(edits, key=lambda edit: edit.new is not None)
        deltas: list[Delta] = []
        hosts: dict[str, None] = {}
        for edit in ordered:
            if edit.table in ("Host", "Uplink"):
                hosts.update(dict.fromkeys(self._host_edit(edit)))
            elif edit.table in _KINDS:
                deltas += self._edit(edit, now_ms)
        deltas += [delta for host in hosts if (delta := self._host(host)) is not None]
        return deltas

    def _edit(self, edit: RowEdit, now_ms: int) -> list[Delta]:
        key_of = _KEYS[edit.table]
        old_key = key_of(edit.old) if edit.old is not None else None
        new = self._value(edit)
        new_key = key_of(edit.new) if new is not None else None
        deltas = []
        if old_key is not None and old_key != new_key:
            self._uuids.pop((edit.table, old_key), None)
            deltas.append(self._put(edit.table, old_key, None, now_ms))
        if new_key is not None and edit.new is not None:
            self._uuids[edit.table, new_key] = edit.new.uuid
            deltas.append(self._put(edit.table, new_key, new, now_ms))
        return [delta for delta in deltas if delta is not None]

    def _value(self, edit: RowEdit) -> Value | None:
        if edit.new is None:
            if edit.old is not None:
                self.problems.pop(edit.old.uuid, None)
            return None
        try:
            value: Value = from_row(_KINDS[edit.table], edit.new)
        except ValueError as error:
            self.problems[edit.new.uuid] = f"{edit.table} row {edit.new.uuid}: {error}"
            return None
        self.problems.pop(edit.new.uuid, None)
        return value

    def _put(self, table: str, key: Any, new: Any, now_ms: int = 0) -> Delta | None:
        rows = self._tables[table]
        old = rows.get(key)
        if old == new:
            return None
        if new is None:
            del rows[key]
        else:
            rows[key] = new
        match table:
            case "Binding":
                self._index_binding(old, new)
            case "Vif":
                self._index_vif(old, new)
            case "Agent":
                self._hear(key, old, new, now_ms)
        return Delta(key, old, new)

    def _index_binding(self, old: Binding | None, new: Binding | None) -> None:
        if old is not None:
            bindings, hosts = self._bindings_of[old.vif], self._members[old.network]
            del bindings[old.host]
            hosts[old.host] -= 1
            if not hosts[old.host]:
                del hosts[old.host]
            if not bindings:
                del self._bindings_of[old.vif]
            if not hosts:
                del self._members[old.network]
        if new is not None:
            self._bindings_of.setdefault(new.vif, {})[new.host] = new
            hosts = self._members.setdefault(new.network, {})
            hosts[new.host] = hosts.get(new.host, 0) + 1

    def _index_vif(self, old: Vif | None, new: Vif | None) -> None:
        if old is not None and old.vm is not None:
            del self._vifs_of[old.vm][old.id]
            if not self._vifs_of[old.vm]:
                del self._vifs_of[old.vm]
        if new is not None and new.vm is not None:
            self._vifs_of.setdefault(new.vm, {})[new.id] = None

    def _hear(self, host: str, old: AgentStatus | None, new: AgentStatus | None, now_ms: int) -> None:
        if new is None:
            self._heard.pop(host, None)
        elif old is None:
            # Written before we looked: as old as it says, but never later than now.
            self._heard[host] = (new.heartbeat, min(new.heartbeat, now_ms))
        elif new.heartbeat not in (0, old.heartbeat):  # 0: the database restarted and forgot it
            self._heard[host] = (new.heartbeat, now_ms)

    # --- hosts, which are made of several rows ------------------------------------------------------

    def _host_edit(self, edit: RowEdit) -> list[str]:
        touched = []
        column = "name" if edit.table == "Host" else "host"
        for row, present in ((edit.old, False), (edit.new, True)):
            if row is None:
                continue
            rows = self._hosts.setdefault(row[column], _HostRows())
            touched.append(row[column])
            if edit.table == "Host":
                rows.row = row if present else None
                self._uuids.pop(("Host", row["name"]), None)
                if present:
                    self._uuids["Host", row["name"]] = row.uuid
            else:
                self._uplink(rows, row, present)
        return touched

    def _uplink(self, rows: _HostRows, row: MirrorRow, present: bool) -> None:
        rows.uplinks.pop(row["name"], None)
        self.problems.pop(row.uuid, None)
        if present:
            try:
                rows.uplinks[row["name"]] = uplink_from_row(row)
            except ValueError as error:
                self.problems[row.uuid] = f"Uplink row {row.uuid}: {error}"

    def _host(self, name: str) -> Delta | None:
        rows = self._hosts[name]
        value: Host | None = None
        if rows.row is not None:
            self.problems.pop(rows.row.uuid, None)
            try:
                value = host_from_rows(rows.row, tuple(rows.uplinks.values()))
            except ValueError as error:
                self.problems[rows.row.uuid] = f"Host row {rows.row.uuid}: {error}"
        elif not rows.uplinks:
            del self._hosts[name]
        return self._put("Host", name, value)
