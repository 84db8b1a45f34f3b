"""Printing. One rule: data goes to standard output in the chosen form, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from vnet.cli.options import FORMATS

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
    return click.option(
        "-o", "--output", type=FORMATS, callback=_output, show_default="table", help="The form of what is printed."
    )(function)


def _output(context: click.Context, _: click.Parameter, value: str | None) -> str:
    return value or context.find_root().obj.output or "table"


def emit(data: object, output: str, columns: Sequence[Column] = ()) -> None:
    """Print data: as JSON or YAML all of it, as a table its `columns`, for a list or a single object."""
    if output == "table":
        rows = data if isinstance(data, list) else [data]
        click.echo("\n".join(table(rows, columns)))
    else:
        dump(plain(data), output)


def plain(data: object) -> Any:
    """An answer of the API as dicts, lists and scalars, with every field."""
    if isinstance(data, (list, tuple)):
        return [plain(item) for item in data]
    if isinstance(data, dict):
        return {name: plain(value) for name, value in data.items()}
    words = getattr(data, "__struct_encode_fields__", None)
    if words is None:
        return data
    return {word: plain(getattr(data, name)) for word, name in zip(words, _names(data), strict=True)}


def _names(struct: object) -> tuple[str, ...]:
    names: tuple[str, ...] = struct.__struct_fields__  # type: ignore[attr-defined]  # msgspec's structs have it
    return names


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
    # A name must not move the terminal's cursor.
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
    """A line of progress, if standard error is a terminal."""
    if sys.stderr.isatty():
        click.echo(click.style(message, dim=True), err=True)
