"""The asyncio shell around a Session: sockets, futures, flow control, keepalive.

One rule: it decides nothing about OpenFlow; it moves bytes, wakes who waits, and tells everybody at once when
the connection is gone.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Callable
from typing import Any, cast

from .errors import ChannelLost, InvalidValueError, MalformedMessage, NegotiationError, OpenFlowError, RequestTimeout
from .messages import EchoRequest, MultipartRequest
from .session import Event, Notice, OpenFlowSession, Ready, RequestAnswered, RequestFailed, Sendable, Stray

DEFAULT_PORT = 6653  # OpenFlow 1.5 §6.3.3
WRITE_HIGH_WATER_BYTES = 1 << 18


class OpenFlowConnection(asyncio.Protocol):
    """One connection. Made by `open_connection`."""

    def __init__(
        self,
        session: OpenFlowSession,
        on_notice: Callable[[Any], None],
        on_stray: Callable[[Stray], None],
        on_lost: Callable[[ChannelLost], None],
    ) -> None:
        self._session = session
        self._on_notice = on_notice
        self._on_stray = on_stray
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._drained = asyncio.Event()
        self._drained.set()
        self._heard = True
        self._probe_timer: asyncio.TimerHandle | None = None
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.lost: ChannelLost | None = None
        self._cause: OpenFlowError | None = None

    # -- asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # what asyncio promises for a stream
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self._transport.write(self._session.hello())

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            for event in self._session.receive(data):
                self._dispatch(event)
        except (NegotiationError, MalformedMessage) as error:
            self.abort(error)
            return
        outgoing = self._session.take_outgoing()
        if outgoing:
            self.write(outgoing)

    def connection_lost(self, exc: Exception | None) -> None:
        cause = self._cause or exc
        reason = "closed by the switch" if cause is None else str(cause)
        self.lost = lost = ChannelLost(f"OpenFlow connection lost: {reason}")
        lost.__cause__ = cause
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        if not self.ready.done():
            failed = self._cause if isinstance(self._cause, NegotiationError) else lost
            self.ready.set_exception(failed)
            self.ready.exception()  # nobody may have come to wait for it
        self._drained.set()
        futures, self._futures = self._futures, {}
        for future in futures.values():
            if not future.done():
                future.set_exception(lost)
                future.exception()  # not every caller awaits; that is no news then
        self._on_lost(lost)

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    # -- for a listener ----------------------------------------------------------------------------------

    @property
    def session(self) -> OpenFlowSession:
        return self._session

    def peer(self, name: str) -> Any:
        """What asyncio's transport knows of the other end: `peername`, `peercert`, None for what it does not."""
        return self._transport.get_extra_info(name)

    def take(
        self,
        on_notice: Callable[[Any], None],
        on_stray: Callable[[Stray], None],
        on_lost: Callable[[ChannelLost], None],
    ) -> None:
        """Has somebody else hear what comes from now on. Raises ChannelLost when nothing does any more."""
        if self.lost is not None:
            raise self.lost
        self._on_notice, self._on_stray, self._on_lost = on_notice, on_stray, on_lost

    # -- for the client ----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket. Raises ChannelLost when there is none any more."""
        if self.lost is not None:
            raise self.lost
        self._transport.write(data)

    async def drain(self) -> None:
        """Let the loop read and write; wait while more than WRITE_HIGH_WATER_BYTES are unsent."""
        await asyncio.sleep(0)
        await self._drained.wait()
        if self.lost is not None:
            raise self.lost

    def prepare(self, message: Sendable) -> tuple[asyncio.Future[Any], bytes]:
        """A future of the answer to `message`, and the bytes for the caller to write."""
        xid, data = self._session.request(message)
        return self._future(xid), data

    def fire(self, message: Sendable) -> None:
        """Send a message and ignore its answer."""
        future, data = self.prepare(message)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.write(data)

    async def call(self, message: Sendable, timeout_s: float) -> Any:
        """Send a message and return its answer. Raises PeerError, RequestTimeout, ChannelLost."""
        future, data = self.prepare(message)
        self.write(data)
        return await wait(future, timeout_s)

    async def multipart(self, request: MultipartRequest, timeout_s: float) -> list[Any]:
        """Send a multipart request and return all entries of all parts of its answer."""
        xid, data = self._session.multipart(request)
        future = self._future(xid)
        self.write(data)
        entries: list[Any] = await wait(future, timeout_s)
        return entries

    def start_probing(self, interval_s: float) -> None:
        """Ask for an echo after each `interval_s` of silence, give up after another."""
        self._heard = True
        self._probe_timer = self._loop.call_later(interval_s, self._probe, interval_s, None)

    def abort(self, cause: OpenFlowError | None = None) -> None:
        """Drop the connection now; `connection_lost` follows."""
        self._cause = self._cause or cause
        self._transport.abort()

    # -- inside ------------------------------------------------------------------------------------------

    def _future(self, xid: int) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        self._futures[xid] = future
        future.add_done_callback(lambda _future: self._settled(xid))
        return future

    def _settled(self, xid: int) -> None:
        self._futures.pop(xid, None)
        self._session.forget(xid)

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, RequestAnswered):
            future = self._futures.get(event.xid)
            if future is not None and not future.done():
                future.set_result(event.value)
        elif isinstance(event, Notice):
            self._on_notice(event.value)
        elif isinstance(event, RequestFailed):
            future = self._futures.get(event.xid)
            if future is not None and not future.done():
                future.set_exception(event.error)
        elif isinstance(event, Stray):
            self._on_stray(event)
        elif isinstance(event, Ready) and not self.ready.done():
            self.ready.set_result(None)

    def _probe(self, interval_s: float, waiting: asyncio.Future[Any] | None) -> None:
        if not self._heard and waiting is not None and not waiting.done():
            self.abort(RequestTimeout(f"the switch was silent for {2 * interval_s:g} s"))
            return
        waiting = None
        if not self._heard:
            waiting, data = self.prepare(EchoRequest())
            self.write(data)
        self._heard = False
        self._probe_timer = self._loop.call_later(interval_s, self._probe, interval_s, waiting)


