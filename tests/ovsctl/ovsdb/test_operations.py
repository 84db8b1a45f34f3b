"""Operations become the JSON of RFC 7047 §5.2, and mistakes are found before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from ovsctl.ovsdb import (
    Abort,
    Assert,
    BadValue,
    Comment,
    Commit,
    DecodeError,
    Delete,
    Insert,
    Mutate,
    NamedUuid,
    Operation,
    Select,
    UnknownColumn,
    UnknownTable,
    Update,
    Wait,
    by_uuid,
)
from tests.ovsctl.ovsdb.schemas import SCHEMA

UUID = "11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (Insert("Kind"), {"op": "insert", "table": "Kind", "row": {}}),
        (
            Insert("Kind", {"i": 1, "weak": NamedUuid("o")}, "k", UUID),
            {
                "op": "insert",
                "table": "Kind",
                "row": {"i": 1, "weak": ["named-uuid", "o"]},
                "uuid-name": "k",
                "uuid": UUID,
            },
        ),
        (Select("Kind"), {"op": "select", "table": "Kind", "where": []}),
        (
            Select("Kind", (("i", ">=", 3),), ("i", "_uuid")),
            {"op": "select", "table": "Kind", "where": [["i", ">=", 3]], "columns": ["i", "_uuid"]},
        ),
        (
            Update("Kind", by_uuid(UUID), {"class": None}),
            {
                "op": "update",
                "table": "Kind",
                "where": [["_uuid", "==", ["uuid", UUID]]],
                "row": {"class": ["set", []]},
            },
        ),
        (
            Mutate(
                "Kind",
                by_uuid(NamedUuid("k")),
                (
                    ("i", "+=", 100),
                    ("range", "-=", 100),
                    ("r", "*=", 1.5),
                    ("set_i", "%=", 2),
                    ("set_s", "insert", ["a", "b"]),
                    ("map_ss", "insert", {"a": "b"}),
                    ("map_ss", "delete", ["a"]),
                    ("map_ss", "delete", {"a": "b"}),
                    ("some", "delete", "a"),
                ),
            ),
            {
                "op": "mutate",
                "table": "Kind",
                "where": [["_uuid", "==", ["named-uuid", "k"]]],
                "mutations": [
                    ["i", "+=", 100],
                    ["range", "-=", 100],
                    ["r", "*=", 1.5],
                    ["set_i", "%=", 2],
                    ["set_s", "insert", ["set", ["a", "b"]]],
                    ["map_ss", "insert", ["map", [["a", "b"]]]],
                    ["map_ss", "delete", "a"],
                    ["map_ss", "delete", ["map", [["a", "b"]]]],
                    ["some", "delete", "a"],
                ],
            },
        ),
        (
            Delete("Kind", (("some", "includes", []), ("opt_r", "<", 1))),
            {"op": "delete", "table": "Kind", "where": [["some", "includes", ["set", []]], ["opt_r", "<", 1]]},
        ),
        (
            Wait("Kind", (), ("s",), ({"s": "x"},), "!=", 5),
            {
                "op": "wait",
                "table": "Kind",
                "where": [],
                "columns": ["s"],
                "until": "!=",
                "rows": [{"s": "x"}],
                "timeout": 5,
            },
        ),
        (
            Wait("Kind", (), ("s",), (), timeout_ms=None),
            {"op": "wait", "table": "Kind", "where": [], "columns": ["s"], "until": "==", "rows": []},
        ),
        (Commit(), {"op": "commit", "durable": True}),
        (Abort(), {"op": "abort"}),
        (Comment("why"), {"op": "comment", "comment": "why"}),
        (Assert("lock"), {"op": "assert", "lock": "lock"}),
    ],
)
def test_json_of_operations(operation: Operation, expected: dict[str, Any]) -> None:
    assert operation.encode(SCHEMA) == expected


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (Insert("Nothing"), UnknownTable),
        (Delete("Nothing", ()), UnknownTable),
        (Insert("Kind", {"nothing": 1}), UnknownColumn),
        (Insert("Kind", {"i": "x"}), BadValue),
        (Insert("Kind", {}, "not-an-id"), BadValue),
        (Insert("Kind", {}, None, "no uuid"), BadValue),
        (Select("Kind", (), ("nothing",)), UnknownColumn),
        (Select("Kind", (("i", "=", 1),)), BadValue),
        (Select("Kind", (("s", "<", "x"),)), BadValue),
        (Select("Kind", (("set_i", "<", 1),)), BadValue),
        (Select("Kind", (("i", "==", "x"),)), BadValue),
        (Mutate("Kind", (), (("i", "++", 1),)), BadValue),
        (Mutate("Kind", (), (("s", "+=", 1),)), BadValue),
        (Mutate("Kind", (), (("i", "+=", 1.5),)), BadValue),
        (Mutate("Kind", (), (("i", "+=", True),)), BadValue),
        (Mutate("Kind", (), (("map_ir", "+=", 1),)), BadValue),
        (Mutate("Kind", (), (("i", "insert", 1),)), BadValue),
        (Mutate("Kind", (), (("map_ss", "delete", 5),)), BadValue),
        (Mutate("Kind", (), (("map_ss", "insert", ["a"]),)), BadValue),
        (Wait("Kind", (), ("nothing",), ()), UnknownColumn),
        (Wait("Kind", (), ("i",), (), "="), BadValue),
    ],
)
def test_mistakes_are_typed(operation: Operation, error: type[Exception]) -> None:
    with pytest.raises(error):
        operation.encode(SCHEMA)


@pytest.mark.parametrize(
    ("operation", "answer", "expected"),
    [
        (Insert("Kind"), {"uuid": ["uuid", UUID]}, UUID),
        (Select("Kind"), {"rows": [{"i": 1, "set_s": "x", "_uuid": ["uuid", UUID]}]}, None),
        (Update("Kind", (), {}), {"count": 2}, 2),
        (Mutate("Kind", (), ()), {"count": 0}, 0),
        (Delete("Kind", ()), {"count": 1}, 1),
        (Wait("Kind", (), (), ()), {}, None),
    ],
)
def test_results_of_operations(operation: Operation, answer: object, expected: object) -> None:
    result = operation.decode(SCHEMA, answer)
    if isinstance(operation, Select):
        expected = [{"i": 1, "set_s": {"x"}, "_uuid": UUID}]
    assert result == expected


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        (Insert("Kind"), {}),
        (Insert("Kind"), None),
        (Insert("Kind"), {"uuid": "x"}),
        (Delete("Kind", ()), {"count": True}),
        (Delete("Kind", ()), {"count": "1"}),
        (Select("Kind"), {"rows": {}}),
        (Select("Kind"), {"rows": [1]}),
        (Select("Kind"), {"rows": [{"i": "x"}]}),
    ],
)
def test_results_that_are_none(operation: Operation, answer: object) -> None:
    with pytest.raises(DecodeError):
        operation.decode(SCHEMA, answer)
