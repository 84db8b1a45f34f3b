"""What a rule may name besides ports: SCTP, other protocols, the messages of ICMP, several other sides. On every engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from msgspec import to_builtins
from scapy.layers.inet import GRE, ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Packet

from tests.polling import wait_until
from tests.vnet.packets.engines import ENGINES, receivers, running
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
vms:
  web: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"], security-groups: [web]}]}
  web2: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.5, "fd00:1::5"], security-groups: [web]}]}
  ops: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.2, "fd00:1::2"], security-groups: [ops]}]}
  peer: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"]}]}
  other: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.4, "fd00:1::4"]}]}
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
    with pytest.raises(LocalRefused, match="security group 'wbe': there are web"):
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
