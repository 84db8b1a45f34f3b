"""`vnet explain`: what a key of a document means, from its declaration."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import echo

if TYPE_CHECKING:
    from vnet.grammar.declare import Attr, Shape, Spelling

Words = Mapping[str, Any]
HINT = "'vnet explain' lists the keys of a document, 'vnet explain networks.*' those of each network"


@click.command()
@click.argument("path", default="", metavar="[KEY.KEY...]")
def explain(path: str) -> None:
    """Say what a key of a document means: 'vnet explain networks.*.mtu'. Without a key, list those of the document."""
    from vnet.topology.document import root_shape  # noqa: PLC0415 - help needs none of it

    steps = [step for step in path.replace("[]", "").split(".") if step]
    shape = root_shape()
    required: tuple[str, ...] = ("apiVersion", "pool")
    for number, step in enumerate(steps):
        item = shape.words.get(step)
        if item is None:
            raise _unknown(".".join(steps[:number]), step, shape.words)
        inside = _inside(item)
        named = number + 1 < len(steps) and inside is not None and steps[number + 1] not in inside[0].words
        if named:
            del steps[number + 1]  # '*', or the name of an object
        if number + 1 >= len(steps):
            _print_key(path or step, item, step in required)
            if inside is not None:
                _print_words(*inside)
            return
        if inside is None:
            raise _unknown(".".join(steps[: number + 1]), steps[number + 1], {})
        shape, required = inside
    echo(_wrapped(shape.doc, 0))
    _print_words(shape, required)


def _inside(item: Shape | tuple[Attr, Spelling]) -> tuple[Shape, tuple[str, ...]] | None:
    """The map behind a key, and the words that it needs; None for a key with a plain value."""
    from vnet.grammar.declare import Shape  # noqa: PLC0415
    from vnet.topology.schema import declared_of, needed, shape_in_document  # noqa: PLC0415

    if isinstance(item, Shape):
        return item, ()
    declared = declared_of(item[1].type)
    return None if declared is None else (shape_in_document(declared), needed(declared))


def _unknown(path: str, step: str, words: Words) -> CommandError:
    from vnet.util.suggest import listing, nearest  # noqa: PLC0415

    place = f"'{path}' has" if path else "a document has"
    near = nearest(step, words)
    hint = f"did you mean '{near}'?" if near else f"there is: {listing(words)}" if words else HINT
    return CommandError(f"{place} no key '{step}'; {hint}", ExitCode.INVALID_INPUT)


def _print_key(path: str, item: Shape | tuple[Attr, Spelling], required: bool) -> None:
    from vnet.grammar.declare import Shape  # noqa: PLC0415
    from vnet.topology.reference import left_out  # noqa: PLC0415

    if isinstance(item, Shape):
        echo(f"{path}: a map\n\n{_wrapped(item.doc, 2)}")
        return
    found, spelling = item
    echo(f"{path}: {spelling.type.expected}\n\n{_wrapped(spelling.doc, 2)}")
    if text := "needed" if required else left_out(found, spelling):
        echo(f"  {text if text.startswith(('needed', 'only')) else f'Left out: {text}'}".replace("`", ""))


def _print_words(shape: Shape, required: tuple[str, ...]) -> None:
    lines = list(_lines(shape, required))
    longest = max((len(word) for word, _, _ in lines), default=0)
    echo("")
    for word, value, doc in lines:
        echo(f"  {word:<{longest}}  {value}")
        echo(_wrapped(doc, longest + 4))


def _wrapped(text: str, indent: int) -> str:
    """A text for the width of the terminal, between 60 and 120 columns."""
    width = min(max(shutil.get_terminal_size().columns, 60), 120)
    return textwrap.fill(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent)


def _lines(shape: Shape, required: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    from vnet.grammar.declare import Shape  # noqa: PLC0415

    for word, item in shape.words.items():
        if isinstance(item, Shape):
            yield word, "a map", item.doc
        else:
            value = item[1].type.expected + (", needed" if word in required else "")
            yield word, value, item[1].doc
