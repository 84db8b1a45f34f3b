"""VIFs that move on VLANs: every tag of a trunk, a guest that says nothing, a move soon after another. On every engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.vnet.packets.arrivals import Move, arrived, still
from tests.vnet.packets.engines import ENGINES, running
from vnet.lab import Driver
from vnet.objects import Vif
from vnet.sim import SimPool, Station
from vnet.testing import PoolUnderTest

DOCUMENT = b"""
apiVersion: vnet/v1
pool: moves
underlay: {mtu: 1600}
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
  xen3: {address: 10.99.0.3, uplinks: {trunk0: {members: [eth1]}}}
networks:
  native: {type: vlan, tag: untagged, uplink: trunk0}
  v77: {type: vlan, tag: 77, uplink: trunk0}
  v101: {type: vlan, tag: 101, uplink: trunk0}
vms:
  some: {host: xen1, vifs: [{network: native, trunk: [77, 101, 300]}]}
  all: {host: xen1, vifs: [{network: native, trunk: all}]}
  web: {host: xen1, vifs: [{network: v77}]}
  n1: {host: xen1, vifs: [{network: native}]}
  n3: {host: xen3, vifs: [{network: native}]}
  a1: {host: xen1, vifs: [{network: v77}]}
  a2: {host: xen2, vifs: [{network: v77}]}
  a3: {host: xen3, vifs: [{network: v77}]}
  b1: {host: xen1, vifs: [{network: v101}]}
  b3: {host: xen3, vifs: [{network: v101}]}
"""
TAGS = (0, 77, 101, 300)  # of the trunk of VM `some`; 0: untagged
SENDERS = {0: ("n1", "n3"), 77: ("a1", "a2", "a3"), 101: ("b1", "b3")}  # VMs of each tag


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as made:
        yield made


def frame(source: str, to: str, *tags: int) -> Packet:
    built: Packet = Ether(src=source, dst=to)
    for tag in tags:
        built /= Dot1Q(vlan=tag)
    return built / IP(src="10.200.0.9", dst="10.200.0.1", tos=4) / UDP() / Raw(b"?" * 40)


def got(pool: PoolUnderTest, sender: str | Station, to: str, *sent: Packet) -> list[bytes]:
    """The frames that a VIF gets, but for those by which agents announce a VIF that has moved, for some seconds."""
    frames = [bytes(packet) for packet in sent]
    return [item for item in pool.send(sender, frames).at(f"{to}/0") if not is_announcement(item)]


def is_announcement(found: bytes) -> bool:
    """A RARP, or a gratuitous ARP about no address."""
    packet = Ether(found)
    return b"\x80\x35" in found[12:18] or (ARP in packet and packet[ARP].psrc == packet[ARP].pdst == "0.0.0.0")


def expect(pool: PoolUnderTest, vm: str, *, reached: bool = True) -> None:
    """A VM gets what stations and VIFs on every host send it, once, on each of its tags, byte for byte; or nothing of it."""
    me = pool.vif(vm)
    for tag, sender, plain in frames(pool, me):
        tagged = frame(plain.src, me.mac, *([tag] if tag and me.trunk else []))
        assert got(pool, sender, vm, plain) == ([bytes(tagged)] if reached else []), (sender, tag)
    if isinstance(pool, SimPool) or pool.spec.driver is Driver.NETNS:  # type: ignore[attr-defined]
        wire = pool.station("trunk0")
        sent = [frame("0c:00:00:00:00:01", me.mac, *([tag] if tag else [])) for tag in (TAGS if me.trunk else (77,))]
        seen = sent if me.trunk else [frame("0c:00:00:00:00:01", me.mac)]
        assert sorted(got(pool, wire, vm, *sent)) == (sorted(map(bytes, seen)) if reached else [])


def frames(pool: PoolUnderTest, me: Vif) -> Iterator[tuple[int, str, Packet]]:
    for tag, senders in SENDERS.items():
        if me.trunk is not None or tag == 77:
            for sender in senders:
                yield tag, sender, frame(pool.vif(sender).mac, me.mac)


def heard(pool: PoolUnderTest, vm: str) -> None:
    """The physical switches know the VM on each of its tags."""
    me = pool.vif(vm)
    tags = TAGS if me.trunk else (0,)
    pool.send(vm, [bytes(frame(me.mac, "ff:ff:ff:ff:ff:ff", *([tag] if tag else []))) for tag in tags])


@pytest.mark.parametrize("vm", ["some", "all", "web"])
def test_a_guest_that_says_nothing_is_reached_on_each_of_its_tags(pool: PoolUnderTest, vm: str) -> None:
    heard(pool, vm)
    move = Move(pool, vm, "xen2")
    move.prepare()
    expect(pool, vm)
    move.arrive()
    expect(pool, vm, reached=False)
    move.activate()
    expect(pool, vm)
    move.finish()
    expect(pool, vm)
    heard(pool, vm)
    pool.migrate(vm, "xen1", announce=False)
    expect(pool, vm)


@pytest.mark.parametrize("tag", [0, 77, 300])
@pytest.mark.parametrize("vm", ["some", "all"])
def test_an_announcement_on_any_tag_of_a_trunk_opens_its_port(pool: PoolUnderTest, vm: str, tag: int) -> None:
    me = pool.vif(vm)
    arp = Ether(src=me.mac, dst="ff:ff:ff:ff:ff:ff")
    if tag:
        arp /= Dot1Q(vlan=tag)
    arp /= ARP(op=2, hwsrc=me.mac, psrc="10.200.0.7", pdst="10.200.0.7")
    foreign = frame(me.mac, "ff:ff:ff:ff:ff:ff", 999)
    heard(pool, vm)
    with arrived(pool, vm, "xen2"):
        if vm == "some":
            assert got(pool, vm, "all", foreign) == []
        other = "all" if vm == "some" else "some"
        assert got(pool, vm, other, arp) == [bytes(arp)]
        expect(pool, vm)


@pytest.mark.parametrize("vm", ["some", "all", "web"])
def test_a_move_soon_after_another_is_sent_to_by_the_host_left_first(pool: PoolUnderTest, vm: str) -> None:
    heard(pool, vm)
    first = Move(pool, vm, "xen2")
    first.prepare()
    first.arrive(announce=True)
    if isinstance(pool, SimPool):
        first.activate()  # and xen1 still relays
    else:
        first.finish()
    second = Move(pool, vm, "xen3")
    second.prepare()
    expect(pool, vm)
    with still(pool, "xen1", "xen2"):  # they go on as they were told when it was prepared
        second.arrive(announce=True)
        expect(pool, vm)
    second.finish()
    expect(pool, vm)
    pool.migrate(vm, "xen1")
    expect(pool, vm)
