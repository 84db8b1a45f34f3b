"""Packet-ins to iterate over.

One rule: it never holds more than it was told to; what does not fit is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from .messages import PacketIn


class PacketQueue:
    """A bounded queue of packet-ins to iterate over. `dropped` counts those it had no room for."""

    def __init__(self, max_queue: int) -> None:
        self.dropped = 0
        self.on_close: list[Callable[[], None]] = []
        self._max_queue = max_queue
        self._packets: deque[PacketIn] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._end: Exception | None = None

    def put(self, packet: PacketIn) -> None:
        if len(self._packets) >= self._max_queue:
            self.dropped += 1
            return
        self._packets.append(packet)
        self._wake()

    def end(self, error: Exception) -> None:
        """Nothing follows what is in the queue; then iterating raises `error`."""
        self._end = self._end or error
        self._wake()

    def close(self) -> None:
        """Take no more packets; iterating ends after those in the queue."""
        self.end(StopAsyncIteration())
        for remove in self.on_close:
            remove()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PacketIn:
        while not self._packets:
            if self._end is not None:
                raise self._end
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._packets.popleft()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
