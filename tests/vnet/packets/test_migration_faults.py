"""Migration by the controller's own calls, repeated, out of order, and while hosts, agents, controller or database are away.

One rule: each test ends with the VIF reachable where it runs, and silent where it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from ovsctl.ovsdb import Delete, Insert, Mutate, Select
from tests.labs import SharedLab
from tests.polling import until
from tests.vnet.faults import Cut, Fault, How, Part, ProcessFault
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.moves import PEERS, VIF, A, B, C, Moves, moves, udp
from tests.vnet.packets.pools import HOSTS
from vnet.client import Client, Conflict, Unit
from vnet.client.local import call_agent
from vnet.db.rows import to_columns
from vnet.db.view import HOST_DOWN_AFTER_S
from vnet.lab import Lab
from vnet.lab.links import within
from vnet.lab.names import underlay_netns
from vnet.lab.netns import switch_port
from vnet.objects import Binding, BindingState
from vnet.util.frames import rarp

pytestmark = pytest.mark.usefixtures("netns")
UNIT = Unit.of_vm("moving")
ETH_P_ALL = 3


class Toolstack:
    """The controller's calls, each on a connection of its own: the controller may have been another before."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with Client(f"unix:{self._lab.daemons.controller_socket}") as client:
                return getattr(client, name)(UNIT, *args, **kwargs)

        return partial(asyncio.to_thread, call)

    async def phase(self) -> str:
        return (await self.migration()).phase

    async def prepared(self, pool: Moves) -> None:
        await self.prepare(B)
        await asyncio.to_thread(pool.lab.plug, "moving", B)
        await self.reach("prepared")

    async def reach(self, phase: str) -> None:
        """Return once the migration is in this phase."""

        async def there() -> bool:
            return await self.phase() == phase

        await until(there, phase)


def reached_by(pool: Moves, *hosts: str) -> None:
    """A peer on each of these hosts reaches the VIF, once, and is answered."""
    for peer in (PEERS[host] for host in hosts):
        assert pool.send(peer.id, udp(peer, VIF.mac)) == [VIF.id], peer.id
        assert pool.send(VIF.id, udp(VIF, peer.mac)) == [peer.id], peer.id


async def silent_on(pool: Moves, host: str, back: str) -> None:
    """A guest that ran there, on the VIF's other port, would be heard by nobody."""
    await pool.run(host, False)
    assert pool.send(VIF.id, udp(VIF, PEERS[C].mac)) == []
    await pool.run(back, False)


@pytest.mark.parametrize("network", ["vx", "vlan"])
async def test_calls_repeated_and_out_of_order_do_no_harm(shared_lab: SharedLab, network: str) -> None:
    async with moves(shared_lab, network) as pool:
        toolstack = Toolstack(pool.lab)
        assert (await toolstack.abort()).phase == (await toolstack.finish()).phase == "none"
        for too_early in (toolstack.switch, toolstack.activate):
            with pytest.raises(Conflict, match="no migration is under way"):
                await too_early()
        for _ in range(2):
            await toolstack.prepared(pool)
        with pytest.raises(Conflict, match="activate it first"):
            await toolstack.finish()
        for call in (toolstack.abort, toolstack.abort, toolstack.finish):
            assert (await call()).phase == "none"
        await asyncio.to_thread(pool.lab.unplug, "moving", B)
        pool.reaches(A)

        await toolstack.prepared(pool)
        for _ in range(2):
            assert (await toolstack.switch()).phase == "receiving"
        await pool.run(B, True)
        await pool.is_active()
        for call in (toolstack.switch, toolstack.activate, partial(toolstack.prepare, B)):
            assert (await call()).phase == "active"
        with pytest.raises(Conflict, match="runs on host xen2 already"):
            await toolstack.abort()
        for call in (toolstack.finish, toolstack.finish, toolstack.abort, toolstack.finish):
            assert (await call()).phase == "none"
        await until(lambda: pool._gone(A), "the source's binding is released")
        pool.reaches(B)
        await silent_on(pool, A, back=B)


