"""Generated flows, groups and meters through a real ovs-vswitchd: what it has is what was sent."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from ovsctl.openflow import (
    Add,
    Band,
    Bucket,
    Flow,
    FlowDeletion,
    FlowTable,
    Group,
    GroupModCommand,
    GroupType,
    Match,
    Meter,
    MeterModCommand,
    Modify,
    Output,
    Resubmit,
    SetField,
    decode_flow_mod,
    decode_group_descs,
    decode_meter_descs,
    encode_bucket_remove,
    encode_flow_mod,
    encode_group_delete,
    encode_group_mod,
    encode_meter_delete,
    encode_meter_mod,
    format_actions,
    format_flow,
    format_match,
    parse_flow,
    parse_flows,
)
from tests.examples import examples
from tests.ovsctl.openflow.generate import Maker
from tests.ovsctl.openflow.switch import FLOW_MOD, GROUP_DESC, GROUP_MOD, METER_DESC, METER_MOD, Connection, bridge
from tests.servers import Vswitchd, run_dir

BATCHES = examples(
    8,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a smaller seed is no smaller case
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SEEDS = st.integers(0, 2**64 - 1)
BATCH = 500


@pytest.fixture(scope="module")
def switch(ovs: None) -> Iterator[tuple[Vswitchd, Connection]]:
    with bridge() as (vswitchd, connection):
        connection.send(GROUP_MOD, encode_group_mod(Group(1, GroupType.INDIRECT, (Bucket((Output(1),)),))))
        connection.send(METER_MOD, encode_meter_mod(Meter(1, (Band(1000),))))
        assert not connection.barrier()
        yield vswitchd, connection


def by_key(flows: Iterator[Flow] | list[Flow]) -> dict[object, Flow]:
    return {flow.key: flow for flow in flows}


@BATCHES
@given(seed=SEEDS)
def test_flows_come_back_as_they_went(switch: tuple[Vswitchd, Connection], seed: int) -> None:
    vswitchd, connection = switch
    flows = Maker(Random(seed)).flows(BATCH)
    connection.clear()
    assert not connection.write(flows)
    assert by_key([entry.flow for entry in connection.dump()]) == by_key(flows)
    dumped = vswitchd.ofctl("dump-flows", "br0", "--no-stats").splitlines()
    assert by_key(parse_flows(dumped)) == by_key(flows)
    theirs = {line.partition(" actions=")[2] for line in dumped if "actions=" in line}
    assert theirs == {format_actions(flow.actions) for flow in flows}
    matches = {_match_text(line) for line in dumped if "actions=" in line}
    assert matches == {format_match(flow.match) for flow in flows}


_NOT_MATCH = re.compile(
    r"^ *((cookie|table|idle_timeout|hard_timeout|importance)=\w+, |(send_flow_rem|no_packet_counts|no_byte_counts) )*"
    r"((priority|table)=\d+,?|((idle|hard)_timeout|importance)=\d+,|cookie=\w+,)*"
)


def _match_text(line: str) -> str:
    head = line.partition("actions=")[0]
    return _NOT_MATCH.sub("", head).strip().strip(",")


@BATCHES
@given(seed=SEEDS)
def test_ovs_ofctl_reads_what_we_write(seed: int) -> None:
    """Our text through ovs-ofctl to the wire and to text again: parse-flows prints what it decoded."""
    flows = Maker(Random(seed)).flows(BATCH)
    assert [parse_flow(format_flow(flow)) for flow in flows] == flows
    with run_dir() as path:
        (path / "flows").write_text("\n".join(map(format_flow, flows)))
        done = ofctl("parse-flows", str(path / "flows"))
    printed = [_printed_mod(line) for line in done.splitlines() if " ADD " in line]
    assert not [pair for pair in zip(printed, map(as_printed, flows), strict=True) if pair[0] != pair[1]]


def as_printed(flow: Flow) -> Flow:
    """ofp-print shows a cookie of all ones as none."""
    return replace(flow, cookie=0 if flow.cookie == 2**64 - 1 else flow.cookie)


def ofctl(*args: str) -> str:
    done = subprocess.run(["ovs-ofctl", "-O", "OpenFlow15", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _printed_mod(line: str) -> Flow:
    """The flow of a line of ofp-print, which writes "table:5 MATCH cookie:0x7 idle:5 actions=..."."""
    head, _, actions = line.partition(" ADD ")[2].partition("actions=")
    head = re.sub(r"\b(cookie|table|importance):", r"\1=", head)
    head = re.sub(r"\b(idle|hard):", r"\1_timeout=", head)
    return parse_flow(f"{head} actions={actions}")


@BATCHES
@given(seed=SEEDS)
def test_ofp_print_agrees(seed: int) -> None:
    """ofp-print of our bytes is our text."""
    flows = Maker(Random(seed)).flows(100)
    with run_dir() as path:
        messages = []
        for flow in flows:
            body = encode_flow_mod(flow)
            messages.append(b"\x06\x0e" + (len(body) + 8).to_bytes(2, "big") + b"\0\0\0\x01" + body)
            assert decode_flow_mod(body).flow == flow
        Path(path / "stream").write_bytes(b"".join(messages))
        printed = ofctl("ofp-parse", str(path / "stream"))
    assert [_printed_mod(line) for line in printed.splitlines() if " ADD " in line] == [*map(as_printed, flows)]


@BATCHES
@given(seed=SEEDS)
def test_changes_lead_from_one_table_to_the_other(switch: tuple[Vswitchd, Connection], seed: int) -> None:
    _, connection = switch
    rng = Random(seed)
    # delete_learned takes others along when its flow goes.
    flows = [flow for flow in Maker(rng).flows(130) if "delete_learned" not in format_flow(flow)][:100]
    connection.clear()
    assert not connection.write(flows[:80])
    actual = FlowTable(entry.flow for entry in connection.dump())
    modified = [Flow(f.match, (Output(7),), f.table, f.priority, f.cookie ^ rng.randrange(2)) for f in flows[10:20]]
    desired = FlowTable([*flows[:10], *modified, *flows[30:]])
    changes = FlowTable.diff(desired, actual)
    kinds = [type(change) for change in changes]
    assert kinds == sorted(kinds, key=[Add, Modify, FlowDeletion].index)
    assert (kinds.count(Add), kinds.count(FlowDeletion)) == (20, 10)
    sent = {connection.send(FLOW_MOD, change.encode()): change for change in changes}
    assert not [sent[xid] for xid in connection.barrier()]
    assert FlowTable(entry.flow for entry in connection.dump()) == desired
    assert not FlowTable.diff(desired, desired)


def test_delete_spares_a_flow_with_another_cookie(switch: tuple[Vswitchd, Connection]) -> None:
    _, connection = switch
    connection.clear()
    theirs = Flow(Match(in_port=1), cookie=5)
    connection.write([theirs])
    connection.send(FLOW_MOD, FlowDeletion(Flow(Match(in_port=1), cookie=6)).encode())
    assert not connection.barrier()
    assert [entry.flow for entry in connection.dump()] == [theirs]


def test_counters_are_read(switch: tuple[Vswitchd, Connection]) -> None:
    vswitchd, connection = switch
    connection.clear()
    connection.write([Flow(Match(in_port=Output(1).port), (Resubmit(1),))])
    vswitchd.server.vsctl(
        "--may-exist", "add-port", "br0", "p1", "--", "set", "interface", "p1", "type=dummy", "ofport_request=1"
    )
    for _ in range(3):
        vswitchd.appctl(
            "netdev-dummy/receive", "p1", "in_port(1),eth(src=0a:00:00:00:00:01,dst=0a:00:00:00:00:02),eth_type(0x88cc)"
        )
    vswitchd.appctl("revalidator/wait")
    (entry,) = connection.dump()
    assert entry.stats.packets == 3
    assert entry.stats.bytes in (3 * 14, 3 * 60)
    assert entry.stats.duration_s is not None
    assert entry.stats.duration_s > 0
    assert entry.stats.idle_s is not None


GROUPS = [
    Group(10, GroupType.ALL, (Bucket((Output(1),)), Bucket((SetField("reg0", 5), Output(2))))),
    Group(11, GroupType.SELECT, (Bucket((Output(1),), weight=5), Bucket((Output(2),)), Bucket((Output(3),), weight=0))),
    Group(12, GroupType.SELECT, (Bucket((Output(1),), 7), Bucket((Output(2),))), "dp_hash", 1),
    Group(13, GroupType.SELECT, (Bucket((Output(1),)),), "hash", 0, ("eth_src", "eth_type", "ip_src")),
    Group(14, GroupType.INDIRECT, (Bucket((Resubmit(5),)),)),
    Group(15, GroupType.FF, (Bucket((Output(1),), watch_port=1), Bucket((Output(2),), watch_group=10))),
    Group(16, GroupType.ALL),
]
METERS = [
    Meter(10, (Band(1000),)),
    Meter(11, (Band(1000, 500),), packets=True),
    Meter(12, (Band(1000, 100),), stats=False),
]


def test_groups_come_back_as_they_went(switch: tuple[Vswitchd, Connection]) -> None:
    _, connection = switch
    for group in GROUPS:
        connection.send(GROUP_MOD, encode_group_mod(group))
    assert not connection.barrier()
    assert read_groups(connection) == GROUPS
    more = Group(10, GroupType.ALL, (Bucket((Output(9),), 5),))
    connection.send(GROUP_MOD, encode_group_mod(more, GroupModCommand.INSERT_BUCKET))
    connection.send(GROUP_MOD, encode_bucket_remove(10, 0))
    connection.send(GROUP_MOD, encode_group_mod(Group(16, GroupType.ALL, more.buckets), GroupModCommand.MODIFY))
    connection.send(GROUP_MOD, encode_group_delete(11))
    assert not connection.barrier()
    found = {group.group_id: group for group in read_groups(connection)}
    assert {bucket.bucket_id for bucket in found[10].buckets} == {1, 5}
    assert found[16].buckets == more.buckets
    assert 11 not in found


def read_groups(connection: Connection) -> list[Group]:
    body = connection.multipart(GROUP_DESC, (0xFFFFFFFC).to_bytes(4, "big") + bytes(4))
    found = sorted(decode_group_descs(body), key=lambda group: group.group_id)
    return [group for group in found if group.group_id >= 10]


def test_meters_come_back_as_they_went(switch: tuple[Vswitchd, Connection]) -> None:
    _, connection = switch
    for meter in METERS:
        connection.send(METER_MOD, encode_meter_mod(meter))
    changed = Meter(10, (Band(7),))
    connection.send(METER_MOD, encode_meter_mod(changed, MeterModCommand.MODIFY))
    connection.send(METER_MOD, encode_meter_delete(11))
    assert not connection.barrier()
    body = connection.multipart(METER_DESC, (0xFFFFFFFF).to_bytes(4, "big") + bytes(4))
    found = [meter for meter in decode_meter_descs(body) if meter.meter_id >= 10]
    assert sorted(found, key=lambda meter: meter.meter_id) == [changed, METERS[2]]
