"""The pool database as a cluster: made of the embedded one, joined, and told of."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ovsctl.ovsdb import Delete, Insert, OvsdbClient, PermissionDenied, Select, Tls
from tests.authorities import TestAuthority, tls_options
from tests.polling import until, wait_until
from tests.servers import free_port, run_dir
from tests.vnet.controller.daemons import DOCUMENT, Controller, controller
from tests.vnet.controller.databases import opened, stop_embedded
from vnet.api.errors import Invalid
from vnet.cli.exits import ExitCode
from vnet.cli.main import run
from vnet.client import ClientError, VmSpec
from vnet.controller import daemon
from vnet.controller.backup import BackupSource, load
from vnet.controller.cluster import Member, parse_status
from vnet.controller.cluster import status as cluster_status
from vnet.controller.daemon import ControllerOptions, main
from vnet.controller.embedded import EmbeddedDatabase, run_tool
from vnet.db import changes
from vnet.db.roles import role_operations
from vnet.db.rows import to_columns
from vnet.db.writes import configuration_write
from vnet.objects import Pool, Vm

STATUS = """5a54
Name: Vnet
Cluster ID: 7086 (708634b8-7ccd-4e7a-9c48-6807809db473)
Server ID: 5a54 (5a54f483-de42-4c77-9e98-e8bf5c082b7c)
Address: tcp:10.0.0.3:6644
Status: cluster member
Role: leader
Term: 3
Leader: self
Vote: self

Last Election started 1834 ms ago, reason: timeout
Last Election won: 1816 ms ago
Election timer: 1000
Log: [2, 7]
Entries not yet committed: 0
Entries not yet applied: 0
Connections: (->43d6) ->ba80 <-ba80
Disconnections: 1
Servers:
    ba80 (ba80 at tcp:10.0.0.2:6644) next_index=7 match_index=6 last msg 141 ms ago
    43d6 (43d6 at tcp:10.0.0.1:6644) next_index=7 match_index=0 last msg 3328 ms ago
    5a54 (5a54 at tcp:10.0.0.3:6644) (self) next_index=6 match_index=6
"""


def test_status_tells_who_leads_and_who_is_missing_since_when() -> None:
    one, two, three = (f"tcp:10.0.0.{n}:6644" for n in (1, 2, 3))
    assert parse_status(STATUS, 10_000) == (
        Member(one, "unknown", three, 3, connected=False, since=6_672),
        Member(two, "follower", three, 3, connected=True, since=None),
        Member(three, "leader", three, 3, connected=True, since=8_184),
    )


class Servers:
    """Three hosts' directories, and `vnet pool` on each. They talk to each other by TLS, with one certificate."""

    def __init__(self, path: Path) -> None:
        self.authority = TestAuthority(path / "pki")
        self.tls = self.authority.server()
        self.databases = [EmbeddedDatabase(path / f"run{n}", path / f"state{n}") for n in range(3)]
        self.addresses = [f"ssl:127.0.0.1:{free_port()}" for _ in range(3)]

    def vnet(self, command: str, at: int, *args: str) -> int:
        database = self.databases[at]
        files = ["--run-dir", str(database.run_dir), "--state-dir", str(database.state_dir)]
        pki = ["--pki-dir", str(self.authority.directory)] if command != "status" else []
        return run(["pool", command, *files, *pki, *args])

    def create(self, at: int = 0) -> int:
        return self.vnet("create-cluster", at, "--address", self.addresses[at])

    def join(self, at: int, to: int = 0) -> int:
        return self.vnet("join", at, "--address", self.addresses[at], "--to", self.addresses[to])


@pytest.fixture
def servers(ovs: None) -> Iterator[Servers]:
    with run_dir() as path:
        made = Servers(path)
        try:
            yield made
        finally:
            for database in made.databases:
                stop_embedded(database)


async def test_an_embedded_database_becomes_a_cluster_with_what_it_has(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    first = servers.databases[0]
    first.ensure()
    async with opened(first.remote) as database:
        await database.write(configuration_write([changes.InsertObject(Vm("kept"))], database.mirror.state.pool))
    for _ in range(2):  # each may be repeated
        assert await asyncio.to_thread(servers.create) == ExitCode.OK
        for at in (1, 2):
            assert await asyncio.to_thread(servers.join, at) == ExitCode.OK
    assert not EmbeddedDatabase(first.run_dir, first.state_dir).database.with_suffix(".db.new").exists()
    for each in servers.databases:
        async with opened(each.remote, leader_only=False) as database:
            assert set(database.mirror.state.vms) == {"kept"}
    rows: list[dict[str, Any]] = []

    def all_connected() -> bool:
        capsys.readouterr()
        assert servers.vnet("status", 1, "-o", "json") == ExitCode.OK
        rows[:] = json.loads(capsys.readouterr().out)
        return all(row["connected"] for row in rows)

    await until(all_connected, "servers that are connected with each other")
    assert sorted(row["server"] for row in rows) == sorted(servers.addresses)
    assert [row["role"] for row in rows].count("leader") == 1
    assert {row["leader"] for row in rows} <= set(servers.addresses)
    assert servers.vnet("status", 1) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "SERVER", "ROLE", "LEADER", "TERM", "CONNECTED", "SINCE",
    ]  # fmt: skip


