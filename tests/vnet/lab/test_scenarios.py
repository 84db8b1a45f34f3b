"""Each scenario is broken at first and solved by its solution, as the commands that its last hint gives."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.labs import SharedLab, new_name
from tests.polling import wait_until
from tests.vnet.lab.test_lab import left_of
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.client import Client
from vnet.lab import Driver, Lab, labs, remove
from vnet.lab.scenarios import SCENARIOS, SHOP, Lesson, Scenario
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

pytestmark = pytest.mark.usefixtures("netns")
ROOT = Path(__file__).parents[3]


def _up() -> Lab:
    pool = desired_state(load(SHOP.encode(), "shop.vnet.yaml"), PoolState())
    lab = Lab.up(pool, name=new_name(), driver=Driver.NETNS, daemons=True, document=None)
    lab.start_all()
    return lab


SHARED = SharedLab(_up)


@pytest.fixture(scope="module", autouse=True)
def _ends() -> Iterator[None]:
    yield
    SHARED.down()


SHELL = re.compile(
    r"vnet lab (exec|host) |[;>|&]|^(?!vnet )"
)  # what only a shell runs, or what becomes another program


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a line as a person types it about a lab; its exit code. Where a line is one command of vnet, this process runs it: it has loaded the code."""
    program = tmp_path / "vnet"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vnet.cli.main "$@"\n')
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def one(line: str, lab: str, controller: str = "unix:/nothing") -> int:
        monkeypatch.setenv("VNET_LAB_NAME", lab)
        monkeypatch.setenv("VNET_CONTROLLER", controller)
        if SHELL.search(line.partition("#")[0]):
            return subprocess.run(["bash", "-e", "-c", line], check=False, timeout=120).returncode
        return main.run(shlex.split(line, comments=True)[1:])

    return one


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_its_solution_mends_it(scenario: Scenario, tmp_path: Path, run: Callable[..., int]) -> None:
    file = tmp_path / "shop.vnet.yaml"
    with SHARED.lent() as lab:
        controller = f"unix:{lab.daemons.controller_socket}"
        with Client(controller) as client:
            client.apply(scenario.document.encode(), file.name, force=True)
        file.write_text(scenario.document)
        scenario.fault(lab)
        lesson = Lesson(lab, scenario, file)
        assert lesson.open(), "it is broken"
        if scenario.name == "dead-host":
            with Client(controller) as client:
                wait_until(lambda: not client.host("xen2").agent.alive, "xen2 to count as down")
        assert [run(line, lab.spec.name, controller) for line in lesson.solution()] == [0] * len(scenario.solution)
        assert lesson.open() == []
        if scenario.name == "dead-host":
            lab.boot_host("xen2")
            lab.stop("web2")
            lab.start("web2")
        with Client(controller) as client:
            client.apply(SHOP.encode(), file.name, force=True)
        lab.wait_ready()


def commands_of_the_page() -> list[str]:
    """Those of docs/lab.md's first block; what starts and ends labs is run by other tests."""
    block = (ROOT / "docs/lab.md").read_text().split("```")[1]
    lines = [line.partition("#")[0].strip() for line in block.splitlines() if line]
    return [line for line in lines if not re.match(r"vnet lab (up|down|demo|scenario)", line)]


def test_the_commands_of_the_labs_page(run: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    commands = [part.strip() for line in commands_of_the_page() for part in line.split(";")]
    assert len(commands) >= 10
    with SHARED.lent() as lab:
        assert {line: code for line in commands if (code := run(line, lab.spec.name)) != 0} == {}
        assert "3 received" in capfd.readouterr().out
        assert lab.location("web1") == "xen3"
        assert str(lab.impaired()["xen1:eth1"]) == "delay 20 ms, loss 1 %"
        lab.impair("xen1:eth1")
        lab.migrate("web1", "xen1")
        lab.start("web2")
        lab.wait_ready()


def test_a_scenario_is_started_hinted_at_checked_and_ended(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    name = new_name()
    try:
        assert run(f"vnet lab scenario start missing-vlan --name {name}", name) == 0
        started = capsys.readouterr()
        assert "do not reach each other" in started.err
        assert started.out.startswith("export VNET_CONTROLLER=unix:")
        assert (tmp_path / "missing-vlan.vnet.yaml").read_text() == SHOP
        namespaces = Lab.attach(name).spec.namespaces()

        assert [run("vnet lab scenario hint", name) for _ in range(5)] == [0] * 5
        assert capsys.readouterr().out.splitlines()[3:] == ["vnet lab impair xen3:eth1", "There are no more hints."]
        assert run("vnet lab scenario check", name) == ExitCode.EXPECTATION_FAILED
        assert run("vnet lab impair", name) == 0
        assert run("vnet lab impair xen3:eth1", name) == 0
        assert run("vnet lab scenario check", name) == 0
        assert capsys.readouterr().out.splitlines() == [
            "desk1 does not reach desk2.",
            "desk2 does not reach desk1.",
            "xen3:eth1: without VLAN 120",
            "Solved. 'vnet lab down' removes the lab.",
        ]
        assert run("vnet lab down", name) == 0
        assert left_of(name, namespaces) == []
    finally:
        if name in labs():
            remove(name)


def test_a_document_that_is_there_is_not_overwritten(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small-mtu.vnet.yaml").write_text("mine")
    name = new_name()
    assert run(f"vnet lab scenario start small-mtu --name {name}", name) == ExitCode.FAILED
    assert "File exists" in capsys.readouterr().err
    assert name not in labs()
    assert run("vnet lab scenario start smal-mtu", name) == ExitCode.FAILED
    assert "did you mean 'small-mtu'" in capsys.readouterr().err
