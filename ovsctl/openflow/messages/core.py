"""Messages about the connection itself: hello, echo, error, features, config, role, barrier, asynchronous sets.

Every sendable message has `TYPE` and `encode()`, its body; every receivable one has `decode(Reader)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from struct import Struct
from typing import ClassVar, Self

import msgspec

from ..error_codes import EXPERIMENTER_ERROR, NICIRA, error_name
from ..errors import InvalidValueError, MalformedMessage
from ..wire import OFP15_VERSION, Reader, encode_property


class MessageType(IntEnum):
    """OpenFlow 1.5 §7.1.1."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    EXPERIMENTER = 4
    FEATURES_REQUEST = 5
    FEATURES_REPLY = 6
    GET_CONFIG_REQUEST = 7
    GET_CONFIG_REPLY = 8
    SET_CONFIG = 9
    PACKET_IN = 10
    FLOW_REMOVED = 11
    PORT_STATUS = 12
    PACKET_OUT = 13
    FLOW_MOD = 14
    GROUP_MOD = 15
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    ROLE_REQUEST = 24
    ROLE_REPLY = 25
    GET_ASYNC_REQUEST = 26
    GET_ASYNC_REPLY = 27
    SET_ASYNC = 28
    METER_MOD = 29
    ROLE_STATUS = 30
    BUNDLE_CONTROL = 33
    BUNDLE_ADD_MESSAGE = 34


_HELLO_ELEMENT = Struct("!HH")
_VERSION_BITMAP = 1
_ERROR = Struct("!HH")
_U32 = Struct("!I")
_FEATURES = Struct("!QIBB2xI4x")
_CONFIG = Struct("!HH")
_ROLE = Struct("!I4xQ")
_ROLE_STATUS = Struct("!IB3xQ")
_EXPERIMENTER = Struct("!II")


class Hello(msgspec.Struct, frozen=True):
    """The versions a side speaks, as version numbers (0x06 is OpenFlow 1.5)."""

    TYPE: ClassVar[int] = MessageType.HELLO
    versions: frozenset[int] = frozenset({OFP15_VERSION})

    def encode(self) -> bytes:
        bitmap = sum(1 << version for version in self.versions)
        return _HELLO_ELEMENT.pack(_VERSION_BITMAP, 8) + _U32.pack(bitmap)

    @classmethod
    def decode(cls, reader: Reader, header_version: int = OFP15_VERSION) -> Self:
        """Without a version bitmap the header's version and all below it count (OpenFlow 1.5 §6.3.1)."""
        versions = frozenset(range(1, header_version + 1))
        for kind, element in reader.properties("hello element"):
            if kind == _VERSION_BITMAP:
                (bitmap,) = element.unpack(_U32, "version bitmap")
                versions = frozenset(bit for bit in range(32) if bitmap & (1 << bit))
        return cls(versions)


class ErrorMessage(msgspec.Struct, frozen=True):
    """OFPT_ERROR. `data` is what the peer quotes of the offending message (or text, for a failed hello)."""

    TYPE: ClassVar[int] = MessageType.ERROR
    type_code: int
    code: int
    experimenter: int = 0
    data: bytes = b""

    @property
    def name(self) -> str:
        return error_name(self.type_code, self.code, self.experimenter)

    def encode(self) -> bytes:
        vendor = _U32.pack(self.experimenter) if self.type_code == EXPERIMENTER_ERROR else b""
        return _ERROR.pack(self.type_code, self.code) + vendor + self.data

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        type_code, code = reader.unpack(_ERROR, "error")
        experimenter = 0
        if type_code == EXPERIMENTER_ERROR:
            (experimenter,) = reader.unpack(_U32, "experimenter error")
        return cls(type_code, code, experimenter, reader.rest())


