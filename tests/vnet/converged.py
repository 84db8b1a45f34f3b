"""Whether a lab's pool is what its rows say: every host's flows and rows as a fresh compile of the database has them.

One rule: nothing is taken from the agents. Rows are read from the databases, flows from the switches.
"""

from __future__ import annotations

from collections.abc import Iterator

from ovsctl import vswitch
from ovsctl.openflow import Flow, FlowTable
from ovsctl.openflow.client import OpenFlowClient
from ovsctl.openflow.errors import OpenFlowError
from ovsctl.ovsdb import OvsdbClient, OvsdbError, Replica
from tests.polling import until
from vnet.agent.binding_policy import copied
from vnet.agent.local_ports import MONITORS, LocalPort, read_ports
from vnet.agent.ovs_config_reconciler import OWNER
from vnet.compile import (
    COOKIE_CATEGORY_SHIFT,
    COOKIE_MARK,
    COOKIE_MARK_MASK,
    Category,
    HostView,
    Switch,
    compile_flows,
    flat,
    ovs_rows,
    vif_mtus,
)
from vnet.db.database import PoolDatabase
from vnet.db.errors import PoolError
from vnet.lab import Lab
from vnet.lab.daemons import call_async
from vnet.objects import PoolState
from vnet.objects.devices import uplink_bridge

BRIDGE = "br-int"


def wait_converged(lab: Lab) -> None:
    """Return once nothing differs. Raises AssertionError with the differences that stay."""
    found: list[str] = []

    async def converged() -> bool:
        found[:] = await _look(lab)
        return not found

    try:
        call_async(lambda: until(converged, "no difference"))
    except TimeoutError:
        raise AssertionError("not converged:\n" + "\n".join(found)) from None


def differences(lab: Lab) -> list[str]:
    """What differs now, a line each."""
    return call_async(lambda: _look(lab))


async def _look(lab: Lab) -> list[str]:
    try:
        database = PoolDatabase([f"unix:{lab.daemons.pool_socket}"])
        await database.open()
        try:
            state = database.mirror.state
            hosts = [await _look_at(lab, state, host.name) for host in lab.spec.hosts]
            plugged = {(port.vif, host) for host, ports, _ in hosts for port in ports if port.vif is not None}
            return [line for _, _, lines in hosts for line in lines] + list(_database_differences(state, plugged))
        finally:
            await database.close()
    except (PoolError, OvsdbError, OpenFlowError, OSError) as error:
        return [f"could not look: {error}"]


async def _look_at(lab: Lab, state: PoolState, host: str) -> tuple[str, list[LocalPort], list[str]]:
    """A host's name, its ports and what differs there."""
    ovs = lab.ovs(host)
    async with (
        OvsdbClient([ovs.db], "Open_vSwitch") as client,
        OpenFlowClient(f"unix:{ovs.dir}/{BRIDGE}.mgmt") as switch,
    ):
        replica = await client.monitor(MONITORS)
        found = await switch.dump_flows(cookie=COOKIE_MARK, cookie_mask=COOKIE_MARK_MASK)
        ports = read_ports(replica, BRIDGE)
        lines = list(_host_differences(lab, state, host, replica, ports, [entry.flow for entry in found]))
        return host, ports, [*lines, *await _on_uplinks(lab, host)]


async def _on_uplinks(lab: Lab, host: str) -> list[str]:
    """The flows of ours on uplinks' bridges, but for those that only listen: there are some only while VIFs move."""
    left = []
    for uplink in lab.spec.host(host).uplinks:
        async with OpenFlowClient(f"unix:{lab.ovs(host).dir}/{uplink_bridge(uplink.name)}.mgmt") as switch:
            found = await switch.dump_flows(cookie=COOKIE_MARK, cookie_mask=COOKIE_MARK_MASK)
            flows = (entry.flow for entry in found)
            left += [
                f"{host}: left on {uplink.name}: {flow}"
                for flow in flows
                if flow.cookie >> COOKIE_CATEGORY_SHIFT & 0xFF != Category.HELLO
            ]
    return left


def _host_differences(
    lab: Lab, state: PoolState, host: str, replica: Replica, found: list[LocalPort], flows: list[Flow]
) -> Iterator[str]:
    awaited = {vif: b.ofport for (vif, at), b in state.bindings.items() if at == host and not b.plugged}
    plugged = {port.vif: port.ofport for port in found if port.vif is not None and port.ofport is not None}
    ports = awaited | plugged
    devices = {port.name: port.ofport for port in found if port.vif is None and port.ofport is not None}
    view = HostView.of(state, host, ports, devices)
    for change in FlowTable.diff(FlowTable(flat(compile_flows(view))), FlowTable(flows)):
        yield f"{host}: to be made good: {change}"
    rows = ovs_rows(view, Switch(BRIDGE, lab.ovs(host).datapath_type))
    yield from (f"{host}: to be made good: {change}" for change in vswitch.plan(rows, replica, OWNER))
    mtus = {port.vif: port.mtu_request or port.mtu for port in found if port.vif is not None}
    yield from (f"{host}: MTU of {v} is {mtus[v]}" for v in vif_mtus(view, mtus) if v in plugged)


def _database_differences(state: PoolState, plugged: set[tuple[str, str]]) -> Iterator[str]:
    for (vif, host), binding in state.bindings.items():
        if vif not in state.vifs:
            yield f"binding of {vif}, which is gone, to {host}"
        elif ((vif, host) in plugged) is not binding.plugged:
            yield f"{vif} is {binding.state.value} on {host}, which has {'a' if (vif, host) in plugged else 'no'} port of it"
        elif copied(binding, state.vifs[vif], tiers=binding.tiers) != binding:
            yield f"the binding of {vif} to {host} says of it what no longer holds"
        elif binding.ready is not binding.plugged:
            yield f"{vif} is {'ready' if binding.ready else 'not ready'} on {host}"
        elif binding.state.moving and state.vifs[vif].incoming != host:
            yield f"{vif} is {binding.state.value} on {host}, and is not moving there"
    for vif, host in plugged:
        if vif in state.vifs and vif not in {v for v, _ in state.bindings}:
            yield f"{vif} has a port on {host} and no binding"
    for name, agent in state.agents.items():
        yield from (f"{name}: {what}: {text}" for what, text in agent.problems.items())


def flows_of(lab: Lab, host: str) -> list[str]:
    """All flows of a host's integration bridge as text, by name: what a restart must leave as it was."""
    text = lab.ovs(host).ofctl("dump-flows", BRIDGE, "--no-stats")
    return sorted(line.strip() for line in text.splitlines())
