"""The table of a binding's transitions, over every combination of a VIF's row and two hosts' bindings of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from vnet.agent.binding_policy import TRANSITIONS, Act, Decision, Life, Situation, decide, life, situation, taken_up
from vnet.objects import Binding, BindingState, Location, LockingMode, Network, NetworkType, Vif
from vnet.objects.binding import NOWHERE, Asked, asked_of, followed, published

ME, OTHER, THIRD = "xen1", "xen2", "xen3"
NETWORK = Network("tenant", NetworkType.VXLAN, 1, 1450, key=5001)
RESERVED = 40_000
STEPS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """What a host knows of a VIF as it decides."""

    vif: Vif
    mine: Binding | None
    other: Binding | None
    plugged: bool
    departed: bool
    also: Asked = NOWHERE  # where the VIF was asked for, by the monitor of that, which lags behind the row

    @property
    def counting(self) -> tuple[Binding, ...]:
        found = [binding for binding in (self.mine, self.other) if binding is not None]
        return followed(found, asked_of(self.vif).and_also(self.also))

    @property
    def at(self) -> Location:
        return Location.of(self.counting)

    def decide(self) -> Decision:
        return decide(ME, self.vif, NETWORK, self.at, self.mine, plugged=self.plugged, departed=self.departed)

    def situation(self) -> Situation:
        return situation(ME, self.vif, self.at, self.mine, plugged=self.plugged, departed=self.departed)


def bindings(host: str, epoch: int) -> Iterator[Binding | None]:
    yield None
    for state, ofport in itertools.product(BindingState, (0, RESERVED)):
        yield Binding("vm/0", host, "tenant", "0a:00:00:00:00:01", epoch, state, ofport=ofport)


def cases() -> Iterator[Case]:
    hosts = (None, ME, OTHER, THIRD)
    for host, incoming, awaited in itertools.product(hosts, hosts, (False, True)):
        if awaited and host is None:
            continue
        for newer, former in itertools.product((1, 3), (None, "", f" {ME}", f" {OTHER}")):
            wanted = host or incoming
            if former is not None and wanted is None:
                continue
            vif = Vif(
                "vm/0", "tenant", "0a:00:00:00:00:01", host=host, incoming=incoming, awaited=awaited, epoch=3,
                stays="" if former is None else f"{wanted}{former}",
            )  # fmt: skip
            for mine, other in itertools.product(bindings(ME, newer), bindings(OTHER, 2)):
                for plugged, departed in itertools.product((False, True), (False, True)):
                    yield Case(vif, mine, other, plugged, departed)
                    if former == "":
                        yield Case(vif, mine, other, plugged, departed, Asked((OTHER,), frozenset()))


def carried_out(case: Case, decision: Decision) -> Case:
    mine = case.mine
    if decision.act in (Act.CLAIM, Act.RENEW):
        mine = Binding("vm/0", ME, "tenant", case.vif.mac, 9, decision.state, ofport=RESERVED)
    elif decision.act is Act.RELEASE:
        mine = None
    elif decision.act in (Act.BECOME, Act.ACTIVATE) and mine is not None:
        mine = replace(mine, state=decision.state)
    return replace(case, mine=mine, departed=decision.departs)


def test_every_cell_of_the_table_is_met() -> None:
    met = {(case.situation(), life(case.mine)) for case in cases()}
    impossible = {(here, Life.NONE) for here in (Situation.EXPECTED, Situation.RETURNING)}  # both are told by a binding
    assert met == set(itertools.product(TRANSITIONS, Life)) - impossible
    assert TRANSITIONS.keys() == set(Situation)


def test_a_host_takes_a_vif_from_another_only_if_it_is_asked_to() -> None:
    for case in cases():
        runs_elsewhere = case.at.current is not None and case.at.current.host != ME
        if runs_elsewhere and case.decide().act in (Act.CLAIM, Act.RENEW):
            held = case.decide().state is BindingState.HELD
            asked = case.vif.host == ME and case.vif.incoming is None and case.plugged
            assert held or asked, case


def test_a_host_claims_no_vif_that_is_asked_for_on_another_unless_it_ran_there_before() -> None:
    for case in cases():
        hosts = {name for name in (case.vif.host, case.vif.incoming) if name}
        may = not hosts or ME in hosts or not case.vif.stays or ME in case.vif.stays.split(" ")[1:]
        decision = case.decide()
        if not may:
            assert decision.act not in (Act.CLAIM, Act.RENEW, Act.ACTIVATE, Act.BECOME), case
            leaves = (
                decision.departs or case.situation() is Situation.LEAVING
            )  # then it lets go once the migration has ended
            assert decision.act is Act.RELEASE or case.mine is None or leaves, case
        if case.situation() is Situation.UNASKED:
            assert decision.problem.startswith(f"VIF vm/0 is asked for on host {case.vif.host or case.vif.incoming};")


def test_decisions_come_to_rest() -> None:
    for case in cases():
        now = case
        for _ in range(STEPS):
            now = carried_out(now, now.decide())
        assert now.decide().act is Act.KEEP, case


def test_a_vif_that_a_migration_brings_gets_a_binding_newer_than_that_of_the_host_it_leaves() -> None:
    for case in cases():
        found = case
        if not (case.plugged and case.vif.incoming == ME != case.vif.host):
            continue
        for _ in range(STEPS):
            found = carried_out(found, found.decide())
        assert found.mine is not None, case
        other = found.other if found.other in found.counting else None
        assert other is None or other.state.moving or found.mine.epoch > other.epoch, case


def test_a_port_that_stays_silent_has_a_problem_unless_the_vif_moves_or_has_moved_away() -> None:
    for case in cases():
        at_rest = case.decide().act is Act.KEEP
        runs_elsewhere = case.at.current is not None and case.at.current.host != ME
        if at_rest and case.plugged and case.mine is None:
            assert bool(case.decide().problem) is not (runs_elsewhere and case.decide().departs), case


def test_an_address_is_taken_up_once() -> None:
    """Neighbours are told of an address when it is at another MAC than before, or may be; never again while it stays."""
    known = Vif("vm1/0", "tenant", "0a:00:00:00:00:01", addresses=("10.1.0.1", "fd00::1"))
    more = replace(known, addresses=("10.1.0.1", "10.1.0.2"))
    mine = Binding(host="xen1", vif="vm1/0", epoch=1, state=BindingState.ACTIVE, **published(known))
    awaited = replace(mine, state=BindingState.AWAITED)
    claim, copy, become = Decision(Act.CLAIM), Decision(Act.COPY), Decision(Act.BECOME)
    assert taken_up(known, None, claim) == known.addresses
    assert taken_up(known, awaited, become) == known.addresses
    assert taken_up(more, mine, copy) == ("10.1.0.2",)
    assert taken_up(replace(known, mac="0a:00:00:00:00:02"), mine, copy) == known.addresses
    for vif, binding, decision in (
        (known, mine, Decision()),
        (known, None, Decision(Act.CLAIM, BindingState.HELD)),  # it moves here, and keeps its MAC
        (known, replace(mine, state=BindingState.HELD), Decision(Act.ACTIVATE)),
        (more, awaited, copy),
        (known, mine, Decision(Act.RELEASE)),
        (replace(known, locking_mode=LockingMode.UNLOCKED), None, claim),  # nobody knows what its guest uses
    ):
        assert taken_up(vif, binding, decision) == ()
