"""Every message we send, as ovs-ofctl prints it; every message we receive, printed and decoded alike."""

from __future__ import annotations

from struct import pack

import pytest

from ovsctl.openflow import Flow, FlowMod, Match, Output, SetField
from ovsctl.openflow.actions import ToController
from ovsctl.openflow.errors import InvalidValueError, MalformedMessage
from ovsctl.openflow.fields import ReservedPort
from ovsctl.openflow.flow import FlowStats
from ovsctl.openflow.group import Bucket, Group, GroupType
from ovsctl.openflow.messages import (
    ASYNC_DECODERS,
    MULTIPART_DECODERS,
    REPLY_DECODERS,
    AggregateRequest,
    AggregateStats,
    AsyncConfig,
    AsyncKind,
    BarrierRequest,
    BundleControl,
    BundleControlType,
    BundleFlags,
    Capability,
    ConfigReply,
    ControllerRole,
    Counters,
    EchoReply,
    EchoRequest,
    ErrorMessage,
    FeaturesReply,
    FeaturesRequest,
    FlowEvent,
    FlowMonitorCancel,
    FlowMonitorRequest,
    FlowRemoved,
    FlowStatsRequest,
    FlowUpdate,
    FlushZone,
    GetAsyncRequest,
    GetConfigRequest,
    GroupDescRequest,
    GroupMod,
    GroupStats,
    GroupStatsRequest,
    Hello,
    MessageType,
    MeterDescRequest,
    MeterFeatures,
    MeterFeaturesRequest,
    MeterMod,
    MeterStats,
    MeterStatsRequest,
    MonitorFlags,
    MultipartRequest,
    MultipartType,
    PacketIn,
    PacketInFormat,
    PacketInReason,
    PacketOut,
    PortConfig,
    PortDesc,
    PortDescRequest,
    PortReason,
    PortState,
    PortStats,
    PortStatsRequest,
    PortStatus,
    RemovedReason,
    RoleReply,
    RoleRequest,
    RoleStatus,
    SetAsync,
    SetConfig,
    SetControllerId,
    SetPacketInFormat,
    SwitchDesc,
    SwitchDescRequest,
    TableDesc,
    TableDescRequest,
    TableStats,
    TableStatsRequest,
    bundle_add_head,
    multipart_body,
)
from ovsctl.openflow.meter import Band, Meter
from ovsctl.openflow.session import Sendable
from ovsctl.openflow.wire import Reader, encode_property, frame
from tests.ovsctl.openflow.support import ofp_print, printed

FRAME = bytes.fromhex("ffffffffffff0a000000000188b5") + bytes(46)
METER = Meter(3, (Band(1000, 10),))
GROUP = Group(4, GroupType.SELECT, (Bucket((Output(1),), weight=5),))
FLOW = Flow(Match(in_port=1), (Output(2),), table=3, priority=7, cookie=9)
IDLE = AsyncConfig.of(AsyncKind.PORT_STATUS)

