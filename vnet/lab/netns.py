"""Driver `netns`: hosts, VMs and the underlay as network namespaces, with Open vSwitch's userspace datapath.

    VM namespace         host namespace                              underlay namespace
    eth0 (tap) ~wires~ web1.0 (tap) - br-int ... br-trunk0 - eth1 ---- s0p0 - sw0    one bridge per uplink name
                                       |                                              (an Open vSwitch where the uplink is an LACP bond)
                                      VXLAN ... br-phy (VTEP) - lab-phy - u0 - underlay

The agent makes br-int and br-trunk0; the lab makes br-phy, as a host's operating system would. One rule: every device is made
inside its namespace, so that removing the namespaces removes all.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeVar

from vnet.lab.errors import LabUnsupported
from vnet.lab.names import (
    CONTROLLER_ADDRESS,
    NETNS_DIR,
    host_mac,
    host_netns,
    management_address,
    underlay_netns,
    vm_netns,
)
from vnet.lab.ports import enter
from vnet.lab.processes import in_netns, run
from vnet.lab.spec import Guest, Spec
from vnet.lab.switchd import Switchd, require
from vnet.lab.wireclient import WiresClient
from vnet.model import BondMode, Host, Uplink, Vif

UNDERLAY = "underlay"
MANAGEMENT_BRIDGE = "mgmt"
QUIET = {"ipv6/conf/default/disable_ipv6": "1", "ipv6/conf/all/disable_ipv6": "1"}
R = TypeVar("R")


def check() -> None:
    """Raises LabUnsupported, with what to do, where this driver cannot work."""
    if os.geteuid() != 0:
        raise LabUnsupported("network namespaces need root: run it with sudo, or take '--driver dummy'")
    for tool, package in (("ip", "iproute2"), ("ethtool", "ethtool"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            raise LabUnsupported(f"{tool} is not installed: apt-get install {package}")
    if not Path("/dev/net/tun").exists():
        raise LabUnsupported("the kernel has no tap devices: modprobe tun")
    require()


def within(netns: str, function: Callable[[], R]) -> R:
    """The result of `function`, called by a thread of its own inside the namespace."""
    results: list[R] = []
    errors: list[OSError] = []

    def body() -> None:
        try:
            enter(str(NETNS_DIR / netns))
            results.append(function())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def sysctl(netns: str, values: dict[str, str]) -> None:
    """Write settings below /proc/sys/net, of that namespace."""

    def write() -> None:
        for key, value in values.items():
            Path(f"/proc/sys/net/{key}").write_text(value)

    within(netns, write)


def ip(netns: str | None, commands: Iterable[str]) -> None:
    """Many `ip` commands in one process, the first failure ends it."""
    where = ["-n", netns] if netns else []
    run(["ip", *where, "-batch", "-"], stdin="\n".join([*commands, ""]))


def switch_ports(spec: Spec) -> dict[str, list[tuple[Host, Uplink]]]:
    """The physical switches by uplink name, each with the hosts' uplinks that are plugged into it."""
    found: dict[str, list[tuple[Host, Uplink]]] = {}
    for host in spec.hosts:
        for uplink in host.uplinks:
            found.setdefault(uplink.name, []).append((host, uplink))
    return found


def switch_bridge(spec: Spec, uplink: str) -> str:
    return f"sw{sorted(switch_ports(spec)).index(uplink)}"


def switch_port(spec: Spec, host: Host, nic: str) -> str:
    """The far end of a host's NIC, in the underlay's namespace."""
    nics = [member for uplink in host.uplinks for member in uplink.members]
    return f"h{spec.hosts.index(host)}n{nics.index(nic)}"


def is_lacp(plugged: Iterable[tuple[Host, Uplink]]) -> bool:
    return any(uplink.mode is BondMode.LACP for _, uplink in plugged)


