"""The controller as a process: its own database across restarts and crashes, sockets, tokens, the leader."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from tests.authorities import LIFE, TestAuthority, tls_options
from tests.forked import fork_vnet
from tests.polling import wait_until
from tests.servers import end, free_port, ovsdb_cluster, run, run_dir
from tests.servicemanager import ServiceManager
from tests.vnet.controller.daemons import DOCUMENT, REPOSITORY, Controller, controller
from tests.vnet.controller.databases import SCHEMA, pool_server, stop_embedded
from vnet.cli.exits import ExitCode
from vnet.client import AsyncClient, Client, ClientError, Unauthorized, Unreachable, VifSpec, VmSpec
from vnet.controller.embedded import EmbeddedDatabase

pytestmark = pytest.mark.usefixtures("ovs")

TOKEN = "correct-horse-battery-staple"
VNET = (sys.executable, "-m", "vnet.cli.main")


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_the_database_outlives_its_controller_and_is_found_again(sig: signal.Signals) -> None:
    with controller() as made:
        pid = made.database.pid()
        with made.client() as client:
            client.put_vm("kept", VmSpec())
        assert made.stop(sig) == (0 if sig is signal.SIGTERM else -sig)
        assert pid is not None
        os.kill(pid, 0)
        assert made.socket.exists() == (sig is signal.SIGKILL)
        made.start()
        assert made.database.pid() == pid
        with made.client() as client:
            assert [vm.name for vm in client.vms()] == ["kept"]
            assert client.apply(DOCUMENT, wait_s=0).plan.changes == []


def test_a_database_that_died_is_started_again_with_what_it_had() -> None:
    with controller() as made:
        pid = made.database.pid()
        stop_embedded(made.database)

        def back() -> bool:
            with made.client() as client:
                try:
                    return client.pool().name == "test" and made.database.pid() != pid
                except ClientError:
                    return False

        wait_until(back, "the database again")
        assert '"level": "error"' in made.log.read_text()


def test_a_stopped_machine_starts_from_the_file() -> None:
    with controller() as made:
        made.stop()
        stop_embedded(made.database, signal.SIGTERM)
        made.start()
        with made.client() as client:
            assert client.pool().revision == 1


def test_sockets_and_files_are_not_for_everybody() -> None:
    with controller() as made:
        database = made.database
        for path, most in [
            (made.socket, 0o660),
            (database.socket, 0o700),
            (database.control, 0o700),
            (database.database, 0o600),
            (database.state_dir, 0o700),
        ]:
            assert stat.S_IMODE(path.stat().st_mode) & ~most == 0, path


def test_two_on_one_socket_or_on_a_file_that_is_no_socket() -> None:
    with controller() as made:
        second = Controller(made.dir)
        second.launch()
        assert second.process is not None
        assert second.process.wait(20) == ExitCode.UNREACHABLE
        assert "another controller listens on" in made.log.read_text()
        made.stop()
        made.socket.write_text("precious")
        second.launch()
        assert second.process.wait(20) == ExitCode.UNREACHABLE
        assert made.socket.read_text() == "precious"


def problems(made: Controller) -> list[dict[str, str]]:
    """Those about certificates in `vnet status`."""
    shown = run(sys.executable, "-m", "vnet.cli.main", "--controller", made.address, "status", "-o", "json")
    return [each for each in json.loads(shown)["problems"] if "certificate" in each["text"]]


def test_its_database_listens_by_tls_and_its_certificate_is_renewed_without_a_restart(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path / "pki")
    authority.server(LIFE - timedelta(days=29))
    old = (tmp_path / "pki" / "server.pem").read_bytes()
    port = free_port()
    with controller("--pool-listen", f"pssl:{port}:127.0.0.1", "--pki-dir", str(tmp_path / "pki")) as made:
        wait_until(lambda: (tmp_path / "pki" / "server.pem").read_bytes() != old, "a renewed certificate")
        xen1 = authority.host("xen1")
        listed = run("ovsdb-client", *tls_options(xen1), "list-dbs", f"ssl:127.0.0.1:{port}")
        assert "Vnet" in listed.split()
        with pytest.raises(subprocess.CalledProcessError):
            run("ovsdb-client", "-t", "5", "list-dbs", f"tcp:127.0.0.1:{port}")
        assert "renewed the server's certificate" in made.log.read_text()
        assert problems(made) == []
        authority.host("xen1", LIFE - timedelta(days=29))
        authority.host("xen2", LIFE + timedelta(days=1))
        (ended, ends) = problems(made)
        assert ended["code"] == ends["code"] == "certificate-ends"
        assert "host xen2 ended 20" in ended["text"]
        assert "host xen1 ends 20" in ends["text"]
        authority.host("xen2")
        assert problems(made) == [ends]


def test_tcp_only_with_the_token(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o600)
    port = free_port()
    with run_dir() as path:
        unix = f"unix:{path}/api.sock"
        options = ("--listen", f"tcp:127.0.0.1:{port}", "--listen", unix, "--token-file", str(token_file))
        made = Controller(path, options)
        try:
            made.launch()
            wait_until((path / "api.sock").exists, "the API's socket")
            url = f"http://127.0.0.1:{port}"
            with Client(url, token=TOKEN) as client:
                wait_until(lambda: client.status().hosts == 0, "an answer over TCP")
            for wrong in (None, "x", TOKEN[:-1], TOKEN + "x", "-"):
                with Client(url, token=wrong) as client, pytest.raises(Unauthorized):
                    client.status()
            assert httpx.get(f"{url}/v1/openapi.json").status_code == 401
            assert httpx.get(f"{url}/v1/status", headers={"Authorization": f"Basic {TOKEN}"}).status_code == 401
            with Client(unix) as client:
                assert client.status().hosts == 0
            assert TOKEN not in made.log.read_text()
        finally:
            made.stop(signal.SIGKILL)
            stop_embedded(made.database)


def test_https_is_verified_and_open_streams_outlive_a_renewed_certificate(tmp_path: Path) -> None:
    authority, token_file = TestAuthority(tmp_path / "pki"), tmp_path / "token"
    ca = authority.server().ca_certificate
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    options = ("--listen", url, "--pki-dir", str(tmp_path / "pki"), "--token-file", str(token_file))
    with run_dir() as path:
        unix = f"unix:{path}/api.sock"
        made = Controller(path, ("--listen", unix, *options))
        try:
            made.launch()
            wait_until(lambda: "controller serves on" in made.log.read_text(), "the controller")
            with Client(url, token=TOKEN, ca=ca) as client, httpx.Client(verify=strict(ca)) as raw:
                client.apply(DOCUMENT, wait_s=0)
                headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {TOKEN}"}
                with raw.stream("GET", f"{url}/v1/events", headers=headers) as stream:
                    lines = stream.iter_lines()
                    assert next(lines).startswith("retry:")
                    before = ssl.get_server_certificate(("127.0.0.1", port))
                    run(*VNET, "pki", "renew", "--pki-dir", str(tmp_path / "pki"))
                    assert ssl.get_server_certificate(("127.0.0.1", port)) != before
                    with Client(url, token=TOKEN, ca=ca) as later:
                        later.put_vif("seen/0", VifSpec(network="tenant", vm="seen"))
                    assert "seen" in next(line for line in lines if line.startswith("data:"))
            asyncio.run(reaches(AsyncClient(url, token=TOKEN, ca=ca)))
            with Client(url, token=TOKEN) as stranger, pytest.raises(Unreachable, match="certificate verify failed"):
                stranger.status()
            asked = ("--controller", url, "--token-file", str(token_file), "status", "-o", "json")
            assert json.loads(run(*VNET, "--ca", str(ca), *asked))["hosts"] == 3
            with pytest.raises(subprocess.CalledProcessError) as failed:
                run(*VNET, *asked)
            assert "name its CA with --ca" in failed.value.stderr
        finally:
            made.stop(signal.SIGKILL)
            stop_embedded(made.database)


def strict(ca: Path) -> ssl.SSLContext:
    """A client's context as Python 3.13 makes it."""
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


