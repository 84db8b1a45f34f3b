"""One OpenFlow 1.5 connection without I/O: bytes in give events, calls give bytes to send.

One rule: every answer goes to the request or the modification that caused it, by transaction id; what fits
nothing is reported, never guessed at. Memory is bounded by one message, `max_reply_bytes` per open request
and `MAX_BATCH_ERRORS` per batch.

    state        message    next
    WAIT_HELLO   hello      READY, or FAILED without a common version
    WAIT_HELLO   other      FAILED
    READY        any        READY
    READY        bad frame  FAILED
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Protocol

import msgspec

from .errors import InvalidValueError, MalformedMessage, NegotiationError, PeerError, TooLong
from .flow import Flow, FlowModCommand
from .messages import (
    ASYNC_DECODERS,
    MULTIPART_DECODERS,
    REPLY_DECODERS,
    ErrorMessage,
    Hello,
    MessageType,
    MultipartRequest,
    MultipartType,
    bundle_add_head,
    decode_multipart_header,
    multipart_body,
)
from .messages.bundle import BundleFlags
from .text import format_flow
from .wire import HEADER, OFP15_VERSION, MessageFramer, Reader, frame

MAX_BATCH_ERRORS = 1000
CHUNK_BYTES = 64 * 1024  # measured: small pieces keep the switch busy while we encode the next
_MAX_XID = 0xFFFFFFFF


class Sendable(Protocol):
    """A message or modification that knows its type and body."""

    @property
    def TYPE(self) -> int: ...

    def encode(self) -> bytes: ...


class State(Enum):
    WAIT_HELLO = auto()
    READY = auto()
    FAILED = auto()


class Ready(msgspec.Struct, frozen=True):
    """Versions were exchanged; requests may be sent."""


class RequestAnswered(msgspec.Struct, frozen=True):
    """The whole answer to request `xid`; for a multipart request `value` is the list of entries."""

    xid: int
    value: Any


class RequestFailed(msgspec.Struct, frozen=True):
    """Request `xid` failed: the switch said so (PeerError) or its answer makes no sense (MalformedMessage)."""

    xid: int
    error: PeerError | MalformedMessage


class Notice(msgspec.Struct, frozen=True):
    """An asynchronous message: packet-in, port status, flow removed, role status, flow updates (a list)."""

    value: Any


class Stray(msgspec.Struct, frozen=True):
    """Something that fits no request: `error` says what. The connection is still good."""

    xid: int
    error: PeerError | MalformedMessage


Event = Ready | RequestAnswered | RequestFailed | Notice | Stray

_ANSWERED_BY: Mapping[int, int] = {
    MessageType.ECHO_REQUEST: MessageType.ECHO_REPLY,
    MessageType.FEATURES_REQUEST: MessageType.FEATURES_REPLY,
    MessageType.GET_CONFIG_REQUEST: MessageType.GET_CONFIG_REPLY,
    MessageType.BARRIER_REQUEST: MessageType.BARRIER_REPLY,
    MessageType.ROLE_REQUEST: MessageType.ROLE_REPLY,
    MessageType.GET_ASYNC_REQUEST: MessageType.GET_ASYNC_REPLY,
    MessageType.BUNDLE_CONTROL: MessageType.BUNDLE_CONTROL,
    MessageType.MULTIPART_REQUEST: MessageType.MULTIPART_REPLY,
}


class _Pending(msgspec.Struct):
    """A request that waits for its answer."""

    request: object
    answer: int
    multipart: int = -1
    entries: list[Any] = msgspec.field(default_factory=list)
    size_bytes: int = 0
    forgotten: bool = False


class Batch:
    """Modifications with consecutive transaction ids, and the errors that came back for them."""

    __slots__ = ("errors", "first_xid", "mods", "refused")

    def __init__(self, first_xid: int, mods: Sequence[Sendable]) -> None:
        self.first_xid = first_xid
        self.mods = mods
        self.errors: list[PeerError] = []
        self.refused = 0

    def __contains__(self, xid: int) -> bool:
        return self.first_xid <= xid < self.first_xid + len(self.mods)

    def add(self, message: ErrorMessage, xid: int) -> None:
        self.refused += 1
        if len(self.errors) < MAX_BATCH_ERRORS:
            self.errors.append(_peer_error(message, xid, self.mods[xid - self.first_xid]))


class OpenFlowSession:
    """The protocol state of one connection."""

    def __init__(self, *, max_reply_bytes: int = 1 << 30) -> None:
        self.state = State.WAIT_HELLO
        self._max_reply_bytes = max_reply_bytes
        self._framer = MessageFramer()
        self._next_xid = 1
        self._pending: dict[int, _Pending] = {}
        self._batches: list[Batch] = []
        self._outgoing: list[bytes] = []

    # -- what we send ------------------------------------------------------------------------------------

    def hello(self) -> bytes:
        """The first message of the connection."""
        return frame(Hello.TYPE, self._take_xids(1), Hello().encode())

    def request(self, message: Sendable) -> tuple[int, bytes]:
        """(transaction id, bytes) of a message that the switch answers."""
        xid = self._take_xids(1)
        self._pending[xid] = _Pending(message, _ANSWERED_BY[message.TYPE])
        return xid, frame(message.TYPE, xid, message.encode())

    def multipart(self, request: MultipartRequest) -> tuple[int, bytes]:
        """(transaction id, bytes) of a multipart request."""
        xid = self._take_xids(1)
        answer = MessageType.MULTIPART_REPLY
        data = frame(MessageType.MULTIPART_REQUEST, xid, multipart_body(request))
        self._pending[xid] = _Pending(request, answer, request.MULTIPART)
        return xid, data

    def send(self, message: Sendable) -> bytes:
        """The bytes of a message without an answer; an error for it comes as a Stray."""
        return frame(message.TYPE, self._take_xids(1), message.encode())

    def forget(self, xid: int) -> None:
        """Nobody waits for the answer to `xid` any more: it is swallowed when it comes."""
        pending = self._pending.get(xid)
        if pending is not None:
            pending.forgotten = True
            pending.entries.clear()

    def open_batch(self, mods: Sequence[Sendable]) -> Batch:
        """Reserve transaction ids for `mods` and collect their errors until `close_batch`."""
        batch = Batch(self._take_xids(len(mods)), mods)
        self._batches.append(batch)
        return batch

    def close_batch(self, batch: Batch) -> None:
        self._batches.remove(batch)

    def take_outgoing(self) -> bytes:
        """Answers to the switch's echo requests, to be sent at once."""
        if not self._outgoing:
            return b""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    def _take_xids(self, count: int) -> int:
        """The first of `count` consecutive ids. 0 is the switch's own, for asynchronous messages."""
        first = self._next_xid
        if first + count > _MAX_XID:
            first = 1
        taken = sorted(xid for xid in self._pending if first <= xid < first + count) if first == 1 else ()
        if taken:
            first = taken[-1] + 1
        self._next_xid = first + count
        return first

    # -- what we receive ---------------------------------------------------------------------------------

    def receive(self, data: bytes) -> Iterator[Event]:
        """Events of the messages that `data` completes; iterate to the end.

        Raises NegotiationError or MalformedMessage when the connection cannot go on; close it then.
        """
        try:
            for version, message_type, xid, body in self._framer.feed(data):
                yield from self._message(version, message_type, xid, body)
        except (NegotiationError, MalformedMessage):
            self.state = State.FAILED
            raise

    def _message(self, version: int, message_type: int, xid: int, body: bytes) -> Iterator[Event]:
        if self.state is State.READY:
            # Open vSwitch 3.1 answers a refused flow monitor with an error whose header is garbage.
            if version != OFP15_VERSION and message_type != MessageType.ERROR:
                raise MalformedMessage("message", f"version {version:#04x} after agreeing on {OFP15_VERSION:#04x}")
            event = self._ready_message(message_type, xid, body)
            if event is not None:
                yield event
        elif self.state is State.WAIT_HELLO:
            self._negotiate(version, message_type, body)
            self.state = State.READY
            yield Ready()
        else:
            raise MalformedMessage("message", "the session has already failed")

    def _negotiate(self, version: int, message_type: int, body: bytes) -> None:
        if message_type == MessageType.ERROR:
            error = ErrorMessage.decode(Reader(body))
            raise NegotiationError(f"the switch refused our hello: {error.name} {error.data!r}")
        if message_type != MessageType.HELLO:
            raise NegotiationError(f"expected a hello first, got message type {message_type}")
        offered = Hello.decode(Reader(body), version).versions
        if OFP15_VERSION not in offered:
            versions = ", ".join(f"{number:#04x}" for number in sorted(offered)) or "none"
            raise NegotiationError(
                f"the switch offers OpenFlow versions {versions}, we need 0x06 (1.5); "
                "set the bridge's protocols to include OpenFlow15"
            )

    def _ready_message(self, message_type: int, xid: int, body: bytes) -> Event | None:
        if message_type == MessageType.ECHO_REQUEST:
            self._outgoing.append(frame(MessageType.ECHO_REPLY, xid, body))
            return None
        if message_type == MessageType.ERROR:
            return self._error(xid, body)
        pending = self._pending.get(xid)
        if pending is not None and pending.answer == message_type:
            return self._answer(xid, pending, message_type, body)
        return _notice(message_type, xid, body)

    def _error(self, xid: int, body: bytes) -> Event | None:
        try:
            message = ErrorMessage.decode(Reader(body))
        except MalformedMessage as error:
            return Stray(xid, error)
        pending = self._pending.pop(xid, None)
        if pending is not None:
            return None if pending.forgotten else RequestFailed(xid, _peer_error(message, xid, pending.request))
        for batch in self._batches:
            if xid in batch:
                batch.add(message, xid)
                return None
        return Stray(xid, _peer_error(message, xid, None))

    def _answer(self, xid: int, pending: _Pending, message_type: int, body: bytes) -> Event | None:
        try:
            if pending.multipart >= 0:
                return self._part(xid, pending, body)
            del self._pending[xid]
            return None if pending.forgotten else RequestAnswered(xid, REPLY_DECODERS[message_type](Reader(body)))
        except MalformedMessage as error:
            self._pending.pop(xid, None)
            return None if pending.forgotten else RequestFailed(xid, error)

    def _part(self, xid: int, pending: _Pending, body: bytes) -> Event | None:
        reader = Reader(body)
        kind, more = decode_multipart_header(reader)
        if kind != pending.multipart:
            raise MalformedMessage("multipart reply", f"type {kind} for a request of type {pending.multipart}")
        if not pending.forgotten:
            pending.size_bytes += len(body)
            if pending.size_bytes > self._max_reply_bytes:
                raise MalformedMessage("multipart reply", f"exceeds {self._max_reply_bytes} bytes")
            pending.entries.extend(MULTIPART_DECODERS[kind](reader))
        if more:
            return None
        del self._pending[xid]
        return None if pending.forgotten else RequestAnswered(xid, pending.entries)


