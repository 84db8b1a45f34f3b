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
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path

from vnet.lab import links
from vnet.lab.errors import CommandFailed, LabUnsupported
from vnet.lab.impairments import Impairment
from vnet.lab.links import Links, write_settings
from vnet.lab.names import (
    CONTROLLER_ADDRESS,
    NETNS_DIR,
    host_mac,
    host_netns,
    management_address,
    underlay_netns,
    vm_netns,
    wireguard_netns,
)
from vnet.lab.packet_bridge_client import WiresClient
from vnet.lab.processes import run, wait_until
from vnet.lab.spec import Guest, Spec
from vnet.lab.switchd import Switchd, require
from vnet.lab.uplinks import links_of, nic_of, nics, own_bridges
from vnet.objects import BondMode, Host, Uplink, Vif

UNDERLAY = "underlay"
VPORTS = {"geneve", "gre", "vxlan"}  # network types whose tunnels are modules of the kernel's datapath
MANAGEMENT_BRIDGE = "mgmt"
QUIET = {"ipv6/conf/default/disable_ipv6": "1", "ipv6/conf/all/disable_ipv6": "1"}
GUEST_IPV6 = {"accept_dad": "0", "accept_ra": "0", "router_solicitations": "0", "disable_ipv6": "0"}


def check() -> None:
    """Raises LabUnsupported, with the remedy, where this driver cannot work."""
    if os.geteuid() != 0:
        raise LabUnsupported("network namespaces need root: run it with sudo, or take '--driver dummy'")
    if shutil.which("nsenter") is None:
        raise LabUnsupported("nsenter is not installed: apt-get install util-linux")
    if not Path("/dev/net/tun").exists():
        raise LabUnsupported("the kernel has no tap devices: modprobe tun")
    require()


def check_kernel(spec: Spec) -> None:
    """Raises LabUnsupported where the kernel lacks a part of its datapath that the lab's networks need."""
    tunnels = {network.type.value for network in spec.networks} & VPORTS
    for module in ("openvswitch", *(f"vport-{tunnel}" for tunnel in sorted(tunnels))):
        try:
            run(["modprobe", "--quiet", module])
        except CommandFailed:
            raise LabUnsupported(f"this kernel has no {module}") from None


def switch_ports(spec: Spec) -> dict[str, list[tuple[Host, Uplink]]]:
    """The physical switches by uplink name, each with the hosts' uplinks that are plugged into it."""
    found: dict[str, list[tuple[Host, Uplink]]] = {}
    for host in spec.hosts:
        for uplink in host.uplinks:
            found.setdefault(uplink.name, []).append((host, uplink))
    return found


def switch_bridge(spec: Spec, uplink: str) -> str:
    return f"sw{sorted(switch_ports(spec)).index(uplink)}"


def switch_port(spec: Spec, host: Host, link: str) -> str:
    """The far end of one of an uplink's links, in the underlay's namespace."""
    found = [name for uplink in host.uplinks for name in uplink.links]
    return f"h{spec.hosts.index(host)}n{found.index(link)}"


def is_lacp(plugged: Iterable[tuple[Host, Uplink]]) -> bool:
    return any(uplink.mode is BondMode.LACP for _, uplink in plugged)


def _routed(ovs: Switchd, prefix: str) -> bool:
    """Gives Open vSwitch the route of its tunnels. It refuses until the kernel has reported the VTEP's address to it."""
    try:
        ovs.appctl("ovs/route/add", prefix, "br-phy")
    except CommandFailed:
        return False
    return True


def _lay_cable(underlay: Links, port: str, bridge: str, mtu: int, near: str, far: str) -> None:
    """Put the packet bridge's two taps between a port and its bridge."""
    between = f"{port}-b"
    underlay.bridge(between, mtu)
    for device, switch in ((near, between), (far, bridge)):
        underlay.set(device, mtu=mtu, state="up")
        underlay.join(device, switch)
    underlay.join(port, between)


def _take_cable(underlay: Links, port: str, bridge: str) -> None:
    underlay.join(port, bridge)
    underlay.delete(f"{port}-b")


