"""VIFs that a toolstack plugs into a bridge of their network, as xapi does: the host moves their ports to br-int."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.faults import How, Part, ProcessFault
from tests.xenserver.scripts import add_to_bridge, external_ids, remove_from_bridge
from vnet.client import Client, PlugBridgeSpec
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

UUIDS = {vm: f"5a1f8d1e-0000-4000-8000-00000000000{n}" for n, vm in enumerate(("a", "b", "c"), 1)}
BRIDGE = "xapi-blue"
DOCUMENT = f"""\
apiVersion: vnet/v1
pool: plugs
hosts: {{xen1: {{address: 10.99.0.1}}, xen2: {{address: 10.99.0.2}}}}
underlay: {{mtu: 1600}}
networks: {{blue: {{type: vxlan}}}}
plug-bridges: {{{BRIDGE}: {{network: blue}}}}
vms:
  a: {{vifs: [{{id: {UUIDS["a"]}, network: blue, addresses: [10.1.0.1]}}]}}
  b: {{vifs: [{{id: {UUIDS["b"]}, network: blue, addresses: [10.1.0.2]}}]}}
  c: {{vifs: [{{id: {UUIDS["c"]}, network: blue, addresses: [10.1.0.3]}}]}}
""".encode()


@pytest.fixture(scope="module", params=list(Driver), ids=lambda driver: driver.value)
def lab(netns: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab.up(
        desired_state(load(DOCUMENT, "plugs.vnet.yaml"), PoolState()),
        name=new_name(),
        driver=request.param,
        daemons=True,
    ) as running:
        yield running


def plug(lab: Lab, vm: str, host: str, bridge: str = BRIDGE) -> None:
    vif = lab.vif(vm)
    wait_until(lambda: bridge in lab.ovs(host).vsctl("list-br").split(), "the bridge")
    add_to_bridge(lab, vif, host, bridge, external_ids(vif.id, vm, "network", vif.mac))


def run(lab: Lab, vm: str, host: str) -> None:
    """The port is on br-int: the guest runs."""
    device = lab.spec.device(lab.vif(vm))
    wait_until(lambda: lab.ovs(host).vsctl("port-to-br", device).strip() == "br-int", f"the port of {vm}")
    lab.driver.plugged(lab.vif(vm), host)
    lab.run(vm, host)
    lab.wait_ready(vm)


def packet(lab: Lab, source: str, to: str) -> Packet:
    a, b = lab.vif(source), lab.vif(to)
    return Ether(src=a.mac, dst=b.mac) / IP(src=a.addresses[0], dst=b.addresses[0]) / UDP() / Raw(b"?" * 20)


def reached(lab: Lab, source: str, to: str) -> bool:
    sent = packet(lab, source, to)
    return [item.to for item in lab.send(source, sent) if item.frame == bytes(sent)] == [f"{to}/0"]


def test_ports_are_moved_and_no_frame_passes_before(lab: Lab) -> None:
    agent = ProcessFault(Part.AGENT, How.STOPPED, "xen1")
    wait_until(lambda: BRIDGE in lab.ovs("xen1").vsctl("list-br").split(), "the bridge")
    agent.break_(lab)
    for vm in ("a", "b"):
        plug(lab, vm, "xen1")
        lab.driver.plugged(lab.vif(vm), "xen1")
        lab.run(vm, "xen1")
    assert not reached(lab, "a", "b")
    assert lab.ovs("xen1").vsctl("list-ports", BRIDGE).split() == sorted(lab.spec.device(lab.vif(vm)) for vm in "ab")
    agent.mend(lab)
    plug(lab, "c", "xen2")
    for vm, host in (("a", "xen1"), ("b", "xen1"), ("c", "xen2")):
        run(lab, vm, host)
    assert all(reached(lab, source, to) for source, to in (("a", "b"), ("b", "c"), ("c", "a")))


def test_a_plug_that_waits_ends_once_the_switch_has_the_flows(lab: Lab) -> None:
    """/etc/xapi.d/vif-hotplug, as xenopsd's scripts call it."""
    hook = str(Path(__file__).parents[3] / "packaging/xapi/vif-hotplug")

    def waiting(vif: str, wait_s: int) -> subprocess.Popen[str]:
        argv = lab.host_argv("xen1", [hook, "-action", "online", "-vifuuid", vif, "-vmuuid", "any"])
        env = {**os.environ, **lab.host_env("xen1"), "VNET_WAIT_S": str(wait_s)}
        return subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)

    agent, vif = ProcessFault(Part.AGENT, How.STOPPED, "xen1"), lab.vif("b")
    remove_from_bridge(lab, vif, "xen1")
    agent.break_(lab)
    plug(lab, "b", "xen1")
    with waiting(vif.id, 1) as late, waiting("not-one-of-ours", 60) as other, waiting(vif.id, 60) as hook_:
        assert other.wait(20) == 0
        _, text = late.communicate(timeout=20)
        assert (late.returncode, "has no flows of it after 1 s" in text) == (0, True)
        assert hook_.poll() is None
        agent.mend(lab)
        assert hook_.wait(60) == 0
    number = lab.ovs("xen1").vsctl("get", "interface", lab.spec.device(vif), "ofport").strip()
    assert f"in_port={number}" in lab.ovs("xen1").ofctl("dump-flows", "br-int", f"in_port={number}")
    run(lab, "b", "xen1")
    assert reached(lab, "c", "b")


def test_what_names_no_vif_stays_and_so_does_what_is_plugged_when_its_bridge_goes(lab: Lab) -> None:
    plug(lab, "a", "xen1")
    run(lab, "a", "xen1")
    ovs = lab.ovs("xen1")
    ovs.vsctl("add-port", BRIDGE, "theirs", "--", "set", "interface", "theirs", "type=internal")
    plug(lab, "b", "xen1")
    run(lab, "b", "xen1")
    assert ovs.vsctl("list-ports", BRIDGE).split() == ["theirs"]
    ovs.vsctl("del-port", "theirs")
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        client.put_plug_bridge("late", PlugBridgeSpec(network="blue"))
        remove_from_bridge(lab, lab.vif("b"), "xen1")
        plug(lab, "b", "xen1", "late")
        run(lab, "b", "xen1")
        client.delete_plug_bridge("late")
        wait_until(lambda: "late" not in ovs.vsctl("list-br").split(), "the bridge to go")
    assert reached(lab, "a", "b")


def test_a_port_that_comes_and_goes_takes_nothing_from_others(lab: Lab) -> None:
    """The numbers of ports on a plug bridge are others than on br-int, and the database has the old one for a while after the move."""
    for vm, host in (("b", "xen1"), ("c", "xen2")):
        if not lab.ovs(host).vsctl("list-ports", "br-int").count(lab.spec.device(lab.vif(vm))):
            plug(lab, vm, host)
            run(lab, vm, host)
    with lab.stream("c/0", "b/0") as stream:
        for _ in range(3):
            remove_from_bridge(lab, lab.vif("a"), "xen1")
            plug(lab, "a", "xen1")
            run(lab, "a", "xen1")
    assert (stream.report.at("b/0").lost, stream.report.at("b/0").duplicated) == (0, 0)
