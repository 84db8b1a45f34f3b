"""Waiting for a condition, blocking or in a coroutine. One rule: a wait ends by its condition, and its limit only names a failure."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 60.0  # a machine may be busy with other things; a test that passes never waits for so long
PERIOD_S = 0.01


def wait_until(condition: Callable[[], Any], expected: str, limit_s: float = LIMIT_S) -> Any:
    """The first true value of `condition()`. Raises TimeoutError with what was expected."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        _check(deadline, limit_s, expected)
        time.sleep(PERIOD_S)
    return value


async def until(condition: Callable[[], Any], expected: str, limit_s: float = LIMIT_S) -> Any:
    """The same in a coroutine; `condition` may be a coroutine function."""
    deadline = time.monotonic() + limit_s
    while not (value := await found if inspect.isawaitable(found := condition()) else found):
        _check(deadline, limit_s, expected)
        await asyncio.sleep(PERIOD_S)
    return value


def _check(deadline: float, limit_s: float, expected: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"not within {limit_s} s: {expected}")
