"""The source guard, frame by frame: what a locked VIF may send, and what only routers and DHCP servers may. On every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLDone,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    fragment6,
)
from scapy.layers.l2 import ARP, LLC, SNAP, Dot3, Ether
from scapy.packet import Packet, Raw

from tests.vnet.packets.arrivals import arrived
from tests.vnet.packets.engines import ENGINES, receivers, receivers_of_each, running
from vnet.objects import Vif
from vnet.objects.link_local import link_local
from vnet.testing import PoolUnderTest
from vnet.util.frames import rarp

DOCUMENT = b"""
apiVersion: vnet/v1
pool: guarded
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  lan: {type: vxlan}
vms:
  guest: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"]}]}
  near: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.2, "fd00:1::2"]}]}
  far: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"]}]}
  router: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.4, "fd00:1::4"], router: true}]}
  dhcp: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.5, "fd00:1::5"], dhcp-server: true}]}
  bare: {host: xen1, vifs: [{network: lan, addresses: []}]}
  free: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.7, "fd00:1::7"], locking-mode: unlocked}]}
"""
LOCKED, HOSTS = ("guest", "bare", "router", "dhcp"), ("guest", "bare", "dhcp")
ALL_NODES, ALL_ROUTERS = "ff02::1", "ff02::2"
GROUP_MAC = "33:33:00:00:00:01"
UNSPECIFIED = "::"


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as made:
        yield made


Build = Callable[[Vif, Vif], Packet]  # a frame from one VIF, for another where it is unicast


def v4(vif: Vif) -> str:
    return vif.addresses[0] if vif.addresses else "10.1.0.6"


def v6(vif: Vif) -> str:
    return vif.addresses[1] if vif.addresses else "fd00:1::6"


def ip6(me: Vif, dst: str = ALL_NODES, *, src: str | None = None, to: str = GROUP_MAC, **more: int) -> Packet:
    return Ether(src=me.mac, dst=to) / IPv6(
        src=link_local(me.mac) if src is None else src, dst=dst, **{"hlim": 255, **more}
    )


def behind(*headers: Packet) -> Build:
    """A router advertisement behind extension headers."""

    def build(me: Vif, _: Vif) -> Packet:
        packet = ip6(me)
        for header in headers:
            packet /= header
        return packet / ICMPv6ND_RA()

    return build


def ra(me: Vif, _: Vif) -> Packet:
    return ip6(me) / ICMPv6ND_RA()


def redirect(me: Vif, peer: Vif) -> Packet:
    return ip6(me, v6(peer), to=peer.mac) / ICMPv6ND_Redirect(tgt=link_local(me.mac), dst="fd00:9::1")


def raw_icmp6(number: int) -> Build:
    """An ICMPv6 message of a type that scapy does not build."""
    return lambda me, _: ip6(me, nh=58) / Raw(bytes((number, 0, 0, 0)) + bytes(20))


def in_snap(build: Build) -> Build:
    """The same packet in 802.3 with LLC and SNAP (RFC 1042)."""

    def wrap(me: Vif, peer: Vif) -> Packet:
        whole = build(me, peer)
        return Dot3(src=whole.src, dst=whole.dst) / LLC() / SNAP(code=whole.type) / Raw(bytes(whole.payload))

    return wrap


def fragments6(packet: Packet, size: int = 1280) -> list[Packet]:
    """The fragments of an IPv6 packet; `size` bytes each at most."""
    inner = packet[IPv6]
    whole = IPv6(src=inner.src, dst=inner.dst, hlim=inner.hlim) / IPv6ExtHdrFragment(id=77) / inner.payload
    return [Ether(src=packet.src, dst=packet.dst) / fragment for fragment in fragment6(whole, size)]


def first_fragment(message: Packet) -> Build:
    """The first fragment of an ICMPv6 message."""

    def build(me: Vif, _: Vif) -> Packet:
        return ip6(me) / IPv6ExtHdrFragment(m=1, id=7, nh=58) / message

    return build


ROUTERS: dict[str, Build] = {
    "router advertisement": ra,
    "router advertisement from a global address": lambda me, _: ip6(me, src=v6(me)) / ICMPv6ND_RA(),
    "router advertisement in SNAP": in_snap(ra),
    "behind hop-by-hop": behind(IPv6ExtHdrHopByHop()),
    "behind destination options": behind(IPv6ExtHdrDestOpt()),
    "behind a routing header": behind(IPv6ExtHdrRouting()),
    "behind an atomic fragment": behind(IPv6ExtHdrFragment()),
    "behind all of them": behind(
        IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(), IPv6ExtHdrFragment(), IPv6ExtHdrDestOpt()
    ),
    "behind an authentication header": lambda me, _: ip6(me, nh=51) / Raw(bytes((58, 1)) + bytes(10)) / ICMPv6ND_RA(),
    "redirect": redirect,
    "redirect in SNAP": in_snap(redirect),
    "multicast router advertisement": raw_icmp6(151),
    "multicast router termination": raw_icmp6(153),
    "IPv4 redirect": lambda me, peer: Ether(src=me.mac, dst=peer.mac) / IP(src=v4(me), dst=v4(peer))
    / ICMP(type=5, code=1, gw=v4(me)) / IP(src=v4(peer), dst="10.9.0.1") / UDP(),
    "IPv4 router advertisement": lambda me, _: Ether(src=me.mac, dst="01:00:5e:00:00:01") / IP(src=v4(me), dst="224.0.0.1")
    / ICMP(type=9) / Raw(bytes(8)),
}  # fmt: skip
SERVERS: dict[str, Build] = {
    "DHCPv4 offer": lambda me, _: Ether(src=me.mac, dst="ff:ff:ff:ff:ff:ff") / IP(src=v4(me), dst="255.255.255.255")
    / UDP(sport=67, dport=68) / BOOTP(op=2) / DHCP(options=[("message-type", "offer"), "end"]),
    "DHCPv4 answer by unicast": lambda me, peer: Ether(src=me.mac, dst=peer.mac) / IP(src=v4(me), dst=v4(peer))
    / UDP(sport=67, dport=68) / BOOTP(op=2) / DHCP(options=[("message-type", "ack"), "end"]),
    "DHCPv4 answer from another port": lambda me, peer: Ether(src=me.mac, dst=peer.mac) / IP(src=v4(me), dst=v4(peer))
    / UDP(sport=6767, dport=68) / BOOTP(op=2),
    "DHCPv4 answer to a relay": lambda me, peer: Ether(src=me.mac, dst=peer.mac) / IP(src=v4(me), dst=v4(peer))
    / UDP(sport=67, dport=67) / BOOTP(op=2),
    "DHCPv6 advertise": lambda me, peer: ip6(me, link_local(peer.mac), to=peer.mac, hlim=64)
    / UDP(sport=547, dport=546) / DHCP6_Advertise(),
    "DHCPv6 advertise from another port": lambda me, peer: ip6(me, link_local(peer.mac), to=peer.mac, hlim=64)
    / UDP(sport=5470, dport=546) / DHCP6_Advertise(),
    "first fragment of a DHCPv4 offer": lambda me, peer: Ether(src=me.mac, dst=peer.mac)
    / IP(src=v4(me), dst=v4(peer), flags="MF", id=5) / UDP(sport=67, dport=68, len=600) / Raw(bytes(64)),
    "first fragment of a DHCPv6 advertise": lambda me, peer: ip6(me, link_local(peer.mac), to=peer.mac, hlim=64)
    / IPv6ExtHdrFragment(m=1, id=7) / UDP(sport=547, dport=546, len=600) / Raw(bytes(64)),
}  # fmt: skip
# Headers that Open vSwitch does not read to their end, so that any message may follow.
UNDETERMINED: dict[str, Build] = {
    "fragmented router advertisement": first_fragment(ICMPv6ND_RA()),
    "fragmented redirect": first_fragment(ICMPv6ND_Redirect()),
    "fragmented advertisement of a neighbour": first_fragment(ICMPv6ND_NA()),
    "first fragment without its message": lambda me, _: ip6(me)
    / IPv6ExtHdrFragment(m=1, id=7, nh=60) / IPv6ExtHdrDestOpt(nh=58),
    "first fragment of a chain that goes on": lambda me, _: ip6(me)
    / IPv6ExtHdrFragment(m=1, id=7, nh=60) / Raw(bytes((58, 3)) + bytes(14)),
    "a fragment in a fragment": lambda me, _: ip6(me)
    / IPv6ExtHdrFragment(m=1, id=7, nh=44) / IPv6ExtHdrFragment(m=1, id=8, nh=58),
    "a chain that is cut short": lambda me, _: ip6(me, nh=60) / Raw(bytes((58, 9)) + bytes(22)),
    **{
        f"router advertisement behind protocol {number}": lambda me, _, number=number: ip6(me, nh=number)
        / Raw(bytes((58, 0)) + bytes(6)) / ICMPv6ND_RA()
        for number in (135, 139, 140, 253, 254)
    },
}  # fmt: skip
# What a host has to send, and does.
HOST: dict[str, Build] = {
    "router solicitation": lambda me, _: ip6(me, ALL_ROUTERS) / ICMPv6ND_RS(),
    "ping": lambda me, peer: ip6(me, v6(peer), to=peer.mac) / ICMPv6EchoRequest(),
    "ping behind destination options": lambda me, peer: ip6(me, v6(peer), to=peer.mac)
    / IPv6ExtHdrDestOpt() / ICMPv6EchoRequest(),
    "own advertisement with its MAC": lambda me, _: na(me, link_local(me.mac)) / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
    "solicitation with its MAC": lambda me, peer: ns(me, peer) / ICMPv6NDOptSrcLLAddr(lladdr=me.mac),
    "own advertisement": lambda me, _: ip6(me) / ICMPv6ND_NA(tgt=link_local(me.mac), R=0),
    "DHCPv6 solicit": lambda me, _: ip6(me, "ff02::1:2", to="33:33:00:01:00:02", hlim=1)
    / UDP(sport=546, dport=547) / DHCP6_Solicit(),
    "DHCPv4 renewal": lambda me, peer: Ether(src=me.mac, dst=peer.mac) / IP(src=v4(me), dst=v4(peer))
    / UDP(sport=68, dport=67) / BOOTP(op=1) / DHCP(options=[("message-type", "request"), "end"]),
    "IPv4 ping": lambda me, peer: Ether(src=me.mac, dst=peer.mac) / IP(src=v4(me), dst=v4(peer)) / ICMP(),
    "router solicitation without an address": lambda me, _: ip6(me, ALL_ROUTERS, src=UNSPECIFIED) / ICMPv6ND_RS(),
    "MLDv1 report without an address": lambda me, _: ip6(me, "ff02::1:ff00:1", src=UNSPECIFIED, hlim=1)
    / IPv6ExtHdrHopByHop() / ICMPv6MLReport(mladdr="ff02::1:ff00:1"),
    "MLDv1 done without an address": lambda me, _: ip6(me, ALL_ROUTERS, src=UNSPECIFIED, hlim=1)
    / IPv6ExtHdrHopByHop() / ICMPv6MLDone(mladdr="ff02::1:ff00:1"),
    "MLDv2 report without an address": lambda me, _: ip6(me, "ff02::16", src=UNSPECIFIED, hlim=1)
    / IPv6ExtHdrHopByHop() / ICMPv6MLReport2(),
    "IGMPv3 report without an address": lambda me, _: Ether(src=me.mac, dst="01:00:5e:00:00:16")
    / IP(src="0.0.0.0", dst="224.0.0.22", proto=2, ttl=1) / Raw(bytes.fromhex("2200f9fd0000000104000000e00000fb")),
    "detection of a duplicate": lambda me, _: ip6(me, "ff02::1:ff00:1", src=UNSPECIFIED) / ICMPv6ND_NS(tgt=v6(me)),
}  # fmt: skip
FORGED: dict[str, Build] = {
    "ARP of another's address": lambda me, peer: arp(me, v4(peer)),
    "ARP of another's address in SNAP": in_snap(lambda me, peer: arp(me, v4(peer))),
    "first fragment of 8 bytes of another's advertisement": lambda me, peer: fragments6(
        ip6(me) / ICMPv6ND_NA(tgt=v6(peer)), 40 + 8 + 8
    )[0],
    "advertisement of another's address": lambda me, peer: ip6(me) / ICMPv6ND_NA(tgt=v6(peer)),
    "advertisement of another's address in SNAP": in_snap(lambda me, peer: ip6(me) / ICMPv6ND_NA(tgt=v6(peer))),
    "detection of another's address": lambda me, peer: ip6(me, "ff02::1:ff00:1", src=UNSPECIFIED)
    / ICMPv6ND_NS(tgt=v6(peer)),
    "ping without an address": lambda me, peer: ip6(me, v6(peer), src=UNSPECIFIED, to=peer.mac) / ICMPv6EchoRequest(),
    "UDP without an address": lambda me, peer: ip6(me, v6(peer), src=UNSPECIFIED, to=peer.mac) / UDP(),
    "IGMP by unicast without an address": lambda me, peer: Ether(src=me.mac, dst=peer.mac)
    / IP(src="0.0.0.0", dst=v4(peer), proto=2) / Raw(bytes(8)),
}  # fmt: skip


# Messages that teach others another MAC, from anyone who is locked.
POISON: dict[str, Build] = {
    "ARP with another's MAC": lambda me, peer: arp(me, v4(me), peer.mac),
    "ARP with another's MAC in SNAP": in_snap(lambda me, peer: arp(me, v4(me), peer.mac)),
    "advertisement with another's MAC": lambda me, peer: na(me, v6(me)) / ICMPv6NDOptDstLLAddr(lladdr=peer.mac),
    "advertisement with another's MAC in SNAP": in_snap(
        lambda me, peer: na(me, v6(me)) / ICMPv6NDOptDstLLAddr(lladdr=peer.mac)
    ),
    "advertisement with its own MAC and another's": lambda me, peer: na(me, v6(me))
    / ICMPv6NDOptDstLLAddr(lladdr=me.mac) / ICMPv6NDOptDstLLAddr(lladdr=peer.mac),
    "solicitation with another's MAC": lambda me, peer: ns(me, peer) / ICMPv6NDOptSrcLLAddr(lladdr=peer.mac),
    "solicitation with its own MAC and another's": lambda me, peer: ns(me, peer)
    / ICMPv6NDOptSrcLLAddr(lladdr=me.mac) / ICMPv6NDOptSrcLLAddr(lladdr=peer.mac),
}  # fmt: skip


def ns(me: Vif, peer: Vif) -> Packet:
    return ip6(me, "ff02::1:ff00:1", src=v6(me)) / ICMPv6ND_NS(tgt=v6(peer))


def everyone(frame: Packet, sender: str, peer: str) -> list[str]:
    """The receivers of a frame that passes: its own, or for a group address all others of the network."""
    if not int(frame.dst[:2], 16) & 1:
        return [f"{peer}/0"]
    others = {"guest", "near", "far", "router", "dhcp", "bare", "free"} - {sender}
    return sorted(f"{name}/0" for name in others)


def judged(pool: PoolUnderTest, sender: str, build: Build, *, passes: bool) -> None:
    """A frame for a VIF on the sender's host and one for a VIF on the other host pass, or come to nobody."""
    peers = ("near", "far")
    frames = [build(pool.vif(f"{sender}/0"), pool.vif(f"{peer}/0")) for peer in peers]
    same = 2 if bytes(frames[0]) == bytes(frames[1]) else 1  # a frame to a group may be for both
    for peer, frame, got in zip(peers, frames, receivers_of_each(pool, sender, frames), strict=True):
        assert got == (sorted(everyone(frame, sender, peer) * same) if passes else []), (sender, peer)


