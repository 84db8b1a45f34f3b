"""Whether anybody still waits for what a thread computes. One rule: who computes long asks between two steps, and whoever waits says when he goes."""

from __future__ import annotations

from contextvars import ContextVar
from threading import Event
from typing import Final

NOBODY_WAITS: Final[ContextVar[Event | None]] = ContextVar("nobody_waits", default=None)  # None: it cannot be given up


class GivenUp(Exception):
    """Nobody waits for the answer any more."""


def check_awaited() -> None:
    """Raises GivenUp if nobody waits for this computation any more."""
    if (gone := NOBODY_WAITS.get()) is not None and gone.is_set():
        raise GivenUp
