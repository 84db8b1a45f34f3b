"""Exit codes of `vnet`. One rule: every command ends with one of these, so that scripts can tell the outcomes apart."""

from __future__ import annotations

import os
from enum import IntEnum
from typing import IO, Any

import click

from vnet.util.printable import printable


class ExitCode(IntEnum):
    """What a command comes to; `meaning` is a line for the reference."""

    OK = 0, "Done, or as it should be."
    FAILED = 1, "Something failed; the message says what."
    CHANGES = 2, "`plan --detailed-exitcode`, `fmt --check`: there is something to change."
    EXPECTATION_FAILED = 3, "A packet does not arrive, an expectation does not hold, a scenario is not solved."
    INVALID_INPUT = 4, "A document or a value is wrong; the message says where."
    UNREACHABLE = 5, "The controller, or an agent, does not answer."
    CONFLICT = 6, "Not as the pool is now, or beyond what `--yes` and `--allow` agree to. Nothing was changed."
    NOT_FOLLOWED = 7, "Applied, and not carried out by every live host, or by none."
    USAGE = 64, "The command line is wrong."  # sysexits.h EX_USAGE: 2 is taken

    meaning: str

    def __new__(cls, number: int, meaning: str) -> ExitCode:
        made = int.__new__(cls, number)
        made._value_ = number
        made.meaning = meaning
        return made


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
