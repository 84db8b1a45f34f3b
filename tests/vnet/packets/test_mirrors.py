"""Mirrors on real switches: which frames are copied, byte for byte, and each once while its ends and the target move."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
from collections.abc import Iterator
from itertools import product

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.engines import ENGINES, running
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.client import Client
from vnet.lab import Lab
from vnet.lab.names import underlay_netns
from vnet.lab.streams import RunningStream
from vnet.testing import PoolUnderTest

DOCUMENT = """
apiVersion: vnet/v1
pool: mirrors
underlay: {mtu: 1700}
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
  xen3: {address: 10.99.0.3, uplinks: {trunk0: {members: [eth1]}}}
networks:
  vx: {type: vxlan}
  vlan: {type: vlan, tag: 120, uplink: trunk0}
  native: {type: vlan, tag: untagged, uplink: trunk0}
  taps: {type: internal}
  gr: {type: gre, hosts: [xen1, xen3]}
security-groups:
  closed: {default: {ingress: drop, egress: allow}}
vms:
  a: {host: xen1, vifs: [{network: vx, addresses: [10.1.0.1]}, {network: vlan, addresses: [10.2.0.1]}]}
  b: {host: xen2, vifs: [{network: vx, addresses: [10.1.0.2]}, {network: vlan, addresses: [10.2.0.2]}]}
  c: {host: xen3, labels: {app: shop}, vifs: [{network: vx, addresses: [10.1.0.3]}, {network: vlan, addresses: [10.2.0.3]}]}
  shut: {host: xen1, vifs: [{network: vx, addresses: [10.1.0.4], security-groups: [closed]}]}
  trunk: {host: xen1, vifs: [{network: native, trunk: all, addresses: [], locking-mode: unlocked}]}
  ids: {host: xen3, vifs: [{network: taps, addresses: []}]}
  near: {host: xen1, vifs: [{network: taps, addresses: []}]}
  g1: {host: xen1, vifs: [{network: gr, addresses: [10.3.0.1]}]}
  g3: {host: xen3, vifs: [{network: gr, addresses: [10.3.0.3]}]}
  tap: {host: xen2, vifs: [{network: taps, addresses: []}]}
mirrors:
  both: {from: [a/0, b/0, a/1, b/1], to: ids/0}
  span: {from: [{label: app=shop}], direction: from-vm, to: {vlan: 99, uplink: trunk0}}
  here: {from: [a/0, trunk/0, shut/0], filter: not udp port 4, to: near/0}
  late: {from: [b/0, b/1], policy: after, filter: udp dst port 9, to: tap/0}
