"""A broadcast to all VIFs of a network on one host: who gets it, and what it costs the switch, beside OVN and a plain bridge.

`python -m benchmarks.broadcast [--vifs 300 1000 2000] [--frames 50] [--systems vnet NORMAL]`. NORMAL is Open vSwitch as a learning switch, without any group. All VIFs are on one host with a real Open vSwitch, dummy datapath,
without groups, and in one group that allows all. The frame is an ARP request for nobody's address, or a UDP broadcast that goes through the
tracker of each VIF in a group. first_ms: the first one, which is translated; next_ms: each after it; both are processor time of
ovs-vswitchd. reached: the VIFs that got the frame, of all but the sender.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from benchmarks.common import Figure, Result, arguments, report
from benchmarks.large_pool import vif
from benchmarks.policy_scale import Shape, System, ovn, ports, vnet
from ovsctl.appctl import call_sync
from tests.servers import Vswitchd
from vnet.objects import SecurityGroup, Verdict, Vif

FIGURES = (
    Figure("reached", "VIFs"),
    Figure("first_ms", "ms"),
    Figure("next_ms", "ms"),
    Figure("megaflows", "megaflows"),
)
SYSTEMS = ["vnet", "OVN", "NORMAL"]
EVERYONE = "ff:ff:ff:ff:ff:ff"
LANDED_S = 0.5  # after this all frames have come


def shape_of(count: int, grouped: bool) -> Shape:
    groups = (SecurityGroup("open", 1, ingress=Verdict.ALLOW, egress=Verdict.ALLOW),) if grouped else ()
    vifs = tuple(replace(vif(n, 1), groups=tuple(group.name for group in groups)) for n in range(count))
    return Shape(f"{count:,} VIFs{', in a group' if grouped else ''}", groups, vifs, tuple(range(count)))


def frame_of(sender: Vif, kind: str) -> Packet:
    head, (address,) = Ether(src=sender.mac, dst=EVERYONE), sender.addresses
    if kind == "ARP":
        return head / ARP(hwsrc=sender.mac, psrc=address, pdst="10.255.255.1")
    return head / IP(src=address, dst="255.255.255.255") / UDP(sport=5000, dport=5001) / b"hello"


def spent_ms(switch: Vswitchd) -> float:
    """Processor time of all threads of ovs-vswitchd."""
    if switch.process is None:
        raise RuntimeError("ovs-vswitchd is not running")
    tasks = Path(f"/proc/{switch.process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


def received(switch: Vswitchd) -> dict[str, int]:
    """Frames that the ports have been sent, by their numbers."""
    text = switch.ofctl("dump-ports", "br-int").replace("\n", " ")
    return {port: int(frames) for port, frames in re.findall(r"port +(\d+): .*?tx pkts=(\d+)", text)}


def quiet(switch: Vswitchd) -> None:
    """Returns once an agent has announced the VIFs that came."""
    last: dict[str, int] = {}
    while (now := received(switch)) != last:
        last = now
        time.sleep(2 * LANDED_S)


def measure(switch: Vswitchd, shape: Shape, kind: str, frames: int) -> dict[str, float]:
    """One frame, then `frames` more."""
    wire = bytes(frame_of(shape.vifs[0], kind)).hex()

    def send(times: int) -> tuple[float, dict[str, int]]:
        had, before = received(switch), spent_ms(switch)
        for _ in range(times):
            call_sync(switch.control, "netdev-dummy/receive", "v0", wire)
        time.sleep(LANDED_S)
        spent, now = spent_ms(switch) - before, received(switch)
        return spent, {port: now[port] - had[port] for port in now}

    quiet(switch)
    first_ms, got = send(1)
    rest_ms, _ = send(frames)
    megaflows = call_sync(switch.control, "dpctl/dump-flows").count("recirc_id")
    reached = sum(count == 1 for count in got.values())
    return {"reached": reached, "first_ms": first_ms, "next_ms": rest_ms / frames, "megaflows": megaflows}


class Plain(System):
    """A bridge that floods by NORMAL."""

    def __init__(self, switch: Vswitchd) -> None:
        self.switch = switch


@asynccontextmanager
async def plain(shape: Shape) -> AsyncIterator[Plain]:
    with ports(shape) as switch:
        yield Plain(switch)


async def compared(count: int, grouped: bool, frames: int, systems: Sequence[str]) -> list[Result]:
    shape = shape_of(count, grouped)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, up in (("vnet", vnet), ("OVN", ovn), ("NORMAL", plain)):
        if name in systems:
            async with up(shape) as system:
                for kind in ("ARP", "UDP"):
                    found.setdefault(kind, {})[name] = await asyncio.to_thread(
                        measure, system.switch, shape, kind, frames
                    )
    return [Result(f"{kind} to {shape.name}", FIGURES, medians, 1) for kind, medians in found.items()]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--vifs", type=int, nargs="*", default=[300, 1000])
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    options = parser.parse_args()
    shapes = [(count, grouped) for count in options.vifs for grouped in (False, True)]
    for shape in shapes:
        report(asyncio.run(compared(*shape, options.frames, options.systems)), options.json)


if __name__ == "__main__":
    main()
