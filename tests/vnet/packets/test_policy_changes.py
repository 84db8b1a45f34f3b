"""Security groups that change often, and traffic that differs in each frame. On the real switch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.labs import new_name
from tests.vnet.flowing import go_on
from vnet.api import Rule, SecurityGroupChange
from vnet.client import Client
from vnet.lab import Driver, Lab
from vnet.objects import Owner, PoolState
from vnet.plan import desired_state
from vnet.topology import load

pytestmark = pytest.mark.usefixtures("ovs")
DOCUMENT = b"""
apiVersion: vnet/v1
pool: changes
hosts: {xen1: {address: 10.99.0.1}, xen2: {address: 10.99.0.2}}
networks: {lan: {type: geneve}}
security-groups:
  web: {default: {ingress: drop}, rules: [{name: service, direction: ingress, protocol: udp, ports: [53]}]}
vms:
  srv: {host: xen1, vifs: [{network: lan, mac: "0a:00:00:00:00:01", addresses: [10.1.0.1, "fd00:1::1"], security-groups: [web]}]}
  near: {host: xen1, vifs: [{network: lan, mac: "0a:00:00:00:00:02", addresses: [10.1.0.2, "fd00:1::2"]}]}
  far: {host: xen2, vifs: [{network: lan, mac: "0a:00:00:00:00:03", addresses: [10.1.0.3, "fd00:1::3"]}]}
  router: {host: xen1, vifs: [{network: lan, mac: "0a:00:00:00:00:09", addresses: [], locking-mode: unlocked}]}
"""
ALLOWED, FORBIDDEN, REWRITES, PEERS = 53, 54, 200, 1000


def pool() -> PoolState:
    """The document's pool, as if a toolstack had made its groups: a call may change them."""
    state = desired_state(load(DOCUMENT, "test.vnet.yaml"), PoolState())
    groups = {name: replace(group, owner=Owner.TOOLSTACK) for name, group in state.groups.items()}
    return replace(state, groups=groups)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(pool(), name=new_name(), driver=Driver.DUMMY, daemons=True) as lab:
        lab.start_all()
        lab.wait_ready()
        lab.daemons.settle()
        yield lab


def datagram(lab: Lab, source: str, port: int) -> Packet:
    server, client = lab.vif("srv"), lab.vif(source)
    return (
        Ether(src=client.mac, dst=server.mac)
        / IP(src=client.addresses[0], dst=server.addresses[0])
        / UDP(sport=4000, dport=port)
    )


def rule(name: str, *ports: int | str) -> Rule:
    return Rule(name=name, direction="ingress", protocol="udp", ports=list(ports))


def test_rules_are_rewritten_while_an_allowed_and_a_forbidden_stream_run(lab: Lab) -> None:
    """Rules come, go and change their ports around the two streams' 200 times. Each time the agent programs what it then knows."""
    service = rule("service", ALLOWED)
    with ExitStack() as stack:
        client = stack.enter_context(Client(f"unix:{lab.daemons.controller_socket}"))
        allowed, forbidden = (
            [stack.enter_context(lab.stream(vm, packet=datagram(lab, vm, port), period_ms=2)) for vm in ("near", "far")]
            for port in (ALLOWED, FORBIDDEN)
        )
        go_on({vm: (stream, "srv/0") for vm, stream in zip(("near", "far"), allowed, strict=True)})
        for number in range(REWRITES):
            low = 100 + 7 * number
            others = [rule(f"other{number % 5}", f"{low}-{low + number % 9}"), rule("wide", "50-53")][: number % 3]
            client.change_security_group("web", SecurityGroupChange(rules=[service, *others]))
        lab.daemons.settle()
    for stream in allowed:
        found = stream.report.at("srv/0")
        assert (found.lost, found.duplicated) == (0, 0)
    for stream in forbidden:
        assert len(stream.report.sent) > REWRITES
        assert stream.report.received == {}


def test_megaflows_grow_with_the_rules_and_not_with_the_packets(lab: Lab) -> None:
    """1,000 peers of an IPv6 network behind a router, each with a hop limit and a flow label of its own."""
    source, server = lab.vif("router"), lab.vif("srv")
    rng = random.Random(11)
    frames = [
        Ether(src=source.mac, dst=server.mac)
        / IPv6(
            src=str(IPv6Address((0xFD000002 << 96) + rng.getrandbits(64))), dst=server.addresses[1],
            hlim=rng.randint(1, 255), fl=rng.getrandbits(20),
        )
        / UDP(sport=rng.randint(1024, 65535), dport=ALLOWED)
        for _ in range(PEERS)
    ]  # fmt: skip
    lab.ovs("xen1").appctl("dpctl/del-flows")
    arrived = sum(lab.send("router", frames[at : at + 100]).to.count("srv/0") for at in range(0, PEERS, 100))
    flows = lab.ovs("xen1").appctl("dpctl/dump-flows").splitlines()
    assert arrived == PEERS
    assert len(flows) <= 20, flows
