"""A VIF that is awaited where its VM will start: its port needs nobody when it comes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.converged import wait_converged
from tests.vnet.faults import How, Part, ProcessFault
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet.client import Client
from vnet.lab import Driver, Lab
from vnet.objects import Direction, Pool, PoolState, PortRange, Protocol, Rule, SecurityGroup, Vif, Vm

A, B, C = HOSTS
KINDS = ("vx", "vlan")
HTTP = SecurityGroup(
    "http", 1, rules=(Rule("http", Direction.INGRESS, protocol=Protocol.TCP, ports=(PortRange(80, 80),)),)
)


def vif(vm: str, kind: str, number: int, host: str | None, **more: tuple[str, ...]) -> Vif:
    at = KINDS.index(kind)
    return Vif(
        f"{vm}/{at}", kind, f"0a:00:00:00:{at:02x}:{number:02x}", vm=vm, index=at, host=host,
        addresses=(f"10.{at}.0.{number}",), **more,  # type: ignore[arg-type]
    )  # fmt: skip


STARTING = {kind: vif("starting", kind, 1, None) for kind in KINDS}
GUARDED = vif("guarded", "vx", 2, None, groups=("http",))
PEERS = {(kind, host): vif(f"peer-{host}", kind, 10 + n, host) for kind in KINDS for n, host in enumerate(HOSTS)}


@pytest.fixture(autouse=True)
def _stopped(lab: Lab) -> Iterator[None]:
    """Each test leaves its VMs where it found them."""
    yield
    for vm in ("starting", "guarded"):
        stop(lab, vm)


def pool() -> PoolState:
    vifs = [*STARTING.values(), GUARDED, *PEERS.values()]
    vms = {one.vm: Vm(one.vm, one.host) for one in vifs if one.vm is not None}
    networks = {kind: NETWORKS[kind] for kind in KINDS}
    return PoolState(
        Pool("awaited", underlay_mtu=1600), HOSTS, networks, {}, vms, {one.id: one for one in vifs},
        groups={HTTP.name: HTTP},
    )  # fmt: skip


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    with Lab.up(pool(), name=new_name(), driver=Driver.NETNS, daemons=True) as running:
        for host in HOSTS:
            running.start(f"peer-{host}")
        running.wait_ready(*(f"peer-{host}" for host in HOSTS))
        running.introduce(*(f"peer-{host}" for host in HOSTS))
        yield running


def stop(lab: Lab, vm: str) -> None:
    lab.run(vm, None)
    lab.unplug(vm, B)


def awaited(lab: Lab, *vifs: Vif) -> dict[str, int]:
    """Have these VIFs awaited on B, by the controller; the number of each."""
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        # Their host may have yet to say that the ports of before are gone.
        wait_until(
            lambda: {client.vif(one.id).place.state for one in vifs} <= {"defined", "awaited"}, "no port to be there"
        )
        places = {one.id: client.plug_vif(one.id, B, awaited=True, wait_s=10).place for one in vifs}
    assert {(place.state, place.host) for place in places.values()} == {("awaited", B)}
    wait_converged(lab)
    return {id: place.ofport or 0 for id, place in places.items()}


def udp(source: Vif, to: Vif) -> Packet:
    return Ether(src=source.mac, dst=to.mac) / IP(src=source.addresses[0], dst=to.addresses[0]) / UDP() / Raw(b"?" * 20)


def got(lab: Lab, source: Vif, packet: Packet) -> list[str]:
    return sorted(item.to for item in lab.send(source.id, packet) if item.frame == bytes(packet))


def reached(lab: Lab, vm: Vif, peer: Vif) -> None:
    assert got(lab, peer, udp(peer, vm)) == [f"{vm.vm}/{vm.index}"], peer.id
    assert got(lab, vm, udp(vm, peer)) == [f"{peer.vm}/{peer.index}"], peer.id


def test_a_port_that_comes_while_everything_else_is_dead_forwards_at_once(lab: Lab) -> None:
    ofports = awaited(lab, *STARTING.values())
    # The controller starts the database.
    dead = [ProcessFault(Part.CONTROLLER, How.KILLED), ProcessFault(Part.DATABASE, How.KILLED)]
    dead += [ProcessFault(Part.AGENT, How.KILLED, host) for host in HOSTS]
    for fault in dead:
        fault.break_(lab)

    lab.plug("starting", B, ofports=ofports)
    lab.run("starting", B, announce=True)
    for (kind, _), peer in PEERS.items():
        reached(lab, STARTING[kind], peer)
    spoofed = udp(PEERS["vx", A], PEERS["vx", C])
    assert got(lab, STARTING["vx"], spoofed) == []  # who it is was decided before it came

    running = {
        (source.id, to.id): (lab.stream(source.id, to.id, period_ms=10), to.id)  # a dozen of them
        for kind, host in PEERS
        for source, to in ((STARTING[kind], PEERS[kind, host]), (PEERS[kind, host], STARTING[kind]))
    }
    go_on(running)
    for fault in dead:
        fault.mend(lab)
    lab.wait_ready("starting")
    wait_sent(running, go_on(running))
    for key, (stream, to) in running.items():
        stream.stop()
        assert (stream.report.at(to).lost, stream.report.at(to).duplicated) == (0, 0), key
    wait_converged(lab)


def test_a_vm_that_starts_again_finds_everything_as_it_was(lab: Lab) -> None:
    ofports = awaited(lab, *STARTING.values())
    lab.plug("starting", B, ofports=ofports)
    lab.run("starting", B)
    lab.wait_ready("starting")
    stop(lab, "starting")
    assert awaited(lab, *STARTING.values()) == ofports
    for host in HOSTS:
        ProcessFault(Part.AGENT, How.STOPPED, host).break_(lab)
    try:
        lab.plug("starting", B, ofports=ofports)
        lab.run("starting", B, announce=True)
        for (kind, _), peer in PEERS.items():
            reached(lab, STARTING[kind], peer)
    finally:
        for host in HOSTS:
            ProcessFault(Part.AGENT, How.STOPPED, host).mend(lab)
    wait_converged(lab)


def test_the_rules_of_its_security_groups_are_there_before_it(lab: Lab) -> None:
    ofports = awaited(lab, GUARDED)
    peer = PEERS["vx", A]
    for host in HOSTS:
        ProcessFault(Part.AGENT, How.STOPPED, host).break_(lab)
    try:
        lab.plug("guarded", B, ofports=ofports)
        lab.run("guarded", B)
        to = Ether(src=peer.mac, dst=GUARDED.mac) / IP(src=peer.addresses[0], dst=GUARDED.addresses[0])
        assert got(lab, peer, to / TCP(sport=1000, dport=80)) == ["guarded/0"]
        assert got(lab, peer, to / TCP(sport=1000, dport=81)) == []
    finally:
        for host in HOSTS:
            ProcessFault(Part.AGENT, How.STOPPED, host).mend(lab)
    wait_converged(lab)


def test_what_is_awaited_no_more_is_sent_nowhere(lab: Lab) -> None:
    awaited(lab, GUARDED)
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        assert not client.unplug_vif(GUARDED.id).awaited
        wait_until(lambda: client.vif(GUARDED.id).place.state == "defined", "no host awaits it")
    wait_converged(lab)
