"""A lab's hosts: their processes and their faults."""

from __future__ import annotations

from collections.abc import Sequence

from vnet.lab import dummy, netns
from vnet.lab.base import LabBase
from vnet.lab.errors import LabError, NotInLab
from vnet.lab.names import host_netns
from vnet.lab.processes import in_netns, run, stop
from vnet.lab.spec import Driver
from vnet.lab.switchd import SERVERS, Switchd
from vnet.lab.uplinks import links_of
from vnet.objects import Host


class LabHosts(LabBase):
    """The part of a lab that is about its hosts."""

    def _start_host(self, host: str) -> None:
        self.driver.host(host)
        self.driver.prime(host)
        if self._has_wireguard:
            self.daemons.start_wireguard(host, self.driver.ovs(host))
        if self.spec.daemons:
            self.daemons.start_agent(host, self.driver.ovs(host))

    def _cable(self, host: str) -> None:
        """Plug in a dummy host's NICs, which its agent makes."""
        if isinstance(self.driver, dummy.DummyDriver):
            for uplink in self.spec.host(host).uplinks:
                for link in uplink.links:
                    self.driver.cable(host, link)

    def ovs(self, host: str) -> Switchd:
        """A host's Open vSwitch."""
        self.spec.host(host)
        return self.driver.ovs(host)

    def host_netns(self, host: str) -> str | None:
        """The host's network namespace; None on the dummy driver."""
        return host_netns(self.spec.name, self.spec.host(host).name) if self.spec.driver is Driver.NETNS else None

    def host_env(self, host: str) -> dict[str, str]:
        """The environment in which Open vSwitch's tools reach this host, and `vnet` its agent and the lab's controller."""
        agent = {"VNET_AGENT_SOCKET": str(self.daemons.agent_socket(host))} if self.spec.daemons else {}
        return {**self.daemons.env, **agent, **self.ovs(host).env}

    def host_argv(self, host: str, args: Sequence[str]) -> list[str]:
        """The command line that runs `args` on a host."""
        return in_netns(self.host_netns(host), args)

    def host_sockets(self, host: str) -> dict[str, str]:
        """The sockets of a host besides Open vSwitch's: their paths by their names."""
        return {"agent": str(self.daemons.agent_socket(host))} if self.spec.daemons else {}

    def run_on_host(self, host: str, *args: str) -> str:
        """A command's output, run on a host. Raises CommandFailed."""
        return run(self.host_argv(host, args), env=self.host_env(host))

    def add_host(self, host: Host) -> None:
        """A host that was not there when the lab was built; with daemons also its agent. Its uplinks' switches must be there,
        and its VTEP in the others' subnet. That the pool knows it is the caller's affair."""
        if any(other.name == host.name for other in self.spec.hosts):
            raise LabError(f"host {host.name} is in the lab already")
        known = sorted(netns.switch_ports(self.spec))
        for uplink in host.uplinks:
            if uplink.name not in known:
                raise NotInLab("uplink", uplink.name, known)
        self._respec(self.spec.with_host(host))
        self.driver.add_host(host)
        self._start_host(host.name)
        for other in self.spec.hosts:
            self.driver.prime(other.name)

    def crash_host(self, host: str) -> None:
        """All that runs on a host ends at once, as when it loses power: agent, ovs-vswitchd, ovsdb-server, WireGuard."""
        ovs = self.ovs(host)
        stop({pid for pid in (self.daemons.pid(host), *map(ovs.pid, SERVERS)) if pid})
        if self._has_wireguard:
            self.daemons.crash_wireguard(host)

    def boot_host(self, host: str) -> None:
        """Start a crashed host again, with the Open vSwitch database that it had."""
        ovs = self.ovs(host)
        ovs.start_database()
        ovs.start_vswitchd()
        self.revive(host)
        if self._has_wireguard:
            self.daemons.start_wireguard(host, ovs)
        if self.spec.daemons:
            self.daemons.start_agent(host, ovs)

    @property
    def _has_wireguard(self) -> bool:
        return self.spec.encrypted and self.spec.driver is Driver.NETNS

    def restart_agent(self, host: str) -> None:
        """Crash a host's agent and start it again."""
        self.daemons.kill(host)
        self.daemons.start_agent(host, self.ovs(host))

    def restart_controller(self) -> None:
        """Crash the controller and start it again."""
        self.daemons.kill("controller")
        self.daemons.start_controller()

    def restart_vswitchd(self, host: str) -> None:
        """Crash a host's ovs-vswitchd and start it again."""
        ovs = self.ovs(host)
        ovs.kill("ovs-vswitchd")
        ovs.start_vswitchd()
        self.revive(host)

    def revive(self, host: str) -> None:
        """Repeat the lab's settings to an ovs-vswitchd that somebody restarted."""
        if isinstance(self.driver, dummy.DummyDriver):
            self.driver.revive(host)
        else:
            self.driver.prime(host)

    def cut(self, host: str, link: str = "underlay") -> None:
        """Cut a host off, silently: from the other hosts ('underlay'), from the pool database
        ('database'), or one of its NICs ('eth1')."""
        self._cut(host, link, True)

    def heal(self, host: str, link: str = "underlay") -> None:
        """Undo `cut`."""
        self._cut(host, link, False)

    def _cut(self, host: str, link: str, cut: bool) -> None:
        self._check_link(host, link)
        if link == "underlay":
            self.driver.cut_underlay(host, cut)
        elif link == "database":
            self.driver.cut_database(host, cut)
        else:
            self.driver.cut_nic(host, link, cut)
        self.wires.call("note_cut", link=f"{host}:{link}", cut=cut)

    def _check_link(self, host: str, link: str) -> None:
        """Raises NotInLab for a link that a host does not have."""
        known = links_of(self.spec.host(host))
        if link not in known:
            raise NotInLab(f"link of {host}", link, known)
