"""Rejected packets and their answers, byte for byte, on every engine: who is told what, and who is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.polling import wait_until
from tests.vnet.packets.engines import ENGINES, running
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.client import Client
from vnet.client.local import call_agent
from vnet.compile import Category
from vnet.compile.rejection_frames import rejection_of
from vnet.lab import Lab
from vnet.objects.limits import REJECTIONS_OF_VIF
from vnet.sim import Deliveries, SimPool, Station
from vnet.sim.trace import trace_packet
from vnet.testing import PoolUnderTest

DOCUMENT = b"""
apiVersion: vnet/v1
pool: rejection
underlay: {mtu: 1600}
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  lan: {type: vxlan}
  wire: {type: vlan, tag: 120, uplink: trunk0}
security-groups:
  web:
    default: {ingress: reject, egress: allow}
    rules:
      - {name: http, direction: ingress, protocol: tcp, ports: [80]}
      - {name: no-ssh, direction: ingress, action: reject, protocol: tcp, ports: [22]}
      - {name: silent, direction: ingress, action: drop, protocol: tcp, ports: [23]}
      - {name: no-mail, direction: egress, action: reject, protocol: tcp, ports: [25]}
      - {name: no-dns, direction: egress, action: reject, protocol: udp, ports: [53]}
  client: {default: {ingress: drop, egress: allow}}
  careful: {rules: [{name: ssh, direction: ingress, protocol: tcp, ports: [22]}]}
vms:
  web: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"], security-groups: [web]}]}
  near: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.2, "fd00:1::2"], security-groups: [client]}]}
  far: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"], security-groups: [client]}]}
  open: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.4, "fd00:1::4"], locking-mode: unlocked}]}
  wired: {host: xen1, vifs: [{network: wire, addresses: [10.2.0.1], security-groups: [web]}]}
  twice: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.5], security-groups: [careful, web]}]}
"""


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as made:
        yield made


def packet(pool: PoolUnderTest, source: str, target: str, payload: Packet, *, ipv6: bool = False) -> bytes:
    a, b = pool.vif(f"{source}/0"), pool.vif(f"{target}/0")
    if not ipv6:
        return bytes(Ether(src=a.mac, dst=b.mac) / IP(src=a.addresses[0], dst=b.addresses[0]) / payload)
    return bytes(Ether(src=a.mac, dst=b.mac) / IPv6(src=a.addresses[1], dst=b.addresses[1]) / payload)


def sent(pool: PoolUnderTest, source: str | Station, *frames: bytes) -> Deliveries:
    """All that anyone got. The last frame is answered: the agent takes one after the other, so it has been through the others by then."""
    _refill(pool)
    if not isinstance(pool, Lab):
        return pool.send(source, list(frames))
    answer = rejection_of(frames[-1])
    assert answer is not None
    return pool.send(source, frames, awaited=[answer])


def check_told(pool: PoolUnderTest, source: str, target: str, *frames: bytes) -> None:
    """The sender is told of the last of the frames, once, and nobody else. The receiver gets none."""
    got = sent(pool, f"{source}/0", *frames)
    assert not set(frames) & set(got.at(f"{target}/0"))
    possible = [answer for frame in frames if (answer := rejection_of(frame)) is not None]
    assert [(item.to, item.frame) for item in got if item.frame in possible] == [(f"{source}/0", possible[-1])]


def _refill(pool: PoolUnderTest) -> None:
    """Lets the twin's time pass, as it does by itself elsewhere: a VIF answers so many a second."""
    if isinstance(pool, SimPool):
        pool.advance(1000)


MESSAGES = {
    "syn": (TCP(sport=40001, dport=22, seq=7), False), "udp": (UDP(sport=40001, dport=5000) / Raw(b"hello"), False),
    "ping": (ICMP() / Raw(b"ping"), False), "syn, IPv6": (TCP(sport=40002, dport=22, seq=7), True),
    "udp, IPv6": (UDP(sport=40002, dport=5000) / Raw(bytes(1200)), True), "ping, IPv6": (ICMPv6EchoRequest(), True),
}  # fmt: skip


@pytest.mark.parametrize("source", ["near", "far", "open"])
@pytest.mark.parametrize("message", MESSAGES)
def test_a_sender_is_told(pool: PoolUnderTest, source: str, message: str) -> None:
    """On the host of who rejects, and elsewhere; a sender whose own groups let nobody begin anything gets the answer."""
    payload, ipv6 = MESSAGES[message]
    frame = packet(pool, source, "web", payload, ipv6=ipv6)
    check_told(pool, source, "web", frame)


def test_drop_wins_over_reject_and_reject_over_allow(pool: PoolUnderTest) -> None:
    silent, rejected = (packet(pool, "near", "web", TCP(sport=40003, dport=port)) for port in (23, 81))
    check_told(pool, "near", "web", silent, rejected)
    check_told(pool, "near", "twice", packet(pool, "near", "twice", TCP(sport=40003, dport=22)))
    allowed = packet(pool, "near", "web", TCP(sport=40003, dport=80))
    assert allowed in pool.send("near/0", allowed).at("web/0")


@pytest.mark.parametrize("target", ["near", "far"])
@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_a_vif_is_told_of_what_it_must_not_send(pool: PoolUnderTest, target: str, ipv6: bool) -> None:
    for payload in (TCP(sport=40004, dport=25), UDP(sport=40004, dport=53) / Raw(b"query")):
        check_told(pool, "web", target, packet(pool, "web", target, payload, ipv6=ipv6))


