"""Networks with a service tag (802.1ad), byte for byte: guests' own tags travel inside it, and no other VLAN hears of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.vnet.packets.arrivals import Move
from tests.vnet.packets.engines import ENGINES, knows_tag_types, running
from vnet.sim import Station
from vnet.testing import PoolUnderTest

DOCUMENT = b"""
apiVersion: vnet/v1
pool: carriers
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  carrier: {type: vlan, tag: 40, tpid: 0x88a8, uplink: trunk0}
  native: {type: vlan, tag: untagged, uplink: trunk0}
  prod: {type: vlan, tag: 41, uplink: trunk0}
defaults: {vif: {locking-mode: unlocked}}
vms:
  one: {host: xen1, vifs: [{network: carrier}]}
  near: {host: xen1, vifs: [{network: carrier}]}
  far: {host: xen2, vifs: [{network: carrier}]}
  all: {host: xen1, vifs: [{network: native, trunk: all}]}
  some: {host: xen2, vifs: [{network: native, trunk: [40, 41]}]}
  web: {host: xen1, vifs: [{network: prod}]}
"""
BROADCAST, STATION = "ff:ff:ff:ff:ff:ff", "0a:00:00:00:00:99"
INSIDE = [(), (Dot1Q(vlan=7, prio=3),), (Dot1Q(vlan=40),), (Dot1Q(vlan=7), Dot1Q(vlan=8))]


@pytest.fixture(scope="module", params=[ENGINES[0], ENGINES[2]])
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as pool:
        yield pool


@pytest.fixture(scope="module")
def station(pool: PoolUnderTest) -> Station:
    return pool.station("trunk0")


def packet(source: str, *tags: Packet, to: str = BROADCAST) -> bytes:
    frame: Packet = Ether(src=source, dst=to)
    for tag in tags:
        frame /= tag.copy()
    return bytes(frame / IP(src="10.200.0.9", dst="10.200.0.1", tos=4) / UDP() / Raw(b"?" * 40))


def got(pool: PoolUnderTest, source: str | Station, frame: bytes) -> dict[str, list[bytes]]:
    result = pool.send(source, frame)
    return {to: result.at(to) for to in result.to}


@pytest.mark.parametrize("inside", INSIDE, ids=["untagged", "tagged", "as outside", "stacked"])
def test_guests_tags_travel_inside_the_service_tag(
    pool: PoolUnderTest, station: Station, inside: tuple[Packet, ...]
) -> None:
    """Within a host, to another one and to the physical network and back, by broadcast and by unicast."""
    plain, wire = packet(pool.vif("one").mac, *inside), packet(pool.vif("one").mac, Dot1AD(vlan=40), *inside)
    assert got(pool, "one", plain) == {"near/0": [plain], "far/0": [plain], station.name: [wire]}
    for peer in ("near", "far"):
        frame = packet(pool.vif("one").mac, *inside, to=pool.vif(peer).mac)
        assert got(pool, "one", frame)[f"{peer}/0"] == [frame]
    answer = packet(STATION, *inside)
    members = {f"{name}/0": [answer] for name in ("one", "near", "far")}
    assert got(pool, station, packet(STATION, Dot1AD(vlan=40), *inside)) == members


def the_number_of_a_tag_decides_alone(pool: PoolUnderTest, station: Station) -> None:
    """It is of the type that the network with that number states, and trunks lack the number of a service tag: else they would send into its network."""
    plain = packet(STATION)
    members = {f"{name}/0": [plain] for name in ("one", "near", "far")}
    for tag in (Dot1AD(vlan=40), Dot1Q(vlan=40)):
        assert got(pool, station, packet(STATION, tag)) == members
    for tag in (Dot1Q(vlan=41), Dot1AD(vlan=41)):
        tagged = packet(STATION, Dot1Q(vlan=41))
        assert got(pool, station, packet(STATION, tag)) == {"all/0": [tagged], "some/0": [tagged], "web/0": [plain]}
    for trunk, tag in product(("all", "some"), (Dot1Q(vlan=40), Dot1AD(vlan=40))):
        assert got(pool, trunk, packet(pool.vif(trunk).mac, tag)) == {}


def test_tags_of_two_types_are_two_vlans(pool: PoolUnderTest, station: Station) -> None:
    """A service tag that no network has, and a customer's tag with the number of a service tag, reach nobody of the other type."""
    if not knows_tag_types(pool):
        the_number_of_a_tag_decides_alone(pool, station)
        return
    assert got(pool, station, packet(STATION, Dot1AD(vlan=41))) == {}
    customer = packet(STATION, Dot1Q(vlan=40))
    assert got(pool, station, customer) == {"all/0": [customer], "some/0": [customer]}
    untagged, tagged = packet(STATION), packet(STATION, Dot1Q(vlan=41))
    assert got(pool, station, tagged) == {"all/0": [tagged], "some/0": [tagged], "web/0": [untagged]}
    mine = packet(pool.vif("all").mac, Dot1Q(vlan=40))
    assert got(pool, "all", mine) == {"some/0": [mine], station.name: [mine]}


def test_a_vif_moves_with_its_guests_tags(pool: PoolUnderTest, station: Station) -> None:
    """From its own host, its destination and the physical network it is reached once, at each step, and only with the service tag."""
    me = pool.vif("one").mac
    move = Move(pool, "one", "xen2")

    def reached() -> None:
        inside = Dot1Q(vlan=7, prio=3)
        for peer in ("near", "far"):
            frame = packet(pool.vif(peer).mac, inside, to=me)
            assert got(pool, peer, frame).get("one/0") == [frame], peer
        frame = packet(STATION, inside, to=me)
        assert got(pool, station, packet(STATION, Dot1AD(vlan=40), inside, to=me)).get("one/0") == [frame]
        customer = got(pool, station, packet(STATION, Dot1Q(vlan=40), inside, to=me))
        assert ("one/0" in customer) is not knows_tag_types(pool)

    move.prepare()
    reached()
    move.arrive(announce=True)
    answer = packet(me, Dot1Q(vlan=7))
    wire = packet(me, Dot1AD(vlan=40), Dot1Q(vlan=7))
    heard = got(pool, "one", answer)  # beside the agent's announcement to the physical network
    assert {to: [frame for frame in frames if frame in (answer, wire)] for to, frames in heard.items()} == {
        "near/0": [answer],
        "far/0": [answer],
        station.name: [wire],
    }
    reached()
    move.finish()
    reached()
    pool.migrate("one", "xen1")
    reached()
