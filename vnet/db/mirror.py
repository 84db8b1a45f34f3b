"""The pool as values, kept current by folding in the changes that a replica of the database reports.

One rule: a change costs no more than its own size, never the pool's. A row that no pool may hold is left out and named in
`problems`; it stops nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any, Protocol

from ovsctl.ovsdb import Where, by_uuid
from vnet.db.rows import TABLE_OF, by_key, from_row, key_of
from vnet.db.tables import TABLES, Table
from vnet.db.view import PoolView
from vnet.grammar.declare import Declared
from vnet.objects import AgentStatus, Binding, Event, Pool, PoolState, Vif
from vnet.objects.index import VifIndex


class MirrorRow(Protocol):
    """A replica's row, as far as the mirror needs it: its UUID and its columns."""

    @property
    def uuid(self) -> str: ...

    def __getitem__(self, column: str) -> Any: ...


class RowEdit(Protocol):
    """A row before and after a transaction, None where there is none: ovsctl.ovsdb.Change is one."""

    @property
    def table(self) -> str: ...

    @property
    def old(self) -> MirrorRow | None: ...

    @property
    def new(self) -> MirrorRow | None: ...


@dataclass(frozen=True, slots=True)
class Delta:
    """An object before and after; None where there is none. Its parts are in it. key: as in PoolState."""

    key: str | tuple[str, str]
    old: Declared | None
    new: Declared | None


@dataclass(slots=True)
class _Whole:
    """An object's row and its parts, by field and name, as they come."""

    row: MirrorRow | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)


# A part's table to its owner's, and the owner's field.
_OWNERS: dict[str, tuple[Table, str]] = {
    part.name: (table, name) for table in TABLES.values() for name, part in table.parts.items()
}
_WHOLES = {table.name for table in TABLES.values() if table.parts}
# The key of a row's object in PoolState; of an event, which has none, the row's UUID.
_KEYS: dict[str, Callable[[Any], Any]] = {
    name: itemgetter(*table.key) if table.key else (lambda _: "") if table.declared.NOUN.single else attrgetter("uuid")
    for name, table in TABLES.items()
}