@pytest.mark.parametrize(("switched", "network"), [(False, "vx"), (True, "vlan")], ids=["held-vx", "receiving-vlan"])
async def test_a_destination_host_that_dies_is_aborted_and_comes_back_silent(
    shared_lab: SharedLab, switched: bool, network: str
) -> None:
    async with moves(shared_lab, network) as pool:
        toolstack = Toolstack(pool.lab)
        await toolstack.prepared(pool)
        if switched:
            await toolstack.switch()
        await asyncio.to_thread(pool.lab.crash_host, B)
        reached_by(pool, A, C)
        for _ in range(2):
            assert (await toolstack.abort()).phase == "none"
        reached_by(pool, A, C)
        await asyncio.to_thread(pool.lab.boot_host, B)
        await until(
            lambda: pool.send(PEERS[B].id, udp(PEERS[B], VIF.mac)) == [VIF.id], "a peer on the host that came back"
        )
        pool.reaches(A)
        await silent_on(pool, B, back=A)


@pytest.mark.parametrize(("active", "network"), [(True, "vlan"), (False, "vx")], ids=["active-vlan", "prepared-vx"])
async def test_a_source_host_that_dies_is_finished_past_by_force(
    shared_lab: SharedLab, active: bool, network: str
) -> None:
    async with moves(shared_lab, network) as pool:
        toolstack = Toolstack(pool.lab)
        await toolstack.prepared(pool)
        if active:
            await pool.run(B, True)
            await pool.is_active()
        else:
            with pytest.raises(Conflict, match="is alive"):
                await toolstack.finish(force=True)
        await asyncio.to_thread(pool.lab.crash_host, A)

        async def is_finished() -> bool:
            # As if it had been silent for the 15 s after which a host counts as dead. A row that it wrote before its end may come after this.
            await pool.client.transact(Delete("Agent", (("host", "==", A),)))
            with contextlib.suppress(Conflict):
                return (await toolstack.finish(force=True)).phase == "none"
            return False

        await until(is_finished, "the migration to be finished by force")
        assert (await toolstack.finish(force=True)).phase == "none"
        await pool.run(B, False)
        await until(lambda: pool.send(PEERS[C].id, udp(PEERS[C], VIF.mac)) == [VIF.id], "the VIF at its destination")
        reached_by(pool, B, C)
        assert await pool.binding(A) is None
        await asyncio.to_thread(pool.lab.boot_host, A)
        await until(
            lambda: pool.send(PEERS[A].id, udp(PEERS[A], VIF.mac)) == [VIF.id], "a peer on the host that came back"
        )
        pool.reaches(B)
        await silent_on(pool, A, back=B)


@pytest.mark.parametrize(
    "fault",
    [ProcessFault(Part.AGENT, How.STOPPED, C), ProcessFault(Part.VSWITCHD, How.KILLED, C), Cut(C, "database")],
    ids=str,
)
async def test_a_sender_that_is_down_holds_a_move_up_for_some_seconds_and_is_named(
    shared_lab: SharedLab, fault: Fault
) -> None:
    async with moves(shared_lab, "vx") as pool:
        toolstack = Toolstack(pool.lab)
        await asyncio.to_thread(fault.break_, pool.lab)
        try:
            await toolstack.prepare(B)
            await asyncio.to_thread(pool.lab.plug, "moving", B)
            deadline = asyncio.get_running_loop().time() + 4 * HOST_DOWN_AFTER_S
            while (now := await toolstack.migration()).phase != "prepared":
                assert asyncio.get_running_loop().time() < deadline, now.waiting
                await asyncio.sleep(0.2)
            assert now.not_waited == [C]
            await pool.run(B, True)
            await pool.is_active()
            assert (await toolstack.finish()).phase == "none"
            reached_by(pool, B)
        finally:
            await asyncio.to_thread(fault.mend, pool.lab)
        await until(lambda: pool.send(PEERS[C].id, udp(PEERS[C], VIF.mac)) == [VIF.id], "who was not waited for")
        pool.reaches(B)


async def test_the_controller_may_die_between_any_two_calls(shared_lab: SharedLab) -> None:
    async with moves(shared_lab, "vlan") as pool:
        toolstack = Toolstack(pool.lab)

        async def another_controller() -> None:
            await asyncio.to_thread(pool.lab.daemons.kill, "controller")
            pool.reaches(pool.lab.location("moving") or "")
            await asyncio.to_thread(pool.lab.daemons.start_controller)

        await toolstack.prepare(B)
        await another_controller()
        await asyncio.to_thread(pool.lab.plug, "moving", B)
        await toolstack.reach("prepared")
        await another_controller()
        assert (await toolstack.switch()).phase == "receiving"
        await asyncio.to_thread(pool.lab.daemons.kill, "controller")
        await pool.run(B, True)
        await pool.is_active()
        pool.reaches(B)
        await asyncio.to_thread(pool.lab.daemons.start_controller)
        assert (await toolstack.finish()).phase == "none"
        await until(lambda: pool._gone(A), "the source's binding is released")
        await another_controller()
        pool.reaches(B)


