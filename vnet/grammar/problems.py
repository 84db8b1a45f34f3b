"""The problems of an input, written so that a tired person can mend it. One rule: all of them at once, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vnet.util.printable import on_one_line

SHOWN_MAX = 100  # problems that str() prints; all of them are in .problems
EXCERPT_WIDTH = 110

# The characters at which libyaml ends a line (YAML 1.1 §5.4), so that our line numbers are its own.
_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of a document. line and column count from 1, in characters."""

    line: int
    column: int
    length: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. code: a stable word for programs; hint: what to do, empty if the message says it all.

    place: None where no line is at fault. text: the offending line, empty without a place. path: the field of a JSON body
    at fault, as rules[2].remote.
    """

    code: str
    message: str
    hint: str = ""
    filename: str = ""
    place: Place | None = None
    text: str = ""
    path: str = ""

    def __str__(self) -> str:
        """`file:line:column: message`, the line with a caret, and the hint."""
        if self.place is None:
            position, excerpt = self.filename or self.path, []
        else:
            position = f"{self.filename}:{self.place.line}:{self.place.column}"
            excerpt = _excerpt(self.text, self.place)
        lines = [f"{position}: {self.message}" if position else self.message, *excerpt]
        if self.hint:
            lines.append(f"{' ' * 7}= {self.hint}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """For JSON: line, column and length are None where no line is at fault."""
        place = self.place
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "file": self.filename,
            "line": place.line if place else None,
            "column": place.column if place else None,
            "length": place.length if place else None,
            "text": self.text,
            "path": self.path,
        }


class TopologyErrors(ValueError):
    """A document that was refused, whole. `problems` has at least one, in the order of their places."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        blocks = [str(problem) for problem in self.problems[:SHOWN_MAX]]
        count = len(self.problems)
        if count > SHOWN_MAX:
            blocks.append(f"and {count - SHOWN_MAX} more problems")
        return "\n\n".join(blocks)

    def as_dicts(self) -> list[dict[str, object]]:
        """Every problem, for JSON."""
        return [problem.as_dict() for problem in self.problems]


def split_lines(text: str) -> list[str]:
    """The lines of a document, as libyaml counts them."""
    return _LINE_END.split(text)


def _excerpt(text: str, place: Place) -> list[str]:
    """The line with a caret under the place, cut to a width that a terminal shows."""
    start = place.column - 1
    cut = max(0, start - EXCERPT_WIDTH * 2 // 3) if len(text) > EXCERPT_WIDTH else 0
    shown = on_one_line(text[cut : cut + EXCERPT_WIDTH].replace("\t", " "))
    before, after = "..." if cut else "", "..." if len(text) > cut + EXCERPT_WIDTH else ""
    indent = len(before) + start - cut
    length = max(1, min(place.length, len(before) + len(shown) - indent))
    number = str(place.line)
    gutter = " " * max(0, 4 - len(number))
    return [
        f"{gutter}{number} | {before}{shown}{after}".rstrip(),
        f"{' ' * max(4, len(number))} | {' ' * indent}{'^' * length}",
    ]
