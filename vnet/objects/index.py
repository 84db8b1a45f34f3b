"""Indexes over the VIFs of a pool, and a pool with a few changes on top. One rule: a look costs no walk through the pool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from vnet.grammar.declare import names_in, references_of
from vnet.objects.identity import macs_of
from vnet.objects.vif import Vif

T = TypeVar("T")
Names = dict[str, None]  # a set in order
_REFERENCES = tuple(field for field, _ in references_of(Vif, runtime=True))


class VifIndex:
    """The ids of VIFs by MAC, by address on their network, and by each field that names an object, with that name."""

    def __init__(self, vifs: Iterable[Vif] = ()) -> None:
        self.by_mac: dict[str, Names] = {}
        self.by_address: dict[tuple[str, str], Names] = {}
        self.by_reference: dict[tuple[str, str], Names] = {}
        # Per subnet, as allocation names it, an address (as a number) below which VIFs have every usable one.
        self.cursors: dict[tuple[str, str, str | None], int] = {}
        for vif in vifs:
            self.put(None, vif)

    def put(self, old: Vif | None, new: Vif | None) -> None:
        """A VIF comes, changes or goes."""
        if old is not None:
            if freed := {network for network, _ in _addresses(old)}:
                self.cursors = {cursor: low for cursor, low in self.cursors.items() if cursor[0] not in freed}
            for table, key in self._keys(old):
                names = table[key]
                del names[old.id]
                if not names:
                    del table[key]
        if new is not None:
            for table, key in self._keys(new):
                table.setdefault(key, {})[new.id] = None

    def _keys(self, vif: Vif) -> Iterator[tuple[dict[object, Names], object]]:
        for mac in dict.fromkeys(macs_of(vif)):
            yield self.by_mac, mac  # type: ignore[misc]  # each table has keys of its own type
        for address in dict.fromkeys(_addresses(vif)):
            yield self.by_address, address  # type: ignore[misc]
        for field in _REFERENCES:
            if getattr(vif, field):  # most name nothing
                for name in names_in(vif, field):
                    yield self.by_reference, (field, name)  # type: ignore[misc]


def _addresses(vif: Vif) -> Iterator[tuple[str, str]]:
    """A VIF's addresses with their networks: also those that are kept for it during its quarantine."""
    yield from ((vif.network, address) for address in vif.addresses)
    if vif.also:
        yield from ((vif.network, address) for identity in vif.also for address in identity.addresses)
    if vif.former_network is not None:
        yield from ((vif.former_network, address) for address in vif.former_addresses)


class Overlay(Mapping[str, T], Generic[T]):
    """A mapping with changes on top of another; None takes a name away. The base must not change meanwhile."""

    def __init__(self, base: Mapping[str, T], changes: Mapping[str, T | None]) -> None:
        self._base = base
        self._changes = changes
        self._size: int | None = None  # see __len__()

    def __getitem__(self, name: str) -> T:
        if name in self._changes:
            value = self._changes[name]
            if value is None:
                raise KeyError(name)
            return value
        return self._base[name]

    def __iter__(self) -> Iterator[str]:
        for name in self._base:
            if name not in self._changes or self._changes[name] is not None:
                yield name
        for name, value in self._changes.items():
            if value is not None and name not in self._base:
                yield name

    def __len__(self) -> int:
        if self._size is None:
            self._size = len(self._base) + sum(
                (value is not None) - (name in self._base) for name, value in self._changes.items()
            )
        return self._size

    def __contains__(self, name: object) -> bool:
        return self._changes[name] is not None if name in self._changes else name in self._base  # type: ignore[index]
