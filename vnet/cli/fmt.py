"""`vnet fmt`: documents in vnet's layout, comments kept."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import echo, say
from vnet.cli.topology import READ_MAX_BYTES, invalid


@click.command()
@click.argument("files", type=click.Path(allow_dash=True, dir_okay=False), metavar="FILE...", nargs=-1, required=True)
@click.option("--check", is_flag=True, help="Change nothing; exit 2 and name the files that would change.")
@click.option("--diff", is_flag=True, help="Change nothing; print the lines that would change, and exit 2.")
def fmt(files: tuple[str, ...], check: bool, diff: bool) -> int:
    """Lay FILE out: keys in order, indentation, quotes. Comments stay, and so does what it says.

    Each file is laid out by itself, also one that others include. '-' reads standard input and writes standard output.
    """
    changed = False
    for file in files:
        name = "standard input" if file == "-" else file
        data = _read(file)
        text = _laid_out(data, name)
        same = text.encode() == data
        changed = changed or not same
        if diff:
            before = data.decode("utf-8-sig").splitlines(keepends=True)
            echo("".join(difflib.unified_diff(before, text.splitlines(keepends=True), name, name)), nl=False)
        elif check:
            if not same:
                say(f"{name} would change")
        elif file == "-":
            echo(text, nl=False)
        elif not same:
            _replace(Path(file), text)
            say(f"{name} is laid out")
    return ExitCode.CHANGES if changed and (check or diff) else ExitCode.OK


def _read(file: str) -> bytes:
    """Raises CommandError."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(READ_MAX_BYTES)
        with Path(file).open("rb") as opened:
            return opened.read(READ_MAX_BYTES)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", ExitCode.INVALID_INPUT) from None


def _laid_out(data: bytes, name: str) -> str:
    """Raises CommandError."""
    from vnet.topology import TopologyErrors  # noqa: PLC0415 - help needs none of it
    from vnet.topology.layout import NotKept, laid_out  # noqa: PLC0415

    try:
        return laid_out(data, name)
    except TopologyErrors as errors:
        raise invalid(errors) from None
    except NotKept as refused:
        place = f"{name}:{refused.line}" if refused.line else name
        raise CommandError(f"{place}: {refused}", ExitCode.INVALID_INPUT) from None


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, with the mode that it had. Raises CommandError."""
    path = path.resolve()  # a link stays one
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as made:
            try:
                made.write(text.encode())
                made.flush()
                os.fsync(made.fileno())
                shutil.copymode(path, made.name)
                os.replace(made.name, path)
            except BaseException:
                os.unlink(made.name)
                raise
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", ExitCode.FAILED) from None
