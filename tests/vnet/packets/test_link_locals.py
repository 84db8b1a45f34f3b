"""Link-local addresses that locked guests choose for themselves (RFC 7217, RFC 8981): first come, first served. On every engine."""

from __future__ import annotations

from collections.abc import Iterator
from socket import AF_INET6, inet_ntop

import pytest
from scapy.layers.dhcp6 import DHCP6_Solicit
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.vnet.packets.engines import ENGINES, receivers, running
from vnet.lab import Lab
from vnet.objects import Vif
from vnet.objects.link_local import MAX_LINK_LOCALS, link_local
from vnet.sim import Deliveries
from vnet.testing import PoolUnderTest
from vnet.util.frames import neighbor_advertisement, used_address

DOCUMENT = b"""
apiVersion: vnet/v1
pool: neighbours
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  lan: {type: vxlan}
  plain: {type: vlan, uplink: trunk0, tag: untagged}
  tagged: {type: vlan, uplink: trunk0, tag: 77}
security-groups:
  web: {}
  db:
    default: {ingress: drop}
    rules: [{name: from-web, direction: ingress, action: allow, protocol: udp, ports: [53], remote: web}]
vms:
  guest: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"]}]}
  near: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.2, "fd00:1::2", "fe80::2"]}]}
  far: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"]}]}
  four: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.4]}]}
  web: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.5, "fd00:1::5"], security-groups: [web]}]}
  db: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.6, "fd00:1::6"], security-groups: [db]}]}
  trunk: {host: xen1, vifs: [{network: plain, addresses: [10.2.0.1, "fd00:2::1"], trunk: [77]}]}
  beside: {host: xen2, vifs: [{network: plain, addresses: [10.2.0.2, "fd00:2::2"]}]}
  inside: {host: xen2, vifs: [{network: tagged, addresses: [10.3.0.2, "fd00:3::2"]}]}
"""
LAN = {"guest/0", "near/0", "far/0", "four/0", "web/0", "db/0"}
ALL_NODES, ALL_ROUTERS, ALL_SERVERS = "ff02::1", "ff02::2", "ff02::1:2"


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as made:
        yield made


def ip6(me: Vif, src: str, dst: str = ALL_NODES, to: str = "", **more: int) -> Packet:
    group = f"33:33:00:00:00:{int(dst.rpartition(':')[2] or '1', 16) % 256:02x}"
    return Ether(src=me.mac, dst=to or group) / IPv6(src=src, dst=dst, **more)


def detection(me: Vif, target: str) -> Packet:
    """A neighbour solicitation of duplicate address detection (RFC 4862 §5.4.2)."""
    return ip6(me, "::", hlim=255) / ICMPv6ND_NS(tgt=target)


def solicitation(me: Vif, src: str, target: str) -> Packet:
    return ip6(me, src, hlim=255) / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=me.mac)


def advertisement(me: Vif, src: str, target: str) -> Packet:
    return ip6(me, src, hlim=255) / ICMPv6ND_NA(tgt=target, R=0) / ICMPv6NDOptDstLLAddr(lladdr=me.mac)


def ping(me: Vif, src: str, peer: Vif) -> Packet:
    return ip6(me, src, link_local(peer.mac), peer.mac) / ICMPv6EchoRequest()


def query(me: Vif, src: str, peer: Vif) -> Packet:
    return ip6(me, src, peer.addresses[1], peer.mac) / UDP(sport=5353, dport=53)


def got(pool: PoolUnderTest, sender: str, frame: Packet) -> set[str]:
    return set(receivers(pool, sender, frame))


def sent(pool: PoolUnderTest, sender: str, frame: Packet, *awaited: bytes) -> Deliveries:
    """All that anyone got of a frame that goes by the agent, which may be busy."""
    if isinstance(pool, Lab):
        return pool.send(f"{sender}/0", bytes(frame), awaited=awaited)
    return pool.send(f"{sender}/0", bytes(frame))


