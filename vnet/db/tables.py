"""The tables of the pool database, derived from the declarations of its objects.

One rule: a column is a declared field by the same name. Items of a field that has no column are rows of a table of their own,
a part: its rows name their owner in a column more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from vnet.grammar.declare import Attr, Declared, Derived, Named, attrs_of, cache
from vnet.grammar.value_types import STRING, Boolean, Choice, Column
from vnet.objects import AgentStatus, Binding, Event, Pool, TunnelKey
from vnet.objects.follower import ToolstackFollower
from vnet.objects.retired import RetiredNumber
from vnet.objects.state import CONFIGURED
from vnet.objects.token import Token
from vnet.objects.trial import Trial

RUNTIME: tuple[type[Declared], ...] = (
    Binding,
    AgentStatus,
    TunnelKey,
    Event,
    RetiredNumber,
    Token,
    Trial,
    ToolstackFollower,
)  # agents and controllers write them
STORED: tuple[type[Declared], ...] = (Pool, *CONFIGURED, *RUNTIME)  # everything that a pool's state is made of
REMEMBERED = 512  # contents of a column that are read only once while they are remembered


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A column. type: its <type> (RFC 7047 §3.2). refers: the word of the noun that it names objects of, else "".

    write: the content for an object. read: the value of `field` for a content; it raises ValueError for one that no object has.
    A derived column has no field.
    """

    column: str
    type: Any
    ephemeral: bool
    refers: str
    write: Callable[[Any], Any]
    field: str = ""
    read: Callable[[Any], Any] = lambda content: content

    @property
    def many(self) -> bool:
        return isinstance(self.type, dict) and self.type.get("max") == "unlimited"

    @property
    def optional(self) -> bool:
        """Whether it holds one value or none."""
        return isinstance(self.type, dict) and self.type.get("min") == 0 and self.type.get("max") == 1


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """An object's table. key: the columns that name a row, and key_fields: the fields in them that are the object's own. owner: the column that names the owner of a part, else "".

    parts: the tables of the parts by the field that has them.
    """

    name: str
    declared: type[Declared]
    key: tuple[str, ...]
    key_fields: tuple[str, ...]
    owner: str
    cells: tuple[Cell, ...]
    parts: Mapping[str, ObjectTable]

    def key_of(self, value: Declared) -> tuple[Any, ...]:
        """The values of an object's key columns."""
        return tuple([getattr(value, field) for field in self.key_fields])


@cache
def table_of(declared: type[Declared]) -> ObjectTable:
    """The table of a declared object."""
    noun = declared.NOUN
    attrs = attrs_of(declared)
    cells = [_cell(found, key=found.name == noun.key) for found in attrs.values() if found.stored]
    parts = {
        name: table_of(found.type.item.declared)
        for name, found in attrs.items()
        if not found.stored and isinstance(found.type, Named)
    }
    owner = "" if noun.state else noun.parent
    key = ((owner,) if owner else ()) + noun.keys
    return ObjectTable(noun.table, declared, key, noun.keys, owner, (*cells, *map(_derived, declared.DERIVED)), parts)


def _cell(found: Attr, *, key: bool) -> Cell:
    column = _column(found)
    type_ = column.type(optional=found.optional or not found.required if column.many else found.optional)
    name, encode = found.name, column.encode
    # A value that a column has in one form only may be None.
    absent = found.optional and not column.many
    empty = (dict if column.value is not None else frozenset) if column.many and not column.least else None

    def encoded(value: Any) -> Any:
        content = getattr(value, name)
        if not content and empty is not None:  # as most are
            return empty()
        return content if absent and content is None else encode(content)

    write: Callable[[Any], Any] = encoded if column.many or encode is not STRING.encode else attrgetter(name)
    read = _reader(found, column)
    # Many rows refer to few objects, and have few words.
    if isinstance(found.type, Choice | Boolean) or (found.type.refers and not key):
        read = lru_cache(REMEMBERED)(read)
    return Cell(name.rstrip("_"), type_, found.ephemeral, found.type.refers, write, name, read)


def _reader(found: Attr, column: Column) -> Callable[[Any], Any]:
    decode, check, optional = column.decode, found.check, found.optional
    absent = optional and not column.many
    if column.many and not column.least and decode is not dict:
        none = decode(frozenset() if column.value is None else {})

        def read_many(content: Any) -> Any:
            if not content:  # as most are
                return none
            value = decode(content)
            check(value)
            return value

        return read_many

    def read(content: Any) -> Any:
        value = None if absent and content is None else decode(content)
        if not (optional and value is None):
            check(value)
        return value

    def read_as_is(content: Any) -> Any:
        check(content)
        return content

    return read_as_is if decode is STRING.decode and not optional else read


def _column(found: Attr) -> Column:
    """The column of a field. Of several spellings it takes the numbers of all."""
    columns = [spelling.type.column for spelling in found.spellings]
    if len(columns) == 1:
        return columns[0]
    low, high = (min(c.key["minInteger"] for c in columns), max(c.key["maxInteger"] for c in columns))
    return Column({"type": "integer", "minInteger": low, "maxInteger": high})


def _derived(derived: Derived) -> Cell:
    column, value = derived.type.column, derived.value
    return Cell(
        derived.name, column.type(optional=True), False, derived.type.refers, lambda made: column.encode(value(made))
    )


TABLES: Mapping[str, ObjectTable] = {
    table.name: table for declared in STORED for table in (table_of(declared), *table_of(declared).parts.values())
}
