"""A real RAFT cluster: the leader is found and followed, replicas resume, locks are the leader's."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from uuid import uuid4

import pytest

from ovsctl.ovsdb import (
    Assert,
    Batch,
    ConnectFailed,
    Delete,
    Insert,
    Monitor,
    NotConnected,
    NotLeader,
    NotOwner,
    OutcomeUnknown,
    OvsdbClient,
    OvsdbError,
    Patience,
    by_uuid,
)
from ovsctl.ovsdb.server_selection import Met
from tests.ovsctl.ovsdb.schemas import SCHEMA_JSON
from tests.servers import OvsdbCluster, OvsdbServer, ovsdb_cluster, ovsdb_server


@pytest.fixture(scope="module")
def cluster(ovs: None) -> Iterator[OvsdbCluster]:
    with ovsdb_cluster(SCHEMA_JSON) as running:
        yield running


@pytest.fixture(autouse=True)
def all_run(cluster: OvsdbCluster) -> Iterator[None]:
    yield
    for server in cluster.servers:
        if server.process is None:
            server.start()
    cluster.wait_leader()


def client_of(cluster: OvsdbCluster, *, leader_only: bool = True, remotes: list[str] | None = None) -> OvsdbClient:
    return OvsdbClient(
        remotes or cluster.remotes, "Kinds", leader_only=leader_only, backoff_s=(0.02, 0.1), connect_timeout_s=15
    )


def server_at(cluster: OvsdbCluster, client: OvsdbClient) -> OvsdbServer:
    assert client.server is not None
    return next(server for server in cluster.servers if server.remote == client.server.remote)


async def lost(client: OvsdbClient) -> None:
    gone = asyncio.Event()
    end = client.on_connection_change(lambda connected: gone.set())
    if client.connected:
        await gone.wait()
    end()


async def test_the_leader_is_found_and_known(cluster: OvsdbCluster) -> None:
    leader = cluster.wait_leader()
    remotes = [server.remote for server in cluster.followers()] + [leader.remote]
    async with client_of(cluster, remotes=remotes) as client:
        assert client.server is not None
        assert (client.server.remote, client.server.model, client.server.leader) == (leader.remote, "clustered", True)
        assert client.server.cid is not None
        assert client.server.sid is not None


async def test_any_server_will_do_unless_told(cluster: OvsdbCluster) -> None:
    follower = cluster.followers()[0]
    async with client_of(cluster, leader_only=False, remotes=[follower.remote]) as client:
        assert client.server is not None
        assert not client.server.leader
        (uuid,) = await client.transact(Insert("Other", {"name": "by a follower"}))
        assert await client.transact(Delete("Other", by_uuid(uuid))) == [1]
    with pytest.raises(ConnectFailed, match="not the leader"):
        async with OvsdbClient([follower.remote], "Kinds", leader_only=True, connect_timeout_s=0.2):
            pass


async def test_shuffled_remotes_are_all_used(cluster: OvsdbCluster) -> None:
    first = set()
    for seed in range(12):
        options = {"shuffle": True, "rng": random.Random(seed)}
        async with OvsdbClient(cluster.remotes, "Kinds", **options) as client:  # type: ignore[arg-type]
            assert client.server is not None
            first.add(client.server.remote)
    assert first == set(cluster.remotes)


async def test_failover_keeps_what_was_acknowledged_and_resumes(cluster: OvsdbCluster) -> None:
    async with client_of(cluster) as client:
        await client.transact(Delete("Other", ()))
        replica = await client.monitor({"Other": Monitor(("name",))})
        (first,) = await client.transact(Insert("Other", {"name": "before"}))
        kept = replica["Other"][first]
        batches: list[Batch] = []
        replica.subscribe(batches.append)
        last_id = replica.last_id
        server_at(cluster, client).stop()
        await lost(client)
        await client.wait_connected(20)
        assert replica.synced
        assert replica.last_id == last_id  # the new leader knew it: nothing was sent again
        assert batches == []
        assert replica["Other"][first] is kept
        (second,) = await client.transact(Insert("Other", {"name": "after"}))
        assert set(replica["Other"]) == {first, second}


async def test_changes_missed_while_away_come_as_a_difference(cluster: OvsdbCluster) -> None:
    leader, follower = cluster.wait_leader(), cluster.followers()[0]
    async with client_of(cluster, leader_only=False, remotes=[follower.remote]) as client:
        await client.transact(Delete("Other", ()))
        a, b = await client.transact(Insert("Other", {"name": "a"}), Insert("Other", {"name": "b"}))
        replica = await client.monitor({"Other": Monitor(("name",), (("name", "!=", "hidden"),))})
        batches: list[Batch] = []
        replica.subscribe(batches.append)
        kept = replica["Other"][a]
        follower.stop()
        await lost(client)
        async with client_of(cluster, remotes=[leader.remote]) as other:
            (c, _) = await other.transact(Insert("Other", {"name": "c"}), Insert("Other", {"name": "hidden"}))
            await other.transact(Delete("Other", by_uuid(b)))
        follower.start()
        await client.wait_connected(20)
        await client.transact(Insert("Other", {"name": "d"}))
        changes = {change.uuid: change for batch in batches for change in batch}
        assert {change.new and change.new.name for change in changes.values()} == {None, "c", "d"}
        assert {row.name for row in replica["Other"].values()} == {"a", "c", "d"}
        assert replica["Other"][a] is kept
        assert changes[b].old is not None
        assert replica["Other"][c].name == "c"


async def test_a_client_is_told_nothing_of_what_others_commit(
    cluster: OvsdbCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Met, "update", lambda met, last_id, updates: told.append(bytes(updates).decode()))
    async with client_of(cluster) as writer, client_of(cluster, leader_only=False) as idle:
        for number in range(5):
            await writer.transact(Insert("Other", {"name": str(number)}))
        await idle.request("echo")  # answers come after what was to be told before
        assert told == []


# Silence alone would have a connection with this interval given up after two minutes.
PATIENT_S = 60.0


async def test_a_leader_that_stands_still_is_left_once_there_is_another(cluster: OvsdbCluster) -> None:
    frozen = cluster.wait_leader()
    patient = {"probe_interval_s": PATIENT_S, "connect_timeout_s": 15.0}
    async with (
        OvsdbClient(cluster.remotes, "Kinds", leader_only=True, **patient) as writer,  # type: ignore[arg-type]
        OvsdbClient([frozen.remote, *cluster.remotes], "Kinds", **patient) as reader,  # type: ignore[arg-type]
    ):
        assert server_at(cluster, writer) is server_at(cluster, reader) is frozen
        replica = await reader.monitor({"Other": Monitor(("name",))})
        frozen.pause()
        try:
            lost_by = [asyncio.create_task(lost(client)) for client in (writer, reader)]
            with pytest.raises(OutcomeUnknown, match="silent"):
                await asyncio.wait_for(writer.transact(Insert("Other", {"name": "to nobody"})), 30)
            await asyncio.wait_for(asyncio.gather(*lost_by), 30)
            await asyncio.gather(*(client.wait_connected(30) for client in (writer, reader)))
            assert writer.server is not None
            assert writer.server.leader
            assert frozen not in (server_at(cluster, writer), server_at(cluster, reader))
            (uuid,) = await writer.transact(Insert("Other", {"name": "goes on"}))
            async with asyncio.timeout(10):
                while uuid not in replica["Other"]:  # noqa: ASYNC110 - any change will do
                    await asyncio.sleep(0.01)
        finally:
            frozen.resume()


async def test_a_slow_server_is_not_left_while_no_other_will_do(cluster: OvsdbCluster) -> None:
    leader, others = cluster.wait_leader(), cluster.followers()
    async with client_of(cluster) as client:
        states: list[bool] = []
        client.on_connection_change(states.append)
        connection = client._connection
        assert connection is not None
        for server in (leader, *others):
            server.pause()
        try:
            await asyncio.wait_for(connection.doubted.wait(), 10)
            await asyncio.sleep(0.2)  # the others are asked, and say nothing
        finally:
            for server in (leader, *others):
                server.resume()
        await asyncio.wait_for(connection.heard.wait(), 10)
        if cluster.wait_leader() is leader:
            assert client.connected
            assert states == []


def test_patience_grows_with_what_was_given_up_and_comes_back() -> None:
    patience = Patience(1.0, 2.0)
    patience.lost()
    assert patience.now_s == 1.5
    patience.lost()
    patience.lost()
    assert patience.now_s == 2.0
    for _ in range(3):
        patience.kept()
    assert patience.now_s == 1.0


async def test_what_was_forwarded_to_a_leader_that_stands_still_is_given_up(cluster: OvsdbCluster) -> None:
    """ovsdb-server does not forward it again, and as the next leader keeps it for as long as it has anything to write."""
    frozen, followers = cluster.wait_leader(), cluster.followers()
    remotes = [server.remote for server in followers]
    async with contextlib.AsyncExitStack() as stack:
        asking = [
            await stack.enter_async_context(OvsdbClient([remote], "Kinds", patience=Patience(0.5)))
            for remote in remotes
        ]
        writer = await stack.enter_async_context(OvsdbClient(cluster.remotes, "Kinds", leader_only=True))
        frozen.pause()
        try:
            calls = [asyncio.create_task(client.transact(Insert("Other", {"name": new_name()}))) for client in asking]
            writing = asyncio.create_task(write_always(writer))
            done, pending = await asyncio.wait(calls, timeout=30)
            assert not pending
            assert {type(call.exception()) for call in done} <= {OutcomeUnknown, type(None)}
            for client in asking:
                async with asyncio.timeout(20):
                    while not await repeated(client):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
            writing.cancel()
        finally:
            frozen.resume()


def new_name() -> str:
    return str(uuid4())


async def write_always(client: OvsdbClient) -> None:
    """Something each 20 ms, so that the leader never rests."""
    while True:
        with contextlib.suppress(OvsdbError):
            await client.transact(Insert("Other", {"name": new_name()}))
        await asyncio.sleep(0.02)


async def repeated(client: OvsdbClient) -> bool:
    try:
        await client.transact(Insert("Other", {"name": new_name()}))
    except OutcomeUnknown:
        return False
    return True


async def test_a_follower_is_used_as_soon_as_it_is_elected(cluster: OvsdbCluster) -> None:
    """It says so itself: it is not asked again and again."""
    leader, remotes = cluster.wait_leader(), [server.remote for server in cluster.followers()]
    client = OvsdbClient(remotes, "Kinds", leader_only=True, connect_timeout_s=None, backoff_s=(60.0, 60.0))
    opening = asyncio.create_task(client.open())
    try:
        async with asyncio.timeout(10):
            while set(client._wanted_server.reasons) != set(remotes):  # noqa: ASYNC110 - both have said no
                await asyncio.sleep(0.01)
        leader.stop()
        await asyncio.wait_for(opening, 30)
        assert client.server is not None
        assert client.server.leader
    finally:
        opening.cancel()
        await client.close()


async def test_a_client_leaves_a_leader_that_resigns(cluster: OvsdbCluster) -> None:
    # Without probes, as it would leave a leader that stands still before that resigns.
    options = {"leader_only": True, "probe_interval_s": None, "connect_timeout_s": 15}
    async with OvsdbClient(cluster.remotes, "Kinds", **options) as client:  # type: ignore[arg-type]
        lock = client.lock("resign")
        await lock.acquire()
        before = server_at(cluster, client)
        # A leader that leaves gives its leadership away while it still serves.
        before.pause()
        others = [server for server in cluster.servers if server is not before]
        elected = OvsdbCluster(others, cluster.name)
        await asyncio.to_thread(elected.wait_leader)
        gone = asyncio.create_task(lost(client))
        await asyncio.sleep(0)
        before.resume()
        await asyncio.wait_for(gone, 20)
        assert not lock.held
        await client.wait_connected(20)
        assert server_at(cluster, client) is cluster.wait_leader()
        await asyncio.wait_for(lock.acquire(), 10)


async def test_a_lock_is_lost_with_its_servers_leadership(cluster: OvsdbCluster) -> None:
    leader = cluster.wait_leader()
    async with client_of(cluster, leader_only=False, remotes=[leader.remote]) as client:
        lock = client.lock("lost")
        await lock.acquire()
        leader.pause()
        others = OvsdbCluster([server for server in cluster.servers if server is not leader], cluster.name)
        await asyncio.to_thread(others.wait_leader)
        leader.resume()
        await asyncio.wait_for(lock.wait_lost(), 20)
        assert client.connected
        with pytest.raises(NotLeader):
            await lock.acquire()


async def test_locks_are_granted_by_the_leader_only(cluster: OvsdbCluster) -> None:
    follower = cluster.followers()[0]
    async with client_of(cluster, leader_only=False, remotes=[follower.remote]) as client:
        lock = client.lock("one")
        with pytest.raises(NotLeader):
            await lock.acquire()
        with pytest.raises(NotLeader):
            await lock.steal()
        assert not lock.wanted


async def test_a_lock_passes_on_when_its_owner_and_its_server_die(cluster: OvsdbCluster) -> None:
    async with client_of(cluster) as one, client_of(cluster) as two:
        first, second = one.lock("pass"), two.lock("pass")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.05)
        assert not second.held
        await two.transact(Delete("Other", ()))
        with pytest.raises(NotOwner):
            await two.transact(Assert("pass"), Delete("Other", ()))
        server = server_at(cluster, one)
        leaving = asyncio.create_task(lost(one))
        await asyncio.sleep(0)
        server.stop()
        await leaving
        assert not first.held
        await one.close()
        await asyncio.wait_for(waiting, 20)
        assert second.held
        assert await two.transact(Assert("pass"), Delete("Other", ())) == [None, 0]


async def test_without_a_majority_nothing_is_acknowledged(cluster: OvsdbCluster) -> None:
    async with client_of(cluster) as client:
        for server in cluster.followers():
            server.stop()
        with pytest.raises((OutcomeUnknown, NotConnected)):
            await client.transact(Insert("Other", {"name": "lonely"}), timeout_s=0.3)


async def test_lock_order_stealing_and_release() -> None:
    with ovsdb_server(SCHEMA_JSON) as server:
        async with OvsdbClient(server.remote, "Kinds") as one, OvsdbClient(server.remote, "Kinds") as two:
            first, second = one.lock("x"), two.lock("x")
            states: list[bool] = []
            end = first.on_change(states.append)
            async with first:
                waiting = asyncio.create_task(second.acquire())
                await asyncio.sleep(0.02)
                assert (first.held, second.held) == (True, False)
            await asyncio.wait_for(waiting, 5)
            assert states == [True, False]
            await first.steal()
            await asyncio.wait_for(second.wait_lost(), 5)
            assert (first.held, second.held, second.wanted) == (True, False, True)
            await first.release()
            await asyncio.wait_for(second.acquire(), 5)  # a victim of stealing is next in the queue
            end()
            waiting = asyncio.create_task(first.acquire())
            await asyncio.sleep(0.02)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not first.wanted
            waiting = asyncio.create_task(first.acquire())
            await asyncio.sleep(0.02)
            await one.close()
            with pytest.raises(NotConnected):
                await waiting
            assert states == [True, False, True, False]
