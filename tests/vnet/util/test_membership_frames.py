"""IGMP and MLD as bytes: scapy makes the reports and takes the queries apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.igmp import IGMP, IGMPv3_MQ, IGMPv3_MR, IGMPv3_MR_Group
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from vnet.util.membership_frames import NOTHING, Membership, membership, query_v4, query_v6

V4, V6, LINK_LOCAL = "239.1.1.1", "ff05::1:3", "fe80::1"


def igmp(body: Packet, source: str = "10.0.0.1") -> Packet:
    return IP(src=source, dst="224.0.0.22", ttl=1) / body


def mld(body: Packet, source: str = LINK_LOCAL, limit: int = 1) -> Packet:
    return IPv6(src=source, dst="ff02::16", hlim=limit) / IPv6ExtHdrHopByHop(options=RouterAlert()) / body


def records(*sorts_and_sources: tuple[int, list[str]]) -> Packet:
    return IGMPv3_MR(
        records=[IGMPv3_MR_Group(rtype=sort, maddr=V4, srcaddrs=found) for sort, found in sorts_and_sources]
    )


def records6(sort: int, sources: list[str]) -> Packet:
    return ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(rtype=sort, dst=V6, sources=sources)])


JOINED, LEFT, DOUBTFUL = Membership((V4,)), Membership((), (V4,)), Membership((), (), (V4,))
JOINED6, LEFT6, DOUBTFUL6 = Membership((V6,)), Membership((), (V6,)), Membership((), (), (V6,))
MEANINGS = {
    "IGMPv1 report": (igmp(IGMP(type=0x12, gaddr=V4)), JOINED),
    "IGMPv2 report": (igmp(IGMP(type=0x16, gaddr=V4)), JOINED),
    "IGMPv2 leave": (igmp(IGMP(type=0x17, gaddr=V4)), LEFT),
    "IGMPv3: all sources": (igmp(records((4, []))), JOINED),
    "IGMPv3: still all sources": (igmp(records((2, ["10.0.0.9"]))), JOINED),
    "IGMPv3: a source": (igmp(records((5, ["10.0.0.9"]))), JOINED),
    "IGMPv3: no source": (igmp(records((3, []))), LEFT),
    "IGMPv3: still no source": (igmp(records((1, []))), NOTHING),
    "IGMPv3: a source less": (igmp(records((6, ["10.0.0.9"]))), DOUBTFUL),
    "IGMPv3: two records": (igmp(records((3, []), (4, []))), Membership((V4,), (V4,))),
    "IGMPv3 with more records than there are": (igmp(IGMPv3_MR(numgrp=9, records=[IGMPv3_MR_Group(rtype=4, maddr=V4)])), JOINED),
    "IGMP of no group": (igmp(IGMP(type=0x16, gaddr="10.0.0.1")), NOTHING),
    "IGMP with a wrong checksum": (igmp(IGMP(type=0x16, gaddr=V4, chksum=1)), NOTHING),
    "IGMP in a fragment": (IP(src="10.0.0.1", dst=V4, flags="MF", proto=2) / IGMP(type=0x16, gaddr=V4), NOTHING),
    "IGMP query of a router": (igmp(IGMP(type=0x11, gaddr="0.0.0.0")), Membership(router=True)),
    "IGMP query of a switch": (igmp(IGMP(type=0x11, gaddr="0.0.0.0"), "0.0.0.0"), NOTHING),
    "PIM hello": (IP(src="10.0.0.1", dst="224.0.0.13", proto=103) / Raw(b"\x20" + bytes(7)), Membership(router=True)),
    "PIM join": (IP(src="10.0.0.1", dst="224.0.0.13", proto=103) / Raw(b"\x23" + bytes(7)), NOTHING),
    "MLDv1 report": (mld(ICMPv6MLReport(mladdr=V6)), JOINED6),
    "MLDv1 report from ::": (mld(ICMPv6MLReport(mladdr=V6), "::"), JOINED6),
    "MLDv1 done": (mld(ICMPv6MLDone(mladdr=V6)), LEFT6),
    "MLDv2: all sources": (mld(records6(4, [])), JOINED6),
    "MLDv2: a source": (mld(records6(5, ["fd00::9"])), JOINED6),
    "MLDv2: no source": (mld(records6(3, [])), LEFT6),
    "MLDv2: a source less": (mld(records6(6, ["fd00::9"])), DOUBTFUL6),
    "MLD query of a router": (mld(ICMPv6MLQuery()), Membership(router=True)),
    "MLD from further away": (mld(ICMPv6MLReport(mladdr=V6), limit=64), NOTHING),
    "MLD with a wrong checksum": (mld(ICMPv6MLReport(mladdr=V6, cksum=1)), NOTHING),
    "data": (IP(src="10.0.0.1", dst=V4) / UDP() / Raw(b"x" * 20), NOTHING),
}  # fmt: skip


@pytest.mark.parametrize(("packet", "meaning"), MEANINGS.values(), ids=MEANINGS)
def test_a_frame_says(packet: Packet, meaning: Membership) -> None:
    """Padded, as short frames are. Cut short by a byte, a message says nothing more."""
    frame = bytes(Ether(src="0a:00:00:00:00:01", dst="01:00:5e:01:01:01") / packet)
    assert membership(frame.ljust(60, b"\0")) == meaning
    assert membership(frame[:-1]) == NOTHING


@given(st.sampled_from((b"\x08\0", b"\x86\xdd")), st.binary(max_size=120))
def test_no_frame_does_harm(eth_type: bytes, packet: bytes) -> None:
    """Nor does one whose first bytes are those of a report."""
    for head in (b"", b"\x46\xc0\0\x30\0\0\0\0\1\2", b"\x60\0\0\0\0\x40\0\1"):
        for group in membership(bytes(12) + eth_type + head + packet).joined:
            assert group.startswith(("2", "ff"))


def test_queries_are_what_listeners_expect() -> None:
    """IGMPv3 (RFC 3376 §4.1) and MLDv2 (RFC 3810 §5.1), general ones and for a group, with right checksums."""
    general = Ether(query_v4("02:00:00:00:00:01", "10.0.0.9", 10_000, 125))
    assert (general.dst, general[IP].dst, general[IP].ttl, general[IP].src) == (
        "01:00:5e:00:00:01",
        "224.0.0.1",
        1,
        "10.0.0.9",
    )
    assert bytes(general[IP].options[0])[:1] == b"\x94"
    query = general[IGMPv3_MQ]
    assert (query.type, query.mrcode, query.gaddr, query.qrv, query.qqic) == (0x11, 100, "0.0.0.0", 2, 125)
    asked = Ether(query_v4("02:00:00:00:00:01", "0.0.0.0", 1000, 125, V4))
    assert (asked.dst, asked[IP].dst, asked[IGMPv3_MQ].gaddr) == ("01:00:5e:01:01:01", V4, V4)
    general6 = Ether(query_v6("02:00:00:00:00:01", LINK_LOCAL, 10_000, 3600))
    assert (general6.dst, general6[IPv6].dst, general6[IPv6].hlim) == ("33:33:00:00:00:01", "ff02::1", 1)
    query6 = general6[ICMPv6MLQuery2]
    assert (query6.mrd, query6.mladdr, query6.QRV, general6[IPv6ExtHdrHopByHop].options[0].otype) == (
        10_000,
        "::",
        2,
        5,
    )
    assert (query6.QQIC & 0x0F | 0x10) << ((query6.QQIC >> 4 & 7) + 3) == 3584  # 3,600 as RFC 3376 §4.1.7 can say it
    asked6 = Ether(query_v6("02:00:00:00:00:01", LINK_LOCAL, 1000, 125, V6))
    assert (asked6.dst, asked6[IPv6].dst, asked6[ICMPv6MLQuery2].mladdr) == ("33:33:00:01:00:03", V6, V6)
    for frame, layer, field in (
        (general, IP, "chksum"),
        (general, IGMPv3_MQ, "chksum"),
        (asked, IGMPv3_MQ, "chksum"),
        (general6, ICMPv6MLQuery2, "cksum"),
        (asked6, ICMPv6MLQuery2, "cksum"),
    ):
        again = frame.copy()
        found = getattr(again[layer], field)
        delattr(again[layer], field)
        assert getattr(Ether(bytes(again))[layer], field) == found
