"""The hosts of a twin and all that is between them: tunnels, uplink bridges, physical switches, outside stations.

One rule: hosts run the flows that `vnet.compile` makes for them. Modelled is only what Open vSwitch does not do: wires, the
underlay and its MTU, physical switches, guests' queues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from ovsctl.datapath import Emitted, EmulatedBridge, EmulatedPort, Passed, Tunnel
from ovsctl.datapath.flow_extract import VLAN_TYPES
from vnet.compile import Rejected, StateIndex, announced_tags, inner_addresses, is_rejection, reply_to
from vnet.objects import PoolState, Vif
from vnet.objects.carriers import ENCAPSULATION_OF_DEVICE
from vnet.objects.encryption import wireguard_bytes
from vnet.objects.identity import macs_of
from vnet.objects.mirror import COLLECTOR_DEVICE
from vnet.sim.bindings import bound, joined, ports_by_host
from vnet.sim.deliveries import Deliveries, Delivery, Loss, Station, Trail, flat, frames_of
from vnet.sim.errors import GuestPaused, Looped, NotPlugged, UnknownName
from vnet.sim.host import NIC, NORMAL_FLOW, PATCH, SimHost
from vnet.sim.link_locals import take_choice, with_choice
from vnet.sim.mac_learning import after_hearing, take_heard
from vnet.sim.multicast_snooping import after_report, asked, take_report
from vnet.util.frames import rarp
from vnet.util.given_up import check_awaited
from vnet.util.pcapng import CaptureDirection, PcapngWriter

if TYPE_CHECKING:
    from vnet.topology import Document

DEFAULT_UNDERLAY_MTU = 1500
QUEUE_MAX = 1000  # frames that wait for a guest: the queue of a tap on Linux
HOPS_MAX = 100_000  # passes through bridges that one send may take


class Arrival(NamedTuple):
    """A frame about to enter a bridge: br-int of a host, one of its uplink bridges, or a physical switch."""

    switch: EmulatedBridge
    port: int
    frame: bytes
    path: Trail
    tunnel: Tunnel | None = None


_Link = Callable[[Emitted, Trail], Arrival | None]


class Fabric:
    """The hosts of a pool, wired together."""

    def __init__(self, state: PoolState, *, claim: bool = True) -> None:
        """Wire a pool. With `claim` a VIF without a binding gets one, as its host's agent would write it."""
        self.configured = state  # as it was given: without the bindings that were added
        self._claim = claim
        self.state = asked(bound(state)) if claim else state
        self.document: Document | None = None
        self.underlay_mtu = state.pool.underlay_mtu if state.pool else DEFAULT_UNDERLAY_MTU
        self.hosts = {name: SimHost(name) for name in sorted(state.hosts)}
        self.physical: dict[str, EmulatedBridge] = {}
        self.stations: list[Station] = []
        self.paused: set[str] = set()  # ids of VIFs
        self.now_us = 0
        self._sockets: dict[str, dict[str, int]] = {}  # uplink to host to port of the physical switch
        self._station_at: dict[tuple[str, int], Station] = {}
        self._runs: dict[str, str] = {}  # VIF id to the host where its guest runs
        self._waiting: dict[tuple[str, str], deque[tuple[bytes, Trail]]] = {}
        self._cut: set[str] = set()
        self._capture: PcapngWriter | None = None
        self._captured_us = 0
        self._labels: dict[str, str] = {}
        self._by_label: dict[str, Vif] = {}
        self._by_vtep: dict[int, tuple[SimHost, bool]] = {}  # address to its host, and whether it is IPv6
        self._vtep: dict[str, int] = {}
        self._inner: dict[str, int] = {}  # the hosts' addresses inside WireGuard
        self._by_inner: dict[int, SimHost] = {}
        self._index = StateIndex(self.state)
        self._host_of: dict[EmulatedBridge, SimHost] = {}
        self._links: dict[EmulatedBridge, _Link] = {}
        self._items: list[Delivery] = []
        self._lost: list[Loss] = []
        for name, vifs in ports_by_host(self.state).items():
            self.hosts[name].plug_all(vifs)
        for vif, location in self.state.locations().items():
            if location.current is not None and vif in self.state.vifs:
                self._runs[vif] = location.current.host
        self._program()

    # Configuration

    def update(self, state: PoolState) -> None:
        """Change the pool to another state. Plugged ports, guests, and what bridges learned stay."""
        self.configured = state
        self.state = asked(joined(self.state, bound(state))) if self._claim else state
        for name in self.hosts.keys() - state.hosts.keys():
            del self.hosts[name]
        for name in sorted(state.hosts.keys() - self.hosts.keys()):
            self.hosts[name] = SimHost(name)
        for name, vifs in ports_by_host(self.state).items():
            for vif in vifs:
                self.hosts[name].plug(vif)
            for vif in self.hosts[name].ports.keys() - set(vifs):
                self.hosts[name].unplug(vif)
        for vif, location in self.state.locations().items():
            if location.current is not None and vif in self.state.vifs:
                self._runs.setdefault(vif, location.current.host)
        self._program()

    def _program(self) -> None:
        """Install the state on every bridge."""
        state = self.state
        self._labels = {vif.id: f"{vif.vm}/{vif.index}" if vif.vm else vif.id for vif in state.vifs.values()}
        self._by_label = {self._labels[vif.id]: vif for vif in state.vifs.values()}
        vteps = {h.name: ip_address(h.address) for h in state.hosts.values() if h.address is not None}
        self._vtep = {name: int(address) for name, address in vteps.items()}
        self._by_vtep = {int(address): (self.hosts[name], address.version == 6) for name, address in vteps.items()}
        inner = inner_addresses(state) if any(net.encryption is not None for net in state.networks.values()) else {}
        self._inner = {name: int(ip_address(address)) for name, address in inner.items()}
        self._by_inner = {address: self.hosts[name] for name, address in self._inner.items()}
        self._links, self._host_of = {}, {}
        self._index = StateIndex(state)
        for host in self.hosts.values():
            host.program(state, self._index)
            for switch, uplink in host.switches():
                if not uplink:
                    self._host_of[switch] = host
                self._links[switch] = self._from_uplink(host, uplink) if uplink else self._from_host(host)
        self._wire()

    def _wire(self) -> None:
        """A physical switch per uplink name, with a socket for each host and each station."""
        for uplink in sorted({uplink for host in self.hosts.values() for uplink in host.bonds}):
            if uplink not in self.physical:
                self.physical[uplink] = EmulatedBridge((NORMAL_FLOW,), name=f"physical {uplink}")
                self._sockets[uplink] = {}
            switch, sockets = self.physical[uplink], self._sockets[uplink]
            for name, host in self.hosts.items():
                if uplink in host.bonds and name not in sockets:
                    sockets[name] = len(switch.ports) + 1
                    switch.set_port(sockets[name], EmulatedPort(name))
            self._links[switch] = self._from_physical(uplink)

    @contextmanager
    def only(self, vifs: Collection[str]) -> Iterator[None]:
        """Reduce the pool to these VIFs for a while: frames between them do not depend on the others."""
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

    # Names

    def vif(self, name: str) -> Vif:
        """A VIF by its id or as 'web1/0'; the VIF of a VM with one by the VM's name. Raises UnknownName with the nearest."""
        found = self._by_label.get(name) or self.state.vifs.get(name)
        if found is None:
            of_vm = self.vifs_of(name)
            if len(of_vm) == 1:
                return of_vm[0]
            raise UnknownName("VIF", name, self._by_label)
        return found

    def vifs_of(self, vm: str) -> list[Vif]:
        """The VIFs of a VM, in order; empty for an unknown VM."""
        return sorted((vif for vif in self.state.vifs.values() if vif.vm == vm), key=lambda vif: vif.index)

    def label(self, vif: Vif) -> str:
        """The name of a VIF in deliveries: 'web1/0'."""
        return self._labels[vif.id]

    def host(self, name: str) -> SimHost:
        """A host by its name. Raises UnknownName."""
        if name not in self.hosts:
            raise UnknownName("host", name, self.hosts)
        return self.hosts[name]

    def is_plugged(self, vif: Vif) -> bool:
        """Whether any host has a port of a VIF."""
        return any(vif.id in host.ports for host in self.hosts.values())

    def runs_on(self, vif: Vif) -> str | None:
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
            self.physical[uplink].set_port(number, EmulatedPort(station.name))
            self._station_at[uplink, number] = station
        return station

    def is_cut(self, host: str) -> bool:
        """Whether a host is cut off from the underlay."""
        return host in self._cut

    def host_of(self, switch: EmulatedBridge) -> SimHost | None:
        """The host whose br-int this is; None for any other bridge."""
        return self._host_of.get(switch)

    def switches(self) -> Iterator[EmulatedBridge]:
        """Every bridge of the pool, physical switches included."""
        for host in self.hosts.values():
            yield from (switch for switch, _ in host.switches())
        yield from self.physical.values()

    # Frames

    def send(self, source: str | Station, packets: Any, **_: float) -> Deliveries:
        """Send a packet (scapy or bytes) or several from a VIF ('web1/0') or a station; return all deliveries.

        Takes and ignores the lab's waiting times. Raises PacketError, UnknownName, NotPlugged, and UnsupportedFlowError for
        a flow that the emulated bridge cannot run.
        """
        self._items, self._lost = [], []
        for frame in frames_of(packets):
            self._carry(self.entrance(source, frame))
        return Deliveries(tuple(self._items), tuple(self._lost))

    def entrance(self, source: str | Station, frame: bytes) -> Arrival:
        """The bridge and port where a frame from a VIF or station enters the pool. Raises NotPlugged, GuestPaused, GivenUp."""
        check_awaited()
        if isinstance(source, Station):
            number = next(n for (u, n), s in self._station_at.items() if s == source and u == source.uplink)
            frame = frame if source.tag is None else _tagged(frame, source.tag)
            return Arrival(self.physical[source.uplink], number, frame, ((), source.name))
        vif = self.vif(source)
        name = self._runs.get(vif.id)
        host = self.hosts.get(name) if name is not None else None
        if host is None or vif.id not in host.ports:
            raise NotPlugged(self.label(vif))
        if vif.id in self.paused:
            raise GuestPaused(self.label(vif))
        return Arrival(host.bridge, host.ports[vif.id], frame, ((), self.label(vif)))

    def _announce(self, vif: Vif, host: SimHost) -> None:
        """Send a RARP for a VIF to the physical network, on each tag that it carries."""
        network = host.view.network(vif.network)
        if network is None or network.uplink is None or network.patch is None:
            return
        bridge = host.uplinks[network.uplink]
        mac = int(vif.mac.replace(":", ""), 16)
        learned = [vlan for vlan, known in bridge.macs if known == mac]
        self._items, self._lost = [], []
        for tag, frame in product(announced_tags(host.view, network, vif, learned), map(rarp, macs_of(vif))):
            self._carry(Arrival(bridge, PATCH, _tagged(frame, tag) if tag else frame, ((), self.label(vif))))

    def forward(self, arrival: Arrival, notes: list[Passed] | None = None) -> list[Emitted]:
        """The frames that a bridge sends for an arrival; a running capture records all of them."""
        switch = arrival.switch
        _rejections(switch)  # those that nobody wanted the answers to
        emitted = switch.receive(arrival.frame, arrival.port, arrival.tunnel, self.now_us, notes)
        if self._capture is not None:
            self._record(switch, arrival.port, arrival.frame, CaptureDirection.IN)
            for item in emitted:
                self._record(switch, item.port, item.frame, CaptureDirection.OUT)
        return emitted

    def answered(self, arrival: Arrival) -> Deliveries:
        """The deliveries of what the host's agent answers to an arrival that was just forwarded, and rejected."""
        self._items, self._lost = [], []
        link = self._links[arrival.switch]
        for emitted in self._answers(arrival):
            following = link(emitted, arrival.path)
            if following is not None:
                self._carry(following)
        return Deliveries(tuple(self._items), tuple(self._lost))

    def _answers(self, arrival: Arrival) -> list[Emitted]:
        """The frames that a bridge sends for the answers to what it has just rejected. The agent's own limit, of all VIFs of the host
        together, is not modelled."""
        switch, host = arrival.switch, self._host_of.get(arrival.switch)
        found: list[Emitted] = []
        for rejected in _rejections(switch) if host is not None else ():
            reply = reply_to(host.view, rejected) if host is not None else None
            if reply is not None:
                found += switch.packet_out(reply.frame, reply.in_port, reply.actions, self.now_us)
        for item in found if self._capture is not None else ():
            self._record(switch, item.port, item.frame, CaptureDirection.OUT)
        return found

    def follow(self, arrival: Arrival, emitted: Emitted) -> tuple[Arrival | None, Deliveries]:
        """The next bridge that an emitted frame enters, or its delivery or loss."""
        self._items, self._lost = [], []
        following = self._links[arrival.switch](emitted, arrival.path)
        return following, Deliveries(tuple(self._items), tuple(self._lost))

    def _carry(self, first: Arrival) -> None:
        """Forward a frame and its copies until none is on its way."""
        waiting = deque((first,))
        hops = 0
        while waiting:
            arrival = waiting.popleft()
            hops += 1
            if hops > HOPS_MAX:
                raise Looped(f"a frame from {flat(first.path)[0]} went through bridges {HOPS_MAX} times")
            link = self._links[arrival.switch]
            for emitted in (*self.forward(arrival), *self._answers(arrival)):
                following = link(emitted, arrival.path)
                if following is not None:
                    waiting.append(following)
            self._learn(arrival)
            if (again := self.after_choice(arrival)) is not None:
                waiting.append(again)

    def _learn(self, arrival: Arrival) -> None:
        """What a host's agent does about a MAC behind a VIF, or about its multicast groups, that the bridge has just told it of."""
        report, heard = take_report(arrival.switch), take_heard(arrival.switch)  # the last first
        if heard is None and report is None:
            return
        host, after = self._host_of[arrival.switch], self.state
        vif = self.state.vifs[host.vif_at[arrival.port]]
        if heard is not None:
            after = after_hearing(after, vif, host.name, heard, self.now_us)
        if report is not None:
            after = after_report(after, vif, host.name, report)
        if after is not self.state:
            self.state = after
            self._program()

    def after_choice(self, arrival: Arrival) -> Arrival | None:
        """The frame that a host's agent sends again: of a VIF that has just chosen a link-local address, and has it now."""
        frame = take_choice(arrival.switch)
        if frame is None:
            return None
        host = self._host_of[arrival.switch]
        vif = self.state.vifs[host.vif_at[arrival.port]]
        after = with_choice(self.state, vif, host.name, frame, self.now_us)
        if not isinstance(after, PoolState):
            if after is not None:
                self._to_guest(host, vif.id, arrival.port, after, (arrival.path, f"{host.name} agent"))
            return None
        self.state = after
        self._program()
        return arrival._replace(frame=frame)

    def _record(self, switch: EmulatedBridge, port: int, frame: bytes, direction: CaptureDirection) -> None:
        if self._capture is not None:
            self._capture.write(f"{switch.name} {switch.port_name(port)}", frame, direction, self._captured_us)
            self._captured_us += 1

    def _lose(self, place: str, reason: str, frame: bytes) -> None:
        self._lost.append(Loss(place, reason, frame))

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Forget at the end everything that bridges learn, everything that is queued, and what guests choose, inside."""
        state = self.state
        kept = [(switch, switch.snapshot()) for switch in self.switches()]
        waiting = {key: deque(queue, QUEUE_MAX) for key, queue in self._waiting.items()}
        try:
            yield
        finally:
            self._waiting = waiting
            if self.state is not state:
                self.state = state
                self._program()
            for switch, learned in kept:
                switch.restore(learned)

    # Links: what is connected to the ports of a bridge

    def _from_host(self, host: SimHost) -> _Link:
        """The far ends of the ports of a host's br-int: guests, other hosts, uplink bridges."""

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
            if name.startswith(COLLECTOR_DEVICE):
                mirror = next(it for it in host.view.mirrors.values() if it.device == name)
                self._items.append(Delivery(str(mirror.to), frame, 0.0, path))
                return None
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

    def _through_tunnel(self, host: SimHost, device: str, emitted: Emitted, path: Trail) -> Arrival | None:
        _, frame, tunnel = emitted
        place, source = f"{host.name} {device}", self._vtep.get(host.name)
        if tunnel is None or source is None:
            self._lose(place, "the host has no tunnel endpoint address", frame)
            return None
        encapsulation = ENCAPSULATION_OF_DEVICE[device]
        peer, ipv6 = self._by_vtep.get(tunnel.dst, (None, False))
        overhead, note = encapsulation.overhead("::" if ipv6 else None), ""
        if tunnel.ipv6 and (encrypted := self._by_inner.get(tunnel.dst)) is not None:
            overhead = encapsulation.overhead("::") + wireguard_bytes(str(ip_address(source)))
            peer, ipv6, source, note = encrypted, True, self._inner[host.name], " (encrypted)"
        size = len(frame) - 14 + overhead
        if peer is None or peer is host or ipv6 is not tunnel.ipv6:
            target = ip_address(tunnel.dst.to_bytes(16 if tunnel.ipv6 else 4, "big"))
            self._lose(place, f"no other host has the address {target}", frame)
        elif size > self.underlay_mtu:
            reason = f"{size} bytes once encapsulated are over the underlay's MTU of {self.underlay_mtu}"
            self._lose(place, reason, frame)
        elif host.name in self._cut or peer.name in self._cut:
            self._lose(place, "the underlay is cut", frame)
        elif (port := peer.devices.get(device)) is None:
            self._lose(peer.name, f"the host has no {encapsulation.name} tunnel", frame)
        else:
            key = tunnel.key & encapsulation.max_key
            received = Tunnel(key, source, tunnel.dst, ipv6)
            return Arrival(peer.bridge, port, frame, (path, f"{peer.name} {device}{note}"), received)
        return None

    def _from_uplink(self, host: SimHost, uplink: str) -> _Link:
        """The far ends of the ports of an uplink bridge: br-int, and the physical switch behind the NICs."""
        bond, device = host.bonds[uplink], f"int-{uplink}"

        def carry(emitted: Emitted, path: Trail) -> Arrival | None:
            port, frame, _ = emitted
            if port == PATCH:
                return Arrival(host.bridge, host.devices[device], frame, (path, f"{host.name} {device}"))
            nic, mtu = bond.member(frame), bond.uplink.mtu or self.underlay_mtu
            place = f"{host.name} {nic or uplink}"
            if nic is None:
                self._lose(place, "every NIC of the uplink is cut", frame)
            elif _ip_size(frame) > mtu:
                self._lose(place, f"{_ip_size(frame)} bytes are over the uplink's MTU of {mtu}", frame)
            else:
                return Arrival(self.physical[uplink], self._sockets[uplink][host.name], frame, (path, place))
            return None

        return carry

    def _from_physical(self, uplink: str) -> _Link:
        """The far ends of the sockets of a physical switch: hosts and stations."""
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


