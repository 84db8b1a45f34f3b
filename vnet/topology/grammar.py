"""What a value of a document may be: one Kind reads it, says it in JSON Schema, and says it in words.

One rule: a Kind adds every problem it finds to the source and returns FAILED; it never raises for bad input.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from vnet.topology.source import Source
from vnet.topology.tree import List, Map, Node, Text, clip, describe, is_null, place_of

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
JsonSchema = dict[str, Any]

# YAML 1.2 §10.3.2: decimal, 0o octal and 0x hexadecimal. A leading zero means octal to YAML 1.1, so it is refused.
_INTEGER = re.compile(r"0|[1-9][0-9]{0,11}|0x[0-9a-fA-F]{1,8}|0o[0-7]{1,11}")
_NUMBER_LIKE = re.compile(r"[-+]?[0-9][0-9_.,]*")


class Failed(Enum):
    """The value was wrong, and said to be."""

    FAILED = "failed"


FAILED: Final = Failed.FAILED


class Refused(ValueError):
    """A scalar that its kind does not take."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class Kind(ABC, Generic[T]):
    """What one value may be. `what` completes the sentence 'wanted ...'."""

    what: str

    @abstractmethod
    def read(self, node: Node, source: Source) -> T | Failed:
        """The value that a node says, or FAILED with the problems in the source."""

    @abstractmethod
    def schema(self) -> JsonSchema:
        """The same in JSON Schema (draft 2020-12), for editors."""

    def wrong(self, node: Node, source: Source, hint: str = "") -> Failed:
        source.add("wrong-type", f"wanted {self.what}, found {describe(node)}", place_of(node), hint)
        return FAILED


@dataclass(frozen=True, slots=True)
class Scalar(Kind[T]):
    """One word. `parse` takes the text as written and raises Refused."""

    what: str
    json: JsonSchema
    parse: Callable[[str], T]

    def read(self, node: Node, source: Source) -> T | Failed:
        if not isinstance(node, Text) or is_null(node):
            return self.wrong(node, source)
        try:
            return self.parse(node.text)
        except Refused as refused:
            source.add(refused.code, refused.message, place_of(node), refused.hint)
            return FAILED

    def schema(self) -> JsonSchema:
        return dict(self.json)


@dataclass(frozen=True, slots=True)
class Integer(Kind[int]):
    """A whole number within bounds, both included. A quoted number is a string, and refused."""

    what: str
    low: int
    high: int

    def read(self, node: Node, source: Source) -> int | Failed:
        if not isinstance(node, Text) or is_null(node):
            return self.wrong(node, source)
        if not _INTEGER.fullmatch(node.text):
            return self.wrong(node, source, self._spelling(node.text))
        if not node.plain:
            return self.wrong(node, source, "leave out the quotes")
        value = int(node.text, 0)
        if not self.low <= value <= self.high:
            source.add("out-of-range", f"{value} is out of range: wanted {self.what}", place_of(node))
            return FAILED
        return value

    def _spelling(self, text: str) -> str:
        digits = text.lstrip("0")
        if text.isascii() and text.isdigit() and digits:
            return f"write {digits}: some YAML readers take a leading zero for octal"
        if _NUMBER_LIKE.fullmatch(text) and (plain := re.sub("[_,]", "", text)) != text and plain.isdigit():
            return f"write {plain}"
        return ""

    def schema(self) -> JsonSchema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Choice(Kind[E]):
    """One of an enum's words. `instead`: what to say of words that people bring from elsewhere."""

    what: str
    members: type[E]
    instead: Mapping[str, str]

    def read(self, node: Node, source: Source) -> E | Failed:
        if not isinstance(node, Text) or is_null(node):
            return self.wrong(node, source)
        try:
            return self.members(node.text)
        except ValueError:
            words = [str(member.value) for member in self.members]
            near = source.nearest(node.text, words)
            hint = self.instead.get(node.text.casefold()) or (f"did you mean '{near}'?" if near else "")
            source.add("wrong-value", f"wanted {self.what}, found {describe(node)}", place_of(node), hint)
            return FAILED

    def schema(self) -> JsonSchema:
        return {"enum": [member.value for member in self.members]}


