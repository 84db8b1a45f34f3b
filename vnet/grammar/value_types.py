"""Kinds of values: each reads one from a document or a JSON body, checks one, and has its JSON Schema and its OVSDB column.

One rule: reading adds every problem to the source and returns FAILED, it never raises for bad input; `check` raises ValueRefused.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from vnet.grammar.nodes import ListNode, MapNode, Node, TextNode, clip, describe, is_null

if TYPE_CHECKING:
    from vnet.grammar.source import Source

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
JsonSchema = dict[str, Any]

# YAML 1.2 §10.3.2: decimal, 0o octal and 0x hexadecimal. A leading zero means octal to YAML 1.1, so it is refused.
_INTEGER = re.compile(r"0|[1-9][0-9]{0,11}|0x[0-9a-fA-F]{1,8}|0o[0-7]{1,11}")
_NUMBER_LIKE = re.compile(r"[-+]?[0-9][0-9_.,]*")


class Failed(Enum):
    """The value was wrong, and the source has the problem."""

    FAILED = "failed"


FAILED: Final = Failed.FAILED


class ValueRefused(ValueError):
    """A value that its type does not take."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A type's column in OVSDB (RFC 7047 §3.2). key, value: base types; value None for no map.

    many: a set or a map of any size, and of `least` where it must be there. encode and decode turn the type's value into what ovsctl takes and gives.
    """

    key: Any
    value: Any = None
    many: bool = False
    least: int = 0
    encode: Callable[[Any], Any] = _same
    decode: Callable[[Any], Any] = _same

    def type(self, *, optional: bool) -> Any:
        """The <type> of the schema. optional: it may be empty."""
        if not optional and not self.many and self.value is None:
            return self.key if isinstance(self.key, str) else {"key": self.key}
        shape: dict[str, Any] = {"key": self.key}
        if self.value is not None:
            shape["value"] = self.value
        return {**shape, "min": 0 if optional else self.least, "max": "unlimited" if self.many else 1}


STRING = Column("string")


class ValueType(ABC, Generic[T]):
    """The values that a field may have. `expected` completes the sentence 'wanted ...'."""

    expected: str
    column: Column = STRING
    python: str = "Any"  # its type in the clients' structs
    refers: str = ""  # the word of the noun that it names an object of

    @abstractmethod
    def read(self, node: Node, source: Source) -> T | Failed:
        """The value that a node has, or FAILED with the problems in the source."""

    @abstractmethod
    def schema(self) -> JsonSchema:
        """The same in JSON Schema (draft 2020-12), for editors."""

    def check(self, value: T) -> None:
        """Raise ValueRefused for a value that no node could have."""

    def plain(self, value: T) -> Any:
        """The value as JSON and YAML have it."""
        return value

    def wrong(self, node: Node, source: Source, hint: str = "") -> Failed:
        source.add("wrong-type", f"wanted {self.expected}, found {describe(node)}", node, hint)
        return FAILED


@dataclass(frozen=True, slots=True, eq=False)
class Scalar(ValueType[T]):
    """One word. `parse` takes the text as written and raises ValueRefused; a value of the type is one that it leaves as it is."""

    expected: str
    json: JsonSchema
    parse: Callable[[str], T]
    python: str = "str"
    refers: str = ""

    def read(self, node: Node, source: Source) -> T | Failed:
        if not isinstance(node, TextNode) or is_null(node):
            return self.wrong(node, source)
        try:
            return self.parse(node.text)
        except ValueRefused as refused:
            source.add(refused.code, refused.message, node, refused.hint)
            return FAILED

    def check(self, value: T) -> None:
        if not isinstance(value, str):
            raise ValueRefused("wrong-type", f"wanted {self.expected}, found {clip(str(value))}")
        if (canonical := self.parse(value)) != value:
            raise ValueRefused("wrong-value", f"write '{clip(value)}' as {canonical}")

    def schema(self) -> JsonSchema:
        return dict(self.json)


@dataclass(frozen=True, slots=True, eq=False)
class Integer(ValueType[int]):
    """A whole number within bounds, both included. A quoted number is a string, and refused.

    bounded: the database checks the bounds too. Not where older databases did not: a row beyond them must not stop a conversion.
    """

    expected: str
    low: int
    high: int
    python: str = "int"
    bounded: bool = True

    @property
    def column(self) -> Column:  # type: ignore[override]
        if not self.bounded:
            return Column("integer")
        return Column({"type": "integer", "minInteger": self.low, "maxInteger": self.high})

    def read(self, node: Node, source: Source) -> int | Failed:
        if not isinstance(node, TextNode) or is_null(node):
            return self.wrong(node, source)
        if not _INTEGER.fullmatch(node.text):
            return self.wrong(node, source, self._spelling(node.text))
        if not node.plain:
            return self.wrong(node, source, "leave out the quotes")
        value = int(node.text, 0)
        if not self.low <= value <= self.high:
            source.add("out-of-range", f"{value} is out of range: wanted {self.expected}", node)
            return FAILED
        return value

    def check(self, value: int) -> None:
        if not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueRefused("out-of-range", f"{clip(str(value))} is outside {self.low}..{self.high}")

    def _spelling(self, text: str) -> str:
        digits = text.lstrip("0")
        if text.isascii() and text.isdigit() and digits:
            return f"write {digits}: some YAML readers take a leading zero for octal"
        if _NUMBER_LIKE.fullmatch(text) and (plain := re.sub("[_,]", "", text)) != text and plain.isdigit():
            return f"write {plain}"
        return ""

    def schema(self) -> JsonSchema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


class Boolean(ValueType[bool]):
    """true or false, as YAML 1.2 and JSON write them."""

    expected = "true or false"
    column = Column("boolean")
    python = "bool"

    def read(self, node: Node, source: Source) -> bool | Failed:
        words = {"true": True, "false": False}
        if not isinstance(node, TextNode) or not node.plain or node.text not in words:
            return self.wrong(node, source)
        return words[node.text]

    def check(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise ValueRefused("wrong-type", f"wanted {self.expected}, found {clip(str(value))}")

    def schema(self) -> JsonSchema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True, eq=False)
class Choice(ValueType[E]):
    """One of an enum's words. `instead`: the hint for words that people bring from elsewhere."""

    expected: str
    members: type[E]
    instead: Mapping[str, str]

    @property
    def python(self) -> str:  # type: ignore[override]
        return f"Literal[{', '.join(repr(member.value) for member in self.members)}]".replace("'", '"')

    @property
    def column(self) -> Column:  # type: ignore[override]
        words = [member.value for member in self.members]
        return Column(
            {"type": "string", "enum": ["set", words]}, encode=lambda member: member.value, decode=self.members
        )

    def read(self, node: Node, source: Source) -> E | Failed:
        if not isinstance(node, TextNode) or is_null(node):
            return self.wrong(node, source)
        try:
            return self.members(node.text)
        except ValueError:
            words = [str(member.value) for member in self.members]
            near = source.nearest(node.text, words)
            hint = self.instead.get(node.text.casefold()) or (f"did you mean '{near}'?" if near else "")
            source.add("wrong-value", f"wanted {self.expected}, found {describe(node)}", node, hint)
            return FAILED

    def check(self, value: E) -> None:
        if not isinstance(value, self.members):
            raise ValueRefused("wrong-value", f"wanted {self.expected}, found {clip(str(value))}")

    def plain(self, value: E) -> Any:
        return value.value

    def schema(self) -> JsonSchema:
        return {"enum": [member.value for member in self.members]}


