"""The key of a frame, as Open vSwitch's miniflow_extract reads it: a malformed header has no fields.

One rule: every length is checked before the bytes that it covers are read.
"""

from __future__ import annotations

from ovsctl.datapath.errors import FrameError
from ovsctl.datapath.flow_key import (
    ARP_SHA,
    ARP_THA,
    ETH_TYPE,
    IN_PORT,
    IPV6_DST,
    IPV6_LABEL,
    LENGTH,
    ND_RESERVED,
    ND_TARGET,
    NW_DST,
    NW_PROTO,
    TCP_FLAGS,
    TP_DST,
    VLAN_TCI,
    VLAN_TPID,
)

ETH_HEADER = 14
VLAN_TYPES = (0x8100, 0x88A8)
IPV4, ARP, RARP, IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD
NONE = 0x05FF  # OFP_DL_TYPE_NOT_ETH_TYPE: an 802.2 frame without SNAP
FRAG_ANY, FRAG_LATER = 1, 2
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
MAX_FRAME = 65535

_ETH_SHIFT, _TYPE_SHIFT = ETH_TYPE.shift + 16, ETH_TYPE.shift
_TCI_SHIFT, _TPID_SHIFT = VLAN_TCI.shift, VLAN_TPID.shift
_PORT_SHIFT, _LENGTH_SHIFT = IN_PORT.shift, LENGTH.shift
_PROTO_SHIFT, _NW_SHIFT, _TP_SHIFT, _FLAGS_SHIFT = NW_PROTO.shift, NW_DST.shift, TP_DST.shift, TCP_FLAGS.shift
_bytes = int.from_bytes


def check_frame(frame: bytes) -> None:
    """Raise FrameError for bytes that cannot be on a wire."""
    if not ETH_HEADER <= len(frame) <= MAX_FRAME:
        raise FrameError(f"{len(frame)} bytes are no Ethernet frame: it has {ETH_HEADER} to {MAX_FRAME}")


def extract(frame: bytes, in_port: int) -> int:
    """The key of a frame of at least 14 bytes. Fields that only the pipeline writes are 0."""
    eth_type = frame[12] << 8 | frame[13]
    at = 14
    key = 0
    if eth_type in VLAN_TYPES and len(frame) >= 18:
        # One tag is read and the rest is payload: Open_vSwitch other_config:vlan-limit is 1 by default.
        key = (frame[14] << 8 | frame[15] | 0x1000) << _TCI_SHIFT | eth_type << _TPID_SHIFT
        eth_type = frame[16] << 8 | frame[17]
        at = 18
    if eth_type < 0x600:
        eth_type, at = _snap(frame, at)
    key |= (
        len(frame) << _LENGTH_SHIFT
        | in_port << _PORT_SHIFT
        | _bytes(frame[6:12], "big") << _ETH_SHIFT
        | _bytes(frame[:6], "big") << _ETH_SHIFT + 48
        | eth_type << _TYPE_SHIFT
    )
    if eth_type == IPV4:
        return key | _ipv4(frame, at)
    if eth_type == IPV6:
        return key | _ipv6(frame, at)
    if eth_type in (ARP, RARP):
        return key | _arp(frame, at)
    return key


def _snap(frame: bytes, at: int) -> tuple[int, int]:
    """The Ethernet type of an 802.2 frame (RFC 1042), and the offset of its payload."""
    if len(frame) >= at + 8 and frame[at : at + 6] == b"\xaa\xaa\x03\0\0\0":
        eth_type = frame[at + 6] << 8 | frame[at + 7]
        if eth_type >= 0x600:
            return eth_type, at + 8
        return NONE, at + 8
    return NONE, at


def _arp(frame: bytes, at: int) -> int:
    if len(frame) < at + 28 or frame[at : at + 6] != b"\0\x01\x08\0\x06\x04":
        return 0
    key = (_bytes(frame[at + 14 : at + 18], "big") << 32 | _bytes(frame[at + 24 : at + 28], "big")) << _NW_SHIFT
    operation = frame[at + 6] << 8 | frame[at + 7]
    if operation <= 0xFF:
        key |= operation << _PROTO_SHIFT
    hardware = _bytes(frame[at + 8 : at + 14], "big") << 48 | _bytes(frame[at + 18 : at + 24], "big")
    return key | hardware << ARP_THA.shift


