"""The controller as a daemon: options in, a controller that serves until it is told to stop.

One rule: it keeps nothing of its own. Killed and started again, it finds its database running and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from ovsctl.ovsdb import Tls
from vnet import VERSION
from vnet.api.errors import Invalid, Refused
from vnet.controller.access import Access
from vnet.controller.app import application
from vnet.controller.backup import BackupSource, keep_copy
from vnet.controller.connections import Connections, Standing
from vnet.controller.embedded import EmbeddedDatabase
from vnet.controller.event_delivery import EventDelivery, EventReceiver, receiver_of
from vnet.controller.joining import Joining
from vnet.controller.leader import Leader
from vnet.controller.service import Service
from vnet.controller.sockets import Listen, Server
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.errors import DamagedDatabase, PoolUnreachable
from vnet.db.history import KEPT, KEPT_BYTES
from vnet.util.exposition import measure_lag
from vnet.util.repeated_lines import RepeatedLines
from vnet.util.sd_notify import sd_notify
from vnet.util.service_status import LOOK_S, Obstacle, ServiceStatus
from vnet.util.shown_certificate import ShownCertificate
from vnet.util.transport import CA, PKI_DIR, SERVER, check_cleartext, identity_file, read_secret, tls_for

log = logging.getLogger("vnet.controller")

RETRY_S = 1.0
CONNECT_S = 2.0
FIRST_COPY_S, COPY_EVERY_S = 60.0, 3600.0
CERTIFICATES_S = 3600.0


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """pool: the pool database's remotes, none for one of our own. pool_listen: further sockets of our own database, for hosts;
    pool_listen_controllers: for other controllers and relays. token_file: a token that may do everything, besides those of the pool.
    identity_header: in which a reverse proxy names its user. server_names: further names by which the API is reached.

    cleartext: whether connections off loopback may do without TLS. events_to: where events are sent, by whoever leads; events_key_file, events_ca: of webhooks, the key
    that signs, and the CA of their servers. history_records, history_mib: how many revisions, and as many steps, are kept, and MiB of changes in all.
    """

    pool: tuple[str, ...] = ()
    run_dir: Path = Path("/run/vnet")
    state_dir: Path = Path("/var/lib/vnet")
    pool_listen: tuple[str, ...] = ()
    pool_listen_controllers: tuple[str, ...] = ()
    listen: tuple[str, ...] = ()
    token_file: Path | None = None
    identity_header: str = ""
    server_names: tuple[str, ...] = ()
    pki_dir: Path = PKI_DIR
    cleartext: bool = False
    events_to: tuple[str, ...] = ()
    events_key_file: Path | None = None
    events_ca: Path | None = None
    history_records: int = KEPT
    history_mib: int = KEPT_BYTES // 2**20


def main(options: ControllerOptions) -> None:
    """Serves until SIGTERM or SIGINT. A pool database that is away is waited for.

    Raises Invalid, TransportError, BadRemote, SchemaMismatch, OSError if it cannot start.
    """
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    for name in ("uvicorn.error", "asyncio", "vnet.controller.sockets"):
        logging.getLogger(name).addFilter(RepeatedLines())  # strangers may cause as many as they like
    asyncio.run(_run(options))


async def _run(options: ControllerOptions) -> None:
    listens = [Listen.parse(text) for text in options.listen] or [Listen(options.run_dir / "controller.sock")]
    token = read_secret(options.token_file, "token file") if options.token_file is not None else None
    for listen in listens:
        listen.check(options.cleartext)
    shown_file = identity_file(options.pki_dir, SERVER)
    shown = ShownCertificate(shown_file) if any(listen.secure for listen in listens) else None
    remotes = options.pool + options.pool_listen + options.pool_listen_controllers
    check_cleartext(remotes, options.cleartext)
    tls = tls_for(remotes, options.pki_dir, SERVER)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    receivers = [
        receiver_of(text, options.events_key_file, options.events_ca, options.cleartext) for text in options.events_to
    ]
    options.run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    embedded = None
    if not options.pool:
        sockets = (options.pool_listen, options.pool_listen_controllers)
        embedded = EmbeddedDatabase(options.run_dir, options.state_dir, *sockets, tls)
    if embedded is not None and embedded.clustered:
        raise Invalid("pool", f"{embedded.database} is of a cluster: name its servers with --pool (docs/cluster.md)")
    status = ServiceStatus()
    database = await _connected(options.pool, embedded, tls, status, stop)
    if database is None:
        return
    joining = Joining(options.pki_dir, _url(listens), _remotes(options.pool_listen))
    try:
        access = Access(lambda: database.mirror.tokens, token, options.identity_header.lower())
        names = _server_names(options, listens)
        source = BackupSource(database.remotes, tls if embedded is None else None)
        copies = source, options.state_dir
        leader = Leader(database, kept=options.history_records, kept_bytes=options.history_mib * 2**20)
        await _serve(
            database, embedded, leader, listens, (access, names), shown, joining, copies, receivers, status, stop
        )
    finally:
        await database.close()
    log.info("controller stopped")


async def _connected(
    remotes: tuple[str, ...],
    embedded: EmbeddedDatabase | None,
    tls: Tls | None,
    status: ServiceStatus,
    stop: asyncio.Event,
) -> PoolDatabase | None:
    """The database, once it answers, also our own, which is started where it does not run; None if we are stopped before."""
    while not stop.is_set():
        database = PoolDatabase((embedded.remote,) if embedded is not None else remotes, convert=True, tls=tls)
        try:
            started = embedded is not None and await asyncio.to_thread(embedded.ensure)
            await database.open(CONNECT_S)
        except PoolUnreachable as error:
            status.show(Obstacle("pool database", str(error)))
            await _sleep(stop, RETRY_S)
        else:
            if embedded is not None:
                log.info("%s the pool database, process %s", "started" if started else "found", embedded.pid())
            return database
    return None


async def _serve(
    database: PoolDatabase,
    embedded: EmbeddedDatabase | None,
    leader: Leader,
    listens: list[Listen],
    doors: tuple[Access, frozenset[str]],
    shown: ShownCertificate | None,
    joining: Joining,
    copies: tuple[BackupSource, Path],
    receivers: Sequence[EventReceiver],
    status: ServiceStatus,
    stop: asyncio.Event,
) -> None:
    pki_dir = joining.directory
    service = Service(database, VERSION, lambda: _certificate_problems(pki_dir), joining, pki_dir)
    sockets = [(listen, listen.bind()) for listen in listens]
    connections = Connections()
    servers = [_server(service, listen, made, connections, doors, shown) for listen, made in sockets]
    jobs = [asyncio.create_task(server.serve()) for server in servers]
    service.metrics.leads = lambda: leader.leads
    service.metrics.connections = connections.counts
    duties = [asyncio.create_task(leader.run()), asyncio.create_task(_keep_certificates(pki_dir, embedded))]
    keeper = _Keeper(embedded, database) if embedded is not None else None
    if keeper is not None:
        duties.append(asyncio.create_task(keeper.run()))
    duties.append(asyncio.create_task(service.refused_calls.run()))
    duties.append(asyncio.create_task(measure_lag(service.measures.lag)))
    deliveries = [EventDelivery(service.feed, it, lambda: leader.leads, now_ms) for it in receivers]
    service.metrics.deliveries = deliveries
    duties += [asyncio.create_task(delivery.run()) for delivery in deliveries]
    duties.append(asyncio.create_task(_keep_copies(database, *copies)))
    addresses = ", ".join(map(str, listens))
    log.info("controller serves on %s", addresses)

    def look() -> None:
        failure = keeper.failure if keeper is not None else ""
        status.show(_obstacle(database, failure, servers), _activity(addresses, leader))
        status.alive()

    duties.append(asyncio.create_task(_every(LOOK_S, look)))
    try:
        waiting = [asyncio.create_task(stop.wait()), *jobs, *duties]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a job that ended by itself ended with an error
    finally:
        sd_notify("STOPPING=1")
        # It would call it an error, with a traceback, that streams are open still.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        for server in servers:
            server.should_exit = True
        for task in duties:
            task.cancel()
        await asyncio.gather(*jobs, *duties, return_exceptions=True)
        for listen, _ in sockets:
            if listen.path is not None:
                listen.path.unlink(missing_ok=True)


def _url(listens: Sequence[Listen]) -> str:
    """The address of the API for hosts; "" where it is not known: one that stands for all of this machine's is none."""
    return next((str(listen) for listen in listens if listen.secure and listen.host not in ("0.0.0.0", "::")), "")


