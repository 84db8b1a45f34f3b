"""What an agent makes of ports, rows and other people's hands, on a real Open vSwitch and a real pool database."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections.abc import Mapping
from dataclasses import replace

import pytest

from ovsctl.openflow import FlowMod
from ovsctl.ovsdb import Batch, Delete, Update
from tests.polling import LIMIT_S, until
from tests.vnet.agent.pool import LAB, TENANT, HostUnderTest, PoolUnderTest, delivers, pool_of, vif
from vnet.agent.flow_reconciler import FlowKey
from vnet.agent.mac_learning import MacLearning
from vnet.compile.pipeline import Table
from vnet.objects import Binding, BindingState, Host, LockingMode, QosClass, Vif
from vnet.objects.binding import Asked

pytestmark = pytest.mark.usefixtures("ovs")

OURS = "cookie=0x766e"


async def test_a_port_with_an_iface_id_is_claimed_and_ready() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(vif(1), vif(2))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        pool.hosts["xen2"].add_port("p2", "vm2/0", key="xs-vif-uuid")
        first, second = await pool.wait_ready("vm1/0", "xen1"), await pool.wait_ready("vm2/0", "xen2")
        assert (first.state, first.epoch) == (second.state, second.epoch) == (BindingState.ACTIVE, 1)
        await until(lambda: any("dl_dst=0a:00:00:00:00:02" in f for f in pool.hosts["xen1"].flows()), "xen1 knows vm2")


async def test_a_vif_is_not_ready_before_the_flows_of_a_port_that_came_while_others_were_sent() -> None:
    async with pool_of("xen1", networks=(LAB,)) as pool:
        await pool.insert(*(vif(number, network="lab", host="xen1") for number in (1, 2, 3)))
        host = pool.hosts["xen1"]
        host.add_port("p2", "vm2/0")
        await pool.wait_ready("vm2/0", "xen1")  # so the network is known
        await until(lambda: "vm1/0" in host.agent.compiler.view.vifs, "the VIF's row")
        change, permits, waiting = host.agent.flows.change, asyncio.Semaphore(0), 0

        async def gated(changes: Mapping[FlowKey, FlowMod | None]) -> None:
            nonlocal waiting
            waiting += 1
            await permits.acquire()
            await change(changes)

        host.agent.flows.change = gated  # type: ignore[method-assign]
        host.add_port("p3", "vm3/0")
        await until(lambda: waiting == 1, "flows to be sent")
        host.add_port("p1", "vm1/0")
        await until(lambda: "vm1/0" in host.agent.compiler.view.ports, "the port's number")
        await until(lambda: "vm1/0" in host.agent.pool.mine, "the claim")
        permits.release()
        await until(lambda: waiting == 2, "the flows of the port, which are to be sent")
        host.agent.reports.event("mark", "what is written after it was written")
        await until(lambda: _has_event(pool, "mark"), "a report")
        assert not (await pool.bindings())["vm1/0", "xen1"].ready
        number = host.agent.compiler.view.ports["vm1/0"]
        assert not any(f"in_port={number}," in flow for flow in host.flows())
        for _ in range(100):
            permits.release()
        await pool.wait_ready("vm1/0", "xen1")


async def _has_event(pool: PoolUnderTest, kind: str) -> bool:
    return kind in await pool.events()


async def test_a_port_that_goes_takes_its_binding_and_flows_along() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await until(lambda: host.agent.flows.connected, "connection")
        before = host.flows()
        await pool.insert(vif(1))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        host.switch.server.vsctl("del-port", "br-int", "p1")
        await until(lambda: host.flows() == before, "flows as before")

        async def none() -> bool:
            return not await pool.bound()

        await until(none, "no binding")


async def test_the_second_port_of_a_vif_stays_silent_and_says_why() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(vif(1))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        second = pool.hosts["xen2"]
        second.add_port("p1", "vm1/0")
        problem = await until(lambda: second.agent.bindings.problems.get("vm1/0"), "a problem on xen2")
        assert "runs on host xen1" in problem
        assert set(await pool.bindings()) == {("vm1/0", "xen1")}
        assert not any("in_port=1," in flow for flow in second.flows())


@pytest.mark.parametrize("name", ["a0", "z0"])
async def test_a_second_port_on_the_same_host_does_not_take_over(name: str) -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        await pool.insert(vif(1))
        host = pool.hosts["xen1"]
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        host.add_port(name, "vm1/0")
        problem = await until(lambda: host.agent.bindings.problems.get("vm1/0"), "a problem")
        assert problem == f"p1 and {name} name the same VIF: port p1 is used, it came first"
        first, second = (host.switch.server.vsctl("get", "interface", port, "ofport").strip() for port in ("p1", name))
        assert any(f"in_port={first}," in flow for flow in host.flows())
        assert not any(f"in_port={second}," in flow or f"output:{second}" in flow for flow in host.flows())
        host.switch.server.vsctl("del-port", "br-int", "p1")
        await until(lambda: any(f"in_port={second}," in flow for flow in host.flows()), "the other port is it now")
        await until(lambda: not host.agent.bindings.problems, "no problem")


async def test_of_two_ports_of_a_guest_the_active_one_counts() -> None:
    """A guest of XenServer has an emulated NIC's tap till its driver runs, and then its vif; both are plugged all the while."""
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        await pool.insert(vif(1))
        host = pool.hosts["xen1"]
        vsctl = host.switch.server.vsctl
        host.add_port("tap1.0", "vm1/0")
        vsctl("set", "interface", "tap1.0", "external_ids:iface-status=active")
        await pool.wait_ready("vm1/0", "xen1")
        host.add_port("vif1.0", "vm1/0")
        vsctl("set", "interface", "vif1.0", "external_ids:iface-status=inactive")
        tap, driver = (vsctl("get", "interface", port, "ofport").strip() for port in ("tap1.0", "vif1.0"))
        await until(lambda: not host.agent.bindings.problems, "no problem")
        assert any(f"in_port={tap}," in flow for flow in host.flows())
        assert not any(f"in_port={driver}," in flow for flow in host.flows())
        vsctl(
            *("set", "interface", "tap1.0", "external_ids:iface-status=inactive"),
            *("--", "set", "interface", "vif1.0", "external_ids:iface-status=active"),
        )
        await until(lambda: any(f"in_port={driver}," in flow for flow in host.flows()), "the vif is it now")
        assert not any(f"in_port={tap}," in flow or f"output:{tap}" in flow for flow in host.flows())
        assert not host.agent.bindings.problems
        await pool.wait_ready("vm1/0", "xen1")


