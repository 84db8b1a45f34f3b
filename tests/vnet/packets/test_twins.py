"""Two ports with one VIF id on two hosts, and no migration: nobody fights, one port is silent, and who is wrong is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from ovsctl.ovsdb import OvsdbClient as Database
from ovsctl.ovsdb import Select, Update
from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.converged import flows_of
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet.cli.main import cli
from vnet.client import Client
from vnet.db.rows import SCHEMA_NAME
from vnet.db.view import PoolView
from vnet.lab import Driver, Lab
from vnet.lab.daemons import call_async
from vnet.objects import Pool, PoolState, Vif, Vm

KINDS = ("vx", "vlan")
A, B, C = HOSTS
TWINS = {kind: Vif(f"twin-{kind}/0", kind, f"0a:00:00:00:0{n}:01", vm=f"twin-{kind}", addresses=(f"10.{n}.0.1",))
         for n, kind in enumerate(KINDS, 1)}  # fmt: skip
PEERS = {kind: Vif(f"peer-{kind}/0", kind, f"0a:00:00:00:0{n}:02", vm=f"peer-{kind}", host=C, addresses=(f"10.{n}.0.2",))
         for n, kind in enumerate(KINDS, 1)}  # fmt: skip


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    vifs = [*TWINS.values(), *PEERS.values()]
    vms = {f"twin-{kind}": Vm(f"twin-{kind}") for kind in KINDS} | {f"peer-{k}": Vm(f"peer-{k}", C) for k in KINDS}
    networks = {kind: NETWORKS[kind] for kind in KINDS}
    state = PoolState(Pool("twins", underlay_mtu=1600), HOSTS, networks, {}, vms, {vif.id: vif for vif in vifs})
    with Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True) as running:
        running.start_all()
        yield running


def wanted_on(lab: Lab, kind: str, host: str | None, *former: str) -> int:
    """Say where a twin is wanted, and who may run it until it is claimed there; its epoch."""
    stays = " ".join((host, *former)) if host is not None and former else ""

    async def work() -> int:
        async with Database([f"unix:{lab.daemons.pool_socket}"], SCHEMA_NAME) as client:
            where = (("id", "==", TWINS[kind].id),)
            _, (row,) = await client.transact(
                Update("Vif", where, {"host": host, "stays": stays}), Select("Vif", where)
            )
            return int(row["epoch"])

    return call_async(work)


def frame(source: Vif, to: Vif) -> Packet:
    return Ether(src=source.mac, dst=to.mac) / IP(src=source.addresses[0], dst=to.addresses[0]) / UDP() / Raw(b"twin")


def got(lab: Lab, source: Vif, to: Vif) -> list[str]:
    """Who got this very frame, as often as they did: on a busy machine a guest's announcement from before may come besides."""
    sent = frame(source, to)
    return sorted(item.to for item in lab.send(f"{source.vm}/0", sent) if item.frame == bytes(sent))


