"""Calls what users registered: one that raises harms neither the others nor the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def call_each(callbacks: Iterable[Callable[[T], object]], value: T, subject: str) -> None:
    """Call every callback; what one raises goes to the event loop's exception handler."""
    for callback in tuple(callbacks):
        try:
            callback(value)
        except Exception as error:
            report(error, f"{subject} raised")


def report(error: Exception, message: str) -> None:
    """Hand an error that has no caller to the event loop."""
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
