"""The TLS of a pool database's server towards other servers and controllers: it ends at a process of its own, which lets in servers alone.

One rule: what comes from another machine passes only with a server's certificate of the pool's CA. ovsdb-server has one CA for all its sockets and
asks no more of a certificate, so it would let hosts in (docs/adr/0036-servers-have-a-door-of-their-own.md). Until it has shown one it is a stranger, of
whom there are few at a time.

```
other servers, controllers --TLS--> ServerProxy --unix socket--> ovsdb-server
ovsdb-server --unix socket--> ServerProxy --TLS--> other servers
```
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from ovsctl.appctl import Appctl, AppctlError
from ovsctl.ovsdb import Remote, Tls
from vnet.controller.pki import is_server
from vnet.db.errors import PoolUnreachable
from vnet.util.repeated_lines import RepeatedLines
from vnet.util.shown_certificate import ShownCertificate
from vnet.util.transport import listening_socket, passive_address

log = logging.getLogger("vnet.controller.server_proxy")

DIRECTORY = "servers"  # in a server's run directory: a unix socket for each server of the cluster
LOOK_S = 1.0
ALONE_S = 30.0  # the proxy ends when no ovsdb-server was there for so long
STRANGERS = 100
HANDSHAKE_S = 10.0
SHORT_S = 0.5  # to the next try, where a connection could not be accepted
BIND_S = 3.0  # an ovsdb-server that listened there itself needs a moment to let go
START_S = 20.0
CHUNK_BYTES = 256 * 1024
# It runs this very code, wherever that lies: a package's programs read no other.
CODE = (
    "import json, sys; given = json.load(sys.stdin); sys.path[:] = given['path']; "
    "from vnet.controller.server_proxy import main; main(given['lock'], given['wanted'], given['peers'])"
)
_SERVERS = re.compile(r"^    \S+ \(\w+ at (\S+)\)", re.MULTILINE)


def socket_address(address: str) -> str:
    """The address of a cluster's server in the database's file, for one at which other machines reach it by TLS: ssl:IP:PORT.

    It is a path below each machine's own run directory, so it is the same at all of them. It has no dots: up to the first one Open vSwitch takes it
    for the server's short name. Other addresses are what they are.
    """
    return (
        f"unix:{DIRECTORY}/{address.removeprefix('ssl:').replace('.', '-')}" if address.startswith("ssl:") else address
    )


def shown_address(address: str) -> str:
    """The address at which other machines reach a server, of its address in the database's file."""
    prefix = f"unix:{DIRECTORY}/"
    return f"ssl:{address.removeprefix(prefix).replace('-', '.')}" if address.startswith(prefix) else address


@dataclass(frozen=True, slots=True)
class ServerProxy:
    """run_dir: the server's. log: the file. database: its name. tls: the server's identity, None for a server that nobody reaches by TLS.

    controllers: where it listens for controllers and relays, as pssl:6641:10.0.0.1. address: the server's own in its cluster, as ssl:IP:PORT, "" without
    one. listens: whether it listens there, too; ovsdb-server does itself where an earlier version made the server. peers: servers of the cluster that
    this one asks to be let in.
    """

    run_dir: Path
    log: Path
    database: str
    tls: Tls | None
    controllers: tuple[str, ...] = ()
    address: str = ""
    listens: bool = True
    peers: tuple[str, ...] = ()

    @property
    def needed(self) -> bool:
        return self.tls is not None and bool(self.controllers or self.address)

    @property
    def _lock(self) -> Path:
        """What runs: its process, and on the next line for what. It is locked as long as it runs."""
        return self.run_dir / "server-proxy.lock"

    def ensure(self) -> None:
        """Have it run as it is described here, or not at all where it is not needed. Raises PoolUnreachable where it cannot listen.

        Nobody else may do so meanwhile.
        """
        if not self.needed:
            self.stop()
            return
        # Not the peers: they matter until the server is let in, and a proxy that is started again cuts off who comes by it.
        wanted = json.dumps({name: _plain(value) for name, value in asdict(replace(self, peers=())).items()})
        if self._running() == wanted:
            return
        self.stop()
        (self.run_dir / DIRECTORY).mkdir(exist_ok=True, mode=0o700)
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._start(lock, wanted)
        finally:
            os.close(lock)

    def _start(self, lock: int, wanted: str) -> None:
        command = [sys.executable, "-P", "-c", CODE, "vnet-server-proxy", str(self.run_dir)]
        given = json.dumps({"path": sys.path, "lock": lock, "wanted": wanted, "peers": self.peers})
        with self.log.open("wb") as output:
            done = subprocess.run(
                command, input=given.encode(), stdout=output, stderr=output, check=False, pass_fds=(lock,),
                umask=0o077, start_new_session=True, timeout=START_S,
            )  # fmt: skip
        if done.returncode:
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise PoolUnreachable(said[-1] if said else f"the server's proxy ended with {done.returncode}")

    def stop(self) -> None:
        """Have it end. Returns once its sockets are closed; does nothing where none runs."""
        while self._running() is not None:
            with suppress(ProcessLookupError):
                if (pid := self.pid) is not None:
                    os.killpg(pid, signal.SIGTERM)
            time.sleep(0.01)

    @property
    def pid(self) -> int | None:
        """Its process, which leads a group of its own; None before it has one."""
        try:
            return int(self._lock.read_text().partition("\n")[0])
        except (FileNotFoundError, ValueError):
            return None

    def _running(self) -> str | None:
        """For what it runs; None where it does not."""
        try:
            with self._lock.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return self._lock.read_text().partition("\n")[2]
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def _described(text: str) -> tuple[ServerProxy, Tls]:
    given = json.loads(text)
    key, certificate, ca = (Path(given["tls"][name]) for name in ("private_key", "certificate", "ca_certificate"))
    tls = Tls(key, certificate, ca)
    given |= {"run_dir": Path(given["run_dir"]), "log": Path(given["log"]), "tls": tls}
    return ServerProxy(**given | {"controllers": tuple(given["controllers"])}), tls