async def test_what_happens_to_a_vif_is_logged_with_what_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "vnet.agent")
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        await pool.insert(vif(1))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        pool.hosts["xen1"].add_port("p2", "nobody")
        await until(lambda: pool.hosts["xen1"].agent.bindings.problems, "a problem")
    said = {(r.levelname, r.getMessage(), r.__dict__.get("vnet_vif"), r.__dict__.get("vnet_network"))
            for r in caplog.records}  # fmt: skip
    assert ("INFO", "active: active on xen1", "vm1/0", "tenant") in said
    assert ("WARNING", "problem: the pool has no VIF nobody, which port p2 names", "nobody", None) in said
    assert all("vnet_generation" in r.__dict__ for r in caplog.records if r.name == "vnet.agent.status_writer")


async def test_the_host_that_was_asked_for_takes_a_vif_over() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(vif(1))
        for host in pool.hosts.values():
            host.add_port("p1", "vm1/0")
        await until(lambda: any(h.agent.bindings.problems for h in pool.hosts.values()), "one of them loses")
        (_, loser) = next((v, h) for h in pool.hosts for v in pool.hosts[h].agent.bindings.problems)
        await pool.update("Vif", ("id", "vm1/0"), host=loser)
        binding = await pool.wait_ready("vm1/0", loser)
        assert binding.epoch == 2

        async def alone() -> bool:
            return await pool.bound() == {("vm1/0", loser)}

        await until(alone, "the other host has given up")


