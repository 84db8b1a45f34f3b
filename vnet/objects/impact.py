"""The disruption by a change of an object while it is made. One rule: it is declared with each field, with the reason in words.

none: nobody notices. flows: hosts replace flows, each in one bundle, and no frame is lost. VIF: VIFs lose frames, or their
place on a network. uplink: all that a host sends through one uplink stops for a moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import cached_property
from typing import Any, Protocol

from vnet.objects.tiers import all_obeyed, applied, obeyed

NAMED_MAX = 5


class Disruption(IntEnum):
    """Degrees of disruption, from least to most."""

    NONE = 0
    FLOWS = 1
    VIF = 2
    UPLINK = 3

    def __str__(self) -> str:
        return ("none", "flows only", "VIF interrupted", "uplink interrupted")[self]


Cost = tuple[Disruption, str]
NOTHING: Cost = (Disruption.NONE, "")
FLOWS: Cost = (Disruption.FLOWS, "")


class PoolTables(Protocol):
    """The part of a pool that Usage needs: PoolState is one."""

    @property
    def hosts(self) -> Mapping[str, Any]: ...

    @property
    def networks(self) -> Mapping[str, Any]: ...

    @property
    def vifs(self) -> Mapping[str, Any]: ...

    @property
    def groups(self) -> Mapping[str, Any]: ...

    @property
    def bindings(self) -> Mapping[tuple[str, str], Any]: ...


class Usage:
    """The VIFs that are plugged, counted by host, network and group, in the pool before the change. Counted when asked for."""

    def __init__(self, current: PoolTables, bindings_of: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """bindings_of: the bindings by VIF and host, where the caller has them."""
        self._state = current
        self._bindings_of = bindings_of

    @property
    def hosts(self) -> Mapping[str, Any]:
        return self._state.hosts

    @property
    def networks(self) -> Mapping[str, Any]:
        return self._state.networks

    def is_plugged(self, vif: str) -> bool:
        """Whether some host has the VIF's port."""
        if self._bindings_of is not None:
            return any(binding.plugged for binding in self._bindings_of.get(vif, {}).values())
        return vif in self._plugged

    @cached_property
    def _bindings(self) -> list[Any]:
        return [binding for binding in self._state.bindings.values() if binding.plugged]

    @cached_property
    def _plugged(self) -> set[str]:
        return {binding.vif for binding in self._bindings}

    @cached_property
    def on_host(self) -> Counter[str]:
        return Counter(binding.host for binding in self._bindings)

    @cached_property
    def on_network(self) -> Counter[str]:
        return Counter(binding.network for binding in self._bindings)

    @cached_property
    def on_network_host(self) -> Counter[tuple[str, str]]:
        return Counter((binding.network, binding.host) for binding in self._bindings)

    @cached_property
    def in_group(self) -> Counter[str]:
        return Counter(group for name in self._plugged for group in self._obeyed.get(name, ()))

    @cached_property
    def _obeyed(self) -> Mapping[str, tuple[str, ...]]:
        return all_obeyed(self._state)

    def applies_to(self, group: Any) -> int:
        """The VIFs with a port that a group applies to though nobody names it."""
        if not list(applied([group])):
            return 0
        vifs, networks = self._state.vifs, self._state.networks
        return sum(
            group.name in obeyed(vifs[name], networks.get(vifs[name].network), [group])
            for name in self._plugged
            if name in vifs
        )

    @cached_property
    def of_address_set(self) -> Counter[str]:
        """The VIFs with a port that are in a group whose rules name an address set, by its name."""
        remotes = {name: group.address_sets for name, group in self._state.groups.items()}
        vifs = self._state.vifs
        named = (
            frozenset().union(*(remotes.get(group, frozenset()) for group in self._obeyed[name]))
            for name in self._plugged
            if name in vifs
        )
        return Counter(name for found in named for name in found)

    def networks_of_uplink(self, host: str, uplink: str) -> list[str]:
        """The VLAN networks that a host carries through an uplink."""
        return sorted(net.name for net in self.networks.values() if net.uplink == uplink and net.on(host))


# The cost of one field that changes: usage, the object's name in the plan, the object before and after.
FieldCost = Cost | Callable[[Usage, str, Any, Any], Cost]


def cost_of_field(usage: Usage, name: str, old: Any, new: Any, declared: FieldCost | None) -> Cost:
    """The cost of one field that changes, as it is declared; flows only where it is not."""
    if declared is None:
        return FLOWS
    return declared(usage, name, old, new) if callable(declared) else declared


def plugged(count: int) -> str:
    """`3 VIFs plugged`."""
    return f"{count:,} VIF{'s' if count != 1 else ''} plugged"


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
