"""Blocks of pages that no other test runs: each YAML is a document, or a part of one; commands of docs/trust.md and docs/remote.md work as they stand."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.test_documents import DOCS
from tests.servers import ovsdb_server
from tests.vnet.controller.daemons import controller
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

YAML = re.compile(r"^```yaml\n(.*?)^```", re.M | re.S)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
RUN_ELSEWHERE = {"tutorial.md", "install.md"}
BASE = """
apiVersion: vnet/v1
pool: pages
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks: {tenant-a: {type: vxlan}, tenant-b: {type: vxlan}, prod: {type: vlan, tag: 9, uplink: trunk0}}
security-groups: {db: {rules: []}}
vms:
  web1: {labels: {app: shop}, vifs: [{network: tenant-a}]}
  db1:  {vifs: [{network: tenant-a, security-groups: [db]}]}
  ids1: {vifs: [{network: tenant-a}]}
"""
PARTS = [
    (page.name, block)
    for page in sorted(DOCS.glob("*.md"))
    if page.name not in RUN_ELSEWHERE
    for block in YAML.findall(page.read_text())
]


def whole(part: str) -> str:
    """A document of a part of one: what it lacks is as in BASE."""
    if "apiVersion" in part:
        return part
    base, own = yaml.safe_load(BASE), yaml.safe_load(part)
    return yaml.safe_dump(base | {section: base.get(section, {}) | objects for section, objects in own.items()})


@pytest.mark.parametrize(("page", "part"), PARTS, ids=[page for page, _ in PARTS])
def test_a_document_on_a_page_is_one_and_does_what_it_expects(page: str, part: str, tmp_path: Path) -> None:
    document = load(whole(part).encode(), page)
    assert desired_state(document, PoolState()).networks
    (tmp_path / "page.vnet.yaml").write_text(whole(part))
    if "expectations:" in part:
        assert main.run(["check", str(tmp_path / "page.vnet.yaml")]) == ExitCode.OK


# On machines (tests/debian), or in tests of what they start.
NOT_HERE = ("vnet pki", "vnet host", "vnet controller", "vnet --controller")


@pytest.mark.usefixtures("ovs")
def test_the_commands_of_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for block in SHELL.findall((DOCS / "trust.md").read_text()) for line in block.splitlines()]
    here = [line for line in lines if not line.startswith(NOT_HERE)]
    assert len(here) >= 9
    (encrypted,) = [part for page, part in PARTS if page == "trust.md"]  # else there are no keys to make anew
    with controller(document=whole(encrypted).encode()) as pool:
        monkeypatch.setenv("VNET_CONTROLLER", pool.address)
        results: dict[str, Any] = {}
        for line in here:
            command = re.sub(r"/(?:root|etc/vnet)/", f"{tmp_path}/", line).replace("history 41", "history 1")
            results[line] = main.run(shlex.split(command, comments=True)[1:])
        assert {line: code for line, code in results.items() if code != ExitCode.OK} == {}
        assert {file.name for file in tmp_path.iterdir()} >= {"xapi.token", "proxy.token"}


@pytest.mark.usefixtures("ovs")
def test_the_commands_of_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates, and a host that has nothing but Open vSwitch. Its agents are those of tests/vnet/agent/test_remote.py."""
    make, on_the_host, _ = SHELL.findall((DOCS / "remote.md").read_text())
    for directory in ("etc/openvswitch", "var/lib/vnet", "root"):
        (tmp_path / directory).mkdir(parents=True)
    for line in make.splitlines():
        assert main.run(shlex.split(re.sub(r"/(?=var/lib|root/)", f"{tmp_path}/", line))[1:]) == ExitCode.OK
    assert {"server.pem", "ca.pem"} <= {file.name for file in (tmp_path / "root/xen1").iterdir()}
    with ovsdb_server() as server:
        server.vsctl("--no-wait", "init")
        vsctl = f'ovs-vsctl() {{ command ovs-vsctl --no-wait --db={server.remote} "$@"; }}\n'
        script = vsctl + on_the_host.replace("/etc/", f"{tmp_path}/etc/")
        done = subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert server.vsctl("get-manager").strip() == "pssl:6640"
        assert f"{tmp_path}/etc/openvswitch/vnet/server.pem" in server.vsctl("get-ssl")
