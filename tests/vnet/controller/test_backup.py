"""Backups: everything is in one, a restore is shown before it is made, and no host loses a flow by it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ovsctl.ovsdb import OvsdbClient, Update
from tests.polling import until
from tests.servers import vswitchd
from tests.vnet.agent.pool import HostUnderTest
from tests.vnet.controller.daemons import REPOSITORY, Controller, controller
from tests.vnet.controller.databases import embedded, opened, stop_embedded
from vnet.cli.exits import ExitCode
from vnet.client import Client, NetworkSpec
from vnet.controller.backup import COPIES, BackupSource, keep_copy, load
from vnet.db.errors import DamagedDatabase
from vnet.db.rows import SCHEMA_NAME

pytestmark = pytest.mark.usefixtures("ovs")

DOCUMENT = b"""\
apiVersion: vnet/v1
pool: kept
hosts: {xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}}
networks: {lab: {type: internal}, prod: {type: vlan, tag: 7, uplink: trunk0}}
subnets: {front: {network: lab, cidr: 10.1.0.0/24}}
security-groups: {web: {rules: [{name: http, direction: ingress, protocol: tcp, ports: [80]}]}}
vms:
  vm1: {vifs: [{network: lab, security-groups: [web]}]}
  vm2: {vifs: [{network: lab}]}
