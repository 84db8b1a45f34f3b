"""A JSON text as a tree of nodes, with the path of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vnet.grammar.nodes import ListNode, MapNode, Node, TextNode


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
                key = TextNode(name.replace("_", "-"), True, 0, 0, 1)
                paths[id(key)] = below
                entries.append((key, _json_node(item, below, paths)))
            node = MapNode(entries, 0, 0)
        case list():
            node = ListNode([_json_node(item, f"{path}[{at}]", paths) for at, item in enumerate(value)], 0, 0)
        case _Number():
            node = TextNode(str(value), True, 0, 0, 1)
        case str():
            node = TextNode(value, False, 0, 0, 1)
        case _:
            node = TextNode({None: "null", True: "true", False: "false"}[value], True, 0, 0, 1)
    paths[id(node)] = path
    return node
