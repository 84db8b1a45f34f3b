"""A map with fixed keys, as a frozen dataclass. The dataclass says it all: its fields are the keys, with kind and words.

One rule: what a document may say is written once, in the fields of document.py; reader, JSON Schema and reference follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Generic, TypeVar, cast

from vnet.topology.errors import Place
from vnet.topology.grammar import FAILED, Failed, JsonSchema, Kind, NotYet, entries
from vnet.topology.source import Source
from vnet.topology.tree import List, Map, Node, Text, clip, is_null, place_of
from vnet.util.suggest import listing


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A map of a document. `node` is where it was read from, None for one made by a program."""

    node: Map | None = field(default=None, compare=False, repr=False)

    WHAT: ClassVar[str] = "a map"  # "a host", for 'unknown key ... in a host'
    VARIANT: ClassVar[str | None] = None  # the key by whose value other keys come and go

    def at(self, key: str | None = None, item: int | None = None) -> Place | None:
        """Where a key's value (or an item of it) stands; where the record starts if the key was left out."""
        if self.node is None:
            return None
        for entry, value in self.node.entries:
            if entry.text == key:
                if item is not None and isinstance(value, List) and item < len(value.items):
                    return place_of(value.items[item])
                return place_of(value)
        return place_of(self.node)

    def at_key(self, key: str) -> Place | None:
        """Where a key itself stands; None if it was left out."""
        entries = self.node.entries if self.node is not None else ()
        return next((place_of(entry) for entry, _ in entries if entry.text == key), None)

    def unclear(self, key: str) -> bool:
        """Whether the document says something of a key that is not there, but nothing right: it is there, or has a typo."""
        if self.node is None:
            return False
        known = keys_of(type(self))
        return any(entry.text == key or entry.text not in known for entry, _ in self.node.entries)


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Key:
    """What a record's field says of its key. only: the variants that have it; needed: whether those need it."""

    name: str
    kind: Kind[Any]
    doc: str
    only: tuple[str, ...] = ()
    needed: bool = False
    also: tuple[str, ...] = ()


def key(
    kind: Kind[Any],
    doc: str,
    *,
    default: Any = MISSING,
    name: str = "",
    only: tuple[str, ...] = (),
    needed: bool = False,
    also: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that is a key of the document. also: words that people try instead, answered with this one."""
    metadata = {"key": Key(name, kind, doc, only, needed, also)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


_KEYS: dict[type[Record], dict[str, tuple[Field[Any], Key]]] = {}


def keys_of(record: type[Record]) -> dict[str, tuple[Field[Any], Key]]:
    """The keys of a record, by their names in the document, in the order of the fields."""
    if (known := _KEYS.get(record)) is not None:
        return known
    found: dict[str, tuple[Field[Any], Key]] = {}
    for entry in fields(record):
        if (said := entry.metadata.get("key")) is not None:
            found[said.name or entry.name.rstrip("_").replace("_", "-")] = (entry, said)
    _KEYS[record] = found
    return found


def required(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


@dataclass(frozen=True, slots=True)
class RecordOf(Kind[R], Generic[R]):
    """A map that becomes a record. Nothing at all is an empty one, so that missing keys are what is said to be wrong."""

    record: type[R]

    @property
    def what(self) -> str:  # type: ignore[override]
        return f"{self.record.WHAT} (a map with {listing(keys_of(self.record))})"

    def read(self, node: Node, source: Source) -> R | Failed:
        if is_null(node):
            node = Map([], node.line, node.column)
        if not isinstance(node, Map):
            return self.wrong(node, source)
        values, broken = self.values(node, source)
        return FAILED if broken else self.record(**values)

    def values(self, node: Map, source: Source) -> tuple[dict[str, Any], bool]:
        """The record's fields, as far as they are right, and whether too many are wrong to make one."""
        known = keys_of(self.record)
        values: dict[str, Any] = {"node": node}
        broken = False
        present = {name.text for name, _ in node.entries}
        for name, value in entries(node, source):
            found = known.get(name.text)
            if found is None:
                present.add(self._unknown(name, known, source))
                continue
            entry, said = found
            if said.kind.__class__ is NotYet:
                hint = f"{said.kind.what}: leave the key out until then"
                source.add("not-supported", f"'{name.text}' is not supported yet", place_of(name), hint)
                continue
            got = said.kind.read(value, source)
            if got is not FAILED:
                values[entry.name] = got
            elif required(entry):
                broken = True
        if self.record.VARIANT is not None:
            broken = self._variant(node, values, present, source) or broken
        for name_, (entry, said) in known.items():
            if entry.name not in values and required(entry):
                broken = True
                if name_ not in present:
                    hint = f"'{name_}' is {said.kind.what}"
                    source.add("missing-key", f"{self.record.WHAT} needs '{name_}'", place_of(node), hint)
        return values, broken

    def _unknown(self, name: Text, known: Mapping[str, tuple[Field[Any], Key]], source: Source) -> str:
        """Refuse a key; return the one that was probably meant, so that its lack is not a second problem."""
        meant: str | None = None
        if name.text == "<<":
            message, hint = "merge keys ('<<') are not part of YAML 1.2", "write the keys out, or use 'defaults'"
        else:
            message = f"unknown key '{clip(name.text)}' in {self.record.WHAT}"
            word = name.text.casefold().replace("_", "-")
            meant = next((key for key, (_, said) in known.items() if word in said.also), None)
            meant = meant or source.nearest(name.text, known)
            hint = f"did you mean '{meant}'?" if meant else f"there is: {listing(known)}"
        source.add("unknown-key", message, place_of(name), hint)
        return meant or ""

    def _variant(self, node: Map, values: dict[str, Any], present: set[str], source: Source) -> bool:
        """Refuse the keys that this variant does not have, and the lack of those it needs."""
        chosen = values.get(cast(str, self.record.VARIANT))
        if chosen is None:
            return True
        word, known, broken = chosen.value, keys_of(self.record), False
        has = [name for name, (_, said) in known.items() if not said.only or word in said.only]
        for name, _ in node.entries:
            said = known[name.text][1] if name.text in known else None
            if said is not None and said.only and word not in said.only:
                broken = True
                hint = f"{' and '.join(said.only)} networks have it; {word} ones have {', '.join(has)}"
                source.add("wrong-variant", f"{word} networks have no '{name.text}'", place_of(name), hint)
        for name_ in has:
            said = known[name_][1]
            if said.needed and said.only and name_ not in present:
                broken = True
                source.add(
                    "missing-key", f"{word} networks need '{name_}'", place_of(node), f"'{name_}' is {said.kind.what}"
                )
        return broken or any(known[n][1].needed and known[n][0].name not in values for n in has)

    def schema(self) -> JsonSchema:
        return {"$ref": f"#/$defs/{self.record.__name__}"}
