"""The pipeline on br-int as data: tables, the paths of frames through them, registers and cookies.

One rule: flows name no table of another concern as the next one. They ask `onward` and `enter`, so a stage is put between two
others by a line in FROM_VIF or TO_VIF. docs/pipeline.md has a section per table and a test holds the two together. A packet
never goes back to an earlier table, so it cannot loop inside a switch; the tables from GATE on only answer who asks them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from hashlib import blake2b

from vnet.objects import LockingMode, Vif


class Table(IntEnum):
    """Table numbers, in the order a packet passes them."""

    CLASSIFY = 0
    TAG_TYPE = 1
    TAGGED = 2
    ADMIT = 5
    SERVICES = 8
    GUARD = 10
    EGRESS = 20
    EGRESS_NEIGHBOUR = 21
    EGRESS_STATE = 22
    EGRESS_PEER = 24
    EGRESS_VERDICT = 28
    EGRESS_COMMITTED = 29
    EGRESS_REJECT = 30
    EGRESS_LOG = 31
    FROM_RATE = 40
    LOOKUP = 50
    HELD = 55
    UNKNOWN = 58
    FLOOD = 60
    FLOOD_PART = 62
    GATED = 65
    INGRESS = 70
    INGRESS_NEIGHBOUR = 71
    INGRESS_STATE = 72
    INGRESS_PEER = 74
    INGRESS_VERDICT = 78
    INGRESS_COMMITTED = 79
    TO_RATE = 80
    TO_METER = 82
    DELIVER = 84
    INGRESS_REJECT = 86
    INGRESS_LOG = 87
    GATE = 90
    EGRESS_RULES = 92
    INGRESS_RULES = 94
    TURN = 96
    LISTENER = 98


@dataclass(frozen=True, slots=True)
class Stage:
    """A table's purpose, the fields its flows may match, and the tables they may resubmit to.

    miss: the table after it for frames that no flow matches; None where they are dropped, and counted.
    """

    does: str
    matches: frozenset[str]
    next: frozenset[Table]
    miss: Table | None = None


Path = tuple[Table, ...]
# The stages that a frame passes, in order: from a VIF until its destination is looked up, and from there to a VIF's port.
FROM_VIF: Path = (Table.SERVICES, Table.GUARD, Table.EGRESS, Table.FROM_RATE, Table.LOOKUP)
TO_VIF: Path = (Table.INGRESS, Table.TO_RATE, Table.DELIVER)
# Which VIFs a stage is for, by the VIF and whether QoS classes limit it; a stage that is not here is for every VIF.
TAKES: dict[Table, Callable[[Vif, bool], bool]] = {
    Table.SERVICES: lambda vif, _: vif.locking_mode is LockingMode.LOCKED,
    Table.EGRESS: lambda vif, _: bool(vif.groups),
    Table.INGRESS: lambda vif, _: bool(vif.groups),
    Table.FROM_RATE: lambda _, limited: limited,
    Table.TO_RATE: lambda _, limited: limited,
}


def enter(path: Path, vif: Vif, *, limited: bool) -> Table:
    """The first stage of a path that is for a VIF."""
    return next(table for table in path if table not in TAKES or TAKES[table](vif, limited))


def onward(table: Table, vif: Vif, *, limited: bool) -> Table:
    """The stage after `table` on a VIF's path."""
    return enter(_after(table), vif, limited=limited)


def following(table: Table) -> Table:
    """The stage right after `table`, for flows that are of no VIF."""
    return _after(table)[0]


def _after(table: Table) -> Path:
    path = FROM_VIF if table in FROM_VIF else TO_VIF
    return path[path.index(table) + 1 :]


def _entries(path: Path) -> frozenset[Table]:
    """Where frames may enter a path: at each stage up to the first that is for every VIF."""
    last = next(place for place, table in enumerate(path) if table not in TAKES)
    return frozenset(path[: last + 1])


