"""A change of a pool that is to be judged: the pool before, the pool after, and the objects that differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from vnet.objects.carriers import NetworkType, Way
from vnet.objects.enums import Owner
from vnet.objects.host import Host
from vnet.objects.index import Overlay, VifIndex
from vnet.objects.network import Network
from vnet.objects.security import SecurityGroup
from vnet.objects.state import CONFIGURED, PoolState
from vnet.objects.subnet import Range
from vnet.objects.tiers import Tier, applied, obeyed
from vnet.objects.vif import Vif

Ref = tuple[str, str, str]  # the noun's word, the object's name, the field


@dataclass(frozen=True, slots=True)
class Fault:
    """An invariant that a proposal breaks.

    code: the same behind every door. noun, name, field: the object at fault; path: the place inside the field. other: the object
    that it does not fit, which is at fault where the first is not of the input; clash: the two want the same. refers: noun and name of a missing object, and the names that there are. relies_on: fields that must
    have been read for the fault to be sure.
    """

    code: str
    noun: str
    name: str
    field: str
    message: str
    hint: str = ""
    path: tuple[str | int, ...] = ()
    other: Ref | None = None
    clash: bool = False
    refers: tuple[str, str] | None = None
    among: Collection[str] = dataclasses.field(default=(), compare=False)
    relies_on: tuple[Ref, ...] = ()


Changes = Mapping[str, Mapping[str, Any]]  # PoolState's mapping, name: the object after, None for one that goes


class Proposal:
    """before: the pool as it is. changes: the objects that come, change and go. index: of the VIFs before.

    actor: the document or the toolstack, as makes it. refused: the names of objects of the same input that could not be read.
    """

    def __init__(
        self,
        before: PoolState,
        changes: Changes,
        index: VifIndex,
        actor: Owner,
        refused: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.before = before
        self.changes = changes
        self.index = index
        self.actor = actor
        self.refused = refused or {}
        self._changed: dict[str, dict[str, Any]] = {}  # see changed()
        tables: dict[str, Any] = {
            name: changed[""] if name == "pool" else Overlay(getattr(before, name), changed)
            for name, changed in changes.items()
        }
        self.after: PoolState = replace(before, **tables)

    @classmethod
    def between(cls, before: PoolState, after: PoolState, index: VifIndex, actor: Owner) -> Proposal:
        """The proposal that makes one state the other."""
        changes: dict[str, dict[str, Any]] = {}
        for declared in CONFIGURED:
            name = declared.NOUN.state
            old, new = getattr(before, name), getattr(after, name)
            changed = {key: value for key, value in new.items() if old.get(key) is not value}
            changed.update((key, None) for key in old if key not in new)
            if changed:
                changes[name] = changed
        if after.pool is not before.pool:
            changes["pool"] = {"": after.pool}
        return cls(before, changes, index, actor)

    def incomplete(self, noun: str) -> bool:
        """Whether objects of that noun are missing because they could not be read."""
        return bool(self.refused.get(noun))

    def changed(self, state: str) -> dict[str, Any]:
        """The objects of a mapping that come or change."""
        if state not in self._changed:
            changes = self.changes.get(state, {})
            self._changed[state] = {name: value for name, value in changes.items() if value is not None}
        return self._changed[state]

    def removed(self, state: str) -> list[str]:
        """The names that go from a mapping."""
        return [name for name, value in self.changes.get(state, {}).items() if value is None]

    # --- the pool after, by what rules ask ------------------------------------------------------------

    @cached_property
    def _overlay(self) -> VifIndex:
        return VifIndex(self.changed("vifs").values())

    def _vifs(self, table: str, key: Any) -> Iterator[Vif]:
        """VIFs of the pool after, by an index: those that stay first, then those that come or change."""
        yield from self._unchanged(table, key)
        changed = self.changes.get("vifs", {})
        for name in getattr(self._overlay, table).get(key, ()):
            yield changed[name]

    def _unchanged(self, table: str, key: Any) -> Iterator[Vif]:
        changed = self.changes.get("vifs", {})
        for name in getattr(self.index, table).get(key, ()):
            if name not in changed:
                yield self.before.vifs[name]

    def shared(self, table: str) -> set[Any]:
        """The keys of an index that a VIF that comes or changes has, and perhaps another VIF too."""
        before = getattr(self.index, table)
        return {key for key, names in getattr(self._overlay, table).items() if len(names) > 1 or key in before}

    def vifs_with_mac(self, network: str, mac: str) -> Iterator[Vif]:
        return (vif for vif in self._vifs("by_mac", mac) if vif.network == network)

    def vifs_with_address(self, network: str, address: str) -> Iterator[Vif]:
        return self._vifs("by_address", (network, address))

    def vifs_naming(self, field: str, name: str) -> Iterator[Vif]:
        """The VIFs of the pool after whose field holds an object's name."""
        return self._vifs("by_reference", (field, name))

    def unchanged_vifs_naming(self, field: str, name: str) -> Iterator[Vif]:
        """Those of vifs_naming() that the proposal does not change."""
        return self._unchanged("by_reference", (field, name))

    @cached_property
    def _applied(self) -> list[SecurityGroup]:
        return list(applied(self.after.groups.values()))

    def obeyed(self, vif: Vif) -> tuple[str, ...]:
        """The groups that judge a VIF of the pool after."""
        return obeyed(vif, self.after.networks.get(vif.network), self._applied)

    @cached_property
    def rejudged(self) -> list[Vif]:
        """The VIFs of the pool after which other groups may judge than before, or the same with other rules."""
        if any(table in self.changes for table in ("groups", "networks")):
            before, after = self.before.groups, self.changed("groups")
            wide = [
                each
                for n in after
                for each in (before.get(n), after[n])
                if each is not None and each.tier is not Tier.VIF
            ]
            if wide or any(network.groups for network in self.changed("networks").values()):
                return list(self.after.vifs.values())
        named = {vif.id: vif for name in sorted(self.changed("groups")) for vif in self.vifs_naming("groups", name)}
        return list({**named, **self.changed("vifs")}.values())

    @cached_property
    def ranges(self) -> Mapping[str, list[Range]]:
        """The ranges of each network after, lowest first."""
        found: dict[str, list[Range]] = {}
        for subnet in self.after.subnets.values():
            found.setdefault(subnet.network, []).append(Range.of(subnet))
        for ranges in found.values():
            ranges.sort(key=lambda r: (r.version, r.first, r.last))
        return found

    @cached_property
    def vtep(self) -> str | None:
        """Some host's tunnel endpoint, whose family is the pool's."""
        return next((host.address for host in self.after.hosts.values() if host.address is not None), None)

    @property
    def underlay_mtu(self) -> int:
        return self.after.pool.underlay_mtu if self.after.pool is not None else 1500

    @cached_property
    def uplink_mtus(self) -> Mapping[str, Mapping[str, int | None]]:
        """Uplink to host to the MTU that it states."""
        found: dict[str, dict[str, int | None]] = {}
        for host in self.after.hosts.values():
            for uplink in host.uplinks:
                found.setdefault(uplink.name, {})[host.name] = uplink.mtu
        return found

    def mtus_of(self, network_type: NetworkType, uplink: str | None, hosts: Collection[str]) -> set[int | None]:
        """The MTUs that hosts state for the uplink of a network on one; empty for other types."""
        if network_type.carrier.way is not Way.UPLINK or uplink is None:
            return set()
        if not hosts:
            return self._mtus_anywhere.get(uplink, set())
        stated = self.uplink_mtus.get(uplink, {})
        return {stated[host] for host in hosts if host in stated}

    @cached_property
    def _mtus_anywhere(self) -> Mapping[str, set[int | None]]:
        return {uplink: set(stated.values()) for uplink, stated in self.uplink_mtus.items()}

    def hosts_of(self, network: Network) -> list[Host]:
        """The hosts of the pool after that a network may be on."""
        hosts = self.after.hosts
        return (
            [hosts[name] for name in sorted(network.hosts) if name in hosts] if network.hosts else list(hosts.values())
        )
