"""A pool with the indexes that questions about it need: live hosts, bindings by VIF and by network, VIFs by their fields.

One rule: nothing here remembers; everything is derived from the rows and from when each host was last heard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from vnet.objects import Binding, Location, PoolState, Vif
from vnet.objects.binding import acknowledgement
from vnet.objects.index import VifIndex

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
        return Location.of(list(self.bindings_of.get(vif, {}).values()))

    def acked(self, binding: Binding) -> frozenset[str]:
        """The hosts that have programmed a binding."""
        name = acknowledgement(binding)
        agents = self.state.agents.values()
        return binding.acked | {agent.host for agent in agents if agent.acked.get(binding.vif) == name}

    def vifs(self, vm: str) -> tuple[Vif, ...]:
        """A VM's VIFs, by index."""
        found = [self.state.vifs[id] for id in self.index.by_reference.get(("vm", vm), ())]
        return tuple(sorted(found, key=lambda vif: (vif.index, vif.id)))
