"""A host that captures: what bounds it, and what it ends by without its controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ovsctl.ovsdb import Select, Update
from tests.polling import until
from tests.vnet.agent.capturing import VIFS, Asking
from tests.vnet.agent.pool import LAB, TENANT, PoolUnderTest, pool_of, vif
from vnet.agent import vif_capture
from vnet.compile import CAPTURES, Category, cookie
from vnet.db.captures import CapturedVif, unpacked
from vnet.util.frames import ethernet

OWN = "ether proto 0x88b5"  # and not what an agent announces


@pytest.fixture
async def pool(ovs: None) -> AsyncIterator[PoolUnderTest]:
    """Two VIFs on xen1."""
    async with pool_of("xen1", networks=(TENANT, LAB)) as made:
        await made.insert(vif(1), vif(2))
        for number in (1, 2):
            made.hosts["xen1"].add_port(f"p{number}", f"vm{number}/0")
        for number in (1, 2):
            await made.wait_ready(f"vm{number}/0", "xen1")
        yield made


def flows(pool: PoolUnderTest) -> list[str]:
    return pool.hosts["xen1"].flows(f"cookie={cookie(Category.CAPTURE, ''):#x}/{0xFFFFFF << 40:#x}")


def send(pool: PoolUnderTest, size: int = 60) -> None:
    """vm1 sends a frame to vm2."""
    frame = ethernet("0a:00:00:00:00:02", "0a:00:00:00:00:01", 0x88B5, bytes(size))
    pool.hosts["xen1"].switch.appctl("netdev-dummy/receive", "p1", frame.hex())


async def test_a_report_waits_until_the_one_before_was_taken(pool: PoolUnderTest) -> None:
    asking = Asking(pool, filter=OWN)
    await asking.begin()
    await asking.measured()
    assert {*asking.reports[-1].here} == {"vm1/0", "vm2/0"}
    assert [report.beat for report in asking.reports] == [1, 2, 3]
    assert all(report.heard <= report.made for report in asking.reports)
    send(pool)
    while not (report := await asking.take()).frames:
        pass
    (sent,) = unpacked(report.frames, 4)
    assert (sent.interface, sent.length) == (0, 74)
    number, running = asking.number, pool.hosts["xen1"].agent.captures
    await pool.client.transact(Update("Capture", asking.where, {"taken": 0}))
    for _ in range(3):
        send(pool)
    (held,) = (it for it in running._running.values())
    await until(lambda: len(held.ring) == 3, "the frames wait")
    await asyncio.sleep(2 * vif_capture.PAUSE_S)
    (rows,) = await pool.client.transact(Select("Capture", asking.where, ("number",)))
    assert rows[0]["number"] <= number + 1
    await asking.end()
    await until(lambda: not flows(pool), "the flows go")


async def test_it_stops_while_its_controller_is_silent(pool: PoolUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking(pool)
    await asking.begin()
    await asking.measured()
    assert flows(pool)
    monkeypatch.setattr(vif_capture, "LEASE_S", 0.2)
    await until(lambda: not flows(pool), "the flows go without a beat")
    monkeypatch.setattr(vif_capture, "LEASE_S", 60.0)
    await pool.client.transact(Update("Capture", asking.where, {"beat": 99}))
    await until(lambda: flows(pool), "they come again with the next one")
    assert "drift" not in await pool.events()
    await asking.end()


async def test_a_ring_that_is_full_drops_and_counts(pool: PoolUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vif_capture, "RING_BYTES", 5 * (74 + vif_capture.OF_A_FRAME))
    monkeypatch.setattr(vif_capture, "MEASURED", 1000)  # nothing is reported
    asking = Asking(pool, vifs=VIFS[:1], filter=OWN)
    await asking.begin()
    await asking.take()
    await until(lambda: flows(pool), "it captures")
    for _ in range(9):
        send(pool)
    (held,) = (it for it in pool.hosts["xen1"].agent.captures._running.values())
    await until(lambda: held.tallies[0][vif_capture.Tally.RECEIVED] == 9, "all came")
    assert len(held.ring) == 5
    while (counts := (await asking.take()).counts[0]).came < 9:
        pass
    assert (counts.came, counts.dropped) == (9, 4)
    await asking.end()


async def test_what_a_host_does_not_capture(pool: PoolUnderTest) -> None:
    filtered = Asking(pool, "filtered", filter="tcp port nosuch")
    await filtered.begin()
    report = await filtered.take()
    assert report.ended
    assert "xen1" in report.problem
    assert "nosuch" in report.problem
    many = [Asking(pool, f"c{number}") for number in range(CAPTURES + 1)]
    for asking in many:
        await asking.begin()
    reports = [await asking.take() for asking in many]
    assert [report.problem != "" for report in reports] == [False] * CAPTURES + [True]
    for asking in many:
        await asking.end()
    await until(lambda: not flows(pool), "the flows go")
    again = Asking(pool, "again", vifs=[CapturedVif("nosuch/0", "tenant")])
    await again.begin()
    report = await again.take()
    assert (report.problem, report.here) == ("", [])
    await again.end()
