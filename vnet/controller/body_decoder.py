"""JSON bodies of calls that make no object, by their types. One rule: a body is refused with all of its errors, each with its path."""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec
from msgspec import inspect

from vnet.api.errors import Invalid
from vnet.controller.admission import refusal
from vnet.grammar.json_tree import json_tree
from vnet.grammar.nodes import ListNode, MapNode, Node, TextNode, clip, describe, is_null
from vnet.grammar.source import Source
from vnet.grammar.value_types import FAILED, Boolean, entries
from vnet.util.suggest import listing


def decode_body(data: bytes, body: Any) -> Any:
    """The body as its type, empty standing for {}; raises Invalid."""
    try:
        node, paths = json_tree(data)
    except (ValueError, RecursionError) as error:  # of JSON and of UTF-8
        raise Invalid("json", f"the body is no JSON: {error}") from None
    source = Source("", paths=paths)
    value = _read(inspect.type_info(body), node, source)
    if source.problems:
        raise refusal(source.ordered())
    return msgspec.convert(value, body)


def _read(type_: inspect.Type, node: Node, source: Source) -> Any:
    """A node's value, as far as it is of a type. Other parts are problems in the source."""
    match type_:
        case inspect.UnionType(types=types):
            (only,) = (each for each in types if not isinstance(each, inspect.NoneType))
            return None if is_null(node) else _read(only, node, source)
        case inspect.StructType():
            return _read_struct(type_, node, source)
        case inspect.ListType(item_type=item) if isinstance(node, ListNode):
            return [_read(item, each, source) for each in node.items]
        case inspect.BoolType():
            return Boolean().read(node, source)
        case _ if isinstance(node, TextNode) and (value := _scalar(type_, node)) is not FAILED:
            return value
    return _refused(type_, node, source)


def _scalar(type_: inspect.Type, node: TextNode) -> Any:
    if isinstance(type_, inspect.StrType):
        return FAILED if node.plain else node.text
    try:
        if isinstance(type_, inspect.IntType):
            return int(node.text) if node.plain else FAILED
        number = float(node.text)
    except ValueError:
        return FAILED
    return number if node.plain and isfinite(number) else FAILED


def _read_struct(type_: inspect.StructType, node: Node, source: Source) -> Any:
    if is_null(node):
        node = MapNode([], node.line, node.column)
    if not isinstance(node, MapNode):
        return _refused(type_, node, source)
    fields = {field.encode_name: field for field in type_.fields}
    values: dict[str, Any] = {}
    for key, item in entries(node, source):
        word = key.text.replace("-", "_")
        if word in fields:
            values[word] = _read(fields[word].type, item, source)
        else:
            meant = source.nearest(word, fields)
            hint = f"did you mean '{meant}'?" if meant else f"there is: {listing(fields)}"
            source.add("unknown-key", f"unknown key '{clip(word)}'", key, hint)
            values[meant or ""] = FAILED  # so that its lack is not a second error
    for word, field in fields.items():
        if field.required and word not in values:
            source.add("missing-key", f"'{word}' is missing", node, f"it is {_expected(field.type)}")
    return values


def _refused(type_: inspect.Type, node: Node, source: Source) -> Any:
    source.add("wrong-type", f"wanted {_expected(type_)}, found {describe(node)}", node)
    return FAILED


def _expected(type_: inspect.Type) -> str:
    match type_:
        case inspect.StructType(fields=fields):
            return f"a map with {listing([field.encode_name for field in fields])}"
        case inspect.UnionType(types=types):
            return " or ".join("null" if isinstance(each, inspect.NoneType) else _expected(each) for each in types)
        case inspect.ListType(item_type=item):
            return f"a list, each {_expected(item)}"
        case inspect.StrType():
            return "a string"
        case inspect.BoolType():
            return Boolean.expected
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return "a number"
    raise TypeError(f"a call has no field of type {type_}")
