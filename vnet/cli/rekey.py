"""`vnet rekey`: new keys of encrypted tunnels."""

from __future__ import annotations

import click

from vnet.cli.output import echo
from vnet.cli.remote import connected


@click.command()
def rekey() -> None:
    """Have every host make new keys of encrypted tunnels. No frame is lost; it takes some seconds."""
    with connected() as client:
        echo(f"hosts make keys of epoch {client.rekey().key_epoch}; those that are away do when they come back")
