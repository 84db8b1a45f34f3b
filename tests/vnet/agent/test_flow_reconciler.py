"""The flows of ours on a bridge: what is sent, and how a refusal ends, on a real Open vSwitch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from ovsctl.openflow import Band, Flow, GroupAction, Match, Meter, MeterAction, Output, SetField
from ovsctl.openflow.client import OpenFlowClient
from ovsctl.openflow.errors import PeerError
from ovsctl.openflow.messages import FlowRemoved, GroupMod, PacketIn
from tests.ovsctl.openflow.support import Bridge, bridge
from tests.polling import until
from vnet.agent import flow_reconciler
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.reconciler import Revisions
from vnet.agent.switch_access import LocalAccess
from vnet.compile import GROUPS, Category, FlowSource, SourceChange, Table, cookie
from vnet.compile.flows import Entries
from vnet.compile.parts import RECIRCULATED

ONE, OTHER = cookie(Category.VIF, "vm1/0"), cookie(Category.LOOKUP, "vm2/0")
RULE = cookie(Category.GROUP, "web")
REFUSED = Flow(Match(in_port=1), (SetField("tcp_dst", 80), Output(2)), priority=99, cookie=ONE)  # without prerequisite


def flow(priority: int, cookie: int) -> Flow:
    return Flow(Match(in_port=1), (Output(2),), priority=priority, cookie=cookie)


@pytest.fixture
def br(ovs: None) -> Iterator[Bridge]:
    with bridge() as made:
        yield made


@dataclass
class Observer:
    """What a bridge said, and what to do as it connects."""

    events: list[str] = field(default_factory=list)
    refusals: list[set[int]] = field(default_factory=list)
    on_ports: Callable[[], None] = lambda: None

    def ports_changed(self, bridge: str) -> None:
        self.on_ports()

    def connection_changed(self, bridge: str) -> None:
        pass

    def connection_lost(self, bridge: str) -> None:
        pass

    def flow_removed(self, bridge: str, message: FlowRemoved) -> None:
        pass

    def packet_in(self, message: PacketIn) -> None:
        pass

    def is_wanted(self, learned: Flow) -> bool:
        return False

    def refusals_changed(self, vifs: Set[int]) -> None:
        self.refusals.append(set(vifs))

    def event(self, kind: str, text: str) -> None:
        self.events.append(kind)


@dataclass
class Kept:
    """A bridge whose flows are kept, and how far that has come."""

    flows: BridgeFlows
    revisions: Revisions
    observer: Observer

    def want(self, *changes: SourceChange, urgent: bool = False) -> int:
        """Desires changes; their revision."""
        self.revisions.newest += 1
        self.flows.want(changes, urgent=urgent)
        return self.revisions.newest


def kept(br: Bridge) -> Kept:
    revisions, observer = Revisions(), Observer()
    return Kept(BridgeFlows(br.name, LocalAccess(str(br.switch.server.dir)), observer, revisions), revisions, observer)


@asynccontextmanager
async def running(br: Bridge, *changes: SourceChange) -> AsyncIterator[Kept]:
    """A bridge that is connected and held to the flows of these changes."""
    made = kept(br)
    task = asyncio.create_task(made.flows.run())
    made.want(*changes)
    try:
        await until(lambda: made.flows.connected, "connection")
        yield made
    finally:
        task.cancel()


def changed(*flows: Flow) -> list[SourceChange]:
    return [SourceChange(FlowSource(Category(flow.cookie >> 40 & 0xFF)), (), (flow,)) for flow in flows]


def cookies(br: Bridge) -> set[int]:
    return {int(text.split(",")[0], 16) for text in br.ofctl("dump-flows").split("cookie=")[1:]}


async def refused(it: Kept, *flows: Flow, urgent: bool = False) -> None:
    """Desires flows one of which the switch refuses, and returns once it has."""
    revision = it.want(*changed(*flows), urgent=urgent)
    await until(lambda: it.observer.events, "the refusal")
    assert it.observer.events == ["refused"]
    assert it.revisions.flows < revision
    assert not it.flows.connected  # until everything has been compared


async def test_a_vif_is_silent_after_its_flows_were_sent_at_once_and_one_was_refused(br: Bridge) -> None:
    async with running(br) as it:
        await refused(it, flow(1, ONE), REFUSED, flow(2, OTHER), urgent=True)
        assert cookies(br) == {OTHER}


async def test_a_groups_flows_are_not_sent_at_once(br: Bridge) -> None:
    async with running(br) as it:
        await refused(it, flow(1, ONE), REFUSED, flow(2, RULE), urgent=True)
        assert cookies(br) == set()


@pytest.mark.parametrize("others", [(flow(1, ONE),), ()], ids=["a bundle", "one flow"])
async def test_a_refused_push_applies_nothing(br: Bridge, others: tuple[Flow, ...]) -> None:
    async with running(br) as it:
        await refused(it, *others, REFUSED)
        assert cookies(br) == set()


METER = 0x7700_0001
TOO_LONG = Flow(Match(in_port=2), (SetField("eth_src", "0a:00:00:00:00:01"),) * 5000, priority=98, cookie=ONE)
METERED = Flow(Match(in_port=3), (MeterAction(METER), Output(2)), priority=97, cookie=ONE)
TOO_MANY_BANDS = Meter(METER, tuple(Band(1000 + n) for n in range(9)))  # Open vSwitch has 8 (OFPMMFC_OUT_OF_BANDS)


@pytest.mark.parametrize("urgent", [True, False])
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ((REFUSED,), "OFPBAC_MATCH_INCONSISTENT"),
        ((TOO_LONG,), "does not fit into an OpenFlow message"),
        ((METERED, TOO_MANY_BANDS), "OFPMMFC_OUT_OF_BANDS"),
    ],
    ids=["flow", "too long", "meter"],
)
async def test_what_the_switch_refuses_costs_its_vif_only(
    br: Bridge, monkeypatch: pytest.MonkeyPatch, wrong: Entries, reason: str, urgent: bool
) -> None:
    """The VIF is silent till its flows are others; all flows of others go in, also those that come later."""
    monkeypatch.setattr(flow_reconciler, "REFUSED_RETRY_S", 0.01)
    vif, later = FlowSource(Category.VIF, "vm1/0"), FlowSource(Category.LOOKUP, "vm1/0")
    async with running(br) as it:
        it.want(SourceChange(vif, (), (flow(1, ONE), *wrong)), *changed(flow(2, OTHER)), urgent=urgent)
        await until(lambda: it.flows.refusal("vm1/0"), "the refusal")
        assert reason in it.flows.refusal("vm1/0")
        revision = it.want(
            *changed(flow(3, RULE)), SourceChange(later, (), (flow(4, cookie(Category.LOOKUP, "vm1/0")),))
        )
        await until(lambda: it.revisions.flows >= revision and it.flows.connected, "the flows of others")
        assert cookies(br) == {OTHER, RULE}
        assert not it.flows.refusal("vm2/0")

        it.want(SourceChange(vif, (flow(1, ONE), *wrong), (flow(1, ONE),)))
        await until(lambda: ONE in cookies(br), "its flows")
        assert cookies(br) == {ONE, OTHER, RULE, cookie(Category.LOOKUP, "vm1/0")}
        assert it.flows.refusal("vm1/0") == ""


async def test_what_the_switch_refused_it_is_sent_again_once_it_may_have_room(
    br: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_reconciler, "REFUSED_RETRY_S", 0.01)
    monkeypatch.setattr(flow_reconciler, "REFUSED_AGAIN_S", 0.5)
    async with running(br) as it:
        br.switch.server.vsctl(
            "--", "--id=@few", "create", "Flow_Table", "flow_limit=1", "overflow_policy=refuse", "--",
            "set", "Bridge", br.name, "flow_tables:0=@few",
        )  # fmt: skip
        it.want(*changed(flow(1, OTHER)))
        await until(lambda: cookies(br) == {OTHER}, "the one that there is room for")
        it.want(*changed(flow(2, ONE)))
        await until(lambda: "OFPFMFC_TABLE_FULL" in it.flows.refusal("vm1/0"), "the refusal")
        br.switch.server.vsctl("clear", "Bridge", br.name, "flow_tables")
        await until(lambda: cookies(br) == {OTHER, ONE}, "both")
        assert it.flows.refusal("vm1/0") == ""


async def test_what_was_wanted_before_the_comparison_is_not_sent_after_it(br: Bridge) -> None:
    """A port's number may have changed in between: then its old flows are no longer desired."""
    it = kept(br)

    def new_numbers() -> None:
        it.want(*changed(flow(1, ONE)))
        it.want(SourceChange(FlowSource(Category.BASE), (flow(1, ONE),), (flow(2, OTHER),)))

    it.observer.on_ports = new_numbers
    task = asyncio.create_task(it.flows.run())
    await until(lambda: it.revisions.flows == 2, "connection")
    assert cookies(br) == {OTHER}
    assert it.flows.messages == 1
    task.cancel()


