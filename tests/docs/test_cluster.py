"""The commands of docs/cluster.md, run as they stand: each host is a directory and an address on loopback of its own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.authorities import TestAuthority
from tests.docs.running import ran
from tests.polling import wait_until
from tests.servers import run_dir
from vnet.controller.embedded import EmbeddedDatabase
from vnet.lab.processes import alive, stop

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"^```sh\n# on (?P<host>\w+)\n(?P<script>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.M | re.S
)


NO_PKI = ("vnet pool status", "vnet pool kick")  # they ask the server here


class Hosts:
    """Directories for /run/vnet and /var/lib/vnet of each host, and a loopback network for 10.0.0.0/24."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pki = TestAuthority(path / "pki")
        self.pki.server()
        self.network = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}"

    def run(self, host: str, script: str) -> str:
        run, state = self.path / host / "run", self.path / host / "lib"
        run.mkdir(parents=True, exist_ok=True)
        if not (state / "pki").exists():
            shutil.copytree(self.pki.directory, state / "pki", ignore=shutil.ignore_patterns("ca.key.pem", "issued"))
        here = f" --run-dir {run} --state-dir {state}"
        lines = [
            line + here + ("" if line.startswith(NO_PKI) else f" --pki-dir {state}/pki")
            if line.startswith("vnet ")
            else line
            for line in script.splitlines()
        ]
        text = "\n".join(lines).replace("/run/vnet", str(run)).replace("/var/lib/vnet", str(state))
        code, said = ran(text.replace("10.0.0", self.network), self.path)
        assert code == 0, f"on {host}: {script}\n{said}"
        return said.replace(self.network, "10.0.0")

    def stop(self) -> None:
        for host in self.path.glob("*/run"):
            EmbeddedDatabase(host, host.parent / "lib").proxy.stop()
        for pidfile in self.path.glob("*/run/*.pid"):
            pid = int(pidfile.read_text())
            if alive(pid) and str(self.path).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                stop([pid])


@pytest.fixture
def hosts(ovs: None) -> Iterator[Hosts]:
    with run_dir() as path:
        made = Hosts(path)
        try:
            yield made
        finally:
            made.stop()


def test_the_commands_do_what_they_are_said_to(hosts: Hosts) -> None:
    found = list(BLOCK.finditer((ROOT / "docs" / "cluster.md").read_text()))
    assert len(found) > 8
    for block in found:
        wanted = block["output"]

        def agrees(block: re.Match[str] = block, wanted: str | None = wanted) -> bool:
            said = hosts.run(block["host"], block["script"])
            return wanted is None or said.split() == wanted.split()

        if wanted is None:
            agrees()
        else:  # the servers hear of each other one by one
            wait_until(agrees, f"{block['script']} prints\n{wanted}")
