"""The agent's local socket with a real agent and a real switch: what plugging leaves behind, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, PoolUnderTest, pool_of, vif
from vnet.agent.local_api import LocalSocket
from vnet.client.local import LocalRefused, call_agent
from vnet.objects import AddressSet, Direction, PolicyMode, PortRange, Protocol, QosClass, Rule, SecurityGroup, Verdict
from vnet.objects.tiers import Tier

Ask = Callable[..., Awaitable[object]]


@contextlib.asynccontextmanager
async def socket_of(host: HostUnderTest) -> AsyncIterator[Ask]:
    """Calls to the host's agent, by its socket."""
    path = str(host.switch.server.dir / "agent.sock")
    serving = asyncio.create_task(LocalSocket(host.agent, path).run())
    try:
        await until((host.switch.server.dir / "agent.sock").exists, "a socket")
        yield lambda method, **params: asyncio.to_thread(call_agent, method, params, path)
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


@pytest.fixture
async def pool(ovs: None) -> AsyncIterator[PoolUnderTest]:
    async with pool_of("xen1", networks=(TENANT,)) as made:
        await made.insert(vif(1), vif(2))
        yield made


def ports(host: HostUnderTest) -> set[str]:
    return set(host.switch.server.vsctl("list-ports", "br-int").split())


async def test_plug_and_unplug_may_be_repeated(pool: PoolUnderTest) -> None:
    host = pool.hosts["xen1"]
    async with socket_of(host) as ask:
        for _ in range(2):
            assert await ask("plug", vif="vm1/0", port="tap1") == {"vif": "vm1/0", "port": "tap1"}
        await pool.wait_ready("vm1/0", "xen1")
        assert await ask("unplug", vif="vm1/0") == {"vif": "vm1/0", "port": "tap1"}
        await until(lambda: not host.agent.bindings.ports.vifs, "the port is gone")
        assert await ask("unplug", vif="vm1/0") == {"vif": "vm1/0", "port": None}
    assert "tap1" not in ports(host)


async def test_a_port_that_is_there_already_becomes_the_vifs(pool: PoolUnderTest) -> None:
    host = pool.hosts["xen1"]
    host.switch.server.vsctl("add-port", "br-int", "tap1")
    async with socket_of(host) as ask:
        await ask("plug", vif="vm1/0", port="tap1")
        await pool.wait_ready("vm1/0", "xen1")


async def test_what_cannot_be_plugged_is_refused_and_leaves_nothing(pool: PoolUnderTest) -> None:
    host = pool.hosts["xen1"]
    vsctl = host.switch.server.vsctl
    vsctl("add-br", "br-other", "--", "add-port", "br-other", "elsewhere")
    async with socket_of(host) as ask:
        await ask("plug", vif="vm1/0", port="tap1")
        await pool.wait_ready("vm1/0", "xen1")
        before = ports(host)
        for message, code, wanted, port in [
            ("no device name", "invalid", "vm2/0", ""),
            ("no VIF id", "invalid", "vm 2", "tap2"),
            ("could not add it", "failed", "vm2/0", "vxlan_sys_4789"),  # a name that vswitchd keeps
            ("of another bridge than br-int", "conflict", "vm2/0", "elsewhere"),
            ("that the agent made", "conflict", "vm2/0", "vnet-vxlan"),
            ("is that of VIF vm1/0", "conflict", "vm2/0", "tap1"),
            ("has port tap1 here already", "conflict", "vm1/0", "tap2"),
        ]:
            with pytest.raises(LocalRefused, match=message) as caught:
                await ask("plug", vif=wanted, port=port)
            assert caught.value.code == code
        assert ports(host) == before
        assert "iface-id" not in vsctl("get", "interface", "elsewhere", "external_ids")
        assert set(await pool.bindings()) == {("vm1/0", "xen1")}


POOL_WIDE = SecurityGroup(
    "base", 1, tier=Tier.POOL,
    rules=(Rule("a-last", Direction.INGRESS), Rule("no-smtp", Direction.EGRESS, Verdict.DROP, Protocol.TCP, (PortRange(25, 25),), mandatory=True, log=True)),
)  # fmt: skip
OF_NETWORK = SecurityGroup(
    "net", 2, tier=Tier.NETWORK, rules=(Rule("no-telnet", Direction.INGRESS, Verdict.REJECT, mandatory=True),)
)
OWN = SecurityGroup(
    "own", 3, rules=(Rule("from-offices", Direction.INGRESS, remote=("offices",)),), address_sets=frozenset({"offices"})
)
WATCH = SecurityGroup("watch", 4, mode=PolicyMode.MONITOR)


async def test_the_flows_of_a_vif_say_what_each_is_for(ovs: None) -> None:
    """Its own, the rules of all groups that judge it, and those that its network has for it; of its groups, in which order they are asked."""
    network = replace(TENANT, multicast_snooping=True, groups=("net",))
    async with pool_of("xen1", networks=(network,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(POOL_WIDE, OF_NETWORK, OWN, WATCH, AddressSet("offices", ("10.9.0.0/16",)))
        await pool.insert(QosClass("slow", from_vm=1_000_000, broadcast=10))
        await pool.insert(
            vif(1, groups=("own", "watch"), vrrp=(7,), isolation="isolated", qos="slow"), vif(2, qos="slow")
        )
        for number in (1, 2):
            host.add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", "xen1")
        async with socket_of(host) as ask:
            found = await ask("flows", vif="vm1/0")
            everything = await ask("flows")
        assert isinstance(found, list)
        assert isinstance(everything, list)
    of_groups = {flow["source"] for flow in found if flow["source"].startswith("security group")}
    assert of_groups == {
        "security group base of tier pool, end of a step",
        "security group base of tier pool, mandatory, rule no-smtp",
        "security group base of tier pool, rule a-last",
        "security group net of tier network, end of a step",
        "security group net of tier network, mandatory, rule no-telnet",
        "security group own, default",
        "security group own, rule from-offices",
        "security group watch, default",
    }
    assert {flow["source"] for flow in found} - of_groups == {
        *(
            f"{words} of VIF vm1/0"
            for words in ("location", "QoS class", "logged packets", "monitored packets", "rejections")
        ),
        *(f"{words} network tenant" for words in ("virtual routers of", "multicast of")),
        *("VIF vm1/0", "address sets that rules on network tenant name"),
    }
    steps = [
        "mandatory rules of base (pool)",
        "mandatory rules of net (network)",
        "rules of own",
        "rules of base (pool)",
        "in monitor mode watch",
    ]
    judges = [flow for flow in found if flow["table"] in ("egress_state", "ingress_state")]
    assert judges
    assert all(flow["asks"] == steps for flow in judges)
    assert not any(flow["asks"] for flow in found if flow not in judges)
    # Each flow is one of the switch's, once.
    lines = [flow["flow"] for flow in found]
    assert len(lines) == len({*lines}) < len(everything)
    assert {*lines} <= {flow["flow"] for flow in everything}
