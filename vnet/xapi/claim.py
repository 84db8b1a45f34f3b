"""Whether this follower is its toolstack's: of several on different machines one writes, and the others stand by.

One rule: the pool's row decides. The other one's silence is measured by this one's clock, from when it saw the row's beat change last.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from vnet.client import Client, ClientError

BEAT_S, SILENT_S = 4.0, 15.0  # between two questions; after which one that says nothing is followed by the next


class FollowerClaim:
    """A follower's claim. caller: its name, which no other has; clock: in seconds. holder, standby: as the pool last said."""

    def __init__(self, client: Client, caller: str, clock: Callable[[], float]) -> None:
        self.holder = self.standby = ""
        self._client: Final = client
        self._caller: Final = caller
        self._clock: Final = clock
        self._asked: float | None = None
        self._seen, self._since = -1, 0.0  # the other one's beat, and since when it has been that

    def held(self, name: str) -> bool:
        """Whether this follower is that of the toolstack; the pool is asked each BEAT_S. Raises ClientError."""
        now = self._clock()
        if self._asked is None or now - self._asked >= BEAT_S:
            silent = self._asked is not None and now - self._since >= SILENT_S
            found = self._client.follow_toolstack(name, self._caller, silent_at=self._seen if silent else None)
            if found.beat != self._seen:
                self._seen, self._since = found.beat, now
            self._asked, self.holder, self.standby = now, found.holder, found.standby
        return self.holder == self._caller

    def leave(self, name: str) -> None:
        """Has the next one follow at once, if the controller answers."""
        if self._asked is not None:
            with suppress(ClientError):
                self._client.follow_toolstack(name, self._caller, ends=True)
