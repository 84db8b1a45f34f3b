"""Plugs at a steady rate while the pool database's leader is lost: how long the slowest takes, from its creation to ready.

Three ovsdb-servers on this machine, each in a network namespace (root only), two real agents on Open vSwitch's dummy datapath, one controller's client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ovsctl.ovsdb import Monitor, Replica
from tests.partitions import PartedCluster, parted_cluster
from tests.servers import OvsdbServer
from tests.vnet.agent.pool import SCHEMA, PoolUnderTest, vif
from tests.vnet.agent.test_cluster import NAMES, create, hosts_on

PERIOD_S = 0.1
VIFS = 120
LOSE_AT = 30
READY_LIMIT_S = 60.0


async def plug(pool: PoolUnderTest, replica: Replica, number: int, took: dict[int, float]) -> None:
    host = NAMES[number % len(NAMES)]
    new = vif(number, host=host)
    began = time.monotonic()
    adding = asyncio.to_thread(pool.hosts[host].add_port, f"p{number}", new.id)
    await asyncio.gather(create(pool.client, new), adding)
    async with asyncio.timeout(READY_LIMIT_S):
        while not any(row["ready"] for row in replica["Binding"].values() if row["vif"] == new.id):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    took[number] = time.monotonic() - began


@contextlib.contextmanager
def lost(cluster: PartedCluster, leader: OvsdbServer, how: str) -> Iterator[None]:
    """Inside, the leader is killed, stands still, or reaches its clients and no other server."""
    if how == "killed":
        leader.stop()
        yield
    elif how == "stopped":
        leader.pause()
        try:
            yield
        finally:
            leader.resume()
    else:
        others = [server for server in cluster.servers if server is not leader]
        with cluster.cut(*((leader, other) for other in others), *((other, leader) for other in others)):
            yield


async def measure(how: str, election_timer_ms: int) -> dict[str, float]:
    """Seconds: the slowest plug, the median of those before and of those well after the loss."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(parted_cluster(SCHEMA, election_timer_ms=election_timer_ms))
        async with hosts_on(cluster, cluster.remotes) as pool:
            replica = await pool.client.monitor({"Binding": Monitor(columns=("vif", "ready"))})
            took: dict[int, float] = {}
            jobs = []
            for number in range(1, VIFS + 1):
                if number == LOSE_AT:
                    leader = await asyncio.to_thread(cluster.wait_leader)
                    stack.enter_context(lost(cluster, leader, how))
                jobs.append(asyncio.create_task(plug(pool, replica, number, took)))
                await asyncio.sleep(PERIOD_S)
            await asyncio.gather(*jobs)
    before = [seconds for number, seconds in took.items() if number < LOSE_AT - 1]
    after = [seconds for number, seconds in took.items() if number > VIFS - LOSE_AT]
    return {
        "slowest_s": max(took.values()),
        "median_before_s": statistics.median(before),
        "median_after_s": statistics.median(after),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--election-timer", type=int, default=1000, metavar="MS")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {
        how: [asyncio.run(measure(how, options.election_timer)) for _ in range(options.runs)]
        for how in ("killed", "stopped", "cut off")
    }
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{VIFS} plugs, one each {PERIOD_S:.1f} s, election timer {options.election_timer} ms, {options.runs} runs")
    for how, runs in found.items():
        slowest = sorted(run["slowest_s"] for run in runs)
        before = statistics.median(run["median_before_s"] for run in runs)
        after = statistics.median(run["median_after_s"] for run in runs)
        text = f"slowest plug {slowest[0]:.2f} to {slowest[-1]:.2f} s (median {statistics.median(slowest):.2f})"
        print(f"leader {how}: {text}; median plug before {before * 1000:.0f} ms, after {after * 1000:.0f} ms")


if __name__ == "__main__":
    main()
