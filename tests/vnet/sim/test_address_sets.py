"""Address sets as the other side of rules, on the twin and on a real switch, and what a change of one changes."""

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
from vnet.objects import AddressSet, Protocol, Rule

WEB = Rule("web", IN, protocol=Protocol.TCP, ports=ports(80), remote=("offices",))


@pytest.fixture(scope="module")
def bridge(ovs: None) -> Iterator[RealBridge]:
    with real_bridge(PORTS) as running:
        yield running


def set_addresses(both: Both, **sets: tuple[str, ...]) -> None:
    named = {name: AddressSet(name, addresses) for name, addresses in sets.items()}
    both.pool.update(replace(both.pool.state, address_sets=named))
    both.change()


@pytest.mark.parametrize("version", [4, 6])
def test_a_rule_is_about_those_in_the_set_as_it_is_now(bridge: RealBridge, version: int) -> None:
    """cli has .2, third .3. A connection of who leaves the set ends at once, both ways; a narrower range of another set hides nothing."""
    guest = Rule("guest", IN, DROP, protocol=Protocol.TCP, ports=ports(80), remote=("banned",))
    both = Both(bridge, group("web", WEB, guest), srv=("web",))
    set_addresses(both, offices=("10.0.0.0/29", "fd00::/125"), banned=("10.0.0.3/32", "fd00::3/128"))
    talk, banned = (both.talk(name, "srv", Protocol.TCP, 80, version) for name in ("cli", "third"))
    begin(both, talk)
    assert not both.passes("third", banned.frame())
    there, back = later(talk)
    set_addresses(both, offices=("10.0.0.3/32", "fd00::3/128"), banned=())
    assert both.passes("third", banned.frame())
    assert not both.passes("srv", back)
    assert not both.passes("cli", there)


def test_a_change_of_a_set_changes_no_rule_and_no_vif(bridge: RealBridge) -> None:
    """Twenty rules name it; the flows that differ are those of the range that came."""
    rules = [replace(WEB, name=f"r{n}", ports=ports(1000 + n)) for n in range(20)]
    both = Both(bridge, group("web", *rules), srv=("web",))
    set_addresses(both, offices=("10.1.0.0/16",))
    host = both.pool.hosts["h0"]
    before = set(flat(host.compiled))
    set_addresses(both, offices=("10.1.0.0/16", "10.2.0.0/16"))
    differs = before ^ set(flat(host.compiled))
    assert {flow.table for flow in differs} == {Table.EGRESS_SETS, Table.INGRESS_SETS}
    assert len(differs) == 2
