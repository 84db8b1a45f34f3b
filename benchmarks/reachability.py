"""Who reaches whom among 1,000 VIFs in 50 networks on 20 hosts, and what a change of one VIF does to that.

No peer answers this question, so there is only ours: the whole of it from the pool's state, compiling every host included.
"""

from __future__ import annotations

import time
from dataclasses import replace

from benchmarks.common import Figure, arguments, compare, report
from vnet.model import Host, LockingMode, Network, NetworkType, Pool, PoolState, Vif, Vm
from vnet.sim import SimPool
from vnet.sim.reach import Reachability, differences

HOSTS, NETWORKS, VIFS = 20, 50, 1000
FIGURES = (
    Figure("compile_s", "s"),
    Figure("matrix_s", "s"),
    Figure("whole_s", "s", below=5.0),
    Figure("difference_s", "s", below=10.0),
    Figure("classes", "classes"),
)


def state() -> PoolState:
    """Networks in turn of every tunnel type; VIFs spread over networks and hosts."""
    kinds = (NetworkType.VXLAN, NetworkType.GENEVE, NetworkType.GRE)
    hosts = {f"h{n}": Host(f"h{n}", f"10.0.{n}.1") for n in range(HOSTS)}
    networks = {f"n{n}": Network(f"n{n}", kinds[n % 3], n + 1, 1400, 1000 + n) for n in range(NETWORKS)}
    vms, vifs = {}, {}
    for n in range(VIFS):
        network, host = f"n{n % NETWORKS}", f"h{n // NETWORKS % HOSTS}"
        place = n // NETWORKS
        vms[f"v{n}"] = Vm(f"v{n}", host)
        vifs[f"v{n}/0"] = Vif(
            f"v{n}/0", network, f"0a:00:00:00:{n >> 8:02x}:{n & 255:02x}", f"v{n}", 0,
            (f"10.{n % NETWORKS}.{place >> 8}.{place & 255}",), host=host,
        )  # fmt: skip
    return PoolState(Pool("p", 1600), hosts, networks, {}, vms, vifs)


def ours() -> dict[str, float]:
    before = state()
    start = time.perf_counter()
    pool = SimPool.of(before)
    compiled = time.perf_counter()
    reach = Reachability(pool)
    rows = reach.matrix()
    done = time.perf_counter()
    reachable = sum(map(sum, rows))
    if reachable < len(rows):
        raise RuntimeError("nobody reaches anybody")
    vifs = {**before.vifs, "v0/0": replace(before.vifs["v0/0"], locking_mode=LockingMode.DISABLED)}
    told = differences(reach, Reachability(SimPool.of(replace(before, vifs=vifs))))
    if not told:
        raise RuntimeError("the change is not told")
    return {
        "compile_s": compiled - start,
        "matrix_s": done - compiled,
        "whole_s": done - start,
        "difference_s": time.perf_counter() - done,
        "classes": float(len(reach.classes)),
    }


def main() -> None:
    options = arguments(__doc__).parse_args()
    work = f"{VIFS} VIFs in {NETWORKS} networks on {HOSTS} hosts"
    report([compare(work, {"vnet.sim": ours}, FIGURES, options.runs)], options.json)


if __name__ == "__main__":
    main()
