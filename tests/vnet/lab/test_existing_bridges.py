"""An uplink that is a bridge which the host has: joined by a patch port, and left as it is (docs/topology.md)."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace

import pytest

from ovsctl.ovsdb import Delete, OvsdbClient
from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.lab.test_bonds import VIFS, bonded, reaches
from vnet.db.rows import SCHEMA_NAME
from vnet.lab import Driver, Lab
from vnet.objects import Host, Uplink, Vif, Vm

pytestmark = pytest.mark.usefixtures("netns")
THEIRS = Uplink("bond0", bridge="xenbr0")
UNDER_WAY = 50  # frames of one each millisecond: a machine's timers are late now and then
KEPT = ("datapath_type", "fail_mode", "protocols", "controller", "other_config", "external_ids")


def test_a_bridge_of_the_host_carries_vlans_and_stays_as_it_is() -> None:
    """xen1's uplink is a bridge that somebody else set up, xen2's a NIC. VMs reach each other, one comes and goes under streams, and of
    the bridge nothing is changed but the patch port."""
    pool = bonded(Uplink("bond0", ("eth1",)))
    stays = Vif("stays/0", "vlan", "0a:00:00:00:00:09", vm="stays", host="xen1", addresses=("10.1.0.9",))
    hosts = pool.hosts | {"xen1": Host("xen1", "10.99.0.1", (THEIRS,))}
    pool = replace(pool, hosts=hosts, vms=pool.vms | {"stays": Vm("stays", "xen1")}, vifs={**VIFS, "stays/0": stays})
    with Lab.up(pool, name=new_name(), driver=Driver.NETNS, daemons=True) as lab, ExitStack() as stack:
        bridge = lab.ovs("xen1")
        as_it_was = [bridge.vsctl("get", "bridge", "xenbr0", column) for column in KEPT]
        lab.start_all()
        reaches(lab)
        assert bridge.vsctl("list-ports", "xenbr0").split() == ["phy-bond0", "xenbr0-nic"]
        assert "br-bond0" not in bridge.vsctl("list-br")
        running = {to: (stack.enter_context(lab.stream(source, to)), to)
                   for source, to in (("vm2/0", "stays/0"), ("stays/0", "vm2/0"))}  # fmt: skip
        go_on(running)
        moves = ("xen1", "xen2")
        for to in moves:
            lab.migrate("vm2", to)
            wait_sent(running, go_on(running))
        reports = {to: stream.report.at(to) for stream, to in running.values()}
        assert not any(report.duplicated for report in reports.values()), reports
        assert reports["stays/0"].lost <= len(moves)
        # What is under way to a guest when it switches is lost with the switch: of each move one run of frames, if any.
        missed = reports["vm2/0"].lost_numbers
        assert len(missed) < UNDER_WAY * len(moves), missed
        assert len([number for number in missed if number - 1 not in missed]) <= len(moves), missed
        assert [bridge.vsctl("get", "bridge", "xenbr0", column) for column in KEPT] == as_it_was
        wait_until(lambda: all("NORMAL" in flow for flow in flows(lab)), "no flow sends frames elsewhere")

        told = lambda view: view.state.agents["xen1"].problems  # noqa: E731
        bridge.vsctl("del-br", "xenbr0")
        lab.daemons.wait(lambda view: "has no bridge xenbr0" in told(view).get("bridge xenbr0", ""), "it is missed")
        bridge.vsctl("add-br", "xenbr0", "--", "set", "bridge", "xenbr0", "datapath_type=dummy")
        lab.daemons.wait(
            lambda view: "no frame passes" in told(view).get("bridge xenbr0", ""), "it is another datapath's"
        )
        bridge.vsctl(
            "set", "bridge", "xenbr0", f"datapath_type={bridge.datapath_type}", "--", "add-port", "xenbr0", "xenbr0-nic"
        )
        lab.daemons.wait(lambda view: not told(view), "nothing is wrong")
        reaches(lab)

        assert len(flows(lab)) > 1
        asyncio.run(no_more(lab))
        wait_until(lambda: len(flows(lab)) == 1, "only its own flow is left")


def flows(lab: Lab) -> list[str]:
    return [line for line in lab.ovs("xen1").ofctl("dump-flows", "xenbr0").splitlines() if "cookie" in line]


async def no_more(lab: Lab) -> None:
    """The bridge is no uplink of xen1 any more."""
    async with OvsdbClient([f"unix:{lab.daemons.pool_socket}"], SCHEMA_NAME) as client:
        await client.transact(Delete("Uplink", (("host", "==", "xen1"),)))
