"""Every document that is shipped: it loads, plans, plans again to nothing, and comes back from the pool unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vnet.plan.pools import as_stored
from vnet.db.changes import state_changes
from vnet.db.history import Author, Costs, decoded, record_of
from vnet.objects import PoolState
from vnet.plan import PlanAction, desired_state, export_document, plan_pool, render_plan
from vnet.plan.past import as_it_was
from vnet.topology import load
from vnet.topology.reference import REPOSITORY

TOPOLOGIES = sorted((REPOSITORY / "topologies").glob("*.vnet.yaml"))


def test_they_are_there() -> None:
    names = {path.name.removesuffix(".vnet.yaml") for path in TOPOLOGIES}
    assert names >= {
        "quickstart",
        "vlan-trunks",
        "gre-private",
        "bonds",
        "multi-tenant",
        "policy",
        "tiers",
        "xenserver-pool",
    }


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.name)
def test_it_plans_and_comes_back(path: Path) -> None:
    document = load(path.read_bytes(), path.name)
    assert document.state.vms
    assert document.expectations
    assert all(vm.host for vm in document.state.vms.values()), "a lab has to know where to start it"
    state = desired_state(document, PoolState())
    plan = plan_pool(PoolState(), state)
    assert plan
    assert {change.action for change in plan.changes} == {PlanAction.CREATE}
    assert not plan_pool(state, desired_state(document, state))

    exported = load(export_document(state).encode(), "exported.vnet.yaml")
    again = desired_state(exported, state)
    assert not plan_pool(state, again), render_plan(plan_pool(state, again))
    assert again == state

    stored, without = as_stored(state), PoolState(state.pool)
    record = record_of(tuple(state_changes(stored, without)), Author(), 2, Costs(), 5)
    assert as_it_was(without, [decoded(record.changes)]) == stored


def test_quickstart_has_a_network_of_every_type() -> None:
    document = load((REPOSITORY / "topologies/quickstart.vnet.yaml").read_bytes(), "quickstart")
    kinds = {(net.type.value, net.tag == 0) for net in document.state.networks.values()}
    assert kinds == {
        ("internal", False), ("vlan", True), ("vlan", False), ("vxlan", False), ("gre", False), ("geneve", False),
    }  # fmt: skip
    assert len(document.state.hosts) == 3
