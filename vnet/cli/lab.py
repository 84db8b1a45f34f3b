"""`vnet lab`: a pool on this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import echo

if TYPE_CHECKING:
    from vnet.lab import Lab
    from vnet.objects import PoolState
    from vnet.topology.document import Document

F = TypeVar("F", bound=Callable[..., Any])


def name_option(function: F) -> F:
    """`--name`: which lab. Left out, it is the one that is up."""
    return click.option("--name", envvar="VNET_LAB_NAME", metavar="LAB", help="Which lab, where several are up.")(
        function
    )


def reports_errors(function: F) -> F:
    """A lab's error is one line and exit code 1."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from vnet.lab import LabError  # noqa: PLC0415 - the group must load fast

        try:
            return function(*args, **kwargs)
        except LabError as error:
            raise CommandError(str(error)) from error

    return wrapped  # type: ignore[return-value]


def find(name: str | None) -> Lab:
    """The lab of this name, or the only one. Raises LabError, CommandError."""
    from vnet.lab import Lab, labs  # noqa: PLC0415

    if name is not None:
        return Lab.attach(name)
    up = labs()
    if not up:
        raise CommandError("no lab is up: 'vnet lab up FILE' starts one")
    if len(up) > 1:
        raise CommandError(f"several labs are up ({', '.join(up)}): choose one with --name", ExitCode.USAGE)
    return Lab.attach(up[0])


def document_of(file: Path) -> tuple[Document, PoolState]:
    """A document and the pool it describes. Raises CommandError with all of the document's errors."""
    from vnet.objects import PoolState as State  # noqa: PLC0415
    from vnet.plan import desired_state  # noqa: PLC0415
    from vnet.topology import TopologyErrors, load, read_file  # noqa: PLC0415

    try:
        document = load(read_file(file), str(file))
        return document, desired_state(document, State())
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", ExitCode.INVALID_INPUT) from error
    except TopologyErrors as error:
        raise CommandError(str(error), ExitCode.INVALID_INPUT) from error


@click.group()
def lab() -> None:
    """A pool on this machine, to try and to test with: hosts, their network, VMs."""


@lab.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", metavar="LAB", help="The lab's name; the pool's name if left out.")
@click.option("--driver", type=click.Choice(["netns", "dummy"]), default="netns", show_default=True)
@reports_errors
def up(file: Path, name: str | None, driver: str) -> None:
    """Build the hosts and VMs of document FILE and start them."""
    from vnet.lab import Driver, Lab  # noqa: PLC0415

    _, pool = document_of(file)
    chosen = name or (pool.pool.name if pool.pool else "lab")
    built = Lab.up(pool, name=chosen, driver=Driver(driver), daemons=True, document=str(file.resolve()))
    try:
        built.start_all()
    except BaseException:
        built.down()
        raise
    hosts, vms = len(built.spec.hosts), len(built.spec.guests)
    echo(f"lab {chosen} is up: {hosts} hosts, {vms} VMs; 'vnet lab status' shows it", err=True)
    echo(f"its controller: export VNET_CONTROLLER=unix:{built.daemons.controller_socket}", err=True)


@lab.command()
@name_option
@click.option("--all", "every", is_flag=True, help="All labs of this user.")
@reports_errors
def down(name: str | None, every: bool) -> None:
    """Remove a lab: processes, namespaces, devices, files. Also the remains of one that crashed."""
    from vnet.lab import labs, remove  # noqa: PLC0415

    if every and name is not None:
        raise click.UsageError("--all and --name exclude each other")
    for one in labs() if every else [name or find(None).spec.name]:
        remove(one)
        echo(f"lab {one} is down", err=True)


@lab.command(name="list")
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text")
def list_labs(output: str) -> None:
    """The labs that are up, or half up after a crash."""
    from vnet.lab import labs  # noqa: PLC0415

    echo(json.dumps(labs()) if output == "json" else "\n".join(labs()), nl=output == "json" or bool(labs()))


