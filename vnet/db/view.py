"""A pool with the indexes that questions about it need: live hosts, bindings by VIF and by network, VIFs by their fields.

One rule: nothing here remembers; everything is derived from the rows and from when each host was last heard.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from vnet.objects import Binding, Location, PoolState, Vif
from vnet.objects.binding import acknowledgement
from vnet.objects.index import VifIndex
from vnet.objects.scope import Scope

T = TypeVar("T")

# Agents write their heartbeat every 5 s; three in a row missing is no accident.
HOST_DOWN_AFTER_S = 15.0


@dataclass(frozen=True, slots=True)
class PoolView:
    """live: the hosts whose agent was heard, and had its switch, in the last HOST_DOWN_AFTER_S. members: network to the hosts
    with bindings on it. index: of the VIFs."""

    state: PoolState
    live: frozenset[str] = frozenset()
    bindings_of: Mapping[str, Mapping[str, Binding]] = field(default_factory=dict)
    members: Mapping[str, Collection[str]] = field(default_factory=dict)
    index: VifIndex = field(default_factory=VifIndex)

    @classmethod
    def of(cls, state: PoolState, live: Iterable[str] = ()) -> PoolView:
        """The view of a state, its indexes computed from scratch."""
        bindings_of: dict[str, dict[str, Binding]] = {}
        members: dict[str, set[str]] = {}
        for binding in state.bindings.values():
            bindings_of.setdefault(binding.vif, {})[binding.host] = binding
            members.setdefault(binding.network, set()).add(binding.host)
        return cls(state, frozenset(live), bindings_of, members, VifIndex(state.vifs.values()))

    def location(self, vif: str) -> Location:
        """Where one VIF is."""
        found = list(self.bindings_of.get(vif, {}).values())
        return self.state.placed(vif, found)

    def acked(self, binding: Binding) -> frozenset[str]:
        """The hosts that have programmed a binding."""
        name = acknowledgement(binding)
        agents = self.state.agents.values()
        return binding.acked | {agent.host for agent in agents if agent.acked.get(binding.vif) == name}

    def vifs(self, vm: str) -> tuple[Vif, ...]:
        """A VM's VIFs, by index."""
        vifs = self.state.vifs
        found = [vifs[id] for id in self.index.by_reference.get(("vm", vm), ()) if id in vifs]
        return tuple(sorted(found, key=lambda vif: (vif.index, vif.id)))

    def within(self, scope: Scope) -> PoolView:
        """The part that a scope names, for what is shown: decisions are taken on all of it. Hosts stay, since VIFs are on them."""
        state = self.state
        scope = scope.resolved(state.networks.values())
        vms = _Part(state.vms, lambda vm: scope.sees(vm, self.vifs(vm.name)))
        part = replace(
            state,
            networks=_Part(state.networks, scope.sees),
            subnets=_Part(state.subnets, scope.sees),
            groups=_Part(state.groups, scope.sees),
            qos=_Part(state.qos, scope.sees),
            vms=vms,
            vifs=_Part(state.vifs, scope.sees),
            expectations={},
        )
        return replace(self, state=part)


class _Part(Mapping[str, T], Generic[T]):
    """The items of a mapping that a condition leaves, asked as they are looked at."""

    def __init__(self, whole: Mapping[str, T], holds: Callable[[T], bool]) -> None:
        self._whole = whole
        self._holds = holds

    def __getitem__(self, name: str) -> T:
        value = self._whole[name]
        if not self._holds(value):
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name, value in self._whole.items() if self._holds(value))

    def __len__(self) -> int:
        return sum(1 for _ in self)
