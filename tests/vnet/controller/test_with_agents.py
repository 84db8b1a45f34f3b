"""The controller's calls with real agents on real Open vSwitch: who has a VIF afterwards, in rows and in flows."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.labs import new_name
from tests.polling import wait_until
from vnet.client import Client, Unit, VifSpec
from vnet.client.local import call_agent
from vnet.compile import Table
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

DOCUMENT = b"""\
apiVersion: vnet/v1
pool: moves
hosts:
  xen1: {address: 10.99.0.1}
  xen2: {address: 10.99.0.2}
  xen3: {address: 10.99.0.3}
underlay: {mtu: 1600}
networks: {red: {type: vxlan}, blue: {type: geneve}}
vms:
  web: {host: xen1, vifs: [{network: red}, {network: blue}]}
  db: {host: xen2, vifs: [{network: red}]}
  log: {host: xen1, vifs: [{network: blue}]}
"""


@pytest.fixture(scope="module")
def lab(ovs: None) -> Iterator[Lab]:
    pool = desired_state(load(DOCUMENT, "moves"), PoolState())
    made = Lab.up(pool, name=new_name(), driver=Driver.DUMMY, daemons=True, document=DOCUMENT.decode())
    try:
        for vm in ("web", "db", "log"):
            made.start(vm)
        yield made
    finally:
        made.down()


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    with Client(f"unix:{lab.daemons.controller_socket}") as made:
        wait_until(lambda: all(vif.place.state == "ready" for vif in made.vifs()), "all VIFs ready")
        yield made


def runs_on(client: Client, vm: str) -> set[str | None]:
    return {vif.place.host for vif in client.vm(vm).vifs}


def hosts_with(client: Client, vif: str) -> list[str]:
    return [binding.host for binding in client.bindings(vif=vif)]


def plugged_at(lab: Lab, host: str) -> dict[str, object]:
    """The VIFs whose ports `host` has, as its agent tells."""
    found = call_agent("status", {}, str(lab.daemons.agent_socket(host)))
    assert found["complete"]
    return dict(found["vifs"])


def plug_when_asked(lab: Lab, client: Client, vm: str, to: str) -> None:
    wait_until(lambda: client.vm(vm).migration.destination == to, f"{vm} on its way to {to}")
    lab.plug(vm, to)


def test_the_whole_way_and_the_sources_agent_lets_go(lab: Lab, client: Client) -> None:
    toolstack = threading.Thread(target=plug_when_asked, args=(lab, Client(client.address), "web", "xen3"))
    toolstack.start()
    lines: list[str] = []
    done = client.migrate(Unit.of_vm("web"), "xen3", activate=True, timeout_s=30, progress=lines.append)
    toolstack.join()
    assert done.phase == "none"
    assert "VM web is prepared on host xen3" in lines
    assert runs_on(client, "web") == {"xen3"}
    wait_until(lambda: hosts_with(client, "web/0") == hosts_with(client, "web/1") == ["xen3"], "xen1 to let go")
    lab.unplug("web", "xen1")
    assert client.apply(DOCUMENT, wait_s=20).waiting == []
    assert runs_on(client, "web") == {"xen3"}  # a document says where a lab starts it; it does not pull it back


def test_an_abort_leaves_the_source_as_it_was_though_the_port_is_there(lab: Lab, client: Client) -> None:
    db, before = Unit.of_vm("db"), client.bindings(vif="db/0")
    client.prepare(db, "xen1")
    lab.plug("db", "xen1")
    wait_until(lambda: client.migration(db).phase == "prepared", "prepared")
    assert {b.host: b.state for b in client.bindings(vif="db/0")} == {"xen1": "held", "xen2": "active"}
    client.abort(db)
    wait_until(lambda: bool(client.hosts()[0].agent.problems), "xen1 to say that its port is silent")
    assert client.bindings(vif="db/0") == before
    assert [event.kind for event in client.events(vif="db/0")].count("held") == 1  # and is not claimed again
    lab.unplug("db", "xen1")
    wait_until(lambda: client.status().problems == [], "nothing to complain of")
    assert "db/0" not in plugged_at(lab, "xen1")


def test_evacuation_and_flows_that_follow(lab: Lab, client: Client) -> None:
    here = {vm for vm in ("web", "db", "log") if runs_on(client, vm) == {"xen1"}}
    assert "log" in here
    with ThreadPoolExecutor() as toolstack:
        for vm in here:
            toolstack.submit(plug_when_asked, lab, Client(client.address), vm, "xen2")
        done = client.evacuate("xen1", to="xen2", activate=True, timeout_s=30)
    assert done.moved == dict.fromkeys(here, "xen2")
    wait_until(lambda: client.bindings(host="xen1") == [], "xen1 to let go")
    flows = call_agent("flows", {"vif": "log/0"}, str(lab.daemons.agent_socket("xen2")))
    assert {"table", "packets", "flow"} <= flows[0].keys()
    assert any("priority=" in flow["flow"] for flow in flows)


def printed_status(client: Client) -> list[str]:
    command = [sys.executable, "-m", "vnet.cli.main", "--controller", client.address, "status"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def test_a_vif_that_the_switch_has_no_room_for_is_named(lab: Lab, client: Client) -> None:
    """What is over a limit of the switch is refused for the VIF that it is of, never for its host."""
    switch = lab.ovs("xen1")
    held = switch.ofctl("dump-flows", "br-int", f"table={Table.GUARD}", "--no-stats").count("priority=")
    switch.vsctl(
        "--", "--id=@full", "create", "Flow_Table", f"flow_limit={held}", "overflow_policy=refuse", "--",
        "set", "Bridge", "br-int", f"flow_tables:{Table.GUARD}=@full",
    )  # fmt: skip
    client.put_vif("late/0", VifSpec(network="red"))
    switch.vsctl(
        "add-port", "br-int", "late", "--", "set", "interface", "late", "type=dummy", "external_ids:iface-id=late/0"
    )
    problem = "br-int does not take its flows: OFPFMFC_TABLE_FULL"
    told = wait_until(lambda: [line for line in printed_status(client) if problem in line], "the VIF is named")
    assert "late/0" in told[0]
    assert "xen1" in told[0]
    assert client.vif("late/0").place.state != "ready"
    switch.vsctl("clear", "Bridge", "br-int", "flow_tables")
    switch.vsctl("del-port", "late")