async def test_a_vif_that_another_host_has_drawn_to_itself_is_that_of_the_host_it_is_asked_for_on() -> None:
    """No controller is there to right it, and its host claims it once: it would go on without an end."""
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(vif(1, host="xen1"), vif(2, host="xen2"), Host("xen3", "10.99.0.3"))
        forged = Binding("vm1/0", "xen3", "tenant", vif(1).mac, 9999, ready=True)
        await pool.insert(forged)
        for host, name in (("xen1", "vm1/0"), ("xen2", "vm2/0")):
            pool.hosts[host].add_port("p1", name)
            await pool.wait_ready(name, host)
        views = [host.agent.compiler.view for host in pool.hosts.values()]
        for view in views:
            await until(lambda view=view: view.bindings_of("tenant", "vm1/0"), "its binding")  # type: ignore[misc]
            assert [it.host for it in view.bindings_of("tenant", "vm1/0")] == ["xen1"]
            assert view.members("tenant") == {"xen1", "xen2"}
        assert (await pool.bindings())["vm1/0", "xen1"].epoch == 1
        await pool.update("Vif", ("id", "vm1/0"), host=None)  # now it is any host's
        for view in views:
            await until(
                lambda view=view: (it := view.location("tenant", "vm1/0").current) and it.host == "xen3",  # type: ignore[misc]
                "the newest",
            )


def asked(number: int, host: str, *former: str) -> Vif:
    """A VIF that is asked for on a host, as a controller states it."""
    return vif(number, host=host, stays=" ".join((host, *former)))


async def test_a_vif_that_is_asked_for_elsewhere_is_claimed_by_no_other_host() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(asked(1, "xen2"), asked(2, "xen1"))
        first = pool.hosts["xen1"]
        for name in ("vm2/0", "vm1/0"):
            first.add_port(f"p{name[2]}", name)
        await pool.wait_ready("vm2/0", "xen1")
        problem = (
            "VIF vm1/0 is asked for on host xen2; its port here stays silent until it is asked for here "
            "('vnet vif plug vm1/0 --host xen1')"
        )
        await until(lambda: first.agent.bindings.problems == {"vm1/0": problem}, "it says why")
        await until(lambda: first.programmed, "its flows")
        assert not delivers(first, 1)
        assert await pool.bound() == {("vm2/0", "xen1")}
        await pool.update("Vif", ("id", "vm1/0"), host="xen1", stays="xen1")
        await pool.wait_ready("vm1/0", "xen1")
        assert first.agent.bindings.problems == {}


async def test_a_vif_stays_where_it_ran_until_it_is_claimed_where_it_is_asked_for() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(vif(1))
        first, second = pool.hosts.values()
        first.add_port("p1", "vm1/0")
        binding = await pool.wait_ready("vm1/0", "xen1")
        await pool.update("Vif", ("id", "vm1/0"), host="xen2", stays="xen2 xen1")
        await until(lambda: first.agent.compiler.view.vifs["vm1/0"].host == "xen2", "it knows")
        await until(lambda: first.programmed, "its flows")
        assert delivers(first, 1)
        assert (await pool.bindings())["vm1/0", "xen1"] == binding
        first.switch.server.vsctl("del-port", "p1")
        await until(lambda: not delivers(first, 1), "its end")
        first.add_port("p1", "vm1/0")  # as a guest that starts again
        assert (await pool.wait_ready("vm1/0", "xen1")).epoch == 2
        second.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen2")

        async def alone() -> bool:
            return await pool.bound() == {("vm1/0", "xen2")}

        await until(alone, "the other host has given up")