class PoolMirror:
    """A pool that follows its database. `state` and `view` are live: they show each change once it is folded in."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Any, Any]] = {name: {} for name in TABLES if name not in _OWNERS}
        self._states = {
            noun.state: self._tables[noun.table]
            for noun in (TABLES[name].declared.NOUN for name in self._tables)
            if noun.state and not noun.single
        }
        self._wholes: dict[tuple[str, str], _Whole] = {}
        self._bindings_of: dict[str, dict[str, Binding]] = {}
        self._members: dict[str, dict[str, int]] = {}  # network to host to how many bindings
        self._index = VifIndex()
        self._uuids: dict[tuple[str, Any], str] = {}
        self._heard: dict[str, tuple[int, int]] = {}  # host to (its heartbeat, when we saw it change)
        self.problems: dict[str, str] = {}

    @property
    def state(self) -> PoolState:
        """The pool now; its mappings are the mirror's own and go on changing."""
        return PoolState(self._tables[TABLE_OF[Pool]].get(""), **self._states)

    @property
    def events(self) -> dict[str, Event]:
        """Events by row UUID, in no order of their times."""
        return self._tables[TABLE_OF[Event]]

    def locate(self, value: Declared) -> Where:
        """The row of a value: by its UUID, which costs the server nothing, else by its key.

        A row that was replaced meanwhile is not found, so a write must be guarded by the pool's revision or the row's columns.
        """
        key = key_of(value)
        uuid = self._uuids.get(
            (TABLE_OF[type(value)], key[0][1] if len(key) == 1 else tuple(content for _, content in key))
        )
        return by_uuid(uuid) if uuid is not None else by_key(value)

    def view(self, live: Iterable[str] = ()) -> PoolView:
        """The pool with its indexes; `live`: see `live_hosts`."""
        return PoolView(self.state, frozenset(live), self._bindings_of, self._members, self._index)

    def live_hosts(self, now_ms: int, down_after_s: float) -> frozenset[str]:
        """The hosts whose heartbeat changed in the last `down_after_s`, by our clock: theirs may be wrong."""
        limit = now_ms - int(down_after_s * 1000)
        return frozenset(host for host, (_, heard) in self._heard.items() if heard >= limit)

    def fold(self, edits: Iterable[RowEdit], now_ms: int = 0) -> list[Delta]:
        """Fold in the changes of one transaction, or the first content; returns the objects that differ.

        `now_ms`: the time, for `live_hosts`. Rows that go are folded in first: a name may pass from one row to another.
        """
        deltas: list[Delta] = []
        touched: dict[tuple[str, str], None] = {}
        for edit in sorted(edits, key=lambda edit: edit.new is not None):
            for row in (edit.old, edit.new):
                if row is not None:
                    self.problems.pop(row.uuid, None)
            if edit.table in _OWNERS:
                touched.update(dict.fromkeys(self._edit_part(edit)))
            elif edit.table in _WHOLES:
                touched.update(dict.fromkeys(self._edit_whole(edit)))
            elif edit.table in self._tables:
                deltas += self._edit(edit, now_ms)
        deltas += [delta for table, key in touched if (delta := self._assemble(table, key)) is not None]
        return deltas

    def _edit(self, edit: RowEdit, now_ms: int) -> list[Delta]:
        key_of_row = _KEYS[edit.table]
        deltas = []
        new = new_key = None
        if edit.new is not None and (new := self._read(TABLES[edit.table], edit.new)) is not None:
            new_key = key_of_row(edit.new)
        if edit.old is not None and (old_key := key_of_row(edit.old)) != new_key:
            self._uuids.pop((edit.table, old_key), None)
            deltas.append(self._put(edit.table, old_key, None, now_ms))
        if edit.new is not None and new_key is not None:
            self._uuids[edit.table, new_key] = edit.new.uuid
            deltas.append(self._put(edit.table, new_key, new, now_ms))
        return [delta for delta in deltas if delta is not None]

    def _read(self, table: Table, row: MirrorRow, **parts: tuple[Declared, ...]) -> Declared | None:
        try:
            return from_row(table.declared, row, **parts)
        except ValueError as error:
            self.problems[row.uuid] = f"{table.name} row {row.uuid}: {error}"
            return None

    def _put(self, table: str, key: Any, new: Any, now_ms: int = 0) -> Delta | None:
        rows = self._tables[table]
        old = rows.get(key)
        if old == new:
            return None
        if new is None:
            del rows[key]
        else:
            rows[key] = new
        declared = TABLES[table].declared
        if declared is Binding:
            self._index_binding(old, new)
        elif declared is Vif:
            self._index.put(old, new)
        elif declared is AgentStatus:
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

    def _hear(self, host: str, old: AgentStatus | None, new: AgentStatus | None, now_ms: int) -> None:
        if new is None:
            self._heard.pop(host, None)
        elif old is None:
            # Written before we looked: as old as it says, but never later than now.
            self._heard[host] = (new.heartbeat, min(new.heartbeat, now_ms))
        elif new.heartbeat not in (0, old.heartbeat):  # 0: the database restarted and forgot it
            self._heard[host] = (new.heartbeat, now_ms)

    # --- objects of several rows ---------------------------------------------------------------------

    def _edit_whole(self, edit: RowEdit) -> list[tuple[str, str]]:
        touched = []
        for row, present in ((edit.old, False), (edit.new, True)):
            if row is None:
                continue
            whole = edit.table, _KEYS[edit.table](row)
            touched.append(whole)
            self._wholes.setdefault(whole, _Whole()).row = row if present else None
            if present:
                self._uuids[whole] = row.uuid
            else:
                self._uuids.pop(whole, None)
        return touched

    def _edit_part(self, edit: RowEdit) -> list[tuple[str, str]]:
        part = TABLES[edit.table]
        owner, name = _OWNERS[edit.table]
        touched = []
        for row, present in ((edit.old, False), (edit.new, True)):
            if row is None:
                continue
            whole = owner.name, row[part.owner]
            touched.append(whole)
            parts = self._wholes.setdefault(whole, _Whole()).parts.setdefault(name, {})
            parts.pop(row[part.key[-1]], None)
            if present and (value := self._read(part, row)) is not None:
                parts[row[part.key[-1]]] = value
        return touched

    def _assemble(self, table: str, key: str) -> Delta | None:
        whole = self._wholes[table, key]
        value = None
        if whole.row is not None:
            self.problems.pop(whole.row.uuid, None)
            parts = {name: tuple(parts.values()) for name, parts in whole.parts.items()}
            value = self._read(TABLES[table], whole.row, **parts)
        elif not any(whole.parts.values()):
            del self._wholes[table, key]
        return self._put(table, key, value)
