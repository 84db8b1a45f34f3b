"""`vnet pki`: the certificates of the pool. One rule: each command may be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import Column, dump, output_option, print_table, say

if TYPE_CHECKING:
    from vnet.controller.pki import Authority

COLUMNS: list[Column] = [
    (name.upper(), lambda row, name=name: row[name]) for name in ("name", "use", "ends", "state")  # type: ignore[misc]
]  # fmt: skip
pki_dir_option = click.option(
    "--pki-dir", type=click.Path(path_type=Path), default="/var/lib/vnet/pki", show_default=True, help="Certificates."
)


@click.group()
def pki() -> None:
    """Make and renew the certificates of the pool (docs/trust.md)."""


@contextmanager
def _authority(directory: Path) -> Iterator[Authority]:
    from vnet.api.errors import Conflict, Refused  # noqa: PLC0415
    from vnet.controller.pki import Authority  # noqa: PLC0415

    try:
        yield Authority(directory)
    except Conflict as error:
        raise CommandError(str(error), ExitCode.CONFLICT) from None
    except (Refused, OSError, ValueError) as error:
        raise CommandError(str(error), ExitCode.INVALID_INPUT) from None


@pki.command()
@click.option("--address", "addresses", multiple=True, help="An address or name of this server; repeat for more.")
@click.option("--pool", default="vnet", show_default=True, help="The pool's name, for the CA's certificate.")
@pki_dir_option
def make(addresses: tuple[str, ...], pool: str, pki_dir: Path) -> None:
    """Make what is missing on this machine: the pool's CA and the server's certificate. Renew that if it ends within 30 days."""
    from vnet.controller.pki import CertificateUse, renew_server, server_addresses  # noqa: PLC0415
    from vnet.util.transport import SERVER  # noqa: PLC0415

    now = datetime.now(UTC)
    with _authority(pki_dir) as authority:
        if authority.create(pool, now):
            say(f"made the CA of pool {pool} in {pki_dir}")
        known = server_addresses(pki_dir)
        if known is None or (addresses and set(addresses) != set(known)):
            authority.issue(SERVER, CertificateUse.SERVER, pki_dir, now, addresses)
            say(f"made the server's certificate{': ' if addresses else ''}{', '.join(addresses)}")
        elif renew_server(pki_dir, now):
            say("renewed the server's certificate")


@pki.command()
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="Directory that the files are written to.")
@click.option("--server", is_flag=True, help="For a further server of the pool database, not for a host.")
@click.option("--address", "addresses", multiple=True, help="An address or name of that server; repeat for more.")
@pki_dir_option
def issue(name: str, to: Path, server: bool, addresses: tuple[str, ...], pki_dir: Path) -> None:
    """Make a key and certificate for the host NAME, to be copied to its /var/lib/vnet/pki."""
    from vnet.controller.pki import CertificateUse  # noqa: PLC0415

    use = CertificateUse.SERVER if server else CertificateUse.HOST
    with _authority(pki_dir) as authority:
        authority.issue(name, use, to, datetime.now(UTC), addresses)
    say(f"wrote {to}/{use.value}.pem and {to}/ca.pem")


@pki.command()
@pki_dir_option
def renew(pki_dir: Path) -> None:
    """Renew the server's certificate here now, with a new key. Nothing is restarted: new connections are shown the new one."""
    from vnet.controller.pki import renew_server  # noqa: PLC0415

    with _authority(pki_dir):
        if not renew_server(pki_dir, datetime.now(UTC), notice=None):
            text = f"{pki_dir} has no CA with a server's certificate: renew it on the CA's machine by 'vnet pki issue'"
            raise CommandError(text, ExitCode.CONFLICT)
    say("renewed the server's certificate")


@pki.command()
@pki_dir_option
@output_option
def status(pki_dir: Path, output: str) -> None:
    """List the certificates that the CA here has issued, and when they end."""
    with _authority(pki_dir) as authority:
        found = authority.certificates(datetime.now(UTC))
    rows = [
        {"name": each.name, "use": each.use.value, "ends": each.ends.isoformat(), "state": each.state} for each in found
    ]
    if output == "table":
        print_table(rows, COLUMNS)
    else:
        dump(rows, output)
