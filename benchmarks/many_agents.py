"""Many agents on one pool database, VIFs created and plugged at a steady rate: latency, and what a plug costs as the pool grows.

Real: the agent's own class with its whole loop (25 to a process), the pool database, one ovsdb-server with the Open_vSwitch
schema for each host, every transaction. Not real: there is no ovs-vswitchd, so the port that the benchmark adds has its ofport
already and no flow is sent; hence VIFs are claimed, never `ready`, and agents do not try to connect to a switch.
Every host shares four networks with three others each, whatever the pool's size. Latency: from just before the transaction that
creates the VIF (its port is added in the next call) until the claim has been folded into the view of another host on that network. What a
plug costs is the processor time while plugging less that of as long a time with heartbeats alone. With --per-relay agents are at
relays (docs/cluster.md), so many at each; who creates the VIFs is at the pool database itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from benchmarks.common import Figure, Result, arguments, report
from benchmarks.large_pool import host, network, pool_server, vif
from benchmarks.processes import Process
from ovsctl.ovsdb import Client, Insert, Mutate, NamedUuid, Operation, by_uuid
from tests.servers import VSWITCH_SCHEMA, OvsdbServer, end, run, run_dir, spawn
from vnet.agent import flows
from vnet.agent.agent import Agent, Options
from vnet.compile import Switch
from vnet.model import Pool
from vnet.pool.database import now_ms
from vnet.pool.rows import SCHEMA_NAME, to_columns

PER_PROCESS = 25
NETWORKS_PER_HOST = 4
FIGURES = (
    Figure("latency_p50_ms", "ms"),
    Figure("latency_p99_ms", "ms"),
    Figure("database_cpu_ms_per_plug", "ms"),
    Figure("each_relay_cpu_ms_per_plug", "ms"),
    Figure("agents_cpu_ms_per_plug", "ms"),
    Figure("database_idle_percent", "%"),
    Figure("agent_idle_percent", "%"),
    Figure("rows_read_per_plug", "rows"),
    Figure("sources_per_plug", "sources"),
    Figure("agent_MB", "MB"),
    Figure("database_MB", "MB"),
)


def networks_of(number: int, hosts: int) -> list[int]:
    """The networks of host `number`; host h is on the networks h to h+3, so each network has four hosts."""
    return [(number + k) % hosts for k in range(NETWORKS_PER_HOST)]


# In the processes of the agents


class Watched(Agent):
    """An agent that remembers when it took in other hosts' claims: monotonic ns, a clock that all processes share."""

    def __init__(self, options: Options) -> None:
        super().__init__(options, now_ms)
        self.seen: dict[str, int] = {}
        fold = self.compiler.set_binding

        def watched(binding):  # type: ignore[no-untyped-def]
            fold(binding)
            if binding.host != self.me:
                self.seen.setdefault(binding.vif, time.monotonic_ns())

        self.compiler.set_binding = watched  # type: ignore[method-assign]


async def work(pool: str, directory: Path, numbers: range) -> None:
    """Run agents until told to stop; then write down what they saw and counted. A line on standard output each time."""
    flows.RETRY_S = 3600.0  # there is no switch to connect to
    agents = [
        Watched(Options(f"host{n}", (pool,), f"unix:{directory}/{n}.sock", str(directory), Switch())) for n in numbers
    ]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tasks = [asyncio.create_task(agent.run()) for agent in agents]
    while not all(agent.complete and len(agent.compiler.view.networks) == NETWORKS_PER_HOST for agent in agents):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    for agent in agents:
        agent.seen.clear()
    before = [(agent.pool.rows_read, agent.compiler.recomputed) for agent in agents]
    (directory / f"{numbers.start}.up").touch()
    await stop.wait()
    counted = [(a.pool.rows_read - r, a.compiler.recomputed - s) for a, (r, s) in zip(agents, before, strict=True)]
    said = {
        "seen": [agent.seen for agent in agents],
        "rows": sum(r for r, _ in counted),
        "sources": sum(s for _, s in counted),
    }
    (directory / f"{numbers.start}.json").write_text(json.dumps(said))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# In the benchmark's own process


