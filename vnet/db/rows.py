"""Pool database rows to objects and back, as their tables have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ovsctl.ovsdb import Row, Where
from vnet.db.tables import TABLES, ObjectTable, table_of
from vnet.grammar.declare import Declared, InvalidValue, cache
from vnet.grammar.nodes import clip
from vnet.grammar.value_types import ValueRefused

SCHEMA_NAME = "Vnet"
SCHEMA_TEXT = Path(__file__).with_name("vnet.ovsschema").read_text()

TABLE_OF: Mapping[type, str] = {table.declared: name for name, table in TABLES.items()}

D = TypeVar("D", bound=Declared)
Columns = dict[str, Any]
Key = tuple[tuple[str, str], ...]  # ((column, value), ...): the name of a row


class PoolRow(Protocol):
    """A row of ovsctl, or a dict: values are str, int, bool, frozenset, dict, None for an empty optional."""

    def __getitem__(self, column: str, /) -> Any: ...


def from_row(declared: type[D], row: PoolRow, **parts: tuple[Declared, ...]) -> D:
    """The object of a row, with its parts by the fields that have them. Raises InvalidValue for a row that no pool may have."""
    made: D = object.__new__(declared)
    cells, part_tables = _reading(declared)
    field = ""
    if isinstance(row, Row):
        row = row.as_dict()
    try:
        for column, field, put, read in cells:  # noqa: B007  # the field at fault
            put(made, read(row[column]))
    except InvalidValue:
        raise
    except ValueRefused as refused:
        raise InvalidValue(field, refused.message, refused.code) from None
    except (ValueError, TypeError):
        raise InvalidValue(field, f"a content that no {declared.NOUN.text} has: {clip(repr(row[column]))}") from None
    for field, table in part_tables:
        object.__setattr__(made, field, tuple(sorted(parts.get(field, ()), key=table.key_of)))
    for flaw in made.flaws():
        raise InvalidValue(flaw.field, flaw.message, flaw.code)
    return made


Reading = tuple[str, str, Callable[[Any, Any], None], Callable[[Any], Any]]


@cache
def _reading(declared: type[Declared]) -> tuple[tuple[Reading, ...], tuple[tuple[str, ObjectTable], ...]]:
    """Column, field, the field's setter and the reader of a content; fields and tables of parts. from_row reads many rows."""
    table = table_of(declared)
    cells = (
        (cell.column, cell.field, getattr(declared, cell.field).__set__, cell.read)
        for cell in table.cells
        if cell.field
    )
    return tuple(cells), tuple(table.parts.items())


def to_columns(value: Declared) -> Columns:
    """The columns of an object's row, as ovsctl takes them. Its parts, and a part's owner, are left out."""
    return {cell.column: cell.write(value) for cell in table_of(type(value)).cells}


def new_columns(value: Declared) -> Columns:
    """The columns of a new row, but for those that are empty, 0, false or "", as a column is that an insert leaves out (RFC 7047 §5.2.1)."""
    return {
        column: content
        for column, write, is_optional in _writing(type(value))
        if (content := write(value)) or (is_optional and content is not None)
    }


@cache
def _writing(declared: type[Declared]) -> tuple[tuple[str, Callable[[Any], Any], bool], ...]:
    """Column, writer, and whether it holds one value or none."""
    return tuple((cell.column, cell.write, cell.optional) for cell in table_of(declared).cells)


def key_of(value: Declared) -> Key:
    """The columns that name an object's row, with their contents. Empty for the one row of Pool."""
    table = table_of(type(value))
    return tuple(zip(table.key, table.key_of(value), strict=True))


def by_key(value: Declared) -> Where:
    """The row of a value, by its key. ovsdb-server looks at every row of the table for that."""
    return tuple((column, "==", part) for column, part in key_of(value))
