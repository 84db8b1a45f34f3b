"""One host of the twin: its br-int with the compiled flows, and a learning bridge per uplink.

One rule: ofports follow from what is plugged and nothing else, so that two twins of one pool have the same flows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ovsctl.openflow import Flow, Output
from ovsctl.openflow.fields import Port as Reserved
from vnet.compile import HostView, Role, Source, compile_flows, flat, ovs_rows, patch_device
from vnet.compile import Switch as Bridge
from vnet.compile.view import TUNNEL_DEVICE, StateIndex
from vnet.model import NetworkType, PoolState, Uplink
from vnet.sim.switch import Port, Switch

FIRST_VIF = 1
FIRST_DEVICE = 0xF000  # tunnels and patches, out of the way of any number of VIFs
NIC, PATCH = 1, 2  # ofports on an uplink's bridge
FORWARD = Flow(priority=0, actions=(Output(Reserved.NORMAL),))
KIND_OF_DEVICE = {name: kind for kind, name in TUNNEL_DEVICE.items()}


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
    """A host as the twin runs it. `program` makes it what a pool's state says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bridge = Switch(name=f"{name} br-int")
        self.uplinks: dict[str, Switch] = {}
        self.bonds: dict[str, Bond] = {}
        self.ports: dict[str, int] = {}  # VIF id to ofport
        self.devices: dict[str, int] = {}  # tunnel and patch ports to ofport
        self.vif_at: dict[int, str] = {}
        self.device_at: dict[int, str] = {}
        self.view = HostView(name)
        self._compiled: dict[Source, tuple[Flow, ...]] | None = None
        self._sources: dict[object, Source] | None = None

    def plug(self, vif: str) -> None:
        """Give a VIF a port: the lowest number that is free. What was tracked for whoever had it before is forgotten."""
        if vif not in self.ports:
            taken = set(self.ports.values())
            self.ports[vif] = next(n for n in range(FIRST_VIF, FIRST_DEVICE) if n not in taken)
            self.bridge.tracker.flush(self.ports[vif])

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
        """Run the host's part of a pool. Its flows are compiled when the first frame comes by: most hosts see none."""
        bare = HostView.of(state, self.name, self.ports, {}, index)
        rows = ovs_rows(bare, Bridge())
        integration = next(row for row in rows.bridges if row.name == Bridge().bridge)
        names = sorted(port.name for port in integration.ports)
        self.devices = {name: number for number, name in enumerate(names, FIRST_DEVICE)}
        bare.devices = dict(self.devices)
        self.view = bare
        self._compiled = self._sources = None
        self.vif_at = {number: vif for vif, number in self.ports.items()}
        self.device_at = {number: name for name, number in self.devices.items()}
        self._set_ports(state)
        self._set_uplinks()
        self._forget_learned()
        self.bridge.replace_flows(lambda: flat(self.compiled))

    def _set_ports(self, state: PoolState) -> None:
        ports = {}
        for vif, number in self.ports.items():
            row = state.vifs.get(vif)
            network = state.networks.get(row.network) if row else None
            ports[number] = Port(vif, mtu=network.mtu if network else None)
        for name, number in self.devices.items():
            ports[number] = Port(name, is_tunnel=name in KIND_OF_DEVICE)
        self.bridge.ports = ports

    def _set_uplinks(self) -> None:
        uplinks = {uplink.name: uplink for uplink in (self.view.host.uplinks if self.view.host else ())}
        for name in self.uplinks.keys() - uplinks.keys():
            del self.uplinks[name], self.bonds[name]
        for name, uplink in uplinks.items():
            if name not in self.uplinks:
                self.uplinks[name] = Switch((FORWARD,), name=f"{self.name} br-{name}")
            if name not in self.bonds or self.bonds[name].uplink != uplink:
                self.bonds[name] = Bond(uplink)
            ports = {NIC: Port("+".join(uplink.members), mtu=uplink.mtu)}
            if patch_device(name) in self.devices:
                ports[PATCH] = Port(f"phy-{name}")
            if self.uplinks[name].ports != ports:
                self.uplinks[name].ports = ports
                self.uplinks[name].changed()

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

    def device_of(self, kind: NetworkType) -> int | None:
        """The ofport of a tunnel device."""
        return self.devices.get(TUNNEL_DEVICE[kind])

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