def check_granted(pool: PoolUnderTest, sender: str, frame: Packet, receivers: set[str]) -> None:
    """These get a frame with an address that its sender uses for the first time, and all hosts know the address afterwards."""
    whole = bytes(frame)
    got = sent(pool, sender, frame, *[whole] * len(receivers))
    assert sorted(item.to for item in got if item.frame == whole) == sorted(receivers)
    if isinstance(pool, Lab):
        octets = used_address(whole)
        assert octets is not None
        address, vif = inet_ntop(AF_INET6, octets), f"{sender}/0"
        pool.daemons.wait(
            lambda view: any(
                address == known.address for b in view.bindings_of[vif].values() for known in b.link_locals
            ),
            f"{address} is known to the pool",
        )
        pool.daemons.settle()


def others(sender: str) -> set[str]:
    return LAN - {f"{sender}/0"}


FIRST = {
    "detection": detection,
    "router solicitation": lambda me, mine: ip6(me, mine, ALL_ROUTERS, hlim=255) / ICMPv6ND_RS(),
    "listener report": lambda me, mine: ip6(me, mine, "ff02::16", hlim=1) / ICMPv6MLReport2(),
    "solicitation": lambda me, mine: solicitation(me, mine, "fe80::99"),
    "answer to who looks for it": lambda me, mine: advertisement(me, mine, mine),
    "DHCPv6": lambda me, mine: ip6(me, mine, ALL_SERVERS) / UDP(sport=546, dport=547) / DHCP6_Solicit(),
}


@pytest.mark.parametrize(("number", "first"), list(enumerate(FIRST, 0x21)), ids=list(FIRST))
def test_what_a_guest_uses_first_is_its_own(pool: PoolUnderTest, number: int, first: str) -> None:
    """Each message may be the first that a guest sends; it is delivered, and then all that it may send as itself is."""
    sender = "far" if number % 2 else "web"  # a guest may choose four addresses at once
    me, peer = pool.vif(f"{sender}/0"), pool.vif("near/0")
    mine = f"fe80::{number:x}:1"
    frame = FIRST[first](me, mine)
    # What leaves the link is for the groups to judge, and goes to whoever listens.
    check_granted(pool, sender, frame, others(sender) - ({"db/0"} if first == "DHCPv6" else set()))
    assert got(pool, sender, ping(me, mine, peer)) == {"near/0"}
    assert got(pool, sender, solicitation(me, mine, link_local(peer.mac))) == others(sender)
    for source, target in ((mine, mine), (mine, me.addresses[1]), (me.addresses[1], mine), (mine, link_local(me.mac))):
        assert got(pool, sender, advertisement(me, source, target)) == others(sender), (source, target)


def test_nobody_has_what_is_a_neighbours(pool: PoolUnderTest) -> None:
    """By the neighbour's MAC, by declaration, by its choice; nor what it only advertises beside its own."""
    me, near, far = pool.vif("guest/0"), pool.vif("near/0"), pool.vif("far/0")
    check_granted(pool, "near", detection(near, "fe80::7:7"), others("near"))
    for theirs in (link_local(near.mac), link_local(far.mac), "fe80::2", "fe80::7:7"):
        assert got(pool, "guest", detection(me, theirs)) == set(), theirs
        assert got(pool, "guest", solicitation(me, theirs, link_local(far.mac))) == set(), theirs
        assert got(pool, "guest", advertisement(me, theirs, theirs)) == set(), theirs
        assert got(pool, "guest", advertisement(me, me.addresses[1], theirs)) == set(), theirs
        assert got(pool, "guest", ping(me, theirs, far)) == set(), theirs
    assert got(pool, "near", ping(near, "fe80::7:7", far)) == {"far/0"}


def test_who_asks_for_a_neighbours_address_is_told(pool: PoolUnderTest) -> None:
    """As the neighbour would, which does not hear the question: its guest chooses another one (RFC 4862 §5.4.4)."""
    me, near = pool.vif("far/0"), pool.vif("near/0")
    theirs = link_local(near.mac)
    expected = neighbor_advertisement(near.mac, theirs, router=False)
    (answer,) = sent(pool, "far", detection(me, theirs), expected).items
    assert (answer.to, answer.frame) == ("far/0", expected)
    assert got(pool, "far", ping(me, theirs, near)) == set()
    # The agent takes one after the other: of the ping it has told nobody anything.
    assert [item.frame for item in sent(pool, "far", detection(me, theirs), expected)] == [expected]


