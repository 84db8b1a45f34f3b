"""Packets through two hosts of the twin, beside asking ofproto/trace of a real Open vSwitch with the same flows.

What is timed: a TCP packet from a locked VIF through both hosts' pipelines and a VXLAN tunnel; each packet has its own ports
and payload, and with security groups begins a connection that both hosts track, or belongs to one of those that are established.
The peer is asked over its control socket from this process, one call per host that a packet passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.common import Figure, Result, arguments, compare, report
from ovsctl.appctl import call_sync
from tests.ovsctl.datapath.real_bridge import BRIDGE, RealBridge, real_bridge
from tests.vnet.sim.pools import talk, two_hosts
from vnet.compile import GROUPS, flat, meters_of
from vnet.objects import Direction, PortRange, Protocol, Rule, SecurityGroup
from vnet.sim import SimPool
from vnet.sim.packets import Part

PACKETS = 20_000
TRACES = 300
CONNECTIONS = 200
FIGURE = Figure("packets_per_s", "packets/s", reach=1 / 20)


def frames(pool: SimPool, count: int) -> list[bytes]:
    """Packets that differ in source port and payload."""
    there = talk(pool, "web1/0", "db1/0", Protocol.TCP, 443)
    return [
        replace(there, source_port=1024 + n % 60000).frame(payload=n.to_bytes(4, "big") * (1 + n % 50))
        for n in range(count)
    ]


def filtered() -> SimPool:
    """The same pool with both ends in security groups: what the packets need is what is allowed, both ways, and no more."""
    pool = two_hosts()
    web = Rule("web", Direction.INGRESS, protocol=Protocol.TCP, ports=(PortRange(443, 443),), remote=("clients",))
    groups = {
        "clients": SecurityGroup("clients", 1, rules=()),
        "servers": SecurityGroup("servers", 2, rules=(web,)),
    }
    vifs = dict(pool.configured.vifs)
    for name, group in (("web1/0", "clients"), ("db1/0", "servers")):
        vifs[name] = replace(vifs[name], groups=(group,))
    return SimPool.of(replace(pool.configured, vifs=vifs, groups=groups))


def established(pool: SimPool) -> list[bytes]:
    """Packets of connections that have been opened before."""
    first = talk(pool, "web1/0", "db1/0", Protocol.TCP, 443)
    talks = [replace(first, source_port=1024 + n) for n in range(CONNECTIONS)]
    for one in talks:
        for source, part in (("web1/0", Part.REQUEST), ("db1/0", Part.ANSWER), ("web1/0", Part.CONFIRM)):
            pool.send(source, one.frame(part))
    return [talks[n % CONNECTIONS].frame(Part.CONFIRM, n.to_bytes(4, "big")) for n in range(PACKETS)]


def begun(pool: SimPool) -> list[bytes]:
    return frames(pool, PACKETS)


def twin(make: Callable[[], SimPool], packets: Callable[[SimPool], list[bytes]]) -> dict[str, float]:
    """The simulator; what is asked for the first time is translated, too."""
    pool = make()
    sent = packets(pool)
    start = time.perf_counter()
    got = pool.send("web1/0", sent)
    seconds = time.perf_counter() - start
    if got.counts != {"db1/0": PACKETS}:
        raise RuntimeError(f"not delivered: {got.counts}")
    return {"packets_per_s": PACKETS / seconds}


@contextmanager
def peer(pool: SimPool) -> Iterator[RealBridge]:
    host = pool.hosts["xen1"]
    with real_bridge(sorted(host.bridge.ports)) as bridge:
        bridge.set(flat(host.compiled), GROUPS, meters_of(host.compiled))
        yield bridge


def compared(work: str, make: Callable[[], SimPool], packets: Callable[[SimPool], list[bytes]], runs: int) -> Result:
    """The twin of a pool beside the questions to a switch with the same flows."""
    pool = make()
    asked = [frame.hex() for frame in frames(pool, TRACES)]
    port = pool.hosts["xen1"].ports["web1/0"]
    with peer(pool) as bridge:

        def ofproto_trace() -> dict[str, float]:
            start = time.perf_counter()
            for frame in asked:
                for _ in range(2):
                    call_sync(bridge.switchd.control, "ofproto/trace", BRIDGE, f"in_port={port}", frame)
            return {"packets_per_s": TRACES / (time.perf_counter() - start)}

        peers = {"vnet.sim": lambda: twin(make, packets), "ofproto/trace, 2 calls": ofproto_trace}
        return compare(work, peers, [FIGURE], runs)


def main() -> None:
    options = arguments(__doc__).parse_args()
    works = (
        ("TCP through two hosts, locked VIFs, VXLAN", two_hosts, begun),
        ("the same through security groups, connections established", filtered, established),
        ("the same through security groups, every packet a new connection", filtered, begun),
    )
    report([compared(*work, options.runs) for work in works], options.json)


if __name__ == "__main__":
    main()