SENT: list[tuple[Sendable, str]] = [
    (Hello(), "OFPT_HELLO (OF1.5) (xid=0x5):\n version bitmap: 0x06"),
    (EchoRequest(), "OFPT_ECHO_REQUEST (OF1.5) (xid=0x5): 0 bytes of payload"),
    (EchoReply(b"abc"), "OFPT_ECHO_REPLY (OF1.5) (xid=0x5): 3 bytes of payload"),
    (FeaturesRequest(), "OFPT_FEATURES_REQUEST (OF1.5) (xid=0x5):"),
    (GetConfigRequest(), "OFPT_GET_CONFIG_REQUEST (OF1.5) (xid=0x5):"),
    (SetConfig(0, 99), "OFPT_SET_CONFIG (OF1.5) (xid=0x5): frags=normal miss_send_len=99"),
    (BarrierRequest(), "OFPT_BARRIER_REQUEST (OF1.5) (xid=0x5):"),
    (RoleRequest(), "OFPT_ROLE_REQUEST (OF1.5) (xid=0x5): role=nochange"),
    (RoleRequest(ControllerRole.PRIMARY, 6), "OFPT_ROLE_REQUEST (OF1.5) (xid=0x5): role=primary generation_id=6"),
    (GetAsyncRequest(), "OFPT_GET_ASYNC_REQUEST (OF1.5) (xid=0x5):"),
    (
        SetPacketInFormat(PacketInFormat.NXT_PACKET_IN2),
        "NXT_SET_PACKET_IN_FORMAT (OF1.5) (xid=0x5): format=nxt_packet_in2",
    ),
    (FlushZone(7), "NXT_CT_FLUSH_ZONE (OF1.5) (xid=0x5): zone_id=7"),
    (SetControllerId(3), "NXT_SET_CONTROLLER_ID (OF1.5) (xid=0x5): id=3"),
    (
        BundleControl(7, BundleControlType.COMMIT_REQUEST),
        "OFPT_BUNDLE_CONTROL (OF1.5) (xid=0x5):\n bundle_id=0x7 type=COMMIT_REQUEST flags=atomic ordered",
    ),
    (
        FlowMod.add(FLOW),
        "OFPT_FLOW_MOD (OF1.5) (xid=0x5): ADD table:3 priority=7,in_port=1 cookie:0x9 actions=output:2",
    ),
    (
        FlowMod.modify(FLOW),
        "OFPT_FLOW_MOD (OF1.5) (xid=0x5): MOD_STRICT table:3 priority=7,in_port=1 actions=output:2",
    ),
    (
        FlowMod.delete(FLOW),
        "OFPT_FLOW_MOD (OF1.5) (xid=0x5): DEL_STRICT table:3 priority=7,in_port=1 actions=drop",
    ),
    (
        FlowMod.delete_all(match=Match(in_port=1), cookie=2, cookie_mask=3),
        "OFPT_FLOW_MOD (OF1.5) (xid=0x5): DEL table:255 priority=0,in_port=1 cookie:0x2/0x3 actions=drop",
    ),
    (FlowMod.delete_all(0), "OFPT_FLOW_MOD (OF1.5) (xid=0x5): DEL actions=drop"),
    (
        GroupMod.add(GROUP),
        "OFPT_GROUP_MOD (OF1.5) (xid=0x5):\n ADD group_id=4,type=select,bucket=bucket_id:0,weight:5,actions=output:1",
    ),
    (GroupMod.delete(), "OFPT_GROUP_MOD (OF1.5) (xid=0x5):\n DEL group_id=4294967292,type=all"),
    (
        GroupMod.remove_bucket(4, 2),
        "OFPT_GROUP_MOD (OF1.5) (xid=0x5):\n REMOVE_BUCKET command_bucket_id:2,group_id=4",
    ),
    (
        MeterMod.add(METER),
        "OFPT_METER_MOD (OF1.5) (xid=0x5): ADD meter=3 kbps burst stats bands=\ntype=drop rate=1000 burst_size=10",
    ),
    (MeterMod.delete(3), "OFPT_METER_MOD (OF1.5) (xid=0x5): DEL meter=3 bands="),
    (
        PacketOut(FRAME, (SetField("reg1", 2), ToController()), Match(in_port=1, metadata=5)),
        "OFPT_PACKET_OUT (OF1.5) (xid=0x5): metadata=0x5,in_port=1 "
        "actions=set_field:0x2->reg1,CONTROLLER:65535 data_len=60",
    ),
]


@pytest.mark.parametrize(("message", "text"), SENT, ids=lambda value: type(value).__name__)
def test_what_we_send(message: Sendable, text: str) -> None:
    lines = [line.strip() for line in printed(message).splitlines()]
    assert lines[: text.count("\n") + 1] == [line.strip() for line in text.splitlines()]


