"""Driver `dummy`: hosts on ovs-vswitchd's dummy datapath, for any user. There is no kernel network: frames are injected and
read back through the ports' unix streams, and the lab's wires are the underlay and the physical switches.

A NIC that the agent adds to an uplink bridge becomes a dummy port without a cable; `cable` plugs it in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from vnet.lab.errors import LabError, LabUnsupported
from vnet.lab.impairments import Impairment
from vnet.lab.names import host_mac, vtep_network
from vnet.lab.netns import switch_ports
from vnet.lab.packet_bridge_client import WiresClient
from vnet.lab.processes import wait_until
from vnet.lab.spec import Guest, Spec
from vnet.lab.switchd import Switchd, require
from vnet.lab.uplinks import links_of, nic_of, own_bridges
from vnet.objects import Host, Vif

UNDERLAY = "underlay"
DATABASE_IS_A_SOCKET = "a host of the dummy driver cannot be cut off from the database: take '--driver netns'"
RECEIVED = re.compile(r"^  port \d+: (\S+).*\n    RX packets:(\d+)", re.MULTILINE)


def check() -> None:
    """Raises LabUnsupported where Open vSwitch is missing."""
    require()


class DummyDriver:
    """The parts of a lab on the dummy datapath."""

    COPIES_LAG = True  # behind changes of flows, as `land` says

    def __init__(self, spec: Spec, wires: WiresClient) -> None:
        self.spec = spec
        self.wires = wires

    def namespaces(self) -> None:
        """There are none."""

    def underlay(self) -> None:
        """The underlay and the physical switches are in the wires process."""
        self.wires.call("switch", name=UNDERLAY, mtu=self.spec.underlay_mtu)
        for name, plugged in switch_ports(self.spec).items():
            mtu = max([self.spec.underlay_mtu, *(uplink.mtu or 0 for _, uplink in plugged)])
            self.wires.call("switch", name=f"uplink {name}", mtu=mtu)

    def ovs(self, host: str) -> Switchd:
        return Switchd(self.spec.host_dir(host), self.spec.dir, datapath_type=self.spec.datapath_type)

    def host(self, name: str) -> None:
        """Start a host's Open vSwitch and give the host its VTEP."""
        spec, host, ovs = self.spec, self.spec.host(name), self.ovs(name)
        ovs.create()
        ovs.start()
        mac, mtu = host_mac(spec.hosts.index(host)), spec.underlay_mtu
        path = ovs.dir / "lab-phy.sock"
        ovs.vsctl(
            *(
                "add-br",
                "br-phy",
                "--",
                "set",
                "bridge",
                "br-phy",
                "datapath_type=dummy",
                f'other_config:hwaddr="{mac}"',
            ),
            *("--", "add-port", "br-phy", "lab-phy", "--", "set", "interface", "lab-phy", "type=dummy"),
            *(f"options:pstream=punix:{path}", f"mtu_request={mtu}"),
            *("--", "set", "interface", "br-phy", f"mtu_request={mtu}"),
            *own_bridges(host, "dummy"),
        )
        self._plug_cable(UNDERLAY, name, "lab-phy", path)
        self._address(name)

    def _address(self, name: str) -> None:
        """The VTEP's address and route, which a dummy host has only in ovs-vswitchd's memory."""
        address, ovs = self.spec.host(name).address, self.ovs(name)
        if address is None:
            return
        version = 6 if ":" in address else 4
        prefix = self.spec.prefix(version)
        ovs.appctl(f"netdev-dummy/ip{version}addr", "br-phy", f"{address}/{prefix}")
        ovs.appctl("ovs/route/add", vtep_network(address, prefix), "br-phy")

    def prime(self, name: str) -> None:
        """Tell a host its peers' MACs: nobody answers ARP for a dummy host."""
        for index, peer in enumerate(self.spec.hosts):
            if peer.address is not None and peer.name != name:
                self.ovs(name).appctl("tnl/neigh/set", "br-phy", peer.address, host_mac(index))

    def revive(self, name: str) -> None:
        """Repeat the settings that an ovs-vswitchd keeps in memory only, for one that was restarted."""
        self._plug_cable(UNDERLAY, name, "lab-phy", self.ovs(name).dir / "lab-phy.sock")
        self._address(name)
        self.prime(name)

    def _plug_cable(self, switch: str, host: str, nic: str, path: Path) -> None:
        wait_until(path.exists, f"port {nic} of {host}")
        self.wires.call("nic", switch=switch, name=f"{host} {nic}", path=str(path))

    def cable(self, host: str, link: str) -> None:
        """Plug a NIC, which an uplink bridge of the host has by now, into its physical switch. Safe to repeat."""
        uplink = next((u for u in self.spec.host(host).uplinks if link in u.links), None)
        if uplink is None:
            raise LabError(f"{host} has no NIC {link!r}")
        ovs, nic = self.ovs(host), nic_of(uplink, link)
        path = ovs.dir / f"{nic}.sock"
        # The interface is the agent's, and its MTU with it: an agent puts back an MTU that is set here, and logs drift.
        ovs.vsctl("wait-until", "interface", nic, "--", "set", "interface", nic, f"options:pstream=punix:{path}")
        self._plug_cable(f"uplink {uplink.name}", host, link, path)

    def cut_underlay(self, host: str, cut: bool) -> None:
        """Let nothing pass between a host's VTEP and the underlay."""
        self.wires.call("cut", switch=UNDERLAY, name=f"{self.spec.host(host).name} lab-phy", cut=cut)

    def cut_database(self, host: str, cut: bool) -> None:
        """Raises LabUnsupported: without network namespaces the database is reached over a unix socket."""
        raise LabUnsupported(DATABASE_IS_A_SOCKET)

    def cut_nic(self, host: str, nic: str, cut: bool) -> None:
        """Let nothing pass through one of a host's NICs; the dummy driver cannot take its link away."""
        for uplink in self.spec.host(host).uplinks:
            if nic in uplink.links:
                self.wires.call("cut", switch=f"uplink {uplink.name}", name=f"{host} {nic}", cut=cut)

    def impair(self, host: str, link: str, impairment: Impairment | None) -> None:
        """Impair one of a host's links, or make it a cable again."""
        faults = None if impairment is None else impairment.as_request()
        if link == "database":
            raise LabUnsupported(DATABASE_IS_A_SOCKET)
        self.wires.call("impair", link=self._nic(host, link), impairment=faults)

    def link_ids(self, host: Host) -> list[tuple[str, str]]:
        """A host's links that can be impaired, with their names in the packet bridge."""
        return [(link, self._nic(host.name, link)) for link in links_of(host) if link != "database"]

    def _nic(self, host: str, link: str) -> str:
        return f"{host} {'lab-phy' if link == UNDERLAY else link}"

    def guest(self, guest: Guest) -> None:
        """A VM here is no more than its VIFs' ends in the wires process."""
        for vif in guest.vifs:
            self.wires.call("guest", vif=vif.id)

    def add_guest(self, guest: Guest) -> None:
        """A VM that was not there when the lab was built."""
        self.guest(guest)

    def remove_guest(self, guest: Guest) -> None:
        """Take a VM away."""
        for vif in guest.vifs:
            self.wires.call("forget", vif=vif.id)

    def add_host(self, host: Host) -> None:
        """A host that was not there when the lab was built: there is nothing to make before it starts."""

    def plug(self, vif: Vif, host: str) -> dict[str, str]:
        """The Interface columns that the VIF's port needs on a host."""
        mtu = self.spec.network(vif.network).mtu
        return {"type": "dummy", "options:pstream": f"punix:{self._vif_socket(vif, host)}", "mtu_request": str(mtu)}

    def plugged(self, vif: Vif, host: str) -> None:
        """Connect the port, which is in br-int by now, to the wires."""
        path = self._vif_socket(vif, host)
        wait_until(path.exists, f"port of {vif.id} on {host}")
        self.wires.call("plug", vif=vif.id, host=host, path=str(path))

    def _vif_socket(self, vif: Vif, host: str) -> Path:
        return self.ovs(host).dir / f"{self.spec.device(vif)}.sock"

    def station(self, name: str, uplink: str) -> None:
        """Open an outside station on the physical switch of an uplink."""
        self.wires.call("station", name=name, switch=f"uplink {uplink}")

    def forwarding(self) -> list[str]:
        """The control sockets of the switches that forward frames."""
        found = [self.ovs(host.name) for host in self.spec.hosts]
        return [str(ovs.control) for ovs in found if ovs.forwards]

    def land(self) -> None:
        """Return once every frame whose first copy has left a host has been through the switches of the hosts that it is for.

        A network delivers in microseconds. A dummy port sends and takes one frame in each turn of ovs-vswitchd's main loop, so a
        copy may wait while a change of flows overtakes it.
        """
        for host in self.spec.hosts:
            for _ in self.spec.hosts:  # the copies for the other hosts follow the first one, one in each turn
                self.ovs(host.name).turn()
        written = self.wires.call("status")["written"]
        for host in self.spec.hosts:
            wait_until(lambda name=host.name: self._has_taken(name, written), f"{host.name} to take its frames")  # type: ignore[misc]

    def _has_taken(self, host: str, written: Mapping[str, int]) -> bool:
        """Whether the host's datapath has taken that many frames from its NICs; a host without a switch takes none."""
        shown = self.ovs(host).turn("dpctl/show", "-s")
        taken = {f"{host} {nic}": int(count) for nic, count in RECEIVED.findall(shown)}
        return all(count >= written.get(nic, 0) for nic, count in taken.items())

    def down(self) -> None:
        """Nothing is left but processes and files."""
