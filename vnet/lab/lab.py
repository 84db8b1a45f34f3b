"""A pool on this machine. One rule: whatever `up` makes, `down` removes, whoever calls it and however `up` ended.

with Lab.up(pool, name="t1") as lab:
    lab.start_all()
    assert lab.send("web1/0", Ether(...) / IP(...)).to == ["db1/0"]
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from vnet.lab import dummy, netns
from vnet.lab.errors import LabError, LabExists, LabUnsupported, NoSuchLab
from vnet.lab.names import NETNS_DIR, base_dir, lab_dir
from vnet.lab.packet_bridge_client import start_wires
from vnet.lab.packets import LabPackets
from vnet.lab.processes import ignoring_interrupts, inside, marked, start_time, stop
from vnet.lab.spec import Driver, Spec
from vnet.objects import PoolState, Protocol

if TYPE_CHECKING:
    from vnet.sim.trace import Trace

LAB_NAME_MAX = 32
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LAB_NAME_MAX - 1}}}")


class Lab(LabPackets):
    """A lab that is up. Make one with `Lab.up`, join one with `Lab.attach`."""

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

        Raises LabUnsupported, with the remedy, where the driver cannot work here, LabExists where the name is taken.
        """
        (netns if driver is Driver.NETNS else dummy).check()
        if not NAME.fullmatch(name):
            raise LabError(f"{name!r} is no lab name: letters, digits, '.', '_' and '-', at most {LAB_NAME_MAX}")
        owner = (os.getpid(), start_time(os.getpid()))
        spec = replace(Spec.of(pool, name, driver), daemons=daemons, document=document, owner=owner)
        if spec.datapath_type == "system":
            netns.check_kernel(spec)
        try:
            base_dir().mkdir(parents=True, mode=0o700, exist_ok=True)
            spec.dir.mkdir(mode=0o700)
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
            # Another lab's devices must stay, so only those that were written down as ours are taken away.
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
        preloaded = self.daemons.preloaded() if spec.daemons else contextlib.nullcontext()
        with preloaded, ThreadPoolExecutor(max_workers=8) as pool:
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

    @classmethod
    def attach(cls, name: str) -> Lab:
        """Join a lab that is up. Raises NoSuchLab."""
        return cls(Spec.read(name))

    def connect(self, source: str, target: str, *, tcp: int | None = None, udp: int | None = None) -> Trace:
        """Play a conversation: ARP or ND, then a TCP handshake, a UDP exchange, or a ping, each packet as `send` does.

        The trace names the receivers of each packet; `reached` is true if all of them arrived. A TCP connection is reset.
        """
        from vnet.lab.conversations import connect  # noqa: PLC0415 - loads the simulator

        if tcp is not None and udp is not None:
            raise LabError("either tcp or udp")
        protocol = Protocol.TCP if tcp is not None else Protocol.UDP if udp is not None else Protocol.ICMP
        return connect(self, source, target, protocol, tcp or udp or 0)

    def migrate(self, vm: str, to: str, *, pause_s: float = 0.0, announce: bool = True) -> None:
        """Migrate a running VM as a toolstack does, with the controller: prepare, plug, switch over, finish, unplug.

        The switch-over is one instant, on the dummy driver some milliseconds (`DummyDriver.land`); with `pause_s` the guest stands still
        that long before, and the destination keeps the frames that arrive meanwhile. Without `announce` the guest is silent and the
        controller activates it. Raises ClientError, LabError.
        """
        from vnet.lab.toolstack import migrate  # noqa: PLC0415 - loads an HTTP library

        migrate(self, vm, to, pause_s=pause_s, announce=announce)

    def down(self) -> None:
        """Remove the lab: its processes, namespaces, devices and files. Safe to repeat, and after a crash of anything."""
        with ignoring_interrupts():
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
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()


def remove(name: str) -> None:
    """Take down a lab by name, also one whose spec is missing or damaged. Raises NoSuchLab."""
    directory = lab_dir(name)
    try:
        lab = Lab.attach(name)
    except NoSuchLab:
        if not directory.is_dir():
            raise
        # Its `up` was killed before it made anything.
    except LabError as error:
        print(f"{error}: removing {directory} and its processes; network namespaces may be left", file=sys.stderr)
    else:
        lab.down()
        return
    stop(marked(directory))
    shutil.rmtree(directory, ignore_errors=True)
