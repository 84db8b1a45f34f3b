"""Meters on a real Open vSwitch: there before the flows that use them, changed in place, gone with the last flow."""

from __future__ import annotations

import pytest

from ovsctl.openflow import Band, Meter
from ovsctl.openflow.client import OpenFlowClient
from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, pool_of, vif
from vnet.compile import OF_HELLO, OF_NETWORK, OF_VIF, Limit
from vnet.objects import BindingState, QosClass

pytestmark = pytest.mark.usefixtures("ovs")

SLOW = QosClass("slow", from_vm=10**6, to_vm=2 * 10**6, packets=500)


async def meters(host: HostUnderTest) -> dict[int, Meter]:
    """The meters of limits that a switch has."""
    async with OpenFlowClient(host.agent.flows.remote) as client:
        return {meter.meter_id: meter for meter in await client.meters() if meter.meter_id & 0xFFFF0000 != OF_HELLO}


async def test_a_vif_has_its_meters_when_it_is_ready_and_a_new_rate_costs_one_message() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(SLOW, vif(1, qos="slow"))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        base = OF_VIF | host.agent.compiler.view.ports["vm1/0"] << 2
        assert await meters(host) == {
            base | Limit.FROM_VM: Meter(base | Limit.FROM_VM, (Band(1000, 500),)),
            base | Limit.TO_VM: Meter(base | Limit.TO_VM, (Band(2000, 1000),)),
            base | Limit.PACKETS_FROM_VM: Meter(base | Limit.PACKETS_FROM_VM, (Band(500, 250),), packets=True),
            base | Limit.PACKETS_TO_VM: Meter(base | Limit.PACKETS_TO_VM, (Band(500, 250),), packets=True),
        }
        flows, sent = host.flows(), host.agent.flows.messages
        await pool.update("QosClass", ("name", "slow"), from_vm=5 * 10**6)
        await until(lambda: host.agent.flows.messages > sent, "the new rate")
        await host.agent.programmed()
        assert (await meters(host))[base].bands == (Band(5000, 2500),)
        assert host.agent.flows.messages == sent + 1
        assert host.flows() == flows
        await pool.update("Vif", ("id", "vm1/0"), qos=None)
        await until(lambda: not any(f"meter:{base}" in flow for flow in host.flows()), "no limits")
        await host.agent.programmed()
        assert await meters(host) == {}


async def test_switch_and_agent_come_back_with_the_meters_and_somebody_elses_stay() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(SLOW, QosClass("all", from_vm=10**7, aggregate=True), vif(1, qos="slow"))
        await pool.update("Network", ("name", TENANT.name), qos="all")
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await host.agent.programmed()
        before = await meters(host)
        shared = OF_NETWORK | TENANT.number << 2 | Limit.FROM_VM
        assert before[shared].bands == (Band(10_000, 5000),)

        await host.stop()
        host.switch.ofctl("add-meter", "br-int", "meter=5,kbps,bands=type=drop,rate=1000")
        host.switch.ofctl("mod-meter", "br-int", f"meter={shared},kbps,stats,bands=type=drop,rate=7")
        host.switch.ofctl("add-meter", "br-int", f"meter={OF_VIF | 77 << 2},kbps,bands=type=drop,rate=7")
        host.start()
        await until(lambda: host.agent.flows.connected, "the agent is back")
        assert await meters(host) == before | {5: Meter(5, (Band(1000),), stats=False)}

        host.switch.stop()
        await until(lambda: not host.agent.flows.connected, "the agent notices")
        host.switch.start()
        await until(lambda: host.agent.flows.connected, "the agent is back")
        assert await meters(host) == before


async def test_a_meter_that_somebody_deletes_comes_back_with_the_flows_that_used_it() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(SLOW, vif(1, qos="slow"))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        flows, before = host.flows(), await meters(host)
        host.switch.ofctl("del-meters", "br-int")
        await until(lambda: host.flows() == flows, "the flows are back")
        assert await meters(host) == before


async def test_a_migrations_destination_has_the_meters_before_its_port_opens() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(SLOW, vif(1, qos="slow"))
        source, destination = pool.hosts["xen1"], pool.hosts["xen2"]
        source.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await pool.update("Vif", ("id", "vm1/0"), incoming="xen2")
        destination.add_port("p9", "vm1/0")
        binding = await pool.wait_ready("vm1/0", "xen2")
        assert binding.state is BindingState.HELD
        base = OF_VIF | destination.agent.compiler.view.ports["vm1/0"] << 2
        assert (await meters(destination)).keys() == {base | limit for limit in Limit}


async def test_a_refused_meter_silences_no_other_vif() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(SLOW, vif(1), vif(2, qos="slow"))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        first = host.agent.compiler.view.ports["vm1/0"]
        for number in range(first + 1, first + 9):  # somebody has the numbers already, behind the agent's back
            host.switch.ofctl("add-meter", "br-int", f"meter={OF_VIF | number << 2},kbps,bands=type=drop,rate=7")
        host.add_port("p2", "vm2/0")
        await pool.wait_ready("vm2/0", "xen1")
        base = OF_VIF | host.agent.compiler.view.ports["vm2/0"] << 2
        found = await meters(host)
        assert {number: meter for number, meter in found.items() if number in range(OF_VIF, OF_NETWORK)}.keys() == {
            base | limit for limit in Limit
        }
        assert found[base].bands == (Band(1000, 500),)
        assert any(f"in_port={first}," in flow for flow in host.flows())
