"""Groups: their value, the group-mod that writes one, and the group description that reads one back.

One rule: a group's buckets have ids; those that the caller leaves out count from 0 by place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from ovsctl.openflow.actions import Action, as_actions, encode_actions
from ovsctl.openflow.decode import decode_actions
from ovsctl.openflow.errors import FlowError, InvalidValueError, MalformedMessage
from ovsctl.openflow.fields import Field, ReservedPort, field, port_from_wire, port_to_wire
from ovsctl.openflow.match import decode_oxm

MAX_GROUP = 0xFFFFFF00
ALL_GROUPS = 0xFFFFFFFC
ANY_GROUP = 0xFFFFFFFF
MAX_BUCKET = 0xFFFFFF00
FIRST_BUCKET = 0xFFFFFFFD
LAST_BUCKET = 0xFFFFFFFE
ALL_BUCKETS = 0xFFFFFFFF

_GROUP_MOD = struct.Struct(">HBxIH2xI")
_GROUP_DESC = struct.Struct(">HBxIH6x")
_BUCKET = struct.Struct(">HHI")
_PROPERTY = struct.Struct(">HH")
_WEIGHT, _WATCH_PORT, _WATCH_GROUP = 0, 1, 2
_EXPERIMENTER = 0xFFFF
_SELECTION = struct.Struct(">HHIII16sQ")  # netronome-ext.h, ntr_group_prop_selection_method
_NETRONOME_ID = 0x0000154D
_set = object.__setattr__


class GroupType(IntEnum):
    """The choice of buckets: every one, one by hash, the only one, the first that is alive."""

    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FF = 3


class GroupModCommand(IntEnum):
    """ofp_group_mod_command, with Open vSwitch's own ADD_OR_MODIFY."""

    ADD = 0
    MODIFY = 1
    DELETE = 2
    INSERT_BUCKET = 3
    REMOVE_BUCKET = 5
    ADD_OR_MODIFY = 0x8000


@dataclass(frozen=True, slots=True)
class Bucket:
    """Actions of a group. `weight` is for SELECT (default 1); FF needs a port or group to watch."""

    actions: tuple[Action, ...] = ()
    bucket_id: int | None = None
    weight: int | None = None
    watch_port: int | None = None
    watch_group: int | None = None

    def __post_init__(self) -> None:
        _set(self, "actions", as_actions("bucket", self.actions))
        _check("bucket_id", self.bucket_id, MAX_BUCKET)
        _check("weight", self.weight, 0xFFFF)
        _check("watch_port", self.watch_port, 0xFFFE)
        _check("watch_group", self.watch_group, MAX_GROUP)

    def encode(self, weight: int) -> bytes:
        """ofp_bucket (OpenFlow 1.5.1 §7.3.4.3.1); `weight` stands for one left out."""
        actions = encode_actions(self.actions)
        body = actions
        if weight or self.weight is not None:
            weight = weight if self.weight is None else self.weight
            body += struct.pack(">HHH2x", _WEIGHT, 6, weight)
        if self.watch_port is not None:
            body += struct.pack(">HHI", _WATCH_PORT, 8, port_to_wire(self.watch_port))
        if self.watch_group is not None:
            body += struct.pack(">HHI", _WATCH_GROUP, 8, self.watch_group)
        return _BUCKET.pack(_BUCKET.size + len(body), len(actions), self.bucket_id or 0) + body


def _check(name: str, value: int | None, limit: int) -> None:
    if value is not None and not 0 <= value <= limit:
        raise FlowError(f"{name}={value} is not from 0 to {limit:#x}")


