"""Migration of a guest that stands still for 200 ms between source and destination; OVN's two-binding migration beside it.

`python -m benchmarks.pause [--times N] [--pause-ms 200]`. The toolstack says `switch` when the guest is paused, so what arrives
waits in the destination's port. Reach: nothing lost but what came in the first 2 ms of the pause, nothing doubled. A paused guest
sends nothing, so only the streams to it can lose.
"""

from __future__ import annotations

import asyncio

from benchmarks.common import arguments
from benchmarks.moving import NETWORKS, moves, pool_of_movers, show, start
from benchmarks.systems import SYSTEMS, running
from vnet.objects import NetworkType


async def measure(name: str, types: list[str], times: int, pause_s: float) -> None:
    networks = [NETWORKS[one] for one in types]
    async with running(name, pool_of_movers(networks, any(n.type is NetworkType.VLAN for n in networks))) as system:
        await start(system)
        for one in types:
            table = await moves(system, NETWORKS[one], times, pause_s)
            show(f"{name}, {one}, {pause_s * 1000:.0f} ms pause", table, paused=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--times", type=int, default=6, help="migrations per network type, to and fro")
    parser.add_argument("--types", nargs="*", default=["geneve", "vlan tagged"], choices=list(NETWORKS))
    parser.add_argument("--pause-ms", type=float, default=200.0)
    options = parser.parse_args()
    print(f"medians per stream of {options.times} migrations; 1 ms streams")
    for name in SYSTEMS:
        types = options.types if name == "vnet" else ["geneve"]
        asyncio.run(measure(name, types, options.times, options.pause_ms / 1000))


if __name__ == "__main__":
    main()
