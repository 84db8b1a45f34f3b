"""Agents that run on another machine than their hosts, at a distance: plug, migration and restart, beside agents on the hosts.

`python -m benchmarks.remote_agent [--distances 0.2 1 5] [--plugs N] [--times N] [--runs N]`. A distance is a round trip in ms, made by a process that holds back what passes it.
Agents elsewhere are beside the pool database, in one process, and all between them and the switches is at the distance. Agents on the hosts are a process each, beside their
switches, and the pool database is at the distance. Plug and restart are those of benchmarks.plug and benchmarks.restart; a migration is without a pause, on Geneve.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import moving, plug, restart
from benchmarks.common import Figure, Result, arguments, report
from benchmarks.systems import HOSTS, NETWORK, Vnet, pool_of
from ovsctl.openflow.listener import OpenFlowListener
from vnet.agent.agent import AgentOptions
from vnet.agent.daemon import HostRunner
from vnet.agent.switch_access import Doorway
from vnet.compile import Switch
from vnet.lab import Driver, Lab
from vnet.lab.processes import start, stop, wait_until
from vnet.objects import PoolState

HERE, ELSEWHERE = "on the hosts", "elsewhere"
PIECE = 1 << 16
FIGURES = (
    Figure("plug", "ms"),
    Figure("created and plugged", "ms"),
    Figure("unplug", "ms"),
    Figure("migration: lost, worst stream", "frames"),
    Figure("migration: worst gap", "ms"),
    Figure("restart: lost", "frames"),
    Figure("restart: start to complete", "ms"),
    Figure("restart: start to verified", "ms"),
)


@dataclass(frozen=True, slots=True)
class Way:
    """A unix socket that leads to another one, with half of the round trip each way."""

    path: Path
    to: Path
    round_trip_ms: float


async def pass_on(ways: Sequence[Way]) -> None:
    """Holds back what passes, until cancelled."""
    loop = asyncio.get_running_loop()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
        try:
            while data := await reader.read(PIECE):
                loop.call_later(delay_s, writer.write, data)
        except ConnectionError:
            pass
        loop.call_later(delay_s + 0.001, writer.close)

    async def serve(way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, on = await asyncio.open_unix_connection(way.to, limit=PIECE)
        except OSError:
            writer.close()
            return
        delay_s = way.round_trip_ms / 2000
        await asyncio.gather(carry(reader, on, delay_s), carry(back, writer, delay_s))

    for way in ways:
        way.path.unlink(missing_ok=True)
        await asyncio.start_unix_server(functools.partial(serve, way), way.path, limit=PIECE)
    await asyncio.Event().wait()


class UnixListener(OpenFlowListener):
    """Listens at a unix socket: the lab's hosts are in network namespaces of their own."""

    def __init__(self, path: Path) -> None:
        super().__init__(0)
        self._path = path

    async def __aenter__(self) -> UnixListener:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(self.protocol, self._path)
        return self


async def run_agents(pool: str, remote: bool, hosts: dict[str, Path]) -> None:
    """The agents of these hosts, each with its directory, until cancelled."""
    async with contextlib.AsyncExitStack() as stack:
        runners = []
        for host, directory in hosts.items():
            doorway = None
            if remote:
                listener = await stack.enter_async_context(UnixListener(directory / "near-of.sock"))
                doorway = Doorway(listener, f"unix:{directory / 'far-of.sock'}")
            db = directory / ("far-db.sock" if remote else "db.sock")
            options = AgentOptions(
                host,
                (pool,),
                f"unix:{db}",
                "" if remote else str(directory),
                Switch("br-int", "netdev"),
                doorway=doorway,
            )
            runners.append(HostRunner(options, str(directory / "agent.sock"), directory))
        await asyncio.gather(*(runner.run() for runner in runners))


