"""The sockets of the pool database: hosts have their role there, also at a server that runs already, and one of an earlier version."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from ovsctl.ovsdb import OvsdbClient, Select, Tls
from tests.authorities import TestAuthority, tls_options
from tests.polling import until, wait_until
from tests.servers import free_port, run, run_dir
from tests.vnet.controller.daemons import controller
from tests.vnet.controller.databases import embedded, stop_embedded
from vnet.controller import role_remotes
from vnet.controller.embedded import EmbeddedDatabase
from vnet.controller.server_proxy import STRANGERS
from vnet.db.errors import PoolUnreachable

pytestmark = pytest.mark.usefixtures("ovs")

VM = json.dumps(["Vnet", {"op": "insert", "table": "Vm", "row": {"name": "web1", "owner": "toolstack"}}])


def written(port: int, tls: Tls) -> str:
    """What comes of a write of configuration: "uuid", "permission error", or "" where nobody listens."""
    command = ["ovsdb-client", "-t", "5", *tls_options(tls), "transact", f"ssl:127.0.0.1:{port}", VM]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return next((word for word in ("uuid", "permission error") if word in found), "")


def test_a_controllers_database_lets_hosts_and_controllers_do_what_is_theirs(tmp_path: Path) -> None:
    authority, hosts, controllers = TestAuthority(tmp_path), free_port(), free_port()
    server = authority.server()
    xen1 = authority.host("xen1")
    options = ("--pool-listen", f"pssl:{hosts}:127.0.0.1", "--pool-listen-controllers", f"pssl:{controllers}:127.0.0.1")
    with controller(*options, "--pki-dir", str(tmp_path)) as made:
        wait_until(lambda: "leads the pool" in made.log.read_text(), "the roles")
        assert written(hosts, xen1) == written(hosts, server) == "permission error"
        event = {"op": "insert", "table": "Event", "row": {"kind": "told", "host": "xen1"}}
        command = [
            "ovsdb-client",
            *tls_options(xen1),
            "transact",
            f"ssl:127.0.0.1:{hosts}",
            json.dumps(["Vnet", event]),
        ]
        assert "uuid" in run(*command)
        assert written(controllers, server) == "uuid"


def test_a_host_that_was_taken_over_is_not_let_in_where_servers_are(tmp_path: Path) -> None:
    """Its certificate is of the pool's CA. It reads nothing there, either; and what keeps it out comes back when it dies."""
    authority, controllers = TestAuthority(tmp_path), free_port()
    with embedded(controllers=(f"pssl:{controllers}:127.0.0.1",), tls=authority.server()) as database:
        database.ensure()
        for _ in range(2):
            xen1 = authority.host("xen1")
            assert written(controllers, xen1) == ""
            command = ["ovsdb-client", "-t", "5", *tls_options(xen1), "list-dbs", f"ssl:127.0.0.1:{controllers}"]
            assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""
            # Whatever it calls itself.
            assert written(controllers, authority.host("server")) == ""
            assert written(controllers, TestAuthority(tmp_path / "other").server()) == ""
            assert "xen1" in database.proxy.log.read_text()
            wait_until(lambda: "uuid" in written(controllers, authority.server()), "a server is let in")
            run(
                "ovsdb-client",
                "transact",
                database.remote,
                json.dumps(["Vnet", {"op": "delete", "table": "Vm", "where": []}]),
            )
            worker = worker_of(database)
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda worker=worker: not Path(f"/proc/{worker}").exists(), "the proxy's process is gone")  # type: ignore[misc]


def worker_of(database: EmbeddedDatabase) -> int:
    (child,) = Path(f"/proc/{database.proxy.pid}/task/{database.proxy.pid}/children").read_text().split()
    return int(child)


