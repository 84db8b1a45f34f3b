"""Long computations beside the loop. One rule: a thread that nobody waits for any more ends soon, and until it has, nobody else gets what it works on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from threading import Event
from typing import ParamSpec, TypeVar

from vnet.util.given_up import NOBODY_WAITS

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a job in a thread. If the caller's task is cancelled the job gives up where it next asks (`check_awaited`), and this ends when it has."""
    gone, context = Event(), copy_context()
    context.run(NOBODY_WAITS.set, gone)
    running = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(job, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        gone.set()
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        running.exception()  # GivenUp, mostly: nobody is there to be told
        raise