def _peer_error(message: ErrorMessage, xid: int, request: object) -> PeerError:
    numbers = (message.type_code, message.code, message.experimenter)
    return PeerError(message.name, *numbers, xid, message.data, request, _describe(request))


def _describe(request: object) -> str:
    """A flow modification as ovs-ofctl would write it; nothing for anything else, whose repr says enough."""
    flow, command = getattr(request, "flow", None), getattr(request, "command", None)
    if isinstance(flow, Flow) and isinstance(command, FlowModCommand):
        return f"{command.name} {format_flow(flow)}"
    return ""


def _notice(message_type: int, xid: int, body: bytes) -> Event:
    """The event of a message that answers no request of ours."""
    reader = Reader(body)
    try:
        if message_type == MessageType.MULTIPART_REPLY and xid == 0:
            kind, _more = decode_multipart_header(reader)
            if kind == MultipartType.FLOW_MONITOR:
                return Notice(list(MULTIPART_DECODERS[kind](reader)))
        elif message_type in ASYNC_DECODERS:
            return Notice(ASYNC_DECODERS[message_type](reader))
    except MalformedMessage as error:
        return Stray(xid, error)
    return Stray(xid, MalformedMessage("message", f"type {message_type} answers no request of ours"))


def mod_chunks(batch: Batch, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The messages of a batch in pieces of about `chunk_bytes`. Raises TooLong at one that is."""

    def head(message_type: int, xid: int, length: int) -> bytes:
        return HEADER.pack(OFP15_VERSION, message_type, HEADER.size + length, xid)

    return _chunks(batch, head, chunk_bytes)


def bundle_chunks(batch: Batch, bundle_id: int, flags: BundleFlags, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Like `mod_chunks`, each message wrapped to be added to a bundle."""
    bits = int(flags)

    def head(message_type: int, xid: int, length: int) -> bytes:
        return bundle_add_head(bundle_id, bits, message_type, xid, length)

    return _chunks(batch, head, chunk_bytes)


def _chunks(batch: Batch, head: Callable[[int, int, int], bytes], chunk_bytes: int) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    xid = batch.first_xid
    for mod in batch.mods:
        try:
            body = mod.encode()
            parts.append(head(mod.TYPE, xid, len(body)))
        except (struct.error, InvalidValueError) as error:
            raise TooLong(mod, str(error)) from error
        parts.append(body)
        xid += 1
        size += len(body)
        if size >= chunk_bytes:
            yield b"".join(parts)
            parts.clear()
            size = 0
    if parts:
        yield b"".join(parts)
