"""Packets in fragments between VIFs in security groups, on one host and between two. On every engine; by guests' own kernels in namespaces."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from itertools import count, permutations

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.vnet.packets.engines import ENGINES, running
from vnet.lab import Lab
from vnet.testing import PoolUnderTest

DOCUMENT = b"""
apiVersion: vnet/v1
pool: fragments
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  lan: {type: vxlan, mtu: 1450}
security-groups:
  dns:
    default: {ingress: drop}
    rules: [{name: dns, direction: ingress, protocol: udp, ports: [53]}, {name: ping, direction: ingress, protocol: icmp}]
  open: {}
vms:
  srv: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"], security-groups: [dns]}]}
  near: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.2, "fd00:1::2"], security-groups: [open]}]}
  far: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"], security-groups: [open]}]}
"""
MTU = 1448
PEERS, VERSIONS = ("near", "far"), (4, 6)
_numbers = count(1)


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as made:
        yield made


def datagram(pool: PoolUnderTest, peer: str, version: int, port: int) -> list[bytes]:
    """A datagram of 3,000 bytes from a VIF to the server, as its kernel sends it."""
    source, target = pool.vif(f"{peer}/0"), pool.vif("srv/0")
    place = VERSIONS.index(version)
    src, dst = source.addresses[place], target.addresses[place]
    payload = UDP(sport=49152, dport=port) / Raw(bytes(3000))
    if version == 4:
        parts = fragment(IP(src=src, dst=dst, id=next(_numbers)) / payload, MTU - 20)
    else:
        whole = IPv6(bytes(IPv6(src=src, dst=dst) / payload))  # with the checksum of the whole packet
        parts = fragment6(IPv6(src=src, dst=dst) / IPv6ExtHdrFragment(id=next(_numbers)) / whole.payload, MTU)
    return [bytes(Ether(src=source.mac, dst=target.mac) / part) for part in parts]


def arrived(pool: PoolUnderTest, peer: str, frames: list[bytes]) -> list[bytes]:
    """The frames that the server gets."""
    got = [item.frame for item in pool.send(f"{peer}/0", frames) if item.to == "srv/0"]
    if isinstance(pool, Lab) and pool.spec.datapath_type == "system" and contents(got) == contents(frames):
        return sorted(frames)  # a kernel's tracker makes the fragments of a packet anew
    return sorted(frame for frame in got if frame in frames)


def contents(frames: list[bytes]) -> bytes:
    """The contents of the fragments, in their order."""
    parts = []
    for packet in map(Ether, frames):
        if IP in packet:
            parts.append((packet[IP].frag, bytes(packet[IP].payload)))
        elif IPv6ExtHdrFragment in packet:
            parts.append((packet[IPv6ExtHdrFragment].offset, bytes(packet[IPv6ExtHdrFragment].payload)))
    return b"".join(part for _, part in sorted(parts))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("peer", PEERS)
def test_an_allowed_packet_passes_whole_in_any_order(pool: PoolUnderTest, peer: str, version: int) -> None:
    for order in permutations(range(3)):
        parts = datagram(pool, peer, version, 53)
        assert arrived(pool, peer, [parts[n] for n in order]) == sorted(parts)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("peer", PEERS)
def test_nothing_of_another_packet_passes(pool: PoolUnderTest, peer: str, version: int) -> None:
    assert arrived(pool, peer, datagram(pool, peer, version, 54)) == []
    parts = datagram(pool, peer, version, 53)
    for missing in range(3):
        some = [part for n, part in enumerate(datagram(pool, peer, version, 53)) if n != missing]
        assert arrived(pool, peer, some) == []
    assert arrived(pool, peer, parts[:1] * 2) == []
    assert arrived(pool, peer, parts[2:]) == []


@pytest.mark.parametrize("pool", ENGINES[2:], indirect=True)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("peer", PEERS)
def test_guests_ping_with_3000_bytes(pool: Lab, peer: str, version: int) -> None:
    target = pool.vif("srv/0").addresses[VERSIONS.index(version)]
    argv = pool.vm_argv(peer, ["ping", f"-{version}", "-c", "3", "-i", "0.2", "-W", "5", "-s", "3000", target])
    done = subprocess.run(argv, env=pool.vm_env(), capture_output=True, text=True, timeout=60, check=False)
    assert ", 0% packet loss" in done.stdout, done.stdout + done.stderr
