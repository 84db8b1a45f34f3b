"""What a write does to a pool, as values: rows to insert, update and delete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vnet.db.rows import Value
from vnet.objects import Pool, PoolState


@dataclass(frozen=True, slots=True)
class Insert:
    new: Value


@dataclass(frozen=True, slots=True)
class Update:
    """Only the columns that differ are written, and only if they still are as in `old`."""

    old: Value
    new: Value


@dataclass(frozen=True, slots=True)
class Delete:
    old: Value


RowChange = Insert | Update | Delete


def state_changes(current: PoolState, desired: PoolState) -> tuple[RowChange, ...]:
    """The configuration rows to change so that `current` becomes `desired`; runtime rows are left to agents."""
    return tuple(_state_changes(current, desired))


def _state_changes(current: PoolState, desired: PoolState) -> Iterator[RowChange]:
    if desired.pool is not None:
        if current.pool is None:
            yield Insert(desired.pool)
        elif _without_counters(current.pool) != _without_counters(desired.pool):
            yield Update(current.pool, desired.pool)
    for table in ("hosts", "networks", "subnets", "groups", "vms", "vifs"):
        yield from _map_changes(getattr(current, table), getattr(desired, table))


def _without_counters(pool: Pool) -> Pool:
    return replace(pool, revision=0, generation=0)


def _map_changes(current: Mapping[str, Any], desired: Mapping[str, Any]) -> Iterator[RowChange]:
    for name, old in current.items():
        if name not in desired:
            yield Delete(old)
        elif (new := desired[name]) is not old and new != old:  # a plan keeps the objects that stay as they are
            yield Update(old, new)
    for name, new in desired.items():
        if name not in current:
            yield Insert(new)