def choice(noun: str, members: type[E], instead: Mapping[str, str] | None = None) -> Choice[E]:
    """A Choice whose words are listed after its noun: 'a network type: internal, vlan, ...'."""
    return Choice(f"{noun}: {', '.join(str(member.value) for member in members)}", members, instead or {})


@dataclass(frozen=True, slots=True, eq=False)
class ListOf(ValueType[tuple[T, ...]]):
    """A list. A wrong item leaves the others readable; the list of those is returned.

    empty: why an empty list is refused, "" if it is not. ordered: the items are a set, and the value has them sorted.
    """

    item: ValueType[T]
    expected: str
    empty: str = ""
    unique: bool = True
    most: int | None = None
    ordered: bool = False
    as_set: bool = False
    named: bool = False  # items are objects of which each has a name of its own

    @property
    def python(self) -> str:  # type: ignore[override]
        return f"list[{self.item.python}]"

    @property
    def column(self) -> Column:  # type: ignore[override]
        item = self.item.column

        def decode(values: frozenset[Any]) -> Any:
            decoded = values if item.decode is _same else map(item.decode, values)
            return frozenset(decoded) if self.as_set else self._sorted(decoded)

        return Column(
            item.key,
            many=True,
            least=1 if self.empty else 0,
            encode=lambda values: frozenset(map(item.encode, values)),
            decode=decode,
        )

    @property
    def refers(self) -> str:  # type: ignore[override]
        return self.item.refers

    def read(self, node: Node, source: Source) -> Any:
        if is_null(node) and not self.empty:
            return self._value([])
        if not isinstance(node, ListNode):
            return self.wrong(node, source, "one value is a list too: put it in [ ]" * (isinstance(node, TextNode)))
        if not node.items and self.empty:
            source.add("empty-list", f"an empty list: {self.empty}", node)
            return FAILED
        if self.most is not None and len(node.items) > self.most:
            source.add("too-many", f"{len(node.items)} items: at most {self.most} here", node.items[self.most])
            return FAILED
        values: list[T] = []
        seen: dict[Any, Node] = {}
        for item in node.items:
            value = self.item.read(item, source)
            if isinstance(value, Failed):
                source.partial.add(id(node))
                continue
            if self.named and (first := seen.setdefault(value.name, item)) is not item:  # type: ignore[attr-defined]
                hint = f"it is on {source.line_of(first)} already" if source.paths is None else ""
                message = f"{value.name} stands twice in this list"  # type: ignore[attr-defined]
                source.add("twice", message, item, hint)
                continue
            if self.unique and (first := seen.setdefault(value, item)) is not item:
                shown = clip(item.text) if isinstance(item, TextNode) else describe(item)
                hint = f"first on {source.line_of(first)}" if first.line != item.line else "once is enough"
                source.add("twice", f"{shown} stands twice in this list", item, hint)
                continue
            values.append(value)
        return self._value(values)

    def _sorted(self, values: Iterable[T]) -> tuple[T, ...]:
        """Values by their words in the database: enumerations have no order of their own."""
        return tuple(sorted(values, key=self.item.column.encode))

    def _value(self, values: list[T]) -> Any:
        if self.as_set:
            return frozenset(values)
        return self._sorted(values) if self.ordered else tuple(values)

    def check(self, value: Any) -> None:
        if not isinstance(value, frozenset if self.as_set else tuple):
            raise ValueRefused("wrong-type", f"wanted {self.expected}, found {clip(str(value))}")
        if self.most is not None and len(value) > self.most:
            raise ValueRefused("too-many", f"{len(value)} items: at most {self.most} here")
        check = self.item.check
        for item in value:
            check(item)
        if self.ordered and len(value) > 1 and value != self._sorted(set(value)):
            raise ValueRefused("twice", "items stand once each, in order")

    def plain(self, value: Any) -> Any:
        if not value:
            return []
        return [self.item.plain(item) for item in (self._sorted(value) if self.as_set else value)]

    def schema(self) -> JsonSchema:
        schema: JsonSchema = {"type": "array" if self.empty else ["array", "null"], "items": self.item.schema()}
        if self.unique:
            schema["uniqueItems"] = True
        if self.empty:
            schema["minItems"] = 1
        if self.most is not None:
            schema["maxItems"] = self.most
        return schema


@dataclass(frozen=True, slots=True, eq=False)
class NotYet(ValueType[None]):
    """A key of the grammar that is refused until its feature is there: never accepted and ignored."""

    expected: str

    def read(self, node: Node, source: Source) -> Failed:
        raise TypeError("a key that is not supported yet is refused by its record")

    def schema(self) -> JsonSchema:
        return {"not": {}}


def entries(node: MapNode, source: Source) -> list[tuple[TextNode, Node]]:
    """The entries of a map, without those whose key stands there already, which are problems."""
    if len({key.text for key, _ in node.entries}) == len(node.entries):
        return node.entries
    first: dict[str, TextNode] = {}
    kept = []
    for key, value in node.entries:
        if (before := first.setdefault(key.text, key)) is key:
            kept.append((key, value))
        else:
            hint = f"it is on {source.line_of(before)} already" if source.paths is None else ""
            source.add("duplicate-key", f"key '{clip(key.text)}' stands twice in this map", key, hint)
    return kept