@pytest.mark.parametrize(("network", "announce"), [("vx", False), ("vlan", True)], ids=["vx-told", "vlan-announced"])
async def test_activation_needs_no_database(shared_lab: SharedLab, network: str, announce: bool) -> None:
    async with moves(shared_lab, network) as pool:
        await pool.prepare()
        database = ProcessFault(Part.DATABASE, How.STOPPED)
        database.break_(pool.lab)
        try:
            await pool.run(B, announce)
            if not announce:
                call_agent("activate", {"vm": "moving"}, str(pool.lab.daemons.agent_socket(B)))
            pool.reaches(B)
        finally:
            database.mend(pool.lab)
        await pool.is_active()
        await pool.finish()
        pool.reaches(B)


async def programmed(pool: Moves, *hosts: str) -> None:
    """Return once these hosts have programmed what was written."""
    _, (row,) = await pool.client.transact(
        Mutate("Pool", (), [("generation", "+=", 1)]), Select("Pool", (), ("generation",))
    )

    async def all_have() -> bool:
        (rows,) = await pool.client.transact(Select("Agent", (), ("host", "generation")))
        return {found["host"] for found in rows if found["generation"] >= row["generation"]} >= {*hosts}

    await until(all_have, "hosts programmed it")


async def test_a_host_that_was_taken_over_draws_no_vif_to_itself_that_is_asked_for_elsewhere(
    shared_lab: SharedLab,
) -> None:
    """With no controller to right it. The host's agent stands still, and what is written in its name is in its role (tests/vnet/db/test_roles.py)."""
    async with moves(shared_lab, "vx") as pool, contextlib.AsyncExitStack() as stack:
        await pool.vif(host=A)
        await programmed(pool, *HOSTS)
        for fault in (ProcessFault(Part.AGENT, How.STOPPED, B), ProcessFault(Part.CONTROLLER, How.STOPPED)):
            fault.break_(pool.lab)
            stack.callback(fault.mend, pool.lab)
        mine, flows = await pool.binding(A), {host: pool.flows(host) for host in (A, C)}
        await pool.vif(epoch=9999)
        with contextlib.ExitStack() as sent:
            running = {host: (sent.enter_context(pool.lab.stream(PEERS[host].id, VIF.id)), VIF.id) for host in HOSTS}
            running["out"] = sent.enter_context(pool.lab.stream(VIF.id, PEERS[C].id)), PEERS[C].id
            for state in BindingState:
                forged = Binding(VIF.id, B, "vx", VIF.mac, 9999, state, VIF.addresses)
                await pool.client.transact(
                    Delete("Binding", (("vif", "==", VIF.id), ("host", "==", B))), Insert("Binding", to_columns(forged))
                )
                await programmed(pool, A, C)
                await asyncio.to_thread(wait_sent, running, await asyncio.to_thread(go_on, running))
                assert {host: pool.flows(host) for host in (A, C)} == flows  # nobody sends to B
        for name, (stream, to) in running.items():
            assert (stream.report.at(to).lost, stream.report.at(to).duplicated) == (0, 0), name
        assert await pool.binding(A) == mine
        await stack.aclose()
        await until(lambda: pool._gone(B), "its end")


async def test_a_host_that_was_taken_over_is_sent_nothing_for_a_vif_that_its_host_has_yet_to_claim(
    shared_lab: SharedLab,
) -> None:
    """Nor does it keep that host from claiming the VIF. With no controller to right it."""
    async with moves(shared_lab, "vx") as pool, contextlib.AsyncExitStack() as stack:
        await pool.vif(host=A, stays=A)
        await asyncio.to_thread(pool.lab.unplug, "moving", A)
        await until(lambda: pool._gone(A), "it runs nowhere")
        await programmed(pool, *HOSTS)
        for fault in (ProcessFault(Part.AGENT, How.STOPPED, B), ProcessFault(Part.CONTROLLER, How.STOPPED)):
            fault.break_(pool.lab)
            stack.callback(fault.mend, pool.lab)
        flows = {host: pool.flows(host) for host in (A, C)}
        for state in BindingState:
            forged = Binding(VIF.id, B, "vx", VIF.mac, 9999, state, VIF.addresses, ready=True)
            await pool.client.transact(
                Delete("Binding", (("vif", "==", VIF.id), ("host", "==", B))), Insert("Binding", to_columns(forged))
            )
            await pool.vif(epoch=2**62)
            await programmed(pool, A, C)
            assert {host: pool.flows(host) for host in (A, C)} == flows
        assert pool.send(PEERS[C].id, udp(PEERS[C], VIF.mac)) == []
        await asyncio.to_thread(pool.lab.plug, "moving", A)

        async def ready() -> bool:
            row = await pool.binding(A)
            return row is not None and row["ready"]

        await until(ready, "its host has claimed it")
        await pool.run(A, True)
        await programmed(pool, A, C)
        assert pool.send(PEERS[C].id, udp(PEERS[C], VIF.mac)) == [VIF.id]
        assert pool.send(VIF.id, udp(VIF, PEERS[C].mac)) == [PEERS[C].id]
        await stack.aclose()
        await until(lambda: pool._gone(B), "its end")