"""

# There a collector may be on the underlay, and streams run at full speed.
IN_NAMESPACES = pytest.mark.parametrize("pool", ENGINES[2:], indirect=True)


@pytest.fixture(scope="module", params=ENGINES)
def pool(netns: None, request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT.encode()) as made:
        yield made


def frame(pool: PoolUnderTest, source: str, target: str, payload: Packet | None = None) -> Packet:
    ends = {"vx": "1", "vlan": "2"}
    sender, receiver = (pool.vif(name) for name in (source, target))
    addresses = [
        end.addresses[0] if end.addresses else f"10.{ends.get(end.network, '9')}.0.9" for end in (sender, receiver)
    ]
    return (
        Ether(src=sender.mac, dst=receiver.mac)
        / IP(src=addresses[0], dst=addresses[1])
        / (payload or UDP(sport=9, dport=3))
        / Raw(b"x" * 30)
    )


def got(pool: PoolUnderTest, source: str, packet: Packet) -> list[str]:
    items = pool.send(source, [bytes(packet)]).items
    return sorted(item.to for item in items if item.frame == bytes(packet) and "/" in item.to)


def test_frames_of_either_end_are_copied_once(pool: PoolUnderTest) -> None:
    for nic in (0, 1):
        for source, target in (("a", "b"), ("b", "a"), ("a", "c"), ("c", "b")):
            there = [f"{target}/{nic}", "ids/0", *(["near/0"] if "a" in (source, target) and nic == 0 else [])]
            found = got(pool, f"{source}/{nic}", frame(pool, f"{source}/{nic}", f"{target}/{nic}"))
            assert found == sorted(there), (source, target, nic)
    many = (
        Ether(src=pool.vif("c/0").mac, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="10.1.0.3", dst="255.255.255.255")
        / UDP()
        / Raw(b"y" * 30)
    )
    assert got(pool, "c/0", many) == ["a/0", "b/0", "ids/0", "near/0"]


def test_a_filter_and_what_policy_drops(pool: PoolUnderTest) -> None:
    assert got(pool, "a/0", frame(pool, "a/0", "c/0", UDP(sport=9, dport=4))) == ["c/0", "ids/0"]
    assert got(pool, "a/0", frame(pool, "a/0", "c/0", TCP(dport=4))) == ["c/0", "ids/0", "near/0"]
    assert got(pool, "c/0", frame(pool, "c/0", "shut/0")) == ["near/0"]
    forged = frame(pool, "a/0", "c/0")
    forged.src = "0a:00:00:00:00:99"
    assert got(pool, "a/0", forged) == ["ids/0", "near/0"]


def test_a_trunks_frames_have_their_tags(pool: PoolUnderTest) -> None:
    trunk, c = pool.vif("trunk/0"), pool.vif("c/1")
    inside = IP(src="10.2.0.9", dst="10.2.0.3") / UDP(sport=1, dport=2) / Raw(b"z" * 30)
    tagged = Ether(src=trunk.mac, dst=c.mac) / Dot1Q(vlan=120) / inside
    items = pool.send("trunk/0", [bytes(tagged)]).items
    untagged = bytes(Ether(src=trunk.mac, dst=c.mac) / inside)
    assert sorted((item.to, item.frame) for item in items) == [("c/1", untagged), ("near/0", bytes(tagged))]
    answer = (
        Ether(src=c.mac, dst=trunk.mac) / IP(src="10.2.0.3", dst="10.2.0.9") / UDP(sport=1, dport=2) / Raw(b"z" * 30)
    )
    wanted = bytes(Ether(src=c.mac, dst=trunk.mac) / Dot1Q(vlan=120) / answer.payload)
    items = pool.send("c/1", [bytes(answer)]).items
    assert sorted((item.to, item.frame) for item in items) == [("near/0", wanted), ("trunk/0", wanted)]


def test_a_vlan_has_copies_and_its_frames_lead_nowhere(pool: PoolUnderTest) -> None:
    station = pool.station("trunk0", 99)
    sent = frame(pool, "c/0", "a/0")  # not of prod: a Linux bridge learns MACs for all VLANs together
    items = pool.send("c/0", [bytes(sent)]).items
    assert [item.frame for item in items if item.to == station.name] == [bytes(sent)]
    assert sorted(item.to for item in items if "/" in item.to) == ["a/0", "ids/0", "near/0"]
    assert not pool.send(station, [bytes(frame(pool, "c/1", "trunk/0"))]).items


@pytest.mark.parametrize("pool", ENGINES[1:], indirect=True)  # the twin is not asked about itself
def test_a_live_trace_agrees_and_its_packets_are_copied_to_nobody(
    pool: PoolUnderTest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(pool, Lab)
    monkeypatch.setenv("VNET_CONTROLLER", f"unix:{pool.daemons.controller_socket}")
    code = main.run(["trace", "c/0", "b/0", "--udp", "4", "--live"])
    text = capsys.readouterr().out
    assert code == ExitCode.OK, text
    assert "= 106 MIRROR_HERE" in text


SNIFF = """
import socket, sys
found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
found.bind(("underlay", 0))
print("ready", flush=True)
while True:
    frame = found.recv(4000)
    if frame[12:14] == b"\\x08\\x00" and frame[23] == 47 and frame[30:34] == bytes([10, 99, 0, 99]):
        print(frame.hex(), flush=True)
"""
COLLECTORS = """  e1: {from: [b/0], direction: from-vm, filter: udp port 11, to: {erspan: 10.99.0.99, id: 7}}
  e2: {from: [b/0], direction: from-vm, filter: udp port 12, to: {erspan: 10.99.0.99, id: 8, version: 2}}
  g: {from: [b/0], direction: from-vm, filter: udp port 13, to: {gre: 10.99.0.99, key: 9}}
