"""A schema with a column of every kind, and strategies for its values."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from ovsctl.ovsdb import ZERO_UUID, ColumnSchema, ColumnType, Schema
from ovsctl.ovsdb.schema import INT_MAX, INT_MIN, AtomType, BaseType


def _many(key: object, value: object = None, least: int = 0, most: object = "unlimited") -> dict[str, Any]:
    type_: dict[str, Any] = {"key": key, "min": least, "max": most}
    return {"type": type_ if value is None else {**type_, "value": value}}


_WEAK = {"type": "uuid", "refTable": "Other", "refType": "weak"}
_COLUMNS: dict[str, Any] = {
    "i": {"type": "integer"},
    "r": {"type": "real"},
    "b": {"type": "boolean"},
    "s": {"type": "string"},
    "u": {"type": "uuid"},
    "enum": {"type": {"key": {"type": "string", "enum": ["set", ["red", "green", "blue"]]}}},
    "range": {"type": {"key": {"type": "integer", "minInteger": -5, "maxInteger": 5}}},
    "short": {"type": {"key": {"type": "string", "minLength": 1, "maxLength": 4}}},
    "uuid": _many("integer", None, 0, 1),  # a name that Row uses itself
    "class": _many("string", None, 0, 1),  # a keyword of Python
    "opt_r": _many("real", None, 0, 1),
    "opt_b": _many("boolean", None, 0, 1),
    "opt_u": _many("uuid", None, 0, 1),
    "set_i": _many("integer"),
    "set_r": _many("real"),
    "set_b": _many("boolean"),
    "set_s": _many("string"),
    "set_u": _many("uuid"),
    "set_3": _many("string", None, 0, 3),
    "some": _many("string", None, 1),
    "map_ss": _many("string", "string"),
    "map_ir": _many("integer", "real"),
    "map_us": _many("uuid", "string"),
    "map_su": _many("string", "uuid"),
    "map_1": _many("string", "string", 0, 1),
    "weak": _many(_WEAK),
}
# Bounds that make a new row's defaults invalid would refuse every insert that leaves them out.
SCHEMA_JSON: dict[str, Any] = {
    "name": "Kinds",
    "version": "2.10.3",
    "cksum": "1 2",
    "tables": {
        "Kind": {"columns": _COLUMNS, "isRoot": True},
        "Other": {
            "columns": {"name": {"type": "string"}, "strong": _many({"type": "uuid", "refTable": "Kind"})},
            "isRoot": True,
            "indexes": [["name"]],
        },
    },
}
SCHEMA = Schema.parse(json.dumps(SCHEMA_JSON))
REQUIRED = {"enum": "red", "short": "x"}  # whose default is not in their bounds

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)
_REALS = (
    st.floats(-1e15, 1e15, allow_subnormal=False)
    .map(lambda x: float(f"{x:.12g}") + 0.0)
    .filter(lambda x: x == 0 or abs(x) > 1e-300)
)
uuids = st.uuids().map(str)


def atoms(base: BaseType) -> st.SearchStrategy[Any]:
    """Values that the base type allows."""
    if base.enum is not None:
        return st.sampled_from(sorted(base.enum, key=repr))
    if base.type is AtomType.STRING and base.max_length is not None:
        return st.text("abcdé", min_size=base.min_length, max_size=base.max_length)
    least = INT_MIN + 1 if base.minimum is None else int(base.minimum)
    most = INT_MAX if base.maximum is None else int(base.maximum)
    return {
        AtomType.INTEGER: st.integers(least, most) | st.integers(max(least, -3), min(most, 3)),
        AtomType.REAL: _REALS,
        AtomType.BOOLEAN: st.booleans(),
        AtomType.STRING: texts,
        AtomType.UUID: uuids | st.just(ZERO_UUID),
    }[base.type]


def values(type_: ColumnType) -> st.SearchStrategy[Any]:
    """Python values that the column type allows."""
    most = 4 if type_.max is None else type_.max
    if type_.value is not None:
        return st.dictionaries(atoms(type_.key), atoms(type_.value), min_size=type_.min, max_size=most)
    if type_.is_scalar:
        return atoms(type_.key)
    if type_.is_optional:
        return st.none() | atoms(type_.key)
    return st.frozensets(atoms(type_.key), min_size=type_.min, max_size=most)


def columns(table: str = "Kind") -> st.SearchStrategy[ColumnSchema]:
    return st.sampled_from(list(SCHEMA.tables[table].columns.values()))


def rows() -> st.SearchStrategy[dict[str, Any]]:
    """Rows of Kind with any of its columns, references left out."""
    free = {name: values(c.type) for name, c in SCHEMA.tables["Kind"].columns.items() if name != "weak"}
    required = {name: free.pop(name) for name in REQUIRED}
    return st.fixed_dictionaries(required, optional=free)
