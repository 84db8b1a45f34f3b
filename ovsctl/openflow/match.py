"""Matches: which packets a flow is for.

One rule: a match is its canonical wire form, so equal matches have equal bytes however they were written.
Value bits outside the mask are 0, a full mask and no mask are the same, what is wholly masked out is not
there, and of fields that overlap one stands for all:

    reg0..reg15  for xreg0..7 and xxreg0..3        vlan_tci  for vlan_vid, vlan_pcp, dl_vlan and dl_vlan_pcp
    ip_dscp      for nw_tos                        in_port   for in_port_oxm
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ovsctl.openflow.errors import FieldError, MalformedMessage
from ovsctl.openflow.fields import (
    BY_HEADER,
    EXPERIMENTER,
    FIELDS,
    Field,
    FieldValue,
    MatchValue,
    Needs,
    Subfield,
    field,
    parse_value,
    port_from_wire,
    port_to_wire,
    subfield,
)

VLAN_PRESENT = 0x1000
_VID_MASK = 0x1FFF
_PCP_MASK = 0xE000
_CACHE_LIMIT = 65536


class FieldMatch(NamedTuple):
    """That `field` has `value` in the bits of `mask`. `wire` is its OXM TLV."""

    order: int
    field: Field
    value: int
    mask: int
    wire: bytes

    @property
    def exact(self) -> bool:
        """Whether every bit of the field is matched."""
        return self.mask == self.field.full

    def __str__(self) -> str:
        from ovsctl.openflow.fields import format_value  # noqa: PLC0415

        return f"{self.field.name}={format_value(self.field, self.value, self.mask)}"


_VLAN_TCI = FIELDS["vlan_tci"]
_IN_PORT = FIELDS["in_port"]
_IN_PORT_OXM = FIELDS["in_port_oxm"]
_IP_DSCP = FIELDS["ip_dscp"]
_IP_FRAG = FIELDS["ip_frag"]
_VLAN_VID = FIELDS["vlan_vid"]
_VLAN_PCP = FIELDS["vlan_pcp"]
_CT_STATE_VALID = 0b1100_1111  # new, est, rel, rpl, snat, dnat
_HAS_NEEDS = frozenset(f.order for f in FIELDS.values() if f.needs is not Needs.NOTHING)
_NEEDED = frozenset(
    FIELDS[name].order
    for name in (
        "eth_type", "nw_proto", "ip_frag", "icmpv6_type", "icmpv6_code", "ct_state", "ct_nw_proto", "vlan_tci",
    )
)  # fmt: skip
_EXACT_HEADERS = tuple(f.header() for f in FIELDS.values())
_new = tuple.__new__


def _oxm(f: Field, value: int, mask: int) -> bytes:
    if mask == f.full:
        return _EXACT_HEADERS[f.order] + value.to_bytes(f.size, "big")
    return f.header(masked=True) + value.to_bytes(f.size, "big") + mask.to_bytes(f.size, "big")


def _vlan_wire(value: int, mask: int) -> bytes:
    # OpenFlow 1.5 has no vlan_tci; the switch would dump it as these two (ovs-fields(7), "VLAN Fields").
    wire = _oxm(_VLAN_VID, value & _VID_MASK, mask & _VID_MASK)
    if mask & _PCP_MASK:
        wire += _oxm(_VLAN_PCP, value >> 13, 7)
    return wire


def _wire(f: Field, value: int, mask: int) -> bytes:
    if f is _IN_PORT:
        return _oxm(_IN_PORT_OXM, port_to_wire(value), _IN_PORT_OXM.full)
    if f is _VLAN_TCI:
        return _vlan_wire(value, mask)
    return _oxm(f, value, mask)


def _make(f: Field, value: int, mask: int) -> FieldMatch:
    if mask == 0:
        return _ANYTHING
    if f is _IP_FRAG:
        value, mask = _canonical_frag(value, mask)
    return _new(FieldMatch, (f.order, f, value, mask, _wire(f, value, mask)))


def _canonical_frag(value: int, mask: int) -> tuple[int, int]:
    # "Not first" implies "a fragment", so one bit can say as much as both: the form with a name is the one.
    if (value, mask) == (2, 3):
        raise FieldError("ip_frag", "a packet that is no fragment is not a later one: write yes, no, first or later")
    return {(0, 1): (0, 3), (2, 2): (3, 3)}.get((value, mask), (value, mask))


_ANYTHING = FieldMatch(-1, _VLAN_TCI, 0, 0, b"")


def _canonical_vlan(value: int, mask: int) -> tuple[int, int]:
    """The TCI match in the form that survives a switch's OpenFlow 1.5 dump; FieldError for one without."""
    if mask & VLAN_PRESENT and not value & VLAN_PRESENT:
        if value & mask & ~VLAN_PRESENT:
            raise FieldError("vlan_tci", "a packet without a tag has no VID or priority; set bit 0x1000 to match a tag")
        # No tag at all: the whole TCI is 0, so the other bits add nothing.
        return 0, _VID_MASK
    if mask & _PCP_MASK and (mask & _PCP_MASK != _PCP_MASK or not value & mask & VLAN_PRESENT):
        raise FieldError("vlan_tci", "match all three priority bits or none, and with them the present bit (0x1000)")
    return value, mask


