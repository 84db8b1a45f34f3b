"""`vnet confirm`, `vnet revert`, and the wait of `vnet apply --try` for somebody to confirm."""

from __future__ import annotations

import select
import sys
import time
from typing import TYPE_CHECKING

import click

from vnet.cli.applied import report_applied
from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import dump, output_option, plain, progress, say
from vnet.cli.remote import connected

if TYPE_CHECKING:
    from vnet.client import Client

GRACE_S = 5.0  # in which the controller takes back what has had its time


@click.command()
@click.argument("revision", type=click.IntRange(1), required=False)
@output_option
def confirm(revision: int | None, output: str) -> None:
    """Keep the revision that is on trial ('vnet apply --try'); with REVISION only if it is that one."""
    with connected() as client:
        trial = client.confirm(revision)
    if output != "table":
        dump(plain(trial), output)
    say(f"revision {trial.revision} is confirmed")


@click.command()
@click.argument("revision", type=click.IntRange(1), required=False)
@output_option
def revert(revision: int | None, output: str) -> int:
    """Take the revision that is on trial back at once; with REVISION only if it is that one."""
    with connected() as client:
        done = client.revert(revision, progress=progress)
    return report_applied(done, output)


def await_confirmation(client: Client, revision: int) -> None:
    """Ask the person at the terminal to confirm; where none is there, say how. Raises CommandError for what was taken back."""
    from vnet.api.errors import NotFound  # noqa: PLC0415

    keeps = f"'vnet confirm {revision}' keeps it"
    try:
        seconds = client.trial().seconds  # hosts may have taken some of the time
        if not sys.stdin.isatty():
            say(f"revision {revision} is taken back in {seconds} s: {keeps}")
            return
        say(f"revision {revision} is taken back in {seconds} s. Enter keeps it, Ctrl-C takes it back now.")
        answered, _, _ = select.select([sys.stdin], [], [], seconds)
        if answered and sys.stdin.readline():
            client.confirm(revision)
            say(f"revision {revision} is confirmed")
            return
    except NotFound:
        answered = []
    except KeyboardInterrupt:
        client.revert(revision, progress=progress)
        raise CommandError(f"revision {revision} is taken back") from None
    if answered:  # the terminal is gone: the time goes on without us
        raise CommandError(f"revision {revision} is not confirmed: {keeps}")
    _await_end(client, revision)
    raise CommandError(f"revision {revision} was not confirmed in time, and is taken back")


def _await_end(client: Client, revision: int) -> None:
    from vnet.api.errors import NotFound  # noqa: PLC0415

    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        try:
            if client.trial().revision != revision:
                return
        except NotFound:
            return
        time.sleep(0.2)
    raise CommandError(f"revision {revision} is still on trial: 'vnet status' says why", ExitCode.FAILED)
