"""The OpenFlow header, its framing, and a bounded reader of big-endian records.

One rule: no byte from the peer is believed before its length has been checked, and every fault is a MalformedMessage.

    |0        7|8       15|16              31|32                            63|
    | version  |   type   |      length      |              xid               |   OpenFlow 1.5 §7.1.1
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any

from .errors import MalformedMessage

OFP15_VERSION = 0x06
HEADER = Struct("!BBHI")
MAX_MESSAGE = 0xFFFF

_PROPERTY = Struct("!HH")


def frame(message_type: int, xid: int, body: bytes = b"") -> bytes:
    """One OpenFlow 1.5 message. Raises struct.error when the body exceeds 65,527 bytes."""
    return HEADER.pack(OFP15_VERSION, message_type, HEADER.size + len(body), xid) + body


def pad8(length: int) -> int:
    """The number of zero bytes that align `length` to eight."""
    return -length % 8


class MessageFramer:
    """Cuts a byte stream into messages, holding at most one incomplete message (65,535 bytes) plus one read."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def buffered(self) -> int:
        """Bytes held that do not make a whole message yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield (version, type, xid, body) of each message completed by `data`; iterate to the end.

        Raises MalformedMessage at a length below the header's: the stream cannot be followed any further.
        """
        buffer = self._buffer + data if self._buffer else data
        position, end = 0, len(buffer)
        self._buffer = b""
        while end - position >= HEADER.size:
            version, message_type, length, xid = HEADER.unpack_from(buffer, position)
            if length < HEADER.size:
                problem = f"type {message_type} claims {length} bytes, less than the header's own"
                raise MalformedMessage("message", problem)
            if end - position < length:
                break
            body = buffer[position + HEADER.size : position + length]
            position += length
            yield version, message_type, xid, body
        self._buffer = buffer[position:]


class Reader:
    """A cursor over `data` that never reads past its end."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = position
        self.end = len(data) if end is None else end

    @property
    def remaining(self) -> int:
        return self.end - self.position

    def unpack(self, record: Struct, subject: str) -> tuple[Any, ...]:
        """The fields of `record` at the cursor; `subject` names it in the error."""
        start = self.position
        if self.end - start < record.size:
            raise MalformedMessage(subject, f"needs {record.size} bytes, {self.end - start} left at byte {start}")
        self.position = start + record.size
        return record.unpack_from(self.data, start)

    def take(self, length: int, subject: str) -> bytes:
        """The next `length` bytes."""
        if not 0 <= length <= self.remaining:
            raise MalformedMessage(subject, f"needs {length} bytes, {self.remaining} left at byte {self.position}")
        start = self.position
        self.position = start + length
        return self.data[start : self.position]

    def skip_pad8(self, length: int) -> None:
        """Step over the padding after a record of `length` bytes, as far as it is there."""
        self.position = min(self.end, self.position + pad8(length))

    def rest(self) -> bytes:
        """All bytes left."""
        return self.take(self.remaining, "rest")

    def sub(self, length: int, minimum: int, subject: str) -> Reader:
        """A reader of the next `length` bytes, which must be at least `minimum`."""
        if length < minimum or length > self.remaining:
            raise MalformedMessage(subject, f"claims {length} bytes, {self.remaining} left at byte {self.position}")
        start = self.position
        self.position = start + length
        return Reader(self.data, start, self.position)

    def entries(self, length_at: int, minimum: int, subject: str) -> Iterator[Reader]:
        """Readers of consecutive entries whose own 16-bit length is `length_at` bytes into each."""
        while self.remaining:
            if self.remaining < minimum:
                raise MalformedMessage(subject, f"cut short, {self.remaining} bytes left at byte {self.position}")
            at = self.position + length_at
            yield self.sub(int.from_bytes(self.data[at : at + 2], "big"), minimum, subject)

    def properties(self, subject: str) -> Iterator[tuple[int, Reader]]:
        """(type, payload) of consecutive type-length-value properties, each padded to eight bytes."""
        while self.remaining:
            start = self.position
            kind, length = self.unpack(_PROPERTY, subject)
            self.position = start
            payload = self.sub(length, _PROPERTY.size, subject)
            payload.position += _PROPERTY.size
            self.skip_pad8(length)
            yield kind, payload


def encode_property(number: int, payload: bytes) -> bytes:
    """One type-length-value property with its padding."""
    length = _PROPERTY.size + len(payload)
    return _PROPERTY.pack(number, length) + payload + bytes(pad8(length))