REQUESTS: list[tuple[MultipartRequest, str]] = [
    (SwitchDescRequest(), "OFPST_DESC request (OF1.5) (xid=0x5):"),
    (FlowStatsRequest(), "OFPST_FLOW request (OF1.5) (xid=0x5):"),
    (
        FlowStatsRequest(3, Match(in_port=ReservedPort.LOCAL), 1, 3),
        "OFPST_FLOW request (OF1.5) (xid=0x5): table=3 in_port=LOCAL",
    ),
    (AggregateRequest(out_port=4), "OFPST_AGGREGATE request (OF1.5) (xid=0x5): out_port=4"),
    (TableStatsRequest(), "OFPST_TABLE request (OF1.5) (xid=0x5):"),
    (TableDescRequest(), "OFPST_TABLE_DESC request (OF1.5) (xid=0x5):"),
    (PortStatsRequest(), "OFPST_PORT request (OF1.5) (xid=0x5): port_no=ANY"),
    (PortStatsRequest(ReservedPort.LOCAL), "OFPST_PORT request (OF1.5) (xid=0x5): port_no=LOCAL"),
    (PortDescRequest(), "OFPST_PORT_DESC request (OF1.5) (xid=0x5): port=ANY"),
    (PortDescRequest(9), "OFPST_PORT_DESC request (OF1.5) (xid=0x5): port=9"),
    (GroupStatsRequest(), "OFPST_GROUP request (OF1.5) (xid=0x5): group_id=ALL"),
    (GroupDescRequest(8), "OFPST_GROUP_DESC request (OF1.5) (xid=0x5): group_id=8"),
    (MeterFeaturesRequest(), "OFPST_METER_FEATURES request (OF1.5) (xid=0x5):"),
    (MeterStatsRequest(), "OFPST_METER request (OF1.5) (xid=0x5): meter=all"),
    (MeterDescRequest(8), "OFPST_METER_CONFIG request (OF1.5) (xid=0x5): meter=8"),
    (
        FlowMonitorRequest(2, table=4, match=Match(in_port=1)),
        "OFPST_FLOW_MONITOR request (OF1.5) (xid=0x5):\n id=2 flags=add,delete,modify,actions table=4 in_port=1",
    ),
    (
        FlowMonitorRequest(2, MonitorFlags.ADDED | MonitorFlags.OWN_IN_FULL | MonitorFlags.INITIAL),
        "OFPST_FLOW_MONITOR request (OF1.5) (xid=0x5):\n id=2 flags=initial,add,own",
    ),
    (FlowMonitorCancel(2), "OFPST_FLOW_MONITOR request (OF1.5) (xid=0x5):\n id=2 command=delete"),
]


@pytest.mark.parametrize(("request_", "text"), REQUESTS, ids=lambda value: type(value).__name__)
def test_what_we_ask_for(request_: MultipartRequest, text: str) -> None:
    shown = ofp_print(frame(MessageType.MULTIPART_REQUEST, 5, multipart_body(request_)))
    assert [line.strip() for line in shown.splitlines()] == [line.strip() for line in text.splitlines()]


def test_a_message_in_a_bundle() -> None:
    mod = FlowMod.add(FLOW)
    body = mod.encode()
    data = bundle_add_head(7, BundleFlags.ORDERED, mod.TYPE, 5, len(body)) + body
    inner = printed(mod)
    assert ofp_print(data) == f"OFPT_BUNDLE_ADD_MESSAGE (OF1.5) (xid=0x5):\n bundle_id=0x7 flags=ordered\n{inner}"


def test_asynchronous_kinds_are_set_for_both_roles() -> None:
    shown = printed(SetAsync(IDLE))
    assert "PORT_STATUS: add delete modify" in shown
    assert "PACKET_IN: (off)" in shown
    assert AsyncConfig.decode(Reader(SetAsync(IDLE).encode())) == IDLE
    assert AsyncConfig.decode(Reader(encode_property(0xFFFE, b"abcdefgh"))) == AsyncConfig()


def test_controller_ids_and_zones_have_16_bits() -> None:
    with pytest.raises(InvalidValueError, match="65536"):
        SetControllerId(65536)
    with pytest.raises(InvalidValueError):
        FlushZone(65536)


# -- received ------------------------------------------------------------------------------------------------

