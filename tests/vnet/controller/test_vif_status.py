"""Where a VIF is, and why it is not ready."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.vnet.controller.pools import bound, pool, vif
from vnet.controller.presenters import show_status
from vnet.controller.vif_status import Presence, whereabouts
from vnet.db.view import PoolView
from vnet.objects import Binding, Network, NetworkType, SecurityGroup, Vif
from vnet.objects.binding import SWITCH
from vnet.objects.tiers import Tier

FREE = vif("web1/0", 1)
PINNED = vif("web1/0", 1, host="xen1")


def why(view: PoolView) -> list[str]:
    return [reason.code for reason in whereabouts(view, view.state.vifs["web1/0"]).reasons]


@pytest.mark.parametrize(
    ("vif", "bindings", "presence", "codes"),
    [
        (FREE, [], Presence.DEFINED, ["no-port"]),
        (PINNED, [], Presence.DEFINED, ["no-port"]),
        (FREE, [bound(FREE, "xen2", ready=False)], Presence.CLAIMED, ["programming"]),
        (FREE, [bound(FREE, "xen2")], Presence.READY, []),
        (PINNED, [bound(PINNED, "xen1")], Presence.READY, []),
        (PINNED, [bound(PINNED, "xen2")], Presence.READY, ["elsewhere"]),
        (replace(PINNED, host="xen9"), [], Presence.DEFINED, ["unknown-host"]),
        (FREE, [bound(FREE, "xen9")], Presence.READY, ["unknown-host"]),
    ],
)
def test_presence_and_reason(vif: Vif, bindings: list[Binding], presence: Presence, codes: list[str]) -> None:
    view = pool([vif], bindings)
    at = whereabouts(view, vif)
    assert at.presence is presence
    assert why(view) == codes
    assert at.since == (1000 if bindings else None)


def test_it_is_told_while_connections_are_picked_up() -> None:
    """By the groups that judge the VIF, also those that its network names: a VIF that nobody tracks has nothing to pick up."""
    bindings = [replace(bound(FREE, "xen2"), moved=True, connections="picked up as they go on: its userspace datapath")]
    view = pool([FREE], bindings)
    network = view.state.networks[FREE.network]
    for group, told in (
        (None, False),
        (SecurityGroup("base", 1, tier=Tier.NETWORK), True),
        (SecurityGroup("base", 1, tier=Tier.NETWORK, stateful=False), False),
    ):
        view.state.groups.clear()
        if group is not None:
            view.state.groups["base"] = group
            view.state.networks[network.name] = replace(network, groups=("base",))
        assert whereabouts(view, FREE).picks_up is told
        lines = [reason.text for reason in show_status(view, [], "").picking_up]
        assert lines == ["VIF web1/0 on host xen2: picked up as they go on: its userspace datapath"] * told


def test_an_agents_problem_says_more_than_a_missing_port() -> None:
    problem = {"vif web1/0": "port tap1 has the iface-id too"}
    view = pool([FREE], xen3=problem)
    (reason,) = whereabouts(view, FREE).reasons
    assert (reason.code, reason.host) == ("agent-problem", "xen3")
    assert reason.text == "host xen3: port tap1 has the iface-id too"
    assert why(pool([PINNED], xen1=problem)) == ["agent-problem"]
    assert why(pool([PINNED], xen3=problem)) == ["no-port"]


def test_a_dead_host_is_the_reason_before_and_after_the_claim() -> None:
    assert why(pool([PINNED], live=())) == ["host-down"]
    assert why(pool([PINNED], [bound(PINNED, "xen1")], live=())) == ["host-down"]
    silent = pool([PINNED], live=())
    assert why(PoolView.of(replace(silent.state, agents={}))) == ["no-agent"]
    away = pool([PINNED], live=(), xen1={SWITCH: "does not answer"})
    (reason,) = whereabouts(away, PINNED).reasons
    assert (reason.code, reason.text) == ("host-down", "host xen1: ovs-vswitchd does not answer")


def test_places_a_network_cannot_reach() -> None:
    view = pool([PINNED])
    only_xen2 = replace(view.state.networks["tenant"], hosts=frozenset({"xen2"}))
    assert why(PoolView.of(replace(view.state, networks={"tenant": only_xen2}), view.live)) == ["not-on-host"]
    vlan = Network("tenant", NetworkType.VLAN, 1, 1500, key=1, tag=1, uplink="other")
    assert why(PoolView.of(replace(view.state, networks={"tenant": vlan}), view.live)) == ["no-uplink"]
    mute = {"xen1": replace(view.state.hosts["xen1"], address=None)}
    assert why(PoolView.of(replace(view.state, hosts=mute), view.live)) == ["no-address"]
    assert why(PoolView.of(replace(view.state, networks={}), view.live)) == ["unknown-network"]
