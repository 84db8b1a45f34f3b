"""`vnet controller`: runs the daemon."""

from __future__ import annotations

from pathlib import Path

import click

from ovsctl.ovsdb import BadRemote
from vnet.cli.exits import CommandError, Exit
from vnet.cli.pki import pki_dir_option
from vnet.controller.daemon import Options, main
from vnet.controller.errors import Invalid
from vnet.db.errors import SchemaMismatch
from vnet.util import logs
from vnet.util.transport import TransportError


@click.command()
@click.option(
    "--pool", multiple=True, metavar="REMOTE", help="Pool database; repeat for a cluster. None: one of our own."
)
@click.option("--run-dir", type=click.Path(path_type=Path), default="/run/vnet", show_default=True, help="Sockets.")
@click.option(
    "--state-dir", type=click.Path(path_type=Path), default="/var/lib/vnet", show_default=True, help="Our database."
)
@click.option(
    "--pool-listen", multiple=True, metavar="PREMOTE", help="Where our database listens for hosts: pssl:6640:10.0.0.1."
)
@click.option(
    "--pool-listen-controllers",
    multiple=True,
    metavar="PREMOTE",
    help="Where it listens for other controllers and relays: pssl:6641:10.0.0.1. Hosts must not reach it (docs/trust.md).",
)
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    help="unix:PATH, https://HOST:PORT or tcp:HOST:PORT.  [default: RUN_DIR/controller.sock]",
)
@click.option("--token-file", type=click.Path(path_type=Path), help="The bearer token for https and tcp.")
@pki_dir_option
@click.option("--cleartext", is_flag=True, help="Allow tcp: and ptcp: to and from other machines.")
def controller(
    pool: tuple[str, ...],
    run_dir: Path,
    state_dir: Path,
    pool_listen: tuple[str, ...],
    pool_listen_controllers: tuple[str, ...],
    listen: tuple[str, ...],
    token_file: Path | None,
    pki_dir: Path,
    cleartext: bool,
) -> None:
    """Run the controller: the REST API on a pool database, its own unless --pool names one."""
    logs.configure()
    try:
        listens = (pool_listen, pool_listen_controllers, listen)
        main(Options(pool, run_dir, state_dir, *listens, token_file, pki_dir, cleartext))
    except Invalid as error:
        raise CommandError(error.message, Exit.INVALID_INPUT) from None
    except TransportError as error:
        raise CommandError(str(error), Exit.INVALID_INPUT) from None
    except BadRemote as error:
        raise CommandError(f"--pool: {error}", Exit.INVALID_INPUT) from None
    except OSError as error:
        raise CommandError(str(error), Exit.UNREACHABLE) from None
    except SchemaMismatch as error:
        raise CommandError(str(error)) from None
