"""A lab and the twin judge a document's expectations alike."""

from __future__ import annotations

import sys

import pytest

from tests.labs import new_name
from vnet.lab import Driver, Lab
from vnet.lab.expectations import check
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.sim import SimPool
from vnet.topology import load
from vnet.verify.expectations import check as check_twin

pytestmark = pytest.mark.usefixtures("ovs")

DOCUMENT = b"""
apiVersion: vnet/v1
pool: judged
hosts: {a: {address: 10.99.0.1}, b: {address: 10.99.0.2}}
networks: {net: {type: vxlan}, far: {type: vxlan}}
security-groups:
  web:
    default: {ingress: drop, egress: allow}
    rules: [{name: http, direction: ingress, protocol: tcp, ports: [80], remote: any, action: allow}]
vms:
  web1: {host: a, vifs: [{network: net, addresses: [10.1.0.1], security-groups: [web]}]}
  db1: {host: b, vifs: [{network: net, addresses: [10.1.0.2]}, {network: far, addresses: [10.2.0.2]}]}
  db2: {host: a, vifs: [{network: net, addresses: [10.1.0.3]}]}
  off: {vifs: [{network: net, addresses: [10.1.0.4]}]}
expectations:
  - {name: every pair by http, from: net, to: web, protocol: tcp, port: 80, expect: reachable}
  - {name: one pair of many fails, from: net, to: net, protocol: tcp, port: 22, expect: reachable}
  - {name: one pair of many works, from: net, to: net, protocol: tcp, port: 22, expect: unreachable}
  - {name: any VIF of a VM, from: db2, to: db1, expect: reachable}
  - {name: answers pass, from: web, to: db1/0, protocol: udp, port: 53, expect: reachable}
  - {name: networks apart, from: net, to: far, expect: unreachable}
  - {name: a VM that does not run, from: off, to: db1, expect: reachable}
"""


def test_same_results_as_the_twin() -> None:
    document = load(DOCUMENT, "judged.vnet.yaml")
    state = desired_state(document, PoolState())
    with Lab.up(state, name=new_name(), driver=Driver.DUMMY, daemons=True) as lab:
        lab.start_all()
        results = check(lab, document)
        flows = lab.run_on_host("b", sys.executable, "-m", "vnet.cli.main", "show", "flows", "--vif", "db1/0")
    assert "table 10 guard" in flows  # of host b's own agent
    twins = check_twin(SimPool.of(state), document)
    assert [result.holds for result in results] == [True, False, False, True, True, True, False]
    assert [result.holds for result in twins] == [result.holds for result in results]
    pairs = [result.reason.partition(":")[0] for result in results]
    assert pairs == [result.reason.partition(":")[0] for result in twins]
    assert pairs[1:3] == ["db1/0 does not reach web1/0", "db1/0 reaches db2/0"]
