"""The agent as a process under a service manager: when it says that it is ready, what it waits for, and its watchdog."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ovsctl.ovsdb import Delete, Insert, OvsdbClient
from tests.forked import Forked, fork_vnet
from tests.polling import until, wait_until
from tests.servers import VSWITCH_SCHEMA, OvsdbServer, Vswitchd, end, ovsdb_server, vswitchd
from tests.servicemanager import ServiceManager
from tests.vnet.agent.pool import SCHEMA
from vnet.cli.exits import ExitCode
from vnet.db.rows import SCHEMA_NAME, TABLE_OF, to_columns
from vnet.objects import Host, Pool

ROOT = Path(__file__).parents[3]
AGENT = [sys.executable, "-m", "vnet.cli.main", "agent"]


@contextmanager
def agent(
    manager: ServiceManager, path: Path, ovs: OvsdbServer, pool: str, host: str = "kvm3", **env: str
) -> Iterator[Forked]:
    options = ["--host", host, "--pool", pool, "--ovs-db", ovs.remote, "--ovs-rundir", str(ovs.dir)]
    own = ["--socket", str(path / "agent.sock"), "--state-dir", str(path / "state")]
    process = fork_vnet(["agent", *options, *own], log=path / "log", env={**manager.env, **env})
    try:
        yield process
    finally:
        end(process)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path / "notify") as made:
        yield made


@pytest.fixture
def servers(ovs: None) -> Iterator[tuple[Vswitchd, OvsdbServer]]:
    with ExitStack() as stack:
        yield stack.enter_context(vswitchd()), stack.enter_context(ovsdb_server(SCHEMA))


def logged(path: Path, text: str) -> bool:
    lines = [json.loads(line) for line in (path / "log").read_text().splitlines()]
    return any(text in line["message"] for line in lines if line["level"] == "warning")


async def test_it_is_ready_once_the_switch_holds_its_flows_and_names_what_it_waits_for_before(
    manager: ServiceManager, servers: tuple[Vswitchd, OvsdbServer], tmp_path: Path
) -> None:
    switch, server = servers
    ovs = switch.server
    server.stop()
    with agent(manager, tmp_path, ovs, server.remote, "kvm-3"):
        manager.wait_status(f"the pool database does not answer ({server.remote}")
        wait_until(lambda: logged(tmp_path, "waits: the pool database does not answer"), "a line of the log")
        server.start()
        manager.wait_status("the pool has no document yet")
        async with OvsdbClient([server.remote], SCHEMA_NAME) as client:
            rows = [Insert(TABLE_OF[type(v)], to_columns(v)) for v in (Pool("lab"), Host("kvm3", "10.99.0.3"))]
            await client.transact(*rows)
            manager.wait_status(
                "the pool has no host kvm-3, which this agent was started as; it has kvm3: is this kvm3?"
            )
            assert not manager.ready
            await client.transact(
                Delete("Host", (("name", "==", "kvm3"),)), Insert("Host", to_columns(Host("kvm-3", "10.99.0.3")))
            )
            await until(lambda: manager.ready, "ready")
            assert "table=" in switch.ofctl("dump-flows", "br-int")
            manager.wait_status("programs host kvm-3")
            switch.stop()
            manager.wait_status("ovs-vswitchd does not answer")
            switch.start()
            manager.wait_status("programs host kvm-3")
        assert manager.sent.count("READY=1") == 1


def test_without_open_vswitch_it_waits_for_it(manager: ServiceManager, ovs: None, tmp_path: Path) -> None:
    absent = OvsdbServer(tmp_path, tmp_path / "conf.db", str(VSWITCH_SCHEMA))
    with agent(manager, tmp_path, absent, f"unix:{tmp_path}/pool.sock"):
        manager.wait_status(f"Open vSwitch's database does not answer (unix:{tmp_path}/db.sock: [Errno 2]")
        wait_until(lambda: logged(tmp_path, "is openvswitch-switch running?"), "a line of the log")
        assert not manager.ready


async def test_the_watchdog_is_kept_alive_by_the_loop_that_works(
    manager: ServiceManager, servers: tuple[Vswitchd, OvsdbServer], tmp_path: Path
) -> None:
    switch, server = servers
    with agent(manager, tmp_path, switch.server, server.remote, WATCHDOG_USEC="4000000") as process:
        manager.wait(lambda manager: manager.status and manager.beats > 1, "beats before there is any work")
        async with OvsdbClient([server.remote], SCHEMA_NAME) as client:
            await client.transact(
                *(Insert(TABLE_OF[type(v)], to_columns(v)) for v in (Pool("lab"), Host("kvm3", "10.99.0.3")))
            )
        await until(lambda: manager.ready, "ready")
        before = manager.beats
        manager.wait(lambda manager: manager.status and manager.beats > before + 2, "beats of an agent without work")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--pool", "10.0.0.1"],
            "--pool, --ovs-db or --openflow: expected unix:FILE, tcp:HOST:PORT or ssl:HOST:PORT, got '10.0.0.1'",
        ),
        (["--ovs-db", "tcp:127.0.0.1:0"], "got 'tcp:127.0.0.1:0'"),
    ],
)
def test_a_bad_address_is_one_line(options: list[str], text: str, tmp_path: Path) -> None:
    command = [*AGENT, *options, "--socket", str(tmp_path / "agent.sock"), "--state-dir", ""]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == ExitCode.INVALID_INPUT
    (line,) = done.stderr.splitlines()
    assert text in line


@pytest.mark.usefixtures("ovs")
def test_a_socket_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [*AGENT, "--host", "x", "--socket", str(tmp_path / "file" / "agent.sock")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == ExitCode.FAILED
    assert len(done.stderr.splitlines()) == 1, done.stderr