class NetnsDriver:
    """The parts of a lab in network namespaces."""

    def __init__(self, spec: Spec, wires: WiresClient) -> None:
        self.spec = spec
        self.wires = wires

    # -- hosts and the underlay

    def namespaces(self) -> None:
        """Make the namespaces of underlay, hosts and VMs."""
        names = self.spec.namespaces()
        ip(None, [f"netns add {name}" for name in names])
        for name in names:
            sysctl(name, QUIET)

    def underlay(self) -> None:
        """Make the underlay: the VTEPs' bridge, the physical switches, and every host's NICs."""
        spec, here = self.spec, underlay_netns(self.spec.name)
        mtu = spec.underlay_mtu
        commands = [
            "link set lo up",
            f"link add {UNDERLAY} mtu {mtu} type bridge mcast_snooping 0",
            f"link set {UNDERLAY} up",
            f"link add {MANAGEMENT_BRIDGE} type bridge mcast_snooping 0",
            f"addr add {CONTROLLER_ADDRESS}/16 dev {MANAGEMENT_BRIDGE}",
            f"link set {MANAGEMENT_BRIDGE} up",
        ]
        by_switch = switch_ports(spec)
        for name, plugged in by_switch.items():
            if not is_lacp(plugged):
                bridge = switch_bridge(spec, name)
                commands += [f"link add {bridge} type bridge mcast_snooping 0", f"link set {bridge} up"]
        ip(here, [*commands, *(command for host in spec.hosts for command in self._host_cables(host))])
        self._no_offload(here)
        if any(is_lacp(plugged) for plugged in by_switch.values()):
            self._lacp_switch()

    def _host_cables(self, host: Host) -> list[str]:
        """A host's links: to the other VTEPs, to the management network, and its NICs to their switches."""
        spec, index = self.spec, self.spec.hosts.index(host)
        commands = [
            *self._cable(f"u{index}", host, "lab-phy", spec.underlay_mtu),
            f"link set u{index} master {UNDERLAY}",
        ]
        commands += self._cable(f"m{index}", host, "lab-mgmt", 1500)
        commands.append(f"link set m{index} master {MANAGEMENT_BRIDGE}")
        for uplink in host.uplinks:
            in_kernel = not is_lacp(switch_ports(spec)[uplink.name])
            for nic in uplink.members:
                port = switch_port(spec, host, nic)
                commands += self._cable(port, host, nic, uplink.mtu or spec.underlay_mtu)
                commands += [f"link set {port} master {switch_bridge(spec, uplink.name)}"] if in_kernel else []
        return commands

    def add_host(self, host: Host) -> None:
        """Namespace and links of a host that was not there when the lab was built. LACP bonds are set up only then."""
        if any(is_lacp(switch_ports(self.spec)[uplink.name]) for uplink in host.uplinks):
            raise LabUnsupported("a host that joins later cannot be on a switch that speaks LACP")
        self._new_netns(host_netns(self.spec.name, host.name))
        ip(underlay_netns(self.spec.name), self._host_cables(host))
        self._no_offload(underlay_netns(self.spec.name))

    def _new_netns(self, name: str) -> None:
        ip(None, [f"netns add {name}"])
        sysctl(name, QUIET)

    def _cable(self, port: str, host: Host, nic: str, mtu: int) -> list[str]:
        far = host_netns(self.spec.name, host.name)
        return [f"link add {port} mtu {mtu} type veth peer name {nic} mtu {mtu} netns {far}", f"link set {port} up"]

    def _no_offload(self, netns: str) -> None:
        """Frames through the userspace datapath must carry their checksums: it does not fill in what a veth leaves out."""
        devices = within(netns, lambda: os.listdir("/proc/sys/net/ipv4/conf"))
        script = "\n".join(
            f"ethtool -K {dev} tx off >/dev/null 2>&1" for dev in devices if dev not in ("all", "default", "lo")
        )
        run(in_netns(netns, ["sh", "-c", script + "\ntrue"]))

    @property
    def switch(self) -> Switchd:
        """The Open vSwitch that plays the physical switches of LACP bonds."""
        return Switchd(self.spec.dir / "sw", self.spec.dir, underlay_netns(self.spec.name))

    def _lacp_switch(self) -> None:
        self.switch.create()
        self.switch.start()
        for name, plugged in switch_ports(self.spec).items():
            if not is_lacp(plugged):
                continue
            bridge = switch_bridge(self.spec, name)
            args = ["add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev"]
            for host, uplink in plugged:
                ports = [switch_port(self.spec, host, nic) for nic in uplink.members]
                if uplink.mode is BondMode.LACP:
                    bond = f"b{self.spec.hosts.index(host)}"
                    options = ["bond_mode=balance-slb", "lacp=active", "other_config:lacp-time=fast"]
                    args += ["--", "add-bond", bridge, bond, *ports, "--", "set", "port", bond, *options]
                else:
                    args += [arg for port in ports for arg in ("--", "add-port", bridge, port)]
            self.switch.vsctl(*args)

    def ovs(self, host: str) -> Switchd:
        return Switchd(self.spec.host_dir(host), self.spec.dir, host_netns(self.spec.name, host))

    def host(self, name: str) -> None:
        """Start a host's Open vSwitch and give the host its VTEP. The underlay is there already."""
        spec, host, netns, ovs = self.spec, self.spec.host(name), host_netns(self.spec.name, name), self.ovs(name)
        nics = [nic for uplink in host.uplinks for nic in uplink.members]
        management = f"addr add {management_address(spec.hosts.index(host))}/16 dev lab-mgmt"
        ip(
            netns,
            [
                "link set lo up",
                "link set lab-phy up",
                management,
                "link set lab-mgmt up",
                *(f"link set {nic} up" for nic in nics),
            ],
        )
        ovs.create()
        ovs.start()
        mac = host_mac(spec.hosts.index(host))
        ovs.vsctl(
            *(
                "add-br",
                "br-phy",
                "--",
                "set",
                "bridge",
                "br-phy",
                "datapath_type=netdev",
                f'other_config:hwaddr="{mac}"',
            ),
            *(
                "--",
                "add-port",
                "br-phy",
                "lab-phy",
                "--",
                "set",
                "interface",
                "br-phy",
                f"mtu_request={spec.underlay_mtu}",
            ),
        )
        commands = [f"link set br-phy mtu {spec.underlay_mtu} up"]
        if host.address is not None:
            version = 6 if ":" in host.address else 4
            sysctl(netns, {"ipv6/conf/br-phy/disable_ipv6": "0"} if version == 6 else {})
            commands.append(
                f"addr add {host.address}/{spec.prefix(version)} dev br-phy" + (" nodad" if version == 6 else "")
            )
        ip(netns, commands)
        self._no_offload(netns)

    def prime(self, name: str) -> None:
        """Tell a host's userspace tunnels their peers' MACs: they drop the frame that makes them ask."""
        ovs = self.ovs(name)
        ovs.appctl("tnl/neigh/aging", "3600")
        own = self.spec.host(name).address
        if own is not None:
            # Open vSwitch flushes the routes it copied from the kernel whenever any device comes or goes, and for some
            # milliseconds its userspace tunnels lead nowhere. A route of ours stays.
            prefix = ip_network(f"{own}/{self.spec.prefix(ip_address(own).version)}", strict=False)
            ovs.appctl("ovs/route/add", str(prefix), "br-phy")
        for index, peer in enumerate(self.spec.hosts):
            if peer.address is not None and peer.name != name:
                ovs.appctl("tnl/neigh/set", "br-phy", peer.address, host_mac(index))

    def cut_underlay(self, host: str, cut: bool) -> None:
        """Let nothing pass between a host's VTEP and the underlay. The link stays up, as behind a broken switch."""
        self._block(f"u{self.spec.hosts.index(self.spec.host(host))}", cut)

    def cut_database(self, host: str, cut: bool) -> None:
        """Let nothing pass between a host and the management network."""
        self._block(f"m{self.spec.hosts.index(self.spec.host(host))}", cut)

    def _block(self, port: str, cut: bool) -> None:
        run(
            in_netns(
                underlay_netns(self.spec.name), ["bridge", "link", "set", "dev", port, "state", "0" if cut else "3"]
            )
        )

    def cut_nic(self, host: str, nic: str, cut: bool) -> None:
        """Take the link of one of a host's NICs away, at the switch's end."""
        port = switch_port(self.spec, self.spec.host(host), nic)
        ip(underlay_netns(self.spec.name), [f"link set {port} {'down' if cut else 'up'}"])

    # -- VMs

    def guest(self, guest: Guest) -> None:
        """Make a VM's interfaces, with its addresses. They have no link until the VM runs somewhere."""
        netns = vm_netns(self.spec.name, guest.name)
        commands = ["link set lo up"]
        for vif in guest.vifs:
            device = f"eth{vif.index}"
            self.wires.call("guest", vif=vif.id, netns=str(NETNS_DIR / netns), device=device)
            mtu = self.spec.network(vif.network).mtu
            commands.append(f"link set {device} address {vif.mac} mtu {mtu}")
        ip(netns, commands)
        quiet = {"accept_dad": "0", "accept_ra": "0", "router_solicitations": "0"}
        settings: dict[str, str] = {}
        commands = []
        for vif in guest.vifs:
            device, addresses = f"eth{vif.index}", self.spec.guest_addresses(vif)
            if any(":" in address for address in addresses):
                settings |= {f"ipv6/conf/{device}/{key}": value for key, value in quiet.items()}
                settings[f"ipv6/conf/{device}/disable_ipv6"] = "0"
            commands.append(f"link set {device} up")
            commands += [
                f"addr add {address} dev {device}" + (" nodad" if ":" in address else "") for address in addresses
            ]
        sysctl(netns, settings)
        ip(netns, commands)

    def add_guest(self, guest: Guest) -> None:
        """A VM that was not there when the lab was built."""
        self._new_netns(vm_netns(self.spec.name, guest.name))
        self.guest(guest)

    def remove_guest(self, guest: Guest) -> None:
        """Take a VM away, with its namespace."""
        for vif in guest.vifs:
            self.wires.call("forget", vif=vif.id)
        run(["ip", "netns", "del", vm_netns(self.spec.name, guest.name)])

    def plug(self, vif: Vif, host: str) -> dict[str, str]:
        """Make the VIF's port device on a host; the Interface columns that it needs."""
        device, netns = self.spec.device(vif), host_netns(self.spec.name, host)
        self.wires.call("plug", vif=vif.id, host=host, netns=str(NETNS_DIR / netns), device=device)
        mtu = self.spec.network(vif.network).mtu
        ip(netns, [f"link set {device} mtu {mtu} up"])
        return {}

    def plugged(self, vif: Vif, host: str) -> None:
        """Called when the port is in br-int: nothing is left to do."""

    # -- outside

    def station(self, name: str, uplink: str) -> None:
        """Open an outside station on the physical switch of an uplink."""
        netns = underlay_netns(self.spec.name)
        bridge = switch_bridge(self.spec, uplink)
        device = name.replace("station", "st")
        self.wires.call("station", name=name, netns=str(NETNS_DIR / netns), device=device)
        mtu = max([self.spec.underlay_mtu, *(up.mtu or 0 for _, up in switch_ports(self.spec)[uplink])])
        ip(netns, [f"link set {device} mtu {mtu} up"])
        if is_lacp(switch_ports(self.spec)[uplink]):
            self.switch.vsctl("--may-exist", "add-port", bridge, device)
        else:
            ip(netns, [f"link set {device} master {bridge}"])

    def down(self) -> None:
        """Remove the namespaces, and with them all devices. Whatever is gone already is no error."""
        for name in self.spec.namespaces():
            if (NETNS_DIR / name).exists():
                run(["ip", "netns", "del", name])
