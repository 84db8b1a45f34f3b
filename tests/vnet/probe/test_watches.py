"""The controller's half of sending marked packets: who watches, what is let go when, and that no watch stays behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ovsctl.ovsdb import Insert, OvsdbClient, Select, Update, Wait
from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import FakeAgent
from vnet.api import PacketCall, PacketsCall
from vnet.client import AsyncClient, Invalid, NotFound, VifSpec
from vnet.compile import mark
from vnet.controller.packet_injection import watchers
from vnet.db import captures
from vnet.db.captures import CapturedVif, CapturePlan
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.probes import FORGOTTEN_AFTER_MS
from vnet.db.view import PoolView
from vnet.db.watches import Marked, Report, Seen, columns_of, watch_from_row
from vnet.objects import Binding, Host, Network, NetworkType, PoolState, Uplink
from vnet.sim.packets import End, Talk

HOME = {"a/0": "xen1", "b/0": "xen2", "c/0": "xen3"}


def frame(nonce: int) -> str:
    ends = End("0a:00:00:00:00:01", "10.1.0.1"), End("0a:00:00:00:00:02", "10.1.0.2")
    return mark(Talk(*ends).frame(), nonce).hex()


@pytest.fixture
async def hosts(client: AsyncClient, pool: PoolDatabase) -> None:
    """a and b on the tunnel network of xen1 and xen2; c on the VLAN, on xen3."""
    for number, (vif, host) in enumerate(HOME.items(), 1):
        network = "prod" if vif == "c/0" else "tenant"
        await client.put_vif(
            vif, VifSpec(network=network, mac=f"0a:00:00:00:00:0{number}", addresses=[f"10.1.0.{number}"])
        )
        agent = FakeAgent(pool, host, client)
        await agent.beat()
        if vif not in pool.mirror.view(frozenset()).bindings_of:
            await agent.claim(vif)


async def watches(rows: OvsdbClient) -> dict[str, Any]:
    (found,) = await rows.transact(Select("Watch"))
    return {row["host"]: row for row in found}


async def wait_for(rows: OvsdbClient, **columns: Any) -> None:
    """Until there is a row with these."""
    where = tuple((name, "==", value) for name, value in columns.items())
    await rows.transact(Wait("Watch", where, ("host",), (), "!=", 10_000))


async def report(rows: OvsdbClient, host: str, said: Report) -> None:
    await rows.transact(Update("Watch", (("host", "==", host),), {"report": said.encode()}))


async def test_nothing_goes_before_all_watch_and_each_in_its_turn(
    client: AsyncClient, hosts: None, rows: OvsdbClient
) -> None:
    packets = [
        PacketCall(frame=frame(1), vif="a/0", to="b/0", expect=["b/0"]),
        PacketCall(frame=frame(2), vif="b/0", to="a/0", round=1, after=0, expect=["a/0"]),
        PacketCall(frame=frame(3), vif="a/0", to="b/0", round=2, after=1, expect=["b/0"]),
    ]
    call = asyncio.create_task(client.packets(PacketsCall(packets=packets, wait_s=10.0)))
    await wait_for(rows, host="xen2")
    found = await watches(rows)
    assert found.keys() == {"xen1", "xen2"}
    plan = watch_from_row(found["xen1"])
    assert (plan.hosts, [one.hex() for one in plan.frames]) == ({"xen1", "xen2"}, [packet.frame for packet in packets])
    await report(rows, "xen1", Report())
    await asyncio.sleep(0.2)
    assert not any(row["release"] for row in (await watches(rows)).values())
    await report(rows, "xen2", Report())
    await wait_for(rows, host="xen1", release=frozenset({0}))
    assert not (await watches(rows))["xen2"]["release"]
    await report(rows, "xen1", Report(sent=[0], came=[Seen(0, "a/0")]))
    await report(rows, "xen2", Report(came=[Seen(0, "vnet-vxlan")], caught=[Seen(0, "b/0", "00")]))
    await wait_for(rows, host="xen2", release=frozenset({1}))
    await report(
        rows, "xen2", Report(sent=[1], caught=[Seen(0, "b/0", "00")], came=[Seen(0, "vnet-vxlan")])
    )  # and it is lost
    said = await call
    assert (said.hosts, said.problems, [packet.sent for packet in said.packets]) == (
        ["xen1", "xen2"],
        [],
        [True, True, False],
    )
    first, second, third = said.packets
    assert [(one.host, one.where, one.changed) for one in first.caught] == [("xen2", "b/0", "00")]
    assert [(one.host, one.where) for one in first.came] == [("xen1", "a/0"), ("xen2", "vnet-vxlan")]
    assert (second.caught, third.why) == ([], "its turn did not come")
    assert await watches(rows) == {}


async def test_a_host_that_says_nothing_is_named_and_nothing_goes(
    client: AsyncClient, hosts: None, rows: OvsdbClient
) -> None:
    one = PacketCall(frame=frame(1), vif="a/0", to="b/0", expect=["b/0"])
    call = asyncio.create_task(client.packets(PacketsCall(packets=[one], wait_s=0.5)))
    await wait_for(rows, host="xen2")
    await report(rows, "xen1", Report())
    said = await call
    assert said.problems == ["the agent of host xen2 did not say within 0.5 s that it watches"]
    assert not said.packets[0].sent
    call = asyncio.create_task(client.packets(PacketsCall(packets=[one], wait_s=10.0)))
    await wait_for(rows, host="xen2")
    await report(rows, "xen1", Report())
    await report(rows, "xen2", Report(problem="host xen2: try again"))
    assert (await call).problems == ["host xen2: try again"]
    assert await watches(rows) == {}


def test_who_watches() -> None:
    """Members; and where networks meet the physical one, all that do: trunks and other uplinks may be the same network."""
    uplinks = Uplink("trunk0", ("eth1",)), Uplink("trunk1", ("eth2",))
    networks = {
        network.name: network
        for network in (
            Network("tenant", NetworkType.VXLAN, 1, 1450, key=5001), Network("lab", NetworkType.INTERNAL, 2, 1500),
            Network("prod", NetworkType.VLAN, 3, 1500, key=5002, tag=120, uplink="trunk0"),
            Network("other", NetworkType.VLAN, 4, 1500, key=5003, tag=0, uplink="trunk1"),
        )
    }  # fmt: skip
    bound = [("xen1", "tenant"), ("xen2", "tenant"), ("xen3", "prod"), ("xen4", "other"), ("xen5", "lab")]
    bindings = {
        (f"{host}/0", host): Binding(f"{host}/0", host, network, "0a:00:00:00:00:01", 1) for host, network in bound
    }
    hosts = {host: Host(host, None, uplinks) for host, _ in bound}
    view = PoolView.of(PoolState(None, hosts, networks, bindings=bindings))
    for names, wanted in (
        (["tenant"], {"xen1", "xen2"}), (["lab"], {"xen5"}), (["prod"], {"xen3", "xen4"}), (["other", "lab"], {"xen3", "xen4", "xen5"}),
    ):  # fmt: skip
        assert watchers(view, [networks[name] for name in names]) == wanted


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame": "00" * 60}, {"frame": "zz"}, {"frame": frame(1)[:60]}, {"after": 0}, {"after": -1},
    ],
)  # fmt: skip
async def test_what_nobody_may_send(client: AsyncClient, hosts: None, rows: OvsdbClient, wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        await client.packets(PacketsCall(packets=[PacketCall(**({"frame": frame(1), "vif": "a/0"} | wrong))]))
    with pytest.raises(NotFound):
        await client.packets(PacketsCall(packets=[PacketCall(frame=frame(1), vif="nobody/0")]))
    for packets in ([], [PacketCall(frame=frame(n), vif="a/0") for n in range(257)]):
        with pytest.raises(Invalid):
            await client.packets(PacketsCall(packets=packets))
    assert await watches(rows) == {}


async def test_the_leader_forgets_what_nobody_took_away(running: Controller, rows: OvsdbClient) -> None:
    for id, age_ms in (("old", FORGOTTEN_AFTER_MS * 2), ("new", 0)):
        await rows.transact(
            Insert("Watch", columns_of(id, "xen1", now_ms() - age_ms, ["xen1"], [Marked(frame(1), "a/0")]))
        )
        plan = CapturePlan([CapturedVif("a/0", "lan")])
        for host, beat in (("xen1", 1000 * (now_ms() - age_ms)), ("xen2", 0)):
            await rows.transact(Insert("Capture", captures.columns_of(id, host, now_ms() - 40 * age_ms, plan, beat)))
    running.stop()
    running.start()  # it looks first as it begins to lead
    await rows.wait_connected(10)
    await rows.transact(Wait("Watch", (("id", "==", "old"),), ("host",), (), "==", 10_000))
    (left,) = await rows.transact(Select("Watch"))
    assert {row["id"] for row in left} == {"new"}
    (left,) = await rows.transact(Select("Capture"))
    assert {(row["id"], row["host"]) for row in left} == {("new", "xen1"), ("new", "xen2")}
