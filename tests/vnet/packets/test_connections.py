"""Connections of VIFs in security groups while a document changes rules and groups. On every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import pytest
from scapy.layers.l2 import ARP, Ether

from tests.polling import wait_until
from tests.vnet.packets.engines import ENGINES, running
from vnet.agent.connection_limits import MAX_CONNECTIONS
from vnet.client import Client
from vnet.lab import Lab
from vnet.objects import Protocol
from vnet.plan import desired_state
from vnet.sim import SimPool
from vnet.sim.packets import End, Part, Talk
from vnet.testing import PoolUnderTest
from vnet.topology import load

UDP, ICMP = Protocol.UDP, Protocol.ICMP
SERVICE = "[{name: service, direction: ingress, protocol: udp, ports: [53]}, {name: ping, direction: ingress, protocol: icmp}]"
DOCUMENT = """
apiVersion: vnet/v1
pool: revoked
hosts:
  xen1: {{address: 10.99.0.1, uplinks: {{trunk0: {{members: [eth1]}}}}}}
  xen2: {{address: 10.99.0.2, uplinks: {{trunk0: {{members: [eth1]}}}}}}
networks:
  lan: {{type: vxlan}}
security-groups:
  web: {{default: {{ingress: drop}}, rules: {rules}}}
  shut: {{default: {{ingress: drop, egress: drop}}}}
  quarantine:
    rules: [{{name: in, direction: ingress, action: drop}}, {{name: out, direction: egress, action: drop}}]
vms:
  srv: {{host: xen1, vifs: [{{network: lan, addresses: [10.1.0.1, "fd00:1::1"], security-groups: [{groups}]}}]}}
  near: {{host: xen1, vifs: [{{network: lan, addresses: [10.1.0.2, "fd00:1::2"], locking-mode: {mode}}}]}}
  far: {{host: xen2, vifs: [{{network: lan, addresses: [10.1.0.3, "fd00:1::3"]}}]}}
