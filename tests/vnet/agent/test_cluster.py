"""Agents on a clustered pool database: spread over its servers, unhurt by the death of its leader, and behind a relay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ovsctl.ovsdb import ConstraintViolation, Insert, NotConnected, OutcomeUnknown, OvsdbClient, Select
from tests.polling import until
from tests.servers import OvsdbCluster, OvsdbServer, ovsdb_cluster, run_dir, vswitchd
from tests.vnet.agent.pool import SCHEMA, TENANT, HostUnderTest, PoolUnderTest, now_ms, vif
from vnet.agent.agent import Agent, AgentOptions
from vnet.compile import Switch
from vnet.db.rows import SCHEMA_NAME, to_columns
from vnet.objects import Host, Pool, Vif

NAMES = ("xen1", "xen2")
VIFS = 40
KILL_AT = 15
PERIOD_S = 0.05


@pytest.fixture
def cluster(ovs: None) -> Iterator[OvsdbCluster]:
    with ovsdb_cluster(SCHEMA) as running:
        yield running


@contextlib.asynccontextmanager
async def hosts_on(cluster: OvsdbCluster, remotes: list[str]) -> AsyncIterator[PoolUnderTest]:
    """Two hosts with agents at `remotes`, and a client at the cluster."""
    with contextlib.ExitStack() as stack:
        hosts = {name: HostUnderTest(name, stack.enter_context(vswitchd()), remotes) for name in NAMES}
        async with OvsdbClient(cluster.remotes, SCHEMA_NAME, leader_only=True, connect_timeout_s=30) as client:
            pool = PoolUnderTest(cluster.servers[0], client, hosts)
            await pool.insert(Pool("test"), *(Host(name, f"10.99.0.{n}") for n, name in enumerate(NAMES, 1)), TENANT)
            for host in hosts.values():
                host.start()
            try:
                for host in hosts.values():
                    await until(lambda host=host: host.agent.flows.connected and host.agent.rows.settled, "agents")  # type: ignore[misc]
                yield pool
            finally:
                for host in hosts.values():
                    await host.stop()


async def create(client: OvsdbClient, new: Vif) -> None:
    """Return once the pool has said that it has this VIF, however often that takes."""
    while True:
        try:
            await client.transact(Insert("Vif", to_columns(new)), timeout_s=10)
        except (NotConnected, OutcomeUnknown):
            await client.wait_connected()
        except ConstraintViolation:  # it was in before its answer was lost
            return
        else:
            return


async def test_agents_spread_over_the_servers(cluster: OvsdbCluster) -> None:
    with vswitchd() as switch:
        options = AgentOptions("xen1", tuple(cluster.remotes), switch.server.remote, str(switch.server.dir), Switch())
        agents = [Agent(options, now_ms) for _ in range(20)]
        clients = [agent.pool_client for agent in agents]
        async with contextlib.AsyncExitStack() as stack:
            for agent in agents:  # which asks its switch first what pool the host belongs to
                await stack.enter_async_context(agent.ovs_client)
                await stack.enter_async_context(agent.pool_client)
            assert {client.server.remote for client in clients if client.server} == set(cluster.remotes)


@pytest.mark.parametrize("how", ["killed", "stands still"])
async def test_nothing_acknowledged_is_lost_with_the_leader_and_plugs_go_on(cluster: OvsdbCluster, how: str) -> None:
    async with hosts_on(cluster, cluster.remotes) as pool:
        created: list[Vif] = []
        jobs = []

        async def plug(number: int) -> None:
            host = NAMES[number % len(NAMES)]
            new = vif(number, host=host)
            await create(pool.client, new)
            created.append(new)
            await asyncio.to_thread(pool.hosts[host].add_port, f"p{number}", new.id)

        for number in range(1, VIFS + 1):
            jobs.append(asyncio.create_task(plug(number)))
            if number == KILL_AT:
                leader = await asyncio.to_thread(cluster.wait_leader)
                acknowledged = list(created)
                if how == "killed":
                    leader.stop()
                else:
                    leader.pause()
                assert acknowledged, "nothing was under way"
            await asyncio.sleep(PERIOD_S)
        await asyncio.gather(*jobs)
        assert len(created) == VIFS
        for new in created:
            assert new.host is not None
            await pool.wait_ready(new.id, new.host)
        if how == "killed":
            leader.start()
        else:
            leader.resume()
        async with OvsdbClient([leader.remote], SCHEMA_NAME, connect_timeout_s=30) as client:
            ids = {new.id for new in created}

            async def has_all() -> bool:
                (rows,) = await client.transact(Select("Vif"))
                return {row["id"] for row in rows} == ids

            await until(has_all, "the server that was dead has everything")
        assert set(await pool.bindings()) == {(new.id, new.host) for new in created}


async def test_agents_behind_a_relay_claim_and_see_what_others_do(cluster: OvsdbCluster) -> None:
    with run_dir() as path:
        relay = OvsdbServer(path, Path(f"relay:{SCHEMA_NAME}:{','.join(cluster.remotes)}"), SCHEMA_NAME)
        relay.start()
        try:
            async with hosts_on(cluster, [relay.remote]) as pool:
                for number, host in enumerate(NAMES, 1):
                    await pool.insert(vif(number, host=host))
                    pool.hosts[host].add_port(f"p{number}", f"vm{number}/0")
                    await pool.wait_ready(f"vm{number}/0", host)
                info = pool.hosts["xen1"].agent.pool_client.server
                assert info is not None
                assert info.model == "relay"
                # What the one wrote through the relay the other has programmed: the way to each other.
                for host, other in (("xen1", 2), ("xen2", 1)):
                    mac = f"dl_dst=0a:00:00:00:00:0{other}"
                    await until(lambda h=host, m=mac: any(m in flow for flow in pool.hosts[h].flows()), "the way")  # type: ignore[misc]
                leader = await asyncio.to_thread(cluster.wait_leader)
                leader.stop()  # the relay goes to another server
                await create(pool.client, vif(3, host="xen1"))
                pool.hosts["xen1"].add_port("p3", "vm3/0")
                await pool.wait_ready("vm3/0", "xen1")
        finally:
            relay.stop()