async def test_1100_silent_strangers_keep_no_server_out(tmp_path: Path, many_descriptors: None) -> None:
    authority, port = TestAuthority(tmp_path), free_port()
    tls, here = authority.server(), ("127.0.0.1", port)
    with embedded(controllers=(f"pssl:{port}:127.0.0.1",), tls=tls) as database, contextlib.ExitStack() as stack:
        database.ensure()
        worker = worker_of(database)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (1024, most))

        def descriptors() -> int:
            return len([*Path(f"/proc/{worker}/fd").iterdir()])

        async with OvsdbClient(f"ssl:127.0.0.1:{port}", "Vnet", tls=tls) as client:
            before = descriptors()
            slow = stack.enter_context(socket.create_connection(here, source_address=("127.0.0.3", 0)))
            await until(lambda: descriptors() > before, "the slow server is accepted")
            for _ in range(1100):
                stack.enter_context(socket.create_connection(here, source_address=("127.0.0.2", 0)))
            await client.transact(Select("Vm", ()))
            async with OvsdbClient(f"ssl:127.0.0.1:{port}", "Vnet", tls=tls) as another:
                await another.transact(Select("Vm", ()))
            assert descriptors() < before + STRANGERS + 20
            with tls.context().wrap_socket(slow) as shown:
                shown.sendall(b'{"method":"list_dbs","params":[],"id":0}')
                assert b"Vnet" in shown.recv(4096)
            assert database.proxy.log.stat().st_size < 10_000
            await until(lambda: descriptors() <= before, "the strangers' time is over")
            await client.transact(Select("Vm", ()))


@pytest.mark.parametrize("whose", ["listen", "controllers"])
def test_a_port_that_somebody_else_has_is_named(tmp_path: Path, whose: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            embedded(**{whose: (f"pssl:{port}:127.0.0.1",)}, tls=TestAuthority(tmp_path).server()) as database,
            pytest.raises(PoolUnreachable, match=f"cannot listen at 127.0.0.1:{port}: Address already in use"),
        ):
            database.ensure()


def test_a_server_that_runs_listens_where_it_is_told_to_next(tmp_path: Path) -> None:
    authority, old, new = TestAuthority(tmp_path), free_port(), free_port()
    tls, xen1 = authority.server(), authority.host("xen1")
    with run_dir() as path:
        database = EmbeddedDatabase(path / "run", path / "state", (f"pssl:{old}:127.0.0.1",), tls=tls)
        try:
            assert database.ensure()
            assert written(old, xen1) == "permission error"
            again = EmbeddedDatabase(path / "run", path / "state", (f"pssl:{new}:127.0.0.1",), tls=tls)
            assert not again.ensure()
            assert (written(old, xen1), written(new, xen1)) == ("", "permission error")
            # As a version before roles left it.
            ask = ("ovs-appctl", "-t", str(database.control))
            run(*ask, "ovsdb-server/remove-remote", role_remotes.REMOTE)
            run(*ask, "ovsdb-server/remove-db", role_remotes.DATABASE)
            run(*ask, "ovsdb-server/add-remote", f"pssl:{old}:127.0.0.1")
            assert written(old, xen1) == "uuid"
            assert not database.ensure()
            assert written(old, xen1) == "permission error"
        finally:
            stop_embedded(database)


async def test_clients_connect_anew_when_they_have_to_show_their_certificates_again(tmp_path: Path) -> None:
    authority, port = TestAuthority(tmp_path), free_port()
    tls = authority.server()
    with run_dir() as path:
        database = EmbeddedDatabase(path / "run", path / "state", (f"pssl:{port}:127.0.0.1",), tls=tls)
        try:
            database.ensure()
            xen1 = authority.host("xen1")
            lost: list[bool] = []
            async with OvsdbClient(f"ssl:127.0.0.1:{port}", "Vnet", tls=xen1) as client:
                client.on_connection_change(lost.append)
                shutil.copy(TestAuthority(tmp_path / "other").server().ca_certificate, tls.ca_certificate)
                await until(lambda: not written(port, xen1), "certificates of the former CA are refused")
                assert client.connected
                database.reconnect()
                await until(lambda: lost, "the loss of the connection")
                assert not client.connected
        finally:
            stop_embedded(database)
