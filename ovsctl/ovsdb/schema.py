"""Database schemas, and the two directions between Python values and JSON (RFC 7047 §3.2, §5.1).

The one rule: what a type encodes, it decodes to an equal value; anything else raises `BadValue`
(our value) or `DecodeError` (the peer's JSON).
"""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from .errors import BadValue, DecodeError, UnknownColumn, UnknownTable
from .jsontext import decode_json
from .values import ZERO_UUID, Atom, Map, NamedUuid, Value, is_id, is_uuid

Json: TypeAlias = object

INT_MIN, INT_MAX = -(2**63), 2**63 - 1


class AtomType(enum.Enum):
    """<atomic-type>."""

    INTEGER = "integer"
    REAL = "real"
    BOOLEAN = "boolean"
    STRING = "string"
    UUID = "uuid"


class RefType(enum.Enum):
    """Whether a reference keeps its row alive (strong) or goes with it (weak)."""

    STRONG = "strong"
    WEAK = "weak"


_DEFAULTS: dict[AtomType, Atom] = {
    AtomType.INTEGER: 0,
    AtomType.REAL: 0.0,
    AtomType.BOOLEAN: False,
    AtomType.STRING: "",
    AtomType.UUID: ZERO_UUID,
}


@dataclass(frozen=True, slots=True)
class BaseType:
    """<base-type>: an atomic type with its constraints. Bounds are inclusive, lengths in characters."""

    type: AtomType
    enum: frozenset[Atom] | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    min_length: int = 0
    max_length: int | None = None
    ref_table: str | None = None
    ref_type: RefType = RefType.STRONG

    @property
    def default(self) -> Atom:
        return _DEFAULTS[self.type]

    def encode(self, value: object) -> Json:
        """`value` as an <atom>; raises BadValue if its type or a constraint does not fit."""
        if self.type is AtomType.UUID:
            return _encode_uuid(value)
        if not _fits(self.type, value):
            raise BadValue(_NAMES[self.type], value)
        self._check(value)  # type: ignore[arg-type]  # _fits has told
        return value

    def _check(self, value: Atom) -> None:
        if self.enum is not None and value not in self.enum:
            raise BadValue(f"one of {', '.join(sorted(map(str, self.enum)))}", value)
        if isinstance(value, str):
            if not self.min_length <= len(value) <= (INT_MAX if self.max_length is None else self.max_length):
                raise BadValue(f"{self.min_length} to {self.max_length or 'any'} characters", value)
        elif (self.minimum is not None and value < self.minimum) or (self.maximum is not None and value > self.maximum):
            raise BadValue(f"{self.minimum} to {self.maximum}", value)

    def decode(self, json: Json) -> Atom:
        """The Python value of an <atom>; raises DecodeError if it is not one of this type."""
        if self.type is AtomType.UUID:
            return _decode_uuid(json)
        if not _fits(self.type, json):
            raise DecodeError(f"expected {_NAMES[self.type]}, got {_shown(json)}")
        if self.type is AtomType.REAL:
            return float(json)  # type: ignore[arg-type]  # _fits has told
        return json  # type: ignore[return-value]


_NAMES = {
    AtomType.INTEGER: "an integer of 64 bits",
    AtomType.REAL: "a finite, normal real number",
    AtomType.BOOLEAN: "a boolean",
    AtomType.STRING: "a string without a null character",
    AtomType.UUID: "a UUID",
}


def _fits(type_: AtomType, value: object) -> bool:
    """Whether a Python or JSON value is an atom of the type, UUIDs apart."""
    if type_ is AtomType.STRING:
        return isinstance(value, str) and "\0" not in value
    if type_ is AtomType.BOOLEAN:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if type_ is AtomType.INTEGER:
        return isinstance(value, int) and INT_MIN <= value <= INT_MAX
    return isinstance(value, (int, float)) and _is_real(value)


def _is_real(value: int | float) -> bool:
    """Whether ovsdb-server can read it: it drops a client that writes a subnormal number."""
    try:
        return math.isfinite(value) and (value == 0 or abs(value) >= sys.float_info.min)
    except OverflowError:  # an int too large for a real
        return False


