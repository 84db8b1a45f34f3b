"""Random flows and packets that meet: few addresses, ports and tables, so that matches hit and rewrites are seen.

Everything comes from one random.Random, so that a seed, or hypothesis, can repeat it.
"""

from __future__ import annotations

from random import Random
from typing import Any

from ovsctl.openflow import (
    Action,
    Bucket,
    CheckPktLarger,
    Clone,
    DecTtl,
    Exit,
    Flow,
    GotoTable,
    Group,
    GroupAction,
    GroupType,
    Learn,
    LearnLoad,
    LearnMatch,
    LearnOutput,
    Match,
    Move,
    Note,
    Output,
    OutputReg,
    OutputTrunc,
    Pop,
    PopVlan,
    Push,
    PushVlan,
    ReservedPort,
    Resubmit,
    Sample,
    SetField,
    WriteActions,
    WriteMetadata,
)

PORTS = (1, 2, 3)
TABLES = (0, 1, 2, 3)
MACS = ("0a:00:00:00:00:01", "0a:00:00:00:00:02", "02:00:00:00:00:03", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01")
V4 = ("10.0.0.1", "10.0.0.2", "192.168.1.9")
V6 = ("fd00::1", "fd00::2", "fe80::a:1")
TP = (80, 443, 53)
VIDS = (0, 5, 120)

_FIELDS: dict[str, tuple[Any, ...]] = {
    "in_port": PORTS,
    "eth_src": MACS[:3],
    "eth_dst": MACS,
    "vlan_tci": (0, (0x1000, 0x1000), (0x1005, 0x1FFF), (0x1078, 0x1FFF), (0x1000, 0x1FFF)),
    "reg0": (0, 1, 2, (1, 1)),
    "reg5": (0, 0x10000, (0, 0x10000)),
    "metadata": (0, 7, (5, 5)),
    "ip_src": (*V4, "10.0.0.0/24"),
    "ip_dst": (*V4, "0.0.0.0/1"),
    "nw_tos": (0, 32),
    "nw_ttl": (1, 64),
    "ip_frag": ("no", "first", "later"),
    "ipv6_src": (*V6, "fd00::/64"),
    "ipv6_dst": V6,
    "tcp_dst": TP,
    "tcp_src": (*TP, (0, 1)),
    "tcp_flags": ("+syn", "+ack-syn"),
    "udp_dst": TP,
    "icmp_type": (0, 8),
    "icmpv6_type": (128, 135, 136),
    "nd_target": V6,
    "arp_op": (1, 2),
    "arp_spa": V4,
    "arp_sha": MACS[:3],
}  # fmt: skip
_COMMON = ("in_port", "eth_src", "eth_dst", "reg0", "reg5", "metadata")
# Kind: what its match always has, what it may have, what its actions may write.
_KINDS: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "any": ({}, ("vlan_tci",), ()),
    "tagged": ({"vlan_tci": (0x1000, 0x1000)}, (), ("vlan_vid", "vlan_pcp")),
    "ipv4": ({"eth_type": 0x0800}, ("ip_src", "ip_dst", "nw_tos", "nw_ttl", "ip_frag"), ("ip_src", "ip_dst", "nw_tos", "nw_ttl")),
    "tcp": ({"eth_type": 0x0800, "nw_proto": 6}, ("ip_src", "tcp_dst", "tcp_src", "tcp_flags"), ("ip_src", "ip_dst", "tcp_dst", "tcp_src", "nw_ttl")),
    "udp": ({"eth_type": 0x0800, "nw_proto": 17}, ("ip_src", "udp_dst"), ("ip_src", "udp_dst", "udp_src")),
    "icmp": ({"eth_type": 0x0800, "nw_proto": 1}, ("ip_src", "icmp_type"), ("ip_dst", "icmp_type")),
    "ipv6": ({"eth_type": 0x86DD}, ("ipv6_src", "ipv6_dst"), ("ipv6_src", "ipv6_dst", "nw_ttl", "nw_tos", "ipv6_label")),
    "tcp6": ({"eth_type": 0x86DD, "nw_proto": 6}, ("tcp_dst",), ("ipv6_src", "tcp_dst")),
    "icmp6": ({"eth_type": 0x86DD, "nw_proto": 58}, ("icmpv6_type",), ("ipv6_dst",)),
    "nd": ({"eth_type": 0x86DD, "nw_proto": 58, "icmpv6_type": 136}, ("nd_target",), ("nd_target", "nd_tll")),
    "arp": ({"eth_type": 0x0806}, ("arp_op", "arp_spa", "arp_sha"), ("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha")),
}  # fmt: skip
_VALUES: dict[str, tuple[Any, ...]] = {
    "ip_src": V4, "ip_dst": V4, "nw_tos": (0, 32), "nw_ttl": (1, 33), "tcp_dst": TP, "tcp_src": TP, "udp_dst": TP,
    "udp_src": TP, "icmp_type": (0, 8), "ipv6_src": (*V6, ("fd00::7", "::ff")), "ipv6_dst": V6, "ipv6_label": (0, 0xABCDE),
    "nd_target": V6, "nd_tll": MACS[:2], "arp_op": (1, 2), "arp_spa": V4, "arp_tpa": V4, "arp_sha": MACS[:2],
    "arp_tha": MACS[:2], "vlan_vid": (0x1005, 0x1078), "vlan_pcp": (0, 5), "eth_src": MACS[:3],
    "eth_dst": (*MACS, ("00:00:00:00:00:01", "00:00:00:00:00:ff")), "reg0": (0, 1, 2, (2, 2)), "metadata": (0, 7, (5, 5)),
    "reg5": (1, 2, 3), "vlan_tci": (0, 0x1005, 0x1078),
}  # fmt: skip