@dataclass(frozen=True, slots=True)
class Group:
    """A group. `selection` ("hash" or "dp_hash", with its parameter and fields) is for SELECT. Raises FlowError."""

    group_id: int
    type: GroupType = GroupType.ALL
    buckets: tuple[Bucket, ...] = ()
    selection: str = ""
    selection_param: int = 0
    selection_fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check("group_id", self.group_id, MAX_GROUP)
        _check("selection_param", self.selection_param, 0xFFFFFFFFFFFFFFFF)
        taken = {bucket.bucket_id for bucket in self.buckets if bucket.bucket_id is not None}
        free = (number for number in range(len(self.buckets) + len(taken)) if number not in taken)
        _set(self, "type", GroupType(self.type))
        _set(self, "buckets", tuple(self._settle(bucket, free) for bucket in self.buckets))
        if len({bucket.bucket_id for bucket in self.buckets}) != len(self.buckets):
            raise FlowError(f"group {self.group_id}: two buckets have the same id")
        if self.type is GroupType.INDIRECT and len(self.buckets) != 1:
            raise FlowError(f"group {self.group_id}: an indirect group has one bucket, not {len(self.buckets)}")
        if self.selection and (self.type is not GroupType.SELECT or len(self.selection) > 15):
            raise FlowError(f"group {self.group_id}: selection {self.selection!r} is for select groups")
        if not self.selection and (self.selection_param or self.selection_fields):
            raise FlowError(f"group {self.group_id}: selection parameters without a selection method")
        names = {field(name).name for name in self.selection_fields}
        _set(self, "selection_fields", tuple(sorted(names, key=lambda name: field(name).order)))

    def _settle(self, bucket: Bucket, free: Iterator[int]) -> Bucket:
        watches = bucket.watch_port is not None or bucket.watch_group is not None
        if watches is not (self.type is GroupType.FF) and self.type is not GroupType.SELECT:
            raise FlowError(f"group {self.group_id}: ff buckets, and no others, watch a port or a group")
        if bucket.weight is not None and self.type is not GroupType.SELECT:
            if bucket.weight:
                raise FlowError(f"group {self.group_id}: weights are for select groups")
            bucket = replace(bucket, weight=None)
        if bucket.weight == 1:
            bucket = replace(bucket, weight=None)
        return bucket if bucket.bucket_id is not None else replace(bucket, bucket_id=next(free))

    @property
    def default_weight(self) -> int:
        """The weight of a bucket that has none."""
        return 1 if self.type is GroupType.SELECT else 0

    def encode_buckets(self) -> bytes:
        """Its buckets, one after the other."""
        return b"".join([bucket.encode(self.default_weight) for bucket in self.buckets])

    def encode_properties(self) -> bytes:
        """Its selection method, where it has one."""
        if not self.selection:
            return b""
        fields = b"".join(
            field(name).header() + field(name).full.to_bytes(field(name).size, "big") for name in self.selection_fields
        )
        length = _SELECTION.size + len(fields)
        name = self.selection.encode("ascii")
        head = _SELECTION.pack(_EXPERIMENTER, length, _NETRONOME_ID, 1, 0, name, self.selection_param)
        return head + fields + bytes(-length % 8)


def encode_group_mod(
    group: Group, command: GroupModCommand = GroupModCommand.ADD, *, bucket: int | None = None
) -> bytes:
    """The body of the group-mod that writes `group`.

    INSERT_BUCKET adds its buckets after the one with id `bucket`, FIRST_BUCKET or (default) LAST_BUCKET.
    """
    if bucket is None:
        bucket = LAST_BUCKET if command is GroupModCommand.INSERT_BUCKET else ALL_BUCKETS
    buckets = group.encode_buckets()
    if len(buckets) > 65000:
        raise FlowError(f"group {group.group_id}: {len(buckets)} bytes of buckets do not fit a message")
    head = _GROUP_MOD.pack(command, group.type, group.group_id, len(buckets), bucket)
    return head + buckets + group.encode_properties()


def encode_group_delete(group_id: int = ALL_GROUPS) -> bytes:
    """The body of the group-mod that deletes a group, by default all, with the flows that refer to it."""
    return _GROUP_MOD.pack(GroupModCommand.DELETE, 0, group_id, 0, ALL_BUCKETS)


def encode_bucket_remove(group_id: int, bucket: int = ALL_BUCKETS) -> bytes:
    """The body of the group-mod that removes a bucket by its id, FIRST_BUCKET, LAST_BUCKET or all."""
    return _GROUP_MOD.pack(GroupModCommand.REMOVE_BUCKET, 0, group_id, 0, bucket)


# ---- decoding ----


def decode_group_mod(body: bytes) -> tuple[GroupModCommand, Group, int]:
    """(command, group, bucket id) of a group-mod's body that writes a group. Raises MalformedMessage."""
    if len(body) < _GROUP_MOD.size:
        raise MalformedMessage("group-mod", f"{len(body)} bytes are too few")
    command, kind, group_id, length, bucket = _GROUP_MOD.unpack_from(body)
    if command not in GroupModCommand._value2member_map_:
        raise MalformedMessage("group-mod", f"command {command} is not one that ovsctl supports")
    group = _decode_group("group-mod", body[_GROUP_MOD.size :], kind, group_id, length)
    return GroupModCommand(command), group, bucket


