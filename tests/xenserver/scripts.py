"""What xapi's scripts do with a VIF's devices on a host (xenopsd/scripts/common.py and vif-real of xen-api), and ovs-xapi-sync there.

One rule: a device is put into the bridge of its network, and is taken away by its name alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from vnet.lab import Lab
from vnet.lab.names import NETNS_DIR
from vnet.objects import Vif


def external_ids(vif: str, vm: str, network: str, mac: str) -> dict[str, str]:
    """What the interface is marked with."""
    return {"xs-vm-uuid": vm, "xs-vif-uuid": vif, "xs-network-uuid": network, "attached-mac": mac}


def add_to_bridge(lab: Lab, vif: Vif, host: str, bridge: str, ids: Mapping[str, str]) -> None:
    """Adds the device of a VIF, which the lab's driver makes first as a hypervisor does."""
    _add_port(lab, host, bridge, lab.spec.device(vif), ids, lab.driver.plug(vif, host))


def remove_from_bridge(lab: Lab, vif: Vif, host: str) -> None:
    lab.ovs(host).vsctl("--", "--if-exists", "del-port", lab.spec.device(vif))
    lab.wires.call("unplug", vif=vif.id, host=host)


def add_tunnel_port(lab: Lab, host: str, bridge: str, peer: int, encapsulation: str, key: int) -> None:
    """A port of Xen Orchestra's controller, of another name than its interface, to the host of that number (addInterfaceAndPort in ovsdb-client.js of its plugin)."""
    lab.ovs(host).vsctl(
        "--", "--id=@i", "create", "interface", f"name={bridge}_iface{peer}", f"type={encapsulation}",
        f"options:remote_ip=10.99.0.{peer}", f"options:key={key}",
        "--", "--id=@p", "create", "port", f"name={bridge}_port{peer}", "interfaces=@i", "other_config:xo\\:sdn-controller\\:private-network-uuid=x",
        "--", "add", "bridge", bridge, "ports", "@p",
    )  # fmt: skip


def _add_port(
    lab: Lab, host: str, bridge: str, device: str, ids: Mapping[str, str], columns: Mapping[str, str]
) -> None:
    marks = [
        arg
        for key, value in ids.items()
        for arg in ("--", "set", "interface", device, f'external-ids:"{key}"="{value}"')
    ]
    driver = (
        ["--", "set", "interface", device, *(f"{key}={value}" for key, value in columns.items())] if columns else []
    )
    lab.ovs(host).vsctl("--", "--if-exists", "del-port", device, "--", "add-port", bridge, device, *marks, *driver)


# Devices by the names that Xen gives them: vifD.N, and tapD.N while QEMU emulates a NIC. In a lab of namespaces.


def end_of(host: str, device: str) -> str:
    """The name by which the lab's packet bridge knows a device: a guest that runs there uses it."""
    return f"{host} emulated" if device.startswith("tap") else host


def make_device(lab: Lab, vif: Vif, host: str, device: str) -> None:
    netns = lab.host_netns(host)
    assert netns is not None
    lab.wires.call("plug", vif=vif.id, host=end_of(host, device), netns=str(NETNS_DIR / netns), device=device)
    lab.run_on_host(host, "ip", "link", "set", device, "mtu", str(lab.spec.network(vif.network).mtu), "up")


def plug_device(lab: Lab, vif: Vif, host: str, device: str, bridge: str, ids: Mapping[str, str]) -> None:
    make_device(lab, vif, host, device)
    _add_port(lab, host, bridge, device, ids, {})


def move_device(lab: Lab, host: str, device: str, bridge: str, ids: Mapping[str, str]) -> None:
    """VIF.move: the device stays, and becomes a port of another bridge."""
    _add_port(lab, host, bridge, device, ids, {})


def unplug_device(lab: Lab, vif: Vif, host: str, device: str) -> None:
    """The device goes, and then udev has the port removed."""
    lab.wires.call("unplug", vif=vif.id, host=end_of(host, device))
    lab.ovs(host).vsctl("--", "--if-exists", "del-port", device)


def sync(lab: Lab, host: str) -> None:
    """A round of ovs-xapi-sync: of a vif with a tap the tap is active, of one without the vif; both have an iface-id."""
    listed = lab.ovs(host).vsctl("--format=json", "--columns=name,external_ids", "list", "interface")
    rows = {name: dict(ids[1]) for name, ids in json.loads(listed)["data"]}
    args: list[str] = []
    for name, ids in rows.items():
        if not ids.get("xs-vif-uuid") or name[:3] not in ("vif", "tap"):
            continue
        args += ["--", "set", "interface", name, f"external_ids:iface-id={ids['xs-vif-uuid']}"]
        if name.startswith("vif") or "vif" + name[3:] in rows:
            active = name.startswith("tap") or "tap" + name[3:] not in rows
            args += [f"external_ids:iface-status={'active' if active else 'inactive'}"]
    lab.ovs(host).vsctl(*args[1:])
