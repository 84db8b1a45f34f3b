"""Everything off one host: 50 VMs of 4 VIFs each; time, and the worst gap of any VIF. OVN beside it on the same lab.

`python -m benchmarks.evacuation [--vms 50] [--vifs 4] [--period-ms 100] [--unplug] [--systems vnet OVN]`. vnet's goes through the
controller's `evacuate`, which moves ten VMs at a time. The toolstack's part is threads that plug a VM when the controller says that
it is being prepared, and let the guest switch hosts, in an instant, when it says prepared. OVN knows no evacuation: the toolstack
migrates VM by VM with two bindings, ten at a time, a VM's VIFs in one call. time: from the call until the last VM runs there and has
left the source. Its ports there stay, or go, VM by VM, with `--unplug`: ovs-vswitchd's only forwarding thread stands still for some 25 ms
per port that it takes away, whoever programs it. A userspace switch looks at all its ports for each frame, so 200 streams of a frame every
50 ms keep the whole machine busy: the more often, the worse.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import median

from benchmarks.common import Figure, arguments, compare, report
from benchmarks.systems import HOSTS, NETWORK, SYSTEMS, Ovn, System, Vnet, mac_of, running
from vnet.client import Client
from vnet.lab.streams import Received, RunningStream
from vnet.objects import Host, Pool, PoolState, Vif, Vm

TIMEOUT_S = 120.0
AT_ONCE = 10  # VMs; the controller's `evacuate` has as many
FIGURES = (
    Figure("time", "s"),
    Figure("worst gap of a VIF", "ms"),
    Figure("the worst VIF's", "ms"),
    Figure("lost by a VIF", "frames"),
    Figure("lost by the worst", "frames"),
    Figure("lost in all", "frames"),
    Figure("doubled in all", "frames"),
)


def pool_of_vms(vms: int, vifs: int) -> PoolState:
    """That many VMs on xen1, and one on xen2 that sends to them."""
    hosts = {name: Host(name, f"10.99.0.{number}") for number, name in enumerate(HOSTS, 1)}
    all_vms = {"peer": Vm("peer", "xen2"), **{f"vm{n}": Vm(f"vm{n}", "xen1") for n in range(vms)}}
    all_vifs = {}
    for vm in all_vms.values():
        for index in range(1 if vm.name == "peer" else vifs):
            number = len(all_vifs) + 1
            address = f"10.1.{number >> 8}.{number & 255}"
            vif = Vif(f"{vm.name}/{index}", NETWORK.name, mac_of(number), index=index, vm=vm.name, host=vm.host,
                      addresses=(address,))  # fmt: skip
            all_vifs[vif.id] = vif
    return PoolState(Pool("bench", underlay_mtu=1600), hosts, {NETWORK.name: NETWORK}, {}, all_vms, all_vifs)


async def evacuate(system: System, unplug: bool) -> float:
    """Empties xen1 into xen3; seconds from the call until its last VM has left."""
    called = time.monotonic()
    if isinstance(system, Vnet):
        await asyncio.to_thread(toolstack, system, unplug)
    elif isinstance(system, Ovn):
        slots = asyncio.Semaphore(AT_ONCE)

        async def move(vm: str) -> None:
            async with slots:
                await (system.migrate if unplug else system.move)(vm, "xen1", "xen3", 0.0)

        await asyncio.gather(*(move(vm.name) for vm in system.pool.vms.values() if vm.host == "xen1"))
    return time.monotonic() - called


def toolstack(system: Vnet, unplug: bool) -> None:
    """What a toolstack does for the controller's `evacuate`; returns when nothing is left to do."""
    lab = system.lab
    steps: dict[str, Callable[[str], None]] = {
        "being prepared": lambda vm: lab.plug(vm, "xen3"),
        "is prepared": lambda vm: lab.run(vm, "xen3", announce=True),
    }
    if unplug:
        steps["runs on"] = lambda vm: lab.unplug(vm, "xen1")
    seen: set[tuple[str, str]] = set()
    jobs: list[Future[None]] = []

    def told(line: str) -> None:
        vm = next((word.rstrip(":,") for word in line.split() if word.rstrip(":,") in system.pool.vms), None)
        step = next((step for step in steps if step in line), None)
        if vm is not None and step is not None and (vm, step) not in seen:
            seen.add((vm, step))
            jobs.append(threads.submit(steps[step], vm))

    with ThreadPoolExecutor(AT_ONCE) as threads, Client(f"unix:{system.lab.daemons.controller_socket}") as client:
        client.evacuate("xen1", to="xen3", timeout_s=TIMEOUT_S, progress=told)
        for job in jobs:
            job.result()


def gather(streams: Sequence[tuple[Vif, RunningStream]]) -> list[Received]:
    """What each VIF got. Every stream's end takes a wait, so they end side by side."""
    with ThreadPoolExecutor(len(streams)) as threads:
        return list(threads.map(lambda pair: pair[1].stop().at(pair[0].id), streams))


async def measure(name: str, vms: int, vifs: int, period_ms: float, unplug: bool) -> dict[str, float]:
    # asyncio's own threads are six on two processors, and each of ten migrations waits in one.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * AT_ONCE))
    async with running(name, pool_of_vms(vms, vifs)) as system:
        lab = system.lab
        await asyncio.to_thread(lab.start_all)
        await system.settled()
        moving = [vif for vif in system.pool.vifs.values() if vif.vm != "peer"]
        streams = [(vif, lab.stream("peer/0", vif.id, period_ms=period_ms)) for vif in moving]
        await asyncio.sleep(1)
        with system.undisturbed(forwarding_first=True):
            took = await evacuate(system, unplug)
            await asyncio.sleep(1)
        got = await asyncio.to_thread(gather, streams)
    return {
        "time": took,
        "worst gap of a VIF": median(one.worst_gap_ms for one in got),
        "the worst VIF's": max(one.worst_gap_ms for one in got),
        "lost by a VIF": median(one.lost for one in got),
        "lost by the worst": max(one.lost for one in got),
        "lost in all": sum(one.lost for one in got),
        "doubled in all": sum(one.duplicated for one in got),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(runs=1)
    parser.add_argument("--vms", type=int, default=50)
    parser.add_argument("--vifs", type=int, default=4)
    parser.add_argument("--period-ms", type=float, default=100.0)
    parser.add_argument("--unplug", action="store_true", help="take the source's ports away as VMs have left")
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    options = parser.parse_args()
    peers = {
        name: lambda name=name: asyncio.run(measure(name, options.vms, options.vifs, options.period_ms, options.unplug))
        for name in options.systems
    }
    work = f"evacuation of {options.vms} VMs, {options.vms * options.vifs} VIFs; a frame every {options.period_ms:g} ms to each"
    report([compare(work, peers, FIGURES, options.runs)], options.json)


if __name__ == "__main__":
    main()
