"""Group and meter modifications, and their descriptions read back (OpenFlow 1.5 §7.3.4.3, §7.3.4.5, §7.3.5).

Flow modifications are `FlowMod` (flow.py) and the changes that FlowTable.diff makes (table.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import ClassVar, Self

import msgspec

from ..group import (
    ALL_BUCKETS,
    ALL_GROUPS,
    Group,
    GroupModCommand,
    decode_group_descs,
    encode_bucket_remove,
    encode_group_delete,
    encode_group_mod,
)
from ..meter import (
    ALL_METERS,
    Meter,
    MeterModCommand,
    decode_meter_descs,
    encode_meter_delete,
    encode_meter_mod,
)
from ..wire import Reader
from .core import MessageType
from .multipart import MultipartType

_REQUEST = Struct("!I4x")


class GroupMod(msgspec.Struct, frozen=True):
    """The command to a group, or to some of its buckets."""

    TYPE: ClassVar[int] = MessageType.GROUP_MOD
    command: GroupModCommand
    group_id: int
    group: Group | None = None
    bucket: int = ALL_BUCKETS

    def encode(self) -> bytes:
        if self.group is not None:
            return encode_group_mod(self.group, self.command, bucket=self.bucket)
        if self.command is GroupModCommand.REMOVE_BUCKET:
            return encode_bucket_remove(self.group_id, self.bucket)
        return encode_group_delete(self.group_id)

    @classmethod
    def add(cls, group: Group) -> Self:
        """Add a group; refused when there is one with its id."""
        return cls(GroupModCommand.ADD, group.group_id, group)

    @classmethod
    def modify(cls, group: Group) -> Self:
        """Replace the group with its id; refused when there is none."""
        return cls(GroupModCommand.MODIFY, group.group_id, group)

    @classmethod
    def add_or_modify(cls, group: Group) -> Self:
        """Add a group, or replace the one with its id (Open vSwitch's own command)."""
        return cls(GroupModCommand.ADD_OR_MODIFY, group.group_id, group)

    @classmethod
    def delete(cls, group_id: int = ALL_GROUPS) -> Self:
        """Delete a group, by default all, and the flows that refer to it."""
        return cls(GroupModCommand.DELETE, group_id)

    @classmethod
    def insert_buckets(cls, group: Group, after: int) -> Self:
        """Put the buckets of `group` into the one with its id, behind bucket `after`."""
        return cls(GroupModCommand.INSERT_BUCKET, group.group_id, group, after)

    @classmethod
    def remove_bucket(cls, group_id: int, bucket: int = ALL_BUCKETS) -> Self:
        """Take a bucket, by default all, out of a group."""
        return cls(GroupModCommand.REMOVE_BUCKET, group_id, None, bucket)


class MeterMod(msgspec.Struct, frozen=True):
    """The command to a meter."""

    TYPE: ClassVar[int] = MessageType.METER_MOD
    command: MeterModCommand
    meter_id: int
    meter: Meter | None = None

    def encode(self) -> bytes:
        if self.meter is None:
            return encode_meter_delete(self.meter_id)
        return encode_meter_mod(self.meter, self.command)

    @classmethod
    def add(cls, meter: Meter) -> Self:
        """Add a meter; refused when there is one with its id."""
        return cls(MeterModCommand.ADD, meter.meter_id, meter)

    @classmethod
    def modify(cls, meter: Meter) -> Self:
        """Replace the meter with its id; refused when there is none."""
        return cls(MeterModCommand.MODIFY, meter.meter_id, meter)

    @classmethod
    def delete(cls, meter_id: int = ALL_METERS) -> Self:
        """Delete a meter, by default all, and the flows that use it."""
        return cls(MeterModCommand.DELETE, meter_id)


class GroupDescRequest(msgspec.Struct, frozen=True):
    """All groups, or one."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.GROUP_DESC
    group_id: int = ALL_GROUPS

    def encode(self) -> bytes:
        return _REQUEST.pack(self.group_id)


def decode_groups(reader: Reader) -> Iterator[Group]:
    return decode_group_descs(reader.rest())


class MeterDescRequest(msgspec.Struct, frozen=True):
    """All meters, or one."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.METER_DESC
    meter_id: int = ALL_METERS

    def encode(self) -> bytes:
        return _REQUEST.pack(self.meter_id)


def decode_meters(reader: Reader) -> Iterator[Meter]:
    return decode_meter_descs(reader.rest())
