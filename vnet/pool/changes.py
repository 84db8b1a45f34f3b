"""What a write does to a pool, as values: rows to insert, update and delete."""

from __future__ import annotations

from dataclasses import dataclass

from vnet.pool.rows import Value


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