def flow(rng: Random, table: int, priority: int, groups: int) -> Flow:
    """A flow that a switch accepts."""
    kind = rng.choice(list(_KINDS))
    always, may, writes = _KINDS[kind]
    fields = dict(always)
    for name in rng.sample([*_COMMON, *may], rng.choice((0, 0, 1, 1, 2))):
        fields[name] = rng.choice(_FIELDS[name])
    chosen = actions(
        rng, table, (*writes, "eth_src", "eth_dst", "reg0", "metadata", "reg5"), rng.randint(0, 5), groups, kind
    )
    last: list[Action] = []
    if rng.random() < 0.1:
        last.append(WriteActions(Output(rng.choice(PORTS))))
    if rng.random() < 0.1:
        last.append(WriteMetadata(rng.choice((0, 7)), rng.choice((0xFF, 5))))
    if rng.random() < 0.1 and table < TABLES[-1]:
        last.append(GotoTable(rng.randint(table + 1, TABLES[-1])))
    return Flow(Match(**fields), (*chosen, *last), table, priority, cookie=priority)


def actions(
    rng: Random, table: int, writes: tuple[str, ...], count: int, groups: int, kind: str, depth: int = 0
) -> list[Action]:
    """Actions that go with a match of this kind."""
    found: list[Action] = []
    for _ in range(count):
        pick = rng.random()
        if pick < 0.28:
            found.append(Output(rng.choice((*PORTS, *PORTS, 9, ReservedPort.IN_PORT))))
        elif pick < 0.45:
            name = rng.choice(writes)
            value = rng.choice(_VALUES[name])
            found.append(SetField(name, value))
        elif pick < 0.62:
            found.append(_resubmit(rng, table))
        elif pick < 0.66 and kind != "tagged" and depth == 0:
            found += [PushVlan(), SetField("vlan_vid", 0x1000 | rng.choice(VIDS)), Output(rng.choice(PORTS)), PopVlan()]
        elif pick < 0.69 and kind == "tagged":
            return [*found, PopVlan(), Output(rng.choice(PORTS)), Resubmit(table=3)]
        elif pick < 0.73 and depth < 2:
            found.append(Clone(*actions(rng, table, writes, rng.randint(1, 3), groups, kind, depth + 1)))
        elif pick < 0.77 and groups:
            found.append(GroupAction(rng.randint(1, groups)))
        elif pick < 0.80:
            found.append(Move(rng.choice(("eth_src[0..15]", "in_port", "reg0[0..15]", "vlan_tci")), rng.choice(("reg5[0..15]", "eth_dst[0..15]", "reg0[16..31]"))))  # fmt: skip
        elif pick < 0.82:
            found += [Push("reg0"), Push("eth_src[0..31]"), Pop("reg5"), Pop("reg0")]
        elif pick < 0.84:
            found.append(CheckPktLarger(rng.choice((60, 64, 100)), "reg0[1]"))
        elif pick < 0.86:
            found.append(OutputReg("reg0[0..15]"))
        elif pick < 0.88:
            found.append(OutputTrunc(rng.choice(PORTS), rng.choice((18, 40, 1000))))
        elif pick < 0.90 and kind in ("ipv4", "tcp", "ipv6"):
            found.append(DecTtl())
        elif pick < 0.92:
            found.append(
                rng.choice((Output(ReservedPort.FLOOD), Output(ReservedPort.ALL), Output(ReservedPort.NORMAL)))
            )
        elif pick < 0.93:
            found.append(Exit())
        elif pick < 0.95:
            found.append(rng.choice((Note(b"x"), Sample(0xFFFF))))
        elif pick < 0.97:
            found.append(_learn(rng))
    return found