def test_what_bridges_must_not_forward_ends_and_other_reserved_groups_pass_from_unlocked_vifs(
    pool: PoolUnderTest,
) -> None:
    """802.1Q-2018 §8.6.3: the first sixteen of them. Locked VIFs with addresses send none of either."""
    groups = {last: last >= 0x10 for last in (0x00, 0x0E, 0x0F, 0x10, 0x21, 0x2F)}
    for sender in ("free", "guest"):
        frames = {
            last: Ether(src=pool.vif(f"{sender}/0").mac, dst=f"01:80:c2:00:00:{last:02x}", type=0x88CC) / Raw(bytes(50))
            for last in groups
        }
        for (last, passes), got in zip(
            groups.items(), receivers_of_each(pool, sender, list(frames.values())), strict=True
        ):
            assert got == (everyone(frames[last], sender, "far") if passes and sender == "free" else []), (sender, last)


@pytest.mark.parametrize("name", ROUTERS)
def test_a_locked_vif_is_no_router_unless_it_says_so(pool: PoolUnderTest, name: str) -> None:
    for sender in HOSTS:
        judged(pool, sender, ROUTERS[name], passes=False)
    for sender in ("router", "free"):
        judged(pool, sender, ROUTERS[name], passes=True)


@pytest.mark.parametrize("name", SERVERS)
def test_a_locked_vif_is_no_dhcp_server_unless_it_says_so(pool: PoolUnderTest, name: str) -> None:
    for sender in ("guest", "bare", "router"):
        judged(pool, sender, SERVERS[name], passes=False)
    for sender in ("dhcp", "free"):
        judged(pool, sender, SERVERS[name], passes=True)


