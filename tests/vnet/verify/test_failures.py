"""What holds while something fails is what trying each pair on a twin of that failure gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.vnet.sim.random_pools import random_state
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.objects import Expectation, Protocol, Reach
from vnet.sim import SimPool
from vnet.sim.conversation import party, reaches
from vnet.topology import load
from vnet.verify import picture
from vnet.verify.equivalence_classes import EquivalenceClasses
from vnet.verify.expectations import TwinWitness, check
from vnet.verify.failures import (
    UNDERLAY,
    Failure,
    FailureVerdict,
    cut,
    down,
    each_failure,
    failing,
    lost_pairs,
    outcomes,
)
from vnet.verify.reachability import Reachability

DOCUMENT = b"""
apiVersion: vnet/v1
pool: failing
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {mode: active-backup, members: [eth1, eth2]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
  xen3: {address: 10.99.0.3}
networks:
  tenant: {type: vxlan}
  prod: {type: vlan, tag: 120, uplink: trunk0, hosts: [xen1, xen2]}
security-groups:
  web: {rules: [{name: all, direction: ingress}]}
vms:
  a: {host: xen1, vifs: [{network: tenant, addresses: [10.1.0.1], security-groups: [web]}, {network: prod, addresses: [10.2.0.1]}]}
  b: {host: xen2, vifs: [{network: tenant, addresses: [10.1.0.2], security-groups: [web]}, {network: prod, addresses: [10.2.0.2]}]}
  c: {host: xen3, vifs: [{network: tenant, addresses: [10.1.0.3]}]}
expectations:
  - {name: tunnel, from: a/0, to: b/0, expect: reachable}
  - {name: vlan, from: a/1, to: b/1, expect: reachable}
  - {name: outside, from: prod, to: outside, expect: reachable}
  - {name: apart, from: c, to: prod, expect: unreachable}
  - {name: members, from: c, to: web, expect: reachable}
"""
# A row for each failure: +, ! or . (an end is on the host that is down) for each expectation.
EXPECTED = {
    "no failure": "+++++",
    "host xen1 down": "..+++",  # of prod and web, what runs on xen2 is still asked
    "xen1: underlay cut": "!+++!",
    "xen1: trunk0 cut": "+!!++",
    "xen1: eth1 cut": "+++++",
    "xen1: eth2 cut": "+++++",
    "host xen2 down": "..+++",
    "xen2: underlay cut": "!+++!",
    "xen2: trunk0 cut": "+!!++",
    "host xen3 down": "+++..",
    "xen3: underlay cut": "++++!",
    "trunk0 cut on every host": "+!!++",
}
PING = (Protocol.ICMP, 0)
MARKS = {FailureVerdict.HOLDS: "+", FailureVerdict.FAILS: "!", FailureVerdict.GONE: "."}


def test_each_single_failure_and_what_it_breaks() -> None:
    document = load(DOCUMENT, "failing.vnet.yaml")
    pool = SimPool.from_document(document)
    cases = [(), *((failure,) for failure in each_failure(pool))]
    found = {
        str(outcome): "".join(MARKS[verdict] for verdict in outcome.verdicts())
        for outcome in outcomes(pool, document, cases)
    }
    assert found == EXPECTED
    assert all(result.holds for result in check(pool, document))  # everything is healed


def test_failures_at_once() -> None:
    """Either NIC of a bond may be cut, and not both."""
    document = load(DOCUMENT, "failing.vnet.yaml")
    pool = SimPool.from_document(document)
    both = [cut(pool, "xen1:eth1"), cut(pool, "xen1:eth2")]
    (outcome,) = outcomes(pool, document, [both])
    assert [result.name for result in outcome.results if not result.holds] == ["vlan", "outside"]
    (outcome,) = outcomes(pool, document, [[down(pool, "xen2"), down(pool, "xen3")]])
    assert outcome.verdicts() == [
        FailureVerdict.GONE,
        FailureVerdict.GONE,
        FailureVerdict.HOLDS,
        FailureVerdict.GONE,
        FailureVerdict.GONE,
    ]


@examples(8)
@given(st.randoms(use_true_random=False))
def test_answers_while_something_fails_equal_those_of_a_twin_of_its_own(rng: Random) -> None:
    """Pairs of VIFs, one after another: by classes with the answers of other failures known, and on a twin that knows nothing."""
    pool = SimPool.of(random_state(rng))
    failures = rng.sample(every := [*each_failure(pool)], k=min(2, len(every)))
    whole = Reachability(pool)
    lost = lost_pairs(whole, pool, failures)
    rows = {name: place for place, found in enumerate(whole.classes) for name in found.vifs}
    broken: set[tuple[int, int, Failure]] = set()
    vifs = rng.sample(every_vif := [*pool.state.vifs.values()], k=min(8, len(every_vif)))
    for failure in failures:
        fresh = SimPool.of(pool.state)
        with failing(pool, [failure]) as gone, failing(fresh, [failure]):
            pairs = [(a, b, PING) for a in vifs for b in vifs if a.id != b.id and not gone & {a.id, b.id}]
            answers = EquivalenceClasses(pool).answers(pairs)
            assert answers == [reaches(fresh, party(fresh, a), party(fresh, b), *PING) for a, b, _ in pairs], failure
        for (a, b, _), answer in zip(pairs, answers, strict=True):
            if whole.between(*(classes := (rows[pool.label(a)], rows[pool.label(b)]))) and not answer:
                broken.add((*classes, failure))
    # The same as expectations, for which only what they are about is tried.
    specs = {
        f"{n}": Expectation(f"{n}", from_=pool.label(a), to=pool.label(b), expect=Reach.REACHABLE)
        for n, (a, b, _) in enumerate(
            rng.sample(
                [(a, b, PING) for a in vifs for b in vifs if a.id != b.id], k=min(6, len(vifs) * (len(vifs) - 1))
            )
        )
    }
    document = load(DOCUMENT, "failing.vnet.yaml")
    document = replace(document, state=replace(pool.state, expectations=specs))
    for outcome in outcomes(SimPool.of(pool.state), document, [(), *((failure,) for failure in failures)]):
        fresh = SimPool.of(pool.state)
        with failing(fresh, outcome.failures) as gone:
            for result in outcome.results:
                a, b = fresh.vif(result.expectation.from_), fresh.vif(result.expectation.to)
                if gone & {a.id, b.id}:
                    assert not result.asked
                else:
                    assert result.holds is reaches(fresh, party(fresh, a), party(fresh, b), *PING)
    assert broken <= {(*classes, failure) for classes, found in lost.items() for failure in found}


def test_a_matrix_marks_what_a_failure_parts() -> None:
    pool = SimPool.from_document(load(DOCUMENT, "failing.vnet.yaml"))
    reach = Reachability(pool)
    lost = lost_pairs(reach, pool, each_failure(pool))
    assert picture.table(reach, lost).splitlines() == [
        "   from / to             1 2 3",
        "1  tenant (2: a/0, ...)  ! . !",
        "2  prod (2: a/1, ...)    . ! .",
        "3  c/0                   ! . +",
        "!  1 to 1: not with xen1: underlay cut; xen2: underlay cut",
        "!  1 to 3, 3 to 1: not with xen1: underlay cut; xen2: underlay cut; xen3: underlay cut",
        "!  2 to 2: not with xen1: trunk0 cut; xen2: trunk0 cut; trunk0 cut on every host",
    ]
    cells = [cell for cell in ElementTree.fromstring(picture.svg(reach, lost)).iter() if cell.tag.endswith("rect")]
    assert sum(cell.get("fill") == picture.SOMETIMES for cell in cells) == len(lost) > 0


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "failing.vnet.yaml"
    path.write_bytes(DOCUMENT)
    return str(path)


def test_commands(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["check", file, "--each-failure", "-o", "json"]) == ExitCode.EXPECTATION_FAILED
    rows = json.loads(capsys.readouterr().out)
    verdicts = {row["failure"] or "no failure": [e["verdict"] for e in row["expectations"]] for row in rows}
    assert verdicts["host xen1 down"] == ["gone", "gone", "holds", "holds", "holds"]
    assert verdicts["trunk0 cut on every host"] == ["holds", "fails", "fails", "holds", "holds"]
    assert main.run(["check", file, "--each-failure"]) == ExitCode.EXPECTATION_FAILED
    assert f"{file}:19:5: vlan: a/1 does not reach b/1" in capsys.readouterr().out
    assert main.run(["check", file, "--if-down", "xen3"]) == ExitCode.OK
    assert "apart: an end of it is on a host that is down" in capsys.readouterr().out
    assert main.run(["check", file, "--if-cut", "xen2:underlay"]) == ExitCode.EXPECTATION_FAILED
    assert "3 of 5 expectations hold" in capsys.readouterr().err
    assert main.run(["matrix", file, "--if-down", "xen1", "-o", "json"]) == ExitCode.OK
    reach = json.loads(capsys.readouterr().out)
    assert main.run(["matrix", file, "--each-failure", "-o", "json"]) == ExitCode.OK
    assert {which["failures"][0] for which in json.loads(capsys.readouterr().out)["lost"]} >= {"xen1: underlay cut"}
    gone = next(place for place, found in enumerate(reach["classes"]) if "a/0" in found["vifs"])
    assert not any(reach["reaches"][gone][:gone])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--if-down", "xen4"], "no host 'xen4' in this pool; did you mean 'xen1'?"),
        (["--if-cut", "xen1:eth3"], "no link of xen1 'eth3' in this pool"),
        (["--if-cut", "trunk1"], "no uplink 'trunk1' in this pool; did you mean 'trunk0'?"),
        (["--if-down", "xen1", "--each-failure"], "leave --if-down and --if-cut out"),
        (["--if-down", "xen1", "--live"], "failures are tried on its twin"),
    ],
    ids=["host", "link", "uplink", "each", "live"],
)
def test_what_cannot_fail(file: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["check", file, *options]) in (ExitCode.INVALID_INPUT, ExitCode.USAGE)
    assert message in " ".join(capsys.readouterr().err.split())


def test_nothing_is_known_before_it_is_asked() -> None:
    """A document whose expectations are all about the outside needs no classes."""
    pool = SimPool.from_document(load(DOCUMENT, "failing.vnet.yaml"))
    assert "_equivalence" not in vars(TwinWitness(pool))
    assert Failure("xen1", UNDERLAY) in [*each_failure(pool)]
