"""A rolling upgrade: agents of the version before and of this one in one pool, under streams that lose nothing."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vnet.converged import wait_converged
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.lab.conftest import new_name
from tests.vnet.packets.pools import HOSTS
from tests.vnet.packets.test_restarts import pool, streams
from vnet.lab import Driver, Lab
from vnet.lab.daemons import ROOT, Daemons
from vnet.lab.processes import alive, stop

BEFORE = "7323b67"  # the last commit of version 0.1.0
A, B, C = HOSTS


@pytest.fixture(scope="module")
def version_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the version before, from the repository's own history."""
    path = tmp_path_factory.mktemp("before")
    archive = subprocess.run(["git", "archive", BEFORE, "vnet", "ovsctl"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
        tree.extractall(path, filter="data")
    # Daemons run in "/" and find their modules by PYTHONPATH alone; this module is in no later version.
    only_before = [sys.executable, "-c", "import vnet.agent.claims"]
    subprocess.run(only_before, cwd="/", env={"PYTHONPATH": str(path)}, check=True)
    return path


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    with Lab.up(pool(), name=new_name(), driver=Driver.NETNS, daemons=True) as running:
        running.start_all()
        yield running


def restart_agent(lab: Lab, host: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a host's agent and start that of a tree in its place, with the options that it knows."""
    pid = lab.daemons.pid(host)
    assert pid, "the agent that is to be replaced runs"
    stop([pid])
    original, start = Daemons.env.fget, Daemons._start
    assert original is not None

    def start_with(self: Daemons, name: str, netns: str | None, command: list[str]) -> None:
        known = command if tree == ROOT else without(command)
        start(self, name, netns, known)

    with monkeypatch.context() as patched:
        patched.setattr(Daemons, "env", property(lambda self: {**original(self), "PYTHONPATH": str(tree)}))
        patched.setattr(Daemons, "_start", start_with)
        lab.daemons.start_agent(host, lab.ovs(host))
    assert alive(lab.daemons.pid(host))


def without(command: list[str]) -> list[str]:
    """A command without the options that came after the version before."""
    kept = [word for word in command if word != "--cleartext"]
    if "--state-dir" in kept:
        at = kept.index("--state-dir")
        del kept[at : at + 2]
    return kept


def test_agents_are_upgraded_one_by_one_and_no_frame_is_lost(
    lab: Lab, version_before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with streams(lab) as running:
        for tree in (version_before, ROOT):
            for host in HOSTS:
                restart_agent(lab, host, tree, monkeypatch)
                lab.daemons.settle()
                go_on(running)
        wait_sent(running, go_on(running))
    for (source, to), (stream, _) in running.items():
        got = stream.report.at(to)
        assert (got.lost, got.duplicated) == (0, 0), f"{source} to {to}"
    wait_converged(lab)


@pytest.mark.parametrize("host", [A, B])
def test_a_vm_migrates_between_versions(
    lab: Lab, version_before: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """One host has the agent of the version before: a VM moves from it, and to it."""
    restart_agent(lab, host, version_before, monkeypatch)
    lab.daemons.settle()
    lab.migrate(f"vx-{A}", B)
    lab.migrate(f"vx-{A}", A)
    restart_agent(lab, host, ROOT, monkeypatch)
    lab.daemons.settle()
    wait_converged(lab)
