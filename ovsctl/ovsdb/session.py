"""The JSON-RPC session of OVSDB without any input or output (RFC 7047 §4).

The one rule: bytes and the time go in, events and bytes to send come out; nothing here waits.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from .errors import ConnectionLost, ProtocolError
from .framing import Framer
from .jsontext import decode_json

MAX_MESSAGE_BYTES = 1 << 30
# The speed at which a server gets through a request: it answers nothing else meanwhile, no echo either. An
# ovsdb-server does 4 MB of inserts a second, so on a machine that is busy with other things it may take as long as this says.
SLOWEST_BYTES_PER_S = 500_000


class Reply(msgspec.Struct, frozen=True):
    """The answer to our request `id`. `error` is None exactly when `result` counts."""

    id: int
    result: msgspec.Raw
    error: object


class Notification(msgspec.Struct, frozen=True):
    """A message of the server that wants no answer: update3, locked, stolen and the like."""

    method: str
    params: msgspec.Raw


Event: TypeAlias = Reply | Notification

_NULL = msgspec.Raw(b"null")


class _Message(msgspec.Struct):
    id: Any = msgspec.UNSET
    method: str | None = None
    params: msgspec.Raw = _NULL
    result: msgspec.Raw = _NULL
    error: Any = None


_MESSAGE = msgspec.json.Decoder(_Message)
_encode = msgspec.json.Encoder().encode


class Session:
    """One connection's state: the requests in flight, what is to send, when the peer was last heard."""

    def __init__(
        self,
        *,
        now_s: float = 0.0,
        probe_interval_s: float | None = 5.0,
        doubt_after_s: float | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._framer = Framer(max_message_bytes)
        self._outgoing: list[bytes] = []
        self._in_flight: dict[int, int] = {}  # request to its size in bytes
        self._next_id = 0
        self._heard_s = now_s
        self._probed_s: float | None = None  # when an echo was queued that nothing was heard after
        self._probe_interval_s = probe_interval_s
        self._doubt_after_s = doubt_after_s
        self.doubtful = False

    # --- to the peer --------------------------------------------------------------------------

    def request(self, method: str, params: object) -> int:
        """Queue a request; returns the id that its Reply will carry."""
        self._next_id += 1
        message = _encode({"method": method, "params": params, "id": self._next_id})
        self._in_flight[self._next_id] = len(message)
        self._outgoing.append(message)
        return self._next_id

    def notify(self, method: str, params: object) -> None:
        """Queue a notification, which has no answer."""
        self._outgoing.append(_encode({"method": method, "params": params, "id": None}))

    def data_to_send(self) -> bytes:
        """The bytes to write now; handed out once."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    # --- from the peer ------------------------------------------------------------------------

    def receive(self, data: bytes, now_s: float = 0.0) -> list[Event]:
        """The events in what was read; answers to echo requests are queued for sending.

        Raises ProtocolError (and its kinds DecodeError, MessageTooLong), after which the session
        is of no more use.
        """
        self._heard_s = now_s
        self._probed_s = None
        self.doubtful = False
        events = []
        for message in self._framer.feed(data):
            event = self._event(message)
            if event is not None:
                events.append(event)
        return events

    def _event(self, text: bytes | bytearray) -> Event | None:
        message = decode_json(_MESSAGE, text, "JSON-RPC message")
        if message.method is None:
            return self._reply(message)
        if message.id is None or message.id is msgspec.UNSET:
            return Notification(message.method, message.params)
        self._answer(message)
        return None

    def _reply(self, message: _Message) -> Reply | None:
        if message.id == "echo":
            return None
        if not isinstance(message.id, int) or message.id not in self._in_flight:
            raise ProtocolError(f"an answer to a request that is not in flight: {str(message.id)[:40]}")
        del self._in_flight[message.id]
        return Reply(message.id, message.result, message.error)

    def _answer(self, message: _Message) -> None:
        """Answer a request of the server: only echo is known (RFC 7047 §4.1.11)."""
        if message.method == "echo":
            answer = {"id": message.id, "result": message.params, "error": None}
        else:
            answer = {"id": message.id, "result": None, "error": "unknown method"}
        self._outgoing.append(_encode(answer))

    # --- time ---------------------------------------------------------------------------------

    @property
    def tick_interval_s(self) -> float | None:
        """The period of ticks; None for never."""
        if self._probe_interval_s is None:
            return None
        return self._probe_interval_s / 2 if self._doubt_after_s is None else self._doubt_after_s / 3

    def tick(self, now_s: float) -> None:
        """Queue an echo when the peer was silent for one interval; raise ConnectionLost when it was silent for another one.

        The second one counts from the echo: it may be us who did nothing for long. While a large request is in flight the peer
        has the time to work on it besides. With `doubt_after_s` the echo goes out after that time already, and after as much
        again the peer is `doubtful` until it is heard: a reason to look at other servers, not to leave this one.
        """
        if self._probe_interval_s is None:
            return
        silent_s = now_s - self._heard_s
        if self._probed_s is None:
            if silent_s >= (self._doubt_after_s or self._probe_interval_s):
                self._probed_s = now_s
                self._outgoing.append(_encode({"method": "echo", "params": [], "id": "echo"}))
            return
        waited_s = now_s - self._probed_s - sum(self._in_flight.values()) / SLOWEST_BYTES_PER_S
        self.doubtful = self._doubt_after_s is not None and waited_s >= self._doubt_after_s
        if waited_s >= self._probe_interval_s:
            raise ConnectionLost(f"the server was silent for {silent_s:.1f} s")
