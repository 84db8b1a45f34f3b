"""What is prepared, what may be finished, what is left after an abort: the decisions, without a database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.vnet.controller.pools import after, bound, changed, plugged, pool, vif
from vnet.api.errors import Conflict
from vnet.controller import migration_state
from vnet.controller.migration_state import Phase
from vnet.db.changes import DeleteObject, UpdateObject
from vnet.db.view import PoolView
from vnet.objects import Binding, BindingState, Vif

WEB0 = vif("web1/0", 1, vm="web1", host="xen1", epoch=1)
WEB1 = vif("web1/1", 2, "prod", vm="web1", index=1, host="xen1", epoch=1)
PEER = vif("db1/0", 3, vm="db1", host="xen3", epoch=1)
NOW = 5000


def start(**more: object) -> PoolView:
    """web1 runs on xen1; db1 on xen3 shares its tunnel network."""
    bindings = [bound(WEB0, "xen1"), bound(WEB1, "xen1"), bound(PEER, "xen3")]
    return pool([WEB0, WEB1, PEER], bindings, **more)  # type: ignore[arg-type]


def unit(view: PoolView, vm: str = "web1") -> tuple[Vif, ...]:
    return view.vifs(vm)


def phase(view: PoolView) -> Phase:
    return migration_state.unit_migration(view, unit(view)).phase


def prepared(view: PoolView) -> PoolView:
    view = after(view, migration_state.prepare(view, unit(view), "xen2"))
    for id in ("web1/0", "web1/1"):
        view = plugged(view, id, "xen2", ready=True, acked=frozenset({"xen1", "xen3"}))
    return view


def test_prepared_needs_every_port_ready_and_every_live_sender() -> None:
    view = start()
    assert phase(view) is Phase.NONE
    view = after(view, migration_state.prepare(view, unit(view), "xen2"))
    assert [vif.incoming for vif in unit(view)] == ["xen2", "xen2"]
    assert "no port with external_ids:iface-id=web1/0" in migration_state.unit_migration(view, unit(view)).waiting[0]

    view = plugged(view, "web1/0", "xen2", ready=True, acked=frozenset({"xen1", "xen3"}))
    assert phase(view) is Phase.PREPARING  # the other VIF is not there
    view = plugged(view, "web1/1", "xen2", acked=frozenset({"xen1"}))
    assert migration_state.unit_migration(view, unit(view)).waiting == ("host xen2 is programming VIF web1/1",)
    view = changed(view, "web1/1", "xen2", ready=True)
    assert phase(view) is Phase.PREPARED  # xen3 has nothing on prod, so it is not asked

    view = changed(view, "web1/0", "xen2", acked=frozenset({"xen1"}))
    status = migration_state.unit_migration(view, unit(view))
    assert (status.phase, status.source, status.destination) == (Phase.PREPARING, "xen1", "xen2")
    assert status.waiting == ("host xen3 has not programmed the way to VIF web1/0 on xen2",)


def test_a_dead_sender_is_named_and_not_waited_for() -> None:
    view = changed(prepared(start(live=("xen1", "xen2"))), "web1/0", "xen2", acked=frozenset({"xen1"}))
    status = migration_state.unit_migration(view, unit(view))
    assert (status.phase, status.not_waited) == (Phase.PREPARED, ("xen3",))


def test_a_destination_that_cannot_take_it_any_more_is_not_prepared() -> None:
    """The toolstack would let the guest switch into nothing."""
    view = prepared(start())
    prod = view.state.networks["prod"]
    states = {
        "host xen2 is not in the pool": {"hosts": {n: h for n, h in view.state.hosts.items() if n != "xen2"}},
        "host xen2 lacks uplink trunk0, which network prod needs": {
            "hosts": {**view.state.hosts, "xen2": replace(view.state.hosts["xen2"], uplinks=())}
        },
        "network prod is not on host xen2": {
            "networks": {**view.state.networks, "prod": replace(prod, hosts=frozenset({"xen1"}))}
        },
        "network prod does not exist": {"networks": {n: v for n, v in view.state.networks.items() if n != "prod"}},
    }
    for text, tables in states.items():
        without = PoolView.of(replace(view.state, **tables), view.live)  # type: ignore[arg-type]
        status = migration_state.unit_migration(without, unit(without))
        assert (status.phase, text in status.waiting) == (Phase.PREPARING, True), status
        with pytest.raises(Conflict, match=text):
            migration_state.switch(without, unit(without), NOW)


def test_the_whole_way_and_every_call_repeated() -> None:
    view = prepared(start())
    assert migration_state.prepare(view, unit(view), "xen2") == ()
    view = after(view, migration_state.switch(view, unit(view), NOW))
    assert phase(view) is Phase.RECEIVING
    assert migration_state.switch(view, unit(view), NOW) == ()
    view = after(view, migration_state.activate(view, unit(view), NOW))
    assert phase(view) is Phase.ACTIVE
    assert {view.location(id).current.since for id in ("web1/0", "web1/1")} == {NOW}  # type: ignore[union-attr]
    assert migration_state.activate(view, unit(view), NOW) == migration_state.switch(view, unit(view), NOW) == ()
    assert migration_state.unit_migration(view, unit(view)).source == "xen1"
    view = after(view, migration_state.finish(view, unit(view), NOW))
    assert [(vif.host, vif.incoming) for vif in unit(view)] == [("xen2", None)] * 2
    assert migration_state.finish(view, unit(view), NOW) == ()
    assert (
        migration_state.prepare(view, unit(view), "xen2") == ()
    )  # the first call of a lost answer, made again at the end
    assert ("web1/0", "xen1") in view.state.bindings  # its agent takes it away when the port is closed


def test_activation_is_refused_until_prepared_unless_forced() -> None:
    view = start()
    with pytest.raises(Conflict, match="no migration is under way"):
        migration_state.activate(view, unit(view), NOW)
    view = after(view, migration_state.prepare(view, unit(view), "xen2"))
    with pytest.raises(Conflict, match="not prepared: host xen2: no port"):
        migration_state.activate(view, unit(view), NOW, force=True)  # there is nothing to activate
    view = changed(prepared(start()), "web1/0", "xen2", acked=frozenset())
    with pytest.raises(Conflict, match="host xen3 has not programmed"):
        migration_state.activate(view, unit(view), NOW)
    assert phase(after(view, migration_state.activate(view, unit(view), NOW, force=True))) is Phase.ACTIVE


def test_finish_is_refused_until_active_and_forced_only_past_a_dead_source() -> None:
    view = prepared(start())
    with pytest.raises(Conflict, match="is prepared on host xen2: activate it first"):
        migration_state.finish(view, unit(view), NOW)
    with pytest.raises(Conflict, match="host xen1 is alive"):
        migration_state.finish(view, unit(view), NOW, force=True)
    view = PoolView.of(view.state, ("xen2", "xen3"))
    view = after(view, migration_state.finish(view, unit(view), NOW, force=True))
    assert [(vif.host, vif.incoming) for vif in unit(view)] == [("xen2", None)] * 2
    at = view.location("web1/0")
    assert at.current is not None
    assert (at.current.host, at.superseded) == ("xen2", ())
    assert ("web1/0", "xen1") not in view.state.bindings


@pytest.mark.parametrize("receiving", [False, True])
def test_abort_leaves_everything_at_the_source(receiving: bool) -> None:
    view = prepared(start())
    if receiving:
        view = after(view, migration_state.switch(view, unit(view), NOW))
    view = after(view, migration_state.abort(view, unit(view)))
    assert [(vif.host, vif.incoming) for vif in unit(view)] == [("xen1", None)] * 2
    assert {host for id, host in view.state.bindings if id.startswith("web1")} == {"xen1"}
    assert migration_state.abort(view, unit(view)) == ()


def test_abort_is_refused_once_one_vif_is_active() -> None:
    view = changed(prepared(start()), "web1/1", "xen2", state=BindingState.ACTIVE)
    with pytest.raises(Conflict, match="VIF web1/1 runs on host xen2 already"):
        migration_state.abort(view, unit(view))


@pytest.mark.parametrize("host", [None, "xen3"])
def test_a_vif_wanted_elsewhere_or_nowhere_in_particular_is_pinned_to_its_source(host: str | None) -> None:
    free = replace(WEB0, host=host)
    view = pool([free], [bound(free, "xen1")])
    (change,) = migration_state.prepare(view, [free], "xen2")
    assert change == UpdateObject(free, replace(free, host="xen1", incoming="xen2"))


def test_a_binding_of_a_host_that_was_taken_over_is_no_place_to_migrate_from() -> None:
    forged = [bound(WEB0, "xen3", 9999, state=state) for state in BindingState]
    for binding in forged:
        view = pool([WEB0, PEER], [bound(WEB0, "xen1"), binding, bound(PEER, "xen3")])
        assert view.location("web1/0").current == bound(WEB0, "xen1")
        assert view.location("web1/0").incoming is None
        assert view.state.location("web1/0") == view.state.locations()["web1/0"] == view.location("web1/0")
        assert [vif.id for of in migration_state.units_on(view, "xen1") for vif in of] == ["web1/0"]


def test_a_stale_binding_of_the_destination_is_not_taken_for_the_new_one() -> None:
    stale = bound(WEB0, "xen2", epoch=1, acked=frozenset({"xen1", "xen3"}))
    moved = replace(WEB0, epoch=2)
    view = pool([moved, PEER], [stale, bound(moved, "xen1", epoch=2), bound(PEER, "xen3")])
    view = after(view, migration_state.prepare(view, [moved], "xen2"))
    assert phase(view) is Phase.PREPARING
    (abandon,) = (c for c in migration_state.abort(view, unit(view)) if isinstance(c, DeleteObject))
    assert abandon == DeleteObject(stale)


def test_an_internal_network_waits_for_no_other_host() -> None:
    a, b = vif("a", 1, "lab", host="xen1", epoch=1), vif("b", 2, "lab", host="xen3", epoch=1)
    view = pool([a, b], [bound(a, "xen1"), bound(b, "xen3")])
    view = plugged(after(view, migration_state.prepare(view, [a], "xen2")), "a", "xen2", ready=True)
    assert migration_state.vif_migration(view, view.state.vifs["a"]).phase is Phase.PREPARED


def test_an_unplugged_vif_of_the_vm_holds_nobody_up_and_comes_along() -> None:
    spare = vif("web1/2", 9, vm="web1", index=2)
    base = start()
    view = prepared(PoolView.of(replace(base.state, vifs={**base.state.vifs, spare.id: spare}), base.live))
    assert phase(view) is Phase.PREPARED
    view = after(view, migration_state.activate(view, unit(view), NOW))
    view = after(view, migration_state.finish(view, unit(view), NOW))
    assert {vif.host for vif in unit(view)} == {"xen2"}


@pytest.mark.parametrize(
    ("bindings", "vifs", "to", "message"),
    [
        ([], [WEB0], "xen2", "runs on no host"),
        ([bound(WEB0, "xen1")], [replace(WEB0, incoming="xen3")], "xen2", "on its way to host xen3"),
        ([bound(WEB0, "xen1")], [WEB0], "xen9", "host xen9 is not in the pool"),
    ],
)
def test_prepare_is_refused(bindings: list[Binding], vifs: list[Vif], to: str, message: str) -> None:
    view = pool(vifs, bindings)
    with pytest.raises(Conflict, match=message):
        migration_state.prepare(view, vifs, to)


def test_a_dead_destination_is_refused_unless_forced() -> None:
    view = start(live=("xen1", "xen3"))
    with pytest.raises(Conflict, match="agent of host xen2 does not report"):
        migration_state.prepare(view, unit(view), "xen2")
    assert migration_state.prepare(view, unit(view), "xen2", force=True) != ()


def test_evacuation_spreads_units_and_names_what_no_host_can_take() -> None:
    view = start()
    assert migration_state.plan_evacuation(view, "xen1") == {("web1/0", "web1/1"): "xen2"}  # xen3 has one already
    assert migration_state.plan_evacuation(view, "xen1", "xen3") == {("web1/0", "web1/1"): "xen3"}
    assert migration_state.plan_evacuation(view, "xen2") == {}
    view = start(live=("xen1",))
    with pytest.raises(Conflict, match=r"VM web1 .no other host is alive"):
        migration_state.plan_evacuation(view, "xen1")
    under_way = after(start(), migration_state.prepare(start(), unit(start()), "xen3"))
    assert migration_state.plan_evacuation(under_way, "xen1") == {("web1/0", "web1/1"): "xen3"}