def decode_group_descs(data: bytes) -> Iterator[Group]:
    """All entries of an OFPMP_GROUP_DESC reply's body (without its multipart header). Raises MalformedMessage."""
    at = 0
    while at < len(data):
        if len(data) - at < _GROUP_DESC.size:
            raise MalformedMessage("group desc", f"{len(data) - at} bytes left where an entry takes {_GROUP_DESC.size}")
        size, kind, group_id, length = _GROUP_DESC.unpack_from(data, at)
        if size < _GROUP_DESC.size or at + size > len(data):
            raise MalformedMessage("group desc", f"an entry of {size} bytes where {len(data) - at} are left")
        yield _decode_group("group desc", data[at + _GROUP_DESC.size : at + size], kind, group_id, length)
        at += size


def _decode_group(subject: str, data: bytes, group_type: int, group_id: int, buckets_length: int) -> Group:
    if group_type > GroupType.FF or buckets_length > len(data):
        raise MalformedMessage(
            subject, f"type {group_type}, {buckets_length} bytes of buckets where {len(data)} are left"
        )
    buckets = tuple(_decode_buckets(data[:buckets_length]))
    selection, param = "", 0
    fields: tuple[Field, ...] = ()
    for number, value in _properties(data[buckets_length:]):
        if number != _EXPERIMENTER:
            raise MalformedMessage(subject, f"property {number} is not one that ovsctl supports")
        selection, param, fields = _decode_selection(value)
    try:
        return Group(group_id, GroupType(group_type), buckets, selection, param, tuple(f.name for f in fields))
    except InvalidValueError as error:
        raise MalformedMessage(subject, str(error)) from error


def _properties(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each property in a list padded to 8 bytes each."""
    at = 0
    while at < len(data):
        number, length = _PROPERTY.unpack_from(data, at) if len(data) - at >= 4 else (0, 0)
        if length < 4 or at + length > len(data):
            raise MalformedMessage("properties", f"one of {length} bytes where {len(data) - at} are left")
        yield number, data[at + 4 : at + length]
        at += length + 7 & ~7


def _decode_selection(value: bytes) -> tuple[str, int, tuple[Field, ...]]:
    size = _SELECTION.size - 4
    if len(value) < size:
        raise MalformedMessage("selection method", f"{len(value)} bytes are too few")
    vendor, kind, _, name, param = struct.unpack_from(">III16sQ", value)
    if vendor != _NETRONOME_ID or kind != 1:
        raise MalformedMessage(
            "selection method", f"experimenter {vendor:#x} type {kind} is not one that ovsctl supports"
        )
    fields, at = [], size
    while at < len(value):
        f, number, _, at = decode_oxm(value, at, len(value))
        if number != f.full:
            raise MalformedMessage("selection method", f"part of {f.name}, which ovsctl does not support")
        fields.append(f)
    return name.rstrip(b"\0").decode("ascii", "replace"), param, tuple(fields)


def _decode_buckets(data: bytes) -> Iterator[Bucket]:
    at = 0
    while at < len(data):
        if len(data) - at < _BUCKET.size:
            raise MalformedMessage("bucket", f"{len(data) - at} bytes left where one takes {_BUCKET.size}")
        length, actions_length, bucket_id = _BUCKET.unpack_from(data, at)
        start, end = at + _BUCKET.size, at + length
        if end > len(data) or start + actions_length > end:
            raise MalformedMessage("bucket", f"{length} bytes with {actions_length} of actions, {len(data) - at} left")
        actions = decode_actions(data[start : start + actions_length])
        values = dict(_properties(data[start + actions_length : end]))
        if any(number > _WATCH_GROUP for number in values):
            raise MalformedMessage("bucket", f"properties {sorted(values)} are not all ones that ovsctl supports")
        yield _bucket(actions, bucket_id, values)
        at = end


def _bucket(actions: tuple[Action, ...], bucket_id: int, values: dict[int, bytes]) -> Bucket:
    weight = int.from_bytes(values[_WEIGHT][:2], "big") if _WEIGHT in values else None
    port: int | None = None
    if _WATCH_PORT in values:
        port = port_from_wire(int.from_bytes(values[_WATCH_PORT][:4], "big"))
        if port is None:
            raise MalformedMessage(
                "bucket", f"watch_port {values[_WATCH_PORT].hex()} is not one that Open vSwitch can have"
            )
    group = int.from_bytes(values[_WATCH_GROUP][:4], "big") if _WATCH_GROUP in values else ANY_GROUP
    try:
        return Bucket(
            actions,
            bucket_id,
            weight,
            None if port == ReservedPort.NONE else port,
            None if group == ANY_GROUP else group,
        )
    except InvalidValueError as error:
        raise MalformedMessage("bucket", str(error)) from error
