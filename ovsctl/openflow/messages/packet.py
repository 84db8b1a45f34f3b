"""Packets to and from the controller: OFPT_PACKET_IN, NXT_PACKET_IN2, OFPT_PACKET_OUT.

(OpenFlow 1.5 §7.3.6 and §7.4.1; nicira-ext.h for NXT_PACKET_IN2, the only one that carries userdata.)
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Any, ClassVar, Self

import msgspec

from ..actions import Action, encode_actions
from ..error_codes import NICIRA
from ..errors import MalformedMessage
from ..fields import ReservedPort
from ..match import Match, decode_match
from ..wire import Reader, pad8
from .core import MessageType

OFP_NO_BUFFER = 0xFFFFFFFF
NXT_PACKET_IN2 = 30

_PACKET_IN = Struct("!IHBBQ")
_EXPERIMENTER = Struct("!II")
_PACKET_OUT = Struct("!IHxx")
FROM_CONTROLLER = Match(in_port=ReservedPort.CONTROLLER)
_U8 = Struct("!B")
_U32 = Struct("!I")
_U64 = Struct("!4xQ")
_NO_COOKIE = 0xFFFFFFFFFFFFFFFF
_MATCH = Struct("!HH")
_PACKET, _FULL_LEN, _TABLE, _COOKIE, _REASON, _METADATA, _USERDATA = 0, 1, 3, 4, 5, 6, 7  # NXPINT_*
_PAD = 2  # between the match and the packet of OFPT_PACKET_IN


class PacketInReason(IntEnum):
    NO_MATCH = 0
    ACTION = 1
    INVALID_TTL = 2
    ACTION_SET = 3
    GROUP = 4
    PACKET_OUT = 5


def _reason(number: int) -> PacketInReason:
    try:
        return PacketInReason(number)
    except ValueError:
        raise MalformedMessage("packet-in", f"{number} is no reason") from None


class PacketIn(msgspec.Struct, frozen=True):
    """A packet sent to us: by a `controller` action (with its `userdata`), a group or a table miss.

    `match` has the pipeline fields the packet carried (in_port, tunnel, metadata, registers, ...); `data` may
    be cut off before `full_length`; `cookie` is that of the flow, None when there was none.
    """

    reason: PacketInReason
    table: int
    cookie: int | None
    match: Match
    data: bytes
    full_length: int
    userdata: bytes = b""

    @property
    def in_port(self) -> int | None:
        """The ofport it came in by."""
        found = self.match.get("in_port")
        return None if found is None else found.value

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        """OFPT_PACKET_IN."""
        _buffer, length, reason, table, cookie = reader.unpack(_PACKET_IN, "packet-in")
        match, reader.position = decode_match(reader.data, reader.position, reader.end)
        reader.take(_PAD, "packet-in")
        data = reader.rest()
        known = None if cookie == _NO_COOKIE else cookie
        return cls(_reason(reason), table, known, match, data, max(length, len(data)))

    @classmethod
    def decode_nicira(cls, reader: Reader) -> Self:
        """The properties of NXT_PACKET_IN2; a continuation, which we never ask for, is ignored."""
        found = dict(reader.properties("packet-in property"))
        if _PACKET not in found:
            raise MalformedMessage("packet-in", "has no packet")
        data = found[_PACKET].rest()
        return cls(
            _reason(_number(found, _REASON, _U8, 0)),
            _number(found, _TABLE, _U8, 0),
            _number(found, _COOKIE, _U64, None),
            _metadata(found[_METADATA].rest()) if _METADATA in found else Match(),
            data,
            max(_number(found, _FULL_LEN, _U32, 0), len(data)),
            found[_USERDATA].rest() if _USERDATA in found else b"",
        )


def _number(found: dict[int, Reader], number: int, record: Struct, default: Any) -> Any:
    return found[number].unpack(record, "packet-in property")[0] if number in found else default


def _metadata(oxm: bytes) -> Match:
    """The match of bare OXM fields: the property lacks the header and padding of an ofp_match."""
    framed = _MATCH.pack(1, _MATCH.size + len(oxm)) + oxm + bytes(pad8(_MATCH.size + len(oxm)))
    return decode_match(framed, 0, len(framed))[0]


def decode_experimenter(reader: Reader) -> PacketIn:
    """The experimenter messages we ask for: NXT_PACKET_IN2."""
    experimenter, subtype = reader.unpack(_EXPERIMENTER, "experimenter message")
    if (experimenter, subtype) != (NICIRA, NXT_PACKET_IN2):
        raise MalformedMessage("experimenter message", f"{experimenter:#010x}, subtype {subtype} is unknown")
    return PacketIn.decode_nicira(reader)


class PacketOut(msgspec.Struct, frozen=True):
    """Send `data` through `actions` as if it came in by the pipeline fields of `match`, in_port at least."""

    TYPE: ClassVar[int] = MessageType.PACKET_OUT
    data: bytes
    actions: tuple[Action, ...]
    match: Match = FROM_CONTROLLER

    def encode(self) -> bytes:
        actions = encode_actions(self.actions)
        return b"".join((_PACKET_OUT.pack(OFP_NO_BUFFER, len(actions)), self.match.wire, actions, self.data))
