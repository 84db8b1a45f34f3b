"""Isolation: isolated VIFs, communities and promiscuous ones, over hosts, a tunnel, a VLAN and a move. On every engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.vnet.packets.arrivals import Move
from tests.vnet.packets.engines import ENGINES, running
from vnet.compile import Compiler, HostView, Table, compile_flows, flat
from vnet.compile.inputs import StateIndex
from vnet.objects import PoolState, Vif
from vnet.objects.isolation import COMMUNITY, PROMISCUOUS
from vnet.plan import desired_state
from vnet.sim import SimPool
from vnet.sim.trace import trace_packet
from vnet.testing import PoolUnderTest
from vnet.topology import load
from vnet.verify.expectations import check as check_expectations

DOCUMENT = b"""
apiVersion: vnet/v1
pool: apart
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  lan: {type: vxlan}
  prod: {type: vlan, tag: 120, uplink: trunk0, isolation: isolated}
security-groups:
  open: {default: {ingress: allow, egress: allow}, rules: []}
vms:
  open1: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1]}, {network: prod, addresses: [10.2.0.1], isolation: promiscuous}]}
  open2: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.2]}, {network: prod, addresses: [10.2.0.2], isolation: promiscuous}]}
  only1: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.3], isolation: isolated, security-groups: [open]}, {network: prod, addresses: [10.2.0.3]}]}
  only2: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.4], isolation: isolated}, {network: prod, addresses: [10.2.0.4]}]}
  only3: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.5], isolation: isolated}, {network: prod, addresses: [10.2.0.5]}]}
  red1: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.6], isolation: "community:red"}, {network: prod, addresses: [10.2.0.6], isolation: "community:red"}]}
  red2: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.7], isolation: "community:red"}, {network: prod, addresses: [10.2.0.7], isolation: "community:red"}]}
  blue2: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.8], isolation: "community:blue"}, {network: prod, addresses: [10.2.0.8], isolation: "community:blue"}]}
