"""Wire forms that we never write ourselves, and such as nobody should."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from ovsctl.openflow import (
    Band,
    BandType,
    Bucket,
    Flow,
    FlowModCommand,
    Group,
    GroupModCommand,
    GroupType,
    MalformedMessage,
    Match,
    Meter,
    MeterModCommand,
    Output,
    OutputReg,
    Resubmit,
    Sample,
    SetField,
    ToController,
    decode_flow_descs,
    decode_flow_mod,
    decode_group_descs,
    decode_group_mod,
    decode_meter_descs,
    decode_meter_mod,
    encode_flow_delete,
    encode_flow_mod,
    encode_group_mod,
    encode_meter_mod,
)
from ovsctl.openflow.actions import Action
from ovsctl.openflow.decode import decode_actions, decode_instructions
from ovsctl.openflow.flow import decode_stats
from ovsctl.openflow.match import decode_match, decode_oxm


def match_bytes(oxm: str) -> bytes:
    data = bytes.fromhex(oxm)
    length = len(data) + 4
    return struct.pack(">HH", 1, length) + data + bytes(-length % 8)


def nx(subtype: int, payload: str) -> bytes:
    data = bytes.fromhex(payload)
    padded = data + bytes(-(len(data) + 10) % 8)
    return struct.pack(">HHIH", 0xFFFF, len(padded) + 10, 0x2320, subtype) + padded


@pytest.mark.parametrize(
    ("oxm", "match"),
    [
        ("00000002 0007", Match(in_port=7)),  # NXM_OF_IN_PORT
        ("80000004 fffffffe", Match(in_port="LOCAL")),
        ("80005804 00000000", Match()),  # packet_type, Ethernet
        ("80010008 0000000500000007", Match(xreg0=0x500000007)),
        ("80010110 0000000500000000 0000000f00000000", Match(reg0=(5, 15))),
        ("00000802 1005", Match(dl_vlan=5, vlan_pcp=0)),  # NXM_OF_VLAN_TCI
        ("80000c02 1005 80000e01 03", Match(dl_vlan=5, vlan_pcp=3)),
        ("80000a02 0800 00000a01 20", Match(eth_type=0x0800, nw_tos=32)),
        ("80000a02 0800 80001401 06 ffff5406 4f4e4600 0012", Match(eth_type=0x0800, nw_proto=6, tcp_flags=0x12)),
        ("8000070c 0a0000000001 ffffffffffff", Match(eth_dst=0x0A0000000001)),
        ("8000070c 0a0000000001 000000000000", Match()),
    ],
)  # fmt: skip
def test_other_forms_of_a_match(oxm: str, match: Match) -> None:
    data = match_bytes(oxm)
    assert decode_match(data, 0, len(data)) == (match, len(data))


@pytest.mark.parametrize(
    ("raw", "action"),
    [
        (nx(1, "0005"), Resubmit(in_port=5)),
        (nx(14, "fff8 07 000000"), Resubmit(7)),
        (nx(20, "0080 0007 00 00"), ToController(128, reason="no_match", controller_id=7)),
        (nx(20, "0080 0000 01 00"), ToController(128)),
        (nx(15, "000f 00010004 ffff"), OutputReg("reg0[0..15]")),
        (nx(32, "000f ffff 00010004"), OutputReg("reg0[0..15]")),
        (nx(29, "03ff 00000007 00000008 00000009"), Sample(1023, 7, 8, 9)),
        (nx(38, "03ff 00000007 00000008 00000009 0005 000000000000"), Sample(1023, 7, 8, 9, 5)),
        (bytes.fromhex("0017 0008 40 000000"), SetField("nw_ttl", 64)),
        (struct.pack(">HHIH6x", 0, 16, 0xFFFFFFFD, 9), ToController(9)),
        (struct.pack(">HHIH6x", 0, 16, 5, 9), Output(5)),
    ],
)
def test_other_forms_of_an_action(raw: bytes, action: Action) -> None:
    assert decode_actions(raw) == (action,)


def test_empty_write_actions_are_none() -> None:
    assert decode_instructions(bytes.fromhex("0003000800000000")) == ()


def refused(what: str, decode: Callable[[], object], message: str) -> None:
    with pytest.raises(MalformedMessage, match=message) as caught:
        decode()
    assert caught.value.subject


ACTIONS = [
    (nx(41, "03ff 00000007 00000008 00000009 ffff 03 0000000000"), "direction 3 is not one"),
    (b"\0\0\0\x10", "4 bytes left"),
    (bytes.fromhex("00000007") + bytes(8), "an action of 7 bytes"),
    (bytes.fromhex("0001000800000000"), "action 1 is not one"),
    (bytes.fromhex("ffff001000002321") + bytes(8), "experimenter 0x2321"),
    (bytes.fromhex("ffff000800002320"), "experimenter 0x2320 with 8 bytes"),
    (nx(99, "00"), "Nicira action 99 is not one"),
    (bytes.fromhex("0012000800000001"), "must be zero"),
    (bytes.fromhex("0000001000010000 0000000000000000"), "not a port"),
    (bytes.fromhex("0011000800080000"), "not 0x8100"),
    (bytes.fromhex("0016000c") + bytes(12), "an action of 12 bytes"),
    (bytes.fromhex("0019000800010204"), "bytes left|takes 4 bytes"),
    (bytes.fromhex("0019001000010004 0000000100000001"), "must be zero"),
    (bytes.fromhex("0019001000010506 0000000100000001"), "supports|takes"),
    (bytes.fromhex("0019001080000504 0000000500000000"), "takes|OXM"),
    (bytes.fromhex("001c001800200000 0000000080000104 0001020400000000"), "with 4 bytes|a mask"),
    (nx(20, "0080 0000 09 00"), "reason 9"),
    (nx(37, "000000000000 0009 0004 00000000"), "property 9"),
    (nx(37, "000000000000 0000 0040 00000000"), "too few"),
    (nx(35, "0008 00000000 0000 ff 000000 0000"), "flags 0x8"),
    (nx(35, "0001 00010205 000f ff 000000 0000"), "0x00010205 is not"),
    (nx(36, "0000 0003 0000"), "flags 0x3"),
    (nx(36, "0000 0001 0005" + "00" * 20), "with range 0x5"),
    (nx(16, "00000000800000000000000000000008 0500 00000000"), "flags 0x8"),
    (nx(16, "00000000800000000000000000000000 0500 00000000 1810 00010004 0000"), "specification 0x1810"),
    (nx(34, "0501 00000001"), "k=6|n=1"),
    (nx(27, "0000 00010108 0020"), "reg0 with a mask where only"),
    (nx(42, "000000000000" + "00" * 4), "bytes left|0 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "message"), ACTIONS, ids=[str(n) for n in range(len(ACTIONS))])
def test_bad_actions(raw: bytes, message: str) -> None:
    refused("actions", lambda: decode_actions(raw), message)


def test_nesting_is_bounded() -> None:
    raw = b""
    for _ in range(20):
        raw = nx(42, "000000000000" + raw.hex())
    refused("actions", lambda: decode_actions(raw), "nested more than 16 deep")


INSTRUCTIONS = [
    ("0004", "2 bytes left"),
    ("0004000700000000", "7 bytes"),
    ("0009000800000000", "type 9 with 8 bytes"),
    ("00010008ff000000", "255 is no table"),
    ("0001000805000000 0005000800000000", "after one that must follow it"),
    ("0005000800000000 0005000800000000", "after one that must follow it"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "message"), INSTRUCTIONS)
def test_bad_instructions(raw: str, message: str) -> None:
    refused("instructions", lambda: decode_instructions(bytes.fromhex(raw)), message)


MATCHES = [
    (b"\0\1\0\4", "4 bytes left where one takes 8"),
    (bytes.fromhex("0002000400000000"), "type 2"),
    (bytes.fromhex("0001000300000000"), "length 3"),
    (bytes.fromhex("0001001000000000"), "length 16"),
    (match_bytes("8000"), "2 bytes left where an OXM header"),
    (match_bytes("80000004 0000"), "a field of 4 bytes where 2 are left"),
    (match_bytes("80000003 000000"), "in_port_oxm with 3 bytes"),
    (match_bytes("80000004 00010000"), "not a port"),
    (match_bytes("80009004 00000000"), "is not one that ovsctl supports"),
    (match_bytes("ffff0002 0000"), "without its experimenter"),
    (match_bytes("ffff0004 00001234"), "experimenter 0x1234"),
    (match_bytes("80001602 0a00"), "ipv4|ip_src with 2 bytes"),
    (match_bytes("80001604 0a000000"), "exists only together with eth_type=0x0800"),
    (match_bytes("80000a02 0800 80001001 40"), "ip_dscp is from 0 to 0x3f"),
    (match_bytes("80000b04 0800 ff00"), "eth_type takes no mask"),
    (match_bytes("00010004 00000005 00010004 00000006"), "twice, with different values"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "message"), MATCHES, ids=[str(n) for n in range(len(MATCHES))])
def test_bad_matches(raw: bytes, message: str) -> None:
    refused("match", lambda: decode_match(raw, 0, len(raw)), message)


def test_bad_oxm() -> None:
    refused("OXM", lambda: decode_oxm(bytes.fromhex("00010004 0000"), 0, 6), "takes 4 bytes where 2")
    refused("OXM", lambda: decode_oxm(b"\0", 0, 1), "1 bytes left")


def test_flow_mods() -> None:
    command, flow, mask, everywhere = decode_flow_mod(encode_flow_delete(cookie=5, cookie_mask=7))
    assert (command, flow, mask, everywhere) == (FlowModCommand.DELETE, Flow(cookie=5, priority=0), 7, True)
    good = encode_flow_mod(Flow())
    refused("flow-mod", lambda: decode_flow_mod(good[:40]), "40 bytes are too few")
    refused("flow-mod", lambda: decode_flow_mod(good[:17] + b"\5" + good[18:]), "command 5")
    assert decode_flow_mod(
        encode_flow_mod(Flow(table=5, actions=(Output(1),)), FlowModCommand.DELETE_STRICT)
    ).flow == Flow(table=5)


def test_bad_flow_descs() -> None:
    entry = struct.pack(">H2xBxHHHHHQ", 40, 0, 5, 0, 0, 0, 0, 7) + Match().wire + bytes.fromhex("0000000400000000")
    (found,) = decode_flow_descs(entry)
    assert found.flow == Flow(priority=5, cookie=7)
    assert found.stats == (None, None, None, None)
    refused("flow desc", lambda: list(decode_flow_descs(entry[:20])), "20 bytes left")
    refused("flow desc", lambda: list(decode_flow_descs(entry[:39])), "an entry of 40 bytes")
    refused("flow desc", lambda: list(decode_flow_descs(entry[:4] + b"\xff" + entry[5:])), "table 255")
    refused("flow stats", lambda: list(decode_flow_descs(b"\0\x20" + entry[2:32])), "0 bytes left")
    refused("flow stats", lambda: decode_stats(bytes.fromhex("0000001400000000"), 0, 8), "statistics of 20 bytes")
    refused("flow stats", lambda: decode_stats(bytes.fromhex("0000000880020008"), 0, 8), "does not end")
    other = bytes.fromhex("0000000cffff000400000005 00000000")
    assert decode_stats(other, 0, 16) == ((None, None, None, None), 16)


def test_groups() -> None:
    group = Group(
        7,
        GroupType.SELECT,
        (Bucket((Output(1),), 9, 5), Bucket((), 3, 0, watch_port=2), Bucket(watch_group=4)),
        "hash",
        3,
        ("ip_src", "eth_dst"),
    )
    body = encode_group_mod(group, GroupModCommand.MODIFY)
    assert decode_group_mod(body) == (GroupModCommand.MODIFY, group, 0xFFFFFFFF)
    refused("group-mod", lambda: decode_group_mod(body[:8]), "8 bytes are too few")
    refused("group-mod", lambda: decode_group_mod(b"\0\x09" + body[2:]), "command 9")
    refused("group-mod", lambda: decode_group_mod(body[:2] + b"\4" + body[3:]), "type 4")
    refused("group-mod", lambda: decode_group_mod(body[:2] + b"\0" + body[3:]), "weights are for select")
    refused("bucket", lambda: decode_group_mod(body[:9] + b"\4" + body[10:]), "4 bytes left")
    refused("bucket", lambda: decode_group_mod(body[:16] + b"\xff" + body[17:]), "65")
    refused("group desc", lambda: list(decode_group_descs(bytes(8))), "8 bytes left")
    refused("group desc", lambda: list(decode_group_descs(bytes(16))), "an entry of 0 bytes")


def group_mod(buckets: str, properties: str = "") -> bytes:
    data = bytes.fromhex(buckets)
    return struct.pack(">HBxIH2xI", 0, 1, 7, len(data), 0) + data + bytes.fromhex(properties)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (group_mod("0010000000000001 0007000800000000"), "properties \\[7\\]"),
        (group_mod("000c000000000001 00000002"), "one of 2 bytes"),
        (group_mod("000a000000000001 0000"), "one of 0 bytes"),
        (group_mod("0010000000000001 000100080000ff05"), "watch_port"),
        (group_mod("", "0001000800000000"), "property 1"),
        (group_mod("", "ffff000800000000"), "are too few"),
        (group_mod("", "ffff0028 00001540 00000001 00000000" + "00" * 24), "experimenter 0x1540"),
        (group_mod("", "ffff0030 0000154d 00000001 00000000 68617368" + "00" * 20 + "80001604 ff000000"), "part of ip_src"),
        (group_mod("ffffffff00000001"), "bytes"),
        (group_mod("0008000000000001 0008000000000001"), "same id"),
        (group_mod("00080000ffffffff"), "bucket_id=4294967295"),
    ],
)  # fmt: skip
def test_bad_groups(body: bytes, message: str) -> None:
    refused("group-mod", lambda: decode_group_mod(body), message)


def test_meters() -> None:
    meter = Meter(7, (Band(5, 6), Band(9, 6, BandType.DSCP_REMARK, 2)), packets=True, stats=False)
    body = encode_meter_mod(meter, MeterModCommand.MODIFY)
    assert decode_meter_mod(body) == (MeterModCommand.MODIFY, meter)
    refused("meter-mod", lambda: decode_meter_mod(body[:7]), "7 bytes are too few")
    refused("meter-mod", lambda: decode_meter_mod(b"\0\3" + body[2:]), "command 3")
    refused("meter-mod", lambda: decode_meter_mod(body[:-1]), "requires a buffer")
    refused("meter-mod", lambda: decode_meter_mod(body[:8]), "no band")
    refused("meter-mod", lambda: decode_meter_mod(body[:9] + b"\7" + body[10:]), "7 is not a valid BandType")
    refused("meter-mod", lambda: decode_meter_mod(body[:11] + b"\7" + body[12:]), "a band of 7 bytes")
    refused("meter desc", lambda: list(decode_meter_descs(bytes(4))), "4 bytes left")
    refused("meter desc", lambda: list(decode_meter_descs(bytes(8))), "an entry of 0 bytes")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from ovsctl.openflow import decode, match

    for module in (decode, match):
        monkeypatch.setattr(module, "_CACHE_LIMIT", 3)
    for name in ("_known", "_met", "_decoded"):
        for module in (decode, match):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, type(getattr(module, name))())
    for n in range(20):
        flow = Flow(Match(eth_type=0x0800, ip_src=n, reg0=n, nw_proto=n), (SetField("reg0", n),))
        assert decode_flow_mod(encode_flow_mod(flow)).flow == flow
        assert max(len(decode._known), len(match._known), len(match._met), len(match._decoded)) <= 3
