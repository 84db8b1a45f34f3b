"""The answers to rejected packets, beside what scapy makes of the RFCs, and what must not be answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLReport,
    ICMPv6ND_NS,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from vnet.compile.rejection_frames import LOOKED_AT, answer_in_words, rejection_of

A, B = "0a:00:00:00:00:01", "0a:00:00:00:00:02"
FOUR, SIX = ("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")


def four(payload: Packet, **more: object) -> Packet:
    return Ether(src=A, dst=B) / IP(**{"src": FOUR[0], "dst": FOUR[1], **more}) / payload


def six(payload: Packet, **more: object) -> Packet:
    return Ether(src=A, dst=B) / IPv6(**{"src": SIX[0], "dst": SIX[1], **more}) / payload


def answer(packet: Packet) -> Packet | None:
    """The answer, whose checksums and lengths are those that scapy gives it."""
    found = rejection_of(bytes(packet))
    if found is None:
        return None
    assert rejection_of(bytes(packet)[:LOOKED_AT]) == found, "a frame that was cut off has the same answer"
    made = Ether(found)
    again = made.copy()
    for layer in ("IP", "TCP", "ICMP", "ICMPv6 Destination Unreachable"):
        if layer in again:
            for name in ("chksum", "cksum"):
                if name in again[layer].fields:
                    delattr(again[layer], name)
    assert bytes(again) == found, "a checksum is wrong"
    return made


@pytest.mark.parametrize("head", [four, six], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("flags", "size", "expected"),
    [
        ("S", 0, ("RA", 0, 101)), ("S", 9, ("RA", 0, 110)), ("F", 0, ("RA", 0, 101)), ("", 5, ("RA", 0, 105)),
        ("A", 5, ("R", 77, 0)), ("SA", 0, ("R", 77, 0)), ("FPA", 1, ("R", 77, 0)),
    ],
    ids=["SYN", "SYN with data", "FIN", "data", "ACK", "SYN ACK", "FIN ACK"],
)  # fmt: skip
def test_a_segment_is_reset(head: object, flags: str, size: int, expected: tuple[str, int, int]) -> None:
    options = [("MSS", 1460), ("NOP", None)]
    made = answer(head(TCP(sport=40000, dport=80, flags=flags, seq=100, ack=77, options=options) / Raw(bytes(size))))  # type: ignore[operator]
    assert made is not None
    ip = made.payload
    assert (made.src, made.dst, ip.src, ip.dst) == (B, A, *(FOUR if head is four else SIX)[::-1])
    tcp = made[TCP]
    assert (tcp.sport, tcp.dport, str(tcp.flags), tcp.seq, tcp.ack, tcp.window) == (80, 40000, *expected, 0)
    assert not tcp.options
    assert answer_in_words(bytes(made)) == "TCP reset"


def test_sequence_numbers_wrap() -> None:
    made = answer(four(TCP(dport=80, flags="S", seq=2**32 - 1)))
    assert made is not None
    assert made[TCP].ack == 0


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (UDP(dport=53) / Raw(b"hello"), (3, 3)), (ICMP(type=8) / Raw(b"ping"), (3, 13)), (ICMP(type=0), (3, 13)),
        (GRE() / IP(), (3, 13)), (SCTP(dport=2905), (3, 13)),
    ],
    ids=["UDP", "echo", "echo reply", "GRE", "SCTP"],
)  # fmt: skip
def test_icmp_tells_of_the_rest(payload: Packet, error: tuple[int, int]) -> None:
    packet = four(payload)
    made = answer(packet)
    assert made is not None
    assert (made[IP].src, made[IP].dst, made[IP].ttl) == (FOUR[1], FOUR[0], 64)
    assert (made[ICMP].type, made[ICMP].code) == error
    assert bytes(made[ICMP].payload) == bytes(packet[IP])
    if UDP in packet:
        assert (made[IPerror].dst, made[UDPerror].dport) == (FOUR[1], 53)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (UDP(dport=53) / Raw(b"hello"), 4), (ICMPv6EchoRequest(data=b"ping"), 1), (ICMPv6EchoReply(), 1),
        (IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(dport=53), 4), (SCTP(dport=2905), 1),
        (IPv6ExtHdrFragment(id=7, m=1) / UDP(dport=53), 4),
    ],
    ids=["UDP", "echo", "echo reply", "behind headers", "SCTP", "first fragment"],
)  # fmt: skip
def test_icmpv6_tells_of_the_rest(payload: Packet, code: int) -> None:
    packet = six(payload)
    made = answer(packet)
    assert made is not None
    assert (made[ICMPv6DestUnreach].code, made[IPv6].hlim, made[IPv6].src) == (code, 64, SIX[1])
    assert bytes(made[ICMPv6DestUnreach].payload) == bytes(packet[IPv6])


@pytest.mark.parametrize(("head", "size"), [(four, 576), (six, 1280)], ids=["IPv4", "IPv6"])
def test_an_error_quotes_what_fits(head: object, size: int) -> None:
    made = answer(head(UDP(dport=53) / Raw(bytes(3000))))  # type: ignore[operator]
    assert made is not None
    assert len(made) == 14 + size


def test_padding_is_not_quoted() -> None:
    packet = bytes(four(UDP(dport=53))).ljust(60, b"\0")
    assert rejection_of(packet) == rejection_of(bytes(four(UDP(dport=53))))


SILENT = {
    "reset": four(TCP(flags="R")), "reset, IPv6": six(TCP(flags="RA")),
    "ICMP error": four(ICMP(type=3, code=3) / IP() / UDP()), "redirect": four(ICMP(type=5)), "unknown ICMP": four(ICMP(type=42)),
    "ICMPv6 error": six(ICMPv6TimeExceeded()), "neighbour": six(ICMPv6ND_NS()), "listener": six(ICMPv6MLReport()),
    "ICMPv6 in IPv4": four(Raw(b"\x80\0" + bytes(20)), proto=58), "ICMP in IPv6": six(Raw(b"\x08\0" + bytes(20)), nh=1),
    "later fragment": four(Raw(bytes(64)), proto=17, frag=100), "later fragment, IPv6": six(IPv6ExtHdrFragment(offset=9, nh=17) / Raw(bytes(64))),
    "first fragment of a SYN": four(TCP(flags="S"), flags="MF"),
    "broadcast frame": Ether(src=A, dst="ff:ff:ff:ff:ff:ff") / IP(src=FOUR[0], dst=FOUR[1]) / UDP(),
    "group frame": Ether(src=A, dst="33:33:00:00:00:01") / IPv6(src=SIX[0], dst=SIX[1]) / UDP(),
    "from a group's MAC": Ether(src="01:00:5e:00:00:01", dst=B) / IP(src=FOUR[0], dst=FOUR[1]) / UDP(),
    "to itself": four(UDP(), dst=FOUR[0]),
    **{f"to {to}": four(UDP(), dst=to) for to in ("224.0.0.1", "255.255.255.255", "0.0.0.0", "127.0.0.1", "240.0.0.1")},
    **{f"from {source}": four(UDP(), src=source) for source in ("224.0.0.1", "255.255.255.255", "0.0.0.0", "127.0.0.9")},
    **{f"to {to}": six(UDP(), dst=to) for to in ("ff02::1", "::", "::1")},
    **{f"from {source}": six(UDP(), src=source) for source in ("ff02::1", "::", "::1", "::ffff:10.0.0.1")},
    "wrong header checksum": four(UDP(), chksum=1), "cut off TCP": four(Raw(bytes(12)), proto=6), "cut off UDP": four(Raw(bytes(4)), proto=17),
    "short data offset": four(TCP(flags="A", dataofs=4)), "options beyond the end": four(TCP(flags="S", dataofs=15)),
    "ARP": Ether(src=A, dst=B) / ARP(), "tagged": Ether(src=A, dst=B) / Dot1Q(vlan=5) / IP(src=FOUR[0], dst=FOUR[1]) / UDP(),
}  # fmt: skip


@pytest.mark.parametrize("case", SILENT)
def test_what_is_not_answered(case: str) -> None:
    assert rejection_of(bytes(SILENT[case])) is None


@pytest.mark.parametrize(
    "packet", [four(TCP(flags="S")), four(UDP()), six(TCP(flags="S")), six(UDP()), six(ICMPv6EchoRequest())]
)
def test_an_answer_is_never_answered(packet: Packet) -> None:
    made = rejection_of(bytes(packet))
    assert made is not None
    assert rejection_of(made) is None


BASES = [
    bytes(four(TCP(flags="S"))),
    bytes(four(UDP() / Raw(b"xyz"))),
    bytes(six(IPv6ExtHdrHopByHop() / UDP())),
    bytes(six(TCP(flags="A"))),
]


@given(
    st.sampled_from(BASES),
    st.lists(st.tuples(st.integers(12, 90), st.integers(0, 255)), max_size=6),
    st.integers(14, 200),
)
def test_any_bytes_are_answered_once_or_not(base: bytes, changes: list[tuple[int, int]], size: int) -> None:
    frame = bytearray(base.ljust(100, b"\1"))
    for at, value in changes:
        frame[at] = value
    made = rejection_of(bytes(frame[:size]))
    assert made is None or rejection_of(made) is None
