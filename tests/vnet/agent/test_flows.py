"""The flows of ours on a switch: what FlowKeeper sends, and what it makes of a refusal, on a real Open vSwitch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from ovsctl.openflow import Flow, FlowMod, Match, Output, SetField
from tests.ovsctl.openflow.support import Bridge, bridge
from tests.vnet.agent.pool import until
from vnet.agent.flows import FlowKeeper
from vnet.compile import COOKIE_MARK

ONE, OTHER = COOKIE_MARK | 1, COOKIE_MARK | 2
REFUSED = Flow(Match(in_port=1), (SetField("tcp_dst", 80), Output(2)), priority=99, cookie=ONE)  # without prerequisite


def flow(priority: int, cookie: int) -> Flow:
    return Flow(Match(in_port=1), (Output(2),), priority=priority, cookie=cookie)


@pytest.fixture
def br() -> Iterator[Bridge]:
    with bridge() as made:
        yield made


@asynccontextmanager
async def keeper(br: Bridge, refused: list[str]) -> AsyncIterator[FlowKeeper]:
    """A keeper that is connected and holds the switch to nothing yet."""
    made = FlowKeeper(
        br.remote, lambda _: None, lambda _: None, lambda: None, lambda: None, lambda _: False, refused.append
    )
    made.start()
    task = asyncio.create_task(made.run())
    try:
        await until(lambda: made.connected, "connection")
        yield made
    finally:
        task.cancel()


def cookies(br: Bridge) -> set[int]:
    return {int(text.split(",")[0], 16) for text in br.ofctl("dump-flows").split("cookie=")[1:]}


async def test_what_is_sent_at_once_and_refused_leaves_nothing_of_the_same_object_open(br: Bridge) -> None:
    refused: list[str] = []
    async with keeper(br, refused) as flows:
        mods = [FlowMod.add(flow(1, ONE)), FlowMod.add(REFUSED), FlowMod.add(flow(2, OTHER))]
        assert not await flows.push(mods, at_once=True)
        assert cookies(br) == {OTHER}
        assert len(refused) == 1
        assert not flows.connected  # until everything has been compared


async def test_a_refused_push_applies_nothing(br: Bridge) -> None:
    refused: list[str] = []
    async with keeper(br, refused) as flows:
        assert not await flows.push([FlowMod.add(flow(1, ONE)), FlowMod.add(REFUSED)])
        assert not await flows.push([FlowMod.add(REFUSED)])
        assert cookies(br) == set()
        assert len(refused) == 1
