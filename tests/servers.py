"""Real ovsdb-server and ovs-vswitchd processes for tests, each in a directory of its own.

The one rule: whatever is started here ends with the test, also when the test run itself is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.polling import wait_until

if TYPE_CHECKING:
    from tests.forked import Forked

VSWITCH_SCHEMA = Path(os.environ.get("OVS_PKGDATADIR", "/usr/share/openvswitch")) / "vswitch.ovsschema"
START_TIMEOUT_S = 20.0
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that made it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _leave_netns() -> None:
    """Into a network namespace of one's own, which ends with its last process. Needs root."""
    if _LIBC.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")


def spawn(
    args: Sequence[str | Path],
    *,
    log: Path,
    env: dict[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that dies with us; `prepare` runs in the child before exec."""

    def in_child() -> None:
        die_with_parent()
        if prepare is not None:
            prepare()

    with log.open("ab") as out:
        return subprocess.Popen(
            [str(arg) for arg in args],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(env or {})},
            preexec_fn=in_child,  # noqa: PLW1509 - no other threads matter to a test's child
        )


def end(process: subprocess.Popen[bytes] | Forked, sig: int = signal.SIGKILL) -> None:
    """Stop one process by its pid and reap it."""
    if process.poll() is None:
        process.send_signal(sig)
        if sig != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)  # a stopped process ends only by SIGKILL
    process.wait(timeout=START_TIMEOUT_S)


def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def run_dir() -> Iterator[Path]:
    """A fresh directory, short enough for unix socket paths; removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="ovs-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_schema(path: Path, schema: dict[str, Any] | Path) -> Path:
    """The schema as a file: `schema` itself where it is one, else `path` written from it."""
    if isinstance(schema, Path):
        return schema
    path.write_text(json.dumps(schema))
    return path


@dataclass
class OvsdbServer:
    """One ovsdb-server process on one database file. `remote` is what a client connects to."""

    dir: Path
    database: Path
    name: str
    options: tuple[str, ...] = ()
    prepare: Callable[[], None] | None = None
    socket_name: str = "db.sock"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def socket(self) -> Path:
        return self.dir / self.socket_name

    @property
    def remote(self) -> str:
        return f"unix:{self.socket}"

    @property
    def control(self) -> Path:
        return self.dir / f"{self.socket_name}.ctl"

    @property
    def log(self) -> Path:
        return self.dir / f"{self.socket_name}.log"

    @property
    def env(self) -> dict[str, str]:
        return {name: str(self.dir) for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")}

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self.process = spawn(
            [
                "ovsdb-server",
                "--no-chdir",
                f"--unixctl={self.control}",
                f"--remote=punix:{self.socket}",
                "-vconsole:info",
                *self.options,
                self.database,
            ],
            log=self.log,
            env=self.env,
            prepare=self.prepare,
        )
        wait_until(self._listens, f"ovsdb-server on {self.socket}")

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"ovsdb-server ended at start: {self.log.read_text()}")
        with socket.socket(socket.AF_UNIX) as probe:
            return self.control.exists() and probe.connect_ex(str(self.socket)) == 0

    def stop(self, sig: int = signal.SIGKILL) -> None:
        """Stop it; SIGKILL is a crash, SIGTERM a clean end. Does nothing when it is not running."""
        if self.process is not None:
            end(self.process, sig)
            self.process = None
        for left in (self.socket, self.control):
            left.unlink(missing_ok=True)

    def restart(self, sig: int = signal.SIGKILL) -> None:
        self.stop(sig)
        self.start()

    def pause(self) -> None:
        """Stop it from running (SIGSTOP): connections stay, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def appctl(self, *args: str) -> str:
        return run("ovs-appctl", "-t", str(self.control), *args, env=self.env)

    def client(self, command: str, *args: str, options: Sequence[str] = ()) -> str:
        """`ovsdb-client COMMAND REMOTE ARGS...`, its standard output."""
        return run("ovsdb-client", *options, command, self.remote, *args, env=self.env)

    def vsctl(self, *args: str) -> str:
        return run("ovs-vsctl", f"--db={self.remote}", *args, env=self.env)


def run(*args: str, env: dict[str, str] | None = None) -> str:
    """A command's standard output; CalledProcessError with its stderr as a note if it fails."""
    done = subprocess.run(
        args, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, args, done.stdout, done.stderr)
        error.add_note(done.stderr)
        raise error
    return done.stdout


@contextlib.contextmanager
def ovsdb_server(
    schema: dict[str, Any] | Path = VSWITCH_SCHEMA,
    *,
    options: Sequence[str] = (),
    prepare: Callable[[], None] | None = None,
) -> Iterator[OvsdbServer]:
    """A running standalone ovsdb-server on a new database of `schema`."""
    with run_dir() as path:
        file = write_schema(path / "schema.json", schema)
        database = path / "conf.db"
        run("ovsdb-tool", "create", str(database), str(file))
        server = OvsdbServer(path, database, json.loads(file.read_text())["name"], tuple(options), prepare)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@dataclass
class OvsdbCluster:
    """Several ovsdb-servers with one RAFT database."""

    servers: list[OvsdbServer]
    name: str

    @property
    def remotes(self) -> list[str]:
        return [server.remote for server in self.servers]

    def status(self, server: OvsdbServer) -> str:
        return server.appctl("cluster/status", self.name)

    def leader(self) -> OvsdbServer | None:
        for server in self.servers:
            if server.process is not None and "Role: leader" in self.status(server):
                return server
        return None

    def wait_leader(self) -> OvsdbServer:
        """The leader, once a majority has chosen one."""
        found: list[OvsdbServer] = []

        def elected() -> bool:
            leader = self.leader()
            found[:] = [leader] if leader else []
            return bool(found)

        wait_until(elected, f"a leader of {self.name}")
        return found[0]

    def followers(self) -> list[OvsdbServer]:
        leader = self.wait_leader()
        return [server for server in self.servers if server is not leader and server.process is not None]

    def stop(self) -> None:
        for server in self.servers:
            server.stop()


@contextlib.contextmanager
def ovsdb_cluster(
    schema: dict[str, Any] | Path = VSWITCH_SCHEMA,
    *,
    size: int = 3,
    election_timer_ms: int = 1000,
    places: Sequence[tuple[str, Callable[[], None] | None]] = (),
) -> Iterator[OvsdbCluster]:
    """A running RAFT cluster of `size` servers that all have joined.

    places: for each server its address and what takes its process to where that is; on loopback if not given.
    """
    with run_dir() as path:
        file = write_schema(path / "schema.json", schema)
        name = json.loads(file.read_text())["name"]
        chosen = places or [(f"tcp:127.0.0.1:{free_port()}", None) for _ in range(size)]
        cluster = OvsdbCluster([], name)
        try:
            for index, (raft, prepare) in enumerate(chosen):
                database = path / f"{index}.db"
                if index == 0:
                    timer = f"--election-timer={election_timer_ms}"
                    run("ovsdb-tool", timer, "create-cluster", str(database), str(file), raft)
                else:
                    run("ovsdb-tool", "join-cluster", str(database), name, raft, chosen[0][0])
                server = OvsdbServer(path, database, name, prepare=prepare, socket_name=f"{index}.sock")
                cluster.servers.append(server)
                server.start()
                run("ovsdb-client", "-t", "20", "wait", server.remote, name, "connected", env=server.env)
            yield cluster
        finally:
            cluster.stop()


@dataclass
class Vswitchd:
    """An ovs-vswitchd on `server`'s Open_vSwitch database; `own_netns` keeps its devices off this machine's."""

    server: OvsdbServer
    dummy: bool = True
    own_netns: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def control(self) -> Path:
        return self.server.dir / "vswitchd.ctl"

    @property
    def log(self) -> Path:
        return self.server.dir / "vswitchd.log"

    def start(self) -> None:
        kind = ("--enable-dummy=system", "--disable-system") if self.dummy else ()
        self.process = spawn(
            [
                "ovs-vswitchd",
                "--no-chdir",
                f"--unixctl={self.control}",
                "-vconsole:warn",
                *kind,
                self.server.remote,
            ],
            log=self.log,
            env=self.server.env,
            prepare=_leave_netns if self.own_netns else None,
        )
        wait_until(self._answers, "ovs-vswitchd")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"ovs-vswitchd ended at start: {self.log.read_text()}")
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.control)) == 0

    def stop(self, sig: int = signal.SIGKILL) -> None:
        if self.process is not None:
            end(self.process, sig)
            self.process = None
        self.control.unlink(missing_ok=True)

    def appctl(self, *args: str) -> str:
        return run("ovs-appctl", "-t", str(self.control), *args, env=self.server.env)

    def ofctl(self, *args: str) -> str:
        """`ovs-ofctl` in this instance's directory, OpenFlow 1.5."""
        return run("ovs-ofctl", "-O", "OpenFlow15", *args, env=self.server.env)


@contextlib.contextmanager
def vswitchd(*, dummy: bool = True, own_netns: bool = False, options: Sequence[str] = ()) -> Iterator[Vswitchd]:
    """A running ovsdb-server with an ovs-vswitchd; `dummy` keeps it away from the kernel (rootless). options: of ovsdb-server."""
    with ovsdb_server(options=options) as server:
        server.vsctl("--no-wait", "init")
        switch = Vswitchd(server, dummy, own_netns)
        try:
            switch.start()
            yield switch
        finally:
            switch.stop()
