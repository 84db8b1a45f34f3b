"""The contents of a lab that is up, for people and for programs that want to join in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vnet.lab.errors import WiresError
from vnet.lab.lab import Lab
from vnet.lab.names import NETNS_DIR
from vnet.lab.processes import marked
from vnet.lab.spec import Driver, Guest
from vnet.lab.switchd import SERVERS
from vnet.lab.uplinks import nics
from vnet.objects import Host


def status(lab: Lab) -> dict[str, Any]:
    """The lab as plain values: each host and VM with its namespace, interfaces, addresses, sockets and processes."""
    spec = lab.spec
    try:
        vifs = lab.wires.call("status")["vifs"]
    except WiresError:
        vifs = None
    return {
        "name": spec.name,
        "driver": spec.driver.value,
        "directory": str(spec.dir),
        "document": spec.document,
        "wires": "running" if vifs is not None else "not running: VMs have no network; take the lab down",
        "controller": None if not spec.daemons else str(lab.daemons.controller_socket),
        "pool": None if not spec.daemons else str(lab.daemons.pool_socket),
        "processes": {str(pid): command_line(pid) for pid in sorted(marked(spec.dir))},
        "hosts": {host.name: _host(lab, host) for host in spec.hosts},
        "vms": {guest.name: _guest(lab, guest, vifs or {}) for guest in spec.guests},
    }


def _host(lab: Lab, host: Host) -> dict[str, Any]:
    ovs = lab.ovs(host.name)
    return {
        "netns": lab.host_netns(host.name),
        "address": host.address,
        "uplinks": {uplink.name: list(uplink.links) for uplink in host.uplinks},
        "interfaces": ["lab-phy", *nics(host)],
        "rundir": str(ovs.dir),
        "sockets": {"ovs-db": str(ovs.dir / "db.sock"), **lab.host_sockets(host.name)},
        "processes": {server: ovs.pid(server) or None for server in SERVERS}
        | ({"agent": lab.daemons.pid(host.name) or None} if lab.spec.daemons else {}),
    }


def _guest(lab: Lab, guest: Guest, vifs: dict[str, Any]) -> dict[str, Any]:
    spec = lab.spec
    states = [vifs[vif.id] for vif in guest.vifs if vif.id in vifs]
    netns = lab.vm_netns(guest.name) if spec.driver is Driver.NETNS else None
    return {
        "netns": netns,
        "netns_path": None if netns is None else str(NETNS_DIR / netns),
        "host": next((state["host"] for state in states), None),
        "plugged": sorted({host for state in states for host in state["plugged"]}),
        "paused": any(state["paused"] for state in states),
        "interfaces": {
            f"eth{vif.index}": {
                "vif": vif.id,
                "network": vif.network,
                "mac": vif.mac,
                "addresses": list(spec.guest_addresses(vif)),
                "mtu": spec.network(vif.network).mtu,
                "port": spec.device(vif),
            }
            for vif in guest.vifs
        },
    }


def command_line(pid: int) -> str:
    """A process's arguments; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
