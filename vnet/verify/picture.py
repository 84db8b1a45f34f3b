"""Reachability as a table for a terminal, and as a picture for a browser."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from vnet.verify.failures import Lost
from vnet.verify.reachability import Reachability

CELL, FONT, CHAR = 22, 12, 7  # pixels
YES, SOMETIMES, NO = "#2e7d32", "#f9a825", "#eceff1"


def names(reach: Reachability) -> list[str]:
    """The names of the rows and columns."""
    return [group.name for group in reach.classes]


def table(reach: Reachability, lost: Lost | None = None) -> str:
    """A row per class of senders, a column per class of receivers, numbered; `+` is reachable, `!` so until something fails: which, is below."""
    failed = lost or {}
    rows = reach.matrix()
    width = len(str(len(rows)))
    head = " ".join(f"{number:>{width}}" for number in range(1, len(rows) + 1))
    longest = max((len(name) for name in names(reach)), default=0)
    lines = [f"{'':>{width}}  {'from / to':<{longest}}  {head}"]
    for y, (name, row) in enumerate(zip(names(reach), rows, strict=True)):
        marks = ("!" if (y, x) in failed else "+" if yes else "." for x, yes in enumerate(row))
        cells = " ".join(f"{mark:>{width}}" for mark in marks)
        lines.append(f"{y + 1:>{width}}  {name:<{longest}}  {cells}")
    by_failures: dict[str, list[str]] = {}
    for (y, x), failures in sorted(failed.items()):
        by_failures.setdefault("; ".join(map(str, failures)), []).append(f"{y + 1} to {x + 1}")
    lines += [f"!  {', '.join(pairs)}: not with {text}" for text, pairs in by_failures.items()]
    return "\n".join(lines)


def svg(reach: Reachability, lost: Lost | None = None) -> str:
    """The matrix as an SVG picture. Each cell has its meaning as a tooltip."""
    return "\n".join(_svg(reach, lost or {}))


def _svg(reach: Reachability, lost: Lost) -> Iterator[str]:
    labels, rows = names(reach), reach.matrix()
    left = max((len(label) for label in labels), default=0) * CHAR + 16
    size = left + len(rows) * CELL + 8
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {size} {size}" '
        f'font-family="sans-serif" font-size="{FONT}" role="img" aria-label="reachability">'
    )
    for at, label in enumerate(labels):
        middle = left + at * CELL + CELL // 2 + FONT // 3
        yield f'<text x="{left - 6}" y="{middle}" text-anchor="end">{escape(label)}</text>'
        yield f'<text transform="translate({middle},{left - 6}) rotate(-90)">{escape(label)}</text>'
    for y, row in enumerate(rows):
        for x, yes in enumerate(row):
            tooltip = f"{labels[y]} {'reaches' if yes else 'does not reach'} {labels[x]}"
            colour = YES if yes else NO
            if failures := lost.get((y, x)):
                tooltip, colour = f"{tooltip}, not with {'; '.join(map(str, failures))}", SOMETIMES
            yield (
                f'<rect x="{left + x * CELL}" y="{left + y * CELL}" width="{CELL - 2}" height="{CELL - 2}" rx="3" '
                f'fill="{colour}"><title>{escape(tooltip)}</title></rect>'
            )
    yield "</svg>"


def html(reach: Reachability, title: str, lost: Lost | None = None) -> str:
    """The picture as a page of its own."""
    sometimes = "" if lost is None else "; yellow is until one host or link fails"
    service = f"{reach.protocol.value} {reach.port}" if reach.port else "ping"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head>\n'
        f'<body style="font-family:sans-serif"><h1>{escape(title)}</h1><p>Reachability ({escape(service)}): '
        f"rows send, columns receive; green is reachable{sometimes}.</p>\n{svg(reach, lost)}\n</body></html>"
    )
