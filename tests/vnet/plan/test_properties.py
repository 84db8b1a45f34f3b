"""What holds for every document and every pool."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.vnet.plan.pools import apply, as_stored, documents, plugged
from vnet.db.changes import state_changes
from vnet.db.history import Author, Costs, decoded, record_of
from vnet.db.rows import to_columns
from vnet.objects import PoolState
from vnet.plan import PlanAction, PoolPlan, desired_state, export_document, plan_pool
from vnet.plan.past import as_it_was
from vnet.topology import load


@given(documents(), documents())
def test_one_document_after_another(first: str, second: str) -> None:
    before = apply(first)
    after = apply(second, before)
    a_second_plan_is_empty(second, after)
    assert apply(first, after) == before, "apply, then revert"
    export_changes_nothing(after)
    what_stays_keeps_its_ids(before, after)
    no_id_is_two_objects_at_once(before, after)
    a_plan_says_all_that_differs(before, second)
    the_past_is_known_by_records(before, after)


def the_past_is_known_by_records(*states: PoolState) -> None:
    """Of each state before the last, also of one before two changes."""
    stored = [as_stored(state) for state in (PoolState(states[0].pool), *states)]
    records = [
        decoded(record_of(state_changes(old, new), Author(), 1, Costs(), 5).changes) for old, new in pairwise(stored)
    ]
    for at, old in enumerate(stored[:-1]):
        assert as_it_was(stored[-1], reversed(records[at:])) == old


def a_second_plan_is_empty(text: str, state: PoolState) -> None:
    assert not plan_pool(state, apply(text, state))
    assert apply(text, state) == state


def export_changes_nothing(state: PoolState) -> None:
    exported = load(export_document(state).encode(), "exported")
    assert desired_state(exported, state) == state
    assert export_document(desired_state(exported, state)) == export_document(state)


def what_stays_keeps_its_ids(before: PoolState, after: PoolState) -> None:
    """Whatever else comes or goes: a network of one type its number and key, a VIF its MAC, and on one network its address."""
    for name, net in after.networks.items():
        if (old := before.networks.get(name)) is not None:
            assert net.number == old.number
            if net.type is old.type:
                assert net.key == old.key
    for name, group in after.groups.items():
        if name in before.groups:
            assert group.number == before.groups[name].number
    for vif_id, vif in after.vifs.items():
        if (had := before.vifs.get(vif_id)) is not None:
            assert vif.mac == had.mac


def no_id_is_two_objects_at_once(before: PoolState, after: PoolState) -> None:
    """Nor is one that an object gives up taken by another in the same step."""
    for state in (before, after):
        numbers = [net.number for net in state.networks.values()]
        assert len(set(numbers)) == len(numbers)
        assert len({group.number for group in state.groups.values()}) == len(state.groups)
        assert len({vif.mac for vif in state.vifs.values()}) == len(state.vifs)
        taken = [(vif.network, address) for vif in state.vifs.values() for address in vif.addresses]
        assert len(set(taken)) == len(taken)
    owner = {net.number: net.name for net in before.networks.values()}
    assert all(owner.get(net.number, net.name) == net.name for net in after.networks.values())
    group_of = {group.number: group.name for group in before.groups.values()}
    assert all(group_of.get(group.number, group.name) == group.name for group in after.groups.values())
    holder = {(vif.network, a): vif.id for vif in before.vifs.values() for a in vif.addresses}
    for vif in after.vifs.values():
        assert all(holder.get((vif.network, a), vif.id) == vif.id for a in vif.addresses)


def replay(current: PoolState, plan: PoolPlan) -> dict[tuple[str, tuple[str, ...]], object]:
    """The rows after the changes, each made in its turn, and each possible at its turn."""
    rows: dict[tuple[str, tuple[str, ...]], object] = {}
    for change in plan_pool(PoolState(), current).changes:
        rows[change.noun, change.key] = change.new
    for change in plan.changes:
        key = (change.noun, change.key)
        assert (key in rows) == (change.action is not PlanAction.CREATE)
        if change.action is PlanAction.DELETE:
            del rows[key]
        else:
            rows[key] = change.new
    return rows


def a_plan_says_all_that_differs(before: PoolState, second: str) -> None:
    current = plugged(before)
    desired = apply(second, current)
    plan = plan_pool(current, desired)
    wanted = {(c.noun, c.key): c.new for c in plan_pool(PoolState(), desired).changes}
    made = replay(current, plan)
    assert {key: to_columns(value) for key, value in made.items()} == {  # type: ignore[arg-type]
        key: to_columns(value)  # type: ignore[arg-type]
        for key, value in wanted.items()
    }
    for change in plan.changes:
        assert change.reason


@given(documents(), st.randoms(use_true_random=False))
def test_the_order_of_a_document_does_not_matter(text: str, choose: random.Random) -> None:
    head, *sections = text.replace("pool: lab\n", "pool: lab\n\0").split("\0")
    lines = sections[0].splitlines()
    blocks: list[list[str]] = []
    for line in lines:
        blocks.append([line]) if not line.startswith(" ") else blocks[-1].append(line)
    choose.shuffle(blocks)
    for block in blocks:
        rest = block[1:]
        choose.shuffle(rest)
        block[1:] = rest
    shuffled = head + "\n".join(line for block in blocks for line in block) + "\n"
    assert apply(shuffled) == apply(text)
