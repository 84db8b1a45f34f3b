"""Marked frames in the twin: watched for, they come to nobody, and are caught for exactly those who would have got them."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.examples import examples
from tests.vnet.sim.pools import two_hosts
from vnet.compile import HOPS, compile_flows, flat, mark, marked_fields, read_note
from vnet.compile.features import FEATURES
from vnet.compile.pipeline import Category
from vnet.compile.probe import WatchPoint, bare
from vnet.objects import InvalidValue
from vnet.sim import SimPool

VIFS = [
    "web1/0",
    "web1/1",
    "web1/2",
    "web2/0",
    "web2/1",
    "db1/0",
    "db1/1",
    "db1/2",
    "free1/0",
    "free1/1",
    "free2/0",
    "free2/1",
]
WATCHES = [feature for feature in FEATURES if feature.category is Category.PROBE]


@cache
def pool_while(moving: str | None = None) -> SimPool:
    """A pool in which db1 does not move, is held at its destination or is received there. Examples share it, so each undoes its sends."""
    pool = two_hosts()
    if moving is not None:
        pool.prepare("db1", "xen1")
        if moving == "receiving":
            pool.switch("db1")
    return pool


def watched(pool: SimPool, *frames: bytes) -> None:
    """Every host watches for these frames, as its agent would have it, which compiles nothing else anew."""
    for host in pool.hosts.values():
        inputs = host.view._inputs
        if inputs.probes != ({"a-probe": frames} if frames else {}):
            others = {source: flows for source, flows in host.compiled.items() if source.category is not Category.PROBE}
            inputs.set_probe("a-probe", frames)
            host._compiled = others | compile_flows(host.view, WATCHES)
            host.bridge.replace_flows(lambda host=host: flat(host.compiled))  # type: ignore[misc]
        host.bridge.punted.clear()


def noted(pool: SimPool, stage: WatchPoint) -> Counter[str]:
    """Who would have got frames, or the hosts that they came to."""
    found: Counter[str] = Counter()
    for host in pool.hosts.values():
        for told in host.bridge.punted:
            note = read_note(told.action.userdata)
            if note is None or note.stage is not stage:
                continue
            assert (note.probe, note.number) == ("a-probe", 0)
            found[host.name] += 1
    return found


def bodies(pool: SimPool, source: str, target: str) -> list[Packet]:
    a, b = pool.vif(source), pool.vif(target)
    v4 = [next((x for x in vif.addresses if "." in x), "10.77.0.1") for vif in (a, b)]
    v6 = [next((x for x in vif.addresses if ":" in x), "fd77::1") for vif in (a, b)]
    ip, ip6 = IP(src=v4[0], dst=v4[1]), IPv6(src=v6[0], dst=v6[1])
    return [
        ip / TCP(sport=50000, dport=443), ip / UDP(sport=50000, dport=53) / Raw(b"???"), ip / ICMP(), ip / Raw(b"x" * 30),
        ip6 / TCP(sport=50000, dport=443, flags="SA"), ip6 / UDP(sport=50000, dport=53), ip6 / ICMPv6EchoRequest(),
        ip6 / ICMPv6ND_NS(tgt=v6[1]), ARP(op=1, hwsrc=a.mac, psrc=v4[0], pdst=v4[1]), ARP(op=2, hwsrc=a.mac, psrc=v4[0], pdst=v4[1]),
    ]  # fmt: skip


@examples(300)
@given(
    st.sampled_from(VIFS), st.sampled_from(VIFS), st.integers(0, 9), st.booleans(), st.sampled_from((None, 10, 120)),
    st.integers(0, (1 << 64) - 1), st.sampled_from((None, "held", "receiving")),
)  # fmt: skip
def test_whoever_would_get_a_frame_is_told_and_nobody_gets_it(
    source: str, target: str, body: int, broadcast: bool, tag: int | None, nonce: int, moving: str | None
) -> None:
    pool = pool_while(moving)
    watched(pool)
    a, b = pool.vif(source), pool.vif(target)
    ether = Ether(src=a.mac, dst="ff:ff:ff:ff:ff:ff" if broadcast else b.mac)
    plain = bytes((ether if tag is None else ether / Dot1Q(vlan=tag)) / bodies(pool, source, target)[body])
    frame = mark(plain, nonce)
    assert len(frame) == len(plain)
    with pool.undone():
        got = pool.send(source, frame)
        queued = sum(len(queue) for queue in pool._waiting.values())
    watched(pool, frame)
    with pool.undone():
        caught_by_guests = pool.send(source, frame)
        assert not [item for item in caught_by_guests if item.to in VIFS]
        assert not pool._waiting
        # A switch gives nothing back to the port it came from, and tells the agent all the same: the agent leaves that out.
        caught, home = noted(pool, WatchPoint.CAUGHT), pool.runs_on(a)
        wanted = sum(item.to in VIFS for item in got) + queued
        assert caught.total() in (wanted, wanted + 1)
        assert caught.total() == wanted or (caught[home or ""] and pool.hosts[home or ""].bridge.punted[0].in_port)
        assert noted(pool, WatchPoint.CAME)[home or ""] >= 1


@examples(100)
@given(
    st.sampled_from(VIFS), st.sampled_from(VIFS), st.integers(0, 9), st.integers(0, 9), st.integers(0, (1 << 64) - 1)
)
def test_nobody_elses_frame_is_caught(source: str, target: str, body: int, other: int, nonce: int) -> None:
    """Neither the same frame without its mark, nor one with another mark, nor another frame between the same two."""
    pool = pool_while()
    watched(pool)
    a, b = pool.vif(source), pool.vif(target)
    plain = [bytes(Ether(src=a.mac, dst=b.mac) / packet) for packet in bodies(pool, source, target)]
    others = [plain[body], mark(plain[other], nonce)] if other != body else [plain[body]]
    frame = mark(plain[body], nonce)
    different = mark(plain[body], nonce + 1)
    others += [different] if marked_fields(different) != marked_fields(frame) else []
    for one in others:
        with pool.undone():
            got = [(item.to, item.frame) for item in pool.send(source, one)]
        watched(pool, frame)
        with pool.undone():
            assert [(item.to, item.frame) for item in pool.send(source, one)] == got
            assert not noted(pool, WatchPoint.CAME)
        watched(pool)


IP4, IP6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (Ether(type=0x88B5) / Raw(b"x" * 50), "only ARP, IPv4 and IPv6"), (Ether() / Raw(b""), "only ARP"),
        (Ether() / Dot1Q(vlan=1) / Dot1Q(vlan=2) / IP4, "only ARP"), (Ether() / IP(src="10.0.0.1", frag=3) / UDP(), "fragment"),
        (Ether() / IP(src="10.0.0.1", flags="MF") / UDP(), "fragment"), (Ether() / IP4 / Raw(b""), None),
        (Ether() / IP(src="10.0.0.1", proto=6) / Raw(b"short"), "cut off"), (Ether() / IP(src="10.0.0.1", len=999) / UDP(), "cut off"),
        (Ether() / IP6 / IPv6ExtHdrHopByHop() / UDP(), "extension"), (Ether() / IPv6(src="::1", plen=900) / UDP(), "cut off"),
    ],
)  # fmt: skip
def test_what_has_no_room_for_a_mark(packet: Packet, why: str | None) -> None:
    packet.src, packet.dst = "0a:00:00:00:00:01", "0a:00:00:00:00:02"
    if why is None:
        mark(bytes(packet), 7)
        return
    with pytest.raises(InvalidValue, match=why):
        mark(bytes(packet), 7)


@pytest.mark.parametrize("ttl", [1, 30, 32, 60, 63, 64, 100, 127, 128, 225, 254, 255])
def test_what_guests_send_is_never_marked(ttl: int) -> None:
    ether = Ether(src="0a:00:00:00:00:01", dst="0a:00:00:00:00:02")
    for packet in (
        IP(ttl=ttl, src="10.0.0.1") / ICMP(),
        IPv6(hlim=ttl, src="::1", fl=5) / TCP(),
        ARP(),
        ARP(hwdst="0a:00:00:00:00:02"),
    ):
        frame = bytes(ether / packet)
        with pytest.raises(InvalidValue, match="no mark"):
            marked_fields(frame)


@given(st.integers(0, (1 << 64) - 1))
def test_a_mark_leaves_the_packet_valid(nonce: int) -> None:
    ether = Ether(src="0a:00:00:00:00:01", dst="0a:00:00:00:00:02")
    for plain in (
        ether / IP4 / TCP(),
        ether / Dot1Q(vlan=5) / IP4 / ICMP(),
        ether / IP6 / TCP(),
        ether / IP6 / ICMPv6EchoRequest(),
    ):
        marked = Ether(mark(bytes(plain), nonce))
        layer = IP if IP in marked else IPv6
        assert (marked[layer].ttl if layer is IP else marked[layer].hlim) in HOPS
        again = Ether(bytes(marked))
        if layer is IP:
            del again[IP].chksum
        assert bytes(again.__class__(bytes(again))) == bytes(marked)
        assert bare(bytes(plain))[:12] == bytes(marked)[:12]
    discovery = Ether(mark(bytes(ether / IP6 / ICMPv6ND_NS(tgt="fd00::2")), nonce))
    assert discovery[IPv6].hlim == 255
    assert discovery[IPv6].fl
