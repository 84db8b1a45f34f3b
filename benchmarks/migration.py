"""Migration of a guest that switches hosts in an instant, on every network type; OVN's two-binding migration beside it on Geneve.

`python -m benchmarks.migration [--times N] [--types geneve ...] [--vifs 5000]`. Reach: at most one frame lost per stream beyond
the switch itself, none doubled.
"""

from __future__ import annotations

import asyncio
import json

from benchmarks.common import arguments
from benchmarks.moving import NETWORKS, Stream, moves, pool_of_movers, show, start
from benchmarks.systems import running
from vnet.objects import NetworkType


async def vnet(types: list[str], vifs: int, times: int) -> dict[str, list[Stream]]:
    networks = [NETWORKS[name] for name in types]
    found = {}
    uplinks = any(network.type is NetworkType.VLAN for network in networks)
    async with running("vnet", pool_of_movers(networks, uplinks)) as system:
        if vifs:
            await system.fill(networks[0], 1000, vifs)
        await start(system)
        for name in types:
            found[f"vnet, {name}{f', {vifs} VIFs' if vifs else ''}"] = await moves(system, NETWORKS[name], times)
    return found


async def ovn(vifs: int, times: int) -> dict[str, list[Stream]]:
    network = NETWORKS["geneve"]
    async with running("OVN", pool_of_movers([network], False)) as system:
        if vifs:
            await system.fill(network, 1000, vifs)
        await start(system)
        return {f"OVN, geneve{f', {vifs} VIFs' if vifs else ''}": await moves(system, network, times)}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--times", type=int, default=6, help="migrations per network type, to and fro")
    parser.add_argument("--types", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--vifs", type=int, default=0, help="also with this many more VIFs on a Geneve network")
    options = parser.parse_args()
    found = asyncio.run(vnet(options.types, 0, options.times))
    found |= asyncio.run(ovn(0, options.times))
    if options.vifs:
        found |= asyncio.run(vnet(["geneve"], options.vifs, options.times))
        found |= asyncio.run(ovn(options.vifs, options.times))
    if options.json:
        rows = {title: [[s.peer, s.out, s.lost, s.doubled, s.worst_gap_ms] for s in t] for title, t in found.items()}
        print(json.dumps(rows, indent=2))
        return
    print(f"medians per stream of {options.times} migrations; 1 ms streams")
    for title, table in found.items():
        show(title, table)


if __name__ == "__main__":
    main()
