"""Which of a VIF's bindings count: no host takes it from one that it is asked for on, or runs one that is asked for elsewhere, and every move of it is
followed in whatever order its rows come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from vnet.compile import HostInputs, HostView, StateIndex
from vnet.objects import Binding, BindingState, Location, Network, NetworkType, PoolState, Vif
from vnet.objects.binding import NOWHERE, Asked, asked_for, asked_of, followed, stays

VIF, NETWORK, MAC = "web/0", "vx", "0a:00:00:00:00:01"
ACTIVE, HELD, RECEIVING, AWAITED = (
    BindingState.ACTIVE,
    BindingState.HELD,
    BindingState.RECEIVING,
    BindingState.AWAITED,
)
Bound = Mapping[str, tuple[int, BindingState]]  # epoch and state of each host's binding
Step = tuple[tuple[str, ...], Bound]  # the hosts that the VIF is asked for on, and its bindings


def network_on(hosts: frozenset[str]) -> Network:
    return Network(NETWORK, NetworkType.VXLAN, 1, 1450, key=1, hosts=hosts)


def bindings(bound: Bound) -> list[Binding]:
    return [Binding(VIF, host, NETWORK, MAC, epoch, state) for host, (epoch, state) in bound.items()]


def counted(asked: tuple[str, ...], bound: Bound, former: frozenset[str] | None = None) -> set[str]:
    return {it.host for it in followed(bindings(bound), Asked(asked, former))}


@pytest.mark.parametrize("state", BindingState)
@pytest.mark.parametrize("epoch", [1, 2, 9999])
def test_a_host_that_it_is_not_asked_for_on_takes_it_from_none_that_it_is(state: BindingState, epoch: int) -> None:
    assert counted(("a",), {"a": (1, ACTIVE), "b": (epoch, state)}) == {"a"}
    assert counted(("a",), {"a": (1, AWAITED), "b": (epoch, state)}) == {"a"}
    assert counted(("a", "c"), {"a": (1, ACTIVE), "b": (epoch, state), "c": (3, HELD)}) == {"a", "c"}
    place = Location.of(
        followed(bindings({"b": (epoch, state), "c": (2, ACTIVE), "a": (1, ACTIVE)}), Asked(("a", "c")))
    )
    assert place.current is not None
    assert (place.current.host, place.incoming) == ("c", None)


def test_one_that_is_asked_for_on_no_host_in_particular_is_any_hosts() -> None:
    assert counted((), {"a": (1, ACTIVE), "b": (2, ACTIVE)}) == {"a", "b"}


@pytest.mark.parametrize("epoch", [1, 2, 9999])
def test_one_that_is_away_is_run_where_it_is_asked_for_or_was_before(epoch: int) -> None:
    assert counted(("a",), {"b": (epoch, ACTIVE)}, frozenset()) == set()
    assert counted(("a",), {"b": (epoch, ACTIVE), "c": (2, ACTIVE)}, frozenset("c")) == {"c"} | (
        {"b"} if epoch < 2 else set()
    )
    assert counted(("a",), {"a": (3, HELD), "b": (epoch, ACTIVE), "c": (1, ACTIVE)}, frozenset("c")) == {"a", "c"}
    assert counted(("a",), {"a": (3, ACTIVE), "c": (9999, ACTIVE)}, frozenset("c")) == {"a"}


def test_as_long_as_nobody_states_who_ran_it_before_any_host_may() -> None:
    """As of rows that an earlier version wrote, and has written since: it states nothing of where they are asked for."""
    assert counted(("a",), {"b": (2, ACTIVE)}) == {"b"}
    assert counted(("a",), {"a": (3, HELD), "b": (2, ACTIVE), "c": (1, ACTIVE)}) == {"a", "b", "c"}


def test_a_host_that_it_has_left_relays_until_it_lets_go() -> None:
    place = Location.of(followed(bindings({"a": (1, ACTIVE), "b": (2, ACTIVE)}), Asked(("b",))))
    assert [it.host for it in place.superseded] == ["a"]


PREPARED: tuple[Step, ...] = (
    (("a",), {"a": (1, ACTIVE)}),
    (("a", "b"), {"a": (1, ACTIVE)}),
    (("a", "b"), {"a": (1, ACTIVE), "b": (2, HELD)}),
    (("a", "b"), {"a": (1, ACTIVE), "b": (2, RECEIVING)}),
)
BACK: tuple[Step, ...] = (  # before the former source has let go
    (("b",), {"a": (1, ACTIVE), "b": (2, ACTIVE)}),
    (("b", "a"), {"a": (1, ACTIVE), "b": (2, ACTIVE)}),
    (("b", "a"), {"b": (2, ACTIVE)}),
    (("b", "a"), {"a": (3, HELD), "b": (2, ACTIVE)}),
    (("b", "a"), {"a": (3, ACTIVE), "b": (2, ACTIVE)}),
    (("a",), {"a": (3, ACTIVE), "b": (2, ACTIVE)}),
)
STORIES: Mapping[str, tuple[Step, ...]] = {
    "finished": (
        *PREPARED,
        (("a", "b"), {"a": (1, ACTIVE), "b": (2, ACTIVE)}),
        (("b",), {"a": (1, ACTIVE), "b": (2, ACTIVE)}),
        (("b",), {"b": (2, ACTIVE)}),
    ),
    "aborted": (*PREPARED, (("a",), {"a": (1, ACTIVE)})),
    "moved back at once": BACK,
    "the source died": (*PREPARED, (("b",), {"b": (2, ACTIVE)})),
    "asked for elsewhere": (
        (("a",), {"a": (1, ACTIVE)}),
        (("b",), {"a": (1, ACTIVE)}),
        (("b",), {"a": (1, ACTIVE), "b": (2, ACTIVE)}),
        (("b",), {"b": (2, ACTIVE)}),
    ),
    "pinned": (  # it was asked for on no host in particular, and is about to move
        ((), {"a": (1, ACTIVE)}),
        *PREPARED[1:],
    ),
    "asked for where it was not": (
        (("c",), {"a": (1, ACTIVE)}),
        (("c",), {"a": (1, ACTIVE), "c": (2, ACTIVE)}),
        (("c",), {"c": (2, ACTIVE)}),
    ),
}


def stated(story: tuple[Step, ...]) -> list[tuple[Asked, Bound]]:
    """Where the VIF is asked for at each step, with what controllers state of it as that changes."""
    found: list[tuple[Asked, Bound]] = []
    vif: Vif | None = None
    before: Bound = story[0][1]
    for asked, bound in story:
        host, incoming = (*asked, None, None)[:2]
        if vif is None or (vif.host, vif.incoming) != (host, incoming):
            at = Location.of(followed(bindings(before), asked_of(vif) if vif is not None else NOWHERE))
            new = Vif(VIF, NETWORK, MAC, host=host, incoming=incoming)
            vif = replace(new, stays=stays(vif, new, at))
        found.append((asked_of(vif), bound))
        before = bound
    return found


def place(asked: Asked, bound: Bound) -> str | None:
    """The host that a sender takes it to run on."""
    inputs = HostInputs("sender")
    inputs.set_asked(VIF, asked)
    for binding in bindings(bound):
        inputs.set_binding(binding)
    current = HostView(inputs).location(NETWORK, VIF).current
    return current.host if current is not None else None


@pytest.mark.parametrize("is_stated", [True, False])
@pytest.mark.parametrize("story", STORIES)
def test_a_move_is_followed_whichever_rows_come_first(story: str, *, is_stated: bool) -> None:
    """A sender gets what changed of the VIF's row and of its bindings by two messages, each perhaps of several transactions: between them it
    goes on as before, or as after."""
    steps = stated(STORIES[story]) if is_stated else [(Asked(hosts), bound) for hosts, bound in STORIES[story]]
    assert None not in {place(asked, bound) for asked, bound in steps}
    for (asked, bound), (later_asked, later_bound) in combinations(steps, 2):
        fine = {place(asked, bound), place(later_asked, later_bound)}
        assert place(later_asked, bound) in fine
        # A sender that has missed a whole move, and that all hosts where it takes the VIF to be have let go, waits for the VIF's row.
        missed = not any(map(asked.allows, later_bound))
        assert place(asked, later_bound) in (fine | {None} if missed else fine)


@pytest.mark.parametrize("story", STORIES)
def test_a_host_that_was_taken_over_is_followed_at_no_step_of_a_move(story: str) -> None:
    for asked, bound in stated(STORIES[story]):
        for epoch in (*range(1, 5), 9999):
            if asked.hosts:
                assert place(asked, {**bound, "x": (epoch, ACTIVE)}) == place(asked, bound)
                assert place(asked, {"x": (epoch, ACTIVE)}) is None


def test_what_a_host_makes_up_of_where_a_vif_was_is_not_stated() -> None:
    old = Vif(VIF, NETWORK, MAC, host="a", incoming="b")
    at = Location.of(followed(bindings({"a": (4, ACTIVE), "b": (5, ACTIVE), "x": (3, ACTIVE)}), asked_of(old)))
    assert [it.host for it in at.superseded] == ["a", "x"]
    assert stays(old, replace(old, host="b", incoming=None), at) == "b a"


hosts = st.sampled_from("abc")
changes = st.one_of(
    st.builds(
        lambda host, incoming, stays: ("set_asked", VIF, asked_for(host, incoming, stays)),
        st.none() | hosts,
        st.none() | hosts,
        st.sampled_from(("", "a", "a b", "b a", "b c")),
    ),
    st.builds(
        lambda host, epoch, state, network: ("set_binding", Binding(VIF, host, network, MAC, epoch, state)),
        hosts,
        st.integers(1, 4),
        st.sampled_from(BindingState),
        st.sampled_from((NETWORK, "vy")),
    ),
    st.tuples(st.just("drop_binding"), st.just(NETWORK), st.just(VIF), hosts),
    st.builds(
        lambda host, incoming, stays: ("set_vif", Vif(VIF, NETWORK, MAC, host=host, incoming=incoming, stays=stays)),
        st.none() | hosts,
        st.none() | hosts,
        st.sampled_from(("", "a", "a b", "b a", "b c")),
    ),
    st.just(("drop_vif", VIF)),
    st.frozensets(hosts, max_size=2).map(lambda on: ("set_network", network_on(on))),
    st.just(("drop_network", NETWORK)),
)


@examples(300)
@given(st.lists(changes, max_size=20))
def test_nothing_is_left_of_the_order_in_which_rows_came(sequence: list[tuple[object, ...]]) -> None:
    inputs = HostInputs("a")
    for name, *arguments in sequence:
        getattr(inputs, str(name))(*arguments)
    anew = HostInputs("a")
    for network in inputs.networks.values():
        anew.set_network(network)
    for vif, asked in inputs.asked.items():
        anew.set_asked(vif, asked)
    for vif_row in inputs.vifs.values():
        anew.set_vif(vif_row)
    for index in inputs.indexes.values():
        for binding in index.all_bindings(VIF):
            anew.set_binding(binding)
    assert anew.indexes == inputs.indexes


def test_no_host_is_followed_that_the_network_may_not_be_on() -> None:
    inputs = HostInputs("sender")
    for binding in bindings({"a": (1, ACTIVE), "x": (9999, ACTIVE)}):
        inputs.set_binding(binding)
    view = HostView(inputs)

    def seen() -> tuple[str | None, set[str]]:
        current = view.location(NETWORK, VIF).current
        return current.host if current is not None else None, set(view.members(NETWORK))

    assert seen() == ("x", {"a", "x"})
    inputs.set_network(network_on(frozenset("a")))
    assert seen() == ("a", {"a"})
    inputs.drop_binding(NETWORK, VIF, "a")
    assert seen() == (None, set())
    inputs.set_network(network_on(frozenset("ax")))
    assert seen() == ("x", {"x"})
    state = PoolState(
        networks={NETWORK: network_on(frozenset("a"))},
        bindings={(VIF, it.host): it for it in bindings({"a": (1, ACTIVE), "x": (9999, ACTIVE)})},
    )
    assert [it.host for it in (state.locations()[VIF].current,) if it is not None] == ["a"]


def test_the_twin_follows_as_agents_do() -> None:
    vif = Vif(VIF, NETWORK, MAC, host="a")
    state = PoolState(
        vifs={VIF: vif}, bindings={(VIF, it.host): it for it in bindings({"a": (1, ACTIVE), "b": (9999, ACTIVE)})}
    )
    inputs = HostInputs("c")
    inputs.asked = StateIndex(state).asked
    for binding in state.bindings.values():
        inputs.set_binding(binding)
    assert state.locations()[VIF] == HostView(inputs).location(NETWORK, VIF)