"""
VMS = ("open1", "open2", "only1", "only2", "only3", "red1", "red2", "blue2")
NETWORKS = ("lan", "prod")
BROADCAST, MULTICAST = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
STATION = "0c:00:00:00:00:01"


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as made:
        yield made


def meet(a: str, b: str) -> bool:
    """Whether two VMs exchange frames, by RFC 5517 §2."""
    colours = [name.rstrip("0123456789") for name in (a, b)]
    return "open" in colours or (colours[0] == colours[1] != "only")


def to(me: Vif, mac: str, number: int = 0) -> Packet:
    return Ether(src=me.mac, dst=mac) / IP(src=me.addresses[0], dst="10.9.0.1") / UDP() / Raw(bytes((number,)) * 20)


def asks(me: Vif, address: str) -> Packet:
    return Ether(src=me.mac, dst=BROADCAST) / ARP(hwsrc=me.mac, psrc=me.addresses[0], pdst=address)


def got(pool: PoolUnderTest, sender: str, *packets: Packet) -> list[list[str]]:
    """The VIFs that get each of these frames, byte for byte."""
    sent = [bytes(packet) for packet in packets]
    items = pool.send(sender, sent).items
    return [sorted(item.to for item in items if item.frame == frame and "/" in item.to) for frame in sent]


def check(pool: PoolUnderTest, at: int, senders: tuple[str, ...] = VMS) -> None:
    """Unicast, broadcast, multicast and ARP of each VM reach whom they may, each once."""
    vifs = {vm: pool.vif(f"{vm}/{at}") for vm in VMS}
    for sender in senders:
        me = vifs[sender]
        others = [vm for vm in VMS if vm != sender]
        frames = [to(me, vifs[vm].mac) for vm in others]
        to_all = [to(me, BROADCAST), to(me, MULTICAST), asks(me, "10.9.0.2")]
        *each, broadcast, multicast, asked = got(pool, f"{sender}/{at}", *frames, *to_all)
        reached = [vm for vm in others if meet(sender, vm)]
        assert dict(zip(others, each, strict=True)) == {vm: [f"{vm}/{at}"] * (vm in reached) for vm in others}, sender
        assert broadcast == multicast == asked == sorted(f"{vm}/{at}" for vm in reached), sender


@pytest.mark.parametrize("network", NETWORKS)
def test_vifs_reach_the_promiscuous_and_their_own_community(pool: PoolUnderTest, network: str) -> None:
    check(pool, NETWORKS.index(network))


def test_a_station_of_the_physical_network_is_promiscuous(pool: PoolUnderTest) -> None:
    if isinstance(pool, SimPool):
        outside = pool.station("trunk0", 120)
        me, everyone = pool.vif("only1/1"), sorted(f"{vm}/1" for vm in VMS)
        frame = Ether(src=STATION, dst=BROADCAST) / IP(dst="10.9.0.1") / UDP()
        assert pool.send(outside, frame).to == everyone
        assert pool.send(outside, Ether(src=STATION, dst=me.mac) / IP() / UDP()).to == ["only1/1"]
        assert pool.send("only1/1", to(me, STATION)).to == [outside.name]
        assert outside.name in pool.send("only1/1", to(me, BROADCAST)).to


def test_a_vif_that_moves_stays_apart_before_its_port_opens_and_after(pool: PoolUnderTest) -> None:
    move = Move(pool, "only1", "xen2")
    move.prepare()
    for at in range(2):
        check(pool, at, ("only2", "only3", "red2", "open2", "only1"))
    move.arrive()
    for at, network in enumerate(NETWORKS):
        me = pool.vif(f"only1/{at}")
        announcement = Ether(src=me.mac, dst=BROADCAST) / ARP(
            op=2, hwsrc=me.mac, psrc=me.addresses[0], pdst=me.addresses[0]
        )
        (opened,) = got(pool, f"only1/{at}", announcement)
        assert set(opened) == {f"open1/{at}", f"open2/{at}"}, network
    move.finish()
    for at in range(2):
        check(pool, at, ("only1", "only2", "only3", "red2", "open2"))
    pool.migrate("only1", "xen1")


def state_of(document: bytes = DOCUMENT) -> PoolState:
    return desired_state(load(document, "test.vnet.yaml"), PoolState())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("late", ["xen1", "xen2"])
def test_a_vif_that_becomes_isolated_exchanges_nothing_once_its_own_host_knows(network: str, late: str) -> None:
    """The other host is cut off from the database, and goes on as it was told."""
    at = NETWORKS.index(network)
    after = state_of()
    name = f"only1/{at}"
    before = replace(after, vifs=after.vifs | {name: replace(after.vifs[name], isolation=PROMISCUOUS)})
    pool = SimPool.of(before)
    me, peer = pool.vif(name), pool.vif(f"only2/{at}")
    assert pool.send(name, to(me, peer.mac)).to == [peer.id]
    old = pool.state
    pool.update(after)
    pool.hosts[late].program(old, StateIndex(old))
    there, back = pool.send(name, to(me, peer.mac)).to, pool.send(peer.id, to(peer, me.mac)).to
    asked, asked_back = pool.send(name, to(me, BROADCAST)).to, pool.send(peer.id, to(peer, BROADCAST)).to
    if late == "xen2":
        assert (there, back, me.id in asked_back) == ([], [], False)
    else:  # its own host does not know yet: the other one keeps what it is told to keep apart from it
        assert peer.id not in asked + there
        assert me.id not in back


def test_a_new_vif_whose_binding_is_not_known_here_counts_as_isolated_behind_a_tunnel() -> None:
    pool = SimPool.of(state_of())
    known = replace(pool.state, bindings={key: b for key, b in pool.state.bindings.items() if key[0] != "only3/0"})
    pool.hosts["xen2"].program(known, StateIndex(known))
    me = pool.vif("only3/0")
    assert pool.send("only3/0", to(me, BROADCAST)).to == ["open1/0", "open2/0"]


def test_the_expectations_of_its_page_hold() -> None:
    page = (Path(__file__).parents[3] / "docs" / "isolation.md").read_text()
    document = load(page.split("```yaml\n")[1].split("```")[0].encode(), "isolation.vnet.yaml")
    results = check_expectations(SimPool.from_document(document), document)
    assert len(results) == 5
    assert all(result.holds for result in results), results


def test_a_trace_says_who_is_kept_apart() -> None:
    pool = SimPool.of(state_of())
    me, peer = pool.vif("only1/0"), pool.vif("red2/0")
    leg = trace_packet(pool, "only1/0", bytes(to(me, peer.mac)))
    assert leg.verdict == (
        "dropped by xen1 br-int in FROM_ISOLATION: only1/0 is isolated, and the receiver community:red"
    )
    broadcast = trace_packet(pool, "red2/0", bytes(to(peer, BROADCAST)))
    wrong = {step.wrong for hop in broadcast.hops for step in hop.steps if step.wrong}
    assert wrong == {
        "only1/0 is isolated, and the sender community:red",
        "only2/0 is isolated, and the sender community:red",
        "only3/0 is isolated, and the sender community:red",
        "blue2/0 is community:blue, and the sender community:red",
    }


def test_isolation_costs_nothing_where_no_vif_here_is_kept_apart() -> None:
    """No flow but the misses of its tables, and no look-up, on networks without and on hosts that have only promiscuous VIFs."""
    isolation = {Table.FROM_ISOLATION, Table.TO_ISOLATION, Table.RECEIVER_ROLE, Table.SENDER_ROLE}
    with_it = SimPool.of(state_of())
    plain = {vif.id: replace(vif, isolation=PROMISCUOUS) for vif in with_it.state.vifs.values()}
    without = SimPool.of(replace(state_of(), vifs=plain))
    elsewhere = {
        vif.id: replace(vif, isolation=PROMISCUOUS) if vif.host == "xen1" or str(vif.vm)[-1] in "135" else vif
        for vif in with_it.state.vifs.values()
    }
    some = SimPool.of(replace(state_of(), vifs=elsewhere))
    for pool, hosts in ((without, ("xen1", "xen2")), (some, ("xen1",))):
        for host in hosts:
            found = flat(pool.hosts[host].compiled)
            assert [flow for flow in found if flow.table in isolation and flow.priority] == []
            assert not [f for f in found if any(getattr(a, "table", None) in isolation for a in f.actions)]
    assert [flow for flow in flat(some.hosts["xen2"].compiled) if flow.table in isolation and flow.priority]


def test_another_isolated_vif_costs_the_same_however_many_vifs_its_network_has() -> None:
    def cost(size: int) -> int:
        compiler = Compiler("xen1")
        for host in ("xen1", "xen2"):
            compiler.inputs.set_host(state_of().hosts[host])
        compiler.inputs.set_network(state_of().networks["lan"])
        template = SimPool.of(state_of()).state.bindings["only2/0", "xen2"]
        for number in range(size):
            mac = f"0a:00:00:01:{number >> 8:02x}:{number & 255:02x}"
            compiler.inputs.set_binding(replace(template, vif=f"vm{number}/0", mac=mac))
        for number in range(2):
            vif = Vif(f"new{number}/0", "lan", f"0a:00:00:02:00:0{number}", isolation=f"{COMMUNITY}red")
            compiler.inputs.set_vif(vif)
            compiler.inputs.set_port(vif.id, 20 + number)
            compiler.inputs.set_binding(
                replace(template, vif=vif.id, host="xen1", mac=vif.mac, isolation=vif.isolation)
            )
            compiler.compile()
            before, compiler.recomputed = compiler.recomputed, 0
        assert compile_flows(HostView(compiler.inputs)) == compiler.flows
        return before

    assert cost(5) == cost(500)