def _encode_uuid(value: object) -> Json:
    if isinstance(value, NamedUuid):
        return ["named-uuid", value.name]
    if isinstance(value, str) and is_uuid(value):
        return ["uuid", value]
    raise BadValue("a UUID or a NamedUuid", value)


def _decode_uuid(json: Json) -> str:
    match json:
        case ["uuid", str(text)] if is_uuid(text):
            return text
    raise DecodeError(f"expected a UUID, got {_shown(json)}")


@dataclass(frozen=True, slots=True)
class ColumnType:
    """<type>: how many keys, or pairs of key and value, a column holds. `max` None is unlimited."""

    key: BaseType
    value: BaseType | None = None
    min: int = 1
    max: int | None = 1

    @property
    def is_map(self) -> bool:
        return self.value is not None

    @property
    def is_scalar(self) -> bool:
        """Exactly one atom."""
        return self.value is None and self.min == 1 and self.max == 1

    @property
    def is_optional(self) -> bool:
        """One atom or None."""
        return self.value is None and self.min == 0 and self.max == 1

    @property
    def default(self) -> Value:
        """The value of a column that an insert leaves out (RFC 7047 §5.2.1)."""
        if self.is_scalar:
            return self.key.default
        if self.is_optional:
            return None
        if self.value is not None:
            return Map({self.key.default: self.value.default} if self.min else {})
        return frozenset([self.key.default] if self.min else [])

    def encode(self, value: object, *, partial: bool = False) -> Json:
        """`value` as a <value>.

        A set may be any collection of atoms, a single atom or None (empty). `partial` leaves the
        counts unchecked, as the arguments of includes, excludes, insert and delete need it.
        Raises BadValue.
        """
        if self.value is not None:
            return self._encode_map(self.value, value, partial)
        if self.min == 1 and self.max == 1 and not partial:
            return self.key.encode(value)
        atoms = [self.key.encode(atom) for atom in _elements(value)]
        self._check_count(len(atoms), value, partial)
        return atoms[0] if len(atoms) == 1 else ["set", atoms]

    def _encode_map(self, value_type: BaseType, value: object, partial: bool) -> Json:
        if not isinstance(value, Mapping):
            raise BadValue("a mapping", value)
        pairs = [[self.key.encode(key), value_type.encode(item)] for key, item in value.items()]
        self._check_count(len(pairs), value, partial)
        return ["map", pairs]

    def _check_count(self, count: int, value: object, partial: bool) -> None:
        if not partial and not self.min <= count <= (INT_MAX if self.max is None else self.max):
            limit = "any number of" if self.max is None else f"at most {self.max}"
            raise BadValue(f"at least {self.min} and {limit} elements", value)

    def decode(self, json: Json) -> Value:
        """The Python value of a <value>; raises DecodeError if it is not one of this type."""
        if self.value is not None:
            return self._decode_map(self.value, json)
        match json:
            case ["set", list(items)]:
                atoms = [self.key.decode(item) for item in items]
            case _:
                atoms = [self.key.decode(json)]
        if self.max != 1:
            return frozenset(atoms)
        if len(atoms) > 1 or len(atoms) < self.min:
            raise DecodeError(f"expected {self.min} to {self.max} elements, got {len(atoms)}")
        return atoms[0] if atoms else None

    def _decode_map(self, value_type: BaseType, json: Json) -> Map[Atom, Atom]:
        match json:
            case ["map", list(items)]:
                return Map(self._decode_pair(value_type, item) for item in items)
        raise DecodeError(f"expected a map, got {_shown(json)}")

    def _decode_pair(self, value_type: BaseType, json: Json) -> tuple[Atom, Atom]:
        match json:
            case [key, value]:
                return self.key.decode(key), value_type.decode(value)
        raise DecodeError(f"expected a pair, got {_shown(json)}")


