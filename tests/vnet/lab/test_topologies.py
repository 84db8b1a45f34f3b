"""Every topology that we ship, on this machine: up, who reaches whom, down to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vnet.lab.conftest import new_name
from tests.vnet.lab.test_lab import left_of
from vnet.lab import Driver, Lab
from vnet.lab.expectations import check
from vnet.lab.matrix import Reached, expected, measure
from vnet.model import LockingMode, PoolState
from vnet.plan import desired_state
from vnet.topology.load import load

pytestmark = [pytest.mark.ovs, pytest.mark.netns]
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
        assert [outcome.text for outcome in (check(lab, e) for e in document.expectations) if not outcome.held] == []
        assert Reached.DOUBLED not in matrix.reached.values()
        unlocked = {lab.label(vif) for vif in pool.vifs.values() if vif.locking_mode is LockingMode.UNLOCKED}
        assert matrix.strays.keys() <= unlocked  # who may have any MAC gets what nobody is known to have
    assert left_of(lab.spec.name, lab.spec.namespaces()) == []


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
        assert [check(lab, e).held for e in document.expectations] == [True, True, True, True, True, False]
