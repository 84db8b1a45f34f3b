"""Two agents that were started as one host: the first is the host's, the second stands by."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ovsctl.ovsdb import Select, TransactError
from tests.polling import until
from tests.servers import vswitchd
from tests.vnet.agent.pool import TENANT, HostUnderTest, PoolUnderTest, pool_of, vif
from vnet.agent import agent as agents
from vnet.agent import host_claim
from vnet.db.rows import from_row
from vnet.objects import AgentStatus, Event


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    monkeypatch.setattr(agents, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(host_claim, "LOOK_S", 0.05)
    monkeypatch.setattr(host_claim, "SILENT_S", 0.5)
    monkeypatch.setattr(host_claim, "HEARD_SILENT_S", 1.0)


@pytest.fixture
def elsewhere(ovs: None) -> Iterator[HostUnderTest]:
    """Another machine, whose agent is to be started as host xen1 too."""
    with ExitStack() as stack:
        yield HostUnderTest("xen1", stack.enter_context(vswitchd()), [])


def started(pool: PoolUnderTest, second: HostUnderTest) -> HostUnderTest:
    second.remotes = [pool.server.remote]
    second.start()
    return second


async def status_of(pool: PoolUnderTest) -> AgentStatus:
    (rows,) = await pool.client.transact(Select("Agent"))
    return from_row(AgentStatus, rows[0])


async def events_of(pool: PoolUnderTest) -> list[Event]:
    (rows,) = await pool.client.transact(Select("Event"))
    return [from_row(Event, row) for row in rows]


def bridges(host: HostUnderTest) -> str:
    return host.switch.server.vsctl("list-br")


async def test_the_second_stands_by_and_both_are_named(elsewhere: HostUnderTest) -> None:
    async with pool_of("xen1", networks=[TENANT]) as pool:
        first = pool.hosts["xen1"]
        await pool.insert(vif(1, host="xen1"), vif(2, host="xen1"))
        first.add_port("p1", "vm1/0")
        before = await pool.wait_ready("vm1/0", "xen1")
        second = started(pool, elsewhere)

        async def named() -> bool:
            return "agent" in (await status_of(pool)).problems

        await until(named, "the first names the second")
        status = await status_of(pool)
        for switch in (first.agent.claim.status.switch, second.agent.claim.status.switch):
            assert switch
            assert switch in status.problems["agent"]
            assert any(event.kind == "refused" and switch in event.text for event in await events_of(pool))
            assert any(event.kind == "problem" and switch in event.text for event in await events_of(pool))
        assert status.switch == first.agent.claim.status.switch
        assert (await pool.bindings())["vm1/0", "xen1"] == before, "untouched"
        assert bridges(second) == "", "it has not touched its switch"
        first.add_port("p2", "vm2/0")
        await pool.wait_ready("vm2/0", "xen1")
        await second.stop()
        await until(lambda: not first.agent.claim.rival, "it is gone")


async def test_it_takes_over_once_the_first_is_silent(elsewhere: HostUnderTest) -> None:
    async with pool_of("xen1", networks=[TENANT]) as pool:
        first, second = pool.hosts["xen1"], started(pool, elsewhere)
        await until(lambda: first.agent.claim.rival, "the first has heard of it")
        await first.stop()
        await until(lambda: second.agent.complete, "the second is the host's")
        assert (await status_of(pool)).switch == second.agent.claim.status.switch
        await second.stop()


async def test_a_machine_that_was_replaced_is_taken_over_and_a_restart_does_not_wait(
    elsewhere: HostUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of("xen1", networks=[TENANT]) as pool:
        first = pool.hosts["xen1"]
        await first.stop()
        monkeypatch.setattr(host_claim, "SILENT_S", 3600.0)
        first.start()
        await until(lambda: first.agent.complete, "the same switch's agent is the host's at once")
        await first.stop()
        monkeypatch.setattr(host_claim, "SILENT_S", 0.5)
        second = started(pool, elsewhere)
        await until(lambda: second.agent.complete, "the new machine is the host's")
        await second.stop()


async def test_an_agent_that_was_taken_over_claims_nothing_and_ends(
    elsewhere: HostUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "HEARTBEAT_S", 0.5)
    async with pool_of("xen1", networks=[TENANT]) as pool:
        first = pool.hosts["xen1"]
        await pool.insert(vif(1, host="xen1"))
        await until(lambda: first.agent.claim.status.switch, "its switch")
        await pool.update("Agent", ("host", "xen1"), switch="another")
        with pytest.raises(TransactError):
            await pool.client.transact(first.agent.claim.guard)
        first.add_port("p1", "vm1/0")
        assert first.task is not None
        _, pending = await asyncio.wait([first.task], timeout=20)
        assert not pending
        with pytest.raises(BaseExceptionGroup) as ended:
            first.task.result()
        assert ended.group_contains(host_claim.DisplacedAgent)
        assert await pool.bound() == set()
        first.task = None