# ---- names that stand for part of a canonical field ----


def _split_registers(f: Field, first: int, count: int, value: int, mask: int) -> Iterator[tuple[Field, int, int]]:
    for n in range(count):
        shift = 32 * (count - 1 - n)
        yield FIELDS[f"reg{first + n}"], value >> shift & 0xFFFFFFFF, mask >> shift & 0xFFFFFFFF


def _vlan_vid(value: int, mask: int) -> Iterator[tuple[Field, int, int]]:
    if mask == _VID_MASK and 0 < value < VLAN_PRESENT:
        raise FieldError(
            "vlan_vid",
            f"{value} lacks the present bit, so no packet can match: "
            f"write dl_vlan={value} or vlan_vid={value | VLAN_PRESENT:#x}",
        )
    yield _VLAN_TCI, value, mask


def _canonical(f: Field, value: int, mask: int) -> Iterable[tuple[Field, int, int]]:
    """The same match on canonical fields."""
    if f is _VLAN_VID:
        return _vlan_vid(value, mask)
    if f is _VLAN_PCP:
        return [(_VLAN_TCI, value << 13 | VLAN_PRESENT, _PCP_MASK | VLAN_PRESENT if mask else 0)]
    if f is _IN_PORT_OXM:
        port = port_from_wire(value)
        if port is None:
            raise FieldError(f.name, f"{value:#x} is not a port that Open vSwitch can have (0 to 0xfeff, or reserved)")
        return [(_IN_PORT, port, _IN_PORT.full if mask else 0)]
    if f.name == "nw_tos":
        if value & 3:
            raise FieldError(f.name, "the low two bits are nw_ecn and must be 0")
        return [(_IP_DSCP, value >> 2, _IP_DSCP.full if mask else 0)]
    if f.name.startswith("xxreg"):
        return _split_registers(f, int(f.name[5:]) * 4, 4, value, mask)
    if f.name.startswith("xreg"):
        return _split_registers(f, int(f.name[4:]) * 2, 2, value, mask)
    return [(f, value, mask)]


def _dl_vlan(value: MatchValue) -> list[tuple[Field, int, int]]:
    """OpenFlow 1.0's name: a VID of 0 to 4095, or 0xffff for no tag (ovs-fields(7))."""
    number, _ = parse_value(_VLAN_TCI, value)
    if number == 0xFFFF:
        return [(_VLAN_TCI, 0, _VID_MASK)]
    if number > 0xFFF:
        raise FieldError("dl_vlan", f"{value!r} is not a VID of 0 to 4095, nor 0xffff for no tag")
    return [(_VLAN_TCI, number | VLAN_PRESENT, _VID_MASK)]


# Names that need the slow way: what they mean is another field, or the same as another name.
_OVERLAPPING = frozenset(
    ["vlan_tci", "vlan_vid", "vlan_pcp", "dl_vlan", "dl_vlan_pcp", "nw_tos", "in_port_oxm"]
    + [name for name in FIELDS if name.startswith("x")]
    + [alias for f in FIELDS.values() for alias in f.aliases]
)


def _expand(name: str, value: MatchValue) -> Iterable[tuple[Field, int, int]]:
    if name == "dl_vlan":
        return _dl_vlan(value)
    f = _VLAN_PCP if name == "dl_vlan_pcp" else field(name)
    return _canonical(f, *parse_value(f, value))