def _elements(value: object) -> Iterable[object]:
    if value is None:
        return ()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)  # the same transaction is the same JSON
    return value if isinstance(value, (list, tuple)) else (value,)


@dataclass(frozen=True, slots=True)
class ColumnSchema:
    """<column-schema>."""

    name: str
    type: ColumnType
    ephemeral: bool = False
    mutable: bool = True


_UUID_TYPE = ColumnType(BaseType(AtomType.UUID))
IMPLICIT = {name: ColumnSchema(name, _UUID_TYPE, mutable=False) for name in ("_uuid", "_version")}


@dataclass(frozen=True, slots=True)
class TableSchema:
    """<table-schema>. `columns` has those of the schema; `column()` knows _uuid and _version too."""

    name: str
    columns: Mapping[str, ColumnSchema]
    max_rows: int | None = None
    is_root: bool = False
    indexes: tuple[tuple[str, ...], ...] = ()

    def column(self, name: str) -> ColumnSchema:
        """The column; raises UnknownColumn."""
        found = self.columns.get(name) or IMPLICIT.get(name)
        if found is None:
            raise UnknownColumn(self.name, name)
        return found

    def encode(self, column: str, value: object, *, partial: bool = False) -> Json:
        """A column's value as JSON; raises UnknownColumn, BadValue with table and column."""
        try:
            return (self.columns.get(column) or self.column(column)).type.encode(value, partial=partial)
        except BadValue as error:
            raise error.at(self.name, column) from None

    def encode_row(self, row: Mapping[str, object]) -> dict[str, Json]:
        """<row>; raises UnknownColumn, BadValue."""
        return {name: self.encode(name, value) for name, value in row.items()}

    def decode_row(self, row: Mapping[str, Json]) -> dict[str, Value]:
        """The Python values of a <row>; raises DecodeError."""
        return {name: self.decode(name, json) for name, json in row.items()}

    def decode(self, column: str, json: Json) -> Value:
        """A column's value; raises DecodeError with table and column."""
        try:
            return self.column(column).type.decode(json)
        except (DecodeError, UnknownColumn) as error:
            raise DecodeError(f"{self.name}.{column}: {error}") from None


@dataclass(frozen=True, slots=True)
class Schema:
    """<database-schema>. `version` is its own version, X.Y.Z."""

    name: str
    version: str
    tables: Mapping[str, TableSchema]
    cksum: str = ""
    json: bytes = field(default=b"", repr=False, compare=False)

    def table(self, name: str) -> TableSchema:
        """The table; raises UnknownTable."""
        try:
            return self.tables[name]
        except KeyError:
            raise UnknownTable(self.name, name) from None

    @property
    def version_tuple(self) -> tuple[int, ...]:
        """The version to compare with `<` and `>=`."""
        return tuple(int(part) for part in self.version.split("."))

    @classmethod
    def parse(cls, text: bytes | str | msgspec.Raw) -> Schema:
        """A schema from its JSON; raises DecodeError."""
        raw = text.encode() if isinstance(text, str) else bytes(text)
        return _schema(decode_json(_SCHEMA, raw, "schema"), raw)


# --- the schema's JSON ----------------------------------------------------------------------------


class _BaseJson(msgspec.Struct):
    type: AtomType
    enum: Json = None
    minInteger: int | None = None
    maxInteger: int | None = None
    minReal: float | None = None
    maxReal: float | None = None
    minLength: int | None = None
    maxLength: int | None = None
    refTable: str | None = None
    refType: RefType = RefType.STRONG


class _TypeJson(msgspec.Struct):
    key: str | _BaseJson
    value: str | _BaseJson | None = None
    min: int = 1
    max: int | str = 1


class _ColumnJson(msgspec.Struct):
    type: str | _TypeJson
    ephemeral: bool = False
    mutable: bool = True


class _TableJson(msgspec.Struct):
    columns: dict[str, _ColumnJson]
    maxRows: int | None = None
    isRoot: bool = False
    indexes: list[list[str]] = []


