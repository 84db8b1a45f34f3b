"""Many agents on one pool database, VIFs created and plugged at a steady rate: latency, and what a plug costs as the pool grows.

Real: the agent's own class with its whole loop (25 to a process), the pool database, one ovsdb-server with the Open_vSwitch
schema for each host, every transaction, and every flow: one ovs-vswitchd on the dummy datapath has a bridge for each host, which
takes them. Not real: that ovs-vswitchd does not read the hosts' databases, so the port that the benchmark adds has its ofport already
and no packet could pass.
Every host shares four networks with three others each, whatever the pool's size, and runs a VIF on each. Latency: from just before the
transaction that creates the VIF (its port is added in the next call) until a client of the database knows the claim; to_a_peer: until
it has been folded into the view of another host on that network. What a plug costs is the processor time while plugging less that of as long a time with nothing to do. With --per-relay agents are
at relays (docs/cluster.md), so many at each; who creates the VIFs is at the pool database itself.

OVN's twin: ovn-controller for each host on such databases and bridges, the two databases, northd. The port is created in the northbound
database, and a client of the southbound one knows its chassis.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from benchmarks.common import Figure, arguments, compare, report
from benchmarks.large_pool import host, network, pool_server, vif
from benchmarks.ovn_scale import SOUTHBOUND, Central, alone, port, settings, start_controller, switches, until, write
from benchmarks.processes import Process
from ovsctl.ovsdb import Batch, Insert, Monitor, Mutate, NamedUuid, Operation, OvsdbClient, Update, by_uuid
from tests.servers import VSWITCH_SCHEMA, OvsdbServer, Vswitchd, end, run, run_dir, spawn, vswitchd
from vnet.agent.agent import Agent, AgentOptions
from vnet.compile import Switch
from vnet.db.database import now_ms
from vnet.db.rows import SCHEMA_NAME, to_columns
from vnet.objects import Host, Pool, Vif

PER_PROCESS = 25
NETWORKS_PER_HOST = 4
FIGURES = (
    Figure("latency_p50_ms", "ms"),
    Figure("latency_p99_ms", "ms"),
    Figure("cpu_ms_per_plug", "ms"),
    Figure("databases_cpu_ms_per_plug", "ms"),
    Figure("agents_cpu_ms_per_plug", "ms"),
    Figure("agent_MB", "MB"),
    Figure("databases_MB", "MB"),
)
AT_REST = (Figure("databases_idle_percent", "%"), Figure("agent_idle_percent", "%"))
OURS = (
    Figure("to_a_peer_p50_ms", "ms"),
    Figure("to_a_peer_p99_ms", "ms"),
    *AT_REST,
    Figure("each_relay_cpu_ms_per_plug", "ms"),
    Figure("rows_read_per_plug", "rows"),
    Figure("sources_per_plug", "sources"),
)
THEIRS = (*AT_REST, Figure("northd_cpu_ms_per_plug", "ms"))
START_TIMEOUT_S = 300.0
SETTLE_S = 3.0
LATE_S = 60.0


def networks_of(number: int, hosts: int) -> list[int]:
    """The networks of host `number`; host h is on the networks h to h+3, so each network has four hosts."""
    return [(number + k) % hosts for k in range(NETWORKS_PER_HOST)]


def bridge(number: int) -> str:
    """The integration bridge of host `number`."""
    return f"br{number}"


def first_vifs(hosts: int) -> list[list[Vif]]:
    """What each host runs from the beginning: a VIF of each of its networks."""
    return [
        [vif(hosts * (1 + k) + net, hosts, f"host{number}") for k, net in enumerate(networks_of(number, hosts))]
        for number in range(hosts)
    ]


def plugged_vif(k: int, hosts: int) -> tuple[int, Vif]:
    """The host of the k-th plug, and the VIF."""
    number = k * 7 % hosts
    return number, vif(hosts * (100 + k) + networks_of(number, hosts)[k % NETWORKS_PER_HOST], hosts, f"host{number}")


# In the processes of the agents


class Watched(Agent):
    """An agent that remembers when it took in other hosts' claims: monotonic ns, a clock that all processes share."""

    def __init__(self, options: AgentOptions) -> None:
        super().__init__(options, now_ms)
        self.seen: dict[str, int] = {}
        fold = self.compiler.inputs.set_binding

        def watched(binding):  # type: ignore[no-untyped-def]
            fold(binding)
            if binding.host != self.me:
                self.seen.setdefault(binding.vif, time.monotonic_ns())

        self.compiler.inputs.set_binding = watched  # type: ignore[method-assign]


