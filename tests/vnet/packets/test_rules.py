"""What a rule may name besides ports: SCTP, other protocols, the messages of ICMP, several other sides. On every engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from msgspec import to_builtins
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Packet, Raw

from tests.polling import wait_until
from tests.vnet.packets.engines import ENGINES, receivers, receivers_of_each, running
from vnet.client import Client
from vnet.client.local import LocalRefused, call_agent
from vnet.lab import Lab
from vnet.objects import Vif
from vnet.testing import PoolUnderTest

DOCUMENT = b"""
apiVersion: vnet/v1
pool: rules
hosts:
  xen1: {address: 10.99.0.1}
  xen2: {address: 10.99.0.2}
networks:
  lan: {type: vxlan}
security-groups:
  ops: {default: {ingress: allow}}
  web:
    rules:
      - {name: signalling, direction: ingress, protocol: sctp, ports: [2905], remote: [ops, 10.1.0.3/32, "fd00:1::3/128"]}
      - {name: ping, direction: ingress, protocol: icmp, icmp: [echo-request], remote: [10.1.0.0/31, 10.1.0.2/31, "fd00:1::2/127"]}
      - {name: tunnels, direction: ingress, protocol: gre, remote: [ops]}
  lb:
    stateful: false
    default: {ingress: drop, egress: drop}
    rules:
      - {name: dns, direction: ingress, protocol: udp, ports: [53], source-ports: ["1024-65535"]}
      - {name: dns-answers, direction: egress, protocol: udp, ports: ["1024-65535"], source-ports: [53]}
      - {name: bulk, direction: ingress, protocol: udp, remote: [ops, web, 10.1.0.4/32, "fd00:1::4/128", 10.1.0.7/32, "fd00:1::7/128"]}
      - {name: not-ntp, direction: ingress, action: drop, protocol: udp, ports: [123], remote: [10.1.0.7/32, "fd00:1::7/128"]}
      - {name: pings, direction: ingress, protocol: icmp, icmp: [echo-request, packet-too-big]}
      - {name: pongs, direction: egress, protocol: icmp, icmp: [echo-reply]}
      - {name: ssh, direction: ingress, protocol: tcp, ports: [22]}
vms:
  web: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"], security-groups: [web]}]}
  web2: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.5, "fd00:1::5"], security-groups: [web]}]}
  ops: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.2, "fd00:1::2"], security-groups: [ops]}]}
  peer: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"]}]}
  other: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.4, "fd00:1::4"]}]}
  lb: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.6, "fd00:1::6"], security-groups: [lb]}]}
  clock: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.7, "fd00:1::7"]}]}
"""


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as made:
        yield made


def four(me: Vif, peer: Vif) -> Packet:
    return Ether(src=me.mac, dst=peer.mac) / IP(src=me.addresses[0], dst=peer.addresses[0])


def six(me: Vif, peer: Vif) -> Packet:
    return Ether(src=me.mac, dst=peer.mac) / IPv6(src=me.addresses[1], dst=peer.addresses[1])


def init(port: int) -> Packet:
    return SCTP(sport=40000, dport=port) / SCTPChunkInit(init_tag=7, a_rwnd=65535, n_out_streams=1, n_in_streams=1)


CASES = {
    "SCTP to its port": (four, init(2905), ["ops", "peer"]),
    "SCTP to its port, IPv6": (six, init(2905), ["ops", "peer"]),
    "SCTP to another port": (four, init(2906), []),
    "TCP to SCTP's port": (four, TCP(dport=2905), []),
    "echo request": (four, ICMP(type=8), ["ops", "peer"]),
    "echo request, IPv6": (six, ICMPv6EchoRequest(), ["ops", "peer"]),
    "timestamp request": (four, ICMP(type=13), []),
    "echo reply": (four, ICMP(type=0), []),
    "GRE": (four, GRE() / IP(), ["ops"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_rule_lets_in(pool: PoolUnderTest, case: str) -> None:
    head, message, allowed = CASES[case]
    web = pool.vif("web/0")
    reached = [
        name for name in ("ops", "peer", "other")
        if receivers(pool, name, head(pool.vif(f"{name}/0"), web) / message)
    ]  # fmt: skip
    assert reached == allowed


STATELESS_CASES = {  # what of peer's and lb's packets to each other passes, in this order
    "in": (four, UDP(sport=4000, dport=53), "peer", True),
    "in, IPv6": (six, UDP(sport=4000, dport=53), "peer", True),
    "in from another port": (four, UDP(sport=53, dport=53), "peer", False),
    "out": (four, UDP(sport=53, dport=4000), "lb", True),
    "out, IPv6": (six, UDP(sport=53, dport=4000), "lb", True),
    "out from another port": (four, UDP(sport=54, dport=4000), "lb", False),
    "echo request": (four, ICMP(type=8), "peer", True),
    "echo reply": (four, ICMP(type=0), "lb", True),
    "echo request, out": (four, ICMP(type=8), "lb", False),
    "echo reply, in": (four, ICMP(type=0), "peer", False),
    "too big, IPv6": (six, ICMPv6PacketTooBig(), "peer", True),
    "SYN": (four, TCP(sport=4000, dport=22, flags="S"), "peer", True),
    "the SYN's answer has no rule": (four, TCP(sport=22, dport=4000, flags="SA"), "lb", False),
    "a segment of no connection": (four, TCP(sport=4000, dport=22, flags="A"), "peer", True),
}


def test_a_stateless_group_judges_each_packet_by_itself(pool: PoolUnderTest) -> None:
    got = {}
    for case, (head, message, sender, _) in STATELESS_CASES.items():
        other = "peer" if sender == "lb" else "lb"
        frame = head(pool.vif(f"{sender}/0"), pool.vif(f"{other}/0")) / message
        got[case] = receivers(pool, sender, frame) == [f"{other}/0"]
    assert got == {case: passes for case, (*_, passes) in STATELESS_CASES.items()}


@pytest.mark.parametrize("version", [4, 6])
def test_a_later_fragment_passes_a_stateless_group_only_if_it_would_with_any_ports(
    pool: PoolUnderTest, version: int
) -> None:
    """peer may send UDP to a port; ops, web and other any UDP; clock too, but for a port that is forbidden. With IPv6 a later fragment does not even say that
    it is UDP. What ops sends from afar and web from lb's own host is tracked there."""
    lb = pool.vif("lb/0")
    got = {}
    # On a slow machine the first frame through a tunnel may take longer than a send waits.
    receivers(pool, "other", four(pool.vif("other/0"), lb) / UDP(sport=4000, dport=53))
    # A kernel's tracker makes the fragments of a packet anew.
    tracked = () if isinstance(pool, Lab) and pool.spec.datapath_type == "system" else ("ops", "web")
    for name in (*tracked, "peer", "other", "clock"):
        me = pool.vif(f"{name}/0")
        payload = UDP(sport=4000, dport=53) / Raw(bytes(3000))
        if version == 4:
            parts: list[Packet] = fragment(four(me, lb) / payload, 1400)
        else:
            head, extension = six(me, lb), IPv6ExtHdrFragment(id=7)
            parts = fragment6(head / extension / payload, 1400)
        got[name] = [found == ["lb/0"] for found in receivers_of_each(pool, name, parts)]
    only_first = [True, False, False]
    any_udp = [True] * 3 if version == 4 else only_first
    assert got == dict.fromkeys(tracked, any_udp) | {"peer": only_first, "other": any_udp, "clock": only_first}


