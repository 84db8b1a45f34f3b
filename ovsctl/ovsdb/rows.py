"""Rows, and their decoding from <table-updates2> (ovsdb-server(7) §4.1.14) straight into them.

The one rule: one compiled decoder per monitor. The JSON of a row becomes an object with a slot per
column, without dicts in between; a message that is not in ovsdb-server's own form is decoded again
by the schema's types, which accept every legal form and say precisely what is wrong.
"""

from __future__ import annotations

import copy
import gc
import keyword
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from .errors import BadValue, DecodeError, UnknownColumn
from .schema import AtomType, BaseType, ColumnSchema, ColumnType, Json, TableSchema
from .values import Map, Uuid, Value, is_uuid

_WireUuidText = Annotated[str, msgspec.Meta(min_length=36, max_length=36)]


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row as it was after some transaction: immutable, equal by value.

    `row["name"]` and `row.name` are the column's value, `row.uuid` the row's own UUID. A column
    whose name is taken by something else (`uuid`, a keyword) is reached by `row["..."]` only.
    """

    uuid: Uuid = msgspec.field(default="", name="_uuid")

    _fields: ClassVar[Mapping[str, str]] = MappingProxyType({})
    _table: ClassVar[str] = ""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __getitem__(self, column: str) -> Any:
        """The column's value; raises UnknownColumn, also where it is not monitored."""
        try:
            return getattr(self, self._fields[column])
        except KeyError:
            raise UnknownColumn(self._table, column) from None

    def as_dict(self) -> dict[str, Value]:
        """Column to value."""
        return {column: getattr(self, name) for column, name in self._fields.items()}


class _WireUuid(msgspec.Struct, array_like=True, tag="uuid", gc=False, forbid_unknown_fields=True):
    value: _WireUuidText


_ATOMS: dict[AtomType, Any] = {
    AtomType.INTEGER: int,
    AtomType.REAL: float,
    AtomType.BOOLEAN: bool,
    AtomType.STRING: str,
    AtomType.UUID: _WireUuid,
}


def _wire(tag: str, items: Any) -> Any:
    options: dict[str, Any] = {"array_like": True, "tag": tag, "gc": False, "forbid_unknown_fields": True}
    return msgspec.defstruct(f"_Wire_{tag}", [("items", items)], **options)


def _list_of(item: Any) -> Any:
    return list[item]  # types made at run time, for msgspec


def _pair_of(key: Any, value: Any) -> Any:
    return tuple[key, value]


_SETS: dict[AtomType, Any] = {kind: _wire("set", _list_of(atom)) for kind, atom in _ATOMS.items()}
_MAPS: dict[tuple[AtomType, AtomType], Any] = {
    (key, value): _wire("map", _list_of(_pair_of(_ATOMS[key], _ATOMS[value]))) for key in _ATOMS for value in _ATOMS
}

Fix: TypeAlias = Callable[[Any], Value]


def _wire_type(type_: ColumnType) -> Any:
    atom = _ATOMS[type_.key.type]
    if type_.value is not None:
        return _MAPS[type_.key.type, type_.value.type]
    return atom if type_.is_scalar else atom | _SETS[type_.key.type]


def _fix_of(type_: ColumnType) -> Fix | None:
    """The function from the wire form to the column's value; None where they are the same."""
    is_uuid = type_.key.type is AtomType.UUID
    if type_.value is not None:
        return _map_fix(type_.key, type_.value)
    if type_.max == 1:
        if is_uuid:
            return _optional_uuid
        return None if type_.is_scalar else _optional_atom
    return _uuid_set if is_uuid else _atom_set(_SETS[type_.key.type])


def _map_fix(key: BaseType, value: BaseType) -> Fix:
    uuid_key, uuid_value = key.type is AtomType.UUID, value.type is AtomType.UUID
    if not uuid_key and not uuid_value:
        return lambda wire: Map(wire.items)
    return lambda wire: Map((k.value if uuid_key else k, v.value if uuid_value else v) for k, v in wire.items)


def _atom_set(set_type: Any) -> Fix:

    def fix(wire: Any) -> Value:
        return frozenset(wire.items if wire.__class__ is set_type else (wire,))

    return fix


def _uuid_set(wire: Any) -> Value:
    return frozenset((wire.value,) if wire.__class__ is _WireUuid else [item.value for item in wire.items])


def _optional_atom(wire: Any) -> Value:
    return _one_of(wire.items) if hasattr(wire, "items") else wire  # type: ignore[no-any-return]


def _optional_uuid(wire: Any) -> Value:
    if wire.__class__ is not _WireUuid:
        wire = _one_of(wire.items)
    return None if wire is None else wire.value


def _one_of(items: list[Any]) -> Any:
    if len(items) > 1:
        raise DecodeError(f"{len(items)} elements in a column of at most one")
    return items[0] if items else None