def _resubmit(rng: Random, table: int) -> Resubmit:
    if rng.random() < 0.05:
        return Resubmit(table=rng.choice(TABLES))
    later = [t for t in TABLES if t > table] or [table]
    in_port = rng.choice(PORTS) if rng.random() < 0.2 else None
    return Resubmit(table=rng.choice(later), in_port=in_port)


def _learn(rng: Random) -> Learn:
    specs: list[Any] = (
        [LearnMatch("eth_dst", "eth_src")] if rng.random() < 0.5 else [LearnMatch("reg0", 1), LearnMatch("in_port")]
    )
    specs.append(rng.choice((LearnLoad("in_port", "reg5[0..15]"), LearnOutput("in_port"), LearnLoad(3, "reg0[0..3]"))))
    return Learn(tuple(specs), table=rng.choice((2, 3)), priority=rng.choice((5000, 5001)))


def groups(rng: Random, count: int) -> list[Group]:
    """Groups 1 to `count`, of kinds whose choice of a bucket is not the datapath's."""
    found = []
    for number in range(1, count + 1):
        kind = rng.choice((GroupType.ALL, GroupType.INDIRECT, GroupType.FF))
        buckets = []
        for _ in range(1 if kind is GroupType.INDIRECT else rng.randint(1, 3)):
            acts: list[Action] = []
            if rng.random() < 0.6:
                acts.append(SetField("eth_dst", rng.choice(MACS)))
            acts.append(rng.choice((Output(rng.choice(PORTS)), Resubmit(table=3))))
            buckets.append(Bucket(tuple(acts), watch_port=rng.choice(PORTS) if kind is GroupType.FF else None))
        found.append(Group(number, kind, tuple(buckets)))
    return found


def flows(rng: Random, count: int, group_count: int) -> list[Flow]:
    """Flows of distinct priorities, so that which one wins is defined."""
    priorities = rng.sample(range(1, 4000), count)
    found = [flow(rng, rng.choice(TABLES), priority, group_count) for priority in priorities]
    return [*found, Flow(Match(), (Resubmit(table=1),), 0, 0)]