def _server_names(options: ControllerOptions, listens: Sequence[Listen]) -> frozenset[str]:
    """The names by which the API is reached: as told, as in its certificate, and those that it listens at."""
    names = {"localhost", *options.server_names, *(listen.host for listen in listens)}
    if any(listen.secure for listen in listens):
        from vnet.controller.pki import server_addresses  # noqa: PLC0415 - loads a library that TLS alone needs

        names.update(server_addresses(options.pki_dir) or ())
    return frozenset(name.lower() for name in names if name)


def _remotes(listens: Sequence[str]) -> tuple[str, ...]:
    """The remotes of agents for where the database listens, as far as that names an address."""
    parts = (listen.split(":", 2) for listen in listens if listen.startswith("pssl:"))
    return tuple(f"ssl:{part[2]}:{part[1]}" for part in parts if len(part) == 3 and part[2] != "0.0.0.0")


def _server(
    service: Service,
    listen: Listen,
    listening: socket.socket,
    connections: Connections,
    doors: tuple[Access, frozenset[str]],
    shown: ShownCertificate | None,
) -> Server:
    access, names = doors
    if listen.path is not None:
        return Server(application(service, access), listening, connections)
    tls = shown.context if shown is not None and listen.secure else None
    return Server(application(service, access, names), listening, connections, Standing.STRANGER, tls)