@pytest.mark.parametrize("moves", [False, True], ids=["a plug", "a migration"])
async def test_a_host_that_was_taken_over_neither_has_nor_holds_up_a_vif_that_is_asked_for_elsewhere(
    *, moves: bool
) -> None:
    """It has a binding of the VIF before the hosts that it is asked for on, and writes into `epoch` without an end whatever the column takes."""
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(asked(1, "xen2"), vif(2), Host("xen3", "10.99.0.3"))
        first, second = pool.hosts.values()
        first.add_port("p2", "vm2/0")
        await pool.wait_ready("vm2/0", "xen1")
        if moves:
            second.add_port("p1", "vm1/0")
            await pool.wait_ready("vm1/0", "xen2")
            await pool.update("Vif", ("id", "vm1/0"), incoming="xen1")
        await pool.insert(Binding("vm1/0", "xen3", "tenant", vif(1).mac, 2**61, ready=True))
        place = first.agent.compiler.view
        await until(lambda: place.binding("tenant", "vm1/0", "xen3"), "its binding")
        assert "xen3" not in {it.host for it in place.bindings_of("tenant", "vm1/0")} | place.members("tenant")

        numbers = itertools.count(1)

        async def write_without_end() -> None:
            for number in numbers:  # no two alike
                await pool.update("Vif", ("id", "vm1/0"), epoch=(2**63 - number, -number, 2**40 + number)[number % 3])

        writers = [asyncio.create_task(write_without_end()) for _ in range(16)]
        try:
            claims = first if moves else second
            claims.add_port("p1", "vm1/0")
            binding = await pool.wait_ready("vm1/0", claims.name)
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
        assert binding.state is (BindingState.HELD if moves else BindingState.ACTIVE)
        hosts = {"xen1", "xen2"} if moves else {"xen2"}
        await until(lambda: {it.host for it in place.bindings_of("tenant", "vm1/0")} == hosts, "its own hosts alone")
        at = place.location("tenant", "vm1/0")
        assert (at.current and at.current.host, at.incoming and at.incoming.host) == ("xen2", "xen1" if moves else None)


async def test_of_vifs_elsewhere_a_host_knows_where_they_are_asked_for_on_its_own_networks_alone() -> None:
    async with pool_of("xen1", networks=(TENANT, LAB)) as pool:
        agent = pool.hosts["xen1"].agent
        await pool.insert(vif(1), vif(2, host="xen2"), vif(3, "lab", host="xen3"), vif(4))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        assert agent.compiler.inputs.asked == {"vm2/0": Asked(("xen2",))}
        batches: list[Batch] = []
        assert agent._asked is not None
        agent._asked.subscribe(batches.append)
        await pool.update("Vif", ("id", "vm2/0"), epoch=5)  # as claims do
        await pool.update("Vif", ("id", "vm2/0"), incoming="xen3")
        await until(lambda: agent.compiler.inputs.asked == {"vm2/0": Asked(("xen2", "xen3"))}, "where it goes")
        assert len(batches) == 1
        await pool.client.transact(Delete("Vif", (("id", "==", "vm2/0"),)))
        await until(lambda: agent.compiler.inputs.asked == {}, "nothing is left of it")


async def test_where_vifs_are_asked_for_in_a_database_that_is_not_followed_changes_nothing() -> None:
    """As where an older one takes the place of the pool's while it is in use: it is looked at, and refused."""
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        agent = pool.hosts["xen1"].agent
        await pool.client.transact(Update("Pool", (), {"generation": 5, "id": "mine"}))
        await pool.insert(vif(1), vif(2, host="xen2", incoming="xen3"))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: agent.pool.generation == 5, "the generation")
        asked = {"vm2/0": Asked(("xen2", "xen3"))}
        assert agent.compiler.inputs.asked == asked
        older = Update("Pool", (), {"generation": 4, "id": "another"})
        await pool.client.transact(older, Update("Vif", (("id", "==", "vm2/0"),), {"incoming": None}))
        await until(lambda: agent.identity.objection, "it is refused")
        assert agent.compiler.inputs.asked == asked
        await pool.client.transact(Update("Pool", (), {"generation": 6, "id": "mine"}))
        await until(lambda: agent.compiler.inputs.asked == {"vm2/0": Asked(("xen2",))}, "it is followed again")


