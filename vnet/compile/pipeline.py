"""The pipeline on br-int as data: tables, the paths of frames through them, registers and cookies.

One rule: flows name no table of another concern as the next one. They ask `onward` and `enter`, so a stage is put between two
others by a line in FROM_VIF or TO_VIF. docs/pipeline.md has a section per table and a test holds the two together. A packet
never goes back to an earlier table, so it cannot loop inside a switch; the tables from GATE on only answer who asks them, but for the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from hashlib import blake2b
from typing import NamedTuple

from vnet.grammar.packet_filter import WIDTHS
from vnet.objects import LockingMode, Vif


class Table(IntEnum):
    """Table numbers, in the order a packet passes them."""

    CLASSIFY = 0
    TAG_TYPE = 1
    TAGGED = 2
    SERVICE_TAGGED = 3
    ADMIT = 5
    MIRROR_SENT = 6
    SERVICES = 8
    GUARD = 10
    LEARN = 12
    REPORTS = 13
    FROM_ISOLATION = 15
    EGRESS = 20
    EGRESS_NEIGHBOUR = 21
    EGRESS_STATE = 22
    EGRESS_PEER = 24
    EGRESS_SETS = 25
    EGRESS_MONITOR = 26
    EGRESS_VERDICT = 28
    EGRESS_COMMITTED = 29
    EGRESS_REJECT = 30
    EGRESS_LOG = 31
    STORM = 38
    FROM_RATE = 40
    SENT = 42
    MIRROR_PASSED = 45
    MIRROR_TO = 46
    LOOKUP = 50
    MULTICAST = 53
    ALL_GROUPS = 54
    HELD = 55
    UNKNOWN_RATE = 57
    UNKNOWN = 58
    FLOOD = 60
    FLOOD_PART = 62
    GATED = 65
    TO_ISOLATION = 68
    INGRESS = 70
    INGRESS_NEIGHBOUR = 71
    INGRESS_STATE = 72
    INGRESS_PEER = 74
    INGRESS_SETS = 75
    INGRESS_MONITOR = 76
    INGRESS_VERDICT = 78
    INGRESS_COMMITTED = 79
    TO_RATE = 80
    TO_METER = 82
    MIRROR_GOT = 83
    DELIVER = 84
    MIRROR_OPEN = 85
    INGRESS_REJECT = 86
    INGRESS_LOG = 87
    MIRROR_FILTER = 88
    MIRROR_OUT = 89
    GATE = 90
    EGRESS_RULES = 92
    INGRESS_RULES = 94
    TURN = 96
    LISTENER = 98
    RECEIVER_ROLE = 100
    TO_POOL = 101
    SENDER_ROLE = 102
    FROM_POOL = 103
    MIRROR_FROM = 104
    MIRROR_MOVED = 105
    MIRROR_HERE = 106


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
FROM_VIF: Path = (
    Table.MIRROR_SENT,
    Table.SERVICES,
    Table.GUARD,
    Table.LEARN,
    Table.REPORTS,
    Table.FROM_ISOLATION,
    Table.EGRESS,
    Table.STORM,
    Table.FROM_RATE,
    Table.SENT,
    Table.MIRROR_PASSED,
    Table.LOOKUP,
)
TO_VIF: Path = (Table.TO_ISOLATION, Table.INGRESS, Table.TO_RATE, Table.MIRROR_GOT, Table.DELIVER)


class Passing(NamedTuple):
    """What decides which stages are for a VIF, beside the VIF itself: whether QoS classes limit it, whether it is kept apart from others,
    whether its host hears which multicast groups it listens to, and where mirrors may copy its frames: as it sends them, on their way to
    others, and as it gets them."""

    limited: bool
    apart: bool
    heard: bool
    copied_sent: bool = False
    copied_passed: bool = False
    copied_got: bool = False


# Which VIFs a stage is for; a stage that is not here is for every VIF.
TAKES: dict[Table, Callable[[Vif, Passing], bool]] = {
    Table.SERVICES: lambda vif, _: vif.locking_mode is LockingMode.LOCKED,
    Table.LEARN: lambda vif, _: bool(vif.learn),
    Table.REPORTS: lambda _, passing: passing.heard,
    Table.FROM_ISOLATION: lambda _, passing: passing.apart,
    Table.EGRESS: lambda vif, _: bool(vif.groups),
    Table.TO_ISOLATION: lambda _, passing: passing.apart,
    Table.INGRESS: lambda vif, _: bool(vif.groups),
    Table.STORM: lambda _, passing: passing.limited,
    Table.FROM_RATE: lambda _, passing: passing.limited,
    Table.TO_RATE: lambda _, passing: passing.limited,
    Table.MIRROR_SENT: lambda _, passing: passing.copied_sent,
    Table.MIRROR_PASSED: lambda _, passing: passing.copied_passed,
    Table.MIRROR_GOT: lambda _, passing: passing.copied_got,
}


def enter(path: Path, vif: Vif, passing: Passing) -> Table:
    """The first stage of a path that is for a VIF."""
    for table in path:
        if table not in TAKES or TAKES[table](vif, passing):
            return table
    raise ValueError("a path ends with a stage that is for every VIF")


def onward(table: Table, vif: Vif, passing: Passing) -> Table:
    """The stage after `table` on a VIF's path."""
    return enter(_after(table), vif, passing)


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
    "in_port", "eth_type", "arp_sha", "arp_spa", "nw_proto", "icmpv6_type", "icmpv6_code", "ip_src", "ip_dst",
    "ipv6_src", "nd_target", "udp_src", "udp_dst", "tun_src", "tun_ipv6_src",
})  # fmt: skip

