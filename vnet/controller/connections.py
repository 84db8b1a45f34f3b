"""Connections to the API: how many there may be, and for how long one may take.

One rule: who has shown no token costs a place among the strangers, never one of those who have, nor one of the unix socket's.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from struct import calcsize, unpack
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState


class Standing(Enum):
    """Whose connection it is: one of the unix socket, one that has shown the token, or one that has not yet."""

    LOCAL = "local"
    AUTHENTICATED = "authenticated"
    STRANGER = "stranger"


@dataclass(frozen=True, slots=True)
class Peer:
    """A process at the other end of a unix socket, as the kernel knows it (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """How many connections of each standing there may be, and the most seconds that one may take.

    Together they are less than the 1,024 descriptors of a process that was given no more. handshake_s: of TLS. headers_s and body_s:
    from a request's first byte, or the connection's begin, to the end of either. idle_s: from an answer to the next request. reading_s: for
    a peer to read what is kept for it, once that is more than the kernel takes and 64 KiB.
    """

    local: int = 200
    authenticated: int = 500
    strangers: int = 100
    handshake_s: float = 10.0
    headers_s: float = 10.0
    body_s: float = 60.0
    idle_s: int = 5
    reading_s: float = 60.0

    def most(self, standing: Standing) -> int:
        return {
            Standing.LOCAL: self.local,
            Standing.AUTHENTICATED: self.authenticated,
            Standing.STRANGER: self.strangers,
        }[standing]


class Connections:
    """All connections of a controller, those that came first in front. counts: what was done to them, by its name."""

    def __init__(self, limits: ApiLimits | None = None) -> None:
        self.limits: Final = limits or ApiLimits()
        self.counts: Final[Counter[str]] = Counter()
        self._held: Final[dict[Standing, dict[ApiConnection, None]]] = {standing: {} for standing in Standing}

    def number(self, standing: Standing) -> int:
        """How many of a standing there are."""
        return len(self._held[standing])

    def enter(self, connection: ApiConnection) -> bool:
        """Take one up; False if there is no place. A stranger takes that of the one who came first."""
        held = self._held[connection.standing]
        if len(held) >= self.limits.most(connection.standing):
            if connection.standing is not Standing.STRANGER:
                self.counts["refused"] += 1
                return False
            next(iter(held)).drop("evicted")
        held[connection] = None
        self.counts["accepted"] += 1
        return True

    def admit(self, connection: ApiConnection) -> bool:
        """A stranger has shown the token; False if there is no place."""
        if connection.standing is not Standing.STRANGER:
            return True
        held = self._held[Standing.AUTHENTICATED]
        if len(held) >= self.limits.authenticated:
            self.counts["refused"] += 1
            return False
        self.leave(connection)
        connection.standing = Standing.AUTHENTICATED
        held[connection] = None
        return True

    def leave(self, connection: ApiConnection) -> None:
        self._held[connection.standing].pop(connection, None)


class ApiConnection(H11Protocol):
    """One connection, from when it is accepted. begin: what takes it through TLS's handshake, where there is one."""

    def __init__(
        self, config: uvicorn.Config, state: ServerState, connections: Connections, standing: Standing
    ) -> None:
        super().__init__(config, state, {"admit": lambda: connections.admit(self), "connection": self})
        self.standing = standing
        self.begin: asyncio.Task[None] | None = None
        self.peer: Peer | None = None  # of a unix socket
        self._connections: Final = connections
        self._part = ""  # of a request, that is waited for
        self._limit: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def drop(self, reason: str) -> None:
        """End it now, whatever it is at."""
        self._connections.counts[reason] += 1
        self._connections.leave(self)
        if self.transport is not None:
            self.transport.abort()
        elif self.begin is not None:
            self.begin.cancel()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.standing is Standing.LOCAL:
            self.peer = _peer(transport)
        self._await_part()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_part()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_part()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(self._connections.limits.reading_s, self.drop, "late reader")

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connections.leave(self)
        self._stop()
        self._stop_reading()

    def _await_part(self) -> None:
        """ApiLimits the time until the part of a request is here that the peer has to send next."""
        limits = self._connections.limits
        waits = {h11.IDLE: ("headers", limits.headers_s), h11.SEND_BODY: ("body", limits.body_s)}
        part, limit_s = waits.get(self.conn.their_state, ("", 0.0))
        if part == self._part:
            return
        self._stop()
        self._part = part
        if part and not self.transport.is_closing():
            self._limit = self.loop.call_later(limit_s, self.drop, f"late {part}")

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    def _stop(self) -> None:
        if self._limit is not None:
            self._limit.cancel()


def _peer(transport: asyncio.BaseTransport) -> Peer | None:
    made = transport.get_extra_info("socket")
    if made is None or made.family != socket.AF_UNIX:
        return None
    pid, uid, _ = unpack("3i", made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, calcsize("3i")))
    return Peer(pid, uid)


def peer_of(scope: Any) -> Peer | None:
    """The process at the other end of a request's unix socket."""
    connection: ApiConnection = scope["state"]["connection"]
    return connection.peer


Admit = Callable[[], bool]


def admit_of(scope: Any) -> Admit:
    """Has the connection of a request count as one of a caller who has shown the token; False if there is no place."""
    admit: Admit = scope["state"]["admit"]
    return admit
