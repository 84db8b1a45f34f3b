"""A new tunnel type costs two production files: its carrier, and the pool schema that lets rows name it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

CARRIERS = Path("vnet/objects/carriers.py")
SCHEMA = Path("vnet/db/vnet.ovsschema")
MADE_UP = {
    CARRIERS: (
        ('    GENEVE = "geneve"\n', '    GENEVE = "geneve"\n    LAB = "lab"\n'),
        (
            '    NetworkType.GENEVE: _tunnel(GENEVE, "vni"),\n',
            '    NetworkType.GENEVE: _tunnel(GENEVE, "vni"),\n'
            "    NetworkType.LAB: _tunnel(\n"
            '        Encapsulation("lab", "vnet-lab", "geneve", 58, range(1, 2**24), (("dst_port", "6082"),)), "vni"\n'
            "    ),\n",
        ),
    ),
    SCHEMA: (('"gre", "geneve"]', '"gre", "geneve", "lab"]'),),
}

USES = '''
from ovsctl.ovsdb import Schema
from vnet.compile import Switch, ovs_rows
from vnet.db.rows import SCHEMA_TEXT, to_columns
from vnet.objects import PoolState
from vnet.plan import desired_state, export_document, plan_pool, render_plan
from vnet.sim import SimPool
from vnet.topology import load

DOCUMENT = """
apiVersion: vnet/v1
pool: lab
hosts: {xen1: {address: 10.99.0.1}, xen2: {address: 10.99.0.2}}
networks: {a: {type: lab}, b: {type: lab, vni: 9}, c: {type: geneve}}
vms:
  web1: {host: xen1, vifs: [{network: a, addresses: [10.1.0.1]}]}
  db1: {host: xen2, vifs: [{network: a, addresses: [10.1.0.2]}]}
"""

document = load(DOCUMENT.encode(), "lab.vnet.yaml")
state = desired_state(document, PoolState())
a, b, c = (state.networks[name] for name in "abc")
assert (a.key, b.key, c.key) == (5001, 9, 5001), "its keys are a space of their own"
assert (a.mtu, c.mtu) == (1442, 1450)
assert "lab vni 5001 mtu 1442" in render_plan(plan_pool(PoolState(), state))
assert "b: {type: lab, mtu: 1442, vni: 9}" in export_document(state)
Schema.parse(SCHEMA_TEXT).tables["Network"].columns["type"].type.encode(to_columns(a)["type"])
pool = SimPool.from_document(document)
(integration,) = ovs_rows(pool.hosts["xen1"].view, Switch()).bridges
(tunnel,) = [port for port in integration.ports if port.name == "vnet-lab"]
assert tunnel.interfaces[0].type == "geneve"
assert tunnel.interfaces[0].options == {"remote_ip": "flow", "key": "flow", "dst_port": "6082"}
assert pool.connect("web1/0", "db1/0").reached
try:
    load(DOCUMENT.replace("vni: 9", "key: 9").encode(), "lab.vnet.yaml")
except Exception as error:
    assert "vni" in str(error)
else:
    raise AssertionError("a GRE key was taken")
print("all of it")
'''


def test_a_tunnel_type_is_its_carrier_and_a_word_of_the_schema(tmp_path: Path) -> None:
    for package in ("vnet", "ovsctl"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, edits in MADE_UP.items():
        text = (tmp_path / path).read_text()
        for old, new in edits:
            assert text.count(old) == 1, (path, old)
            text = text.replace(old, new)
        (tmp_path / path).write_text(text)
    script = tmp_path / "uses.py"
    script.write_text(USES)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, script], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "all of it\n", done.stderr
