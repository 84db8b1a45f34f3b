"""What commands take for the pool that runs is what its database holds, the toolstack's part of it too."""

from __future__ import annotations

from dataclasses import replace

from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import FakeAgent
from vnet.api import Uplink
from vnet.cli.live_pool import running_state, twin_of_running
from vnet.client import AsyncClient, HostSpec, NetworkSpec, Rule, SecurityGroupSpec, VifSpec
from vnet.db.database import PoolDatabase
from vnet.objects import NetworkType
from vnet.sim.conversation import party, trace


async def test_what_the_toolstack_made_runs_too(running: Controller, pool: PoolDatabase) -> None:
    async with AsyncClient(running.address) as client:
        await client.put_host("xen7", HostSpec(address="10.99.0.7", uplinks=[Uplink(name="trunk0", members=["eth1"])]))
        await client.put_network("theirs", NetworkSpec(type="gre", key=99))
        peers = Rule(name="peers", direction="ingress", protocol="icmp", remote="all")
        wide = Rule(
            name="wide", direction="egress", protocol="tcp", ports=[80, "90-99"], remote="10.0.0.0/8", action="drop"
        )
        await client.put_security_group("all", SecurityGroupSpec(rules=[wide, peers]))
        for vm, host in (("t1", "xen1"), ("t2", "xen7")):
            spec = VifSpec(network="theirs", vm=vm, host=host, addresses=[f"10.9.0.{vm[1]}"], security_groups=["all"])
            await client.put_vif(f"{vm}/0", spec)
            agent = FakeAgent(pool, host, client)
            await agent.beat()
            await agent.claim(f"{vm}/0")
    with running.client() as client:
        state, _ = running_state(client)
        twin = twin_of_running(client)
    real = pool.mirror.state
    assert (state.hosts, state.vms, state.groups) == (real.hosts, real.vms, real.groups)
    assert state.vifs == real.vifs
    assert {key: replace(b, since=0) for key, b in real.bindings.items()} == state.bindings
    assert state.networks.keys() == real.networks.keys()
    for name, network in real.networks.items():
        key = state.networks[name].key if network.type is NetworkType.VLAN else network.key
        assert state.networks[name] == replace(network, key=key)
    assert trace(twin, party(twin, twin.vif("t1/0")), party(twin, twin.vif("t2/0"))).reached
