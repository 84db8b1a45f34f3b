"""An agent that finds no pool database goes on by its own copy of the pool; what the database differs in comes once, and changes that only."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from subprocess import CalledProcessError

import pytest

from ovsctl.ovsdb import Delete, Update
from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, PoolUnderTest, pool_of, vif
from vnet.agent import agent as agents
from vnet.agent import copy_keeper
from vnet.agent import daemon as daemons
from vnet.agent.copy_keeper import MARK, CopyKeeper
from vnet.agent.host_claim import DisplacedAgent
from vnet.agent.local_copy import NAME
from vnet.agent.obstacles import obstacle

pytestmark = pytest.mark.usefixtures("ovs")

POOL = "0b6c1c6e-8a1f-4c41-9d5e-0d2d6d1f3c11"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies come soon after changes, and an agent soon knows that it is alone."""
    monkeypatch.setattr(agents, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(copy_keeper, "ALONE_AFTER_S", 0.3)
    monkeypatch.setattr(copy_keeper, "WRITTEN_AFTER_S", 0.1)


@asynccontextmanager
async def pool_with_vifs(directory: Path) -> AsyncIterator[tuple[PoolUnderTest, HostUnderTest]]:
    """VIF 1 has its port on xen1, VIF 2 on xen2, VIF 3 is wanted on xen1; xen1 keeps a copy."""
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.update("Pool", ("name", "test"), id=POOL)
        await pool.insert(vif(1, host="xen1"), vif(2, host="xen2"), vif(3, host="xen1"))
        await host.stop()
        host.state_dir = directory
        host.start()
        host.add_port("p1", "vm1/0")
        pool.hosts["xen2"].add_port("p2", "vm2/0")
        for number, name in ((1, "xen1"), (2, "xen2")):
            await pool.wait_ready(f"vm{number}/0", name)
        await until(lambda: settled(host), "flows")
        await until(lambda: copied(host), "the copy is whole")
        yield pool, host


def settled(host: HostUnderTest) -> bool:
    agent = host.agent
    return (
        "vnet-vxlan" in agent.compiler.view.devices
        and agent.rows.settled
        and agent.revisions.flows == agent.revisions.newest
        and host.programmed
    )


def copied(host: HostUnderTest) -> bool:
    directory = host.state_dir
    return directory is not None and (directory / NAME).exists() and not (directory / MARK).exists()


async def cut_power(pool: PoolUnderTest, host: HostUnderTest) -> None:
    """The database, the agent and the switch end; the switch comes back, without flows."""
    await host.stop()
    pool.server.stop()
    host.switch.stop()
    host.switch.start()
    await until(lambda: is_empty(host), "a switch without flows")


def is_empty(host: HostUnderTest) -> bool:
    with suppress(CalledProcessError):  # its bridge is not there yet
        return not any("cookie=" in flow and "cookie=0x0," not in flow for flow in host.flows())
    return False


async def alone(host: HostUnderTest) -> None:
    """Starts an agent, and returns once it runs on its copy."""
    host.start()
    await until(lambda: bool(host.agent.copies.description) and host.agent.complete, "it runs on its copy")
    await until(lambda: settled(host), "flows")


async def refused(host: HostUnderTest, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Starts an agent, and returns once it has said that it does not use its copy."""
    caplog.clear()
    host.start()
    await until(lambda: text in caplog.text, f"the log says: {text}")
    lines = [record for record in caplog.records if "is not used, and nothing changes here" in record.getMessage()]
    assert len(lines) == 1
    assert not host.agent.complete


async def fresh_start(host: HostUnderTest) -> list[str]:
    """A host's flows as an agent that knows nothing but the database has them."""
    await host.stop()
    assert host.state_dir is not None
    shutil.rmtree(host.state_dir)
    host.switch.stop()
    host.switch.start()
    host.start()
    await until(lambda: host.agent.complete and settled(host), "flows")
    return host.flows()


async def test_only_what_the_database_differs_in_changes_flows_and_once(tmp_path: Path) -> None:
    async with pool_with_vifs(tmp_path) as (pool, host):
        before = host.flows()
        await host.stop()
        await pool.update("Network", ("name", "tenant"), mtu=1400)
        await pool.update("Vif", ("id", "vm3/0"), mac="0a:00:00:00:00:33")
        await cut_power(pool, host)
        await alone(host)
        assert host.flows() == before
        waits = obstacle(host.agent.facts)
        assert waits is not None
        assert waits.works
        assert waits.text.startswith(f"runs on its own copy of pool {POOL}, of revision ")
        read, sent = host.agent.pool.rows_read, host.agent.flows.messages
        pool.server.start()
        await until(lambda: host.agent.pool_client.connected and not host.agent.copies.description, "a database")
        assert host.agent.pool.rows_read - read == 2  # the network and the VIF
        await until(lambda: host.agent.compiler.view.networks["tenant"].mtu == 1400, "the difference is in")
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: settled(host), "flows")
        changed = host.agent.flows.messages - sent
        assert changed <= 2 * len({*host.flows()} ^ {*before}) + 2
        assert obstacle(host.agent.facts) is None
        assert await fresh_start(host) == host.flows()


async def test_a_port_that_comes_meanwhile_is_programmed_and_claimed_later(tmp_path: Path) -> None:
    async with pool_with_vifs(tmp_path) as (pool, host):
        await cut_power(pool, host)
        await alone(host)
        host.add_port("p3", "vm3/0")
        await until(lambda: any("dl_dst=0a:00:00:00:00:03" in flow for flow in host.flows()), "it is programmed")
        host.add_port("p9", "vm9/0")  # of which the copy knows nothing: nobody says yet that it does not exist
        await until(lambda: "vm9/0" in host.agent.bindings.questions, "it is asked for")
        pool.server.start()
        await pool.wait_ready("vm3/0", "xen1")
        await until(lambda: "vm9/0" in host.agent.bindings.problems, "the pool has no such VIF")


async def test_a_vif_that_was_deleted_meanwhile_goes_once_the_database_says_so(tmp_path: Path) -> None:
    async with pool_with_vifs(tmp_path) as (pool, host):
        await host.stop()
        await pool.client.transact(
            Delete("Vif", (("id", "==", "vm2/0"),)), Delete("Binding", (("vif", "==", "vm2/0"),))
        )
        await cut_power(pool, host)
        await alone(host)
        assert any("0a:00:00:00:00:02" in flow for flow in host.flows())
        pool.server.start()
        await until(lambda: host.agent.pool_client.connected, "a database")
        await until(lambda: not any("0a:00:00:00:00:02" in flow for flow in host.flows()), "its flows are gone")


async def test_beside_a_database_the_copy_is_not_taken(tmp_path: Path) -> None:
    async with pool_with_vifs(tmp_path) as (_, host):
        before, written = host.flows(), host.agent.copies.written
        assert written > 0
        await host.stop()
        host.start()
        await until(lambda: host.agent.complete and settled(host), "flows")
        assert host.agent.copies.description == ""
        assert (host.flows(), host.agent.flows.messages) == (before, 0)


async def test_a_copy_that_is_damaged_or_of_another_pool_is_refused_and_nothing_is_withdrawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_with_vifs(tmp_path) as (pool, host):
        before = host.flows()
        await host.stop()
        pool.server.stop()
        whole = (tmp_path / NAME).read_bytes()
        (tmp_path / NAME).write_bytes(whole[:-9])
        await refused(host, caplog, "is damaged")
        assert host.flows() == before
        await host.stop()
        (tmp_path / NAME).write_bytes(whole)
        host.switch.server.vsctl("set", "open_vswitch", ".", "external_ids:vnet-pool=another")
        await refused(host, caplog, "and this host belongs to pool another")
        assert host.flows() == before
        await host.stop()
        host.switch.server.vsctl("set", "open_vswitch", ".", f"external_ids:vnet-pool={POOL}")
        await alone(host)
        assert host.flows() == before


async def test_an_older_copy_than_the_last_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with pool_with_vifs(tmp_path) as (pool, host):
        old = (tmp_path / NAME).read_bytes()
        number = json.loads(old.splitlines()[0])["number"]
        await pool.insert(vif(4, host="xen1"))
        await until(lambda: host.agent.identity.copy_number > number and copied(host), "another copy")
        await cut_power(pool, host)
        (tmp_path / NAME).write_bytes(old)
        await refused(host, caplog, "is older than what the switch had")


async def test_where_no_copy_can_be_written_it_is_told_and_the_last_one_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_with_vifs(tmp_path) as (pool, host):
        number = host.agent.identity.copy_number

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(copy_keeper, "write_copy", full)
            await pool.insert(vif(4, host="xen1"))
            await until(lambda: "No space left" in host.agent.problems.get("copy", ""), "it is told")
            await until(lambda: host.agent.identity.copy_number > number, "the one before is out of date")
            await cut_power(pool, host)
        await refused(host, caplog, "is older than what the switch had")
        pool.server.start()
        await until(lambda: host.agent.complete and settled(host), "flows")
        await until(lambda: copied(host), "there is room again")
        assert "copy" not in host.agent.problems


async def test_a_copy_that_lacks_what_the_switch_has_is_used_only_once_the_switch_has_lost_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent is killed between a change and its copy."""
    state, killed = tmp_path / "state", tmp_path / "killed"
    async with pool_with_vifs(state) as (pool, host):
        pidfile = host.switch.server.dir / "ovs-vswitchd.pid"
        pidfile.write_text("1\n")
        monkeypatch.setattr(CopyKeeper, "flush", lambda _: None)
        monkeypatch.setattr(CopyKeeper, "_write", None)  # as if it were killed before
        await pool.update("Network", ("name", "tenant"), mtu=1400)
        await until((state / MARK).exists, "a change that the copy lacks")
        await until(lambda: settled(host), "flows")
        shutil.copytree(state, killed)
        before = host.flows()
        monkeypatch.undo()
        monkeypatch.setattr(copy_keeper, "ALONE_AFTER_S", 0.3)
        await host.stop()
        pool.server.stop()
        host.state_dir = killed
        await refused(host, caplog, "lacks the last changes that the switch was programmed with")
        assert host.flows() == before
        await host.stop()
        host.switch.stop()
        host.switch.start()
        pidfile.unlink()
        pidfile.write_text("2\n")
        await alone(host)


async def test_an_agent_that_is_not_the_hosts_any_more_stands_by_and_keeps_no_copy(tmp_path: Path) -> None:
    async with pool_with_vifs(tmp_path) as (pool, host):
        await host.stop()
        other = "11111111-2222-3333-4444-555555555555"
        await pool.client.transact(Update("Agent", (("host", "==", "xen1"),), {"switch": other, "heartbeat": 7}))
        await cut_power(pool, host)
        await alone(host)
        assert host.task is not None
        pool.server.start()
        await until(host.task.done, "it stops")
        found = host.task.exception()
        assert isinstance(found, ExceptionGroup)
        assert found.subgroup(DisplacedAgent) is not None
        host.agent.copies.discard()
        assert not (tmp_path / NAME).exists()
        host.task = None


class ShortLived:
    """A way to the pool database that is gone once a client asks for something by a text."""

    def __init__(self, path: Path, database: Path, last: bytes) -> None:
        self._path, self._database, self._last = path, database, last
        self._open: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return f"unix:{self._path}"

    async def __aexit__(self, *_: object) -> None:
        self._cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_unix_connection(str(self._database))
        self._open += [writer, questions]
        back = asyncio.create_task(self._pass(answers, writer))
        await self._pass(reader, questions, self._last)
        await back

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, last: bytes = b"\0") -> None:
        with suppress(OSError):
            while data := await source.read(1 << 20):
                if last in data:
                    self._cut()
                to.write(data)
        to.close()

    def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for writer in self._open:
            writer.close()


async def test_a_database_that_is_lost_before_all_has_come_is_as_one_that_never_answered(tmp_path: Path) -> None:
    """It goes when the agent claims the host, asks for rows, or for those that follow from them."""
    async with pool_with_vifs(tmp_path / "state") as (pool, host):
        before = host.flows()
        await host.stop()
        database, door = Path(pool.server.remote.removeprefix("unix:")), tmp_path / "door"
        for last in (b'"table":"Agent"', b'"SecurityGroup"', b'"monitor_cond_change"'):
            host.switch.stop()
            host.switch.start()
            await until(lambda: is_empty(host), "a switch without flows")
            async with ShortLived(door, database, last) as remote:
                options = replace(host.options, pool=(remote,))
                runner = daemons.HostRunner(options, str(tmp_path / "agent.sock"), tmp_path, None, None)
                daemon = asyncio.create_task(runner.run())
                await until(lambda: host.flows() == before, f"flows, by the copy, after {last!r}")
                daemon.cancel()
                with suppress(asyncio.CancelledError):
                    await daemon


DAMAGE: dict[str, tuple[str, dict[str, object]]] = {
    "Vif": ("id", {"trunk": frozenset({"abc"})}),
    "Network": ("name", {"mtu": 1}),
    "Binding": ("vif", {"mac": "garbage"}),
    "Host": ("name", {"address": "nowhere"}),
}
DAMAGED = {"Vif": "vm1/0", "Network": "tenant", "Binding": "vm2/0", "Host": "xen2"}


async def test_rows_that_an_agent_finds_damaged_hold_as_its_host_had_them(tmp_path: Path) -> None:
    """Whether they were damaged while it was away or before: what it had is in its copy."""
    async with pool_with_vifs(tmp_path) as (pool, host):
        await pool.hosts["xen2"].stop()  # it would put its binding back
        sound = {
            table: {column: (await pool.row(table, (key, DAMAGED[table])))[column] for column in columns}
            for table, (key, columns) in DAMAGE.items()
        }
        before = host.flows()
        await host.stop()
        for table, (key, columns) in DAMAGE.items():
            await pool.update(table, (key, DAMAGED[table]), **columns)
        for _ in range(2):
            host.start()
            await until(lambda: host.agent.complete and settled(host), "flows")
            assert (host.flows(), host.agent.flows.messages) == (before, 0)
            told = [problem for name, problem in host.agent.problems.items() if name.startswith("row ")]
            assert sorted(text.partition(":")[0] for text in told) == sorted(DAMAGE)
            await until(lambda: copied(host), "the copy is whole")
            await host.stop()
        host.start()
        await until(lambda: host.agent.complete and settled(host), "flows")
        for table, (key, _) in DAMAGE.items():
            await pool.update(table, (key, DAMAGED[table]), **sound[table])
        await until(lambda: not host.agent.pool.unreadable, "all are mended")
        await until(lambda: settled(host), "flows")
        assert host.flows() == before
