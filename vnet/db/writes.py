"""Row changes to one transaction that holds only if the pool is still as its maker saw it.

One rule: every assumption is a `wait` operation in the same transaction, and each knows what to say when it fails.
Names are the references, so their integrity is kept here: the database knows none between our tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ovsctl.ovsdb import Delete as DeleteOp
from ovsctl.ovsdb import Insert as InsertOp
from ovsctl.ovsdb import Mutate, Operation, TransactError, Wait, Where
from ovsctl.ovsdb import Update as UpdateOp
from ovsctl.ovsdb.errors import ConstraintViolation
from vnet.db.changes import Delete, Insert, RowChange, Update
from vnet.db.errors import WriteConflict
from vnet.db.rows import TABLE_OF, Key, Value, key_of, to_columns
from vnet.objects import Binding, Host, Network, Pool, SecurityGroup, Subnet, Vif, Vm

# Written by `write` alone, never as part of a change.
_COUNTERS = ("revision", "generation")

Locate = Callable[[Value], Where]

_TARGETS = (Network, SecurityGroup, Vm)  # what others name
_WORDS = {"SecurityGroup": "security group"}  # what people call a table's rows, where it is not the table's name


@dataclass(frozen=True, slots=True)
class Step:
    """An operation, and the refusal that its failure means: (code, message, where)."""

    operation: Operation
    refusal: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """One transaction. revision: the pool's after it, None where it leaves it alone."""

    steps: tuple[Step, ...]
    revision: int | None = None
    generation: int | None = None

    @property
    def operations(self) -> list[Operation]:
        return [step.operation for step in self.steps]

    def conflict(self, error: TransactError) -> WriteConflict | None:
        """What a refusal of this transaction by the server means; None if it is no conflict."""
        if error.index is not None and error.index < len(self.steps):
            refusal = self.steps[error.index].refusal
            if refusal is not None:
                return WriteConflict(*refusal)
        if isinstance(error, ConstraintViolation):
            return WriteConflict("exists", f"another one has it already: {error.details}", error.table or "")
        return None


def by_key(value: Value) -> Where:
    """The row that holds a value, by its key. ovsdb-server looks at every row of the table for that."""
    return tuple((column, "==", part) for column, part in key_of(value))


def configuration_write(
    changes: Sequence[RowChange], pool: Pool | None, *, generation: bool = False, locate: Locate = by_key
) -> Write:
    """A write of what the pool should be: refused if its revision is no longer `pool`'s, and raises it by one.

    `generation` is raised too by an apply, so that agents say when they have followed.
    `pool` None: there is none yet, and the changes insert it. `locate`: how to find a value's row, see PoolMirror.locate.
    """
    created = next((c.new for c in changes if isinstance(c, Insert) and isinstance(c.new, Pool)), None)
    if pool is None and created is None:
        raise WriteConflict("no-pool", "the pool is empty: apply a document first")
    guard = _pool_is(pool)
    steps = [guard, *_steps(changes, locate)]
    if pool is None:
        return Write(tuple(steps), revision=1, generation=1)
    raised = [("revision", "+=", 1), ("generation", "+=", 1)][: 2 if generation else 1]
    steps.append(Step(Mutate("Pool", (), raised)))
    return Write(tuple(steps), pool.revision + 1, pool.generation + 1 if generation else pool.generation)


def runtime_write(changes: Sequence[RowChange], *, locate: Locate = by_key) -> Write:
    """A write of where things are, such as a step of a migration: it leaves the pool's revision alone."""
    return Write(tuple(_steps(changes, locate)))


def _pool_is(pool: Pool | None) -> Step:
    changed = ("stale-revision", "the pool has changed since this was planned: plan again", "pool")
    if pool is None:
        return Step(Wait("Pool", (), ("name",), ()), changed)
    return Step(Wait("Pool", (), ("revision",), ({"revision": pool.revision},)), changed)


def _steps(changes: Sequence[RowChange], locate: Locate) -> Iterator[Step]:
    """Guards before the writes, references after them: what one transaction makes may refer to itself."""
    for change in changes:
        yield from _guards(change, locate)
    for change in changes:
        yield from (Step(operation) for operation in _operations(change, locate))
    # One look per name, and none for what this transaction makes itself.
    made = {(type(c.new), key_of(c.new)) for c in changes if isinstance(c, Insert) and isinstance(c.new, _TARGETS)}
    looked: set[Reference] = set()
    for change in changes:
        for reference in _references(change):
            if reference not in looked and reference.target not in made:
                looked.add(reference)
                yield reference.step()


def _named(value: Value) -> str:
    key = " on ".join(str(part) for _, part in key_of(value))
    return f"{_word(TABLE_OF[type(value)])} {key}".rstrip()


def _word(table: str) -> str:
    return _WORDS.get(table, table.lower())


def _columns(value: Value) -> Mapping[str, object]:
    return to_columns(value)


def _difference(change: Update) -> tuple[dict[str, object], dict[str, object]]:
    """The columns that an update changes: as they were, and as they become."""
    if key_of(change.old) != key_of(change.new):
        raise ValueError(f"an update cannot rename {_named(change.old)}")
    old, new = _columns(change.old), _columns(change.new)
    names = [
        name for name in new if old[name] != new[name] and not (isinstance(change.new, Pool) and name in _COUNTERS)
    ]
    return {name: old[name] for name in names}, {name: new[name] for name in names}


