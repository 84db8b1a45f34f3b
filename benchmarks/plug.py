"""Plug to first packet: from the add-port call to the first frame each way, beside OVN on the same lab.

`python -m benchmarks.plug [--sizes 6 5000] [--runs N]`. A 1 ms stream from a VM on another host already runs to the VIF, and one
from the VIF back; the figure is when both have arrived for the first time. `created` counts from the call that creates the VIF.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median

from benchmarks.common import Figure, Result, arguments, report
from benchmarks.systems import NETWORK, SYSTEMS, Network, NetworkType, System, pool_of, running

POOL_NETWORKS = 500
PLUGS = 8


async def first_frames(system: System, number: int) -> dict[str, float]:
    """Creates and plugs one VIF on xen2 while xen1's VM streams to it; times in ms."""
    lab = system.lab
    vif = system.pool.vifs[f"new{number}/0"]
    port = await asyncio.to_thread(system.make_port, f"new{number}", "xen2")
    to = lab.stream("peer/0", vif.id)
    back = lab.stream(vif.id, "peer/0")
    await asyncio.sleep(0.2)
    created = time.monotonic_ns()
    await system.create(vif)
    await asyncio.sleep(0.5)
    called = await system.add_port(port, "xen2")
    for _ in range(400):
        arrived = [
            min((at for _, at in stream.so_far().at(who).arrivals), default=0)
            for stream, who in ((to, vif.id), (back, "peer/0"))
        ]
        if all(arrived):
            break
        await asyncio.sleep(0.05)
    to.stop()
    back.stop()
    done = max(arrived)
    return {"plug_ms": (done - called) / 1e6, "create_ms": (done - created) / 1e6 - 500}


async def measure(name: str, vifs: int, networks: int, plugs: int) -> dict[str, float]:
    """Medians over `plugs` plugs, on a pool with `vifs` VIFs in all."""
    vms = [("peer", "xen1"), ("first", "xen2"), *((f"new{n}", "xen2") for n in range(plugs))]
    pool = pool_of(vms, NETWORK)
    async with running(name, pool) as system:
        for n in range(plugs):
            await system.delete(pool.vifs[f"new{n}/0"])
        for vm in ("peer", "first"):
            await asyncio.to_thread(system.lab.start, vm)
        each = max(0, vifs - 6) // networks
        for n in range(networks):
            network = NETWORK if n == 0 else Network(f"far{n}", NetworkType.GENEVE, 100 + n, 1450, key=9000 + n)
            await system.fill(network, 1000 + n * each, each)
        await system.settled()
        await asyncio.sleep(1)
        found = [await first_frames(system, n) for n in range(plugs)]
    return {key: median(one[key] for one in found) for key in found[0]}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[6, 5000])
    parser.add_argument("--pool", type=int, default=0, help="also a pool of this many VIFs on 500 networks")
    parser.add_argument("--plugs", type=int, default=PLUGS)
    options = parser.parse_args()
    shapes = [(size, 1) for size in options.sizes] + ([(options.pool, POOL_NETWORKS)] if options.pool else [])
    figures = (Figure("plug_ms", "ms", reach=2), Figure("create_ms", "ms"))
    results = []
    for vifs, networks in shapes:
        medians = {name: asyncio.run(measure(name, vifs, networks, options.plugs)) for name in SYSTEMS}
        work = f"plug to first packet, {vifs} VIFs on {networks} network{'s' if networks > 1 else ''}"
        results.append(Result(work, figures, medians, options.plugs))
    report(results, options.json)


if __name__ == "__main__":
    main()