class _SchemaJson(msgspec.Struct):
    name: str
    version: str
    tables: dict[str, _TableJson]
    cksum: str = ""


_SCHEMA = msgspec.json.Decoder(_SchemaJson)


def _schema(json: _SchemaJson, raw: bytes) -> Schema:
    parts = json.version.split(".")
    _require(is_id(json.name), f"database name {json.name!r}")
    _require(len(parts) == 3 and all(p.isascii() and p.isdigit() for p in parts), f"version {json.version!r}")
    # RFC 7047 §3.2: if no table says isRoot, all are, for compatibility with older schemas.
    all_root = not any(table.isRoot for table in json.tables.values())
    tables = {name: _table(name, table, all_root) for name, table in json.tables.items()}
    _check_references(tables.values(), tables)
    return Schema(json.name, json.version, MappingProxyType(tables), json.cksum, raw)


def _check_references(all_tables: Iterable[TableSchema], known: Mapping[str, TableSchema]) -> None:
    for table in all_tables:
        for column in table.columns.values():
            for base in (column.type.key, column.type.value):
                target = base.ref_table if base is not None else None
                path = f"{table.name}.{column.name}"
                _require(target is None or target in known, f"{path} refers to table {target!r}")


def _table(name: str, json: _TableJson, all_root: bool) -> TableSchema:
    _require(is_id(name), f"table name {name!r}")
    columns = {column: _column(name, column, item) for column, item in json.columns.items()}
    indexes = tuple(tuple(index) for index in json.indexes)
    for index in indexes:
        _require(bool(index) and all(column in columns for column in index), f"{name} index {index}")
    _require(json.maxRows is None or json.maxRows > 0, f"{name} maxRows {json.maxRows}")
    return TableSchema(name, MappingProxyType(columns), json.maxRows, json.isRoot or all_root, indexes)


def _column(table: str, name: str, json: _ColumnJson) -> ColumnSchema:
    path = f"{table}.{name}"
    _require(is_id(name) and not name.startswith("_"), f"column name {path!r}")
    return ColumnSchema(name, _type(path, json.type), json.ephemeral, json.mutable)


def _type(path: str, json: str | _TypeJson) -> ColumnType:
    if isinstance(json, str):
        return ColumnType(_base(path, json))
    maximum = None if json.max == "unlimited" else json.max
    _require(json.min in (0, 1), f"{path} min {json.min}")
    _require(maximum is None or (isinstance(maximum, int) and maximum >= max(json.min, 1)), f"{path} max")
    value = None if json.value is None else _base(path, json.value)
    return ColumnType(_base(path, json.key), value, json.min, maximum)  # type: ignore[arg-type]


def _base(path: str, json: str | _BaseJson) -> BaseType:
    if isinstance(json, str):
        try:
            return BaseType(AtomType(json))
        except ValueError:
            raise DecodeError(f"schema: {path}: no atomic type {json!r}") from None
    real = json.type is AtomType.REAL
    base = BaseType(
        json.type,
        _enum(path, json),
        json.minReal if real else json.minInteger,
        json.maxReal if real else json.maxInteger,
        json.minLength or 0,
        json.maxLength,
        json.refTable,
        json.refType,
    )
    for least, most in ((base.minimum, base.maximum), (base.min_length, base.max_length)):
        _require(least is None or most is None or least <= most, f"{path} range {least} to {most}")
    return base


def _enum(path: str, json: _BaseJson) -> frozenset[Atom] | None:
    if json.enum is None:
        return None
    try:
        atoms = ColumnType(BaseType(json.type), None, 1, None).decode(json.enum)
    except DecodeError as error:
        raise DecodeError(f"schema: {path} enum: {error}") from None
    _require(bool(atoms), f"{path} empty enum")
    return atoms  # type: ignore[return-value]  # max None decodes to a frozenset


def _require(condition: bool, subject: str) -> None:
    if not condition:
        raise DecodeError(f"schema: invalid {subject}")


def _shown(json: Json) -> str:
    text = repr(json)
    return text if len(text) <= 80 else text[:77] + "..."
