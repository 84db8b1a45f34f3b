"""A host joins by one line: its key is made there, its certificate comes from the controller beside the CA."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest

from ovsctl.ovsdb import Tls
from tests.authorities import TestAuthority, tls_options
from tests.polling import wait_until
from tests.servers import free_port, run, run_dir
from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import stop_embedded
from vnet.cli.exits import ExitCode
from vnet.cli.joining import start_agent, write_options
from vnet.util.invitation_line import InvitationLine, decode_invitation

pytestmark = pytest.mark.usefixtures("ovs")

TOKEN = "correct-horse-battery-staple"
VNET = (sys.executable, "-m", "vnet.cli.main")


@dataclass
class Inviting:
    """A controller beside a CA."""

    controller: Controller
    url: str
    pool: str
    pki: Path
    socket: str

    def invite(self, name: str) -> str:
        """The line."""
        return run(*VNET, "--controller", self.socket, "host", "invite", name)


@pytest.fixture
def inviting(tmp_path: Path) -> Iterator[Inviting]:
    pki, token = tmp_path / "pki", tmp_path / "token"
    TestAuthority(pki).server()
    token.write_text(TOKEN)
    token.chmod(0o600)
    api, pool = free_port(), free_port()
    url = f"https://127.0.0.1:{api}"
    with run_dir() as path:
        unix = f"unix:{path}/api.sock"
        listens = ("--listen", unix, "--listen", url, "--pool-listen", f"pssl:{pool}:127.0.0.1")
        made = Controller(path, (*listens, "--pki-dir", str(pki), "--token-file", str(token)))
        try:
            made.launch()
            wait_until(lambda: "leads the pool" in made.log.read_text(), "the controller")
            yield Inviting(made, url, f"ssl:127.0.0.1:{pool}", pki, unix)
        finally:
            made.stop()
            stop_embedded(made.database)


def join(word: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """What a host does with a word."""
    files = ("--pki-dir", str(directory / "pki"), "--conf", str(directory / "agent.conf"))
    return subprocess.run([*VNET, "host", "join", *files], input=word, capture_output=True, text=True, check=False)


def test_one_line_and_the_host_reaches_the_pool_database(inviting: Inviting, tmp_path: Path) -> None:
    host = tmp_path / "xen4"
    line = inviting.invite("xen4")
    word = line.split()[1]
    assert line == f"echo {word} | vnet host join\n"
    done = join(word, host)
    assert (done.returncode, done.stdout) == (ExitCode.OK, ""), done.stderr
    own, ca = host / "pki" / "host.pem", host / "pki" / "ca.pem"
    assert (
        f'--host xen4 --pool {inviting.pool} --pki-dir {host / "pki"} --renew-from {inviting.url}"'
        in (host / "agent.conf").read_text()
    )
    event = '["Vnet", {"op": "insert", "table": "Event", "row": {"kind": "joined", "host": "%s"}}]'
    tls = tls_options(Tls(own, own, ca))
    assert "uuid" in run("ovsdb-client", *tls, "transact", inviting.pool, event % "xen4")
    assert "permission error" in run("ovsdb-client", *tls, "transact", inviting.pool, event % "xen5")
    # The key is on the host alone, and the token is nowhere.
    key = own.read_text().partition("-----END PRIVATE KEY-----")[0].splitlines()[1]
    token = decode_invitation(word).token
    kept = [path.read_bytes() for path in inviting.pki.rglob("*") if path.is_file()]
    log = inviting.controller.log.read_bytes()
    assert not any(secret.encode() in content for secret in (key, token) for content in [*kept, log])
    assert "xen4" in run(*VNET, "pki", "status", "--pki-dir", str(inviting.pki))
    again = join(word, tmp_path / "thief")
    assert again.returncode == ExitCode.FAILED
    assert "invite the host again" in again.stderr
    assert not (tmp_path / "thief").exists()


def test_a_controller_of_another_ca_is_told_nothing(inviting: Inviting, tmp_path: Path) -> None:
    word = inviting.invite("xen4").split()[1]
    other = msgspec.structs.replace(decode_invitation(word), ca="00" * 32)
    done = join(other.encode(), tmp_path / "xen4")
    assert done.returncode == ExitCode.UNREACHABLE
    assert "its CA is another" in done.stderr
    assert join(word, tmp_path / "xen4").returncode == ExitCode.OK
    assert join("nonsense", tmp_path / "xen4").returncode == ExitCode.INVALID_INPUT


def test_what_strangers_may_ask_for(inviting: Inviting) -> None:
    with httpx.Client(verify=False, base_url=inviting.url) as client:
        assert client.get("/v1/ca").text == (inviting.pki / "ca.pem").read_text()
        call = {"host": "xen4", "token": "x", "request": "x"}
        assert client.post("/v1/join", json=call).json()["code"] == "request"
        assert client.post("/v1/join", json=call | {"request": "x" * 20_000}).status_code == 413
        assert client.post("/v1/join", content=iter([b"{}"])).status_code == 413
        assert client.get("/v1/hosts/xen4/certificate").json()["code"] == "no-certificate"
        assert client.get("/v1/hosts/..%2F..%2Fca/certificate").json()["code"] == "no-certificate"
        for method, path in [
            ("GET", "/v1/hosts/xen4%2Fcertificate"),
            ("GET", "/v1/hosts%2Fxen4/certificate"),
            ("DELETE", "/v1/hosts/xen4/certificate"),
            ("POST", "/v1/hosts/xen4/invite"),
            ("GET", "/v1/join"),
            ("POST", "/v1/ca"),
        ]:
            assert client.request(method, path).status_code == 401, path


def test_a_revoked_host_gets_no_more_certificates_but_by_another_invitation(inviting: Inviting, tmp_path: Path) -> None:
    first, second = (inviting.invite("xen4").split()[1] for _ in range(2))
    assert join(first, tmp_path / "old").returncode == ExitCode.FAILED
    assert join(second, tmp_path / "xen4").returncode == ExitCode.OK
    own = (tmp_path / "xen4" / "pki" / "host.pem").read_text()
    with httpx.Client(verify=False, base_url=inviting.url) as client:
        shown = client.get("/v1/hosts/xen4/certificate").json()["certificate"]
        assert own.endswith(shown)
        (row,) = (row for row in status(inviting) if row["name"] == "xen4")
        assert row["state"] == "valid"
        revoke = ("--controller", inviting.socket, "host", "revoke", "xen4")
        assert run(*VNET, *revoke, "--yes") == ""
        assert client.get("/v1/hosts/xen4/certificate").status_code == 404
        assert not [row for row in status(inviting) if row["name"] == "xen4"]
        assert join(inviting.invite("xen4").split()[1], tmp_path / "xen4").returncode == ExitCode.OK
        assert client.get("/v1/hosts/xen4/certificate").json()["certificate"] != shown


def status(inviting: Inviting) -> list[dict[str, str]]:
    """The certificates that the CA has issued."""
    found: list[dict[str, str]] = json.loads(run(*VNET, "pki", "status", "-o", "json", "--pki-dir", str(inviting.pki)))
    return found


def test_other_lines_of_the_agents_options_stay(tmp_path: Path) -> None:
    conf = tmp_path / "agent.conf"
    conf.write_text('# mine\nVNET_AGENT_OPTIONS="--host old"\nOTHER=1\n')
    line = InvitationLine("xen4", "https://c", ("ssl:a:1", "ssl:b:1"), "", "")
    write_options(line, Path("/pki"), conf)
    assert conf.read_text() == (
        '# mine\nOTHER=1\nVNET_AGENT_OPTIONS="--host xen4 --pool ssl:a:1 --pool ssl:b:1 --pki-dir /pki --renew-from https://c"\n'
    )


def test_the_agent_is_started_by_systemd_where_that_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "start vnet-agent" in start_agent(tmp_path / "none")
    programs = tmp_path / "bin"
    programs.mkdir()
    systemctl = programs / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    assert start_agent(tmp_path).startswith("started vnet-agent: ")
    assert (tmp_path / "called").read_text() == "enable vnet-agent\nrestart --no-block vnet-agent\n"
    systemctl.write_text("#!/bin/sh\necho no such unit >&2; exit 5\n")
    assert "no such unit" in start_agent(tmp_path)
