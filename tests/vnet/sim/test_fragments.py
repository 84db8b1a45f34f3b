"""Fragments through security groups: all of an allowed packet and nothing of another, on the twin and on a real switch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NA, IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet, Raw

from tests.ovsctl.datapath.real_bridge import RealBridge, real_bridge
from tests.vnet.sim.both import PORTS, Both
from tests.vnet.sim.test_policy import IN, group, ports
from vnet.objects import Protocol, Rule, Verdict

MTU = 1448
DNS = Rule("dns", IN, protocol=Protocol.UDP, ports=ports(53))
OPEN = group("open", ingress=Verdict.ALLOW)
_numbers = count(1)


@pytest.fixture
def bridge(ovs: None) -> Iterator[RealBridge]:
    """A bridge in which no fragments wait."""
    with real_bridge(PORTS) as running:
        yield running


def parts_of(both: Both, payload: Packet, version: int, source: str = "cli", target: str = "srv") -> list[bytes]:
    """A packet from one VIF to another in fragments, as a kernel sends them."""
    a, b = both.pool.vif(f"{source}/0"), both.pool.vif(f"{target}/0")
    src, dst = a.addresses[version == 6], b.addresses[version == 6]
    if version == 4:
        found = fragment(IP(src=src, dst=dst, id=next(_numbers)) / payload, MTU - 20)
    else:
        # The checksum is that of the whole packet.
        whole = IPv6(bytes(IPv6(src=src, dst=dst) / payload))
        found = fragment6(IPv6(src=src, dst=dst) / IPv6ExtHdrFragment(id=next(_numbers)) / whole.payload, MTU)
    assert len(found) > 1
    return sorted(bytes(Ether(src=a.mac, dst=b.mac) / part) for part in found)


def datagram(port: int, size: int = 3000) -> Packet:
    return UDP(sport=49152, dport=port) / Raw(bytes(size))


def arrived(both: Both, parts: list[bytes], source: str = "cli", target: str = "srv") -> list[bytes]:
    """The frames that arrive, all of them at the target."""
    got = [item for part in parts for item in both.send(source, part)]
    assert {name for name, _ in got} <= {target}
    return sorted(frame for _, frame in got)


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_in_fragments_passes_whole_or_not_at_all(bridge: RealBridge, version: int) -> None:
    both = Both(bridge, group("dns", DNS), OPEN, srv=("dns",), cli=("open",))
    for _ in range(2):  # as the first packet of a connection, and as a later one
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
            parts = parts_of(both, datagram(53), version)
            assert arrived(both, [parts[n] for n in order]) == parts
        answer = parts_of(both, UDP(sport=53, dport=49152) / Raw(bytes(3000)), version, "srv", "cli")
        assert arrived(both, answer, "srv", "cli") == answer
    assert arrived(both, parts_of(both, datagram(54), version)) == []
    both.change(group("dns"))
    assert arrived(both, parts_of(both, datagram(53), version)) == []
    assert (
        arrived(
            both, parts_of(both, UDP(sport=53, dport=49152) / Raw(bytes(3000)), version, "srv", "cli"), "srv", "cli"
        )
        == []
    )


def test_a_ping_in_fragments_passes_where_all_is_allowed(bridge: RealBridge) -> None:
    both = Both(bridge, OPEN, srv=("open",), cli=("open",))
    parts = parts_of(both, ICMPv6EchoRequest(id=1, data=bytes(3000)), 6)
    assert arrived(both, parts) == parts


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("missing", [(1, 2), (0, 2), (0, 1), (1,), (0,), (2,)])
def test_a_packet_with_a_hole_never_passes(bridge: RealBridge, missing: tuple[int, ...], version: int) -> None:
    """Not even when its fragments have expired, together with the packets that begin another VIF's connection."""
    both = Both(bridge, group("dns", DNS), OPEN, srv=("dns",), third=("open",))
    for _ in range(4):
        some = [part for n, part in enumerate(parts_of(both, datagram(53), version)) if n not in missing]
        assert arrived(both, some) == []
    bridge.appctl("time/warp", "16000", "1000")
    both.now_us += 16_000_000
    for port in range(3):
        talk = both.talk("third", "cli", Protocol.UDP, 100 + port)
        assert both.passes("third", talk.frame())


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_that_overlap_do_not_pass(bridge: RealBridge, version: int) -> None:
    both = Both(bridge, OPEN, srv=("open",))
    first, middle, last = parts_of(both, datagram(53), version)
    assert arrived(both, [first, first]) == []
    assert arrived(both, [middle, middle]) == []
    assert arrived(both, [last]) == [first, middle, last]


@pytest.mark.parametrize("version", [4, 6])
def test_later_fragments_of_a_refused_packet_do_not_pass_with_the_first_of_another(
    bridge: RealBridge, version: int
) -> None:
    both = Both(bridge, group("dns", DNS), srv=("dns",))
    assert arrived(both, parts_of(both, datagram(54), version)) == []
    allowed = parts_of(both, datagram(53), version)
    assert arrived(both, allowed[:1]) == []
    assert arrived(both, allowed[1:]) == allowed


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_of_protocols_by_number(bridge: RealBridge, version: int) -> None:
    both = Both(bridge, group("gre", Rule("gre", IN, protocol=47)), OPEN, group("shut"), srv=("gre",))
    for groups, passes in (("gre", True), ("open", True), ("shut", False)):
        both.change(srv=(groups,))
        parts = parts_of(both, GRE() / Raw(bytes(3000)), version)
        assert arrived(both, parts) == (parts if passes else [])


def test_a_neighbour_advertisement_in_fragments_does_not_pass(bridge: RealBridge) -> None:
    """RFC 6980."""
    both = Both(bridge, OPEN, srv=("open",))
    assert arrived(both, parts_of(both, ICMPv6ND_NA(tgt="fd00::2") / Raw(bytes(3000)), 6)) == []
