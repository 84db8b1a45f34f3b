"""Marked frames, and the flows that watch for them: each host says that one came in, and catches it before a VIF's port.

One rule: what these flows match is one marked frame, byte for byte as far as Open vSwitch can match, and nobody else's. A frame
that they catch goes to the agent alone.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from ovsctl.openflow import Flow, Match
from ovsctl.openflow import actions as act
from vnet.compile.flows import ETH_ARP, ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, TCP, UDP, Fields, Flows, goto
from vnet.compile.pipeline import REG_SEEN, Category, Table, cookie
from vnet.compile.view import HostView
from vnet.objects import InvalidValue, Network, Vif, Way
from vnet.util.frames import mac_bytes

WATCH_PRIORITY = 65_534  # above anybody else's

# A TTL or hop limit that no guest's frame has: systems start with 32, 60, 64, 128 or 255, and routers take off some tens at most.
# DSCP would be more bits, but physical switches may rewrite it, and a frame that lost its mark would reach a guest.
HOPS = range(130, 221)
ARP_MARK = 0x766E << 32  # what a marked frame's arp_tha begins with; the other 32 bits are the nonce

VLAN = 0x8100
EXTENSIONS = frozenset(
    {0, 43, 44, 50, 51, 60, 135, 139, 140}
)  # IPv6 headers before the one that is carried (RFC 7045 §4)
NEIGHBOUR_DISCOVERY = range(133, 138)  # is dropped with any other hop limit than 255 (RFC 4861 §7.1)


class WatchPoint(IntEnum):
    """Where a watched frame was seen."""

    CAME = 0  # as it entered the integration bridge
    CAUGHT = 1  # where it would have left to a VIF


class ProbeNote(NamedTuple):
    """What a packet-in of ours says: which frame of which probe, and where it was seen."""

    stage: WatchPoint
    number: int
    probe: str


_NOTE = struct.Struct(">12sBH")
_NOTE_MARK = b"vnet:probe:\0"


def note_userdata(note: ProbeNote) -> bytes:
    return _NOTE.pack(_NOTE_MARK, note.stage, note.number) + note.probe.encode()


def read_note(userdata: bytes) -> ProbeNote | None:
    """The note in a packet-in's userdata; None for a packet-in that is about something else."""
    if not userdata.startswith(_NOTE_MARK) or len(userdata) < _NOTE.size:
        return None
    _, stage, number = _NOTE.unpack_from(userdata)
    return ProbeNote(WatchPoint(stage), number, userdata[_NOTE.size :].decode())


def probe_flows(view: HostView, probe: str, _: str) -> Flows:
    """The flows that watch for a probe's frames. Raises InvalidValue for one that is not marked."""
    owner = cookie(Category.PROBE, probe)
    flows: list[Flow] = []
    for number, frame in enumerate(view.probe_frames(probe)):
        fields = marked_fields(frame)
        tell = act.ToController(userdata=note_userdata(ProbeNote(WatchPoint.CAME, number, probe)))
        came = (tell, act.SetField(REG_SEEN, 1), goto(Table.CLASSIFY))
        flows.append(Flow(Match(**fields, **{REG_SEEN: 0}), came, Table.CLASSIFY, WATCH_PRIORITY, owner))
        catch = (act.ToController(userdata=note_userdata(ProbeNote(WatchPoint.CAUGHT, number, probe))),)
        flows.append(Flow(Match(**fields), catch, Table.DELIVER, WATCH_PRIORITY, owner))
    return tuple(flows)


def refusal(network: Network, vif: Vif, frame: bytes) -> str | None:
    """Why a frame must not be sent as a VIF's; None if it may. Its mark is not looked at."""
    if frame[6:12] != mac_bytes(vif.mac):
        return "its source is not the VIF's own MAC, so switches would learn that MAC in the wrong place"
    if network.carrier.way is Way.UPLINK and frame[0] & 1:
        return "stations outside would get a broadcast on a VLAN network too"
    return None


def bare(frame: bytes) -> bytes:
    """A marked frame without its VLAN tag, which it has not where it is caught, and its padding, which bridges may cut off."""
    head, body = _parts(frame)
    kind = head[-2:]
    sizes = {ETH_ARP: 28, ETH_IPV4: _number(body[2:4]), ETH_IPV6: 40 + _number(body[4:6])}
    return head[:12] + kind + body[: sizes[_number(kind)]]