@contextlib.contextmanager
def switch_databases(directory: Path, hosts: int):  # type: ignore[no-untyped-def]
    """An Open_vSwitch database and its server for each host."""
    template = directory / "template.db"
    run("ovsdb-tool", "create", str(template), str(VSWITCH_SCHEMA))
    servers = []
    try:
        for number in range(hosts):
            database = directory / f"{number}.db"
            shutil.copy(template, database)
            servers.append(OvsdbServer(directory, database, "Open_vSwitch", socket_name=f"{number}.sock"))
            servers[-1].start()
        yield servers
    finally:
        for server in servers:
            server.stop()


@dataclass
class LocalSwitch:
    """One host's Open_vSwitch database with br-int, which says that everything is configured already."""

    client: Client
    bridge: str
    ports: int = 0

    @classmethod
    async def made(cls, client: Client) -> LocalSwitch:
        _, bridge, _ = await client.transact(
            Insert("Open_vSwitch", {"cur_cfg": 1 << 40, "bridges": frozenset({NamedUuid("bridge")})}),
            Insert("Bridge", {"name": "br-int"}, "bridge"),
            Mutate("Open_vSwitch", (), (("next_cfg", "+=", 1),)),
        )
        return cls(client, bridge)

    async def add_port(self, vif_id: str) -> None:
        self.ports += 1
        row = {"name": f"p{self.ports}", "type": "dummy", "ofport": self.ports, "external_ids": {"iface-id": vif_id}}
        add: list[Operation] = [
            Insert("Interface", row, "iface"),
            Insert("Port", {"name": row["name"], "interfaces": frozenset({NamedUuid("iface")})}, "port"),
            Mutate("Bridge", by_uuid(self.bridge), (("ports", "insert", frozenset({NamedUuid("port")})),)),
        ]
        await self.client.transact(*add)