class EchoRequest(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.ECHO_REQUEST
    data: bytes = b""

    def encode(self) -> bytes:
        return self.data


class EchoReply(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.ECHO_REPLY
    data: bytes = b""

    def encode(self) -> bytes:
        return self.data

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls(reader.rest())


class FeaturesRequest(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.FEATURES_REQUEST

    def encode(self) -> bytes:
        return b""


class Capability(IntFlag):
    """The capabilities of a switch (OpenFlow 1.5 §7.3.1)."""

    FLOW_STATS = 1 << 0
    TABLE_STATS = 1 << 1
    PORT_STATS = 1 << 2
    GROUP_STATS = 1 << 3
    IP_REASM = 1 << 5
    QUEUE_STATS = 1 << 6
    PORT_BLOCKED = 1 << 8
    BUNDLES = 1 << 9
    FLOW_MONITORING = 1 << 10


class FeaturesReply(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.FEATURES_REPLY
    datapath_id: int
    n_buffers: int
    n_tables: int
    auxiliary_id: int
    capabilities: Capability

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        dpid, buffers, tables, auxiliary, capabilities = reader.unpack(_FEATURES, "features reply")
        return cls(dpid, buffers, tables, auxiliary, Capability(capabilities))


class GetConfigRequest(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.GET_CONFIG_REQUEST

    def encode(self) -> bytes:
        return b""


class FragmentHandling(IntEnum):
    """The handling of IP fragments by a whole bridge (ovs-ofctl(8), set-frags).

    NORMAL: flows see no transport fields of any fragment. NX_MATCH: flows see those of first fragments.
    """

    NORMAL = 0
    NX_MATCH = 3


class SetConfig(msgspec.Struct, frozen=True):
    """Fragment handling and how many bytes of a packet the switch sends on a table miss."""

    TYPE: ClassVar[int] = MessageType.SET_CONFIG
    flags: int = FragmentHandling.NORMAL
    miss_send_len: int = 128

    def encode(self) -> bytes:
        return _CONFIG.pack(self.flags, self.miss_send_len)


class ConfigReply(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.GET_CONFIG_REPLY
    flags: int
    miss_send_len: int

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls(*reader.unpack(_CONFIG, "config reply"))


class BarrierRequest(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.BARRIER_REQUEST

    def encode(self) -> bytes:
        return b""


class BarrierReply(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.BARRIER_REPLY

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls()


class ControllerRole(IntEnum):
    """Controller roles (OpenFlow 1.5 §7.3.9). A secondary may only read."""

    NOCHANGE = 0
    EQUAL = 1
    PRIMARY = 2
    SECONDARY = 3


def _role(number: int) -> ControllerRole:
    try:
        return ControllerRole(number)
    except ValueError:
        raise MalformedMessage("role", f"{number} is none") from None


class RoleRequest(msgspec.Struct, frozen=True):
    """Ask for a role, or with NOCHANGE for the present one. `generation_id` grows with each election."""

    TYPE: ClassVar[int] = MessageType.ROLE_REQUEST
    role: ControllerRole = ControllerRole.NOCHANGE
    generation_id: int = 0

    def encode(self) -> bytes:
        return _ROLE.pack(self.role, self.generation_id)


class RoleReply(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.ROLE_REPLY
    role: ControllerRole
    generation_id: int

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        role, generation_id = reader.unpack(_ROLE, "role reply")
        return cls(_role(role), generation_id)


class RoleStatus(msgspec.Struct, frozen=True):
    """The switch took our role away. `reason` 0: another asked to be primary, 1: configuration changed."""

    TYPE: ClassVar[int] = MessageType.ROLE_STATUS
    role: ControllerRole
    reason: int
    generation_id: int

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        role, reason, generation_id = reader.unpack(_ROLE_STATUS, "role status")
        return cls(_role(role), reason, generation_id)


class AsyncKind(IntEnum):
    """Kinds of asynchronous messages; doubled they are the property types of §7.3.10 for secondaries."""

    PACKET_IN = 0
    PORT_STATUS = 1
    FLOW_REMOVED = 2
    ROLE_STATUS = 3
    TABLE_STATUS = 4
    REQUESTFORWARD = 5


# Every reason that Open vSwitch 3.1 accepts of each kind (it refuses unknown bits).
ALL_REASONS: Mapping[AsyncKind, int] = {
    AsyncKind.PACKET_IN: 0b11_1111,
    AsyncKind.PORT_STATUS: 0b111,
    AsyncKind.FLOW_REMOVED: 0b11_1111,
    AsyncKind.ROLE_STATUS: 0b11,
}


class AsyncConfig(msgspec.Struct, frozen=True):
    """Which asynchronous messages the switch sends us: a bitmap of reasons per kind and role."""

    primary: Mapping[AsyncKind, int] = msgspec.field(default_factory=dict)
    secondary: Mapping[AsyncKind, int] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, *kinds: AsyncKind) -> Self:
        """Every reason of these kinds in either role, and nothing of the others."""
        masks = {kind: ALL_REASONS[kind] if kind in kinds else 0 for kind in ALL_REASONS}
        return cls(masks, masks)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        masks: tuple[dict[AsyncKind, int], dict[AsyncKind, int]] = ({}, {})
        for kind, payload in reader.properties("async property"):
            if kind // 2 in AsyncKind.__members__.values():
                (mask,) = payload.unpack(_U32, "async property")
                masks[kind % 2][AsyncKind(kind // 2)] = mask
        return cls(secondary=masks[0], primary=masks[1])


class SetAsync(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.SET_ASYNC
    config: AsyncConfig

    def encode(self) -> bytes:
        config = self.config
        masks = [(2 * kind, mask) for kind, mask in config.secondary.items()]
        masks += [(2 * kind + 1, mask) for kind, mask in config.primary.items()]
        return b"".join(encode_property(kind, _U32.pack(mask)) for kind, mask in sorted(masks))


class GetAsyncRequest(msgspec.Struct, frozen=True):
    TYPE: ClassVar[int] = MessageType.GET_ASYNC_REQUEST

    def encode(self) -> bytes:
        return b""


class PacketInFormat(IntEnum):
    """nicira-ext.h NXT_SET_PACKET_IN_FORMAT: which message carries packets to us."""

    OPENFLOW = 0
    NXT_PACKET_IN2 = 2


class SetPacketInFormat(msgspec.Struct, frozen=True):
    """NXT_SET_PACKET_IN_FORMAT. Only NXT_PACKET_IN2 carries the `controller` action's userdata."""

    TYPE: ClassVar[int] = MessageType.EXPERIMENTER
    SUBTYPE: ClassVar[int] = 16
    format: PacketInFormat = PacketInFormat.NXT_PACKET_IN2

    def encode(self) -> bytes:
        return _EXPERIMENTER.pack(NICIRA, self.SUBTYPE) + _U32.pack(self.format)


class FlushZone(msgspec.Struct, frozen=True):
    """NXT_CT_FLUSH_ZONE: forget every connection that is tracked in a zone (16 bits)."""

    TYPE: ClassVar[int] = MessageType.EXPERIMENTER
    SUBTYPE: ClassVar[int] = 29
    zone: int

    def __post_init__(self) -> None:
        if not 0 <= self.zone <= 0xFFFF:
            raise InvalidValueError(f"zone {self.zone} is not a 16-bit number")

    def encode(self) -> bytes:
        return _EXPERIMENTER.pack(NICIRA, self.SUBTYPE) + self.zone.to_bytes(8, "big")


class SetControllerId(msgspec.Struct, frozen=True):
    """NXT_SET_CONTROLLER_ID: only `controller(id=…)` actions with this id (16 bits) come to this connection."""

    TYPE: ClassVar[int] = MessageType.EXPERIMENTER
    SUBTYPE: ClassVar[int] = 20
    controller_id: int

    def __post_init__(self) -> None:
        if not 0 <= self.controller_id <= 0xFFFF:
            raise InvalidValueError(f"controller id {self.controller_id} is not a 16-bit number")

    def encode(self) -> bytes:
        return _EXPERIMENTER.pack(NICIRA, self.SUBTYPE) + self.controller_id.to_bytes(8, "big")
