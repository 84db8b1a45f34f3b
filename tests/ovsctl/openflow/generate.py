"""Random flows that a switch takes: fields and actions with their prerequisites met.

Drawn from a random.Random that a property seeds: thousands of flows take the time that hypothesis takes for dozens.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Any

from ovsctl.openflow import (
    FIELDS,
    Action,
    CheckPktLarger,
    ClearActions,
    Clone,
    Conjunction,
    Ct,
    CtClear,
    DecTtl,
    Exit,
    Field,
    FinTimeout,
    Flow,
    GotoTable,
    GroupAction,
    Learn,
    LearnLoad,
    LearnMatch,
    LearnOutput,
    Match,
    MeterAction,
    Move,
    Nat,
    Note,
    Output,
    OutputReg,
    OutputTrunc,
    Pop,
    PopMpls,
    PopQueue,
    PopVlan,
    Push,
    PushMpls,
    PushVlan,
    ReservedPort,
    Resubmit,
    Sample,
    SampleDirection,
    SetField,
    SetQueue,
    Subfield,
    ToController,
    WriteActions,
    WriteMetadata,
)
from ovsctl.openflow.fields import FRAG_NAMES, Format, Needs

_IP = {Needs.NOTHING, Needs.IP}
# What a kind of packet is matched by, and which fields exist in it.
KINDS: dict[str, tuple[dict[str, int], set[Needs]]] = {
    "any": ({}, {Needs.NOTHING}),
    "type": ({"eth_type": 0x88CC}, {Needs.NOTHING}),
    "arp": ({"eth_type": 0x0806}, {Needs.NOTHING, Needs.ARP}),
    "rarp": ({"eth_type": 0x8035}, {Needs.NOTHING, Needs.ARP}),
    "ip": ({"eth_type": 0x0800}, {*_IP, Needs.IPV4}),
    "ipv6": ({"eth_type": 0x86DD}, {*_IP, Needs.IPV6}),
    "gre": ({"eth_type": 0x0800, "nw_proto": 47}, {*_IP, Needs.IPV4}),
    "tcp": ({"eth_type": 0x0800, "nw_proto": 6}, {*_IP, Needs.IPV4, Needs.TCP}),
    "tcp6": ({"eth_type": 0x86DD, "nw_proto": 6}, {*_IP, Needs.IPV6, Needs.TCP}),
    "udp": ({"eth_type": 0x0800, "nw_proto": 17}, {*_IP, Needs.IPV4, Needs.UDP}),
    "udp6": ({"eth_type": 0x86DD, "nw_proto": 17}, {*_IP, Needs.IPV6, Needs.UDP}),
    "sctp": ({"eth_type": 0x0800, "nw_proto": 132}, {*_IP, Needs.IPV4, Needs.SCTP}),
    "sctp6": ({"eth_type": 0x86DD, "nw_proto": 132}, {*_IP, Needs.IPV6, Needs.SCTP}),
    "icmp": ({"eth_type": 0x0800, "nw_proto": 1}, {*_IP, Needs.IPV4, Needs.ICMPV4}),
    "icmp6": ({"eth_type": 0x86DD, "nw_proto": 58}, {*_IP, Needs.IPV6, Needs.ICMPV6}),
    "ns": (
        {"eth_type": 0x86DD, "nw_proto": 58, "icmpv6_type": 135},
        {*_IP, Needs.IPV6, Needs.ND, Needs.ND_SOLICIT},
    ),
    "na": (
        {"eth_type": 0x86DD, "nw_proto": 58, "icmpv6_type": 136},
        {*_IP, Needs.IPV6, Needs.ND, Needs.ND_ADVERT},
    ),
}
_ALTERNATIVE = ("in_port_oxm", "vlan_tci", "vlan_vid", "vlan_pcp", "nw_tos")  # drawn apart, or under another name
_L4 = {Needs.TCP, Needs.UDP, Needs.SCTP, Needs.ICMPV4, Needs.ICMPV6, Needs.ND, Needs.ND_SOLICIT, Needs.ND_ADVERT}


class Maker:
    """Draws flows from `rng`."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def chance(self, one_in: int) -> bool:
        return self.rng.randrange(one_in) == 0

    def number(self, top: int) -> int:
        """0 to `top`: small ones and the largest come often."""
        way = self.rng.randrange(4)
        return top if way == 0 else self.rng.randint(0, min(9, top) if way == 1 else top)

    def bytes(self) -> bytes:
        return self.rng.randbytes(self.rng.randrange(20))

    def value(self, f: Field) -> int:
        if f.name == "in_port":
            return self.rng.choice((int(ReservedPort.LOCAL), self.rng.randint(1, 9), self.rng.randint(1, 0xFEFF)))
        return self.number(f.limit)

    def mask(self, f: Field) -> int:
        """All, a prefix, one bit, any."""
        way = self.rng.randrange(4)
        if not f.maskable or way == 0 or f.name == "tun_gbp_flags":  # whose mask ovs-ofctl does not show
            return f.full
        if way == 1:
            return f.full - (f.full >> self.rng.randint(1, f.bits))
        mask = self.rng.randint(1, f.full) if way == 2 else 1 << self.rng.randrange(f.bits)
        # ovs-ofctl takes an IPv6 mask that starts with a decimal digit for a prefix length.
        return mask | 0xF << 124 if f.format is Format.IPV6 else mask

    def masked(self, f: Field) -> tuple[int, int]:
        return self.value(f), self.mask(f)

    # ---- matches ----

    def vlan(self) -> dict[str, Any]:
        """Every way to match a tag."""
        vid, bits, pcp = self.rng.randrange(4096), self.rng.randrange(1, 4096), self.rng.randrange(8)
        return self.rng.choice(
            (
                {},
                {},
                {"vlan_tci": (0, 0x1FFF)},
                {"vlan_tci": (0x1000, 0x1000)},
                {"dl_vlan": vid},
                {"dl_vlan": vid, "vlan_pcp": pcp},
                {"dl_vlan_pcp": pcp},
                {"vlan_vid": (0x1000 | vid & bits, 0x1000 | bits)},
                {"vlan_vid": (vid & bits, bits)},
            )
        )

    def ct_fields(self, needs: set[Needs]) -> dict[str, Any]:
        """Connection state, with the original tuple where the state is of a connection."""
        valid = ("+trk+est", "+est+rpl+trk-inv", "+trk-inv", "est|trk")
        state = self.rng.choice((*valid, "+trk-new", "+trk+inv", "-trk", "0x21"))
        found: dict[str, Any] = {"ct_state": state}
        if state in valid and self.chance(2):
            for name in ("ct_nw_src", "ct_nw_dst", "ct_ipv6_src", "ct_ipv6_dst"):
                family = Needs.IPV6 if "v6" in name else Needs.IPV4
                if family in needs and self.chance(3):
                    found[name] = self.masked(FIELDS[name])
            found["ct_nw_proto"] = self.rng.choice((1, 6, 17))
            if self.chance(2):
                found["ct_tp_src"] = self.masked(FIELDS["ct_tp_src"])
        return found

    def match(self, kind: str) -> Match:
        """A match of a kind of packet, on some of the fields that it has."""
        base, needs = KINDS[kind]
        optional = OPTIONAL[kind]
        fields: dict[str, Any] = {**base, **self.vlan()}
        for f in self.rng.sample(optional, self.rng.randrange(6)):
            fields[f.name] = self.masked(f)
        if self.chance(4):
            fields |= self.ct_fields(needs)
        if Needs.IP in needs and self.chance(4):
            fields["ip_frag"] = self.rng.choice([n for n, (v, _) in FRAG_NAMES.items() if not v & 2 or not needs & _L4])
        if self.chance(6):
            fields["xreg2"] = self.masked(FIELDS["xreg2"])
            for name in ("reg4", "reg5"):
                fields.pop(name, None)
        return Match(**fields)

    # ---- actions ----

    def subfield(self, fields: list[Field], bits: int | None = None) -> Subfield:
        """A part of one of the fields, of `bits` bits where given."""
        f = self.rng.choice([f for f in fields if bits is None or f.bits >= bits])
        count = bits or self.rng.choice((f.bits, self.rng.randint(1, f.bits)))
        start = self.rng.randint(0, f.bits - count)
        return Subfield(f, start, start + count - 1)

    def port(self) -> int:
        return self.rng.choice((self.rng.randint(1, 9), self.rng.randint(1, 0xFEFF)))

    def flow(self) -> Flow:
        """A flow for a switch that has group 1 and meter 1."""
        kind = self.rng.choice(sorted(KINDS))
        match = self.match(kind)
        table = self.rng.randrange(251)
        return Flow(
            match,
            ActionMaker(self, kind, match).actions(table),
            table,
            self.rng.choice((0x8000, self.number(0xFFFF))),
            self.number(2**64 - 1),
            self.rng.choice((0, 0, 1000, 0xFFFF)),
            self.rng.choice((0, 0, 1000, 0xFFFF)),
            self.rng.choice((0, 0, 7)),
            self.rng.choice((0, 0, 1, 8, 16, 25)),
        )

    def flows(self, count: int) -> list[Flow]:
        """Flows with different keys."""
        return list({flow.key: flow for flow in (self.flow() for _ in range(count))}.values())


