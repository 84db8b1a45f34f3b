"""Every topology that we ship, on this machine: up, who reaches whom, applied again, taken away, and back; down to nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.lab.test_lab import left_of
from vnet.client import Client
from vnet.lab import Driver, Lab
from vnet.lab.expectations import check
from vnet.lab.matrix import Reached, expected, measure
from vnet.objects import LockingMode, PoolState
from vnet.plan import desired_state
from vnet.topology import load
from vnet.topology.document import Document

pytestmark = pytest.mark.usefixtures("netns")
FILES = sorted((Path(__file__).parents[3] / "topologies").glob("*.vnet.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.partition(".")[0])
def test_topology_reaches_what_it_should_and_nothing_else(file: Path) -> None:
    document = load(file.read_bytes(), str(file))
    pool = desired_state(document, PoolState())
    with Lab.up(pool, name=new_name(), driver=Driver.NETNS, daemons=True) as lab:
        lab.start_all()
        matrix = measure(lab)
        found = {pair: outcome is not Reached.NOT for pair, outcome in matrix.reached.items()}
        assert found == expected(lab)
        assert [str(result) for result in check(lab, document) if not result.holds] == []
        assert Reached.DOUBLED not in matrix.reached.values()
        unlocked = {lab.label(vif) for vif in pool.vifs.values() if vif.locking_mode is LockingMode.UNLOCKED}
        assert matrix.strays.keys() <= unlocked  # who may have any MAC gets what nobody is known to have
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            comes_and_goes(lab, client, file.read_bytes(), document)
    assert left_of(lab.spec.name, lab.spec.namespaces()) == []


def comes_and_goes(lab: Lab, client: Client, text: bytes, document: Document) -> None:
    """Applied again it changes nothing; taken away it leaves nothing of ours; and applied once more all is as before."""
    lab.daemons.settle()
    before = {host: ours(lab, host) for host in document.state.hosts}
    assert client.apply(text, "again").plan.changes == []
    assert {host: ours(lab, host) for host in document.state.hosts} == before

    gone = client.apply(f"apiVersion: vnet/v1\npool: {document.pool}\n".encode(), "nothing")
    assert (gone.waiting, client.networks(), client.hosts(), client.vifs(), client.vms()) == ([], [], [], [], [])
    for host in document.state.hosts:
        wait_until(lambda host=host: is_bare(*ours(lab, host)), f"nothing left on {host}")

    assert client.apply(text, "once more").waiting == []
    for host in document.state.hosts:
        wait_until(lambda host=host: ours(lab, host) == before[host], f"all as before on {host}")


def ours(lab: Lab, host: str) -> tuple[set[str], set[str]]:
    """Names of the agent's ports, and the flows of br-int, with ports by name: a port that comes again has a new number, and with it its meter."""
    ovs = lab.ovs(host)
    ports = ovs.vsctl("--bare", "--columns=name", "find", "Port", "external_ids:vnet-owner=agent").split()
    flows = ovs.ofctl("dump-flows", "br-int", "--no-stats", "--names").splitlines()
    return set(ports), {re.sub(r"meter:\d+", "meter", flow.strip()) for flow in flows}


def is_bare(ports: set[str], flows: set[str]) -> bool:
    """Whether only the empty pipeline is there: its flows are no object's."""
    return ports == {"br-int"} and all(flow.startswith("cookie=0x766e000000000000,") for flow in flows)


OUTSIDE = b"""
apiVersion: vnet/v1
pool: outside
hosts:
  a: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  b: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  staff: {type: vlan, tag: 120, uplink: trunk0}
  other: {type: vlan, tag: 130, uplink: trunk0}
  inner: {type: vxlan}
subnets: {staff-v4: {network: staff, cidr: 10.1.0.0/24}}
vms:
  desk: {host: a, vifs: [{network: staff}, {network: inner, addresses: [10.2.0.1]}]}
expectations:
  - {from: outside, to: desk/0, expect: reachable}
  - {from: desk/0, to: outside, protocol: udp, port: 53, expect: reachable}
  - {from: outside, to: desk/1, protocol: tcp, port: 22, expect: unreachable}
  - {from: inner, to: outside, expect: unreachable}
  - {from: outside, to: other, expect: unreachable}
  - {from: outside, to: inner, expect: reachable}
"""


@pytest.mark.parametrize("driver", list(Driver), ids=lambda driver: driver.value)
def test_expectations_about_the_outside(driver: Driver) -> None:
    document = load(OUTSIDE, "outside.vnet.yaml")
    with Lab.up(desired_state(document, PoolState()), name=new_name(), driver=driver, daemons=True) as lab:
        lab.start_all()
        results = check(lab, document)
        assert [result.holds for result in results] == [True, True, True, True, True, False]
        assert "does not meet the physical one" in results[-1].reason
