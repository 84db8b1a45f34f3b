"""Numbered frames at a steady rate, on the wires' side."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from array import array
from dataclasses import dataclass, field

CLOCK_MONOTONIC, TFD_NONBLOCK, TFD_TIMER_ABSTIME = 1, os.O_NONBLOCK, 1  # timerfd_create(2)
SECOND = 1_000_000_000
STREAM_MAGIC = (
    b"vnetstrm"  # in a stream's frames, before its id, the frame's number (32 bits each) and a balance (16 bits)
)
STREAM_TAIL = struct.Struct(">IIH")
MAX_STREAM_FRAMES = 4_000_000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Stream:
    """Numbered frames sent at a steady rate. received: per receiver the frames' numbers and times, in order of arrival."""

    head: bytes
    number: int
    rest: bytes
    timer: int
    sent: array[int] = field(default_factory=lambda: array("q"))
    received: dict[str, tuple[array[int], array[int]]] = field(default_factory=dict)

    def frame(self) -> bytes:
        """The next frame. The balance keeps the sum of the 16-bit words, and so the UDP checksum, as it is in the first."""
        seq = len(self.sent)
        words = (seq >> 16) + (seq & 0xFFFF)
        balance = 0xFFFF - (words & 0xFFFF) - (words >> 16)
        return self.head + STREAM_TAIL.pack(self.number, seq, balance) + self.rest

    def note(self, endpoint: str, seq: int) -> None:
        seqs, times = self.received.setdefault(endpoint, (array("q"), array("q")))
        if len(seqs) < MAX_STREAM_FRAMES:
            seqs.append(seq)
            times.append(time.monotonic_ns())


def start_timer(period_s: float) -> int:
    """A timerfd(2) that expires at every multiple of `period_s`. Raises OSError.

    Streams of one period send in the same moment, and a switch wakes up once for a frame of each of them.
    """
    fd: int = _LIBC.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)
    period = max(1000, int(period_s * SECOND))
    first = (time.monotonic_ns() // period + 1) * period
    spec = struct.pack("qqqq", *divmod(period, SECOND), *divmod(first, SECOND))
    if fd < 0 or _LIBC.timerfd_settime(fd, TFD_TIMER_ABSTIME, spec, None):
        raise OSError(ctypes.get_errno(), "timerfd")
    return fd
