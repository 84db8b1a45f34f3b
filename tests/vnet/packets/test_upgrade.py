"""A rolling upgrade: agents of the version before and of this one in one pool, under streams that lose nothing."""

from __future__ import annotations

import contextlib
import io
import json
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
from vnet.api.errors import Conflict
from vnet.client import Client, NetworkSpec
from vnet.lab import Driver, Lab
from vnet.lab.daemons import CONTROLLER, ROOT, Daemons
from vnet.lab.processes import alive, start, start_time, stop

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
def lab(netns: None, version_before: Path) -> Iterator[Lab]:
    """A pool whose agents are all of the version before, with a controller of this one."""
    with contextlib.ExitStack() as stack:
        with agents_of(version_before):
            running = stack.enter_context(Lab.up(pool(), name=new_name(), driver=Driver.NETNS, daemons=True))
        running.start_all()
        yield running


@contextlib.contextmanager
def agents_of(tree: Path) -> Iterator[None]:
    """Inside, agents are started from a tree, with the options that it knows."""
    ordinary = Daemons._start

    def started(self: Daemons, name: str, netns: str | None, args: list[str]) -> int:  # in a thread for each host
        if name == CONTROLLER:
            return ordinary(self, name, netns, args)
        command = [sys.executable, "-m", "vnet.cli.main", *without(args)]
        pid = start(command, log=self.log(name), env={**self.env, "PYTHONPATH": str(tree)}, netns=netns)
        self._record(name).write_text(json.dumps([pid, start_time(pid)]))
        return pid

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Daemons, "_start", started)
        yield


def restart_agent(lab: Lab, host: str, tree: Path) -> None:
    """Stop a host's agent and start that of a tree in its place."""
    pid = lab.daemons.pid(host)
    assert pid, "the agent that is to be replaced runs"
    stop([pid])
    if tree != ROOT:  # it reads the flows back, and does not know all that later versions use
        lab.ovs(host).ofctl("del-flows", "br-int")
    with agents_of(tree) if tree != ROOT else contextlib.nullcontext():
        lab.daemons.start_agent(host, lab.ovs(host))
    assert alive(lab.daemons.pid(host))


def runs(lab: Lab, host: str, tree: Path) -> bool:
    """Whether a host's agent is that of a tree."""
    return str(tree).encode() in Path(f"/proc/{lab.daemons.pid(host)}/environ").read_bytes()


def without(command: list[str]) -> list[str]:
    """A command without the options that came after the version before."""
    kept = [word for word in command if word != "--cleartext"]
    for option in ("--state-dir", "--wireguard-dir"):
        if option in kept:
            at = kept.index(option)
            del kept[at : at + 2]
    return kept


def test_agents_are_upgraded_one_by_one_and_no_frame_is_lost(lab: Lab) -> None:
    """Before, none of them can be had to send an encrypted network's frames in clear."""
    with Client(f"unix:{lab.daemons.controller_socket}") as asked:
        with pytest.raises(Conflict, match=f"upgrade host {', '.join(HOSTS)}"):
            asked.put_network("dark", NetworkSpec(type="vxlan", encryption="required"))
        with pytest.raises(Conflict, match="upgrade host"):
            asked.apply(
                asked.export().replace("type: vxlan,", "type: vxlan, encryption: required,").encode(),
                "pool.vnet.yaml",
            )
    with streams(lab) as running:
        for host in HOSTS:
            go_on(running)
            restart_agent(lab, host, ROOT)
            lab.daemons.settle()
        wait_sent(running, go_on(running))
    for (source, to), (stream, _) in running.items():
        got = stream.report.at(to)
        assert (got.lost, got.duplicated) == (0, 0), f"{source} to {to}"
    wait_converged(lab)


@pytest.mark.parametrize("host", [A, B])
def test_a_vm_migrates_between_versions(lab: Lab, version_before: Path, host: str) -> None:
    """One host has the agent of the version before: a VM moves from it, and to it."""
    for other in HOSTS:  # without the test above they are not upgraded yet
        if other != host and runs(lab, other, version_before):
            restart_agent(lab, other, ROOT)
    if not runs(lab, host, version_before):
        restart_agent(lab, host, version_before)
    lab.daemons.settle()
    lab.migrate(f"vx-{A}", B)
    lab.migrate(f"vx-{A}", A)
    restart_agent(lab, host, ROOT)
    lab.daemons.settle()
    wait_converged(lab)
