"""Flow collectors of single VIFs: their frames are sampled where they count, under names that fit a record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ovsctl.openflow import Sample, SampleDirection
from vnet.compile import Compiler, Switch, Table, compile_flows, flat, ovs_rows
from vnet.compile.flow_export import MAX_OBSERVER_BYTES, Sampling, sampling_of
from vnet.objects import Binding, BindingState, FlowCollector, FlowProtocol, Host, Network, NetworkType, Vif

NETWORK = Network("shop", NetworkType.VXLAN, 1, 1450, key=10, labels=("app=shop",))
WEB = Vif("web1/0", "shop", "0a:00:00:00:00:01", vm="web1", groups=("front", "web"))
OTHER = Vif("db1/0", "shop", "0a:00:00:00:00:02", vm="db1")
SIEM = FlowCollector("siem", FlowProtocol.IPFIX, "10.0.0.9:4739", 64, of=("web1/0",))
BILLING = FlowCollector("billing", FlowProtocol.IPFIX, "10.0.0.10:4739", of=("network:shop",))
ALL = FlowCollector("all", FlowProtocol.IPFIX, "10.0.0.11:4739")


def host() -> Compiler:
    compiler = Compiler("xen1")
    compiler.inputs.set_host(Host("xen1", "10.0.0.1"))
    compiler.inputs.set_network(NETWORK)
    for number, vif in enumerate((replace(WEB, groups=()), OTHER), 5):
        compiler.inputs.set_vif(vif)
        compiler.inputs.set_port(vif.id, number)
        compiler.inputs.set_binding(Binding(vif.id, "xen1", "shop", vif.mac, 1))
    return compiler


def samples(compiler: Compiler) -> dict[tuple[int, int], tuple[int, SampleDirection]]:
    """By ofport and table: the chance in 65535, and which way; of flows that equal those compiled at once, and have sets."""
    compiler.compile()
    assert compiler.flows == compile_flows(compiler.view)
    sets = {it.id for it in ovs_rows(compiler.view, Switch()).bridges[0].sample_sets}
    found = {}
    for flow in flat(compiler.flows):
        for action in flow.actions:
            if isinstance(action, Sample):
                assert action.collector_set in sets
                found[action.collector_set & 0xFFFF, flow.table] = (action.probability, action.direction)
    return found


def test_frames_are_sampled_as_sent_and_as_got_of_the_vifs_that_a_collector_is_of() -> None:
    compiler = host()
    assert samples(compiler) == {}
    compiler.inputs.set_flow_collector(ALL)
    assert samples(compiler) == {}
    compiler.inputs.set_flow_collector(SIEM)
    web = {(5, Table.SENT): (1023, SampleDirection.INGRESS), (5, Table.DELIVER): (1023, SampleDirection.EGRESS)}
    assert samples(compiler) == web
    compiler.inputs.set_flow_collector(BILLING)
    seldom = {(6, table): (65535 // 400, direction) for (_, table), (_, direction) in web.items()}
    assert samples(compiler) == web | seldom
    assert [len(it.ipfix.targets) for it in ovs_rows(compiler.view, Switch()).bridges[0].sample_sets] == [2, 1]
    bridge = ovs_rows(compiler.view, Switch()).bridges[0]
    assert bridge.ipfix is not None
    assert bridge.ipfix.targets == {"10.0.0.11:4739"}
    compiler.inputs.drop_flow_collector("siem")
    compiler.inputs.set_flow_collector(replace(BILLING, of=("label:app=shop", "label:env=prod")))
    assert {ofport for ofport, _ in samples(compiler)} == {5, 6}
    compiler.inputs.set_network(replace(NETWORK, labels=()))
    assert samples(compiler) == {}
    compiler.inputs.set_vif(replace(OTHER, vm_labels=("env=prod",)))
    assert samples(compiler) == seldom


def test_what_a_vif_gets_is_told_of_by_the_host_where_it_still_runs() -> None:
    compiler = host()
    compiler.inputs.set_flow_collector(SIEM)
    compiler.inputs.set_binding(Binding("web1/0", "xen2", "shop", WEB.mac, 1))
    compiler.inputs.set_binding(Binding("web1/0", "xen1", "shop", WEB.mac, 2, BindingState.HELD))
    # What it sends here it sends once it has switched over.
    assert samples(compiler) == {(5, Table.SENT): (1023, SampleDirection.INGRESS)}
    compiler.inputs.set_binding(Binding("web1/0", "xen1", "shop", WEB.mac, 2, BindingState.ACTIVE))
    assert samples(compiler).keys() == {(5, Table.SENT), (5, Table.DELIVER)}


def observer(vif: Vif, host: str = "xen1") -> str:
    found = sampling_of(host, vif, (), (replace(SIEM, of=(vif.id,)),))
    assert found is not None
    return found.observer


def test_a_record_names_vif_vm_network_host_and_groups() -> None:
    assert observer(WEB) == "vif=web1/0 vm=web1 network=shop host=xen1 group=front group=web"
    assert observer(OTHER) == "vif=db1/0 vm=db1 network=shop host=xen1"
    assert observer(replace(OTHER, vm=None)) == "vif=db1/0 network=shop host=xen1"
    assert sampling_of("xen1", OTHER, (), (SIEM,)) is None
    both = sampling_of("xen1", WEB, (), (BILLING, SIEM))
    assert both == Sampling(frozenset(("10.0.0.9:4739", "10.0.0.10:4739")), 64, observer(WEB))


@pytest.mark.parametrize(("length", "words"), [(128, 2), (20, 4)])
def test_names_that_do_not_fit_are_left_out_whole(length: int, words: int) -> None:
    groups = tuple(f"g{number}".ljust(63, "g") for number in range(9))
    vif, host_name = Vif("v" * length, "n" * 63, "0a:00:00:00:00:01", groups=groups), "h" * 63
    whole = [f"vif={vif.id}", f"network={vif.network}", f"host={host_name}", *(f"group={group}" for group in groups)]
    assert observer(vif, host_name) == " ".join(whole[:words])
    assert len(" ".join(whole[:words])) <= MAX_OBSERVER_BYTES < len(" ".join(whole[: words + 1]))
