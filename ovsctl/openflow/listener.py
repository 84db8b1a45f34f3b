"""Switches that connect to us, as a bridge's controller (ovs-vswitchd.conf.db(5), table Controller, column `target`).

One rule: a connection goes to whoever asked for its datapath id, of a switch whose certificate has the name that was asked for. One that nobody asks
for within PATIENCE_S is closed; so is an older one of the same bridge, for a bridge has one connection to each of its controllers.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, cast

from . import messages as msg
from .connection import OpenFlowConnection
from .errors import ChannelLost, OpenFlowError
from .session import OpenFlowSession

HANDSHAKE_TIMEOUT_S = 10.0
PATIENCE_S = 10.0
MAX_WAITING = 256  # connections that are not greeted yet, and as many that nobody has asked for: the oldest go

Key = tuple[str, int]  # the name in the switch's certificate, "" without TLS, and the datapath id
Names = Callable[[Mapping[str, Any] | None], frozenset[str]]


class OpenFlowListener:
    """Listens at an address of this machine, "" for all. A port of 0 is any free one.

    tls: makes the server's context, for each connection anew, so that a renewed certificate is shown from the next one on; None for TCP. names: of a
    certificate. on_refused: called with the peer's address and the reason.
    """

    def __init__(
        self,
        port: int,
        address: str = "",
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        names: Names = lambda _: frozenset(),
        on_refused: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self.port = port
        self._address: Final = address
        self._tls: Final = tls
        self._names: Final = names
        self._on_refused: Final = on_refused
        self._server: asyncio.Server | None = None
        self._greeted: Final[dict[asyncio.Task[None], asyncio.Transport]] = {}  # those that are being greeted
        self._waiting: Final[dict[Key, OpenFlowConnection]] = {}  # those that nobody has asked for
        self._wanted: Final[dict[Key, asyncio.Future[OpenFlowConnection]]] = {}
        self._taken: Final[dict[Key, OpenFlowConnection]] = {}

    async def __aenter__(self) -> Self:
        """Listens. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.protocol, self._address or None, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._greeted):
            task.cancel()
        for connection in (*self._waiting.values(), *self._taken.values()):
            connection.abort()

    def protocol(self) -> asyncio.Protocol:
        """That of a connection which has just come."""
        return _Arrival(self._arrived)

    async def accept(self, datapath_id: int, name: str = "") -> OpenFlowConnection:
        """The next connection of the bridge with this datapath id. name: what its switch's certificate is for; with TLS it must be that."""
        key = (name if self._tls is not None else "", datapath_id)
        connection = self._waiting.pop(key, None)
        if connection is None or connection.lost is not None:
            future = self._wanted[key] = asyncio.get_running_loop().create_future()
            try:
                connection = await future
            finally:
                if self._wanted.get(key) is future:
                    del self._wanted[key]
        self._taken[key] = connection
        return connection

    # A connection, from its first byte on

    def _arrived(self, transport: asyncio.Transport) -> None:
        while len(self._greeted) >= MAX_WAITING:
            oldest = next(iter(self._greeted))
            oldest.cancel()
            del self._greeted[oldest]
        task = asyncio.get_running_loop().create_task(self._greet(transport))
        self._greeted[task] = transport
        task.add_done_callback(lambda done: self._greeted.pop(done, None))

    async def _greet(self, transport: asyncio.Transport) -> None:
        """Learns which bridge of which switch this is."""
        peer = _text(transport.get_extra_info("peername"))
        connection = OpenFlowConnection(OpenFlowSession(), _ignore, _ignore, _ignore)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                channel = await self._secured(transport, connection)
                connection.connection_made(channel)
                channel.resume_reading()
                await connection.ready
                features = await connection.call(msg.FeaturesRequest(), HANDSHAKE_TIMEOUT_S)
        except TimeoutError:
            self._on_refused(peer, f"said nothing for {HANDSHAKE_TIMEOUT_S:g} s")
            transport.abort()
        except (ConnectionError, ChannelLost):
            transport.abort()  # it went by itself
        except (OSError, OpenFlowError) as error:
            self._on_refused(peer, str(error))
            transport.abort()
        except asyncio.CancelledError:
            transport.abort()
            raise
        else:
            self._place(peer, connection, features.datapath_id)

    async def _secured(self, transport: asyncio.Transport, protocol: OpenFlowConnection) -> asyncio.Transport:
        """The transport that OpenFlow goes over. Raises OSError, ssl.SSLError among them."""
        if self._tls is None:
            transport.set_protocol(protocol)
            return transport
        secured = await asyncio.get_running_loop().start_tls(
            transport, protocol, self._tls(), server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
        )
        if secured is None:
            raise ConnectionResetError("went away in the handshake")
        return secured

    def _place(self, peer: str, connection: OpenFlowConnection, datapath_id: int) -> None:
        """Gives a connection to who waits for it, or has it wait to be asked for."""
        names = sorted(self._names(connection.peer("peercert"))) if self._tls is not None else [""]
        keys = [(name, datapath_id) for name in names]
        if not keys:
            self._on_refused(peer, "its certificate has no name")
            connection.abort()
            return
        key = next((key for key in keys if key in self._wanted or key in self._taken), keys[0])
        if (older := self._taken.pop(key, None)) is not None:
            older.abort(ChannelLost("the switch has connected anew"))
        future = self._wanted.get(key)
        if future is not None and not future.done():
            future.set_result(connection)
            return
        if (older := self._waiting.pop(key, None)) is not None:
            older.abort()
        while len(self._waiting) >= MAX_WAITING:
            self._waiting.pop(next(iter(self._waiting))).abort()
        self._waiting[key] = connection
        asyncio.get_running_loop().call_later(PATIENCE_S, self._expire, peer, key, connection)

    def _expire(self, peer: str, key: Key, connection: OpenFlowConnection) -> None:
        if self._waiting.get(key) is connection:
            del self._waiting[key]
            if connection.lost is None:
                owner = f" with the certificate of {key[0]}" if key[0] else ""
                self._on_refused(peer, f"a bridge with datapath id {key[1]:016x}{owner}, which nobody here waits for")
                connection.abort()


class _Arrival(asyncio.Protocol):
    """Reads nothing until it is known what for."""

    def __init__(self, arrived: Callable[[asyncio.Transport], None]) -> None:
        self._arrived: Final = arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # what asyncio promises for a stream
        with suppress(RuntimeError):  # it is closed already
            stream.pause_reading()
        self._arrived(stream)


def _ignore(_: object) -> None:
    """Nobody hears this connection yet."""


def _text(address: object) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)
