"""As much of JSON Schema (draft 2020-12) as ours uses, in the plain words of its specification: an oracle for tests."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
KNOWN = {
    "$schema", "$defs", "$ref", "title", "description", "type", "properties", "additionalProperties", "propertyNames",
    "maxProperties", "required", "items", "minItems", "maxItems", "uniqueItems", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "enum", "const", "not", "oneOf", "allOf", "if", "then",
}  # fmt: skip


def valid(value: Any, schema: Any, root: dict[str, Any]) -> bool:
    """Whether a value is valid. Raises KeyError for a keyword that this does not know."""
    if isinstance(schema, bool):
        return schema
    if unknown := schema.keys() - KNOWN:
        raise KeyError(f"keywords {unknown}")
    if "$ref" in schema and not valid(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root):
        return False
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(isinstance(value, TYPES[kind]) and isinstance(value, bool) == (kind == "boolean") for kind in kinds):
            return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "not" in schema and valid(value, schema["not"], root):
        return False
    if "oneOf" in schema and sum(valid(value, one, root) for one in schema["oneOf"]) != 1:
        return False
    if not all(valid(value, one, root) for one in schema.get("allOf", [])):
        return False
    if "if" in schema and valid(value, schema["if"], root) and not valid(value, schema["then"], root):
        return False
    if isinstance(value, str):
        return _string(value, schema)
    if isinstance(value, int):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, list):
        return _array(value, schema, root)
    return not isinstance(value, dict) or _object(value, schema, root)


def _string(value: str, schema: dict[str, Any]) -> bool:
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return False
    return bool(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)))


def _array(value: list[Any], schema: dict[str, Any], root: dict[str, Any]) -> bool:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return False
    if schema.get("uniqueItems") and any(value.index(item) != at for at, item in enumerate(value)):
        return False
    return all(valid(item, schema.get("items", True), root) for item in value)


def _object(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> bool:
    if any(name not in value for name in schema.get("required", [])) or len(value) > schema.get(
        "maxProperties", len(value)
    ):
        return False
    if not all(valid(name, schema.get("propertyNames", True), root) for name in value):
        return False
    properties = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    return all(valid(item, properties.get(name, rest), root) for name, item in value.items())
