"""Rows of the pool come from outside: one that cannot be taken in costs its object, and no other."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from ovsctl.ovsdb import Change, Uuid
from vnet.agent.pool_replica import PoolReplica
from vnet.compile import FEATURES, Category, Compiler, FlowSource, HostView
from vnet.compile.flows import Entries
from vnet.db.rows import to_columns
from vnet.objects import Binding, Host, Network, NetworkType

NETWORKS = [Network(name, NetworkType.VXLAN, number, 1450, key=number) for number, name in enumerate("abc", 1)]


def inserted(*rows: dict[str, Any]) -> list[Change]:
    return [Change("Network", Uuid(f"{at:08}-0000-0000-0000-000000000000"), None, row) for at, row in enumerate(rows)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "text", "logged"),
    [
        ({"mtu": 1}, "Network: mtu: 1 is outside", 0),
        ({"type": None}, "Network: type: a content that no network has", 0),
        ({"mtu": KeyError}, "Network: KeyError: 'mtu'", 1),  # a column that is not there, which no reader expects
    ],
)
def test_a_row_that_cannot_be_taken_in(
    caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], text: str, logged: int
) -> None:
    pool = PoolReplica(Compiler("xen1"), lambda _: None)
    first, bad, last = map(to_columns, NETWORKS)
    bad = {name: content for name, content in (bad | wrong).items() if content is not KeyError}
    changes = inserted(first, bad, last)
    with caplog.at_level(logging.ERROR):
        pool.fold(changes)
    assert pool.compiler.view.networks.keys() == {"a", "c"}
    assert [found.startswith(text) for found in pool.problems.values()] == [True], pool.problems
    assert len(caplog.records) == logged
    mended = Change("Network", changes[1].uuid, changes[1].new, to_columns(NETWORKS[1]))  # type: ignore[arg-type]
    pool.fold([mended])
    assert not pool.problems
    assert pool.compiler.view.networks.keys() == {"a", "b", "c"}


def test_a_source_of_flows_that_raises_costs_its_own_flows() -> None:
    """They stay as they were, and are compiled again once what they read has changed."""
    network, told = NETWORKS[0], []
    compiler = Compiler("xen1", FEATURES, lambda source, error: told.append((source, str(error))))
    compiler.inputs.set_host(Host("xen1", "10.99.0.1"))
    compiler.inputs.set_network(network)
    compiler.compile()
    whole = dict(compiler.flows)
    feature = compiler._features[Category.NETWORK]
    compiler._features[Category.NETWORK] = replace(feature, flows=failing)
    compiler.inputs.set_network(replace(network, number=7))
    changed = {change.source.category for change in compiler.compile()}
    assert Category.FLOOD in changed
    assert Category.NETWORK not in changed
    source = FlowSource(Category.NETWORK, network.name)
    assert told == [(source, "no such thing")]
    assert compiler.failed == {source: "RuntimeError: no such thing"}
    compiler._features[Category.NETWORK] = feature
    compiler.inputs.set_network(network)
    compiler.compile()
    assert (compiler.flows, compiler.failed) == (whole, {})


def failing(view: HostView, name: str, network: str) -> Entries:
    raise RuntimeError("no such thing")


def test_a_binding_that_was_decided_on_for_a_network_that_the_vif_left_again() -> None:
    """Whatever the database says of it, with the same epoch: what is decided on last holds, and nothing stays on the others."""
    pool = PoolReplica(Compiler("xen1"), lambda _: None)
    rows = [Binding("vm1/0", "xen1", network, "0a:00:00:00:00:01", 2) for network in "abc"]
    uuid = Uuid("00000009-0000-0000-0000-000000000000")

    def held() -> set[str]:
        return {binding.network for network in "abc" for binding in pool.compiler.view.bindings(network)}

    first, second = (to_columns(row) for row in rows[:2])
    pool.fold([Change("Binding", uuid, None, first)])  # type: ignore[arg-type]
    pool.set_overlay(rows[1])
    pool.set_overlay(rows[2])
    assert held() == {"a", "c"}  # the VIF has no port on the first: its row is gone
    pool.fold([Change("Binding", uuid, first, second)])  # type: ignore[arg-type]
    assert (pool.overlay["vm1/0"], held()) == (rows[2], {"c"})
    pool.clear_overlay("vm1/0")
    assert held() == {"b"}