_TRACK = frozenset({
    "eth_dst", "eth_type", "nw_proto", "ip_frag", "icmpv6_type", "ip_dst", "ipv6_dst", "udp_src", "udp_dst",
})  # fmt: skip
_NEIGHBOUR = frozenset({"eth_type", "nw_proto", "icmpv6_type", "nw_ttl", "ipv6_dst"})
_RULES = frozenset(
    {
        "metadata",
        "reg3",
        "reg4",
        "reg8",
        "reg9",
        "reg10",
        "reg11",
        "eth_type",
        "nw_proto",
        "ip_frag",
        "tcp_dst",
        "udp_dst",
        "tcp_src",
        "udp_src",
    }
)
_STATE = frozenset({"ct_state", "ct_zone", "eth_type", "ip_frag", "nw_proto", "tcp_flags"})
_VERDICT = frozenset({"reg4", "ct_state", "eth_type", "ip_frag"})
_REJECT = frozenset({"eth_dst", "eth_type", "reg15"})
_BY_RULES = frozenset({Table.EGRESS_RULES, Table.INGRESS_RULES, Table.TURN, Table.LISTENER})
_COPIED = frozenset({"metadata"})
_TO_VIF = frozenset({Table.GATE, Table.GATED}) | _entries(TO_VIF)
_ROLES = frozenset({Table.RECEIVER_ROLE, Table.SENDER_ROLE})