_L2 = frozenset({"metadata", "reg0", "eth_src", "eth_dst"})
_PORT = frozenset({"in_port", "vlan_tci"})
_ANNOUNCE = frozenset({
    "eth_type", "arp_sha", "arp_spa", "arp_tpa", "nw_proto", "nw_ttl", "ip_frag", "icmpv6_type", "ipv6_src", "ipv6_dst",
    "nd_target", "nd_tll", "icmpv6_code",
})  # fmt: skip
_GUARD = frozenset({
    "in_port", "eth_type", "arp_sha", "arp_spa", "nw_proto", "icmpv6_type", "ip_src", "ip_dst", "ipv6_src", "nd_target",
    "udp_src", "udp_dst", "tun_src", "tun_ipv6_src",
})  # fmt: skip

_TRACK = frozenset({"eth_type", "nw_proto", "ip_frag", "icmpv6_type", "udp_src", "udp_dst"})
_NEIGHBOUR = frozenset({"eth_type", "nw_proto", "icmpv6_type", "nw_ttl", "ipv6_dst"})
_RULES = frozenset({"metadata", "reg3", "reg8", "reg9", "reg10", "reg11", "eth_type", "nw_proto", "tcp_dst", "udp_dst"})
_STATE = frozenset({"ct_state", "ct_zone", "eth_type", "ip_frag", "nw_proto", "tcp_flags"})
_VERDICT = frozenset({"reg4", "ct_state", "eth_type", "ip_frag"})
_REJECT = frozenset({"eth_dst", "eth_type", "reg15"})
_BY_RULES = frozenset({Table.EGRESS_RULES, Table.INGRESS_RULES, Table.TURN, Table.LISTENER})
_TO_VIF = frozenset({Table.GATE, Table.GATED}) | _entries(TO_VIF)