def _rejections(switch: EmulatedBridge) -> list[Rejected]:
    """Takes what a bridge has rejected last out of the frames for its controller."""
    found: list[Rejected] = []
    while switch.punted and is_rejection(switch.punted[-1].action.userdata):
        punted = switch.punted.pop()
        source = str(ip_address(punted.tun_src)) if punted.tun_src else None
        found.append(Rejected(punted.action.userdata, punted.frame, punted.in_port, punted.metadata, source))
    return found[::-1]


def _tagged(frame: bytes, tag: int) -> bytes:
    return frame[:12] + b"\x81\0" + tag.to_bytes(2, "big") + frame[12:]


def _as_seen(frame: bytes, tag: int | None) -> bytes | None:
    """The frame as a station on a VLAN sees it; None if it is not on that VLAN."""
    if tag is None:
        return frame
    if frame[12:14] == b"\x81\0" and len(frame) >= 18 and int.from_bytes(frame[14:16], "big") & 0xFFF == tag:
        return frame[:12] + frame[16:]
    return None


def _ip_size(frame: bytes) -> int:
    """The bytes that count against an MTU: all behind the Ethernet header and the outermost tag."""
    return len(frame) - (18 if int.from_bytes(frame[12:14], "big") in VLAN_TYPES else 14)
