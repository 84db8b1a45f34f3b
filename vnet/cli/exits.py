"""Exit codes of `vnet`. One rule: every command ends with one of these, so that scripts can tell the outcomes apart."""

from __future__ import annotations

import os
from enum import IntEnum
from typing import IO, Any

import click

from vnet.util.printable import printable


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    CHANGES = 2  # plan --detailed-exitcode: there is something to apply
    EXPECTATION_FAILED = 3
    INVALID_INPUT = 4
    UNREACHABLE = 5
    CONFLICT = 6
    NOT_FOLLOWED = 7  # applied, and not carried out by every live host, or by none
    USAGE = 64  # sysexits.h EX_USAGE: 2 is taken


def colour() -> bool | None:
    """False where NO_COLOR (https://no-color.org) forbids colour; None leaves it to whether the stream is a terminal."""
    return False if os.environ.get("NO_COLOR") else None


class CommandError(click.ClickException):
    """Ends a command: the message goes to standard error, `exit` is what the process exits with."""

    def __init__(self, message: str, exit: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit = exit

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(
            f"{click.style('error:', fg='red', bold=True)} {printable(self.message)}",
            file=file,
            err=file is None,
            color=colour(),
        )