def test_what_else_a_locked_vif_must_not_send_it_does_not_send_as_its_choice(pool: PoolUnderTest) -> None:
    me, near = pool.vif("near/0"), pool.vif("guest/0")
    check_granted(pool, "near", detection(me, "fe80::7:8"), others("near"))
    assert got(pool, "near", ip6(me, "fe80::7:8", hlim=255) / ICMPv6ND_RA()) == set()
    assert (
        got(pool, "near", solicitation(me, "fe80::7:8", "fe80::9")[Ether] / ICMPv6NDOptSrcLLAddr(lladdr=near.mac))
        == set()
    )
    assert got(pool, "near", Ether(src=near.mac, dst=near.mac) / ping(me, "fe80::7:8", near)[IPv6]) == set()
    assert got(pool, "near", ip6(me, "fd00:1::77") / ICMPv6EchoRequest()) == set(), (
        "another prefix is declared or nobody's"
    )
    assert got(pool, "near", detection(me, "fd00:1::77")) == set()


def test_a_vif_without_ipv6_chooses_none(pool: PoolUnderTest) -> None:
    me = pool.vif("four/0")
    assert got(pool, "four", detection(me, "fe80::4:4")) == set()
    assert got(pool, "four", ping(me, "fe80::4:4", pool.vif("guest/0"))) == set()


def test_rules_take_a_choice_for_the_vif(pool: PoolUnderTest) -> None:
    """A rule that names a group holds for what its members send as addresses that they chose."""
    me, near, db = pool.vif("web/0"), pool.vif("near/0"), pool.vif("db/0")
    assert got(pool, "web", query(me, link_local(me.mac), db)) == {"db/0"}
    check_granted(pool, "web", detection(me, "fe80::5:5"), others("web"))
    assert got(pool, "web", query(me, "fe80::5:5", db)) == {"db/0"}
    check_granted(pool, "near", detection(near, "fe80::1:5"), others("near"))
    assert got(pool, "near", query(near, "fe80::1:5", db)) == set()


def test_a_trunk_chooses_on_its_own_network_only(pool: PoolUnderTest) -> None:
    """Its tags are other networks, and their VIFs need not be known where it is."""
    me, beside = pool.vif("trunk/0"), pool.vif("beside/0")
    check_granted(pool, "trunk", detection(me, "fe80::8:1"), {"beside/0"})
    assert got(pool, "trunk", ping(me, "fe80::8:1", beside)) == {"beside/0"}
    for frame in (detection(me, "fe80::8:1"), ip6(me, "fe80::8:1") / ICMPv6EchoRequest(), detection(me, "fe80::8:2")):
        tagged = bytes(frame)[:12] + b"\x81\0\0\x4d" + bytes(frame)[12:]
        assert [item.to for item in pool.send("trunk/0", tagged).items] == []
    own = bytes(ip6(me, link_local(me.mac)) / ICMPv6EchoRequest())
    tagged = own[:12] + b"\x81\0\0\x4d" + own[12:]
    assert [item.to for item in pool.send("trunk/0", tagged).items if item.to == "inside/0"] == ["inside/0"]


def test_the_oldest_goes_where_a_fifth_comes(pool: PoolUnderTest) -> None:
    """As of a guest that chooses anew at each boot. What went is anybody's."""
    me, far = pool.vif("db/0"), pool.vif("far/0")
    mine = [f"fe80::6:{number}" for number in range(1, MAX_LINK_LOCALS + 1)]
    for address in mine:
        check_granted(pool, "db", ping(me, address, far), {"far/0"})
    for address in mine:
        assert got(pool, "db", ping(me, address, far)) == {"far/0"}, "all four are its own"
