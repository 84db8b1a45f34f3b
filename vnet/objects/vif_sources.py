"""The VIFs that a mirror or a flow collector is of: by id, or those in a group, on a network or with a label.

One rule: who a VIF is follows from its row alone, so a selection is the same on every host and while the VIF moves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from vnet.grammar.nodes import MapNode, Node, TextNode, clip, is_null
from vnet.grammar.value_types import FAILED, Failed, JsonSchema, ListOf, ValueRefused, ValueType
from vnet.objects.labels import LABEL, NETWORK, Labels, is_label
from vnet.objects.limits import VIF_ID
from vnet.objects.words import NAME_KIND

if TYPE_CHECKING:
    from vnet.grammar.source import Source

T = TypeVar("T")
GROUP = "group:"
MAX_SOURCES = 64


def _source(text: str) -> str:
    prefix, colon, name = text.partition(":")
    match prefix + colon:
        case "group:" | "network:":
            NAME_KIND.parse(name)
        case "label:":
            if not is_label(name):
                raise ValueRefused("wrong-name", f"'{clip(name)}' is no label", "write label:KEY=VALUE")
        case _ if not VIF_ID.fullmatch(text):
            hint = "a VIF as web1/0, group:NAME, network:NAME or label:KEY=VALUE"
            raise ValueRefused("wrong-name", f"'{clip(text)}' names no VIFs", hint)
    return text


@dataclass(frozen=True, slots=True, eq=False)
class VifSource(ValueType[str]):
    """A VIF, or those in a group, on a network or with a label. A document may write the last three as a map too, as {group: db}."""

    expected: str = "a VIF as web1/0, {group: NAME}, {network: NAME} or {label: KEY=VALUE}"
    python: str = "str"

    def read(self, node: Node, source: Source) -> str | Failed:
        if isinstance(node, TextNode) and not is_null(node):
            return parsed(_source, node.text, node, source)
        if not isinstance(node, MapNode) or len(node.entries) != 1:
            return self.wrong(node, source)
        key, value = node.entries[0]
        if key.text not in ("vif", "group", "network", "label") or not isinstance(value, TextNode):
            return self.wrong(node, source)
        return parsed(_source, value.text if key.text == "vif" else f"{key.text}:{value.text}", value, source)

    def check(self, value: str) -> None:
        _source(value)

    def schema(self) -> JsonSchema:
        word = {"type": "string"}
        maps = [
            {"type": "object", "properties": {key: word}, "required": [key], "additionalProperties": False}
            for key in ("vif", "group", "network", "label")
        ]
        return {"oneOf": [word, *maps]}


def parsed(parse: Callable[[str], T], text: str, node: Node, source: Source) -> T | Failed:
    """The value of a text, or a problem at its node."""
    try:
        return parse(text)
    except ValueRefused as refused:
        source.add(refused.code, refused.message, node, refused.hint)
        return FAILED


def sources_list(empty: str) -> ListOf[str]:
    """The type of a list of sources. empty: the hint where there are none."""
    wanted = "a list of VIFs, groups, networks and labels"
    return ListOf(VifSource(), wanted, empty=empty, ordered=True, most=MAX_SOURCES)


def are_of(sources: Collection[str], vif: str, network: str, groups: Collection[str], labels: Labels) -> bool:
    """Whether a VIF is among those that sources name, by its id, its network, its groups and all its labels."""
    named = {vif, NETWORK + network, *(GROUP + group for group in groups), *(LABEL + label for label in labels)}
    return not named.isdisjoint(sources)
