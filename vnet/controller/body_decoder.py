"""JSON bodies into their types. One rule: what is not said exactly as the type says is refused, with the field and what was meant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import msgspec

from vnet.controller.errors import Invalid
from vnet.util.suggest import nearest


def decode_body(data: bytes, kind: Any) -> Any:
    """The body as its type, empty standing for {}; raises Invalid."""
    try:
        value = msgspec.json.decode(data or b"{}", type=kind)
        json.loads(data or b"{}", object_pairs_hook=_unique)  # of two equal keys, decoders silently take the last
    except msgspec.ValidationError as error:
        raise _refusal(str(error), kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("json", f"the body is no JSON: {error}") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise Invalid("duplicate-key", f"{name}: stands twice in the body", name)
        names.add(name)


def _refusal(error: str, kind: Any) -> Invalid:
    message, _, at = error.partition(" - at `$")
    path = at.strip("`.")
    field = _quoted(message)
    if message.startswith("Object contains unknown field") and (owner := _type_at(kind, path)) is not None:
        known = [one.encode_name for one in msgspec.structs.fields(owner)]
        meant = nearest(field, known)
        hint = f"did you mean {meant}?" if meant is not None else f"there are {', '.join(known)}"
        return Invalid("body", f"{error}; {hint}", path or field)
    if message.startswith("Invalid enum value") and (choices := [*_choices(_type_at(kind, path))]):
        return Invalid("body", f"{error}; it is one of {', '.join(choices)}", path)
    return Invalid("body", error, path or field)


def _quoted(message: str) -> str:
    """The field that a message names: 'Object missing required field `network`'."""
    parts = message.split("`")
    return parts[1] if len(parts) == 3 else ""


def _type_at(kind: Any, path: str) -> Any:
    """The type of what stands at a path as msgspec writes it, 'uplinks[...].mode'; None if that is not to be found."""
    for step in path.split(".") if path else ():
        name, *lists = step.split("[")
        fields = {one.encode_name: one.type for one in msgspec.structs.fields(kind)} if _is_struct(kind) else {}
        kind = fields.get(name)
        for _ in lists:
            kind = next(iter(get_args(kind)), None)
    return kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _choices(kind: Any) -> Iterator[str]:
    if get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
    else:
        for one in get_args(kind):
            yield from _choices(one)
