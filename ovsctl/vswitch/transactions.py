"""Carries a plan out. Rule: what is done is what was planned, all of it in one transaction or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, assert_never

import msgspec

from ovsctl.ovsdb import (
    Delete,
    Insert,
    Mutate,
    NamedUuid,
    Operation,
    Select,
    Update,
    Wait,
    WaitTimedOut,
    by_uuid,
)
from ovsctl.vswitch.changes import AddRow, Change, MoveRow, Ref, RemoveRow, Resolved, UpdateRow
from ovsctl.vswitch.errors import NotConfigured
from ovsctl.vswitch.rows import ROOT, RowId

_Resolver = Callable[[Ref], str | NamedUuid]


class Transactor(Protocol):
    """The part of `ovsctl.ovsdb.OvsdbClient` that is used here."""

    async def transact(self, *operations: Operation) -> Sequence[Any]: ...


class Applied(msgspec.Struct, frozen=True):
    """The outcome of a transaction.

    `errors`: what ovs-vswitchd says, by interface, of those that it could not make as they are wanted.
    `stale`: changes whose row somebody deleted since the snapshot; plan again.
    """

    next_cfg: int
    inserted: Mapping[RowId, str]
    errors: Mapping[str, str]
    stale: tuple[Change, ...]


def transaction(changes: Iterable[Change]) -> tuple[Operation, ...]:
    """The operations of one transaction; the last two tell ovs-vswitchd to act, and read `next_cfg`. Pure.

    Nothing to change is no operation at all.
    """
    steps = _steps(changes)
    return (*(operation for _, operation in steps), *_NEXT_CFG) if steps else ()


_NEXT_CFG: tuple[Operation, ...] = (
    Mutate(ROOT.table, (), [("next_cfg", "+=", 1)]),
    Select(ROOT.table, (), ["next_cfg"]),
)


async def apply(client: Transactor, changes: Iterable[Change], timeout_s: float = 10.0) -> Applied | None:
    """Carry out changes of one plan in one transaction, and wait until ovs-vswitchd has configured them.

    Returns None if there was nothing to do. Raises `NotConfigured` if ovs-vswitchd is not done within `timeout_s`
    (the database has the changes then), and what `client.transact` raises (then it has none, unless that says so).
    """
    steps = _steps(changes)
    if not steps:
        return None
    results = await client.transact(*(operation for _, operation in steps), *_NEXT_CFG)
    next_cfg = results[-1][0]["next_cfg"]
    broken = await _configured(client, next_cfg, timeout_s)
    touched = {change.row.id.key[0] for change, _ in steps if change.row.id.table in ("Interface", "Port")}
    outcome = list(zip(steps, results, strict=False))
    return Applied(
        next_cfg,
        {change.row.id: uuid for (change, operation), uuid in outcome if isinstance(operation, Insert)},
        {row["name"]: row["error"] for row in broken if row["name"] in touched},
        tuple(change for (change, _), count in outcome if count == 0),
    )


async def reconfigure(client: Transactor, *operations: Operation, timeout_s: float = 10.0) -> None:
    """Carry out operations in one transaction, and wait until ovs-vswitchd has acted on them. Raises as `apply`."""
    results = await client.transact(*operations, *_NEXT_CFG)
    await _configured(client, results[-1][0]["next_cfg"], timeout_s)


async def _configured(client: Transactor, next_cfg: int, timeout_s: float) -> Sequence[Mapping[str, Any]]:
    """Wait for `cur_cfg`, in the database server itself; returns the interfaces with an error."""
    behind = [("cur_cfg", "<", next_cfg)]
    wait = Wait(ROOT.table, behind, ["cur_cfg"], rows=[], until="==", timeout_ms=round(timeout_s * 1000))
    try:
        _, broken = await client.transact(wait, Select("Interface", [("error", "!=", None)], ["name", "error"]))
    except WaitTimedOut as error:
        ((root,),) = await client.transact(Select(ROOT.table, (), ["cur_cfg"]))
        raise NotConfigured(next_cfg, root["cur_cfg"], timeout_s) from error
    return sorted(broken, key=lambda row: str(row["name"]))


def _steps(changes: Iterable[Change]) -> list[tuple[Change, Operation]]:
    changes = tuple(changes)
    names = {
        change.row.id: NamedUuid(f"row{index}") for index, change in enumerate(changes) if isinstance(change, AddRow)
    }

    def resolve(ref: Ref) -> str | NamedUuid:
        return ref.uuid or names[ref.id]

    return [(change, operation) for change in changes for operation in _operations(change, resolve)]


def _operations(change: Change, resolve: _Resolver) -> Iterator[Operation]:
    row = resolve(change.row)
    table = change.row.id.table
    match change:
        case AddRow(columns=columns, parent=parent):
            name = row.name if isinstance(row, NamedUuid) else None
            yield Insert(table, {column: _value(value, resolve) for column, value in columns.items()}, name)
            if parent:
                yield _member(parent, change.column, "insert", row, resolve)
        case UpdateRow():
            yield from _update(change, by_uuid(row), resolve)
        case MoveRow():
            yield _member(change.old_parent, change.column, "delete", row, resolve)
            yield _member(change.parent, change.column, "insert", row, resolve)
        case RemoveRow(parent=parent):
            if parent:
                yield _member(parent, change.column, "delete", row, resolve)
            # Unreferenced rows go by themselves, but too late for the rows they refer to to go with them.
            yield Delete(table, by_uuid(row))
        case _:
            assert_never(change)


def _update(change: UpdateRow, row: Any, resolve: _Resolver) -> Iterator[Operation]:
    table = change.row.id.table
    if change.columns:
        yield Update(table, row, {column.column: _value(column.new, resolve) for column in change.columns})
    replaced = frozenset((*change.delete_ids, *(key for key, _ in change.set_ids)))
    if replaced:  # inserting a pair leaves one with the same key as it is (RFC 7047 §5.1), so that goes first
        ids = [("external_ids", "delete", replaced), ("external_ids", "insert", dict(change.set_ids))]
        yield Mutate(table, row, ids)


def _member(parent: Ref, column: str, mutator: str, member: str | NamedUuid, resolve: _Resolver) -> Operation:
    """Put one row into a set, or take it out, whatever else is in it."""
    mutation = (column, mutator, frozenset((member,)))
    return Mutate(parent.id.table, by_uuid(resolve(parent)), [mutation])


def _value(value: Resolved, resolve: _Resolver) -> object:
    match value:
        case Ref():
            return resolve(value)
        case frozenset():
            return frozenset(resolve(item) if isinstance(item, Ref) else item for item in value)
        case Mapping():
            return {key: resolve(item) if isinstance(item, Ref) else item for key, item in value.items()}
        case _:
            return value
