"""`vnet controller`: runs the daemon."""

from __future__ import annotations

from pathlib import Path

import click

from ovsctl.ovsdb import BadRemote
from vnet.api.errors import Invalid
from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.pki import pki_dir_option
from vnet.controller.daemon import ControllerOptions, main
from vnet.db.errors import SchemaMismatch
from vnet.db.history import KEPT, KEPT_BYTES, MAX_KEPT
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
    help="Where it listens for other controllers and relays: pssl:6641:10.0.0.1. No host is let in.",
)
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    help="unix:PATH, https://HOST:PORT or tcp:HOST:PORT.  [default: RUN_DIR/controller.sock]",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="A bearer token that may do everything ('vnet token' makes others).",
)
@click.option(
    "--identity-header",
    default="",
    metavar="HEADER",
    help="Where a reverse proxy, with a token of its role, names its user.",
)
@click.option(
    "--server-name",
    "server_names",
    multiple=True,
    metavar="NAME",
    help="A further name by which https and tcp are reached; addresses and the certificate's names always are.",
)
@pki_dir_option
@click.option(
    "--events-to",
    multiple=True,
    metavar="ADDRESS",
    help="Where events are sent: journal, syslog:HOST:PORT, or the URL of a webhook. None unless told.",
)
@click.option(
    "--events-key-file", type=click.Path(path_type=Path, dir_okay=False), help="The key that webhooks are signed with."
)
@click.option(
    "--events-ca",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The CA of webhooks at https.  [default: those that this machine trusts]",
)
@click.option("--cleartext", is_flag=True, help="Allow tcp: and ptcp: to and from other machines.")
@click.option(
    "--history-records",
    type=click.IntRange(10, MAX_KEPT),
    default=KEPT,
    show_default=True,
    help="Revisions that are kept, and as many steps ('vnet history').",
)
@click.option(
    "--history-mib",
    type=click.IntRange(1, 4096),
    default=KEPT_BYTES // 2**20,
    show_default=True,
    help="MiB of changes that are kept in all.",
)
def controller(
    pool: tuple[str, ...],
    run_dir: Path,
    state_dir: Path,
    pool_listen: tuple[str, ...],
    pool_listen_controllers: tuple[str, ...],
    listen: tuple[str, ...],
    token_file: Path | None,
    identity_header: str,
    server_names: tuple[str, ...],
    pki_dir: Path,
    cleartext: bool,
    events_to: tuple[str, ...],
    events_key_file: Path | None,
    events_ca: Path | None,
    history_records: int,
    history_mib: int,
) -> None:
    """Run the controller: the REST API on a pool database, its own unless --pool names one."""
    logs.configure()
    try:
        listens = (pool_listen, pool_listen_controllers, listen)
        main(
            ControllerOptions(
                pool,
                run_dir,
                state_dir,
                *listens,
                token_file,
                identity_header,
                server_names,
                pki_dir,
                cleartext,
                events_to,
                events_key_file,
                events_ca,
                history_records,
                history_mib,
            )
        )
    except Invalid as error:
        raise CommandError(error.message, ExitCode.INVALID_INPUT) from None
    except TransportError as error:
        raise CommandError(str(error), ExitCode.INVALID_INPUT) from None
    except BadRemote as error:
        raise CommandError(f"--pool: {error}", ExitCode.INVALID_INPUT) from None
    except OSError as error:
        raise CommandError(_failure_text(error), ExitCode.UNREACHABLE) from None
    except SchemaMismatch as error:
        raise CommandError(str(error)) from None


def _failure_text(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror or str(error)
