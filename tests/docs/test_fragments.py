"""Each YAML of a page is a document, or a part of one; controllers that pages start answer, and commands of docs/trust.md and docs/remote.md work as they stand."""

from __future__ import annotations

import io
import re
import shlex
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.docs.test_documents import DOCS
from tests.servers import free_port, ovsdb_server, run_dir
from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import stop_embedded
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import TopologyErrors, load

YAML = re.compile(r"^```yaml\n(.*?)^```", re.M | re.S)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
RUN_ELSEWHERE = {"tutorial.md", "install.md"}
BASE = """
apiVersion: vnet/v1
pool: pages
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
  xen4: {address: 10.99.0.4, uplinks: {trunk0: {members: [eth1]}}}
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


ISSUED = re.compile(r"`(vnet pki issue [^`\n]*)`")
CONTROLLER = re.compile(r"(?:^|`)(vnet controller --listen [^`\n]*)", re.M)


@contextmanager
def controller_of(line: str, pki_dir: Path) -> Iterator[tuple[Controller, str]]:
    """A controller with the options of a page's line, and its address: at a port of loopback."""
    address = f"https://127.0.0.1:{free_port()}"
    assert main.run(["pki", "make", "--address", "127.0.0.1", "--pki-dir", str(pki_dir)]) == ExitCode.OK
    with run_dir() as path:
        made = Controller(path)
        options = re.sub(r"https://[\d.]+:8443", address, line).replace("/run/vnet", str(path / "run"))
        options = options.replace("pssl:6640:10.0.0.1", f"pssl:{free_port()}:127.0.0.1")
        here = [] if "unix:" in line else ["--listen", made.address]
        made.options = (*shlex.split(options)[2:], *here, "--pki-dir", str(pki_dir))
        try:
            made.start()
            yield made, address
        finally:
            made.stop(signal.SIGKILL)
            stop_embedded(made.database)


@pytest.mark.usefixtures("ovs")
@pytest.mark.parametrize("page", ["web.md", "toolstack.md"])
def test_a_controller_with_the_options_of_a_page_answers_there(page: str, tmp_path: Path) -> None:
    (line,) = CONTROLLER.findall((DOCS / page).read_text())
    with controller_of(line, tmp_path) as (_, address):
        answer = httpx.get(address, verify=ssl.create_default_context(cafile=tmp_path / "ca.pem"))
    assert (answer.status_code, "<html" in answer.text) == (200, True)


@pytest.mark.usefixtures("ovs")
def test_the_commands_of_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "trust.md").read_text()
    lines = [line for block in SHELL.findall(page) for line in block.splitlines()]
    (start,), (options,) = CONTROLLER.findall(page), re.findall(r"`(--pool-listen pssl:6640[^`]*)`", page)
    assert set(start.split()[2:]) <= set(options.split())
    issue = next(line for line in ISSUED.findall(page) if "xen4" in line)  # as its invitation would be answered
    lines.insert(lines.index("vnet host revoke xen4"), issue)
    (encrypted,) = [part for page, part in PARTS if page == "trust.md"]  # else there are no keys to make anew
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * len(lines)))
    with controller_of(f"vnet controller {options}", tmp_path) as (pool, address), pool.client() as client:
        client.apply(whole(encrypted).encode(), "trust.vnet.yaml", wait_s=0)
        monkeypatch.setenv("VNET_CONTROLLER", pool.address)
        assert main.run(["token", "make", "me", "--role", "viewer", "--to", "token"]) == ExitCode.OK
        results: dict[str, Any] = {}
        for line in lines:
            if line == start:
                continue
            command = re.sub(r"/(?:root|etc/vnet)/", f"{tmp_path}/", line).replace("history 41", "history 1")
            command = command.replace("https://10.0.0.1:8443", address).replace("10.0.0.1", "127.0.0.1")
            command += f" --pki-dir {tmp_path}" if line.startswith("vnet pki") else ""
            results[line] = main.run(shlex.split(command, comments=True)[1:])
        assert {line: code for line, code in results.items() if code != ExitCode.OK} == {}
        assert len(results) >= 14
        assert {file.name for file in tmp_path.iterdir()} >= {"xapi.token", "proxy.token"}


@pytest.mark.usefixtures("ovs")
def test_the_commands_of_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates, and a host that has nothing but Open vSwitch. Its agents are those of tests/vnet/agent/test_remote.py."""
    page = (DOCS / "remote.md").read_text()
    make, on_the_host, _ = SHELL.findall(page)
    for directory in ("etc/openvswitch", "var/lib/vnet", "root"):
        (tmp_path / directory).mkdir(parents=True)
    for line in (*make.splitlines(), *ISSUED.findall(page)):
        known = "" if "--pki-dir" in line else " --pki-dir /var/lib/vnet/switch-pki"  # one CA will do
        assert main.run(shlex.split(re.sub(r"/(?=var/lib|root/)", f"{tmp_path}/", line + known))[1:]) == ExitCode.OK
    assert {"server.pem", "ca.pem"} <= {file.name for file in (tmp_path / "root/xen1").iterdir()}
    with ovsdb_server() as server:
        server.vsctl("--no-wait", "init")
        vsctl = f'ovs-vsctl() {{ command ovs-vsctl --no-wait --db={server.remote} "$@"; }}\n'
        script = vsctl + on_the_host.replace("/etc/", f"{tmp_path}/etc/")
        done = subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert server.vsctl("get-manager").strip() == "pssl:6640"
        assert f"{tmp_path}/etc/openvswitch/vnet/server.pem" in server.vsctl("get-ssl")


def test_the_message_of_mirrors() -> None:
    """What `vnet validate` says of a filter with a name in it, but for the line."""
    (said,) = re.findall(r"^pool\.vnet\.yaml:\d+:\d+: (.*)$", (DOCS / "mirrors.md").read_text(), re.M)
    with pytest.raises(TopologyErrors) as refused:
        load(whole("mirrors: {ids: {from: [web1/0], filter: tcp port http, to: ids1/0}}").encode(), "pool.vnet.yaml")
    assert said in str(refused.value)
