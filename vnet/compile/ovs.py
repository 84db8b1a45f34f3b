"""The Open vSwitch rows a host should have: br-int with its tunnels and patches, and a bridge per uplink.

VIF ports are not here: toolstacks add them, and we set their MTU only.
"""

from __future__ import annotations

from dataclasses import dataclass

from ovsctl import vswitch
from vnet.compile.view import HostView, Role
from vnet.objects import BondHash, BondMode, LacpTime, Network, Uplink, Way
from vnet.objects.carriers import ENCAPSULATIONS, Encapsulation
from vnet.objects.devices import bond_device, patch_device, uplink_bridge, uplink_patch

# ovs-ofctl without -O speaks OpenFlow 1.0; a person looking at the bridge should not have to know.
PROTOCOLS = frozenset(vswitch.OpenFlow)


@dataclass(frozen=True, slots=True)
class Switch:
    """How this host's Open vSwitch is run: the integration bridge's name, and the datapath ("" is the kernel's)."""

    bridge: str = "br-int"
    datapath_type: str = ""


def ovs_rows(view: HostView, switch: Switch) -> vswitch.VSwitch:
    """All rows of ours that this host's Open_vSwitch database should hold."""
    uplinks = view.host.uplinks if view.host else ()
    used = {network.uplink for network in view.networks.values()}
    in_use = tunnels_in_use(view)
    tunnels = tuple(_tunnel(encapsulation) for encapsulation in ENCAPSULATIONS if encapsulation in in_use)
    patches = tuple(_patch(patch_device(u.name), uplink_patch(u.name)) for u in uplinks if u.name in used)
    integration = vswitch.Bridge(
        switch.bridge,
        ports=tunnels + patches,
        datapath_type=switch.datapath_type,
        fail_mode=vswitch.FailMode.SECURE,
        protocols=PROTOCOLS,
        other_config={"disable-in-band": "true"},
    )
    return vswitch.VSwitch((integration, *(_uplink(u, u.name in used, switch) for u in uplinks)))


def tunnels_in_use(view: HostView) -> set[Encapsulation]:
    """The encapsulations that this host's networks need, and the relay's while a VIF on an uplink moves from or to here."""
    return {
        network.carrier.encapsulation
        for network in view.networks.values()
        if network.carrier.encapsulation is not None and (network.carrier.way is Way.TUNNEL or _relays(view, network))
    }


def _relays(view: HostView, network: Network) -> bool:
    if view.vtep(view.me) is None:
        return False
    for vif in view.local(network.name):
        place = view.location(network.name, vif.id)
        if vif.incoming is not None or place.incoming is not None or place.superseded:
            return True
    return False


def _tunnel(encapsulation: Encapsulation) -> vswitch.Port:
    options = {"remote_ip": "flow", "key": "flow", **dict(encapsulation.options)}
    interface = vswitch.Interface(encapsulation.device, type=encapsulation.interface, options=options)
    return vswitch.Port(encapsulation.device, (interface,))


def _patch(name: str, peer: str) -> vswitch.Port:
    return vswitch.Port(name, (vswitch.Interface(name, type="patch", options={"peer": peer}),))


def _uplink(uplink: Uplink, used: bool, switch: Switch) -> vswitch.Bridge:
    """The bridge of an uplink: it switches by MAC like any other, so it needs no flows of ours and no controller."""
    ports = [_physical(uplink)]
    if used:
        ports.append(_patch(uplink_patch(uplink.name), patch_device(uplink.name)))
    return vswitch.Bridge(
        uplink_bridge(uplink.name),
        ports=tuple(ports),
        datapath_type=switch.datapath_type,
        fail_mode=vswitch.FailMode.STANDALONE,
        other_config={"disable-in-band": "true"},
    )


def _physical(uplink: Uplink) -> vswitch.Port:
    # How the host's driver wants its NIC is the host's affair: its options stay.
    members = tuple(vswitch.Interface(nic, options=None, mtu_request=uplink.mtu) for nic in uplink.members)
    if uplink.mode is None:
        return vswitch.Port(uplink.members[0], members)
    name = bond_device(uplink.name)
    if uplink.mode is not BondMode.LACP:
        return vswitch.Port(name, members, bond_mode=vswitch.BondMode(uplink.mode.value))
    spread = vswitch.BondMode.BALANCE_TCP if uplink.hash is BondHash.TCPUDP_PORTS else vswitch.BondMode.BALANCE_SLB
    # Until the switch answers LACP the bond works as active-backup, so a host can boot from a switch not set up yet.
    config = {"lacp-fallback-ab": "true", "lacp-time": "fast" if uplink.lacp_time is LacpTime.FAST else "slow"}
    return vswitch.Port(name, members, bond_mode=spread, lacp=vswitch.Lacp.ACTIVE, other_config=config)


def vif_mtus(view: HostView) -> dict[str, int]:
    """The MTU in bytes that each local VIF's port should have, by VIF id."""
    return {
        vif: view.networks[row.network].mtu
        for vif in view.ports
        if (row := view.vifs.get(vif)) is not None and view.role(row) is not Role.ABSENT
    }
