"""Labels and networks as the other side of rules, on the twin and on a real switch, and what a change of one costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.ovsctl.datapath.real_bridge import RealBridge, real_bridge
from tests.vnet.sim.both import PORTS, Both
from tests.vnet.sim.test_connections import begin, later
from tests.vnet.sim.test_policy import DROP, IN, group, ports
from vnet.compile import flat
from vnet.compile.pipeline import Table
from vnet.objects import Protocol, Rule
from vnet.sim.bindings import settled

WEB = Rule("web", IN, protocol=Protocol.TCP, ports=ports(80), remote=("label:app=shop",))


@pytest.fixture(scope="module")
def bridge(ovs: None) -> Iterator[RealBridge]:
    with real_bridge(PORTS) as running:
        yield running


def label(both: Both, **labels: tuple[str, ...]) -> None:
    """Gives VIFs labels of their own."""
    state = both.pool.state
    vifs = {vif.id: replace(vif, labels=labels.get(vif.id[:-2], vif.labels)) for vif in state.vifs.values()}
    both.pool.update(settled(replace(state, vifs=vifs)))
    both.change()


def test_a_rule_is_about_those_with_the_label_as_they_are_now(bridge: RealBridge) -> None:
    """All have the network's app=shop; third's own value wins. Who loses the label loses its connections at once, both ways, and a
    change of a label changes no rule."""
    guest = Rule("guest", IN, DROP, protocol=Protocol.TCP, ports=ports(80), remote=("label:env=test",))
    both = Both(bridge, group("web", WEB, guest), srv=("web",))
    network = both.pool.state.networks["lan"]
    both.pool.update(replace(both.pool.state, networks={"lan": replace(network, labels=("app=shop",))}))
    label(both, third=("app=bank",))
    talk, other = both.talk("cli", "srv", Protocol.TCP, 80, 6), both.talk("third", "srv", Protocol.TCP, 80)
    begin(both, talk)
    assert not both.passes("third", other.frame())
    there, back = later(talk)
    host = both.pool.hosts["h0"]
    before = set(flat(host.compiled))
    label(both, third=(), cli=("env=test",))
    assert {flow.table for flow in before ^ set(flat(host.compiled))} == {Table.EGRESS_PEER, Table.INGRESS_PEER}
    assert both.passes("third", other.frame())
    assert not both.passes("srv", back)
    assert not both.passes("cli", there)


def test_a_rule_is_about_the_addresses_of_a_network(bridge: RealBridge) -> None:
    """Those of its subnets, wherever they come from: cli has .2, third .3."""
    far = Rule("far", IN, protocol=Protocol.TCP, ports=ports(80), remote=("network:far",))
    both = Both(bridge, replace(group("web", far), network_ranges=("far 10.0.0.2/32", "far fd00::/126")), srv=("web",))
    assert both.passes("cli", both.talk("cli", "srv", Protocol.TCP, 80).frame())
    assert not both.passes("third", both.talk("third", "srv", Protocol.TCP, 80).frame())
    assert both.passes("third", both.talk("third", "srv", Protocol.TCP, 80, 6).frame())
    both.change(replace(group("web", far), network_ranges=()))
    assert not both.passes("cli", both.talk("cli", "srv", Protocol.TCP, 80).frame())