def main(lock: int, wanted: str, peers: Iterable[str]) -> None:
    """The process: it listens, or says why it cannot, goes into the background, and starts its work again if that should die.

    lock: the descriptor of the locked file. wanted: the proxy without its peers, as JSON.
    """
    proxy, tls = _described(wanted)
    proxy = replace(proxy, peers=tuple(peers))
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    log.addFilter(RepeatedLines())  # strangers may cause as many as they like
    try:
        shown = ShownCertificate(tls.certificate, tls.ca_certificate)
        listening = [(_bound(remote), proxy.run_dir / "pool.sock") for remote in proxy.controllers]
        if proxy.address and proxy.listens:
            target = proxy.run_dir / socket_address(proxy.address).removeprefix("unix:")
            listening.append((_bound(_passive(proxy.address)), target))
    except (OSError, ValueError) as error:
        sys.exit(getattr(error, "strerror", None) or str(error))
    if pid := os.fork():
        os.pwrite(lock, f"{pid}\n{wanted}".encode(), 0)  # by the one that is waited for
        os._exit(0)
    os.setsid()
    while True:
        worker = os.fork()
        if not worker:
            asyncio.run(_Work(proxy, tls, shown).run(listening))
            return
        _, status = os.waitpid(worker, 0)
        if not status:
            return
        log.error("the proxy's process ended with %s: it is started again", os.waitstatus_to_exitcode(status))
        time.sleep(LOOK_S)


def _passive(address: str) -> str:
    """Where the server at an address listens."""
    remote = Remote.parse(address)
    return f"pssl:{remote.port}:{f'[{remote.host}]' if ':' in remote.host else remote.host}"


def _bound(remote: str) -> socket.socket:
    """A socket for pssl:PORT[:IP]. Raises OSError that names it."""
    deadline = time.monotonic() + BIND_S
    while True:
        try:
            return listening_socket(*passive_address(remote))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Strangers:
    """The connections that have shown no server's certificate yet, those that came first in front; at most so many.

    One more takes the place of the first from the address that has most of them, so who comes in masses is in nobody's way but its own.
    """

    def __init__(self, most: int = STRANGERS) -> None:
        self._most: Final = most
        self._held: Final[dict[asyncio.Task[None], str]] = {}  # the addresses

    def enter(self, connection: asyncio.Task[None], address: str) -> None:
        if len(self._held) >= self._most:
            ((crowd, number),) = Counter(self._held.values()).most_common(1)
            first = next(each for each, whose in self._held.items() if whose == crowd)
            self.leave(first)
            first.cancel()
            log.warning(
                "%s connections show no certificate, %s of them from %s: its first one is ended",
                self._most,
                number,
                crowd,
            )
        self._held[connection] = address
        connection.add_done_callback(self.leave)

    def leave(self, connection: asyncio.Task[None] | None) -> None:
        if connection is not None:
            self._held.pop(connection, None)


