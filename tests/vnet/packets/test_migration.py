"""Migration: where frames go at each step, what is lost and doubled, and what a fault in the middle does.

The toolstack's calls are made as the controller makes them, by writing rows, so that each step can be looked at for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import Iterator

import pytest
from scapy.layers.l2 import ARP, Ether

from ovsctl.ovsdb import Select
from tests.labs import SharedLab
from tests.polling import until
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.moves import KINDS, ONE_OF_EACH, PEERS, VIF, A, B, C, Moves, moves, udp
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet.client.local import LocalAgent, LocalRefused
from vnet.lab import Lab
from vnet.lab.streams import RunningStream
from vnet.util.frames import rarp
from vnet.util.hello_frames import HELLO_TYPE, pool_mark
from vnet.util.pause_frames import PauseNotice, pause_frames

pytestmark = pytest.mark.usefixtures("netns")

BROADCAST = "ff:ff:ff:ff:ff:ff"


def silent(pool: Moves) -> None:
    """What a guest sends on the port it runs at, and that announces nothing, comes to nobody."""
    question = Ether(src=VIF.mac, dst=BROADCAST) / ARP(hwsrc=VIF.mac, psrc=VIF.addresses[0], pdst="10.200.0.1")
    packets = [question, udp(VIF, BROADCAST), *(udp(VIF, peer.mac) for peer in PEERS.values())]
    assert pool.send_all(VIF.id, packets) == [[]] * len(packets)


@contextlib.contextmanager
def streams(lab: Lab) -> Iterator[dict[str, tuple[RunningStream, str]]]:
    """1 ms streams from a peer on each host to the VIF, and from the VIF to the third, under way; by name, with who receives."""
    with contextlib.ExitStack() as stack:
        running = {host: (stack.enter_context(lab.stream(PEERS[host].id, VIF.id)), VIF.id) for host in HOSTS}
        running["out"] = stack.enter_context(lab.stream(VIF.id, PEERS[C].id)), PEERS[C].id
        go_on(running)
        yield running


async def more_is_sent(running: dict[str, tuple[RunningStream, str]]) -> dict[str, int]:
    """Return once each stream goes on and has sent some more; how many frames it had sent when it went on."""
    whole = await asyncio.to_thread(go_on, running)
    await asyncio.to_thread(wait_sent, running, whole)
    return whole


@pytest.mark.parametrize(
    ("network", "announce"),
    [(network, announce) for network in KINDS for announce in (True, False) if network in ("vlan", "vx") or announce],
    ids=lambda value: value if isinstance(value, str) else "announced" if value else "told",
)
async def test_a_move_doubles_nothing_and_ends_with_the_vif_reachable(
    shared_lab: SharedLab, network: str, announce: bool
) -> None:
    async with moves(shared_lab, network) as pool:
        with streams(pool.lab) as running:
            await pool.prepare()
            await pool.run(B, announce)
            if not announce:
                await pool.state(B, "active")
            await pool.is_active()
            await pool.finish()
            whole = await more_is_sent(running)
        for name, (stream, to) in running.items():
            got = stream.report.at(to)
            assert got.duplicated == 0, name
            assert set(stream.report.received) <= {to}, name
            # What is under way when the guest switches is lost with the switch.
            assert all(number < whole[name] for number in got.lost_numbers), name
        pool.reaches(B)


@pytest.mark.parametrize("network", ONE_OF_EACH)
async def test_held_is_silent_both_ways_and_receiving_takes_frames_once(shared_lab: SharedLab, network: str) -> None:
    async with moves(shared_lab, network) as pool:
        await pool.prepare()
        pool.reaches(A)
        with streams(pool.lab) as running:
            await more_is_sent(running)
        for name, (stream, to) in running.items():
            got = stream.report.at(to)
            assert got.lost == 0, f"{name}: {got.lost_numbers} of {len(stream.report.sent)}"
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


async def test_the_end_of_the_relay_loses_no_frame(shared_lab: SharedLab) -> None:
    async with moves(shared_lab, "vlan") as pool:
        await pool.prepare()
        await pool.run(B, True)
        await pool.is_active()
        pool.reaches(B)
        with contextlib.ExitStack() as stack:
            running = {host: (stack.enter_context(pool.lab.stream(PEERS[host].id, VIF.id)), VIF.id) for host in HOSTS}
            await pool.finish()
            await more_is_sent(running)
        for stream, _ in running.values():
            assert (stream.report.at(VIF.id).lost, stream.report.at(VIF.id).duplicated) == (0, 0)


async def test_the_toolstacks_word_to_the_agent_holds_when_it_is_answered(shared_lab: SharedLab) -> None:
    async with moves(shared_lab, "vx") as pool:
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


@pytest.mark.parametrize("network", ONE_OF_EACH)
async def test_the_word_to_the_sources_agent_opens_the_port_at_the_destination(
    shared_lab: SharedLab, network: str
) -> None:
    async with moves(shared_lab, network) as pool:
        await pool.prepare()
        await asyncio.to_thread(pool.lab.pause, "moving")
        with LocalAgent(str(pool.lab.daemons.agent_socket(A))) as agent:
            agent.call("switch", {"vm": "moving"})
        await until(lambda: is_open(pool), "GATE is open")

        async def receiving() -> bool:
            row = await pool.binding(B)
            return row is not None and row["state"] == "receiving"

        await until(receiving, "the pool database has it")
        await asyncio.to_thread(pool.lab.run, "moving", B, True, True)
        await pool.is_active()
        pool.reaches(B)


def is_open(pool: Moves) -> bool:
    return any("table=90" in flow and "priority=100" in flow for flow in pool.flows(B))


async def test_only_the_source_opens_the_port_at_the_destination(shared_lab: SharedLab) -> None:
    """A notice as the source's agent sends it, by a guest, by a third host and by the source."""
    async with moves(shared_lab, "vx") as pool:
        await pool.prepare()
        row = await pool.binding(B)
        assert row is not None
        (rows,) = await pool.client.transact(Select("Pool", (), ("id",)))
        (frame,) = pause_frames(PauseNotice(pool_mark(rows[0]["id"]), A, {VIF.id: row["epoch"]}))
        through = f"set_field:0->tun_id,set_field:{HOSTS[B].address}->tun_dst,output:vnet-vxlan"

        def say(host: str) -> None:
            pool.lab.ovs(host).ofctl(
                "packet-out", "br-int", f"in_port=controller packet={frame.hex()} actions={through}"
            )

        def taken() -> int:
            """How many hellos and notices the destination's switch has handed to its agent."""
            flows = pool.lab.ovs(B).ofctl("dump-flows", "br-int", f"table=0,dl_type={HELLO_TYPE:#x}")
            return sum(int(count) for count in re.findall(r"n_packets=(\d+)", flows))

        assert pool.send(PEERS[A].id, Ether(frame)) == []
        before = taken()
        for _ in range(10):
            say(C)
        await until(lambda: taken() >= before + 10, "the destination has them")
        with LocalAgent(str(pool.lab.daemons.agent_socket(B))) as agent:
            agent.call("flows", {})  # the switch answers its agent after what it has handed to it before
        assert not is_open(pool)
        say(A)
        await until(lambda: is_open(pool), "GATE is open")


