"""The controller's own pool database: one ovsdb-server on a file, which outlives the controller.

One rule: whoever comes finds it by its socket and control socket; nobody starts a second one on the same file.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ovsctl.ovsdb import BadRemote, Tls, check_passive
from vnet.api.errors import Invalid
from vnet.controller import role_remotes
from vnet.controller.file_check import check_file
from vnet.controller.server_proxy import ServerProxy, shown_address
from vnet.db.database import check_version
from vnet.db.errors import PoolUnreachable
from vnet.db.rows import SCHEMA_NAME, SCHEMA_TEXT
from vnet.util.transport import listening_socket, passive_address

DATABASE = "pool.db"  # the file
START_TIMEOUT_S = 10.0
CLUSTER_MAGIC = b"OVSDB CLUSTER"  # how the file of a clustered database begins, ovsdb(5)


@dataclass(frozen=True, slots=True)
class EmbeddedDatabase:
    """Where the database and its server are.

    listen: further remotes, as pssl:6640:10.0.0.1, whose clients by TLS are hosts and may do what hosts may. controllers: those where
    everything may be done, and at pssl: servers alone are let in. tls: the server's identity, which pssl: and ssl: need. sources: of a relay, the
    servers that it forwards to. address: of a cluster's server, as its file has it; peers: those that it asks to be let in, as ssl:IP:PORT.
    """

    run_dir: Path
    state_dir: Path
    listen: tuple[str, ...] = ()
    controllers: tuple[str, ...] = ()
    tls: Tls | None = None
    sources: tuple[str, ...] = ()
    address: str = ""
    peers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises Invalid for what no server can listen on."""
        for remote in self.listen + self.controllers:
            try:
                check_passive(remote)
            except BadRemote as error:
                raise Invalid("pool-listen", f"where the pool database listens: {error}", "pool-listen") from None

    @property
    def database(self) -> Path:
        return self.state_dir / DATABASE

    @property
    def remotes(self) -> Path:
        """The database of this server's sockets, made anew at each start of the server."""
        return self.run_dir / "remotes.db"

    @property
    def socket(self) -> Path:
        return self.run_dir / "pool.sock"

    @property
    def control(self) -> Path:
        return self.run_dir / "pool.ctl"

    @property
    def pidfile(self) -> Path:
        return self.run_dir / "pool.pid"

    @property
    def log(self) -> Path:
        return self.state_dir / "pool.log"

    @property
    def remote(self) -> str:
        return f"unix:{self.socket}"

    def ensure(self) -> bool:
        """Have the server running: find it, or create, convert and start. Whether it was started now.

        Raises SchemaMismatch for a file of a newer schema, DamagedDatabase, PoolUnreachable if the server does not come up.
        """
        if self._answers():
            self._add_remotes()
            with self.alone():
                self.proxy.ensure()
            return False
        with self.alone():
            if self._answers():  # another controller was quicker
                return False
            self.prepare_file()
            self.start()
        return True

    @property
    def clustered(self) -> bool:
        """Whether the file is that of a cluster's server."""
        try:
            with self.database.open("rb") as file:
                return file.read(len(CLUSTER_MAGIC)) == CLUSTER_MAGIC
        except FileNotFoundError:
            return False

    def stop(self) -> None:
        """Have the server end, with all that it acknowledged on disk; does nothing where none runs."""
        self.proxy.stop()
        pid = self.pid()
        if not self._answers() or pid is None:
            return
        run_tool("ovs-appctl", "-t", str(self.control), "exit")
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.pidfile.exists() or self._answers():
            if time.monotonic() > deadline:
                raise PoolUnreachable(f"ovsdb-server {pid} does not end; see {self.log}")
            time.sleep(0.01)

    def pid(self) -> int | None:
        """The server's process id, as it wrote it."""
        try:
            return int(self.pidfile.read_text())
        except (OSError, ValueError):
            return None

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(str(self.socket)) == 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, nobody else makes, converts or starts this database. Makes its directories."""
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        with (self.run_dir / "pool.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def prepare_file(self) -> None:
        """Create the file, or bring its schema up to ours with a copy of the old one kept beside it.

        A cluster's schema is that of all its servers: a controller converts it while they run. Raises DamagedDatabase, SchemaMismatch.
        """
        if self.database.exists() and not self.sources:
            check_file(self.database, clustered=self.clustered)
        if self.clustered or self.sources:
            return
        schema = self.run_dir / "vnet.ovsschema"
        schema.write_text(SCHEMA_TEXT)
        if not self.database.exists():
            run_tool("ovsdb-tool", "create", str(self.database), str(schema))
            return
        version = run_tool("ovsdb-tool", "db-version", str(self.database)).strip()
        if check_version(tuple(int(part) for part in version.split("."))):
            return
        shutil.copy2(self.database, self.database.with_suffix(f".db.{version}"))
        run_tool("ovsdb-tool", "convert", str(self.database), str(schema))

    def start(self) -> None:
        """Start the server as a process of its own (--detach): our end is not its end."""
        plain = [f"--remote={remote}" for remote in self.listen if not remote.startswith("pssl:")]
        self._check_free()
        self._prepare_remotes()
        self.proxy.ensure()
        run_tool(
            "ovsdb-server",
            "--detach",
            "--no-chdir",
            f"--pidfile={self.pidfile}",
            f"--unixctl={self.control}",
            f"--log-file={self.log}",
            "-vconsole:err",
            "-vsyslog:off",
            f"--remote=p{self.remote}",
            *plain,
            f"--remote={role_remotes.REMOTE}",
            *tls_options(self.tls),  # it reads the files again when they are replaced
            f"relay:{SCHEMA_NAME}:{','.join(self.sources)}" if self.sources else str(self.database),
            str(self.remotes),
            env={"OVS_RUNDIR": str(self.run_dir)},  # where it looks for the sockets of a cluster's servers
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise PoolUnreachable(f"ovsdb-server does not listen on {self.socket}; see {self.log}")
            time.sleep(0.01)

    def _check_free(self) -> None:
        """Raises PoolUnreachable for an address that is somebody else's: the server would serve without it, and say so in its log alone."""
        for remote in (*self.listen, *self._plain_controllers):
            if remote.startswith(("ptcp:", "pssl:")):
                try:
                    listening_socket(*passive_address(remote)).close()
                except OSError as error:
                    raise PoolUnreachable(f"pool database: {error.strerror}") from None

    def _prepare_remotes(self) -> None:
        schema = self.run_dir / "remotes.ovsschema"
        schema.write_text(role_remotes.schema_text())
        self.remotes.unlink(missing_ok=True)
        run_tool("ovsdb-tool", "create", str(self.remotes), str(schema))
        run_tool("ovsdb-tool", "transact", str(self.remotes), self._listening())

    def _listening(self) -> str:
        return role_remotes.transaction([it for it in self.listen if it.startswith("pssl:")], self._plain_controllers)

    @property
    def _plain_controllers(self) -> list[str]:
        return [remote for remote in self.controllers if not remote.startswith("pssl:")]

    @property
    def proxy(self) -> ServerProxy:
        """What stands between its sockets for servers and other machines."""
        secure = tuple(remote for remote in self.controllers if remote.startswith("pssl:"))
        address = shown_address(self.address)
        cluster = (address, address != self.address) if address.startswith("ssl:") else ("", False)
        peers = tuple(peer for peer in self.peers if peer.startswith("ssl:"))
        return ServerProxy(
            self.run_dir, self.state_dir / "server-proxy.log", SCHEMA_NAME, self.tls, secure, *cluster, peers
        )

    def _add_remotes(self) -> None:
        """Has a server that runs listen where it is to."""
        if role_remotes.DATABASE not in self._ask("list-dbs").split():  # an earlier version started it
            self._prepare_remotes()
            self._ask("add-db", str(self.remotes))
        known = self._ask("list-remotes").split()
        for remote in self.listen:
            if not remote.startswith("pssl:"):
                self._ask("add-remote", remote)
            elif remote in known:  # without a role, from an earlier version
                self._ask("remove-remote", remote)
        if role_remotes.REMOTE not in known:
            self._ask("add-remote", role_remotes.REMOTE)
        run_tool("ovsdb-client", "-t", "10", "transact", self.remote, self._listening())

    def reconnect(self) -> None:
        """Have every client connect anew, and show its certificate."""
        self._ask("reconnect")

    def _ask(self, command: str, *arguments: str) -> str:
        return run_tool("ovs-appctl", "-t", str(self.control), f"ovsdb-server/{command}", *arguments)


def tls_options(tls: Tls | None) -> tuple[str, ...]:
    """The options of Open vSwitch's tools for an identity."""
    if tls is None:
        return ()
    return f"--private-key={tls.private_key}", f"--certificate={tls.certificate}", f"--ca-cert={tls.ca_certificate}"


def run_tool(*command: str, stdin: Path = Path(os.devnull), env: Mapping[str, str] | None = None) -> str:
    """What a tool of Open vSwitch printed; raises PoolUnreachable with what it said if it failed. stdin: the file it reads.

    env: what is added to the environment.
    """
    # Sockets, logs and the database are for their owner alone.
    try:
        with stdin.open() as source:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
                umask=0o077,
                stdin=source,
                env={**os.environ, "LC_ALL": "C", **(env or {})},
            )
    except FileNotFoundError as error:
        if error.filename != command[0]:
            raise
        raise PoolUnreachable(f"{command[0]} is not installed: apt-get install openvswitch-common") from None
    if done.returncode:
        raise PoolUnreachable(f"{command[0]} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
