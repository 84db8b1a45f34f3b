"""The twin of the pool as it was: what was configured then, VIFs where they ran as far as that is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vnet.cli.live_pool import bindings_of
from vnet.objects import Binding, BindingState, PoolState, Vif
from vnet.plan import export_document
from vnet.plan.past import state_of
from vnet.sim import SimPool
from vnet.sim.bindings import binding_of, bound, settled
from vnet.topology import parse_document

if TYPE_CHECKING:
    from vnet.client import Client


def past_twin(client: Client, at: str) -> tuple[SimPool, frozenset[str]]:
    """The twin of the pool after a revision, a record or at a time; and the VIFs that are on some host of their network, since it isn't known where they ran.

    A VIF is where it was wanted then; else where it is now; else where its VM was wanted.
    """
    state = state_of(client.past(at).objects)
    state, guessed = _placed(state, list(bindings_of(client, state).values()))
    twin = SimPool.of(settled(state), claim=False)
    if state.pool is not None:
        twin.document = replace(parse_document(export_document(state).encode(), f"the pool at {at}"), state=state)
    return twin, guessed


def _placed(state: PoolState, now: list[Binding]) -> tuple[PoolState, frozenset[str]]:
    found: dict[tuple[str, str], Binding] = {}
    for binding in now:
        wanted = state.vifs[binding.vif].host
        if wanted in (None, binding.host) and binding.host in state.hosts and not binding.state.moving:
            found[binding.vif, binding.host] = binding
    state = bound(replace(state, bindings=found))
    placed = {vif for vif, _ in state.bindings}
    guessed = {
        (vif.id, host): binding_of(vif, host, BindingState.ACTIVE)
        for vif in state.vifs.values()
        if vif.id not in placed and (host := _some_host(state, vif)) is not None
    }
    return replace(state, bindings={**state.bindings, **guessed}), frozenset(vif for vif, _ in guessed)


def _some_host(state: PoolState, vif: Vif) -> str | None:
    network = state.networks.get(vif.network)
    return next((host for host in sorted(state.hosts) if network is not None and network.on(host)), None)
