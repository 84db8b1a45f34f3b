"""The README's commands, run as they stand: on a lab of their own name, with the commands of this checkout."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.running import ran
from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.lab.test_lab import left_of
from vnet.client import Client
from vnet.lab import Lab, labs, remove

pytestmark = pytest.mark.usefixtures("netns")
ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```\n(vnet .*?)^```\n", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"\s+# .*$")


def commands(starting: str) -> list[str]:
    """The lines of the README's block whose first line starts so."""
    (found,) = [one for one in BLOCK.findall((ROOT / "README.md").read_text()) if one.startswith(starting)]
    return [COMMENT.sub("", line) for line in found.splitlines()]


def run_here() -> list[str]:
    """All lines but the last of a toolstack's, a migration: tests/docs/test_pages.py has a toolstack that plugs at the destination."""
    return [*commands("vnet lab up"), *commands("vnet validate"), *commands("vnet vif create")[:-1]]


def test_the_readmes_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = new_name()
    vnet = tmp_path / "vnet"
    vnet.write_text(f'#!/bin/sh\nexec {sys.executable} -m vnet.cli.main "$@"\n')
    vnet.chmod(0o755)
    shutil.copy(ROOT / "topologies" / "quickstart.vnet.yaml", tmp_path / "pool.vnet.yaml")
    (tmp_path / "topologies").symlink_to(ROOT / "topologies")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("VNET_LAB_NAME", name)
    # On a terminal `vnet apply` asks; here nobody answers.
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def run(line: str) -> str:
        code, printed = ran(line, tmp_path)
        assert code == 0, f"{line}: {printed}"
        return printed

    up, ping, show, down = commands("vnet lab up")
    try:
        run(f"{up} --name {name}")
        assert "3 received" in run(ping)
        assert "Bridge br-int" in run(show)
        lab = Lab.attach(name)
        namespaces = lab.spec.namespaces()
        monkeypatch.setenv("VNET_CONTROLLER", f"unix:{lab.daemons.controller_socket}")
        said = [run(line) for line in commands("vnet validate")]
        assert "Nothing to change" in said[1]
        assert "14 ready" in said[3]

        create, plug, get, _ = commands("vnet vif create")  # the last: see run_here
        lab.stop("web1")
        run(create)
        run("vnet lab host xen3 -- ip tuntap add tap3 mode tap")
        run(f"vnet lab host xen3 -- {plug}")
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            wait_until(lambda: client.vif("web1/0").place.state == "ready", "web1/0 to be ready")
        assert "xen3  ready" in run(get)
        run(down)
        assert left_of(name, namespaces) == []
    finally:
        if name in labs():
            remove(name)
