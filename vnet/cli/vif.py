"""VIFs on the command line."""

from __future__ import annotations

from typing import Any

import click

from vnet.cli.migration_commands import add_moves
from vnet.cli.output import emit, output_option, say
from vnet.cli.remote import connected, failures, socket_option
from vnet.cli.show import VIFS, vif_filters


@click.group()
def vif() -> None:
    """Create, plug, move and delete VIFs."""


def _trunk(context: click.Context, option: click.Parameter, value: str | None) -> list[int] | str | None:
    if value in (None, "all"):
        return value
    try:
        return [int(tag) for tag in (value or "").split(",")]
    except ValueError:
        raise click.BadParameter("expected all, or tags as 10,20") from None


@vif.command()
@click.argument("id", required=False)
@click.option("--network", required=True, metavar="NAME")
@click.option("--vm", metavar="NAME", help="Made if there is none.")
@click.option("--index", type=click.IntRange(0, 255), help="Without an ID the VIF is VM/INDEX.")
@click.option("--mac", help="Allocated if left out.")
@click.option("--address", "addresses", multiple=True, help="Repeat for several.")
@click.option("--locking-mode", type=click.Choice(["locked", "unlocked", "disabled"]))
@click.option("--trunk", callback=_trunk, metavar="TAGS", help="all, or tags as 10,20.")
@click.option("--security-group", "groups", multiple=True, metavar="NAME", help="Repeat for several.")
@click.option("--host", metavar="NAME", help="Where it is to run; left out, wherever it is plugged.")
@click.option("--awaited", is_flag=True, help="With --host: program all hosts before its port is there.")
@output_option
def create(id: str | None, addresses: tuple[str, ...], groups: tuple[str, ...], output: str, **given: Any) -> None:
    """Make a VIF. Making the same one again changes nothing."""
    from vnet.client import NewVif  # noqa: PLC0415 - loads an HTTP library

    with connected() as client:
        spec = NewVif(id=id, addresses=list(addresses) or None, security_groups=list(groups) or None, **given)
        made = client.create_vif(spec)
        emit(made, output, VIFS)


@vif.command("list")
@vif_filters
@output_option
def list_(host: str | None, network: str | None, vm: str | None, state: str | None, output: str) -> None:
    """List VIFs, where they are and why not ready."""
    with connected() as client:
        emit(client.vifs(host=host, network=network, vm=vm, state=state), output, VIFS)


@vif.command()
@click.argument("id")
@output_option
def get(id: str, output: str) -> None:
    """Show one VIF."""
    with connected() as client:
        emit(client.vif(id), output, VIFS)


@vif.command("security-groups")
@click.argument("id")
@click.argument("groups", nargs=-1)
@output_option
def security_groups(id: str, groups: tuple[str, ...], output: str) -> None:
    """Have a VIF obey these security groups instead of those it is in: none for no filter."""
    with connected() as client:
        emit(client.set_security_groups(id, groups), output, VIFS)


@vif.command()
@click.argument("id")
def delete(id: str) -> None:
    """Remove a VIF; removing it again changes nothing."""
    with connected() as client:
        client.delete_vif(id)


@vif.command()
@click.argument("id")
@click.option("--port", metavar="DEVICE", help="On this host: add the device to br-int as the VIF's port.")
@click.option("--host", metavar="NAME", help="From anywhere: want the VIF on this host; its port is added there.")
@click.option(
    "--wait", "wait_s", type=float, default=0.0, metavar="SECONDS", help="With --host: wait until it is ready."
)
@click.option("--awaited", is_flag=True, help="With --host: program all hosts before its port is there.")
@socket_option
@output_option
def plug(id: str, port: str | None, host: str | None, wait_s: float, awaited: bool, socket: str, output: str) -> None:
    """Plug a VIF, on this host (--port) or by the controller (--host)."""
    if (port is None) == (host is None):
        raise click.UsageError("say either --port DEVICE or --host NAME")
    if awaited and host is None:
        raise click.UsageError("--awaited goes with --host: it is said before the port is there")
    if host is not None:
        with connected() as client:
            emit(client.plug_vif(id, host, wait_s=wait_s, awaited=awaited), output, VIFS)
        return
    _local("plug", {"vif": id, "port": port or ""}, socket, output)


@vif.command()
@click.argument("id")
@click.option(
    "--dead-host", is_flag=True, help="By the controller: want it nowhere, and forget it on hosts that do not report."
)
@socket_option
@output_option
def unplug(id: str, dead_host: bool, socket: str, output: str) -> None:
    """Take a VIF's port away on this host."""
    if dead_host:
        with connected() as client:
            emit(client.unplug_vif(id), output, VIFS)
        return
    _local("unplug", {"vif": id}, socket, output)


def _local(method: str, params: dict[str, str], socket: str, output: str) -> None:
    from vnet.client.local import call_agent  # noqa: PLC0415

    with failures():
        result = call_agent(method, params, socket)
    if output != "table":
        emit(result, output)
    elif result.get("port") is None:
        say(f"VIF {params['vif']} has no port here")
    else:
        say(f"{method}ged: VIF {params['vif']}, port {result['port']}")


add_moves(vif, "vifs", "a VIF")
