"""What is known of a XenServer pool: its records, folded from the batches of event.from.

One rule: a batch says how many objects of each class there are. Where that differs from what is known, events were lost, and everything is read anew.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from vnet.xapi.records import (
    TYPES,
    EventBatch,
    Found,
    UnreadableRecord,
    XapiEvent,
    XenHost,
    XenNetwork,
    XenVif,
    XenVm,
    read,
)


class EventsLost(Exception):
    """What is known is not what xapi has."""


@dataclass(slots=True)
class Inventory:
    """Records by class and reference. gone: the uuids of VMs that went; changed: references of networks that came or changed; problems: the records that
    cannot be read, by class and reference."""

    hosts: dict[str, XenHost] = field(default_factory=dict)
    networks: dict[str, XenNetwork] = field(default_factory=dict)
    vms: dict[str, XenVm] = field(default_factory=dict)
    vifs: dict[str, XenVif] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    problems: dict[tuple[str, str], str] = field(default_factory=dict)
    _vifs_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # by a VM's reference

    def fold(self, batch: EventBatch) -> set[str]:
        """Takes a batch in. The references of the VMs that it concerns; all of them if a host or a network changed. Raises EventsLost."""
        touched: set[str] = set()
        for event in batch.events:
            if event.table.lower() in TYPES:
                touched |= self._take(event.table.lower(), event)
        for table in TYPES:
            known = len(self._of(table)) + sum(name == table for name, _ in self.problems)
            if batch.valid_ref_counts.get(table, known) != known:
                raise EventsLost(f"xapi has {batch.valid_ref_counts[table]} of class {table}, and {known} are known")
        return touched & self.vms.keys()

    def _take(self, table: str, event: XapiEvent) -> set[str]:
        before: Found | None = self._of(table).pop(event.ref, None)
        self.problems.pop((table, event.ref), None)
        now: Found | None = None
        if event.operation != "del":
            try:
                now = read(table, event.snapshot)
                self._of(table)[event.ref] = now
            except UnreadableRecord as error:
                self.problems[table, event.ref] = f"{table} {event.ref}: {error}"
        if before == now:
            return set()
        match table:
            case "vm":
                if isinstance(before, XenVm) and now is None:
                    self.gone.add(before.uuid)
                return {event.ref}
            case "vif":
                if isinstance(before, XenVif):
                    self._vifs_of[before.vm].discard(event.ref)
                if isinstance(now, XenVif):
                    self._vifs_of[now.vm].add(event.ref)
                return {vif.vm for vif in (before, now) if isinstance(vif, XenVif)}
            case _:
                if isinstance(now, XenNetwork):
                    self.changed.add(event.ref)
                return set(self.vms)

    def _of(self, table: str) -> dict[str, Any]:
        tables: dict[str, dict[str, Any]] = {
            "host": self.hosts,
            "network": self.networks,
            "vm": self.vms,
            "vif": self.vifs,
        }
        return tables[table]

    def vifs_of(self, vm: str) -> list[XenVif]:
        """The VIFs of a VM, in their order."""
        return sorted((self.vifs[ref] for ref in self._vifs_of.get(vm, ())), key=lambda vif: (vif.device, vif.uuid))
