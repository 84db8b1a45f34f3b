"""The names of an object: in documents, commands, paths of the API, tables of the database, plans and events."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Noun:
    """The names of one sort of object.

    word: of commands, plans, events and error codes, as security-group. plural: of the document's section, the API's path and
    lists. text: in sentences. table: in the database. state: the mapping of PoolState that holds it. key: the field that
    names it, "" for none; second: a further field of its key, where one is not enough. unique: more fields that no two objects
    have equal. single: there is at most one. held: it stays while others refer to it. listed: a document lists it in place of naming it by keys. parent: the noun whose objects a document writes it in.
    replaced: a PUT replaces what is there; else what is there must be the same.
    """

    word: str
    plural: str
    text: str
    table: str
    state: str
    key: str = "name"
    doc: str = ""
    also: tuple[str, ...] = ()
    listed: bool = False
    parent: str = ""
    replaced: bool = False
    second: str = ""
    unique: tuple[str, ...] = ()
    single: bool = False
    held: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields that name it together."""
        return tuple(filter(None, (self.key, self.second)))
