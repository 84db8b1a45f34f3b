"""Plug to first packet: from the add-port call to the first frame each way, beside OVN on the same lab.

`python -m benchmarks.plug [--sizes 6 5000] [--pool 50000]`. A 1 ms stream from a VM on another host already runs to the VIF, and
one from the VIF back begins; the figures are when both have arrived for the first time. plug_ms: the VIF was created half a
second before; awaited_ms: it was awaited on its host since then, and the port asks for the number it is awaited under, of which
OVN knows nothing; create_plug_ms: created and plugged in one go, from the create call. unplug_ms: from the del-port call until
the sender's host sends no more.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median

from benchmarks.common import Figure, Result, arguments, report
from benchmarks.systems import NETWORK, SYSTEMS, Network, NetworkType, System, pool_of, running

POOL_NETWORKS = 500
PLUGS = 7
PAUSE_S = 0.5
WAYS = ("plug_ms", "awaited_ms", "create_plug_ms")
QUIET_FRAMES = 40  # ms without a frame through the tunnel
FIGURES = {
    "plug_ms": Figure("plug_ms", "ms", reach=2),
    "awaited_ms": Figure("awaited_ms", "ms", reach=2),
    "create_plug_ms": Figure("create_plug_ms", "ms", reach=2),
    "unplug_ms": Figure("unplug_ms", "ms"),
}


async def first_frames(system: System, number: int, figure: str) -> dict[str, float]:
    """Creates and plugs one VIF on xen2, as `figure` says, while xen1's VM streams to it; times in ms."""
    lab = system.lab
    vif = system.pool.vifs[f"new{number}/0"]
    port = await asyncio.to_thread(system.make_port, f"new{number}", "xen2")
    to = lab.stream("peer/0", vif.id)
    await asyncio.sleep(0.2)
    created = time.monotonic_ns()
    if figure == "awaited_ms":
        ofport = await system.expect(vif)
        port |= {} if ofport is None else {"ofport_request": ofport}
    else:
        await system.create(vif)
    created_ms = (time.monotonic_ns() - created) / 1e6
    if figure != "create_plug_ms":
        await asyncio.sleep(PAUSE_S)
    back = lab.stream(vif.id, "peer/0")  # from now on: what waits in the port is not what is measured
    called = await system.add_port(port, "xen2")
    for _ in range(400):
        arrived = [
            min((at for _, at in stream.so_far().at(who).arrivals), default=0)
            for stream, who in ((to, vif.id), (back, "peer/0"))
        ]
        if all(arrived):
            break
        await asyncio.sleep(0.05)
    done = max(arrived)
    to.stop()
    back.stop()
    gone = await remove(system, number)
    took = (done - called) / 1e6
    if figure == "create_plug_ms":
        return {figure: created_ms + took}
    return {figure: took} | ({"unplug_ms": gone} if figure == "plug_ms" else {})


async def remove(system: System, number: int) -> float:
    """Takes the VIF's port away under a stream from xen1; ms until xen1's host sends no more of it to xen2."""
    lab, vm = system.lab, f"new{number}"
    stream = lab.stream("peer/0", system.pool.vifs[f"{vm}/0"].id)
    await asyncio.sleep(0.2)
    called = time.monotonic_ns()
    await system.del_port(lab.spec.device(system.pool.vifs[f"{vm}/0"]), "xen2")
    quiet, last = 0, system.sent_by("xen1")
    stopped = time.monotonic_ns()
    while quiet < QUIET_FRAMES and time.monotonic_ns() - called < 2e9:
        await asyncio.sleep(0.001)
        now = system.sent_by("xen1")
        if now != last:
            quiet, last, stopped = 0, now, time.monotonic_ns()
        quiet += 1
    stream.stop()
    await asyncio.to_thread(lab.unplug, vm, "xen2")
    return (stopped - called) / 1e6


async def measure(name: str, vifs: int, networks: int, plugs: int) -> dict[str, float]:
    """Medians over `plugs` plugs, on a pool with `vifs` VIFs in all."""
    vms = [("peer", "xen1"), ("first", "xen2"), *((f"new{n}", "xen2") for n in range(3 * plugs + 1))]
    pool = pool_of(vms, NETWORK)
    async with running(name, pool) as system:
        for n in range(3 * plugs + 1):
            await system.delete(pool.vifs[f"new{n}/0"])
        for vm in ("peer", "first"):
            await asyncio.to_thread(system.lab.start, vm)
        each = max(0, vifs - 6) // networks
        for n in range(networks):
            network = NETWORK if n == 0 else Network(f"far{n}", NetworkType.GENEVE, 100 + n, 1450, key=9000 + n)
            await system.fill(network, 1000 + n * each, each)
        await system.settled()
        await asyncio.sleep(1)
        with system.undisturbed():
            await first_frames(system, 0, "plug_ms")  # the first pays for what is loaded once
            found = [await first_frames(system, n + 1, WAYS[n % 3]) for n in range(3 * plugs)]
    samples = {key: [one[key] for one in found if key in one] for key in FIGURES}
    return {key: median(values) for key, values in samples.items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[6, 5000])
    parser.add_argument("--pool", type=int, default=0, help="also a pool of this many VIFs on 500 networks")
    parser.add_argument("--plugs", type=int, default=PLUGS)
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    options = parser.parse_args()
    shapes = [(size, 1) for size in options.sizes] + ([(options.pool, POOL_NETWORKS)] if options.pool else [])
    results = []
    for vifs, networks in shapes:
        medians = {name: asyncio.run(measure(name, vifs, networks, options.plugs)) for name in options.systems}
        work = f"plug to first packet, {vifs} VIFs on {networks} network{'s' if networks > 1 else ''}"
        results.append(Result(work, tuple(FIGURES.values()), medians, options.plugs))
    report(results, options.json)


if __name__ == "__main__":
    main()