def _merge(parts: Iterable[tuple[Field, int, int]]) -> list[FieldMatch]:
    """All parts together; FieldError when two of them want a bit to be 0 and 1."""
    merged: dict[Field, tuple[int, int]] = {}
    for f, value, mask in parts:
        old_value, old_mask = merged.get(f, (0, 0))
        if (value ^ old_value) & mask & old_mask:
            raise FieldError(f.name, "it is matched twice, with different values")
        merged[f] = (value | old_value, mask | old_mask)
    if _VLAN_TCI in merged:
        merged[_VLAN_TCI] = _canonical_vlan(*merged[_VLAN_TCI])
    return [_make(f, value, mask) for f, (value, mask) in merged.items()]


# ---- prerequisites ----

_IP_TYPES = (0x0800, 0x86DD)
_Values = Mapping[str, FieldMatch]


def _is(values: _Values, name: str, *wanted: int) -> bool:
    found = values.get(name)
    return found is not None and found.value in wanted


def _ip(values: _Values, proto: int, types: tuple[int, ...] = _IP_TYPES) -> bool:
    frag = values.get("ip_frag")
    return _is(values, "eth_type", *types) and _is(values, "nw_proto", proto) and (frag is None or not frag.value & 2)


def _ct(values: _Values) -> bool:
    state = values.get("ct_state")
    if state is None:
        return False
    tracked_and_not_invalid = state.value & 0x20 and state.mask & 0x10 and not state.value & 0x10
    return bool(state.value & _CT_STATE_VALID or tracked_and_not_invalid)


def _nd(values: _Values, *types: int) -> bool:
    code = values.get("icmpv6_code")
    return _is(values, "icmpv6_type", *types) and (code is None or code.value == 0)


_MET: dict[Needs, Callable[[_Values], bool]] = {
    Needs.ARP: lambda v: _is(v, "eth_type", 0x0806, 0x8035),
    Needs.IPV4: lambda v: _is(v, "eth_type", 0x0800),
    Needs.IPV6: lambda v: _is(v, "eth_type", 0x86DD),
    Needs.IP: lambda v: _is(v, "eth_type", *_IP_TYPES),
    Needs.TCP: lambda v: _ip(v, 6),
    Needs.UDP: lambda v: _ip(v, 17),
    Needs.SCTP: lambda v: _ip(v, 132),
    Needs.ICMPV4: lambda v: _ip(v, 1, (0x0800,)),
    Needs.ICMPV6: lambda v: _ip(v, 58, (0x86DD,)),
    Needs.ND: lambda v: _nd(v, 135, 136),
    Needs.ND_SOLICIT: lambda v: _nd(v, 135),
    Needs.ND_ADVERT: lambda v: _nd(v, 136),
    Needs.CT: _ct,
    Needs.CT4: lambda v: _ct(v) and _is(v, "eth_type", 0x0800),
    Needs.CT6: lambda v: _ct(v) and _is(v, "eth_type", 0x86DD),
    Needs.CT_PORTS: lambda v: "ct_nw_proto" in v and v["ct_nw_proto"].value != 0,
}


def _check_needs(entries: Iterable[FieldMatch]) -> None:
    values = {entry.field.name: entry for entry in entries}
    for name, entry in values.items():
        needs = entry.field.needs
        if needs is not Needs.NOTHING and not _MET[needs](values):
            raise FieldError(name, f"it exists only together with {needs.value}: add that to the match")


# ---- the match ----

# A field and a value as the caller wrote it, to what it means: most flows of a pipeline repeat them.
_known: dict[tuple[str, MatchValue], FieldMatch] = {}


_met: set[tuple[int | bytes, ...]] = set()


def _check_needs_once(entries: list[FieldMatch]) -> None:
    """_check_needs, but for what was found right before with other values where these do not matter."""
    key = tuple([entry.wire if entry.order in _NEEDED else entry.order for entry in entries])
    if key not in _met:
        _check_needs(entries)
        if len(_met) >= _CACHE_LIMIT:
            _met.clear()
        _met.add(key)


def _learn(item: tuple[str, MatchValue]) -> FieldMatch:
    name, value = item
    f = FIELDS.get(name) or field(name)
    found = _make(f, *parse_value(f, value))
    if len(_known) >= _CACHE_LIMIT:
        _known.clear()
    _known[item] = found
    if f.order not in _VLAN_PARTS:
        _remember(found.wire, found)  # it may come back from a switch
    return found


