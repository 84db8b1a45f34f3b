"""Printing. One rule: data goes to standard output in the chosen form, everything else to standard error.

All that `vnet` prints passes `echo`, `print_table` or an error's `show`, which let no control character from outside through.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from vnet.cli.options import FORMATS
from vnet.util.printable import on_one_line, printable

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


def output_option(function: F, formats: click.Choice[str] = FORMATS) -> F:
    """`-o table|json|yaml`, as the argument `output`."""
    return click.option(
        "-o", "--output", type=formats, callback=_output, show_default="table", help="The form of what is printed."
    )(function)


def _output(context: click.Context, _: click.Parameter, value: str | None) -> str:
    return value or context.find_root().obj.output or "table"


def echo(text: str = "", *, err: bool = False, nl: bool = True, **style: Any) -> None:
    """Print a text. style: as for `click.style`."""
    safe = printable(text)
    click.echo(click.style(safe, **style) if style else safe, err=err, nl=nl)


def print_table(rows: Iterable[Any], columns: Sequence[Column]) -> None:
    """Print a line per row, the cells coloured by their words."""
    click.echo("\n".join(table(rows, columns)))


def emit(data: object, output: str, columns: Sequence[Column] = ()) -> None:
    """Print data: as JSON or YAML all of it, as a table its `columns`, for a list or a single object."""
    if output == "table":
        rows = data if isinstance(data, list) else [data]
        print_table(rows, columns)
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
        import json  # noqa: PLC0415 - a table needs neither

        echo(json.dumps(data, indent=2))
        return
    import yaml  # noqa: PLC0415

    echo(yaml.safe_dump(data, sort_keys=False), nl=False)


def table(rows: Iterable[Any], columns: Sequence[Column]) -> list[str]:
    """The lines of a table: a heading, then a line per row, as wide as they need."""
    cells = [[_cell(value(row)) for _, value in columns] for row in rows]
    titles = [title for title, _ in columns]
    widths = [max(_width(line[at]) for line in [titles, *cells]) for at in range(len(columns))]
    heading = click.style(_joined(titles, widths), bold=True)
    return [heading, *(_joined(line, widths, colour=True) for line in cells)]


def _cell(value: object) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, (list, tuple)):
        return on_one_line(",".join(map(str, value)))
    return on_one_line(str(value))


def _width(text: str) -> int:
    """Cells of a terminal: two for what East Asian Width (UAX #11) calls wide, as emoji are, none for marks that combine."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _joined(cells: Sequence[str], widths: Sequence[int], *, colour: bool = False) -> str:
    padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
    padded[-1] = cells[-1]
    if colour:
        padded = [click.style(text, fg=_COLOURS.get(cell)) for text, cell in zip(padded, cells, strict=True)]
    return "  ".join(padded).rstrip()


def say(message: str) -> None:
    """A message for the person, on standard error."""
    echo(message, err=True)


def status_line(text: str) -> None:
    """A line that the next one takes the place of, if standard error is a terminal; "" for none."""
    if sys.stderr.isatty():
        click.echo(f"\r{printable(text)}\033[K", err=True, nl=False)


def progress(message: str) -> None:
    """A line of progress, if standard error is a terminal."""
    if sys.stderr.isatty():
        echo(message, err=True, dim=True)
