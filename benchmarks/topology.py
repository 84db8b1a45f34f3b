"""A topology of 1,000 hosts, 1,000 networks and 20,000 VIFs: from bytes to a plan, and a one-line change of it.

`python -m benchmarks.topology` prints medians of processor time, in seconds, and says what was reached. No peer reads documents.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from vnet.objects import PoolState
from vnet.plan import PoolPlan, desired_state, plan_pool
from vnet.topology import load

P = ParamSpec("P")
T = TypeVar("T")
NAME = "large.vnet.yaml"
HOSTS, NETWORKS, VMS, RUNS = 1_000, 1_000, 20_000, 5
FIRST_REACH_S, CHANGE_REACH_S = 5.0, 3.0


def document() -> str:
    """Half of the networks VLANs, half VXLAN, each with a subnet; every VIF with an address, half with a MAC."""
    lines = ["apiVersion: vnet/v1", "pool: large", "hosts:"]
    for n in range(HOSTS):
        lines.append(f"  host{n}: {{address: 10.{n // 250}.{n % 250}.1, uplinks: {{trunk0: {{members: [eth1]}}}}}}")
    lines.append("networks:")
    for n in range(NETWORKS):
        lines.append(f"  net{n}: {{type: {f'vlan, tag: {n + 1}, uplink: trunk0' if n % 2 else 'vxlan'}}}")
    lines.append("subnets:")
    for n in range(NETWORKS):
        lines.append(f"  net{n}-v4: {{network: net{n}, cidr: 10.{n // 250}.{n % 250}.0/24}}")
    lines.append("vms:")
    for n in range(VMS):
        net = n % NETWORKS
        mac = f", mac: '0a:00:00:00:{n // 256:02x}:{n % 256:02x}'" if n % 2 else ""
        address = f"10.{net // 250}.{net % 250}.{10 + n // NETWORKS}"
        vifs = f"      - {{network: net{net}, addresses: [{address}]{mac}}}"
        lines += [f"  vm{n}:", f"    host: host{n % HOSTS}", "    vifs:", vifs]
    return "\n".join(lines) + "\n"


def _plan(data: bytes, state: PoolState) -> PoolPlan:
    return plan_pool(state, desired_state(load(data, NAME), state))


def timed(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[float, T]:
    """Processor seconds of one call, and what it returned."""
    start = time.process_time()
    result = work(*args, **kwargs)
    return time.process_time() - start, result


def main() -> int:
    """Measure; 1 if a reach was missed."""
    text = document()
    changed = text.replace("net7: {type: vlan, tag: 8,", "net7: {type: vlan, tag: 4000,").encode()
    data = text.encode()
    first: dict[str, list[float]] = {"validate": [], "plan": [], "one-line change": []}
    for _ in range(RUNS):
        load_s, wanted = timed(load, data, NAME)
        state_s, state = timed(desired_state, wanted, PoolState())
        plan_s, _ = timed(plan_pool, PoolState(), state)
        change_s, plan = timed(_plan, changed, state)
        if len(plan.changes) != 1:
            raise RuntimeError(f"one line changed, and the plan has {len(plan.changes)} changes")
        for name, seconds in zip(first, (load_s, state_s + plan_s, change_s), strict=True):
            first[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in first.items()}
    for name, seconds in medians.items():
        print(f"{name:16} {seconds:6.2f} s")
    reached = medians["validate"] + medians["plan"] < FIRST_REACH_S and medians["one-line change"] < CHANGE_REACH_S
    print(
        f"reach: validate and plan under {FIRST_REACH_S} s, a one-line change under {CHANGE_REACH_S} s: {'yes' if reached else 'NO'}"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
