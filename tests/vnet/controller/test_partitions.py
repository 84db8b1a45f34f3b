"""One controller leads at a time while the network between the pool database's servers is cut, each way by itself.

Each server has a controller that reaches no other, as one on the same host does; each does leader duties whenever it may.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ovsctl.ovsdb import Insert, OvsdbError
from tests.partitions import PartedCluster, committed, parted_cluster
from tests.polling import until, wait_until
from tests.servers import OvsdbServer
from tests.vnet.controller.databases import SCHEMA
from tests.vnet.controller.test_leading import check_late_write, controller
from vnet.controller.leader import Leader
from vnet.db.errors import PoolError
from vnet.db.rows import to_columns
from vnet.objects import Event

Ways = list[tuple[OvsdbServer, OvsdbServer]]


def cut_off(leader: OvsdbServer, one: OvsdbServer, two: OvsdbServer) -> Ways:
    """The leader is alone."""
    return [*mute(leader, one, two), *deaf(leader, one, two)]


def mute(leader: OvsdbServer, one: OvsdbServer, two: OvsdbServer) -> Ways:
    """The leader hears the others, and they do not hear it."""
    return [(leader, one), (leader, two)]


def deaf(leader: OvsdbServer, one: OvsdbServer, two: OvsdbServer) -> Ways:
    """The others hear the leader, and it does not hear them."""
    return [(one, leader), (two, leader)]


def deaf_follower(leader: OvsdbServer, one: OvsdbServer, two: OvsdbServer) -> Ways:
    """A follower hears nobody, so it stands for election, and all hear that."""
    return [(leader, one), (two, one)]


def in_a_row(leader: OvsdbServer, one: OvsdbServer, two: OvsdbServer) -> Ways:
    """The leader and a follower do not reach each other, the third server reaches both."""
    return [(leader, one), (one, leader)]


class Acting:
    """A controller that leads whenever it may, and numbers what it wrote. acknowledged: what it was told was written."""

    def __init__(self, name: str, remotes: list[str]) -> None:
        self.name = name
        self.acknowledged: list[str] = []
        self._remotes = remotes
        self._numbers = itertools.count()

    async def run(self) -> None:
        async with controller(self._remotes) as leader:
            while True:
                try:
                    await leader.take()
                    await self._act(leader)
                except (OvsdbError, PoolError):
                    await asyncio.sleep(0.05)

    async def _act(self, leader: Leader) -> None:
        while leader.leads:
            said = f"{self.name} {leader._term} {next(self._numbers)}"
            await leader.write(Insert("Event", to_columns(Event(1, "acts", said))))
            self.acknowledged.append(said)
            await asyncio.sleep(0.01)


@pytest.fixture
def cluster(netns: None) -> Iterator[PartedCluster]:
    with parted_cluster(SCHEMA) as running:
        yield running


@pytest.mark.parametrize("ways", [cut_off, mute, deaf, deaf_follower, in_a_row])
async def test_never_two_controllers_act_while_the_network_between_servers_is_cut(
    cluster: PartedCluster, ways: Callable[..., Ways]
) -> None:
    leader = await asyncio.to_thread(cluster.wait_leader)
    acting = {server.socket_name: Acting(server.socket_name, [server.remote]) for server in cluster.servers}
    tasks = [asyncio.create_task(one.run()) for one in acting.values()]

    def acts(servers: list[OvsdbServer], more: int) -> Callable[[], bool]:
        """Whether any of the controllers at these servers has acted so often again."""
        before = {server.socket_name: len(acting[server.socket_name].acknowledged) for server in servers}
        return lambda: any(len(acting[name].acknowledged) >= count + more for name, count in before.items())

    try:
        await until(acts([leader], 20), "the controllers act")
        followers = [server for server in cluster.servers if server is not leader]
        with cluster.cut(*ways(leader, *followers)):
            majority = followers if ways in (cut_off, mute, deaf) else cluster.servers
            await until(acts(majority, 100), "the controllers act")
        await asyncio.sleep(0.5)  # what was under way arrives late
        await until(acts(cluster.servers, 50), "the controllers act")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(wait_until, lambda: same_everywhere(cluster), "all servers have the same log", 60.0)
    entries = committed(cluster.servers[0])
    written = list(acts_of(entries))
    for turn, (term, said) in enumerate(written):
        assert said.split()[1] == term, f"act {turn} was written in another term: {said}"
    names = [name for name, _ in itertools.groupby(said.split()[:2] for _, said in written)]
    assert len(names) == len({term for _, term in names}), f"a term was taken up again: {names}"
    acknowledged = {said for one in acting.values() for said in one.acknowledged}
    everything = [said for _, said in written]
    assert acknowledged <= set(everything), "what was acknowledged is lost"
    assert len(everything) == len(set(everything)), "something was written twice"


@pytest.mark.parametrize("ways", [cut_off, mute, deaf])
async def test_a_leader_whose_server_was_cut_off_writes_nothing_late(
    cluster: PartedCluster, ways: Callable[..., Ways]
) -> None:
    leader = await asyncio.to_thread(cluster.wait_leader)
    await check_late_write(cluster, cluster.cut(*ways(leader, *cluster.followers())))


def same_everywhere(cluster: PartedCluster) -> bool:
    one, *others = (committed(server) for server in cluster.servers)
    return all(other == one for other in others)


def acts_of(entries: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Each act in the order of the log, with the term that was in force."""
    term = ""
    for entry in entries:
        for row in entry.get("Leader", {}).values():
            if row is not None and "term" in row:  # not the count alone
                term = row["term"]
        for row in entry.get("Event", {}).values():
            if row is not None:
                yield term, row["text"]