PIPELINE: dict[Table, Stage] = {
    Table.CLASSIFY: Stage(
        "which network a frame is on and where it came from: a VIF, a tunnel or an uplink",
        _PORT | {"tun_id", "eth_type"},
        frozenset({Table.CLASSIFY, Table.TAG_TYPE, Table.ADMIT, Table.LOOKUP, Table.GATE}) | _entries(FROM_VIF),
    ),
    Table.TAG_TYPE: Stage(
        "whether the tag of a trunk VIF's frame is one of 802.1Q, by its Ethernet type",
        frozenset({"vlan_tci", "eth_type"}),
        frozenset({Table.TAGGED}),
    ),
    Table.TAGGED: Stage(
        "which network a trunk VIF's frame is on, by its tag",
        _PORT,
        frozenset({Table.ADMIT, Table.GATE}) | _entries(FROM_VIF),
    ),
    Table.ADMIT: Stage(
        "what a port that is not active yet may send: its announcement, which opens it, and all once it is open",
        _PORT | _ANNOUNCE | {"reg5", "eth_src", "eth_dst"},
        _entries(FROM_VIF),
    ),
    Table.SERVICES: Stage(
        "what a locked VIF sends only as a router or a DHCP server: advertisements, redirects, answers to DHCP clients",
        frozenset(
            {
                "in_port",
                "eth_type",
                "nw_proto",
                "ip_frag",
                "icmp_type",
                "icmpv6_type",
                "icmpv6_code",
                "nd_target",
                "nd_sll",
                "nd_tll",
                "udp_src",
                "udp_dst",
            }
        ),
        frozenset({following(Table.SERVICES)}),
        miss=following(Table.SERVICES),
    ),
    Table.GUARD: Stage(
        "what a VIF may say it is: MAC, ARP, ND and IP source by locking mode; tunnelled frames of a VIF that moved away",
        _L2 | _GUARD,
        _entries(_after(Table.GUARD)) | {Table.LOOKUP},
    ),
    Table.EGRESS: Stage(
        "what a VIF in security groups sends, through the connection tracker; ARP, ND and DHCP pass",
        _TRACK | {"eth_dst", "ip_dst", "ipv6_dst"},
        frozenset({Table.EGRESS_NEIGHBOUR, Table.EGRESS_STATE, following(Table.EGRESS)}),
    ),
    Table.EGRESS_NEIGHBOUR: Stage(
        "neighbour discovery and MLD, with the hop limit that they have on their own link",
        _NEIGHBOUR,
        frozenset({following(Table.EGRESS)}),
    ),
    Table.EGRESS_STATE: Stage(
        "puts a packet to the VIF's groups, by the first packet of its connection",
        _STATE | {"in_port"},
        _BY_RULES | {Table.EGRESS_PEER, Table.EGRESS_VERDICT, Table.EGRESS_COMMITTED},
    ),
    Table.EGRESS_PEER: Stage(
        "which groups the receiver is in, of those that rules here name",
        frozenset({"metadata", "eth_dst", "eth_type", "ip_dst", "ipv6_dst"}),
        frozenset(),
    ),
    Table.EGRESS_VERDICT: Stage(
        "what the groups' rules come to: drop wins over reject, reject over allow, allow over the default",
        _VERDICT,
        frozenset({Table.EGRESS_COMMITTED, Table.EGRESS_REJECT, Table.EGRESS_LOG, following(Table.EGRESS)}),
    ),
    Table.EGRESS_COMMITTED: Stage(
        "what the tracker lets through, once it has entered the connection or has all fragments of a packet",
        frozenset({"in_port", "ct_zone", "ct_state"}),
        frozenset({following(Table.EGRESS)}),
    ),
    Table.EGRESS_REJECT: Stage(
        "what a VIF sends and its groups reject, at a rate to the agent, which answers it",
        _REJECT | {"in_port"},
        frozenset(),
    ),
    Table.EGRESS_LOG: Stage(
        "what a VIF sends and its rules log, at a rate to the agent, which writes a line",
        frozenset({"in_port", "reg15"}),
        frozenset(),
    ),
    Table.FROM_RATE: Stage(
        "what QoS classes let a VIF send, by meters, and the DSCP that it is marked with",
        frozenset({"in_port", "metadata", "eth_type"}),
        frozenset({following(Table.FROM_RATE)}),
        miss=following(Table.FROM_RATE),
    ),
    Table.LOOKUP: Stage(
        "destination MAC to local VIF, remote host or both while a VIF moves; multicast to FLOOD, the rest to UNKNOWN",
        _L2,
        frozenset({Table.HELD, Table.UNKNOWN, Table.FLOOD, Table.GATE}) | _entries(TO_VIF),
        miss=Table.UNKNOWN,
    ),
    Table.HELD: Stage(
        "unicast from here to a VIF that is moving here: to its port once that is open, else to where it still runs",
        frozenset({"metadata", "reg0", "reg2", "reg5"}),
        frozenset({Table.GATED}),
    ),
    Table.UNKNOWN: Stage(
        "unknown unicast: to unlocked VIFs and to the physical network, which could own the address; nowhere else",
        _L2,
        _TO_VIF | {Table.FLOOD_PART},
    ),
    Table.FLOOD: Stage(
        "broadcast and multicast: every local VIF, one copy per remote host with members or one to the uplink",
        _L2,
        _TO_VIF | {Table.FLOOD_PART},
    ),
    Table.FLOOD_PART: Stage(
        "one part of the local VIFs that a flooded frame goes to, of a network with many here",
        frozenset({"metadata", "reg6"}),
        _TO_VIF,
    ),
    Table.GATED: Stage(
        "on to a moving VIF's port, if GATE said that it is open",
        frozenset({"reg2", "reg5"}),
        _entries(TO_VIF),
    ),
    Table.INGRESS: Stage(
        "what a VIF in security groups is sent, through the connection tracker; ARP, ND and DHCP pass",
        _TRACK | {"reg0", "metadata", "eth_src"},
        frozenset({Table.INGRESS_NEIGHBOUR, Table.INGRESS_STATE, following(Table.INGRESS)}),
    ),
    Table.INGRESS_NEIGHBOUR: Stage(
        "neighbour discovery and MLD, with the hop limit that they have on their own link",
        _NEIGHBOUR,
        frozenset({following(Table.INGRESS)}),
    ),
    Table.INGRESS_STATE: Stage(
        "puts a packet to the VIF's groups, by the first packet of its connection",
        _STATE | {"reg2"},
        _BY_RULES | {Table.INGRESS_PEER, Table.INGRESS_VERDICT, Table.INGRESS_COMMITTED},
    ),
    Table.INGRESS_PEER: Stage(
        "which groups the sender is in, of those that rules here name",
        frozenset({"metadata", "eth_src", "eth_type", "ip_src", "ipv6_src"}),
        frozenset(),
    ),
    Table.INGRESS_VERDICT: Stage(
        "what the groups' rules come to: drop wins over reject, reject over allow, allow over the default",
        _VERDICT,
        frozenset({Table.INGRESS_COMMITTED, Table.INGRESS_REJECT, Table.INGRESS_LOG, following(Table.INGRESS)}),
    ),
    Table.INGRESS_COMMITTED: Stage(
        "what the tracker lets through, once it has entered the connection or has all fragments of a packet",
        frozenset({"reg2", "ct_zone", "ct_state"}),
        frozenset({following(Table.INGRESS)}),
    ),
    Table.TO_RATE: Stage(
        "whether QoS classes limit what a VIF is sent: if so, a copy for it alone goes to its meters",
        frozenset({"reg2", "metadata"}),
        frozenset({Table.TO_METER, following(Table.TO_RATE)}),
        miss=following(Table.TO_RATE),
    ),
    Table.TO_METER: Stage(
        "what QoS classes let a VIF be sent, by meters",
        frozenset({"reg2", "metadata"}),
        frozenset({following(Table.TO_RATE)}),
    ),
    Table.DELIVER: Stage(
        "out of the VIF's port, with the tag a trunk wants", frozenset({"reg2", "metadata", "eth_type"}), frozenset()
    ),
    Table.INGRESS_REJECT: Stage(
        "what a VIF is sent and its groups reject, at a rate to the agent, which answers it",
        _REJECT | {"reg2"},
        frozenset(),
    ),
    Table.INGRESS_LOG: Stage(
        "what a VIF is sent and its rules log, at a rate to the agent, which writes a line",
        frozenset({"reg2", "reg15"}),
        frozenset(),
    ),
    Table.GATE: Stage(
        "whether a moving VIF's port is open: opened by its announcement in the switch itself, or by its agent",
        frozenset({"reg2"}),
        frozenset(),
    ),
    Table.EGRESS_RULES: Stage(
        "the egress rules of one group: allow, reject, drop, or what the group says by default",
        _RULES | {"ip_dst", "ipv6_dst"},
        frozenset(),
    ),
    Table.INGRESS_RULES: Stage(
        "the ingress rules of one group: allow, reject, drop, or what the group says by default",
        _RULES | {"ip_src", "ipv6_src"},
        frozenset(),
    ),
    Table.TURN: Stage(
        "exchanges the two ends of a TCP segment, for the rules of the other direction, and exchanges them back",
        frozenset({"eth_type", "nw_proto"}),
        frozenset(),
    ),
    Table.LISTENER: Stage(
        "which end of a TCP connection listens that the tracker did not see begin, by its ports",
        frozenset({"eth_type", "nw_proto", "tcp_src", "tcp_dst"}),
        frozenset(),
    ),
}

