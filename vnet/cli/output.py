"""What commands print. One rule: data goes to standard output in the form asked for, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

Column = tuple[str, Callable[[Any], object]]
_COLOURS = {
    "ready": "green",
    "awaited": "yellow",
    "claimed": "yellow",
    "defined": "yellow",
    "alive": "green",
    "silent": "red",
}


def output_option(function: F) -> F:
    """`-o table|json|yaml`, as the argument `output`."""
    kinds = click.Choice(["table", "json", "yaml"])
    return click.option("-o", "--output", type=kinds, default="table", show_default=True, help="How to print.")(
        function
    )


def emit(data: object, output: str, columns: Sequence[Column] = ()) -> None:
    """Print data: as JSON or YAML all of it, as a table its `columns`, for a list or a single object."""
    if output == "table":
        rows = data if isinstance(data, list) else [data]
        click.echo("\n".join(table(rows, columns)))
    else:
        dump(plain(data), output)


def plain(data: object) -> Any:
    """An answer of the API as dicts, lists and scalars."""
    import msgspec  # noqa: PLC0415 - help and completion need not pay for it

    return msgspec.to_builtins(data)


def dump(data: object, output: str) -> None:
    """Print plain data as JSON or YAML."""
    if output == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    import yaml  # noqa: PLC0415

    click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)


def table(rows: Iterable[Any], columns: Sequence[Column]) -> list[str]:
    """The lines of a table: a heading, then a line per row, as wide as they need."""
    cells = [[_cell(value(row)) for _, value in columns] for row in rows]
    titles = [title for title, _ in columns]
    widths = [max(len(line[at]) for line in [titles, *cells]) for at in range(len(columns))]
    heading = click.style(_joined(titles, widths), bold=True)
    return [heading, *(_joined(line, widths, colour=True) for line in cells)]


def _cell(value: object) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    # What people name must not move the terminal's cursor.
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))


def _joined(cells: Sequence[str], widths: Sequence[int], *, colour: bool = False) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    padded[-1] = cells[-1]
    if colour:
        padded = [click.style(text, fg=_COLOURS.get(cell)) for text, cell in zip(padded, cells, strict=True)]
    return "  ".join(padded).rstrip()


def say(message: str) -> None:
    """A message for the person, on standard error."""
    click.echo(message, err=True)


def progress(message: str) -> None:
    """A line of progress, if somebody watches."""
    if sys.stderr.isatty():
        click.echo(click.style(message, dim=True), err=True)