async def test_flows_of_a_new_port_in_a_new_zone_leave_before_what_is_sent_next(br: Bridge) -> None:
    """What is sent next is the claim: the flows are urgent, and the switch empties the zone before it takes them."""
    zoned = Flow(Match(in_port=1), (Output(2),), table=Table.EGRESS_STATE, cookie=ONE)
    written: list[int] = []
    before: list[int] = []
    async with running(br) as it:
        connection = it.flows._client._connected()  # type: ignore[union-attr]
        write = connection.write
        connection.write = lambda data: (written.append(len(data)), write(data))  # type: ignore[method-assign, assignment, return-value, func-returns-value]
        revision = it.want(*changed(zoned, flow(1, ONE)), urgent=True)
        asyncio.get_running_loop().call_soon(lambda: before.extend(written))
        await it.revisions.reached(revision)
    assert (len(before), before) == (2, written)  # the flush, and all of the bundle


async def test_a_zone_is_emptied_for_another_vif_not_for_a_new_switch(br: Bridge) -> None:
    """Flows that are gone on a new connection are those of an ovs-vswitchd that restarted; a kernel's tracker stays as it is."""
    packet = UDP(sport=1, dport=2)
    frame = bytes(
        Ether(src="0a:00:00:00:00:01", dst="0a:00:00:00:00:02") / IP(src="10.0.0.1", dst="10.0.0.2") / packet
    ).hex()
    br.ofctl("add-flow", "priority=5,udp,actions=ct(commit,zone=1)")

    def connections() -> int:
        return br.switch.appctl("dpctl/dump-conntrack").count("zone=1")

    async def connect() -> None:
        br.receive("p1", frame)
        await until(connections, "a connection")

    def zoned(owner: int, out: int = 2) -> Flow:
        return Flow(Match(in_port=1), (Output(out),), table=Table.EGRESS_STATE, cookie=owner)

    def delivering(segment: int) -> Flow:
        return Flow(Match(reg2=1, metadata=segment), (Output(1),), table=Table.DELIVER, cookie=RULE)

    async with running(br) as it:

        async def change(old: Flow | None, new: Flow | None) -> None:
            source = FlowSource(Category.VIF)
            revision = it.want(SourceChange(source, (old,) if old else (), (new,) if new else ()))
            await it.revisions.reached(revision)

        await change(None, zoned(ONE))
        await connect()
        br.ofctl("del-flows", "table=22")
        await it.flows._client.close()  # type: ignore[union-attr]
        await until(lambda: "table=22" in br.ofctl("dump-flows"), "its flows")
        assert connections(), "a switch that is new"
        await change(zoned(ONE), zoned(ONE, 1))
        assert connections(), "a VIF with other flows"
        await change(zoned(ONE, 1), None)
        await change(None, zoned(ONE))
        assert not connections(), "a VIF that was away"
        await connect()
        await change(zoned(ONE), zoned(RULE))
        assert not connections(), "another VIF"
        await connect()
        here, there = (FlowSource(Category.VIF, "vm1/0", network) for network in "ab")
        moved = [SourceChange(here, (zoned(RULE),), ()), SourceChange(there, (), (zoned(RULE),))]
        await it.revisions.reached(it.want(*moved))
        assert not connections(), "the same VIF with the same flows on another network"
        await connect()
        await change(None, delivering(7))
    # Agents that start find the flows of the last one.
    async with running(br, SourceChange(there, (), (zoned(RULE), delivering(7)))):
        assert connections(), "the same VIF on the same network"
    async with running(br, SourceChange(there, (), (zoned(RULE), delivering(8)))):
        assert not connections(), "the same VIF on another network since"


