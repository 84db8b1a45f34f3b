"""VIFs in groups that drop everything still find neighbours and addresses, and nothing else passes for that. On every engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.dhcp6 import DHCP6_Solicit
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6MLReport, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_RS, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.vnet.packets.engines import ENGINES, receivers, running
from tests.vnet.packets.test_guard import ALL_ROUTERS, SERVERS, Build, ip6, ra, v4, v6
from vnet.testing import PoolUnderTest

DOCUMENT = b"""
apiVersion: vnet/v1
pool: shut
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  lan: {type: vxlan}
  prod: {type: vlan, tag: 120, uplink: trunk0}
security-groups:
  shut: {default: {ingress: drop, egress: drop}}
vms:
  shut: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"], security-groups: [shut]}]}
  near: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.2, "fd00:1::2"]}]}
  far: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"]}]}
  router: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.4, "fd00:1::4"], router: true}]}
  dhcp: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.5, "fd00:1::5"], dhcp-server: true}]}
  server: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.6, "fd00:1::6"], dhcp-server: true}]}
  free: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.7, "fd00:1::7"], locking-mode: unlocked}]}
  wired: {host: xen1, vifs: [{network: prod, addresses: [10.2.0.1, "fd00:2::1"], security-groups: [shut]}]}
"""
BROADCAST, EVERYBODY = "ff:ff:ff:ff:ff:ff", "255.255.255.255"


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as made:
        yield made


def dhcp4(src: str, dst: str, mac: str) -> Build:
    """A DHCPv4 client's message from and to addresses; `{}` is the sender's own or the peer's."""
    return lambda me, peer: (
        Ether(src=me.mac, dst=mac.format(peer.mac)) / IP(src=src.format(v4(me)), dst=dst.format(v4(peer)))
        / UDP(sport=68, dport=67) / Raw(bytes(240))
    )  # fmt: skip


def dhcp6(dst: str, mac: str) -> Build:
    return lambda me, peer: (
        ip6(me, dst.format(v6(peer)), to=mac.format(peer.mac), hlim=1) / UDP(sport=546, dport=547) / DHCP6_Solicit()
    )


def report(hop_limit: int, dst: str = "ff02::1:ff00:1", mac: str = "33:33:ff:00:00:01") -> Build:
    return lambda me, peer: (
        ip6(me, dst.format(v6(peer)), to=mac.format(peer.mac), hlim=hop_limit) / IPv6ExtHdrHopByHop() / ICMPv6MLReport()
    )


def message(packet: Packet, hop_limit: int = 255) -> Build:
    """A message of neighbour discovery to a peer."""
    return lambda me, peer: ip6(me, v6(peer), to=peer.mac, hlim=hop_limit) / packet


NEEDED: dict[str, Build] = {
    "DHCPv4 discover": dhcp4("0.0.0.0", EVERYBODY, BROADCAST),
    "DHCPv4 rebinding": dhcp4("{}", EVERYBODY, BROADCAST),
    "DHCPv6 solicit": dhcp6("ff02::1:2", "33:33:00:01:00:02"),
    "solicitation": message(ICMPv6ND_NS(tgt="fd00:1::2")),
    "advertisement": lambda me, peer: ip6(me, v6(peer), to=peer.mac) / ICMPv6ND_NA(tgt=v6(me)),
    "router solicitation": lambda me, _: ip6(me, ALL_ROUTERS) / ICMPv6ND_RS(),
    "MLD report": report(1),
}
FORBIDDEN: dict[str, Build] = {
    "DHCPv4 by unicast": dhcp4("{}", "{}", "{}"),
    "DHCPv4 to everybody's address and one MAC": dhcp4("{}", EVERYBODY, "{}"),
    "DHCPv4 to one address and everybody's MAC": dhcp4("{}", "{}", BROADCAST),
    "DHCPv6 by unicast": dhcp6("{}", "{}"),
    "DHCPv6 to all nodes": dhcp6("ff02::1", "33:33:00:00:00:01"),
    "solicitation through a router": message(ICMPv6ND_NS(tgt="fd00:1::2"), 64),
    "advertisement through a router": lambda me, peer: (
        ip6(me, v6(peer), to=peer.mac, hlim=64) / ICMPv6ND_NA(tgt=v6(me))
    ),
    "router solicitation through a router": lambda me, _: ip6(me, ALL_ROUTERS, hlim=254) / ICMPv6ND_RS(),
    "MLD report through a router": report(64),
    "MLD report by unicast": report(1, "{}", "{}"),
}