def settled(lab: Lab, kind: str, winner: str, loser: str) -> None:
    """Wait until the winner alone has it, and the loser's agent says why it has not."""
    vif = TWINS[kind].id

    def so(view: PoolView) -> bool:
        bindings = view.bindings_of.get(vif, {})
        agent = view.state.agents.get(loser)
        told = agent is not None and f"runs on host {winner}" in agent.problems.get(f"vif {vif}", "")
        return told and set(bindings) == {winner} and bindings[winner].ready

    lab.daemons.wait(so, f"{vif} on {winner} alone, and {loser} says so")
    lab.daemons.settle()
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        told = [reason.text for reason in client.status().problems if reason.host == loser]
        assert any(f"VIF {vif} runs on host {winner}" in text for text in told)
        assert any(event.host == loser and winner in event.text for event in client.events(50, kind="problem", vif=vif))


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_ports_the_wanted_one_works_and_the_other_is_silent(lab: Lab, kind: str) -> None:
    twin, peer, vm = TWINS[kind], PEERS[kind], f"twin-{kind}"
    before = wanted_on(lab, kind, None)
    with ThreadPoolExecutor() as both:
        list(both.map(lambda host: lab.plug(vm, host), (A, B)))
    wait_until(lambda: wanted_on(lab, kind, B) > before, "a claim")
    settled(lab, kind, B, A)
    # At most each claimed it once, and the wanted one once more if it came second.
    assert before < wanted_on(lab, kind, B) <= before + 2
    quiet = {host: flows_of(lab, host) for host in HOSTS}
    for guest, host in ((vm, A), (vm, B)):
        lab.run(guest, host, announce=True)
        heard = [twin.vm + "/0"] if host == B else []
        assert got(lab, twin, peer) == ([f"{peer.vm}/0"] if host == B else [])
        assert got(lab, peer, twin) == heard
    assert {host: flows_of(lab, host) for host in HOSTS} == quiet
    wanted_on(lab, kind, A)  # the toolstack changes its mind: the other way round
    settled(lab, kind, A, B)
    lab.run(vm, A, announce=True)
    assert got(lab, peer, twin) == [f"{vm}/0"]
    lab.run(vm, B)
    assert got(lab, twin, peer) == []
    lab.stop(vm)
    lab.daemons.wait(lambda view: not view.bindings_of.get(twin.id), "nobody has it")
    lab.daemons.wait(lambda view: not any(agent.problems for agent in view.state.agents.values()), "no problems")


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_where_the_vif_is_not_asked_for_works_by_the_command_that_its_host_names(lab: Lab, kind: str) -> None:
    twin, peer, vm = TWINS[kind], PEERS[kind], f"twin-{kind}"
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        client.plug_vif(twin.id, A)
        lab.plug(vm, B)
        named: list[str] = []

        def said() -> bool:
            for reason in client.status().problems:
                if reason.host == B and f"VIF {twin.id} is asked for on host {A}" in reason.text:
                    named.extend(re.findall("'vnet (.*?)'", reason.text))
            return bool(named)

        wait_until(said, "the host says why the port is silent")
        lab.run(vm, B, announce=True)
        assert (got(lab, twin, peer), got(lab, peer, twin)) == ([], [])
        assert client.vif(twin.id).place.host is None
        done = CliRunner().invoke(
            cli, ["--controller", lab.daemons.env["VNET_CONTROLLER"], *named[0].split(), "--wait", "10"]
        )
        assert done.exit_code == 0, done.output
        assert (client.vif(twin.id).place.host, client.vif(twin.id).place.state) == (B, "ready")
        lab.daemons.settle()
        assert (got(lab, twin, peer), got(lab, peer, twin)) == ([f"{peer.vm}/0"], [f"{vm}/0"])
        lab.stop(vm)
        lab.daemons.wait(lambda view: not view.bindings_of.get(twin.id), "nobody has it")
        client.unplug_vif(twin.id)
    lab.daemons.wait(lambda view: not any(agent.problems for agent in view.state.agents.values()), "no problems")


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_that_claims_what_is_its_own_while_cut_off_has_it_once_it_is_heard(lab: Lab, kind: str) -> None:
    """One has claimed it, the wanted one does while neither can be told: two claims, till the database hears of both."""
    twin, peer, vm = TWINS[kind], PEERS[kind], f"twin-{kind}"
    wanted_on(lab, kind, A, B)
    lab.plug(vm, B)  # B's agent follows the VIF as long as its port is there
    lab.daemons.wait(lambda view: set(view.bindings_of.get(twin.id, {})) == {B}, "B has claimed it")
    lab.daemons.settle()
    for host in (A, B):
        lab.cut(host, "database")
    try:
        lab.plug(vm, A)
        wait_until(lambda: any(f"dl_dst={twin.mac}" in flow for flow in flows_of(lab, A)), "A has claimed it")
    finally:
        for host in (A, B):
            lab.heal(host, "database")
    settled(lab, kind, A, B)
    lab.run(vm, A, announce=True)
    assert got(lab, peer, twin) == [f"{vm}/0"]
    lab.stop(vm)
    lab.daemons.wait(lambda view: not view.bindings_of.get(twin.id), "nobody has it")
