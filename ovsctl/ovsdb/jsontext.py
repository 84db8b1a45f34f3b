"""JSON of the peer into typed values: whatever is wrong with it is one DecodeError."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from .errors import DecodeError

T = TypeVar("T")

JSON_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def decode_json(decoder: msgspec.json.Decoder[T], text: bytes | bytearray | msgspec.Raw, subject: str) -> T:
    """The decoded text; raises DecodeError, which begins with its subject."""
    try:
        return decoder.decode(text)
    except RecursionError:
        raise DecodeError(f"{subject}: nested too deeply") from None
    except JSON_ERRORS as error:
        raise DecodeError(f"{subject}: {error}") from None
