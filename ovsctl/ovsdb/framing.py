"""Cuts a byte stream of back-to-back JSON objects into messages (RFC 7047 §4: no separators).

The one rule: every byte is looked at a fixed number of times, however it is cut into chunks, and
never more than `max_message_bytes` are kept. JSON's grammar is left to the decoder: only braces,
quotes and backslashes count here.
"""

from __future__ import annotations

import re
from itertools import accumulate

from .errors import MessageTooLong, ProtocolError

_WHITESPACE = b" \t\r\n"
_DROP = bytes(set(range(256)) - set(b'"{}'))
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_BRACE = re.compile(rb"[{}]")
_TOKEN = re.compile(rb'\\.|[{}"]', re.DOTALL)
_STEP = {ord("{"): 1, ord("}"): -1}.__getitem__


class Framer:
    """Bytes in, whole messages out."""

    __slots__ = ("_depth", "_escape", "_in_string", "_max_bytes", "_pending")

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes
        self._pending = bytearray()
        self._depth = 0
        self._in_string = False
        self._escape = False  # the last byte was a backslash inside a string

    @property
    def pending_bytes(self) -> int:
        """The number of bytes of an incomplete message that are kept."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[bytes | bytearray]:
        """The messages that `data` completes.

        Raises ProtocolError where a message does not begin with `{`, MessageTooLong.
        """
        before = self._depth, self._in_string, self._escape
        braces, plain = self._braces(data)
        closing, left = _unmatched(braces)
        if 0 < closing < before[0] or (closing == 0 < before[0]):
            self._depth += left - 2 * closing  # the common chunk of a large message: nothing ends here
            self._keep(data)
            return []
        return self._cut(data, braces, plain, *before)

    def _braces(self, data: bytes) -> tuple[bytes, bool]:
        """The braces outside of strings, and whether those are all of the data. Goes on to the state after `data`."""
        plain = not self._escape and b"\\" not in data
        text = data[1:] if self._escape else data
        if b"\\" in text:
            text = _ESCAPE.sub(b"", text)
        self._escape = text.endswith(b"\\") or (self._escape and not data)
        quoted = text.translate(None, _DROP)
        if self._in_string:
            quoted = b'"' + quoted
        # An empty string, or the end of one next to the start of another: either way without effect.
        quoted = quoted.replace(b'""', b"")
        if b'"' not in quoted:
            self._in_string = False
            return quoted, plain
        parts = quoted.split(b'"')
        self._in_string = len(parts) % 2 == 0
        return b"".join(parts[::2]), False

    def _cut(
        self, data: bytes, braces: bytes, plain: bool, depth: int, in_string: bool, escape: bool
    ) -> list[bytes | bytearray]:
        depths = list(accumulate(map(_STEP, braces), initial=depth))[1:]
        ends = [index for index, level in enumerate(depths) if level == 0]
        positions = _positions(data, in_string, escape, plain and not in_string)
        messages: list[bytes | bytearray] = []
        start = 0
        for end in ends:
            stop = positions[end] + 1
            messages.append(self._complete(data[start:stop]))
            start = stop
        rest = data[start:].lstrip(_WHITESPACE) if not self._pending else data[start:]
        if rest:
            self._keep(rest)
        self._depth = depths[-1] if depths else depth
        return messages

    def _complete(self, piece: bytes) -> bytes | bytearray:
        if not self._pending:
            message: bytes | bytearray = piece.lstrip(_WHITESPACE)
            self._check(message)
            return message
        self._keep(piece)
        message, self._pending = self._pending, bytearray()
        return message

    def _keep(self, piece: bytes) -> None:
        self._check(piece if not self._pending else self._pending, len(piece) if self._pending else 0)
        self._pending += piece

    def _check(self, message: bytes | bytearray, more: int = 0) -> None:
        if not message.startswith(b"{"):
            raise ProtocolError(f"a message begins with {bytes(message[:20])!r}, not with an object")
        if len(message) + more > self._max_bytes:
            raise MessageTooLong(f"a message of more than {self._max_bytes} bytes")


def _unmatched(braces: bytes) -> tuple[int, int]:
    """The number of closing braces that match nothing here, and of braces that match nothing at all."""
    before = -1
    while len(braces) != before:
        before = len(braces)
        braces = braces.replace(b"{}", b"")
    return braces.count(b"}"), len(braces)


def _positions(data: bytes, in_string: bool, escape: bool, plain: bool) -> list[int]:
    """The positions of the braces outside of strings."""
    if plain:
        return [match.start() for match in _BRACE.finditer(data)]
    found = []
    for match in _TOKEN.finditer(data, 1 if escape else 0):
        token = match[0]
        if token == b'"':
            in_string = not in_string
        elif not in_string and token in b"{}":
            found.append(match.start())
    return found
