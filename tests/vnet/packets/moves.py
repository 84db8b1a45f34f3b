"""A VIF that moves from A to B, a peer on each host, and the calls that move it, as the controller makes them: by writing rows.

One rule: each test begins with VMs of its own in a lab that all tests of a module share, and a test that fails takes the lab down.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from ovsctl.ovsdb import Delete, Insert, OvsdbClient, Select, Update
from tests.labs import SharedLab, new_name
from tests.polling import until
from tests.vnet.acknowledged import acknowledged
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet.compile import Category, cookie
from vnet.db.rows import SCHEMA_NAME, TABLE_OF, to_columns
from vnet.lab import Driver, Lab
from vnet.objects import Pool, PoolState, Vif, Vm

HELLOS = f"{cookie(Category.HELLO, '') >> 40:#x}"  # with which cookies of flows begin that hear hellos and what others claim: they come a moment later
KINDS = ["vlan", "native", "vx", "gre", "gnv"]
ONE_OF_EACH = ["vlan", "native", "vx"]  # the types of tunnel differ in their port alone, of which other tests are
A, B, C = HOSTS
VIF = Vif("moving/0", "vx", "0a:00:00:00:00:01", vm="moving", addresses=("10.1.0.1",))
PEERS = {host: Vif(f"on-{host}/0", "vx", f"0a:00:00:00:00:1{n}", vm=f"on-{host}", addresses=(f"10.1.0.1{n}",))
         for n, host in enumerate(HOSTS, 1)}  # fmt: skip


def three_hosts() -> Lab:
    """Three hosts with every kind of network that a VIF can move on, and no VM."""
    networks = {name: NETWORKS[name] for name in KINDS}
    pool = PoolState(Pool("moves", underlay_mtu=1600), HOSTS, networks)
    return Lab.up(pool, name=new_name(), driver=Driver.NETNS, daemons=True)


@contextlib.asynccontextmanager
async def moves(shared: SharedLab, network: str, addresses: tuple[str, ...] = VIF.addresses) -> AsyncIterator[Moves]:
    """One VIF on A that will move to B, and a peer on each host, all on one network."""
    vifs = [replace(VIF, network=network, addresses=addresses)]
    vifs += [replace(peer, network=network) for peer in PEERS.values()]
    vms = [Vm(str(vif.vm), host) for vif, host in zip(vifs, [A, *HOSTS], strict=True)]
    with shared.lent() as lab:
        async with OvsdbClient([f"unix:{lab.daemons.pool_socket}"], SCHEMA_NAME) as client:
            await client.transact(*(Insert(TABLE_OF[type(row)], to_columns(row)) for row in (*vms, *vifs)))
            for vm, vif in zip(vms, vifs, strict=True):
                await asyncio.to_thread(lab.add_vm, vm.name, [vif], vm.host)
            await asyncio.to_thread(lab.start_all)
            yield Moves(lab, client)
            for vm in vms:
                await asyncio.to_thread(lab.remove_vm, vm.name)
            await client.transact(*(Delete(table, ()) for table in ("Binding", "Vif", "Vm")))
            await asyncio.to_thread(lab.daemons.settle)


class Moves:
    """A lab with a VIF to move, and the calls that move it."""

    def __init__(self, lab: Lab, client: OvsdbClient) -> None:
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
            return row is not None and row["ready"] and len(await acknowledged(self.client, row)) >= acks

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
        return sorted(line.strip() for line in text.splitlines() if HELLOS not in line)

    def send(self, source: str, packet: Packet) -> list[str]:
        """Who got this very frame. Besides, agents announce a VIF that has moved to the physical switches."""
        (found,) = self.send_all(source, [packet])
        return found

    def send_all(self, source: str, packets: Sequence[Packet]) -> list[list[str]]:
        """Who got each of these frames; their copies are awaited once."""
        items = self.lab.send(source, packets).items
        return [sorted(item.to for item in items if item.frame == bytes(packet)) for packet in packets]

    def reaches(self, host: str) -> None:
        """A peer on each host reaches the VIF, once, and is answered."""
        for peer in PEERS.values():
            assert self.send(peer.id, udp(peer, VIF.mac)) == [VIF.id]
        answers = [udp(VIF, peer.mac) for peer in PEERS.values()]
        assert self.send_all(VIF.id, answers) == [[peer.id] for peer in PEERS.values()]


def udp(source: Vif, to: str) -> Packet:
    return Ether(src=source.mac, dst=to) / IP(src=source.addresses[0], dst="10.200.0.1") / UDP() / Raw(b"?" * 20)
