"""A new agent joins a pool of 1,000 hosts, 5,000 networks and 100,000 VIFs: time until its 100 VIFs are ready, and its memory.

The agent is `vnet agent`, a process of its own, on a real Open vSwitch with the dummy datapath whose br-int has the 100 VIFs' ports
already, of 20 networks. Time runs from just before the process is made until the pool database says `ready` of all 100: then
their flows have been answered by a barrier. The database is filled before; all other VIFs have bindings of other hosts.

OVN's twin: ovn-controller on such a switch and a southbound database into which northd has compiled the same networks and VIFs, all
others bound to other hosts, asking only for what it needs (`ovn-monitor-all=false`). northd has ended by then: it would take
processor time, and is not needed for a port to be `up`, which ovn-controller says after its flows' barrier. Compiling takes minutes
and gigabytes; with --central the databases are kept for the next run. The rows that it holds are counted in one more start, from
its log of what it received.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.common import Figure, Result, arguments, compare, report
from benchmarks.large_pool import Size, contents, host, network, pool_server, vif
from benchmarks.ovn_scale import (
    SOUTHBOUND,
    Central,
    bind,
    chassis,
    settings,
    start_controller,
    switches,
    until,
    write,
)
from benchmarks.processes import Process, preferred
from ovsctl.ovsdb import Delete, Monitor, OvsdbClient, Select, Update
from tests.servers import OvsdbServer, Vswitchd, end, run_dir, spawn, vswitchd
from vnet.db.rows import SCHEMA_NAME

HOST = "host0"
LOCAL_NETWORKS, VIFS_EACH = 20, 5
TIMEOUT_S = 120.0
PORTS_AT_ONCE = 200
MAX_ANSWER = 1 << 24  # of an agent that tells of thousands of VIFs
FILL_TIMEOUT_S = 3_600.0
FIGURES = (
    Figure("ready_s", "s", below=2.0),
    Figure("cpu_s", "s"),
    Figure("resident_MB", "MB", below=100.0),
    Figure("peak_MB", "MB", below=100.0),
    Figure("database_cpu_s", "s"),
    Figure("database_MB", "MB"),
    Figure("rows_held", "rows"),
    Figure("flows", "flows"),
)
COUNTERS = (
    Figure("rows_read", "rows"),
    Figure("conditions_set", "conditions"),
    Figure("sources_recomputed", "sources"),
    Figure("flow_messages", "messages"),
)


def local_vifs(size: Size) -> list[int]:
    """The VIFs of the new host: five each of twenty networks."""
    return [net + size.networks * k for k in range(VIFS_EACH) for net in range(LOCAL_NETWORKS)]


def add_ports(switch: Vswitchd, vifs: list[int]) -> None:
    """br-int as the toolstack left it: a port for each VIF."""
    switch.server.vsctl("add-br", "br-int")
    for begin in range(0, len(vifs), PORTS_AT_ONCE):
        args: list[str] = []
        for number in vifs[begin : begin + PORTS_AT_ONCE]:
            args += ["--", "add-port", "br-int", f"v{number}", "--", "set", "interface", f"v{number}", "type=dummy",
                     f'external_ids:iface-id="vm{number}/0"']  # fmt: skip
        switch.server.vsctl(*args[1:])


async def ask_status(socket: Path) -> dict[str, object]:
    """What the agent says of itself on its local socket."""
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=MAX_ANSWER)
    writer.write(b'{"method": "status"}\n')
    answer: dict[str, dict[str, object]] = json.loads(await reader.readline())
    writer.close()
    return answer["result"]


def start_agent(pool: OvsdbServer, switch: Vswitchd) -> subprocess.Popen[bytes]:
    """`vnet agent` as a process of its own, which dies with us."""
    home = switch.server.dir
    command = [
        sys.executable, "-m", "vnet.cli.main", "agent", "--host", HOST, "--pool", pool.remote,
        "--ovs-db", switch.server.remote, "--ovs-rundir", str(home), "--socket", str(home / "agent.sock"),
    ]  # fmt: skip
    return spawn(command, log=home / "agent.log")


@dataclass(frozen=True, slots=True)
class Started:
    """How an agent of either system began."""

    ready_s: float
    agent: Process
    database_before: Process
    database: Process

    @property
    def figures(self) -> dict[str, float]:
        return {
            "ready_s": self.ready_s,
            "cpu_s": self.agent.cpu_s,
            "resident_MB": self.agent.resident_mb,
            "peak_MB": self.agent.peak_mb,
            "database_cpu_s": self.database.cpu_s - self.database_before.cpu_s,
            "database_MB": self.database.resident_mb,
        }


async def started(
    server: OvsdbServer, start: Callable[[], subprocess.Popen[bytes]], all_ready: Callable[[], Awaitable[None]]
) -> tuple[Started, subprocess.Popen[bytes]]:
    """Start an agent and wait for its VIFs. server: the database that it is a client of."""
    database = _pid(server.process)
    before, began = Process.of(database), time.monotonic()
    agent = start()
    try:
        await all_ready()
        ready_s = time.monotonic() - began
        return Started(ready_s, Process.of(agent.pid), before, Process.of(database)), agent
    except BaseException:
        end(agent)
        raise


def _pid(process: subprocess.Popen[bytes] | None) -> int:
    if process is None:
        raise RuntimeError("the server is not running")
    return process.pid


class Vnet:
    """A pool that does not know the new host's VIFs yet."""

    def __init__(self, local: list[int], pool: OvsdbServer) -> None:
        self.local, self.pool = local, pool
        self.samples: list[dict[str, float]] = []

    def measure(self, realtime: bool) -> dict[str, float]:
        """A new agent on a new switch."""
        with vswitchd() as switch:
            add_ports(switch, self.local)
            with preferred(_pids(self.pool, switch)) if realtime else nullcontext():
                self.samples.append(asyncio.run(self._measure(switch)))
        forget(self.pool)
        return self.samples[-1]

    async def _measure(self, switch: Vswitchd) -> dict[str, float]:
        async with OvsdbClient(self.pool.remote, SCHEMA_NAME) as client:
            monitor = Monitor(columns=("vif", "ready"), where=(("host", "==", HOST),))
            replica = await client.monitor({"Binding": monitor})

            def ready() -> bool:
                return sum(row["ready"] for row in replica["Binding"].values()) == len(self.local)

            began, agent = await started(
                self.pool, lambda: start_agent(self.pool, switch), lambda: until(replica, ready, TIMEOUT_S)
            )
            try:
                status = await ask_status(switch.server.dir / "agent.sock")
            finally:
                end(agent, signal.SIGTERM)
        counters, flows = status["counters"], status["flows"]
        if not isinstance(counters, dict) or not isinstance(flows, int):
            raise RuntimeError(f"the agent's status has no counters or flows: {status}")
        names = ("rows_held", *(figure.key for figure in COUNTERS))
        return {**began.figures, "flows": flows, **{name: counters[name] for name in names}}