@pytest.mark.parametrize("name", NEEDED)
def test_a_message_that_finds_an_address_leaves(pool: PoolUnderTest, name: str) -> None:
    for peer in ("near", "far"):
        frame = NEEDED[name](pool.vif("shut/0"), pool.vif(f"{peer}/0"))
        assert f"{peer}/0" in receivers(pool, "shut", frame)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_nothing_else_leaves_for_it(pool: PoolUnderTest, name: str) -> None:
    for peer in ("near", "far"):
        assert receivers(pool, "shut", FORBIDDEN[name](pool.vif("shut/0"), pool.vif(f"{peer}/0"))) == []


@pytest.mark.parametrize("hop_limit", [255, 64])
def test_a_neighbours_message_comes_in_from_the_link_only(pool: PoolUnderTest, hop_limit: int) -> None:
    shut = pool.vif("shut/0")
    for sender in ("near", "far", "free"):
        me = pool.vif(f"{sender}/0")
        for packet in (ICMPv6ND_NS(tgt=v6(shut)), ICMPv6ND_NA(tgt=v6(me))):
            frame = message(packet, hop_limit)(me, shut)
            assert receivers(pool, sender, frame) == (["shut/0"] if hop_limit == 255 else [])
    frame = ip6(pool.vif("router/0"), v6(shut), to=shut.mac, hlim=hop_limit) / ICMPv6ND_RA()
    assert receivers(pool, "router", frame) == (["shut/0"] if hop_limit == 255 else [])


def test_a_router_advertisement_to_all_comes_in(pool: PoolUnderTest) -> None:
    assert "shut/0" in receivers(pool, "router", ra(pool.vif("router/0"), pool.vif("shut/0")))


# A client takes an answer from any port, groups take it from the server's.
ANSWERS = {
    name: build for name, build in SERVERS.items() if "relay" not in name and "port" not in name and "frag" not in name
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_of_dhcp_come_in_from_servers_only(pool: PoolUnderTest, name: str) -> None:
    shut = pool.vif("shut/0")
    for sender in ("dhcp", "server"):
        assert "shut/0" in receivers(pool, sender, ANSWERS[name](pool.vif(f"{sender}/0"), shut))
    for sender in ("free", "near", "far"):
        assert "shut/0" not in receivers(pool, sender, ANSWERS[name](pool.vif(f"{sender}/0"), shut))
    asked = dhcp4("{}", "{}", "{}")(pool.vif("near/0"), shut)
    assert receivers(pool, "near", asked) == [], "it is no server"


def test_answers_of_dhcp_come_in_from_the_physical_network(pool: PoolUnderTest) -> None:
    station, wired = pool.station("trunk0", 120), pool.vif("wired/0")
    for protocol in (
        IP(src="10.2.0.9", dst="10.2.0.1") / UDP(sport=67, dport=68),
        IP(src="10.2.0.9", dst=EVERYBODY) / UDP(sport=67, dport=68),
    ):
        frame = bytes(Ether(src="0c:00:00:00:00:01", dst=wired.mac) / protocol / Raw(bytes(240)))
        assert pool.send(station, frame).at("wired/0") == [frame]
    other = bytes(
        Ether(src="0c:00:00:00:00:01", dst=wired.mac)
        / IP(src="10.2.0.9", dst="10.2.0.1")
        / UDP(dport=68)
        / Raw(bytes(240))
    )
    assert pool.send(station, other).at("wired/0") == []