expectations: [{name: front, from: vm2, to: vm1, protocol: tcp, port: 80, expect: reachable}]
"""


def pool_command(pool: Controller, *args: str | Path) -> subprocess.CompletedProcess[str]:
    directories = ["--run-dir", pool.dir / "run", "--state-dir", pool.dir / "state"]
    options = [] if args[0] == "verify" else directories
    command = [sys.executable, "-m", "vnet.cli.main", "pool", *args, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)


@contextlib.contextmanager
def kept_pool() -> Iterator[tuple[Controller, Client]]:
    with controller(document=DOCUMENT) as made, made.client() as client:
        client.put_network("extra", NetworkSpec(type="internal"))
        yield made, client


async def test_a_pool_becomes_what_it_was(tmp_path: Path) -> None:
    """Also what toolstacks made, and expectations; VIFs stay where they are, and no flow of one that stays is changed."""
    file = tmp_path / "backup"
    with kept_pool() as (pool, client), vswitchd() as switch:
        host = HostUnderTest("xen1", switch, [pool.database.remote])
        host.start()
        try:
            made = await asyncio.to_thread(pool_command, pool, "backup", file)
            assert made.returncode == 0, made.stderr
            assert (
                "pool kept at revision 2: 1 host, 3 networks, 1 subnet, 1 security group, 2 VMs, 2 VIFs, 1 expectation"
                in made.stderr
            )
            assert file.stat().st_mode & 0o777 == 0o600
            before, number = client.export(), client.network("extra").number

            await until(lambda: host.agent.rows.settled and host.agent.flows.connected, "the agent")
            host.add_port("p2", "vm2/0")
            await until(lambda: any(binding.ready for binding in client.bindings(vif="vm2/0")), "vm2 ready")
            client.delete_network("extra")
            other = DOCUMENT.replace(b"vm1", b"other").replace(b"tag: 7", b"tag: 8")
            applied = await asyncio.to_thread(client.apply, other, "kept.vnet.yaml", wait_s=60)
            assert applied.waiting == []  # for the agent, which runs here
            bindings, flows = client.bindings(), host.flows()

            asked = await asyncio.to_thread(pool_command, pool, "restore", file)
            assert asked.returncode == ExitCode.USAGE
            done = await asyncio.to_thread(pool_command, pool, "restore", file, "--yes")
            assert done.returncode == 0, done.stderr
            for line in ("+ vif vm1/0", "- vif other/0", "+ network extra", "~ network prod"):
                assert line in asked.stdout, asked.stdout
                assert line in done.stdout
            assert client.export() == before
            assert client.network("extra").number == number
            assert client.bindings() == bindings
            assert {event.kind for event in client.events(20)} >= {"restored"}
            await until(lambda: client.hosts()[0].agent.behind == 0, "the host follows")
            assert host.flows() == flows
            again = await asyncio.to_thread(pool_command, pool, "restore", file)
            assert again.returncode == 0
        finally:
            await host.stop()


async def test_an_empty_database_gets_all_of_it(tmp_path: Path) -> None:
    """A host goes on with what it has while the database is empty, and follows the restored one, which is the same pool."""
    file = tmp_path / "backup"
    with kept_pool() as (pool, client), vswitchd() as switch:
        host = HostUnderTest("xen1", switch, [pool.database.remote])
        host.start()
        try:
            await until(lambda: host.agent.rows.settled and host.agent.flows.connected, "the agent")
            host.add_port("p2", "vm2/0")
            await until(lambda: any(binding.ready for binding in client.bindings(vif="vm2/0")), "vm2 ready")
            made = await asyncio.to_thread(pool_command, pool, "backup", file)
            assert made.returncode == 0, made.stderr
            before, flows, followed = client.export(), host.flows(), host.agent.identity.followed
            pool.stop()
            stop_embedded(pool.database)
            pool.database.database.unlink()
            await asyncio.to_thread(pool.start)
            await until(lambda: "has no pool" in host.agent.identity.objection, "an empty database")
            done = await asyncio.to_thread(pool_command, pool, "restore", file, "--yes")
            assert done.returncode == 0, done.stderr
            await until(lambda: host.agent.pool_client.connected, "the host follows")
            await until(lambda: host.agent.reports.statements.settled, "what it has to say")
            assert client.export() == before
            assert (host.agent.identity.followed, host.flows()) == (followed, flows)
            host.add_port("p1", "vm1/0")
            await until(lambda: any(binding.ready for binding in client.bindings(vif="vm1/0")), "vm1 ready")
        finally:
            await host.stop()


async def test_what_is_wrong_with_a_backup_is_told(tmp_path: Path) -> None:
    file, damaged = tmp_path / "backup", tmp_path / "damaged"
    with kept_pool() as (pool, _), controller(document=DOCUMENT) as other:
        async with OvsdbClient([pool.database.remote], SCHEMA_NAME) as database:
            await database.transact(Update("Network", (("name", "==", "prod"),), {"mtu": 1}))
        made = await asyncio.to_thread(pool_command, pool, "backup", file)
        assert made.returncode == 0
        assert "mtu: 1 is outside" in made.stderr
        verified = await asyncio.to_thread(pool_command, pool, "verify", file)
        assert (verified.returncode, verified.stderr) == (ExitCode.FAILED, made.stderr)
        data = file.read_bytes()
        damaged.write_bytes(data[:-30] + b"?" + data[-29:])
        refused = await asyncio.to_thread(pool_command, pool, "verify", damaged)
        assert refused.returncode == ExitCode.UNREACHABLE
        assert "is damaged at byte" in refused.stderr
        foreign = await asyncio.to_thread(pool_command, other, "restore", file, "--yes")
        assert foreign.returncode == ExitCode.CONFLICT
        assert "nothing proves that they are the same" in foreign.stderr


async def test_a_controller_keeps_the_last_copies() -> None:
    with embedded() as database:
        database.ensure()
        async with opened(database.remote) as pool:
            source = BackupSource((database.remote,))
            made = [
                keep_copy(source, database.state_dir, datetime(2026, 11, day, tzinfo=UTC))
                for day in range(1, COPIES + 3)
            ]
            assert sorted(database.state_dir.glob("pool.db.copy-*")) == made[2:]
            found = await load(made[-1])
            assert (found.state.networks, found.problems) == (pool.mirror.state.networks, ())
        database.stop()
        data = database.database.read_bytes()
        database.database.write_bytes(data[:-30] + b"?" + data[-29:])
        with pytest.raises(DamagedDatabase, match=f"Put back a copy: {made[-1]}"):
            database.ensure()