@contextmanager
def no_collection() -> Iterator[None]:
    """Without the cycle collector, which finds nothing in rows but would look at all, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class RowCodec:
    """Makes rows of one table with the columns that a monitor asks for."""

    def __init__(self, table: TableSchema, columns: Sequence[str]) -> None:
        self.table = table
        self.columns: dict[str, ColumnSchema] = {name: table.column(name) for name in columns}
        self._names = {name: _field_name(name) for name in columns}
        self._defaults = {name: _default_of(column.type) for name, column in self.columns.items()}
        self.row_type: type[Row] = self._define("Row", Row, self._defaults)
        self._diff_type: Any = self._define("Diff", msgspec.Struct, dict.fromkeys(columns, UNSET))
        optional = self.row_type | UnsetType
        self.update_type: Any = msgspec.defstruct(
            f"{table.name}Update",
            [
                ("initial", optional, UNSET),
                ("insert", optional, UNSET),
                ("modify", self._diff_type | UnsetType, UNSET),
                ("delete", None | UnsetType, UNSET),
            ],
            gc=False,
        )
        self._put_uuid = Row.__dict__["uuid"].__set__
        self._puts = {name: self.row_type.__dict__[field].__set__ for name, field in self._names.items()}
        self._fixes = {name: fix for name, c in self.columns.items() if (fix := _fix_of(c.type)) is not None}

    def _define(self, suffix: str, base: Any, defaults: Mapping[str, Any]) -> Any:
        fields: list[tuple[str, Any, Any]] = []
        for name, column in self.columns.items():
            wire = _wire_type(column.type)
            first = defaults[name]
            type_ = wire if first is not UNSET else wire | UnsetType
            fields.append((self._names[name], type_, msgspec.field(default=first, name=name)))
        namespace = {"_fields": MappingProxyType(self._names), "_table": self.table.name}
        frozen = base is Row
        return msgspec.defstruct(
            f"{self.table.name}{suffix}", fields, bases=(base,), namespace=namespace, gc=False, frozen=frozen
        )

    def fresh(self, updates: Mapping[Uuid, Any]) -> dict[Uuid, Row]:
        """The whole rows (initial, insert) among row updates; raises DecodeError."""
        rows: dict[Uuid, Row] = {}
        for uuid, update in updates.items():
            if update.initial is not UNSET:
                rows[uuid] = update.initial
            elif update.insert is not UNSET:
                rows[uuid] = update.insert
            elif update.modify is UNSET and update.delete is UNSET:
                raise DecodeError(f"{self.table.name} row {uuid}: expected a row update")
        self._finish(rows)
        return rows

    def _finish(self, rows: Mapping[Uuid, Row]) -> None:
        """Put what the JSON of fresh rows does not have in place: their UUID and the values' own form."""
        put_uuid = self._put_uuid
        for uuid, row in rows.items():
            put_uuid(row, uuid)
        for name, fix in self._fixes.items():
            get, put = attrgetter(self._names[name]), self._puts[name]
            default = self._defaults[name]
            for row in rows.values():
                value = get(row)
                if value is not default:
                    put(row, fix(value))

    def apply(self, old: Row, diff: Any) -> Row:
        """The row after a modify (ovsdb-server(7) §4.1.14): sets and maps come as differences."""
        new = copy.copy(old)
        for name, field in self._names.items():
            wire = getattr(diff, field)
            if wire is UNSET:
                continue
            fix, type_ = self._fixes.get(name), self.columns[name].type
            value = wire if fix is None else fix(wire)
            if type_.max != 1:
                value = _patched(getattr(old, field), value)
            self._puts[name](new, value)
        return new

    def normalise(self, updates: Json) -> Json:
        """The JSON of a <table-update2> in ovsdb-server's own form; raises DecodeError.

        Every value goes through the schema's types, so that any legal form is accepted.
        """
        if not isinstance(updates, dict):
            raise DecodeError(f"{self.table.name}: expected an object of rows")
        return {uuid: self._normalise_row(uuid, update) for uuid, update in updates.items()}

    def _normalise_row(self, uuid: Uuid, update: Json) -> Json:
        match update:
            case {"initial": dict(row)} | {"insert": dict(row)}:
                return {"insert": self._normalise_values(uuid, row)}
            case {"modify": dict(row)}:
                return {"modify": self._normalise_values(uuid, row)}
            case {"delete": None} if is_uuid(uuid):
                return {"delete": None}
        raise DecodeError(f"{self.table.name} row {uuid}: expected a row update")

    def _normalise_values(self, uuid: Uuid, row: dict[str, Json]) -> dict[str, Json]:
        if not is_uuid(uuid):
            raise DecodeError(f"{self.table.name}: expected a UUID, got {uuid[:40]!r}")
        try:
            known = {name: row[name] for name in self.columns if name in row}
            values = self.table.decode_row(known)
            return {name: self.table.encode(name, value, partial=True) for name, value in values.items()}
        except (DecodeError, BadValue) as error:
            raise DecodeError(f"row {uuid}: {error}") from None


def _default_of(type_: ColumnType) -> Value:
    default = type_.default
    return _EMPTY_MAP if type_.is_map and not default else default


_EMPTY_MAP: Map[Any, Any] = Map()


def _patched(old: Any, diff: Any) -> Any:
    """A set or map after a difference, which is its own inverse for sets."""
    if isinstance(old, frozenset):
        return old ^ diff
    merged = dict(old)
    for key, value in diff.items():
        if key in merged and merged[key] == value:
            del merged[key]
        else:
            merged[key] = value
    return Map(merged)


def _field_name(column: str) -> str:
    taken = keyword.iskeyword(column) or hasattr(Row, column) or column.startswith("_")
    return f"column_{column}_" if taken else column