def _ipv4(frame: bytes, at: int) -> int:
    size = len(frame) - at
    if size < 20:
        return 0
    first = frame[at]
    header = (first & 15) * 4
    total = frame[at + 2] << 8 | frame[at + 3]
    if header < 20 or total > size or header > total:
        return 0
    offset = (frame[at + 6] << 8 | frame[at + 7]) & 0x3FFF
    frag = 0
    if offset:
        frag = FRAG_ANY | (FRAG_LATER if offset & 0x1FFF else 0)
    proto = frame[at + 9]
    # nw_proto takes 16 bits of the key, then come nw_frag, nw_ttl and nw_tos.
    key = _bytes(frame[at + 12 : at + 20], "big") << _NW_SHIFT
    key |= (proto | frag << 16 | frame[at + 8] << 24 | frame[at + 1] << 32) << _PROTO_SHIFT
    if frag & FRAG_LATER:
        return key
    return key | _transport(frame, at + header, at + total, proto, False)


def _transport(frame: bytes, at: int, end: int, proto: int, is_ipv6: bool) -> int:
    size = end - at
    if proto == TCP:
        if size >= 20:
            flags = (frame[at + 12] << 8 | frame[at + 13]) & 0xFFF
            return flags << _FLAGS_SHIFT | _bytes(frame[at : at + 4], "big") << _TP_SHIFT
    elif proto == UDP:
        if size >= 8:
            return _bytes(frame[at : at + 4], "big") << _TP_SHIFT
    elif proto == ICMP:
        if not is_ipv6 and size >= 8:
            return (frame[at] << 16 | frame[at + 1]) << _TP_SHIFT
    elif proto == ICMPV6:
        if is_ipv6 and size >= 4:
            return _icmpv6(frame, at, end)
    elif proto == SCTP and size >= 12:
        return _bytes(frame[at : at + 4], "big") << _TP_SHIFT
    return 0


def _ipv6(frame: bytes, at: int) -> int:
    size = len(frame) - at
    if size < 40:
        return 0
    payload = frame[at + 4] << 8 | frame[at + 5]
    if payload > size - 40:
        return 0
    end = at + 40 + payload
    key = _bytes(frame[at + 8 : at + 40], "big") << IPV6_DST.shift
    found = ipv6_payload(frame, at, end)
    if found is None:
        return key
    proto, frag, start = found
    word = _bytes(frame[at : at + 4], "big")
    key |= (word & 0xFFFFF) << IPV6_LABEL.shift
    key |= (proto | frag << 16 | frame[at + 7] << 24 | (word >> 20 & 0xFF) << 32) << _PROTO_SHIFT
    if frag & FRAG_LATER:
        return key
    return key | _transport(frame, start, end, proto, True)


def ipv6_payload(frame: bytes, at: int, end: int) -> tuple[int, int, int] | None:
    """(protocol, nw_frag, offset of its header) past the extension headers; None if they are cut short."""
    proto, frag, start = frame[at + 6], 0, at + 40
    while proto in (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION):
        if end - start < 8:
            return None
        following = frame[start]
        if proto == FRAGMENT:
            word = frame[start + 2] << 8 | frame[start + 3]
            if word != 0:
                # A word of 0 is an atomic fragment: a whole packet with a fragment header (RFC 6946).
                frag = FRAG_ANY
                if word & 0xFFF8:
                    return FRAGMENT, FRAG_ANY | FRAG_LATER, start + 8  # as there: the protocol inside is not read
            start += 8
        else:
            length = (frame[start + 1] + 2) * 4 if proto == AUTHENTICATION else (frame[start + 1] + 1) * 8
            if end - start < length:
                return None
            start += length
        proto = following
    return proto, frag, start


def _icmpv6(frame: bytes, at: int, end: int) -> int:
    icmp_type, code = frame[at], frame[at + 1]
    key = (icmp_type << 16 | code) << _TP_SHIFT
    if icmp_type not in (135, 136) or code or end - at < 24:
        return key
    found = _nd_options(frame, at + 24, end)
    if found is None:
        return key
    source, target, option = found
    return (
        key
        | _bytes(frame[at + 4 : at + 8], "big") << ND_RESERVED.shift
        | _bytes(frame[at + 8 : at + 24], "big") << ND_TARGET.shift
        | source << ARP_SHA.shift
        | target << ARP_THA.shift
        | option << _FLAGS_SHIFT
    )


def _nd_options(frame: bytes, at: int, end: int) -> tuple[int, int, int] | None:
    """(source, target link-layer address, last option's type) of a neighbour message; None for a malformed one."""
    source = target = option = 0
    while end - at >= 8:
        option_type, length = frame[at], frame[at + 1] * 8
        if not length or length > end - at:
            return None
        if length == 8 and option_type in (1, 2):
            address = _bytes(frame[at + 2 : at + 8], "big")
            if option_type == 1:
                if source:
                    return None
                source, option = address, option_type
            else:
                if target:
                    return None
                target, option = address, option_type
        at += length
    return source, target, option
