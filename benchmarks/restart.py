"""What programs a host's switch, and ovs-vswitchd, restart on a host with many flows under streams; OVN beside it on the same lab.

`python -m benchmarks.restart [--vifs 2000] [--systems vnet OVN] [--runs N]`. Reach: an agent's restart loses nothing and has
verified every flow within 1 s of its first look at the switch; after ovs-vswitchd's own start the streams run again within 100 ms.

Agent restart: vnet's agent is killed. ovn-controller ends by `exit --restart`, which leaves the flows; "with a wait" it has
`ofctrl-wait-before-clear` besides, twice what its stopwatch says as its manual advises; and it is killed. "start to in sync": from
the new process until vnet's agent says that it has read back every flow and made good, or until ovn-controller has acknowledged
a change of before its start, which it does after a barrier.

ovs-vswitchd's own start is from its new process to the first answer on br-int's management socket. "to its VIFs": until frames from
another host arrive again, which takes the host's own flows; "from its VIFs": until theirs arrive elsewhere, which takes the way to
one VIF of all, with vnet at another place among them in every run; "every flow": until vnet's agent says that it has read back all,
or until OVN's switch has as many flows as before, since ovn-controller acknowledges changes while it has no switch.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.common import Figure, Result, arguments, report
from benchmarks.systems import NETWORK, SYSTEMS, Ovn, System, Vnet, pool_of, running
from vnet.lab.streams import RunningStream

HOST = "xen2"
STREAM_S = 0.5
AGENT = (
    Figure("lost", "frames", below=1),
    Figure("lost at worst", "frames"),
    Figure("worst gap", "ms"),
    Figure("start to in sync", "ms"),
    Figure("flows", ""),
)
COMPLETE = (Figure("start to complete", "ms"), Figure("complete to verified", "ms", below=1000))
VSWITCHD = (
    Figure("own start", "ms"),
    Figure("outage to VIFs", "ms", below=100),
    Figure("at worst, to VIFs", "ms"),
    Figure("outage from VIFs", "ms", below=100),
    Figure("at worst, from VIFs", "ms"),
    Figure("every flow", "ms"),
    Figure("flows", ""),
)
WORST = {"lost at worst": "lost", "at worst, to VIFs": "outage to VIFs", "at worst, from VIFs": "outage from VIFs"}
KILLED, ASKED, WAITING = "OVN, killed", "OVN, exit --restart", "OVN, exit --restart, wait"
Samples = dict[str, list[dict[str, float]]]


def flows(system: System) -> int:
    text = system.lab.ovs(HOST).ofctl("dump-aggregate", "br-int")
    return int(text.rpartition("flow_count=")[2].split()[0])


def streams(system: System) -> list[RunningStream]:
    """A frame a millisecond to and from the host's VIF."""
    return [system.lab.stream("peer/0", "first/0"), system.lab.stream("first/0", "peer/0")]


def worst(running_streams: Sequence[RunningStream]) -> tuple[int, float]:
    """Most frames lost by a stream, and its worst gap in ms."""
    reports = [stream.stop() for stream in running_streams]
    got = [received for report in reports for received in report.received.values()]
    return max(r.lost for r in got), max(r.worst_gap_ms for r in got)


async def agent_restart(system: System, *, crash: bool) -> dict[str, float]:
    both = streams(system)
    await asyncio.sleep(STREAM_S)
    before = flows(system)
    await system.stop_agent(HOST, crash=crash)
    await system.ask()
    await asyncio.sleep(STREAM_S)
    started = time.monotonic()
    await system.start_agent(HOST)
    if isinstance(system, Vnet):
        await system.says(HOST, "complete")
    complete = time.monotonic()
    await system.in_sync(HOST)
    synced = time.monotonic()
    await asyncio.sleep(STREAM_S)
    lost, gap = await asyncio.to_thread(worst, both)
    return {
        "flows": before,
        "lost": lost,
        "worst gap": gap,
        "start to in sync": (synced - started) * 1e3,
        "start to complete": (complete - started) * 1e3,
        "complete to verified": (synced - complete) * 1e3,
    }


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


