"""The agent's local socket with a real agent and a real switch: what plugging leaves behind, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, PoolUnderTest, pool_of, vif
from vnet.agent.local_api import LocalSocket
from vnet.client.local import LocalRefused, call_agent

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
