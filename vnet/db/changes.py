"""The changes that a write makes to a pool, as values: objects to insert, update and delete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vnet.grammar.declare import Declared, SetBy, attrs_of, configured
from vnet.objects import Pool, PoolState
from vnet.objects.state import CONFIGURED

# Fields of the pool that writes set by themselves, never part of a change: its id once, its counters each time.
OWN_FIELDS = tuple(name for name, found in attrs_of(Pool).items() if found.set_by is SetBy.RUNTIME)


@dataclass(frozen=True, slots=True)
class Insert:
    new: Declared


@dataclass(frozen=True, slots=True)
class Update:
    """Only the columns that differ are written, and only if they still are as in `old`."""

    old: Declared
    new: Declared


@dataclass(frozen=True, slots=True)
class Delete:
    old: Declared


RowChange = Insert | Update | Delete


def state_changes(current: PoolState, desired: PoolState) -> tuple[RowChange, ...]:
    """The configuration rows to change so that `current` becomes `desired`; runtime rows are left to agents."""
    return tuple(_state_changes(current, desired))


def _state_changes(current: PoolState, desired: PoolState) -> Iterator[RowChange]:
    if desired.pool is not None:
        if current.pool is None:
            yield Insert(desired.pool)
        elif any(getattr(current.pool, name) != getattr(desired.pool, name) for name in configured(Pool)):
            yield Update(current.pool, desired.pool)
    for declared in CONFIGURED:
        mapping = declared.NOUN.state
        yield from _map_changes(getattr(current, mapping), getattr(desired, mapping))


def _map_changes(current: Mapping[str, Any], desired: Mapping[str, Any]) -> Iterator[RowChange]:
    for name, old in current.items():
        if name not in desired:
            yield Delete(old)
        elif (new := desired[name]) is not old and new != old:  # a plan keeps the objects that stay as they are
            yield Update(old, new)
    for name, new in desired.items():
        if name not in current:
            yield Insert(new)