class Ovn:
    """The same pool in OVN's databases, northd's work done."""

    def __init__(self, size: Size, local: list[int], central: Central) -> None:
        self.size, self.local, self.central = size, local, central
        self.rows_held = 0.0

    def fill(self) -> dict[str, float]:
        """Everything but the new host; what northd took for it."""
        return asyncio.run(self._fill())

    async def _fill(self) -> dict[str, float]:
        size, here = self.size, set(self.local)
        vifs = [vif(number, size.networks) for number in range(size.vifs)]
        async with self.central.northbound() as nb, OvsdbClient(self.central.sb.remote, SOUTHBOUND) as sb:
            await write(nb.client, switches(map(network, range(size.networks)), vifs))
            await write(sb, chassis(host(number) for number in range(1, size.hosts)))
            began = time.monotonic()
            self.central.start_northd()
            await nb.settled(timeout_s=FILL_TIMEOUT_S)
            took = {"compile_s": time.monotonic() - began}
            took |= {f"{name}_peak_MB": process.peak_mb for name, process in self.central.spent().items()}
            self.central.stop_northd()
            where = {it.id: f"host{1 + n % (size.hosts - 1)}" for n, it in enumerate(vifs) if n not in here}
            await bind(sb, where)
        self.central.sb.restart(signal.SIGTERM)
        return took

    def count_rows(self) -> None:
        """Start one only for the rows that it is sent."""
        with self._switch() as switch:
            asyncio.run(self._measure(switch, "-vjsonrpc:console:dbg"))
            self.rows_held = rows_received(switch.server.dir / "controller.log", self.central.sb.remote)

    def measure(self, realtime: bool) -> dict[str, float]:
        """A new ovn-controller on a new switch."""
        with self._switch() as switch, preferred(_pids(self.central.sb, switch)) if realtime else nullcontext():
            return asyncio.run(self._measure(switch)) | {"rows_held": self.rows_held}

    @contextmanager
    def _switch(self) -> Iterator[Vswitchd]:
        with vswitchd() as switch:
            add_ports(switch, self.local)
            external_ids = settings(HOST, host(0).address, self.central.sb.remote)
            switch.server.vsctl("set", "open_vswitch", ".", *(f"external_ids:{k}={v}" for k, v in external_ids.items()))
            yield switch

    async def _measure(self, switch: Vswitchd, *options: str) -> dict[str, float]:
        names = {vif(number, self.size.networks).id for number in self.local}
        async with OvsdbClient(self.central.sb.remote, SOUTHBOUND) as sb:
            (ports,) = await sb.transact(Select("Port_Binding", (), ("_uuid", "logical_port")))
            mine = [("_uuid", "==", row["_uuid"]) for row in ports if row["logical_port"] in names]
            replica = await sb.monitor({"Port_Binding": Monitor(columns=("chassis", "up"), where=mine)})

            def up() -> bool:
                return all(row["chassis"] and row["up"] for row in replica["Port_Binding"].values())

            began, agent = await started(
                self.central.sb,
                lambda: start_controller(switch.server, "controller", *options),
                lambda: until(replica, up, TIMEOUT_S),
            )
            end(agent)
            found = re.search(r"flow_count=(\d+)", switch.ofctl("dump-aggregate", "br-int"))
            # The host is new again.
            await sb.transact(
                Delete("Chassis", (("name", "==", HOST),)),
                Delete("Chassis_Private", (("name", "==", HOST),)),
                *(Update("Port_Binding", (clause,), {"up": False}) for clause in mine),
            )
        return {**began.figures, "flows": float(found[1]) if found else 0.0}


