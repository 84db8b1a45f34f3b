"""The grammar as JSON Schema (draft 2020-12), for editors. One rule: generated from document.py, never written by hand.

An editor's check is a subset of ours: names that do not exist, clashes and MTUs need the whole document.
"""

from __future__ import annotations

import json
from typing import Any

from vnet.topology.document import Document
from vnet.topology.grammar import JsonSchema, Kind, ListOf, MapOf, NotYet
from vnet.topology.record import Key, Record, RecordOf, keys_of, required


def json_schema() -> JsonSchema:
    """The schema of a whole document. Every record is a definition of its own."""
    definitions = {record.__name__: _record(record) for record in records_of(Document)}
    top = definitions.pop(Document.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vnet topology document",
        **top,
        "type": "object",
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """The schema as the file vnet.schema.json has it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def records_of(record: type[Record]) -> list[type[Record]]:
    """A record and those inside it, each once, from the outside in."""
    found = [record]
    for _, said in keys_of(record).values():
        inner = _inner(said.kind)
        if inner is not None:
            found += [other for other in records_of(inner) if other not in found]
    return found


def _inner(kind: Kind[Any]) -> type[Record] | None:
    if isinstance(kind, RecordOf):
        return kind.record
    if isinstance(kind, MapOf):
        return _inner(kind.value)
    return _inner(kind.item) if isinstance(kind, ListOf) else None


def _record(record: type[Record]) -> JsonSchema:
    keys = keys_of(record)
    needed = [name for name, (entry, _) in keys.items() if required(entry)]
    schema: JsonSchema = {
        "description": (record.__doc__ or "").strip(),
        "type": "object" if needed else ["object", "null"],
        "properties": {name: _property(said) for name, (_, said) in keys.items()},
        "additionalProperties": False,
    }
    if needed:
        schema["required"] = needed
    if record.VARIANT is not None:
        schema["allOf"] = _variants(record, record.VARIANT)
    return schema


def _property(said: Key) -> JsonSchema:
    notice = f" Not supported yet: {said.kind.what}." if isinstance(said.kind, NotYet) else ""
    return {**said.kind.schema(), "description": said.doc + notice}


def _variants(record: type[Record], discriminator: str) -> list[JsonSchema]:
    """For each word of the discriminating key: which keys come with it, and which do not."""
    keys = keys_of(record)
    rules = []
    for word in keys[discriminator][1].kind.schema()["enum"]:
        absent = {name: False for name, (_, said) in keys.items() if said.only and word not in said.only}
        needed = [name for name, (_, said) in keys.items() if said.needed and word in said.only]
        then: JsonSchema = {"properties": absent} if absent else {}
        if needed:
            then["required"] = needed
        condition = {"properties": {discriminator: {"const": word}}, "required": [discriminator]}
        rules.append({"if": condition, "then": then})
    return rules
