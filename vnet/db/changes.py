"""The changes that a write makes to a pool, as values: objects to insert, update and delete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vnet.grammar.declare import Declared, SetBy, attrs_of, configured
from vnet.objects import Pool, PoolState
from vnet.objects.state import CONFIGURED

# Fields of the pool that writes set by themselves, never part of a change: its id once, its counters each time.
OWN_FIELDS = tuple(name for name, found in attrs_of(Pool).items() if found.set_by is SetBy.RUNTIME)


@dataclass(frozen=True, slots=True)
class InsertObject:
    new: Declared
    old: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class UpdateObject:
    """Only the columns that differ are written, and only if they still are as in `old`."""

    old: Declared
    new: Declared


@dataclass(frozen=True, slots=True)
class DeleteObject:
    old: Declared
    new: ClassVar[None] = None


RowChange = InsertObject | UpdateObject | DeleteObject  # each has old and new, None where there is no such object


def state_changes(current: PoolState, desired: PoolState) -> tuple[RowChange, ...]:
    """The configuration rows to change so that `current` becomes `desired`; runtime rows are left to agents."""
    return tuple(_state_changes(current, desired))


def _state_changes(current: PoolState, desired: PoolState) -> Iterator[RowChange]:
    if desired.pool is not None:
        if current.pool is None:
            yield InsertObject(desired.pool)
        elif any(getattr(current.pool, name) != getattr(desired.pool, name) for name in configured(Pool)):
            yield UpdateObject(current.pool, desired.pool)
    for declared in CONFIGURED:
        mapping = declared.NOUN.state
        renames = desired.renames.get(mapping, {})
        yield from _map_changes(getattr(current, mapping), getattr(desired, mapping), renames)


def _map_changes(
    current: Mapping[str, Any], desired: Mapping[str, Any], renames: Mapping[str, str]
) -> Iterator[RowChange]:
    names = {old: new for new, old in renames.items()}
    for name, old in current.items():
        if (now := names.get(name, name)) not in desired:
            yield DeleteObject(old)
        elif (new := desired[now]) is not old and new != old:  # a plan keeps the objects that stay as they are
            yield UpdateObject(old, new)
    for name, new in desired.items():
        if name not in current and name not in renames:
            yield InsertObject(new)
