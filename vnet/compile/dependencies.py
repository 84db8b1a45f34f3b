"""Which sources read which inputs.

One rule: sources that read the same inputs share one entry, so 50,000 VIFs behind 200 hosts cost 200 entries and two pointers each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vnet.compile.features import FlowSource
from vnet.compile.inputs import InputKey


@dataclass(slots=True, eq=False)
class ReadSet:
    """HostInputs, and the sources that read just these."""

    keys: frozenset[InputKey]
    sources: set[FlowSource] = field(default_factory=set)


class Dependencies:
    """The inputs that each source read when it was last compiled."""

    def __init__(self) -> None:
        self._of: dict[FlowSource, ReadSet] = {}
        self._sets: dict[frozenset[InputKey], ReadSet] = {}
        self._with: dict[InputKey, set[ReadSet]] = {}

    def readers(self, key: InputKey) -> Iterator[FlowSource]:
        """The sources that read an input."""
        for found in self._with.get(key, ()):
            yield from found.sources

    def keys(self, source: FlowSource) -> frozenset[InputKey]:
        """The inputs that a source read."""
        found = self._of.get(source)
        return found.keys if found is not None else frozenset()

    def record(self, source: FlowSource, keys: frozenset[InputKey]) -> None:
        """The source read these inputs, and no longer those it read before."""
        before = self._of.get(source)
        if (before.keys if before is not None else frozenset()) == keys:
            return
        if before is not None:
            self._forget(source, before)
        if not keys:
            return
        found = self._sets.get(keys)
        if found is None:
            found = self._sets[keys] = ReadSet(keys)
            for key in keys:
                self._with.setdefault(key, set()).add(found)
        found.sources.add(source)
        self._of[source] = found

    def _forget(self, source: FlowSource, found: ReadSet) -> None:
        del self._of[source]
        found.sources.discard(source)
        if not found.sources:
            del self._sets[found.keys]
            for key in found.keys:
                self._with[key].discard(found)
                if not self._with[key]:
                    del self._with[key]