PIPELINE: dict[Table, Stage] = {
    Table.CLASSIFY: Stage(
        "which network a frame is on and where it came from: a VIF, a tunnel or an uplink",
        _PORT | {"tun_id", "tun_ipv6_src", "eth_type", "eth_src", "eth_dst"},
        frozenset(
            {
                Table.CLASSIFY,
                Table.TAG_TYPE,
                Table.ADMIT,
                Table.MIRROR_PASSED,
                Table.LOOKUP,
                Table.GATE,
                Table.FROM_POOL,
                Table.MIRROR_HERE,
            }
        )
        | _entries(FROM_VIF)
        | _ROLES,
    ),
    Table.TAG_TYPE: Stage(
        "whether the tag of a frame of a trunk VIF, or of an uplink, is one of 802.1Q, by its Ethernet type",
        _PORT | {"eth_type"},
        frozenset({Table.TAGGED, Table.SERVICE_TAGGED}),
    ),
    Table.TAGGED: Stage(
        "which network a frame of a trunk VIF, or of an uplink, is on, by its tag",
        _PORT,
        frozenset({Table.ADMIT, Table.MIRROR_PASSED, Table.LOOKUP, Table.GATE, Table.FROM_POOL})
        | _ROLES
        | _entries(FROM_VIF),
    ),
    Table.SERVICE_TAGGED: Stage(
        "which network a frame from an uplink is on, by its service tag",
        _PORT,
        frozenset({Table.MIRROR_PASSED, Table.LOOKUP, Table.SENDER_ROLE, Table.FROM_POOL}),
    ),
    Table.ADMIT: Stage(
        "what a port that is not active yet may send: its announcement, which opens it, and all once it is open",
        _PORT | _ANNOUNCE | {"reg5", "eth_src", "eth_dst"},
        _entries(FROM_VIF) | {Table.RECEIVER_ROLE},
    ),
    Table.MIRROR_SENT: Stage(
        "copies of what a VIF sends, for mirrors that are asked before its policy",
        _COPIED | {"in_port"},
        _entries(_after(Table.MIRROR_SENT)) | {Table.MIRROR_FILTER},
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
    Table.LEARN: Stage(
        "whether a MAC behind an unlocked VIF is known; else a copy tells the agent of it",
        frozenset({"in_port", "eth_src"}),
        _entries(_after(Table.LEARN)),
    ),
    Table.REPORTS: Stage(
        "what a VIF says of its multicast groups, by IGMP and MLD: a copy tells the agent",
        frozenset({"in_port", "eth_dst", "eth_type", "nw_proto", "icmpv6_type"}),
        _entries(_after(Table.REPORTS)),
    ),
    Table.FROM_ISOLATION: Stage(
        "whether a VIF that is isolated, or in a community, may send to the VIF that a frame is for",
        frozenset({"in_port", "reg7"}),
        _entries(_after(Table.FROM_ISOLATION)),
    ),
    Table.EGRESS: Stage(
        "what a VIF in security groups sends, through the connection tracker; ARP, ND and DHCP pass",
        _TRACK | {"in_port", "reg7"},
        frozenset({Table.EGRESS, Table.EGRESS_NEIGHBOUR, Table.EGRESS_STATE, following(Table.EGRESS)}),
    ),
    Table.EGRESS_NEIGHBOUR: Stage(
        "neighbour discovery and MLD, with the hop limit that they have on their own link",
        _NEIGHBOUR,
        frozenset({following(Table.EGRESS)}),
    ),
    Table.EGRESS_STATE: Stage(
        "puts a packet to the VIF's groups, by the first packet of its connection",
        _STATE | {"in_port"},
        _BY_RULES
        | {Table.EGRESS_PEER, Table.EGRESS_SETS, Table.EGRESS_MONITOR, Table.EGRESS_VERDICT, Table.EGRESS_COMMITTED},
    ),
    Table.EGRESS_PEER: Stage(
        "which groups the receiver is in, of those that rules here name",
        frozenset({"metadata", "eth_dst", "eth_type", "ip_dst", "ipv6_dst"}),
        frozenset(),
    ),
    Table.EGRESS_SETS: Stage(
        "which address sets the receiver is in, of those that rules here name",
        frozenset({"metadata", "eth_type", "ip_dst", "ipv6_dst"}),
        frozenset(),
    ),
    Table.EGRESS_MONITOR: Stage(
        "what a group in monitor mode would drop or reject of what the VIF's other groups let through",
        frozenset({"reg4"}),
        frozenset({Table.EGRESS_LOG}),
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
        "what a VIF sends and its rules log or would drop, at a rate to the agent, which writes a line",
        frozenset({"in_port", "reg15", "reg3", "reg4", "ct_state"}),
        frozenset(),
    ),
    Table.STORM: Stage(
        "what QoS classes let a VIF send to everybody, or to a group, by meters",
        frozenset({"in_port", "eth_dst", "reg7"}),
        frozenset({following(Table.STORM)}),
        miss=following(Table.STORM),
    ),
    Table.FROM_RATE: Stage(
        "what QoS classes let a VIF send, by meters, and the DSCP that it is marked with",
        frozenset({"in_port", "metadata", "eth_type"}),
        frozenset({following(Table.FROM_RATE)}),
        miss=following(Table.FROM_RATE),
    ),
    Table.SENT: Stage(
        "what a VIF has sent and its policy has let pass, counted: for VIFs of the pool, or for stations outside",
        frozenset({"in_port", "reg7"}),
        _entries(_after(Table.SENT)) | {Table.SENT, Table.TO_POOL},
        miss=following(Table.SENT),
    ),
    Table.MIRROR_PASSED: Stage(
        "copies of what a VIF sends and its policy has let pass, and of what enters for VIFs that mirrors are of",
        _COPIED | {"in_port", "reg0"},
        frozenset({Table.MIRROR_FROM, Table.MIRROR_TO, Table.MIRROR_FILTER, Table.LOOKUP}),
        miss=Table.LOOKUP,
    ),
    Table.LOOKUP: Stage(
        "destination MAC to local VIF, remote host or both while a VIF moves; multicast to FLOOD, the rest to UNKNOWN",
        _L2,
        frozenset({Table.HELD, Table.UNKNOWN_RATE, Table.FLOOD, Table.MULTICAST, Table.GATE, Table.MIRROR_MOVED})
        | _entries(TO_VIF),
        miss=Table.UNKNOWN_RATE,
    ),
    Table.MULTICAST: Stage(
        "which VIFs, hosts and uplinks listen to a multicast group, or are to get a report",
        frozenset({"metadata", "reg0", "eth_src", "eth_type", "nw_proto", "icmpv6_type", "ip_dst", "ipv6_dst"}),
        _TO_VIF | {Table.ALL_GROUPS, Table.FLOOD},
        miss=Table.FLOOD,
    ),
    Table.ALL_GROUPS: Stage(
        "the VIFs here that get every multicast group",
        frozenset({"metadata"}),
        _TO_VIF | {Table.FLOOD_PART},
    ),
    Table.HELD: Stage(
        "unicast from here to a VIF that is moving here: to its port once that is open, else to where it still runs",
        frozenset({"metadata", "reg0", "reg2", "reg5"}),
        frozenset({Table.GATED}),
    ),
    Table.UNKNOWN_RATE: Stage(
        "what QoS classes let a VIF send to addresses that are not known, by meters",
        frozenset({"in_port"}),
        frozenset({Table.UNKNOWN}),
        miss=Table.UNKNOWN,
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
    Table.TO_ISOLATION: Stage(
        "whether a VIF that is isolated, or in a community, may be sent what the frame's sender sends",
        frozenset({"reg2", "reg7"}),
        _entries(_after(Table.TO_ISOLATION)),
    ),
    Table.INGRESS: Stage(
        "what a VIF in security groups is sent, through the connection tracker; ARP, ND and DHCP pass",
        _TRACK | {"reg0", "metadata", "eth_src", "reg2", "reg7"},
        frozenset({Table.INGRESS, Table.INGRESS_NEIGHBOUR, Table.INGRESS_STATE, following(Table.INGRESS)}),
    ),
    Table.INGRESS_NEIGHBOUR: Stage(
        "neighbour discovery and MLD, with the hop limit that they have on their own link",
        _NEIGHBOUR,
        frozenset({following(Table.INGRESS)}),
    ),
    Table.INGRESS_STATE: Stage(
        "puts a packet to the VIF's groups, by the first packet of its connection",
        _STATE | {"reg2"},
        _BY_RULES
        | {
            Table.INGRESS_PEER,
            Table.INGRESS_SETS,
            Table.INGRESS_MONITOR,
            Table.INGRESS_VERDICT,
            Table.INGRESS_COMMITTED,
        },
    ),
    Table.INGRESS_PEER: Stage(
        "which groups the sender is in, of those that rules here name",
        frozenset({"metadata", "eth_src", "eth_type", "ip_src", "ipv6_src"}),
        frozenset(),
    ),
    Table.INGRESS_SETS: Stage(
        "which address sets the sender is in, of those that rules here name",
        frozenset({"metadata", "eth_type", "ip_src", "ipv6_src"}),
        frozenset(),
    ),
    Table.INGRESS_MONITOR: Stage(
        "what a group in monitor mode would drop or reject of what the VIF's other groups let through",
        frozenset({"reg4"}),
        frozenset({Table.INGRESS_LOG}),
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
        frozenset({"reg2", "metadata", "reg7"}),
        frozenset({Table.TO_METER, following(Table.TO_RATE)}),
        miss=following(Table.TO_RATE),
    ),
    Table.TO_METER: Stage(
        "what QoS classes let a VIF be sent, by meters",
        frozenset({"reg2", "metadata"}),
        frozenset({following(Table.TO_RATE)}),
    ),
    Table.MIRROR_GOT: Stage(
        "copies of what a VIF gets, for mirrors that are asked after its policy",
        _COPIED | {"reg2", "reg5", "reg7", "eth_dst"},
        frozenset({Table.MIRROR_FROM, Table.MIRROR_MOVED, Table.MIRROR_FILTER, Table.DELIVER}),
        miss=Table.DELIVER,
    ),
    Table.DELIVER: Stage(
        "out of the VIF's port, with the tag a trunk wants, and counted",
        frozenset({"reg2", "metadata", "eth_type", "reg0", "reg7", "in_port"}),
        frozenset(),
    ),
    Table.INGRESS_REJECT: Stage(
        "what a VIF is sent and its groups reject, at a rate to the agent, which answers it",
        _REJECT | {"reg2"},
        frozenset(),
    ),
    Table.INGRESS_LOG: Stage(
        "what a VIF is sent and its rules log or would drop, at a rate to the agent, which writes a line",
        frozenset({"reg2", "reg15", "reg3", "reg4", "ct_state"}),
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
    Table.RECEIVER_ROLE: Stage(
        "the isolation of the VIF that a frame is for, by its destination MAC",
        frozenset({"metadata", "eth_dst"}),
        frozenset(),
    ),
    Table.SENDER_ROLE: Stage(
        "the isolation of the VIF that sent a frame from elsewhere, by its source MAC",
        frozenset({"metadata", "eth_src"}),
        frozenset(),
    ),
    Table.TO_POOL: Stage(
        "whether a frame on a network with an uplink is for a VIF of the pool, by its destination MAC",
        frozenset({"metadata", "eth_dst"}),
        frozenset(),
    ),
    Table.FROM_POOL: Stage(
        "whether a VIF of the pool has sent a frame that an uplink hands in, by its source MAC",
        frozenset({"metadata", "eth_src"}),
        frozenset(),
    ),
    Table.MIRROR_FROM: Stage(
        "whether the sender's host has made a mirror's copy already, by the source MAC",
        _COPIED | {"reg6", "eth_src"},
        frozenset(),
    ),
    Table.MIRROR_TO: Stage(
        "whether a frame is for a VIF that a mirror is of, by the destination MAC",
        _COPIED | {"reg6", "reg0", "eth_dst"},
        frozenset({Table.GATE, Table.MIRROR_OPEN, Table.MIRROR_FILTER}),
    ),
    Table.MIRROR_OPEN: Stage(
        "whether the port is open that a mirror's copy is of",
        frozenset({"reg0", "reg5"}),
        frozenset({Table.MIRROR_FILTER}),
    ),
    Table.MIRROR_FILTER: Stage(
        "whether a mirror's filter wants a frame; what carries copies to a collector is never copied",
        frozenset({"reg6", "reg15", *WIDTHS}),
        frozenset({Table.MIRROR_OUT}),
    ),
    Table.MIRROR_OUT: Stage(
        "a mirror's copy to its target: a VIF here or on another host, a VLAN, a collector",
        frozenset({"reg6"}),
        frozenset({Table.GATE, Table.MIRROR_HERE}),
    ),
    Table.MIRROR_MOVED: Stage(
        "whether a VIF that is moving was heard from its new host, which then makes the copies of what it gets",
        frozenset({"reg2"}),
        frozenset(),
    ),
    Table.MIRROR_HERE: Stage(
        "a mirror's copy out of the port of its target", frozenset({"reg0", "reg5", "reg6", "in_port"}), frozenset()
    ),
}

# Flows that watch for a probe's marked frame (vnet/compile/probe.py) are in these tables, and match these fields besides.
WATCHES = frozenset({Table.CLASSIFY, Table.DELIVER})
MARKS = frozenset({
    "reg15", "eth_src", "eth_dst", "eth_type", "arp_op", "arp_sha", "arp_spa", "arp_tha", "arp_tpa", "ip_src", "ip_dst",
    "ipv6_src", "ipv6_dst", "ipv6_label", "nw_proto", "nw_ttl", "tcp_src", "tcp_dst", "tcp_flags", "udp_src", "udp_dst",
    "icmp_type", "icmp_code", "icmpv6_type", "icmpv6_code",
})  # fmt: skip

# Flows that copy frames for a capture (vnet/compile/capture.py) are in the same tables, and match these fields and those of filters.
TAPS = frozenset({"in_port", "metadata", "reg2", "reg7", "reg15"})


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
# Above the number, of VIFs that groups of tiers judge: whether its mandatory rules are asked, whether a step ends here, and whether one has decided.
GROUP_NUMBER, MANDATORY, STEP_ENDS, DECIDED = (1 << 24) - 1, 1 << 24, 1 << 25, 1 << 26
REG_VERDICT = "reg4"  # their answers, as Finding
REG_OPEN = "reg5"  # the answer of GATE
REG_PART = "reg6"  # the part of the VIFs here that FLOOD_PART delivers to
REG_MIRROR = "reg6"  # of a copy: the key of its mirror, and whether it is of an encrypted network
COPY_ENCRYPTED = 1 << 24
REG_PRIORITY = "reg7"  # bits 0..2: the priority (PCP) of the VLAN tag that a frame came with, 0 without one
REG_ROLE = (
    "reg7"  # bits 16..31: the isolation of the receiver up to FROM_ISOLATION, then that of the sender (isolation.py)
)
REG_COPY = "reg7"  # bit 3: the frame is a copy that is only judged, and goes nowhere
COPY = 8
REG_TAPPED = (
    "reg7"  # bits 4..11: the captures that have a copy of the frame as it was sent, and as it is delivered (capture.py)
)
REG_POOL = "reg7"  # bits 12 and 13: whether it was asked if a frame is for a VIF of the pool, and whether one has sent it or gets it
POOL_ASKED, POOL_MET = 1 << 12, 1 << 13
UNCOUNTED = 1 << 14  # bit 14: the agent says it for a VIF
REG_SECOND = "reg7"
SECOND = (
    1 << 15
)  # bit 15: the other host of a moving VIF has the frame as well, and makes mirrors' copies of it (second_copies.py)
REG_PEER = "xxreg2"  # the groups and address sets that the other side is in, a bit each (HostView.peer_bits)
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
    answer. STANDING_*: what the groups that enforce say, while one in monitor mode is asked; MONITORED: that one would drop or reject it.
    LOG_*: the rule that says so logs. MIDSTREAM: nobody knows which end listens, or the sender does; LISTENER_SENDS: the sender does.
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
    STANDING_ALLOW = 1 << 21
    STANDING_DROP = 2 << 21
    STANDING_DEFAULT_DROP = 4 << 21
    STANDING_REJECT = 8 << 21
    STANDING_DEFAULT_REJECT = 16 << 21
    MONITORED = 1 << 26


# A VLAN segment is 1 << 32 | uplink << 12 | tag, so that a trunk for all tags can move the tag in and out of it;
# any other segment is the network's number (at most 24 bits). Segments never leave the host.
VLAN_SEGMENT = 1 << 32
SERVICE_SEGMENT = 1 << 33  # of a VLAN whose tag is a service tag (802.1Q-2018 §9.5)
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
    MONITOR = 14
    ROUTER = 15
    BEHIND = 16
    ADDRESS_SET = 17
    MULTICAST = 18
    LISTENERS = 19
    CAPTURE = 20  # only while a capture runs
    MIRROR = 21
    MIRRORED = 22
    MIRRORED_NETWORK = 23
    HELLO = 24


def cookie(category: Category, name: str) -> int:
    """The cookie of the flows of one source. name: of the network, VIF, uplink, group, rule or probe that it is of."""
    digest = blake2b(name.encode(), digest_size=5).digest() if name else b""
    return COOKIE_MARK | category << COOKIE_CATEGORY_SHIFT | int.from_bytes(digest, "big")
