"""The grammar as JSON Schema (draft 2020-12), for editors. One rule: generated from the declarations, never written by hand.

An editor's check is a subset of ours: names that do not exist, clashes and MTUs need the whole document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from vnet.grammar.declare import Attr, Declared, Named, Shape, Spelling, StructOf, attrs_of
from vnet.grammar.value_types import JsonSchema, ListOf, NotYet, ValueType
from vnet.topology.document import Children, Section, document_shape, root_shape


def json_schema() -> JsonSchema:
    """The schema of a whole document. Every object is a definition of its own."""
    definitions = {declared.__name__: _object(declared) for declared in declared_types(root_shape())}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vnet topology document",
        **_map(root_shape(), ("apiVersion", "pool")),
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """The schema as the file vnet.schema.json has it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def declared_types(shape: Shape) -> list[type[Declared]]:
    """The objects inside a map, and those inside them, each once, from the outside in."""
    found: list[type[Declared]] = []
    for item in shape.words.values():
        inner = declared_types(item) if isinstance(item, Shape) else list(_inside(item[1].type))
        found += [declared for declared in inner if declared not in found]
    return found


def _inside(value: ValueType[object]) -> Iterator[type[Declared]]:
    declared = declared_of(value)
    if declared is not None:
        yield declared
        yield from declared_types(shape_in_document(declared))


def declared_of(value: ValueType[object]) -> type[Declared] | None:
    """The objects that a value holds, if it holds any."""
    match value:
        case Section() | Children() | StructOf():
            return value.declared
        case Named():
            return value.item.declared
        case ListOf():
            return declared_of(value.item)
        case _:
            return None


def shape_in_document(declared: type[Declared]) -> Shape:
    """The map of an object; one that stands under its name has no key for that."""
    shape = document_shape(declared)
    named = declared.NOUN.key if hasattr(declared, "NOUN") and declared.NOUN.parent == "host" else ""
    return Shape(shape.title, shape.doc, {w: i for w, i in shape.words.items() if w != named}, shape.also)


def needed(declared: type[Declared]) -> tuple[str, ...]:
    """The words that the map of an object cannot be without."""
    words = shape_in_document(declared).words
    return tuple(found.word for found in attrs_of(declared).values() if found.required and found.word in words)


def _object(declared: type[Declared]) -> JsonSchema:
    shape = shape_in_document(declared)
    schema = _map(shape, needed(declared))
    if declared.VARIANT is not None:
        schema["allOf"] = _variants(declared, shape)
    return schema


def _map(shape: Shape, required: tuple[str, ...] = ()) -> JsonSchema:
    schema: JsonSchema = {
        "description": shape.doc,
        "type": "object" if required else ["object", "null"],
        "properties": {
            word: _map(item) if isinstance(item, Shape) else _property(item[1]) for word, item in shape.words.items()
        },
        "additionalProperties": False,
    }
    if required:
        schema["required"] = list(required)
    return schema


def _property(spelling: Spelling) -> JsonSchema:
    notice = f" Not supported yet: {spelling.type.expected}." if isinstance(spelling.type, NotYet) else ""
    return {**spelling.type.schema(), "description": (spelling.doc + notice).strip()}


def _variants(declared: type[Declared], shape: Shape) -> list[JsonSchema]:
    """For each word of the discriminating key: the keys that come with it, and those that do not."""
    variant = attrs_of(declared)[declared.VARIANT or ""]
    spelled: list[tuple[Attr, Spelling]] = [item for item in shape.words.values() if not isinstance(item, Shape)]
    rules = []
    for word in variant.type.schema()["enum"]:
        absent = {s.word: False for _, s in spelled if s.only and word not in s.only}
        required = [s.word for _, s in spelled if s.needed and word in s.only]
        then: JsonSchema = {"properties": absent} if absent else {}
        if required:
            then["required"] = required
        condition = {"properties": {variant.word: {"const": word}}, "required": [variant.word]}
        rules.append({"if": condition, "then": then})
    return rules
