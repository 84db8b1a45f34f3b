"""VLAN tags, byte for byte: priority tags, the priority and drop eligibility of a trunk's tags, stacked tags. On every engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.vnet.packets.engines import ENGINES, knows_tag_types, running
from vnet.lab import Lab
from vnet.lab.netns import NetnsDriver
from vnet.objects import Vif
from vnet.sim import Station
from vnet.testing import PoolUnderTest

DOCUMENT = b"""
apiVersion: vnet/v1
pool: tags
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  lan: {type: vxlan}
  native: {type: vlan, tag: untagged, uplink: trunk0}
  prod: {type: vlan, tag: 120, uplink: trunk0}
defaults: {vif: {locking-mode: unlocked}}
vms:
  in-lan: {host: xen1, vifs: [{network: lan}]}
  far-lan: {host: xen2, vifs: [{network: lan}]}
  plain: {host: xen1, vifs: [{network: native}]}
  some: {host: xen1, vifs: [{network: native, trunk: [77, 120]}]}
  all: {host: xen1, vifs: [{network: native, trunk: all}]}
  far-all: {host: xen2, vifs: [{network: native, trunk: all}]}
  far-some: {host: xen2, vifs: [{network: native, trunk: [77, 120]}]}
  web: {host: xen1, vifs: [{network: prod}]}
  far-web: {host: xen2, vifs: [{network: prod}]}
"""
TRUNKS = ["all", "far-all", "far-some", "some"]
NATIVE, PROD = sorted([*TRUNKS, "plain"]), sorted([*TRUNKS, "far-web", "web"])
BROADCAST = "ff:ff:ff:ff:ff:ff"
WITH_STATIONS = [ENGINES[0], ENGINES[2]]


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as made:
        yield made


def marks(pool: PoolUnderTest) -> list[tuple[int, int]]:
    """Priorities and drop eligibilities of tags.

    With its userspace datapath Open vSwitch reads every frame of a kernel device without its DEI (eth_push_vlan in lib/packets.c).
    """
    kernel_ports = isinstance(pool, Lab) and isinstance(pool.driver, NetnsDriver)
    return [(prio, dei) for prio in (0, 5, 7) for dei in ((0,) if kernel_ports else (0, 1))]


def packet(source: Vif, *tags: Packet, to: str = BROADCAST) -> Packet:
    frame: Packet = Ether(src=source.mac, dst=to)
    for tag in tags:
        frame /= tag
    return frame / IP(src="10.200.0.9", dst="10.200.0.1", tos=4) / UDP() / Raw(b"?" * 40)


def got(pool: PoolUnderTest, source: str | Station, frame: Packet) -> dict[str, list[bytes]]:
    """The frames that VIFs got, by the VM's name."""
    result = pool.send(source, bytes(frame))
    return {to.removesuffix("/0"): result.at(to) for to in result.to if to.endswith("/0")}


def expected(receivers: list[str], sender: str, frame: Packet) -> dict[str, list[bytes]]:
    return {name: [bytes(frame)] for name in receivers if name != sender}


@pytest.mark.parametrize("prio", [0, 5])
@pytest.mark.parametrize("sender", ["in-lan", "plain", "some", "all", "web"])
def test_a_priority_tag_of_a_vif_is_no_vlan(pool: PoolUnderTest, sender: str, prio: int) -> None:
    me = pool.vif(sender)
    plain = packet(me)
    found = got(pool, sender, packet(me, Dot1Q(vlan=0, prio=prio, dei=1)))
    if sender == "in-lan":
        assert found == {"far-lan": [bytes(plain)]}
    elif sender == "web":
        tagged = packet(me, Dot1Q(vlan=120, prio=prio))
        assert found == expected(TRUNKS, sender, tagged) | {"far-web": [bytes(plain)]}
    else:
        assert found == expected(NATIVE, sender, plain)


@pytest.mark.parametrize("tag", [77, 120])
@pytest.mark.parametrize("sender", ["some", "all"])
def test_a_trunk_keeps_the_priority_and_the_drop_eligibility(pool: PoolUnderTest, sender: str, tag: int) -> None:
    me = pool.vif(sender)
    access = {name: [bytes(packet(me))] for name in ("web", "far-web") if tag == 120}
    for prio, dei in marks(pool):
        frame = packet(me, Dot1Q(vlan=tag, prio=prio, dei=dei))
        assert got(pool, sender, frame) == expected(TRUNKS, sender, frame) | access
        for peer in {"some", "all", "far-some"} - {sender}:
            frame = packet(me, Dot1Q(vlan=tag, prio=prio, dei=dei), to=pool.vif(peer).mac)
            assert got(pool, sender, frame)[peer] == [bytes(frame)]


def test_a_trunk_for_all_tags_keeps_them_on_a_tag_that_no_network_has(pool: PoolUnderTest) -> None:
    me = pool.vif("all")
    for prio, dei in marks(pool):
        frame = packet(me, Dot1Q(vlan=3000, prio=prio, dei=dei))
        assert got(pool, "all", frame) == {"far-all": [bytes(frame)]}


