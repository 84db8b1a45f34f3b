"""The status of a pool, from a view of it."""

from __future__ import annotations

from vnet.controller.presenters import show_status
from vnet.db.view import PoolView
from vnet.objects import AgentStatus, Host, Pool, PoolState


def test_a_live_agent_of_a_host_that_the_pool_does_not_have_is_named_with_the_host_that_it_may_be() -> None:
    state = PoolState(Pool("lab"), hosts={"kvm3": Host("kvm3", "10.99.0.3")})
    state.agents["kvm-3"] = AgentStatus("kvm-3", started=1, heartbeat=1)
    state.agents["gone"] = AgentStatus("gone", started=1, heartbeat=1)
    found = {
        (reason.code, reason.host): reason.text
        for reason in show_status(PoolView.of(state, ["kvm-3"]), [], "").problems
    }
    assert found.keys() == {("agent-of-no-host", "kvm-3"), ("no-agent", "kvm3")}
    text = found["agent-of-no-host", "kvm-3"]
    assert "host kvm-3, which the pool does not have: is it kvm3?" in text
