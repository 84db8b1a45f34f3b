"""`vnet pool`: the pool database as a cluster of ovsdb-servers, and its backups. One rule: each command may be repeated."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import dump, echo, output_option, print_table, say
from vnet.cli.pki import pki_dir_option

if TYPE_CHECKING:
    from vnet.controller.embedded import EmbeddedDatabase
    from vnet.db.history import Author

F = TypeVar("F", bound=Callable[..., Any])
COLUMNS = ("server", "role", "leader", "term", "connected", "since")
LOOPBACK = "tcp:127.0.0.1:6644"


@click.group()
def pool() -> None:
    """The pool database's backups (docs/operate.md), and how to run it as a cluster (docs/cluster.md)."""


def _files(function: F) -> F:
    """The directories of the server's files."""
    for option in (
        click.option("--state-dir", type=click.Path(path_type=Path), default="/var/lib/vnet", show_default=True),
        click.option("--run-dir", type=click.Path(path_type=Path), default="/run/vnet", show_default=True),
    ):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """A server that is started: its files, its further sockets for clients, its certificate."""

    run_dir: Path
    state_dir: Path
    listen: tuple[str, ...]
    controllers: tuple[str, ...]
    pki_dir: Path
    cleartext: bool

    @property
    def database(self) -> EmbeddedDatabase:
        """The database of these files, without sockets for others."""
        return _database(self.run_dir, self.state_dir)

    def serving(self, *servers: str) -> EmbeddedDatabase:
        """The database with its sockets and its certificate. servers: addresses of the cluster. Raises TransportError."""
        from vnet.util.transport import SERVER, check_cleartext, tls_for  # noqa: PLC0415

        remotes = (*servers, *self.listen, *self.controllers)
        check_cleartext(remotes, self.cleartext)
        tls = tls_for(remotes, self.pki_dir, SERVER)
        return replace(self.database, listen=self.listen, controllers=self.controllers, tls=tls)


def _server_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of a server that is started, which the command gets as `server`."""

    @wraps(function)
    def collected(**given: Any) -> None:
        own = {field.name: given.pop(field.name) for field in fields(ServerOptions)}
        function(**given, server=ServerOptions(**own))

    command: Callable[..., None] = collected
    for option in (
        click.option("--cleartext", is_flag=True, help="Allow tcp: and ptcp: to and from other machines."),
        pki_dir_option,
        click.option("--listen", multiple=True, metavar="PREMOTE", help="For hosts: pssl:6640:10.0.0.1."),
        click.option(
            "--listen-controllers",
            "controllers",
            multiple=True,
            metavar="PREMOTE",
            help="For controllers and relays: pssl:6641:10.0.0.1. No host is let in.",
        ),
    ):
        command = option(command)
    return _files(command)


def _address(function: F) -> F:
    text = "The address by which the other servers reach this one."
    return click.option("--address", default=LOOPBACK, show_default=True, metavar="ssl:IP:PORT", help=text)(function)


def _database(run_dir: Path, state_dir: Path) -> EmbeddedDatabase:
    from vnet.controller.embedded import EmbeddedDatabase  # noqa: PLC0415

    return EmbeddedDatabase(run_dir, state_dir)


@contextmanager
def _failures() -> Iterator[None]:
    from vnet.api.errors import Conflict, Invalid, NotFound  # noqa: PLC0415
    from vnet.db.errors import DatabaseFull, PoolUnreachable, SchemaMismatch, WriteConflict  # noqa: PLC0415
    from vnet.util.transport import TransportError  # noqa: PLC0415

    try:
        yield
    except (Conflict, WriteConflict) as error:
        raise CommandError(str(error), ExitCode.CONFLICT) from None
    except (Invalid, NotFound, TransportError) as error:
        raise CommandError(str(error), ExitCode.INVALID_INPUT) from None
    except (SchemaMismatch, DatabaseFull) as error:
        raise CommandError(str(error)) from None
    except (PoolUnreachable, OSError) as error:
        raise CommandError(str(error), ExitCode.UNREACHABLE) from None


@pool.command("create-cluster")
@_address
@click.option(
    "--election-timer",
    type=click.IntRange(100, 60_000),
    default=1000,
    show_default=True,
    metavar="MS",
    help="How long followers miss the leader before they elect another.",
)
@_server_options
def create_cluster(
    address: str,
    election_timer: int,
    server: ServerOptions,
) -> None:
    """Make this host's pool database, with what is in it, the first server of a cluster."""
    from vnet.controller import cluster  # noqa: PLC0415

    with _failures():
        database = server.serving(address)
        made = cluster.create_cluster(database, address, election_timer)
    say(f"{'first server of a cluster' if made else 'a server of the cluster already'}: {address}")


@pool.command()
@_address
@click.option("--to", "others", multiple=True, required=True, metavar="ssl:IP:PORT", help="A server of the cluster.")
@_server_options
def join(
    address: str,
    others: tuple[str, ...],
    server: ServerOptions,
) -> None:
    """Make this host a server of a cluster, which holds the whole pool."""
    from vnet.controller import cluster  # noqa: PLC0415

    with _failures():
        database = server.serving(address, *others)
        made = cluster.join(database, address, others)
    say(f"{'joined the cluster' if made else 'a server of the cluster already'}: {address}")


