"""Row changes to one transaction that holds only if the pool is still as its maker saw it.

One rule: every assumption is a `wait` operation in the same transaction, and each knows what to say when it fails.
Names are the references, so their integrity is kept here: the database knows none between our tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import uuid4

from ovsctl.ovsdb import Delete as DeleteOp
from ovsctl.ovsdb import Insert as InsertOp
from ovsctl.ovsdb import Mutate, Operation, TransactError, Wait, Where
from ovsctl.ovsdb import Update as UpdateOp
from ovsctl.ovsdb.errors import ConstraintViolation
from vnet.db.changes import OWN_FIELDS, DeleteObject, InsertObject, RowChange, UpdateObject
from vnet.db.errors import WriteConflict
from vnet.db.rows import TABLE_OF, by_key, key_of, new_columns, to_columns
from vnet.db.tables import RUNTIME, Cell, ObjectTable, table_of
from vnet.grammar.declare import Declared
from vnet.objects import Binding, FrameMirror, Location, Network, Pool, Vif
from vnet.objects.binding import stays
from vnet.objects.renames import RENAMED
from vnet.objects.retired import RetiredNumber, retired
from vnet.objects.state import CONFIGURED


class Rows(Protocol):
    """The rows that a write is about, as its maker sees them. PoolMirror is one."""

    def locate(self, value: Declared) -> Where:
        """How to find the row of a value."""
        ...

    def location(self, vif: str) -> Location:
        """Where a VIF is."""
        ...


class UnseenRows:
    """Rows of a pool whose maker sees none: they are found by their keys."""

    def locate(self, value: Declared) -> Where:
        return by_key(value)

    def location(self, vif: str) -> Location:
        return Location()


UNSEEN = UnseenRows()

# The tables of objects that stay while others refer to them, by the noun's word.
_HELD = {declared.NOUN.word: table_of(declared) for declared in CONFIGURED if declared.NOUN.held}
# The columns that refer to such objects.
_REFERENCES: dict[type[Declared], tuple[Cell, ...]] = {
    declared: tuple(cell for cell in table_of(declared).cells if cell.refers in _HELD) for declared in CONFIGURED
}


@dataclass(frozen=True, slots=True)
class Step:
    """An operation, and the refusal that its failure means, as the arguments of WriteConflict."""

    operation: Operation
    refusal: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """One transaction. changes: the objects that it changes. revision: the pool's after it, None where it leaves it alone."""

    steps: tuple[Step, ...]
    changes: tuple[RowChange, ...] = ()
    revision: int | None = None
    generation: int | None = None

    @property
    def operations(self) -> list[Operation]:
        return [step.operation for step in self.steps]

    def conflict(self, error: TransactError) -> WriteConflict | None:
        """The conflict behind a refusal of this transaction by the server; None if it is none."""
        if error.index is not None and error.index < len(self.steps):
            refusal = self.steps[error.index].refusal
            if refusal is not None:
                return WriteConflict(*refusal)
        if isinstance(error, ConstraintViolation):
            return WriteConflict("exists", f"another one has it already: {error.details}", error.table or "")
        return None


def configuration_write(
    changes: Sequence[RowChange], pool: Pool | None, *, generation: bool = False, rows: Rows = UNSEEN
) -> Write:
    """A write of configuration: refused if its revision is no longer `pool`'s, and raises it by one.

    `generation` is raised too by an apply, so that agents say when they have followed, and where a network gives up a number.
    `pool` None: there is none yet, and the changes insert it.
    """
    created = next((c.new for c in changes if c.old is None and isinstance(c.new, Pool)), None)
    if pool is None and created is None:
        raise WriteConflict("no-pool", "the pool is empty: apply a document first")
    changes = _as_asked(changes, rows)
    guard = _pool_is(pool)
    given_up = list(_retired(changes, pool.generation + 1)) if pool is not None else []
    generation = generation or bool(given_up)
    steps = [guard, *_steps(changes, rows), *given_up]
    if pool is None:
        return Write(tuple(steps), tuple(changes), revision=1, generation=1)
    raised = [("revision", "+=", 1), ("generation", "+=", 1)][: 2 if generation else 1]
    steps.append(Step(Mutate("Pool", (), raised)))
    after = pool.generation + 1 if generation else pool.generation
    return Write(tuple(steps), tuple(changes), pool.revision + 1, after)