async def test_flows_and_rows_changed_by_hand_are_put_back_and_others_are_left_alone() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: host.agent.rows.settled, "rows")
        host.switch.ofctl("add-flow", "br-int", "cookie=0x99,table=200,priority=7,actions=drop")
        host.switch.server.vsctl("add-port", "br-int", "foreign", "--", "set", "interface", "foreign", "type=internal")
        before = host.flows()
        host.switch.ofctl("del-flows", "br-int", "table=84")
        host.switch.ofctl("add-flow", "br-int", "cookie=0x766e000000000001,table=0,priority=9,actions=drop")
        await until(lambda: host.flows() == before, "flows put back")
        host.switch.server.vsctl("del-port", "br-int", "vnet-vxlan")
        await until(lambda: "vnet-vxlan" in host.switch.server.vsctl("list-ports", "br-int"), "tunnel put back")
        await until(lambda: len(host.flows()) == len(before), "flows of the new tunnel port")
        assert "foreign" in host.switch.server.vsctl("list-ports", "br-int")
        assert any("cookie=0x99" in flow for flow in host.flows())

        async def reported() -> bool:
            return "drift" in await pool.events()

        await until(reported, "an event")


async def test_an_agent_ends_while_its_switch_does_not_answer() -> None:
    """It waits for flows, and for the meters before them, which fail as the connection is closed: what fails may not hide that it is to end."""
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(QosClass("slow", from_vm=1_000_000), vif(1))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: host.agent.rows.settled and host.programmed, "flows")
        before = host.agent.flows.messages
        assert host.switch.process is not None
        host.switch.process.send_signal(signal.SIGSTOP)
        try:
            await pool.update("Vif", ("id", "vm1/0"), qos="slow")
            await until(lambda: host.agent.flows.messages > before, "meters and flows on their way")
            async with asyncio.timeout(LIMIT_S):
                await host.stop()
        finally:
            host.switch.process.send_signal(signal.SIGCONT)


async def test_a_restarted_agent_changes_nothing_that_is_right() -> None:
    async with pool_of("xen1", networks=(TENANT, LAB)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1), vif(2, "lab"))
        host.add_port("p1", "vm1/0")
        host.add_port("p2", "vm2/0")
        await pool.wait_ready("vm1/0", "xen1")
        await pool.wait_ready("vm2/0", "xen1")
        await until(lambda: host.agent.rows.settled, "rows")
        before = host.switch.ofctl("dump-flows", "br-int", "--no-stats")
        await host.stop()
        host.start()
        await until(lambda: host.agent.flows.connected, "connection")
        await until(lambda: host.agent.rows.settled, "rows")
        assert host.agent.flows.messages == 0
        assert host.switch.ofctl("dump-flows", "br-int", "--no-stats") == before


async def test_nothing_is_deleted_while_the_pool_cannot_be_reached() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        before = host.flows()
        await host.stop()
        pool.server.stop()
        host.start()
        host.switch.ofctl("add-flow", "br-int", "cookie=0x99,table=200,actions=drop")
        await until(lambda: host.agent.ovs_client.connected, "the switch's database")
        assert [flow for flow in host.flows() if "cookie=0x99" not in flow] == before
        pool.server.start()
        await until(lambda: host.agent.flows.connected, "all is well again")
        assert [flow for flow in host.flows() if "cookie=0x99" not in flow] == before