async def work(pool: str, directory: Path, rundir: str, numbers: range) -> None:
    """Run agents until told to stop; then write down what they saw and counted since they were told to begin. rundir: the switch's."""
    agents = [
        Watched(AgentOptions(f"host{n}", (pool,), f"unix:{directory}/{n}.sock", rundir, Switch(bridge(n))))
        for n in numbers
    ]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tasks = [asyncio.create_task(agent.run()) for agent in agents]
    while not all(agent.complete and len(agent.compiler.view.networks) == NETWORKS_PER_HOST for agent in agents):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    before = []

    def begin() -> None:
        for agent in agents:
            agent.seen.clear()
        before[:] = [(agent.pool.rows_read, agent.compiler.recomputed) for agent in agents]

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, begin)
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


@contextlib.contextmanager
def bridges(hosts: int) -> Iterator[Vswitchd]:
    """An ovs-vswitchd with a bridge for each host."""
    with vswitchd() as switch:
        for number in range(hosts):
            switch.server.vsctl("add-br", bridge(number), "--", "set-fail-mode", bridge(number), "secure")
        yield switch


@dataclass
class LocalSwitch:
    """One host's Open_vSwitch database with its bridge, which says that everything is configured already."""

    client: OvsdbClient
    bridge: str
    ports: int = 0

    @classmethod
    async def made(cls, client: OvsdbClient, name: str) -> LocalSwitch:
        _, row, _ = await client.transact(
            Insert("Open_vSwitch", {"cur_cfg": 1 << 40, "bridges": frozenset({NamedUuid("bridge")})}),
            Insert("Bridge", {"name": name, "fail_mode": "secure"}, "bridge"),
            Mutate("Open_vSwitch", (), (("next_cfg", "+=", 1),)),
        )
        return cls(client, row)

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
    """A client at each host's database, the host's first VIFs plugged."""
    async with contextlib.AsyncExitStack() as stack:
        switches = []
        for number, (server, vifs) in enumerate(zip(servers, first_vifs(len(servers)), strict=True)):
            client = await stack.enter_async_context(OvsdbClient(server.remote, "Open_vSwitch"))
            switches.append(await LocalSwitch.made(client, bridge(number)))
            for it in vifs:
                await switches[-1].add_port(it.id)
        yield switches


Pids = Mapping[str, Sequence[int]]
"""Processes by what they do: databases, agents, and what else there is."""


def cpu_s(pids: Pids) -> dict[str, float]:
    """Processor seconds so far."""
    return {name: sum(Process.of(pid).cpu_s for pid in them) for name, them in pids.items()}


async def steadily(create: Callable[[Vif], Awaitable[None]], switches: list[LocalSwitch], load: Load) -> dict[str, int]:
    """VIFs created and plugged, one host after another; when each was begun."""
    begun: dict[str, int] = {}
    start = time.monotonic()
    for k in range(int(load.seconds * load.rate)):
        await asyncio.sleep(max(0.0, start + k / load.rate - time.monotonic()))
        number, it = plugged_vif(k, len(switches))
        begun[it.id] = time.monotonic_ns()
        await create(it)
        await switches[number].add_port(it.id)
    return begun


@dataclass(frozen=True, slots=True)
class Load:
    """How long to plug, and how many a second in the whole pool."""

    seconds: float
    rate: float


async def plugging(
    create: Callable[[Vif], Awaitable[None]], switches: list[LocalSwitch], pids: Pids, load: Load
) -> tuple[dict[str, int], dict[str, float]]:
    """When each plug was begun, and what they cost beyond what as long a time without costs."""
    await asyncio.sleep(SETTLE_S)
    first = cpu_s(pids)
    await asyncio.sleep(load.seconds)
    second, started = cpu_s(pids), time.monotonic()
    begun = await steadily(create, switches, load)
    await asyncio.sleep(max(0.5, started + load.seconds - time.monotonic()))
    third, plugs = cpu_s(pids), len(begun)
    idle = {name: second[name] - first[name] for name in pids}
    per_plug = {f"{name}_cpu_ms_per_plug": (third[name] - second[name] - idle[name]) / plugs * 1e3 for name in pids}
    return begun, {
        **per_plug,
        "cpu_ms_per_plug": sum(per_plug.values()),
        "databases_idle_percent": idle["databases"] / load.seconds * 100,
        "agent_idle_percent": idle["agents"] / load.seconds / len(switches) * 100,
        "agent_MB": sum(Process.of(pid).resident_mb for pid in pids["agents"]) / len(switches),
        "databases_MB": sum(Process.of(pid).resident_mb for pid in pids["databases"]),
    }


