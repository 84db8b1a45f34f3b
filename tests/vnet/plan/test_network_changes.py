"""VIFs that are put on another network, and into quarantine and back, judged without a database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from vnet.db.changes import UpdateObject
from vnet.db.view import PoolView
from vnet.grammar.declare import Stated
from vnet.objects import Binding, Network, Owner, PoolState, Vif
from vnet.plan import decide, desired_state, render_plan
from vnet.plan.decide import Admission, Inadmissible, NotThere
from vnet.topology import load

DOCUMENT = b"""
apiVersion: vnet/v1
pool: changes
hosts: {xen1: {address: 10.99.0.1}, xen2: {address: 10.99.0.2}}
networks: {prod: {type: vxlan}, jail: {type: vxlan}, far: {type: vxlan, hosts: [xen2]}}
subnets:
  prod-v4: {network: prod, cidr: 10.1.0.0/24}
  jail-v4: {network: jail, cidr: 10.9.0.0/30}
vms:
  web: {vifs: [{network: prod, mac: "0a:00:00:00:00:01", addresses: [10.1.0.1]}]}
  doc: {vifs: [{network: prod, mac: "0a:00:00:00:00:02", addresses: [10.1.0.2]}]}
"""


@pytest.fixture
def view() -> PoolView:
    state = desired_state(load(DOCUMENT, "test.vnet.yaml"), PoolState())
    web = replace(state.vifs["web/0"], owner=Owner.TOOLSTACK)
    bindings = {("web/0", "xen1"): Binding("web/0", "xen1", "prod", web.mac, 1)}
    return viewed(replace(state, vifs=state.vifs | {"web/0": web}, bindings=bindings))


def viewed(state: PoolState) -> PoolView:
    return PoolView.of(state, state.hosts)


def after(view: PoolView, admission: Admission) -> PoolView:
    """The pool with the VIFs that a call changes."""
    vifs = {change.new.id: change.new for change in admission.changes if isinstance(change, UpdateObject)}
    return viewed(replace(view.state, vifs=view.state.vifs | vifs))


def stated(**values: Any) -> Stated:
    return Stated(Vif, values)


def quarantine(view: PoolView, network: str, vif: str = "web/0") -> Admission:
    return decide.quarantine(view, vif, stated(network=network))


def refusal(call: Callable[[], Admission]) -> tuple[str, str]:
    with pytest.raises(Inadmissible) as caught:
        call()
    (fault,) = caught.value.faults
    return fault.code, fault.message


def test_addresses_follow_the_subnets_of_the_new_network(view: PoolView) -> None:
    admission = decide.change(view, Vif, "web/0", stated(network="jail"))
    assert after(view, admission).state.vifs["web/0"].addresses == ("10.9.0.1",)
    assert "it leaves prod for jail" in render_plan(admission.plan)
    kept = stated(network="jail", addresses=("10.1.0.1",))
    assert refusal(lambda: decide.change(view, Vif, "web/0", kept))[0] == "outside-subnet"


def test_a_change_of_something_else_keeps_the_addresses(view: PoolView) -> None:
    """On a network without subnets, where they are of none, too; and a VIF that is to have none gets none. Without addresses the lock
    of a locked VIF is to no address."""
    for subnets, addresses in (({}, ("10.1.0.1",)), (view.state.subnets, ("10.1.0.1",)), (view.state.subnets, ())):
        vif = replace(view.state.vifs["web/0"], addresses=addresses)
        before = viewed(replace(view.state, subnets=subnets, vifs=view.state.vifs | {"web/0": vif}))
        changed = after(before, decide.change(before, Vif, "web/0", stated(router=True))).state.vifs["web/0"]
        assert changed == replace(vif, router=True)


def test_quarantine_is_undone_with_the_addresses_of_before(view: PoolView) -> None:
    first = view.state.vifs["web/0"]
    jailed = after(view, quarantine(view, "jail"))
    vif = jailed.state.vifs["web/0"]
    assert (vif.network, vif.addresses, vif.mac) == ("jail", ("10.9.0.1",), first.mac)
    assert not quarantine(jailed, "jail").changes
    taken = stated(network="prod", addresses=("10.1.0.1",))
    code, message = refusal(lambda: decide.make(jailed, Vif, "new", taken))
    assert (code, message) == ("address-taken", "address 10.1.0.1 on network prod is taken by VIF web/0")
    allocated = decide.make(jailed, Vif, "new", stated(network="prod")).changes[0].new  # type: ignore[union-attr]
    assert allocated.addresses == ("10.1.0.3",)
    assert refusal(lambda: decide.remove(without(jailed, "doc/0"), Network, "prod"))[0] == "in-use"
    freed = after(jailed, decide.release(jailed, "web/0"))
    assert freed.state.vifs["web/0"] == first
    assert not decide.release(freed, "web/0").changes
    # Whoever puts it elsewhere has nothing to put it back to.
    spare = jailed.state.networks | {"spare": replace(jailed.state.networks["jail"], name="spare", number=9, key=9)}
    state = replace(jailed.state, networks=spare)
    moved = after(viewed(state), decide.change(viewed(state), Vif, "web/0", stated(network="spare")))
    assert moved.state.vifs["web/0"].former_network is None


def without(view: PoolView, vif: str) -> PoolView:
    """A toolstack's pool with a VIF less."""
    networks = {name: replace(network, owner=Owner.TOOLSTACK) for name, network in view.state.networks.items()}
    vifs = {id: row for id, row in view.state.vifs.items() if id != vif}
    return viewed(replace(view.state, networks=networks, vifs=vifs, subnets={}))


def test_what_cannot_be_put_on_another_network(view: PoolView) -> None:
    runs = "VIF web/0 runs on host xen1, and network far is not"
    assert refusal(lambda: decide.change(view, Vif, "web/0", stated(network="far"))) == ("not-on-host", runs)
    assert refusal(lambda: quarantine(view, "prod"))[0] == "no-quarantine"
    assert refusal(lambda: quarantine(view, "nowhere"))[0] == "unknown-network"
    assert refusal(lambda: quarantine(view, "jail", "doc/0")) == ("owned-by-document", "VIF doc/0 is the document's")
    moving = replace(view.state.vifs["web/0"], incoming="xen2")
    state = viewed(replace(view.state, vifs=view.state.vifs | {"web/0": moving}))
    assert refusal(lambda: quarantine(state, "jail"))[0] == "migrating"
    with pytest.raises(NotThere):
        quarantine(view, "jail", "web/1")
    with pytest.raises(NotThere):
        decide.release(view, "web/1")