PORT = pack("!IH2x6s2x16sII", 3, 72, b"\x0a\0\0\0\0\7", b"vif3", 1, 4) + encode_property(
    0, bytes(4) + pack("!6I", 0x40, 0, 0, 0, 10_000_000, 40_000_000)
)
PORT_DESC = PortDesc(3, "vif3", b"\x0a\0\0\0\0\7", PortConfig.PORT_DOWN, PortState.LIVE, 0x40, 10_000_000, 40_000_000)
OPTICAL_PORT = pack("!IH2x6s2x16sII", 9, 48, bytes(6), b"p9", 0, 1) + encode_property(1, bytes(4))
PORT_9 = PortDesc(9, "p9", bytes(6), PortConfig(0), PortState.LINK_DOWN)
STATS = pack("!HH", 0, 48) + b"".join(
    (
        pack("!HBBII", 0x8002, 0 << 1, 8, 5, 250_000_000),
        pack("!HBBI", 0x8002, 3 << 1, 4, 6),
        pack("!HBBQ", 0x8002, 4 << 1, 8, 7),
        pack("!HBBQ", 0x8002, 5 << 1, 8, 8),
    )
)  # fmt: skip

REPLIES: list[tuple[int, bytes, object, str]] = [
    (
        MessageType.FEATURES_REPLY,
        pack("!QIBB2xI4x", 0xABC, 0, 254, 0, 1 << 9),
        FeaturesReply(0xABC, 0, 254, 0, Capability.BUNDLES),
        "dpid:0000000000000abc",
    ),
    (MessageType.ECHO_REPLY, b"xy", EchoReply(b"xy"), "2 bytes of payload"),
    (MessageType.GET_CONFIG_REPLY, pack("!HH", 0, 128), ConfigReply(0, 128), "miss_send_len=128"),
    (
        MessageType.ROLE_REPLY,
        pack("!I4xQ", 3, 9),
        RoleReply(ControllerRole.SECONDARY, 9),
        "role=secondary generation_id=9",
    ),
    (MessageType.GET_ASYNC_REPLY, SetAsync(IDLE).encode(), IDLE, "PORT_STATUS: add delete modify"),
    (
        MessageType.BUNDLE_CONTROL,
        pack("!IHH", 7, 5, 3),
        BundleControl(7, BundleControlType.COMMIT_REPLY),
        "type=COMMIT_REPLY",
    ),
    (
        MessageType.ROLE_STATUS,
        pack("!IB3xQ", 3, 0, 9),
        RoleStatus(ControllerRole.SECONDARY, 0, 9),
        "role=secondary generation_id=9 reason=primary_request",
    ),
    (
        MessageType.PORT_STATUS,
        pack("!B7x", 2) + PORT,
        PortStatus(PortReason.MODIFY, PORT_DESC),
        "MOD: 3(vif3): addr:0a:00:00:00:00:07",
    ),
    (
        MessageType.FLOW_REMOVED,
        pack("!BBHHHQ", 3, 2, 7, 10, 20, 9) + Match(in_port=1).wire + STATS,
        FlowRemoved(Flow(Match(in_port=1), (), 3, 7, 9, 10, 20), RemovedReason.DELETE, FlowStats(5.25, None, 7, 8)),
        "priority=7,in_port=1 reason=delete table_id=3 cookie:0x9 duration5.250s idle10 hard20 pkts7 bytes8",
    ),
    (
        MessageType.PACKET_IN,
        pack("!IHBBQ", 0xFFFFFFFF, 90, 1, 3, 9) + Match(in_port=1).wire + bytes(2) + FRAME,
        PacketIn(PacketInReason.ACTION, 3, 9, Match(in_port=1), FRAME, 90),
        "table_id=3 cookie=0x9 total_len=90 in_port=1 (via action) data_len=60",
    ),
    (
        MessageType.EXPERIMENTER,
        pack("!II", 0x2320, 30)
        + encode_property(0, FRAME)
        + encode_property(1, pack("!I", 90))
        + encode_property(3, b"\3")
        + encode_property(4, bytes(4) + pack("!Q", 9))
        + encode_property(5, b"\1")
        + encode_property(6, Match(in_port=1, reg1=2).wire[4:20])
        + encode_property(7, b"hi!"),
        PacketIn(PacketInReason.ACTION, 3, 9, Match(in_port=1, reg1=2), FRAME, 90, b"hi!"),
        "table_id=3 cookie=0x9 total_len=90 reg1=0x2,in_port=1 (via action) data_len=60",
    ),
]


