"""`vnet wireguard`: runs the service of one host that encrypts tunnels."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from vnet.cli.exits import CommandError


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default="/run/vnet/wireguard",
    show_default=True,
    help="Where the agent and this service have their files for each other.",
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    default="/var/lib/vnet/wireguard",
    show_default=True,
    help="Where this host's private keys are. They never leave it.",
)
@click.option("--netns", default="vnet-wireguard", show_default=True, help="The namespace of WireGuard's devices.")
@click.option("--prefix", default="vnet-wg", show_default=True, help="Of the devices' names.")
@click.option("--ovs-rundir", metavar="DIR", default="/run/openvswitch", show_default=True)
def wireguard(directory: Path, keys: Path, netns: str, prefix: str, ovs_rundir: str) -> None:
    """Run the service of this host that encrypts tunnels."""
    service = import_module("vnet.wireguard.service")
    try:
        service.main(directory=directory, keys=keys, netns=netns, prefix=prefix, ovs_rundir=ovs_rundir)
    except OSError as error:
        raise CommandError(str(error)) from None
