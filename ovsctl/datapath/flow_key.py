"""The layout of a packet's key: one Python integer with every field of ovs-fields(7), as Open vSwitch's struct flow.

One rule: fields that overlap in struct flow overlap here (ports and ICMP types, ARP and IPv4 addresses), so that a flow
matches the same bits. With one integer a masked match is one `&` and one dictionary look-up, however many fields it has.
Fields of packets are in the low bits, fields that only the pipeline writes in the high bits, so that a fresh key is short.
"""

from __future__ import annotations

from typing import NamedTuple

from ovsctl.datapath.errors import UnsupportedFlowError
from ovsctl.openflow.fields import FIELDS, Field, Needs, Subfield
from ovsctl.openflow.match import Match

# name, bits: from the least significant bit up.
_SLOTS = (
    ("tp_dst", 16), ("tp_src", 16), ("tcp_flags", 16),
    ("nw_proto", 16),  # 8 bits, and ARP's operation
    ("nw_frag", 8), ("nw_ttl", 8), ("nw_tos", 8),
    ("nw_dst", 32), ("nw_src", 32),
    ("eth_type", 16), ("eth_src", 48), ("eth_dst", 48),
    ("vlan_tci", 16), ("vlan_tpid", 16), ("in_port", 16), ("length", 24),
    ("tun_dst", 32), ("tun_src", 32), ("tun_id", 64),
    ("arp_tha", 48), ("arp_sha", 48),
    ("ipv6_dst", 128), ("ipv6_src", 128), ("ipv6_label", 32),
    ("nd_target", 128), ("nd_reserved", 32),
    ("tun_ipv6_dst", 128), ("tun_ipv6_src", 128), ("tun_gbp_id", 16), ("tun_gbp_flags", 8), ("tun_flags", 8),
    ("ct_state", 8), ("ct_zone", 16), ("ct_mark", 32), ("ct_label", 128),
    ("ct_nw_proto", 8), ("ct_nw_dst", 32), ("ct_nw_src", 32), ("ct_tp_dst", 16), ("ct_tp_src", 16),
    ("ct_ipv6_dst", 128), ("ct_ipv6_src", 128),
    ("pkt_mark", 32), ("metadata", 64), ("regs", 512), ("conj_id", 32),
)  # fmt: skip


class KeyField(NamedTuple):
    """Bits of the key. `mask` is shifted to their position, `full` is not."""

    shift: int
    bits: int
    mask: int
    full: int

    def get(self, key: int) -> int:
        return key >> self.shift & self.full


def _bits(shift: int, bits: int) -> KeyField:
    full = (1 << bits) - 1
    return KeyField(shift, bits, full << shift, full)


def _slots() -> dict[str, KeyField]:
    places, shift = {}, 0
    for name, bits in _SLOTS:
        places[name] = _bits(shift, bits)
        shift += bits
    return places


SLOTS = _slots()
_SHARED = {
    "ip_src": "nw_src", "ip_dst": "nw_dst", "arp_spa": "nw_src", "arp_tpa": "nw_dst", "arp_op": "nw_proto",
    "ip_frag": "nw_frag", "tcp_src": "tp_src", "udp_src": "tp_src", "sctp_src": "tp_src", "icmp_type": "tp_src",
    "icmpv6_type": "tp_src", "tcp_dst": "tp_dst", "udp_dst": "tp_dst", "sctp_dst": "tp_dst", "icmp_code": "tp_dst",
    "icmpv6_code": "tp_dst", "nd_sll": "arp_sha", "nd_tll": "arp_tha", "nd_options_type": "tcp_flags",
    "vlan_vid": "vlan_tci",
}  # fmt: skip


def _fields() -> dict[str, KeyField]:
    places = {}
    regs = SLOTS["regs"].shift
    for name, field in FIELDS.items():
        slot = SLOTS.get(_SHARED.get(name, name))
        if slot is not None:
            places[name] = _bits(slot.shift, field.bits)
    for n in range(16):
        places[f"reg{n}"] = _bits(regs + (15 - n) * 32, 32)
    for n in range(8):
        places[f"xreg{n}"] = _bits(regs + (14 - 2 * n) * 32, 64)
    for n in range(4):
        places[f"xxreg{n}"] = _bits(regs + (12 - 4 * n) * 32, 128)
    tos = SLOTS["nw_tos"].shift
    places["ip_dscp"], places["nw_ecn"] = _bits(tos + 2, 6), _bits(tos, 2)
    places["vlan_pcp"] = _bits(SLOTS["vlan_tci"].shift + 13, 3)
    return places


KEY_FIELDS = _fields()

IN_PORT, LENGTH = SLOTS["in_port"], SLOTS["length"]
ETH_DST, ETH_SRC, ETH_TYPE = SLOTS["eth_dst"], SLOTS["eth_src"], SLOTS["eth_type"]
VLAN_TCI, VLAN_TPID = SLOTS["vlan_tci"], SLOTS["vlan_tpid"]
NW_SRC, NW_DST, NW_PROTO = SLOTS["nw_src"], SLOTS["nw_dst"], SLOTS["nw_proto"]
NW_FRAG, NW_TTL, NW_TOS = SLOTS["nw_frag"], SLOTS["nw_ttl"], SLOTS["nw_tos"]
TP_SRC, TP_DST, TCP_FLAGS = SLOTS["tp_src"], SLOTS["tp_dst"], SLOTS["tcp_flags"]
IPV6_SRC, IPV6_DST, IPV6_LABEL = SLOTS["ipv6_src"], SLOTS["ipv6_dst"], SLOTS["ipv6_label"]
ARP_SHA, ARP_THA = SLOTS["arp_sha"], SLOTS["arp_tha"]
ND_TARGET, ND_RESERVED = SLOTS["nd_target"], SLOTS["nd_reserved"]
TUN_ID, TUN_SRC, TUN_DST = SLOTS["tun_id"], SLOTS["tun_src"], SLOTS["tun_dst"]
TUN_IPV6_SRC, TUN_IPV6_DST = SLOTS["tun_ipv6_src"], SLOTS["tun_ipv6_dst"]
CT_STATE, CT_ZONE, CT_MARK, CT_LABEL = SLOTS["ct_state"], SLOTS["ct_zone"], SLOTS["ct_mark"], SLOTS["ct_label"]
PORTS_MASK = TP_SRC.mask | TP_DST.mask


