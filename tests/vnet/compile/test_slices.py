"""Rules of groups compiled in slices: what else changes passes before them, and nothing passes without what it counts on."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from vnet.compile import Category, Compiler, SourceChange, flat
from vnet.objects import (
    Binding,
    Direction,
    Host,
    Network,
    NetworkType,
    PortRange,
    Protocol,
    Rule,
    SecurityGroup,
    Verdict,
    Vif,
)

GROUPS = [f"g{n}" for n in range(8)]
MOST = 10  # flows; a group here has some 100


def group(name: str, edition: int) -> SecurityGroup:
    """A group with ports that make no ranges."""
    ports = tuple(PortRange(port, port) for port in sorted(Random(edition).sample(range(1, 30000, 3), 60)))
    rule = Rule("many", Direction.INGRESS, Verdict.ALLOW, Protocol.TCP, ports)
    return SecurityGroup(name, GROUPS.index(name) + 1, Verdict.ALLOW, Verdict.DROP, (rule,))


def plug(compiler: Compiler, number: int, *groups: str) -> None:
    vif = Vif(f"vm{number}/0", "lan", f"0a:00:00:00:00:0{number}", addresses=(f"10.0.0.{number}",), groups=groups)
    compiler.inputs.set_vif(vif)
    compiler.inputs.set_port(vif.id, number)
    compiler.inputs.set_binding(Binding(vif.id, "xen1", "lan", vif.mac, 1, addresses=vif.addresses, groups=groups))


def started() -> Compiler:
    """A host with VIF 1, in all groups."""
    compiler = Compiler("xen1")
    compiler.inputs.set_host(Host("xen1", "10.99.0.1"))
    compiler.inputs.set_network(Network("lan", NetworkType.INTERNAL, 1, 1500))
    for name in GROUPS:
        compiler.inputs.set_group(group(name, 1))
    plug(compiler, 1, *GROUPS)
    compiler.compile()
    return compiler


def of_groups(changes: Sequence[SourceChange]) -> list[str]:
    return [change.source.name for change in changes if change.source.category is Category.GROUP]


def test_rules_that_change_alone_come_together_once_all_are_compiled() -> None:
    compiler = started()
    for name in GROUPS:
        compiler.inputs.set_group(group(name, 2))
    calls = 1
    while not (changes := compiler.compile(MOST)):
        assert compiler.unfinished
        calls += 1
    assert (calls, of_groups(changes), len(changes)) == (len(GROUPS), GROUPS, len(GROUPS))
    assert not compiler.unfinished


def test_a_plug_passes_before_rules_that_are_still_to_be_compiled() -> None:
    compiler = started()
    for name in GROUPS:
        compiler.inputs.set_group(group(name, 2))
    assert compiler.compile(MOST) == []
    plug(compiler, 2)
    plug(compiler, 3, "g5")  # whose rules of before hold
    before = compiler.recomputed
    changes = compiler.compile(MOST)
    assert {change.source.name for change in changes if change.source.category is Category.VIF} == {"vm2/0", "vm3/0"}
    assert of_groups(changes) == []
    assert compiler.recomputed - before < 20
    assert compiler.unfinished
    while compiler.unfinished:
        changes = compiler.compile(MOST)
    assert of_groups(changes) == GROUPS


@pytest.mark.parametrize("name", ["a-first", "the-last"])
def test_a_vif_never_passes_before_the_first_rules_of_its_group(name: str) -> None:
    """Neither if its group comes with it, nor if the rules were put off, or compiled and held, when its port came."""
    for earlier in (0, 1, len(GROUPS) - 1):
        compiler = started()
        for other in GROUPS:
            compiler.inputs.set_group(group(other, 2))
        new = SecurityGroup(name, 9, Verdict.ALLOW, Verdict.DROP, ())
        compiler.inputs.set_group(new)
        compiler.inputs.set_vif(Vif("vm2/0", "lan", "0a:00:00:00:00:02", addresses=("10.0.0.2",), groups=(name,)))
        for _ in range(earlier):
            assert compiler.compile(MOST) == []
        plug(compiler, 2, name)
        changes = compiler.compile(MOST)
        assert "vm2/0" in {change.source.name for change in changes}
        assert name in of_groups(changes), earlier


def test_what_came_with_rules_comes_with_them() -> None:
    compiler = started()
    compiler.inputs.set_group(group("g0", 2))
    plug(compiler, 1, *GROUPS[1:])
    changes = compiler.compile(MOST)
    assert of_groups(changes) == ["g0"]
    assert {change.source.category for change in changes} >= {Category.VIF, Category.GROUP}
    assert not compiler.unfinished


def test_rules_that_change_again_meanwhile_are_the_last_ones() -> None:
    compiler = started()
    old = {source: flows for source, flows in compiler.flows.items() if source.category is Category.GROUP}
    for edition in (2, 3):
        for name in GROUPS:
            compiler.inputs.set_group(group(name, edition))
        assert compiler.compile(MOST) == []
    while compiler.unfinished:
        changes = compiler.compile(MOST)
    assert {change.source: change.old for change in changes} == old
    fresh = started()
    for name in GROUPS:
        fresh.inputs.set_group(group(name, 3))
    assert {change.source: flat({change.source: change.new}) for change in changes} == {
        change.source: flat({change.source: change.new}) for change in fresh.compile()
    }
