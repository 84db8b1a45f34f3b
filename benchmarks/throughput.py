"""TCP between two VIFs, and the first packet of a connection: plain Open vSwitch (NORMAL), OVN and vnet side by side in one run.

`python -m benchmarks.throughput [--runs 6] [--seconds 2] [--short]`. Three labs of two hosts are up together, guests on veth pairs; in each
round every system carries the same stream once, so a load that comes and goes meets all three. Two policies: `open`, VIFs
that are held to their MAC and address; `rules`, besides a group of 50 rules and a meter on what they send. Two ways: within a host,
and over a Geneve tunnel. A round's figures are taken as a share of plain's in the same round; reach: 0.95 of plain, and not below OVN.

switch_ns: processor time of all ovs-vswitchd per TCP payload of one frame, which other work on the machine disturbs less than throughput.
passes: look-ups of the datapath per frame. first_us, next_us: a UDP echo from a port not used before, and one more from the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.common import arguments
from benchmarks.systems import Ovn, mac_of, running, undisturbed
from vnet.lab import Driver, Lab
from vnet.lab.links import Links, change, no_checksum_offload
from vnet.lab.names import host_netns
from vnet.objects import (
    Direction,
    Host,
    Network,
    NetworkType,
    Pool,
    PoolState,
    PortRange,
    Protocol,
    QosClass,
    Rule,
    SecurityGroup,
    Verdict,
    Vif,
    Vm,
)

HOSTS = ("xen1", "xen2")
NETWORK = Network("net", NetworkType.GENEVE, 1, 1450, key=5001)
POLICIES = {"open": ("a", "b", "c"), "rules": ("d", "e", "f")}  # who sends, who receives on its host and on the other
WHERE = {"a": "xen1", "b": "xen1", "c": "xen2", "d": "xen1", "e": "xen1", "f": "xen2"}
PLACES = {"same host": 1, "two hosts": 2}
INGRESS, EGRESS = 40, 10
PORT, ECHO_PORT = 5010, 5020
SUBNET = "10.1.0.0/16"
RATE_BPS = 100_000_000_000  # a meter that drops nothing
PAYLOAD = NETWORK.mtu - 52
GUEST_DEVICE = "veth0"
TRIES = 30
T = TypeVar("T")

RECEIVE = """
import socket, sys, time
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
server.settimeout(5)
peer, _ = server.accept()
peer.settimeout(2)
skip, seconds = float(sys.argv[2]), float(sys.argv[3])
begun = time.monotonic()
while time.monotonic() < begun + skip:
    peer.recv(1 << 18)
print("begun", flush=True)
begun, got = time.monotonic(), 0
while time.monotonic() < begun + seconds:
    got += len(peer.recv(1 << 18))
print(got, time.monotonic() - begun, flush=True)
"""
SEND = """
import socket, sys
data = bytes(1 << 18)
try:
    peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
    while True:
        peer.sendall(data)
except OSError:
    pass
"""
ECHO = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
while True:
    server.sendto(*server.recvfrom(2048))
"""
ASK = """
import json, socket, sys, time
address, times = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
first, later, lost = [], [], 0
for _ in range(times):
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.connect(address)
    peer.settimeout(2)
    try:
        for taken in (first, later):
            begun = time.perf_counter_ns()
            peer.send(b"x")
            peer.recv(64)
            taken.append((time.perf_counter_ns() - begun) / 1000)
    except TimeoutError:  # lost on a busy machine
        lost += 1
        if lost > 3:
            sys.exit("nothing passes")
    peer.close()
    time.sleep(0.002)
print(json.dumps([sorted(taken)[len(taken) // 2] for taken in (first, later)]))
"""