@dataclass(frozen=True, slots=True, init=False, repr=False, eq=False)
class Match:
    """A match, by field names of ovs-fields(7).

    `Match(in_port=1, eth_type=0x0800, ip_src="10.0.0.0/8", reg0=(5, 0xff), ct_state="+trk-new")`. A value is
    a number, text as ovs-ofctl takes it, an address or network object, or a pair (value, mask). Positional
    arguments come from `matching`: `Match(matching(RegField(0, 4, 7), 3), in_port=1)`; parts of one field add
    up. Checked here: widths, masks, prerequisites, contradictions. Raises FieldError.

    `entries` are in canonical order; `wire` is the ofp_match structure with its header and padding.
    """

    entries: tuple[FieldMatch, ...]
    wire: bytes

    def __init__(self, *parts: FieldMatch, **fields: MatchValue) -> None:
        if parts or not _OVERLAPPING.isdisjoint(fields):
            expanded = [(part.field, part.value, part.mask) for part in parts]
            for name, value in fields.items():
                expanded.extend(_expand(name, value))
            entries = _merge(expanded)
        else:
            entries = [_known.get(item) or _learn(item) for item in fields.items()]
        self._settle(entries)

    def _settle(self, entries: list[FieldMatch]) -> None:
        entries.sort()
        while entries and entries[0].order < 0:
            del entries[0]
        for entry in entries:
            if entry.order in _HAS_NEEDS:
                _check_needs_once(entries)
                break
        _set(self, "entries", tuple(entries))
        _set(self, "wire", _frame(entries))

    @classmethod
    def of(cls, entries: Iterable[tuple[Field, int, int]]) -> Match:
        """The match of (field, value, mask) triples, checked like any other."""
        self = cls.__new__(cls)
        self._settle(_merge(part for f, value, mask in entries for part in _canonical(f, value & mask, mask)))
        return self

    def get(self, name: str) -> FieldMatch | None:
        """The entry of the canonical field `name`; None when it is not matched."""
        for entry in self.entries:
            if entry.field.name == name:
                return entry
        return None

    def __getitem__(self, name: str) -> FieldMatch:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[FieldMatch]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __bool__(self) -> bool:
        """Whether it leaves any packet out."""
        return bool(self.entries)

    def replace(self, **fields: MatchValue | None) -> Match:
        """The same match with these fields changed; None takes a field out."""
        kept = [entry for entry in self.entries if entry.field.name not in fields]
        return Match(*kept, **{name: value for name, value in fields.items() if value is not None})

    def __eq__(self, other: object) -> bool:
        return self.wire == other.wire if isinstance(other, Match) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.wire)

    def __repr__(self) -> str:
        inner = ", ".join(
            f"{e.field.name}={e.value:#x}" if e.exact else f"{e.field.name}=({e.value:#x}, {e.mask:#x})"
            for e in self.entries
        )
        return f"Match({inner})"


_set = object.__setattr__
_MATCH_HEADER = struct.Struct(">HH")
_PADS = tuple(bytes(-length % 8) for length in range(8))


def _frame(entries: list[FieldMatch]) -> bytes:
    oxm = b"".join([entry.wire for entry in entries])
    length = len(oxm) + 4
    return b"%b%b%b" % (_MATCH_HEADER.pack(1, length), oxm, _PADS[length & 7])


def matching(part: Subfield | Field | str, value: FieldValue) -> FieldMatch:
    """That a sub-field is `value`: `matching(RegField(0, 21, 22), 2)`, `matching("reg0[5]", 1)`."""
    bits = subfield(part)
    if bits.whole:
        return FieldMatch(bits.field.order, bits.field, *parse_value(bits.field, value), b"")
    return FieldMatch(bits.field.order, bits.field, bits.place(parse_value(bits.field, value)[0]), bits.mask, b"")


# ---- decoding ----

# An OXM TLV to its entry, or to parts where entries may have to be put together: VLAN fields, wide registers.
_decoded: dict[bytes, FieldMatch | tuple[tuple[Field, int, int], ...]] = {}
_PACKET_TYPE_ETHERNET = bytes.fromhex("80005804 00000000".replace(" ", ""))
_VLAN_PARTS = {f.order for f in (_VLAN_TCI, _VLAN_VID, _VLAN_PCP)}


