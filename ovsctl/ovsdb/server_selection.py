"""Finding the server to use, among several of which some may be dead, silent, or about to become the leader.

The one rule: no server is waited for alone. Each is tried again and again by itself, and the first that will do is taken; one
that will not do yet says itself when it does, as a follower that is elected.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from .callbacks import report
from .connection import Connection
from .errors import ConnectionLost, OvsdbError, RequestError
from .remotes import Remote, Tls
from .replica import Replica
from .schema import Schema
from .server_info import SERVER_DATABASE, SERVER_MONITORS, SERVER_SCHEMA, ServerInfo, server_info, unfit
from .session import Notification
from .values import ZERO_UUID

HANDSHAKE_TIMEOUT_S = 10.0
PATIENCE_S = 0.5  # how long one server may take before the next one is tried beside it


@dataclass(frozen=True, slots=True)
class Wanted:
    """The server to look for, and the callbacks that a connection to it gets. reasons: by remote, why it is not suitable so far."""

    database: str
    leader_only: bool
    tls: Tls | ssl.SSLContext | None
    backoff_s: tuple[float, float]
    connection: Callable[[Callable[[Connection, Notification], None], Callable[[Connection], None]], Connection]
    heard: Callable[[Met, Notification], None]
    lost: Callable[[Met], None]
    reasons: dict[str, str] = field(default_factory=dict)


class Met:
    """A server that we are connected to, with what it says of itself, now and whenever it changes, and its schema."""

    connection: Connection
    info: ServerInfo
    schema: Schema

    def __init__(self, remote: Remote, wanted: Wanted) -> None:
        self.remote = remote
        self._wanted = wanted
        self._replica = Replica(SERVER_SCHEMA, SERVER_MONITORS)
        self._changed = asyncio.Event()

    async def connect(self) -> None:
        """Connect and learn what the server is; raises OSError, OvsdbError."""
        tls = self._wanted.tls
        peer = tls.peer if isinstance(tls, Tls) else ""
        self.connection = await self.remote.connect(self._new_connection, _context(tls), peer)
        params = [SERVER_DATABASE, SERVER_DATABASE, self._replica.encode_monitors(), ZERO_UUID]
        try:
            await self.connection.call("monitor_cond_since", params, self._replica.fold_initial)
        except RequestError:
            self.info = ServerInfo.plain(self.remote.text, self._wanted.database)
        else:
            self._read()

    def _new_connection(self) -> Connection:
        wanted = self._wanted
        return wanted.connection(lambda _, event: wanted.heard(self, event), lambda _: self._ended())

    def _ended(self) -> None:
        self._changed.set()
        self._wanted.lost(self)

    def update(self, last_id: str, updates: msgspec.Raw) -> None:
        """Fold a change of the server's own database, `_Server`."""
        self._replica.fold_update(last_id, updates)
        self._read()
        self._changed.set()

    def _read(self) -> None:
        self.info = server_info(self._replica, self.remote.text, self._wanted.database)

    @property
    def unfit(self) -> str | None:
        """Why it will not do; None if it will."""
        return unfit(self.info, self._wanted.leader_only)

    async def wait_fit(self, unfit: Callable[[str], None]) -> None:
        """Return when it will do, with its schema known; raises OvsdbError. `unfit` hears why it does not do yet."""
        while (reason := self.unfit) is not None:
            unfit(reason)
            self._changed.clear()
            await self._changed.wait()
            if self.connection.error is not None:
                raise self.connection.error
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            schema = await self.connection.call("get_schema", [self._wanted.database], Schema.parse)
        assert isinstance(schema, Schema)  # noqa: S101 - for the type checker
        self.schema = schema

    def close(self, reason: str) -> None:
        if hasattr(self, "connection"):
            self.connection.close(ConnectionLost(reason))


def _context(tls: Tls | ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Files are read for each connection, so that a renewed certificate is used from the next one on."""
    return tls.context() if isinstance(tls, Tls) else tls


async def find(remotes: Sequence[Remote], wanted: Wanted, unless: asyncio.Event | None = None) -> Met | None:
    """The first of the servers that will do, the earlier ones being asked first. Looks without end, or till `unless`: None."""
    found: asyncio.Future[Met | None] = asyncio.get_running_loop().create_future()
    unfit = [asyncio.Event() for _ in remotes]

    async def attempt(number: int) -> None:
        if number:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(number * PATIENCE_S):
                    await unfit[number - 1].wait()
        met = await _until_fit(remotes[number], wanted, unfit[number])
        if found.done():
            met.close("another server was quicker")
        else:
            found.set_result(met)

    async def give_up(event: asyncio.Event) -> None:
        await event.wait()
        if not found.done():
            found.set_result(None)

    tasks = [asyncio.create_task(attempt(number)) for number in range(len(remotes))]
    if unless is not None:
        tasks.append(asyncio.create_task(give_up(unless)))
    try:
        return await found
    except asyncio.CancelledError:
        if not found.cancelled() and (met := found.result()) is not None:
            met.close("the search is over")
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_fit(remote: Remote, wanted: Wanted, unfit: asyncio.Event) -> Met:
    """The server there, once it will do, however often that takes. `unfit` is set as soon as it does not."""

    def disappoint(reason: str) -> None:
        wanted.reasons[remote.text] = reason
        unfit.set()

    wait_s, most_s = wanted.backoff_s
    while True:
        met = Met(remote, wanted)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await met.connect()
            await met.wait_fit(disappoint)
        except (OSError, OvsdbError) as error:  # TimeoutError is an OSError
            disappoint(str(error) or type(error).__name__)
            met.close(str(error))
        except asyncio.CancelledError:
            met.close("the search is over")
            raise
        except Exception as error:  # the top of the loop: whatever it was, the next try may do
            report(error, f"connecting to {remote.text} failed")
            disappoint(repr(error))
            met.close(repr(error))
        else:
            return met
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, most_s)
