"""`vnet pki`, and the daemons' refusal of cleartext between machines."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from vnet.cli.exits import ExitCode
from vnet.cli.main import run


def vnet(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = run([str(arg) for arg in args])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_make_issue_and_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--pki-dir", tmp_path / "pki")
    assert vnet(capsys, "pki", "issue", "xen1", "--to", tmp_path / "xen1", *at)[0] == ExitCode.CONFLICT
    assert vnet(capsys, "pki", "make", "--pool", "p", "--address", "10.0.0.1", *at)[0] == ExitCode.OK
    made = (tmp_path / "pki" / "server.pem").read_bytes()
    assert vnet(capsys, "pki", "make", "--address", "10.0.0.1", *at)[0] == ExitCode.OK
    assert (tmp_path / "pki" / "server.pem").read_bytes() == made
    assert vnet(capsys, "pki", "issue", "xen1", "--to", tmp_path / "xen1", *at)[0] == ExitCode.OK
    assert stat.S_IMODE((tmp_path / "xen1" / "host.pem").stat().st_mode) == 0o600
    assert (tmp_path / "xen1" / "ca.pem").read_bytes() == (tmp_path / "pki" / "ca.pem").read_bytes()
    assert vnet(capsys, "pki", "renew", *at)[0] == ExitCode.OK
    assert (tmp_path / "pki" / "server.pem").read_bytes() != made
    assert vnet(capsys, "pki", "renew", "--pki-dir", tmp_path / "xen1")[0] == ExitCode.CONFLICT
    code, out, _ = vnet(capsys, "pki", "status", "-o", "json", *at)
    assert code == ExitCode.OK
    assert {(row["name"], row["use"], row["state"]) for row in json.loads(out)} == {
        ("vnet pool p", "authority", "valid"),
        ("server", "server", "valid"),
        ("xen1", "host", "valid"),
    }


@pytest.fixture
def root_logger() -> Iterator[None]:
    """The daemons configure the root logger; it is afterwards as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(
    "command",
    [
        ("agent", "--pool", "tcp:10.0.0.1:6640"),
        ("controller", "--pool", "tcp:10.0.0.1:6640"),
        ("controller", "--pool-listen", "ptcp:6640"),
        ("controller", "--listen", "tcp:0.0.0.0:8080"),
    ],
)
def test_cleartext_between_machines_is_refused(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--listen" in command:
        (tmp_path / "token").write_text("correct-horse-battery-staple")
        (tmp_path / "token").chmod(0o600)
        command = (*command, "--token-file", str(tmp_path / "token"))
    code, out, err = vnet(capsys, *command, "--pki-dir", tmp_path)
    assert (code, out) == (ExitCode.INVALID_INPUT, "")
    assert "--cleartext" in err
    secure = [word.replace("tcp:0", "https://0").replace("tcp:", "ssl:") for word in command]
    code, out, err = vnet(capsys, *secure, "--pki-dir", tmp_path)
    assert (code, out) == (ExitCode.INVALID_INPUT, "")
    assert "vnet pki" in err