"""


@IN_NAMESPACES
def test_collectors_get_erspan_and_gre(pool: PoolUnderTest) -> None:
    assert isinstance(pool, Lab)
    inside = ["ip", "netns", "exec", underlay_netns(pool.spec.name)]
    subprocess.run([*inside, "ip", "address", "add", "10.99.0.99/24", "dev", "underlay"], check=True)
    with Client(f"unix:{pool.daemons.controller_socket}") as client:
        client.apply((DOCUMENT + COLLECTORS).encode())
    pool.daemons.settle()
    with subprocess.Popen([*inside, sys.executable, "-c", SNIFF], stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout is not None
        assert sniffer.stdout.readline() == "ready\n"
        try:
            for port, header in ((11, "88be"), (12, "22eb"), (13, "6558")):
                sent = frame(pool, "b/0", "c/0", UDP(sport=9, dport=port))
                found = ""
                while sent.build().hex() not in found:  # the switch asks for the collector's MAC first
                    pool.send("b/0", [bytes(sent)])
                    found = sniffer.stdout.readline() if select.select([sniffer.stdout], [], [], 1.0)[0] else ""
                assert header in found[64:100], (port, found)
        finally:
            sniffer.kill()


@IN_NAMESPACES
def test_tunnels_of_gre_go_before_erspan(pool: PoolUnderTest) -> None:
    """Open vSwitch's userspace datapath gives all GRE that comes in to one port, of either. The kernel's tells them apart."""
    assert isinstance(pool, Lab)
    both = pool.spec.datapath_type == "system"
    without = (
        "\n".join(line for line in DOCUMENT.splitlines() if not line.startswith(("  gr:", "  g1:", "  g3:"))) + "\n"
    )
    erspan = without + COLLECTORS
    with Client(f"unix:{pool.daemons.controller_socket}") as client:
        client.apply(erspan.encode())
        pool.daemons.settle()
        types = pool.ovs("xen1").vsctl("--bare", "--columns=type", "list", "interface").split()
        assert types.count("erspan") == 2, "no network of GRE is there"
        client.apply((DOCUMENT + COLLECTORS).encode())
        if not both:
            pool.daemons.wait(lambda view: "mirror e1" in view.state.agents["xen1"].problems, "the host says so")
        pool.daemons.settle()
        types = pool.ovs("xen1").vsctl("--bare", "--columns=type", "list", "interface").split()
        assert types.count("erspan") == (2 if both else 0)
        sent = bytes(frame(pool, "g1/0", "g3/0"))
        assert pool.send("g1/0", [sent]).at("g3/0") == [sent]
        for host in ("xen1", "xen3"):
            pool.restart_vswitchd(host)
        pool.daemons.settle()
        assert pool.send("g1/0", [sent]).at("g3/0") == [sent]
        client.apply(DOCUMENT.encode())
        pool.daemons.settle()


def streams(lab: Lab, stack: contextlib.ExitStack, nic: int) -> dict[str, tuple[RunningStream, str]]:
    ends = {"there": ("a", "b"), "back": ("b", "a"), "in": ("c", "b"), "out": ("b", "c")}
    return {
        name: (stack.enter_context(lab.stream(f"{source}/{nic}", f"{target}/{nic}")), f"{target}/{nic}")
        for name, (source, target) in ends.items()
    }


@IN_NAMESPACES
@pytest.mark.parametrize("nic", [0, 1], ids=["vx", "vlan"])
def test_each_frame_once_while_both_ends_move(pool: PoolUnderTest, nic: int) -> None:
    """Of what arrives each frame has one copy. What is lost with a guest's switch to its new host may or may not have one."""
    assert isinstance(pool, Lab)
    with contextlib.ExitStack() as stack:
        flowing = streams(pool, stack, nic)
        go_on(flowing)
        for vm, to in (("b", "xen1"), ("a", "xen2")):
            pool.migrate(vm, to)
        wait_sent(flowing, go_on(flowing))
    for vm, to in (("a", "xen1"), ("b", "xen2")):
        pool.migrate(vm, to)
    for (name, (stream, receiver)), target in product(flowing.items(), ("ids/0", "tap/0")):
        copies, arrived = stream.report.at(target), stream.report.at(receiver)
        assert copies.duplicated == 0, (name, target)
        assert set(copies.lost_numbers) <= set(arrived.lost_numbers), (name, target)
        assert arrived.frames > 200, name


@IN_NAMESPACES
def test_each_frame_once_while_the_target_moves(pool: PoolUnderTest) -> None:
    assert isinstance(pool, Lab)
    with contextlib.ExitStack() as stack:
        flowing = {nic: (stack.enter_context(pool.stream(f"a/{nic}", f"b/{nic}")), "ids/0") for nic in (0, 1)}
        go_on(flowing)
        for to in ("xen1", "xen3"):
            pool.migrate("ids", to)
        whole = go_on(flowing)
        wait_sent(flowing, whole)
    for nic, (stream, _) in flowing.items():
        copies = stream.report.at("ids/0")
        assert copies.duplicated == 0
        assert all(number < whole[nic] for number in copies.lost_numbers), (
            "only what is under way when the guest switches"
        )