def _mask(*names: str) -> int:
    return sum(SLOTS[name].mask for name in names)


# Header fields other than the VLAN tag: written back to the frame before it leaves.
HEADERS = _mask(
    "tp_dst", "tp_src", "tcp_flags", "nw_proto", "nw_frag", "nw_ttl", "nw_tos", "nw_dst", "nw_src", "eth_src", "eth_dst",
    "arp_tha", "arp_sha", "ipv6_dst", "ipv6_src", "ipv6_label", "nd_target", "nd_reserved",
)  # fmt: skip
TUNNEL = _mask(
    "tun_dst", "tun_src", "tun_id", "tun_ipv6_dst", "tun_ipv6_src", "tun_gbp_id", "tun_gbp_flags", "tun_flags"
)
CONNECTION = _mask(
    "ct_state", "ct_zone", "ct_mark", "ct_label", "ct_nw_proto", "ct_nw_dst", "ct_nw_src", "ct_tp_dst", "ct_tp_src",
    "ct_ipv6_dst", "ct_ipv6_src",
)  # fmt: skip
# Stages of a look-up: if it fails in one, it does not depend on the fields of the later ones (classifier.py).
_L4 = _mask("tp_dst", "tp_src", "tcp_flags", "nd_target", "nd_reserved")
_L3 = _mask(
    "nw_dst", "nw_src", "nw_ttl", "nw_tos", "nw_frag", "arp_tha", "arp_sha", "ipv6_dst", "ipv6_src", "ipv6_label"
)
_L2 = _mask("eth_src", "eth_dst", "vlan_tci", "vlan_tpid", "length")
_PROTOCOL = _mask("eth_type", "nw_proto")
STAGES = (~(_L4 | _L3 | _L2 | _PROTOCOL), ~(_L4 | _L3 | _L2), ~(_L4 | _L3), ~_L4)
# Fields that stay with a packet in the connection tracker; the others are extracted again.
CARRIED = TUNNEL | _mask("in_port", "pkt_mark", "metadata", "regs")


def key_field(field: Field) -> KeyField:
    """The bits of a field. Raises UnsupportedFlowError for a field that is not in the key."""
    found = KEY_FIELDS.get(field.name)
    if found is None:
        raise UnsupportedFlowError(f"field {field.name}")
    return found


def key_subfield(bits: Subfield) -> KeyField:
    """The bits of a sub-field."""
    whole = key_field(bits.field)
    return _bits(whole.shift + bits.start, bits.bits)


def compile_match(match: Match) -> tuple[int, int]:
    """(mask, value) so that the match holds for exactly the keys with `key & mask == value`."""
    mask = value = 0
    for entry in match.entries:
        shift = key_field(entry.field).shift
        mask |= entry.mask << shift
        value |= entry.value << shift
    return mask, value


_TYPE_MASK = ETH_TYPE.mask
_LATER = NW_FRAG.mask & (2 << NW_FRAG.shift)


def _types(*types: int) -> list[tuple[int, int]]:
    return [(_TYPE_MASK, eth_type << ETH_TYPE.shift) for eth_type in types]


def _proto(proto: int, *types: int) -> list[tuple[int, int]]:
    mask = NW_PROTO.mask | _LATER
    return [(mask | m, proto << NW_PROTO.shift | v) for m, v in _types(*types)]


def _icmpv6(*types: int) -> list[tuple[int, int]]:
    mask = TP_SRC.mask | TP_DST.mask
    return [(mask | m, icmp_type << TP_SRC.shift | v) for icmp_type in types for m, v in _proto(58, 0x86DD)]


# A packet has a field if one of these (mask, value) pairs holds.
PREREQUISITES: dict[Needs, list[tuple[int, int]]] = {
    Needs.NOTHING: [(0, 0)],
    Needs.VLAN: [(0x1000 << VLAN_TCI.shift, 0x1000 << VLAN_TCI.shift)],
    Needs.ARP: _types(0x0806, 0x8035),
    Needs.IPV4: _types(0x0800),
    Needs.IPV6: _types(0x86DD),
    Needs.IP: _types(0x0800, 0x86DD),
    Needs.TCP: _proto(6, 0x0800, 0x86DD),
    Needs.UDP: _proto(17, 0x0800, 0x86DD),
    Needs.SCTP: _proto(132, 0x0800, 0x86DD),
    Needs.ICMPV4: _proto(1, 0x0800),
    Needs.ICMPV6: _proto(58, 0x86DD),
    Needs.ND: _icmpv6(135, 136),
    Needs.ND_SOLICIT: _icmpv6(135),
    Needs.ND_ADVERT: _icmpv6(136),
    Needs.CT: [(0, 0)],
    Needs.CT_PORTS: [(0, 0)],
}
