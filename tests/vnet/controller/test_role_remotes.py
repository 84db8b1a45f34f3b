"""The sockets of the pool database: hosts have their role there, also at a server that runs already, and one of an earlier version."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from ovsctl.ovsdb import Client, Tls
from tests.authorities import LIFE, TestAuthority, tls_options
from tests.polling import until, wait_until
from tests.servers import free_port, run, run_dir
from tests.vnet.controller.daemons import controller
from tests.vnet.controller.databases import stop_embedded
from vnet.controller import role_remotes
from vnet.controller.embedded import EmbeddedDatabase

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
            xen1 = authority.host("xen1", LIFE - timedelta(seconds=10))
            lost: list[bool] = []
            async with Client(f"ssl:127.0.0.1:{port}", "Vnet", tls=xen1) as client:
                client.on_connection_change(lost.append)
                await until(lambda: not written(port, xen1), "the end of the certificate")
                assert client.connected
                database.reconnect()
                await until(lambda: lost, "the loss of the connection")
                assert not client.connected
        finally:
            stop_embedded(database)
