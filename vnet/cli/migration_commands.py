"""Migration on the command line: the same commands for a VIF and for a VM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vnet.cli.output import Column, emit, output_option, progress, say
from vnet.cli.remote import connected, stopped

if TYPE_CHECKING:
    from vnet.client import Unit

MIGRATION: list[Column] = [
    ("PHASE", lambda m: m.phase),
    ("FROM", lambda m: m.source),
    ("TO", lambda m: m.destination),
    ("WAITING FOR", lambda m: "; ".join(m.waiting)),
    ("NOT WAITED FOR", lambda m: m.not_waited),
]
name_argument = click.argument("name")
to_option = click.option("--to", required=True, metavar="HOST", help="The destination.")


def add_moves(group: click.Group, plural: str, title: str) -> None:
    """Add the migration commands to a group. plural: as in the API's paths."""

    def unit(name: str) -> Unit:
        from vnet.client import Unit  # noqa: PLC0415 - loads an HTTP library

        return Unit(plural, name)

    @group.command(help=f"Move {title} to another host, all the way. Call again to go on after a failure.")
    @name_argument
    @to_option
    @click.option(
        "--activate", is_flag=True, help="Switch over when prepared, not waiting for the guest to announce itself."
    )
    @click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, metavar="SECONDS")
    @output_option
    def migrate(name: str, to: str, activate: bool, timeout_s: float, output: str) -> None:
        left = f"{title.removeprefix('a ')} {name} stays as far on its way to host {to} as it is"
        with connected() as client, stopped(f"{left}. 'vnet {group.name} migration {name}' shows how far, "
                                            f"'migrate' again goes on, 'abort' ends it where it came from"):  # fmt: skip
            done = client.migrate(unit(name), to, activate=activate, timeout_s=timeout_s, progress=progress)
        if output != "table":
            emit(done, output)
        say(f"{name} runs on host {to}")

    @group.command(help=f"Show the progress of the migration of {title}.")
    @name_argument
    @output_option
    def migration(name: str, output: str) -> None:
        with connected() as client:
            emit(client.migration(unit(name)), output, MIGRATION)

    @group.command(help=f"Let a host get ready to take {title}. Nothing moves yet.")
    @name_argument
    @to_option
    @click.option("--force", is_flag=True, help="Also to a host whose agent does not report.")
    @output_option
    def prepare(name: str, to: str, force: bool, output: str) -> None:
        with connected() as client:
            emit(client.prepare(unit(name), to, force=force), output, MIGRATION)

    @group.command(help="The guest is paused: open the destination for it.")
    @name_argument
    @click.option("--force", is_flag=True, help="Even if not every host is prepared.")
    @output_option
    def switch(name: str, force: bool, output: str) -> None:
        with connected() as client:
            emit(client.switch(unit(name), force=force), output, MIGRATION)

    @group.command(help="The guest runs at the destination.")
    @name_argument
    @click.option("--force", is_flag=True, help="Even if not every host is prepared.")
    @output_option
    def activate(name: str, force: bool, output: str) -> None:
        with connected() as client:
            emit(client.activate(unit(name), force=force), output, MIGRATION)

    @group.command(help="End a migration at its destination.")
    @name_argument
    @click.option("--force", is_flag=True, help="The source is dead: take over from it.")
    @output_option
    def finish(name: str, force: bool, output: str) -> None:
        with connected() as client:
            emit(client.finish(unit(name), force=force), output, MIGRATION)

    @group.command(help="End a migration at its source.")
    @name_argument
    @output_option
    def abort(name: str, output: str) -> None:
        with connected() as client:
            emit(client.abort(unit(name)), output, MIGRATION)
