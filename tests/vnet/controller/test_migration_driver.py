"""Migrations through the API of a real controller; agents are played by rows, written as agents write them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import HOSTS, FakeAgent, opened
from vnet.api import errors
from vnet.client import AsyncClient, Conflict, NotFound, TimedOut, Unit, VifSpec
from vnet.controller import migration_driver
from vnet.controller.service import Service
from vnet.db.database import PoolDatabase
from vnet.objects import BindingState


@pytest.fixture
async def pool(running: Controller, client: AsyncClient) -> AsyncIterator[PoolDatabase]:
    async with opened(running.database.remote) as database:
        for host in HOSTS:
            await FakeAgent(database, host, client).beat(1)
        yield database


@pytest.fixture
async def web(client: AsyncClient, pool: PoolDatabase) -> AsyncIterator[Unit]:
    """VM web runs on xen1 with two VIFs; VM db on xen3 shares a network with it."""
    for id, network, vm, host in [
        ("web/0", "tenant", "web", "xen1"),
        ("web/1", "prod", "web", "xen1"),
        ("db/0", "tenant", "db", "xen3"),
    ]:
        await client.put_vif(id, VifSpec(network=network, vm=vm, host=host))
        await FakeAgent(pool, host, client).claim(id)
    yield Unit.of_vm("web")
    for vm in ("web", "db"):
        await client.delete_vm(vm)


async def take(
    client: AsyncClient, pool: PoolDatabase, host: str, *vifs: str, senders: tuple[str, ...] = ("xen1", "xen3")
) -> None:
    """Play the agents as the toolstack plugs these VIFs on `host`: once asked, it claims, and the senders follow."""
    for vif in vifs:
        await pool.wait_for(lambda view, vif=vif: view.state.vifs[vif].incoming == host, 10)  # type: ignore[misc]
        await FakeAgent(pool, host, client).claim(vif)
        for sender in senders:
            await FakeAgent(pool, sender, client).acknowledge(vif, host)


async def hosts_of(client: AsyncClient, vm: str) -> set[str | None]:
    return {vif.place.host for vif in (await client.vm(vm)).vifs}


async def test_the_single_calls_each_repeated(client: AsyncClient, pool: PoolDatabase, web: Unit) -> None:
    for _ in range(2):
        status = await client.prepare(web, "xen2")
        assert (status.phase, status.source, status.destination) == ("preparing", "xen1", "xen2")
    assert "host xen2: no port with external_ids:iface-id=web/0 there yet" in status.waiting
    with pytest.raises(Conflict, match="not prepared"):
        await client.activate(web)
    await take(client, pool, "xen2", "web/0", "web/1")
    assert (await client.migration(web)).phase == "prepared"
    for _ in range(2):
        assert (await client.switch(web)).phase == "receiving"
    states = {b.vif: b.state for b in await client.bindings(host="xen2")}
    assert states == {"web/0": "receiving", "web/1": "receiving"}
    with pytest.raises(Conflict, match="activate it first"):
        await client.finish(web)
    for _ in range(2):
        assert (await client.activate(web)).phase == "active"
    with pytest.raises(Conflict, match="runs on host xen2 already"):
        await client.abort(web)
    for _ in range(2):
        assert (await client.finish(web)).phase == "none"
    assert (await client.prepare(web, "xen2")).phase == "none"  # it is there: the first call again is no new one
    vm = await client.vm("web")
    assert {(vif.host, vif.place.host) for vif in vm.vifs} == {("xen2", "xen2")}
    kinds = [event.kind for event in await client.events(20, vif="web/0")]
    assert [k for k in kinds if k.startswith(("migration", "vif-r", "vif-a"))][-4:] == [
        "migration-started",
        "vif-receiving",
        "vif-active",
        "migration-finished",
    ]


async def test_abort_takes_the_destination_away_in_one_transaction(
    client: AsyncClient, pool: PoolDatabase, web: Unit
) -> None:
    await client.prepare(web, "xen2")
    await take(client, pool, "xen2", "web/0")
    torn: list[set[str | None]] = []
    pool.subscribe(lambda _: torn.append({vif.incoming for vif in pool.view().vifs("web")}))
    for _ in range(2):
        assert (await client.abort(web)).phase == "none"
    assert await client.bindings(host="xen2") == []
    assert await hosts_of(client, "web") == {"xen1"}
    assert all(len(incoming) == 1 for incoming in torn if incoming)


async def test_abort_and_the_guests_announcement_at_once_end_in_one_of_the_two(
    client: AsyncClient, pool: PoolDatabase, web: Unit
) -> None:
    await client.prepare(web, "xen2")
    await take(client, pool, "xen2", "web/0", "web/1")
    agent = FakeAgent(pool, "xen2", client)
    results = await asyncio.gather(
        client.abort(web), agent.set_state("web/0", BindingState.ACTIVE), return_exceptions=True
    )
    vm = await client.vm("web")
    if isinstance(results[0], Conflict):
        assert vm.migration.destination == "xen2"
        await agent.set_state("web/1", BindingState.ACTIVE)
        await client.finish(web)
    else:
        assert {vif.incoming for vif in vm.vifs} == {None}
        assert await client.bindings(host="xen2") == []


async def test_the_whole_way_with_the_controller_switching(client: AsyncClient, pool: PoolDatabase, web: Unit) -> None:
    lines: list[str] = []
    under_way = asyncio.create_task(client.migrate(web, "xen2", activate=True, timeout_s=30, progress=lines.append))
    await take(client, pool, "xen2", "web/0", "web/1")
    assert (await asyncio.wait_for(under_way, 20)).phase == "none"
    assert await hosts_of(client, "web") == {"xen2"}
    assert "VM web is being prepared" in lines[0]
    assert lines[-2:] == ["VM web is active on host xen2", "VM web runs on host xen2"]
    assert (await client.migrate(web, "xen2")).phase == "none"


async def test_the_whole_way_with_the_guest_announcing_itself(
    client: AsyncClient, pool: PoolDatabase, web: Unit
) -> None:
    under_way = asyncio.create_task(client.migrate(web, "xen3", timeout_s=30))
    await take(client, pool, "xen3", "web/0", "web/1", senders=("xen1",))
    for vif in ("web/0", "web/1"):
        assert not under_way.done()
        await FakeAgent(pool, "xen3", client).set_state(vif, BindingState.ACTIVE)
    await asyncio.wait_for(under_way, 20)
    assert await hosts_of(client, "web") == {"xen3"}


async def test_a_lost_driver_is_replaced_by_calling_again(client: AsyncClient, pool: PoolDatabase, web: Unit) -> None:
    with pytest.raises(TimedOut, match=r"not within 0.1 s: VM web is being prepared") as caught:
        await client.migrate(web, "xen2", timeout_s=0.1)
    assert caught.value.code == "timeout"
    first = asyncio.create_task(client.migrate(web, "xen2", activate=True, timeout_s=30))
    await take(client, pool, "xen2", "web/0")
    first.cancel()
    again = asyncio.create_task(client.migrate(web, "xen2", activate=True, timeout_s=30))
    await take(client, pool, "xen2", "web/1")
    await asyncio.wait_for(again, 20)
    assert await hosts_of(client, "web") == {"xen2"}


async def test_an_abort_ends_the_driver(client: AsyncClient, pool: PoolDatabase, web: Unit) -> None:
    under_way = asyncio.create_task(client.migrate(web, "xen2", timeout_s=30))
    await pool.wait_for(lambda view: view.state.vifs["web/0"].incoming == "xen2", 10)
    await client.abort(web)
    with pytest.raises(Conflict, match="was aborted"):
        await asyncio.wait_for(under_way, 10)


async def test_a_single_vif_moves_alone(client: AsyncClient, pool: PoolDatabase, web: Unit) -> None:
    under_way = asyncio.create_task(client.migrate(Unit.of_vif("web/1"), "xen2", activate=True, timeout_s=30))
    await take(client, pool, "xen2", "web/1", senders=("xen1",))
    await asyncio.wait_for(under_way, 20)
    assert await hosts_of(client, "web") == {"xen1", "xen2"}


async def test_evacuation_moves_units_side_by_side(client: AsyncClient, pool: PoolDatabase, web: Unit) -> None:
    await client.put_vif("lone", VifSpec(network="prod", host="xen1"))
    await FakeAgent(pool, "xen1", client).claim("lone")
    lines: list[str] = []
    under_way = asyncio.create_task(
        client.evacuate("xen1", to="xen2", activate=True, timeout_s=30, progress=lines.append)
    )
    await take(client, pool, "xen2", "lone", "web/0", "web/1")
    done = await asyncio.wait_for(under_way, 20)
    assert done.moved == {"web": "xen2", "lone": "xen2"}
    assert lines[-1] == "host xen1 runs nothing"
    for vif in ("web/0", "web/1", "lone"):
        await FakeAgent(pool, "xen1", client).release(vif)
    assert (await client.evacuate("xen1")).moved == {}
    await client.delete_vif("lone")


async def test_an_evacuation_goes_on_past_guests_that_never_announce_themselves(
    client: AsyncClient, pool: PoolDatabase, web: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration_driver, "UNITS_AT_ONCE", 1)
    monkeypatch.setattr(migration_driver, "SLOT_S", 0.3)
    for vm in ("a", "b"):  # in this order, and web last
        await client.put_vif(f"{vm}/0", VifSpec(network="prod", vm=vm, host="xen1"))
        await FakeAgent(pool, "xen1", client).claim(f"{vm}/0")
    lines: list[str] = []

    async def evacuate() -> None:
        async for line, _ in migration_driver.evacuate(Service(pool), "xen1", "xen2", activated=False, timeout_s=5):
            lines.append(line)

    evacuating = asyncio.create_task(evacuate())
    await take(client, pool, "xen2", "web/0", "web/1")
    for vif in ("web/0", "web/1"):
        await FakeAgent(pool, "xen2", client).set_state(vif, BindingState.ACTIVE)
    with pytest.raises(errors.TimedOut) as caught:
        await asyncio.wait_for(evacuating, 20)
    assert "VM web runs on host xen2" in lines
    assert "VM a is being prepared" in caught.value.message
    assert "VM b is being prepared" in caught.value.message
    for vm in ("a", "b"):
        await client.abort(Unit.of_vm(vm))
        await FakeAgent(pool, "xen1", client).release(f"{vm}/0")
        await client.delete_vm(vm)


async def test_what_cannot_be_migrated(client: AsyncClient, web: Unit) -> None:
    with pytest.raises(NotFound):
        await client.migrate(Unit.of_vm("nobody"), "xen2")
    with pytest.raises(Conflict, match="host xen9 is not in the pool"):
        await client.prepare(web, "xen9")
    with pytest.raises(NotFound):
        await client.evacuate("xen9")
    await client.put_vif("idle/0", VifSpec(network="tenant", vm="idle"))
    with pytest.raises(Conflict, match="VM idle: runs on no host"):
        await client.migrate(Unit.of_vm("idle"), "xen2")
    await client.delete_vm("idle")
