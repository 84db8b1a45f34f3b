"""One Open vSwitch of the lab: its ovsdb-server and ovs-vswitchd in a directory of its own, where its tools find it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovsctl.appctl import AppctlError, call_sync, control_socket
from vnet.lab.errors import LabUnsupported
from vnet.lab.names import MARK
from vnet.lab.processes import alive, run, start, state, stop, wait_until

SCHEMA = Path(os.environ.get("OVS_PKGDATADIR", "/usr/share/openvswitch")) / "vswitch.ovsschema"  # as in ovs-lib
NEEDED = ("ovsdb-server", "ovs-vswitchd", "ovsdb-tool", "ovs-vsctl", "ovs-appctl")
SERVERS = ("ovsdb-server", "ovs-vswitchd")
OPTIONS = {
    "dummy": ["--enable-dummy=system", "--disable-system"],
    # Of the kernel's routes Open vSwitch forgets all whenever any device comes or goes, and for some milliseconds takes no
    # tunnel's frames in or out. The lab gives it the one route that it needs.
    "netdev": ["--disable-system-route"],
    "system": [],
}
ANSWER_TIMEOUT_S = 1.0
REAL_TIME = {"ovs-vswitchd": 1}  # as a datapath in a kernel, it forwards whatever else the machine does


def require() -> None:
    """Raises LabUnsupported, with the package to install, where Open vSwitch is missing."""
    missing = [name for name in NEEDED if shutil.which(name, path=tool_path()) is None]
    if missing or not SCHEMA.exists():
        raise LabUnsupported(
            f"Open vSwitch is not installed ({', '.join(missing) or SCHEMA} missing): apt-get install openvswitch-switch"
        )


def tool_path() -> str:
    """PATH with the system directories that a plain user's lacks, and with where `vnet` itself is."""
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin:{Path(sys.executable).parent}"


@dataclass(frozen=True, slots=True)
class Switchd:
    """An Open vSwitch in `dir`, run in network namespace `netns` or, on the dummy datapath, in none.

    datapath_type: "dummy", "netdev" (userspace) or "system" (the kernel's)."""

    dir: Path
    lab_dir: Path
    netns: str | None = None
    datapath_type: str = "netdev"

    @property
    def env(self) -> dict[str, str]:
        """The environment by which ovs-vsctl, ovs-ofctl and ovs-appctl reach this instance, with the mark of its processes."""
        names = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        return {**{name: str(self.dir) for name in names}, MARK: str(self.lab_dir), "PATH": tool_path()}

    @property
    def db(self) -> str:
        return f"unix:{self.dir / 'db.sock'}"

    def log(self, server: str) -> Path:
        return self.dir / f"{server}.log"

    def pid(self, server: str) -> int:
        """The process id of `ovsdb-server` or `ovs-vswitchd`; 0 when it does not run."""
        try:
            pid = int((self.dir / f"{server}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0
        return pid if alive(pid) else 0

    def create(self) -> None:
        """A new empty database."""
        self.dir.mkdir(parents=True, exist_ok=True)
        run(["ovsdb-tool", "create", str(self.dir / "conf.db"), str(SCHEMA)], env=self.env)

    def start(self) -> None:
        """Start both and wait until they answer."""
        self.start_database()
        self.vsctl("--no-wait", "init")
        self.start_vswitchd()

    def start_database(self) -> None:
        remote = f"--remote=punix:{self.dir / 'db.sock'}"
        self._start("ovsdb-server", [str(self.dir / "conf.db"), remote])
        wait_until(self._listens, f"ovsdb-server of {self.dir.name}")

    def start_vswitchd(self) -> None:
        pid = self._start("ovs-vswitchd", [self.db, *OPTIONS[self.datapath_type]])
        control = self.dir / f"ovs-vswitchd.{pid}.ctl"
        file = self.dir / "ovs-vswitchd.pid"
        wait_until(
            lambda: control.exists() and file.exists(),
            f"ovs-vswitchd of {self.dir.name}",
            pid=pid,
            log=self.log("ovs-vswitchd"),
        )
        # A change that ovs-vsctl waits for: with its answer, the database's bridges are there.
        self.vsctl("set", "open_vswitch", ".", f"external_ids:vnet-lab-vswitchd={pid}")

    def _start(self, server: str, args: Sequence[str]) -> int:
        common = [server, "--no-chdir", f"--pidfile={self.dir / server}.pid", "-vconsole:info", "-vsyslog:off"]
        return start(
            [*common, *args], log=self.log(server), env=self.env, netns=self.netns, real_time=REAL_TIME.get(server, 0)
        )

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.dir / "db.sock")) == 0

    def kill(self, server: str, sig: int = signal.SIGKILL) -> None:
        """End one server, as a crash by default."""
        if pid := self.pid(server):
            stop([pid], sig)

    @property
    def forwards(self) -> bool:
        """Whether ovs-vswitchd runs, and nobody has stopped it."""
        return (pid := self.pid("ovs-vswitchd")) != 0 and state(pid) not in "tT"

    @property
    def control(self) -> Path:
        """The socket of ovs-vswitchd for commands. Raises DaemonUnreachable."""
        return control_socket(self.dir)

    def turn(self, *command: str) -> str:
        """The answer to a command, which the main loop of ovs-vswitchd gives between two turns; nothing if it does not run."""
        try:
            return call_sync(self.control, *(command or ("version",)), timeout_s=ANSWER_TIMEOUT_S)
        except AppctlError:
            return ""

    def vsctl(self, *args: str) -> str:
        return run(["ovs-vsctl", f"--db={self.db}", "--timeout=60", *args], env=self.env)

    def appctl(self, *args: str) -> str:
        return run(["ovs-appctl", "--timeout=60", *args], env=self.env)

    def ofctl(self, *args: str) -> str:
        return run(["ovs-ofctl", "--timeout=60", "-O", "OpenFlow15", *args], env=self.env)
