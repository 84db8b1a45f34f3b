"""The flows of ours on a switch: what FlowKeeper sends, and what it makes of a refusal, on a real Open vSwitch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from ovsctl.openflow import Flow, FlowMod, Match, Output, SetField
from ovsctl.openflow.client import OpenFlowClient
from tests.ovsctl.openflow.support import Bridge, bridge
from tests.vnet.agent.pool import until
from vnet.agent.flow_reconciler import FlowKeeper
from vnet.compile import Category, Change, Source, Table, cookie

ONE, OTHER = cookie(Category.VIF, "vm1/0"), cookie(Category.LOOKUP, "vm1/0")
RULE = cookie(Category.GROUP, "web")
REFUSED = Flow(Match(in_port=1), (SetField("tcp_dst", 80), Output(2)), priority=99, cookie=ONE)  # without prerequisite


def flow(priority: int, cookie: int) -> Flow:
    return Flow(Match(in_port=1), (Output(2),), priority=priority, cookie=cookie)


@pytest.fixture
def br(ovs: None) -> Iterator[Bridge]:
    with bridge() as made:
        yield made


@asynccontextmanager
async def keeper(br: Bridge, refused: list[str]) -> AsyncIterator[FlowKeeper]:
    """A keeper that is connected and holds the switch to nothing yet."""
    made = keeper_of(br, lambda: None, refused)
    task = asyncio.create_task(made.run())
    try:
        await until(lambda: made.connected, "connection")
        yield made
    finally:
        task.cancel()


def keeper_of(br: Bridge, bring_up_to_date: Callable[[], None], refused: list[str]) -> FlowKeeper:
    nothing = lambda *_: None  # noqa: E731
    made = FlowKeeper(br.remote, nothing, nothing, nothing, nothing, bring_up_to_date, lambda _: False, refused.append)
    made.start()
    return made


def cookies(br: Bridge) -> set[int]:
    return {int(text.split(",")[0], 16) for text in br.ofctl("dump-flows").split("cookie=")[1:]}


async def test_a_vif_is_silent_after_its_flows_were_sent_at_once_and_one_was_refused(br: Bridge) -> None:
    refused: list[str] = []
    async with keeper(br, refused) as flows:
        mods = [FlowMod.add(flow(1, ONE)), FlowMod.add(REFUSED), FlowMod.add(flow(2, OTHER))]
        assert not await flows.push(mods, at_once=True)
        assert cookies(br) == {OTHER}
        assert len(refused) == 1
        assert not flows.connected  # until everything has been compared


async def test_a_groups_flows_are_not_sent_at_once(br: Bridge) -> None:
    refused: list[str] = []
    async with keeper(br, refused) as flows:
        mods = [FlowMod.add(flow(1, ONE)), FlowMod.add(REFUSED), FlowMod.add(flow(2, RULE))]
        assert not await flows.push(mods, at_once=True)
        assert cookies(br) == set()


async def test_a_refused_push_applies_nothing(br: Bridge) -> None:
    refused: list[str] = []
    async with keeper(br, refused) as flows:
        assert not await flows.push([FlowMod.add(flow(1, ONE)), FlowMod.add(REFUSED)])
        assert not await flows.push([FlowMod.add(REFUSED)])
        assert cookies(br) == set()
        assert len(refused) == 1


def changed(*flows: Flow) -> list[Change]:
    return [Change(Source(Category.BASE), (), flows)]


async def test_what_was_wanted_before_the_comparison_is_not_sent_after_it(br: Bridge) -> None:
    """A port's number may have changed in between: then its old flows are no longer desired."""
    waiting: list[asyncio.Task[bool]] = []

    def bring_up_to_date() -> None:
        old = flows.want(changed(flow(1, ONE)))
        waiting.append(asyncio.create_task(flows.push(old)))  # waits, as the agent's loop does, until all was compared
        flows.want([Change(Source(Category.BASE), (flow(1, ONE),), (flow(2, OTHER),))])

    flows = keeper_of(br, bring_up_to_date, [])
    task = asyncio.create_task(flows.run())
    await until(lambda: flows.connected, "connection")
    assert await waiting[0]
    assert cookies(br) == {OTHER}
    task.cancel()


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
        flows = keeper_of(br, lambda: None, [])
        flows.want(changed(unknown, *ways, here))
        task = asyncio.create_task(flows.run())
        await until(lambda: flows.connected, "connection")
        task.cancel()
        await observer.barrier()
        await until(lambda: len(seen) == len(ways) + 2, "the observer has heard of all")
    assert seen == [here.table, *[Table.LOOKUP] * len(ways), Table.UNKNOWN]
    assert flows.messages == len(ways) + 2
