"""A whole pool in memory: its hosts, the tunnels and the physical network between them, its guests.

One rule: what runs are the flows that `vnet.compile` makes for each host, not a model of them. What is modelled is what is
outside of Open vSwitch: wires, the underlay, physical switches, guests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ovsctl.datapath import FrameError
from ovsctl.datapath.flow_extract import VLAN_TYPES, check_frame
from ovsctl.datapath.switch import Emitted, Port, Switch
from ovsctl.datapath.xlate import Tunnel
from vnet.compile.view import StateIndex
from vnet.objects import (
    Binding,
    BindingState,
    LockingMode,
    PoolState,
    Protocol,
    Vif,
)
from vnet.objects.carriers import ENCAPSULATION_OF_DEVICE
from vnet.sim.deliveries import Deliveries, Delivery, Loss, Station, Trail, flat, frames_of
from vnet.sim.errors import Looped, NotPlugged, PacketError, SimError, UnknownName
from vnet.sim.host import FORWARD, NIC, PATCH, SimHost, ports_by_host
from vnet.sim.packets import rarp
from vnet.sim.pcapng import Direction, PcapngWriter

if TYPE_CHECKING:
    from vnet.sim.trace import Trace
    from vnet.topology import Document

DEFAULT_UNDERLAY_MTU = 1500
QUEUE_MAX = 1000  # frames that wait for a guest: a tap's queue on Linux
HOPS_MAX = 100_000  # passes through switches that one send may take


class Arrival(NamedTuple):
    """A frame about to enter a switch. `switch` is the host's br-int, one of its uplink bridges, or a physical switch."""

    switch: Switch
    port: int
    frame: bytes
    path: Trail
    tunnel: Tunnel | None = None