# Flows that watch for a probe's marked frame (vnet/compile/probe.py) are in these tables, and match these fields besides.
WATCHES = frozenset({Table.CLASSIFY, Table.DELIVER})
MARKS = frozenset({
    "reg15", "eth_src", "eth_dst", "eth_type", "arp_op", "arp_sha", "arp_spa", "arp_tha", "arp_tpa", "ip_src", "ip_dst",
    "ipv6_src", "ipv6_dst", "ipv6_label", "nw_proto", "nw_ttl", "tcp_src", "tcp_dst", "tcp_flags", "udp_src", "udp_dst",
    "icmp_type", "icmp_code", "icmpv6_type", "icmpv6_code",
})  # fmt: skip


class From(IntEnum):
    """reg0: where a frame came from. From a tunnel or an uplink it only goes to local VIFs."""

    VIF = 1
    TUNNEL = 2
    UPLINK = 3


# Registers. metadata holds the segment: the layer 2 domain that a frame is in on this host.
REG_FROM = "reg0"
REG_LOG = "reg1"  # the tag of the rule that logs a packet
REG_PORT = "reg2"  # ofport of the VIF a frame is for, or that GATE is asked about
REG_GROUP = "reg3"  # number of the security group whose rules are asked
REG_VERDICT = "reg4"  # their answers, as Finding
REG_OPEN = "reg5"  # the answer of GATE
REG_PART = "reg6"  # the part of the VIFs here that FLOOD_PART delivers to
REG_PRIORITY = "reg7"  # bits 0..2: the priority (PCP) of the VLAN tag that a frame came with, 0 without one
REG_PEER = "xxreg2"  # the groups that the other side is in, a bit each (HostView.peer_bits)
REG_ALLOWING, REG_DROPPING, REG_REJECTING = (
    "reg12",
    "reg13",
    "reg14",
)  # the tag of a rule that allows, drops, rejects and logs
REG_SEEN = "reg15"  # 1 once the agent was told that a probe's frame came in
OPEN_IN, OPEN_OUT = 1, 2
OPEN_BOTH = OPEN_IN | OPEN_OUT


