"""The twin of a pool: packets between its VIFs and stations, guests that pause and move, faults, migrations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vnet.objects import BindingState, PoolState, Protocol, Vif
from vnet.objects.behind import known_behind
from vnet.objects.link_local import chosen
from vnet.objects.multicast import listening_of
from vnet.objects.tiers import obeyed_in
from vnet.sim.bindings import binding_of
from vnet.sim.conversation import party, trace
from vnet.sim.deliveries import Deliveries, Delivery
from vnet.sim.errors import SimError, UnknownName
from vnet.sim.fabric import Fabric
from vnet.sim.trace import Trace
from vnet.util.frames import rarp
from vnet.util.pcapng import PcapngWriter

if TYPE_CHECKING:
    from vnet.topology import Document


class SimPool(Fabric):
    """A pool that runs in memory. Make one with `SimPool.of` or `SimPool.from_document`."""

    @classmethod
    def of(cls, state: PoolState, *, claim: bool = True) -> SimPool:
        """The twin of a pool. With `claim` a VIF without a binding runs on its own host, else on its VM's."""
        return cls(state, claim=claim)

    @classmethod
    def from_document(cls, document: Document) -> SimPool:
        """The twin of an empty pool to which a document was applied. Raises TopologyErrors."""
        from vnet.plan import desired_state  # noqa: PLC0415 - only documents need it

        pool = cls(desired_state(document, PoolState()))
        pool.document = document
        return pool

    # Packets

    def connect(self, source: str, target: str, *, tcp: int | None = None, udp: int | None = None) -> Trace:
        """Play a conversation: ARP or ND, then a TCP handshake, a UDP exchange, or a ping. Bridges forget it afterwards.

        The trace has every packet; its `reached` is true if all of them arrived.
        """
        if tcp is not None and udp is not None:
            raise SimError("either tcp or udp")
        protocol = Protocol.TCP if tcp is not None else Protocol.UDP if udp is not None else Protocol.ICMP
        return trace(self, party(self, self.vif(source)), party(self, self.vif(target)), protocol, tcp or udp or 0)

    @contextmanager
    def capture(self, file: IO[bytes] | str | Path, start_us: int = 0) -> Iterator[None]:
        """Write every frame that passes a port to a pcapng file: an interface per bridge and port, a direction per frame.

        start_us: the time of the first frame, in microseconds since 1970; the others follow 1 us apart.
        """
        if isinstance(file, str | Path):
            with Path(file).open("wb") as opened, self.capture(opened, start_us):
                yield
            return
        self._capture, self._captured_us = PcapngWriter(file), start_us
        try:
            yield
        finally:
            self._capture = None

    def advance(self, ms: float) -> None:
        """Let time pass: buckets of meters fill."""
        self.now_us += round(1000 * ms)

    # Guests and faults

    def location(self, vm: str) -> str | None:
        """The host on which a VM runs. Raises UnknownName."""
        return self.runs_on(self._vifs_of(vm)[0])

    def cut(self, host: str, link: str = "underlay") -> None:
        """Cut a host off, silently: from the other hosts ('underlay'), or one of its NICs ('eth1')."""
        self._set_cut(host, link, True)

    def heal(self, host: str, link: str = "underlay") -> None:
        """Undo `cut`."""
        self._set_cut(host, link, False)

    def _set_cut(self, name: str, link: str, cut: bool) -> None:
        host = self.host(name)
        bond = next((bond for bond in host.bonds.values() if link in bond.uplink.links), None)
        if link != "underlay" and bond is None:
            nics = [nic for b in host.bonds.values() for nic in b.uplink.links]
            raise UnknownName(f"link of {name}", link, ["underlay", *nics])
        links, item = (self._cut, name) if bond is None else (bond.cut, link)
        (links.add if cut else links.discard)(item)

    def pause(self, vm: str) -> None:
        """The guest neither sends nor receives. Frames for it wait in its host's port."""
        self.paused |= {vif.id for vif in self._vifs_of(vm)}

    def resume(self, vm: str) -> Deliveries:
        """The guest goes on, and receives the frames that waited for it."""
        self.paused -= {vif.id for vif in self._vifs_of(vm)}
        return self._drain(self._vifs_of(vm))

    def run(self, vm: str, host: str | None, announce: bool = False) -> Deliveries:
        """The guest runs on `host` from this moment (None: nowhere), and receives the frames that waited there.

        With `announce` it sends a RARP per VIF, as QEMU does.
        """
        vifs = self._vifs_of(vm)
        for vif in vifs:
            if host is None:
                self._runs.pop(vif.id, None)
            else:
                self._runs[vif.id] = self.host(host).name
        received = self._drain(vifs)
        if host is None or not announce:
            return received
        sent = [self.send(self.label(vif), rarp(vif.mac)) for vif in vifs]
        items = (*received.items, *(item for deliveries in sent for item in deliveries))
        return Deliveries(items, tuple(loss for deliveries in sent for loss in deliveries.lost))

    @contextmanager
    def without(self, vifs: Collection[str]) -> Iterator[None]:
        """The guests of some VIFs, by their ids, run nowhere for a while."""
        ran = {id: self._runs.pop(id) for id in vifs if id in self._runs}
        try:
            yield
        finally:
            self._runs |= ran

    def _drain(self, vifs: Iterable[Vif]) -> Deliveries:
        items = []
        for vif in vifs:
            if vif.id not in self.paused:
                queue = self._waiting.pop((vif.id, self._runs.get(vif.id, "")), ())
                items += [Delivery(self.label(vif), frame, 0.0, path) for frame, path in queue]
        return Deliveries(tuple(items))

    def _vifs_of(self, vm: str) -> list[Vif]:
        found = self.vifs_of(vm)
        if not found:
            raise UnknownName("VM", vm, {vif.vm for vif in self.state.vifs.values() if vif.vm})
        return found

    # Migration, as the agents and the controller carry it out

    def prepare(self, vm: str, host: str) -> None:
        """Begin a migration to `host`: the VM's ports there are held, and every sender sends to both hosts."""
        self.host(host)
        vifs, bindings = dict(self.state.vifs), dict(self.state.bindings)
        for vif in self._vifs_of(vm):
            if self._runs.get(vif.id) == host:
                raise SimError(f"{vm} runs on {host} already: name another host")
            vifs[vif.id] = replace(vif, incoming=host, epoch=vif.epoch + 1)
            held = binding_of(vifs[vif.id], host, BindingState.HELD)
            there = [binding for binding in bindings.values() if binding.vif == vif.id]
            held = replace(held, link_locals=chosen(there), behind=known_behind(there), listening=listening_of(there))
            bindings[vif.id, host] = replace(held, moved=bool(obeyed_in(self.state, vif)))
        self.update(replace(self.state, vifs=vifs, bindings=bindings))

    def switch(self, vm: str) -> None:
        """The guest is paused: the ports on the destination receive from now on."""
        self._set_incoming(vm, BindingState.RECEIVING)

    def activate(self, vm: str) -> None:
        """The ports on the destination are active. Its agent announces the VIFs to the physical network."""
        self._set_incoming(vm, BindingState.ACTIVE)
        for vif in self._vifs_of(vm):
            if vif.incoming is not None:
                self._announce(vif, self.host(vif.incoming))

    def _set_incoming(self, vm: str, new: BindingState) -> None:
        bindings = dict(self.state.bindings)
        for vif in self._vifs_of(vm):
            if vif.incoming is None:
                raise SimError(f"{vm} is not being moved: prepare it first")
            bindings[vif.id, vif.incoming] = replace(bindings[vif.id, vif.incoming], state=new)
        self.update(replace(self.state, bindings=bindings))

    def finish(self, vm: str) -> None:
        """End a migration on its destination: the old host forgets the VM."""
        self._end(vm, lambda vif: vif.incoming)

    def abort(self, vm: str) -> None:
        """End a migration where it began: the new host forgets the VM."""
        self._end(vm, lambda vif: self._runs.get(vif.id))

    def _end(self, vm: str, stays: Callable[[Vif], str | None]) -> None:
        vifs, bindings = dict(self.state.vifs), dict(self.state.bindings)
        for vif in self._vifs_of(vm):
            if vif.incoming is None:
                raise SimError(f"{vm} is not being moved: prepare it first")
            kept = stays(vif)
            for name in self.hosts:
                if name != kept:
                    bindings.pop((vif.id, name), None)
            vifs[vif.id] = replace(vif, incoming=None, host=kept if vif.host is not None else None)
        self.update(replace(self.state, vifs=vifs, bindings=bindings))

    def migrate(self, vm: str, to: str, *, pause_s: float = 0.0, announce: bool = True) -> None:
        """Migrate a running VM as a toolstack does: prepare, switch over, activate, finish.

        With `pause_s` the destination's ports receive before the guest runs there. With `announce` the guest sends a RARP.
        """
        self.prepare(vm, to)
        if pause_s:
            self.switch(vm)
            self.advance(1000 * pause_s)
        self.run(vm, to, announce)
        self.activate(vm)
        self.finish(vm)
