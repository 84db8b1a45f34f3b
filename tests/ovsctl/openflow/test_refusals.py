"""What cannot be is refused where it is made, with the name and what to do."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest

from ovsctl.openflow import (
    FIELDS,
    ActionError,
    Band,
    BandType,
    Bucket,
    CheckPktLarger,
    ClearActions,
    Clone,
    Conjunction,
    Ct,
    DecTtl,
    FieldError,
    Flow,
    FlowError,
    GotoTable,
    Group,
    GroupType,
    InvalidValueError,
    Learn,
    LearnLoad,
    LearnMatch,
    LearnOutput,
    Match,
    Meter,
    MeterAction,
    Move,
    Nat,
    Note,
    Output,
    OutputReg,
    OutputTrunc,
    Pop,
    PopMpls,
    PushMpls,
    PushVlan,
    RegField,
    ReservedPort,
    Resubmit,
    Sample,
    SetField,
    Subfield,
    TextError,
    ToController,
    WriteActions,
    encode_flow_mod,
    encode_group_mod,
    field,
    format_flow,
    matching,
    parse_actions,
    parse_flow,
    parse_match,
    subfield,
)
from ovsctl.openflow.actions import Action

REFUSED: list[tuple[Callable[[], object], type[InvalidValueError], str]] = [
    (lambda: field("eth_scr"), FieldError, "did you mean eth_src"),
    (lambda: field("zzz"), FieldError, "no such field"),
    (lambda: Match(nope=1), FieldError, "no such field"),
    (lambda: Match(in_port=0x10000), FieldError, "not from 0 to 0xffff"),
    (lambda: Match(in_port=-1), FieldError, "not from 0"),
    (lambda: Match(in_port=(1, 1)), FieldError, "takes no mask"),
    (lambda: Match(reg0=(1, 1 << 33)), FieldError, "mask 0x200000000 is more than"),
    (lambda: Match(reg0=(1, 2, 3)), FieldError, "not a pair"),  # type: ignore[arg-type]
    (lambda: Match(reg0=1.5), FieldError, "1.5 is not a value"),  # type: ignore[arg-type]
    (lambda: Match(reg0=None), FieldError, "None is not a value"),  # type: ignore[arg-type]
    (lambda: Match(reg0="five"), FieldError, "'five' is not a value of it"),
    (lambda: Match(eth_src="0a:00:00:00:00"), FieldError, "not a value of it \\(Ethernet\\)"),
    (lambda: Match(eth_src="0a:00:00:00:00:001"), FieldError, "not a value"),
    (lambda: Match(eth_type=0x0800, ip_src="10.0.0.0/33"), FieldError, "prefix length 33"),
    (lambda: Match(eth_type=0x0800, ip_src="10.0.0"), FieldError, "not a value"),
    (lambda: Match(ct_state="+trk+trk"), FieldError, "there twice"),
    (lambda: Match(ct_state="+trk+who"), FieldError, "not flags like"),
    (lambda: Match(ct_state="who"), FieldError, "neither a number nor flags"),
    (lambda: Match(dl_vlan=4096), FieldError, "not a VID of 0 to 4095"),
    (lambda: Match(vlan_vid=5), FieldError, "write dl_vlan=5 or vlan_vid=0x1005"),
    (lambda: Match(vlan_tci=(0x0005, 0x1005)), FieldError, "without a tag has no VID"),
    (lambda: Match(vlan_tci=(0x3000, 0x3000)), FieldError, "all three priority bits"),
    (lambda: Match(vlan_tci=(0xE000, 0xE000)), FieldError, "with them the present bit"),
    (lambda: Match(dl_vlan=5, vlan_tci=(0x1006, 0x1FFF)), FieldError, "twice, with different values"),
    (lambda: Match(in_port_oxm=0x10000), FieldError, "not a port that Open vSwitch can have"),
    (lambda: Match(eth_type=0x0800, nw_tos=3), FieldError, "nw_ecn and must be 0"),
    (lambda: Match(eth_type=0x0800, ip_frag="0x2/0x3"), FieldError, "no fragment is not a later"),
    (lambda: Match(eth_type=0x0806, arp_op=256), FieldError, "not from 0 to 0xff"),
    (lambda: Match(matching(RegField(0, 0, 3), 16)), FieldError, "does not fit its 4 bits"),
    (lambda: RegField(16), FieldError, "registers are reg0 to reg15"),
    (lambda: RegField(0, 21, 32), FieldError, "it has bits 0 to 31, not 21 to 32"),
    (lambda: Subfield(FIELDS["reg0"], 5, 4), FieldError, "not 5 to 4"),
    (lambda: subfield("reg0[1-2]"), FieldError, "not a sub-field"),
    (lambda: Output(0xFF01), ActionError, "neither a port"),
    (lambda: Output(-1), ActionError, "neither a port"),
    (lambda: Output(ReservedPort.CONTROLLER), ActionError, "use Controller"),
    (lambda: OutputReg("xxreg0"), ActionError, "too wide"),
    (lambda: OutputTrunc(ReservedPort.FLOOD, 100), ActionError, "port"),
    (lambda: OutputTrunc(1, 13), ActionError, "max_len=13"),
    (lambda: ToController(70000), ActionError, "max_len=70000"),
    (lambda: ToController(reason="whim"), ActionError, "not one of no_match"),
    (lambda: ToController(userdata=bytes(65001)), ActionError, "do not fit a message"),
    (lambda: SetField("eth_type", 5), ActionError, "read-only"),
    (lambda: SetField("reg0", (5, 0)), ActionError, "leaves nothing"),
    (lambda: SetField("nw_ttl[0..3]", 5), ActionError, "only be written as a whole"),
    (lambda: SetField("nw_tos", 5), ActionError, "nw_ecn and must be 0"),
    (lambda: SetField("reg0[0..3]", "5"), ActionError, "not a number for"),
    (lambda: Move("reg0", "eth_src"), ActionError, "not equally wide"),
    (lambda: Move("reg0[0..7]", "nw_proto"), ActionError, "read-only"),
    (lambda: Pop("ct_state"), ActionError, "read-only"),
    (Resubmit, ActionError, "is a loop"),
    (lambda: Resubmit(255), ActionError, "table=255"),
    (lambda: Resubmit(in_port=ReservedPort.IN_PORT), ActionError, "leave it out"),
    (lambda: PushVlan(0x0800), ActionError, "not 0x8100"),
    (lambda: PushMpls(0x0800), ActionError, "not 0x8847"),
    (lambda: PopMpls(1 << 16), ActionError, "ethertype=65536"),
    (lambda: DecTtl((70000,)), ActionError, "controller=70000"),
    (lambda: MeterAction(0), ActionError, "meter=0"),
    (lambda: Conjunction(1, 3, 2), ActionError, "k=3"),
    (lambda: Conjunction(1, 1, 65), ActionError, "n=65"),
    (lambda: Note(bytes(65001)), ActionError, "do not fit"),
    (lambda: Sample(0), ActionError, "probability=0"),
    (lambda: Sample(1, port=0xFFFF), ActionError, "port=65535"),
    (lambda: CheckPktLarger(100, "reg0"), ActionError, "not one bit"),
    (lambda: CheckPktLarger(100, "ct_state[0]"), ActionError, "read-only"),
    (lambda: Clone(GotoTable(5)), ActionError, "cannot be inside it"),
    (WriteActions, ActionError, "leave it out"),
    (lambda: GotoTable(255), ActionError, "table=255"),
    (lambda: Nat("up"), ActionError, "not src or dst"),  # type: ignore[arg-type]
    (lambda: Nat("src", "10.0.0.1", hash=True, random=True), ActionError, "exclude each other"),
    (lambda: Nat(address="10.0.0.1"), ActionError, "need a direction"),
    (lambda: Nat("src", port=5), ActionError, "needs an address"),
    (lambda: Nat("src", "10.0.0.1", port_max=5), ActionError, "needs its start"),
    (lambda: Nat("src", "10.0.0"), ActionError, "not an IP address"),
    (lambda: Nat("src", "0.0.0.0"), ActionError, "stands for none"),
    (lambda: Nat("src", "10.0.0.2", "10.0.0.1"), ActionError, "not a range"),
    (lambda: Nat("src", "10.0.0.2", "::1"), ActionError, "not a range"),
    (lambda: Nat("src", "10.0.0.2", port=9, port_max=5), ActionError, "port_max=5"),
    (lambda: Ct(force=True), ActionError, "force needs commit"),
    (lambda: Ct(zone="reg0[0..7]"), ActionError, "not 16 bits"),
    (lambda: Ct(nat=Nat("src")), ActionError, "need commit"),
    (lambda: Ct(True, exec=[Output(1)]), ActionError, "ct_mark and ct_label only"),
    (lambda: Ct(True, exec=[SetField("reg0", 1)]), ActionError, "ct_mark and ct_label only"),
    (lambda: LearnMatch("eth_src", "reg0"), ActionError, "not equally wide"),
    (lambda: LearnLoad(5, "eth_type"), ActionError, "read-only"),
    (lambda: LearnLoad(16, "reg0[0..3]"), FieldError, "does not fit its 4 bits"),
    (lambda: Learn((), result=subfield("reg0")), ActionError, "not one writable bit"),
    (lambda: Flow(table=255), FlowError, "table=255 is not from 0 to 254"),
    (lambda: Flow(priority=-1, cookie=1 << 64), FlowError, "priority=-1.*cookie="),
    (lambda: Flow(actions=(GotoTable(5), Output(1))), FlowError, "in this order"),
    (lambda: Flow(actions=(ClearActions(), ClearActions())), FlowError, "at most once"),
    (lambda: encode_flow_mod(Flow(actions=(Note(bytes(64000)),) * 2)), FlowError, "do not fit a message"),
    (lambda: Bucket(weight=-1), FlowError, "weight=-1"),
    (lambda: Group(1, GroupType.INDIRECT), FlowError, "has one bucket, not 0"),
    (lambda: Group(1, buckets=(Bucket(bucket_id=1), Bucket(bucket_id=1))), FlowError, "same id"),
    (lambda: Group(1, selection="hash"), FlowError, "is for select groups"),
    (lambda: Group(1, GroupType.SELECT, selection_param=5), FlowError, "without a selection method"),
    (lambda: Group(1, GroupType.FF, (Bucket(),)), FlowError, "ff buckets, and no others"),
    (lambda: Group(1, buckets=(Bucket(weight=5),)), FlowError, "weights are for select"),
    (lambda: encode_group_mod(Group(1, buckets=(Bucket((Note(bytes(64000)),)),) * 2)), FlowError, "do not fit"),
    (lambda: Band(-1), FlowError, "rate=-1"),
    (lambda: Band(1, precedence=1), FlowError, "DSCP_REMARK"),
    (lambda: Meter(0, (Band(1),)), FlowError, "meter_id=0"),
    (lambda: Meter(1, ()), FlowError, "no band"),
    (lambda: parse_flow("ip"), TextError, "no actions="),
    (lambda: parse_flow("cookie=x actions=drop"), TextError, "cookie is not a number"),
    (lambda: parse_match("ip,reg0"), TextError, "needs a value"),
    (lambda: parse_match("reg0=1,reg0=2"), TextError, "there twice"),
    (lambda: parse_actions("output:1,drop"), TextError, "drop must stand alone"),
    (lambda: parse_actions("clone(" * 20 + ")" * 20), TextError, "nested more than"),
    (lambda: parse_actions("clone(output:1"), TextError, "not closed"),
    (lambda: parse_actions("ct(nat)->reg0"), TextError, "more after the end"),
    (lambda: parse_actions("bundle(eth_src)"), TextError, "not an action that ovsctl supports"),
    (lambda: parse_actions("fly"), TextError, "not an action that ovsctl supports"),
    (lambda: parse_actions("mod_tp_src:5"), TextError, "must match tcp"),
    (lambda: parse_actions("output(port=1)"), TextError, "takes port and max_len"),
    (lambda: parse_actions("controller(speed=1)"), TextError, "controller has no speed"),
    (lambda: parse_actions("note:zz"), TextError, "not bytes"),
    (lambda: parse_actions("set_field:5"), TextError, "SOURCE->TARGET"),
    (lambda: parse_actions("resubmit(1,2,3)"), TextError, "takes a port, a table and ct"),
    (lambda: parse_actions("conjunction(1,2)"), TextError, "ID, K/N"),
    (lambda: parse_actions("sample(collector_set_id=1)"), TextError, "needs a probability"),
    (lambda: parse_actions("sample(probability=1,often)"), TextError, "has no often"),
    (lambda: parse_actions("fin_timeout(soft=1)"), TextError, "idle_timeout and hard_timeout"),
    (lambda: parse_actions("ct(commit,nat(src,dst))"), TextError, "nat takes src or dst"),
    (lambda: parse_actions("ct(often)"), TextError, "ct has no often"),
]


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_refused(make: Callable[[], object], kind: type[InvalidValueError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        make()
    assert isinstance(caught.value, ValueError)


NEEDING = [
    ("arp_op", {}), ("ip_src", {"eth_type": 0x86DD}), ("ipv6_src", {"eth_type": 0x0800}),
    ("nw_ttl", {"eth_type": 0x0806}), ("tcp_dst", {"eth_type": 0x0800, "nw_proto": 17}),
    ("udp_dst", {"eth_type": 0x0800}), ("sctp_dst", {"nw_proto": 132, "eth_type": 0x86DD, "ip_frag": "later"}),
    ("icmp_type", {"eth_type": 0x86DD, "nw_proto": 1}), ("icmpv6_type", {"eth_type": 0x0800, "nw_proto": 58}),
    ("nd_target", {"eth_type": 0x86DD, "nw_proto": 58, "icmpv6_type": 134}),
    ("nd_sll", {"eth_type": 0x86DD, "nw_proto": 58, "icmpv6_type": 136}),
    ("nd_tll", {"eth_type": 0x86DD, "nw_proto": 58, "icmpv6_type": 136, "icmpv6_code": 1}),
    ("ct_nw_proto", {}), ("ct_nw_src", {"ct_state": "+trk+inv", "eth_type": 0x0800}),
    ("ct_ipv6_src", {"ct_state": "+trk+est"}), ("ct_tp_src", {"ct_state": "+trk+est"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "others"), NEEDING)
def test_prerequisites(name: str, others: dict[str, int | str]) -> None:
    for _ in range(2):  # what was refused once is refused again
        with pytest.raises(FieldError, match=f"field {name}: it exists only together with"):
            Match(**others, **{name: 1})


def test_ways_to_write_a_value() -> None:
    assert Match(eth_type="0x0800", ip_src=ipaddress.ip_network("10.0.0.0/8")) == Match(
        eth_type=0x0800, ip_src="10.0.0.0/255.0.0.0"
    )
    assert Match(eth_type=0x86DD, ipv6_src=ipaddress.ip_address("fe80::1")) == Match(
        dl_type=0x86DD, ipv6_src=0xFE80 << 112 | 1
    )
    assert Match(reg0=("5", "0xff")) == Match(reg0=(5, 255)) == Match(matching("reg0[0..7]", 5))
    assert Match(reg0=(5, 2**32 - 1)) == Match(reg0=5) == Match(matching(FIELDS["reg0"], 5))
    assert Match(tun_flags=(1, 0xFFFF)) == Match(tun_flags="oam") == Match(tun_flags="+oam")
    assert Match(reg0="*") == Match()
    assert Match(xxreg1=5) == Match(reg4=0, reg5=0, reg6=0, reg7=5)
    assert Match(in_port_oxm=0xFFFFFFFE) == Match(in_port="local") == Match(in_port=ReservedPort.LOCAL)
    assert Match(dl_vlan=0xFFFF) == Match(vlan_tci=0) == Match(vlan_tci=(0, 0x1000))
    assert Match(eth_type=0x0800, nw_tos=32) == Match(eth_type=0x0800, ip_dscp=8)
    assert Match(eth_type=0x0800, ip_frag=(0, 1)) == Match(eth_type=0x0800, ip_frag="no")
    assert Match(eth_type=0x0800, ip_frag=(2, 2)) == Match(eth_type=0x0800, ip_frag="later")
    assert SetField("vlan_vid", 5) == SetField("vlan_vid", 0x1005)
    assert SetField(RegField(0, 21, 22), 2) == SetField("reg0", (2 << 21, 3 << 21))
    assert Nat("src", "10.0.0.1", "10.0.0.1", 5, 5) == Nat("src", "10.0.0.1", port=5)
    assert LearnMatch("eth_dst", "0a:00:00:00:00:01") == LearnMatch("eth_dst", 0x0A0000000001)
    assert LearnMatch("eth_dst", FIELDS["eth_src"]) == LearnMatch("NXM_OF_ETH_DST[]", "eth_src[]")
    assert LearnOutput("in_port").source == subfield("in_port")
    assert Group(1, buckets=(Bucket(weight=0),)) == Group(1, buckets=(Bucket(),))
    assert Match(vlan_tci=(0, 0x1001)) == Match(dl_vlan=0xFFFF)
    assert Band(1, type=BandType.DSCP_REMARK, precedence=2).precedence == 2


def test_match_is_a_mapping_of_its_fields() -> None:
    match = Match(in_port=1, reg0=(5, 7), eth_type=0x0800)
    assert [entry.field.name for entry in match] == ["in_port", "reg0", "eth_type"]
    assert (match["reg0"].value, match["reg0"].mask, match["reg0"].exact) == (5, 7, False)
    assert str(match["reg0"]) == "reg0=0x5/0x7"
    assert "in_port" in match
    assert "reg1" not in match
    assert match.get("reg1") is None
    with pytest.raises(KeyError):
        match["reg1"]
    assert len(match) == 3
    assert match
    assert not Match()
    assert repr(match) == "Match(in_port=0x1, reg0=(0x5, 0x7), eth_type=0x800)"
    assert match.replace(reg0=None, in_port=2) == Match(in_port=2, eth_type=0x0800)
    assert match != "match"
    assert Match.of((entry.field, entry.value, entry.mask) for entry in match) == match


def test_subfields_compare_by_what_they_are() -> None:
    assert RegField(0, 1, 2) == Subfield(FIELDS["reg0"], 1, 2) == subfield("NXM_NX_REG0[1..2]")
    assert len({RegField(0, 1, 2), subfield("reg0[1..2]"), subfield(RegField(0, 1, 2))}) == 1
    assert RegField(0) != "reg0"
    assert str(RegField(0, 3, 3)) == "NXM_NX_REG0[3]"
    assert repr(FIELDS["reg0"]) == "Field(reg0)"


def test_values_survive_pickle() -> None:
    import copy
    import pickle

    flow = Flow(Match(reg0=5), (SetField(RegField(1, 0, 3), 2), OutputReg(RegField(2, 0, 15))))
    assert pickle.loads(pickle.dumps(flow)) == flow
    assert copy.deepcopy(flow) == flow


def test_actions_may_be_a_list() -> None:
    flow = Flow(actions=[Output(1)])  # type: ignore[arg-type]
    assert flow.actions == (Output(1),)
    assert hash(flow)
    assert format_flow(flow) == "table=0 actions=output:1"


def test_base_action_encodes_nothing() -> None:
    with pytest.raises(NotImplementedError):
        Action().encode()
