"""What moving a VM costs: 1 ms streams both ways between it and a VM on each host, while a toolstack moves it.

The one rule: a frame that was sent counts as lost if the guest it was for never got it, as doubled if a running guest got it twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from benchmarks.systems import HOSTS, System, mac_of
from vnet.lab.streams import Received, StreamReport
from vnet.objects import Host, Network, NetworkType, Pool, PoolState, Uplink, Vif, Vm

SOURCE, DESTINATION, THIRD = HOSTS[0], HOSTS[2], HOSTS[1]
NETWORKS = {
    "vlan tagged": Network("prod", NetworkType.VLAN, 1, 1500, key=101, tag=120, uplink="trunk0"),
    "vlan untagged": Network("flat", NetworkType.VLAN, 2, 1500, key=102, tag=0, uplink="trunk0"),
    "vxlan": Network("vxlan", NetworkType.VXLAN, 3, 1450, key=5003),
    "gre": Network("gre", NetworkType.GRE, 4, 1450, key=5004),
    "geneve": Network("geneve", NetworkType.GENEVE, 5, 1450, key=5005),
}
BEFORE_S, AFTER_S, SETTLE_S = 0.3, 0.4, 0.3
SWITCH_MS = 2  # how long after the guest has paused the destination's port may still be closed


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of one migration. `peer` is the place of the other VM, `out` whether the moving VM sends."""

    peer: str
    out: bool
    lost: int
    doubled: int
    worst_gap_ms: float
    late: int = 0  # lost, and sent more than SWITCH_MS after the guest had paused


def pool_of_movers(networks: Sequence[Network], uplinks: bool) -> PoolState:
    """A VM that moves and one on each host, for every network."""
    nics = (Uplink("trunk0", ("eth1",)),) if uplinks else ()
    hosts = {name: Host(name, f"10.99.0.{number}", nics) for number, name in enumerate(HOSTS, 1)}
    vms, vifs = {}, {}
    places = [(net, f"{net.name}-{what}", host) for net in networks for what, host in
              (("mover", SOURCE), *((host, host) for host in HOSTS))]  # fmt: skip
    for number, (network, vm, host) in enumerate(places, 1):
        vms[vm] = Vm(vm, host)
        vifs[f"{vm}/0"] = Vif(
            f"{vm}/0", network.name, mac_of(number), vm=vm, host=host, addresses=(f"10.1.0.{number}",)
        )
    return PoolState(Pool("bench", underlay_mtu=1600), hosts, {n.name: n for n in networks}, {}, vms, vifs)


async def start(system: System) -> None:
    for vm in system.pool.vms:
        await asyncio.to_thread(system.lab.start, vm)
    await system.settled()
    await asyncio.sleep(0.5)
    await asyncio.to_thread(system.lab.introduce, *system.pool.vms)
    await asyncio.sleep(0.5)


async def move(system: System, network: Network, to: str, pause_s: float) -> list[Stream]:
    """One migration of a network's mover under six streams."""
    lab, mover = system.lab, f"{network.name}-mover"
    source = lab.location(mover) or ""
    names = {source: "source", to: "destination"}
    with contextlib.ExitStack() as stack, system.undisturbed(forwarding_first=True):
        streams = [
            (names.get(host, "third"), out, stack.enter_context(lab.stream(*pair)), pair[1])
            for host in HOSTS
            for out, pair in (
                (False, (f"{network.name}-{host}/0", f"{mover}/0")),
                (True, (f"{mover}/0", f"{network.name}-{host}/0")),
            )
        ]
        await asyncio.sleep(BEFORE_S)
        await system.migrate(mover, source, to, pause_s)
        await asyncio.sleep(AFTER_S)
        reports = [(peer, out, await asyncio.to_thread(stream.stop), to_vif) for peer, out, stream, to_vif in streams]
    paused_ns = max(_stood_still(report.sent) for _, out, report, _ in reports if out) if pause_s else 0
    found = [(peer, out, report, report.at(to_vif)) for peer, out, report, to_vif in reports]
    await asyncio.sleep(SETTLE_S)
    return [
        Stream(peer, out, got.lost, got.duplicated, got.worst_gap_ms, _late(report, got, paused_ns))
        for peer, out, report, got in found
    ]


def _stood_still(sent: Sequence[int]) -> int:
    """When (monotonic ns) a guest that sends every millisecond sent last before its longest silence."""
    return max(pairwise(sent), key=lambda pair: pair[1] - pair[0])[0]


def _late(report: StreamReport, got: Received, paused_ns: int) -> int:
    return sum(report.sent[n] > paused_ns + SWITCH_MS * 1e6 for n in got.lost_numbers) if paused_ns else 0


async def moves(system: System, network: Network, times: int, pause_s: float = 0.0) -> list[Stream]:
    """`times` migrations to and fro; each stream's median over them, and with `peer` all the worst of every stream."""
    each = []
    for number in range(times + 1):
        found = await move(system, network, SOURCE if number % 2 else DESTINATION, pause_s)
        if number:  # the first pays for what is loaded once
            each.append(sorted(found, key=lambda s: (s.peer, s.out)))
    table = []
    for streams in zip(*each, strict=True):
        by_place = replace(streams[0], lost=int(median(s.lost for s in streams)),
                           doubled=int(median(s.doubled for s in streams)),
                           worst_gap_ms=median(s.worst_gap_ms for s in streams),
                           late=int(median(s.late for s in streams)))  # fmt: skip
        table.append(by_place)
    every = [stream for streams in each for stream in streams]
    worst = Stream("worst of all", False, max(s.lost for s in every), max(s.doubled for s in every),
                   max(s.worst_gap_ms for s in every), max(s.late for s in every))  # fmt: skip
    return [*table, worst]


def show(title: str, table: Sequence[Stream], *, paused: bool = False) -> None:
    late = f" {f'lost {SWITCH_MS} ms on':>13}" if paused else ""
    print(f"\n{title}\n  {'peer':<14} {'way':<8} {'lost':>5} {'doubled':>8} {'worst gap ms':>13}{late}", flush=True)
    for s in table:
        way = "" if s.peer.startswith("worst") else "from VM" if s.out else "to VM"
        late = f" {s.late:>13}" if paused else ""
        print(f"  {s.peer:<14} {way:<8} {s.lost:>5} {s.doubled:>8} {s.worst_gap_ms:>13.1f}{late}", flush=True)
