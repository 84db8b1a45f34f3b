"""`moved:` of a document: a rename is no deletion, and does nothing once it is done."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.vnet.plan.pools import as_stored, plugged
from vnet.db.changes import UpdateObject, state_changes
from vnet.db.history import Author, Costs, decoded, record_of
from vnet.db.view import PoolView
from vnet.objects import Owner, PoolState
from vnet.plan import desired_state, export_document, plan_pool, render_plan
from vnet.plan.past import as_it_was, take_back
from vnet.topology import TopologyErrors, load

BEFORE = """\
apiVersion: vnet/v1
pool: lab
hosts:
  xen1: {address: 10.99.0.1}
qos:
  slow: {from-vm: 10mbit}
networks:
  lan: {type: vxlan, vif-qos: slow}
subnets:
  lan-v4: {network: lan, cidr: 10.1.0.0/24}
address-sets:
  offices: [10.20.0.0/16]
security-groups:
  web: {rules: [{name: a, direction: ingress, remote: [offices, web]}]}
flow-export:
  siem: {protocol: ipfix, to: "10.0.0.9:4739"}
vms:
  db: {host: xen1, vifs: [{network: lan}, {network: lan, qos: slow, security-groups: [web]}]}
expectations:
  - {name: it is there, from: outside, to: db, expect: unreachable}
"""
NAMES = {"qos": ("slow", "bronze"), "subnets": ("lan-v4", "lan-ip"), "address-sets": ("offices", "branches")}
NAMES |= {"flow-export": ("siem", "audit"), "vms": ("db", "database")}
WORDS = (("slow", "bronze"), ("lan-v4", "lan-ip"), ("offices", "branches"), ("siem", "audit"))
MOVED = "".join(f"  {section}: {{{old}: {new}}}\n" for section, (old, new) in NAMES.items())
AFTER = BEFORE.replace("db:", "database:").replace("to: db", "to: database")
for old_word, new_word in WORDS:
    AFTER = AFTER.replace(old_word, new_word)
RENAMED = AFTER + "moved:\n" + MOVED


def applied(text: str, current: PoolState) -> PoolState:
    return replace(desired_state(load(text.encode(), "x"), current), renames={})


@pytest.fixture
def pool() -> PoolState:
    return plugged(applied(BEFORE, PoolState()))


def test_names_alone_change(pool: PoolState) -> None:
    desired = desired_state(load(RENAMED.encode(), "x"), pool)
    plan = plan_pool(pool, desired)
    assert {(change.action.value, change.disruption.name) for change in plan.changes} == {("update", "NONE")}
    lines = render_plan(plan).splitlines()
    assert "~ vm database" in lines[-3]
    assert "renamed from db   (it stays the same one; disrupts nothing)" in lines[-3]
    assert len(plan.changes) == len(NAMES)
    assert list(desired.vms) == ["database"]
    assert list(desired.vifs) == ["db/0", "db/1"], "their ports have these ids"
    assert desired.bindings == pool.bindings
    for id, vif in pool.vifs.items():
        qos = "bronze" if vif.qos else None
        assert desired.vifs[id] == replace(vif, vm="database", qos=qos)
    assert desired.networks["lan"].vif_qos == "bronze"
    assert all(isinstance(change, UpdateObject) for change in state_changes(pool, desired))


@pytest.mark.parametrize("again", [RENAMED, AFTER], ids=["with the lines", "without them"])
def test_once_it_is_done_it_does_nothing(pool: PoolState, again: str) -> None:
    after = applied(RENAMED, pool)
    assert not plan_pool(after, desired_state(load(again.encode(), "x"), after))
    exported = export_document(after)
    assert "moved" not in exported
    assert not plan_pool(after, desired_state(load(exported.encode(), "x"), after))
    assert applied(RENAMED, PoolState()).vms.keys() == {"database"}, "nor where there never was such an object"


def test_without_moved_it_is_another_one(pool: PoolState) -> None:
    counts = {
        action.value: count
        for action, count in plan_pool(pool, desired_state(load(AFTER.encode(), "x"), pool)).counts.items()
    }
    assert (counts["create"], counts["delete"]) == (7, 7)


def test_the_history_knows_the_way_back(pool: PoolState) -> None:
    states = [as_stored(pool), as_stored(applied(RENAMED, pool))]
    after = desired_state(load(RENAMED.encode(), "x"), pool)
    records = [
        decoded(
            record_of(
                state_changes(states[0], replace(states[1], renames=after.renames)), Author(), 2, Costs(), 5
            ).changes
        )
    ]
    renames = [
        (change.noun, change.old["name"], change.new["name"]) for change in records[0] if change.action == "rename"
    ]
    assert renames == [
        ("qos-class", "slow", "bronze"),
        ("flow-collector", "siem", "audit"),
        ("subnet", "lan-v4", "lan-ip"),
        ("address-set", "offices", "branches"),
        ("vm", "db", "database"),
    ]
    assert as_it_was(states[1], records) == states[0]
    back = take_back(PoolView.of(states[1]), records, "revision 1")
    assert all(isinstance(change, UpdateObject) for change in back.changes), "a rename as well, and no deletion"
    assert {change.fields[0].new for change in back.plan.changes if change.fields[0].field == "name"} == {
        old for old, _ in NAMES.values()
    }
    assert len(list(pairwise(states))) == len(records)


def test_several_renames_one_after_the_other(pool: PoolState) -> None:
    chain = AFTER + "moved:\n" + MOVED.replace("{db: database}", "{db: store, store: database}")
    assert list(applied(chain, pool).vifs) == ["db/0", "db/1"]
    between = applied(RENAMED.replace("database", "store"), pool)
    assert list(applied(chain, between).vifs) == ["db/0", "db/1"]


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ("vms: {db: database, database: db}", "would be renamed in a circle"),
        ("vms: {database: db}", "VM database is in this document"),
        ("vms: {db: databse}", "there is no VM databse, which db was renamed to"),
        ("vms: {db: database, dc: database}", "VM db and dc cannot both become database"),
        ("hosts: {xen1: xen2}", "'hosts' cannot be renamed in place"),
        ("networks: {lan: wan}", "'networks' cannot be renamed in place"),
        ("vms: [db]", "wanted a map from former names"),
        ("vms: {db: -}", "'-'"),
    ],
)
def test_what_cannot_be(moved: str, message: str) -> None:
    with pytest.raises(TopologyErrors) as refused:
        load(f"{AFTER}moved: {{{moved}}}\n".encode(), "x")
    assert message in str(refused.value)
    assert "x:21:" in str(refused.value) or moved.startswith("vms: {db: -")


def test_what_the_pool_refuses(pool: PoolState) -> None:
    both = replace(pool, vms={**pool.vms, "database": replace(pool.vms["db"], name="database")})
    theirs = replace(pool, vms={"db": replace(pool.vms["db"], owner=Owner.TOOLSTACK)})
    for state, message in ((both, "the pool has database as well"), (theirs, "made by the toolstack")):
        with pytest.raises(TopologyErrors, match=message):
            desired_state(load(RENAMED.encode(), "x"), state)
    after = applied(RENAMED, pool)
    again = RENAMED.replace("  vms: {db: database}\n", "").replace(
        "vms:\n", "vms:\n  db: {host: xen1, vifs: [{network: lan}]}\n"
    )
    with pytest.raises(TopologyErrors, match="VIF db/0 is that of VM database"):
        desired_state(load(again.encode(), "x"), after)
