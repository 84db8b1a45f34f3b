"""The flows of ours on the uplinks' bridges: while VIFs move and hosts look at VLANs, and those that copy to the agent what others say; and what those bridges are to unlearn.

One rule: a bridge is held to its flows as br-int is, so that what an agent left behind is taken away by the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from ovsctl.appctl import AppctlError
from ovsctl.openflow import FlowMod, Output, ReservedPort
from ovsctl.openflow.errors import OpenFlowError
from ovsctl.vswitch.snapshot import AnyRow, Tables
from vnet.agent.flow_reconciler import BridgeFlows, SwitchObserver
from vnet.agent.local_ports import read_ports
from vnet.agent.reconciler import Revisions
from vnet.agent.switch_access import SwitchAccess
from vnet.compile import (
    COOKIE_MARK,
    COOKIE_MARK_MASK,
    Category,
    FlowSource,
    HostView,
    SourceChange,
    UplinkPorts,
    WatchedAddress,
    claim_flows,
    lldp_flows,
    uplink_flows,
    uplink_hello_flows,
)
from vnet.compile.flows import Entries
from vnet.objects import BondMode, LldpMode, Uplink
from vnet.objects.devices import uplink_bridge, uplink_patch
from vnet.util.frames import rarp

log = logging.getLogger(__name__)

# Pauses between telling a bridge that a MAC has left: it learns it again from flows that it counted till then.
BALANCE_SLB = BondMode.BALANCE_SLB.value
PORT_S = 5.0  # within which a port that moves between bridges is there
ANNOUNCED_S = (0.0, 0.02, 0.1)
UNLEARN_AFTER_S = (0.0, 0.02, 0.1, 0.4, 0.6)
Gone = tuple[str, str, frozenset[int]]  # a VIF that has left this host: its uplink, MAC and tags
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


def uplink_ports(tables: Tables, uplink: Uplink) -> UplinkPorts | None:
    """The ofports of an uplink's bridge; None until ovs-vswitchd has the patch to br-int."""
    found = {port.name: port.ofport for port in read_ports(tables, uplink.bridge_name)}
    patch = found.pop(uplink_patch(uplink.name), None)
    if patch is None:
        return None
    names, by_mac = _trunks(tables, uplink.bridge_name)
    nics = names & found.keys() if uplink.bridge is not None else uplink.members
    return UplinkPorts(tuple(ofport for nic in sorted(nics) if (ofport := found.get(nic)) is not None), patch, by_mac)


@dataclass(frozen=True, slots=True)
class Nic:
    """A NIC of an uplink. mac: None while ovs-vswitchd has not said it. idle: the reason that it carries nothing, "" for none."""

    ofport: int
    mac: str | None
    idle: str = ""


def nics_of(tables: Tables, uplink: Uplink) -> dict[str, Nic]:
    """An uplink's NICs by name, as far as ovs-vswitchd has them. Guests' ports on a bridge of the host's own are none."""
    ports = {port.name: port for port in read_ports(tables, uplink.bridge_name) if port.vif is None}
    names, _ = _trunks(tables, uplink.bridge_name)
    nics = names - {uplink_patch(uplink.name), uplink.bridge_name} if uplink.bridge is not None else set(uplink.members)
    rows = {row["name"]: row for row in tables["Interface"].values() if row["name"] in nics}
    return {
        nic: Nic(ofport, rows[nic]["mac_in_use"], _idle(rows[nic], uplink))
        for nic in sorted(nics & ports.keys())
        if (ofport := ports[nic].ofport) is not None
    }


def _idle(row: AnyRow, uplink: Uplink) -> str:
    if row["link_state"] == "down":
        return "has no link"
    if uplink.mode is BondMode.LACP and row["lacp_current"] is False:
        return "has no partner that speaks LACP"
    return ""


def _trunks(tables: Tables, bridge: str) -> tuple[set[str], bool]:
    """The interfaces of a bridge that bring frames of any VLAN, with their tags on; whether a bond among them is balanced by MAC. On
    other ports a frame without a tag may be of any VLAN."""
    ports, interfaces = tables["Port"], tables["Interface"]
    found: set[str] = set()
    by_mac = False
    for row in tables["Bridge"].values():
        for port in (ports[p] for p in row["ports"] if row["name"] == bridge and p in ports):
            if port["tag"] is None and not port["trunks"] and port["vlan_mode"] in (None, "trunk"):
                found |= {interfaces[i]["name"] for i in port["interfaces"] if i in interfaces}
                by_mac |= port["bond_mode"] == BALANCE_SLB and port["lacp"] in (None, "off")
    return found, by_mac


