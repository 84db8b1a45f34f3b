"""A pool on this machine. One rule: whatever `up` makes, `down` removes, whoever calls it and however `up` ended.

with Lab.up(pool, name="t1") as lab:
    lab.start_all()
    assert lab.send("web1/0", Ether(...) / IP(...)).to == ["db1/0"]
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vnet.lab import dummy, netns
from vnet.lab.daemons import READY_TIMEOUT_S, Daemons
from vnet.lab.deliveries import Deliveries, Delivery, frames_of
from vnet.lab.errors import LabError, LabExists, LabUnsupported, NoSuchLab, UnknownName
from vnet.lab.names import MARK, NETNS_DIR, host_netns, lab_dir, vm_netns
from vnet.lab.processes import in_netns, inside, marked, run, start_time, stop
from vnet.lab.spec import SPEC_FILE, Driver, Guest, Spec
from vnet.lab.streams import RunningStream, packet_between
from vnet.lab.switchd import Switchd, tool_path
from vnet.lab.wireclient import WiresClient, start_wires
from vnet.model import BindingState, PoolState, Vif
from vnet.pool.view import PoolView

if TYPE_CHECKING:
    from vnet.client import Client, Unit

INTEGRATION_BRIDGE = "br-int"
SETTLE_S = 0.05
LIMIT_S = 2.0
TAG_TYPE = b"\x81\x00"
ETHERTYPE = slice(12, 14)


@dataclass(frozen=True, slots=True)
class Station:
    """A device of the physical network, on the switch of one uplink. With a tag it sees and sends that VLAN only, untagged;
    without, all frames as they are on the wire."""

    name: str
    uplink: str
    tag: int | None = None


class Lab:
    """A lab that is up. Make one with `Lab.up`, join one with `Lab.attach`."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.wires = WiresClient(spec.dir)
        self.daemons = Daemons(spec)
        self.stations: list[Station] = []
        self.driver: netns.NetnsDriver | dummy.DummyDriver = (
            netns.NetnsDriver(spec, self.wires) if spec.driver is Driver.NETNS else dummy.DummyDriver(spec, self.wires)
        )

    # -- up and down

    @classmethod
    def up(
        cls,
        pool: PoolState,
        *,
        name: str = "lab",
        driver: Driver = Driver.NETNS,
        daemons: bool = False,
        document: str | None = None,
    ) -> Lab:
        """Build the hosts, the underlay and the VMs of a pool; no VM is started. With `daemons` also its controller, with
        the pool in its database, and an agent on each host. `document` is the file it came from, for the status.

        Raises LabUnsupported with what to do where the driver cannot work here, LabExists where the name is taken.
        """
        (netns if driver is Driver.NETNS else dummy).check()
        owner = (os.getpid(), start_time(os.getpid()))
        spec = replace(Spec.of(pool, name, driver), daemons=daemons, document=document, owner=owner)
        try:
            spec.dir.mkdir(parents=True, mode=0o700)
        except FileExistsError:
            raise LabExists(
                f"lab {name!r} is up already: 'vnet lab down --name {name}', or choose another --name"
            ) from None
        except PermissionError as error:
            raise LabUnsupported(f"cannot make {spec.dir}: {error.strerror}; set VNET_LAB_DIR") from None
        lab = cls(spec)
        try:
            lab._build(pool)
        except BaseException as error:
            # What another lab owns must stay, so only what was written down as ours is taken away.
            if isinstance(error, LabExists):
                shutil.rmtree(spec.dir)
            else:
                lab.down()
            raise
        return lab

    def _build(self, pool_state: PoolState) -> None:
        spec = self.spec
        names = spec.namespaces()
        taken = [name for name in names if (NETNS_DIR / name).exists() or names.count(name) > 1]
        if taken:
            raise LabExists(f"network namespace {taken[0]!r} is taken: choose another lab name with --name")
        spec.write()
        with ThreadPoolExecutor(max_workers=8) as pool:
            wires = pool.submit(start_wires, spec.dir)
            self.driver.namespaces()
            wires.result()
            self.driver.underlay()
            controller = pool.submit(self._start_controller, pool_state) if spec.daemons else None
            list(pool.map(self._start_host, [host.name for host in spec.hosts]))
            for guest in spec.guests:
                self.driver.guest(guest)
            if controller is not None:
                controller.result()
                list(pool.map(self._cable, [host.name for host in spec.hosts]))

    def _start_controller(self, pool_state: PoolState) -> None:
        self.daemons.start_controller()
        self.daemons.write(pool_state)

    def _start_host(self, host: str) -> None:
        self.driver.host(host)
        self.driver.prime(host)
        if self.spec.daemons:
            self.daemons.start_agent(host, self.driver.ovs(host))

    def _cable(self, host: str) -> None:
        """Plug in a dummy host's NICs, which its agent makes."""
        if isinstance(self.driver, dummy.DummyDriver):
            for uplink in self.spec.host(host).uplinks:
                for nic in uplink.members:
                    self.driver.cable(host, nic)

    @classmethod
    def attach(cls, name: str) -> Lab:
        """Join a lab that is up. Raises NoSuchLab."""
        return cls(Spec.read(name))

    def down(self) -> None:
        """Remove the lab: its processes, namespaces, devices and files. Safe to repeat, and after a crash of anything."""
        self.wires.close()
        for _ in range(2):  # a process may start another while we look
            stop({*marked(self.spec.dir), *inside(self.spec.namespaces())})
        self.driver.down()
        shutil.rmtree(self.spec.dir, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.spec.dir.parent.rmdir()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # -- hosts

    def ovs(self, host: str) -> Switchd:
        """A host's Open vSwitch."""
        self.spec.host(host)
        return self.driver.ovs(host)

    def host_netns(self, host: str) -> str | None:
        """The host's network namespace; None on the dummy driver."""
        return host_netns(self.spec.name, self.spec.host(host).name) if self.spec.driver is Driver.NETNS else None

    def host_env(self, host: str) -> dict[str, str]:
        """The environment in which Open vSwitch's tools reach this host, and `vnet` the lab's controller."""
        return {**self.daemons.env, **self.ovs(host).env}

    def host_argv(self, host: str, args: Sequence[str]) -> list[str]:
        """The command line that runs `args` on a host."""
        return in_netns(self.host_netns(host), args)

    def host_sockets(self, host: str) -> dict[str, str]:
        """The sockets of a host besides Open vSwitch's: what they are to where they are."""
        return {"agent": str(self.daemons.agent_socket(host))} if self.spec.daemons else {}

    def run_on_host(self, host: str, *args: str) -> str:
        """A command's output, run on a host. Raises CommandFailed."""
        return run(self.host_argv(host, args), env=self.host_env(host))

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
        """Give a host whose ovs-vswitchd was restarted by someone what the lab had told it."""
        if isinstance(self.driver, dummy.DummyDriver):
            self.driver.revive(host)
        else:
            self.driver.prime(host)

    def cut(self, host: str, what: str = "underlay") -> None:
        """Cut a host off, silently: from the other hosts ('underlay'), from the pool database
        ('database'), or one of its NICs ('eth1')."""
        self._cut(host, what, True)

    def heal(self, host: str, what: str = "underlay") -> None:
        """Undo `cut`."""
        self._cut(host, what, False)

    def _cut(self, host: str, what: str, cut: bool) -> None:
        nics = [nic for uplink in self.spec.host(host).uplinks for nic in uplink.members]
        if what == "underlay":
            self.driver.cut_underlay(host, cut)
        elif what == "database":
            self.driver.cut_database(host, cut)
        elif what in nics:
            self.driver.cut_nic(host, what, cut)
        else:
            raise UnknownName(f"link of {host}", what, ["underlay", "database", *nics])

    # -- VMs

    def vif(self, name: str) -> Vif:
        """A VIF by its id or as 'web1/0'."""
        vm, _, index = name.rpartition("/")
        for guest in self.spec.guests:
            for vif in guest.vifs:
                if vif.id == name or (guest.name == vm and str(vif.index) == index):
                    return vif
        raise UnknownName("VIF", name, [self.label(vif) for guest in self.spec.guests for vif in guest.vifs])

    def label(self, vif: Vif) -> str:
        """How deliveries name a VIF: 'web1/0'."""
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

    def _respec(self, spec: Spec) -> None:
        self.spec = self.driver.spec = self.daemons.spec = spec
        spec.write()

    def plug(self, vm: str, host: str) -> None:
        """Give the host a port for each of the VM's VIFs, in br-int and with its iface-id, as a toolstack would."""
        guest, ovs = self.spec.guest(vm), self.ovs(host)
        args: list[str] = []
        for vif in guest.vifs:
            device = self.spec.device(vif)
            columns = {f"external_ids:iface-id={vif.id}": None, **self.driver.plug(vif, host)}
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
        """The guest runs on `host` from this moment (None: nowhere). With `announce` it says so, as QEMU does: a RARP per VIF.
        With `resume` a pause ends in the same moment."""
        guest = self.spec.guest(vm)
        frames = {vif.id: base64.b64encode(rarp(vif.mac)).decode() for vif in guest.vifs} if announce else {}
        self.wires.call("run", vifs=[vif.id for vif in guest.vifs], host=host, announce=frames, resume=resume)

    def start(self, vm: str, host: str | None = None) -> None:
        """Plug the VM into a host (its own, by default) and let the guest run."""
        where = host or self.spec.guest(vm).host
        if where is None:
            raise LabError(f"VM {vm} has no host in the document: say where to start it")
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

        Without it a switch floods what is sent to them, and a balance-slb bond then hands it on once per member.
        """
        for vm in vms:
            self.run(vm, self.where(vm), announce=True)

    def wait_ready(self, *vms: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until every VIF of these VMs (all that run, if none is named) is ready where its guest runs, and
        every host has programmed that. Needs daemons. Raises LabError that names what is not."""
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

    def where(self, vm: str) -> str | None:
        """The host on which the guest runs."""
        vifs = self.wires.call("status")["vifs"]
        return next((vifs[vif.id]["host"] for vif in self.spec.guest(vm).vifs if vif.id in vifs), None)

    def move(self, vm: str, host: str, announce: bool = True) -> None:
        """Move a running VM with nobody's help: plug it there, let the guest run there, unplug it here."""
        source = self.where(vm)
        self.plug(vm, host)
        self.run(vm, host, announce)
        if source is not None and source != host:
            self.unplug(vm, source)

    def migrate(self, vm: str, to: str, *, pause_s: float = 0.0, announce: bool = True) -> None:
        """Migrate a running VM as a toolstack does, with the controller: prepare, plug, switch over, finish, unplug.

        The switch-over is one instant; with `pause_s` the guest stands still that long before, and the destination keeps what
        arrives meanwhile. Without `announce` the guest says nothing and the controller activates it. Raises ClientError, LabError.
        """
        from vnet.client import Client, Unit  # noqa: PLC0415 - loads an HTTP library

        unit, source = Unit.of_vm(vm), self.where(vm)
        with Client(f"unix:{self.daemons.controller_socket}") as client:
            client.prepare(unit, to)
            self.plug(vm, to)
            self._wait_phase(client, unit, "prepared")
            if pause_s:
                self.pause(vm)
                self._switch(vm, to)
                time.sleep(pause_s)
            self.run(vm, to, announce=announce, resume=True)
            if not announce:
                client.activate(unit)
            self._wait_phase(client, unit, "active")
            client.finish(unit)
        if source is not None and source != to:
            self.unplug(vm, source)

    def _switch(self, vm: str, host: str) -> None:
        """The toolstack's word to the destination's agent that the guest is paused."""
        from vnet.client.local import call_agent  # noqa: PLC0415

        for vif in self.spec.guest(vm).vifs:
            call_agent("switch", {"vif": vif.id}, str(self.daemons.agent_socket(host)))

    def _wait_phase(self, client: Client, unit: Unit, *phases: str) -> None:
        """Wait until a migration is in one of these phases. Raises LabError with what is missing."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while (migration := client.migration(unit)).phase not in phases:
            if time.monotonic() > deadline:
                raise LabError(f"{unit.id} is {migration.phase}, not {phases[0]}: {'; '.join(migration.waiting)}")
            time.sleep(0.005)

    def stop(self, vm: str) -> None:
        """Unplug the VM from every host."""
        self.run(vm, None)
        vifs = self.wires.call("status")["vifs"]
        for host in sorted({host for vif in self.spec.guest(vm).vifs for host in vifs[vif.id]["plugged"]}):
            self.unplug(vm, host)

    def pause(self, vm: str) -> None:
        """The guest neither sends nor receives, and nothing announces it. What arrives waits in its host's port."""
        self._pause(vm, True)

    def resume(self, vm: str) -> None:
        self._pause(vm, False)

    def _pause(self, vm: str, paused: bool) -> None:
        self.wires.call("pause", vifs=[vif.id for vif in self.spec.guest(vm).vifs], paused=paused)

    # -- packets

    def station(self, uplink: str, tag: int | None = None) -> Station:
        """An outside station on the physical switch of an uplink; on one VLAN if a tag is given."""
        names = sorted(netns.switch_ports(self.spec))
        if uplink not in names:
            raise UnknownName("uplink", uplink, names)
        station = Station(f"{uplink}" if tag is None else f"{uplink}.{tag}", uplink, tag)
        if station not in self.stations:
            self.driver.station(self._station_port(station), uplink)
            self.stations.append(station)
        return station

    def send(
        self, source: str | Station, packets: Any, *, settle_s: float = SETTLE_S, limit_s: float = LIMIT_S
    ) -> Deliveries:
        """Send a packet (scapy or bytes) or several from a VIF ('web1/0') or a station; everything that anyone got.

        Collects until nothing came for `settle_s`, at most `limit_s`. Guests neither send nor receive meanwhile.
        """
        frames = frames_of(packets)
        if isinstance(source, Station):
            wire_id = self._station_port(source)
            frames = [_tagged(frame, source.tag) for frame in frames] if source.tag is not None else frames
        else:
            wire_id = self.vif(source).id
        sent_ns = time.monotonic_ns()
        encoded = [base64.b64encode(frame).decode() for frame in frames]
        request = {"from": wire_id, "frames": encoded, "settle_s": settle_s, "limit_s": limit_s}
        answer = self.wires.call("send", timeout_s=limit_s + 20, **request)
        if answer["lost"]:
            raise LabError(f"{answer['lost']} more frames came than a send keeps: is there a loop?")
        return Deliveries(tuple(self._deliveries(answer["records"], sent_ns)))

    def stream(
        self, source: str | Station, to: str | None = None, *, packet: Any = None, period_ms: float = 1.0
    ) -> RunningStream:
        """Numbered frames every `period_ms` from a VIF or station to a VIF, or as `packet` (scapy; they become its payload).

        Whoever gets them is counted; no guest sees them. A source that is paused sends nothing.
        """
        if packet is None:
            if to is None or isinstance(source, Station):
                raise LabError("a stream needs a VIF at both ends, or the packet to send")
            packet = packet_between(self.vif(source), self.vif(to))
        if isinstance(source, Station):
            if source.tag is not None:
                raise LabError("a station's stream takes an untagged station, and a packet with its tag")
            return RunningStream(self, self._station_port(source), packet, period_ms)
        return RunningStream(self, self.vif(source).id, packet, period_ms)

    def receiver(self, who: str) -> str:
        """What reports call a receiver that the wires know as `who`."""
        station = {self._station_port(station): station for station in self.stations}.get(who)
        return self.label(self.vif(who)) if station is None else station.name

    def _station_port(self, station: Station) -> str:
        return _station_port(station, sorted(netns.switch_ports(self.spec)))

    def _deliveries(self, records: list[tuple[int, str, str]], sent_ns: int) -> Iterator[Delivery]:
        stations = {self._station_port(station): station for station in self.stations}
        for at, who, encoded in records:
            frame, after_ms = base64.b64decode(encoded), (at - sent_ns) / 1e6
            if (station := stations.get(who)) is None:
                yield Delivery(self.label(self.vif(who)), frame, after_ms)
            elif station.tag is None:
                yield Delivery(station.name, frame, after_ms)
            elif frame[ETHERTYPE] == TAG_TYPE and int.from_bytes(frame[14:16]) & 0xFFF == station.tag:
                yield Delivery(station.name, frame[:12] + frame[16:], after_ms)


def _is_ready(view: PoolView, vif: str, host: str) -> bool:
    binding = view.bindings_of.get(vif, {}).get(host)
    return binding is not None and binding.ready and binding.state is BindingState.ACTIVE


def rarp(mac: str) -> bytes:
    """The announcement of a MAC that QEMU sends when a guest resumes (RFC 903; ethertype 0x8035), padded to 60 bytes."""
    own = bytes.fromhex(mac.replace(":", ""))
    body = b"\x00\x01\x08\x00\x06\x04\x00\x03" + own + b"\0" * 4 + own + b"\0" * 4
    return (b"\xff" * 6 + own + b"\x80\x35" + body).ljust(60, b"\0")


def _station_port(station: Station, names: list[str]) -> str:
    return f"station{names.index(station.uplink)}" + ("" if station.tag is None else f".{station.tag}")


def _tagged(frame: bytes, tag: int) -> bytes:
    return frame[:12] + TAG_TYPE + tag.to_bytes(2) + frame[12:]


def remove(name: str) -> None:
    """Take down a lab by name, also one whose spec is missing or damaged. Raises NoSuchLab."""
    try:
        lab = Lab.attach(name)
    except NoSuchLab:
        raise
    except LabError as error:
        directory = lab_dir(name)
        stop(marked(directory))
        print(f"{error}: removing {directory} and its processes; network namespaces may be left", file=sys.stderr)
        (directory / SPEC_FILE).unlink()
        shutil.rmtree(directory, ignore_errors=True)
        return
    lab.down()
