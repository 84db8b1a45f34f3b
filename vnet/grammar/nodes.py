"""The input of a person or a program, as a tree: a node is text until the grammar says what it should be.

YAML documents and JSON bodies become the same nodes, so that one reader serves both doors.
"""

from __future__ import annotations

from dataclasses import dataclass

from vnet.util.printable import on_one_line


# Not frozen, for speed: a document has hundreds of thousands. Nobody writes to them after `parse`.
@dataclass(slots=True, eq=False)
class TextNode:
    """A scalar as written. plain: without quotes, so that it may also be a number, a boolean or null. line, column: from 0."""

    text: str
    plain: bool
    line: int
    column: int
    length: int


@dataclass(slots=True, eq=False)
class ListNode:
    items: list[Node]
    line: int
    column: int


@dataclass(slots=True, eq=False)
class MapNode:
    """Entries in the order of the document; equal keys are still there, for the reader to refuse."""

    entries: list[tuple[TextNode, Node]]
    line: int
    column: int


Node = TextNode | ListNode | MapNode


def is_null(node: Node) -> bool:
    """Whether a node is YAML 1.2's null: `~`, `null` or nothing at all."""
    return isinstance(node, TextNode) and node.plain and node.text in ("", "~", "null", "Null", "NULL")


def describe(node: Node) -> str:
    """A node's sort in words, for 'wanted X, found Y'."""
    if isinstance(node, MapNode):
        return "a map"
    if isinstance(node, ListNode):
        return "a list"
    return "nothing" if is_null(node) else f"'{clip(node.text)}'" if node.plain else f'the string "{clip(node.text)}"'


def clip(text: str, width: int = 60) -> str:
    """A text on one line, cut to a width."""
    flat = on_one_line(text[: width + 1])
    return flat if len(flat) <= width else flat[: width - 3] + "..."


def entry_of(node: Node | None, key: str) -> tuple[TextNode, Node] | None:
    """A map's entry of that key; None where it has none."""
    entries = node.entries if isinstance(node, MapNode) else ()
    return next((entry for entry in entries if entry[0].text == key), None)
