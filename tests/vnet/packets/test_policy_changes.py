"""Security groups that change often, and traffic that differs in each frame. On the real switch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ovsctl.ovsdb import Delete, Insert, Operation, OvsdbClient, Update
from tests.labs import new_name
from tests.vnet.converged import wait_converged
from tests.vnet.flowing import go_on
from vnet.api import Rule, SecurityGroupChange
from vnet.client import Client
from vnet.db.rows import to_columns
from vnet.lab import Driver, Lab
from vnet.objects import Direction, Owner, PoolState, PortRange, Protocol, SecurityGroup, Verdict
from vnet.objects import Rule as Allow
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
ALLOWED, FORBIDDEN, REWRITES, PEERS = 53, 54, 1000, 1000


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
    """Rules come, go and change their ports around the two streams' 1,000 times. Each time the agent programs what it then knows."""
    service = rule("service", ALLOWED)
    with ExitStack() as stack:
        client = stack.enter_context(Client(f"unix:{lab.daemons.controller_socket}"))
        allowed, forbidden = (
            [stack.enter_context(lab.stream(vm, packet=datagram(lab, vm, port), period_ms=5)) for vm in ("near", "far")]
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
        assert len(stream.report.sent) > REWRITES // 4
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


GROUP = SecurityGroup(
    "web",
    1,
    ingress=Verdict.DROP,
    rules=(Allow("service", Direction.INGRESS, protocol=Protocol.UDP, ports=(PortRange(53, 53),)),),
)
ANEW = SecurityGroup(
    "web", 77, ingress=Verdict.DROP, rules=(
        Allow("other", Direction.INGRESS, protocol=Protocol.UDP, ports=(PortRange(54, 54),)),
        Allow("tcp", Direction.INGRESS, protocol=Protocol.TCP, ports=(PortRange(80, 80),)),
    ),
)  # fmt: skip


def groups_are(vif: str, *groups: str) -> Operation:
    return Update("Vif", (("id", "==", vif),), {"groups": frozenset(groups)})


def made(group: SecurityGroup) -> tuple[Operation, ...]:
    """The group is deleted and made anew under its name."""
    return Delete("SecurityGroup", (("name", "==", group.name),)), Insert("SecurityGroup", to_columns(group))


# In one transaction each; and who gets UDP 53, UDP 54 and a new connection of TCP 80 then: srv, and near in its place.
CHANGES: list[tuple[tuple[Operation, ...], str, str]] = [
    (made(GROUP), "53", "53 54 80"),
    ((groups_are("srv/0"),), "53 54 80", "53 54 80"),
    ((groups_are("srv/0", "web"),), "53", "53 54 80"),
    ((*made(ANEW), groups_are("near/0", "web")), "54 80", "54 80"),
    ((*made(GROUP), groups_are("srv/0"), groups_are("near/0", "web")), "53 54 80", "53"),
    ((*made(ANEW), groups_are("srv/0", "web"), groups_are("near/0")), "54 80", "53 54 80"),
    (made(GROUP), "53", "53 54 80"),
]


def test_groups_come_and_go_and_are_made_anew_with_other_members_under_live_traffic(lab: Lab) -> None:
    """At each moment what passes is what a fresh compile of the pool lets pass, for connections that run as for new ones."""

    def frames(to: str, number: int) -> dict[str, Packet]:
        source, target = lab.vif("far"), lab.vif(to)
        link = Ether(src=source.mac, dst=target.mac) / IP(src=source.addresses[0], dst=target.addresses[0])
        udp = {str(port): link / UDP(sport=4000, dport=port) for port in (53, 54)}
        return udp | {"80": link / TCP(sport=5000 + number, dport=80, flags="S")}

    async def write(operations: tuple[Operation, ...]) -> None:
        async with OvsdbClient([f"unix:{lab.daemons.pool_socket}"], "Vnet") as client:
            await client.transact(*operations)

    for number, (operations, *expected) in enumerate(CHANGES):
        asyncio.run(write(operations))
        wait_converged(lab)
        for to, passes in zip(("srv", "near"), expected, strict=True):
            got = {port for port, frame in frames(to, number).items() if f"{to}/0" in lab.send("far", frame).to}
            assert got == set(passes.split()), (number, to)
