"""What a person or a program wrote, as a tree: a node is text until the grammar says what it should be.

YAML documents and JSON bodies become the same nodes, so that one reader serves both doors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vnet.grammar.problems import Place
from vnet.util.printable import on_one_line


# Not frozen, for speed: a document has hundreds of thousands. Nobody writes to them after `parse`.
@dataclass(slots=True, eq=False)
class Text:
    """A scalar as written. plain: without quotes, so that it may also be a number, a boolean or null. line, column: from 0."""

    text: str
    plain: bool
    line: int
    column: int
    length: int


@dataclass(slots=True, eq=False)
class List:
    items: list[Node]
    line: int
    column: int


@dataclass(slots=True, eq=False)
class Map:
    """Entries in the order of the document; equal keys are still there, for the reader to refuse."""

    entries: list[tuple[Text, Node]]
    line: int
    column: int


Node = Text | List | Map


def place_of(node: Node) -> Place:
    """Where a node starts; a scalar's length, 1 for a list or a map."""
    return Place(node.line + 1, node.column + 1, node.length if isinstance(node, Text) else 1)


def is_null(node: Node) -> bool:
    """Whether a node is YAML 1.2's null: `~`, `null` or nothing at all."""
    return isinstance(node, Text) and node.plain and node.text in ("", "~", "null", "Null", "NULL")


def describe(node: Node) -> str:
    """What a node is, for 'wanted X, found Y'."""
    if isinstance(node, Map):
        return "a map"
    if isinstance(node, List):
        return "a list"
    return "nothing" if is_null(node) else f"'{clip(node.text)}'" if node.plain else f'the string "{clip(node.text)}"'


def clip(text: str, width: int = 60) -> str:
    """A text on one line, cut to a width."""
    flat = on_one_line(text[: width + 1])
    return flat if len(flat) <= width else flat[: width - 3] + "..."


def entry_of(node: Node | None, key: str) -> tuple[Text, Node] | None:
    """A map's entry of that key; None where it has none."""
    entries = node.entries if isinstance(node, Map) else ()
    return next((entry for entry in entries if entry[0].text == key), None)


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object in their order, equal names included."""


class _Number(str):
    """A JSON number as written."""


def json_tree(data: bytes) -> tuple[Node, Mapping[int, str]]:
    """The tree of a JSON text, and the path of each node by its id(): "", "rules", "rules[0].remote".

    Names are spelled with underscores in JSON and with dashes in the grammar; the tree has the grammar's. Raises ValueError.
    """
    text = data.decode("utf-8") or "{}"
    paths: dict[int, str] = {}
    raw = json.loads(
        text, object_pairs_hook=_Pairs, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant
    )
    return _json_node(raw, "", paths), paths


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _json_node(value: Any, path: str, paths: dict[int, str]) -> Node:
    node: Node
    match value:
        case _Pairs():
            entries = []
            for name, item in value:
                below = f"{path}.{name}" if path else name
                key = Text(name.replace("_", "-"), True, 0, 0, 1)
                paths[id(key)] = below
                entries.append((key, _json_node(item, below, paths)))
            node = Map(entries, 0, 0)
        case list():
            node = List([_json_node(item, f"{path}[{at}]", paths) for at, item in enumerate(value)], 0, 0)
        case _Number():
            node = Text(str(value), True, 0, 0, 1)
        case str():
            node = Text(value, False, 0, 0, 1)
        case _:
            node = Text({None: "null", True: "true", False: "false"}[value], True, 0, 0, 1)
    paths[id(node)] = path
    return node
