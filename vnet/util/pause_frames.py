"""Pause notices: the frames by which the host that a VIF leaves says to the host that it goes to that its guest is paused.

One rule: a frame is hostile until it is parsed. They go as hellos go (`hello_frames.py`), to the same group with the same Ethernet type, so whatever keeps those from guests keeps these.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from vnet.util.frames import MINIMUM_FRAME_BYTES, mac_bytes
from vnet.util.hello_frames import HELLO_GROUP, HELLO_TYPE, hello_mac

MAGIC: Final = b"vnpause1"  # no hello begins so: an agent that knows no notices takes them for none
MOST_VIFS: Final = 8  # of one frame: with the longest ids 1,200 bytes
_HEAD: Final = struct.Struct("!8s8sBB")
_VIF: Final = struct.Struct("!QB")


class PauseNotice(NamedTuple):
    """pool: which pool, hashed. host: the sender. epochs: of the bindings that the guest's VIFs go to, by VIF, so that the notice is of one migration alone."""

    pool: bytes
    host: str
    epochs: Mapping[str, int]


def pause_frames(notice: PauseNotice) -> Iterator[bytes]:
    """The frames of a notice, as many as its VIFs need. A name has at most 255 bytes, as those of hosts and VIFs have."""
    head = mac_bytes(HELLO_GROUP) + mac_bytes(hello_mac(notice.host, "")) + HELLO_TYPE.to_bytes(2, "big")
    host, vifs = notice.host.encode(), [(vif.encode(), epoch) for vif, epoch in notice.epochs.items()]
    for first in range(0, len(vifs), MOST_VIFS):
        some = vifs[first : first + MOST_VIFS]
        named = b"".join(_VIF.pack(epoch, len(vif)) + vif for vif, epoch in some)
        yield (head + _HEAD.pack(MAGIC, notice.pool, len(some), len(host)) + host + named).ljust(
            MINIMUM_FRAME_BYTES, b"\0"
        )


def read_pause(frame: bytes) -> PauseNotice | None:
    """The notice in a frame without a tag; None for any other frame."""
    if frame[12:14] != HELLO_TYPE.to_bytes(2, "big"):
        return None
    try:
        magic, pool, count, length = _HEAD.unpack_from(frame, 14)
        if magic != MAGIC:
            return None
        at = 14 + _HEAD.size + length
        host, epochs = frame[at - length : at].decode(), {}
        for _ in range(count):
            epoch, length = _VIF.unpack_from(frame, at)
            at += _VIF.size + length
            epochs[frame[at - length : at].decode()] = epoch
    except (struct.error, UnicodeDecodeError):
        return None
    return PauseNotice(pool, host, epochs)
