"""VIFs on the command line."""

from __future__ import annotations

import click

from vnet.cli.columns import COLUMNS
from vnet.cli.migration_commands import add_moves
from vnet.cli.nouns import dry_run_option, noun_group, print_plan
from vnet.cli.output import emit, output_option, say
from vnet.cli.remote import connected, failures, socket_option

vif = noun_group("vif")


@vif.command("security-groups")
@click.argument("id")
@click.argument("groups", nargs=-1)
@output_option
def security_groups(id: str, groups: tuple[str, ...], output: str) -> None:
    """Have a VIF obey these security groups instead of its present ones; none for no filter."""
    with connected() as client:
        emit(client.set_security_groups(id, groups), output, COLUMNS["vif"])


@vif.command()
@click.argument("id", required=False)
@output_option
def traffic(id: str | None, output: str) -> None:
    """Bytes that VIFs have sent and got since they were made, wherever they ran: with VIFs of the pool, and outside."""
    with connected() as client:
        found = client.accounting(id)
    emit(list(found.vifs.items()) if output == "table" else found, output, COLUMNS["account"])


@vif.command()
@click.argument("id")
@click.option("--network", metavar="NAME", help="The network that it is put on.")
@click.option("--release", is_flag=True, help="Put it back where it was, with the addresses that it had there.")
@dry_run_option
@output_option
def quarantine(id: str, network: str | None, release: bool, dry_run: bool, output: str) -> None:
    """Put a VIF on another network (--network), also while it runs, until it is released (--release)."""
    if (network is not None) == release:
        raise click.UsageError("say either --network NAME or --release")
    with connected() as client:
        if network is not None:
            print_plan(client.quarantine_vif(id, network, dry_run=dry_run), output)
        else:
            print_plan(client.release_vif(id, dry_run=dry_run), output)


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
        raise click.UsageError("--awaited goes with --host: hosts are programmed before the port is there")
    if host is not None:
        with connected() as client:
            emit(client.plug_vif(id, host, wait_s=wait_s, awaited=awaited), output, COLUMNS["vif"])
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
            emit(client.unplug_vif(id), output, COLUMNS["vif"])
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