class Finding(IntFlag):
    """reg4: what the rules of all of a VIF's groups say of a packet.

    TURNED_*: of a TCP segment whose connection the tracker did not see begin, what the rules of the other direction say of its
    answer. LOG_*: the rule that says so logs. MIDSTREAM: nobody knows which end listens, or the sender does; LISTENER_SENDS: the sender does.
    """

    ALLOW = 1
    DROP = 2
    DEFAULT_DROP = 4
    REJECT = 8
    DEFAULT_REJECT = 16
    MIDSTREAM = 128
    LISTENER_SENDS = 256
    LOG_ALLOW = 512
    LOG_DROP = 1024
    LOG_REJECT = 2048
    TURNED_ALLOW = 1 << 16
    TURNED_DROP = 2 << 16
    TURNED_DEFAULT_DROP = 4 << 16
    TURNED_REJECT = 8 << 16
    TURNED_DEFAULT_REJECT = 16 << 16


# A VLAN segment is 1 << 32 | uplink << 12 | tag, so that a trunk for all tags can move the tag in and out of it;
# any other segment is the network's number (at most 24 bits). Segments never leave the host.
VLAN_SEGMENT = 1 << 32
TAG_BITS = 12
TAG_MASK = (1 << TAG_BITS) - 1
ANY_TAG = ((1 << 64) - 1) ^ TAG_MASK

# A cookie is 16 bits of our mark, 8 of category, 40 of the object's name hashed: flows without the mark are not ours.
COOKIE_MARK = 0x766E << 48
COOKIE_MARK_MASK = 0xFFFF << 48
COOKIE_CATEGORY_SHIFT = 40
COOKIE_OBJECT_MASK = (1 << COOKIE_CATEGORY_SHIFT) - 1


class Category(IntEnum):
    """The feature that a flow comes from: bits 40..47 of its cookie."""

    BASE = 0
    NETWORK = 1
    FLOOD = 2
    VIF = 3
    LOOKUP = 4
    TRUNK = 5
    LEARNED = 6  # made by the switch itself when a moving VIF announces itself
    GROUP = 7
    PEER = 8
    PROBE = 9  # only while a probe runs
    RATE = 10
    NETWORK_RATE = 11
    REJECT = 12
    LOG = 13


def cookie(category: Category, name: str) -> int:
    """The cookie of the flows of one source. name: of the network, VIF, uplink, group, rule or probe that it is of."""
    digest = blake2b(name.encode(), digest_size=5).digest() if name else b""
    return COOKIE_MARK | category << COOKIE_CATEGORY_SHIFT | int.from_bytes(digest, "big")
