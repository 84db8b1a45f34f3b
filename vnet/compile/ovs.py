"""The Open vSwitch rows a host should have: br-int with its tunnels and patches, a bridge per uplink, and empty ones for toolstacks.

VIF ports are not here: toolstacks add them, and we set their MTU only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from ovsctl import vswitch
from vnet.compile.flow_export import Sampling, exporting, sample_sets
from vnet.compile.view import HostView, VifRole
from vnet.objects import (
    BondHash,
    BondMode,
    FlowCollector,
    FrameMirror,
    LacpTime,
    Network,
    TargetType,
    Uplink,
    Way,
)
from vnet.objects.carriers import ENCAPSULATION_OF_DEVICE, GRE, Encapsulation
from vnet.objects.devices import (
    ENCRYPTION_BRIDGE,
    WIREGUARD_LINK,
    bond_device,
    patch_device,
    uplink_patch,
)
from vnet.objects.mirror import TRANSPORT

# ovs-ofctl without -O speaks OpenFlow 1.0; a person looking at the bridge should not have to know.
PROTOCOLS = frozenset(vswitch.OpenFlow)
SYSTEM = "system"  # the kernel's datapath, as is ""
# Of bridges that connect to their agent: how soon they try again, and when they take a silent one for dead.
LEAST_BACKOFF_MS, PROBE_MS = 1000, 5000


@dataclass(frozen=True, slots=True)
class Switch:
    """How this host's Open vSwitch is run: the integration bridge's name, the datapath ("" is the kernel's), and where its bridges connect to
    the agent ("" if the agent runs on the host, and connects to them)."""

    bridge: str = "br-int"
    datapath_type: str = ""
    target: str = ""

    @property
    def is_kernel(self) -> bool:
        return self.datapath_type in ("", SYSTEM)

    @property
    def controllers(self) -> tuple[vswitch.Controller, ...]:
        """The agent as a bridge's controller. While it is away the bridge does as before: it is of type service, which fail_mode is not for."""
        if not self.target:
            return ()
        controller = vswitch.Controller(
            self.target,
            type=vswitch.ControllerType.SERVICE,
            connection_mode=vswitch.ConnectionMode.OUT_OF_BAND,
            max_backoff=LEAST_BACKOFF_MS,
            inactivity_probe=PROBE_MS,
        )
        return (controller,)


def ovs_rows(view: HostView, switch: Switch) -> vswitch.VSwitch:
    """All rows of ours that this host's Open_vSwitch database should hold."""
    host, crowded = view.host, crowded_out(view, switch)
    used = frozenset([network.uplink for network in view.networks.values()])
    used |= {mirror.to.name for mirror in view.mirrors.values() if mirror.to.type is TargetType.VLAN}
    return _rows(
        switch,
        view.me,
        host.uplinks if host else (),
        used,
        tunnels_in_use(view),
        view.wireguard,
        tuple(sorted(view.plug_bridges)),
        tuple(collector for _, collector in sorted(view.flow_collectors.items())),
        tuple(it for _, it in sorted(view.mirrors.items()) if it.device is not None and it not in crowded),
        tuple(sorted(view.samplings().items())),
    )


def crowded_out(view: HostView, switch: Switch) -> list[FrameMirror]:
    """The mirrors that have no port here, since tunnels would get nothing: Open vSwitch's userspace datapath gives all GRE that comes in to one port,
    and GRE and ERSPAN have different ones (lib/tnl-ports.c)."""
    found = [mirror for _, mirror in sorted(view.mirrors.items()) if mirror.to.type is TargetType.ERSPAN]
    return found if found and not switch.is_kernel and GRE in tunnels_in_use(view) else []


@lru_cache(maxsize=64)  # each agent of a process asks at every turn, and the answer is nearly always the last one
def _rows(
    switch: Switch,
    me: str,
    uplinks: tuple[Uplink, ...],
    used: frozenset[str | None],
    in_use: frozenset[Encapsulation],
    wireguard: str,
    plugs: tuple[str, ...],
    collectors: tuple[FlowCollector, ...],
    mirrors: tuple[FrameMirror, ...],
    samplings: tuple[tuple[int, Sampling], ...],
) -> vswitch.VSwitch:
    """All rows of ours. used: the uplinks that networks here are on; in_use: the encapsulations that they need; plugs: the plug bridges;
    samplings: of VIFs, by ofport."""
    tunnels = tuple(_tunnel(it) for it in ENCAPSULATION_OF_DEVICE.values() if it in in_use)
    tunnels += tuple(_to_collector(mirror, switch) for mirror in mirrors)
    patches = tuple(_patch(patch_device(u.name), uplink_patch(u.name)) for u in uplinks if u.name in used)
    integration = msgspec.structs.replace(
        _secure(switch.bridge, switch, tunnels + patches, switch.controllers),
        **exporting(me, collectors),
        sample_sets=sample_sets(samplings),
    )
    bridges = (integration, *(_uplink(u, u.name in used, switch) for u in uplinks if u.bridge is None))
    joined = (
        vswitch.Attachment(u.bridge, (_far_patch(u),) if u.name in used else (), switch.controllers)
        for u in uplinks
        if u.bridge is not None and (u.name in used or switch.controllers)
    )
    if wireguard:
        bridges = (*bridges, _encryption(wireguard, switch))
    return vswitch.VSwitch((*bridges, *(_secure(name, switch) for name in plugs)), tuple(joined))


def tunnels_in_use(view: HostView) -> frozenset[Encapsulation]:
    """The encapsulations that this host's networks need, and the relay's while a VIF on an uplink moves from or to here."""
    networks = view.networks.values()
    one_of_each = {(net.type, net.encryption): net for net in networks}.values()
    found = {view.encapsulation(net) for net in one_of_each if net.carrier.way is Way.TUNNEL}
    found |= {view.encapsulation(net) for net in networks if net.uplink is not None and _relays(view, net)}
    if view.vtep(view.me) is not None and any(mirror.target is not None for mirror in view.mirrors.values()):
        found.add(TRANSPORT)
    return frozenset(found - {None})  # type: ignore[arg-type]  # what is left is none of these


def way_out(view: HostView, network: Network) -> str | None:
    """The port of br-int by which a network's frames leave this host; None where they never do."""
    if network.carrier.way is Way.TUNNEL and (encapsulation := view.encapsulation(network)) is not None:
        return encapsulation.device
    return patch_device(network.uplink) if network.uplink is not None else None


def _relays(view: HostView, network: Network) -> bool:
    if view.vtep(view.me) is None:
        return False
    for vif in view.unsettled(network.name):
        place = view.location(network.name, vif.id)
        if place.incoming is not None or place.superseded:
            return True
    return bool([vif for vif in view.local(network.name) if vif.incoming is not None])


def _tunnel(encapsulation: Encapsulation) -> vswitch.Port:
    options = {"remote_ip": "flow", "key": "flow", **dict(encapsulation.options)}
    interface = vswitch.Interface(encapsulation.device, type=encapsulation.interface, options=options)
    return vswitch.Port(encapsulation.device, (interface,))


def _to_collector(mirror: FrameMirror, switch: Switch) -> vswitch.Port:
    """The port by which copies go to a collector (ovs-vswitchd.conf.db(5), ERSPAN options). The kernel's datapath has types of its own for IPv6."""
    family = "ip6" if switch.is_kernel and ":" in mirror.to.name else ""
    options = {"remote_ip": mirror.to.name, "key": str(mirror.to.id)}
    if mirror.to.type is TargetType.ERSPAN:
        options["erspan_ver"] = str(mirror.to.version)
        options |= {"erspan_idx": "0"} if mirror.to.version == 1 else {"erspan_dir": "0", "erspan_hwid": "0"}
    name = mirror.device or ""
    return vswitch.Port(name, (vswitch.Interface(name, type=family + mirror.to.type.value, options=options),))


def _patch(name: str, peer: str) -> vswitch.Port:
    return vswitch.Port(name, (vswitch.Interface(name, type="patch", options={"peer": peer}),))


def _far_patch(uplink: Uplink) -> vswitch.Port:
    return _patch(uplink_patch(uplink.name), patch_device(uplink.name))


def _uplink(uplink: Uplink, used: bool, switch: Switch) -> vswitch.Bridge:
    """The bridge of an uplink: it switches by MAC like any other, so it needs no flows of ours and no controller."""
    ports = [_physical(uplink)]
    if used:
        ports.append(_far_patch(uplink))
    return vswitch.Bridge(
        uplink.bridge_name,
        ports=tuple(ports),
        datapath_type=switch.datapath_type,
        fail_mode=vswitch.FailMode.STANDALONE,
        controllers=switch.controllers,
        other_config={"disable-in-band": "true"},
    )


def _secure(
    name: str, switch: Switch, ports: tuple[vswitch.Port, ...] = (), controllers: tuple[vswitch.Controller, ...] = ()
) -> vswitch.Bridge:
    """A bridge that forwards nothing but by its flows."""
    return vswitch.Bridge(
        name,
        ports=ports,
        datapath_type=switch.datapath_type,
        fail_mode=vswitch.FailMode.SECURE,
        protocols=PROTOCOLS,
        controllers=controllers,
        other_config={"disable-in-band": "true"},
    )


def _encryption(mac: str, switch: Switch) -> vswitch.Bridge:
    """The bridge that encrypted tunnels end on. It has the host's addresses inside WireGuard, and the link there."""
    return vswitch.Bridge(
        ENCRYPTION_BRIDGE,
        ports=(vswitch.Port(WIREGUARD_LINK, (vswitch.Interface(WIREGUARD_LINK, options=None),)),),
        datapath_type=switch.datapath_type,
        fail_mode=vswitch.FailMode.STANDALONE,
        other_config={"disable-in-band": "true", "hwaddr": mac},
    )


def _physical(uplink: Uplink) -> vswitch.Port:
    # How the host's driver wants its NIC is the host's affair: its options stay.
    members = tuple(vswitch.Interface(nic, options=None, mtu_request=uplink.mtu) for nic in uplink.members)
    if uplink.mode is None:
        return vswitch.Port(uplink.members[0], members)
    name = bond_device(uplink.name)
    if uplink.mode is not BondMode.LACP:
        return vswitch.Port(name, members, bond_mode=vswitch.PortBondMode(uplink.mode.value))
    spread = (
        vswitch.PortBondMode.BALANCE_TCP if uplink.hash is BondHash.TCPUDP_PORTS else vswitch.PortBondMode.BALANCE_SLB
    )
    # Until the switch answers LACP the bond works as active-backup, so a host can boot from a switch not set up yet.
    config = {"lacp-fallback-ab": "true", "lacp-time": "fast" if uplink.lacp_time is LacpTime.FAST else "slow"}
    return vswitch.Port(name, members, bond_mode=spread, lacp=vswitch.Lacp.ACTIVE, other_config=config)


def vif_mtus(view: HostView, known: Mapping[str, int | None]) -> dict[str, int]:
    """The MTU in bytes that a local VIF's port should have, by VIF id, where the port is known to have another one."""
    vifs, networks = view.vifs, view.networks
    return {
        id: network.mtu
        for id, mtu in known.items()
        if (row := vifs.get(id)) is not None
        and (network := networks.get(row.network)) is not None
        and mtu != network.mtu
        and view.role(row) is not VifRole.ABSENT
    }