async def reaches(client: AsyncClient) -> None:
    async with client:
        assert (await client.status()).hosts == 3


def start_refused(*options: str) -> tuple[int, str]:
    """Exit status and messages of a controller that should not start."""
    with run_dir() as path:
        log = path / "log"
        process = fork_vnet(["controller", "--run-dir", path / "r", "--state-dir", path / "s", *options], log=log)
        try:
            return process.wait(30), log.read_text()
        finally:
            end(process)
            stop_embedded(EmbeddedDatabase(path / "r", path / "s"))


def test_what_it_does_not_start_with(tmp_path: Path) -> None:
    loose, short = tmp_path / "loose", tmp_path / "short"
    loose.write_text(TOKEN)
    loose.chmod(0o644)
    short.write_text("secret")
    short.chmod(0o600)
    tcp = ("--listen", "tcp:127.0.0.1:0")
    for options, text in [
        ((*tcp, "--token-file", str(loose)), "may be read by others"),
        ((*tcp, "--token-file", str(short)), "at least 16 characters"),
        ((*tcp, "--token-file", str(tmp_path / "none")), "No such file"),
        (("--listen", "127.0.0.1:80"), "expected unix:PATH, https://HOST:PORT or tcp:HOST:PORT"),
        (("--pool-listen", "nonsense"), "expected punix:FILE, ptcp:PORT:IP or pssl:PORT:IP, got 'nonsense'"),
        (("--cleartext", "--pool-listen", "ptcp:6640:nowhere"), "expected an address of this machine after the port"),
        (("--pool", "10.0.0.1"), "expected unix:FILE, tcp:HOST:PORT or ssl:HOST:PORT, got '10.0.0.1'"),
    ]:
        code, said = start_refused(*options)
        assert (code, text in said) == (ExitCode.INVALID_INPUT, True), said


