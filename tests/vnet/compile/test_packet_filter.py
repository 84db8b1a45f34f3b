"""Filters of packets: what each wants, as libpcap says it, and what is refused with its place."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from vnet.compile.filtering import wants
from vnet.grammar.packet_filter import MAX_RULES, FilterRefused, packet_filter

A, B = "0a:00:00:00:00:01", "0a:00:00:00:00:02"


def frame(payload: Packet, src: str = A, dst: str = B) -> bytes:
    return bytes(Ether(src=src, dst=dst) / payload / Raw(b"x" * 30))


FRAMES = {
    "syn": frame(IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1234, dport=80, flags="S")),
    "synack": frame(IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=80, dport=1234, flags="SA"), B, A),
    "ssh": frame(IP(src="10.1.0.9", dst="10.0.0.2") / TCP(sport=4000, dport=22, flags="A"), "0a:00:00:00:00:09"),
    "dns": frame(IP(src="10.0.0.1", dst="8.8.8.8") / UDP(sport=1234, dport=53)),
    "answer": frame(IP(src="8.8.8.8", dst="10.0.0.1") / UDP(sport=53, dport=1234), B, A),
    "ping": frame(IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=8)),
    "unreach": frame(IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=3, code=1), B, A),
    "later": frame(IP(src="10.0.0.1", dst="10.0.0.2", frag=100, proto=6)),
    "first": frame(IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / TCP(sport=80, dport=22)),
    "gre": frame(IP(src="10.0.0.1", dst="10.0.0.2", proto=47)),
    "arp": frame(ARP(psrc="10.0.0.1", pdst="10.0.0.2"), A, "ff:ff:ff:ff:ff:ff"),
    "group": frame(IP(src="10.0.0.1", dst="224.0.0.9") / UDP(sport=520, dport=520), A, "01:00:5e:00:00:09"),
    "syn6": frame(IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=1234, dport=80, flags="S")),
    "ping6": frame(IPv6(src="fd00::2", dst="ff02::1") / ICMPv6EchoRequest(), B, "33:33:00:00:00:01"),
    "lldp": bytes(Ether(src=A, dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(b"y" * 46)),
}

# What libpcap 1.10.3 says of each frame.
WANTED = [
    ("tcp", "syn synack ssh later first syn6"),
    ("icmp", "ping unreach"),
    ("icmp6", "ping6"),
    ("arp", "arp"),
    ("ip6", "syn6 ping6"),
    ("sctp", ""),
    ("port 80", "syn synack first syn6"),
    ("src port 53", "answer"),
    ("portrange 70-90", "syn synack first syn6"),
    ("tcp dst portrange 20-25", "ssh first"),
    ("host 10.0.0.1", "syn synack dns answer ping unreach later first gre arp group"),
    ("src host 10.0.0.2", "synack unreach"),
    ("net 10.1", "ssh"),
    ("net 10.0.0.0 mask 255.0.0.0", "syn synack ssh dns answer ping unreach later first gre arp group"),
    ("host fd00::1", "syn6"),
    ("ip6 and net fd00::/8", "syn6 ping6"),
    ("ether host 0a:00:00:00:00:01", "syn synack dns answer ping unreach later first gre arp group syn6 lldp"),
    ("ether dst 0a:00:00:00:00:02", "syn ssh dns ping later first gre syn6"),
    ("ether broadcast", "arp"),
    ("multicast", "arp group ping6 lldp"),
    ("ip multicast", "group"),
    ("ip6 multicast", "ping6"),
    ("ether proto 0x88cc", "lldp"),
    ("ip proto 47", "gre"),
    ("proto \\tcp", "syn synack ssh later first syn6"),
    ("ip and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn", "syn first"),
    ("tcp[13] & 2 != 0 and ip", "syn synack first"),
    ("icmp[icmptype] != icmp-echo", "unreach"),
    ("src and dst net 10.0.0.0/24", "syn synack ping unreach later first gre arp"),
    ("src or dst port 53", "dns answer"),
    ("port 80 or 22", "syn synack ssh first syn6"),
    ("not host 10.0.0.1 and 10.0.0.2", "ssh"),
    ("tcp and not port 80", "ssh later"),
    ("not (tcp or udp)", "ping unreach gre arp ping6 lldp"),
    ("! arp && (ip || udp)", "syn synack ssh dns answer ping unreach later first gre group"),
    ("tcp or udp and dst port 1234", "synack answer"),
    ("not tcp and not udp or icmp", "ping unreach gre arp ping6 lldp"),
]


@pytest.mark.parametrize(("text", "names"), WANTED)
def test_as_libpcap(text: str, names: str) -> None:
    found = packet_filter(text)
    assert [name for name, sent in FRAMES.items() if wants(found, sent)] == names.split()


def test_headers_behind_a_tag_count() -> None:
    """Otherwise than libpcap, which reads them only after `vlan`."""
    tagged = bytes(Ether(src=A, dst=B) / Dot1Q(vlan=10) / IP(src="10.0.0.1") / TCP(dport=80))
    assert [wants(packet_filter(text), tagged) for text in ("tcp port 80", "vlan and tcp", "vlan 10", "vlan 11", "not vlan")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert not wants(packet_filter("vlan"), FRAMES["syn"])


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("", 0, "empty"),
        ("tcp and", 7, "wanted a packet's property"),
        ("tcp udp", 4, "wanted 'and' or 'or'"),
        ("(tcp", 0, "not closed"),
        ("tcp)", 3, "is open here"),
        ("tcp port http", 9, "a number"),
        ("host db1", 5, "names are not looked up"),
        ("host 10.0.0.0/8", 5, "say 'net'"),
        ("net 10.0.0.1/8", 4, "bits behind its prefix"),
        ("tcp and greater 100", 8, "length"),
        ("port 80-90", 5, "portrange"),
        ("tcp port 70000", 9, "at most 65535"),
        ("ip broadcast", 3, "netmask"),
        ("tcp[0] = 1", 0, "of the bytes"),
        ("tcp[13] > 1", 8, "compare by"),
        ("icmp6 and host 0a:00:00:00:00:01", 15, "after 'ether'"),
        ("src and dst portrange 1-65534", 22, f"more than {MAX_RULES}"),
        ("tcp and udp", 0, "no packet"),
        ("tcp port 80; drop", 11, "no character"),
        ("a" * 2000, 0, "at most 1024"),
        ("not " * 200 + "tcp", 400, "at most 100 words"),
    ],
)
def test_refused_with_its_place(text: str, place: int, reason: str) -> None:
    with pytest.raises(FilterRefused, match=reason) as refused:
        packet_filter(text)
    assert refused.value.at == place
    assert refused.value.excerpt.splitlines()[1].index("^") == place
