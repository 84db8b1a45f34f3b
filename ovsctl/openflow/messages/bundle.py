"""Bundles: modifications that take effect together or not at all (OpenFlow 1.5 §7.3.9).

Open vSwitch bundles flow-mods, group-mods and packet-outs; it refuses meter-mods in a bundle.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import ClassVar, Self

import msgspec

from ..wire import HEADER, OFP15_VERSION, Reader
from .core import MessageType

_CONTROL = Struct("!IHH")
# The outer header, bundle id and flags, and the inner header, which has the same xid, in one go.
_ADD = Struct("!BBHIIxxHBBHI")
_ADD_OVERHEAD = _ADD.size


class BundleFlags(IntFlag):
    ATOMIC = 1 << 0
    ORDERED = 1 << 1


class BundleControlType(IntEnum):
    OPEN_REQUEST = 0
    OPEN_REPLY = 1
    CLOSE_REQUEST = 2
    CLOSE_REPLY = 3
    COMMIT_REQUEST = 4
    COMMIT_REPLY = 5
    DISCARD_REQUEST = 6
    DISCARD_REPLY = 7


ATOMIC_ORDERED = BundleFlags.ATOMIC | BundleFlags.ORDERED


class BundleControl(msgspec.Struct, frozen=True):
    """Open, close, commit or discard a bundle, and the answers to these."""

    TYPE: ClassVar[int] = MessageType.BUNDLE_CONTROL
    bundle_id: int
    step: int
    flags: BundleFlags = ATOMIC_ORDERED

    def encode(self) -> bytes:
        return _CONTROL.pack(self.bundle_id, self.step, self.flags)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        bundle_id, step, flags = reader.unpack(_CONTROL, "bundle control")
        return cls(bundle_id, step, BundleFlags(flags))


def bundle_add_head(bundle_id: int, flags: int, message_type: int, xid: int, length: int) -> bytes:
    """The bytes before a body of `length` bytes in an OFPT_BUNDLE_ADD_MESSAGE.

    Raises struct.error above 65,535 bytes altogether.
    """
    return _ADD.pack(
        OFP15_VERSION,
        MessageType.BUNDLE_ADD_MESSAGE,
        _ADD_OVERHEAD + length,
        xid,
        bundle_id,
        flags,
        OFP15_VERSION,
        message_type,
        HEADER.size + length,
        xid,
    )