@pytest.mark.parametrize("network", ONE_OF_EACH)
async def test_a_guest_that_announces_nothing_loses_nothing_after_the_toolstacks_word(
    shared_lab: SharedLab, network: str
) -> None:
    async with moves(shared_lab, network) as pool:
        await pool.prepare()
        with streams(pool.lab) as running, LocalAgent(str(pool.lab.daemons.agent_socket(B))) as agent:
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
async def test_what_an_uplinks_bridge_believes_loses_no_frame_while_a_vif_moves(
    shared_lab: SharedLab, network: str
) -> None:
    """Frames that the source still held teach bridges that the VIF is where it was, as its announcement taught them before."""
    tag = str(NETWORKS[network].tag)
    async with moves(shared_lab, network) as pool:

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
async def test_abort_leaves_everything_as_it_was(shared_lab: SharedLab, network: str, step: str) -> None:
    async with moves(shared_lab, network) as pool:

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


async def test_activation_needs_no_database_and_no_agent(shared_lab: SharedLab) -> None:
    async with moves(shared_lab, "vx") as pool:
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


@pytest.mark.parametrize(
    ("how", "network"), [("frozen", "vx"), ("cut off", "vx"), ("frozen", "gre"), ("cut off", "gnv")]
)
async def test_a_source_that_does_not_hear_does_no_harm(shared_lab: SharedLab, network: str, how: str) -> None:
    """What it still sends as the VIF no other host takes, the destination no more than a third one."""
    async with moves(shared_lab, network) as pool:
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
async def test_a_source_whose_agent_is_dead_does_not_hold_up_the_move(shared_lab: SharedLab, network: str) -> None:
    async with moves(shared_lab, network) as pool:
        pool.lab.daemons.kill(A)
        await pool.prepare(acks=1)
        await pool.run(B, True)
        await pool.is_active()
        await pool.vif(incoming=None, host=B)
        assert pool.send(PEERS[C].id, udp(PEERS[C], VIF.mac)) == [VIF.id]
        assert pool.send(VIF.id, udp(VIF, PEERS[C].mac)) == [PEERS[C].id]
        pool.lab.restart_agent(A)


@pytest.mark.parametrize("network", ["vx", "vlan"])
async def test_a_destination_that_dies_while_prepared_is_aborted(shared_lab: SharedLab, network: str) -> None:
    async with moves(shared_lab, network) as pool:
        await pool.prepare()
        pool.lab.daemons.kill(B)
        await pool.abort()
        await until(lambda: pool.send(PEERS[C].id, udp(PEERS[C], VIF.mac)) == [VIF.id], "the VIF at its source")
        for host in (A, C):
            assert pool.send(PEERS[host].id, udp(PEERS[host], VIF.mac)) == [VIF.id]
        pool.lab.restart_agent(B)