@pytest.mark.parametrize("name", UNDETERMINED)
def test_headers_that_cannot_be_judged_are_dropped(pool: PoolUnderTest, name: str) -> None:
    for sender in LOCKED:
        judged(pool, sender, UNDETERMINED[name], passes=False)
    judged(pool, "free", UNDETERMINED[name], passes=True)


@pytest.mark.parametrize("name", HOST)
def test_a_locked_vif_is_a_host(pool: PoolUnderTest, name: str) -> None:
    for sender in (*LOCKED, "free"):
        judged(pool, sender, HOST[name], passes=True)


@pytest.mark.parametrize("name", FORGED)
def test_a_locked_vif_with_addresses_speaks_for_no_other(pool: PoolUnderTest, name: str) -> None:
    for sender in ("guest", "router", "dhcp"):
        judged(pool, sender, FORGED[name], passes=False)
    judged(pool, "free", FORGED[name], passes=True)


@pytest.mark.parametrize("name", POISON)
def test_a_locked_vif_teaches_no_other_mac(pool: PoolUnderTest, name: str) -> None:
    for sender in LOCKED:
        judged(pool, sender, POISON[name], passes=False)
    judged(pool, "free", POISON[name], passes=True)


@pytest.mark.parametrize("reply", [False, True], ids=["request", "reply"])
def test_a_ping_in_fragments_passes_whole(pool: PoolUnderTest, reply: bool) -> None:
    me, peer = pool.vif("guest/0"), pool.vif("far/0")
    echo = (ICMPv6EchoReply if reply else ICMPv6EchoRequest)(data=bytes(range(250)) * 12)
    split = fragments6(ip6(me, v6(peer), src=v6(me), to=peer.mac, hlim=64) / echo)
    assert len(split) == 3
    for fragment in split:
        assert receivers(pool, "guest", fragment) == ["far/0"]