async def test_a_known_vif_is_plugged_while_the_pool_database_is_down() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1, host="xen1"))
        await until(lambda: "tenant" in host.agent.compiler.view.networks, "the VIF and its network are known")
        await until(lambda: host.agent.complete and host.agent.flows.connected, "complete")
        pool.server.stop()
        host.add_port("p1", "vm1/0")
        await until(
            lambda: any("dl_dst=0a:00:00:00:00:01" in flow for flow in host.flows()), "flows without a database"
        )
        pool.server.start()
        assert (await pool.wait_ready("vm1/0", "xen1")).epoch == 1


async def test_vswitchd_gets_its_flows_back() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: host.agent.rows.settled, "rows")
        before = host.flows()
        host.switch.stop()
        await until(lambda: not host.agent.flows.connected, "the agent notices")
        host.switch.start()
        await until(lambda: host.agent.flows.connected, "the agent is back")
        await until(lambda: host.flows() == before, "flows are back")


async def test_vswitchd_that_comes_back_with_other_ofports_gets_flows_for_those_and_never_for_the_old_ones() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1), vif(2))
        for number in (1, 2):
            host.add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", "xen1")
        await until(lambda: host.agent.rows.settled, "rows")
        view, sent = host.agent.compiler.view, host.agent.flows.messages
        first, second = view.ports["vm1/0"], view.ports["vm2/0"]
        host.switch.stop()
        await until(lambda: not host.agent.flows.connected, "the agent notices")
        host.switch.server.vsctl(
            "--no-wait", "set", "interface", "p1", f"ofport_request={second}",
            "--", "set", "interface", "p2", f"ofport_request={first}",
        )  # fmt: skip
        host.switch.start()
        await until(lambda: host.agent.flows.connected, "the agent is back")
        assert (view.ports["vm1/0"], view.ports["vm2/0"]) == (second, first)
        # Each flow was sent once: none had to be put right after the database had said the new numbers too.
        await until(lambda: host.programmed, "flows")
        assert host.agent.flows.messages - sent == len(host.agent.flows.desired)
        guards = [flow for flow in host.flows() if "dl_src=0a:00:00:00:00:01" in flow]
        assert guards
        assert all(f"in_port={second}," in flow for flow in guards)


async def test_a_port_made_anew_for_another_vif_is_known_by_its_own_number() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1), vif(2))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        assert host.agent.flows.ports["p1"] == host.agent.compiler.view.ports["vm1/0"]
        host.switch.server.vsctl(
            "del-port", "br-int", "p1", "--", "add-port", "br-int", "p1",
            "--", "set", "interface", "p1", "type=dummy", 'external_ids:iface-id="vm2/0"',
        )  # fmt: skip
        await pool.wait_ready("vm2/0", "xen1")
        assert host.agent.compiler.view.ports == {
            "vm2/0": int(host.switch.server.vsctl("get", "interface", "p1", "ofport"))
        }
        await until(lambda: host.programmed, "flows")
        host.switch.server.vsctl("del-port", "br-int", "p1")
        await until(lambda: not host.agent.compiler.view.ports, "no port")
        assert "p1" not in host.agent.flows.ports


async def test_what_a_database_row_must_not_hold_is_kept_out_and_reported() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1, host="xen1"))
        await pool.update("Vif", ("id", "vm1/0"), mac="01:00:00:00:00:01")
        await until(lambda: host.agent.pool.problems, "a bad row")
        assert any("multicast" in text for text in host.agent.pool.problems.values())
        await pool.client.transact(Delete("Vif", (("id", "==", "vm1/0"),)))
        await until(lambda: not host.agent.pool.problems, "gone with its row")


async def test_a_vif_made_anew_under_the_same_id_is_ready_again() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        for _ in range(2):
            await pool.insert(vif(1))
            if not host.agent.bindings.ports.vifs:
                host.add_port("p1", "vm1/0")
            await pool.wait_ready("vm1/0", "xen1")
            gone = (("vif", "==", "vm1/0"),)
            await pool.client.transact(Delete("Vif", (("id", "==", "vm1/0"),)), Delete("Binding", gone))
            await until(lambda: not host.agent.compiler.view.vifs, "the agent has heard")