class SimPool:
    """A pool that runs in memory. Make one with `SimPool.of` or `SimPool.from_document`."""

    def __init__(self, state: PoolState) -> None:
        self.configured = state  # as it was given: without the bindings that were added
        self.state = bound(state)
        self.underlay_mtu = state.pool.underlay_mtu if state.pool else DEFAULT_UNDERLAY_MTU
        self.document: Document | None = None
        self.hosts = {name: SimHost(name) for name in sorted(state.hosts)}
        self.physical: dict[str, Switch] = {}
        self.stations: list[Station] = []
        self._sockets: dict[str, dict[str, int]] = {}  # uplink to host to port of the physical switch
        self._station_at: dict[tuple[str, int], Station] = {}
        self._runs: dict[str, str] = {}  # VIF id to the host where its guest runs
        self.paused: set[str] = set()
        self._waiting: dict[tuple[str, str], deque[tuple[bytes, Trail]]] = {}
        self._cut: set[str] = set()
        self._capture: PcapngWriter | None = None
        self._captured_us = 0
        self._labels: dict[str, str] = {}
        self._by_label: dict[str, Vif] = {}
        self._by_vtep: dict[int, tuple[SimHost, bool]] = {}  # with whether it is IPv6
        self._vtep: dict[str, int] = {}
        self._index = StateIndex(self.state)
        self._host_of: dict[Switch, SimHost] = {}
        self._links: dict[Switch, Callable[[Emitted, Trail], Arrival | None]] = {}
        self._items: list[Delivery] = []
        self._lost: list[Loss] = []
        for name, vifs in ports_by_host(self.state).items():
            self.hosts[name].plug_all(vifs)
        for vif, where in self.state.locations().items():
            if where.current is not None and vif in self.state.vifs:
                self._runs[vif] = where.current.host
        self._program()

    @classmethod
    def of(cls, state: PoolState) -> SimPool:
        """The twin of a pool. A VIF without a binding runs where it should: at its own host, else its VM's."""
        return cls(state)

    @classmethod
    def from_document(cls, document: Document) -> SimPool:
        """The twin of what a document says, as an empty pool would become. Raises TopologyErrors."""
        from vnet.plan import desired_state  # noqa: PLC0415 - only documents need it

        pool = cls(desired_state(document, PoolState()))
        pool.document = document
        return pool

    # What it is made of

    def _program(self) -> None:
        """Make every switch what the state says."""
        state = self.state
        self._labels = {vif.id: f"{vif.vm}/{vif.index}" if vif.vm else vif.id for vif in state.vifs.values()}
        self._by_label = {self._labels[vif.id]: vif for vif in state.vifs.values()}
        vteps = {h.name: ip_address(h.address) for h in state.hosts.values() if h.address is not None}
        self._vtep = {name: int(address) for name, address in vteps.items()}
        self._by_vtep = {int(address): (self.hosts[name], address.version == 6) for name, address in vteps.items()}
        self._links, self._host_of = {}, {}
        self._index = StateIndex(state)
        for host in self.hosts.values():
            host.program(state, self._index)
            for switch, uplink in host.switches():
                if not uplink:
                    self._host_of[switch] = host
                self._links[switch] = self._from_uplink(host, uplink) if uplink else self._from_host(host)
        self._wire()

    @contextmanager
    def only(self, vifs: Collection[str]) -> Iterator[None]:
        """While the pool has these VIFs alone, each where it is: what frames between them meet does not depend on others."""
        whole, index = self.state, self._index
        bindings = {key: binding for key, binding in whole.bindings.items() if key[0] in vifs}
        self.state = replace(whole, vifs={vif: whole.vifs[vif] for vif in vifs}, bindings=bindings)
        hosts = {host for _, host in bindings} & self.hosts.keys()
        self._index = StateIndex(self.state)
        try:
            for host in hosts:
                self.hosts[host].program(self.state, self._index)
            yield
        finally:
            self.state, self._index = whole, index
            for host in hosts:
                self.hosts[host].program(whole, index)

    def _wire(self) -> None:
        """A physical switch per uplink name, with a socket for each host and each station."""
        for uplink in sorted({uplink for host in self.hosts.values() for uplink in host.bonds}):
            if uplink not in self.physical:
                self.physical[uplink] = Switch((FORWARD,), name=f"physical {uplink}")
                self._sockets[uplink] = {}
            switch, sockets = self.physical[uplink], self._sockets[uplink]
            for name, host in self.hosts.items():
                if uplink in host.bonds and name not in sockets:
                    sockets[name] = len(switch.ports) + 1
                    switch.set_port(sockets[name], Port(name))
            self._links[switch] = self._from_physical(uplink)

    def update(self, state: PoolState) -> None:
        """Make the pool another state; ports that are plugged, guests and what switches learned stay."""
        self.configured = state
        self.state = bound(state)
        for name in self.hosts.keys() - state.hosts.keys():
            del self.hosts[name]
        for name in sorted(state.hosts.keys() - self.hosts.keys()):
            self.hosts[name] = SimHost(name)
        for name, vifs in ports_by_host(self.state).items():
            for vif in vifs:
                self.hosts[name].plug(vif)
            for vif in self.hosts[name].ports.keys() - set(vifs):
                self.hosts[name].unplug(vif)
        for vif, where in self.state.locations().items():
            if where.current is not None and vif in self.state.vifs:
                self._runs.setdefault(vif, where.current.host)
        self._program()

    def vif(self, name: str) -> Vif:
        """A VIF by its id or as 'web1/0'; a VM with one VIF by its name. Raises UnknownName with the nearest."""
        found = self._by_label.get(name) or self.state.vifs.get(name)
        if found is None:
            of_vm = self.vifs_of(name)
            if len(of_vm) == 1:
                return of_vm[0]
            raise UnknownName("VIF", name, self._by_label)
        return found

    def vifs_of(self, vm: str) -> list[Vif]:
        """The VIFs of a VM, in order; none if there is no such VM."""
        return sorted((vif for vif in self.state.vifs.values() if vif.vm == vm), key=lambda vif: vif.index)

    def _vifs_of(self, vm: str) -> list[Vif]:
        found = self.vifs_of(vm)
        if not found:
            raise UnknownName("VM", vm, {vif.vm for vif in self.state.vifs.values() if vif.vm})
        return found

    def label(self, vif: Vif) -> str:
        """How deliveries name a VIF: 'web1/0'."""
        return self._labels[vif.id]

    def host(self, name: str) -> SimHost:
        if name not in self.hosts:
            raise UnknownName("host", name, self.hosts)
        return self.hosts[name]

    def where(self, vif: Vif) -> str | None:
        """The host on which a VIF's guest runs."""
        return self._runs.get(vif.id)

    def station(self, uplink: str, tag: int | None = None) -> Station:
        """An outside station on the physical switch of an uplink; on one VLAN if a tag is given."""
        if uplink not in self.physical:
            raise UnknownName("uplink", uplink, self.physical)
        station = Station(uplink if tag is None else f"{uplink}.{tag}", uplink, tag)
        if station not in self.stations:
            self.stations.append(station)
            number = len(self.physical[uplink].ports) + 1
            self.physical[uplink].set_port(number, Port(station.name))
            self._station_at[uplink, number] = station
        return station

    def is_cut(self, host: str) -> bool:
        """Whether a host is cut off from the underlay."""
        return host in self._cut

    # Packets

    def send(self, source: str | Station, packets: Any, **_: float) -> Deliveries:
        """Send a packet (scapy or bytes) or several from a VIF ('web1/0') or a station; everything that anyone got.

        Takes and ignores the lab's waiting times. Raises PacketError, UnknownName, NotPlugged, and
        UnsupportedFlowError for a flow that cannot be simulated.
        """
        self._items, self._lost = [], []
        for frame in frames_of(packets):
            self._carry(self.entrance(source, frame))
        return Deliveries(tuple(self._items), tuple(self._lost))

    def entrance(self, source: str | Station, frame: bytes) -> Arrival:
        """The switch and port where a frame enters the pool."""
        try:
            check_frame(frame)
        except FrameError as error:
            raise PacketError(str(error)) from error
        if isinstance(source, Station):
            number = next(n for (u, n), s in self._station_at.items() if s == source and u == source.uplink)
            frame = frame if source.tag is None else _tagged(frame, source.tag)
            return Arrival(self.physical[source.uplink], number, frame, ((), source.name))
        vif = self.vif(source)
        name = self._runs.get(vif.id)
        host = self.hosts.get(name) if name is not None else None
        if host is None or vif.id not in host.ports:
            raise NotPlugged(f"VIF {self.label(vif)} is not plugged into any host: give its VM a host, or start it")
        if vif.id in self.paused:
            raise SimError(f"VIF {self.label(vif)} is paused: resume its VM first")
        return Arrival(host.bridge, host.ports[vif.id], frame, ((), self.label(vif)))

    def _carry(self, first: Arrival) -> None:
        """Follow a frame and its copies until none is on its way."""
        waiting = deque((first,))
        hops = 0
        links = self._links
        while waiting:
            arrival = waiting.popleft()
            hops += 1
            if hops > HOPS_MAX:
                raise Looped(f"a frame from {flat(first.path)[0]} went through switches {HOPS_MAX} times")
            switch = arrival.switch
            link = links[switch]
            if self._capture is not None:
                self._record(switch, arrival.port, arrival.frame, Direction.IN)
            for emitted in switch.receive(arrival.frame, arrival.port, arrival.tunnel):
                if self._capture is not None:
                    self._record(switch, emitted.port, emitted.frame, Direction.OUT)
                following = link(emitted, arrival.path)
                if following is not None:
                    waiting.append(following)

    def _record(self, switch: Switch, port: int, frame: bytes, direction: Direction) -> None:
        if self._capture is not None:
            self._capture.write(f"{switch.name} {switch.port_name(port)}", frame, direction, self._captured_us)
            self._captured_us += 1

    @contextmanager
    def capture(self, file: IO[bytes], start_us: int = 0) -> Iterator[None]:
        """Write what passes any port to a pcapng file, with an interface per switch and port and each frame's direction.

        start_us: when the first frame is said to pass, in microseconds since 1970; the others follow 1 us apart.
        """
        self._capture, self._captured_us = PcapngWriter(file), start_us
        try:
            yield
        finally:
            self._capture = None

    def connect(self, source: str, target: str, *, tcp: int | None = None, udp: int | None = None) -> Trace:
        """Play a conversation: ARP or ND, then a TCP handshake, a UDP question and answer, or a ping. Every packet of it with
        its way; `reached` says whether all of them arrived. Nothing of it is remembered."""
        from vnet.sim.conversation import party, trace  # noqa: PLC0415 - it is made of pools

        if tcp is not None and udp is not None:
            raise SimError("either tcp or udp")
        protocol = Protocol.TCP if tcp is not None else Protocol.UDP if udp is not None else Protocol.ICMP
        return trace(self, party(self, self.vif(source)), party(self, self.vif(target)), protocol, tcp or udp or 0)

    def follow(self, arrival: Arrival, emitted: Emitted) -> tuple[Arrival | None, Deliveries]:
        """Where a frame that left a switch goes: into another one, or to whom it is delivered."""
        self._items, self._lost = [], []
        following = self._links[arrival.switch](emitted, arrival.path)
        return following, Deliveries(tuple(self._items), tuple(self._lost))

    def _lose(self, where: str, reason: str, frame: bytes) -> None:
        self._lost.append(Loss(where, reason, frame))

    def _from_host(self, host: SimHost) -> Callable[[Emitted, Trail], Arrival | None]:
        """What is behind the ports of a host's br-int."""

        def carry(emitted: Emitted, path: Trail) -> Arrival | None:
            port, frame, _ = emitted
            vif = host.vif_at.get(port)
            if vif is not None:
                self._to_guest(host, vif, port, frame, path)
                return None
            name = host.device_at.get(port)
            if name is None:
                return None
            path = (path, f"{host.name} {name}")
            if name in ENCAPSULATION_OF_DEVICE:
                return self._through_tunnel(host, name, emitted, path)
            uplink = name.removeprefix("int-")
            return Arrival(host.uplinks[uplink], PATCH, frame, path)

        return carry

    def _to_guest(self, host: SimHost, vif: str, port: int, frame: bytes, path: Trail) -> None:
        label = self._labels[vif]
        mtu = host.bridge.ports[port].mtu
        if mtu is not None and _ip_size(frame) > mtu:
            self._lose(f"{host.name} {label}", f"{_ip_size(frame)} bytes are over the port's MTU of {mtu}", frame)
        elif self._runs.get(vif) == host.name and vif not in self.paused:
            self._items.append(Delivery(label, frame, 0.0, (path, label)))
        else:
            queue = self._waiting.setdefault((vif, host.name), deque(maxlen=QUEUE_MAX))
            queue.append((frame, (path, label)))

    def _through_tunnel(self, host: SimHost, name: str, emitted: Emitted, path: Trail) -> Arrival | None:
        _, frame, tunnel = emitted
        where, source = f"{host.name} {name}", self._vtep.get(host.name)
        if tunnel is None or source is None:
            self._lose(where, "the host has no tunnel endpoint address", frame)
            return None
        encapsulation = ENCAPSULATION_OF_DEVICE[name]
        peer, ipv6 = self._by_vtep.get(tunnel.dst, (None, False))
        if peer is None or peer is host or ipv6 is not tunnel.ipv6:
            target = ip_address(tunnel.dst.to_bytes(16 if tunnel.ipv6 else 4, "big"))
            self._lose(where, f"no other host has the address {target}", frame)
        elif (size := len(frame) - 14 + encapsulation.overhead("::" if ipv6 else None)) > self.underlay_mtu:
            self._lose(
                where, f"{size} bytes once encapsulated are over the underlay's MTU of {self.underlay_mtu}", frame
            )
        elif host.name in self._cut or peer.name in self._cut:
            self._lose(where, "the underlay is cut", frame)
        elif (port := peer.devices.get(name)) is None:
            self._lose(f"{peer.name}", f"the host has no {encapsulation.name} tunnel", frame)
        else:
            key = tunnel.key & encapsulation.max_key
            received = Tunnel(key, source, tunnel.dst, ipv6)
            return Arrival(peer.bridge, port, frame, (path, f"{peer.name} {name}"), received)
        return None

    def _from_uplink(self, host: SimHost, uplink: str) -> Callable[[Emitted, Trail], Arrival | None]:
        """What is behind the ports of an uplink's bridge: the NICs, and br-int."""
        bond, device = host.bonds[uplink], f"int-{uplink}"

        def carry(emitted: Emitted, path: Trail) -> Arrival | None:
            port, frame, _ = emitted
            if port == PATCH:
                return Arrival(host.bridge, host.devices[device], frame, (path, f"{host.name} {device}"))
            nic, mtu = bond.member(frame), bond.uplink.mtu or self.underlay_mtu
            where = f"{host.name} {nic or uplink}"
            if nic is None:
                self._lose(where, "every NIC of the uplink is cut", frame)
            elif _ip_size(frame) > mtu:
                self._lose(where, f"{_ip_size(frame)} bytes are over the uplink's MTU of {mtu}", frame)
            else:
                return Arrival(self.physical[uplink], self._sockets[uplink][host.name], frame, (path, where))
            return None

        return carry

    def _from_physical(self, uplink: str) -> Callable[[Emitted, Trail], Arrival | None]:
        """What is behind the sockets of a physical switch: hosts and stations."""
        hosts = {number: name for name, number in self._sockets[uplink].items()}

        def carry(emitted: Emitted, path: Trail) -> Arrival | None:
            port, frame, _ = emitted
            station = self._station_at.get((uplink, port))
            if station is not None:
                seen = _as_seen(frame, station.tag)
                if seen is not None:
                    self._items.append(Delivery(station.name, seen, 0.0, (path, station.name)))
                return None
            host = self.hosts.get(hosts.get(port, ""))
            if host is None or uplink not in host.bonds or not host.bonds[uplink].alive:
                return None
            nic = host.bonds[uplink].member(frame)
            return Arrival(host.uplinks[uplink], NIC, frame, (path, f"{host.name} {nic}"))

        return carry

    # Guests and faults

    def cut(self, host: str, what: str = "underlay") -> None:
        """Cut a host off, silently: from the other hosts ('underlay'), or one of its NICs ('eth1')."""
        self._set_cut(host, what, True)

    def heal(self, host: str, what: str = "underlay") -> None:
        """Undo `cut`."""
        self._set_cut(host, what, False)

    def _set_cut(self, name: str, what: str, cut: bool) -> None:
        host = self.host(name)
        bond = next((bond for bond in host.bonds.values() if what in bond.uplink.members), None)
        if what != "underlay" and bond is None:
            nics = [nic for b in host.bonds.values() for nic in b.uplink.members]
            raise UnknownName(f"link of {name}", what, ["underlay", *nics])
        where, item = (self._cut, name) if bond is None else (bond.cut, what)
        (where.add if cut else where.discard)(item)

    def pause(self, vm: str) -> None:
        """The guest neither sends nor receives. What arrives waits in its host's port."""
        self.paused |= {vif.id for vif in self._vifs_of(vm)}

    def resume(self, vm: str) -> Deliveries:
        """The guest goes on, and gets what waited for it."""
        self.paused -= {vif.id for vif in self._vifs_of(vm)}
        return self._drain(self._vifs_of(vm))

    def run(self, vm: str, host: str | None, announce: bool = False) -> Deliveries:
        """The guest runs on `host` from this moment (None: nowhere), and gets what waited there.

        With `announce` it says so, as QEMU does: a RARP per VIF.
        """
        vifs = self._vifs_of(vm)
        for vif in vifs:
            if host is None:
                self._runs.pop(vif.id, None)
            else:
                self._runs[vif.id] = self.host(host).name
        got = self._drain(vifs)
        if host is None or not announce:
            return got
        sent = [self.send(self.label(vif), rarp(vif.mac)) for vif in vifs]
        return Deliveries(
            (*got.items, *(item for one in sent for item in one)), tuple(loss for one in sent for loss in one.lost)
        )

    def _drain(self, vifs: Iterable[Vif]) -> Deliveries:
        items = []
        for vif in vifs:
            if vif.id not in self.paused:
                queue = self._waiting.pop((vif.id, self._runs.get(vif.id, "")), ())
                items += [Delivery(self.label(vif), frame, 0.0, path) for frame, path in queue]
        return Deliveries(tuple(items))

    # Migration (DESIGN 7), as its agents and its controller would do it

    def prepare(self, vm: str, host: str) -> None:
        """The VM may move to `host`: its ports there are held, and every sender sends to both."""
        self.host(host)
        vifs, bindings = dict(self.state.vifs), dict(self.state.bindings)
        for vif in self._vifs_of(vm):
            if self._runs.get(vif.id) == host:
                raise SimError(f"{vm} runs on {host} already: name another host")
            vifs[vif.id] = replace(vif, incoming=host, epoch=vif.epoch + 1)
            held = binding_of(vifs[vif.id], host, BindingState.HELD)
            bindings[vif.id, host] = replace(held, moved=bool(vif.groups))
        self.update(replace(self.state, vifs=vifs, bindings=bindings))

    def switch(self, vm: str) -> None:
        """The guest is paused: the destination's ports receive from now on."""
        self._set_incoming(vm, BindingState.RECEIVING)

    def activate(self, vm: str) -> None:
        """The destination's ports are active. The VIF's row goes to the new host, too."""
        self._set_incoming(vm, BindingState.ACTIVE)

    def _set_incoming(self, vm: str, new: BindingState) -> None:
        bindings = dict(self.state.bindings)
        for vif in self._vifs_of(vm):
            if vif.incoming is None:
                raise SimError(f"{vm} is not being moved: prepare it first")
            bindings[vif.id, vif.incoming] = replace(bindings[vif.id, vif.incoming], state=new)
        self.update(replace(self.state, bindings=bindings))

    def finish(self, vm: str) -> None:
        """The old host forgets the VM."""
        self._end(vm, lambda vif: vif.incoming)

    def abort(self, vm: str) -> None:
        """The new host forgets the VM."""
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

    # What a look must not change

    def host_of(self, switch: Switch) -> SimHost | None:
        """The host whose br-int a switch is; None for any other switch."""
        return self._host_of.get(switch)

    def switches(self) -> Iterator[Switch]:
        """Every switch of the pool, physical ones included."""
        for host in self.hosts.values():
            yield from (switch for switch, _ in host.switches())
        yield from self.physical.values()

    @contextmanager
    def undone(self) -> Iterator[None]:
        """What switches learn inside is forgotten at the end."""
        kept = [
            (s, dict(s.macs), dict(s.learned), s.tracker, list(s.packet_ins), s.metered.copy()) for s in self.switches()
        ]
        waiting = {where: deque(queue, QUEUE_MAX) for where, queue in self._waiting.items()}
        for switch, _, _, tracker, _, _ in kept:
            switch.tracker = tracker.copy()
        try:
            yield
        finally:
            self._waiting = waiting
            for switch, macs, learned, tracker, packet_ins, metered in kept:
                switch.restore(macs, learned, tracker, packet_ins, metered)