def mark(frame: bytes, nonce: int) -> bytes:
    """The frame with a mark made of `nonce` (64 random bits). Raises InvalidValue for one that has no room for a mark."""
    head, body = _parts(frame)
    kind = int.from_bytes(head[-2:], "big")
    if kind == ETH_ARP:
        return head + body[:18] + (ARP_MARK | nonce & 0xFFFFFFFF).to_bytes(6, "big") + body[24:]
    hops = HOPS[nonce % len(HOPS)]
    if kind == ETH_IPV4:
        size = (body[0] & 15) * 4
        header = body[:8] + bytes((hops, body[9], 0, 0)) + body[12:size]
        return head + header[:10] + _checksum(header).to_bytes(2, "big") + header[12:] + body[size:]
    label = (nonce >> 20) % 0xFFFFF + 1
    first = int.from_bytes(body[:4], "big") & ~0xFFFFF | label
    limit = body[7] if _discovers(body) else hops
    return head + first.to_bytes(4, "big") + body[4:7] + bytes((limit,)) + body[8:]


def marked_fields(frame: bytes) -> Fields:
    """What to match so that it is this marked frame. Raises InvalidValue for a frame without a mark."""
    head, body = _parts(frame)
    kind = int.from_bytes(head[-2:], "big")
    fields: Fields = {"eth_dst": _number(head[:6]), "eth_src": _number(head[6:12]), "eth_type": kind}
    if kind == ETH_ARP:
        fields |= {"arp_op": _number(body[6:8]), "arp_sha": _number(body[8:14]), "arp_spa": _number(body[14:18])}
        fields |= {"arp_tha": _number(body[18:24]), "arp_tpa": _number(body[24:28])}
        marked = _number(body[18:24]) & ~0xFFFFFFFF == ARP_MARK
    elif kind == ETH_IPV4:
        proto, ports = body[9], body[(body[0] & 15) * 4 :]
        fields |= {"ip_src": _number(body[12:16]), "ip_dst": _number(body[16:20]), "nw_proto": proto, "nw_ttl": body[8]}
        fields |= _ports(proto, ports)
        marked = body[8] in HOPS
    else:
        label = _number(body[:4]) & 0xFFFFF
        fields |= {"ipv6_src": _number(body[8:24]), "ipv6_dst": _number(body[24:40]), "nw_proto": body[6]}
        fields |= {"nw_ttl": body[7], "ipv6_label": label, **_ports(body[6], body[40:])}
        marked = bool(label) and (body[7] in HOPS or _discovers(body))
    if not marked:
        raise InvalidValue("frame", "the frame has no mark")
    return fields


def _ports(proto: int, segment: bytes) -> Fields:
    """Ports and flags, or an ICMP message's type and code."""
    if proto in (TCP, UDP):
        name = "tcp" if proto == TCP else "udp"
        fields: Fields = {f"{name}_src": _number(segment[:2]), f"{name}_dst": _number(segment[2:4])}
        return fields | ({"tcp_flags": _number(segment[12:14]) & 0xFFF} if proto == TCP else {})
    if proto in (ICMP, ICMPV6):
        name = "icmp" if proto == ICMP else "icmpv6"
        return {f"{name}_type": segment[0], f"{name}_code": segment[1]}
    return {}


def _parts(frame: bytes) -> tuple[bytes, bytes]:
    """A frame's Ethernet header, with one tag at most, and what it carries, if that is what can be marked."""
    at = 18 if frame[12:14] == VLAN.to_bytes(2, "big") else 14
    head, body = frame[:at], frame[at:]
    kind = int.from_bytes(head[-2:], "big")
    if kind == ETH_ARP and len(body) >= 28 and body[:6] == b"\0\x01\x08\0\x06\x04":
        return head, body
    if kind == ETH_IPV4 and len(body) >= 20 and body[0] >> 4 == 4 and body[0] & 15 >= 5:
        if int.from_bytes(body[6:8], "big") & 0x3FFF:
            raise InvalidValue("frame", "a fragment cannot be marked")
        return _whole(head, body, body[9], (body[0] & 15) * 4, _number(body[2:4]))
    if kind == ETH_IPV6 and len(body) >= 40 and body[0] >> 4 == 6:
        if body[6] in EXTENSIONS:
            raise InvalidValue("frame", "an IPv6 packet with extension headers cannot be marked")
        return _whole(head, body, body[6], 40, 40 + _number(body[4:6]))
    raise InvalidValue("frame", "only ARP, IPv4 and IPv6 can be marked")


def _whole(head: bytes, body: bytes, proto: int, at: int, end: int) -> tuple[bytes, bytes]:
    """Open vSwitch sees no ports in a packet whose header is not all there, so no mark could be matched."""
    if not at + {TCP: 20, UDP: 8, ICMP: 8, ICMPV6: 4}.get(proto, 0) <= end <= len(body):
        raise InvalidValue("frame", "a packet that is cut off cannot be marked")
    return head, body


def _discovers(body: bytes) -> bool:
    return body[6] == ICMPV6 and body[40] in NEIGHBOUR_DISCOVERY and body[7] == 255


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _checksum(header: bytes) -> int:
    """The Internet checksum (RFC 1071) of a header."""
    total = sum(_number(header[at : at + 2]) for at in range(0, len(header), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
