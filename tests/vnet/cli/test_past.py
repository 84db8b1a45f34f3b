"""Questions to the pool as it was, on a real controller: trace, check, matrix, and the change that broke a way."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.vnet.controller.daemons import DOCUMENT, Controller
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.cli.moment import moment_of
from vnet.client import VifSpec, VmSpec

Capture = pytest.CaptureFixture[str]
POLICY = (
    DOCUMENT
    + b"""\
security-groups:
  db: {rules: [{name: sql, direction: ingress, protocol: tcp, ports: [5432]}, {name: ping, direction: ingress, protocol: icmp}]}
vms:
  web1: {host: xen1, vifs: [{network: tenant, addresses: [10.1.0.10]}]}
  db1: {host: xen2, vifs: [{network: tenant, addresses: [10.1.0.20], security-groups: [db]}]}
expectations:
  - {name: web asks db, from: web1, to: db1, protocol: tcp, port: 5432, expect: reachable}
"""
)


def run(*args: str) -> int:
    return main.run(list(args))


def test_the_pool_as_it_was(
    running: Controller, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", running.address)
    document = tmp_path / "pool.vnet.yaml"

    def apply(data: bytes, why: str) -> str:
        document.write_bytes(data)
        assert run("apply", str(document), "--yes", "--force", "--wait", "0", "-m", why) == ExitCode.NOT_FOLLOWED
        with running.client() as client:
            return str(client.pool().revision)

    good = apply(POLICY, "as it should be")
    with running.client() as client:
        client.put_vif("late/0", VifSpec(network="tenant", vm="late", addresses=["10.1.0.30"]))
        client.put_vm("noise1", VmSpec())
        broken = apply(POLICY.replace(b"ports: [5432]", b"ports: [3306]"), "ticket 9")
        client.put_vm("noise2", VmSpec())
        for number in range(5):
            client.put_vm(f"more{number}", VmSpec())
        asked = "web1", "db1", "--tcp", "5432"
        assert run("trace", *asked, "--at", good) == ExitCode.OK
        assert run("trace", *asked, "--at", broken) == ExitCode.EXPECTATION_FAILED
        assert run("trace", "web1", "db1", "--tcp", "3306", "--at", good) == ExitCode.EXPECTATION_FAILED
        assert run("check", "--at", good) == ExitCode.OK
        assert run("check", "--at", broken) == ExitCode.EXPECTATION_FAILED
        assert run("check", str(document), "--at", good) == ExitCode.OK
        capsys.readouterr()
        assert run("matrix", "--at", good, "--tcp", "5432", "-o", "json") == ExitCode.OK
        before = capsys.readouterr().out
        assert run("matrix", "--at", broken, "--tcp", "5432", "-o", "json") == ExitCode.OK
        assert capsys.readouterr().out != before

        assert run("bisect", *asked) == ExitCode.OK
        out = capsys.readouterr().out
        assert out.startswith(f"revision {broken} ")
        assert "reason: ticket 9" in out
        assert "~ security-group db" in out
        assert run("bisect", *asked, "--good", good) == ExitCode.OK
        assert capsys.readouterr().out == out
        assert run("bisect", *asked, "--good", broken) == ExitCode.FAILED
        assert run("bisect", "web1", "db1") == ExitCode.FAILED
        assert "it arrives now" in capsys.readouterr().err

        client.delete_vm("late")
        assert run("trace", "web1", "late", "--at", broken) == ExitCode.OK
        assert "where VIF late/0 ran then is not known" in capsys.readouterr().err
        assert run("bisect", "web1", "late") == ExitCode.OK
        assert "- vif late/0" in capsys.readouterr().out
        client.rollback(str(int(good) - 1), wait_s=0)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("41", "41"),
        ("10:42", "2026-03-01T08:42:00Z"),
        ("12:42:30", "2026-02-28T10:42:30Z"),
        ("2026-01-31T10:42", "2026-01-31T08:42:00Z"),
        ("2026-01-31", "2026-01-30T22:00:00Z"),
        ("2026-01-31T10:42:00Z", "2026-01-31T10:42:00Z"),
    ],
)
def test_moments(text: str, moment: str) -> None:
    assert moment_of(text, datetime(2026, 3, 1, 12, 0, tzinfo=timezone(timedelta(hours=2)))) == moment