def away(number: int) -> Flow:
    match = Match(metadata=1, eth_dst=f"0a:00:00:00:{number >> 8:02x}:{number & 255:02x}", reg0=1)
    return Flow(match, (SetField("tun_id", 7), Output(2)), table=Table.LOOKUP, priority=100, cookie=ONE)


async def test_a_switch_without_flows_gets_its_own_ports_first_and_unknown_unicast_last(
    br: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vnet.agent.flow_reconciler.PIECE", 20)
    ways = [away(n) for n in range(45)]
    unknown = Flow(Match(metadata=1), (Output(2),), table=Table.UNKNOWN, cookie=ONE)
    here = flow(1, ONE)
    seen: list[int] = []
    async with OpenFlowClient(br.remote) as observer:
        await observer.on_flow_change(lambda update: seen.append(update.flow.table if update.flow else -1))
        it = kept(br)
        it.want(*changed(unknown, *ways, here))
        task = asyncio.create_task(it.flows.run())
        await until(lambda: it.flows.connected, "connection")
        task.cancel()
        await observer.barrier()
        await until(lambda: len(seen) == len(ways) + 2, "the observer has heard of all")
    assert seen == [here.table, *[Table.LOOKUP] * len(ways), Table.UNKNOWN]
    assert it.flows.messages == len(ways) + 2


async def test_a_switch_that_does_not_tell_of_changes_has_its_flows_read_back(
    br: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Open vSwitch 2.17, which knows the flow monitor of OpenFlow 1.0 only."""

    async def unknown(*_: object) -> int:
        raise PeerError("OFPBRC_BAD_MULTIPART", 1, 2, 0, 1)

    monkeypatch.setattr(OpenFlowClient, "on_flow_change", unknown)
    monkeypatch.setattr("vnet.agent.flow_reconciler.READ_BACK_S", 0.05)
    async with running(br) as it:
        revision = it.want(*changed(flow(1, ONE), flow(2, OTHER)))
        await it.revisions.reached(revision)
        br.ofctl("del-flows", "priority=1,in_port=1", "--strict")
        await until(lambda: cookies(br) == {ONE, OTHER}, "the flow again")
        await until(lambda: it.observer.events == ["drift"], "a word of it")


async def test_groups_that_somebody_deletes_come_back_with_the_flows_that_named_them(br: Bridge) -> None:
    to_parts = Flow(Match(in_port=1), (GroupAction(RECIRCULATED),), priority=1, cookie=ONE)
    revisions, observer = Revisions(), Observer()
    it = Kept(
        BridgeFlows(br.name, LocalAccess(str(br.switch.server.dir)), observer, revisions, GROUPS), revisions, observer
    )
    it.want(*changed(to_parts))
    task = asyncio.create_task(it.flows.run())
    await until(lambda: revisions.flows == 1, "the flow")
    async with OpenFlowClient(it.flows.remote) as client:
        assert set(await client.groups()) == set(GROUPS)
        await client.bundle([GroupMod.delete()])
        await until(lambda: it.flows.connected and observer.events and cookies(br) == {ONE}, "the flow again")
        assert set(await client.groups()) == set(GROUPS)
    task.cancel()
