"""The pipeline on br-int as data: its tables, what each may match and where it may go next, registers and cookies.

docs/pipeline.md has a section per table and a test holds the two together. A packet never goes back to an earlier table,
so it cannot loop inside a switch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b


class Table(IntEnum):
    """Table numbers, in the order a packet passes them."""

    CLASSIFY = 0
    ADMIT = 5
    GUARD = 10
    LOOKUP = 50
    HELD = 55
    UNKNOWN = 58
    FLOOD = 60
    DELIVER = 80
    GATE = 90
    GATED = 95


@dataclass(frozen=True, slots=True)
class Stage:
    """What a table is for: the fields its flows may match, and the tables they may resubmit to."""

    does: str
    matches: frozenset[str]
    next: frozenset[Table]


_L2 = frozenset({"metadata", "reg0", "eth_src", "eth_dst"})
_PORT = frozenset({"in_port", "vlan_tci"})
_ANNOUNCE = frozenset({"eth_type", "arp_op", "arp_spa", "arp_tpa", "nw_proto", "icmpv6_type", "ipv6_dst", "nd_target"})
_GUARD = _ANNOUNCE | {
    "in_port", "arp_sha", "ip_src", "ip_dst", "ipv6_src", "udp_src", "udp_dst", "tun_src", "tun_ipv6_src",
}  # fmt: skip

PIPELINE: dict[Table, Stage] = {
    Table.CLASSIFY: Stage(
        "which network a frame is on and where it came from: a VIF, a tunnel or an uplink",
        _PORT | {"tun_id"},
        frozenset({Table.ADMIT, Table.GUARD, Table.LOOKUP, Table.GATE}),
    ),
    Table.ADMIT: Stage(
        "what a port that is not active yet may send: its announcement, which opens it, and all once it is open",
        _PORT | _ANNOUNCE | {"reg5", "eth_src", "eth_dst"},
        frozenset({Table.GUARD}),
    ),
    Table.GUARD: Stage(
        "what a VIF may say it is: MAC, ARP, ND and IP source by locking mode; tunnelled frames of a VIF that moved away",
        _L2 | _GUARD,
        frozenset({Table.LOOKUP}),
    ),
    Table.LOOKUP: Stage(
        "destination MAC to local VIF, remote host or both while a VIF moves; multicast to FLOOD, the rest to UNKNOWN",
        _L2,
        frozenset({Table.HELD, Table.UNKNOWN, Table.FLOOD, Table.DELIVER, Table.GATE}),
    ),
    Table.HELD: Stage(
        "unicast from here to a VIF that is moving here: to its port once that is open, else to where it still runs",
        frozenset({"reg0", "reg2", "reg5"}),
        frozenset({Table.DELIVER}),
    ),
    Table.UNKNOWN: Stage(
        "unknown unicast: to unlocked VIFs and to the physical network, which could own the address; nowhere else",
        _L2,
        frozenset({Table.DELIVER}),
    ),
    Table.FLOOD: Stage(
        "broadcast and multicast: every local VIF, one copy per remote host with members or one to the uplink",
        _L2,
        frozenset({Table.DELIVER}),
    ),
    Table.DELIVER: Stage(
        "to the VIF's port, with the tag a trunk wants; ports that are not active yet go through GATE first",
        frozenset({"reg2", "metadata"}),
        frozenset({Table.GATE, Table.GATED}),
    ),
    Table.GATE: Stage(
        "whether a moving VIF's port is open: opened by its announcement in the switch itself, or by its agent",
        frozenset({"reg2"}),
        frozenset(),
    ),
    Table.GATED: Stage(
        "delivery to a moving VIF's port that is open", frozenset({"reg2", "reg5", "metadata"}), frozenset()
    ),
}


class From(IntEnum):
    """reg0: where a frame came from. From a tunnel or an uplink it only goes to local VIFs."""

    VIF = 1
    TUNNEL = 2
    UPLINK = 3


# Registers. metadata holds the segment: the layer 2 domain that a frame is in on this host.
REG_FROM = "reg0"
REG_PORT = "reg2"  # ofport of the VIF a frame is for, or that GATE is asked about
REG_OPEN = "reg5"  # what GATE said
OPEN_IN, OPEN_OUT = 1, 2
OPEN_BOTH = OPEN_IN | OPEN_OUT

# A VLAN segment is 1 << 32 | uplink << 12 | tag, so that a trunk for all tags can move the tag in and out of it;
# any other segment is the network's number (at most 24 bits). Segments never leave the host.
VLAN_SEGMENT = 1 << 32
TAG_BITS = 12
TAG_MASK = (1 << TAG_BITS) - 1
ANY_TAG = ((1 << 64) - 1) ^ TAG_MASK

# A cookie is 16 bits of our mark, 8 of category, 40 of the object's name hashed: flows without the mark are not ours.
COOKIE_MARK = 0x766E << 48
COOKIE_MARK_MASK = 0xFFFF << 48
COOKIE_OBJECT_MASK = (1 << 40) - 1


class Category(IntEnum):
    """What kind of source a flow comes from: bits 40..47 of its cookie."""

    BASE = 0
    NETWORK = 1
    FLOOD = 2
    VIF = 3
    LOOKUP = 4
    TRUNK = 5
    LEARNED = 6  # made by the switch itself when a moving VIF announces itself


def cookie(category: Category, name: str) -> int:
    """The cookie of the flows of one source; `name` is the network's, the VIF's id, or the uplink's."""
    digest = blake2b(name.encode(), digest_size=5).digest() if name else b""
    return COOKIE_MARK | category << 40 | int.from_bytes(digest, "big")
