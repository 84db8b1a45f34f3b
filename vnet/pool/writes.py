"""Row changes to one transaction that holds only if the pool is still as its maker saw it.

One rule: every assumption is a `wait` operation in the same transaction, and each knows what to say when it fails.
Names are the references, so their integrity is kept here: the database knows none between our tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ovsctl.ovsdb import Delete as DeleteOp
from ovsctl.ovsdb import Insert as InsertOp
from ovsctl.ovsdb import Mutate, Operation, TransactError, Wait
from ovsctl.ovsdb import Update as UpdateOp
from ovsctl.ovsdb.errors import ConstraintViolation
from vnet.model import Binding, Host, Network, Pool, Subnet, Vif, Vm
from vnet.pool.changes import Delete, Insert, RowChange, Update
from vnet.pool.errors import WriteConflict
from vnet.pool.rows import TABLE_OF, Value, key_of, to_columns

# Written by `write` alone, never as part of a change.
_COUNTERS = ("revision", "generation")


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


def configuration_write(changes: Sequence[RowChange], pool: Pool | None, *, generation: bool = False) -> Write:
    """A write of what the pool should be: refused if its revision is no longer `pool`'s, and raises it by one.

    `generation` is raised too by an apply, so that agents say when they have followed.
    `pool` None: there is none yet, and the changes insert it.
    """
    created = next((c.new for c in changes if isinstance(c, Insert) and isinstance(c.new, Pool)), None)
    if pool is None and created is None:
        raise WriteConflict("no-pool", "the pool is empty: apply a document first")
    guard = _pool_is(pool)
    steps = [guard, *_steps(changes)]
    if pool is None:
        return Write(tuple(steps), revision=1, generation=1)
    raised = [("revision", "+=", 1), ("generation", "+=", 1)][: 2 if generation else 1]
    steps.append(Step(Mutate("Pool", (), raised)))
    return Write(tuple(steps), pool.revision + 1, pool.generation + 1 if generation else pool.generation)


def runtime_write(changes: Sequence[RowChange]) -> Write:
    """A write of where things are, such as a step of a migration: it leaves the pool's revision alone."""
    return Write(tuple(_steps(changes)))


def _pool_is(pool: Pool | None) -> Step:
    changed = ("stale-revision", "the pool has changed since this was planned: plan again", "pool")
    if pool is None:
        return Step(Wait("Pool", (), ("name",), ()), changed)
    return Step(Wait("Pool", (), ("revision",), ({"revision": pool.revision},)), changed)


def _steps(changes: Sequence[RowChange]) -> Iterator[Step]:
    """Guards before the writes, references after them: what one transaction makes may refer to itself."""
    for change in changes:
        yield from _guards(change)
    for change in changes:
        yield from (Step(operation) for operation in _operations(change))
    for change in changes:
        yield from _references(change)


def _named(value: Value) -> str:
    key = " on ".join(str(part) for _, part in key_of(value))
    return f"{TABLE_OF[type(value)].lower()} {key}".rstrip()


def _where(value: Value) -> tuple[tuple[str, str, object], ...]:
    return tuple((column, "==", part) for column, part in key_of(value))


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


def _guards(change: RowChange) -> Iterator[Step]:
    match change:
        case Update(old=old):
            before, _ = _difference(change)
            if before:
                changed = ("row-changed", f"{_named(old)} has changed in the meantime", _named(old))
                yield Step(Wait(TABLE_OF[type(old)], _where(old), tuple(before), (before,)), changed)
        case Delete(old=Binding() as old):
            # Whether it may go was decided by these two.
            columns = {"state": old.state.value, "epoch": old.epoch}
            changed = ("row-changed", f"{_named(old)} has changed in the meantime", _named(old))
            yield Step(Wait("Binding", _where(old), tuple(columns), (columns,)), changed)
        case _:
            return


def _operations(change: RowChange) -> Iterator[Operation]:
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
                yield UpdateOp(TABLE_OF[type(new)], _where(new), after)
            if isinstance(old, Host) and isinstance(new, Host):
                yield from _uplinks(old, new)
        case Delete(old=old):
            yield DeleteOp(TABLE_OF[type(old)], _where(old))
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


def _exists(table: str, name: str, needed_by: str) -> Step:
    missing = ("missing-reference", f"{needed_by}: {table.lower()} {name} does not exist", needed_by)
    return Step(Wait(table, (("name", "==", name),), ("name",), ({"name": name},)), missing)


def _unused(table: str, column: str, name: str, what: str) -> Step:
    """No row of `table` names it any more."""
    used = ("in-use", f"{what} still has a {table.lower()}", what)
    return Step(Wait(table, ((column, "==", name),), (column,), ()), used)


def _references(change: RowChange) -> Iterable[Step]:
    match change:
        case Insert(new=Vif() as vif) | Update(new=Vif() as vif):
            if isinstance(change, Update) and (change.old.network, change.old.vm) == (vif.network, vif.vm):  # type: ignore[union-attr]
                return
            yield _exists("Network", vif.network, f"vif {vif.id}")
            if vif.vm is not None:
                yield _exists("Vm", vif.vm, f"vif {vif.id}")
        case Insert(new=Subnet() as subnet):
            yield _exists("Network", subnet.network, f"subnet {subnet.name}")
        case Delete(old=Network() as network):
            yield _unused("Vif", "network", network.name, f"network {network.name}")
            yield _unused("Subnet", "network", network.name, f"network {network.name}")
        case Delete(old=Vm() as vm):
            yield _unused("Vif", "vm", vm.name, f"vm {vm.name}")
        case _:
            return