def group() -> SecurityGroup:
    """50 rules, of which one of each direction lets the stream pass."""
    allowed = [
        Rule(f"{way.value}{n}", way, Verdict.ALLOW, protocol, (PortRange(port, port),), (SUBNET,))
        for way, count in ((Direction.INGRESS, INGRESS), (Direction.EGRESS, EGRESS))
        for n in range(count)
        for protocol, port in ((Protocol.UDP, ECHO_PORT) if n == 0 else (Protocol.TCP, PORT - 1 + n),)
    ]
    return SecurityGroup("g", 1, Verdict.DROP, Verdict.DROP, tuple(sorted(allowed, key=lambda rule: rule.name)))


def pool_of() -> PoolState:
    vifs = {}
    for number, (vm, host) in enumerate(WHERE.items(), 1):
        ruled = vm in POLICIES["rules"]
        vif = Vif(f"{vm}/0", NETWORK.name, mac_of(number), vm=vm, host=host, addresses=(f"10.1.0.{number}",),
                  groups=("g",) if ruled else (), qos="q" if ruled else None)  # fmt: skip
        vifs[vif.id] = vif
    hosts = {name: Host(name, f"10.99.0.{number}") for number, name in enumerate(HOSTS, 1)}
    return PoolState(Pool("bench", underlay_mtu=1600), hosts, {NETWORK.name: NETWORK}, {},
                     {vm: Vm(vm, host) for vm, host in WHERE.items()}, vifs,
                     groups={"g": group()}, qos={"q": QosClass("q", from_vm=RATE_BPS)})  # fmt: skip


@contextlib.contextmanager
def plain(pool: PoolState) -> Iterator[Lab]:
    """Open vSwitch alone: a learning switch on each host, and a tunnel."""
    with Lab.up(pool, name=f"bench{os.getpid()}plain", driver=Driver.NETNS) as lab:
        for host, other in (("xen1", "10.99.0.2"), ("xen2", "10.99.0.1")):
            lab.ovs(host).vsctl(
                *("add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev"),
                *("--", "add-port", "br-int", "tun", "--", "set", "interface", "tun", "type=geneve"),
                *(f"options:remote_ip={other}", "options:key=5001"),
            )
        yield lab


