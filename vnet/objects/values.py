"""Values inside objects: ranges of ports, the tags of a trunk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from vnet.grammar.declare import InvalidValue
from vnet.objects.limits import MAX_PORT, MAX_TAG

_PORTS = MAX_PORT + 1


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """TCP or UDP ports from `first` to `last`, both included."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= MAX_PORT or not 0 <= self.last <= MAX_PORT:
            raise InvalidValue("ports", f"{self} is outside 0..{MAX_PORT}")
        if self.first > self.last:
            raise InvalidValue("ports", f"{self} ends before it begins")

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    @classmethod
    def merged(cls, ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
        """The same ports in order, as ranges that do not touch."""
        kept: list[PortRange] = []
        for span in sorted(ranges):
            if kept and span.first <= kept[-1].last + 1:
                kept[-1] = cls(kept[-1].first, max(kept[-1].last, span.last))
            else:
                kept.append(span)
        return tuple(kept)


@lru_cache(maxsize=1024)
def port_masks(ports: tuple[PortRange, ...]) -> tuple[tuple[int, int], ...]:
    """The ports as masked matches, value and mask, no port in two of them: aligned blocks, then pairs that differ in one bit.

    All odd ports are one match. A single range of ports takes at most 30.
    """
    found: set[tuple[int, int]] = set()
    for span in ports:
        first = span.first
        while first <= span.last:
            size = first & -first or _PORTS
            while size > span.last - first + 1:
                size >>= 1
            found.add((first, _PORTS - size))
            first += size
    for bit in (1 << place for place in range(16)):
        for value, mask in [match for match in found if match[1] & bit and not match[0] & bit]:
            if (value | bit, mask) in found:
                found -= {(value, mask), (value | bit, mask)}
                found.add((value, mask & ~bit))
    return tuple(sorted((value, mask & MAX_PORT) for value, mask in found))


@dataclass(frozen=True, slots=True)
class Trunk:
    """The VLAN tags a VIF carries besides untagged frames. No tags means all of them."""

    tags: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for tag in self.tags:
            if not 1 <= tag <= MAX_TAG:
                raise InvalidValue("trunk", f"{tag} is outside 1..{MAX_TAG}")
        if tuple(sorted(set(self.tags))) != self.tags:
            raise InvalidValue("trunk", "tags stand once each, in order")