"""
_source_ports = count(49152)


def document(rules: str = SERVICE, groups: str = "web", mode: str = "locked") -> bytes:
    return DOCUMENT.format(rules=rules, groups=groups, mode=mode).encode()


@dataclass(frozen=True, slots=True)
class Changing:
    """A pool and the call that applies a document to it and returns once the hosts have followed."""

    pool: PoolUnderTest
    apply: Callable[[bytes], object]


@pytest.fixture(scope="module", params=ENGINES)
def changing(request: pytest.FixtureRequest) -> Iterator[Changing]:
    with running(request.param, document()) as pool:
        if isinstance(pool, SimPool):
            yield Changing(pool, lambda text: pool.update(desired_state(load(text, "test.vnet.yaml"), pool.state)))
        elif isinstance(pool, Lab):
            with Client(f"unix:{pool.daemons.controller_socket}") as client:
                yield Changing(pool, client.apply)


def passes(pool: PoolUnderTest, source: str, target: str, frame: bytes) -> bool:
    """Whether a frame of a VIF reaches another one as it is."""
    return any(item.to == f"{target}/0" and item.frame == frame for item in pool.send(f"{source}/0", frame))


@pytest.mark.parametrize(
    ("protocol", "version", "peer"), [(UDP, 4, "near"), (UDP, 6, "far"), (ICMP, 4, "far"), (ICMP, 6, "near")]
)
def test_what_is_forbidden_ends_for_a_server_that_goes_on_alone(
    changing: Changing, protocol: Protocol, version: int, peer: str
) -> None:
    pool = changing.pool
    server, client = pool.vif("srv/0"), pool.vif(f"{peer}/0")
    place = 0 if version == 4 else 1
    ends = End(client.mac, client.addresses[place]), End(server.mac, server.addresses[place])
    talk = Talk(*ends, protocol, 53 if protocol is UDP else 0, next(_source_ports))
    there, back = talk.frame(), talk.frame(Part.ANSWER)
    assert passes(pool, peer, "srv", there)
    assert passes(pool, "srv", peer, back)
    try:
        for forbidding in (document(rules="[]"), document(groups="shut"), document(groups="quarantine, web")):
            changing.apply(forbidding)
            # ovs-vswitchd has new flows before its datapath's cache follows them.
            wait_until(lambda: not passes(pool, "srv", peer, back), "answers that end")
            assert not passes(pool, "srv", peer, back)
            assert not passes(pool, peer, "srv", there)
            assert not passes(pool, "srv", peer, back)
            changing.apply(document())
            wait_until(lambda: passes(pool, "srv", peer, back), "answers that go on")
    finally:
        changing.apply(document())


def segments(pool: PoolUnderTest, peer: str, port: int) -> tuple[bytes, bytes]:
    """What a client and the server send on a TCP connection that no tracker saw begin."""
    server, client = pool.vif("srv/0"), pool.vif(f"{peer}/0")
    ends = End(client.mac, client.addresses[0]), End(server.mac, server.addresses[0])
    talk = Talk(*ends, Protocol.TCP, port, next(_source_ports))
    return talk.frame(Part.CONFIRM), Talk(*ends[::-1], Protocol.TCP, talk.source_port, port).frame(Part.CONFIRM)


@pytest.mark.parametrize("peer", ["near", "far"])
def test_a_live_connection_into_a_vif_ends_when_it_joins_a_group_that_forbids_it(changing: Changing, peer: str) -> None:
    """Whoever sends next. One that the group allows goes on."""
    pool = changing.pool
    there, back = segments(pool, peer, 8000)
    allowed, answer = segments(pool, peer, 80)
    try:
        changing.apply(document(groups=""))
        wait_until(lambda: passes(pool, "srv", peer, back), "a VIF in no group")
        # An agent knows what a VIF joins by what it last told peers of it, which it writes 0.2 s apart at most.
        if isinstance(pool, Lab):
            pool.daemons.wait(lambda view: not any(b.groups for b in view.state.bindings.values()), "in no group")
        assert passes(pool, peer, "srv", there)
        changing.apply(document(rules="[{name: web, direction: ingress, protocol: tcp, ports: [80]}]"))
        wait_until(lambda: not passes(pool, "srv", peer, back), "the end of what is forbidden")
        for _ in range(2):
            assert not passes(pool, "srv", peer, back)
            assert not passes(pool, peer, "srv", there)
        assert passes(pool, "srv", peer, answer)
        assert passes(pool, peer, "srv", allowed)
        assert passes(pool, "srv", peer, answer)
    finally:
        changing.apply(document())


def test_a_revoked_rule_ends_a_connection_of_which_a_server_that_moved_spoke_first(changing: Changing) -> None:
    pool = changing.pool
    there, back = segments(pool, "far", 80)
    try:
        changing.apply(document(rules="[{name: web, direction: ingress, protocol: tcp, ports: [80]}]"))
        pool.migrate("srv", "xen2")
        wait_until(lambda: passes(pool, "srv", "far", back), "the server goes on")
        changing.apply(document(rules="[]"))
        wait_until(lambda: not passes(pool, "srv", "far", back), "the end of what is revoked")
        for _ in range(2):
            assert not passes(pool, "srv", "far", back)
            assert not passes(pool, "far", "srv", there)
    finally:
        changing.apply(document())
        pool.migrate("srv", "xen1")


@pytest.mark.parametrize("changing", ENGINES[1:], indirect=True)
def test_the_datapath_limits_the_connections_of_a_vif_in_groups(changing: Changing) -> None:
    lab = changing.pool
    assert isinstance(lab, Lab)

    def limits() -> list[str]:
        text = lab.ovs("xen1").appctl("dpctl/ct-get-limits")
        return [line for line in text.splitlines() if f"limit={MAX_CONNECTIONS}," in line]

    wait_until(lambda: len(limits()) == 1, "the limit of the only VIF in a group")


@pytest.mark.parametrize("peer", ["srv", "far"])
def test_a_vif_that_is_disabled_is_silent_both_ways(changing: Changing, peer: str) -> None:
    """Also within its own host, and of what is for everyone, which comes to all others."""
    pool = changing.pool
    off, other = pool.vif("near/0"), pool.vif(f"{peer}/0")
    out, into = (
        Talk(End(a.mac, a.addresses[0]), End(b.mac, b.addresses[0]), UDP, 53, next(_source_ports)).frame()
        for a, b in ((off, other), (other, off))
    )
    everyone = bytes(Ether(src=other.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=other.mac, psrc=other.addresses[0]))
    third = next(f"{vm}/0" for vm in ("srv", "far") if vm != peer)
    assert passes(pool, "near", peer, out)
    assert passes(pool, peer, "near", into)
    try:
        changing.apply(document(mode="disabled"))
        wait_until(lambda: not passes(pool, "near", peer, out), "it is silent")
        assert not passes(pool, peer, "near", into)
        assert pool.send(f"{peer}/0", everyone).to == [third]
    finally:
        changing.apply(document())
    wait_until(lambda: passes(pool, "near", peer, out), "it speaks again")
