"""The same pool gives the same bytes in any process: flows, the order of a bundle, groups, rows and plans."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

PRINT = """
import json
from dataclasses import replace
from pathlib import Path

from ovsctl import vswitch
from ovsctl.ovsdb import Schema
from ovsctl.vswitch.snapshot import COLUMNS

from vnet.compile import Compiler, Switch, flat, ovs_rows
from vnet.objects import PoolState
from vnet.plan import desired_state, export_document, plan_pool, render_plan
from vnet.sim import SimPool
from vnet.topology import load

SCHEMA = Schema.parse(Path("/usr/share/openvswitch/vswitch.ovsschema").read_text())
EMPTY = {table: {} for table in COLUMNS} | {
    "Open_vSwitch": {"00000000-0000-4000-8000-000000000001": {column: frozenset() for column in COLUMNS["Open_vSwitch"]} | {"external_ids": {}}}
}

for path in sorted(Path("topologies").glob("*.vnet.yaml")):
    document = load(path.read_bytes(), path.name)
    state = desired_state(document, PoolState())
    print(render_plan(plan_pool(PoolState(), state)), export_document(state))
    pool = SimPool.from_document(document)
    running = pool.state
    for name in sorted(pool.hosts):
        host = pool.hosts[name]
        for flow in flat(host.compiled):
            print(flow)
        wanted = vswitch.plan(ovs_rows(host.view, Switch()), EMPTY)
        for operation in vswitch.transaction(wanted.changes):
            print(json.dumps(operation.encode(SCHEMA)))
        compiler = Compiler(name)
        inputs = compiler.inputs
        for row in running.hosts.values():
            inputs.set_host(row)
        for device, ofport in host.devices.items():
            inputs.set_device(device, ofport)
        for row in running.groups.values():
            inputs.set_group(row)
        for row in running.networks.values():
            inputs.set_network(row)
        for row in running.bindings.values():
            inputs.set_binding(row)
        for vif, ofport in host.ports.items():
            inputs.set_vif(running.vifs[vif])
            inputs.set_port(vif, ofport)
        for change in compiler.compile():
            print(change)
        for network in running.networks.values():
            inputs.set_network(replace(network, key=None if network.key is None else network.key - 1))
        for change in compiler.compile():
            print(change)
"""


def test_any_hash_seed_gives_the_same_bytes() -> None:
    outputs = set()
    for seed in ("0", "4242"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", PRINT], env=env, cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        outputs.add(done.stdout)
    (text,) = outputs
    assert text.count(b"Change(") > 400