@pool.command()
@click.argument("server", metavar="ssl:IP:PORT")
@_files
def kick(server: str, run_dir: Path, state_dir: Path) -> None:
    """Take a server that will not come back out of the cluster, by the address that 'vnet pool status' shows."""
    from vnet.controller import cluster  # noqa: PLC0415

    with _failures():
        cluster.kick(_database(run_dir, state_dir), server)
    say(f"taken out of the cluster: {server}")


@pool.command()
@_server_options
def start(
    server: ServerOptions,
) -> None:
    """Start this host's server of a cluster again, as after a boot."""
    from vnet.controller import cluster  # noqa: PLC0415

    with _failures():
        database = server.database
        if not database.clustered:
            raise CommandError(f"{database.database} is not of a cluster: create or join one", ExitCode.CONFLICT)
        started = cluster.at_its_address(server.serving(cluster.local_address(database))).ensure()
    say("started" if started else "it runs")


@pool.command()
@click.option(
    "--to",
    "sources",
    multiple=True,
    required=True,
    metavar="ssl:IP:PORT",
    help="Where a server listens for controllers.",
)
@_server_options
def relay(
    sources: tuple[str, ...],
    server: ServerOptions,
) -> None:
    """Start a relay on this machine: it holds a copy of the pool for many hosts, and forwards what they write."""
    with _failures():
        started = replace(server.serving(*sources), sources=sources).ensure()
    say("started" if started else "it runs")


@pool.command()
@_files
@output_option
def status(run_dir: Path, state_dir: Path, output: str) -> None:
    """The servers of the cluster, as this host's server knows them."""
    from vnet.controller import cluster  # noqa: PLC0415
    from vnet.controller.presenters import timestamp  # noqa: PLC0415
    from vnet.db.database import now_ms  # noqa: PLC0415

    with _failures():
        members = cluster.status(_database(run_dir, state_dir), now_ms())
    rows = [asdict(member) | {"since": timestamp(member.since)} for member in members]
    if output == "table":
        columns = [(name.upper(), lambda row, name=name: _shown(row[name])) for name in COLUMNS]
        print_table(rows, columns)
    else:
        dump(rows, output)


@pool.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_files
def backup(file: Path, run_dir: Path, state_dir: Path) -> None:
    """Write all that the pool database holds to FILE, while it runs. On a host that has it."""
    from vnet.controller import backup as backups  # noqa: PLC0415

    with _failures():
        backups.save(backups.BackupSource((_database(run_dir, state_dir).remote,)), file)
        found = asyncio.run(backups.load(file))
    say(f"{file}: {found.summary}")
    _tell_problems(found.problems)


@pool.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def verify(file: Path) -> int:
    """Read a backup as it would be restored, and say what is in it and what is wrong with it."""
    from vnet.controller import backup as backups  # noqa: PLC0415

    with _failures():
        found = asyncio.run(backups.load(file))
    say(f"{file}: {found.summary}")
    _tell_problems(found.problems)
    return ExitCode.FAILED if found.problems else ExitCode.OK


@pool.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
@_files
def restore(file: Path, yes: bool, run_dir: Path, state_dir: Path) -> None:
    """Make the pool what it was when FILE was made, after showing what that changes. On a host that has the pool database.

    An empty database gets all that FILE holds. A pool that is there must be the same one; VIFs and VMs stay where they are now.
    """
    with _failures():
        asyncio.run(_restore(_database(run_dir, state_dir), file, yes=yes))


async def _restore(database: EmbeddedDatabase, file: Path, *, yes: bool) -> None:
    from vnet.controller import backup as backups  # noqa: PLC0415
    from vnet.db.database import PoolDatabase  # noqa: PLC0415
    from vnet.plan import plan_pool, render_plan  # noqa: PLC0415

    found = await backups.load(file)
    _tell_problems(found.problems)
    live = PoolDatabase([database.remote])
    await live.open()
    try:
        if live.mirror.state.pool is None:
            say(f"the pool database is empty; it gets {found.summary}")
            _ask(yes=yes)
            await backups.fill(database, live, file)
            say("restored; hosts that have followed the pool further do not follow it (docs/operate.md)")
            return
        desired = await backups.wanted(live, found)
        plan = plan_pool(live.mirror.state, desired)
        echo(render_plan(plan))
        if not plan:
            return
        _ask(yes=yes)
        say(f"restored: revision {await backups.write(live, desired, file.name, _author(file))}")
    finally:
        await live.close()


def _author(file: Path) -> Author:
    from vnet.controller.access import user_of  # noqa: PLC0415
    from vnet.db.history import Author  # noqa: PLC0415

    message = click.get_current_context().find_root().obj.message or ""
    return Author(user_of(os.getuid()), f"process {os.getpid()} here", message, f"vnet pool restore {file.name}")


def _ask(*, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask: say --yes to restore")
    click.confirm("Restore?", abort=True, err=True)


def _tell_problems(problems: Iterable[str]) -> None:
    for problem in problems:
        say(f"  {problem}")


def _shown(value: object) -> object:
    return ("no", "yes")[value] if isinstance(value, bool) else value
