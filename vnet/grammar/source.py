"""A document's text and the problems found in it. One rule: a problem is added with its place, and raised with all others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NoReturn

from vnet.grammar.nodes import Node, Text
from vnet.grammar.problems import Place, Problem, TopologyErrors, split_lines
from vnet.util.suggest import LISTED_MAX, listing, nearest

# Names compared for suggestions in one document, so that a broken big one is still answered soon.
NEAREST_BUDGET = 30_000
MAX_PROBLEMS = 10_000  # found before reading stops: by then it is a document of something else


def place_of(node: Node) -> Place:
    """The place where a node starts; a scalar's length, 1 for a list or a map."""
    return Place(node.line + 1, node.column + 1, node.length if isinstance(node, Text) else 1)


class Source:
    """One document while it is read. `problems` grows; `finish` raises if there are any."""

    def __init__(self, filename: str, text: str = "", paths: Mapping[int, str] | None = None) -> None:
        """paths: for a JSON body, the path of each node, see json_tree."""
        self.filename = filename
        self.text = text
        self.paths = paths
        self.problems: dict[
            tuple[Place | str | None, str], Problem
        ] = {}  # an aliased value is read, and wrong, only once
        self.partial: set[int] = set()  # id() of the nodes of which a part could not be read
        self._lines: list[str] | None = None
        self._budget = NEAREST_BUDGET

    def line(self, number: int) -> str:
        """The text of a line, counted from 1."""
        if self._lines is None:
            self._lines = split_lines(self.text)
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""

    def problem(self, code: str, message: str, at: Node | Place | None = None, hint: str = "") -> Problem:
        """A problem of this document, not added to it."""
        if self.paths is not None:
            return Problem(code, message, hint, path=self.paths.get(id(at), ""))
        place = at if isinstance(at, Place) or at is None else place_of(at)
        text = "" if place is None else self.line(place.line)
        return Problem(code, message, hint, self.filename, place, text)

    def add(self, code: str, message: str, at: Node | Place | None = None, hint: str = "") -> None:
        """Add a problem with the node or the place at fault."""
        problem = self.problem(code, message, at, hint)
        self.problems.setdefault((problem.place or problem.path, message), problem)
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
        return sorted(self.problems.values(), key=lambda p: (p.place.line, p.place.column) if p.place else (0, 0))

    def finish(self) -> None:
        """Raise TopologyErrors if anything was wrong."""
        if self.problems:
            raise TopologyErrors(self.ordered())
