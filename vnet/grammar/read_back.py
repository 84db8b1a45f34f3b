"""Objects from the words in which answers and records of the history have them. One rule: what plain() wrote is read back as it was."""

from __future__ import annotations

from typing import Any, TypeVar

from vnet.grammar.declare import Declared, attrs_of, json_word, unchecked
from vnet.grammar.json_tree import json_tree
from vnet.grammar.nodes import ListNode, entry_of, is_null
from vnet.grammar.source import Source
from vnet.grammar.value_types import FAILED, Failed

D = TypeVar("D", bound=Declared)


def read_back(declared: type[D], data: bytes, **more: Any) -> D:
    """The object of its JSON. A field that is not there, empty or unreadable has its default. more: fields that the JSON lacks."""
    node, paths = json_tree(data)
    source, values = Source("", paths=paths), dict(more)
    for found in attrs_of(declared).values():
        for spelling in found.spellings:
            entry = entry_of(node, json_word(found, spelling).replace("_", "-"))
            empty = entry is None or is_null(entry[1]) or (isinstance(entry[1], ListNode) and not entry[1].items)
            value = FAILED if entry is None or empty else spelling.type.read(entry[1], source)
            if not isinstance(value, Failed):
                values[found.name] = value
    source.finish()
    return unchecked(declared, values)