@pytest.mark.parametrize("pool", ENGINES[::2], indirect=True)  # stations stand on the underlay's bridges
def test_a_station_is_told(pool: PoolUnderTest) -> None:
    station, wired = pool.station("trunk0", 120), pool.vif("wired/0")
    frame = bytes(Ether(src="0a:00:00:00:99:01", dst=wired.mac) / IP(src="10.2.0.9", dst="10.2.0.1") / TCP(dport=22))
    spoofed = bytes(Ether(src=wired.mac, dst=wired.mac) / IP(src="10.2.0.9", dst="10.2.0.1") / TCP(dport=22))
    got = sent(pool, station, frame)
    assert frame not in got.at("wired/0")
    assert got.at(station.name) == [rejection_of(frame)]
    # From now on the physical switch takes the station for the VIF, so another sender's answer shows that the agent has been through.
    got = [*pool.send(station, spoofed), *sent(pool, "near/0", packet(pool, "near", "web", UDP(dport=5000)))]
    assert rejection_of(spoofed) not in [item.frame for item in got]


def test_nobody_is_told_of_what_a_vif_sent_as_another(pool: PoolUnderTest) -> None:
    """An unlocked VIF may send as anybody; who it names is not bothered."""
    web, near = pool.vif("web/0"), pool.vif("near/0")
    packets = IP(src=near.addresses[0], dst=web.addresses[0]) / TCP(dport=22)
    spoofed, frame = (bytes(Ether(src=mac, dst=web.mac) / packets) for mac in (near.mac, "0a:00:00:00:98:01"))
    check_told(pool, "open", "web", spoofed, frame)


def test_nothing_is_told_of_what_is_for_many(pool: PoolUnderTest) -> None:
    near, payload = pool.vif("near/0"), UDP(dport=5000)
    for_many = [
        bytes(Ether(src=near.mac, dst=mac) / IP(src=near.addresses[0], dst=address) / payload)
        for mac, address in (
            ("ff:ff:ff:ff:ff:ff", "10.1.0.1"),
            ("01:00:5e:00:00:05", "224.0.0.5"),
            ("0a:00:00:00:97:01", "10.1.0.1"),
        )
    ]
    single = packet(pool, "near", "web", payload)
    assert sent(pool, "near/0", *for_many, single).at("near/0") == [rejection_of(single)]


@pytest.mark.parametrize("pool", ENGINES[1:], indirect=True)
def test_the_agent_counts_and_rules_are_counted(pool: Lab) -> None:
    with Client(f"unix:{pool.daemons.controller_socket}") as client:

        def matched() -> int:
            return next(rule.packets for rule in client.group_counters("web").rules if rule.rule == "no-ssh")

        before = matched()
        frame = packet(pool, "near", "web", TCP(sport=40006, dport=22))
        check_told(pool, "near", "web", frame)
        wait_until(lambda: matched() > before, "the rule is counted")


@pytest.mark.parametrize("pool", ENGINES[1:], indirect=True)
def test_a_probe_is_rejected_as_the_twin_says_and_answered_by_nobody(
    pool: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", pool.daemons.env["VNET_CONTROLLER"])

    def answered() -> int:
        status = call_agent("status", {}, str(pool.daemons.agent_socket("xen1")))
        return sum(status["counters"]["rejections"].values())

    before = answered()
    for source, target, port in (("near", "web", "22"), ("far", "web", "22"), ("web", "far", "25")):
        assert main.run(["trace", source, target, "--tcp", port, "--live"]) == ExitCode.EXPECTATION_FAILED
        out = capsys.readouterr().out
        assert "nobody would get it, and the twin agrees; the packet was lost" in out
        assert "disagree" not in out
    assert answered() == before
    frame = packet(pool, "near", "web", TCP(sport=40009, dport=22))
    check_told(pool, "near", "web", frame)
    wait_until(lambda: answered() > before, "what is no probe is answered")


@pytest.mark.parametrize("pool", ENGINES[:1], indirect=True)
def test_a_vif_that_moves_rejects_at_its_new_host(pool: PoolUnderTest) -> None:
    frame = packet(pool, "near", "web", TCP(sport=40007, dport=22))
    assert isinstance(pool, SimPool)
    pool.prepare("web", "xen2")
    there = {
        source.category for source, found in pool.hosts["xen2"].compiled.items() if source.name == "web/0" and found
    }
    assert Category.REJECT in there, "before its port is open"
    pool.abort("web")
    try:
        pool.migrate("web", "xen2")
        check_told(pool, "near", "web", frame)
    finally:
        pool.migrate("web", "xen1")


@pytest.mark.parametrize("pool", ENGINES[:1], indirect=True)
def test_a_vif_answers_so_many_a_second(pool: SimPool) -> None:
    frame = packet(pool, "near", "web", TCP(sport=40008, dport=22))
    for _ in range(2):
        _refill(pool)
        got = pool.send("near/0", [frame] * (REJECTIONS_OF_VIF + 5))
        assert got.at("near/0") == [rejection_of(frame)] * REJECTIONS_OF_VIF
    leg = trace_packet(pool, "near/0", frame)
    assert leg.verdict.endswith(", unanswered: too many")
    assert "rule no-ssh" in leg.verdict
    _refill(pool)
    assert trace_packet(pool, "near/0", frame).verdict.endswith("near/0 is answered: TCP reset")
    assert pool.connect("near/0", "web/0", tcp=22).as_dict()["legs"][-1]["answers"] == [
        {"to": "near/0", "frame": answer_to_syn(pool).hex()}
    ]


def answer_to_syn(pool: SimPool) -> bytes:
    """The answer to the first segment of the twin's own conversations."""
    leg = pool.connect("near/0", "web/0", tcp=22).legs[-1]
    found = rejection_of(leg.hops[0].frame)
    assert found is not None
    return found
