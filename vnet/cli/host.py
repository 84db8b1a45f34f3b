"""Hosts on the command line."""

from __future__ import annotations

import click

from vnet.cli.nouns import noun_group
from vnet.cli.output import Column, emit, output_option, progress, say
from vnet.cli.remote import connected, failures, socket_option, stopped

MOVED: list[Column] = [("MOVED", lambda item: item[0]), ("TO", lambda item: item[1])]


host = noun_group("host")


@host.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@socket_option
def leave(yes: bool, socket: str) -> None:
    """Have this host belong to no pool: its agent then follows the pool database it is pointed at, whatever that says.

    Run it on the host, when the database was restored from an older state, or is another pool's on purpose.
    """
    from vnet.client.local import call_agent  # noqa: PLC0415 - loads an HTTP library

    if not yes:
        click.confirm(
            "Its flows and rows become what that database says, and are taken away if it is empty. Go on?",
            abort=True,
            err=True,
        )
    with failures():
        left = call_agent("leave", {}, socket)["pool"]
    say(f"left pool {left}" if left else "this host belonged to no pool")


@host.command()
@click.argument("name")
@click.option(
    "--to", metavar="HOST", help="The destination of all; left out, they are spread over the hosts that can take them."
)
@click.option(
    "--activate", is_flag=True, help="Switch over when prepared, not waiting for the guests to announce themselves."
)
@click.option("--timeout", "timeout_s", type=float, default=600.0, show_default=True, metavar="SECONDS")
@output_option
def evacuate(name: str, to: str | None, activate: bool, timeout_s: float, output: str) -> None:
    """Migrate every VIF that runs on a host. Call again to go on after a failure."""
    left = "what is on its way stays so, and 'vnet status' lists it"
    with connected() as client, stopped(f"{left}. 'vnet host evacuate {name}' again goes on"):
        done = client.evacuate(name, to=to, activate=activate, timeout_s=timeout_s, progress=progress)
    if output != "table":
        emit(done, output)
    elif done.moved:
        emit(sorted(done.moved.items()), output, MOVED)
    say(f"host {name} runs nothing")