async def test_a_vif_that_changes_networks_leaves_nothing_behind() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT, LAB)) as pool:
        await pool.insert(vif(1), vif(2), vif(3, "lab"))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        pool.hosts["xen2"].add_port("p2", "vm2/0")
        pool.hosts["xen1"].add_port("p3", "vm3/0")
        for name, host in (("vm1/0", "xen1"), ("vm2/0", "xen2"), ("vm3/0", "xen1")):
            await pool.wait_ready(name, host)
        await pool.update("Vif", ("id", "vm1/0"), network="lab")

        async def moved() -> bool:
            binding = (await pool.bindings())["vm1/0", "xen1"]
            return binding.network == "lab" and binding.ready

        await until(moved, "claimed anew on the other network")
        for host in pool.hosts.values():
            await until(
                lambda host=host: (
                    not any("metadata=0x1," in f and "dl_dst=0a:00:00:00:00:01" in f for f in host.flows())
                ),
                "no way to it on the network that it left",
            )
        assert any("metadata=0x2," in f and "dl_dst=0a:00:00:00:00:01" in f for f in pool.hosts["xen1"].flows())
        for network in ("tenant", "lab") * 5:  # faster than claims are answered
            await pool.update("Vif", ("id", "vm1/0"), network=network)
        await pool.update("Vif", ("id", "vm1/0"), network="tenant")

        async def is_back() -> bool:
            (row,) = [binding for (vif, _), binding in (await pool.bindings()).items() if vif == "vm1/0"]
            return (
                row.network == "tenant" and row.ready and row.epoch == pool.hosts["xen1"].agent.pool.mine["vm1/0"].epoch
            )

        await until(is_back, "claimed where it is in the end")
        for host in pool.hosts.values():  # the peer hears of the claim from the database, a moment later

            def ways(host: HostUnderTest = host) -> list[bool]:
                found = [f for f in host.flows() if "table=50" in f and "dl_dst=0a:00:00:00:00:01" in f]
                return ["metadata=0x1," in f for f in found]

            await until(lambda ways=ways: ways() == [True], "one way to it, on the network where it is")
        await pool.update("Vif", ("id", "vm1/0"), network="gone")
        await until(lambda: "vm1/0" in pool.hosts["xen1"].agent.bindings.problems, "the network is not there")

        async def is_unbound() -> bool:
            return "vm1/0" not in {vif for vif, _ in await pool.bindings()}

        await until(is_unbound, "its binding on the network that it left is given up")


async def test_what_changes_of_a_vif_that_runs_is_known_to_its_peers() -> None:
    async with pool_of("xen1", "xen2", networks=[TENANT]) as pool:
        one, two = pool.hosts["xen1"], pool.hosts["xen2"]
        for number, host in ((1, one), (2, two)):
            await pool.insert(vif(number, host=host.name))
            host.add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", host.name)
        before = (await pool.bindings())["vm1/0", "xen1"]
        mac, addresses = "0a:00:00:00:00:77", frozenset({"10.1.0.77"})
        await pool.update("Vif", ("id", "vm1/0"), mac=mac, addresses=addresses, locking_mode="unlocked")
        await until(lambda: any(f"dl_dst={mac}" in flow for flow in two.flows()), "the way to the new MAC")
        assert not any(f"dl_dst={before.mac}" in flow for flow in two.flows())
        after = (await pool.bindings())["vm1/0", "xen1"]
        assert after == replace(before, mac=mac, addresses=tuple(addresses), unlocked=True)