def test_udp_in_fragments_passes_whole(pool: PoolUnderTest) -> None:
    me, peer = pool.vif("guest/0"), pool.vif("far/0")
    for fragment in fragments6(ip6(me, v6(peer), src=v6(me), to=peer.mac) / UDP(dport=53) / Raw(bytes(3000))):
        assert receivers(pool, "guest", fragment) == ["far/0"]
    packet = IP(src=v4(me), dst=v4(peer), id=9) / UDP(dport=53) / Raw(bytes(3000))
    for part in packet.fragment(1280):
        assert receivers(pool, "guest", Ether(src=me.mac, dst=peer.mac) / part) == ["far/0"]


def na(me: Vif, target: str, *, src: str | None = None, **more: int) -> Packet:
    return ip6(me, src=src, **more) / ICMPv6ND_NA(tgt=target, R=0)


def arp(me: Vif, address: str, mac: str | None = None, to: str = "ff:ff:ff:ff:ff:ff") -> Packet:
    return Ether(src=me.mac, dst=to) / ARP(hwsrc=mac or me.mac, psrc=address, pdst=address)


OPENS: dict[str, Build] = {
    "RARP": lambda me, _: Ether(rarp(me.mac)),
    "gratuitous ARP": lambda me, _: arp(me, v4(me)),
    "advertisement": lambda me, _: na(me, v6(me)),
    "advertisement with its MAC": lambda me, _: na(me, v6(me)) / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
    "advertisement of the link-local address": lambda me, _: na(me, link_local(me.mac), src=v6(me)),
}
# Announcements that the guard drops, by sender.
FORGERIES: dict[str, dict[str, Build]] = {
    "guest": {
        "ARP with another's MAC": lambda me, peer: arp(me, v4(me), peer.mac),
        "ARP for another": lambda me, peer: arp(me, v4(peer)),
        "advertisement for another": lambda me, peer: na(me, v6(peer)),
        "advertisement from another": lambda me, peer: na(me, v6(me), src=v6(peer)),
        "advertisement that crossed a router": lambda me, _: na(me, v6(me), hlim=254),
        "advertisement that teaches another's MAC": lambda me, peer: (
            na(me, v6(me)) / ICMPv6NDOptDstLLAddr(lladdr=peer.mac)
        ),
        "ARP to a bridge": lambda me, _: arp(me, v4(me), to="01:80:c2:00:00:00"),
        "fragment of an advertisement": lambda me, _: ip6(me) / IPv6ExtHdrFragment(m=1, id=7) / ICMPv6ND_NA(tgt=v6(me)),
        "RARP from another's MAC": lambda me, peer: Ether(rarp(peer.mac)),
    },
    "bare": {
        "ARP with another's MAC": lambda me, peer: arp(me, v4(me), peer.mac),
        "RARP from another's MAC": lambda me, peer: Ether(rarp(peer.mac)),
        "advertisement that teaches another's MAC": lambda me, peer: (
            na(me, v6(me)) / ICMPv6NDOptDstLLAddr(lladdr=peer.mac)
        ),
        "advertisement that teaches two MACs": lambda me, peer: (
            na(me, v6(me)) / ICMPv6NDOptDstLLAddr(lladdr=me.mac) / ICMPv6NDOptDstLLAddr(lladdr=peer.mac)
        ),
        "advertisement from another's MAC": lambda _, peer: na(peer, v6(peer)),
    },
    "free": {"RARP from a group": lambda *_: Ether(rarp("01:00:5e:00:00:01"))},
}


