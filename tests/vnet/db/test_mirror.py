"""The mirror, folded change by change, is what the rows say; whatever their order."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.ovsdb import by_uuid
from vnet.db.mirror import PoolMirror
from vnet.db.rows import TABLE_OF, by_key, to_columns
from vnet.db.view import PoolView
from vnet.objects import (
    AgentStatus,
    Binding,
    Direction,
    Expectation,
    Host,
    Network,
    NetworkType,
    Pool,
    PoolState,
    PortRange,
    Protocol,
    Reach,
    Rule,
    SecurityGroup,
    Uplink,
    Verdict,
    Vif,
    Vm,
)


class FakeRow(dict[str, Any]):
    uuid = ""


@dataclass(frozen=True)
class Edit:
    table: str
    old: FakeRow | None
    new: FakeRow | None


def row(uuid: str, value: Any, **more: Any) -> FakeRow:
    made = FakeRow({**to_columns(value), **more})
    made.uuid = uuid
    return made


def mac(n: int) -> str:
    return f"0a:00:00:00:00:{n:02x}"


HOSTS = [Host(f"xen{n}", f"10.0.0.{n}") for n in range(3)]
NETWORKS = [Network(f"net{n}", NetworkType.VXLAN, n + 1, 1450, key=n + 1) for n in range(3)]
RULES = (
    Rule("a", Direction.EGRESS, Verdict.DROP, Protocol.UDP, (PortRange(1, 9),), ("10.0.0.0/8",)),
    Rule("b", Direction.INGRESS, remote=("g1",)),
)
GROUPS = [
    SecurityGroup("g0", 1),
    SecurityGroup("g1", 2, rules=RULES[:1]),
    SecurityGroup("g0", 1, rules=RULES),
    SecurityGroup("g1", 3),
]
VMS = [Vm("a"), Vm("b")]
EXPECTATIONS = [Expectation("x", "a", "b", reach) for reach in Reach]
VIFS = [Vif(f"vif{n}", f"net{n % 3}", mac(n), vm=[None, "a", "b"][n % 3], host=["xen0", None][n % 2]) for n in range(6)]
MOVED = [replace(vif, vm="b", host="xen2", epoch=vif.epoch + 1) for vif in VIFS]
BINDINGS = [Binding(f"vif{n % 6}", f"xen{n % 3}", f"net{n % 3}", mac(n % 6), n) for n in range(9)]
BETTER = [replace(binding, ready=True, epoch=binding.epoch + 7) for binding in BINDINGS]
VALUES: list[tuple[str, Any]] = [
    *((f"h{n}", value) for n, value in enumerate(HOSTS)),
    *((f"n{n}", value) for n, value in enumerate(NETWORKS)),
    *((f"g{n % 2}", value) for n, value in enumerate(GROUPS)),
    *((f"m{n}", value) for n, value in enumerate(VMS)),
    *(("x", value) for value in EXPECTATIONS),
    *((f"v{n}", value) for n, value in [*enumerate(VIFS), *enumerate(MOVED)]),
    *((f"{b.vif}{b.host}", b) for b in [*BINDINGS, *BETTER]),
]


def expected(rows: dict[str, Any]) -> PoolState:
    by: dict[type, dict[Any, Any]] = {
        kind: {} for kind in (Host, Network, SecurityGroup, Vm, Vif, Binding, Expectation)
    }
    for value in rows.values():
        key = (value.vif, value.host) if isinstance(value, Binding) else getattr(value, "name", None) or value.id
        by[type(value)][key] = value
    return PoolState(
        hosts=by[Host],
        networks=by[Network],
        vms=by[Vm],
        vifs=by[Vif],
        bindings=by[Binding],
        groups=by[SecurityGroup],
        expectations=by[Expectation],
    )


@given(st.lists(st.lists(st.sampled_from(VALUES), min_size=1, max_size=5), max_size=25))
def test_folding_equals_reading_it_all(transactions: list[list[tuple[str, Any]]]) -> None:
    mirror = PoolMirror()
    rows: dict[str, Any] = {}
    for transaction in transactions:
        edits = {}
        for uuid, value in transaction:
            before, after = rows.get(uuid), None if rows.get(uuid) == value else value
            if uuid in edits:
                continue
            old = row(uuid, before) if before is not None else None
            edits[uuid] = Edit(TABLE_OF[type(value)], old, row(uuid, after) if after is not None else None)
            if after is None:
                del rows[uuid]
            else:
                rows[uuid] = after
        mirror.fold(edits.values())
        state = expected(rows)
        assert mirror.state == state
        assert all(mirror.locate(value) == by_uuid(uuid) for uuid, value in rows.items())
        gone = [value for uuid, value in VALUES if uuid not in rows]
        assert all(mirror.locate(value) == by_key(value) for value in gone)
        view, fresh = mirror.view(), PoolView.of(state)
        assert view.bindings_of == fresh.bindings_of
        assert {n: set(hosts) for n, hosts in view.members.items()} == fresh.members
        for table in ("by_mac", "by_address", "by_reference"):
            assert getattr(view.index, table) == getattr(fresh.index, table)


def test_a_name_may_pass_from_one_row_to_another_in_one_transaction() -> None:
    mirror = PoolMirror()
    first, second = NETWORKS[0], replace(NETWORKS[0], mtu=1400)
    mirror.fold([Edit("Network", None, row("1", first))])
    for order in ([0, 1], [1, 0]):
        edits = [Edit("Network", row("1", first), None), Edit("Network", None, row("2", second))]
        mirror.fold([edits[n] for n in order])
        assert mirror.state.networks == {"net0": second}
        first, second = second, first


def test_a_host_is_made_of_its_rows_in_any_order() -> None:
    uplinks = (Uplink("a", ("eth1",)), Uplink("b", ("eth2",), mtu=9000))
    host = Host("xen1", "10.0.0.1", uplinks)
    edits = [Edit("Host", None, row("h", host))]
    edits += [Edit("Uplink", None, row(f"u{u.name}", u, host="xen1")) for u in uplinks]
    for seed in range(6):
        mirror = PoolMirror()
        random.Random(seed).shuffle(edits)
        for edit in edits:
            mirror.fold([edit])
        assert mirror.state.hosts == {"xen1": host}
        (delta,) = mirror.fold([Edit("Uplink", row("ua", uplinks[0], host="xen1"), None)])
        assert (delta.key, delta.old) == ("xen1", host)
        assert mirror.state.hosts["xen1"].uplinks == uplinks[1:]
        mirror.fold([Edit("Host", row("h", host), None)])
        assert mirror.state.hosts == {}


@pytest.mark.parametrize(("column", "value"), [("mtu", 1), ("type", "carrier-pigeon"), ("key", None)])
def test_a_row_no_pool_may_hold_is_left_out_and_named(column: str, value: object) -> None:
    mirror = PoolMirror()
    bad = row("1", NETWORKS[0], **{column: value})
    assert mirror.fold([Edit("Network", None, bad), Edit("Vm", None, row("2", VMS[0]))])[0].new == VMS[0]
    assert mirror.state.networks == {}
    assert "Network row 1" in mirror.problems["1"]
    mirror.fold([Edit("Network", bad, row("1", NETWORKS[0]))])
    assert (mirror.problems, list(mirror.state.networks)) == ({}, ["net0"])
    mirror.fold([Edit("Network", row("1", NETWORKS[0]), bad)])
    assert mirror.state.networks == {}
    mirror.fold([Edit("Network", bad, None)])
    assert mirror.problems == {}


BAD_RULES = [
    "", "[]", "[" * 100_000, '{"direction": "in"}', '{"direction": "ingress", "why": 1}', '{"direction": "ingress", "ports": [[1, 2]]}',
    '{"direction": "ingress", "protocol": 6}', '{"direction": "ingress", "protocol": "tcp", "ports": [[5, 1]]}',
    '{"direction": "ingress", "cidr": "10.0.0.1/8"}', '{"direction": "ingress", "group": "any"}',
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_RULES, ids=range(len(BAD_RULES)))
def test_a_group_with_a_rule_that_is_none_is_left_out_and_named(text: str) -> None:
    mirror = PoolMirror()
    web = SecurityGroup("web", 1)
    mirror.fold([Edit("SecurityGroup", None, row("1", web, rules={"http": text}))])
    assert mirror.state.groups == {}
    assert mirror.problems["1"].startswith("SecurityGroup row 1: rules: rule 'http': ")
    mirror.fold([Edit("SecurityGroup", row("1", web, rules={"http": text}), row("1", web))])
    assert (mirror.problems, mirror.state.groups) == ({}, {"web": web})


def test_a_host_is_alive_by_our_clock_not_by_its_own() -> None:
    mirror = PoolMirror()

    def beat(before: int | None, after: int, now: int) -> None:
        old = row("a", AgentStatus("xen1", heartbeat=before)) if before is not None else None
        mirror.fold([Edit("Agent", old, row("a", AgentStatus("xen1", heartbeat=after)))], now)

    beat(None, 10_000, now=500_000)  # long silent, or its clock is behind
    assert mirror.live_hosts(500_000, 10) == frozenset()
    beat(10_000, 12_000, now=501_000)
    assert mirror.live_hosts(511_000, 10) == {"xen1"}
    assert mirror.live_hosts(511_001, 10) == frozenset()
    beat(12_000, 0, now=520_000)  # the database restarted; the agent said nothing
    assert mirror.live_hosts(520_000, 10) == frozenset()


def test_the_pool_row() -> None:
    mirror = PoolMirror()
    assert mirror.state.pool is None
    mirror.fold([Edit("Pool", None, row("p", Pool("x", revision=3)))])
    assert mirror.state.pool == Pool("x", revision=3)
