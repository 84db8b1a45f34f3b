"""The twin of a pool as it was: what was configured then, VIFs where they ran as far as that is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vnet.objects import Binding, BindingState, PoolState, Vif
from vnet.plan import document_of
from vnet.sim.bindings import binding_of, bound, settled
from vnet.sim.pool import SimPool


def twin_then(state: PoolState, now: Iterable[Binding], name: str) -> tuple[SimPool, frozenset[str]]:
    """The twin of a past state, and the VIFs that are on some host of their network, since it isn't known where they ran. now: the bindings of today.
    name: of its document.

    A VIF is where it was wanted then; else where it is now; else where its VM was wanted.
    """
    state, guessed = _located(state, now)
    twin = SimPool.of(settled(state), claim=False)
    if state.pool is not None:
        twin.document = document_of(state, name)
    return twin, guessed


def _located(state: PoolState, now: Iterable[Binding]) -> tuple[PoolState, frozenset[str]]:
    found: dict[tuple[str, str], Binding] = {}
    for binding in now:
        vif = state.vifs.get(binding.vif)
        if vif is None or vif.network != binding.network or binding.host not in state.hosts:
            continue
        if vif.host in (None, binding.host) and not binding.state.moving:
            found[binding.vif, binding.host] = binding
    state = bound(replace(state, bindings=found))
    located = {vif for vif, _ in state.bindings}
    guessed = {
        (vif.id, host): binding_of(vif, host, BindingState.ACTIVE)
        for vif in state.vifs.values()
        if vif.id not in located and (host := _some_host(state, vif)) is not None
    }
    return replace(state, bindings={**state.bindings, **guessed}), frozenset(vif for vif, _ in guessed)


def _some_host(state: PoolState, vif: Vif) -> str | None:
    network = state.networks.get(vif.network)
    return next((host for host in sorted(state.hosts) if network is not None and network.on(host)), None)
