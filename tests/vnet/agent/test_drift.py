"""Drift events: the agent logs what somebody else did to its flows and rows, and nothing else."""

from __future__ import annotations

import pytest

from ovsctl.ovsdb import Insert, Select
from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, PoolUnderTest, pool_of, vif
from vnet.db.rows import to_columns
from vnet.objects import BindingState, Network, NetworkType, Uplink
from vnet.util.frames import rarp

pytestmark = pytest.mark.usefixtures("ovs")

VLAN = Network("prod", NetworkType.VLAN, 3, 1500, key=7, tag=120, uplink="trunk0")


async def events(pool: PoolUnderTest) -> list[tuple[str, str, str]]:
    """(kind, host, text) of every event, after all that the agents had to write until now."""
    for name, host in pool.hosts.items():
        host.agent.reports.event("mark", name)

    async def rows() -> list[dict[str, str]] | None:
        (found,) = await pool.client.transact(Select("Event"))
        marks = {row["host"] for row in found if row["kind"] == "mark"}
        return found if marks == pool.hosts.keys() else None

    return [(row["kind"], row["host"], row["text"]) for row in await until(rows, "marks")]


def announce(host: HostUnderTest, device: str, mac: str) -> None:
    """The guest behind a port announces itself, as QEMU does after a migration."""
    host.switch.appctl("netdev-dummy/receive", device, rarp(mac).hex())


async def migrate(pool: PoolUnderTest, source: str, destination: str, *, guest: bool) -> None:
    it = vif(1)
    await pool.update("Vif", ("id", it.id), incoming=destination)
    pool.hosts[destination].add_port("p1", it.id)
    await pool.wait_ready(it.id, destination)
    if guest:
        announce(pool.hosts[destination], "p1", it.mac)
    else:
        await pool.hosts[destination].agent.open([it.id], BindingState.ACTIVE)

    async def active() -> bool:
        return (await pool.bindings())[it.id, destination].state is BindingState.ACTIVE

    await until(active, "active")
    await pool.update("Vif", ("id", it.id), host=destination, incoming=None)

    async def left() -> bool:
        return set(await pool.bindings()) == {(it.id, destination)}

    await until(left, "the source has let go")
    pool.hosts[source].switch.server.vsctl("del-port", "br-int", "p1")
    await until(lambda: not pool.hosts[source].agent.bindings.ports.vifs, "the source's port is gone")


async def with_uplinks(pool: PoolUnderTest) -> None:
    for name in pool.hosts:
        row = {**to_columns(Uplink("trunk0", ("eth1",))), "host": name}
        await pool.client.transact(Insert("Uplink", row))


@pytest.mark.parametrize("network", [TENANT, VLAN], ids=lambda network: network.type.value)
@pytest.mark.parametrize("guest", [True, False], ids=["guest announces", "toolstack activates"])
async def test_start_plug_and_migrations_are_no_drift(network: Network, guest: bool) -> None:
    async with pool_of("xen1", "xen2", networks=(network,)) as pool:
        await with_uplinks(pool)
        await pool.insert(vif(1, network.name, host="xen1"))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await migrate(pool, "xen1", "xen2", guest=guest)
        await migrate(pool, "xen2", "xen1", guest=guest)
        assert [event for event in await events(pool) if event[0] not in ("active", "held", "mark")] == []


async def test_the_first_start_on_a_host_is_no_drift() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT, VLAN)) as pool:
        await with_uplinks(pool)
        await pool.insert(vif(1, host="xen1"), vif(2, "prod", host="xen2"), vif(3, "prod", host="xen1"))
        for host in pool.hosts.values():
            await host.stop()
            for bridge in host.switch.server.vsctl("list-br").split():
                host.switch.server.vsctl("del-br", bridge)
            host.start()
        for host in pool.hosts.values():
            await until(lambda host=host: host.agent.flows.connected, "the switch")  # type: ignore[misc]
        for name, number in (("xen1", 1), ("xen2", 2), ("xen1", 3)):
            pool.hosts[name].add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", name)
        assert [event for event in await events(pool) if event[0] not in ("active", "mark")] == []


async def test_flows_that_somebody_else_deletes_are_one_drift_event() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1, host="xen1"))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        before = host.flows()
        host.switch.ofctl("del-flows", "br-int", "table=84")
        await until(lambda: host.flows() == before, "flows put back")

        async def drifts() -> list[tuple[str, str, str]]:
            return [event for event in await events(pool) if event[0] == "drift"]

        deleted = sum("table=84" in flow for flow in before)
        assert await until(drifts, "an event") == [
            ("drift", "xen1", f"{deleted} flows of br-int differed and were put back")
        ]


async def test_a_port_of_ours_that_somebody_else_moves_to_another_bridge_is_put_back() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(vif(1, host="xen1"))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        server = pool.hosts["xen1"].switch.server
        (ours,) = [port for port in server.vsctl("list-ports", "br-int").split() if port != "p1"]
        server.vsctl("add-br", "br-other")
        (uuid,) = server.vsctl("--bare", "--columns=_uuid", "find", "Port", f"name={ours}").split()
        server.vsctl("remove", "Bridge", "br-int", "ports", uuid, "--", "add", "Bridge", "br-other", "ports", uuid)
        await until(lambda: ours in server.vsctl("list-ports", "br-int").split(), "the port is back")


async def test_a_nic_that_another_bridge_gives_up_is_taken_at_once() -> None:
    async with pool_of("xen1", networks=(VLAN,)) as pool:
        server = pool.hosts["xen1"].switch.server
        server.vsctl("add-br", "br0", "--", "add-port", "br0", "eth1", "--", "set", "interface", "eth1", "type=dummy")
        await with_uplinks(pool)
        await pool.insert(vif(1, "prod", host="xen1"))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await until(lambda: "Port eth1" in pool.hosts["xen1"].agent.problems, "the NIC to be somebody else's")
        server.vsctl(
            "set", "Open_vSwitch", ".", "external_ids:seen=all"
        )  # returns once ovs-vswitchd has done all before
        await until(lambda: pool.hosts["xen1"].agent.rows.settled, "nothing more to do")
        server.vsctl("del-br", "br0")
        await until(lambda: "Port eth1" not in pool.hosts["xen1"].agent.problems, "the NIC to be taken")
        assert "eth1" in server.vsctl("list-ports", "br-trunk0").split()


async def test_flows_of_others_are_a_problem_until_they_are_gone() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1, host="xen1"))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        assert host.agent.problems == {}
        host.switch.ofctl("add-flow", "br-int", "table=0,priority=60000,actions=drop")
        await until(lambda: "flows of br-int" in host.agent.problems, "a problem")
        assert host.agent.problems["flows of br-int"].startswith("1 flow is not ours")
        await host.stop()
        host.start()  # also one that was there before the agent
        await until(lambda: "flows of br-int" in host.agent.problems, "a problem again")
        host.switch.ofctl("--strict", "del-flows", "br-int", "table=0,priority=60000")
        await until(lambda: not host.agent.problems, "no problem any more")
