"""Compiling step by step equals compiling at once, whatever changes in whatever order; the pipeline keeps its own rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.openflow import Clone, Ct, Flow, Meter, MeterAction, Resubmit, Sample
from tests.examples import examples
from vnet.compile import (
    FEATURES,
    OURS,
    PIPELINE,
    CaptureTap,
    Category,
    Compiler,
    Key,
    SourceChange,
    Switch,
    Table,
    compile_flows,
    flat,
    key_of,
    mark,
    meters_of,
    ovs_rows,
)
from vnet.compile.pipeline import MARKS, TAPS, WATCHES
from vnet.grammar.packet_filter import WIDTHS, packet_filter
from vnet.objects import (
    AddressSet,
    Binding,
    BindingState,
    Direction,
    FlowCollector,
    FlowProtocol,
    FrameMirror,
    Host,
    LockingMode,
    MirrorDirection,
    MirrorPoint,
    MirrorTarget,
    Network,
    NetworkType,
    PolicyMode,
    PortRange,
    Protocol,
    QosClass,
    Rule,
    SecurityGroup,
    TargetType,
    Trunk,
    Uplink,
    Verdict,
    Vif,
)
from vnet.objects.behind import MacBehind
from vnet.objects.binding import NOWHERE, Asked
from vnet.objects.enums import TagType
from vnet.objects.identity import Identity
from vnet.objects.link_local import LinkLocal
from vnet.objects.multicast import Listening
from vnet.objects.tiers import Tier

HOSTS = ("xen1", "xen2", "xen3")
ME = HOSTS[0]
UPLINKS = ((), (Uplink("a", ("eth1",)),), (Uplink("a", ("eth1",)), Uplink("b", ("eth2",))))
NETWORKS = (
    Network("vx", NetworkType.VXLAN, 1, 1450, key=10),
    Network("vx", NetworkType.VXLAN, 1, 1450, key=11, qos="all", multicast_snooping=True),
    Network("gre", NetworkType.GRE, 2, 1458, key=10),
    Network("lab", NetworkType.INTERNAL, 3, 1500),
    Network("v120", NetworkType.VLAN, 4, 1500, key=20, tag=120, uplink="a"),
    Network("v10", NetworkType.VLAN, 5, 1500, key=21, tag=10, uplink="a", qos="all"),
    Network("unt", NetworkType.VLAN, 6, 1500, key=22, tag=0, uplink="a"),
    Network("untb", NetworkType.VLAN, 7, 1500, key=23, tag=0, uplink="b", multicast_snooping=True),
    Network("gre", NetworkType.GRE, 2, 1458, key=10, isolation="isolated", labels=("app=shop",), groups=("db",)),
    Network("v10", NetworkType.VLAN, 5, 1500, key=21, tag=10, uplink="a", tpid=TagType.SERVICE, vif_qos="each"),
)
NAMES = sorted({network.name for network in NETWORKS})
FRAMES = (
    mark(bytes.fromhex("0a00000000010a000000000208060001080006040001") + bytes(38), 1),
    mark(bytes.fromhex("0a00000000010a00000000020800450000280000400040060000") + bytes(34), 2),
)
MORE = (mark(bytes.fromhex("0a00000000010a00000000020800450000280000400040110000") + bytes(34), 3),)
DEVICES = ("vnet-vxlan", "vnet-gre", "vnet-geneve", "int-a", "int-b", "mirror-77", "mirror-78")
ALSO = ((), (), (Identity("0a:00:00:00:01:01", ("10.0.0.9", "2001:db8::9")), Identity("0a:00:00:00:01:02")))
ISOLATIONS = (None, None, "isolated", "community:a", "community:b", "promiscuous")
BEHIND = (MacBehind(1, "0a:ee:00:00:00:01"), MacBehind(2, "0a:ee:00:00:00:02"))
LISTENING = (
    None,
    Listening(),
    Listening(("239.1.1.1",)),
    Listening(("239.1.1.1", "ff05::1")),
    Listening((), router=True),
    Listening((), every=True),
)
CHOSEN = (LinkLocal(1, "fe80::a"), LinkLocal(2, "fe80::b"))

hosts = st.builds(
    Host,
    st.sampled_from(HOSTS),
    st.sampled_from((None, "10.0.0.1", "10.0.0.2", "2001:db8::1")),
    st.sampled_from(UPLINKS),
)


GROUPS = ("db", "ops", "web")
SETS = (AddressSet("out", ("10.0.0.0/8", "10.1.0.0/16", "fd00::/8")), AddressSet("out", ("10.0.0.0/8",)))
FAR = ("far 10.9.0.0/24", "far fd09::/64")
LABELS = ((), (), ("app=bank",), ("app=shop", "env=prod"))
members = st.lists(st.sampled_from(GROUPS), unique=True, max_size=2).map(lambda names: tuple(sorted(names)))


@st.composite
def groups(draw: st.DrawFn) -> SecurityGroup:
    name = draw(st.sampled_from(GROUPS))
    rules = [
        Rule(
            rule,
            draw(st.sampled_from(Direction)),
            draw(st.sampled_from(Verdict)),
            *draw(st.sampled_from(((None, ()), (Protocol.TCP, (PortRange(80, 89),)), (Protocol.ICMP, ()), (47, ())))),
            tuple(
                sorted(
                    draw(
                        st.sets(
                            st.sampled_from(("10.0.0.0/24", "db", "ops", "out", "label:app=shop", "network:far")),
                            max_size=2,
                        )
                    )
                )
            ),
            log=draw(st.booleans()),
        )
        for rule in ("one", "three", "two")[: draw(st.integers(0, 3))]
    ]
    defaults = draw(st.sampled_from(Verdict)), draw(st.sampled_from(Verdict))
    mode = draw(st.sampled_from(PolicyMode))
    group = SecurityGroup(
        name, GROUPS.index(name) + 1, *defaults, tuple(rules), mode=mode, stateful=draw(st.booleans())
    )
    if name == "ops" and draw(st.booleans()):
        rules = [replace(rule, mandatory=draw(st.booleans())) for rule in rules]
        tier, selector = (
            draw(st.sampled_from((Tier.POOL, Tier.NETWORK, Tier.VM))),
            draw(st.sampled_from(((), ("app=shop",)))),
        )
        group = SecurityGroup(name, group.number, rules=tuple(rules), mode=mode, tier=tier, selector=selector)
    return replace(group, network_ranges=FAR if group.networks() else ())


@st.composite
def vifs(draw: st.DrawFn) -> Vif:
    number = draw(st.integers(1, 4))
    network = draw(st.sampled_from(NAMES))
    trunk = draw(st.sampled_from((None, Trunk(), Trunk((10, 20))))) if network.startswith("unt") else None
    return Vif(
        f"vm{number}/0",
        network,
        f"0a:00:00:00:00:0{number}",
        addresses=draw(st.sampled_from(((), ("10.0.0.1",), ("10.0.0.1", "2001:db8::1")))),
        locking_mode=draw(st.sampled_from(LockingMode)),
        trunk=trunk,
        host=draw(st.sampled_from((None, *HOSTS))),
        incoming=draw(st.sampled_from((None, *HOSTS))),
        groups=() if trunk is not None else draw(members),
        qos=draw(st.sampled_from((None, "each"))),
        isolation=None if trunk is not None else draw(st.sampled_from(ISOLATIONS)),
        also=draw(st.sampled_from(ALSO)),
        labels=draw(st.sampled_from(LABELS)),
        vm_labels=draw(st.sampled_from(LABELS)),
        vm_groups=draw(st.sampled_from(((), (), ("web",)))),
        vrrp=() if trunk is not None else draw(st.sampled_from(((), (10,), (10, 20)))),
    )


classes = st.builds(
    QosClass,
    st.just("each"),
    from_vm=st.sampled_from((None, 10**6, 10**8)),
    to_vm=st.sampled_from((None, 10**7)),
    packets=st.sampled_from((None, 500)),
    dscp=st.sampled_from((10, 46)),
) | st.builds(QosClass, st.just("all"), from_vm=st.sampled_from((10**6, 10**8)), aggregate=st.just(True))


@st.composite
def bindings(draw: st.DrawFn) -> Binding:
    number = draw(st.integers(1, 4))
    return Binding(
        f"vm{number}/0",
        draw(st.sampled_from(HOSTS)),
        draw(st.sampled_from(NAMES)),
        f"0a:00:00:00:00:0{number}",
        draw(st.integers(1, 3)),
        draw(st.sampled_from(BindingState)),
        unlocked=draw(st.booleans()),
        addresses=draw(st.sampled_from(((), ("10.0.0.1", "2001:db8::1")))),
        groups=draw(members),
        moved=draw(st.booleans()),
        link_locals=draw(st.sampled_from(((), CHOSEN[:1], CHOSEN[1:], CHOSEN))),
        behind=draw(st.sampled_from(((), BEHIND[:1], BEHIND[1:], BEHIND))),
        listening=draw(st.sampled_from(LISTENING)),
        isolation=draw(st.sampled_from(ISOLATIONS)),
        labels=draw(st.sampled_from(LABELS)),
        also=draw(st.sampled_from(ALSO)),
        vrrp=draw(st.sampled_from(((), (10,), (10, 20)))),
    )


TAPPED = tuple((f"vm{number}/0", network) for number, network in enumerate(NAMES[:5]))
CAPTURED = (
    CaptureTap(0, TAPPED, 96, 100, packet_filter("tcp port 80 and not host 10.0.0.1").rules),
    CaptureTap(3, TAPPED, 9238, 2000),
    CaptureTap(3, TAPPED, 9238, 2000, flowing=False),
)
mirrors = st.builds(
    FrameMirror,
    st.sampled_from(("ids", "span")),
    st.sets(
        st.sampled_from(("vm1/0", "vm2/0", "network:vx", "network:unt", "group:db", "label:app=shop")), min_size=1
    ).map(lambda found: tuple(sorted(found))),
    st.sampled_from(
        (
            MirrorTarget(TargetType.VIF, "vm3/0"),
            MirrorTarget(TargetType.VIF, "vm4/0"),
            MirrorTarget(TargetType.VLAN, "a", 99),
            MirrorTarget(TargetType.ERSPAN, "10.0.0.9", 7, 1),
        )
    ),
    st.just(77),
    st.sampled_from(MirrorDirection),
    st.sampled_from((None, "tcp port 80")),
    st.sampled_from(MirrorPoint),
).map(lambda mirror: mirror if mirror.name == "ids" else replace(mirror, key=78))
collectors = st.builds(
    FlowCollector,
    st.sampled_from(("siem", "billing")),
    st.just(FlowProtocol.IPFIX),
    st.sampled_from(("10.0.0.9:4739", "10.0.0.10:4739")),
    st.sampled_from((None, 64, 65535)),
    st.sampled_from(((), ("vm1/0", "vm3/0"), ("group:db",), ("network:vx",), ("label:app=shop",))),
)
vif_ids = st.sampled_from([f"vm{number}/0" for number in range(1, 5)])
changes = st.one_of(
    st.tuples(st.just("set_host"), hosts),
    st.tuples(st.just("drop_host"), st.sampled_from(HOSTS)),
    st.tuples(st.just("set_network"), st.sampled_from(NETWORKS)),
    st.tuples(st.just("drop_network"), st.sampled_from(NAMES)),
    st.tuples(st.just("set_vif"), vifs()),
    st.tuples(st.just("drop_vif"), vif_ids),
    st.tuples(st.just("set_binding"), bindings()),
    st.builds(
        lambda vif, asked: ("set_asked", vif, asked),
        vif_ids,
        st.just(NOWHERE)
        | st.builds(
            Asked,
            st.lists(st.sampled_from(HOSTS), min_size=1, max_size=2).map(tuple),
            st.none() | st.frozensets(st.sampled_from(HOSTS), max_size=2),
        ),
    ),
    st.tuples(st.just("drop_binding"), st.sampled_from(NAMES), vif_ids, st.sampled_from(HOSTS)),
    st.tuples(st.just("set_port"), vif_ids, st.one_of(st.none(), st.integers(20, 24))),
    st.tuples(st.just("set_device"), st.sampled_from(DEVICES), st.one_of(st.none(), st.integers(1, 9))),
    st.tuples(st.just("set_group"), groups()),
    st.tuples(st.just("drop_group"), st.sampled_from(GROUPS)),
    st.tuples(st.just("set_address_set"), st.sampled_from(SETS)),
    st.tuples(st.just("drop_address_set"), st.just("out")),
    st.tuples(st.just("set_qos"), classes),
    st.tuples(st.just("drop_qos"), st.sampled_from(("each", "all"))),
    st.tuples(st.just("set_mirror"), mirrors),
    st.tuples(st.just("drop_mirror"), st.sampled_from(("ids", "span"))),
    st.tuples(st.just("set_flow_collector"), collectors),
    st.tuples(st.just("drop_flow_collector"), st.sampled_from(("siem", "billing"))),
    st.tuples(st.just("set_probe"), st.just("one"), st.sampled_from(((), FRAMES[:1]))),  # marks are unique
    st.tuples(st.just("set_probe"), st.just("two"), st.sampled_from(((), FRAMES[1:], FRAMES[1:] + MORE))),
    st.tuples(st.just("set_capture"), st.just("shark"), st.sampled_from((None, *CAPTURED))),
    st.tuples(st.just("compile")),
    st.tuples(st.just("compile"), st.sampled_from((1, 4, 1000))),
)


def act(compiler: Compiler, name: str, *arguments: object) -> Sequence[SourceChange]:
    if name == "compile":
        return compiler.compile(*arguments)  # type: ignore[arg-type]
    getattr(compiler.inputs, name)(*arguments)
    return ()


@examples(400)
@given(st.lists(changes, max_size=40))
def test_incremental_equals_full(sequence: list[tuple[object, ...]]) -> None:
    compiler = Compiler(ME)
    followed: dict[Key, Flow | Meter] = {}
    for name, *arguments in [*sequence, ("compile",)]:
        found = act(compiler, str(name), *arguments)
        for change in found:
            for entry in change.old:
                followed.pop(key_of(entry), None)
        for change in found:
            followed |= {key_of(entry): entry for entry in change.new}
    full = compile_flows(compiler.view)
    assert compiler.flows == full
    for source, entries in full.items():
        assert _unique(entries), source
    assert set(followed.values()) >= {*flat(full), *meters_of(full)} or not _unique(flat(full))


def _unique(entries: Sequence[Flow | Meter]) -> bool:
    return len({key_of(entry) for entry in entries}) == len(entries)


@examples(200)
@given(st.lists(changes, max_size=40))
def test_flows_keep_to_the_pipeline(sequence: list[tuple[object, ...]]) -> None:
    compiler = Compiler(ME)
    for name, *arguments in sequence:
        act(compiler, str(name), *arguments)
    tables = {feature.category: feature.tables for feature in FEATURES}
    full = compile_flows(compiler.view)
    meters = {meter.meter_id for meter in meters_of(full)}
    assert all(meter in OURS for meter in meters)
    sets = {it.id for it in ovs_rows(compiler.view, Switch()).bridges[0].sample_sets}
    for source, flow in ((of, flow) for of, found in full.items() for flow in flat({of: found})):
        assert flow.table in tables[source.category], flow
        stage = PIPELINE[Table(flow.table)]
        watches = flow.cookie >> 40 & 0xFF == Category.PROBE
        taps = flow.cookie >> 40 & 0xFF == Category.CAPTURE
        assert not (watches or taps) or flow.table in WATCHES
        names = {part.field.name for part in flow.match}
        assert names <= (MARKS if watches else TAPS | WIDTHS.keys() if taps else stage.matches), flow
        for action in (
            part for whole in flow.actions for part in (whole.actions if isinstance(whole, Clone) else (whole,))
        ):
            assert not isinstance(action, MeterAction) or action.meter in meters
            assert not isinstance(action, Sample) or action.collector_set in sets
            if isinstance(action, Resubmit):
                assert Table(action.table) in stage.next or taps, flow
                assert Table(action.table) > flow.table or flow.table == Table.CLASSIFY or taps, flow
                assert Table(action.table) != flow.table or watches or taps, flow
            if isinstance(action, Ct) and action.table is not None:
                assert Table(action.table) in stage.next, flow
                assert action.table > flow.table, flow


def test_a_plug_costs_the_same_however_many_vifs_its_network_has() -> None:
    """Counted, not timed: sources recomputed and flows changed."""

    def cost(size: int) -> tuple[int, int]:
        compiler = Compiler(ME)
        compiler.inputs.set_host(Host(ME, "10.0.0.1"))
        compiler.inputs.set_host(Host("xen2", "10.0.0.2"))
        compiler.inputs.set_network(NETWORKS[0])
        compiler.inputs.set_device("vnet-vxlan", 1)
        for number in range(size):
            mac = f"0a:00:00:00:{number >> 8:02x}:{number & 255:02x}"
            compiler.inputs.set_binding(Binding(f"vm{number}/1", "xen2", "vx", mac, 1))
        compiler.compile()
        before = compiler.recomputed
        compiler.inputs.set_vif(Vif("new/0", "vx", "0a:00:00:01:00:01"))
        compiler.inputs.set_port("new/0", 20)
        compiler.inputs.set_binding(Binding("new/0", ME, "vx", "0a:00:00:01:00:01", 1))
        changed = compiler.compile()
        return compiler.recomputed - before, sum(len(change.old) + len(change.new) for change in changed)

    assert cost(5) == cost(5000)


def test_every_category_but_the_learned_has_a_source() -> None:
    compiler = Compiler(ME)
    compiler.inputs.set_host(Host(ME, None, UPLINKS[1]))
    compiler.inputs.set_network(replace(NETWORKS[6], qos="all", multicast_snooping=True))
    compiler.inputs.set_qos(QosClass("all", from_vm=10**6, aggregate=True))
    compiler.inputs.set_qos(QosClass("each", to_vm=10**6))
    compiler.inputs.set_device("int-a", 1)
    compiler.inputs.set_vif(Vif("vm1/0", "unt", "0a:00:00:00:00:01", trunk=Trunk((10,)), qos="each"))
    compiler.inputs.set_port("vm1/0", 2)
    behind, listening = (MacBehind(1, "0a:ee:00:00:00:01"),), Listening(("239.1.1.1",))
    compiler.inputs.set_binding(
        Binding("vm1/0", ME, "unt", "0a:00:00:00:00:01", 1, unlocked=True, behind=behind, listening=listening)
    )
    compiler.inputs.set_probe("one", FRAMES)
    compiler.inputs.set_capture("shark", CaptureTap(0, (("vm1/0", "unt"),), 96, 100))
    compiler.inputs.set_mirror(FrameMirror("ids", ("vm1/0",), MirrorTarget(TargetType.VLAN, "a", 99), 77))
    compiler.compile()
    policy = {
        Category.ADDRESS_SET,
        Category.GROUP,
        Category.PEER,
        Category.REJECT,
        Category.LOG,
        Category.MONITOR,
        Category.ROUTER,
    }
    assert {source.category for source in compiler.flows} == set(Category) - {Category.LEARNED} - policy
    compiler.inputs.set_group(
        SecurityGroup(
            "web", 1, rules=(Rule("each-other", Direction.INGRESS, Verdict.REJECT, remote=("out", "web"), log=True),)
        )
    )
    compiler.inputs.set_address_set(SETS[0])
    compiler.inputs.set_group(SecurityGroup("watch", 2, mode=PolicyMode.MONITOR))
    compiler.inputs.set_vif(Vif("vm2/0", "unt", "0a:00:00:00:00:02", groups=("watch", "web"), vrrp=(10,)))
    compiler.inputs.set_port("vm2/0", 3)
    compiler.inputs.set_binding(Binding("vm2/0", ME, "unt", "0a:00:00:00:00:02", 1, groups=("web",), vrrp=(10,)))
    compiler.compile()
    assert policy < {source.category for source in compiler.flows}


def test_a_vif_that_left_a_network_gets_nothing_from_it_whatever_its_old_binding_says() -> None:
    compiler = Compiler(ME)
    compiler.inputs.set_host(Host(ME, "10.0.0.1", UPLINKS[1]))
    for network in (NETWORKS[4], NETWORKS[5]):
        compiler.inputs.set_network(network)
    compiler.inputs.set_device("int-a", 1)
    compiler.inputs.set_port("vm1/0", 2)
    compiler.inputs.set_binding(Binding("vm1/0", ME, "v120", "0a:00:00:00:00:01", 1))
    compiler.inputs.set_vif(Vif("vm1/0", "v10", "0a:00:00:00:00:01"))
    compiler.inputs.set_binding(Binding("vm1/0", ME, "v10", "0a:00:00:00:00:01", 2))
    left = compiler.inputs.local_networks["v120"].segment
    for flow in flat(compile_flows(compiler.view)):
        on_left = "metadata" in flow.match and flow.match["metadata"].value == left
        assert not (on_left and flow.actions and flow.table in (Table.LOOKUP, Table.DELIVER)), flow


@pytest.mark.parametrize("steps", list(permutations(("port", "binding", "vif"))), ids="-".join)
def test_nothing_is_remembered_of_a_vif_that_is_gone(steps: tuple[str, ...]) -> None:
    compiler = Compiler(ME)
    compiler.inputs.set_host(Host(ME, "10.0.0.1"))
    compiler.inputs.set_network(NETWORKS[0])
    compiler.inputs.set_vif(Vif("here/0", "vx", "0a:00:00:00:00:02"))
    binding = Binding("gone/0", ME, "vx", "0a:00:00:00:00:01", 1)
    compiler.inputs.set_vif(Vif("gone/0", "vx", binding.mac))
    compiler.inputs.set_binding(binding)
    compiler.inputs.set_port("gone/0", 20)
    compiler.compile()
    for step in steps:
        if step == "port":
            compiler.inputs.set_port("gone/0", None)
        elif step == "binding":
            compiler.inputs.drop_binding("vx", "gone/0", ME)
        else:
            compiler.inputs.drop_vif("gone/0")
        compiler.compile()
    of, read = compiler._dependencies._of, compiler._dependencies._with
    assert not [source for source in of if source.name == "gone/0"]
    assert not [key for key in read if "gone/0" in key]