def ovn_policy(ovn: Ovn, pool: PoolState) -> None:
    """The group as a port group with an ACL for each rule, and the meter as a QoS rule."""
    ruled = [vif.id for vif in pool.vifs.values() if vif.groups]
    args = ["pg-add", "g", *ruled]
    ways = {
        Direction.INGRESS: ("to-lport", "outport == @g", "src"),
        Direction.EGRESS: ("from-lport", "inport == @g", "dst"),
    }
    for way, (name, port, side) in ways.items():
        for rule in group().rules:
            if rule.direction is way:
                assert isinstance(rule.protocol, Protocol)
                match = f"{port} && ip4.{side} == {SUBNET} && {rule.protocol.value}.dst == {rule.ports[0].first}"
                args += ["--", "acl-add", "g", name, "1002", match, "allow-related"]
        args += ["--", "acl-add", "g", name, "1001", f"{port} && ip", "drop"]
    for vif in ruled:
        rate = ["rate=" + str(RATE_BPS // 1000), "burst=" + str(RATE_BPS // 2000)]
        args += ["--", "qos-add", NETWORK.name, "from-lport", "1000", f'inport == "{vif}"', *rate]
    ovn.nbctl("--wait=hv", *args)


@dataclass(frozen=True, slots=True)
class Stream:
    """One measurement of a stream: payload in Mbit/s, and the switches' processor time and look-ups per full payload."""

    mbps: float
    switch_ns: float
    passes: float


class Bench:
    """One system with its guests running."""

    def __init__(self, name: str, lab: Lab) -> None:
        self.name = name
        self.lab = lab

    def plug(self) -> None:
        """A veth pair for each guest, in place of the lab's own device, which a Python process serves."""
        for vm, host in WHERE.items():
            vif, own, device = self.lab.vif(f"{vm}/0"), host_netns(self.lab.spec.name, host), f"{vm}.veth"

            def cable(links: Links, vm: str = vm, device: str = device) -> None:
                links.cable(device, self.lab.vm_netns(vm), GUEST_DEVICE, NETWORK.mtu)

            def guest(links: Links, vif: Vif = vif) -> None:
                links.set("eth0", state="down")
                links.set(GUEST_DEVICE, address=vif.mac, state="up")
                links.address(GUEST_DEVICE, f"{vif.addresses[0]}/16")

            change(own, cable)
            change(self.lab.vm_netns(vm), guest)
            no_checksum_offload(own)
            no_checksum_offload(self.lab.vm_netns(vm))
            self.lab.ovs(host).vsctl(
                *("wait-until", "bridge", "br-int", "--", "add-port", "br-int", device),
                *("--", "set", "interface", device, f"external_ids:iface-id={vif.id}"),
            )
        for policy in POLICIES:
            for place in PLACES:
                self.echo(policy, place, 1)

    @contextlib.contextmanager
    def _server(self, vm: str, script: str, *args: object) -> Iterator[subprocess.Popen[str]]:
        argv = self.lab.vm_argv(vm, [sys.executable, "-c", script, *map(str, args)])
        with subprocess.Popen(argv, env=self.lab.vm_env(), stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                server.stdout.readline()
                yield server
            finally:
                server.kill()

    def _ends(self, policy: str, place: str) -> tuple[str, str, str]:
        source, target = POLICIES[policy][0], POLICIES[policy][PLACES[place]]
        return source, target, self.lab.vif(f"{target}/0").addresses[0]

    def echo(self, policy: str, place: str, times: int) -> tuple[float, float]:
        """Median round trips in us: of the first packet of a connection, and of its next one."""
        return self._steadily(lambda: self._echo(policy, place, times))

    def _echo(self, policy: str, place: str, times: int) -> tuple[float, float] | None:
        source, target, address = self._ends(policy, place)
        with self._server(target, ECHO, ECHO_PORT):
            argv = self.lab.vm_argv(source, [sys.executable, "-c", ASK, address, str(ECHO_PORT), str(times)])
            done = subprocess.run(argv, env=self.lab.vm_env(), capture_output=True, text=True, check=False, timeout=120)
        return None if done.returncode else (*json.loads(done.stdout),)

    def stream(self, policy: str, place: str, seconds: float) -> Stream:
        return self._steadily(lambda: self._stream(policy, place, seconds))

    def _steadily(self, measure: Callable[[], T | None]) -> T:
        """Measures once more if nothing passed, as on a machine that is busy with other things or where a switch has died:
        under OVN ovs-vswitchd 3.1.0 ended here now and then, by an assertion in conntrack.c about connections with NAT."""
        for _ in range(TRIES):
            for host in HOSTS:
                if not self.lab.ovs(host).pid("ovs-vswitchd"):
                    print(f"{self.name}: ovs-vswitchd of {host} has ended", file=sys.stderr)
                    self.lab.restart_vswitchd(host)
            if (found := measure()) is not None:
                return found
            print(f"{self.name}: nothing passed", file=sys.stderr)
        raise TimeoutError(f"{self.name}: nothing passes")

    def _stream(self, policy: str, place: str, seconds: float) -> Stream | None:
        source, target, address = self._ends(policy, place)
        with self._server(target, RECEIVE, PORT, 0.3, seconds) as receiver:
            sender = self.lab.popen_in_vm(source, sys.executable, "-c", SEND, address, str(PORT))
            try:
                assert receiver.stdout is not None
                begun = receiver.stdout.readline()
                before = self._cpu_ns(), *self._lookups()
                size, took = map(float, receiver.stdout.readline().split() or ("0", "1"))
                after = self._cpu_ns(), *self._lookups()
            finally:
                sender.kill()
                sender.wait()
        cpu, frames, passes = (new - old for new, old in zip(after, before, strict=True))
        if not begun or not size or not frames:
            return None
        return Stream(size * 8 / took / 1e6, cpu / (size / PAYLOAD), passes / frames)

    def _cpu_ns(self) -> int:
        tasks = [
            task for host in HOSTS for task in Path(f"/proc/{self.lab.ovs(host).pid('ovs-vswitchd')}/task").iterdir()
        ]
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

    def _lookups(self) -> tuple[int, int]:
        """Frames that entered the datapaths, and times that they were looked up."""
        frames = passes = 0
        for host in HOSTS:
            text = self.lab.ovs(host).appctl("dpif-netdev/pmd-stats-show")
            received = sum(map(int, re.findall(r"packets received: (\d+)", text)))
            frames += received
            passes += received + sum(map(int, re.findall(r"packet recirculations: (\d+)", text)))
        return frames, passes


ROW = "{:<7} {:<10} {:<6} {:>7} {:>8} {:>9} {:>8} {:>6} {:>8} {:>8}"
Key = tuple[str, str, str]  # policy, place, system


async def measure(runs: int, seconds: float, echoes: int) -> dict[Key, dict[str, float]]:
    """Medians per policy, place and system."""
    pool = pool_of()
    async with contextlib.AsyncExitStack() as stack:
        alone = stack.enter_context(plain(pool))
        vnet = await stack.enter_async_context(running("vnet", pool))
        ovn = await stack.enter_async_context(running("OVN", pool))
        assert isinstance(ovn, Ovn)
        benches = [Bench("plain", alone), Bench("OVN", ovn.lab), Bench("vnet", vnet.lab)]
        await asyncio.to_thread(ovn_policy, ovn, pool)
        for bench in benches:
            await asyncio.to_thread(bench.plug)
            stack.enter_context(undisturbed(bench.lab))
        return await asyncio.to_thread(_rounds, benches, runs, seconds, echoes)


def _rounds(benches: Sequence[Bench], runs: int, seconds: float, echoes: int) -> dict[Key, dict[str, float]]:
    found: dict[Key, list[tuple[Stream, float, float]]] = {}
    for _ in range(runs):
        for policy in POLICIES:
            for place in PLACES:
                for bench in benches:
                    sample = (bench.stream(policy, place, seconds), *bench.echo(policy, place, echoes))
                    found.setdefault((policy, place, bench.name), []).append(sample)
    results = {}
    for key, samples in found.items():
        pairs = [(mine, base) for (mine, *_), (base, *_) in zip(samples, found[*key[:2], "plain"], strict=True)]
        streams, firsts, laters = zip(*samples, strict=True)
        results[key] = {
            "mbps": median(s.mbps for s in streams),
            "share": median(mine.mbps / base.mbps for mine, base in pairs),
            "switch_ns": median(s.switch_ns for s in streams),
            "switch_share": median(mine.switch_ns / base.switch_ns for mine, base in pairs),
            "passes": median(s.passes for s in streams),
            "first_us": median(firsts),
            "next_us": median(laters),
        }
    return results


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(runs=6)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each stream")
    parser.add_argument("--echoes", type=int, default=100, help="connections whose first packet is timed, each round")
    parser.add_argument("--short", action="store_true", help="two rounds of half a second")
    options = parser.parse_args()
    if options.short:
        options.runs, options.seconds, options.echoes = 2, 0.5, 30
    found = asyncio.run(measure(options.runs, options.seconds, options.echoes))
    if options.json:
        print(json.dumps({" / ".join(key): values for key, values in found.items()}, indent=2))
        return
    print(f"medians of {options.runs} rounds of {options.seconds:g} s")
    print(
        ROW.format(
            "policy", "way", "system", "Mbit/s", "of plain", "switch ns", "of plain", "passes", "first us", "next us"
        )
    )
    for key, v in found.items():
        figures = (f"{v['mbps']:.0f}", f"{v['share']:.3f}", f"{v['switch_ns']:.0f}", f"{v['switch_share']:.3f}")
        print(ROW.format(*key, *figures, f"{v['passes']:.2f}", f"{v['first_us']:.0f}", f"{v['next_us']:.0f}"))


if __name__ == "__main__":
    main()