@pytest.mark.parametrize(("kind", "body", "value", "text"), REPLIES, ids=lambda value: type(value).__name__)
def test_what_we_receive(kind: int, body: bytes, value: object, text: str) -> None:
    assert text in " ".join(ofp_print(frame(kind, 5, body)).split("\n"))
    assert {**REPLY_DECODERS, **ASYNC_DECODERS}[kind](Reader(body)) == value


def full_update(event: int) -> bytes:
    rest = Match(in_port=1).wire + pack("!HH4xHHIH6x", 4, 24, 0, 16, 2, 0)
    return pack("!HHBBHHH4xQ", 24 + len(rest), event, 3, 2, 0, 0, 7, 9) + rest


PARTS: list[tuple[int, bytes, list[object], str]] = [
    (
        MultipartType.DESC,
        pack("!256s256s256s32s256s", b"a", b"b", b"c", b"d", b"e") * 1,
        [SwitchDesc("a", "b", "c", "d", "e")],
        "Manufacturer: a",
    ),
    (MultipartType.TABLE_STATS, pack("!B3xIQQ", 4, 1, 2, 3), [TableStats(4, 1, 2, 3)], "active=1, lookup=2"),
    (MultipartType.TABLE_DESC, pack("!HBxI", 8, 4, 4), [TableDesc(4, True, False)], "table 4"),
    (MultipartType.PORT_DESC, PORT + OPTICAL_PORT, [PORT_DESC, PORT_9], "3(vif3): addr:0a:00:00:00:00:07"),
    (
        MultipartType.PORT_STATS,
        pack("!H2xIII8Q", 80, 3, 1, 500_000_000, 1, 2, 3, 4, 5, 6, 7, 0xFFFFFFFFFFFFFFFF)
        + pack("!H2xIII8Q", 120, 0xFFFFFFFE, 1, 0, *range(8))
        + encode_property(0, bytes(4) + pack("!4Q", 11, 12, 13, 14)),
        [
            PortStats(3, 1.5, 1, 2, 3, 4, 5, 6, 7, None),
            PortStats(ReservedPort.LOCAL, 1.0, 0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14),
        ],
        "rx pkts=1, bytes=3, drop=5, errs=7",
    ),
    (
        MultipartType.GROUP_STATS,
        pack("!H2xII4xQQII", 56, 4, 1, 10, 20, 3, 0) + pack("!QQ", 5, 6),
        [GroupStats(4, 1, 10, 20, 3.0, (Counters(5, 6),))],
        "group_id=4,duration=3s,ref_count=1,packet_count=10,byte_count=20,bucket0:packet_count=5,byte_count=6",
    ),
    (
        MultipartType.METER_STATS,
        pack("!IH6xIQQII", 3, 56, 1, 10, 20, 3, 0) + pack("!QQ", 5, 6),
        [MeterStats(3, 1, 10, 20, 3.0, (Counters(5, 6),))],
        "flow_count:1 packet_in_count:10 byte_in_count:20 duration:3s bands: 0: packet_count:5 byte_count:6",
    ),
    (
        MultipartType.METER_FEATURES,
        pack("!IIIBBxx", 200000, 2, 15, 8, 0),
        [MeterFeatures(200000, 2, 15, 8)],
        "max_meter:200000 max_bands:8 max_color:0",
    ),
    (MultipartType.AGGREGATE_STATS, STATS, [AggregateStats(6, 7, 8)], "packet_count=7 byte_count=8 flow_count=6"),
    (
        MultipartType.FLOW_MONITOR,
        full_update(0) + full_update(2) + pack("!HHI", 8, 4, 77) + pack("!HHI", 8, 5, 0) + pack("!HHI", 8, 6, 0),
        [
            FlowUpdate(FlowEvent.INITIAL, FLOW),
            FlowUpdate(FlowEvent.REMOVED, FLOW, RemovedReason.DELETE),
            FlowUpdate(FlowEvent.OWN, xid=77),
            FlowUpdate(FlowEvent.PAUSED),
            FlowUpdate(FlowEvent.RESUMED),
        ],
        "event=DELETED reason=delete table=3 cookie=0x9 in_port=1 actions=output:2",
    ),
]


