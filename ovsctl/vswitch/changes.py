"""The steps of a plan as values. Rule: a change names every row it touches, and says itself what it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from ovsctl.vswitch.rows import RowId


class Ref(msgspec.Struct, frozen=True):
    """A row that is there, by its uuid; or with `uuid` None one that the same transaction inserts."""

    id: RowId
    uuid: str | None

    def __str__(self) -> str:
        return "/".join(map(str, self.id.key))


Resolved: TypeAlias = str | int | float | bool | Ref | frozenset[Any] | Mapping[str, str] | Mapping[int, Ref] | None
"""A column's value; a reference is a `Ref`."""


class AddRow(msgspec.Struct, frozen=True):
    """Insert a row. `parent` is the row in whose set `column` it is put; None where other rows' columns refer to it."""

    row: Ref
    columns: Mapping[str, Resolved]
    parent: Ref | None = None
    column: str = ""

    def __str__(self) -> str:
        into = f" to {self.parent.id}" if self.parent and self.parent.id.key else ""
        columns = ", ".join(f"{name}={_text(value)}" for name, value in self.columns.items() if name != "name")
        return f"add {self.row.id}{into}" + (f": {columns}" if columns else "")


class ColumnChange(msgspec.Struct, frozen=True):
    """One column's value, before and after."""

    column: str
    old: Resolved
    new: Resolved

    def __str__(self) -> str:
        return f"{self.column} {_text(self.old)} -> {_text(self.new)}"


class UpdateRow(msgspec.Struct, frozen=True):
    """Change columns of a row of ours, and of its external_ids the keys that are ours."""

    row: Ref
    columns: tuple[ColumnChange, ...] = ()
    set_ids: tuple[tuple[str, str], ...] = ()
    delete_ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        ids = [
            *(f"external_ids:{key}={value}" for key, value in self.set_ids),
            *(f"no external_ids:{key}" for key in self.delete_ids),
        ]
        return f"update {self.row.id}: {', '.join([*map(str, self.columns), *ids])}"


class MoveRow(msgspec.Struct, frozen=True):
    """Take a row out of one parent's set and put it into another's, so that it stays the same row."""

    row: Ref
    old_parent: Ref
    parent: Ref
    column: str

    def __str__(self) -> str:
        return f"move {self.row.id} from {self.old_parent.id} to {self.parent.id}"


class RemoveRow(msgspec.Struct, frozen=True):
    """Take a row out of its parent's set, where it hangs in one, and delete it with all below it."""

    row: Ref
    parent: Ref | None = None
    column: str = ""

    def __str__(self) -> str:
        return f"remove {self.row.id}" + (f" from {self.parent.id}" if self.parent and self.parent.id.key else "")


Change: TypeAlias = AddRow | UpdateRow | MoveRow | RemoveRow


class RowConflict(msgspec.Struct, frozen=True):
    """Something that we need, or should remove, is not ours. It was left out of the plan, with all that needs it."""

    row: RowId
    reason: str

    def __str__(self) -> str:
        return f"{self.row}: {self.reason}"


class Unresolved(msgspec.Struct, frozen=True):
    """A port that a mirror names is not there (yet); the mirror is planned without it."""

    row: RowId
    column: str
    port: RowId

    def __str__(self) -> str:
        return f"{self.row}: {self.column}: no {self.port}"


class RowPlan(msgspec.Struct, frozen=True):
    """The changes to make. Apply `additions` first, and `removals` when nothing depends on the old any more.

    Either is one transaction; both come from the same snapshot, so apply the removals only after the additions.
    """

    additions: tuple[Change, ...] = ()
    removals: tuple[Change, ...] = ()
    conflicts: tuple[RowConflict, ...] = ()
    unresolved: tuple[Unresolved, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """Additions and removals, for one transaction with both."""
        return self.additions + self.removals

    def __bool__(self) -> bool:
        return bool(self.additions or self.removals)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)


def _text(value: Resolved) -> str:
    match value:
        case None:
            return "none"
        case frozenset():
            return "{" + ", ".join(sorted(map(str, value))) + "}"
        case Mapping():
            return "{" + ", ".join(sorted(f"{key}={item}" for key, item in value.items())) + "}"
        case _:
            return str(value) if value != "" else '""'
