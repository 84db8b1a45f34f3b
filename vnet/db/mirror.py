"""The pool as values, kept current by folding in the changes that a replica of the database reports.

One rule: a change costs no more than its own size, never the pool's. A row that no pool may hold is left out and named in
`problems`; it stops nobody else. A key is given up only by the row that holds it: rows may pass keys on in one transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any, Protocol

from ovsctl.ovsdb import Where, by_uuid
from vnet.db.rows import TABLE_OF, by_key, from_row, key_of
from vnet.db.tables import TABLES, ObjectTable
from vnet.db.view import PoolView
from vnet.grammar.declare import Attr, Declared, attrs_of
from vnet.objects import AgentStatus, Binding, Event, Location, Pool, PoolState, Vif
from vnet.objects.follower import ToolstackFollower
from vnet.objects.index import VifIndex
from vnet.objects.token import Token
from vnet.objects.trial import Trial

log = logging.getLogger(__name__)


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
    parts: dict[str, dict[str, tuple[str, Any]]] = field(default_factory=dict)  # with the UUIDs of their rows


# A part's table to its owner's, and the owner's field.
_OWNERS: dict[str, tuple[ObjectTable, str]] = {
    part.name: (table, name) for table in TABLES.values() for name, part in table.parts.items()
}
_WHOLES = {table.name for table in TABLES.values() if table.parts}
# The key of a row's object in PoolState; of an event, which has none, the row's UUID.
_KEYS: dict[str, Callable[[Any], Any]] = {
    name: itemgetter(*table.key) if table.key else (lambda _: "") if table.declared.NOUN.single else attrgetter("uuid")
    for name, table in TABLES.items()
}


# Columns that say nothing about where a VIF or an agent is. Other hosts write some of them: one that writes nonsense there must not take
# the object away, so they count as if nothing had been said.
BESIDE_THE_POINT: dict[type[Declared], tuple[str, ...]] = {
    Binding: ("acked", "since"),
    AgentStatus: ("generation", "heartbeat", "started"),
}


def _without_statements(table: ObjectTable, row: MirrorRow) -> Declared | None:
    """The object of a row of which only such columns may be wrong; None where others are."""
    columns = {cell.column: row[cell.column] for cell in table.cells}
    for name in BESIDE_THE_POINT[table.declared]:
        found, content = attrs_of(table.declared)[name], columns[name]
        if isinstance(content, frozenset):
            columns[name] = frozenset(item for item in content if _is_fine(found, frozenset({item})))
        elif not _is_fine(found, content):
            columns[name] = found.default
    try:
        return from_row(table.declared, columns)
    except ValueError:
        return None


def _is_fine(found: Attr, value: Any) -> bool:
    try:
        found.check(value)
    except ValueError:
        return False
    return True


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
        self.refused = 0  # how often a row came that cannot be read
        self._unreadable: dict[str, str] = {}  # the UUIDs of such rows to their tables

    def lacks(self, *declared: type[Declared]) -> bool:
        """Whether there are rows of these objects that cannot be read: one that is not here may be all the same."""
        tables = {TABLE_OF[one_of] for one_of in declared}
        return not tables.isdisjoint(self._unreadable.values())

    @property
    def state(self) -> PoolState:
        """The pool now; its mappings are the mirror's own and go on changing."""
        return PoolState(self._tables[TABLE_OF[Pool]].get(""), **self._states)

    @property
    def events(self) -> dict[str, Event]:
        """Events by row UUID, in no order of their times."""
        return self._tables[TABLE_OF[Event]]

    @property
    def tokens(self) -> dict[str, Token]:
        """Tokens by name."""
        return self._tables[TABLE_OF[Token]]

    @property
    def followers(self) -> dict[str, ToolstackFollower]:
        """Followers by the toolstack."""
        return self._tables[TABLE_OF[ToolstackFollower]]

    @property
    def trial(self) -> Trial | None:
        """The revision that is on trial."""
        return self._tables[TABLE_OF[Trial]].get("")

    def locate(self, value: Declared) -> Where:
        """The row of a value: by its UUID, which costs the server nothing, else by its key.

        A row that was replaced meanwhile is not found, so a write must be guarded by the pool's revision or the row's columns.
        """
        key = key_of(value)
        uuid = self._uuids.get(
            (TABLE_OF[type(value)], key[0][1] if len(key) == 1 else tuple(content for _, content in key))
        )
        return by_uuid(uuid) if uuid is not None else by_key(value)

    def location(self, vif: str) -> Location:
        """Where a VIF is."""
        return self.view().location(vif)

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
                    self._forget_problem(row)
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
        if edit.old is not None and (old_key := key_of_row(edit.old)) != new_key and self._holds(edit.table, edit.old):
            del self._uuids[edit.table, old_key]
            deltas.append(self._put(edit.table, old_key, None, now_ms))
        if edit.new is not None and new_key is not None:
            self._uuids[edit.table, new_key] = edit.new.uuid
            deltas.append(self._put(edit.table, new_key, new, now_ms))
        return [delta for delta in deltas if delta is not None]

    def _holds(self, table: str, row: MirrorRow) -> bool:
        """Whether a row is the one of its key: another may have taken the key meanwhile."""
        return self._uuids.get((table, _KEYS[table](row))) == row.uuid

    def _read(self, table: ObjectTable, row: MirrorRow, **parts: tuple[Declared, ...]) -> Declared | None:
        try:
            return from_row(table.declared, row, **parts)
        except ValueError as error:
            rest = _without_statements(table, row) if table.declared in BESIDE_THE_POINT else None
            self._refuse(table, row, str(error), "it is left out" if rest is None else "it counts as not stated")
            return rest
        except Exception as error:  # rows come from outside: a fault that nobody foresaw costs its row alone
            log.exception("row %s of table %s", row.uuid, table.name)
            self._refuse(table, row, f"{type(error).__name__}: {error}")
        return None

    def _refuse(self, table: ObjectTable, row: MirrorRow, problem: str, outcome: str = "it is left out") -> None:
        self.refused += 1
        self._unreadable[row.uuid] = table.name
        self.problems[row.uuid] = f"{table.name} row {row.uuid}: {problem}"
        log.warning("%s: %s", self.problems[row.uuid], outcome)

    def unreadable(self, declared: type[Declared]) -> list[str]:
        """The UUIDs of the rows of an object that cannot be read."""
        table = TABLE_OF[declared]
        return [uuid for uuid, name in self._unreadable.items() if name == table]

    def _forget_problem(self, row: MirrorRow) -> None:
        self.problems.pop(row.uuid, None)
        self._unreadable.pop(row.uuid, None)

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
            known = self._wholes.setdefault(whole, _Whole())
            if present:
                known.row = row
                self._uuids[whole] = row.uuid
            elif known.row is not None and known.row.uuid == row.uuid:
                known.row = None
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
            key = row[part.key[-1]]
            if present and (value := self._read(part, row)) is not None:
                parts[key] = (row.uuid, value)
            elif key in parts and parts[key][0] == row.uuid:
                del parts[key]
        return touched

    def _assemble(self, table: str, key: str) -> Delta | None:
        whole = self._wholes[table, key]
        self._look_for_orphans(TABLES[table], key, whole)
        value = None
        if whole.row is not None:
            self._forget_problem(whole.row)
            parts = {name: tuple(value for _, value in parts.values()) for name, parts in whole.parts.items()}
            value = self._read(TABLES[table], whole.row, **parts)
        elif not any(whole.parts.values()):
            del self._wholes[table, key]
        return self._put(table, key, value)

    def _look_for_orphans(self, table: ObjectTable, key: str, whole: _Whole) -> None:
        """Parts whose owner is not there are nobody's."""
        for name, parts in whole.parts.items():
            for uuid, _ in parts.values():
                if whole.row is None:
                    text = f"there is no {table.declared.NOUN.text} {key!r}"
                    self.problems[uuid] = f"{table.parts[name].name} row {uuid}: {text}"
                else:
                    self.problems.pop(uuid, None)