def bound(state: PoolState) -> PoolState:
    """The state with a binding for every VIF that should be somewhere and has none."""
    having = {vif for vif, _ in state.bindings}
    added = {}
    for vif in state.vifs.values():
        if vif.id in having:
            continue
        vm = state.vms.get(vif.vm) if vif.vm else None
        host = vif.host or (vm.host if vm else None)
        network = state.networks.get(vif.network)
        if host in state.hosts and host is not None and network is not None and network.on(host):
            added[vif.id, host] = binding_of(vif, host, BindingState.ACTIVE)
    return replace(state, bindings={**state.bindings, **added}) if added else state


def settled(state: PoolState) -> PoolState:
    """The state once the agents have followed: what a VIF's binding says of it is what the VIF says itself."""
    bindings = {
        key: replace(
            binding,
            network=vif.network,
            mac=vif.mac,
            addresses=vif.addresses,
            unlocked=vif.locking_mode is LockingMode.UNLOCKED,
            groups=vif.groups,
        )
        for key, binding in state.bindings.items()
        if (vif := state.vifs.get(binding.vif)) is not None
    }
    return replace(state, bindings=bindings)


def binding_of(vif: Vif, host: str, state: BindingState) -> Binding:
    """The binding that a host's agent would write for a VIF."""
    unlocked = vif.locking_mode is LockingMode.UNLOCKED
    return Binding(
        vif.id, host, vif.network, vif.mac, vif.epoch, state, vif.addresses, unlocked, ready=True, groups=vif.groups
    )


def _tagged(frame: bytes, tag: int) -> bytes:
    return frame[:12] + b"\x81\0" + tag.to_bytes(2, "big") + frame[12:]


def _as_seen(frame: bytes, tag: int | None) -> bytes | None:
    """The frame as a station on a VLAN sees it, None where it does not."""
    if tag is None:
        return frame
    if frame[12:14] == b"\x81\0" and len(frame) >= 18 and int.from_bytes(frame[14:16], "big") & 0xFFF == tag:
        return frame[:12] + frame[16:]
    return None


def _ip_size(frame: bytes) -> int:
    """What counts against an MTU: all behind the Ethernet header and the outermost tag."""
    return len(frame) - (18 if int.from_bytes(frame[12:14], "big") in VLAN_TYPES else 14)
