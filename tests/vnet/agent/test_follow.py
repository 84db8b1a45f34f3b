"""Which rows an agent asks for, and that it keeps a VIF's flows while its row only comes by another way."""

from __future__ import annotations

import pytest

from ovsctl.ovsdb import Delete
from tests.polling import until
from tests.vnet.agent.pool import LAB, TENANT, delivers, pool_of, vif

pytestmark = pytest.mark.usefixtures("ovs")


async def test_a_vif_that_is_wanted_here_is_plugged_without_a_new_condition() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1, host="xen1"))
        await until(lambda: "tenant" in host.agent.compiler.view.networks, "its network came with it")
        before = host.agent.conditions.count
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        assert (host.agent.conditions.count, host.agent.pool.named.vifs) == (before, frozenset())


async def test_a_plugged_vif_that_is_no_longer_wanted_here_keeps_its_flows() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1, host="xen1"))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: host.agent.rows.settled, "rows")
        await until(lambda: host.agent.compiler.view.devices.get("vnet-vxlan"), "the tunnel port has its number")
        await until(lambda: host.programmed, "flows")
        before, sent = host.flows(), host.agent.flows.messages
        await pool.update("Vif", ("id", "vm1/0"), host=None)
        await until(lambda: host.agent.pool.named.vifs == {"vm1/0"}, "its row is asked for by its id")
        await until(lambda: not host.agent.pool.doubtful, "its row is back")
        assert host.agent.compiler.view.vifs["vm1/0"].host is None
        assert (host.flows(), host.agent.flows.messages) == (before, sent)


async def test_a_plugged_vif_that_is_deleted_loses_its_flows_and_is_reported() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1, host="xen1"))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: delivers(host, 1), "flows")
        await pool.client.transact(Delete("Vif", (("id", "==", "vm1/0"),)))
        await until(lambda: "vm1/0" in host.agent.bindings.problems, "a problem is reported")
        await until(lambda: not delivers(host, 1), "no flows")
        assert not host.agent.pool.doubtful


async def test_what_is_of_no_use_any_more_is_left_after_a_while_at_once() -> None:
    async with pool_of("xen1", networks=(TENANT, LAB)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1), vif(2, "lab"))
        held = host.agent.rows_held
        for number in (1, 2):
            host.add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", "xen1")
        before = host.agent.conditions.count
        host.switch.server.vsctl("del-port", "p1", "--", "del-port", "p2")
        await until(lambda: host.agent.rows_held == held, "nothing of them is held")
        assert host.agent.conditions.count == before + 4  # Vif twice, Network, Binding: once for both