async def vswitchd_restart(system: System) -> dict[str, float]:
    if isinstance(system, Vnet):  # it orders the ways anew
        await system.stop_agent(HOST)
        await system.start_agent(HOST)
        await system.in_sync(HOST)
    ovs, management = system.lab.ovs(HOST), system.lab.ovs(HOST).dir / "br-int.mgmt"
    both = streams(system)
    await asyncio.sleep(STREAM_S)
    before = flows(system)
    await asyncio.to_thread(ovs.kill, "ovs-vswitchd")
    management.unlink(missing_ok=True)
    starting = asyncio.create_task(asyncio.to_thread(lambda: (ovs.start_vswitchd(), system.lab.revive(HOST))))
    started = time.monotonic_ns()
    while not listens(management):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.0005)
    ready = time.monotonic_ns()
    if isinstance(system, Ovn):
        while await asyncio.to_thread(flows, system) < before:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    else:
        await system.in_sync(HOST, 0.02)
    every = time.monotonic_ns()
    await starting
    await asyncio.sleep(3)
    reports = [await asyncio.to_thread(stream.stop) for stream in both]
    to, back = (min(at for _, at in r.arrivals if at > started) for x in reports for r in x.received.values())
    return {
        "own start": (ready - started) / 1e6,
        "outage to VIFs": (to - ready) / 1e6,
        "outage from VIFs": (back - ready) / 1e6,
        "every flow": (every - ready) / 1e6,
        "flows": flows(system),
    }


async def let_it_wait(system: Ovn) -> None:
    """Sets how long ovn-controller, started anew, leaves the switch's flows, as ovn-controller(8) says."""
    system.controller(HOST, "inc-engine/recompute")
    await system.ask()
    await system.in_sync(HOST)
    said = re.search(r"Maximum: (\d+) msec", system.controller(HOST, "stopwatch/show", "flow-generation"))
    longest_ms = int(said[1]) if said else 0
    system.lab.ovs(HOST).vsctl(
        "set", "open_vswitch", ".", f"external_ids:ovn-ofctrl-wait-before-clear={2 * longest_ms}"
    )


async def agent_restarts(system: System, runs: int) -> Samples:
    crash = functools.partial(agent_restart, system, crash=True)
    if not isinstance(system, Ovn):
        return {system.name: await repeated(system, crash, runs)}
    ask = functools.partial(agent_restart, system, crash=False)
    found = {ASKED: await repeated(system, ask, runs), KILLED: await repeated(system, crash, runs)}
    await let_it_wait(system)
    return found | {WAITING: await repeated(system, ask, runs)}


async def repeated(
    system: System, one: Callable[[], Coroutine[None, None, dict[str, float]]], runs: int
) -> list[dict[str, float]]:
    await one()  # the first pays for what is loaded once
    found = []
    for _ in range(runs):
        await asyncio.sleep(1)
        with system.undisturbed():
            found.append(await one())
    return found


async def measure(name: str, vifs: int, runs: int) -> tuple[Samples, Samples]:
    """Samples of agents' restarts and of ovs-vswitchd's."""
    async with running(name, pool_of([("peer", "xen1"), ("first", HOST)], NETWORK)) as system:
        for vm in system.pool.vms:
            await asyncio.to_thread(system.lab.start, vm)
        await system.fill(NETWORK, 1000, vifs)
        await system.settled()
        switch = {name: await repeated(system, lambda: vswitchd_restart(system), runs)}
        return await agent_restarts(system, runs), switch


def result(
    work: str, figures: tuple[Figure, ...], samples: Mapping[str, Sequence[Mapping[str, float]]], runs: int
) -> Result:
    def figure_of(key: str, taken: Sequence[Mapping[str, float]]) -> float:
        return max(one[WORST[key]] for one in taken) if key in WORST else median(one[key] for one in taken)

    medians = {name: {f.key: figure_of(f.key, taken) for f in figures} for name, taken in samples.items()}
    return Result(work, figures, medians, runs)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--vifs",
        type=int,
        default=2000,
        help="VIFs elsewhere on the host's network; vnet has a flow for each, OVN three",
    )
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    options = parser.parse_args()
    agents: Samples = {}
    switches: Samples = {}
    for name in options.systems:
        agent, switch = asyncio.run(measure(name, options.vifs, options.runs))
        agents |= agent
        switches |= switch
    on, runs = f"{options.vifs} VIFs on the network", options.runs
    results = [
        result(f"agent restart, {on}", AGENT, agents, runs),
        result(f"ovs-vswitchd restart, {on}; outages beyond its own start", VSWITCHD, switches, runs),
    ]
    if "vnet" in agents:
        results.insert(1, result(f"of vnet's agent, {on}", COMPLETE, {"vnet": agents["vnet"]}, runs))
    report(results, options.json)


if __name__ == "__main__":
    main()