def test_a_server_that_is_gone_is_told_of_and_starts_again(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert servers.create() == ExitCode.OK
    assert [servers.join(at) for at in (1, 2)] == [ExitCode.OK, ExitCode.OK]
    stop_embedded(servers.databases[2])

    def seen() -> tuple[bool, str | None]:
        capsys.readouterr()
        servers.vnet("status", 0, "-o", "json")
        (row,) = (row for row in json.loads(capsys.readouterr().out) if row["server"] == servers.addresses[2])
        return row["connected"], row["since"]

    wait_until(lambda: not seen()[0], "the server is missed")
    assert seen()[1] is not None
    assert servers.vnet("status", 2) == ExitCode.UNREACHABLE
    assert [servers.vnet("start", 2) for _ in range(2)] == [ExitCode.OK, ExitCode.OK]
    wait_until(lambda: seen() == (True, None), "it is back")


@pytest.mark.parametrize("intruder", ["a server of another CA", "a host of the pool"])
def test_who_is_no_server_of_the_pool_stays_out(servers: Servers, tmp_path: Path, intruder: str) -> None:
    """A host that was taken over runs a server of its own, to be let into the cluster and to have the pool."""
    port, other = free_port(), TestAuthority(tmp_path / "pki")
    other.server()
    listen = ("--listen", f"pssl:{port}:127.0.0.1")
    assert servers.vnet("create-cluster", 0, "--address", servers.addresses[0], *listen) == ExitCode.OK
    database = servers.databases[1]
    identity = other.server() if "CA" in intruder else servers.authority.host("xen1")
    stranger = EmbeddedDatabase(database.run_dir, database.state_dir, tls=identity)
    with stranger.alone():
        run_tool(
            "ovsdb-tool", "join-cluster", str(database.database), "Vnet", servers.addresses[1], servers.addresses[0]
        )
        stranger.start()
    log, text = (
        (database.log, "SSL_connect: error")
        if "CA" in intruder
        else (servers.databases[0].proxy.log, "no server's: xen1")
    )
    wait_until(lambda: text in log.read_text(), "the refusal")
    assert [member.server for member in cluster_status(servers.databases[0], 0)] == [servers.addresses[0]]
    remote = f"ssl:127.0.0.1:{port}"
    assert "Vnet" in listing(*tls_options(servers.authority.host("xen1")), remote)
    assert "Vnet" not in listing(*tls_options(other.host("xen1")), remote)
    assert "Vnet" not in listing(f"tcp:127.0.0.1:{port}")
    stranger.stop()
    replace(stranger, tls=servers.tls).start()
    wait_until(lambda: len(cluster_status(servers.databases[0], 0)) == 2, "it is let in with the pool's certificate")


async def test_hosts_have_their_role_at_every_server_and_at_relays(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a controller, which reaches the cluster by TLS alone, keeps copies of it, whichever servers answer."""
    monkeypatch.setattr(daemon, "FIRST_COPY_S", 0.0)
    hosts, controllers, relayed = (free_port() for _ in range(3))
    listens = [f"pssl:{port}:127.0.0.1" for port in (hosts, controllers, relayed)]
    assert servers.create(0) == ExitCode.OK
    at_follower = ("--listen", listens[0], "--listen-controllers", listens[1])
    joined = ("--address", servers.addresses[1], "--to", servers.addresses[0], *at_follower)
    assert servers.vnet("join", 1, *joined) == ExitCode.OK
    relay = ("--to", f"ssl:127.0.0.1:{controllers}", "--listen", listens[2])
    assert [servers.vnet("relay", 2, *relay) for _ in range(2)] == [ExitCode.OK, ExitCode.OK]
    tls, xen1 = servers.tls, servers.authority.host("xen1")
    async with AsyncExitStack() as stack:

        async def client(port: int, identity: Tls = xen1) -> OvsdbClient:
            return await stack.enter_async_context(
                OvsdbClient(f"ssl:127.0.0.1:{port}", "Vnet", tls=identity, connect_timeout_s=30)
            )

        controller = await client(controllers, tls)
        await controller.transact(*role_operations(), Insert("Pool", to_columns(Pool("kept"))))
        for number, port in enumerate((hosts, relayed)):
            host = await client(port)
            await host.transact(Insert("Event", {"kind": "own", "text": str(port), "host": "xen1"}))
            for refused in (
                Insert("Event", {"kind": "forged", "host": "xen2"}),
                Insert("Vm", {"name": f"vm{number}", "owner": "toolstack"}),
                Delete("RBAC_Role", ()),
            ):
                with pytest.raises(PermissionDenied):
                    await host.transact(refused)
        (events,) = await controller.transact(Select("Event", (), ("kind", "text")))
        assert {(row["kind"], row["text"]) for row in events} == {("own", str(hosts)), ("own", str(relayed))}
    remotes = tuple(f"ssl:127.0.0.1:{port}" for port in (free_port(), controllers))
    async with opened(servers.databases[0].remote) as database:
        keeping = asyncio.create_task(daemon._keep_copies(database, BackupSource(remotes, tls), tmp_path / "state"))
        await until(lambda: [*(tmp_path / "state").glob("pool.db.copy-*")], "a copy")
        keeping.cancel()
    (copy,) = (tmp_path / "state").iterdir()
    kept = await load(copy)
    assert kept.state.pool is not None
    assert kept.state.pool.name == "kept"


def listing(*args: str) -> list[str]:
    """The databases that a client is told of."""
    command = ["ovsdb-client", "-t", "5", *args[:-1], "list-dbs", args[-1]]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


@pytest.mark.parametrize(
    "options",
    [
        ("create-cluster", "--address", "tcp:10.0.0.1:6644"),
        ("create-cluster", "--listen", "ptcp:6640"),
        ("join", "--to", "tcp:10.0.0.1:6644"),
    ],
)
def test_cleartext_off_loopback_is_refused(
    options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--run-dir", str(tmp_path), "--state-dir", str(tmp_path / "state"), "--pki-dir", str(tmp_path))
    assert run(["pool", *options, *files]) == ExitCode.INVALID_INPUT
    assert "--cleartext" in capsys.readouterr().err
    assert run(["pool", *(word.replace("tcp:", "ssl:") for word in options), *files]) == ExitCode.INVALID_INPUT
    assert "vnet pki" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_what_would_lose_a_pool_or_can_never_be_is_refused(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    servers.databases[1].ensure()
    assert servers.vnet("status", 1) == ExitCode.CONFLICT
    assert servers.vnet("start", 1) == ExitCode.CONFLICT
    assert servers.create() == ExitCode.OK
    assert servers.join(1) == ExitCode.CONFLICT
    assert "move it away" in capsys.readouterr().err
    assert servers.vnet("create-cluster", 0, "--address", servers.addresses[2]) == ExitCode.CONFLICT
    assert servers.addresses[0] in capsys.readouterr().err
    for address in ("10.0.0.1:6644", "tcp:localhost:6644", "tcp:10.0.0.1", "unix:pool", ""):
        assert servers.vnet("create-cluster", 2, "--address", address) == ExitCode.INVALID_INPUT
    assert not servers.databases[2].database.exists()
    with pytest.raises(Invalid, match="--pool"):
        main(ControllerOptions(run_dir=servers.databases[0].run_dir, state_dir=servers.databases[0].state_dir))


def put(made: Controller, vm: str) -> bool:
    """Whether a VM could be created."""
    with made.client() as client:
        try:
            client.put_vm(vm, VmSpec())
        except ClientError:
            return False
        return True


@pytest.mark.usefixtures("ovs")
def test_a_controller_that_serves_the_pool_goes_on_when_a_cluster_is_made_of_it() -> None:
    with controller() as made:
        pid = made.database.pid()
        where = ["--run-dir", str(made.database.run_dir), "--state-dir", str(made.database.state_dir)]
        assert run(["pool", "create-cluster", "--address", f"tcp:127.0.0.1:{free_port()}", *where]) == ExitCode.OK
        assert made.database.pid() != pid
        wait_until(lambda: put(made, "after"), "the controller reaches its database again")
        with made.client() as client:
            assert {network.name for network in client.networks()} == {"tenant", "prod", "bare", "lab"}
        made.stop()
        made.launch()
        assert made.process is not None
        assert made.process.wait(30) == ExitCode.INVALID_INPUT
        assert "--pool" in made.log.read_text()


def test_controllers_follow_the_leader_from_server_to_server(servers: Servers) -> None:
    assert servers.create() == ExitCode.OK
    assert [servers.join(at) for at in (1, 2)] == [ExitCode.OK, ExitCode.OK]
    pool = [option for database in servers.databases for option in ("--pool", database.remote)]
    with run_dir() as one, run_dir() as two:
        controllers = [Controller(path, tuple(pool)) for path in (one, two)]
        try:
            for made in controllers:
                made.start()
            with controllers[0].client() as client:
                client.apply(DOCUMENT, "test.vnet.yaml", wait_s=0)
            leaders = [m.server for m in cluster_status(servers.databases[0], 0) if m.role == "leader"]
            stop_embedded(servers.databases[servers.addresses.index(leaders[0])])
            for number, made in enumerate(controllers):
                wait_until(lambda m=made, n=number: put(m, f"after{n}"), "the next leader")  # type: ignore[misc]
            with controllers[0].client() as client:
                wait_until(lambda: {vm.name for vm in client.vms()} >= {"after0", "after1"}, "both see both")
                assert {network.name for network in client.networks()} == {"tenant", "prod", "bare", "lab"}
        finally:
            for made in controllers:
                made.stop(signal.SIGKILL)
