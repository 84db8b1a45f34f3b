"""A VIF that is awaited on its host: programmed everywhere before its port is there, under the number that the port asks for."""

from __future__ import annotations

import pytest

from ovsctl.ovsdb import Delete, Insert, Select, Update
from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, PoolUnderTest, pool_of, vif
from vnet.db.rows import TABLE_OF, to_columns
from vnet.objects import Binding, BindingState, Host
from vnet.objects.limits import MIN_RESERVED_OFPORT

pytestmark = pytest.mark.usefixtures("ovs")


def add_port(host: HostUnderTest, device: str, vif: str, ofport: int) -> None:
    host.switch.server.vsctl(
        "add-port", "br-int", device, "--", "set", "interface", device, "type=dummy", f"ofport_request={ofport}",
        f'external_ids:iface-id="{vif}"',
    )  # fmt: skip


async def in_state(pool: PoolUnderTest, state: BindingState, ready: bool, vif_id: str = "vm2/0") -> Binding:
    async def found() -> Binding | None:
        binding = (await pool.bindings()).get((vif_id, "xen2"))
        return binding if binding is not None and (binding.state, binding.ready) == (state, ready) else None

    binding: Binding = await until(found, f"{vif_id} {state.value} on xen2")
    return binding


async def programmed(pool: PoolUnderTest) -> tuple[list[str], list[str]]:
    """The flows of the hosts, once each knows the way to the other's VIF."""
    xen1, xen2 = pool.hosts["xen1"], pool.hosts["xen2"]

    def knows(host: HostUnderTest, vif: int, address: str) -> bool:
        return any(f"dl_dst=0a:00:00:00:00:0{vif}" in flow and address in flow for flow in host.flows())

    await until(lambda: knows(xen1, 2, "->tun_dst") and knows(xen2, 1, "->tun_dst"), "the ways are known")
    return xen1.flows(), xen2.flows()


async def awaited(pool: PoolUnderTest) -> Binding:
    """vm1 runs on xen1; vm2 is awaited on xen2."""
    await pool.insert(vif(1, host="xen1"))
    pool.hosts["xen1"].add_port("p1", "vm1/0")
    await pool.wait_ready("vm1/0", "xen1")
    await pool.insert(vif(2, host="xen2", awaited=True))
    return await in_state(pool, BindingState.AWAITED, ready=False)


async def test_a_plug_under_the_awaited_number_changes_no_flow_anywhere() -> None:
    async with pool_of("xen1", "xen2", networks=[TENANT]) as pool:
        binding = await awaited(pool)
        assert binding.ofport >= MIN_RESERVED_OFPORT
        before = await programmed(pool)
        assert any(f"in_port={binding.ofport}" in flow for flow in before[1])
        sent = [host.agent.flows.messages for host in pool.hosts.values()]

        add_port(pool.hosts["xen2"], "p2", "vm2/0", binding.ofport)
        plugged = await in_state(pool, BindingState.ACTIVE, ready=True)
        assert (plugged.epoch, plugged.ofport) == (binding.epoch, binding.ofport)
        assert await programmed(pool) == before
        assert [host.agent.flows.messages for host in pool.hosts.values()] == sent

        pool.hosts["xen2"].switch.server.vsctl("del-port", "p2")
        gone = await in_state(pool, BindingState.AWAITED, ready=False)
        assert (gone.epoch, gone.ofport) == (binding.epoch, binding.ofport)
        assert await programmed(pool) == before
        add_port(pool.hosts["xen2"], "p3", "vm2/0", binding.ofport)
        await in_state(pool, BindingState.ACTIVE, ready=True)
        assert [host.agent.flows.messages for host in pool.hosts.values()] == sent


async def test_a_restarted_agent_awaits_under_the_same_number() -> None:
    async with pool_of("xen1", "xen2", networks=[TENANT]) as pool:
        binding = await awaited(pool)
        before = await programmed(pool)
        xen2 = pool.hosts["xen2"]
        await xen2.stop()
        xen2.start()
        await until(lambda: xen2.agent.flows.connected and xen2.agent.rows.settled, "the agent is back")
        assert await programmed(pool) == before
        assert (await in_state(pool, BindingState.AWAITED, ready=False)).ofport == binding.ofport
        assert xen2.agent.flows.messages == 0


async def test_a_port_that_comes_under_another_number_is_programmed_under_that() -> None:
    async with pool_of("xen1", "xen2", networks=[TENANT]) as pool:
        binding = await awaited(pool)
        pool.hosts["xen2"].add_port("p2", "vm2/0")
        await in_state(pool, BindingState.ACTIVE, ready=True)
        assert not any(f"in_port={binding.ofport}" in flow for flow in pool.hosts["xen2"].flows())
        pool.hosts["xen2"].switch.server.vsctl("del-port", "p2")
        await in_state(pool, BindingState.AWAITED, ready=False)
        await until(
            lambda: any(f"in_port={binding.ofport}" in flow for flow in pool.hosts["xen2"].flows()), "awaited again"
        )