class _Work:
    """Connections both ways, and the sockets by which ovsdb-server reaches the others, which come and go with the cluster's servers."""

    def __init__(self, proxy: ServerProxy, tls: Tls, shown: ShownCertificate) -> None:
        self._proxy: Final = proxy
        self._tls: Final = tls
        self._shown: Final = shown
        self._ways: Final[dict[str, asyncio.Server]] = {}  # to other servers, by their address
        self._strangers: Final = Strangers()
        self._begun: Final[set[asyncio.Task[None]]] = set()
        self._seen = time.monotonic()

    async def run(self, listening: Iterable[tuple[socket.socket, Path]]) -> None:
        """Ends when ovsdb-server was away for long."""
        asyncio.get_running_loop().set_exception_handler(_tell)
        for bound, target in listening:
            self._begin(self._accept(bound, target))
        for peer in self._proxy.peers:
            await self._open_way(peer)
        while time.monotonic() - self._seen < ALONE_S:
            if _is_alive(self._proxy.run_dir / "pool.pid"):
                self._seen = time.monotonic()
                if self._proxy.address:
                    await self._follow_cluster()
            await asyncio.sleep(LOOK_S)

    async def _follow_cluster(self) -> None:
        """A way to each other server of the cluster; one that is not let in yet knows of none, and keeps what it has."""
        control = Appctl(self._proxy.run_dir / "pool.ctl", timeout_s=5.0)
        try:
            known = {
                shown_address(each)
                for each in _SERVERS.findall(await control.call("cluster/status", self._proxy.database))
            }
        except AppctlError:
            return
        others = {address for address in known if address.startswith("ssl:")} - {self._proxy.address}
        for address in others - self._ways.keys():
            await self._open_way(address)
        if self._proxy.address in known:
            for address in self._ways.keys() - others:
                self._ways.pop(address).close()

    async def _open_way(self, address: str) -> None:
        path = self._proxy.run_dir / socket_address(address).removeprefix("unix:")
        path.unlink(missing_ok=True)
        self._ways[address] = await asyncio.start_unix_server(self._to_outside(address), path)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return task

    async def _accept(self, bound: socket.socket, target: Path) -> None:
        """Accepts by itself: asyncio's own accepting bounds nothing, and logs all that fail at once where descriptors are short."""
        bound.setblocking(False)
        while True:
            try:
                accepted, peer = await asyncio.get_running_loop().sock_accept(bound)
            except OSError as error:
                log.warning("no connection can be accepted: %s", error)
                await asyncio.sleep(SHORT_S)
                continue
            self._strangers.enter(self._begin(self._from_outside(accepted, peer[0], target)), peer[0])
            await asyncio.sleep(0)  # accepting waits for nothing while there are more, and others have their turns

    async def _from_outside(self, accepted: socket.socket, address: str, target: Path) -> None:
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=CHUNK_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, accepted, ssl=self._shown.context, ssl_handshake_timeout=HANDSHAKE_S
            )
        except OSError as error:  # of TLS too
            log.warning("no TLS with %s: %s", address, error)
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        if not is_server(transport.get_extra_info("ssl_object").getpeercert(binary_form=True)):
            log.warning("refused a certificate that is no server's: %s from %s", _subject(writer), address)
            transport.abort()
            return
        self._strangers.leave(asyncio.current_task())
        await _joined(reader, writer, asyncio.open_unix_connection(target, limit=CHUNK_BYTES))

    def _to_outside(self, address: str) -> Any:
        remote = Remote.parse(address)

        async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                context = self._tls.context()  # the files are read anew for each connection
            except OSError as error:
                log.error("no TLS to %s: %s", address, error)
                writer.transport.abort()
                return
            connecting = asyncio.open_connection(
                remote.host, remote.port, ssl=context, ssl_handshake_timeout=HANDSHAKE_S, limit=CHUNK_BYTES
            )
            await _joined(reader, writer, connecting)

        return call


def _subject(writer: asyncio.StreamWriter) -> str:
    subject = dict(part[0] for part in writer.get_extra_info("peercert")["subject"])
    return str(subject.get("commonName", "?"))


async def _joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connecting: Any) -> None:
    """Carries bytes both ways until either side ends; then both do."""
    try:
        far_reader, far_writer = await connecting
    except (OSError, TimeoutError) as error:
        log.warning("no connection: %s", error)
        writer.transport.abort()
        return
    ways = [asyncio.create_task(_carry(reader, far_writer)), asyncio.create_task(_carry(far_reader, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for each in (writer, far_writer):
            each.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


def _is_alive(pidfile: Path) -> bool:
    try:
        os.kill(int(pidfile.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def _tell(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A handshake that failed is a line, not a traceback."""
    error = context.get("exception")
    if not isinstance(error, ssl.SSLError | OSError):
        log.error("%s: %r", context.get("message"), error)
        return
    log.warning("%s: %s", context.get("message"), error)
