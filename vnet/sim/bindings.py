"""The bindings that agents would write: the twin has a port wherever a binding is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vnet.objects import Binding, BindingState, PoolState, Vif
from vnet.objects.binding import published
from vnet.objects.tiers import obeyed_in


def bound(state: PoolState) -> PoolState:
    """The state with an active binding for every VIF that has none, on its own host or on its VM's."""
    having = {vif for vif, _ in state.bindings}
    added = {}
    for vif in state.vifs.values():
        if vif.id in having:
            continue
        vm = state.vms.get(vif.vm) if vif.vm else None
        host = vif.host or (vm.host if vm else None)
        network = state.networks.get(vif.network)
        if host in state.hosts and host is not None and network is not None and network.on(host):
            added[vif.id, host] = binding_of(vif, host, BindingState.ACTIVE)
    return replace(state, bindings={**state.bindings, **added}) if added else state


def joined(before: PoolState, after: PoolState) -> PoolState:
    """The state after agents have noted which VIFs joined their first group, or were in none that tracks: nobody tracked their connections."""
    bindings = {
        key: replace(binding, moved=True)
        for key, binding in after.bindings.items()
        if key in before.bindings
        and (old := before.vifs.get(binding.vif)) is not None
        and not _tracked(before, old)
        and (new := after.vifs.get(binding.vif)) is not None
        and obeyed_in(after, new)
    }
    return replace(after, bindings={**after.bindings, **bindings}) if bindings else after


def _tracked(state: PoolState, vif: Vif) -> bool:
    return any(state.groups[name].stateful for name in obeyed_in(state, vif) if name in state.groups)


def settled(state: PoolState) -> PoolState:
    """The state after all agents have copied the settings of their VIFs into the bindings."""
    bindings = {
        key: replace(binding, **published(vif))
        for key, binding in state.bindings.items()
        if (vif := state.vifs.get(binding.vif)) is not None
    }
    return replace(state, bindings=bindings)


def binding_of(vif: Vif, host: str, state: BindingState) -> Binding:
    """The binding that a host's agent would write for a VIF."""
    return Binding(vif=vif.id, host=host, epoch=vif.epoch, state=state, ready=True, **published(vif))


def ports_by_host(state: PoolState) -> Mapping[str, list[str]]:
    """The VIFs that have a binding on each host, in order of their ids."""
    found: dict[str, list[str]] = {host: [] for host in state.hosts}
    for vif, host in sorted(state.bindings):
        if host in found and vif in state.vifs:
            found[host].append(vif)
    return found