async def test_a_mac_behind_a_vif_is_forgotten_once_nobody_sends_as_it() -> None:
    """By the frames that its flow counts, whatever the clock of the agent that learned it said."""
    inner = "0a:ee:00:00:00:01"
    frame = bytes.fromhex((f"ff:ff:ff:ff:ff:ff:{inner}").replace(":", "") + "88b5" + "00" * 46).hex()
    async with pool_of("xen1", networks=[TENANT]) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1, locking_mode=LockingMode.UNLOCKED, learn=2))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")

        async def known() -> list[str]:
            return [entry.mac for entry in (await pool.bindings())["vm1/0", "xen1"].behind]

        async def is_known() -> bool:
            return await known() == [inner]

        host.switch.appctl("netdev-dummy/receive", "p1", frame)
        await until(is_known, "it is learned")
        await until(lambda: any(f"dl_dst={inner}" in flow for flow in host.flows()), "the way to it")
        now = [0]
        learning = MacLearning(host.agent.pool, host.agent.flows, host.agent, lambda: now[0], age_ms=10)
        await learning.forget()
        host.switch.appctl("netdev-dummy/receive", "p1", frame)
        await until(
            lambda: any("table=12" in f and f"dl_src={inner}" in f and "n_packets=1" in f for f in counted(host)),
            "counted",
        )
        now[0] = 10
        await learning.forget()
        assert await known() == [inner]
        now[0] = 20
        await learning.forget()

        async def is_forgotten() -> bool:
            return not await known()

        await until(is_forgotten, "it is forgotten")
        assert not any(f"dl_dst={inner}" in flow for flow in host.flows())


def counted(host: HostUnderTest) -> list[str]:
    return host.switch.ofctl("dump-flows", "br-int").splitlines()


async def held(pool: PoolUnderTest) -> None:
    """VIF vm1/0 runs on xen1, and is ready to move to xen2."""
    await pool.insert(vif(1, host="xen1"))
    pool.hosts["xen1"].add_port("p1", "vm1/0")
    await pool.wait_ready("vm1/0", "xen1")
    await pool.update("Vif", ("id", "vm1/0"), incoming="xen2")
    pool.hosts["xen2"].add_port("p1", "vm1/0")
    await pool.wait_ready("vm1/0", "xen2")


async def test_an_abort_holds_that_the_database_has_before_the_announcement_of_a_guest() -> None:
    """The destination has activated its binding by itself, whose row is gone by then."""
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await held(pool)
        agent = pool.hosts["xen2"].agent
        aborted = [
            {"op": "delete", "table": "Binding", "where": [["host", "==", "xen2"]]},
            {"op": "update", "table": "Vif", "where": [], "row": {"incoming": ["set", []]}},
        ]
        pool.server.client("transact", json.dumps(["Vnet", *aborted]))  # this process, and the agent in it, waits
        assert agent.bindings.set_state("vm1/0", BindingState.ACTIVE, announced=True)
        agent.bindings.send()

        def runs_on() -> str | None:
            current = agent.compiler.view.location("tenant", "vm1/0").current
            return current.host if current is not None else None

        assert runs_on() == "xen2"
        await until(lambda: runs_on() == "xen1", "the VIF is where it was")
        await pool.update("Vif", ("id", "vm1/0"), incoming="xen2")
        assert (await pool.wait_ready("vm1/0", "xen2")).state is BindingState.HELD


async def test_a_port_opens_for_a_paused_guest_before_anything_is_decided_or_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frames are lost from the pause on."""
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await held(pool)
        host = pool.hosts["xen2"]
        gate, ofport = f"table={int(Table.GATE)}", host.agent.compiler.view.ports["vm1/0"]

        def is_open() -> bool:
            return any(f"reg2={ofport:#x}" in line for line in host.flows(gate))

        assert not is_open()
        monkeypatch.setattr(host.agent, "_turn", lambda: None)
        await pool.client.transact(
            Update("Binding", (("vif", "==", "vm1/0"), ("host", "==", "xen2")), {"state": BindingState.RECEIVING.value})
        )
        await until(is_open, "the port is open")
