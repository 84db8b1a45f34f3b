"""A new agent joins a pool of 1,000 hosts, 5,000 networks and 100,000 VIFs: time until its 100 VIFs are ready, and its memory.

The agent is `vnet agent`, a process of its own, on a real Open vSwitch with the dummy datapath whose br-int has the 100 VIFs' ports
already, of 20 networks. Time runs from just before the process is made until the pool database says `ready` of all 100: then
their flows have been answered by a barrier. The database is filled before; all other VIFs have bindings of other hosts.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from benchmarks.common import Figure, Result, arguments, report
from benchmarks.large_pool import Size, contents, pool_server
from benchmarks.processes import Process, preferred
from ovsctl.ovsdb import Client, Monitor
from tests.servers import OvsdbServer, Vswitchd, end, spawn, vswitchd
from vnet.pool.rows import SCHEMA_NAME

HOST = "host0"
LOCAL_NETWORKS, VIFS_EACH = 20, 5
TIMEOUT_S = 60.0
FIGURES = (
    Figure("ready_s", "s", below=2.0),
    Figure("cpu_s", "s"),
    Figure("resident_MB", "MB", below=100.0),
    Figure("peak_MB", "MB", below=100.0),
    Figure("database_cpu_s", "s"),
    Figure("rows_held", "rows"),
    Figure("rows_read", "rows"),
    Figure("conditions_set", "conditions"),
    Figure("sources_recomputed", "sources"),
    Figure("flow_messages", "messages"),
    Figure("flows", "flows"),
)


def local_vifs(size: Size) -> list[int]:
    """The VIFs of the new host: five each of twenty networks."""
    return [net + size.networks * k for k in range(VIFS_EACH) for net in range(LOCAL_NETWORKS)]


def add_ports(switch: Vswitchd, vifs: list[int]) -> None:
    """br-int as the toolstack left it: a port for each VIF."""
    args = ["add-br", "br-int"]
    for number in vifs:
        args += ["--", "add-port", "br-int", f"v{number}", "--", "set", "interface", f"v{number}", "type=dummy",
                 f'external_ids:iface-id="vm{number}/0"']  # fmt: skip
    switch.server.vsctl(*args)


async def ask_status(socket: Path) -> dict[str, object]:
    """What the agent says of itself on its local socket."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
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


async def measure(pool: OvsdbServer, switch: Vswitchd, count: int) -> dict[str, float]:
    """Start an agent; its figures once `count` VIFs are ready."""
    async with Client(pool.remote, SCHEMA_NAME) as client:
        monitor = Monitor(columns=("vif", "ready"), where=(("host", "==", HOST),))
        replica = await client.monitor({"Binding": monitor})
        done = asyncio.Event()
        replica.subscribe(
            lambda _: done.set() if sum(row["ready"] for row in replica["Binding"].values()) == count else None
        )
        assert pool.process is not None
        before = Process.of(pool.process.pid)
        started = time.monotonic()
        agent = start_agent(pool, switch)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await done.wait()
            ready_s = time.monotonic() - started
            process = Process.of(agent.pid)
            database_cpu_s = Process.of(pool.process.pid).cpu_s - before.cpu_s
            status = await ask_status(switch.server.dir / "agent.sock")
        finally:
            end(agent, signal.SIGTERM)
    counters = status["counters"]
    assert isinstance(counters, dict)
    assert isinstance(status["flows"], int)
    return {
        "ready_s": ready_s,
        "cpu_s": process.cpu_s,
        "resident_MB": process.resident_mb,
        "peak_MB": process.peak_mb,
        "database_cpu_s": database_cpu_s,
        "flows": status["flows"],
        **{
            name: counters[name]
            for name in ("rows_held", "rows_read", "conditions_set", "sources_recomputed", "flow_messages")
        },
    }


def _pids(pool: OvsdbServer, switch: Vswitchd) -> list[int | None]:
    return [daemon.process.pid if daemon.process else None for daemon in (pool, switch, switch.server)]


def run(size: Size, runs: int, realtime: bool) -> Result:
    """Medians of `runs` agents, each on a switch of its own and a pool that does not know the host's VIFs yet."""
    local = local_vifs(size)
    samples = []
    with pool_server(contents(size, HOST, local)) as pool:
        for _ in range(runs):
            with vswitchd() as switch:
                add_ports(switch, local)
                with preferred(_pids(pool, switch)) if realtime else nullcontext():
                    samples.append(asyncio.run(measure(pool, switch, len(local))))
            forget(pool, size)
    return Result.of(f"cold start: {len(local)} VIFs in a pool of {size}", FIGURES, samples)


def forget(pool: OvsdbServer, size: Size) -> None:
    """The host is new again."""
    where = json.dumps([["host", "==", HOST]])
    mine = json.dumps([["host", "==", HOST]])
    pool.client(
        "transact",
        f'["{SCHEMA_NAME}", {{"op": "delete", "table": "Binding", "where": {where}}},'
        f' {{"op": "delete", "table": "Agent", "where": {where}}},'
        f' {{"op": "update", "table": "Vif", "where": {mine}, "row": {{"epoch": 0}}}}]',
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--vifs", type=int, default=Size().vifs)
    parser.add_argument("--realtime", action="store_true", help="run before all else on this machine (as root)")
    options = parser.parse_args()
    report([run(Size(vifs=options.vifs), options.runs, options.realtime)], options.json)


if __name__ == "__main__":
    main()
