"""Migration: where frames go at each step, what is lost and doubled, and what a fault in the middle does.

The toolstack's calls are made as the controller makes them, by writing rows, so that each step can be looked at for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from ovsctl.ovsdb import Client, Delete, Select, Update
from tests.labs import new_name
from tests.polling import until
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet.client.local import LocalAgent, LocalRefused
from vnet.lab import Driver, Lab
from vnet.lab.guests import rarp
from vnet.lab.streams import StreamReport
from vnet.objects import Pool, PoolState, Vif, Vm

pytestmark = pytest.mark.usefixtures("netns")

BROADCAST = "ff:ff:ff:ff:ff:ff"
KINDS = ["vlan", "native", "vx", "gre", "gnv"]
A, B, C = HOSTS
VIF = Vif("moving/0", "vx", "0a:00:00:00:00:01", vm="moving", addresses=("10.1.0.1",))
PEERS = {host: Vif(f"on-{host}/0", "vx", f"0a:00:00:00:00:1{n}", vm=f"on-{host}", addresses=(f"10.1.0.1{n}",))
         for n, host in enumerate(HOSTS, 1)}  # fmt: skip


def pool_on(network: str, addresses: tuple[str, ...] = VIF.addresses) -> PoolState:
    """One VIF on A that will move to B, and a peer on each host, all on one network."""
    vifs = [
        replace(VIF, network=network, addresses=addresses),
        *(replace(peer, network=network) for peer in PEERS.values()),
    ]
    vms = [Vm("moving", A), *(Vm(f"on-{host}", host) for host in HOSTS)]
    return PoolState(
        Pool("moves", underlay_mtu=1600), HOSTS, {network: NETWORKS[network]}, {},
        {vm.name: vm for vm in vms}, {vif.id: vif for vif in vifs},
    )  # fmt: skip


class Moves:
    """A lab with a VIF to move, and the calls that move it."""

    def __init__(self, lab: Lab, client: Client) -> None:
        self.lab = lab
        self.client = client

    async def vif(self, **columns: Any) -> None:
        await self.client.transact(Update("Vif", (("id", "==", VIF.id),), columns))

    async def binding(self, host: str) -> dict[str, Any] | None:
        (rows,) = await self.client.transact(Select("Binding", (("vif", "==", VIF.id), ("host", "==", host))))
        return rows[0] if rows else None

    async def prepare(self, acks: int = 2) -> None:
        """Prepared: the destination is ready, and `acks` other hosts have acknowledged."""
        await self.vif(incoming=B)
        await asyncio.to_thread(self.lab.plug, "moving", B)

        async def prepared() -> bool:
            row = await self.binding(B)
            return row is not None and row["ready"] and len(row["acked"]) >= acks

        await until(prepared, "prepared")

    async def state(self, host: str, state: str) -> None:
        where = (("vif", "==", VIF.id), ("host", "==", host))
        await self.client.transact(Update("Binding", where, {"state": state}))

    async def is_active(self) -> None:
        async def active() -> bool:
            row = await self.binding(B)
            return row is not None and row["state"] == "active"

        await until(active, "active on the destination")

    async def run(self, host: str, announce: bool) -> None:
        await asyncio.to_thread(self.lab.run, "moving", host, announce)

    async def finish(self) -> None:
        await self.vif(incoming=None, host=B)
        await asyncio.to_thread(self.lab.unplug, "moving", A)
        await until(lambda: self._gone(A), "the source's binding is released")

    async def _gone(self, host: str) -> bool:
        return await self.binding(host) is None

    async def abort(self) -> None:
        await self.client.transact(
            Update("Vif", (("id", "==", VIF.id),), {"incoming": None}),
            Delete("Binding", (("vif", "==", VIF.id), ("host", "==", B), ("state", "!=", "active"))),
        )

    def flows(self, host: str, bridge: str = "br-int") -> list[str]:
        text = self.lab.ovs(host).ofctl("dump-flows", bridge, "--no-stats")
        return sorted(line.strip() for line in text.splitlines())

    def send(self, source: str, packet: Packet) -> list[str]:
        """Who got this very frame. Besides, agents announce a VIF that has moved to the physical switches."""
        return sorted(item.to for item in self.lab.send(source, packet) if item.frame == bytes(packet))

    def reaches(self, host: str) -> None:
        """A peer on each host reaches the VIF, once, and is answered."""
        for peer in PEERS.values():
            assert self.send(peer.id, udp(peer, VIF.mac)) == [VIF.id]
            assert self.send(VIF.id, udp(VIF, peer.mac)) == [peer.id]


def silent(pool: Moves) -> None:
    """What a guest sends on the port it runs at, and that announces nothing, comes to nobody."""
    question = Ether(src=VIF.mac, dst=BROADCAST) / ARP(hwsrc=VIF.mac, psrc=VIF.addresses[0], pdst="10.200.0.1")
    for packet in (question, udp(VIF, BROADCAST), *(udp(VIF, peer.mac) for peer in PEERS.values())):
        assert pool.send(VIF.id, packet) == []


def udp(source: Vif, to: str) -> Packet:
    return Ether(src=source.mac, dst=to) / IP(src=source.addresses[0], dst="10.200.0.1") / UDP() / Raw(b"?" * 20)


@contextlib.asynccontextmanager
async def moves(network: str, addresses: tuple[str, ...] = VIF.addresses) -> AsyncIterator[Moves]:
    def up() -> Lab:
        lab = Lab.up(pool_on(network, addresses), name=new_name(), driver=Driver.NETNS, daemons=True)
        try:
            lab.start_all()
            lab.daemons.settle()
        except BaseException:
            lab.down()
            raise
        return lab

    with await asyncio.to_thread(up) as lab:
        async with Client([f"unix:{lab.daemons.pool_socket}"], "Vnet") as client:
            yield Moves(lab, client)


@contextlib.contextmanager
def streams(lab: Lab) -> Any:
    """1 ms streams from a peer on each host to the VIF, and from the VIF to the third; their reports by name at the end."""
    reports: dict[str, StreamReport] = {}
    with contextlib.ExitStack() as stack:
        running = {host: stack.enter_context(lab.stream(PEERS[host].id, VIF.id)) for host in HOSTS}
        running["out"] = stack.enter_context(lab.stream(VIF.id, PEERS[C].id))
        yield reports
    reports |= {name: stream.report for name, stream in running.items()}


@pytest.mark.parametrize("announce", [True, False], ids=["announced", "told"])
@pytest.mark.parametrize("network", KINDS)
async def test_a_move_doubles_nothing_and_ends_with_the_vif_reachable(network: str, announce: bool) -> None:
    async with moves(network) as pool:
        with streams(pool.lab) as reports:
            await pool.prepare()
            await pool.run(B, announce)
            if not announce:
                await pool.state(B, "active")
            await pool.is_active()
            await pool.finish()
            await asyncio.sleep(0.3)
        for name, report in reports.items():
            who = PEERS[C].id if name == "out" else VIF.id
            got = report.at(who)
            assert got.duplicated == 0, name
            assert set(report.received) <= {who}, name
            # What is under way when the guest switches is lost with the switch; the last 200 ms must be whole.
            assert all(number < len(report.sent) - 200 for number in got.lost_numbers), name
        pool.reaches(B)


@pytest.mark.parametrize("network", KINDS)
async def test_held_is_silent_both_ways_and_receiving_takes_frames_once(network: str) -> None:
    async with moves(network) as pool:
        await pool.prepare()
        pool.reaches(A)
        with streams(pool.lab) as before:
            await asyncio.sleep(0.3)
        for name, report in before.items():
            got = report.at(PEERS[C].id if name == "out" else VIF.id)
            assert got.lost == 0, f"{name}: {got.lost_numbers} of {len(report.sent)}"
        await pool.run(B, False)
        silent(pool)
        for peer in PEERS.values():
            assert pool.send(peer.id, udp(peer, VIF.mac)) == []
            others = sorted(other.id for other in PEERS.values() if other != peer)
            assert pool.send(peer.id, udp(peer, BROADCAST)) == others
        await pool.state(B, "receiving")
        await until(lambda: any("table=90" in f and "priority=100" in f for f in pool.flows(B)), "GATE is open")
        tried = [(peer.id, udp(peer, to)) for peer in PEERS.values() for to in (VIF.mac, BROADCAST)]
        await until(lambda: all(VIF.id in pool.send(*one) for one in tried), "the switch's caches know it")
        for peer in PEERS.values():
            assert pool.send(peer.id, udp(peer, VIF.mac)) == [VIF.id], peer.id
            others = sorted([VIF.id, *(other.id for other in PEERS.values() if other != peer)])
            assert pool.send(peer.id, udp(peer, BROADCAST)) == others
        silent(pool)
        arp = Ether(src=VIF.mac, dst=BROADCAST) / ARP(op=2, hwsrc=VIF.mac, psrc=VIF.addresses[0], pdst=VIF.addresses[0])
        announced = pool.lab.send(VIF.id, arp)
        # On a VLAN network the agent's own announcements to the physical switches come besides.
        assert [announced.at(peer.id).count(bytes(arp)) for peer in PEERS.values()] == [1, 1, 1]
        await pool.is_active()
        pool.reaches(B)
        await pool.run(A, False)  # a guest that still runs at the source
        await until(lambda: not pool.send(VIF.id, udp(VIF, PEERS[A].mac)), "the source's port is closed")
        silent(pool)
        for peer in PEERS.values():
            for to in (VIF.mac, BROADCAST):
                assert VIF.id not in pool.send(peer.id, udp(peer, to)), (peer.id, to)


async def test_the_end_of_the_relay_loses_no_frame() -> None:
    async with moves("vlan") as pool:
        await pool.prepare()
        await pool.run(B, True)
        await pool.is_active()
        pool.reaches(B)
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(pool.lab.stream(PEERS[host].id, VIF.id)) for host in HOSTS]
            await pool.finish()
            await asyncio.sleep(0.3)
        for stream in running:
            assert (stream.report.at(VIF.id).lost, stream.report.at(VIF.id).duplicated) == (0, 0)


async def test_the_toolstacks_word_to_the_agent_holds_when_it_is_answered() -> None:
    async with moves("vx") as pool:
        await pool.prepare()
        with LocalAgent(str(pool.lab.daemons.agent_socket(B))) as agent:
            await asyncio.to_thread(pool.lab.pause, "moving")
            assert agent.call("switch", {"vm": "moving"}) == {"vifs": [VIF.id], "state": "receiving"}
            assert any("table=90" in f and "priority=100" in f for f in pool.flows(B))
            await asyncio.to_thread(pool.lab.run, "moving", B, False, True)
            for peer in PEERS.values():
                assert pool.send(peer.id, udp(peer, VIF.mac)) == [VIF.id], peer.id
            assert pool.send(VIF.id, udp(VIF, PEERS[C].mac)) == []
            assert agent.call("activate", {"vif": VIF.id}) == {"vifs": [VIF.id], "state": "active"}
            assert pool.send(VIF.id, udp(VIF, PEERS[C].mac)) == [PEERS[C].id]
            with pytest.raises(LocalRefused, match="VM on-xen1 is neither here"):
                agent.call("switch", {"vm": "on-xen1"})
        await pool.is_active()
        pool.reaches(B)


@pytest.mark.parametrize("network", KINDS)
async def test_a_guest_that_announces_nothing_loses_nothing_after_the_toolstacks_word(network: str) -> None:
    async with moves(network) as pool:
        await pool.prepare()
        with contextlib.ExitStack() as stack, LocalAgent(str(pool.lab.daemons.agent_socket(B))) as agent:
            running = {host: (stack.enter_context(pool.lab.stream(PEERS[host].id, VIF.id)), VIF.id) for host in HOSTS}
            running["out"] = stack.enter_context(pool.lab.stream(VIF.id, PEERS[C].id)), PEERS[C].id
            await asyncio.to_thread(go_on, running)
            await asyncio.to_thread(pool.lab.pause, "moving")
            agent.call("switch", {"vm": "moving"})
            agent.call("activate", {"vm": "moving"})
            await asyncio.to_thread(pool.lab.run, "moving", B, False, True)
            # ovs-vswitchd looks at its cached flows again some time after it has answered for new ones, late on a busy machine.
            whole = await asyncio.to_thread(go_on, running)
            await pool.is_active()
            # As a device goes, Open vSwitch's userspace tunnels stand still on its host, so the source's port stays.
            await pool.vif(incoming=None, host=B)
            await until(lambda: pool._gone(A), "the source's binding is released")
            await asyncio.to_thread(wait_sent, running, whole)
        for name, (stream, who) in running.items():
            got = stream.report.at(who)
            assert got.duplicated == 0, name
            assert all(number < whole[name] for number in got.lost_numbers), name
        assert got.lost == 0  # what the guest itself sends, of which the last look was
        pool.reaches(B)


@pytest.mark.parametrize("network", ["vlan", "native"])
async def test_what_an_uplinks_bridge_believes_loses_no_frame_while_a_vif_moves(network: str) -> None:
    """Frames that the source still held teach bridges that the VIF is where it was, as its announcement taught them before."""
    tag = str(NETWORKS[network].tag)
    async with moves(network) as pool:

        def believes(host: str) -> None:
            """The host's own bridge takes the VIF's MAC for one on the physical network."""
            pool.lab.ovs(host).appctl("fdb/add", "br-trunk0", HOSTS[host].uplinks[0].members[0], tag, VIF.mac)

        def physical_switch_sends_to(host: str) -> None:
            vlan = "" if tag == "0" else f"push_vlan:0x8100,set_field:{0x1000 | int(tag)}->vlan_vid,"
            nic = HOSTS[host].uplinks[0].members[0]
            pool.lab.ovs(host).ofctl("packet-out", "br-trunk0",
                f"packet={rarp(VIF.mac).hex()} actions={vlan}output:{nic}")  # fmt: skip

        await pool.prepare()
        await pool.run(B, True)
        await pool.is_active()
        await asyncio.sleep(0.6)  # the agent's announcements to the physical switch are over
        for host in (A, B):
            believes(host)
        for host in (A, B):
            physical_switch_sends_to(host)
            assert pool.send(PEERS[C].id, udp(PEERS[C], VIF.mac)) == [VIF.id], host
        await pool.finish()
        for host in HOSTS:
            await until(lambda host=host: len(pool.flows(host, "br-trunk0")) == 1, f"only NORMAL on {host}")


@pytest.mark.parametrize("step", ["preparing", "prepared", "receiving"])
@pytest.mark.parametrize("network", ["vx", "vlan"])
async def test_abort_leaves_everything_as_it_was(network: str, step: str) -> None:
    async with moves(network) as pool:

        def flows() -> list[list[str]]:
            return [pool.flows(host, bridge) for host in HOSTS for bridge in ("br-int", "br-trunk0")]

        before = flows()
        for _ in range(2):
            if step == "preparing":
                await pool.vif(incoming=B)
                await asyncio.to_thread(pool.lab.plug, "moving", B)
            else:
                await pool.prepare()
            if step == "receiving":
                await pool.state(B, "receiving")
            await pool.abort()
            await pool.abort()
            await asyncio.to_thread(pool.lab.unplug, "moving", B)
            await until(lambda: flows() == before, "flows as before")
        pool.reaches(A)


async def test_activation_needs_no_database_and_no_agent() -> None:
    async with moves("vx") as pool:
        await pool.prepare()
        pool.lab.daemons.signal(B, signal.SIGSTOP)
        try:
            await pool.run(B, True)
            for peer in PEERS.values():
                assert pool.send(peer.id, udp(peer, VIF.mac)) == [VIF.id], peer.id
                assert pool.send(VIF.id, udp(VIF, peer.mac)) == [peer.id], peer.id
        finally:
            pool.lab.daemons.signal(B, signal.SIGCONT)
        await pool.is_active()
        pool.reaches(B)


@pytest.mark.parametrize("network", ["vx", "gre", "gnv"])
@pytest.mark.parametrize("how", ["frozen", "cut off"])
async def test_a_source_that_does_not_hear_does_no_harm(network: str, how: str) -> None:
    """What it still sends as the VIF no other host takes, the destination no more than a third one."""
    async with moves(network) as pool:
        await pool.prepare()
        if how == "frozen":
            pool.lab.daemons.signal(A, signal.SIGSTOP)
        else:
            await asyncio.to_thread(pool.lab.cut, A, "database")
        try:
            await pool.run(B, True)
            await pool.is_active()
            drop = f"dl_src={VIF.mac}"
            for host in (B, C):
                await until(
                    lambda host=host: any("priority=200" in f and drop in f for f in pool.flows(host)),
                    f"{host} ignores A",
                )
            await pool.run(A, False)  # a guest that still runs at the source
            for host in (B, C):
                assert pool.send(VIF.id, udp(VIF, PEERS[host].mac)) == [], host
            assert pool.send(VIF.id, udp(VIF, BROADCAST)) == [PEERS[A].id]
            await pool.run(B, False)
            for host in (B, C):
                assert pool.send(VIF.id, udp(VIF, PEERS[host].mac)) == [PEERS[host].id]
                assert pool.send(PEERS[host].id, udp(PEERS[host], VIF.mac)) == [VIF.id]
        finally:
            if how == "frozen":
                pool.lab.daemons.signal(A, signal.SIGCONT)
            else:
                await asyncio.to_thread(pool.lab.heal, A, "database")
        await pool.finish()
        pool.reaches(B)


@pytest.mark.parametrize("network", ["vx", "vlan"])
async def test_a_source_whose_agent_is_dead_does_not_hold_up_the_move(network: str) -> None:
    async with moves(network) as pool:
        pool.lab.daemons.kill(A)
        await pool.prepare(acks=1)
        await pool.run(B, True)
        await pool.is_active()
        await pool.vif(incoming=None, host=B)
        assert pool.send(PEERS[C].id, udp(PEERS[C], VIF.mac)) == [VIF.id]
        assert pool.send(VIF.id, udp(VIF, PEERS[C].mac)) == [PEERS[C].id]


@pytest.mark.parametrize("network", ["vx", "vlan"])
async def test_a_destination_that_dies_while_prepared_is_aborted(network: str) -> None:
    async with moves(network) as pool:
        await pool.prepare()
        pool.lab.daemons.kill(B)
        await pool.abort()
        await until(lambda: pool.send(PEERS[C].id, udp(PEERS[C], VIF.mac)) == [VIF.id], "the VIF at its source")
        for host in (A, C):
            assert pool.send(PEERS[host].id, udp(PEERS[host], VIF.mac)) == [VIF.id]