@contextlib.asynccontextmanager
async def local_switches(servers: list[OvsdbServer]) -> AsyncIterator[list[LocalSwitch]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(s.remote, "Open_vSwitch")) for s in servers]
        yield [await LocalSwitch.made(client) for client in clients]


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds so far."""

    database: float
    relays: float
    agents: float

    @classmethod
    def of(cls, pool: OvsdbServer, relays: list[OvsdbServer], agents: list[subprocess.Popen[bytes]]) -> Spent:
        return cls(_cpu_s([pool]), _cpu_s(relays), sum(Process.of(p.pid).cpu_s for p in agents))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.database - other.database, self.relays - other.relays, self.agents - other.agents)


def _cpu_s(servers: list[OvsdbServer]) -> float:
    return sum(Process.of(server.process.pid).cpu_s for server in servers if server.process is not None)


@contextlib.contextmanager
def relays_of(pool: OvsdbServer, directory: Path, count: int):  # type: ignore[no-untyped-def]
    """So many relays of the pool database."""
    with contextlib.ExitStack() as stack:
        relays = []
        for number in range(count):
            source = Path(f"relay:{SCHEMA_NAME}:{pool.remote}")
            relays.append(OvsdbServer(directory, source, SCHEMA_NAME, socket_name=f"relay{number}.sock"))
            relays[-1].start()
            stack.callback(relays[-1].stop)
        yield relays


async def plug_steadily(pool: OvsdbServer, switches: list[LocalSwitch], seconds: float, rate: float) -> dict[str, int]:
    """VIFs created and plugged, one host after another; when each was begun."""
    begun: dict[str, int] = {}
    hosts = len(switches)
    async with Client(pool.remote, SCHEMA_NAME) as client:
        start = time.monotonic()
        for k in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, start + k / rate - time.monotonic()))
            number = k * 7 % hosts
            it = vif(hosts * (100 + k) + networks_of(number, hosts)[k % NETWORKS_PER_HOST], hosts, f"host{number}")
            begun[it.id] = time.monotonic_ns()
            await client.transact(Insert("Vif", to_columns(it)))
            await switches[number].add_port(it.id)
    return begun


async def measure(
    directory: Path,
    pool: OvsdbServer,
    relays: list[OvsdbServer],
    servers: list[OvsdbServer],
    seconds: float,
    rate: float,
) -> dict[str, float]:
    hosts = len(servers)
    blocks = [range(first, min(first + PER_PROCESS, hosts)) for first in range(0, hosts, PER_PROCESS)]
    async with local_switches(servers) as switches:
        program = [sys.executable, "-m", "benchmarks.many_agents", "--work"]
        at = [relays[number * len(relays) // len(blocks)] if relays else pool for number in range(len(blocks))]
        agents = [
            spawn(
                [*program, server.remote, str(directory), f"{block.start}:{block.stop}"],
                log=directory / f"{block.start}.log",
            )
            for block, server in zip(blocks, at, strict=True)
        ]
        try:
            async with asyncio.timeout(180):
                # Files, because agents are other processes.
                while not all((directory / f"{block.start}.up").exists() for block in blocks):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            await asyncio.sleep(3)
            quiet = Spent.of(pool, relays, agents)
            await asyncio.sleep(seconds)
            idle = Spent.of(pool, relays, agents) - quiet
            before = Spent.of(pool, relays, agents)
            started = time.monotonic()
            begun = await plug_steadily(pool, switches, seconds, rate)
            await asyncio.sleep(max(0.5, started + seconds - time.monotonic()))
            busy = Spent.of(pool, relays, agents) - before
            agent_mb = sum(Process.of(p.pid).resident_mb for p in agents) / hosts
        finally:
            for process in agents:
                await asyncio.to_thread(end, process, signal.SIGTERM)
    said = [json.loads((directory / f"{block.start}.json").read_text()) for block in blocks]
    took_ms = [(ns - begun[v]) / 1e6 for one in said for seen in one["seen"] for v, ns in seen.items() if v in begun]
    plugs, expected = len(begun), len(begun) * (NETWORKS_PER_HOST - 1)
    if len(took_ms) != expected:
        raise RuntimeError(
            f"{plugs} plugs should have been seen by three hosts each, and were seen {len(took_ms)} times"
        )
    assert pool.process is not None
    return {
        "latency_p50_ms": median(took_ms),
        "latency_p99_ms": quantiles(took_ms, n=100)[98],
        "database_cpu_ms_per_plug": (busy.database - idle.database) / plugs * 1e3,
        "each_relay_cpu_ms_per_plug": (busy.relays - idle.relays) / plugs / max(len(relays), 1) * 1e3,
        "agents_cpu_ms_per_plug": (busy.agents - idle.agents) / plugs * 1e3,
        "database_idle_percent": idle.database / seconds * 100,
        "agent_idle_percent": idle.agents / seconds / hosts * 100,
        "rows_read_per_plug": sum(one["rows"] for one in said) / plugs,
        "sources_per_plug": sum(one["sources"] for one in said) / plugs,
        "agent_MB": agent_mb,
        "database_MB": Process.of(pool.process.pid).resident_mb,
    }


def one(hosts: int, seconds: float, rate: float, per_relay: int) -> dict[str, float]:
    """A pool of so many hosts, each of which is to run one VIF of each of its networks."""
    rows = [Pool("many"), *map(host, range(hosts)), *map(network, range(hosts))]
    for number in range(hosts):
        for k, net in enumerate(networks_of(number, hosts)):
            rows.append(vif(hosts * (1 + k) + net, hosts, f"host{number}"))
    count = -(-hosts // per_relay) if per_relay else 0
    with (
        run_dir() as directory,
        pool_server(rows) as pool,
        relays_of(pool, directory, count) as relays,
        switch_databases(directory, hosts) as servers,
    ):
        return asyncio.run(measure(directory, pool, relays, servers, seconds, rate))


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        pool, directory, block = sys.argv[2:]
        first, after = map(int, block.split(":"))
        asyncio.run(work(pool, Path(directory), range(first, after)))
        return
    parser = arguments(__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to plug")
    parser.add_argument("--rate", type=float, default=10.0, help="plugs per second in the whole pool")
    parser.add_argument("--per-relay", type=int, default=0, metavar="AGENTS", help="at each relay; 0 for no relays")
    options = parser.parse_args()
    behind = f", {options.per_relay} at each relay" if options.per_relay else ""
    results = []
    for hosts in options.hosts:
        samples = [one(hosts, options.seconds, options.rate, options.per_relay) for _ in range(options.runs)]
        results.append(Result.of(f"{hosts} agents{behind}, {options.rate:g} plugs a second", FIGURES, samples))
    report(results, options.json)


if __name__ == "__main__":
    main()
