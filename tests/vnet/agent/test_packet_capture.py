"""A host that watches: flows while it does and none after, what it sends and what it refuses, and what it forgets by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from ovsctl.ovsdb import Delete, Insert, Select, Update
from tests.polling import until
from tests.vnet.agent.pool import LAB, TENANT, HostUnderTest, PoolUnderTest, now_ms, pool_of, vif
from vnet.agent import packet_capture
from vnet.compile import Category, cookie, mark
from vnet.db.watches import Marked, Report, Seen, columns_of, decode_report
from vnet.objects import Network, NetworkType
from vnet.sim.packets import End, Talk, resolve
from vnet.util.frames import BROADCAST, ethernet, rarp

VLAN = Network("prod", NetworkType.VLAN, 3, 1500, key=5003, tag=120, uplink="trunk0")


@pytest.fixture
async def pool(ovs: None) -> AsyncIterator[PoolUnderTest]:
    """Two VIFs on xen1, one on xen2."""
    async with pool_of("xen1", "xen2", networks=(TENANT, LAB, VLAN)) as made:
        await made.insert(vif(1), vif(2), vif(3), vif(4, network="prod"))
        for number, host in ((1, "xen1"), (2, "xen1"), (3, "xen2"), (4, "xen1")):
            made.hosts[host].add_port(f"p{number}", f"vm{number}/0")
        for number, host in ((1, "xen1"), (2, "xen1"), (3, "xen2")):
            await made.wait_ready(f"vm{number}/0", host)
        yield made


def ping(source: int, target: int, nonce: int = 7) -> bytes:
    ends = [End(f"0a:00:00:00:00:{number:02x}", f"10.1.0.{number}") for number in (source, target)]
    return mark(Talk(*ends).frame(), nonce)


def ask(source: int, nonce: int = 7) -> bytes:
    ends = [End(f"0a:00:00:00:00:{number:02x}", f"10.1.0.{number}") for number in (source, 9)]
    return mark(resolve(Talk(*ends))[0], nonce)


class Watching:
    """A watch as its controller writes it."""

    def __init__(
        self, pool: PoolUnderTest, *frames: tuple[bytes, str], id: str = "w", hosts: Iterable[str] = ("xen1", "xen2")
    ) -> None:
        self.pool, self.id, self.hosts = pool, id, sorted(hosts)
        self.frames = [Marked(frame.hex(), sender) for frame, sender in frames]

    async def open(self) -> None:
        rows = [dict(columns_of(self.id, host, now_ms(), self.hosts, self.frames)) for host in self.hosts]
        await self.pool.client.transact(*(Insert("Watch", row) for row in rows))

    async def report(self, host: str) -> Report | None:
        where = (("id", "==", self.id), ("host", "==", host))
        (rows,) = await self.pool.client.transact(Select("Watch", where, ("report",)))
        return decode_report(rows[0]["report"]) if rows and rows[0]["report"] else None

    async def watched(self) -> None:
        for host in self.hosts:
            assert not (await until(lambda host=host: self.report(host), f"{host} watches")).problem  # type: ignore[misc]

    async def release(self, host: str, *numbers: int) -> None:
        where = (("id", "==", self.id), ("host", "==", host))
        await self.pool.client.transact(Update("Watch", where, {"release": frozenset(numbers)}))

    async def said(self, host: str, **wanted: Any) -> Report:
        async def done() -> Report | None:
            found = await self.report(host)
            same = found is not None and all(getattr(found, name) == value for name, value in wanted.items())
            return found if same else None

        found = await until(done, f"{host} says {wanted}, not {await self.report(host)}")
        assert isinstance(found, Report)
        return found

    async def close(self) -> None:
        await self.pool.client.transact(Delete("Watch", (("id", "==", self.id),)))


def watch_flows(host: HostUnderTest) -> list[str]:
    return host.flows(f"cookie={cookie(Category.PROBE, ''):#x}/{0xFFFFFF << 40:#x}")


async def test_flows_are_there_while_a_host_watches_and_none_after(
    pool: PoolUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_capture, "LINGER_S", 0.3)
    first = {host.name: host.flows() for host in pool.hosts.values()}
    watch = Watching(pool, (ping(1, 2), "vm1/0"), (ask(1), "vm1/0"))
    await watch.open()
    await watch.watched()
    assert [len(watch_flows(host)) for host in pool.hosts.values()] == [4, 4]
    await watch.release("xen1", 0, 1)
    report = await watch.said("xen1", sent=[0, 1], caught=[Seen(0, "vm2/0"), Seen(1, "vm2/0")])
    assert report.came == [Seen(0, "vm1/0"), Seen(1, "vm1/0")]
    await watch.close()
    assert all(watch_flows(host) for host in pool.hosts.values())  # what is late must not reach a guest either
    for host in pool.hosts.values():
        await until(lambda host=host: host.flows() == first[host.name], "the flows are as before")  # type: ignore[misc]
        assert host.agent.compiler.view.probes == {}
    assert "drift" not in await pool.events()


async def test_what_a_host_does_not_send(pool: PoolUnderTest) -> None:
    async def bound() -> bool:
        return ("vm4/0", "xen1") in await pool.bound()

    await until(bound, "vm4 is on xen1")
    foreign = mark(ethernet("0a:00:00:00:00:02", "0a:00:00:00:00:77", 0x0800, ping(1, 2)[14:]), 1)
    frames = [
        (ping(1, 2), "vm1/0"), (ping(1, 2, 8), "vm3/0"), (foreign, "vm1/0"), (ask(4, 9), "vm4/0"),
    ]  # fmt: skip
    watch = Watching(pool, *frames, hosts=["xen1"])
    await watch.open()
    await watch.watched()
    await watch.release("xen1", 0, 1, 2, 3, 99)

    async def all_said() -> Report | None:
        found = await watch.report("xen1")
        return found if found is not None and len(found.refused) == 5 else None

    refused = (await until(all_said, "refused")).refused
    assert "host xen2 has VIFs of network tenant by now, and does not watch" in refused[0]
    assert "VIF vm3/0 does not run on host xen1" in refused[1]
    assert "does not watch for it" in refused[99]
    assert "stations outside" in refused[3]
    assert not (await watch.report("xen1") or Report()).sent
    watch = Watching(pool, (foreign, "vm1/0"), id="v")
    await watch.open()
    assert "such a frame already" in (await until(lambda: watch.report("xen1"), "refused")).problem
    watch = Watching(pool, (mark(foreign, 2), "vm1/0"), id="u")
    await watch.open()
    await watch.watched()
    await watch.release("xen1", 0)

    async def refused_it() -> Report | None:
        found = await watch.report("xen1")
        return found if found is not None and found.refused else None

    assert "not the VIF's own MAC" in (await until(refused_it, "refused")).refused[0]


@pytest.mark.parametrize(
    "frame", [Talk(End("0a:00:00:00:00:01", "10.1.0.1"), End(BROADCAST, "10.1.0.2")).frame(), rarp("0a:00:00:00:00:01")]
)
async def test_no_host_watches_for_a_frame_without_a_mark(pool: PoolUnderTest, frame: bytes) -> None:
    watch = Watching(pool, (ping(1, 2), "vm1/0"), (frame, "vm1/0"))
    await watch.open()
    for host in pool.hosts:
        assert "mark" in (await until(lambda host=host: watch.report(host), "refused")).problem  # type: ignore[misc]
    assert not any(watch_flows(host) for host in pool.hosts.values())


async def test_two_watches_at_a_time_do_not_end_each_other(
    pool: PoolUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_capture, "LINGER_S", 0.0)
    one, same, other = (
        Watching(pool, (ping(1, 2, nonce), "vm1/0"), id=id) for id, nonce in (("one", 7), ("same", 7), ("other", 8))
    )
    for watch in (one, same, other):
        await watch.open()
    await one.watched()
    await other.watched()
    assert "try again" in (await until(lambda: same.report("xen1"), "refused")).problem
    await same.close()
    await other.close()
    await until(lambda: len(watch_flows(pool.hosts["xen1"])) == 2, "one watch is left")
    await one.release("xen1", 0)
    await one.said("xen1", sent=[0], caught=[Seen(0, "vm2/0")])


async def test_a_watch_is_forgotten_without_the_database(pool: PoolUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_capture, "FORGOTTEN_AFTER_S", 1.0)
    watch = Watching(pool, (ping(1, 2), "vm1/0"))
    await watch.open()
    await watch.watched()
    pool.server.stop()
    assert all(watch_flows(host) for host in pool.hosts.values())
    for host in pool.hosts.values():
        await until(lambda host=host: not watch_flows(host), "forgotten")  # type: ignore[misc]


async def test_an_agent_that_starts_anew_goes_on_watching_and_sends_nothing_twice(pool: PoolUnderTest) -> None:
    """In between, and as it compares its flows with the switch's, those that watch stay as they are."""
    host = pool.hosts["xen1"]
    watch = Watching(pool, (ping(1, 2), "vm1/0"), (ping(2, 1), "vm2/0"))
    await watch.open()
    await watch.watched()
    await watch.release("xen1", 0)
    await watch.said("xen1", sent=[0])
    before = watch_flows(host)
    with_ids = host.switch.ofctl("dump-flows", "br-int", f"cookie={cookie(Category.PROBE, 'w'):#x}/-1")
    await host.stop()
    assert watch_flows(host) == before
    host.start()
    await watch.said("xen1", sent=[], caught=[])
    await until(lambda: host.agent.flows.connected, "connected")
    assert watch_flows(host) == before
    after = host.switch.ofctl("dump-flows", "br-int", f"cookie={cookie(Category.PROBE, 'w'):#x}/-1")
    assert _age(after) > _age(with_ids)
    await watch.release("xen1", 0, 1)
    await watch.said("xen1", sent=[1], caught=[Seen(1, "vm1/0")])


def _age(flows: str) -> float:
    """The youngest flow's age in seconds: a flow that was put in anew would be young."""
    return min(float(line.split("duration=")[1].split("s")[0]) for line in flows.splitlines() if "duration=" in line)


async def test_more_sightings_than_a_report_holds_are_counted(
    pool: PoolUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_capture, "MAX_SEEN", 3)
    watch = Watching(pool, *((ping(1, 2, nonce), "vm1/0") for nonce in range(4)))
    await watch.open()
    await watch.watched()
    await watch.release("xen1", 0, 1, 2, 3)
    report = await watch.said("xen1", sent=[0, 1, 2, 3], left_off=5)
    assert len(report.came) + len(report.caught) == 3
