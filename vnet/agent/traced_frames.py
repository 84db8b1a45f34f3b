"""Frames whose packet-in is no packet's: `ofproto/trace` of a frame sends to the agent what a `controller` action would, and nothing else.

One rule: a frame that was noted is taken for a traced one once.
"""

from __future__ import annotations

from collections import deque
from typing import Final

MAX_TRACED = 256
COMPARED = 128  # bytes of a frame that tell it from others
VLAN = b"\x81\0"


class TracedFrames:
    """The frames that were traced of late."""

    def __init__(self) -> None:
        self._frames: Final[deque[bytes]] = deque(maxlen=MAX_TRACED)

    def note(self, frame: bytes) -> None:
        """Takes up a frame before it is traced. Its tag is off where flows send it to the agent."""
        tag = 4 * (frame[12:14] == VLAN)
        self._frames.append((frame[:12] + frame[12 + tag :])[:COMPARED])

    def takes(self, frame: bytes) -> bool:
        """Whether a packet-in's frame is a traced one."""
        if frame[:COMPARED] not in self._frames:
            return False
        self._frames.remove(frame[:COMPARED])
        return True