class ActionMaker:
    """The actions that fit a flow with this kind and match."""

    def __init__(self, make: Maker, kind: str, match: Match) -> None:
        self.make, self.rng, self.kind, self.match = make, make.rng, kind, match
        self.needs = KINDS[kind][1]
        self.tagged = "vlan_tci" in match and bool(match["vlan_tci"].value & 0x1000)
        self.ct_valid = "ct_nw_proto" in match
        self.readable = [f for f in READABLE[kind] if self.tagged or not f.name.startswith("vlan_")]
        self.writable = [
            f for f in self.readable if f.writable and f.name not in ("ct_mark", "ct_label", "in_port", "vlan_tci")
        ]

    def set_field(self) -> Action:
        f = self.rng.choice(self.writable)
        value, mask = self.make.masked(f)
        return SetField(f, (value & 0xFC if f.name == "nw_tos" else value, mask))

    def move(self) -> Action:
        target = self.make.subfield(self.writable)
        return Move(self.make.subfield(self.readable, target.bits), target)

    def learn_spec(self) -> Any:
        way = self.rng.randrange(5)
        if way == 0:
            return LearnOutput(self.make.subfield(self.readable, 16))
        target = self.make.subfield(LEARNABLE if way < 3 else REGS)
        if way in (1, 3):
            source: Any = self.make.number(target.mask >> target.start)
        else:
            source = self.make.subfield(self.readable, target.bits)
        return LearnMatch(target, source) if way < 3 else LearnLoad(source, target)

    def learn(self) -> Action:
        rng = self.rng
        return Learn(
            tuple(self.learn_spec() for _ in range(rng.randrange(5))),
            table=rng.randrange(251),
            priority=rng.choice((0x8000, self.make.number(0xFFFF))),
            cookie=self.make.number(2**64 - 1),
            idle_timeout=rng.choice((0, 9)),
            hard_timeout=rng.choice((0, 0xFFFF)),
            fin_idle_timeout=rng.choice((0, 9)),
            fin_hard_timeout=rng.choice((0, 9)),
            send_flow_rem=self.make.chance(2),
            delete_learned=self.make.chance(2),
            limit=rng.choice((0, 0, 5, 0xFFFFFFFF)),
            result=self.make.subfield(REGS, 1) if self.make.chance(3) else None,
        )

    def nat(self) -> Nat:
        rng, make = self.rng, self.make
        if make.chance(4):
            return Nat()
        direction = rng.choice(("src", "dst"))
        if make.chance(4):
            return Nat(direction)
        v4 = Needs.IPV4 in self.needs
        kind: Any = IPv4Address if v4 else IPv6Address
        low = rng.randint(1, 2**32 - 1 if v4 else 2**128 - 1)
        high = low + rng.choice((0, 1, 5)) if low & 0xFFFFFFFF < 0xFFFFFFF0 else None
        port = rng.randint(1, 0xFFFF) if make.chance(2) else None
        return Nat(
            direction,
            kind(low),
            None if high is None else kind(high),
            port,
            rng.randint(port, 0xFFFF) if port and make.chance(2) else None,
            persistent=make.chance(2),
            **rng.choice(({}, {"hash": True}, {"random": True})),
        )

    def ct_mark(self) -> Action:
        mark = FIELDS["ct_mark"]
        return self.rng.choice(
            (
                SetField(mark, self.make.masked(mark)),
                SetField("ct_label", self.make.number(2**128 - 1)),
                Move("reg3[0..15]", "ct_mark[4..19]"),
            )
        )

    def sample(self) -> Action:
        make, wide = self.make, 0xFFFFFFFF
        port = self.rng.choice((None, ReservedPort.LOCAL, self.rng.randrange(1, 0xFF00)))
        numbers = (1 + make.number(0xFFFE), make.number(wide), make.number(wide), make.number(wide))
        return Sample(*numbers, port, self.rng.choice(list(SampleDirection)))

    def ct(self) -> Action:
        rng = self.rng
        wide = [f for f in self.readable if f.bits >= 16]
        zone: Any = rng.choice((0, self.make.number(0xFFFF), self.make.subfield(wide, 16)))
        alg = rng.choice((0, {"tcp": 21, "tcp6": 21, "udp": 69, "udp6": 69}.get(self.kind, 0)))
        table = rng.choice((None, rng.randrange(251)))
        state = self.match.get("ct_state")
        if (state and state.value & 0x10) or self.make.chance(2):
            return Ct(table=table, zone=zone, alg=alg, nat=rng.choice((None, Nat())))
        marks = [self.ct_mark() for _ in range(rng.randrange(3))]
        return Ct(True, self.make.chance(2), table, zone, alg, rng.choice((None, self.nat())), marks)

    def action(self) -> Action:
        rng, make = self.rng, self.make
        way = rng.randrange(24 + 4 * (Needs.IP in self.needs))
        return [
            lambda: Output(make.port()),
            lambda: Output(
                rng.choice(
                    (
                        ReservedPort.IN_PORT,
                        ReservedPort.NORMAL,
                        ReservedPort.FLOOD,
                        ReservedPort.ALL,
                        ReservedPort.LOCAL,
                    )
                )
            ),
            self.set_field,
            self.set_field,
            self.set_field,
            self.move,
            self.move,
            lambda: OutputReg(make.subfield([f for f in self.readable if f.bits <= 64])),
            lambda: OutputTrunc(make.port(), rng.randint(14, 0xFFFFFFFF)),
            lambda: ToController(make.number(0xFFFF)),
            lambda: ToController(
                rng.choice((0xFFFF, 0, 128)),
                make.bytes(),
                rng.choice(("action", "no_match", "invalid_ttl")),
                rng.choice((0, 7)),
                make.chance(2),
                rng.choice((0xFFFFFFFF, 1)),
            ),
            lambda: Resubmit(rng.randrange(251), rng.choice((None, make.port()))),
            lambda: Resubmit(in_port=make.port()),
            lambda: Resubmit(rng.randrange(251), None, self.ct_valid),
            lambda: SetQueue(make.number(0xFFFFFFFF)),
            PopQueue,
            lambda: GroupAction(1),
            lambda: Note(make.bytes()),
            self.sample,
            lambda: CheckPktLarger(make.number(0xFFFF), make.subfield(REGS, 1)),
            lambda: Push(make.subfield(self.readable)),
            lambda: Pop(make.subfield([f for f in self.writable if f.maskable])),
            lambda: rng.choice((CtClear(), Exit())),
            self.learn,
            lambda: FinTimeout(make.number(0xFFFF), make.number(9)) if Needs.TCP in self.needs else self.move(),
            lambda: DecTtl(rng.choice(((), (1,), (0, 7)))),
            self.ct,
            self.ct,
            self.ct,
        ][way]()

    def actions(self, table: int) -> tuple[Action, ...]:
        """An action list; at times, instructions after it."""
        rng, make = self.rng, self.make
        if make.chance(12):
            return tuple(
                Conjunction(make.number(2**32 - 1), rng.randint(1, 2), rng.randint(2, 64))
                for _ in range(rng.randrange(3))
            )
        found = [self.action() for _ in range(rng.randrange(6))]
        if found and make.chance(6):
            found.append(Clone(*found[:2]))
        if make.chance(8):  # last: a tag that comes or goes changes which fields exist
            found.append(PopVlan() if self.tagged else PushVlan(rng.choice((0x8100, 0x88A8))))
        elif make.chance(8):
            found += [PushMpls(rng.choice((0x8847, 0x8848))), PopMpls(make.number(0xFFFF))]
        elif make.chance(4):
            meter = [MeterAction(1)] if make.chance(2) else []
            return (*meter, *found, *self.instructions(table))
        return tuple(found)

    def instructions(self, table: int) -> list[Action]:
        """What may follow the actions."""
        rng, make = self.rng, self.make
        found: list[Action] = []
        if make.chance(2):
            found.append(ClearActions())
        if make.chance(2):
            found.append(WriteActions(self.set_field(), Output(make.port())))
        if make.chance(2):
            mask = rng.choice((2**64 - 1, make.number(2**64 - 1)))
            found.append(WriteMetadata(make.number(2**64 - 1) & mask, mask))
        if make.chance(2):
            found.append(GotoTable(rng.randint(table + 1, 252)))
        return found


def _optional(kind: str) -> list[Field]:
    base, needs = KINDS[kind]
    apart = {*base, *_ALTERNATIVE, "ct_state", "nw_proto", "eth_type", "ip_frag"}
    return [f for f in FIELDS.values() if f.needs in needs and f.name not in apart and not f.name.startswith("x")]


OPTIONAL = {kind: _optional(kind) for kind in KINDS}
READABLE = {
    kind: [f for f in FIELDS.values() if f.needs in {*needs, Needs.VLAN} and f.name != "in_port_oxm"]
    for kind, (_, needs) in KINDS.items()
}
REGS = [FIELDS[f"reg{n}"] for n in range(16)]
LEARNABLE = [
    f
    for f in FIELDS.values()
    if f.needs is Needs.NOTHING and f.maskable and f.name not in ("vlan_tci", "vlan_vid", "ct_state")
]
