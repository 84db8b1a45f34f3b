"""One answer for all who ask within some seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")


class SharedAnswer(Generic[T]):
    """Keeps an answer for `kept_s` after it was asked for, and hands out one that is on its way. clock: seconds that only grow."""

    def __init__(self, kept_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept_s: Final = kept_s
        self._clock: Final = clock
        self._answer: tuple[float, asyncio.Task[T]] | None = None

    async def get(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer, made by `make` if there is none. Raises as it does, for all who waited."""
        now_s = self._clock()
        if self._answer is None or (self._answer[1].done() and now_s - self._answer[0] >= self._kept_s):
            self._answer = now_s, asyncio.ensure_future(make())
        return await asyncio.shield(self._answer[1])
