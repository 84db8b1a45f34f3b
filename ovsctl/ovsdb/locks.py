"""Database locks (RFC 7047 §4.1.8 to §4.1.10), asked for only from the cluster's leader.

Every server of a cluster grants locks by itself, so a lock is a lock only where all ask the same
server: its leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from .callbacks import call_each
from .connection import Connection
from .errors import NotLeader, OvsdbError
from .jsontext import decode_json


class LockClient(Protocol):
    """The part of a client that its locks use."""

    def want_lock(self, lock: Lock) -> None: ...

    async def steal_lock(self, lock: Lock) -> None: ...

    async def drop_lock(self, lock: Lock) -> None: ...

    def is_retried(self, error: OvsdbError) -> bool: ...


class Lock:
    """One named lock, wanted until released. It is lost with the connection and asked for again,
    unless the next server is not the leader.

    Guard a transaction with `Assert(lock.name)`: `held` alone may be an instant old.
    """

    def __init__(self, client: LockClient, name: str) -> None:
        self.name = name
        self.held = False
        self.wanted = False
        self._client = client
        self._changed = asyncio.Event()
        self._callbacks: list[Callable[[bool], None]] = []
        self._error: OvsdbError | None = None
        self._unanswered = 0

    def on_change(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Call `callback(held)` at each change; returns what ends it."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def acquire(self) -> None:
        """Ask for the lock and return when it is ours, in the order of asking.

        Raises NotLeader when the client is connected to another server than the leader and was not
        told to go there (`leader_only`), RequestError, NotConnected once the client is closed.
        """
        self._error = None
        if not self.wanted:
            self.wanted = True
            self._client.want_lock(self)
        try:
            while not self.held:
                if self._error is not None:
                    raise self._error
                self._changed.clear()
                await self._changed.wait()
        except BaseException:
            await self.release()
            raise

    async def steal(self) -> None:
        """Take the lock from whoever has it; the loser is told (RFC 7047 §4.1.9).

        Raises as `acquire`, and ConnectionLost if the answer did not come.
        """
        wanted, self.wanted = self.wanted, True
        try:
            await self._client.steal_lock(self)
        except OvsdbError:
            self.wanted = wanted
            raise

    async def release(self) -> None:
        """Give the lock back, or leave the queue for it."""
        if self.wanted:
            self.wanted = False
            self.set_held(False)
            await self._client.drop_lock(self)

    async def wait_lost(self) -> None:
        """Return when the lock is not ours any more."""
        while self.held:
            self._changed.clear()
            await self._changed.wait()

    async def __aenter__(self) -> Lock:
        await self.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    # --- for the client -------------------------------------------------------------------------

    def ask(self, connection: Connection, is_leader: bool) -> None:
        """Send the request on a fresh connection, or say why not."""
        if not is_leader:
            self.fail(self.not_leader())
            return
        self.send(connection, "lock").add_done_callback(self._refused)

    def not_leader(self) -> NotLeader:
        return NotLeader(f"lock {self.name}: connected to a server that is not the leader")

    def send(self, connection: Connection, method: str) -> asyncio.Future[Any]:
        """Send lock or steal; its answer says whether the lock is ours at once."""
        self._unanswered += 1
        call = connection.call(method, [self.name], self._answered)
        call.add_done_callback(self._count)
        return call

    def _count(self, _: object) -> None:
        self._unanswered -= 1

    def notified(self, held: bool) -> None:
        """Takes the server's locked or stolen. A message sent before our request's answer is about an earlier request."""
        if self.wanted and not self._unanswered:
            self.set_held(held)

    def _answered(self, raw: msgspec.Raw) -> None:
        locked = decode_json(_ANSWER, raw, "answer to lock").locked
        self.set_held(self.wanted and locked)

    def _refused(self, future: asyncio.Future[object]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, OvsdbError) and not self._client.is_retried(error):
            self.fail(error)

    def fail(self, error: OvsdbError) -> None:
        """Give up wanting the lock; whoever waits for it is told."""
        self._error = error
        self.wanted = False
        self.set_held(False)
        self._changed.set()

    def set_held(self, held: bool) -> None:
        if held != self.held:
            self.held = held
            self._changed.set()
            call_each(self._callbacks, held, f"a callback of lock {self.name}")


class _Answer(msgspec.Struct):
    locked: bool = True  # the answer to steal says nothing else


_ANSWER = msgspec.json.Decoder(_Answer)
