"""One host of the twin: its br-int with the compiled flows, and a learning bridge per uplink.

One rule: ofports follow from the plugged VIFs alone, so that two twins of one pool have the same flows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ovsctl.datapath import EmulatedBridge, EmulatedPort
from ovsctl.openflow import Flow, Output
from ovsctl.openflow.fields import ReservedPort
from ovsctl.openflow.messages import FragmentHandling
from vnet.compile import (
    GROUPS,
    FlowSource,
    HostInputs,
    HostView,
    StateIndex,
    VifRole,
    compile_flows,
    flat,
    meters_of,
    ovs_rows,
)
from vnet.compile import Switch as BridgeNames
from vnet.compile.flows import Entries
from vnet.objects import PoolState, Uplink
from vnet.objects.carriers import ENCAPSULATION_OF_DEVICE
from vnet.objects.devices import patch_device

FIRST_VIF = 1
FIRST_DEVICE = 0xF000  # tunnels and patches, out of the way of any number of VIFs
NIC, PATCH = 1, 2  # ofports on an uplink's bridge
NORMAL_FLOW = Flow(priority=0, actions=(Output(ReservedPort.NORMAL),))


class UplinkBond:
    """An uplink's NICs as one port. It works while any of its NICs works."""

    def __init__(self, uplink: Uplink) -> None:
        self.uplink = uplink
        self.cut: set[str] = set()

    @property
    def alive(self) -> list[str]:
        return [link for link in self.uplink.links if link not in self.cut]

    def member(self, frame: bytes) -> str | None:
        """The NIC that carries a frame, by its source MAC as balance-slb chooses; None if all are cut."""
        alive = self.alive
        return alive[int.from_bytes(frame[6:12], "big") % len(alive)] if alive else None


class SimHost:
    """A host of the twin. `program` only notes the state: the flows are compiled at the first look, for most hosts never."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bonds: dict[str, UplinkBond] = {}
        self.ports: dict[str, int] = {}  # VIF id to ofport
        self.vif_at: dict[int, str] = {}
        self._bridge = EmulatedBridge(groups=GROUPS, name=f"{name} br-int", fragments=FragmentHandling.NX_MATCH)
        self._uplinks: dict[str, EmulatedBridge] = {}
        self._devices: dict[str, int] = {}
        self._device_at: dict[int, str] = {}
        self._view = HostView(HostInputs(name))
        self._due: tuple[PoolState, StateIndex] | None = None
        self._compiled: dict[FlowSource, Entries] | None = None
        self._sources: dict[object, FlowSource] | None = None

    @property
    def bridge(self) -> EmulatedBridge:
        """Its br-int."""
        self._look()
        return self._bridge

    @property
    def uplinks(self) -> dict[str, EmulatedBridge]:
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

    def switches(self) -> Iterator[tuple[EmulatedBridge, str]]:
        """Its br-int (as "") and the bridge of each uplink (by name), without compiling anything."""
        yield self._bridge, ""
        for name, bridge in self._uplinks.items():
            yield bridge, name

    def plug(self, vif: str) -> None:
        """Give a VIF a port with the lowest free number. The connection tracker forgets the port's former VIF."""
        if vif not in self.ports:
            taken = set(self.ports.values())
            self.ports[vif] = next(n for n in range(FIRST_VIF, FIRST_DEVICE) if n not in taken)
            self._bridge.tracker.flush(self.ports[vif])

    def plug_all(self, vifs: Iterable[str]) -> None:
        """Give each of these VIFs a port, in order. The host must have none yet."""
        self.ports = {vif: number for number, vif in enumerate(vifs, FIRST_VIF)}

    def unplug(self, vif: str) -> None:
        self.ports.pop(vif, None)

    @property
    def compiled(self) -> dict[FlowSource, Entries]:
        """The flows of br-int by their sources."""
        if self._compiled is None:
            self._compiled = compile_flows(self.view)
        return self._compiled

    def program(self, state: PoolState, index: StateIndex) -> None:
        """Take over a pool's state."""
        self._due = state, index
        self._compiled = self._sources = None
        self.vif_at = {number: vif for vif, number in self.ports.items()}
        row = state.hosts.get(self.name)
        self._set_uplinks({uplink.name: uplink for uplink in row.uplinks} if row else {})
        self._bridge.replace_flows(self._flows)
        if self._bridge.learned:
            self._look()
            self._forget_learned()

    def _flows(self) -> list[Flow]:
        self._bridge.replace_meters(meters_of(self.compiled))
        return flat(self.compiled)

    def _look(self) -> None:
        """Compute what `program` put off: the ports, and the view that the flows are compiled from."""
        if self._due is None:
            return
        (state, index), self._due = self._due, None
        inputs = HostInputs.of(state, self.name, self.ports, {}, index)
        self._view = HostView(inputs)
        rows = ovs_rows(self._view, BridgeNames())
        integration = next(row for row in rows.bridges if row.name == BridgeNames().bridge)
        names = sorted(port.name for port in integration.ports)
        self._devices = {name: number for number, name in enumerate(names, FIRST_DEVICE)}
        for name, number in self._devices.items():
            inputs.set_device(name, number)
        self._device_at = {number: name for name, number in self._devices.items()}
        self._bridge.ports = self._ports(state)
        for name, bridge in self._uplinks.items():
            ports = {NIC: EmulatedPort("+".join(self.bonds[name].uplink.links), mtu=self.bonds[name].uplink.mtu)}
            if patch_device(name) in self._devices:
                ports[PATCH] = EmulatedPort(f"phy-{name}")
            if bridge.ports != ports:
                bridge.ports = ports
                bridge.changed()

    def _ports(self, state: PoolState) -> dict[int, EmulatedPort]:
        ports = {}
        for vif, number in self.ports.items():
            row = state.vifs.get(vif)
            network = state.networks.get(row.network) if row else None
            ports[number] = EmulatedPort(vif, mtu=network.mtu if network else None)
        for name, number in self._devices.items():
            ports[number] = EmulatedPort(name, is_tunnel=name in ENCAPSULATION_OF_DEVICE)
        return ports

    def _set_uplinks(self, uplinks: Mapping[str, Uplink]) -> None:
        for name in self._uplinks.keys() - uplinks.keys():
            del self._uplinks[name], self.bonds[name]
        for name, uplink in uplinks.items():
            if name not in self._uplinks:
                self._uplinks[name] = EmulatedBridge((NORMAL_FLOW,), name=f"{self.name} {uplink.bridge_name}")
            if name not in self.bonds or self.bonds[name].uplink != uplink:
                self.bonds[name] = UplinkBond(uplink)

    def _forget_learned(self) -> None:
        """Remove the learned flow that opened a port when its agent reports the port as active."""
        moving = {
            number for vif, number in self.ports.items()
            if (row := self.view.vifs.get(vif)) is not None and self.view.role(row) is VifRole.INCOMING
        }  # fmt: skip
        learned = self.bridge.learned
        for key, flow in list(learned.items()):
            port = flow.match.get("reg2")
            if port is not None and port.value not in moving:
                del learned[key]

    def source_of(self, flow: Flow) -> FlowSource | None:
        """The source that a flow was compiled from; None for a learned flow."""
        if self._sources is None:
            self._sources = {f.key: source for source, found in self.compiled.items() for f in flat({source: found})}
        return self._sources.get(flow.key)
