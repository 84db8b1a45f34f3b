"""The kernel's tracker takes connections in: those of a VIF go along when it moves, and nothing is picked up that began elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.polling import wait_until
from tests.vnet.packets.engines import running
from vnet.client import Client
from vnet.lab import Lab

# Neither port of a connection tells which end listens (ADR 8): only who saw it begin lets its answers pass.
OWN, PEERS = 50000, 60000
DOCUMENT = b"""
apiVersion: vnet/v1
pool: handover
hosts: {xen1: {address: 10.99.0.1}, xen2: {address: 10.99.0.2}}
networks: {lan: {type: geneve}}
security-groups: {web: {default: {ingress: drop}}}
vms:
  srv: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"], security-groups: [web]}]}
  far: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"]}]}
"""


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    with running("netns", DOCUMENT) as pool:
        assert isinstance(pool, Lab)
        yield pool


def frame(lab: Lab, source: str, target: str, six: bool, payload: Packet) -> Packet:
    a, b = lab.vif(f"{source}/0"), lab.vif(f"{target}/0")
    ip = IPv6(src=a.addresses[1], dst=b.addresses[1]) if six else IP(src=a.addresses[0], dst=b.addresses[0])
    return Ether(src=a.mac, dst=b.mac) / ip / payload


def arrives(lab: Lab, source: str, target: str, six: bool, payload: Packet) -> bool:
    return f"{target}/0" in lab.send(f"{source}/0", frame(lab, source, target, six, payload)).to


def segment(back: bool, flags: str, seq: int, ack: int) -> Packet:
    sport, dport = (PEERS, OWN) if back else (OWN, PEERS)
    return TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack)


@pytest.mark.parametrize("pause_s", [0.3, 0.0])
def test_connections_go_along_and_nothing_else_passes(lab: Lab, pause_s: float) -> None:
    source = lab.location("srv")
    to = "xen2" if source == "xen1" else "xen1"
    opened = [
        (six, back, payload)
        for six in (False, True)
        for back, payload in (
            (False, segment(False, "S", 1000, 0)),
            (True, segment(True, "SA", 5000, 1001)),
            (False, segment(False, "A", 1001, 5001)),
            (False, UDP(sport=OWN, dport=PEERS)),
        )
    ]
    for six, back, payload in opened:
        ends = ("far", "srv") if back else ("srv", "far")
        wait_until(lambda ends=ends, six=six, payload=payload: arrives(lab, *ends, six, payload), "it begins")

    lab.migrate("srv", to, pause_s=pause_s)

    with Client(f"unix:{lab.daemons.controller_socket}") as client:

        def told() -> str:
            return client.vif("srv/0").place.connections

        wait_until(told, "its connections")
        assert told() == f"4 came along from host {source}"
    lab.daemons.settle()
    for six in (False, True):
        wait_until(lambda six=six: arrives(lab, "far", "srv", six, UDP(sport=PEERS, dport=OWN)), "UDP's answer")
        # The window has gone on meanwhile: the kernel that they came from has not said how far.
        wait_until(lambda six=six: arrives(lab, "far", "srv", six, segment(True, "A", 905001, 901001)), "TCP goes on")
        assert arrives(lab, "srv", "far", six, segment(False, "A", 901001, 905002))
        assert not arrives(lab, "far", "srv", six, UDP(sport=PEERS + 1, dport=OWN))
        # Before, it would be picked up as one that goes on: port 80 listens.
        assert not arrives(lab, "far", "srv", six, TCP(sport=80, dport=40000, flags="A", seq=1, ack=1))
    left = lab.ovs(str(source))
    wait_until(lambda: f"sport={OWN}" not in left.appctl("dpctl/dump-conntrack"), "they go from the host that it left")
    assert f"sport={OWN}" in lab.ovs(to).appctl("dpctl/dump-conntrack")
