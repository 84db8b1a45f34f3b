"""Values of OVSDB columns as plain Python values (RFC 7047 §5.1).

The one rule: a value is immutable and says nothing about JSON.

| column type                | Python value                                    |
|----------------------------|-------------------------------------------------|
| integer, real, boolean     | int, float, bool                                |
| string, uuid               | str (a UUID in its 36-character lower-case form)|
| set with min 0 and max 1   | the atom, or None                               |
| other sets                 | frozenset of atoms                              |
| map                        | `Map`                                           |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn, TypeAlias, TypeVar

from .errors import BadValue

Uuid: TypeAlias = str
Atom: TypeAlias = int | float | bool | str

K = TypeVar("K")
V = TypeVar("V")

ZERO_UUID: Uuid = "00000000-0000-0000-0000-000000000000"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Map(dict[K, V]):
    """An immutable, hashable dict: the value of a map column. Equal to a dict with the same pairs."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]  # dict has none
        return hash(frozenset(self.items()))

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a column's value is immutable; make a dict of it and change that")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Map[K, V]], tuple[dict[K, V]]]:
        return Map, (dict(self),)


Value: TypeAlias = Atom | frozenset[Atom] | Map[Atom, Atom] | None


@dataclass(frozen=True, slots=True)
class NamedUuid:
    """The UUID of a row that an insert of the same transaction makes (RFC 7047 §5.1)."""

    name: str

    def __post_init__(self) -> None:
        if not is_id(self.name):
            raise BadValue("a name of letters, digits and _ for a uuid-name", self.name)


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in the form that ovsdb-server writes."""
    return _UUID.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Whether `text` is an <id> of RFC 7047 §3.1."""
    return _ID.fullmatch(text) is not None
