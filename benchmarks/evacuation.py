"""Everything off one host: 50 VMs of 4 VIFs each, through the controller's `evacuate`; time, and the worst gap of any VIF.

`python -m benchmarks.evacuation [--vms 50] [--vifs 4] [--period-ms 100]`. The toolstack's part is threads that plug a VM when the
controller says that it is being prepared, and let the guest switch hosts, in an instant, when it says prepared. A userspace switch
looks at all its ports for each frame, so 200 streams of a frame every 50 ms keep the whole machine busy: the more often, the worse.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import median

from benchmarks.common import arguments
from benchmarks.systems import HOSTS, NETWORK, System, mac_of, running
from vnet.client import Client
from vnet.lab.streams import Received, RunningStream
from vnet.model import Host, Pool, PoolState, Vif, Vm

TIMEOUT_S = 120.0
THREADS = 10


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


def evacuate(system: System) -> float:
    """Empties xen1 into xen3; seconds from the call to its answer."""
    seen: set[tuple[str, str]] = set()
    jobs: list[Future[None]] = []

    def toolstack(line: str) -> None:
        vm = next((word.rstrip(":,") for word in line.split() if word.rstrip(":,") in system.pool.vms), None)
        step = "preparing" if "being prepared" in line else "prepared"
        if vm is None or (vm, step) in seen or "prepared" not in line:
            return
        seen.add((vm, step))
        if step == "preparing":
            jobs.append(threads.submit(system.lab.plug, vm, "xen3"))
        else:
            jobs.append(threads.submit(system.lab.run, vm, "xen3", announce=True))

    with ThreadPoolExecutor(THREADS) as threads, Client(f"unix:{system.lab.daemons.controller_socket}") as client:
        called = time.monotonic()
        client.evacuate("xen1", to="xen3", timeout_s=TIMEOUT_S, progress=toolstack)
        took = time.monotonic() - called
        for job in jobs:
            job.result()
    return took


def gather(streams: Sequence[tuple[Vif, RunningStream]]) -> list[Received]:
    """What each VIF got. Every stream's end takes a wait, so they end side by side."""
    with ThreadPoolExecutor(len(streams)) as threads:
        return list(threads.map(lambda pair: pair[1].stop().at(pair[0].id), streams))


async def measure(vms: int, vifs: int, period_ms: float) -> None:
    async with running("vnet", pool_of_vms(vms, vifs)) as system:
        lab = system.lab
        await asyncio.to_thread(lab.start_all)
        moving = [vif for vif in system.pool.vifs.values() if vif.vm != "peer"]
        streams = [(vif, lab.stream("peer/0", vif.id, period_ms=period_ms)) for vif in moving]
        await asyncio.sleep(1)
        with system.undisturbed(forwarding_first=True):
            took = await asyncio.to_thread(evacuate, system)
            await asyncio.sleep(1)
        got = await asyncio.to_thread(gather, streams)
    gaps = sorted(one.worst_gap_ms for one in got)
    print(f"evacuation of {vms} VMs, {len(moving)} VIFs; a frame every {period_ms:g} ms to each")
    print(f"  time                     {took:>10.2f} s")
    print(f"  worst gap of a VIF       {median(gaps):>10.1f} ms median, {gaps[-1]:.1f} ms worst")
    print(
        f"  frames lost by a VIF     {median(one.lost for one in got):>10g} median, {max(one.lost for one in got)} worst"
    )
    print(f"  frames doubled           {sum(one.duplicated for one in got):>10d} in all")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--vms", type=int, default=50)
    parser.add_argument("--vifs", type=int, default=4)
    parser.add_argument("--period-ms", type=float, default=100.0)
    options = parser.parse_args()
    asyncio.run(measure(options.vms, options.vifs, options.period_ms))


if __name__ == "__main__":
    main()