@pytest.mark.parametrize("pool", ENGINES[1:], indirect=True)
def test_nothing_of_a_stateless_group_is_tracked(pool: Lab) -> None:
    me, lb = pool.vif("peer/0"), pool.vif("lb/0")
    assert receivers(pool, "peer", four(me, lb) / UDP(sport=4321, dport=53)) == ["lb/0"]
    assert "4321" not in pool.ovs("xen1").appctl("dpctl/dump-conntrack")


@pytest.mark.parametrize("pool", ENGINES[1:], indirect=True)  # the simulator has no agent to ask
def test_a_host_counts_what_each_rule_has_matched(pool: Lab) -> None:
    ask = partial(call_agent, "rules", {"group": "web"}, str(pool.daemons.agent_socket("xen1")))

    def counts() -> dict[str, int]:
        return {row["rule"]: row["packets"] for row in ask()}

    web, before = pool.vif("web/0"), counts()
    for sender, message in (("ops", init(2905)), ("other", init(2905)), ("other", TCP(dport=80))):
        for _ in range(5):
            pool.send(f"{sender}/0", four(pool.vif(f"{sender}/0"), web) / message)

    def more(name: str) -> int:
        return counts()[name] - before[name]

    # What guests' kernels answer counts as well: that SCTP is not spoken here.
    wait_until(lambda: more("signalling") >= 5 and more("") >= 10, "the switch has told")
    assert (more("ping"), more("tunnels")) == (0, 0)
    with pytest.raises(LocalRefused, match="security group 'wbe': there are lb, web"):
        call_agent("rules", {"group": "wbe"}, str(pool.daemons.agent_socket("xen1")))


@pytest.mark.parametrize("pool", ENGINES[1:], indirect=True)
def test_counters_are_summed_over_the_hosts(pool: Lab) -> None:
    sockets = [str(pool.daemons.agent_socket(host)) for host in ("xen1", "xen2")]

    def count(rows: Iterable[dict[str, Any]]) -> int:
        return sum(row["packets"] for row in rows if row["rule"] == "")

    with Client(f"unix:{pool.daemons.controller_socket}") as client:
        for name in ("web/0", "web2/0"):
            for _ in range(5):
                pool.send("other/0", four(pool.vif("other/0"), pool.vif(name)) / TCP(dport=80))

        def agrees() -> bool:
            here = [count(call_agent("rules", {"group": "web"}, socket)) for socket in sockets]
            found = client.group_counters("web")
            return (
                min(here) >= 5 and count(map(to_builtins, found.rules)) == sum(here) and found.hosts == ["xen1", "xen2"]
            )

        wait_until(agrees, "the switches have told")