def _obstacle(database: PoolDatabase, failure: str, servers: Sequence[Server]) -> Obstacle | None:
    if not database.connected:
        text = failure or f"the pool database {', '.join(database.remotes)} does not answer"
        return Obstacle("pool database", text)
    if not all(server.started for server in servers):
        return Obstacle("start", "the API does not serve yet")
    return None


def _activity(addresses: str, leader: Leader) -> str:
    return f"serves on {addresses}{', leads the pool' if leader.leads else ''}"


async def _every(period_s: float, look: Callable[[], None]) -> None:
    while True:
        look()
        await asyncio.sleep(period_s)


class _Keeper:
    """Starts our database again when it has died. failure: the reason why the last attempt failed, "" while it runs."""

    def __init__(self, embedded: EmbeddedDatabase, database: PoolDatabase) -> None:
        self.failure = ""
        self._embedded: Final = embedded
        self._database: Final = database

    async def run(self) -> None:
        """Looks after it for ever."""
        while True:
            await self._database.wait_for(lambda _: not self._database.connected, 3600.0)
            if self._database.connected:
                continue
            try:
                if await asyncio.to_thread(self._embedded.ensure):
                    pid = self._embedded.pid()
                    log.error("the pool database had died; it was started again as process %s", pid)
                self.failure = ""
            except PoolUnreachable as error:
                self.failure = str(error)
            await asyncio.sleep(RETRY_S)


async def _keep_copies(database: PoolDatabase, source: BackupSource, directory: Path) -> None:
    """Without end: saves a copy of the database each hour in which its configuration has changed."""
    saved, after_s = -1, FIRST_COPY_S
    while True:
        await asyncio.sleep(after_s)
        after_s = COPY_EVERY_S
        pool = database.mirror.state.pool
        if pool is None or pool.revision == saved:
            continue
        try:
            await asyncio.to_thread(keep_copy, source, directory, datetime.now(UTC))
            saved = pool.revision
        except (PoolUnreachable, DamagedDatabase, OSError) as error:
            log.warning("no copy of the pool database was kept: %s", error)


def _certificate_problems(directory: Path) -> tuple[str, ...]:
    if not (directory / CA).exists():
        return ()
    from vnet.controller.pki import certificate_problems  # noqa: PLC0415 - as above

    return certificate_problems(directory, datetime.now(UTC))


async def _keep_certificates(directory: Path, embedded: EmbeddedDatabase | None) -> None:
    """Without end: renew the server's certificate where the CA is, and log which certificates end within 30 days. Our database's
    clients connect anew when a revoked certificate has ended."""
    from vnet.controller.pki import Authority, certificate_problems, renew_server  # noqa: PLC0415 - loads a library that TLS alone needs

    looked = datetime.now(UTC) - timedelta(days=1)  # one may have ended while no controller was there
    while True:
        if Authority(directory).present:
            now = datetime.now(UTC)
            try:
                if embedded is not None and Authority(directory).ended_between(looked, now):
                    await asyncio.to_thread(embedded.reconnect)
                    log.info("clients of the pool database connect anew: a revoked certificate has ended")
                looked = now
                if renew_server(directory, datetime.now(UTC)):
                    log.info("renewed the server's certificate")
            except (OSError, ValueError, Refused, PoolUnreachable) as error:
                log.error("certificates in %s: %s", directory, error)
        for problem in certificate_problems(directory, datetime.now(UTC)):
            log.warning("%s", problem)
        await asyncio.sleep(CERTIFICATES_S)


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
