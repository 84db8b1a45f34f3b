"""Agents in this process, each on a real Open vSwitch (dummy datapath), and a real pool database between them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ovsctl.openflow import FlowMod
from ovsctl.ovsdb import Insert, OvsdbClient, Select, Tls, Update
from tests.authorities import TestAuthority, role_options
from tests.polling import until
from tests.servers import OvsdbServer, Vswitchd, free_port, ovsdb_server, vswitchd
from vnet.agent.agent import Agent, AgentOptions
from vnet.agent.switch_access import Doorway
from vnet.compile import Switch
from vnet.db.roles import role_operations
from vnet.db.rows import SCHEMA_NAME, TABLE_OF, from_row, to_columns
from vnet.objects import Binding, Host, Network, NetworkType, Pool, Vif

SCHEMA = Path("vnet/db/vnet.ovsschema")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Elsewhere:
    """How an agent that does not run on its host reaches it."""

    ovs_db: str
    doorway: Doorway
    tls: Tls | None = None


@dataclass
class HostUnderTest:
    """One host: its switch, its agent, and the agent's task."""

    name: str
    switch: Vswitchd
    remotes: list[str]
    tls: Tls | None = None
    state_dir: Path | None = None
    wireguard: Path | None = None
    elsewhere: Elsewhere | None = None
    account_s: float = 60.0
    agent: Agent = field(init=False)
    task: asyncio.Task[None] | None = None

    @property
    def options(self) -> AgentOptions:
        return AgentOptions(
            self.name,
            tuple(self.remotes),
            self.elsewhere.ovs_db if self.elsewhere else self.switch.server.remote,
            "" if self.elsewhere else str(self.switch.server.dir),
            Switch(),
            tls=self.tls,
            state_dir=self.state_dir,
            wireguard=self.wireguard,
            doorway=self.elsewhere.doorway if self.elsewhere else None,
            ovs_tls=self.elsewhere.tls if self.elsewhere else None,
            account_s=self.account_s,
        )

    def start(self) -> None:
        self.agent = Agent(self.options, now_ms)
        self.task = asyncio.get_running_loop().create_task(self.agent.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task

    def add_port(self, device: str, vif: str, key: str = "iface-id", type: str = "dummy") -> None:
        """What a toolstack does: a port on br-int whose interface names the VIF."""
        add_port(self.switch, device, vif, key, type)

    @property
    def programmed(self) -> bool:
        """Whether the switch has as many flows as the agent wants it to have."""
        wanted = sum(isinstance(each, FlowMod) for each in self.agent.flows.desired.values())
        return len(self.flows()) == wanted

    def flows(self, *args: str) -> list[str]:
        text = self.switch.ofctl("dump-flows", "br-int", "--no-stats", *args)
        return sorted(line.strip() for line in text.splitlines())


def add_port(switch: Vswitchd, device: str, vif: str, key: str = "iface-id", type: str = "dummy") -> None:
    switch.server.vsctl(
        "add-port", "br-int", device, "--", "set", "interface", device, f"type={type}", f'external_ids:{key}="{vif}"'
    )


@dataclass
class PoolUnderTest:
    """A pool database with a client of its own."""

    server: OvsdbServer
    client: OvsdbClient
    hosts: dict[str, HostUnderTest]

    async def insert(self, *values: Any) -> None:
        await self.client.transact(*(Insert(_table(value), to_columns(value)) for value in values))

    async def update(self, table: str, key: tuple[str, str], **columns: Any) -> None:
        await self.client.transact(Update(table, ((key[0], "==", key[1]),), columns))

    async def row(self, table: str, key: tuple[str, str]) -> Any:
        """The one row of a table whose column has this content."""
        (rows,) = await self.client.transact(Select(table, ((key[0], "==", key[1]),)))
        (row,) = rows
        return row

    async def bindings(self) -> dict[tuple[str, str], Binding]:
        await self.client.wait_connected()
        (rows,) = await self.client.transact(Select("Binding"))
        found = [from_row(Binding, row) for row in rows]
        return {(binding.vif, binding.host): binding for binding in found}

    async def wait_ready(self, vif: str, host: str) -> Binding:
        async def ready() -> Binding | None:
            binding = (await self.bindings()).get((vif, host))
            return binding if binding is not None and binding.ready else None

        return cast(Binding, await until(ready, f"{vif} ready on {host}: {self.hosts[host].agent.bindings.problems}"))

    async def events(self) -> set[str]:
        """The kinds of events written so far."""
        (rows,) = await self.client.transact(Select("Event"))
        return {row["kind"] for row in rows}

    async def bound(self) -> set[tuple[str, str]]:
        """Which VIF is bound to which host."""
        return set(await self.bindings())


def _table(value: Any) -> str:
    return TABLE_OF[type(value)]


@contextlib.asynccontextmanager
async def pool_of(
    *names: str, networks: Iterable[Network] = (), authority: TestAuthority | None = None
) -> AsyncIterator[PoolUnderTest]:
    """A pool of hosts with their agents running; with an authority, they reach the pool database by TLS, in the role of hosts."""
    port = free_port()
    options = role_options(authority.server(), port, authority.directory) if authority is not None else []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ovsdb_server(SCHEMA, options=options))
        switches = {name: stack.enter_context(vswitchd()) for name in names}
        async with OvsdbClient([server.remote], SCHEMA_NAME) as client:
            remote = f"ssl:127.0.0.1:{port}" if authority is not None else server.remote
            hosts = {
                name: HostUnderTest(name, switch, [remote], authority.host(name) if authority is not None else None)
                for name, switch in switches.items()
            }
            pool = PoolUnderTest(server, client, hosts)
            await client.transact(*role_operations())
            await pool.insert(Pool("test"))
            await pool.insert(*(Host(name, f"10.99.0.{i}") for i, name in enumerate(names, 1)), *networks)
            for host in hosts.values():
                host.start()
            try:
                for host in hosts.values():
                    await until(lambda host=host: host.agent.flows.connected and host.agent.rows.settled, "agents")  # type: ignore[misc]
                yield pool
            finally:
                for host in hosts.values():
                    await host.stop()


TENANT = Network("tenant", NetworkType.VXLAN, 1, 1450, key=5001)
LAB = Network("lab", NetworkType.INTERNAL, 2, 1500)


def vif(number: int, network: str = "tenant", **more: Any) -> Vif:
    mac = f"0a:00:00:00:00:{number:02x}"
    return Vif(f"vm{number}/0", network, mac, addresses=(f"10.1.0.{number}",), **more)


def delivers(host: HostUnderTest, number: int) -> bool:
    """Whether the host has flows that send frames to a VIF."""
    return any(f"dl_dst=0a:00:00:00:00:{number:02x}" in flow for flow in host.flows())