async def wait(future: asyncio.Future[Any], timeout_s: float) -> Any:
    """The future's result; RequestTimeout after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await future
    except TimeoutError:
        raise RequestTimeout(f"the switch did not answer within {timeout_s:g} s") from None


async def open_connection(
    remote: str, make: Callable[[], OpenFlowConnection], ssl: ssl_module.SSLContext | None, timeout_s: float
) -> OpenFlowConnection:
    """Connect to `unix:PATH`, `tcp:HOST[:PORT]` or `ssl:HOST[:PORT]` and exchange hellos.

    Raises InvalidValueError for another remote, ChannelLost when nobody listens, NegotiationError, RequestTimeout.
    """
    loop = asyncio.get_running_loop()
    kind, _, address = remote.partition(":")
    connection: OpenFlowConnection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            if kind == "unix" and address:
                _, connection = await loop.create_unix_connection(make, address)
            elif (kind == "tcp" or (kind == "ssl" and ssl)) and address:
                host, port = _host_port(address)
                context = ssl if kind == "ssl" else None
                _, connection = await loop.create_connection(make, host, port, ssl=context)
            else:
                raise InvalidValueError(
                    f"remote {remote!r}: expected unix:PATH, tcp:HOST[:PORT] or ssl:HOST[:PORT] with `ssl` given"
                )
            await connection.ready
    except TimeoutError:
        if connection is not None:
            connection.abort()
        raise RequestTimeout(f"{remote}: no OpenFlow hello within {timeout_s:g} s") from None
    except OSError as error:
        raise ChannelLost(f"{remote}: {error}") from error
    return connection


def _host_port(address: str) -> tuple[str, int]:
    """HOST[:PORT], where an IPv6 host is in brackets."""
    host, separator, port = address.rpartition(":")
    if not separator or address.endswith("]"):
        host, port = address, str(DEFAULT_PORT)
    if not port.isdecimal() or not 0 < int(port) <= 0xFFFF:
        raise InvalidValueError(f"port {port!r} is not 1..65535")
    return host.removeprefix("[").removesuffix("]"), int(port)
