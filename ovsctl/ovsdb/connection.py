"""One connection: a session on an asyncio transport, with a future per request in flight.

The one rule: every future ends, with its answer or with ConnectionLost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from .errors import ConnectionLost, OvsdbError, ProtocolError, RequestError, request_error
from .session import Notification, Reply, Session

ReplyHandler = Callable[[msgspec.Raw], object]


class Connection(asyncio.Protocol):
    """`on_notification` and reply handlers run as messages are read, in their order."""

    def __init__(
        self,
        on_notification: Callable[[Connection, Notification], None],
        on_lost: Callable[[Connection], None],
        *,
        probe_interval_s: float | None,
        doubt_after_s: float | None,
        max_message_bytes: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.session = Session(
            now_s=self._loop.time(),
            probe_interval_s=probe_interval_s,
            doubt_after_s=doubt_after_s,
            max_message_bytes=max_message_bytes,
        )
        self._on_notification, self._on_lost = on_notification, on_lost
        self._max_bytes = max_message_bytes
        self._calls: dict[int, tuple[asyncio.Future[Any], ReplyHandler | None, str]] = {}
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.error: OvsdbError | None = None
        self.lost = asyncio.Event()
        self.doubted = asyncio.Event()  # the peer is silent, or lost
        self.heard = asyncio.Event()  # the peer is not silent any more, or lost
        self.heard.set()

    def call(self, method: str, params: object, handler: ReplyHandler | None = None) -> asyncio.Future[Any]:
        """Send a request; the future has the result, passed through `handler` as soon as it is read.

        Without a handler the result is a msgspec.Raw. The future raises RequestError, ConnectionLost,
        or what the handler raises.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        future.add_done_callback(_retrieved)
        if self._transport is None:
            future.set_exception(self.error or ConnectionLost("not connected"))
            return future
        request = self.session.request(method, params)
        self._calls[request] = (future, handler, method)
        self._flush()
        return future

    def cancel(self, call: asyncio.Future[Any]) -> None:
        """Ask the server to give up on a call; its answer still comes (RFC 7047 §4.1.4)."""
        for request, (future, _handler, _method) in self._calls.items():
            if future is call:
                self.session.notify("cancel", [request])
        self._flush()

    def close(self, error: OvsdbError) -> None:
        """End the connection now; everything in flight ends with ConnectionLost."""
        if self.error is None:
            self.error = error
        if self._transport is not None:
            self._transport.abort()
            self._end()

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._arm()

    def data_received(self, data: bytes) -> None:
        if not self.heard.is_set():
            self.doubted.clear()
            self.heard.set()
        try:
            for event in self.session.receive(data, self._loop.time()):
                if self._transport is None:
                    break  # what an earlier event led to has ended the connection
                if isinstance(event, Reply):
                    self._reply(event)
                else:
                    self._on_notification(self, event)
        except ProtocolError as error:
            self.close(error)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.error is None:
            self.error = ConnectionLost(f"connection lost: {exc or 'closed by the server'}")
        self._end()

    # --- private --------------------------------------------------------------------------------

    def _reply(self, reply: Reply) -> None:
        future, handler, method = self._calls.pop(reply.id)
        if reply.error is not None:
            _fail(future, _refusal(reply.error, method))
            return
        try:
            result = reply.result if handler is None else handler(reply.result)
        except OvsdbError as error:
            _fail(future, error)
            if isinstance(error, ProtocolError):
                raise
            return
        if not future.done():
            future.set_result(result)

    def _flush(self) -> None:
        data = self.session.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > self._max_bytes + len(data):
                self.close(ProtocolError("the server does not read what it asks for"))

    def _arm(self) -> None:
        if self.session.tick_interval_s is not None:
            self._timer = self._loop.call_later(self.session.tick_interval_s, self._tick)

    def _tick(self) -> None:
        try:
            self.session.tick(self._loop.time())
        except ConnectionLost as error:
            self.close(error)
            return
        if self.session.doubtful and self.heard.is_set():
            self.heard.clear()
            self.doubted.set()
        self._flush()
        self._arm()

    def _end(self) -> None:
        if self._transport is None:
            return
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        calls, self._calls = self._calls, {}
        for future, _handler, method in calls.values():
            _fail(future, ConnectionLost(f"{method}: {self.error}"))
        for event in (self.lost, self.doubted, self.heard):
            event.set()
        self._on_lost(self)


def _fail(future: asyncio.Future[Any], error: OvsdbError) -> None:
    if not future.done():
        future.set_exception(error)


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Marks the error as retrieved: the caller may have been cancelled, and asyncio logs errors that nobody retrieves."""
    if not future.cancelled():
        future.exception()


def _refusal(error: Any, method: str) -> RequestError:
    match error:
        case {"error": str(name)}:
            return request_error(name, str(error.get("details", "")), method)
        case str(name):
            return request_error(name, "", method)
    return request_error("error", repr(error)[:200], method)
