"""Who reaches whom among 1,000 VIFs, and what a rule more changes among 20,000; 50 networks, 20 security groups.

Every network has VIFs of every group, and each group's rules name the next group and a range of addresses: so the change of one
group touches every network. No peer answers these questions, so there is only ours: from the pool's state, compiling included.
"""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random

from benchmarks.common import Figure, arguments, compare, report
from vnet.objects import (
    Direction,
    Host,
    Network,
    NetworkType,
    Pool,
    PoolState,
    PortRange,
    Protocol,
    Rule,
    SecurityGroup,
    Vif,
    Vm,
)
from vnet.sim import SimPool
from vnet.verify.differential_reachability import differences
from vnet.verify.reachability import Reachability

NETWORKS, GROUPS = 50, 20
SMALL, LARGE = (20, 1000), (1000, 20_000)  # hosts, VIFs
FIGURES = (
    Figure("matrix_s", "s", below=5.0),
    Figure("classes", "classes"),
    Figure("difference_s", "s", below=10.0),
    Figure("told", "groups of pairs"),
)


def rules(number: int, *more: Rule) -> SecurityGroup:
    """HTTPS from the next group, pings from the pool's addresses."""
    https = Rule("https", Direction.INGRESS, protocol=Protocol.TCP, ports=(PortRange(443, 443),),
                 remote=(f"g{(number + 1) % GROUPS}",))  # fmt: skip
    ping = Rule("ping", Direction.INGRESS, protocol=Protocol.ICMP, remote=("10.0.0.0/8",))
    return SecurityGroup(f"g{number}", number + 1, rules=(https, ping, *more))


def state(hosts: int, vifs: int) -> PoolState:
    """Networks of every tunnel type in turn; hosts and groups of VIFs by chance."""
    rng = Random(1)
    kinds = (NetworkType.VXLAN, NetworkType.GENEVE, NetworkType.GRE)
    rows = {}
    for n in range(vifs):
        mac = f"0a:00:00:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}"
        address = f"10.{n % NETWORKS}.{n // NETWORKS >> 8}.{n // NETWORKS & 255}"
        rows[f"v{n}/0"] = Vif(
            f"v{n}/0", f"n{n % NETWORKS}", mac, f"v{n}", 0, (address,), host=f"h{rng.randrange(hosts)}",
            groups=(f"g{rng.randrange(GROUPS)}",),
        )  # fmt: skip
    return PoolState(
        Pool("p", 1600),
        {f"h{n}": Host(f"h{n}", f"10.255.{n >> 8}.{n & 255}") for n in range(hosts)},
        {f"n{n}": Network(f"n{n}", kinds[n % 3], n + 1, 1400, 1000 + n) for n in range(NETWORKS)},
        vms={f"v{n}": Vm(f"v{n}", rows[f"v{n}/0"].host) for n in range(vifs)},
        vifs=rows,
        groups={f"g{n}": rules(n) for n in range(GROUPS)},
    )


def ours() -> dict[str, float]:
    small, large = state(*SMALL), state(*LARGE)
    start = time.perf_counter()
    reach = Reachability(SimPool.of(small), Protocol.TCP, 443)
    reachable = sum(map(sum, reach.matrix()))
    done = time.perf_counter()
    if reachable <= len(reach.classes):
        raise RuntimeError("nobody reaches anybody else")
    http = Rule("web", Direction.INGRESS, protocol=Protocol.TCP, ports=(PortRange(80, 80),))
    changed = replace(large, groups={**large.groups, "g3": rules(3, http)})
    begun = time.perf_counter()
    told = differences(large, changed)
    if {one.services for one in told} != {("tcp 80",)}:
        raise RuntimeError(f"not what changed: {told[:3]}")
    return {
        "matrix_s": done - start,
        "classes": float(len(reach.classes)),
        "difference_s": time.perf_counter() - begun,
        "told": float(len(told)),
    }


def main() -> None:
    options = arguments(__doc__).parse_args()
    work = f"{SMALL[1]} VIFs, and a rule among {LARGE[1]}, in {NETWORKS} networks with {GROUPS} security groups"
    report([compare(work, {"vnet.sim": ours}, FIGURES, options.runs)], options.json)


if __name__ == "__main__":
    main()