def rows_received(log: Path, remote: str) -> int:
    """How many rows a client holds by its log of JSON-RPC messages: those it was sent and not told the end of."""
    rows: set[str] = set()
    for line in log.read_text().splitlines():
        found = re.search(
            re.escape(remote) + r": received (?:reply, result=|notification, method=\"update3\", params=)", line
        )
        if found is None:
            continue
        message, _ = json.JSONDecoder().raw_decode(line, found.end())
        if not isinstance(message, list) or len(message) != 3 or not isinstance(message[2], dict):
            continue  # an answer to something else than a monitor
        for updates in message[2].values():
            for uuid, update in updates.items():
                if "delete" in update:
                    rows.discard(uuid)
                else:
                    rows.add(uuid)
    return len(rows)


def _pids(pool: OvsdbServer, switch: Vswitchd) -> list[int | None]:
    return [daemon.process.pid if daemon.process else None for daemon in (pool, switch, switch.server)]


def run(size: Size, runs: int, realtime: bool, systems: Sequence[str], kept: Path | None) -> list[Result]:
    """Medians of `runs` agents of each system, in turn."""
    local = local_vifs(size)
    work = f"cold start: {len(local)} VIFs in a pool of {size}"
    peers: dict[str, Callable[[], Mapping[str, float]]] = {}
    results = []
    with ExitStack() as stack:
        if "vnet" in systems:
            pool = stack.enter_context(pool_server(contents(size, HOST, local)))
            pool.restart(signal.SIGTERM)  # as large as its contents make it, not as filling it did
            ours = Vnet(local, pool)
            peers["vnet"] = partial(ours.measure, realtime)
        if "OVN" in systems:
            directory = kept or stack.enter_context(run_dir())
            new = not (directory / "sb.db").exists()
            ovn = Ovn(size, local, stack.enter_context(Central(directory)))
            if new:
                took = ovn.fill()
                figures = [Figure(key, "s" if key.endswith("_s") else "MB") for key in took]
                results.append(Result(f"northd compiles a pool of {size}", tuple(figures), {"OVN": took}, 1))
            ovn.count_rows()
            peers["OVN"] = partial(ovn.measure, realtime)
        results.insert(0, compare(work, peers, FIGURES, runs))
        if "vnet" in systems:
            results.insert(1, Result.of("what vnet's agent did for it", COUNTERS, ours.samples))
    return results


def forget(pool: OvsdbServer) -> None:
    """The host is new again."""
    where = json.dumps([["host", "==", HOST]])
    pool.client(
        "transact",
        f'["{SCHEMA_NAME}", {{"op": "delete", "table": "Binding", "where": {where}}},'
        f' {{"op": "delete", "table": "Agent", "where": {where}}},'
        f' {{"op": "update", "table": "Vif", "where": {where}, "row": {{"epoch": 0}}}}]',
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--vifs", type=int, default=Size().vifs)
    parser.add_argument("--realtime", action="store_true", help="run before all else on this machine (as root)")
    parser.add_argument("--systems", nargs="+", choices=["vnet", "OVN"], default=["vnet", "OVN"])
    parser.add_argument(
        "--central", type=Path, metavar="DIR", help="keep OVN's databases here, or use those of an earlier run"
    )
    options = parser.parse_args()
    report(run(Size(vifs=options.vifs), options.runs, options.realtime, options.systems, options.central), options.json)


if __name__ == "__main__":
    main()