class Distant(Vnet):
    """vnet, with the lab's agents replaced by those of this benchmark."""

    remote = False
    round_trip_ms = 0.0

    async def open(self) -> None:
        await super().open()
        self.pids: dict[str, int] = {}
        for host in HOSTS:
            self.lab.daemons.kill(host)
        far_pool = self.lab.daemons.dir / "far-pool.sock"
        ways = [Way(far_pool, self.lab.daemons.pool_socket, self.round_trip_ms)]
        for host in HOSTS:
            directory = self.lab.ovs(host).dir
            ways.append(Way(directory / "far-db.sock", directory / "db.sock", self.round_trip_ms))
            ways.append(Way(directory / "far-of.sock", directory / "near-of.sock", self.round_trip_ms))
        self.pool_remote = f"unix:{self.lab.daemons.pool_socket if self.remote else far_pool}"
        self._child("proxy", json.dumps([[str(w.path), str(w.to), w.round_trip_ms] for w in ways]))
        wait_until(ways[-1].path.exists, "the proxy")
        for host in HOSTS[:1] if self.remote else HOSTS:
            await self.start_agent(host)

    def _child(self, name: str, *args: str) -> None:
        command = [sys.executable, "-m", "benchmarks.remote_agent", name.partition(" ")[0], *args]
        log = self.lab.daemons.dir / f"{name.replace(' ', '-')}.log"
        self.pids[name] = start(command, log=log, env=self.lab.daemons.env)

    async def close(self) -> None:
        stop([*self.pids.values()], signal.SIGKILL)
        await super().close()

    def _agents(self, host: str) -> str:
        return "agents" if self.remote else f"agents {host}"

    async def stop_agent(self, host: str, *, crash: bool = True) -> None:
        await asyncio.to_thread(stop, [self.pids[self._agents(host)]], signal.SIGKILL if crash else signal.SIGTERM)

    async def start_agent(self, host: str) -> None:
        hosts = HOSTS if self.remote else (host,)
        places = {name: str(self.lab.ovs(name).dir) for name in hosts}
        self._child(self._agents(host), self.pool_remote, json.dumps([self.remote, places]))


@contextlib.asynccontextmanager
async def system_of(pool: PoolState, where: str, round_trip_ms: float) -> AsyncIterator[Distant]:
    lab = await asyncio.to_thread(
        functools.partial(Lab.up, pool, name=f"bench{os.getpid()}", driver=Driver.NETNS, daemons=True)
    )
    with lab:
        system = Distant(lab, pool)
        system.remote, system.round_trip_ms = where == ELSEWHERE, round_trip_ms
        await system.open()
        try:
            yield system
        finally:
            await system.close()
            await system.close_clients()


async def plugs(where: str, round_trip_ms: float, count: int) -> dict[str, float]:
    names = [f"new{n}" for n in range(2 * count + 1)]
    pool = pool_of([("peer", "xen1"), ("first", "xen2"), *((name, "xen2") for name in names)], NETWORK)
    async with system_of(pool, where, round_trip_ms) as system:
        for name in names:
            await system.delete(pool.vifs[f"{name}/0"])
        for vm in ("peer", "first"):
            await asyncio.to_thread(system.lab.start, vm)
        await system.settled()
        await asyncio.sleep(1)
        with system.undisturbed():
            await plug.first_frames(system, 0, "plug_ms")
            ways = ("plug_ms", "create_plug_ms")
            found = [await plug.first_frames(system, n + 1, ways[n % 2]) for n in range(2 * count)]
    keys = {"plug": "plug_ms", "created and plugged": "create_plug_ms", "unplug": "unplug_ms"}
    return {name: median(one[key] for one in found if key in one) for name, key in keys.items()}


async def moves_and_restarts(where: str, round_trip_ms: float, times: int, runs: int) -> dict[str, float]:
    network = moving.NETWORKS["geneve"]
    async with system_of(moving.pool_of_movers([network], False), where, round_trip_ms) as system:
        await moving.start(system)
        worst = (await moving.moves(system, network, times))[-1]
    async with system_of(pool_of([("peer", "xen1"), ("first", "xen2")], NETWORK), where, round_trip_ms) as system:
        for vm in system.pool.vms:
            await asyncio.to_thread(system.lab.start, vm)
        await system.settled()
        found = await restart.repeated(system, lambda: restart.agent_restart(system, crash=True), runs)
    return {
        "migration: lost, worst stream": worst.lost,
        "migration: worst gap": worst.worst_gap_ms,
        "restart: lost": max(one["lost"] for one in found),
        "restart: start to complete": median(one["start to complete"] for one in found),
        "restart: start to verified": median(one["start to in sync"] for one in found),
    }


def main() -> None:
    if sys.argv[1:2] == ["proxy"]:
        asyncio.run(pass_on([Way(Path(path), Path(to), delay) for path, to, delay in json.loads(sys.argv[2])]))
    if sys.argv[1:2] == ["agents"]:
        remote, places = json.loads(sys.argv[3])
        asyncio.run(run_agents(sys.argv[2], remote, {host: Path(place) for host, place in places.items()}))
    parser = arguments(__doc__)
    parser.add_argument("--distances", type=float, nargs="*", default=[0.2, 1, 5])
    parser.add_argument("--plugs", type=int, default=7)
    parser.add_argument("--times", type=int, default=6, help="migrations")
    options = parser.parse_args()
    results = []
    for distance in options.distances:
        medians = {
            where: asyncio.run(plugs(where, distance, options.plugs))
            | asyncio.run(moves_and_restarts(where, distance, options.times, options.runs))
            for where in (HERE, ELSEWHERE)
        }
        results.append(Result(f"at a round trip of {distance:g} ms", FIGURES, medians, options.plugs))
    report(results, options.json)


if __name__ == "__main__":
    main()
