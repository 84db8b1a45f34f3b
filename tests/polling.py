"""Waiting for a condition, blocking or in a coroutine. One rule: a wait ends by its condition, and its limit only names a failure."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 60.0  # a machine may be busy with other things; a test that passes never waits for so long
# Between two looks: a tenth of what was waited, since a look may start processes, or ask one that has other work.
LEAST_PERIOD_S = 0.01
MOST_PERIOD_S = 0.1


def wait_until(condition: Callable[[], Any], expected: str, limit_s: float = LIMIT_S) -> Any:
    """The first true value of `condition()`. Raises TimeoutError with what was expected."""
    began = time.monotonic()
    while not (value := condition()):
        period_s = _period_s(began, limit_s, expected)
        time.sleep(period_s)
    return value


async def until(condition: Callable[[], Any], expected: str, limit_s: float = LIMIT_S) -> Any:
    """The same in a coroutine; `condition` may be a coroutine function."""
    began = time.monotonic()
    while not (value := await found if inspect.isawaitable(found := condition()) else found):
        period_s = _period_s(began, limit_s, expected)
        await asyncio.sleep(period_s)
    return value


def _period_s(began: float, limit_s: float, expected: str) -> float:
    waited_s = time.monotonic() - began
    if waited_s > limit_s:
        raise TimeoutError(f"not within {limit_s} s: {expected}")
    return min(MOST_PERIOD_S, max(LEAST_PERIOD_S, waited_s / 10))
