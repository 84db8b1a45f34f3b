"""A lab's VMs: the hosts that their guests run on, and the processes in them."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from vnet.db.view import PoolView
from vnet.lab.daemons import READY_TIMEOUT_S
from vnet.lab.errors import LabError, LabUnsupported, NotInLab
from vnet.lab.hosts import LabHosts
from vnet.lab.impairments import CABLE, Impairment
from vnet.lab.names import MARK, vm_netns
from vnet.lab.processes import in_netns, run
from vnet.lab.spec import Driver, Guest
from vnet.lab.switchd import tool_path
from vnet.objects import BindingState, Vif
from vnet.util.frames import rarp

INTEGRATION_BRIDGE = "br-int"


class LabGuests(LabHosts):
    """The part of a lab that is about its VMs."""

    def vif(self, name: str) -> Vif:
        """A VIF by its id or as 'web1/0'; the VIF of a VM with one by the VM's name. Raises NotInLab with the nearest."""
        vm, _, index = name.rpartition("/")
        for guest in self.spec.guests:
            for vif in guest.vifs:
                if vif.id == name or (guest.name == vm and str(vif.index) == index):
                    return vif
            if guest.name == name and len(guest.vifs) == 1:
                return guest.vifs[0]
        raise NotInLab("VIF", name, [self.label(vif) for guest in self.spec.guests for vif in guest.vifs])

    def label(self, vif: Vif) -> str:
        """The name of a VIF in deliveries: 'web1/0'."""
        return f"{vif.vm}/{vif.index}" if vif.vm else vif.id

    def vm_netns(self, vm: str) -> str:
        """The VM's network namespace. Raises LabUnsupported on the dummy driver, whose VMs are VIFs only."""
        guest = self.spec.guest(vm)
        if self.spec.driver is Driver.DUMMY:
            raise LabUnsupported(f"VM {vm} runs no commands on the dummy driver: use 'vnet lab up --driver netns'")
        return vm_netns(self.spec.name, guest.name)

    def vm_argv(self, vm: str, args: Sequence[str]) -> list[str]:
        """The command line that runs `args` in a VM."""
        return in_netns(self.vm_netns(vm), args)

    def vm_env(self) -> dict[str, str]:
        """The environment of commands in VMs."""
        return {MARK: str(self.spec.dir), "PATH": tool_path()}

    def run_in_vm(self, vm: str, *args: str) -> str:
        """A command's output, run in a VM. Raises CommandFailed."""
        return run(self.vm_argv(vm, args), env=self.vm_env())

    def popen_in_vm(self, vm: str, *args: str) -> subprocess.Popen[bytes]:
        """A process in a VM; `down` ends it if nobody did before."""
        return subprocess.Popen(self.vm_argv(vm, args), env={**os.environ, **self.vm_env()})

    def add_vm(self, vm: str, vifs: Iterable[Vif], host: str | None = None) -> None:
        """A VM that was not there when the lab was built; its networks must be the lab's."""
        if any(guest.name == vm for guest in self.spec.guests):
            raise LabError(f"VM {vm} is in the lab already")
        guest = Guest(vm, host, tuple(replace(vif, vm=vm) for vif in vifs))
        for vif in guest.vifs:
            self.spec.network(vif.network)
        self._respec(self.spec.with_guest(guest))
        self.driver.add_guest(guest)

    def remove_vm(self, vm: str) -> None:
        """Stop a VM and take it away."""
        guest = self.spec.guest(vm)
        self.stop(vm)
        self.driver.remove_guest(guest)
        self._respec(self.spec.without_guest(vm))

    def impair(self, link: str, impairment: Impairment = CABLE) -> None:
        """Have a link lose, delay or slow down frames from now on; left out, it is a cable again, neither impaired nor cut.

        link: 'xen1:underlay', 'xen1:database', 'xen1:eth1', or a VIF as 'web1/0'. Raises NotInLab, LabUnsupported.
        """
        host, _, part = link.rpartition(":")
        if not host:
            faults = None if impairment == CABLE else impairment.as_request()
            self.wires.call("impair", link=self.vif(link).id, impairment=faults)
            return
        self._check_link(host, part)
        faults_of_host = replace(impairment, cut=False)
        self.driver.impair(host, part, None if faults_of_host == CABLE else faults_of_host)
        if impairment.cut or link in self.wires.call("status")["cut"]:
            self._cut(host, part, impairment.cut)

    def impaired(self) -> dict[str, Impairment]:
        """The links that are impaired or cut, by name."""
        state = self.wires.call("status")
        ids = {self.label(vif): vif.id for guest in self.spec.guests for vif in guest.vifs}
        ids |= {f"{host.name}:{link}": key for host in self.spec.hosts for link, key in self.driver.link_ids(host)}
        cut, faults = state["cut"], state["impaired"]
        found = {name: Impairment.of(faults.get(key, {})) for name, key in ids.items() if key in faults or name in cut}
        return {name: replace(item, cut=item.cut or name in cut) for name, item in found.items()}

    def plug(self, vm: str, host: str, *, ofports: Mapping[str, int] = MappingProxyType({})) -> None:
        """Give the host a port for each of the VM's VIFs, in br-int and with its iface-id, as a toolstack would. `ofports`: the
        numbers that those of awaited VIFs ask for, by VIF id."""
        guest, ovs = self.spec.guest(vm), self.ovs(host)
        args: list[str] = []
        for vif in guest.vifs:
            device = self.spec.device(vif)
            columns = {f"external_ids:iface-id={vif.id}": None, **self.driver.plug(vif, host)}
            if vif.id in ofports:
                columns["ofport_request"] = str(ofports[vif.id])
            settings = [key if value is None else f"{key}={value}" for key, value in columns.items()]
            args += ["--", "--may-exist", "add-port", INTEGRATION_BRIDGE, device]
            args += ["--", "set", "interface", device, *settings]
        if not args:
            return
        ovs.vsctl("wait-until", "bridge", INTEGRATION_BRIDGE, *args)
        for vif in guest.vifs:
            self.driver.plugged(vif, host)

    def unplug(self, vm: str, host: str) -> None:
        """Take the VM's ports off a host."""
        guest = self.spec.guest(vm)
        ports = [arg for vif in guest.vifs for arg in ("--", "--if-exists", "del-port", self.spec.device(vif))]
        self.ovs(host).vsctl(*ports[1:])
        for vif in guest.vifs:
            self.wires.call("unplug", vif=vif.id, host=host)

    def run(self, vm: str, host: str | None, announce: bool = False, resume: bool = False) -> None:
        """The guest runs on `host` from this moment (None: nowhere). With `announce` it announces itself as QEMU does: a RARP per VIF.
        With `resume` a pause ends in the same moment."""
        guest = self.spec.guest(vm)
        frames = {vif.id: base64.b64encode(rarp(vif.mac)).decode() for vif in guest.vifs} if announce else {}
        self.wires.call("run", vifs=[vif.id for vif in guest.vifs], host=host, announce=frames, resume=resume)

    def start(self, vm: str, host: str | None = None) -> None:
        """Plug the VM into a host (its own, by default) and let the guest run."""
        where = host or self.spec.guest(vm).host
        if where is None:
            raise LabError(f"VM {vm} has no host in the document: name the host to start it on")
        self.plug(vm, where)
        self.run(vm, where)

    def start_all(self) -> None:
        """Start every VM that has a host; with daemons, wait until all are ready, and let the guests be heard."""
        vms = [guest.name for guest in self.spec.guests if guest.host is not None]
        for vm in vms:
            self.start(vm)
        if self.spec.daemons:
            self.wait_ready(*vms)
            self.introduce(*vms)

    def introduce(self, *vms: str) -> None:
        """Let these running guests send a frame each, as systems do at boot, so that the physical switches know their MACs.

        Without it a switch floods frames to them, and a balance-slb bond then hands it on once per member.
        """
        for vm in vms:
            self.run(vm, self.location(vm), announce=True)

    def wait_ready(self, *vms: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until every VIF of these VMs (all that run, if none is named) is ready where its guest runs, and
        every host has programmed that. Needs daemons. Raises LabError that names the VIFs that are not."""
        running = self.wires.call("status")["vifs"]
        wanted = [self.spec.guest(vm) for vm in vms] if vms else self.spec.guests
        expected = {
            vif.id: running[vif.id]["host"]
            for guest in wanted
            for vif in guest.vifs
            if running[vif.id]["host"] is not None
        }
        missing: set[str] = set()

        def ready(view: PoolView) -> bool:
            missing.clear()
            missing.update(vif for vif, host in expected.items() if not _is_ready(view, vif, host))
            return not missing

        try:
            self.daemons.wait(ready, "", timeout_s)
        except LabError:
            late = ", ".join(sorted(f"{vif} on {expected[vif]}" for vif in missing))
            raise LabError(
                f"not ready within {timeout_s:.0f} s: {late}; see the agents' logs below {self.spec.dir}"
            ) from None
        self.daemons.settle(timeout_s)

    def location(self, vm: str) -> str | None:
        """The host on which the guest runs."""
        vifs = self.wires.call("status")["vifs"]
        return next((vifs[vif.id]["host"] for vif in self.spec.guest(vm).vifs if vif.id in vifs), None)

    def move(self, vm: str, host: str, announce: bool = True) -> None:
        """Move a running VM with nobody's help: plug it there, let the guest run there, unplug it here."""
        source = self.location(vm)
        self.plug(vm, host)
        self.run(vm, host, announce)
        if source is not None and source != host:
            self.unplug(vm, source)

    def stop(self, vm: str) -> None:
        """Unplug the VM from every host."""
        self.run(vm, None)
        vifs = self.wires.call("status")["vifs"]
        for host in sorted({host for vif in self.spec.guest(vm).vifs for host in vifs[vif.id]["plugged"]}):
            self.unplug(vm, host)

    def lose_power(self, host: str) -> None:
        """All that runs on a host ends at once, its guests too."""
        self.crash_host(host)
        for guest in self.spec.guests:
            if self.location(guest.name) == host:
                self.run(guest.name, None)

    def pause(self, vm: str) -> None:
        """The guest neither sends nor receives, and nothing announces it. Frames to it wait in its host's port."""
        self._pause(vm, True)

    def resume(self, vm: str) -> None:
        self._pause(vm, False)

    def _pause(self, vm: str, paused: bool) -> None:
        self.wires.call("pause", vifs=[vif.id for vif in self.spec.guest(vm).vifs], paused=paused)


def _is_ready(view: PoolView, vif: str, host: str) -> bool:
    binding = view.bindings_of.get(vif, {}).get(host)
    return binding is not None and binding.ready and binding.state is BindingState.ACTIVE
