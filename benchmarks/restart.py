"""The agent and ovs-vswitchd restart on a host with 20,000 flows under streams: frames lost, time until all is verified.

`python -m benchmarks.restart [--vifs 20000] [--runs N]`. Reach: an agent's restart loses nothing and has verified every flow within
1 s of its first look at the switch; after ovs-vswitchd's own start the streams run again within 100 ms. ovs-vswitchd's own start
is from its new process to the first answer on br-int's management socket. "to its VIFs": until frames from another host arrive
again, which takes the host's own flows; "from its VIFs": until theirs arrive elsewhere, which takes the way to one VIF of all, at
another place among them in every run; "every flow": until the last is in.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from statistics import median

from benchmarks.common import arguments
from benchmarks.systems import NETWORK, System, Vnet, pool_of, running
from vnet.client.errors import ClientError
from vnet.client.local import call_agent
from vnet.lab.streams import RunningStream

HOST = "xen2"
LIMIT_S = 60.0
STREAM_S = 0.5


def flows(system: System) -> int:
    text = system.lab.ovs(HOST).ofctl("dump-aggregate", "br-int")
    return int(text.rpartition("flow_count=")[2].split()[0])


async def agent_says(system: System, wanted: str, poll_s: float = 0.005) -> None:
    """Waits until the agent's socket says that it is `wanted`: complete, switch."""
    path, deadline = str(system.lab.daemons.agent_socket(HOST)), time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ClientError):
            if (await asyncio.to_thread(call_agent, "status", {}, path, 1.0))[wanted]:
                return
        await asyncio.sleep(poll_s)


def worst(streams: list[RunningStream]) -> tuple[int, float]:
    """Most frames lost by a stream, and its worst gap in ms."""
    reports = [stream.stop() for stream in streams]
    got = [received for report in reports for received in report.received.values()]
    return max(r.lost for r in got), max(r.worst_gap_ms for r in got)


async def agent_restart(system: System) -> dict[str, float]:
    streams = [system.lab.stream("peer/0", "first/0"), system.lab.stream("first/0", "peer/0")]
    await asyncio.sleep(STREAM_S)
    before = flows(system)
    called = time.monotonic()
    await asyncio.to_thread(system.lab.restart_agent, HOST)
    await agent_says(system, "complete")
    complete = time.monotonic()
    await agent_says(system, "switch")  # it has read every flow back, compared and made good
    verified = time.monotonic()
    await asyncio.sleep(STREAM_S)
    lost, gap = await asyncio.to_thread(worst, streams)
    return {
        "flows": before,
        "lost": lost,
        "worst gap ms": gap,
        "start to complete ms": (complete - called) * 1e3,
        "complete to verified ms": (verified - complete) * 1e3,
    }


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


async def vswitchd_restart(system: System) -> dict[str, float]:
    await asyncio.to_thread(system.lab.restart_agent, HOST)  # it orders the ways anew
    await agent_says(system, "switch")
    ovs, management = system.lab.ovs(HOST), system.lab.ovs(HOST).dir / "br-int.mgmt"
    streams = [system.lab.stream("peer/0", "first/0"), system.lab.stream("first/0", "peer/0")]
    await asyncio.sleep(STREAM_S)
    await asyncio.to_thread(ovs.kill, "ovs-vswitchd")
    management.unlink(missing_ok=True)
    starting = asyncio.create_task(asyncio.to_thread(lambda: (ovs.start_vswitchd(), system.lab.revive(HOST))))
    started = time.monotonic_ns()
    while not listens(management):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.0005)
    ready = time.monotonic_ns()
    await agent_says(system, "switch", 0.02)  # each time takes the agent from its work
    every = time.monotonic_ns()
    await starting
    await asyncio.sleep(3)
    reports = [await asyncio.to_thread(stream.stop) for stream in streams]
    to, back = (min(at for _, at in r.arrivals if at > started) for x in reports for r in x.received.values())
    return {
        "own start ms": (ready - started) / 1e6,
        "outage beyond, to its VIFs": (to - ready) / 1e6,
        "outage beyond, from its VIFs": (back - ready) / 1e6,
        "every flow beyond ms": (every - ready) / 1e6,
        "flows after": flows(system),
    }


async def measure(vifs: int, runs: int) -> None:
    async with running("vnet", pool_of([("peer", "xen1"), ("first", HOST)], NETWORK)) as system:
        assert isinstance(system, Vnet)
        for vm in system.pool.vms:
            await asyncio.to_thread(system.lab.start, vm)
        await system.fill(NETWORK, 1000, vifs)
        await system.settled()
        for title, one in (("agent restart", agent_restart), ("ovs-vswitchd restart", vswitchd_restart)):
            await one(system)
            found = []
            for _ in range(runs):
                await asyncio.sleep(1)
                with system.undisturbed():
                    found.append(await one(system))
            print(f"\n{title}, median and worst of {runs}", flush=True)
            for key in found[0]:
                values = [each[key] for each in found]
                print(f"  {key:<29} {median(values):>10.1f} {max(values):>10.1f}", flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--vifs", type=int, default=20_000, help="VIFs elsewhere on the host's network, a flow each")
    options = parser.parse_args()
    asyncio.run(measure(options.vifs, options.runs))


if __name__ == "__main__":
    main()
