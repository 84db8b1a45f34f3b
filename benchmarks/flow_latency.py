"""One flow changed and its barrier answered: an open connection of ours against one ovs-ofctl process.

`python -m benchmarks.flow_latency`. Every sample is the mean of many changes of one flow's output port.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.common import Figure, arguments, compare, report
from ovsctl.openflow import Flow, FlowMod, Match, Output
from ovsctl.openflow.client import OpenFlowClient
from tests.ovsctl.openflow.support import Bridge, bridge

OURS = 2000
THEIRS = 50


def ours(br: Bridge, bundled: bool) -> dict[str, float]:
    changes = [FlowMod.add(Flow(Match(in_port=1), (Output(2 + n % 2),))) for n in range(OURS)]

    async def run() -> float:
        async with OpenFlowClient(br.remote) as of:
            send = of.bundle if bundled else of.send_flow_mods
            started = time.perf_counter()
            for change in changes:
                await send([change])
            return (time.perf_counter() - started) / OURS

    return {"change_ms": 1000 * asyncio.run(run())}


def theirs(br: Bridge, bundled: bool) -> dict[str, float]:
    """add-flow, which waits for the barrier that follows it, or for the commit."""
    options = ("--bundle",) if bundled else ()
    started = time.perf_counter()
    for n in range(THEIRS):
        br.switch.ofctl(*options, "add-flow", br.remote, f"in_port=1,actions=output:{2 + n % 2}")
    return {"change_ms": 1000 * (time.perf_counter() - started) / THEIRS}


def main() -> None:
    options = arguments(__doc__).parse_args()
    results = []
    with bridge() as br:
        for bundled in (False, True):
            peers = {
                "ovsctl": lambda bundled=bundled: ours(br, bundled),
                "ovs-ofctl add-flow": lambda bundled=bundled: theirs(br, bundled),
            }
            figures = [Figure("change_ms", "ms", reach=None if bundled else 50, below=0.3)]
            work = "one flow changed in a bundle" if bundled else "one flow changed, barrier answered"
            results.append(compare(work, peers, figures, options.runs))
    report(results, options.json)


if __name__ == "__main__":
    main()
