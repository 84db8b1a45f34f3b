"""Hosts on the command line."""

from __future__ import annotations

import click

from vnet.cli.output import Column, emit, output_option, progress, say
from vnet.cli.remote import connected
from vnet.cli.show import HOSTS

MOVED: list[Column] = [("MOVED", lambda item: item[0]), ("TO", lambda item: item[1])]


@click.group()
def host() -> None:
    """Act on a whole host."""


@host.command("list")
@output_option
def list_(output: str) -> None:
    """List hosts, and what their agents say."""
    with connected() as client:
        emit(client.hosts(), output, HOSTS)


@host.command()
@click.argument("name")
@output_option
def get(name: str, output: str) -> None:
    """Show one host."""
    with connected() as client:
        emit(client.host(name), output, HOSTS)


@host.command()
@click.argument("name")
@click.option("--to", metavar="HOST", help="Where all of it goes; left out, spread over the hosts that can take it.")
@click.option(
    "--activate", is_flag=True, help="Switch over when prepared, not waiting for the guests to announce themselves."
)
@click.option("--timeout", "timeout_s", type=float, default=600.0, show_default=True, metavar="SECONDS")
@output_option
def evacuate(name: str, to: str | None, activate: bool, timeout_s: float, output: str) -> None:
    """Migrate all that runs on a host. Call again to go on after a failure."""
    with connected() as client:
        done = client.evacuate(name, to=to, activate=activate, timeout_s=timeout_s, progress=progress)
    if output != "table":
        emit(done, output)
    elif done.moved:
        emit(sorted(done.moved.items()), output, MOVED)
    say(f"host {name} runs nothing")