@pytest.mark.parametrize("inner", [Dot1Q(vlan=77), Dot1Q(vlan=120), Dot1Q(vlan=0), Dot1Q(vlan=120, type=0x88A8)])
def test_stacked_tags_pass_between_trunks_and_reach_nobody_else(pool: PoolUnderTest, inner: Dot1Q) -> None:
    for sender in ("some", "all"):
        me = pool.vif(sender)
        for outer in (77, 120):
            frame = packet(me, Dot1Q(vlan=outer, prio=3), inner, Dot1Q(vlan=120))
            assert got(pool, sender, frame) == expected(TRUNKS, sender, frame)


@pytest.mark.parametrize("sender", ["in-lan", "plain", "some", "all", "web"])
def test_a_tag_behind_a_priority_tag_reaches_nobody(pool: PoolUnderTest, sender: str) -> None:
    me = pool.vif(sender)
    for inner in (77, 120):
        assert got(pool, sender, packet(me, Dot1Q(vlan=0), Dot1Q(vlan=inner))) == {}
        outer = Ether(src=me.mac, dst=BROADCAST, type=0x88A8) / Dot1Q(vlan=0)
        assert got(pool, sender, outer / Dot1Q(vlan=inner) / ARP()) == {}


@pytest.mark.parametrize("sender", ["some", "all", "in-lan", "web"])
def test_a_service_tag_is_no_vlan(pool: PoolUnderTest, sender: str) -> None:
    """A tag of type 0x88a8 (802.1Q-2018 §9.5) from a VIF reaches nobody, with or without other tags behind it. Where its type is not known, a trunk's counts as one of 802.1Q, always."""
    me = pool.vif(sender)
    counts = sender in TRUNKS and not knows_tag_types(pool)
    for tag in (77, 120, 3000):
        for behind in (Raw(b""), Dot1Q(vlan=77), Dot1Q(vlan=120) / Dot1Q(vlan=77)):
            for inside in (IP(src="10.200.0.9", dst="10.200.0.1") / UDP(), ARP()):
                service, customer = (
                    Ether(src=me.mac, dst=BROADCAST, type=tag_type) / Dot1Q(vlan=tag, prio=3) / behind / inside
                    for tag_type in (0x88A8, 0x8100)
                )
                assert got(pool, sender, service) == (got(pool, sender, customer) if counts else {})


@pytest.mark.parametrize("sender", ["some", "all"])
def test_any_frame_passes_behind_a_tag(pool: PoolUnderTest, sender: str) -> None:
    """Of whatever type: the tag is looked at by reading the frame anew."""
    me = pool.vif(sender)
    for payload in (
        ARP(),
        Raw(b"\x88\xb5" + bytes(50)),
        Raw(b"\0\x20" + bytes(50)),
        Raw(b"\x88\x47\0\x10\x01\x40" + bytes(50)),
    ):
        frame = (
            Ether(src=me.mac, dst=BROADCAST, type=0x8100)
            / Raw(b"\x60\x4d")
            / (Raw(b"\x08\x06") / payload if isinstance(payload, ARP) else payload)
        )
        assert got(pool, sender, frame) == expected(TRUNKS, sender, frame), bytes(frame).hex()


@pytest.mark.parametrize("pool", WITH_STATIONS, indirect=True)
def test_tags_of_a_station(pool: PoolUnderTest) -> None:
    wire = pool.station("trunk0")
    mac = "0c:00:00:00:00:01"

    def frame(*tags: Packet) -> Packet:
        built: Packet = Ether(src=mac, dst=BROADCAST)
        for tag in tags:
            built /= tag
        return built / IP(src="10.200.0.9", dst="10.200.0.1") / UDP() / Raw(b"?" * 40)

    assert got(pool, wire, frame(Dot1Q(vlan=0, prio=5))) == expected(NATIVE, "", frame())
    for prio, dei in marks(pool):
        tagged = frame(Dot1Q(vlan=120, prio=prio, dei=dei))
        access = {name: [bytes(frame())] for name in ("web", "far-web")}
        assert got(pool, wire, tagged) == expected(TRUNKS, "", tagged) | access
    stacked = frame(Dot1Q(vlan=120, prio=2), Dot1Q(vlan=77))
    assert got(pool, wire, stacked) == expected(TRUNKS, "", stacked)
    if isinstance(
        pool, Lab
    ):  # the twin's physical switch takes the priority tag off, so that the other one is the first
        assert got(pool, wire, frame(Dot1Q(vlan=0), Dot1Q(vlan=120))) == {}
    me = pool.vif("all")
    for prio, dei in marks(pool):
        sent = packet(me, Dot1Q(vlan=120, prio=prio, dei=dei))
        assert pool.send("all", bytes(sent)).at(wire.name) == [bytes(sent)]