def latencies(name: str, took_ms: list[float]) -> dict[str, float]:
    return {f"{name}_p50_ms": median(took_ms), f"{name}_p99_ms": quantiles(took_ms, n=100)[98]}


def _pids(servers: list[OvsdbServer]) -> list[int]:
    return [server.process.pid for server in servers if server.process is not None]


# Our own agents


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


async def measure(
    directory: Path,
    rundir: Path,
    pool: OvsdbServer,
    relays: list[OvsdbServer],
    servers: list[OvsdbServer],
    load: Load,
) -> dict[str, float]:
    hosts, known = len(servers), dict[str, int]()
    blocks = [range(first, min(first + PER_PROCESS, hosts)) for first in range(0, hosts, PER_PROCESS)]
    async with local_switches(servers) as switches, OvsdbClient(pool.remote, SCHEMA_NAME) as client:
        bound = await client.monitor({"Binding": Monitor(columns=("vif", "ready"))})
        program = [sys.executable, "-m", "benchmarks.many_agents", "--work"]
        at = [relays[number * len(relays) // len(blocks)] if relays else pool for number in range(len(blocks))]
        agents = [
            spawn(
                [*program, server.remote, str(directory), str(rundir), f"{block.start}:{block.stop}"],
                log=directory / f"{block.start}.log",
            )
            for block, server in zip(blocks, at, strict=True)
        ]
        pids = {"databases": _pids([pool]), "relays": _pids(relays), "agents": [agent.pid for agent in agents]}

        def all_ready() -> bool:
            return sum(row["ready"] for row in bound["Binding"].values()) == hosts * NETWORKS_PER_HOST

        def note(batch: Batch) -> None:
            for change in batch:
                if change.new is not None:
                    known.setdefault(change.new["vif"], time.monotonic_ns())

        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                # Files, because agents are other processes.
                while not all((directory / f"{block.start}.up").exists() for block in blocks):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            await until(bound, all_ready, START_TIMEOUT_S)
            bound.subscribe(note)
            for agent in agents:
                agent.send_signal(signal.SIGUSR1)

            async def create(it: Vif) -> None:
                await client.transact(Insert("Vif", to_columns(it)))

            begun, cost = await plugging(create, switches, pids, load)
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
    return {
        **latencies("latency", [(known[v] - ns) / 1e6 for v, ns in begun.items()]),
        **latencies("to_a_peer", took_ms),
        **cost,
        "each_relay_cpu_ms_per_plug": cost["relays_cpu_ms_per_plug"] / max(len(relays), 1),
        "rows_read_per_plug": sum(one["rows"] for one in said) / plugs,
        "sources_per_plug": sum(one["sources"] for one in said) / plugs,
    }


def one(hosts: int, load: Load, per_relay: int) -> dict[str, float]:
    """A pool of so many hosts."""
    vifs = [it for some in first_vifs(hosts) for it in some]
    rows = [Pool("many"), *map(plain_host, range(hosts)), *map(network, range(hosts)), *vifs]
    count = -(-hosts // per_relay) if per_relay else 0
    with (
        run_dir() as directory,
        bridges(hosts) as switch,
        pool_server(rows) as pool,
        relays_of(pool, directory, count) as relays,
        switch_databases(directory, hosts) as servers,
    ):
        return asyncio.run(measure(directory, switch.server.dir, pool, relays, servers, load))


def plain_host(number: int) -> Host:
    """A host without an uplink."""
    return replace(host(number), uplinks=())


# OVN


async def measure_ovn(rundir: Path, central: Central, servers: list[OvsdbServer], load: Load) -> dict[str, float]:
    hosts, seen = len(servers), dict[str, int]()
    vifs = [it for some in first_vifs(hosts) for it in some]
    central.start_northd()
    async with (
        local_switches(servers) as local,
        central.northbound() as nb,
        OvsdbClient(central.sb.remote, SOUTHBOUND) as sb,
    ):
        await write(nb.client, switches(map(network, range(hosts)), map(anywhere, vifs)))
        await nb.settled(timeout_s=START_TIMEOUT_S)
        for number, switch in enumerate(local):
            external_ids = settings(f"host{number}", host(number).address, central.sb.remote)
            await switch.client.transact(
                Update("Open_vSwitch", (), {"external_ids": external_ids | {"ovn-bridge": bridge(number)}})
            )
        replica = await sb.monitor({"Port_Binding": Monitor(columns=("logical_port", "chassis", "up"))})
        controllers = [
            start_controller(server, f"controller{number}", rundir=rundir) for number, server in enumerate(servers)
        ]
        databases = _pids([central.nb, central.sb])
        pids = {"databases": databases, "agents": [it.pid for it in controllers], "northd": central.northd_pids()}

        def all_up() -> bool:
            ports = replica["Port_Binding"].values()
            return len(ports) == len(vifs) and all(row["chassis"] and row["up"] for row in ports)

        def note(batch: Batch) -> None:
            for change in batch:
                if change.new is not None and change.new["chassis"]:
                    seen.setdefault(change.new["logical_port"], time.monotonic_ns())

        async def create(it: Vif) -> None:
            added = ("ports", "insert", frozenset({NamedUuid("port")}))
            where = (("name", "==", it.network),)
            await nb.client.transact(port(anywhere(it), "port"), Mutate("Logical_Switch", where, (added,)))

        try:
            await until(replica, all_up, START_TIMEOUT_S)
            replica.subscribe(note)
            begun, cost = await plugging(create, local, pids, load)
            with contextlib.suppress(TimeoutError):
                await until(replica, lambda: begun.keys() <= seen.keys(), LATE_S)
        finally:
            for process in controllers:
                await asyncio.to_thread(end, process)
    late = len(begun.keys() - seen.keys())
    if late:
        raise RuntimeError(f"{late} of {len(begun)} ports had no chassis {LATE_S} s after they were plugged")
    return latencies("latency", [(seen[v] - ns) / 1e6 for v, ns in begun.items()]) | cost


def anywhere(it: Vif) -> Vif:
    """A VIF that is not wanted on a certain host: less work for OVN, whose hosts claim what is plugged."""
    return replace(it, host=None)


def one_ovn(hosts: int, load: Load) -> dict[str, float]:
    """A pool of so many hosts of OVN's."""
    with (
        run_dir() as directory,
        bridges(hosts) as switch,
        Central(directory) as central,
        switch_databases(directory, hosts) as servers,
    ):
        return asyncio.run(measure_ovn(switch.server.dir, central, servers, load))


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        pool, directory, rundir, block = sys.argv[2:]
        first, after = map(int, block.split(":"))
        asyncio.run(work(pool, Path(directory), rundir, range(first, after)))
        return
    parser = arguments(__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to plug")
    parser.add_argument("--rate", type=float, default=10.0, help="plugs per second in the whole pool")
    parser.add_argument("--per-relay", type=int, default=0, metavar="AGENTS", help="at each relay; 0 for no relays")
    parser.add_argument("--systems", nargs="+", choices=["vnet", "OVN"], default=["vnet", "OVN"])
    options = parser.parse_args()
    load = Load(options.seconds, options.rate)
    behind = f", {options.per_relay} at each relay" if options.per_relay else ""
    results = []
    for hosts in options.hosts:
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in options.systems}

        def measured(
            name: str, hosts: int = hosts, taken: dict[str, list[dict[str, float]]] = taken
        ) -> dict[str, float]:
            taken[name].append(one(hosts, load, options.per_relay) if name == "vnet" else one_ovn(hosts, load))
            return taken[name][-1]

        peers = {name: partial(measured, name) for name in options.systems}
        results.append(compare(f"{hosts} agents{behind}, {load.rate:g} plugs a second", peers, FIGURES, options.runs))
        results += [
            alone(name, figures, taken[name]) for name, figures in (("vnet", OURS), ("OVN", THEIRS)) if name in taken
        ]
    report(results, options.json)


if __name__ == "__main__":
    main()
