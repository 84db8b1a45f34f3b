"""The lines about logged packets: their limit, what they say of any packet, and frames that were only traced."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP

from ovsctl.openflow import Match
from ovsctl.openflow.messages import PacketIn, PacketInReason
from vnet.agent.monitoring import Monitoring
from vnet.agent.rule_log import RuleLog
from vnet.agent.token_bucket import NS
from vnet.compile import HostInputs, HostView, rule_tag
from vnet.compile.rule_log import LOGGED_BYTES, five_tuple
from vnet.objects import Direction, PolicyMode, Rule, SecurityGroup, Vif
from vnet.objects.limits import LOGGED_OF_RULE, MONITORED_OF_VIF

RULES = (
    Rule("one", Direction.INGRESS, log=True),
    Rule("quiet", Direction.INGRESS),
    Rule("two", Direction.EGRESS, log=True),
)
WEB = SecurityGroup("web", 1, rules=RULES)
HEAD = Ether(src="0a:00:00:00:00:01", dst="0a:00:00:00:00:02")
FRAME = bytes(HEAD / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=7, dport=9)).ljust(60, b"\0")


def view() -> HostView:
    inputs = HostInputs("xen1")
    inputs.set_vif(Vif("web/0", "lan", "0a:00:00:00:00:02", vm="web", groups=("web",)))
    inputs.set_port("web/0", 5)
    inputs.set_group(WEB)
    return HostView(inputs)


def message(rule: Rule, *, ofport: int = 5, frame: bytes = FRAME) -> PacketIn:
    userdata = b"vnet:log:" + (b"\0" if rule.direction is Direction.EGRESS else b"\1") + ofport.to_bytes(2, "big")
    fields: dict[str, Any] = {"in_port": 9, "reg1": rule_tag(WEB, rule)}
    return PacketIn(PacketInReason.ACTION, 87, 1, Match(**fields), frame, len(frame), userdata)


def test_a_rule_has_so_many_lines_a_second_and_others_have_theirs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = NS
    log = RuleLog(view(), lambda: now)
    for _ in range(LOGGED_OF_RULE + 7):
        log.packet_in(message(RULES[0]))
    log.packet_in(message(RULES[2]))
    assert log.counts == {"written": LOGGED_OF_RULE + 1, "left out": 7}
    now += NS
    log.packet_in(message(RULES[0]))
    assert [record.__dict__.get("vnet_left_out") for record in caplog.records[-2:]] == [None, 7]
    last = caplog.records[-1]
    assert last.getMessage() == "ingress allow: udp 10.0.0.1:7 > 10.0.0.2:9"
    assert (last.__dict__["vnet_vm"], last.__dict__["vnet_place"]) == ("web", "security-groups.web.rules.one")


def test_what_is_gone_and_what_was_traced_has_no_line() -> None:
    log = RuleLog(view(), lambda: NS)
    log.packet_in(message(RULES[0], ofport=6))
    log.packet_in(message(RULES[1]))
    log.traced.note(FRAME)
    log.packet_in(message(RULES[0]))
    assert not log.counts
    log.packet_in(message(RULES[0]))
    assert log.counts == {"written": 1}


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2), ("tcp", "10.0.0.1:1", "10.0.0.2:2")),
        (IP(src="10.0.0.1", dst="10.0.0.2") / SCTP(sport=1, dport=2), ("sctp", "10.0.0.1:1", "10.0.0.2:2")),
        (IP(src="10.0.0.1", dst="10.0.0.2", proto=2), ("2", "10.0.0.1", "10.0.0.2")),
        (IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2), ("udp", "[fd00::1]:1", "[fd00::2]:2")),
        (ARP(), ("ethertype 0x0806", "0a:00:00:00:00:01", "0a:00:00:00:00:02")),
    ],
    ids=["TCP", "SCTP", "IGMP", "behind a header", "ARP"],
)  # fmt: skip
def test_the_five_tuple(packet: Any, expected: tuple[str, str, str]) -> None:
    assert five_tuple(bytes(HEAD / packet)) == expected


@given(st.binary(min_size=14, max_size=LOGGED_BYTES), st.sampled_from([b"\x08\0", b"\x86\xdd", b"\x88\xcc"]))
def test_a_line_of_any_frame_is_printable(data: bytes, eth_type: bytes) -> None:
    assert all(text.isprintable() for text in five_tuple(data[:12] + eth_type + data[14:]))


def test_what_a_group_would_drop_is_kept_by_connection_and_a_flood_costs_no_memory() -> None:
    """The answers of a connection count for it; a new kind takes the place of the one that was seen least."""
    watched = replace(WEB, mode=PolicyMode.MONITOR)
    inputs = HostInputs("xen1")
    inputs.set_vif(Vif("web/0", "lan", "0a:00:00:00:00:02", vm="web", groups=("web",)))
    inputs.set_port("web/0", 5)
    inputs.set_group(watched)
    monitoring = Monitoring(HostView(inputs), RuleLog(HostView(inputs), lambda: NS), lambda: 7)
    there, back = (IP(src="10.0.0.1", dst="10.0.0.2"), IP(src="10.0.0.2", dst="10.0.0.1"))

    def take(side: bytes, state: int, packet: Any) -> None:
        userdata = b"vnet:monitor:" + side + (5).to_bytes(2, "big") + (1).to_bytes(4, "big")
        fields: dict[str, Any] = {"in_port": 9, "reg1": 0, "ct_state": (state, state)}
        head = Ether(src="0a:00:00:00:00:01", dst="0a:00:00:00:00:02")
        head = head if side == b"\1" else Ether(src=head.dst, dst=head.src)
        data = bytes(head / packet)
        monitoring.packet_in(PacketIn(PacketInReason.ACTION, 87, 1, Match(**fields), data, len(data), userdata))

    new, reply, related = 33, 40, 36  # ct_state
    take(b"\1", new, there / UDP(sport=4000, dport=53))
    take(b"\0", reply, back / UDP(sport=53, dport=4000))
    take(b"\1", related, there / UDP(sport=4000, dport=54))
    for port in range(1000, 1000 + 2 * MONITORED_OF_VIF):
        take(b"\1", new, there / TCP(sport=7, dport=port))
    kept = monitoring.of_group("web")
    assert len(kept) == MONITORED_OF_VIF
    first = kept[0]
    assert (first.direction, first.protocol, first.port, first.peer, first.mac, first.count) == (
        Direction.INGRESS, 17, 53, "10.0.0.1", "0a:00:00:00:00:01", 2,
    )  # fmt: skip
    assert monitoring.counts["given up"] == MONITORED_OF_VIF + 1
    inputs.set_vif(Vif("web/0", "lan", "0a:00:00:00:00:02", vm="web"))
    assert monitoring.of_group("web") == ()