def test_a_file_of_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    schema = Path(REPOSITORY, "vnet/db/vnet.ovsschema").read_text()
    (tmp_path / "new").write_text(schema.replace('"version": "', '"version": "9', 1))
    (tmp_path / "old").write_text(schema.replace('"version": "1', '"version": "0', 1))
    with run_dir() as path:
        made = Controller(path)
        made.database.state_dir.mkdir(parents=True)
        file = made.database.database
        run("ovsdb-tool", "create", str(file), str(tmp_path / "new"))
        before = file.read_bytes()
        made.launch()
        assert made.process is not None
        assert made.process.wait(20) == ExitCode.FAILED
        assert "upgrade vnet" in made.log.read_text()
        assert file.read_bytes() == before
        file.unlink()
        run("ovsdb-tool", "create", str(file), str(tmp_path / "old"))
        try:
            made.start()
            assert len(list(made.database.state_dir.glob("pool.db.0*"))) == 1  # as it was
        finally:
            made.stop(signal.SIGKILL)
            stop_embedded(made.database)


def test_it_tells_systemd_when_it_serves_and_when_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServiceManager(tmp_path / "notify") as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with controller(document=None) as made:
            manager.wait_status(f"serves on unix:{made.socket}, leads the pool")
            assert manager.ready
            made.stop()
            manager.wait(lambda manager: manager.status and manager.sent[-1] == "STOPPING=1", "its end")


def test_it_is_ready_once_it_serves_and_names_the_database_that_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    with ServiceManager(tmp_path / "notify") as manager, pool_server() as server, run_dir() as path:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        server.stop()
        made = Controller(path, ("--pool", server.remote))
        try:
            made.launch()
            manager.wait_status(f"pool database {server.remote}: no remote could be used")
            assert not manager.ready
            server.start()
            manager.wait(lambda manager: manager.ready, "ready")
            assert made._answers()
            server.stop()
            manager.wait_status(f"the pool database {server.remote} does not answer")
            server.start()
            manager.wait_status("serves on")
            before = manager.beats
            manager.wait(lambda manager: manager.status and manager.beats > before + 1, "beats")
        finally:
            made.stop(signal.SIGKILL)