def _retired(changes: Sequence[RowChange], generation: int) -> Iterator[Step]:
    """Remembers the numbers that networks and mirrors give up."""
    for change in changes:
        old, new = change.old, change.new
        if isinstance(old, Network | FrameMirror):
            for number in retired(old, new if isinstance(new, Network | FrameMirror) else None, generation):
                yield Step(DeleteOp(TABLE_OF[RetiredNumber], by_key(number)))
                yield Step(InsertOp(TABLE_OF[RetiredNumber], to_columns(number)))


def runtime_write(changes: Sequence[RowChange], *, rows: Rows = UNSEEN) -> Write:
    """A write of locations, such as a step of a migration: it leaves the pool's revision alone."""
    changes = _as_asked(changes, rows)
    return Write(tuple(_steps(changes, rows)), tuple(changes))


def _as_asked(changes: Sequence[RowChange], rows: Rows) -> list[RowChange]:
    """The changes, with what is stated of VIFs that are asked for elsewhere by them: where they run now, and may stay until they are claimed there."""
    return [_stating(change, rows) if isinstance(change.new, Vif) else change for change in changes]


def _stating(change: RowChange, rows: Rows) -> RowChange:
    match change:
        case InsertObject(new=Vif() as new):
            stated = stays(None, new, Location())
            return change if stated == new.stays else InsertObject(replace(new, stays=stated))
        case UpdateObject(old=Vif() as old, new=Vif() as new):
            asked_anew = (old.host, old.incoming) != (new.host, new.incoming)
            stated = stays(old, new, rows.location(old.id)) if asked_anew else old.stays
            return change if stated == new.stays else UpdateObject(old, replace(new, stays=stated))
    return change


def new_keys(pool: Pool, now_ms: int) -> Write:
    """Has every host make new keys of encrypted tunnels. It leaves the pool's revision alone."""
    changed = ("row-changed", "new keys have been asked for in the meantime", "pool")
    raised = {"key_epoch": pool.key_epoch + 1, "keyed": now_ms}
    guard = Wait("Pool", (), ("key_epoch",), ({"key_epoch": pool.key_epoch},))
    return Write((Step(guard, changed), Step(UpdateOp("Pool", (), raised))))


def _pool_is(pool: Pool | None) -> Step:
    changed = ("stale-revision", "the pool has changed since this was planned: plan again", "pool")
    if pool is None:
        return Step(Wait("Pool", (), ("name",), ()), changed)
    return Step(Wait("Pool", (), ("revision",), ({"revision": pool.revision},)), changed)


def _steps(changes: Sequence[RowChange], rows: Rows) -> Iterator[Step]:
    """Guards before the writes, references after them: objects that one transaction makes may refer to each other."""
    for change in changes:
        yield from _guards(change, rows)
    for change in changes:
        yield from (Step(operation) for operation in _operations(change, rows))
    # One look per name, and none for objects that this transaction makes itself.
    made = {
        (TABLE_OF[type(c.new)], *table_of(type(c.new)).key_of(c.new))
        for c in changes
        if c.new is not None and (c.old is None or key_of(c.old) != key_of(c.new))
    }
    looked: set[Reference] = set()
    for change in changes:
        for reference in _references(change):
            if reference not in looked and not (reference.exists and (reference.table.name, reference.name) in made):
                looked.add(reference)
                yield reference.step()


def _named(value: Declared) -> str:
    key = " on ".join(str(part) for _, part in key_of(value))
    return f"{_word(table_of(type(value)))} {key}".rstrip()


def _word(table: ObjectTable) -> str:
    return table.declared.NOUN.word.replace("-", " ")


def _difference(change: UpdateObject) -> tuple[dict[str, object], dict[str, object]]:
    """The columns that an update changes: as they were, and as they become."""
    if key_of(change.old) != key_of(change.new) and type(change.new) not in RENAMED:
        raise ValueError(f"an update cannot rename {_named(change.old)}")
    old, new = to_columns(change.old), to_columns(change.new)
    left = OWN_FIELDS if isinstance(change.new, Pool) else ()
    names = [name for name in new if old[name] != new[name] and name not in left]
    return {name: old[name] for name in names}, {name: new[name] for name in names}


def _guards(change: RowChange, rows: Rows) -> Iterator[Step]:
    match change:
        case UpdateObject(old=old):
            before, _ = _difference(change)
            before.pop("stays", None)  # derived from what the others say
            if before:
                changed = ("row-changed", f"{_named(old)} has changed in the meantime", _named(old))
                yield Step(Wait(TABLE_OF[type(old)], rows.locate(old), tuple(before), (before,)), changed)
        case DeleteObject(old=Binding() as old):
            # These two decided that it may go.
            columns = {"state": old.state.value, "epoch": old.epoch}
            changed = ("row-changed", f"{_named(old)} has changed in the meantime", _named(old))
            yield Step(Wait("Binding", rows.locate(old), tuple(columns), (columns,)), changed)
        case _:
            return


