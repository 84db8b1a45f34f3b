"""Schemas and the codec of values: what is encoded decodes to an equal value, all else is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.ovsdb import (
    ZERO_UUID,
    AtomType,
    BadValue,
    ColumnSchema,
    DecodeError,
    Map,
    NamedUuid,
    RefType,
    Schema,
    UnknownColumn,
    UnknownTable,
)
from ovsctl.ovsdb.schema import ColumnType
from tests.ovsctl.ovsdb.schemas import REQUIRED, SCHEMA, SCHEMA_JSON, columns, values
from tests.servers import VSWITCH_SCHEMA

KIND = SCHEMA.tables["Kind"]
UUID = "11111111-2222-4333-8444-555555555555"


@given(st.data())
def test_what_is_encoded_decodes_to_an_equal_value(data: st.DataObject) -> None:
    column: ColumnSchema = data.draw(columns())
    value = data.draw(values(column.type))
    json_value = json.loads(json.dumps(column.type.encode(value)))
    decoded = column.type.decode(json_value)
    assert decoded == value
    assert type(decoded) is type(value) or isinstance(decoded, (Map, frozenset))
    assert column.type.encode(decoded) == column.type.encode(value)


@given(columns().filter(lambda column: column.name not in REQUIRED))
def test_the_default_is_a_value_of_the_type(column: ColumnSchema) -> None:
    assert column.type.decode(column.type.encode(column.type.default)) == column.type.default


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(UUID),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(st.sampled_from(["set", "map", "uuid", "named-uuid"]), inner).map(list)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(columns(), json_values)
def test_any_json_decodes_or_is_refused_by_type(column: ColumnSchema, value: Any) -> None:
    try:
        decoded = KIND.decode(column.name, value)
    except DecodeError as error:
        assert f"Kind.{column.name}" in str(error)  # noqa: PT017 - either outcome is fine, this one has a place
    else:
        hash(decoded)


@given(columns(), json_values | st.binary(max_size=3) | st.frozensets(st.integers(), max_size=3))
def test_any_python_value_encodes_or_is_refused_by_type(column: ColumnSchema, value: Any) -> None:
    try:
        encoded = KIND.encode(column.name, value)
    except BadValue as error:
        assert (error.table, error.column) == ("Kind", column.name)  # noqa: PT017
    else:
        json.dumps(encoded, allow_nan=False)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("i", True),
        ("i", 1.0),
        ("i", "1"),
        ("i", 2**63),
        ("i", -(2**63) - 1),
        ("r", float("nan")),
        ("r", float("inf")),
        ("r", 10**400),
        ("r", 2.2e-309),
        ("r", "1"),
        ("r", False),
        ("b", 1),
        ("s", b"x"),
        ("s", "a\0b"),
        ("u", "no uuid"),
        ("u", UUID.upper().replace("1", "A")),
        ("u", 5),
        ("enum", "pink"),
        ("range", 6),
        ("range", -6),
        ("short", ""),
        ("short", "abcde"),
        ("set_3", ["a", "b", "c", "d"]),
        ("some", []),
        ("some", None),
        ("map_ss", [("a", "b")]),
        ("map_ss", {"a": 1}),
        ("map_ss", {1: "a"}),
        ("map_1", {"a": "b", "c": "d"}),
        ("uuid", (1, 2)),
        ("s", None),
        ("s", ["x"]),
    ],
)
def test_values_that_do_not_fit(column: str, value: Any) -> None:
    with pytest.raises(BadValue, match=f"Kind.{column}: expected"):
        KIND.encode(column, value)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("r", 1, 1),
        ("u", NamedUuid("n"), ["named-uuid", "n"]),
        ("set_u", {NamedUuid("n")}, ["named-uuid", "n"]),
        ("set_i", 5, 5),
        ("set_i", None, ["set", []]),
        ("set_i", {3, 1, 2}, ["set", [1, 2, 3]]),
        ("set_i", [1], 1),
        ("class", None, ["set", []]),
        ("class", "x", "x"),
        ("map_us", {UUID: "a"}, ["map", [[["uuid", UUID], "a"]]]),
    ],
)
def test_forms_of_a_value(column: str, value: Any, expected: Any) -> None:
    assert KIND.encode(column, value) == expected


def test_partial_values_may_be_fewer_than_a_column_needs() -> None:
    assert KIND.encode("some", [], partial=True) == ["set", []]
    assert KIND.encode("s", "x", partial=True) == "x"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("class", ["set", ["a", "b"]]),
        ("s", ["set", []]),
        ("s", 1),
        ("u", ["uuid", "x"]),
        ("u", ["uuid"]),
        ("map_ss", ["set", []]),
        ("map_ss", ["map", [["a"]]]),
        ("map_ss", ["map", ["ab"]]),
        ("map_ss", ["map", {}]),
        ("set_i", ["set", "abc"]),
        ("nothing", 1),
    ],
)
def test_json_that_does_not_fit(column: str, value: Any) -> None:
    with pytest.raises(DecodeError, match=f"Kind.{column}"):
        KIND.decode(column, value)


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(BadValue) as bad:
        KIND.encode("i", "x" * 1000)
    with pytest.raises(DecodeError) as undecoded:
        KIND.decode("i", "x" * 1000)
    assert len(str(bad.value)) < 250
    assert len(str(undecoded.value)) < 250


def test_parsed_schema() -> None:
    assert (SCHEMA.name, SCHEMA.version, SCHEMA.version_tuple, SCHEMA.cksum) == ("Kinds", "2.10.3", (2, 10, 3), "1 2")
    weak = KIND.column("weak").type
    assert (weak.key.ref_table, weak.key.ref_type, weak.max) == ("Other", RefType.WEAK, None)
    assert SCHEMA.table("Other").column("strong").type.key.ref_type is RefType.STRONG
    assert KIND.column("enum").type.key.enum == {"red", "green", "blue"}
    assert SCHEMA.table("Other").indexes == (("name",),)
    assert KIND.column("_uuid").type.key.type is AtomType.UUID
    with pytest.raises(UnknownColumn, match="no column 'zz'"):
        KIND.column("zz")
    with pytest.raises(UnknownTable, match="no table 'Zz'"):
        SCHEMA.table("Zz")


def test_defaults_of_types_that_need_an_element() -> None:
    one = ColumnType(KIND.column("s").type.key, None, 1, 3)
    pair = ColumnType(KIND.column("s").type.key, KIND.column("u").type.key, 1, 3)
    assert one.default == frozenset([""])
    assert pair.default == {"": ZERO_UUID}


def test_all_tables_are_roots_where_none_says_so() -> None:
    text = copy.deepcopy(SCHEMA_JSON)
    for table in text["tables"].values():
        del table["isRoot"]
    assert all(table.is_root for table in Schema.parse(json.dumps(text)).tables.values())
    text["tables"]["Kind"]["isRoot"] = True
    assert not Schema.parse(json.dumps(text)).tables["Other"].is_root


def test_installed_schema_parses() -> None:
    schema = Schema.parse(VSWITCH_SCHEMA.read_bytes())
    assert schema.table("Bridge").column("ports").type.key.ref_table == "Port"
    assert schema.table("Open_vSwitch").max_rows == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), "1x"),
        (("name",), 5),
        (("version",), "1.2"),
        (("version",), "1.2.x"),
        (("tables",), []),
        (("tables", "1x"), {"columns": {}}),
        (("tables", "Kind", "columns", "_i"), {"type": "integer"}),
        (("tables", "Kind", "columns", "i"), {"type": "number"}),
        (("tables", "Kind", "columns", "i"), {}),
        (("tables", "Kind", "columns", "i", "type"), {"key": "integer", "min": 2}),
        (("tables", "Kind", "columns", "i", "type"), {"key": "integer", "max": 0}),
        (("tables", "Kind", "columns", "i", "type"), {"key": "integer", "max": "many"}),
        (("tables", "Kind", "columns", "i", "type"), {"key": {"type": "integer", "enum": ["set", []]}}),
        (("tables", "Kind", "columns", "i", "type"), {"key": {"type": "integer", "enum": "x"}}),
        (("tables", "Kind", "columns", "i", "type"), {"key": {"type": "integer", "minInteger": 2, "maxInteger": 1}}),
        (("tables", "Kind", "columns", "i", "type"), {"key": {"type": "real", "minReal": 2, "maxReal": 1}}),
        (("tables", "Kind", "columns", "i", "type"), {"key": {"type": "string", "minLength": 2, "maxLength": 1}}),
        (("tables", "Kind", "columns", "i", "type"), {"key": {"type": "uuid", "refTable": "Nowhere"}}),
        (("tables", "Kind", "columns", "i", "type"), {"key": "string", "value": "zz"}),
        (("tables", "Kind", "maxRows"), 0),
        (("tables", "Other", "indexes"), [["zz"]]),
        (("tables", "Other", "indexes"), [[]]),
    ],
)
def test_invalid_schemas(path: tuple[str, ...], value: object) -> None:
    text: Any = copy.deepcopy(SCHEMA_JSON)
    inner = text
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(DecodeError, match="schema"):
        Schema.parse(json.dumps(text))


@given(st.binary(max_size=40) | st.just(b"[" * 100_000) | st.just(b'{"tables":' * 100_000))
def test_any_bytes_are_no_schema(text: bytes) -> None:
    with pytest.raises(DecodeError):
        Schema.parse(text)