def test_a_database_that_cannot_be_made_is_waited_for(tmp_path: Path) -> None:
    with run_dir() as path:
        made = Controller(path)
        made.database.state_dir.mkdir(parents=True)
        made.database.database.write_text("no database")
        made.launch()
        try:
            wait_until(lambda: "is damaged at byte 0 of 11" in made.log.read_text(), "a word about it")
            made.database.database.unlink()
            wait_until(made._answers, "an answer")
        finally:
            made.stop(signal.SIGKILL)
            stop_embedded(made.database)


def test_one_leads_and_the_next_takes_over_and_old_events_go() -> None:
    with pool_server() as server, run_dir() as one, run_dir() as two:
        first, second = (Controller(path, ("--pool", server.remote)) for path in (one, two))
        try:
            first.start()
            wait_until(lambda: "leads the pool" in first.log.read_text(), "a leader")
            second.start()
            with first.client() as client:
                client.apply(DOCUMENT, wait_s=0)
            event = '{"op":"insert","table":"Event","row":{"time":%d,"kind":"test","text":"%d"}}'
            rows = ",".join(event % (n, n) for n in range(1, 1200))
            server.client("transact", f'["Vnet",{rows}]')

            def texts(made: Controller) -> list[str]:
                with made.client() as client:
                    return [event.text for event in client.events(5000, kind="test")]

            def kept() -> int:
                return server.client("dump", "Vnet", "Event").count("test")

            wait_until(lambda: kept() < 1100, "pruned events")
            assert 990 < kept() <= 1000
            wait_until(lambda: texts(second)[-1:] == ["1199"], "the events at the other controller")
            assert "leads the pool" not in second.log.read_text()
            first.stop(signal.SIGKILL)
            wait_until(lambda: "leads the pool" in second.log.read_text(), "the next leader")
        finally:
            first.stop(signal.SIGKILL)
            second.stop(signal.SIGKILL)


def test_a_controller_waits_for_a_database_that_is_not_there_yet() -> None:
    with pool_server() as server, run_dir() as path:
        server.stop()
        made = Controller(path, ("--pool", server.remote))
        try:
            made.launch()
            wait_until(lambda: f"waits: pool database {server.remote}" in made.log.read_text(), "a word about it")
            server.start()
            wait_until(made._answers, "an answer")
        finally:
            made.stop(signal.SIGKILL)


def test_a_cluster_that_loses_its_leader_keeps_what_was_acknowledged() -> None:
    with ovsdb_cluster(SCHEMA) as cluster, run_dir() as path:
        remotes = [part for remote in cluster.remotes for part in ("--pool", remote)]
        made = Controller(path, tuple(remotes))
        try:
            made.start()
            with made.client() as client:
                client.apply(DOCUMENT, wait_s=0)
                client.put_vm("kept", VmSpec())
                cluster.wait_leader().stop()

                def written() -> bool:
                    try:
                        return client.put_vm("after", VmSpec()).name == "after"
                    except ClientError:  # repeated until it holds, as every call may be
                        return False

                wait_until(written, "a write with the next leader", 60)
                assert [vm.name for vm in client.vms()] == ["after", "kept"]
                assert client.apply(DOCUMENT, wait_s=0).plan.changes == []
        finally:
            made.stop(signal.SIGKILL)


def test_what_is_done_is_logged_with_what_it_is_about() -> None:
    with controller() as made, made.client() as client:
        client.put_vif("logged/0", VifSpec(network="tenant", vm="logged"))
        lines = [json.loads(line) for line in made.log.read_text().splitlines()]
        (line,) = [line for line in lines if line.get("vif") == "logged/0"]
        assert (line["network"], line["revision"], line["generation"]) == ("tenant", 2, 1)
        assert [line["generation"] for line in lines if "document of pool" in line["message"]] == [1]
