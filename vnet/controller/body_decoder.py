"""JSON bodies of calls that make no object, by their types. One rule: a body is refused where it is not exactly as its type says."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from vnet.controller.errors import Invalid
from vnet.util.suggest import listing, nearest


def decode_body(data: bytes, body: Any) -> Any:
    """The body as its type, empty standing for {}; raises Invalid."""
    try:
        _check_words(json.loads(data or b"{}", object_pairs_hook=_unique), body)
        return msgspec.json.decode(data or b"{}", type=body)
    except msgspec.ValidationError as error:
        raise Invalid("body", str(error), str(error).partition(" - at `$")[2].strip("`.")) from None
    except (ValueError, RecursionError) as error:  # of JSON and of UTF-8
        raise Invalid("json", f"the body is no JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Invalid("duplicate-key", f"{name}: stands twice in the body", name)
        found[name] = value
    return found


def _check_words(value: Any, body: Any) -> None:
    words = [entry.encode_name for entry in msgspec.structs.fields(body)]
    for name in value if isinstance(value, dict) else ():
        if name not in words:
            meant = nearest(name, words)
            hint = f"did you mean {meant}?" if meant is not None else f"there is: {listing(words)}"
            raise Invalid("unknown-key", f"{name}: unknown; {hint}", name)
