"""The client on a real ovs-vswitchd: what it says was done is done, and what failed is named."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ovsctl.openflow import Flow, FlowFlags, FlowMod, Match, Output, Resubmit, SetField
from ovsctl.openflow.actions import GroupAction, MeterAction, ToController
from ovsctl.openflow.client import OpenFlowClient
from ovsctl.openflow.errors import (
    BundleError,
    ChannelLost,
    InvalidValueError,
    ModError,
    NegotiationError,
    PeerError,
    RequestTimeout,
)
from ovsctl.openflow.fields import ReservedPort
from ovsctl.openflow.group import LAST_BUCKET, Bucket, Group, GroupType
from ovsctl.openflow.messages import (
    ControllerRole,
    FlowEvent,
    FlowRemoved,
    FlowUpdate,
    FragmentHandling,
    GroupMod,
    Hello,
    MessageType,
    MeterMod,
    PacketIn,
    PacketInReason,
    PortReason,
    PortStatus,
    RemovedReason,
    RoleStatus,
)
from ovsctl.openflow.meter import Band, Meter
from ovsctl.openflow.table import FlowTable
from ovsctl.openflow.wire import frame
from tests.ovsctl.openflow.support import Bridge, add_port, bridge
from tests.polling import until
from tests.servers import free_port, run

FRAME = bytes.fromhex("ffffffffffff0a000000000188b5") + bytes(46)


@pytest.fixture(scope="module")
def shared(ovs: None) -> Iterator[Bridge]:
    with bridge() as made:
        yield made


@pytest.fixture
def br(shared: Bridge) -> Bridge:
    shared.ofctl("del-flows")
    return shared


@pytest.fixture
async def of(br: Bridge) -> AsyncIterator[OpenFlowClient]:
    async with OpenFlowClient(br.remote) as client:
        await client.send_flow_mods([MeterMod.delete(), GroupMod.delete()])
        yield client
        assert list(client.unexpected) == []


def flow(priority: int, out: int = 2, **options: int) -> Flow:
    return Flow(Match(in_port=1), (Output(out),), priority=priority, **options)


BAD = FlowMod.add(Flow(Match(in_port=1), (SetField("tcp_dst", 80), Output(2)), priority=99))  # no prerequisite


def pause(br: Bridge) -> None:
    """Let the switch hang: connections stay, nothing is answered."""
    assert br.switch.process is not None
    br.switch.process.send_signal(signal.SIGSTOP)


# -- flows ---------------------------------------------------------------------------------------------------


async def test_features(of: OpenFlowClient, br: Bridge) -> None:
    shown = br.ofctl("show")
    assert f"dpid:{of.features.datapath_id:016x}" in shown
    assert of.features.n_tables == 254
    assert of.connected


async def test_a_bundle_applies_everything(of: OpenFlowClient, br: Bridge) -> None:
    await of.bundle([FlowMod.add(flow(1)), FlowMod.add(flow(2, table=3, cookie=7))])
    assert br.dump() == [
        "cookie=0x7, table=3, priority=2,in_port=1 actions=output:2",
        "priority=1,in_port=1 actions=output:2",
    ]
    await of.bundle([FlowMod.delete(flow(1)), FlowMod.modify(flow(2, 1, table=3)), FlowMod.add(flow(5))])
    assert br.dump() == [
        "cookie=0x7, table=3, priority=2,in_port=1 actions=output:1",
        "priority=5,in_port=1 actions=output:2",
    ]
    await of.bundle([])


async def test_a_bundle_with_a_refused_addition_applies_nothing(of: OpenFlowClient, br: Bridge) -> None:
    with pytest.raises(BundleError) as caught:
        await of.bundle([FlowMod.add(flow(1)), BAD, FlowMod.add(flow(2)), BAD])
    assert [error.request for error in caught.value.errors] == [BAD, BAD]
    assert {error.name for error in caught.value.errors} == {"OFPBAC_MATCH_INCONSISTENT"}
    assert "ADD table=0,priority=99,in_port=1 actions=set_field:80->tcp_dst,output:2" in str(caught.value)
    assert br.dump() == []
    await of.bundle([FlowMod.add(flow(1))])
    assert len(br.dump()) == 1


async def test_a_bundle_at_once_names_what_was_refused_and_applies_the_rest(of: OpenFlowClient, br: Bridge) -> None:
    await of.bundle([FlowMod.add(flow(1)), FlowMod.add(flow(2))], at_once=True)
    with pytest.raises(BundleError) as caught:
        await of.bundle([FlowMod.add(flow(3)), BAD, FlowMod.delete(flow(1))], at_once=True)
    assert [error.request for error in caught.value.errors] == [BAD]
    assert sorted(entry.flow.priority for entry in await of.dump_flows()) == [2, 3]
    await of.bundle([FlowMod.add(flow(4))])


async def test_a_bundle_at_once_that_fails_when_committed_applies_nothing(of: OpenFlowClient) -> None:
    overlapping = FlowMod.add(flow(7, flags=FlowFlags.CHECK_OVERLAP))
    await of.bundle([FlowMod.add(Flow(Match(in_port=1, eth_type=0x0800), (), priority=7))])
    with pytest.raises(BundleError):
        await of.bundle([FlowMod.add(flow(1)), overlapping], at_once=True)
    assert [entry.flow.priority for entry in await of.dump_flows()] == [7]


async def test_a_bundle_that_fails_when_committed_applies_nothing(of: OpenFlowClient, br: Bridge) -> None:
    first = flow(1, flags=FlowFlags.CHECK_OVERLAP)
    overlapping = FlowMod.add(Flow(Match(), (Output(1),), priority=1, flags=FlowFlags.CHECK_OVERLAP))
    with pytest.raises(BundleError) as caught:
        await of.bundle([FlowMod.add(first), overlapping, FlowMod.add(flow(3))])
    (error,) = caught.value.errors
    assert (error.name, error.request) == ("OFPFMFC_OVERLAP", overlapping)
    assert br.dump() == []


async def test_a_bundle_that_cannot_be_sent_applies_nothing(of: OpenFlowClient, br: Bridge) -> None:
    class TooLong:
        TYPE = MessageType.FLOW_MOD

        def encode(self) -> bytes:
            return bytes(65_530)

    with pytest.raises(InvalidValueError, match="does not fit"):
        await of.bundle([FlowMod.add(flow(1)), TooLong()])
    with pytest.raises(InvalidValueError, match="does not fit"):
        await of.send_flow_mods([TooLong()])
    await of.barrier()
    assert br.dump() == []


METER = Meter(7, (Band(1000, 100),))
GROUP = Group(5, GroupType.ALL, (Bucket((Output(1),)), Bucket((Output(2),))))


async def test_meters_are_not_for_bundles(of: OpenFlowClient) -> None:
    with pytest.raises(InvalidValueError, match="no meters in a bundle"):
        await of.bundle([MeterMod.add(METER)])


async def test_meters_go_before_and_after_the_bundle(of: OpenFlowClient, br: Bridge) -> None:
    metered = Flow(Match(in_port=1), (MeterAction(7), Output(2)))
    await of.apply([FlowMod.add(metered), MeterMod.add(METER)])
    assert await of.meters() == [METER]
    (stats,) = await of.meter_stats()
    assert (stats.meter_id, stats.n_packets, len(stats.bands)) == (7, 0, 1)
    larger = Meter(7, (Band(2000, 50),))
    await of.apply([MeterMod.modify(larger)])
    assert await of.meters() == [larger]
    await of.apply([MeterMod.delete(7), FlowMod.delete(metered)])
    assert (await of.meters(), br.dump()) == ([], [])


async def test_when_the_bundle_fails_its_meters_go_again(of: OpenFlowClient, br: Bridge) -> None:
    with pytest.raises(BundleError):
        await of.apply([MeterMod.add(METER), FlowMod.add(flow(1)), BAD])
    with pytest.raises(ModError, match="OFPMMFC_UNKNOWN_METER"):
        await of.apply([MeterMod.add(METER), MeterMod.modify(Meter(8, METER.bands)), FlowMod.add(flow(1))])
    assert (await of.meters(), br.dump()) == ([], [])
    await of.apply([MeterMod.add(METER)])
    with pytest.raises(ModError, match="OFPMMFC_METER_EXISTS"):
        await of.apply([MeterMod.add(METER), FlowMod.add(flow(1))])
    assert (await of.meters(), br.dump()) == ([METER], [])
    with pytest.raises(ModError):
        await of.apply([MeterMod.add(METER)] * 1001)
    assert await of.meters() == [METER]


async def test_groups_live_in_the_same_bundle_as_their_flows(of: OpenFlowClient, br: Bridge) -> None:
    grouped = Flow(Match(in_port=1), (GroupAction(5),))
    await of.bundle([GroupMod.add(GROUP), FlowMod.add(grouped)])
    assert await of.groups() == [GROUP]
    (stats,) = await of.group_stats()
    assert (stats.group_id, stats.ref_count, len(stats.buckets)) == (5, 1, 2)
    with pytest.raises(BundleError, match="OFPGMFC_GROUP_EXISTS"):
        await of.bundle([GroupMod.add(GROUP)])
    more = Group(5, GroupType.ALL, (Bucket((Output(3),), 9),))
    await of.bundle([GroupMod.insert_buckets(more, LAST_BUCKET)])
    assert [bucket.bucket_id for bucket in (await of.groups())[0].buckets] == [0, 1, 9]
    await of.bundle([GroupMod.remove_bucket(5, 0), GroupMod.remove_bucket(5, 9)])
    assert [bucket.bucket_id for bucket in (await of.groups())[0].buckets] == [1]
    await of.bundle([GroupMod.modify(GROUP), GroupMod.add_or_modify(replace(GROUP, group_id=6))])
    assert sorted(group.group_id for group in await of.groups()) == [5, 6]
    await of.bundle([GroupMod.delete()])
    assert (await of.groups(), br.dump()) == ([], [])


async def test_the_changes_of_a_table(of: OpenFlowClient, br: Bridge) -> None:
    old = FlowTable([flow(1, cookie=1), flow(2, cookie=1), flow(3, cookie=1)])
    new = FlowTable([flow(1, cookie=1), flow(2, 1, cookie=1), flow(4, cookie=1)])
    await of.apply(FlowTable.diff(old, FlowTable()))
    await of.apply(FlowTable.diff(new, FlowTable(entry.flow for entry in await of.dump_flows())))
    assert FlowTable(entry.flow for entry in await of.dump_flows()) == new


async def test_the_fast_path_applies_all_but_the_refused(of: OpenFlowClient, br: Bridge) -> None:
    await of.send_flow_mods([FlowMod.add(flow(1))])
    with pytest.raises(ModError) as caught:
        await of.send_flow_mods([FlowMod.add(flow(2)), BAD, FlowMod.add(flow(3))])
    assert [error.request for error in caught.value.errors] == [BAD]
    assert not isinstance(caught.value, BundleError)
    assert len(br.dump()) == 3
    await of.send_flow_mods([])


async def test_many_flows_go_through_both_paths(of: OpenFlowClient, br: Bridge) -> None:
    flows = [Flow(Match(in_port=1, eth_type=0x800, ip_src=n), (Output(2),), cookie=n) for n in range(9000)]
    await of.bundle(FlowMod.add(one) for one in flows)
    assert (await of.aggregate()).n_flows == 9000
    assert {entry.flow for entry in await of.dump_flows()} == set(flows)
    await of.send_flow_mods(FlowMod.delete(one) for one in flows[:-1])
    assert [entry.flow for entry in await of.dump_flows()] == flows[-1:]


async def test_thousands_of_refusals_are_counted(of: OpenFlowClient, br: Bridge) -> None:
    with pytest.raises(BundleError) as caught:
        await of.bundle([BAD] * 5000)
    assert (caught.value.refused, len(caught.value.errors)) == (5000, 1000)
    assert br.dump() == []


async def test_bundles_of_two_tasks_do_not_mix(of: OpenFlowClient, br: Bridge) -> None:
    async def one(table: int, mods: list[FlowMod]) -> None:
        await of.bundle(mods)

    many = [[FlowMod.add(flow(n, table=t)) for n in range(3000)] for t in (1, 2)]
    results = await asyncio.gather(
        one(1, many[0]), one(2, many[1]), one(3, [BAD, FlowMod.add(flow(1))]), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), type(None), BundleError]
    assert (await of.aggregate()).n_flows == 6000


async def test_a_cancelled_bundle_is_discarded(of: OpenFlowClient, br: Bridge) -> None:
    task = asyncio.create_task(of.bundle([FlowMod.add(flow(1))]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await of.barrier()
    assert br.dump() == []


async def test_dumps_select_by_table_match_and_cookie(of: OpenFlowClient) -> None:
    a = Flow(Match(in_port=1), table=1, cookie=0x10)
    b = Flow(Match(in_port=2), table=2, cookie=0x11)
    c = Flow(Match(in_port=2, eth_type=0x806), table=2, cookie=0x20)
    await of.bundle([FlowMod.add(one) for one in (a, b, c)])

    async def dumped(*args: object, **options: int) -> list[Flow]:
        return [entry.flow for entry in await of.dump_flows(*args, **options)]  # type: ignore[arg-type]

    assert await dumped(1) == [a]
    assert set(await dumped(None, Match(in_port=2))) == {b, c}
    assert set(await dumped(cookie=0x10, cookie_mask=0xF0)) == {a, b}
    assert (await of.aggregate(2, cookie=0x20, cookie_mask=0xFF)).n_flows == 1
    await of.bundle([FlowMod.delete_all(cookie=0x10, cookie_mask=0xF0)])
    assert await dumped() == [c]
    await of.bundle([FlowMod.delete_all(2)])
    assert await dumped() == []


async def test_counters_of_flows(of: OpenFlowClient, br: Bridge) -> None:
    await of.bundle([FlowMod.add(flow(1))])
    for _ in range(3):
        br.receive("p1", FRAME.hex())

    async def counted() -> bool:  # the datapath hands its counters over once in a while
        return (await of.aggregate()).n_packets == 3

    await until(counted, "counters")
    (entry,) = await of.dump_flows()
    assert (entry.stats.packets, entry.stats.bytes) == (3, 3 * 60)
    total = await of.aggregate()
    assert (total.n_flows, total.n_packets, total.n_bytes) == (1, 3, 180)


# -- asking --------------------------------------------------------------------------------------------------


async def test_ports_and_their_counters(of: OpenFlowClient, br: Bridge) -> None:
    ports = {port.name: port for port in await of.ports()}
    assert {name: port.number for name, port in ports.items()} == {"br0": ReservedPort.LOCAL, "p1": 1, "p2": 2}
    mac = br.vsctl("get", "interface", "p1", "mac_in_use").strip().strip('"')
    assert ports["p1"].hw_addr.hex(":") == mac
    assert ports["p1"].link_up
    before = {stats.number: stats for stats in await of.port_stats()}
    br.receive("p1", FRAME.hex())
    after = {stats.number: stats for stats in await of.port_stats()}
    assert (before[1].rx_packets or 0) + 1 == after[1].rx_packets
    assert after[1].duration_s > 0
    assert set(after) == {1, 2, ReservedPort.LOCAL}


async def test_tables_and_description(of: OpenFlowClient) -> None:
    await of.bundle([FlowMod.add(flow(1, table=4)), FlowMod.add(flow(2, table=4))])
    stats = await of.table_stats()
    assert len(stats) == 254
    assert [one.active for one in stats if one.table == 4] == [2]
    assert {one.eviction for one in await of.table_descs()} == {False}
    assert (await of.switch_desc()).hardware == "Open vSwitch"


async def test_roles(of: OpenFlowClient, br: Bridge) -> None:
    assert (await of.role()).role is ControllerRole.EQUAL
    told: list[RoleStatus] = []
    of.on_role_status(told.append)
    assert (await of.role(ControllerRole.PRIMARY, 1)).role is ControllerRole.PRIMARY
    async with OpenFlowClient(br.remote) as other:
        await other.role(ControllerRole.PRIMARY, 2)
    await until(lambda: bool(told), "a role status")
    assert told[0].role is ControllerRole.SECONDARY
    with pytest.raises(BundleError, match="OFPBRC_IS_SECONDARY"):
        await of.bundle([FlowMod.add(flow(1))])
    with pytest.raises(PeerError, match="OFPRRFC_STALE"):
        await of.role(ControllerRole.PRIMARY, 1)
    await of.role(ControllerRole.EQUAL)


# -- packets -------------------------------------------------------------------------------------------------


async def test_packets_come_with_their_fields_and_userdata(of: OpenFlowClient, br: Bridge) -> None:
    got: list[PacketIn] = []
    of.on_packet_in(got.append)
    actions = (SetField("reg3", 5), SetField("metadata", 6), ToController(userdata=b"note"))
    await of.bundle([FlowMod.add(Flow(Match(in_port=1), actions, table=0, cookie=0xABC))])
    br.receive("p1", FRAME.hex())
    await until(lambda: bool(got), "a packet-in")
    (packet,) = got
    assert packet.data == FRAME
    assert (packet.in_port, packet.match["reg3"].value, packet.match["metadata"].value) == (1, 5, 6)
    assert (packet.userdata, packet.cookie, packet.table) == (b"note", 0xABC, 0)
    assert packet.reason is PacketInReason.ACTION
    assert packet.full_length == 60


async def test_asking_for_packets_leaves_the_handling_of_fragments(br: Bridge) -> None:
    br.ofctl("set-frags", "nx-match")
    async with OpenFlowClient(br.remote) as of:
        of.packet_ins()
        await of.barrier()
    assert br.ofctl("get-frags").strip() == "nx-match"
    br.ofctl("set-frags", "normal")


async def test_a_client_sets_the_handling_of_fragments(br: Bridge) -> None:
    async with OpenFlowClient(br.remote, fragments=FragmentHandling.NX_MATCH) as of:
        await of.barrier()
        assert br.ofctl("get-frags").strip() == "nx-match"
        of.packet_ins()
        await of.barrier()
    assert br.ofctl("get-frags").strip() == "nx-match"
    br.ofctl("set-frags", "normal")


async def test_packets_of_a_packet_out(of: OpenFlowClient) -> None:
    queue = of.packet_ins()
    await of.packet_out(FRAME, actions=[ToController()], in_port=2)
    packet = await anext(queue)
    assert packet.reason is PacketInReason.PACKET_OUT
    assert (packet.data, packet.full_length, packet.in_port, packet.cookie) == (FRAME, 60, 2, None)


async def test_packet_out_goes_through_the_pipeline(of: OpenFlowClient, br: Bridge) -> None:
    await of.bundle([FlowMod.add(Flow(Match(in_port=1, reg1=9), (Output(2),)))])
    resubmit = [Resubmit(table=0)]
    await of.packet_out(FRAME, actions=resubmit, in_port=1)
    await of.packet_out(FRAME, actions=[SetField("reg1", 9), *resubmit], in_port=1)
    (entry,) = await of.dump_flows()
    assert entry.stats.packets == 1
    await of.packet_out(FRAME, actions=resubmit, match=Match(in_port=1, metadata=4))


async def test_the_queue_is_bounded_and_ends(of: OpenFlowClient) -> None:
    queue = of.packet_ins(max_queue=2)
    for _ in range(5):
        await of.packet_out(FRAME, actions=[ToController()])
    await until(lambda: queue.dropped == 3, "three drops")
    queue.close()
    assert len([packet async for packet in queue]) == 2
    await of.packet_out(FRAME, actions=[ToController()])
    assert queue.dropped == 3


async def test_waiting_for_packets_ends_with_the_connection(br: Bridge) -> None:
    async with OpenFlowClient(br.remote) as of:
        queue = of.packet_ins()
        waiting = asyncio.create_task(anext(queue))
        await asyncio.sleep(0)
        await of.close()
        with pytest.raises(ChannelLost):
            await waiting
        with pytest.raises(ChannelLost):
            await anext(of.packet_ins())


async def test_a_handler_given_before_connecting_works(br: Bridge) -> None:
    of = OpenFlowClient(br.remote)
    got: list[PacketIn] = []
    remove = of.on_packet_in(got.append)
    async with of:
        await of.packet_out(FRAME, actions=[ToController()])
        await until(lambda: bool(got), "a packet-in")
        remove()
        remove()
        await of.packet_out(FRAME, actions=[ToController()])
    assert len(got) == 1


async def test_a_failing_callback_does_not_cost_the_connection(of: OpenFlowClient) -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))

    def fail(packet: PacketIn) -> None:
        raise RuntimeError("mine")

    got: list[PacketIn] = []
    of.on_packet_in(fail)
    of.on_packet_in(got.append)
    await of.packet_out(FRAME, actions=[ToController()])
    await until(lambda: bool(got), "a packet-in")
    assert str(failures[0]["exception"]) == "mine"
    await of.barrier()


# -- changes -------------------------------------------------------------------------------------------------


async def test_ports_that_come_and_go(of: OpenFlowClient, br: Bridge) -> None:
    told: list[PortStatus] = []
    of.on_port_status(told.append)
    await of.barrier()
    add_port(br, 7)
    await until(lambda: any(s.reason is PortReason.ADD for s in told), "a port status")
    br.vsctl("del-port", "p7")
    await until(lambda: told[-1].reason is PortReason.DELETE, "a port status")
    assert {(status.port.name, status.port.number) for status in told} == {("p7", 7)}


async def test_flows_that_go_are_told_with_their_reason(of: OpenFlowClient) -> None:
    told: list[FlowRemoved] = []
    of.on_flow_removed(told.append)
    watched = flow(1, cookie=5, flags=FlowFlags.SEND_FLOW_REM, table=2)
    timed = flow(2, hard_timeout=1, flags=FlowFlags.SEND_FLOW_REM)
    await of.bundle([FlowMod.add(watched), FlowMod.add(timed)])
    await of.bundle([FlowMod.delete(watched)])
    await until(lambda: len(told) == 2, "two flow-removed")
    assert [removed.reason for removed in told] == [RemovedReason.DELETE, RemovedReason.HARD_TIMEOUT]
    gone = told[0].flow
    assert (gone.key, gone.cookie, gone.actions) == (watched.key, 5, ())
    assert told[0].stats.packets == 0


async def test_changes_of_others_are_told_from_ours(of: OpenFlowClient, br: Bridge) -> None:
    await of.bundle([FlowMod.add(flow(1, cookie=3))])
    told: list[FlowUpdate] = []
    monitor = await of.on_flow_change(told.append, initial=True)
    assert told == [FlowUpdate(FlowEvent.INITIAL, flow(1, cookie=3))]
    told.clear()
    await of.bundle([FlowMod.add(flow(2))])
    await of.send_flow_mods([FlowMod.delete(flow(2))])
    assert [update.event for update in told] == [FlowEvent.OWN] * 2
    assert all(update.xid for update in told)
    told.clear()
    br.ofctl("add-flow", "table=1,priority=5,idle_timeout=9,actions=drop")
    br.ofctl("mod-flows", "table=1,actions=output:1")
    br.ofctl("del-flows", "table=1")
    await until(lambda: len(told) == 3, "three updates")
    before = Flow(table=1, priority=5, idle_timeout=9)
    after = replace(before, actions=(Output(1),))
    assert told == [
        FlowUpdate(FlowEvent.ADDED, before),
        FlowUpdate(FlowEvent.MODIFIED, after),
        FlowUpdate(FlowEvent.REMOVED, after, RemovedReason.DELETE),
    ]
    await of.cancel_flow_monitor(monitor)
    br.ofctl("del-flows")
    await of.barrier()
    assert len(told) == 3
    with pytest.raises(InvalidValueError, match="no flow monitor"):
        await of.cancel_flow_monitor(monitor)


async def test_a_monitor_of_one_table_with_our_own_changes(of: OpenFlowClient) -> None:
    told: list[FlowUpdate] = []
    await of.on_flow_change(told.append, table=3, match=Match(in_port=1), own_in_full=True)
    mine = flow(1, table=3)
    await of.bundle([FlowMod.add(mine), FlowMod.add(flow(1, table=4))])
    assert told == [FlowUpdate(FlowEvent.ADDED, mine)]


async def test_a_refused_monitor_leaves_no_callback(br: Bridge) -> None:
    """Open vSwitch answers with an error that names no request, as 2.17 does to any flow monitor: nobody waits for another answer."""
    told: list[FlowUpdate] = []
    async with OpenFlowClient(br.remote) as of:
        await of.on_flow_change(told.append)
        of._monitor_id = 0  # ask for the same monitor again
        with pytest.raises(PeerError):
            await of.on_flow_change(told.append)
        assert of._handlers[FlowUpdate] == [told.append]
        assert of.unexpected_count == 1


# -- connections ---------------------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    with pytest.raises(ChannelLost, match=r"unix:/nowhere/br0.mgmt"):
        await OpenFlowClient("unix:/nowhere/br0.mgmt").connect()


@pytest.mark.parametrize("remote", ["unix:", "tcp:", "ssl:localhost", "br0", "tcp:h:0", "tcp:h:x", "tcp:h:65536"])
async def test_remotes_that_cannot_be(remote: str) -> None:
    with pytest.raises(InvalidValueError, match=r"expected unix:PATH|1\.\.65535"):
        await OpenFlowClient(remote).connect()


async def test_use_before_connecting_and_connecting_twice(br: Bridge) -> None:
    of = OpenFlowClient(br.remote)
    with pytest.raises(InvalidValueError, match="not connected"):
        await of.barrier()
    with pytest.raises(InvalidValueError, match="not connected"):
        _ = of.features
    await of.close()
    async with of:
        with pytest.raises(InvalidValueError, match="connects once"):
            await of.connect()
    with pytest.raises(ChannelLost):
        await of.barrier()
    assert not of.connected


@pytest.mark.usefixtures("ovs")
async def test_a_switch_without_openflow_15() -> None:
    with bridge("OpenFlow10,OpenFlow13") as old, pytest.raises(NegotiationError, match="include OpenFlow15"):
        async with OpenFlowClient(old.remote):
            pass


@pytest.mark.usefixtures("ovs")
async def test_the_end_of_the_switch_is_told_at_once() -> None:
    with bridge() as br:
        async with OpenFlowClient(br.remote) as of:
            told: list[ChannelLost] = []
            of.on_disconnect(told.append)
            removed: list[ChannelLost] = []
            of.on_disconnect(removed.append)()
            pause(br)
            waiting = [asyncio.create_task(of.barrier()), asyncio.create_task(of.bundle([FlowMod.add(flow(1))]))]
            await asyncio.sleep(0)
            assert br.switch.process is not None
            br.switch.process.kill()  # without waking it: it must not answer any more
            for error in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(error, ChannelLost)
            assert len(told) == 1
            assert removed == []
            with pytest.raises(ChannelLost):
                await of.bundle([FlowMod.add(flow(1))])


@pytest.mark.usefixtures("ovs")
async def test_a_switch_that_hangs_is_given_up() -> None:
    with bridge() as br:
        async with OpenFlowClient(br.remote, timeout_s=0.2, probe_s=0.2) as of:
            lost = asyncio.get_running_loop().create_future()
            of.on_disconnect(lost.set_result)
            await asyncio.sleep(0.5)
            assert of.connected  # the probes are answered
            pause(br)
            with pytest.raises(RequestTimeout, match=r"0\.2 s"):
                await of.barrier()
            assert "silent for 0.4 s" in str(await asyncio.wait_for(lost, 20))
        with pytest.raises(RequestTimeout, match="no OpenFlow hello"):
            await OpenFlowClient(br.remote, timeout_s=0.2).connect()


async def test_over_tcp(br: Bridge) -> None:
    port = free_port()
    br.vsctl("set-controller", "br0", f"ptcp:{port}:127.0.0.1")

    async def listening() -> bool:
        try:
            async with OpenFlowClient(f"tcp:127.0.0.1:{port}") as of:
                return (await of.switch_desc()).hardware == "Open vSwitch"
        except ChannelLost:
            return False

    await until(listening, "a listener")
    br.vsctl("del-controller", "br0")


async def test_over_tls(br: Bridge, tmp_path: Path) -> None:
    """Both sides show the same certificate, and both check it."""
    key, cert, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_port()
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
    )  # fmt: skip
    br.vsctl("set-ssl", str(key), str(cert), str(cert))
    br.vsctl("set-controller", "br0", f"pssl:{port}:127.0.0.1")
    context = ssl.create_default_context(cafile=str(cert))
    context.load_cert_chain(cert, key)

    async def listening() -> bool:
        try:
            async with OpenFlowClient(f"ssl:127.0.0.1:{port}", ssl=context) as of:
                await of.bundle([FlowMod.add(flow(1))])
                return len(br.dump()) == 1
        except ChannelLost:
            return False

    await until(listening, "a listener")
    with pytest.raises(ChannelLost, match="certificate verify failed"):
        await OpenFlowClient(f"ssl:127.0.0.1:{port}", ssl=ssl.create_default_context()).connect()
    br.vsctl("del-controller", "br0")


@contextlib.asynccontextmanager
async def server(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> AsyncIterator[str]:
    """A peer on a loopback port that misbehaves as told."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer(reader, writer)
        await reader.read(1000)
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listening:
        yield f"tcp:127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def slow_server(after: bytes) -> AsyncIterator[tuple[str, asyncio.Future[asyncio.StreamReader]]]:
    """A peer that answers hello and features, sends `after`, and reads on only where the test does."""
    served: asyncio.Future[asyncio.StreamReader] = asyncio.get_running_loop().create_future()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(16)
        writer.write(frame(MessageType.HELLO, 1, Hello().encode()))
        for kind, size in ((MessageType.FEATURES_REPLY, 24), (MessageType.GET_CONFIG_REPLY, 4)):
            xid = int.from_bytes((await reader.readexactly(8))[4:], "big")
            writer.write(frame(kind, xid, bytes(size)))
        writer.write(after)
        served.set_result(reader)
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listening:
        yield f"tcp:127.0.0.1:{listening.sockets[0].getsockname()[1]}", served
        for writer in writers:
            writer.close()


