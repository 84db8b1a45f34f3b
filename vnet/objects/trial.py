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
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    revision: int = attr(COUNT, "The revision.")
    ends: int = attr(COUNT, "When it is taken back, in milliseconds since 1970.")
    caller: str = attr(LINE, "Who tries it.", default="")
    source: str = attr(LINE, "From where.", default="")
    reason: str = attr(LINE, "Why, in the caller's words.", default="")