@pytest.mark.parametrize(("kind", "body", "entries", "text"), PARTS, ids=lambda value: type(value).__name__)
def test_what_comes_in_parts(kind: int, body: bytes, entries: list[object], text: str) -> None:
    shown = ofp_print(frame(MessageType.MULTIPART_REPLY, 5, pack("!HH4x", kind, 0) + body))
    assert text in " ".join(shown.split())
    assert list(MULTIPART_DECODERS[kind](Reader(body))) == entries


def test_the_least_a_packet_in_can_say() -> None:
    body = pack("!II", 0x2320, 30) + encode_property(0, FRAME)
    packet = ASYNC_DECODERS[MessageType.EXPERIMENTER](Reader(body))
    assert packet == PacketIn(PacketInReason.NO_MATCH, 0, None, Match(), FRAME, 60)
    assert packet.in_port is None
    plain = pack("!IHBBQ", 0, 60, 0, 0, 0xFFFFFFFFFFFFFFFF) + Match().wire + bytes(2) + FRAME
    assert PacketIn.decode(Reader(plain)).cookie is None


UNKNOWN = [
    (MessageType.ROLE_REPLY, pack("!I4xQ", 8, 9), "8 is none"),
    (MessageType.PORT_STATUS, pack("!B7x", 3) + PORT, "3 is no reason"),
    (MessageType.PORT_STATUS, pack("!B7x", 0), "claims 0 bytes"),
    (MessageType.PORT_STATUS, pack("!B7x", 0) + b"\0\1\0\0" + PORT[4:], "no port number"),
    (MessageType.FLOW_REMOVED, pack("!BBHHHQ", 3, 6, 7, 10, 20, 9) + Match().wire + STATS, "6 is no reason"),
    (MessageType.FLOW_REMOVED, pack("!BBHHHQ", 255, 2, 7, 10, 20, 9) + Match().wire + STATS, "table=255"),
    (MessageType.PACKET_IN, pack("!IHBBQ", 0, 0, 9, 3, 9) + Match().wire + bytes(2), "9 is no reason"),
    (MessageType.EXPERIMENTER, pack("!II", 0x2320, 31), "subtype 31 is unknown"),
    (MessageType.EXPERIMENTER, pack("!II", 0x2320, 30), "has no packet"),
]


@pytest.mark.parametrize(("kind", "body", "problem"), UNKNOWN)
def test_numbers_that_mean_nothing(kind: int, body: bytes, problem: str) -> None:
    with pytest.raises(MalformedMessage, match=problem):
        {**REPLY_DECODERS, **ASYNC_DECODERS}[kind](Reader(body))


def test_a_flow_event_that_means_nothing() -> None:
    with pytest.raises(MalformedMessage, match="9 is no event"):
        list(MULTIPART_DECODERS[MultipartType.FLOW_MONITOR](Reader(pack("!HHI", 8, 9, 0))))


def test_counters_of_another_class_are_ignored() -> None:
    stats = pack("!HHHBBI", 0, 12, 0xFFFF, 6, 4, 1) + bytes(4)
    assert list(MULTIPART_DECODERS[MultipartType.AGGREGATE_STATS](Reader(stats))) == [AggregateStats(0, 0, 0)]


def test_an_error_quotes_what_it_is_about() -> None:
    quoted = frame(MessageType.BARRIER_REQUEST, 5)
    shown = printed(ErrorMessage(1, 1, data=quoted))
    assert shown.startswith("OFPT_ERROR (OF1.5) (xid=0x5): OFPBRC_BAD_TYPE\nOFPT_BARRIER_REQUEST")