def packet(rng: Random) -> bytes:
    """A frame, whole or broken."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import (
        ICMPv6EchoRequest,
        ICMPv6ND_NA,
        ICMPv6ND_NS,
        ICMPv6NDOptDstLLAddr,
        ICMPv6NDOptSrcLLAddr,
        IPv6,
        IPv6ExtHdrDestOpt,
        IPv6ExtHdrFragment,
        IPv6ExtHdrHopByHop,
    )
    from scapy.layers.l2 import ARP, LLC, SNAP, Dot1AD, Dot1Q, Ether
    from scapy.packet import Raw

    def one(values: Any) -> Any:
        return rng.choice(values)

    body = Raw(bytes(rng.randrange(256) for _ in range(one((0, 1, 7, 18, 60)))))
    v4 = IP(src=one(V4), dst=one(V4), ttl=one((0, 1, 2, 64)), tos=one((0, 3, 32)))
    v6 = IPv6(src=one(V6), dst=one(V6), hlim=one((1, 64)), tc=one((0, 33)), fl=one((0, 0x12345)))
    layer = one([
        lambda: ARP(op=one((1, 2, 300)), psrc=one(V4), pdst=one(V4), hwsrc=one(MACS[:3]), hwdst=one(MACS[:3])),
        lambda: v4 / TCP(sport=one(TP), dport=one(TP), flags=one(["S", "SA", "A", "FA", "R"])) / body,
        lambda: v4 / UDP(sport=one(TP), dport=one(TP)) / body,
        lambda: v4 / UDP(sport=one(TP), dport=one(TP), chksum=one((0, 1))) / body,
        lambda: v4 / ICMP(type=one((0, 8, 3))) / body,
        lambda: IP(src=one(V4), dst=one(V4), flags="MF", frag=0, proto=one((6, 17))) / Raw(b"y" * 32),
        # Of TCP and UDP, Open vSwitch 3.1's userspace "corrects" a checksum that later fragments do not have.
        lambda: IP(src=one(V4), dst=one(V4), flags="MF", frag=8, proto=1) / Raw(b"y" * 32),
        lambda: IP(src=one(V4), dst=one(V4), proto=one((2, 47, 132)), options=one(([], [b"\x01\x01\x01\x01"]))) / body,
        lambda: IP(src=one(V4), dst=one(V4), len=one((19, 5000))) / body,
        lambda: IP(src=one(V4), dst=one(V4), chksum=0x1234) / TCP(sport=one(TP), dport=one(TP), chksum=0x99),
        lambda: v6 / TCP(sport=one(TP), dport=one(TP)) / body,
        lambda: v6 / UDP(sport=one(TP), dport=one(TP)) / body,
        lambda: v6 / ICMPv6EchoRequest(id=7) / body,
        lambda: v6 / ICMPv6ND_NS(tgt=one(V6)) / ICMPv6NDOptSrcLLAddr(lladdr=one(MACS[:3])),
        lambda: v6 / ICMPv6ND_NA(tgt=one(V6)) / ICMPv6NDOptDstLLAddr(lladdr=one(MACS[:3])),
        lambda: v6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP(sport=one(TP), dport=one(TP)) / body,
        lambda: v6 / IPv6ExtHdrFragment(offset=one((0, 5)), m=one((0, 1))) / TCP(sport=one(TP), dport=one(TP)),
        lambda: Raw(bytes(rng.randrange(256) for _ in range(40))),
    ])()  # fmt: skip
    frame = Ether(src=one(MACS[:3]), dst=one(MACS))
    tags = rng.random()
    if tags < 0.25:
        frame = frame / Dot1Q(vlan=one(VIDS), prio=one((0, 5)), dei=one((0, 1)))
    elif tags < 0.3:
        frame = frame / Dot1Q(vlan=one(VIDS)) / Dot1Q(vlan=7)
    elif tags < 0.33:
        frame = frame / Dot1AD(vlan=one(VIDS)) / Dot1Q(vlan=7)
    if rng.random() < 0.05:
        frame = Ether(
            bytes(frame)[:12] + b"\0\x28" + bytes(LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=one((0x0800, 0x9999))))
        )
    data = bytes(frame / layer)
    if rng.random() < 0.08:
        data = data[: rng.randint(14, len(data))]
    return data