def openings() -> Iterator[object]:
    """Engine, sender and announcement: all of them on the twin, and on a switch each of them once."""
    for engine in ENGINES:
        name, marks = (engine, ()) if isinstance(engine, str) else (engine.values[0], engine.marks)
        for (at, sender), (which, opening) in product(enumerate(FORGERIES), enumerate(OPENS)):
            if name == "sim" or which % len(FORGERIES) == at:
                yield pytest.param(name, sender, opening, marks=marks)


@pytest.mark.parametrize(("pool", "sender", "opening"), [*openings()], indirect=["pool"])
def test_a_held_port_is_opened_by_its_own_announcement_only(pool: PoolUnderTest, sender: str, opening: str) -> None:
    me, peer = pool.vif(f"{sender}/0"), pool.vif("far/0")
    ping = HOST["ping"](me, peer)
    with arrived(pool, sender, "xen2"):
        forgeries = {name: build(me, peer) for name, build in FORGERIES[sender].items()}
        for name, got in zip(forgeries, receivers_of_each(pool, sender, [*forgeries.values()]), strict=True):
            assert got == [], name
        assert receivers(pool, sender, ping) == [], "one of them opened the port"
        announcement = OPENS[opening](me, peer)
        assert receivers(pool, sender, announcement) == everyone(announcement, sender, "far")
        assert receivers(pool, sender, ping) == ["far/0"]