@lab.command(context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("vm")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@reports_errors
def exec(name: str | None, vm: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in a VM, as in: vnet lab exec web1 -- ping 10.1.0.11"""
    found = find(name)
    replace_by(found.vm_argv(vm, command), found.vm_env())


@lab.command(context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@reports_errors
def host(name: str | None, host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on a host: ovs-vsctl, ovs-ofctl and ovs-appctl reach its Open vSwitch, vnet its agent and the controller."""
    found = find(name)
    replace_by(found.host_argv(host, command), found.host_env(host))


def replace_by(argv: list[str], env: dict[str, str]) -> None:
    """Become the command, so that its exit code, signals and terminal are its own."""
    sys.stdout.flush()
    try:
        os.execvpe(argv[0], argv, {**os.environ, **env})  # noqa: S606 - the person's own command
    except OSError as error:
        raise CommandError(f"{argv[0]}: {error.strerror}", ExitCode.FAILED) from error


@lab.command()
@name_option
@click.argument("vm")
@reports_errors
def pause(name: str | None, vm: str) -> None:
    """Pause a VM: it neither sends nor receives, and nothing announces it."""
    find(name).pause(vm)


@lab.command()
@name_option
@click.argument("vm")
@reports_errors
def resume(name: str | None, vm: str) -> None:
    """Let a paused VM run on."""
    find(name).resume(vm)


@lab.command()
@name_option
@click.argument("vm")
@click.option("--to", "host", required=True, metavar="HOST", help="The destination.")
@click.option("--pause-ms", default=0, show_default=True, help="How long the guest stands still at the switch-over.")
@reports_errors
def migrate(name: str | None, vm: str, host: str, pause_ms: int) -> None:
    """Migrate a running VM, as a toolstack does: `vnet vm migrate` moves VIFs, but nobody's guest."""
    from vnet.api.errors import ClientError  # noqa: PLC0415 - loads an HTTP library

    try:
        find(name).migrate(vm, host, pause_s=pause_ms / 1000)
    except ClientError as error:
        raise CommandError(str(error)) from error
    echo(f"{vm} runs on {host}", err=True)


@lab.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", metavar="LAB", default="demo", show_default=True)
@reports_errors
def demo(file: Path, name: str) -> int:
    """Show a pool at work: start document FILE, measure reachability, migrate a VM, repair a host; then take it down."""
    from vnet.lab.demo import run_demo  # noqa: PLC0415

    document, pool = document_of(file)
    return int(ExitCode.OK if run_demo(document, pool, file, name, echo) else ExitCode.EXPECTATION_FAILED)


@lab.command()
@name_option
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text")
@reports_errors
def status(name: str | None, output: str) -> None:
    """Namespaces, interfaces, addresses, sockets and processes of a lab's hosts and VMs."""
    from vnet.lab.status import status as describe  # noqa: PLC0415

    found = describe(find(name))
    echo(json.dumps(found, indent=2) if output == "json" else as_text(found))


def as_text(found: dict[str, Any]) -> str:
    """A status for people."""
    lines = [f"lab {found['name']} ({found['driver']}) in {found['directory']}; wires {found['wires']}"]
    for name, host in found["hosts"].items():
        running = ", ".join(f"{server} {pid or 'not running'}" for server, pid in host["processes"].items())
        uplinks = ", ".join(f"{uplink} ({' '.join(nics)})" for uplink, nics in host["uplinks"].items())
        lines.append(
            f"host {name}: {host['address'] or 'no VTEP'}; {uplinks or 'no uplinks'}; netns {host['netns']}; {running}"
        )
    for name, vm in found["vms"].items():
        state = "paused on" if vm["paused"] else "on"
        where = f"{state} {vm['host']}" if vm["host"] else "not started"
        lines.append(f"VM {name}: {where}; netns {vm['netns']}")
        lines += [
            f"  {device}: {nic['network']} {nic['mac']} {' '.join(nic['addresses'])}"
            for device, nic in vm["interfaces"].items()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    lab()
