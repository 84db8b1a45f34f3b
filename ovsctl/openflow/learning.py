"""The learn action: a packet adds a flow (ovs-actions(7), "The learn action")."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ovsctl.openflow.actions import Action, AnySubfield, check_range, nicira
from ovsctl.openflow.errors import ActionError
from ovsctl.openflow.fields import Field, FieldValue, Subfield, is_field, parse_value, subfield

_set = object.__setattr__
_LEARN = struct.Struct(">HHHQHBxHH")
_LEARN2 = struct.Struct(">IHH")
_SEND_FLOW_REM, _DELETE_LEARNED, _WRITE_RESULT = 1, 2, 4


def _source(target: Subfield, source: AnySubfield | FieldValue | None) -> Subfield | int:
    """A sub-field as wide as `target`, or a number that fits it. None is the same sub-field."""
    if source is None:
        return target
    if isinstance(source, str) and is_field(source.partition("[")[0]):
        source = subfield(source)
    if isinstance(source, Field):
        source = subfield(source)
    if isinstance(source, Subfield):
        if source.bits != target.bits:
            raise ActionError("learn", f"{source} and {target} are not equally wide")
        return source
    number = parse_value(target.field, source)[0]
    target.place(number)
    return number


def _encode(target_kind: int, source: Subfield | int, target: Subfield | None, bits: int) -> bytes:
    """A flow_mod_spec (nicira-ext.h, NXAST_LEARN): header, source, destination."""
    if isinstance(source, Subfield):
        spec = (target_kind << 11 | bits).to_bytes(2, "big")
        spec += source.field.header() + source.start.to_bytes(2, "big")
    else:
        spec = (1 << 13 | target_kind << 11 | bits).to_bytes(2, "big")
        spec += source.to_bytes((bits + 15) // 16 * 2, "big")
    if target is not None:
        spec += target.field.header() + target.start.to_bytes(2, "big")
    return spec


@dataclass(frozen=True, slots=True)
class LearnMatch:
    """The learned flow matches `target` on a sub-field of this packet (by default the same) or a number."""

    target: Subfield
    source: Subfield | int

    def __init__(self, target: AnySubfield, source: AnySubfield | FieldValue | None = None) -> None:
        _set(self, "target", subfield(target))
        _set(self, "source", _source(self.target, source))

    def encode(self) -> bytes:
        return _encode(0, self.source, self.target, self.target.bits)


@dataclass(frozen=True, slots=True)
class LearnLoad:
    """The learned flow writes a sub-field of this packet, or a number, to `target`."""

    source: Subfield | int
    target: Subfield

    def __init__(self, source: AnySubfield | FieldValue, target: AnySubfield) -> None:
        _set(self, "target", subfield(target))
        _set(self, "source", _source(self.target, source))
        if not self.target.field.writable:
            raise ActionError("learn", f"{self.target.field.name} is read-only")

    def encode(self) -> bytes:
        return _encode(1, self.source, self.target, self.target.bits)


@dataclass(frozen=True, slots=True)
class LearnOutput:
    """The learned flow outputs to the port that a sub-field of this packet holds."""

    source: Subfield

    def __init__(self, source: AnySubfield) -> None:
        _set(self, "source", subfield(source))

    def encode(self) -> bytes:
        return _encode(2, self.source, None, self.source.bits)


LearnSpec = LearnMatch | LearnLoad | LearnOutput


@dataclass(frozen=True, slots=True)
class Learn(Action):
    """Add a flow made of `specs` to `table`. Timeouts in seconds, 0: none; at most `limit` flows, 0: any."""

    specs: tuple[LearnSpec, ...]
    table: int = 1
    priority: int = 0x8000
    cookie: int = 0
    idle_timeout: int = 0
    hard_timeout: int = 0
    fin_idle_timeout: int = 0
    fin_hard_timeout: int = 0
    send_flow_rem: bool = False
    delete_learned: bool = False
    limit: int = 0
    result: Subfield | None = None

    def __post_init__(self) -> None:
        _set(self, "specs", tuple(self.specs))
        check_range("learn", "table", self.table, 0, 254)
        for name in ("priority", "idle_timeout", "hard_timeout", "fin_idle_timeout", "fin_hard_timeout"):
            check_range("learn", name, getattr(self, name), 0, 0xFFFF)
        check_range("learn", "cookie", self.cookie, 0, 0xFFFFFFFFFFFFFFFF)
        check_range("learn", "limit", self.limit, 0, 0xFFFFFFFF)
        if self.result is not None and (self.result.bits != 1 or not self.result.field.writable):
            raise ActionError("learn", f"result {self.result} is not one writable bit")

    def encode(self) -> bytes:
        flags = self.send_flow_rem * _SEND_FLOW_REM | self.delete_learned * _DELETE_LEARNED
        if self.result is not None:
            flags |= _WRITE_RESULT
        body = _LEARN.pack(
            self.idle_timeout, self.hard_timeout, self.priority, self.cookie,
            flags, self.table, self.fin_idle_timeout, self.fin_hard_timeout,
        )  # fmt: skip
        specs = b"".join([spec.encode() for spec in self.specs])
        if not self.limit and self.result is None:
            return nicira(16, body + specs)
        body += _LEARN2.pack(self.limit, self.result.start if self.result else 0, 0)
        return nicira(45, body + (self.result.field.header() if self.result else b"") + specs)
