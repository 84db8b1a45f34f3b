"""Options that every command takes, before the command's name and after it."""

from __future__ import annotations

import click

FORMATS = click.Choice(["table", "json", "yaml"])
LIST_FORMATS = click.Choice(["table", "wide", "json", "yaml"])


class RootOptions:  # no dataclass: that would cost every command a millisecond
    """The values of these options for one command line, in the root context."""

    def __init__(
        self,
        controller: str,
        token_file: str | None = None,
        output: str | None = None,
        ca: str | None = None,
        cleartext: bool = False,
        message: str | None = None,
    ) -> None:
        self.controller = controller
        self.token_file = token_file
        self.output = output
        self.ca = ca
        self.cleartext = cleartext
        self.message = message


def _stored(context: click.Context, option: click.Parameter, value: str | bool | None) -> None:
    if value is not None and option.name is not None:
        setattr(context.find_root().obj, option.name, value)


def with_connection(command: click.Command) -> click.Command:
    """The command with the options of the connection, and so its subcommands. Their help is the root command's."""
    names = {name for option in command.params for name in option.opts}
    for name, *short in (("--controller",), ("--token-file",), ("--ca",), ("--cleartext",), ("--message", "-m")):
        if name not in names:
            flag = True if name == "--cleartext" else None
            command.params.append(
                click.Option(
                    [name, *short], is_flag=flag, default=None, expose_value=False, hidden=True, callback=_stored
                )
            )
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_connection(inner)
    return command