def _operations(change: RowChange, rows: Rows) -> Iterator[Operation]:
    match change:
        case InsertObject(new=new):
            first = {"id": new_pool_id(), "revision": 1, "generation": 1} if isinstance(new, Pool) else {}
            yield InsertOp(TABLE_OF[type(new)], {**new_columns(new), **first})
            yield from _parts(None, new)
        case UpdateObject(old=old, new=new):
            _, after = _difference(change)
            if after:
                yield UpdateOp(TABLE_OF[type(new)], rows.locate(old), after)
            yield from _parts(old, new)
        case DeleteObject(old=old):
            yield DeleteOp(TABLE_OF[type(old)], rows.locate(old))
            for table, column in _following(type(old)):
                yield DeleteOp(table, tuple((column, "==", content) for _, content in key_of(old)))


def new_pool_id() -> str:
    """An id that no other pool has."""
    return uuid4().hex


def _following(declared: type[Declared]) -> Iterator[tuple[str, str]]:
    """The rows that go with an object: its parts, and the runtime rows whose key refers to it. Table and column."""
    for part in table_of(declared).parts.values():
        yield part.name, part.owner
    for table in map(table_of, RUNTIME):
        for cell in table.cells:
            if cell.column in table.key and cell.refers == declared.NOUN.word:
                yield table.name, cell.column


def _parts(old: Declared | None, new: Declared) -> Iterator[Operation]:
    """The rows of an object's parts, where they differ."""
    for name, table in table_of(type(new)).parts.items():
        before, after = (
            {table.key_of(part): part for part in (getattr(value, name) if value is not None else ())}
            for value in (old, new)
        )
        (owner,) = table_of(type(new)).key_of(new)
        for key, part in {**before, **after}.items():
            where: Where = tuple(
                (column, "==", content) for column, content in zip(table.key, (owner, *key), strict=True)
            )
            if key not in after:
                yield DeleteOp(table.name, where)
            elif key not in before:
                yield InsertOp(table.name, {table.owner: owner, **new_columns(part)})
            elif before[key] != part:
                yield UpdateOp(table.name, where, to_columns(part))


@dataclass(frozen=True, slots=True)
class Reference:
    """A condition on names once the writes are done: rows of `table` whose `column` is `name` exist, or do not.

    by: the object that needs it, for the refusal. It is not compared: one look is enough for all that need the same. A column
    of several names, `among`, is looked through.
    """

    table: ObjectTable
    column: str
    name: str
    exists: bool
    by: str = field(compare=False)
    among: bool = False

    def step(self) -> Step:
        table, word = self.table.name, _word(self.table)
        if self.exists:
            wait = Wait(table, ((self.column, "==", self.name),), (self.column,), ({self.column: self.name},))
            return Step(wait, ("missing-reference", f"{self.by}: {word} {self.name} does not exist", self.by))
        names: Any = frozenset({self.name}) if self.among else self.name
        text = f"a {word} still names {self.by}" if self.among else f"{self.by} still has a {word}"
        wait = Wait(table, ((self.column, "includes" if self.among else "==", names),), (self.column,), ())
        return Step(wait, ("in-use", text, self.by))


def _references(change: RowChange) -> Iterator[Reference]:
    if isinstance(change, DeleteObject):
        yield from _referrers(change.old)
        return
    old, new = change.old, change.new
    if old is not None and type(new) in RENAMED and key_of(old) != key_of(new):
        yield from _referrers(old)
    for cell in _REFERENCES.get(type(new), ()):
        table = _HELD[cell.refers]
        for name in sorted(_names(cell, new) - (_names(cell, old) if old is not None else frozenset())):
            yield Reference(table, table.key[0], name, True, _named(new))


def _names(cell: Cell, value: Declared) -> frozenset[str]:
    content = cell.write(value)
    return content if isinstance(content, frozenset) else frozenset(() if content is None else (content,))


def _referrers(old: Declared) -> Iterator[Reference]:
    """No row may refer to an object that goes."""
    if old.NOUN.word not in _HELD:
        return
    ((_, name),) = key_of(old)
    for declared, cells in _REFERENCES.items():
        for cell in cells:
            if cell.refers == old.NOUN.word:
                yield Reference(table_of(declared), cell.column, name, False, _named(old), cell.many)