def gratuitous(op: int) -> Packet:
    return Ether(src=VIF.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=op,
        hwsrc=VIF.mac,
        hwdst=VIF.mac if op == 2 else "00:00:00:00:00:00",
        psrc=VIF.addresses[0],
        pdst=VIF.addresses[0],
    )


UNSOLICITED = (
    Ether(src=VIF.mac, dst="33:33:00:00:00:01")
    / IPv6(src="fd00::1", dst="ff02::1")
    / ICMPv6ND_NA(tgt="fd00::1", R=0, S=0, O=1)
    / ICMPv6NDOptDstLLAddr(lladdr=VIF.mac)
)


# What agents send of their own is shorter.
RARP = Ether(rarp(VIF.mac) + b"the guest's")


@pytest.mark.parametrize("addresses", [(*VIF.addresses, "fd00::1"), ()], ids=["addresses", "no addresses"])
@pytest.mark.parametrize(
    ("announcement", "network"),
    [(RARP, "vx"), (gratuitous(1), "vlan"), (gratuitous(2), "vx"), (UNSOLICITED, "vlan")],
    ids=["RARP-vx", "ARP request-vlan", "ARP reply-vx", "unsolicited NA-vlan"],
)
async def test_each_announcement_opens_the_port_and_is_delivered_once_without_a_database(
    shared_lab: SharedLab, announcement: Packet, network: str, addresses: tuple[str, ...]
) -> None:
    async with moves(shared_lab, network, addresses) as pool:
        await pool.prepare()
        await pool.run(B, False)
        assert pool.send(VIF.id, udp(VIF, PEERS[C].mac)) == []
        database = ProcessFault(Part.DATABASE, How.STOPPED)
        database.break_(pool.lab)
        try:
            assert pool.send(VIF.id, announcement) == sorted(peer.id for peer in PEERS.values())
            reached_by(pool, *HOSTS)
        finally:
            database.mend(pool.lab)
        await pool.is_active()


class Nic:
    """What a host's NIC sends into the physical switch as the VIF."""

    def __init__(self, lab: Lab, host: str) -> None:
        port = switch_port(lab.spec, lab.spec.host(host), HOSTS[host].uplinks[0].members[0])

        def listen() -> socket.socket:
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            found.bind((port, 0))
            found.setblocking(False)
            return found

        self._socket = within(underlay_netns(lab.spec.name), listen)

    def sent(self) -> list[bytes]:
        frames = []
        while True:
            try:
                frame, where = self._socket.recvfrom(2048)
            except BlockingIOError:
                return [f for f in frames if f[6:12] == bytes.fromhex(VIF.mac.replace(":", ""))]
            if where[2] != socket.PACKET_OUTGOING:
                frames.append(frame)


@pytest.mark.parametrize("network", ["vlan", "native"])
async def test_the_physical_switch_sees_the_mac_on_one_port_and_hears_of_the_move(
    shared_lab: SharedLab, network: str
) -> None:
    """A guest that announces nothing: the agent does, to the physical switch too."""
    async with moves(shared_lab, network) as pool:
        nic = Nic(pool.lab, B)
        await pool.prepare()
        await pool.run(B, False)
        for state in ("held", "receiving"):
            await pool.state(B, state)
            for peer in PEERS.values():
                assert pool.send(VIF.id, udp(VIF, peer.mac)) == []
        await pool.run(A, False)
        for peer in PEERS.values():
            assert pool.send(VIF.id, udp(VIF, peer.mac)) == [peer.id]
        assert nic.sent() == []
        await pool.run(B, False)
        await pool.state(B, "active")
        await until(lambda: any(b"\x80\x35\x00\x01" in frame for frame in nic.sent()), "an announcement on the wire")
        pool.reaches(B)
        await silent_on(pool, A, back=B)
