"""What decisions about a toolstack's calls share: their outcome, and how what is not there, or cannot be, is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from vnet.controller.errors import Invalid, NotFound
from vnet.db.changes import RowChange
from vnet.objects import InvalidValue
from vnet.util.suggest import nearest

T = TypeVar("T")
FIELDS = {"groups": "security_groups"}  # of the model, where a call says another word


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call comes to: the rows to write (none: it is so already), and the name of the object it is about."""

    name: str
    changes: tuple[RowChange, ...] = ()


def find(kind: str, name: str, among: Mapping[str, T]) -> T:
    """The object of that name; raises NotFound, with the nearest name if it looks like a typo."""
    found = among.get(name)
    if found is None:
        raise NotFound(
            f"unknown-{kind.lower().replace(' ', '-')}", f"there is no {kind} {name}{_hint(name, among)}", name
        )
    return found


def _hint(name: str, among: Collection[str]) -> str:
    meant = nearest(name, among)
    return f"; did you mean {meant}?" if meant is not None else ""


def reference(kind: str, field: str, name: str, among: Mapping[str, T]) -> T:
    """Like `find`, for a name inside a body: there it is bad input."""
    found = among.get(name)
    if found is None:
        raise Invalid(
            f"unknown-{kind.replace(' ', '-')}", f"{field}: there is no {kind} {name}{_hint(name, among)}", field
        )
    return found


def checked(make: Callable[[], T], within: str = "") -> T:
    """What `make` makes; raises Invalid where the model refuses it. within: what stands before the refusal."""
    try:
        return make()
    except InvalidValue as error:
        field = FIELDS.get(error.field, error.field)
        where = within.partition(":")[0] or field
        raise Invalid("invalid-value", f"{within}{field}: {error.message}", where) from None
