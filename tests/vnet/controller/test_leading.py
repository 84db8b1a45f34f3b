"""One controller leads at a time, whatever a server of the cluster does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from ovsctl.ovsdb import Change, Insert, Monitor, OvsdbClient, OvsdbError, Select, Update, WaitTimedOut
from tests.polling import until
from tests.servers import OvsdbCluster, OvsdbServer, ovsdb_cluster
from tests.vnet.controller.databases import SCHEMA, opened, pool_server
from vnet.controller.leader import ACCOUNTS_EVERY, ACCOUNTS_FIRST, KEYS_LAST_MS, LOCK, Leader
from vnet.db.accounting import ZERO, HostAccount, encoded
from vnet.db.database import OUR_SCHEMA, PoolDatabase, now_ms
from vnet.db.errors import PoolError
from vnet.db.history import HistoryRecord
from vnet.db.rows import SCHEMA_NAME, TABLE_OF, from_row, to_columns
from vnet.db.view import HOST_DOWN_AFTER_S
from vnet.objects import (
    AgentStatus,
    Binding,
    Encryption,
    Event,
    FrameMirror,
    MirrorTarget,
    Network,
    NetworkType,
    TargetType,
    Vif,
)
from vnet.objects.multicast import Listening


@pytest.fixture
def cluster(ovs: None) -> Iterator[OvsdbCluster]:
    with ovsdb_cluster(SCHEMA, election_timer_ms=500) as running:
        yield running


@contextlib.asynccontextmanager
async def controller(remotes: list[str]) -> AsyncIterator[Leader]:
    database = PoolDatabase(remotes)
    await database.open(30.0)
    try:
        yield Leader(database)
    finally:
        await database.close()


async def act(leader: Leader, name: str, log: list[str]) -> None:
    """Lead whenever it can, and say so in the database as often as it can."""
    while True:
        try:
            await leader.take()
            while leader.leads:
                await leader.write(Insert("Event", to_columns(Event(1, "acts", name))))
                log.append(name)
                await asyncio.sleep(0.01)
        except (OvsdbError, PoolError):
            await asyncio.sleep(0.05)


async def acts(log: list[str], name: str, count: int) -> None:
    """Return once `name` has acted so often more."""
    wanted = log.count(name) + count
    await until(lambda: log.count(name) >= wanted, f"{name} acts")


async def test_never_two_leaders_act_while_a_server_stands_still(cluster: OvsdbCluster) -> None:
    frozen = await asyncio.to_thread(cluster.wait_leader)
    others = [server for server in cluster.servers if server is not frozen]
    seen: list[str] = []  # who acted, in the order of the log
    acted: list[str] = []  # who was told that it did

    def note(batch: tuple[Change, ...]) -> None:
        # What was committed at once may be told of at once, in no order: take it as kindly as can be.
        names = [change.new["text"] for change in batch if change.new is not None]
        seen.extend(sorted(names, key=lambda name: not seen or name != seen[-1]))

    async with contextlib.AsyncExitStack() as stack:
        observer = await stack.enter_async_context(OvsdbClient([others[0].remote], SCHEMA_NAME))
        (await observer.monitor({"Event": Monitor(columns=("text",))})).subscribe(note)
        first = await stack.enter_async_context(controller([frozen.remote, *(server.remote for server in others)]))
        tasks = [asyncio.create_task(act(first, "first", acted))]
        try:
            await acts(acted, "first", 20)
            frozen.pause()
            try:
                await asyncio.sleep(0.1)  # for a write to be on its way to the server that does not answer
                second = await stack.enter_async_context(controller([server.remote for server in others]))
                tasks.append(asyncio.create_task(act(second, "second", acted)))
                await acts(acted, "second", 20)
            finally:
                frozen.resume()
            await acts(acted, "second", 100)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    turns = [name for name, _ in itertools.groupby(seen)]
    assert turns == ["first", "second"]


class Deaf:
    """A controller that hears nothing, as one that stands still with its server: it sends what it has to send all the same."""

    def __init__(self, server: OvsdbServer) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(server.socket))
        self._number = 0

    def send(self, method: str, *params: object) -> None:
        self._number += 1
        self._socket.sendall(json.dumps({"method": method, "params": params, "id": self._number}).encode())

    def hear(self, *texts: str) -> str:
        """Which of these the server says first."""
        said = ""
        while not (found := [text for text in texts if text in said]):
            said += self._socket.recv(1 << 16).decode()
        return found[0]

    def close(self) -> None:
        self._socket.close()


async def check_late_write(cluster: OvsdbCluster, away: AbstractContextManager[object]) -> None:
    """A leader sends a write while its server is `away`, another one leads, the server is back: the write must not be done."""
    server = await asyncio.to_thread(cluster.wait_leader)
    others = [other.remote for other in cluster.servers if other is not server]
    async with controller([server.remote]) as first:
        await first.take()
        early, late = (
            [op.encode(OUR_SCHEMA) for op in first.guarded(Insert("Event", to_columns(Event(1, "acts", text))))]
            for text in ("early", "late")
        )
    with contextlib.closing(Deaf(server)) as deaf:
        deaf.send("lock", LOCK)
        await asyncio.to_thread(deaf.hear, '"locked":true', '"method":"locked"')  # the latter once the first has left
        deaf.send("transact", SCHEMA_NAME, *early)
        assert await asyncio.to_thread(deaf.hear, '"uuid"', '"error":"') == '"uuid"'
        with away:
            deaf.send("transact", SCHEMA_NAME, *late)
            async with controller(others) as second:
                await second.take()
                (rows,) = await second._database.transact(Select("Event"))
                await second.write(Insert("Event", to_columns(Event(2, "acts", "next"))))
        # Its server may grant it the lock still; that another term has begun is what stops it.
        refused = '"error":"timed out"', '"error":"not owner"'
        assert await asyncio.to_thread(deaf.hear, '"uuid"', *refused) in refused
    async with OvsdbClient(others, SCHEMA_NAME, leader_only=True) as client:
        (now,) = await client.transact(Select("Event"))
        # A server that is heard and hears nothing gets the late one to the others before another leads.
        assert {row["text"] for row in now} == {row["text"] for row in rows} | {"next"}


@contextlib.contextmanager
def standing_still(server: OvsdbServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


async def test_a_leader_whose_server_stood_still_writes_nothing_late(cluster: OvsdbCluster) -> None:
    await check_late_write(cluster, standing_still(await asyncio.to_thread(cluster.wait_leader)))


async def test_a_controller_that_dies_is_followed_by_another(cluster: OvsdbCluster) -> None:
    acted: list[str] = []
    async with controller(cluster.remotes) as first, controller(cluster.remotes) as second:
        one, two = (asyncio.create_task(act(leader, name, acted)) for leader, name in ((first, "1"), (second, "2")))
        try:
            await acts(acted, "1", 5)
            assert "2" not in acted
            one.cancel()
            await first._database.close()
            await acts(acted, "2", 5)
            server = await asyncio.to_thread(cluster.wait_leader)
            assert server.process is not None
            os.kill(server.process.pid, signal.SIGKILL)
            await acts(acted, "2", 5)  # it goes to the next leader among the servers
        finally:
            for task in (one, two):
                task.cancel()
            await asyncio.gather(one, two, return_exceptions=True)


@pytest.mark.usefixtures("ovs")
async def test_who_holds_the_lock_and_does_nothing_is_not_waited_for() -> None:
    with pool_server() as server:
        async with OvsdbClient([server.remote], SCHEMA_NAME) as thief, opened(server.remote) as database:
            stolen = thief.lock(LOCK)
            await stolen.acquire()
            leader = Leader(database, silent_s=0.3)
            await leader.take()
            assert stolen.held
            assert leader.leads
            await leader.write(Insert("Event", to_columns(Event(1, "acts", "without the lock"))))


@pytest.mark.usefixtures("ovs")
async def test_duties_go_on_when_the_lock_is_stolen() -> None:
    with pool_server() as server:
        async with OvsdbClient([server.remote], SCHEMA_NAME) as thief, opened(server.remote) as database:
            leader = Leader(database, silent_s=0.3)
            job = asyncio.create_task(leader.run())
            try:
                await until(lambda: leader.duties, "its duties")
                stolen = thief.lock(LOCK)
                await stolen.steal()
                await until(lambda: not leader.leads, "the theft")
                before = leader.duties
                await until(lambda: leader.duties > before and leader.leads, "its duties again")
                assert stolen.held
            finally:
                job.cancel()
                await asyncio.gather(job, return_exceptions=True)


@pytest.mark.usefixtures("ovs")
async def test_keys_of_encrypted_tunnels_are_made_anew_when_they_are_old() -> None:
    network = Network("dark", NetworkType.VXLAN, 999, 1370, key=999, encryption=Encryption.REQUIRED)
    old = now_ms() - KEYS_LAST_MS
    with pool_server() as server:
        async with opened(server.remote) as database:
            leader = Leader(database)
            job = asyncio.create_task(leader.run())
            try:
                await database.transact(Insert("Network", to_columns(network)))
                await until(lambda: database.view().state.pool.keyed > old, "the first time")  # type: ignore[union-attr]
                assert database.view().state.pool.key_epoch == 0  # type: ignore[union-attr]
                await database.transact(Update("Pool", (), {"keyed": old}))
                await until(lambda: database.view().state.pool.key_epoch == 1, "new keys")  # type: ignore[union-attr]
                assert database.view().state.pool.keyed > old  # type: ignore[union-attr]
            finally:
                job.cancel()
                await asyncio.wait([job])


@pytest.mark.usefixtures("ovs")
async def test_a_mirror_that_expires_is_taken_off() -> None:
    target = MirrorTarget(TargetType.ERSPAN, "10.0.0.9", 7, 1)
    past, future = "2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"
    with pool_server() as server:
        async with opened(server.remote) as database:
            job = asyncio.create_task(Leader(database).run())
            try:
                for name, key, expires in (("stays", 77, future), ("ends", 78, past)):
                    mirror = FrameMirror(name, ("network:prod",), target, key, expires=expires)
                    await database.transact(Insert("Mirror", to_columns(mirror)))
                await until(lambda: [*database.view().state.mirrors] == ["stays"], "it is taken off")
                assert database.view().state.pool.generation == 2, "hosts say when they use its key no more"  # type: ignore[union-attr]
                rows = await database.records((), ("caller", "reason", "summary"))
                assert {"caller": "controller", "reason": "expired: ends", "summary": "delete mirror ends"} in rows
                await until(
                    lambda: any(event.kind == "mirror-expired" for event in database.mirror.events.values()), "told"
                )
            finally:
                job.cancel()
                await asyncio.wait([job])


@pytest.mark.usefixtures("ovs")
async def test_a_leader_that_writes_is_waited_for() -> None:
    with pool_server() as server:
        async with opened(server.remote) as database, opened(server.remote) as other:
            first, second = Leader(database), Leader(other, silent_s=1.0)
            await first.take()
            waiting = asyncio.create_task(second.take())
            for _ in range(40):  # longer than the second's patience
                await first.write()
                await asyncio.sleep(0.05)
            assert (first.leads, second.leads, waiting.done()) == (True, False, False)
            await waiting  # the first writes no more
            assert second.leads
            with pytest.raises(WaitTimedOut):
                await first.write()


@pytest.mark.usefixtures("ovs")
async def test_the_oldest_records_go() -> None:
    with pool_server() as server:
        async with opened(server.remote) as database:
            steps = (HistoryRecord(time, 0, "token ci", summary="plugged") for time in range(23))
            await database.transact(*(Insert("History", to_columns(step)) for step in steps))
            job = asyncio.create_task(Leader(database, kept=20).run())

            async def times() -> list[int]:
                return sorted(row["time"] for row in await database.records((("caller", "==", "token ci"),), ("time",)))

            try:
                await until(lambda: _is(times, list(range(3, 23))), "the newest steps")
                (revision,) = await database.records((("revision", "==", 1),), ("summary",))
                assert revision["summary"].startswith("create pool")
            finally:
                job.cancel()
                await asyncio.wait([job])


@pytest.mark.usefixtures("ovs")
async def test_what_nobody_hears_any_more_is_known_no_more() -> None:
    """VIFs of a silent host get every multicast group; those of a live one, and of a network that does not snoop, stay as they are."""
    video = Network("video", NetworkType.INTERNAL, 7, 1500, multicast_snooping=True)
    plain = replace(video, name="plain", number=8, multicast_snooping=False)
    heard = Listening(("239.1.1.1",))
    bindings = [
        Binding(f"{host}-{network}/0", host, network, f"0a:00:00:00:00:0{n}", epoch=1, listening=heard)
        for n, (host, network) in enumerate([("xen1", "video"), ("xen2", "video"), ("xen1", "plain")])
    ]
    with pool_server() as server:
        async with opened(server.remote) as database:
            rows = [video, plain, AgentStatus("xen2", heartbeat=now_ms()), *bindings]
            rows += [Vif(it.vif, it.network, it.mac, epoch=1) for it in bindings]
            await database.transact(*(Insert(TABLE_OF[type(row)], to_columns(row)) for row in rows))
            leader = Leader(database)
            job = asyncio.create_task(leader.run())
            try:
                await until(lambda: leader.duties >= 1, "a round")

                def listening() -> list[Listening | None]:
                    return [database.view().state.bindings[it.vif, it.host].listening for it in bindings]

                assert listening() == [heard] * 3, "a host that lives might not have been heard yet"
                leader.duties = int(HOST_DOWN_AFTER_S) + 1
                await until(lambda: listening() == [None, heard, heard], "the silent host's")
            finally:
                job.cancel()
                await asyncio.wait([job])


@pytest.mark.usefixtures("ovs")
async def test_what_hosts_have_counted_of_vifs_that_left_is_taken_over() -> None:
    """Of a VIF that is gone nothing is kept, of a host that is none of the pool all; what a host counts still it keeps."""
    net = Network("net", NetworkType.INTERNAL, 7, 1500)
    vifs = [Vif(f"{name}/0", "net", f"0a:00:00:00:00:0{n}", epoch=1) for n, name in enumerate(("here", "moved"))]
    binding = Binding("here/0", "xen1", "net", vifs[0].mac, epoch=1)
    counted = {id: encoded((n,) * 8) for n, id in enumerate(("here/0", "moved/0", "deleted/0"), 1)}
    base = dict.fromkeys(counted, encoded(ZERO))
    accounts = [
        HostAccount("xen1", 5, 0, 1, counted, base),
        HostAccount("removed", 2, 0, 1, {"moved/0": encoded((40,) * 8)}),
    ]
    with pool_server() as server:
        async with opened(server.remote) as database:
            rows = [net, *vifs, binding]
            await database.transact(
                *(Insert(TABLE_OF[type(row)], to_columns(row)) for row in rows),
                *(Insert("HostAccount", to_columns(it)) for it in accounts),
                Insert("VifAccount", {"vif": "moved/0", "counted": encoded((100,) * 8)}),
                Insert("VifAccount", {"vif": "deleted/0", "counted": encoded((100,) * 8)}),
            )
            leader = Leader(database)
            job = asyncio.create_task(leader.run())
            try:
                await until(lambda: leader.duties >= 1, "a round")
                leader.duties = ACCOUNTS_EVERY - ACCOUNTS_FIRST - 1

                async def taken_over() -> bool:
                    return await database.transact(Select("VifAccount", (), ("vif", "counted"))) == [
                        [{"vif": "moved/0", "counted": encoded((142,) * 8)}]
                    ]

                await until(taken_over, "the account of the VIF that moved")
                (row,) = (await database.transact(Select("HostAccount")))[0]
                mine = from_row(HostAccount, row)
                assert (mine.host, mine.serial, mine.folds) == ("xen1", 5, 1)
                assert mine.of("here/0") == ((1,) * 8, ZERO)
                assert mine.of("moved/0") == (ZERO, (-2,) * 8), "what its flows still count is told already"
                assert mine.of("deleted/0") == (ZERO, (-3,) * 8)
            finally:
                job.cancel()
                await asyncio.wait([job])


async def _is(answer: Callable[[], Awaitable[list[int]]], wanted: list[int]) -> bool:
    return await answer() == wanted
