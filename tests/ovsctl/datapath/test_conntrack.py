"""Connections, zones and NAT: the simulator's tracker and Open vSwitch's let the same packets through, translated alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

from ovsctl.datapath import EmulatedBridge, EmulatedPort, UnsupportedFlowError
from ovsctl.openflow import Ct, Flow, Match, Nat, Output, Resubmit, SetField
from ovsctl.openflow.messages import FragmentHandling
from tests.ovsctl.datapath.real_bridge import RealBridge, real_bridge
from vnet.objects import Protocol
from vnet.sim.packets import End, Part, Talk, checksum

A, B = End("0a:00:00:00:00:01", "10.0.0.1"), End("0a:00:00:00:00:02", "10.0.0.2")
A6, B6 = End(A.mac, "fd00::1"), End(B.mac, "fd00::2")
INSIDE, OUTSIDE = 1, 2


def firewall(zone: int = 5, nat: Nat | None = None, back: Nat | None = None) -> list[Flow]:
    """Connections are opened from port 1 only."""
    flows = []
    for kind in (0x0800, 0x86DD) if nat is None else (0x0800,):
        flows += [
            Flow(Match(eth_type=kind, ct_state="-trk"), (Ct(table=1, zone=zone, nat=back),), 0, 10),
            Flow(Match(eth_type=kind, ct_state="+trk+new", in_port=INSIDE),
                 (Ct(commit=True, zone=zone, nat=nat, exec=[SetField("ct_mark", 7)]), Output(OUTSIDE)), 1, 10),
            Flow(Match(eth_type=kind, ct_state="+trk+est", ct_mark=7, in_port=INSIDE), (Output(OUTSIDE),), 1, 20),
            Flow(Match(eth_type=kind, ct_state="+trk+est", ct_mark=7, in_port=OUTSIDE), (Output(INSIDE),), 1, 20),
            Flow(Match(eth_type=kind, ct_state="+trk+inv"), (Output(3),), 1, 30),
        ]  # fmt: skip
    return flows


@pytest.fixture(scope="module")
def bridge(ovs: None) -> Iterator[RealBridge]:
    with real_bridge((1, 2, 3)) as running:
        yield running


def switch(flows: list[Flow]) -> EmulatedBridge:
    return EmulatedBridge(flows, ports={n: EmulatedPort(f"p{n}") for n in (1, 2, 3)})


def conversation(protocol: Protocol, a: End = A, b: End = B) -> list[tuple[int, bytes]]:
    there = Talk(a, b, protocol, 0 if protocol is Protocol.ICMP else 443)
    stranger = replace(there.back, source_port=7)
    return [
        (OUTSIDE, stranger.frame()),
        (OUTSIDE, there.frame(Part.ANSWER)),
        (INSIDE, there.frame()),
        (OUTSIDE, there.frame(Part.ANSWER)),
        (INSIDE, there.frame(Part.CONFIRM if protocol is Protocol.TCP else Part.REQUEST)),
        (OUTSIDE, there.frame(Part.ANSWER)),
        (OUTSIDE, stranger.frame()),
    ]


CASES = {
    "tcp": conversation(Protocol.TCP),
    "udp": conversation(Protocol.UDP),
    "icmp": conversation(Protocol.ICMP),
    "tcp6": conversation(Protocol.TCP, A6, B6),
    "icmp6": conversation(Protocol.ICMP, A6, B6),
}


def compare(bridge: RealBridge, flows: list[Flow], frames: list[tuple[int, bytes]]) -> list[list[tuple[int, bytes]]]:
    bridge.set(flows)
    ours = switch(flows)
    found = []
    for port, frame in frames:
        got = sorted((out.port, out.frame) for out in ours.receive(frame, port))
        assert got == sorted(bridge.send(port, frame)), f"packet {len(found)}"
        found.append(got)
    return found


@pytest.mark.parametrize("case", CASES)
def test_connections_are_opened_from_inside_only(bridge: RealBridge, case: str) -> None:
    got = compare(bridge, firewall(), CASES[case])
    assert [out[0][0] for out in got[2:5]] == [OUTSIDE, INSIDE, OUTSIDE]
    assert got[6] == [] or got[6][0][0] == 3


def test_other_protocols_have_connections_by_address(bridge: RealBridge) -> None:
    there = bytes(Ether(src=A.mac, dst=B.mac) / IP(src=A.address, dst=B.address) / GRE() / Raw(bytes(40)))
    back = bytes(Ether(src=B.mac, dst=A.mac) / IP(src=B.address, dst=A.address) / GRE() / Raw(bytes(50)))
    got = compare(bridge, firewall(), [(OUTSIDE, back), (INSIDE, there), (OUTSIDE, back)])
    assert got == [[], [(OUTSIDE, there)], [(INSIDE, back)]]


@pytest.mark.parametrize("case", ["tcp", "udp", "icmp"])
def test_source_nat(bridge: RealBridge, case: str) -> None:
    flows = firewall(nat=Nat("src", "192.168.9.1"), back=Nat())
    frames = CASES[case]
    bridge.set(flows)
    ours = switch(flows)
    port, first = frames[2]
    out = [(o.port, o.frame) for o in ours.receive(first, port)]
    assert out == bridge.send(port, first)
    assert out[0][1][26:30] == bytes((192, 168, 9, 1))
    there = Talk(End(A.mac, "192.168.9.1"), B, Protocol(case), 0 if case == "icmp" else 443)
    back = there.frame(Part.ANSWER)
    answer = [(o.port, o.frame) for o in ours.receive(back, OUTSIDE)]
    assert answer == bridge.send(OUTSIDE, back)
    assert answer[0][0] == INSIDE
    assert answer[0][1][30:34] == bytes((10, 0, 0, 1))
    assert checksum(answer[0][1][14:34]) == 0


def test_destination_nat(bridge: RealBridge) -> None:
    flows = firewall(nat=Nat("dst", "10.0.0.9", port=8080), back=Nat())
    frame = Talk(A, B, Protocol.TCP, 80).frame()
    got = compare(bridge, flows, [(INSIDE, frame)])
    assert got[0][0][1][30:34] == bytes((10, 0, 0, 9))
    assert got[0][0][1][36:38] == (8080).to_bytes(2, "big")


def test_zones_are_apart(bridge: RealBridge) -> None:
    """A connection of one zone is new in another."""
    flows = [
        Flow(Match(eth_type=0x0800, ct_state="-trk"), (Ct(table=1, zone=1),), 0, 10),
        Flow(Match(eth_type=0x0800, ct_zone=1), (Ct(commit=True, zone=1), Ct(table=2, zone=2)), 1, 10),
        Flow(Match(eth_type=0x0800, ct_state="+new"), (Output(3),), 2, 10),
        Flow(Match(eth_type=0x0800, ct_state="+est"), (Output(2),), 2, 10),
    ]
    there = Talk(A, B, Protocol.UDP, 53)
    got = compare(bridge, flows, [(1, there.frame()), (1, there.frame(Part.ANSWER)), (1, there.frame())])
    assert all(out[0][0] == 3 for out in got)


def test_registers_and_metadata_survive_the_tracker(bridge: RealBridge) -> None:
    flows = [
        Flow(Match(eth_type=0x0800), (SetField("reg3", 9), SetField("metadata", 4), Ct(table=1, zone="reg3[0..15]")), 0, 10),
        Flow(Match(reg3=9, metadata=4, ct_zone=9, ct_state="+trk+new"), (Output(2), Resubmit(table=2)), 1, 10),
        Flow(Match(ct_state="+trk"), (Output(3),), 2, 1),
    ]  # fmt: skip
    assert [port for port, _ in compare(bridge, flows, [(1, Talk(A, B, Protocol.UDP, 53).frame())])[0]] == [2, 3]


# ---- fragments ----


_packet_numbers = count(1)


def fragments(end: End, other: End, size: int, mtu: int = 1448, port: int = 53) -> list[bytes]:
    """A UDP datagram in fragments, as a kernel sends it."""
    number = next(_packet_numbers)
    udp = UDP(sport=49152, dport=port) / Raw(bytes(n & 0xFF for n in range(size)))
    if ":" in end.address:
        whole = IPv6(src=end.address, dst=other.address) / IPv6ExtHdrFragment(id=number) / udp
        parts = fragment6(whole, mtu)
    else:
        parts = fragment(IP(src=end.address, dst=other.address, id=number) / udp, mtu - 20)
    return [bytes(Ether(src=end.mac, dst=other.mac) / part) for part in parts]


# Only port 53 is let through, by what the tracker knows of the connection's first packet. That is not known of later
# fragments: they meet their first one in the tracker again.
BY_FIRST_PACKET = [
    flow
    for eth_type in (0x0800, 0x86DD)
    for flow in (
        Flow(Match(eth_type=eth_type, ct_state="-trk"), (Ct(table=1, zone=5),), 0, 10),
        Flow(Match(eth_type=eth_type, ct_state="+trk-inv"), (Resubmit(table=2, ct=True),), 1, 10),
        Flow(
            Match(eth_type=eth_type, ct_state="+trk-inv", ip_frag="later"), (Ct(commit=True, zone=5, table=3),), 1, 20
        ),
        Flow(Match(eth_type=eth_type, ct_state="+inv"), (Output(3),), 1, 5),
        Flow(Match(eth_type=eth_type, nw_proto=17, udp_dst=53), (Ct(commit=True, zone=5, table=3),), 2, 10),
        Flow(Match(eth_type=eth_type, ct_state="+trk-inv"), (Output(2),), 3, 10),
    )
]
ENDS = {"IPv4": (A, B), "IPv6": (A6, B6)}


@pytest.fixture
def fresh(ovs: None) -> Iterator[RealBridge]:
    """A bridge in which no fragments wait."""
    with real_bridge((1, 2, 3)) as running:
        yield running


def both(bridge: RealBridge) -> EmulatedBridge:
    """The two switches with flows that judge by port, both of which show the ports of first fragments."""
    bridge.set(BY_FIRST_PACKET, fragments=FragmentHandling.NX_MATCH)
    ports = {n: EmulatedPort(f"p{n}") for n in (1, 2, 3)}
    return EmulatedBridge(BY_FIRST_PACKET, ports=ports, fragments=FragmentHandling.NX_MATCH)


def alike(bridge: RealBridge, ours: EmulatedBridge, frames: list[bytes], now_us: int = 0) -> list[tuple[int, bytes]]:
    sent = []
    for frame in frames:
        got = [(out.port, out.frame) for out in ours.receive(frame, 1, now_us=now_us)]
        assert sorted(got) == sorted(bridge.send(1, frame))
        sent += got
    return sent


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_fragments_go_on_together(fresh: RealBridge, ends: tuple[End, End], order: tuple[int, ...]) -> None:
    parts = fragments(*ends, 3000)
    ours = both(fresh)
    assert alike(fresh, ours, [parts[n] for n in order]) == [(2, part) for part in parts]
    assert alike(fresh, ours, fragments(*ends, 3000, port=54)) == []


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_a_packet_with_a_hole_waits(fresh: RealBridge, ends: tuple[End, End]) -> None:
    for missing in ((1, 2), (0, 2), (0, 1), (1,), (0,), (2,)):
        some = [part for n, part in enumerate(fragments(*ends, 3000)) if n not in missing]
        ours = both(fresh)
        assert alike(fresh, ours, some) == []
        fresh.appctl("time/warp", "16000", "1000")
        whole = Talk(*ends, Protocol.UDP, 53).frame()
        # They have expired: they go where the next packet goes, but as invalid.
        assert alike(fresh, ours, [whole] * 2, now_us=16_000_000) == [
            (2, whole),
            *((3, part) for part in some),
            (2, whole),
        ]


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_what_overlaps_or_is_too_small_is_invalid(fresh: RealBridge, ends: tuple[End, End]) -> None:
    first, middle, last = fragments(*ends, 3000)
    assert alike(fresh, both(fresh), [first, first, middle, last])[0] == (3, first)
    small = fragments(*ends, 3000, mtu=1000)
    assert alike(fresh, both(fresh), small) == [(3, part) for part in small[:-1]]


def test_fragments_with_nat_are_refused_by_name() -> None:
    flows = [Flow(Match(eth_type=0x0800), (Ct(commit=True, zone=1, nat=Nat("src", "192.168.9.1"), table=1),), 0, 10)]
    ours = switch(flows)
    *parts, last = fragments(A, B, 3000)
    for part in parts:
        ours.receive(part, 1)
    with pytest.raises(UnsupportedFlowError, match="fragments"):
        ours.receive(last, 1)
