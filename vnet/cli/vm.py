"""VMs on the command line: groups of VIFs that move as one."""

from __future__ import annotations

import click

from vnet.cli.migration_commands import add_moves
from vnet.cli.output import Column, emit, output_option
from vnet.cli.remote import connected

VMS: list[Column] = [
    ("VM", lambda v: v.name),
    ("WANTED ON", lambda v: v.host),
    ("RUNS ON", lambda v: sorted({vif.place.host for vif in v.vifs if vif.place.host is not None})),
    ("VIFS", lambda v: [vif.id for vif in v.vifs]),
    ("READY", lambda v: f"{sum(vif.place.state == 'ready' for vif in v.vifs)}/{len(v.vifs)}"),
    ("MIGRATION", lambda v: v.migration.phase if v.migration.phase != "none" else None),
]


@click.group()
def vm() -> None:
    """Create, move and delete VMs, all VIFs of one as a unit."""


@vm.command()
@click.argument("name")
@click.option("--host", metavar="NAME", help="Where it is to run.")
@output_option
def create(name: str, host: str | None, output: str) -> None:
    """Make a VM without VIFs. Making the same one again changes nothing."""
    from vnet.client import VmSpec  # noqa: PLC0415 - loads an HTTP library

    with connected() as client:
        emit(client.put_vm(name, VmSpec(host=host)), output, VMS)


@vm.command("list")
@output_option
def list_(output: str) -> None:
    """List VMs."""
    with connected() as client:
        emit(client.vms(), output, VMS)


@vm.command()
@click.argument("name")
@output_option
def get(name: str, output: str) -> None:
    """Show one VM."""
    with connected() as client:
        emit(client.vm(name), output, VMS)


@vm.command()
@click.argument("name")
def delete(name: str) -> None:
    """Remove a VM and its VIFs; removing it again changes nothing."""
    with connected() as client:
        client.delete_vm(name)


add_moves(vm, "vms", "a VM")