def choice(what: str, members: type[E], instead: Mapping[str, str] | None = None) -> Choice[E]:
    """A Choice whose words are listed after what it is: 'a network type: internal, vlan, ...'."""
    return Choice(f"{what}: {', '.join(str(member.value) for member in members)}", members, instead or {})


@dataclass(frozen=True, slots=True)
class ListOf(Kind[tuple[T, ...]]):
    """A list. What is wrong with one item leaves the others readable; the list of those is returned."""

    item: Kind[T]
    what: str
    empty: str = ""  # why an empty list is refused; "" if it is not
    unique: bool = True
    most: int | None = None

    def read(self, node: Node, source: Source) -> tuple[T, ...] | Failed:
        if is_null(node) and not self.empty:
            return ()
        if not isinstance(node, List):
            return self.wrong(node, source, "one value is a list too: put it in [ ]" * (isinstance(node, Text)))
        if not node.items and self.empty:
            source.add("empty-list", f"an empty list: {self.empty}", place_of(node))
            return FAILED
        if self.most is not None and len(node.items) > self.most:
            source.add(
                "too-many", f"{len(node.items)} items: at most {self.most} here", place_of(node.items[self.most])
            )
            return FAILED
        values: list[T] = []
        seen: dict[T, Node] = {}
        for item in node.items:
            value = self.item.read(item, source)
            if isinstance(value, Failed):
                continue
            if self.unique and (first := seen.setdefault(value, item)) is not item:
                said = clip(item.text) if isinstance(item, Text) else describe(item)
                where = f"first on line {first.line + 1}" if first.line != item.line else "once is enough"
                source.add("twice", f"{said} stands twice in this list", place_of(item), where)
                continue
            values.append(value)
        return tuple(values)

    def schema(self) -> JsonSchema:
        schema: JsonSchema = {"type": "array" if self.empty else ["array", "null"], "items": self.item.schema()}
        if self.unique:
            schema["uniqueItems"] = True
        if self.empty:
            schema["minItems"] = 1
        if self.most is not None:
            schema["maxItems"] = self.most
        return schema


@dataclass(frozen=True, slots=True)
class MapOf(Kind[Mapping[str, T]]):
    """A map from names to values. Nothing at all is an empty one."""

    name: Scalar[str]
    value: Kind[T]
    what: str

    def read(self, node: Node, source: Source) -> dict[str, T] | Failed:
        if is_null(node):
            return {}
        if not isinstance(node, Map):
            hint = "names are keys here, not items: 'NAME: {...}'" if isinstance(node, List) else ""
            return self.wrong(node, source, hint)
        values: dict[str, T] = {}
        for key, item in entries(node, source):
            name = self.name.read(key, source)
            value = self.value.read(item, source)
            if not isinstance(name, Failed) and not isinstance(value, Failed):
                values[name] = value
        return values

    def schema(self) -> JsonSchema:
        return {
            "type": ["object", "null"],
            "propertyNames": {key: word for key, word in self.name.schema().items() if key != "type"},
            "additionalProperties": self.value.schema(),
        }


@dataclass(frozen=True, slots=True)
class NotYet(Kind[None]):
    """A key that is in the grammar, and refused until its feature is there: never accepted and ignored."""

    what: str

    def read(self, node: Node, source: Source) -> Failed:
        raise TypeError("a key that is not supported yet is refused by its record")

    def schema(self) -> JsonSchema:
        return {"not": {}}


def entries(node: Map, source: Source) -> list[tuple[Text, Node]]:
    """The entries of a map, without those whose key stands there already, which are problems."""
    if len({key.text for key, _ in node.entries}) == len(node.entries):
        return node.entries
    first: dict[str, Text] = {}
    kept = []
    for key, value in node.entries:
        if (before := first.setdefault(key.text, key)) is key:
            kept.append((key, value))
        else:
            where = f"it is on line {before.line + 1} already"
            source.add("duplicate-key", f"key '{clip(key.text)}' stands twice in this map", place_of(key), where)
    return kept