async def test_echo_requests_are_answered() -> None:
    async with (
        slow_server(frame(MessageType.ECHO_REQUEST, 9, b"ping")) as (remote, served),
        OpenFlowClient(remote),
    ):
        assert await (await served).readexactly(12) == frame(MessageType.ECHO_REPLY, 9, b"ping")


async def test_writing_waits_for_a_peer_that_does_not_read() -> None:
    mods = [FlowMod.add(flow(1))] * 300_000
    async with slow_server(b"") as (remote, served), OpenFlowClient(remote) as of:
        sending = asyncio.create_task(of.bundle(mods))
        await served
        connection = of._connected()
        await until(lambda: not connection._drained.is_set(), "a full buffer")
        assert connection._transport.get_write_buffer_size() < 4 << 20
        connection.abort()
        with pytest.raises(ChannelLost):
            await sending


async def test_a_peer_that_talks_nonsense_is_dropped() -> None:
    async with server(lambda _reader, writer: writer.write(frame(MessageType.BARRIER_REPLY, 1))) as remote:
        with pytest.raises(NegotiationError, match="expected a hello first"):
            await OpenFlowClient(remote).connect()


async def test_a_peer_that_hangs_up_is_lost() -> None:
    async with server(lambda _reader, writer: writer.close()) as remote:
        with pytest.raises(ChannelLost, match="OpenFlow connection lost"):
            await OpenFlowClient(remote).connect()


async def test_a_context_for_tls_is_needed_and_used() -> None:
    async with server(lambda _reader, writer: writer.write(b"not TLS")) as remote:
        with pytest.raises(ChannelLost, match="SSL"):
            await OpenFlowClient(f"ssl:{remote[4:]}", ssl=ssl.create_default_context()).connect()
