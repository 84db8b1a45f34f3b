"""The twin of the pool as it was, by what its controller tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vnet.cli.live_pool import bindings_of
from vnet.plan.past import state_of
from vnet.sim.past_twin import twin_then

if TYPE_CHECKING:
    from vnet.client import Client
    from vnet.sim import SimPool


def past_twin(client: Client, at: str) -> tuple[SimPool, frozenset[str]]:
    """The twin of the pool after a revision, a record or at a time; and the VIFs of which it isn't known where they ran."""
    state = state_of(client.past(at).objects)
    return twin_then(state, bindings_of(client, state).values(), f"the pool at {at}")
