"""Calling the controller and the agent from commands. One rule: each failure becomes its exit code here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.options import RootOptions

if TYPE_CHECKING:
    from vnet.client import Client


socket_option = click.option(
    "--socket", metavar="PATH", envvar="VNET_AGENT_SOCKET", default="/run/vnet/agent.sock", show_default=True,
    help="The agent's socket.",
)  # fmt: skip


@contextmanager
def failures() -> Iterator[None]:
    """Turn the clients' errors into the command's exit codes."""
    from vnet.api import errors  # noqa: PLC0415
    from vnet.client import local  # noqa: PLC0415 - its HTTP library takes a while to load

    try:
        yield
    except (errors.Unreachable, errors.BadAnswer) as error:
        raise CommandError(str(error), ExitCode.UNREACHABLE) from None
    except errors.Conflict as error:
        raise CommandError(str(error), ExitCode.CONFLICT) from None
    except (errors.Invalid, errors.NotFound) as error:
        raise CommandError(str(error), ExitCode.INVALID_INPUT) from None
    except local.LocalRefused as error:
        code = {"invalid": ExitCode.INVALID_INPUT, "missing": ExitCode.INVALID_INPUT, "conflict": ExitCode.CONFLICT}
        raise CommandError(str(error), code.get(error.code, ExitCode.FAILED)) from None
    except errors.ClientError as error:
        raise CommandError(str(error)) from None


@contextmanager
def stopped(text: str) -> Iterator[None]:
    """Turns Ctrl-C into the text: how things are now, and what to call next. The pool goes on without this command."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandError(f"stopped waiting, by Ctrl-C: {text}") from None


@contextmanager
def connected() -> Iterator[Client]:
    """A client of the controller that `--controller` names."""
    from vnet.api.errors import Unreachable  # noqa: PLC0415
    from vnet.client import Client  # noqa: PLC0415
    from vnet.client.wire import read_token  # noqa: PLC0415

    options: RootOptions = click.get_current_context().find_root().obj
    try:
        token = read_token(options.token_file)
    except OSError as error:
        raise CommandError(f"token file {options.token_file}: {error.strerror}", ExitCode.INVALID_INPUT) from None
    try:
        reason = options.message or ""
        client = Client(options.controller, token=token, ca=options.ca, cleartext=options.cleartext, reason=reason)
    except ValueError as error:
        raise click.UsageError(f"--controller or --token-file: {error}") from None
    except OSError as error:
        raise CommandError(f"--ca {options.ca}: {error.strerror or error}", ExitCode.INVALID_INPUT) from None
    with client, failures():
        try:
            yield client
        except Unreachable as error:
            if not str(error).startswith(f"{client.address}:"):
                raise
            verified = "certificate verify failed" not in str(error)
            hint = "is a controller running there? --controller names another"
            raise Unreachable(f"{error}; {hint if verified else 'name its CA with --ca (docs/trust.md)'}") from None