@lru_cache(maxsize=16)  # it is asked for at each turn, and the answer is nearly always the last one
def _overheard(uplink: Uplink, nics: tuple[int, ...], watched: frozenset[WatchedAddress]) -> Entries:
    claims = claim_flows(uplink.name, nics, watched)
    return claims if uplink.lldp is LldpMode.OFF else (*claims, *lldp_flows(uplink.name, nics))


def _changes(uplink: str, held: Entries, wanted: Entries) -> list[SourceChange]:
    """The step from some flows to others. Most are the same objects, of caches: those are not compared."""
    before, now = {id(entry) for entry in held}, {id(entry) for entry in wanted}
    gone = tuple(entry for entry in held if id(entry) not in now)
    new = tuple(entry for entry in wanted if id(entry) not in before)
    return [SourceChange(FlowSource(Category.NETWORK, uplink), gone, new)] if gone != new else []


class UplinkFlows:
    """The flows of the bridge of each uplink of this host."""

    def __init__(
        self, view: HostView, access: SwitchAccess, observer: SwitchObserver, revisions: Revisions, spawn: Spawn
    ) -> None:
        self._view: Final = view
        self._access: Final = access
        self._observer: Final = observer
        self._revisions: Final = revisions
        self._spawn: Final = spawn
        self._bridges: Final[dict[str, tuple[BridgeFlows, asyncio.Task[None]]]] = {}  # by name
        self._ports: dict[Uplink, UplinkPorts | None] = {}
        self._gone: Final[set[Gone]] = set()
        self._nics: Final[dict[str, dict[str, Nic]]] = {}  # by uplink and name
        self._listening: Final[set[str]] = set()  # the uplinks whose hellos are heard
        self._watched: Final[dict[str, frozenset[WatchedAddress]]] = {}  # by uplink
        self._held: Final[dict[str, Entries]] = {}  # by bridge
        self._ports_came: Final = asyncio.Event()

    def ports_changed(self) -> None:
        """The switch's ports may be others by now."""
        self._ports.clear()

    def bridge_ports_changed(self) -> None:
        """The switch says that ports of a bridge came or went."""
        self._ports_came.set()

    async def announce(self, bridge: str, port: str, macs: Iterable[str]) -> None:
        """Announces MACs from a port of an uplink's bridge, as soon as it is there: the bridge, and switches, believe them to be elsewhere."""
        flows = self._bridges[bridge][0] if bridge in self._bridges else None
        if flows is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(PORT_S):
                while port not in flows.ports:
                    self._ports_came.clear()
                    await self._ports_came.wait()
        for pause_s in ANNOUNCED_S:
            await asyncio.sleep(pause_s)
            for mac in macs if port in flows.ports else ():
                await flows.send_packet(rarp(mac), flows.ports[port], (Output(ReservedPort.NORMAL),))

    def balanced_by_mac(self, uplink: str | None) -> bool:
        """Whether an uplink is a bond that is balanced by MAC, as far as the switch has it."""
        return any(ports is not None and ports.by_mac for row, ports in self._ports.items() if row.name == uplink)

    def want(self, tables: Tables) -> None:
        """Has each bridge hold the flows that the view asks for, with a connection to just the bridges that there are."""
        uplinks = self._view.host.uplinks if self._view.host else ()
        if self._ports.keys() != set(uplinks):
            self._ports = {uplink: uplink_ports(tables, uplink) for uplink in uplinks}
        self._follow({uplink.bridge_name for uplink in uplinks})
        gone_now = self._view.gone()
        for gone in gone_now - self._gone:
            self._spawn(self._unlearn(gone))
        self._gone.clear()
        self._gone.update(gone_now)
        for name in self._nics.keys() - {uplink.name for uplink in uplinks}:
            del self._nics[name]
        for uplink_, ports in self._ports.items():
            bridge = self._bridges[uplink_.bridge_name][0]
            self._nics[uplink_.name] = nics_of(tables, uplink_)
            flows: Entries = uplink_flows(self._view, uplink_.name, ports) if ports is not None else ()
            nics = tuple(self.nics(uplink_.name).values())
            if uplink_.name in self._listening:
                flows = (*flows, *uplink_hello_flows(uplink_.name, nics))
            flows += _overheard(uplink_, nics, self._watched.get(uplink_.name, frozenset()))
            held = self._held.get(uplink_.bridge_name, ())
            self._held[uplink_.bridge_name] = flows
            bridge.want(_changes(uplink_.name, held, flows))

    def listen(self, uplinks: Iterable[str]) -> None:
        """From the next turn on hellos that come by these uplinks are heard, and by no others."""
        self._listening.clear()
        self._listening.update(uplinks)

    def watch(self, addresses: Mapping[str, Iterable[WatchedAddress]]) -> None:
        """From the next turn on claims of these addresses are heard, by uplink."""
        self._watched.clear()
        self._watched.update({uplink: frozenset(watched) for uplink, watched in addresses.items()})

    def idle(self) -> tuple[tuple[str, str, str], ...]:
        """The uplinks' NICs that carry nothing: uplink, NIC and reason."""
        of = sorted(self._nics.items())
        return tuple((uplink, name, nic.idle) for uplink, nics in of for name, nic in nics.items() if nic.idle)

    def patch(self, uplink: str) -> int | None:
        """The ofport of the patch to br-int on an uplink's bridge; None where there is none."""
        return next((it.patch for row, it in self._ports.items() if row.name == uplink and it is not None), None)

    async def ask(self, command: str, uplink: str) -> str:
        """What the switch answers to a command of ovs-appctl about an uplink's bridge. Raises AppctlError."""
        return await self._access.control().call(command, self._bridge(uplink))

    def nics(self, uplink: str) -> dict[str, int]:
        """The ofports of an uplink's NICs by name."""
        return {name: nic.ofport for name, nic in self._nics.get(uplink, {}).items()}

    def mac(self, uplink: str, nic: str) -> str | None:
        """The MAC of a NIC; None where ovs-vswitchd has not said it."""
        found = self._nics.get(uplink, {}).get(nic)
        return found.mac if found is not None else None

    async def send(self, uplink: str, nic: str, frame: bytes) -> bool:
        """Sends a frame by a NIC as it is. Whether it did: one that the switch does not take is lost."""
        found, ofport = self._bridges.get(self._bridge(uplink)), self.nics(uplink).get(nic)
        if found is None or ofport is None:
            return False
        return await found[0].send_packet(frame, ReservedPort.CONTROLLER, (Output(ofport),))

    def _follow(self, names: set[str]) -> None:
        for name in self._bridges.keys() - names:
            bridge, task = self._bridges.pop(name)
            self._held.pop(name, None)
            task.cancel()
            self._revisions.forget(bridge.bridge)
            self._spawn(self._let_go(name))
        for name in sorted(names - self._bridges.keys()):
            bridge = BridgeFlows(name, self._access, self._observer, self._revisions)
            self._bridges[name] = bridge, self._spawn(bridge.run())

    async def _let_go(self, bridge: str) -> None:
        """Takes our flows off a bridge that is no uplink's any more: one of the host's own stays."""
        with suppress(OpenFlowError, OSError, TimeoutError):
            async with asyncio.timeout(PORT_S), self._access.client(bridge) as client:
                await client.send_flow_mods([FlowMod.delete_all(cookie=COOKIE_MARK, cookie_mask=COOKIE_MARK_MASK)])

    async def learned(self, uplink: str, mac: str) -> set[int]:
        """The VLANs on which an uplink's bridge has heard a MAC of late, 0 for untagged frames. Raises AppctlError."""
        table = await self._access.control().call("fdb/show", self._bridge(uplink))
        entries = (line.split() for line in table.splitlines()[1:])  # port, VLAN, MAC, age
        return {int(entry[1]) for entry in entries if entry[2] == mac}

    def _bridge(self, uplink: str) -> str:
        row = self._view.host.uplink(uplink) if self._view.host is not None else None
        return row.bridge_name if row is not None else uplink_bridge(uplink)

    async def _unlearn(self, gone: Gone) -> None:
        """Has an uplink's bridge forget where a MAC was: a bond that is balanced by MAC takes what comes back in as its own
        for a loop, and drops it till the entry is five minutes old (ovs-vswitchd.conf.db(5), balance-slb)."""
        uplink, mac, tags = gone
        for pause_s in UNLEARN_AFTER_S:
            await asyncio.sleep(pause_s)
            if gone not in self._gone:
                return
            try:
                switch, bridge = self._access.control(), self._bridge(uplink)
                for tag in sorted(tags & await self.learned(uplink, mac)):
                    # Only what was set by hand can be taken away by hand, so it is set first, where it is.
                    await switch.call("fdb/add", bridge, uplink_patch(uplink), str(tag), mac)
                    await switch.call("fdb/del", bridge, str(tag), mac)
            except AppctlError as error:
                log.info("uplink %s was not told that %s has left: %s", uplink, mac, error)
