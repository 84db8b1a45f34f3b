"""Flow tables by tuple space search, as Open vSwitch's classifier.

One rule: flows with the same mask share one dictionary, so a look-up costs one probe per distinct mask, not per flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ovsctl.datapath.flow_key import STAGES, compile_match
from ovsctl.openflow import Flow


class Subtable:
    """The flows of one table that match on the same bits. `top` is their highest priority."""

    __slots__ = ("_stages", "flows", "mask", "top")

    def __init__(self, mask: int) -> None:
        self.mask = mask
        self.flows: dict[int, list[Flow]] = {}  # by value, highest priority first
        self.top = -1
        self._stages: list[tuple[int, set[int]]] | None = None

    def changed(self) -> None:
        """Forget the stages: a value was added or removed."""
        self._stages = None

    def missed(self, key: int) -> int:
        """The bits that a miss depends on: those up to the first stage in which no flow agrees with the key.

        As in Open vSwitch, a look-up that fails by protocol does not depend on ports.
        """
        if self._stages is None:
            masks = sorted({self.mask & stage for stage in STAGES} - {0, self.mask}, key=int.bit_count)
            self._stages = [(mask, {value & mask for value in self.flows}) for mask in masks]
        for mask, values in self._stages:
            if key & mask not in values:
                return mask
        return self.mask


class FlowTables:
    """All flow tables of a bridge. Of flows with one table, priority and match the last counts."""

    def __init__(self, flows: Iterable[Flow] = ()) -> None:
        self._tables: dict[int, dict[int, Subtable]] = {}
        self._ordered: dict[int, list[Subtable]] = {}
        for flow in flows:
            self.add(flow)

    def add(self, flow: Flow) -> bool:
        """Add a flow, or replace the flow with its key. Whether anything changed."""
        mask, value = compile_match(flow.match)
        subtables = self._tables.setdefault(flow.table, {})
        subtable = subtables.get(mask)
        if subtable is None:
            subtable = subtables[mask] = Subtable(mask)
        entries = subtable.flows.get(value)
        if entries is None:
            entries = subtable.flows[value] = []
            subtable.changed()
        for index, entry in enumerate(entries):
            if entry.priority == flow.priority:
                if entry == flow:
                    return False
                entries[index] = flow
                return True
        entries.append(flow)
        if len(entries) > 1:
            entries.sort(key=lambda entry: -entry.priority)
        if flow.priority > subtable.top:
            subtable.top = flow.priority
            self._ordered.pop(flow.table, None)
        return True

    def discard(self, flow: Flow) -> bool:
        """Remove the flow with this key. Whether there was one."""
        mask, value = compile_match(flow.match)
        subtable = self._tables.get(flow.table, {}).get(mask)
        entries = subtable.flows.get(value, []) if subtable else []
        kept = [entry for entry in entries if entry.priority != flow.priority]
        if subtable is None or len(kept) == len(entries):
            return False
        if kept:
            subtable.flows[value] = kept
        else:
            del subtable.flows[value]
            subtable.changed()
        # An emptied subtable would still cost a probe, and still count as looked at.
        if not subtable.flows:
            del self._tables[flow.table][mask]
        else:
            subtable.top = max(entry.priority for found in subtable.flows.values() for entry in found)
        self._ordered.pop(flow.table, None)
        return True

    def ordered(self, table: int) -> list[Subtable]:
        """The subtables of a table, the one with the highest priority first."""
        found = self._ordered.get(table)
        if found is None:
            found = sorted(self._tables.get(table, {}).values(), key=lambda subtable: -subtable.top)
            self._ordered[table] = found
        return found

    def lookup(self, table: int, key: int) -> tuple[Flow | None, int]:
        """The matching flow of highest priority, and all the bits that the result depends on."""
        best: Flow | None = None
        priority, seen = -1, 0
        for subtable in self.ordered(table):
            if subtable.top <= priority:
                break
            mask = subtable.mask
            entries = subtable.flows.get(key & mask)
            if entries is None:
                seen |= subtable.missed(key)
                continue
            seen |= mask
            if entries[0].priority > priority:
                best = entries[0]
                priority = best.priority
        return best, seen

    def __iter__(self) -> Iterator[Flow]:
        for subtables in self._tables.values():
            for subtable in subtables.values():
                for entries in subtable.flows.values():
                    yield from entries

    def __len__(self) -> int:
        return sum(1 for _ in self)
