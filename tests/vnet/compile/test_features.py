"""Features keep to their tables; whatever a builder reads compiles its source again, and a read of everything is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ovsctl.openflow import Flow, Match, Resubmit
from vnet.compile import FEATURES, Category, Compiler, Feature, HostView, Table
from vnet.compile.flows import Flows
from vnet.compile.inputs import Input
from vnet.compile.pipeline import FROM_VIF, TO_VIF, Passing, enter, following, onward
from vnet.objects import Binding, Host, LockingMode, Network, NetworkType, SecurityGroup, Vif

ME = "xen1"
TENANT = Network("tenant", NetworkType.VXLAN, 1, 1450, key=10)
OTHER = Network("other", NetworkType.VXLAN, 2, 1450, key=11)
WEB = Vif("web/0", "tenant", "0a:00:00:00:00:01")


def compiler_of(*features: Feature) -> Compiler:
    compiler = Compiler(ME, features)
    inputs = compiler.inputs
    inputs.set_host(Host(ME, "10.0.0.1"))
    inputs.set_host(Host("xen2", "10.0.0.2"))
    inputs.set_device("vnet-vxlan", 1)
    inputs.set_network(TENANT)
    inputs.set_network(OTHER)
    inputs.set_vif(WEB)
    inputs.set_port(WEB.id, 5)
    inputs.set_binding(Binding(WEB.id, ME, "tenant", WEB.mac, 1))
    inputs.set_binding(Binding("far/0", "xen2", "tenant", "0a:00:00:00:00:02", 1))
    compiler.compile()
    return compiler


def made_up(read: str) -> Feature:
    """A feature whose one source reads something that no other code connects with it."""

    def flows(view: HostView, _: str, __: str) -> Flows:
        found = {
            "the MAC of a VIF elsewhere": lambda: view.location("tenant", "far/0").current is not None,
            "another host's address": lambda: view.vtep("xen2"),
            "hosts with members": lambda: sorted(view.members("tenant")),
            "all VIFs": lambda: sorted(view.vifs),
            "all devices": lambda: sorted(view.devices),
        }[read]()
        return (Flow(Match(), (), Table.GATE, 1, hash(str(found)) & 0xFFFF),)

    return Feature(Category.PROBE, "made up", (Input.HOST,), frozenset({Table.GATE}), flows)


@pytest.mark.parametrize(
    ("read", "change", "counted"),
    [
        ("the MAC of a VIF elsewhere", ("drop_binding", "tenant", "far/0", "xen2"), 0),
        ("another host's address", ("set_host", Host("xen2", "10.0.0.9")), 0),
        ("hosts with members", ("set_binding", Binding("new/0", "xen3", "tenant", "0a:00:00:00:00:03", 1)), 0),
        ("all VIFs", ("set_vif", Vif("late/0", "other", "0a:00:00:00:00:04")), 1),
        ("all devices", ("set_device", "of nobody", 9), 1),
    ],
)
def test_what_a_builder_read_compiles_its_source_again(read: str, change: tuple[object, ...], counted: int) -> None:
    compiler = compiler_of(made_up(read))
    name, *arguments = change
    getattr(compiler.inputs, str(name))(*arguments)
    (changed,) = compiler.compile()
    assert changed.old != changed.new
    assert dict(compiler.full) == ({"probe": counted} if counted else {})


def test_a_source_that_reads_everything_is_compiled_at_every_change() -> None:
    compiler = compiler_of(made_up("all VIFs"))
    before = compiler.recomputed
    for count, epoch in enumerate((2, 3, 4), 1):
        compiler.inputs.set_binding(Binding("far/0", "xen2", "tenant", "0a:00:00:00:00:02", epoch))
        assert compiler.compile() == []
        assert (compiler.recomputed - before, compiler.full["probe"]) == (count, count)
    compiler.compile()
    assert compiler.full["probe"] == 3


def test_the_features_of_the_pipeline_never_read_everything() -> None:
    compiler = compiler_of(*FEATURES)
    compiler.inputs.set_group(SecurityGroup("web", 1))
    compiler.inputs.set_vif(Vif(WEB.id, "tenant", WEB.mac, groups=("web",)))
    compiler.compile()
    assert not compiler.full


def test_a_change_compiles_only_what_read_it() -> None:
    compiler = compiler_of(*FEATURES)

    def sources(name: str, *arguments: object) -> int:
        before = compiler.recomputed
        getattr(compiler.inputs, name)(*arguments)
        compiler.compile()
        return compiler.recomputed - before

    assert sources("set_host", Host("xen2", "10.0.0.3")) == 2, "the way to its VIF, and broadcast"
    assert sources("set_host", Host("xen9", "10.0.0.9")) == 0
    assert sources("set_network", Network("tenant", NetworkType.VXLAN, 1, 1400, key=10)) == 0, "flows know no MTU"
    assert sources("set_binding", Binding("far/0", "xen2", "tenant", "0a:00:00:00:00:02", 1, ready=True)) == 0


def test_a_path_skips_the_stages_that_are_not_for_a_vif() -> None:
    grouped = Vif("web/0", "tenant", "0a:00:00:00:00:01", groups=("web",))
    for limited, sent, delivered in ((False, Table.SENT, Table.DELIVER), (True, Table.STORM, Table.TO_RATE)):
        passing = Passing(limited=limited, apart=False, heard=False)
        for vif, policy in ((WEB, False), (grouped, True)):
            assert enter(TO_VIF, vif, passing) is (Table.INGRESS if policy else delivered)
            assert enter(FROM_VIF, vif, passing) is Table.SERVICES
            assert onward(Table.GUARD, vif, passing) is (Table.EGRESS if policy else sent)
    # Flows after policy are of no VIF: whether there is a limit shows in the stage itself.
    assert (following(Table.EGRESS), following(Table.INGRESS)) == (Table.STORM, Table.TO_RATE)
    assert (
        enter(
            FROM_VIF, replace(WEB, locking_mode=LockingMode.UNLOCKED), Passing(limited=False, apart=False, heard=False)
        )
        is Table.GUARD
    )
    resubmits = {
        action.table
        for flows in compiler_of(*FEATURES).flows.values()
        for flow in flows
        if isinstance(flow, Flow)
        for action in flow.actions
        if isinstance(action, Resubmit) and flow.table == Table.EGRESS_VERDICT
    }
    assert resubmits == {Table.STORM}