def _guards(change: RowChange, locate: Locate) -> Iterator[Step]:
    match change:
        case Update(old=old):
            before, _ = _difference(change)
            if before:
                changed = ("row-changed", f"{_named(old)} has changed in the meantime", _named(old))
                yield Step(Wait(TABLE_OF[type(old)], locate(old), tuple(before), (before,)), changed)
        case Delete(old=Binding() as old):
            # Whether it may go was decided by these two.
            columns = {"state": old.state.value, "epoch": old.epoch}
            changed = ("row-changed", f"{_named(old)} has changed in the meantime", _named(old))
            yield Step(Wait("Binding", locate(old), tuple(columns), (columns,)), changed)
        case _:
            return


def _operations(change: RowChange, locate: Locate) -> Iterator[Operation]:
    match change:
        case Insert(new=Pool() as new):
            yield InsertOp("Pool", {**_columns(new), "revision": 1, "generation": 1})
        case Insert(new=new):
            yield InsertOp(TABLE_OF[type(new)], _columns(new))
            if isinstance(new, Host):
                yield from (InsertOp("Uplink", {"host": new.name, **to_columns(uplink)}) for uplink in new.uplinks)
        case Update(old=old, new=new):
            _, after = _difference(change)
            if after:
                yield UpdateOp(TABLE_OF[type(new)], locate(old), after)
            if isinstance(old, Host) and isinstance(new, Host):
                yield from _uplinks(old, new)
        case Delete(old=old):
            yield DeleteOp(TABLE_OF[type(old)], locate(old))
            if isinstance(old, Host):
                yield DeleteOp("Uplink", (("host", "==", old.name),))
                yield DeleteOp("Agent", (("host", "==", old.name),))
                yield DeleteOp("Binding", (("host", "==", old.name),))
            if isinstance(old, Vif):
                yield DeleteOp("Binding", (("vif", "==", old.id),))


def _uplinks(old: Host, new: Host) -> Iterator[Operation]:
    for uplink in old.uplinks:
        if new.uplink(uplink.name) is None:
            yield DeleteOp("Uplink", (("host", "==", old.name), ("name", "==", uplink.name)))
    for uplink in new.uplinks:
        before = old.uplink(uplink.name)
        row = {"host": new.name, **to_columns(uplink)}
        if before is None:
            yield InsertOp("Uplink", row)
        elif before != uplink:
            yield UpdateOp("Uplink", (("host", "==", new.name), ("name", "==", uplink.name)), row)


@dataclass(frozen=True, slots=True)
class Reference:
    """What must hold of names once the writes are done: rows of `table` whose `column` is `name` exist, or do not.

    by: who needs it, for the refusal. It is not compared: one look is enough for all who need the same. A column of the same
    name that holds several, `among`, is looked through for it.
    """

    table: str
    column: str
    name: str
    exists: bool
    by: str = field(compare=False)
    among: bool = False

    @property
    def target(self) -> tuple[type, Key] | None:
        """The object that must exist, as in `made`."""
        if not self.exists:
            return None
        kind = next(kind for kind in _TARGETS if TABLE_OF[kind] == self.table)
        return (kind, ((self.column, self.name),))

    def step(self) -> Step:
        if self.exists:
            where: Where = ((self.column, "==", self.name),)
            text = f"{self.by}: {_word(self.table)} {self.name} does not exist"
            wait = Wait(self.table, where, (self.column,), ({self.column: self.name},))
            return Step(wait, ("missing-reference", text, self.by))
        where = (
            ((self.column, "includes", frozenset({self.name})),) if self.among else ((self.column, "==", self.name),)
        )
        text = (
            f"{self.by} still has a {_word(self.table)}"
            if not self.among
            else f"a {_word(self.table)} still names {self.by}"
        )
        return Step(Wait(self.table, where, (self.column,), ()), ("in-use", text, self.by))


def _references(change: RowChange) -> Iterator[Reference]:
    match change:
        case Insert(new=Vif() as vif):
            yield from _of_vif(None, vif)
        case Update(old=Vif() as before, new=Vif() as vif):
            yield from _of_vif(before, vif)
        case Insert(new=Subnet() as subnet):
            yield Reference("Network", "name", subnet.network, True, f"subnet {subnet.name}")
        case Insert(new=SecurityGroup() as group) | Update(new=SecurityGroup() as group):
            for name in sorted(group.remotes() - {group.name}):
                yield Reference("SecurityGroup", "name", name, True, f"security group {group.name}")
        case Delete(old=Network() as network):
            yield Reference("Vif", "network", network.name, False, f"network {network.name}")
            yield Reference("Subnet", "network", network.name, False, f"network {network.name}")
        case Delete(old=SecurityGroup() as group):
            yield Reference("Vif", "groups", group.name, False, f"security group {group.name}", among=True)
            yield Reference("SecurityGroup", "remotes", group.name, False, f"security group {group.name}", among=True)
        case Delete(old=Vm() as vm):
            yield Reference("Vif", "vm", vm.name, False, f"vm {vm.name}")
        case _:
            return


def _of_vif(before: Vif | None, vif: Vif) -> Iterator[Reference]:
    """What a VIF names, if it did not name it before."""
    by = f"vif {vif.id}"
    if before is None or (before.network, before.vm) != (vif.network, vif.vm):
        yield Reference("Network", "name", vif.network, True, by)
        if vif.vm is not None:
            yield Reference("Vm", "name", vif.vm, True, by)
    for name in vif.groups:
        if before is None or name not in before.groups:
            yield Reference("SecurityGroup", "name", name, True, by)
