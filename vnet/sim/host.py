"""One host of the twin: its br-int with the compiled flows, and a learning bridge per uplink.

One rule: ofports follow from what is plugged and nothing else, so that two twins of one pool have the same flows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ovsctl.datapath.switch import Port, Switch
from ovsctl.openflow import Flow, Output
from ovsctl.openflow.fields import Port as Reserved
from vnet.compile import HostView, Role, Source, compile_flows, flat, ovs_rows, patch_device
from vnet.compile import Switch as Bridge
from vnet.compile.view import StateIndex
from vnet.objects import PoolState, Uplink
from vnet.objects.carriers import ENCAPSULATION_OF_DEVICE

FIRST_VIF = 1
FIRST_DEVICE = 0xF000  # tunnels and patches, out of the way of any number of VIFs
NIC, PATCH = 1, 2  # ofports on an uplink's bridge
FORWARD = Flow(priority=0, actions=(Output(Reserved.NORMAL),))


class Bond:
    """An uplink's NICs, as one port. Which member carries a frame is the bond's own affair; one that works is enough."""

    def __init__(self, uplink: Uplink) -> None:
        self.uplink = uplink
        self.cut: set[str] = set()

    @property
    def alive(self) -> list[str]:
        return [nic for nic in self.uplink.members if nic not in self.cut]

    def member(self, frame: bytes) -> str | None:
        """The NIC that a frame goes through: by source MAC, as balance-slb; None where all are cut."""
        alive = self.alive
        return alive[int.from_bytes(frame[6:12], "big") % len(alive)] if alive else None


class SimHost:
    """A host as the twin runs it. `program` makes it what a pool's state says, once somebody looks: most hosts see no frame."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bonds: dict[str, Bond] = {}
        self.ports: dict[str, int] = {}  # VIF id to ofport
        self.vif_at: dict[int, str] = {}
        self._bridge = Switch(name=f"{name} br-int")
        self._uplinks: dict[str, Switch] = {}
        self._devices: dict[str, int] = {}
        self._device_at: dict[int, str] = {}
        self._view = HostView(name)
        self._due: tuple[PoolState, StateIndex] | None = None
        self._compiled: dict[Source, tuple[Flow, ...]] | None = None
        self._sources: dict[object, Source] | None = None

    @property
    def bridge(self) -> Switch:
        """Its br-int."""
        self._look()
        return self._bridge

    @property
    def uplinks(self) -> dict[str, Switch]:
        """The bridge of each uplink."""
        self._look()
        return self._uplinks

    @property
    def devices(self) -> dict[str, int]:
        """Tunnel and patch ports to their ofports."""
        self._look()
        return self._devices

    @property
    def device_at(self) -> dict[int, str]:
        self._look()
        return self._device_at

    @property
    def view(self) -> HostView:
        self._look()
        return self._view

    def switches(self) -> Iterator[tuple[Switch, str]]:
        """Its br-int ("") and the bridge of each uplink (its name), for who needs to know that they are there only."""
        yield self._bridge, ""
        for name, bridge in self._uplinks.items():
            yield bridge, name

    def plug(self, vif: str) -> None:
        """Give a VIF a port: the lowest number that is free. What was tracked for whoever had it before is forgotten."""
        if vif not in self.ports:
            taken = set(self.ports.values())
            self.ports[vif] = next(n for n in range(FIRST_VIF, FIRST_DEVICE) if n not in taken)
            self._bridge.tracker.flush(self.ports[vif])

    def plug_all(self, vifs: Iterable[str]) -> None:
        """Give each of these VIFs a port, in order, on a host that has none yet."""
        self.ports = {vif: number for number, vif in enumerate(vifs, FIRST_VIF)}

    def unplug(self, vif: str) -> None:
        self.ports.pop(vif, None)

    @property
    def compiled(self) -> dict[Source, tuple[Flow, ...]]:
        """The flows of br-int by their sources."""
        if self._compiled is None:
            self._compiled = compile_flows(self.view)
        return self._compiled

    def program(self, state: PoolState, index: StateIndex) -> None:
        """Run the host's part of a pool."""
        self._due = state, index
        self._compiled = self._sources = None
        self.vif_at = {number: vif for vif, number in self.ports.items()}
        row = state.hosts.get(self.name)
        self._set_uplinks({uplink.name: uplink for uplink in row.uplinks} if row else {})
        self._bridge.replace_flows(lambda: flat(self.compiled))
        if self._bridge.learned:
            self._look()
            self._forget_learned()

    def _look(self) -> None:
        """Work out what was put off until somebody looks: ports, and what the flows are compiled from."""
        if self._due is None:
            return
        (state, index), self._due = self._due, None
        bare = HostView.of(state, self.name, self.ports, {}, index)
        rows = ovs_rows(bare, Bridge())
        integration = next(row for row in rows.bridges if row.name == Bridge().bridge)
        names = sorted(port.name for port in integration.ports)
        self._devices = bare.devices = {name: number for number, name in enumerate(names, FIRST_DEVICE)}
        self._device_at = {number: name for name, number in self._devices.items()}
        self._view = bare
        self._bridge.ports = self._ports(state)
        for name, bridge in self._uplinks.items():
            ports = {NIC: Port("+".join(self.bonds[name].uplink.members), mtu=self.bonds[name].uplink.mtu)}
            if patch_device(name) in self._devices:
                ports[PATCH] = Port(f"phy-{name}")
            if bridge.ports != ports:
                bridge.ports = ports
                bridge.changed()

    def _ports(self, state: PoolState) -> dict[int, Port]:
        ports = {}
        for vif, number in self.ports.items():
            row = state.vifs.get(vif)
            network = state.networks.get(row.network) if row else None
            ports[number] = Port(vif, mtu=network.mtu if network else None)
        for name, number in self._devices.items():
            ports[number] = Port(name, is_tunnel=name in ENCAPSULATION_OF_DEVICE)
        return ports

    def _set_uplinks(self, uplinks: Mapping[str, Uplink]) -> None:
        for name in self._uplinks.keys() - uplinks.keys():
            del self._uplinks[name], self.bonds[name]
        for name, uplink in uplinks.items():
            if name not in self._uplinks:
                self._uplinks[name] = Switch((FORWARD,), name=f"{self.name} br-{name}")
            if name not in self.bonds or self.bonds[name].uplink != uplink:
                self.bonds[name] = Bond(uplink)

    def _forget_learned(self) -> None:
        """What opened a port is forgotten once that port is active by its agent's word, as agents do."""
        moving = {
            number for vif, number in self.ports.items()
            if (row := self.view.vifs.get(vif)) is not None and self.view.role(row) is Role.INCOMING
        }  # fmt: skip
        learned = self.bridge.learned
        for key, flow in list(learned.items()):
            port = flow.match.get("reg2")
            if port is not None and port.value not in moving:
                del learned[key]

    def source_of(self, flow: Flow) -> Source | None:
        """What a flow comes from; None for one that the switch learned."""
        if self._sources is None:
            self._sources = {f.key: source for source, flows in self.compiled.items() for f in flows}
        return self._sources.get(flow.key)


def ports_by_host(state: PoolState) -> Mapping[str, list[str]]:
    """The VIFs that each host has a port for, by its bindings, in order of their ids."""
    found: dict[str, list[str]] = {host: [] for host in state.hosts}
    for vif, host in sorted(state.bindings):
        if host in found and vif in state.vifs:
            found[host].append(vif)
    return found
