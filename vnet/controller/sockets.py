"""The sockets that the API is served on.

One rule: a unix socket is for its owner and group, all others for who has the token, and off loopback by TLS.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import uvicorn

from vnet.api.errors import Invalid
from vnet.controller.app import Asgi
from vnet.controller.connections import ApiConnection, Connections, Standing
from vnet.util.loopback import is_loopback
from vnet.util.transport import TransportError, listening_socket

SOCKET_MODE = 0o660
_GRACE_S = 1
_SHORT_S = 0.5  # to the next try, where a connection could not be accepted

log = logging.getLogger("vnet.controller.sockets")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: a unix socket's path, or host and port of TCP. secure: by TLS."""

    path: Path | None = None
    host: str = ""
    port: int = 0
    secure: bool = False

    @classmethod
    def parse(cls, text: str) -> Listen:
        """unix:PATH, https://HOST:PORT or tcp:HOST:PORT, an IPv6 host in brackets; raises Invalid."""
        secure = text.startswith("https://")
        kind, _, rest = text.replace("https://", "tcp:", 1).partition(":")
        if kind == "unix" and rest:
            return cls(path=Path(rest))
        host, _, port = rest.rpartition(":")
        if kind == "tcp" and host and port.isascii() and port.isdigit() and int(port) < 65536:
            return cls(host=host.strip("[]"), port=int(port), secure=secure)
        raise Invalid("listen", f"expected unix:PATH, https://HOST:PORT or tcp:HOST:PORT, got {text!r}")

    def check(self, cleartext: bool) -> None:
        """Raises TransportError for cleartext off loopback, unless it is asked for."""
        if self.path is None and not (self.secure or cleartext or is_loopback(self.host)):
            secure = replace(self, secure=True)
            raise TransportError(f"{self} is cleartext off loopback: use {secure}, or add --cleartext (docs/trust.md)")

    def bind(self) -> socket.socket:
        """A listening socket; a unix socket that a dead controller left is replaced. Raises OSError."""
        if self.path is None:
            return listening_socket(self.host, self.port)
        made = socket.socket(socket.AF_UNIX)
        self._remove_dead(self.path)
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            made.bind(str(self.path))
        finally:
            os.umask(before)
        made.listen(128)
        return made

    @staticmethod
    def _remove_dead(path: Path) -> None:
        if not path.exists():
            return
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(f"{path} is there and is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise OSError(f"another controller listens on {path}")
        path.unlink()

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https://' if self.secure else 'tcp:'}{host}:{self.port}"


class Server(uvicorn.Server):
    """uvicorn as a task of ours, on one socket: signals, logs and connections are the daemon's.

    tls: for an https address. standing: that of a connection which has just come.
    """

    def __init__(
        self,
        app: Asgi,
        listening: socket.socket,
        connections: Connections,
        standing: Standing = Standing.LOCAL,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_GRACE_S,
            timeout_keep_alive=connections.limits.idle_s,
            server_header=False,
            h11_max_incomplete_event_size=64 * 1024,
        )
        super().__init__(config)
        self._listening: Final = listening
        self._connections: Final = connections
        self._standing: Final = standing
        self._tls: Final = tls
        self._begun: Final[set[asyncio.Task[None]]] = set()
        self._accepting: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts by itself: asyncio's own accepting logs each one that fails, and 2,000 fail at once where descriptors are short."""
        self.servers = []
        self._listening.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
        for begun in self._begun:
            begun.cancel()
        self._listening.close()
        await super().shutdown(sockets)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listening)
            except OSError as error:
                self._connections.counts["not accepted"] += 1
                log.warning("no connection can be accepted: %s", error)
                await asyncio.sleep(_SHORT_S)
                continue
            connection = ApiConnection(self.config, self.server_state, self._connections, self._standing)
            if not self._connections.enter(connection):
                _turn_away(accepted)
                continue
            connection.begin = asyncio.create_task(self._begin(accepted, connection))
            self._begun.add(connection.begin)
            connection.begin.add_done_callback(self._begun.discard)
            await asyncio.sleep(0)  # accepting waits for nothing while there are more, and others have their turns

    async def _begin(self, accepted: socket.socket, connection: ApiConnection) -> None:
        limit_s = self._connections.limits.handshake_s if self._tls is not None else None
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: connection, accepted, ssl=self._tls, ssl_handshake_timeout=limit_s, ssl_shutdown_timeout=limit_s
            )
        except OSError as error:  # of TLS too
            late = isinstance(error, ConnectionAbortedError)
            self._connections.counts["late handshake" if late else "no handshake"] += 1
            self._connections.leave(connection)
        except asyncio.CancelledError:
            accepted.close()
            raise


def _turn_away(accepted: socket.socket) -> None:
    """Answers 503 to a connection that there is no place for, if it takes that at once."""
    with accepted, suppress(OSError):
        accepted.send(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
