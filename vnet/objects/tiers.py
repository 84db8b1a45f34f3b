"""Tiers of security groups: which groups a VIF obeys besides its own, and whose rules decide first.

One rule: mandatory rules from the pool's tier down to the VM's, then a VIF's own groups, then the other rules from the VM's tier up to
the pool's; the first of these steps in which a rule matches decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from vnet.objects.labels import Labelled, Labels, labels_of


class Tier(Enum):
    """Where a group's rules stand, from the widest to the narrowest."""

    POOL = "pool"
    NETWORK = "network"
    VM = "vm"
    VIF = "vif"


class TieredGroup(Protocol):
    """A security group."""

    @property
    def name(self) -> str: ...
    @property
    def tier(self) -> Tier: ...
    @property
    def selector(self) -> Labels: ...

    def is_asked_in(self, tier: Tier, *, mandatory: bool) -> bool: ...


class JudgedNetwork(Protocol):
    """A network."""

    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Labels: ...
    @property
    def is_service(self) -> bool: ...


class JudgedVif(Labelled, Protocol):
    """A VIF."""

    @property
    def network(self) -> str: ...
    @property
    def vm_groups(self) -> tuple[str, ...]: ...
    @property
    def trunk(self) -> object: ...


class JudgedPool(Protocol):
    """A whole pool: its objects by their names."""

    @property
    def networks(self) -> Mapping[str, Any]: ...
    @property
    def vifs(self) -> Mapping[str, Any]: ...
    @property
    def groups(self) -> Mapping[str, Any]: ...


G = TypeVar("G", bound=TieredGroup)


class AskedGroup(NamedTuple, Generic[G]):
    """A group of which some rules are asked. mandatory: those that are, else the others."""

    group: G
    mandatory: bool


_WIDE = (Tier.POOL, Tier.NETWORK, Tier.VM)
# Tier, and whether its mandatory rules: in the order in which they decide.
STEPS = (*((tier, True) for tier in _WIDE), (Tier.VIF, False), *((tier, False) for tier in reversed(_WIDE)))


def steps_of(groups: Iterable[G]) -> list[list[AskedGroup[G]]]:
    """The groups by the steps in which their rules are asked; steps that ask nothing are left out."""
    groups = tuple(groups)
    found = (
        [AskedGroup(group, mandatory) for group in groups if group.is_asked_in(tier, mandatory=mandatory)]
        for tier, mandatory in STEPS
    )
    return [step for step in found if step]


def applied(groups: Iterable[G]) -> Iterator[G]:
    """The groups that nobody names: those of the pool's tier, and those that select VIFs by their labels."""
    return (group for group in groups if group.selector or group.tier is Tier.POOL)


def obeyed(vif: JudgedVif, network: JudgedNetwork | None, applied: Iterable[TieredGroup]) -> tuple[str, ...]:
    """The groups that judge a VIF: its own, its VM's, its network's, and those that apply to it unnamed.

    A trunk VIF, and one inside a service tag, obeys none: their tags are networks of their own.
    """
    if network is None or vif.trunk is not None or network.is_service:
        return vif.groups
    applied = tuple(applied)
    if not applied and not vif.vm_groups and not network.groups:
        return vif.groups
    labels = frozenset(labels_of(vif, network.labels))
    by_selection = [group.name for group in applied if labels.issuperset(group.selector)]
    return tuple(sorted({*vif.groups, *vif.vm_groups, *network.groups, *by_selection}))


def obeyed_in(state: JudgedPool, vif: JudgedVif) -> tuple[str, ...]:
    """The groups that judge a VIF of a whole pool."""
    return obeyed(vif, state.networks.get(vif.network), applied(state.groups.values()))


def all_obeyed(state: JudgedPool) -> dict[str, tuple[str, ...]]:
    """The groups that judge each VIF of a whole pool, by its id."""
    everywhere = list(applied(state.groups.values()))
    return {id: obeyed(vif, state.networks.get(vif.network), everywhere) for id, vif in state.vifs.items()}
