"""`vnet pool`: the pool database as a cluster of ovsdb-servers. One rule: each command may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vnet.cli.exits import CommandError, Exit
from vnet.cli.output import dump, output_option, print_table, say
from vnet.cli.pki import pki_dir_option

if TYPE_CHECKING:
    from vnet.controller.embedded import EmbeddedDatabase

F = TypeVar("F", bound=Callable[..., Any])
COLUMNS = ("server", "role", "leader", "term", "connected", "since")
LOOPBACK = "tcp:127.0.0.1:6644"


@click.group()
def pool() -> None:
    """Run the pool database as a cluster (docs/cluster.md)."""


def _files(function: F) -> F:
    """The directories of the server's files."""
    for option in (
        click.option("--state-dir", type=click.Path(path_type=Path), default="/var/lib/vnet", show_default=True),
        click.option("--run-dir", type=click.Path(path_type=Path), default="/run/vnet", show_default=True),
    ):
        function = option(function)
    return function


def _server_options(function: F) -> F:
    """The options of a server that is started: its files, its certificate, and its further sockets for clients."""
    for option in (
        click.option("--cleartext", is_flag=True, help="Allow tcp: and ptcp: to and from other machines."),
        pki_dir_option,
        click.option("--listen", multiple=True, metavar="PREMOTE", help="For hosts: pssl:6640:10.0.0.1."),
        click.option(
            "--listen-controllers",
            "controllers",
            multiple=True,
            metavar="PREMOTE",
            help="For controllers and relays: pssl:6641:10.0.0.1. Hosts must not reach it (docs/trust.md).",
        ),
    ):
        function = option(function)
    return _files(function)


def _address(function: F) -> F:
    text = "The address by which the other servers reach this one."
    return click.option("--address", default=LOOPBACK, show_default=True, metavar="ssl:IP:PORT", help=text)(function)


def _database(run_dir: Path, state_dir: Path) -> EmbeddedDatabase:
    from vnet.controller.embedded import EmbeddedDatabase  # noqa: PLC0415

    return EmbeddedDatabase(run_dir, state_dir)


def _serving(
    database: EmbeddedDatabase,
    servers: tuple[str, ...],
    listen: tuple[str, ...],
    controllers: tuple[str, ...],
    pki_dir: Path,
    cleartext: bool,
) -> EmbeddedDatabase:
    """The database with its sockets and its certificate. servers: addresses of the cluster. Raises TransportError."""
    from vnet.util.transport import SERVER, check_cleartext, tls_for  # noqa: PLC0415

    remotes = (*servers, *listen, *controllers)
    check_cleartext(remotes, cleartext)
    return replace(database, listen=listen, controllers=controllers, tls=tls_for(remotes, pki_dir, SERVER))


@contextmanager
def _failures() -> Iterator[None]:
    from vnet.controller.errors import Conflict, Invalid  # noqa: PLC0415
    from vnet.db.errors import PoolUnreachable, SchemaMismatch  # noqa: PLC0415
    from vnet.util.transport import TransportError  # noqa: PLC0415

    try:
        yield
    except Conflict as error:
        raise CommandError(str(error), Exit.CONFLICT) from None
    except (Invalid, TransportError) as error:
        raise CommandError(str(error), Exit.INVALID_INPUT) from None
    except SchemaMismatch as error:
        raise CommandError(str(error)) from None
    except (PoolUnreachable, OSError) as error:
        raise CommandError(str(error), Exit.UNREACHABLE) from None


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
    run_dir: Path,
    state_dir: Path,
    listen: tuple[str, ...],
    controllers: tuple[str, ...],
    pki_dir: Path,
    cleartext: bool,
) -> None:
    """Make this host's pool database, with what is in it, the first server of a cluster."""
    from vnet.controller import cluster  # noqa: PLC0415

    with _failures():
        database = _serving(_database(run_dir, state_dir), (address,), listen, controllers, pki_dir, cleartext)
        made = cluster.create_cluster(database, address, election_timer)
    say(f"{'first server of a cluster' if made else 'a server of the cluster already'}: {address}")


@pool.command()
@_address
@click.option("--to", "others", multiple=True, required=True, metavar="ssl:IP:PORT", help="A server of the cluster.")
@_server_options
def join(
    address: str,
    others: tuple[str, ...],
    run_dir: Path,
    state_dir: Path,
    listen: tuple[str, ...],
    controllers: tuple[str, ...],
    pki_dir: Path,
    cleartext: bool,
) -> None:
    """Make this host a server of a cluster, which holds the whole pool."""
    from vnet.controller import cluster  # noqa: PLC0415

    with _failures():
        database = _serving(_database(run_dir, state_dir), (address, *others), listen, controllers, pki_dir, cleartext)
        made = cluster.join(database, address, others)
    say(f"{'joined the cluster' if made else 'a server of the cluster already'}: {address}")


@pool.command()
@_server_options
def start(
    run_dir: Path,
    state_dir: Path,
    listen: tuple[str, ...],
    controllers: tuple[str, ...],
    pki_dir: Path,
    cleartext: bool,
) -> None:
    """Start this host's server of a cluster again, as after a boot."""
    from vnet.controller import cluster  # noqa: PLC0415

    with _failures():
        database = _database(run_dir, state_dir)
        if not database.clustered:
            raise CommandError(f"{database.database} is not of a cluster: create or join one", Exit.CONFLICT)
        started = _serving(
            database, (cluster.local_address(database),), listen, controllers, pki_dir, cleartext
        ).ensure()
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
    run_dir: Path,
    state_dir: Path,
    listen: tuple[str, ...],
    controllers: tuple[str, ...],
    pki_dir: Path,
    cleartext: bool,
) -> None:
    """Start a relay on this machine: it holds a copy of the pool for many hosts, and forwards what they write."""
    with _failures():
        made = _serving(_database(run_dir, state_dir), sources, listen, controllers, pki_dir, cleartext)
        started = replace(made, sources=sources).ensure()
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


def _shown(value: object) -> object:
    return ("no", "yes")[value] if isinstance(value, bool) else value