def decode_oxm_header(data: bytes, offset: int, end: int) -> tuple[Field, bool, int, int]:
    """(field, has mask, where its payload starts, payload length) of the OXM header at `offset`."""
    if end - offset < 4:
        raise MalformedMessage("OXM", f"{end - offset} bytes left where a header takes 4")
    top = int.from_bytes(data[offset : offset + 4], "big")
    start, length, experimenter = offset + 4, top & 0xFF, 0
    if top >> 16 == EXPERIMENTER:
        if length < 4 or end - start < 4:
            raise MalformedMessage("OXM", "an experimenter's header without its experimenter")
        experimenter = int.from_bytes(data[start : start + 4], "big")
        start, length = start + 4, length - 4
    f = BY_HEADER.get((top >> 16, top >> 9 & 0x7F, experimenter))
    if f is None:
        raise MalformedMessage(
            "OXM", f"field {top:#010x} (experimenter {experimenter:#x}) is not one that ovsctl supports"
        )
    masked = bool(top & 0x100)
    if length != f.size * (2 if masked else 1):
        raise MalformedMessage("OXM", f"{f.name} with {length} bytes, mask {masked}, where a value takes {f.size}")
    return f, masked, start, length


def decode_oxm(data: bytes, offset: int, end: int) -> tuple[Field, int, int, int]:
    """(field, value, mask, where the next one starts) of the OXM TLV at `offset`."""
    f, masked, start, length = decode_oxm_header(data, offset, end)
    stop = start + length
    if stop > end:
        raise MalformedMessage("OXM", f"{f.name} takes {length} bytes where {end - start} are left")
    value = int.from_bytes(data[start : start + f.size], "big")
    mask = int.from_bytes(data[start + f.size : stop], "big") & f.full if masked else f.full
    if value > f.limit:
        raise MalformedMessage("OXM", f"{f.name} is from 0 to {f.limit:#x}, not {value:#x}")
    if masked and not f.maskable and mask != f.full:
        raise MalformedMessage("OXM", f"{f.name} takes no mask")
    return f, value & mask, mask, stop


def _decode_entry(tlv: bytes) -> FieldMatch | tuple[tuple[Field, int, int], ...]:
    if tlv == _PACKET_TYPE_ETHERNET:
        return ()  # every packet of an Ethernet bridge; the switch says so where nothing else implies it
    f, value, mask, _ = decode_oxm(tlv, 0, len(tlv))
    try:
        # Of a pair of registers, in which a switch writes one, the other is not matched.
        parts = tuple(part for part in _canonical(f, value, mask) if part[2])
        found = _make(*parts[0]) if len(parts) == 1 and f.order not in _VLAN_PARTS else parts
    except FieldError as error:
        raise MalformedMessage("match", str(error)) from error
    _remember(tlv, found)
    return found


def _remember(tlv: bytes, found: FieldMatch | tuple[tuple[Field, int, int], ...]) -> None:
    if len(_decoded) >= _CACHE_LIMIT:
        _decoded.clear()
    _decoded[tlv] = found


def decode_match(data: bytes, offset: int, end: int) -> tuple[Match, int]:
    """The match at `offset` and where it ends, padding included. Raises MalformedMessage."""
    if end - offset < 8:
        raise MalformedMessage("match", f"{end - offset} bytes left where one takes 8")
    kind, length = _MATCH_HEADER.unpack_from(data, offset)
    stop = offset + length
    padded = offset + (length + 7 & ~7)
    if kind != 1 or length < 4 or padded > end:
        raise MalformedMessage("match", f"type {kind}, length {length} with {end - offset} bytes left")
    parts: list[tuple[Field, int, int]] = []
    entries: list[FieldMatch] = []
    at = offset + 4
    while at < stop:
        if stop - at < 4:
            raise MalformedMessage("match", f"{stop - at} bytes left where an OXM header takes 4")
        tlv = data[at : at + 4 + data[at + 3]]
        if at + 4 + data[at + 3] > stop:
            raise MalformedMessage("match", f"a field of {data[at + 3]} bytes where {stop - at - 4} are left")
        found = _decoded.get(tlv) or _decode_entry(tlv)
        if isinstance(found, FieldMatch):
            entries.append(found)
        else:
            parts.extend(found)
        at += len(tlv)
    try:
        match = Match.__new__(Match)
        if parts or len({entry.order for entry in entries}) != len(entries):
            entries = _merge([*parts, *((entry.field, entry.value, entry.mask) for entry in entries)])
        match._settle(entries)
    except FieldError as error:
        raise MalformedMessage("match", str(error)) from error
    return match, padded
