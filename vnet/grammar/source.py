"""A document's text and the problems found in it. One rule: a problem is added with its place, and raised with all others.

The text may be that of several files, one after another: places count through all of it, and what people read names the file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NoReturn

from vnet.grammar.nodes import Node, TextNode
from vnet.grammar.problems import Place, Problem, TopologyErrors, split_lines
from vnet.util.suggest import LISTED_MAX, listing, nearest

# Names compared for suggestions in one document, so that a broken big one is still answered soon.
NEAREST_BUDGET = 30_000
MAX_PROBLEMS = 10_000  # found before reading stops: by then it is a document of something else


def place_of(node: Node) -> Place:
    """The place where a node starts; a scalar's length, 1 for a list or a map."""
    return Place(node.line + 1, node.column + 1, node.length if isinstance(node, TextNode) else 1)


class Source:
    """One document while it is read. `problems` grows; `finish` raises if there are any."""

    def __init__(
        self,
        filename: str,
        text: str = "",
        paths: Mapping[int, str] | None = None,
        included: Sequence[tuple[int, str]] = (),
    ) -> None:
        """paths: for a JSON body, the path of each node, see json_tree. included: the further files of the text, each with the number of its
        first line in it."""
        self.filename = filename
        self.included = tuple(included)
        self._starts = [first for first, _ in self.included]
        self.text = text
        self.paths = paths
        self.problems: dict[
            tuple[str, Place | str | None, str], Problem
        ] = {}  # an aliased value is read, and wrong, only once
        self.partial: set[int] = set()  # id() of the nodes of which a part could not be read
        self._lines: list[str] | None = None
        self._budget = NEAREST_BUDGET

    def line(self, number: int) -> str:
        """The text of a line, counted from 1."""
        if self._lines is None:
            self._lines = split_lines(self.text)
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""

    def files(self) -> Iterator[tuple[int, str]]:
        """Each file's text, with how many lines of the whole text come before it."""
        if not self.included:
            yield 0, self.text
            return
        lines = split_lines(self.text)
        firsts = [1, *self._starts, len(lines) + 2]
        for first, following in pairwise(firsts):
            yield first - 1, "\n".join(lines[first - 1 : following - 2])

    def file_of(self, line: int) -> tuple[str, int]:
        """The file that a line of the text is of, and how many lines of the text come before that file."""
        place = bisect_right(self._starts, line) - 1
        return (self.filename, 0) if place < 0 else (self.included[place][1], self.included[place][0] - 1)

    def position(self, place: Place) -> str:
        """file:line:column."""
        filename, before = self.file_of(place.line)
        return f"{filename}:{place.line - before}:{place.column}"

    def line_of(self, node: Node) -> str:
        """The line of a node in words; with its file where there are several."""
        filename, before = self.file_of(node.line + 1)
        return f"line {node.line + 1 - before}" + (f" of {filename}" if self.included else "")

    def again(self) -> Source:
        """The same text, with the problems that were found in it so far."""
        made = Source(self.filename, self.text, self.paths, self.included)
        made.problems.update(self.problems)
        return made

    def problem(self, code: str, message: str, at: Node | Place | None = None, hint: str = "") -> Problem:
        """A problem of this document, not added to it."""
        if self.paths is not None:
            return Problem(code, message, hint, path=self.paths.get(id(at), ""))
        place = at if isinstance(at, Place) or at is None else place_of(at)
        if place is None:
            return Problem(code, message, hint, self.filename)
        filename, before = self.file_of(place.line)
        return Problem(code, message, hint, filename, replace(place, line=place.line - before), self.line(place.line))

    def add(self, code: str, message: str, at: Node | Place | None = None, hint: str = "") -> None:
        """Add a problem with the node or the place at fault."""
        self.note(self.problem(code, message, at, hint))

    def note(self, problem: Problem) -> None:
        """Add a problem, once."""
        self.problems.setdefault((problem.filename, problem.place or problem.path, problem.message), problem)
        if len(self.problems) >= MAX_PROBLEMS:
            raise TopologyErrors(self.ordered())

    def nearest(self, word: str, names: Collection[str]) -> str | None:
        """The name that a typo probably meant; None too once many were looked for."""
        if self._budget <= 0:
            return None
        self._budget -= len(names)
        return nearest(word, names)

    def suggest(self, word: str, names: Collection[str]) -> str:
        """A hint with the nearest name, else with what there is."""
        near = self.nearest(word, names)
        if near is not None:
            return f"did you mean '{near}'?"
        if self._budget <= 0 and len(names) > LISTED_MAX:
            return ""
        return f"there is: {listing(names)}" if names else "there is none"

    def stop(self, code: str, message: str, at: Node | Place | None = None, hint: str = "") -> NoReturn:
        """Add a problem after which reading on makes no sense, and raise."""
        self.add(code, message, at, hint)
        raise TopologyErrors(self.ordered())

    def ordered(self) -> list[Problem]:
        files = {name: number for number, (_, name) in enumerate(self.included, 1)}
        return sorted(
            self.problems.values(),
            key=lambda p: (files.get(p.filename, 0), p.place.line, p.place.column) if p.place else (0, 0, 0),
        )

    def finish(self) -> None:
        """Raise TopologyErrors if anything was wrong."""
        if self.problems:
            raise TopologyErrors(self.ordered())
