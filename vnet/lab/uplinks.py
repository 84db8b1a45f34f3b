"""The NICs of a lab's hosts, and the bridges that an uplink finds there (`bridge: xenbr0`).

One rule: a link of an uplink is a NIC, or a bridge of which the lab plays the owner, with one NIC.
"""

from __future__ import annotations

from vnet.objects import Host, Uplink
from vnet.objects.limits import DEVICE_NAME_MAX

BRIDGE_NIC = "-nic"


def nic_of(uplink: Uplink, link: str) -> str:
    """The device of the host that a link is."""
    return link if uplink.bridge is None else link[: DEVICE_NAME_MAX - len(BRIDGE_NIC)] + BRIDGE_NIC


def nics(host: Host) -> list[str]:
    """The devices of a host's uplinks."""
    return [nic_of(uplink, link) for uplink in host.uplinks for link in uplink.links]


def own_bridges(host: Host, datapath: str) -> list[str]:
    """The part of an ovs-vsctl command that makes the bridges which a host has before an agent runs on it."""
    found: list[str] = []
    for uplink in host.uplinks:
        if (bridge := uplink.bridge) is not None:
            nic = nic_of(uplink, bridge)
            found += ["--", "add-br", bridge, "--", "set", "bridge", bridge, f"datapath_type={datapath}"]
            found += ["--", "add-port", bridge, nic]
            found += ["--", "set", "interface", nic, "type=dummy"] if datapath == "dummy" else []
    return found


def links_of(host: Host) -> list[str]:
    """The links of a host that can be cut: to the other hosts, to the pool database, and its NICs."""
    return ["underlay", "database", *(link for uplink in host.uplinks for link in uplink.links)]
