"""A trial: a revision that the pool takes back by itself unless somebody confirms it in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.words import COUNT, LINE


@dataclass(frozen=True, slots=True)
class Trial(Declared):
    """The revision of a pool that is on trial."""

    NOUN: ClassVar[Noun] = Noun("trial", "trials", "trial", "Trial", "", key="", single=True)
    TITLE: ClassVar[str] = "a trial"

    revision: int = attr(COUNT, "The revision.", set_by=SetBy.RUNTIME)
    ends: int = attr(COUNT, "When it is taken back, in milliseconds since 1970.", set_by=SetBy.RUNTIME)
    caller: str = attr(LINE, "Who tries it.", default="", set_by=SetBy.RUNTIME)
    source: str = attr(LINE, "From where.", default="", set_by=SetBy.RUNTIME)
    reason: str = attr(LINE, "Why, in the caller's words.", default="", set_by=SetBy.RUNTIME)
