"""A limit of so many a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

NS = 10**9


class TokenBucket:
    """Lets `rate` pass in a second, and as many at once. clock: nanoseconds, never backwards."""

    def __init__(self, rate: int, clock: Callable[[], int]) -> None:
        self._each_ns: Final = NS // rate
        self._whole_ns: Final = rate * self._each_ns
        self._clock: Final = clock
        self._full_at = 0  # when it will be full again

    def admits(self) -> bool:
        """Whether one more may pass now; if so it has."""
        now = self._clock()
        full_at = max(self._full_at, now) + self._each_ns
        if full_at - now > self._whole_ns:
            return False
        self._full_at = full_at
        return True
