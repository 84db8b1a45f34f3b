"""Asking and sending where security groups decide: packets of connections, and what connection trackers remember of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs import new_name
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

SHOP = Path("topologies/policy.vnet.yaml")


@pytest.fixture(scope="module")
def lab(ovs: None) -> Iterator[Lab]:
    state = desired_state(load(SHOP.read_bytes(), str(SHOP)), PoolState())
    with Lab.up(state, name=new_name(), driver=Driver.DUMMY, daemons=True) as running:
        running.start_all()
        running.daemons.settle()
        yield running


def tracked(lab: Lab) -> list[str]:
    return [
        line
        for host in lab.spec.hosts
        for line in lab.ovs(host.name).appctl("dpctl/dump-conntrack").splitlines()
        if line
    ]


def test_every_expectation_holds_and_no_connection_is_left_open(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", lab.daemons.env["VNET_CONTROLLER"])
    code = main.run(["check", str(SHOP), "--live"])
    out = capsys.readouterr().out
    assert (code, out.count("FAIL")) == (ExitCode.OK, 0), out
    assert out.count("ok ") > 10
    opened = [line for line in tracked(lab) if line.startswith("tcp")]
    assert opened
    assert not [line for line in opened if "state=ESTABLISHED" in line]


def test_a_packet_that_no_rule_allows_ends_where_the_switch_says(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", lab.daemons.env["VNET_CONTROLLER"])
    assert main.run(["trace", "free", "app1", "--tcp", "8085", "--live"]) == ExitCode.EXPECTATION_FAILED
    out = capsys.readouterr().out
    assert "nobody would get it, and the twin agrees; the packet was lost: host2 got it and gave it to nobody" in out
    assert "disagree" not in out
    for _ in range(2):  # what was asked before makes no answer of this one
        assert main.run(["trace", "web1/0", "app1", "--tcp", "8085", "--live"]) == ExitCode.OK
        assert "disagree" not in capsys.readouterr().out
