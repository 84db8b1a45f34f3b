"""Labels: words by keys that say what a VM, a VIF or a network is. Rules name those with a label as the other side.

One rule: a VIF has the labels of its network, of its VM and its own; of one key the nearest to the VIF holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vnet.grammar.declare import attrs_of
from vnet.grammar.nodes import MapNode, Node, TextNode, clip, is_null
from vnet.grammar.value_types import FAILED, Column, Failed, JsonSchema, ValueRefused, ValueType, entries
from vnet.objects.limits import MAX_LABELS, NAME

if TYPE_CHECKING:
    from vnet.grammar.declare import Declared
    from vnet.grammar.source import Source

LABEL, NETWORK = "label:", "network:"  # before the name of another side of a rule
_LABEL = re.compile(f"({NAME.pattern})=({NAME.pattern})")
_WORD_RULE = "letters, digits, '.', '_', '-', at most 63, a letter or digit at both ends"

Labels = tuple[str, ...]  # KEY=VALUE, in order, each key once


def is_label(text: str) -> bool:
    """Whether a text is KEY=VALUE."""
    return _LABEL.fullmatch(text) is not None


def has_labels(declared: type[Declared]) -> bool:
    """Whether such objects have labels of their own."""
    found = attrs_of(declared).get("labels")
    return found is not None and found.type is LABELS


def by_key(labels: Iterable[str]) -> dict[str, str]:
    """The values of labels by their keys."""
    if not labels:
        return {}
    return {key: value for key, _, value in (label.partition("=") for label in labels)}


def united(*labels: Labels) -> Labels:
    """The labels of all these together: of one key the last."""
    found: Mapping[str, str] = {key: value for each in labels for key, value in by_key(each).items()}
    return tuple(sorted(f"{key}={value}" for key, value in found.items()))


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap(ValueType[Labels]):
    """Labels, as a map from keys to values; the value has them as KEY=VALUE, in order."""

    expected: str = "a map from keys to values, as {app: shop}"
    python: str = "dict[str, str]"
    column: Column = Column(
        "string",
        "string",
        many=True,
        encode=by_key,
        decode=lambda cell: tuple(sorted(f"{key}={value}" for key, value in cell.items())),
    )

    def read(self, node: Node, source: Source) -> Labels | Failed:
        if is_null(node):
            return ()
        if not isinstance(node, MapNode):
            return self.wrong(node, source)
        found = []
        for key, value in entries(node, source):
            if not isinstance(value, TextNode) or is_null(value):
                source.add("wrong-type", f"wanted a word as the value of label '{clip(key.text)}'", value)
                source.partial.add(id(node))
            elif not is_label(f"{key.text}={value.text}") or "=" in key.text:
                wrong = value if NAME.fullmatch(key.text) else key
                source.add("wrong-name", f"'{clip(wrong.text)}' is no word of a label", wrong, f"wanted {_WORD_RULE}")
                source.partial.add(id(node))
            else:
                found.append(f"{key.text}={value.text}")
        if len(found) > MAX_LABELS:
            source.add("too-many", f"{len(found)} labels: at most {MAX_LABELS} here", node)
            return FAILED
        return tuple(sorted(found))

    def check(self, value: Labels) -> None:
        if not isinstance(value, tuple) or not all(isinstance(label, str) and is_label(label) for label in value):
            raise ValueRefused("wrong-value", f"wanted {self.expected}, found {clip(str(value))}")
        if len(value) > MAX_LABELS:
            raise ValueRefused("too-many", f"{len(value)} labels: at most {MAX_LABELS} here")
        if tuple(sorted(value)) != value or len(by_key(value)) != len(value):
            raise ValueRefused("wrong-value", "labels stand in order, each key once")

    def plain(self, value: Labels) -> Any:
        return by_key(value)

    def schema(self) -> JsonSchema:
        word = {"type": "string", "pattern": f"^({NAME.pattern})$"}
        return {
            "type": ["object", "null"], "maxProperties": MAX_LABELS,
            "propertyNames": {"pattern": word["pattern"]}, "additionalProperties": word,
        }  # fmt: skip


LABELS = LabelMap()


class Labelled(Protocol):
    """A VIF, or a binding of one."""

    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Labels: ...
    @property
    def vm_labels(self) -> Labels: ...


def labels_of(member: Labelled, of_network: Labels) -> Labels:
    """All labels of a VIF. of_network: those of its network."""
    return united(of_network, member.vm_labels, member.labels)


def as_remotes(member: Labelled, of_network: Labels) -> frozenset[str]:
    """The names by which rules on its network name a VIF: its groups and its labels."""
    return frozenset((*member.groups, *(LABEL + label for label in labels_of(member, of_network))))