async def test_a_port_of_somebody_else_under_the_number_gets_nothing_of_the_vif() -> None:
    async with pool_of("xen1", "xen2", networks=[TENANT]) as pool:
        binding = await awaited(pool)
        xen2 = pool.hosts["xen2"]
        xen2.switch.server.vsctl(
            "add-port", "br-int", "thief", "--", "set", "interface", "thief", "type=dummy",
            f"ofport_request={binding.ofport}",
        )  # fmt: skip
        await until(lambda: not any(str(binding.ofport) in flow for flow in xen2.flows()), "nothing for its port")
        add_port(xen2, "p2", "vm2/0", binding.ofport)  # which Open vSwitch cannot give it
        await in_state(pool, BindingState.ACTIVE, ready=True)
        assert xen2.agent.bindings.ports.vifs["vm2/0"].ofport != binding.ofport


async def test_two_vifs_are_awaited_under_two_numbers_and_one_given_up_is_not_reused() -> None:
    async with pool_of("xen1", "xen2", networks=[TENANT]) as pool:
        first = await awaited(pool)
        await pool.insert(vif(3, host="xen2", awaited=True))
        second = await in_state(pool, BindingState.AWAITED, ready=False, vif_id="vm3/0")
        await pool.update("Vif", ("id", "vm2/0"), awaited=False)
        await until(lambda: not any(f"in_port={first.ofport}" in f for f in pool.hosts["xen2"].flows()), "given up")

        async def released() -> bool:
            return ("vm2/0", "xen2") not in await pool.bound()

        await until(released, "vm2 is bound nowhere")
        await pool.update("Vif", ("id", "vm2/0"), awaited=True)
        third = await in_state(pool, BindingState.AWAITED, ready=False)
        assert len({first.ofport, second.ofport, third.ofport}) == 3


async def test_what_is_awaited_no_more_is_not_claimed_once_more() -> None:
    """The controller takes both away at once, and the VIF's row is not sent to a host where it is not wanted."""
    async with pool_of("xen1", "xen2", networks=[TENANT]) as pool:
        binding = await awaited(pool)
        await pool.client.transact(
            Delete("Binding", (("vif", "==", "vm2/0"),)),
            Update("Vif", (("id", "==", "vm2/0"),), {"host": None, "awaited": False}),
        )
        await until(lambda: "vm2/0" not in pool.hosts["xen2"].agent.compiler.view.vifs, "xen2 has forgotten it")
        await until(lambda: not any(f"in_port={binding.ofport}" in f for f in pool.hosts["xen2"].flows()), "given up")
        (rows,) = await pool.client.transact(Select("Vif", (("id", "==", "vm2/0"),), ("epoch",)))
        assert (rows[0]["epoch"], ("vm2/0", "xen2") in await pool.bound()) == (binding.epoch, False)


async def test_who_awaits_takes_nothing_from_a_host_that_runs_the_vif() -> None:
    async with pool_of("xen1", "xen2", networks=[TENANT]) as pool:
        await pool.insert(vif(2, host="xen1"))
        pool.hosts["xen1"].add_port("p2", "vm2/0")
        running = await pool.wait_ready("vm2/0", "xen1")
        await pool.update("Vif", ("id", "vm2/0"), host="xen2", awaited=True)
        await until(lambda: "vm2/0" in pool.hosts["xen2"].agent.compiler.view.vifs, "xen2 knows what is wanted")
        await pool.insert(vif(3, host="xen2", awaited=True))  # decided after
        await in_state(pool, BindingState.AWAITED, ready=False, vif_id="vm3/0")
        assert (await pool.bindings())["vm2/0", "xen1"].epoch == running.epoch
        assert ("vm2/0", "xen2") not in await pool.bound()
        pool.hosts["xen1"].switch.server.vsctl("del-port", "p2")
        await in_state(pool, BindingState.AWAITED, ready=False)


async def test_a_host_where_it_is_plugged_wins_over_one_that_awaits_it_and_is_dead() -> None:
    async with pool_of("xen1", "xen2", networks=[TENANT]) as pool:
        await pool.insert(Host("dead", "10.99.0.9"), vif(2, host="dead", awaited=True, epoch=1))
        lost = Binding("vm2/0", "dead", "tenant", "0a:00:00:00:00:02", 1, BindingState.AWAITED, ofport=40000)
        await pool.client.transact(Insert(TABLE_OF[Binding], to_columns(lost)))
        await pool.update("Vif", ("id", "vm2/0"), host="xen2")
        pool.hosts["xen2"].add_port("p2", "vm2/0")
        assert (await pool.wait_ready("vm2/0", "xen2")).epoch == 2