class NetnsDriver:
    """The parts of a lab in network namespaces."""

    COPIES_LAG = False

    def __init__(self, spec: Spec, wires: WiresClient) -> None:
        self.spec = spec
        self.wires = wires

    # -- hosts and the underlay

    def namespaces(self) -> None:
        """Make the namespaces of underlay, hosts and VMs."""
        made_later = {wireguard_netns(self.spec.name, host.name) for host in self.spec.hosts}
        for name in self.spec.namespaces():
            if name not in made_later:  # by the host's WireGuard service
                links.create(name, QUIET)

    def underlay(self) -> None:
        """Make the underlay: the VTEPs' bridge, the physical switches, and every host's NICs."""
        spec, here = self.spec, underlay_netns(self.spec.name)
        by_switch = switch_ports(spec)

        def work(underlay: Links) -> None:
            underlay.set("lo", state="up")
            underlay.bridge(UNDERLAY, spec.underlay_mtu)
            underlay.bridge(MANAGEMENT_BRIDGE)
            underlay.address(MANAGEMENT_BRIDGE, f"{CONTROLLER_ADDRESS}/16")
            for name, plugged in by_switch.items():
                if not is_lacp(plugged):
                    underlay.bridge(switch_bridge(spec, name))
            for host in spec.hosts:
                self._cables(underlay, host)

        links.change(here, work)
        links.no_checksum_offload(here)
        if any(is_lacp(plugged) for plugged in by_switch.values()):
            self._lacp_switch()

    def _cables(self, underlay: Links, host: Host) -> None:
        """A host's links: to the other VTEPs, to the management network, and its NICs to their switches."""
        spec, index, far = self.spec, self.spec.hosts.index(host), host_netns(self.spec.name, host.name)
        underlay.cable(f"u{index}", far, "lab-phy", spec.underlay_mtu, UNDERLAY)
        underlay.cable(f"m{index}", far, "lab-mgmt", 1500, MANAGEMENT_BRIDGE)
        for uplink in host.uplinks:
            # An LACP bond's switch is an Open vSwitch, which takes its ports itself.
            bridge = None if is_lacp(switch_ports(spec)[uplink.name]) else switch_bridge(spec, uplink.name)
            for link in uplink.links:
                port, nic = switch_port(spec, host, link), nic_of(uplink, link)
                underlay.cable(port, far, nic, uplink.mtu or spec.underlay_mtu, bridge)

    def add_host(self, host: Host) -> None:
        """Namespace and links of a host that was not there when the lab was built. LACP bonds are set up only then."""
        if any(is_lacp(switch_ports(self.spec)[uplink.name]) for uplink in host.uplinks):
            raise LabUnsupported("a host that joins later cannot be on a switch that speaks LACP")
        links.create(host_netns(self.spec.name, host.name), QUIET)
        here = underlay_netns(self.spec.name)
        links.change(here, lambda underlay: self._cables(underlay, host))
        links.no_checksum_offload(here)

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
                ports = [switch_port(self.spec, host, link) for link in uplink.links]
                if uplink.mode is BondMode.LACP:
                    bond = f"b{self.spec.hosts.index(host)}"
                    options = ["bond_mode=balance-slb", "lacp=active", "other_config:lacp-time=fast"]
                    args += ["--", "add-bond", bridge, bond, *ports, "--", "set", "port", bond, *options]
                else:
                    args += [arg for port in ports for arg in ("--", "add-port", bridge, port)]
            self.switch.vsctl(*args)

    def ovs(self, host: str) -> Switchd:
        netns = host_netns(self.spec.name, host)
        return Switchd(self.spec.host_dir(host), self.spec.dir, netns, self.spec.datapath_type)

    def host(self, name: str) -> None:
        """Start a host's Open vSwitch and give the host its VTEP. The underlay is there already."""
        spec, host, netns, ovs = self.spec, self.spec.host(name), host_netns(self.spec.name, name), self.ovs(name)

        def cables(own: Links) -> None:
            own.address("lab-mgmt", f"{management_address(spec.hosts.index(host))}/16")
            for device in ("lo", "lab-phy", "lab-mgmt", *nics(host)):
                own.set(device, state="up")

        links.change(netns, cables)
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
                f"datapath_type={spec.datapath_type}",
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
            *own_bridges(host, spec.datapath_type),
        )
        if spec.groups and "CT zone: No" in ovs.appctl("dpif/show-dp-features", "br-phy"):
            raise LabUnsupported("this kernel's connection tracker has no zones (CONFIG_NF_CONNTRACK_ZONES)")
        links.change(netns, lambda own: self._vtep(own, host))
        # Frames through the userspace datapath must carry their checksums: it does not fill in those that a veth leaves out.
        links.no_checksum_offload(netns)

    def _vtep(self, own: Links, host: Host) -> None:
        own.set("br-phy", mtu=self.spec.underlay_mtu, state="up")
        if host.address is not None:
            version = 6 if ":" in host.address else 4
            if version == 6:
                write_settings({"ipv6/conf/br-phy/disable_ipv6": "0"})
            own.address("br-phy", f"{host.address}/{self.spec.prefix(version)}")

    def prime(self, name: str) -> None:
        """Tell a host's userspace tunnels their route, and their peers' MACs: they drop the frame that makes them ask."""
        if self.spec.datapath_type == "system":
            return  # a kernel's tunnels keep the frame, and ask by themselves
        ovs = self.ovs(name)
        own = self.spec.host(name).address
        if own is not None:
            prefix = ip_network(f"{own}/{self.spec.prefix(ip_address(own).version)}", strict=False)
            wait_until(lambda: _routed(ovs, str(prefix)), f"the address of {name}'s VTEP in its ovs-vswitchd")
        ovs.appctl("tnl/neigh/aging", "3600")
        for index, peer in enumerate(self.spec.hosts):
            if peer.address is not None and peer.name != name:
                ovs.appctl("tnl/neigh/set", "br-phy", peer.address, host_mac(index))

    def cut_underlay(self, host: str, cut: bool) -> None:
        """Let nothing pass between a host's VTEP and the underlay. The link stays up, as behind a broken switch."""
        self._pass(f"u{self.spec.hosts.index(self.spec.host(host))}", not cut)

    def cut_database(self, host: str, cut: bool) -> None:
        """Let nothing pass between a host and the management network."""
        self._pass(f"m{self.spec.hosts.index(self.spec.host(host))}", not cut)

    def _pass(self, port: str, passing: bool) -> None:
        links.change(underlay_netns(self.spec.name), lambda underlay: underlay.pass_frames(port, passing))

    def cut_nic(self, host: str, nic: str, cut: bool) -> None:
        """Take the link of one of a host's NICs away, at the switch's end."""
        port = switch_port(self.spec, self.spec.host(host), nic)
        state = "down" if cut else "up"
        links.change(underlay_netns(self.spec.name), lambda underlay: underlay.set(port, state=state))

    def impair(self, host: str, link: str, impairment: Impairment | None) -> None:
        """Impair one of a host's links, or make it a cable again. Meanwhile the packet bridge carries its frames:

        u0 - u0-b ~ u0-n ~packet bridge~ u0-f - underlay    in place of    u0 - underlay

        Raises LabUnsupported for an uplink that speaks LACP, which a bridge of the kernel does not pass.
        """
        found, here = self.spec.host(host), underlay_netns(self.spec.name)
        port = self._port(found, link)
        laid = port in self.wires.call("status")["cables"]
        if impairment is not None and not laid:
            near, far = f"{port}-n", f"{port}-f"
            bridge, mtu = self._link(found, link)
            self.wires.call("cable", link=port, netns=str(NETNS_DIR / here), near=near, far=far)
            links.change(here, lambda underlay: _lay_cable(underlay, port, bridge, mtu, near, far))
        faults = None if impairment is None else impairment.as_request()
        self.wires.call("impair", link=port, impairment=faults)
        if impairment is None and laid:
            bridge, _ = self._link(found, link)
            links.change(here, lambda underlay: _take_cable(underlay, port, bridge))
            self.wires.call("uncable", link=port)

    def link_ids(self, host: Host) -> list[tuple[str, str]]:
        """A host's links that can be impaired, with their names in the packet bridge."""
        return [(link, self._port(host, link)) for link in links_of(host)]

    def _port(self, host: Host, link: str) -> str:
        """The far end of a host's link."""
        own = {UNDERLAY: "u", "database": "m"}.get(link)
        return f"{own}{self.spec.hosts.index(host)}" if own else switch_port(self.spec, host, link)

    def _link(self, host: Host, link: str) -> tuple[str, int]:
        """The bridge that a host's link is on, and its MTU in bytes."""
        if link == UNDERLAY:
            return UNDERLAY, self.spec.underlay_mtu
        if link == "database":
            return MANAGEMENT_BRIDGE, 1500
        uplink = next(uplink for uplink in host.uplinks if link in uplink.links)
        if is_lacp(switch_ports(self.spec)[uplink.name]):
            raise LabUnsupported(f"{host.name}:{link} is on a switch that speaks LACP: such a link can be cut only")
        return switch_bridge(self.spec, uplink.name), uplink.mtu or self.spec.underlay_mtu

    # -- VMs

    def guest(self, guest: Guest) -> None:
        """Make a VM's interfaces, with its addresses. They have no link until the VM runs somewhere."""
        netns = vm_netns(self.spec.name, guest.name)
        for vif in guest.vifs:
            self.wires.call("guest", vif=vif.id, netns=str(NETNS_DIR / netns), device=f"eth{vif.index}")

        def interfaces(own: Links) -> None:
            own.set("lo", state="up")
            for vif in guest.vifs:
                device, addresses = f"eth{vif.index}", self.spec.guest_addresses(vif)
                own.set(device, address=vif.mac, mtu=self.spec.network(vif.network).mtu)
                if any(":" in address for address in addresses):
                    write_settings({f"ipv6/conf/{device}/{key}": value for key, value in GUEST_IPV6.items()})
                own.set(device, state="up")
                for address in addresses:
                    own.address(device, address)

        links.change(netns, interfaces)

    def add_guest(self, guest: Guest) -> None:
        """A VM that was not there when the lab was built."""
        links.create(vm_netns(self.spec.name, guest.name), QUIET)
        self.guest(guest)

    def remove_guest(self, guest: Guest) -> None:
        """Take a VM away, with its namespace."""
        for vif in guest.vifs:
            self.wires.call("forget", vif=vif.id)
        links.remove(vm_netns(self.spec.name, guest.name))

    def plug(self, vif: Vif, host: str) -> dict[str, str]:
        """Make the VIF's port device on a host; the Interface columns that it needs."""
        device, netns = self.spec.device(vif), host_netns(self.spec.name, host)
        self.wires.call("plug", vif=vif.id, host=host, netns=str(NETNS_DIR / netns), device=device)
        mtu = self.spec.network(vif.network).mtu
        links.change(netns, lambda own: own.set(device, mtu=mtu, state="up"))
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
        in_kernel = not is_lacp(switch_ports(self.spec)[uplink])

        def plug(underlay: Links) -> None:
            underlay.set(device, mtu=mtu, state="up")
            if in_kernel:
                underlay.join(device, bridge)

        links.change(netns, plug)
        if not in_kernel:
            self.switch.vsctl("--may-exist", "add-port", bridge, device)

    def forwarding(self) -> list[str]:
        """The control sockets of the switches that forward frames."""
        found = [self.ovs(host.name) for host in self.spec.hosts]
        if any(is_lacp(plugged) for plugged in switch_ports(self.spec).values()):
            found.append(self.switch)
        return [str(ovs.control) for ovs in found if ovs.forwards]

    def land(self) -> None:
        """Frames are under way for microseconds: the kernel hands them on, and switches run before other processes."""

    def down(self) -> None:
        """Remove the namespaces, and with them all devices. Whatever is gone already is no error."""
        for name in self.spec.namespaces():
            links.remove(name)
