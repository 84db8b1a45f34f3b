"""Multicast where it is much: many VIFs, many groups, many listeners; and where nobody asked for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from vnet.compile import Category, Compiler, Table, compile_flows
from vnet.objects import Binding, Host, Network, NetworkType, PoolState, Vif
from vnet.objects.multicast import MAX_GROUPS_OF_NETWORK, Listening
from vnet.sim import SimPool

ME, NETWORK = "xen1", Network("lan", NetworkType.VXLAN, 1, 1450, key=10, multicast_snooping=True)
GROUP = "239.1.1.1"
MANY = 520  # no longer one flow (parts.MAX_UNDIVIDED)


def compiled(network: Network, *bindings: Binding) -> Compiler:
    """Host xen1 of three, with a VIF of its own."""
    compiler = Compiler(ME)
    for number, host in enumerate((ME, "xen2", "xen3"), 1):
        compiler.inputs.set_host(Host(host, f"10.0.0.{number}"))
    compiler.inputs.set_network(network)
    compiler.inputs.set_device("vnet-vxlan", 1)
    compiler.inputs.set_vif(Vif("own/0", "lan", mac(0)))
    compiler.inputs.set_port("own/0", 2)
    for binding in (Binding("own/0", ME, "lan", mac(0), 1, listening=Listening()), *bindings):
        compiler.inputs.set_binding(binding)
    compiler.compile()
    return compiler


def mac(number: int) -> str:
    return f"0a:00:00:00:{number // 256:02x}:{number % 256:02x}"


def listener(number: int, host: str, *groups: str) -> Binding:
    return Binding(f"vm{number}/0", host, "lan", mac(number), 1, listening=Listening(groups))


def tables(compiler: Compiler) -> set[int]:
    return {
        flow.table
        for source, flows in compiler.flows.items()
        if source.category
        for flow in flows
        if hasattr(flow, "table")
    }


def test_a_network_that_does_not_snoop_has_no_flow_more() -> None:
    bindings = listener(1, "xen2", GROUP), listener(2, "xen3")
    snooping, other = (compiled(replace(NETWORK, multicast_snooping=does), *bindings) for does in (True, False))
    added = {Table.REPORTS, Table.MULTICAST, Table.ALL_GROUPS}
    assert tables(snooping) & added == added
    assert not tables(other) & added
    assert set(other.flows) == {s for s in snooping.flows if s.category not in (Category.MULTICAST, Category.LISTENERS)}
    snooping.inputs.set_network(replace(NETWORK, multicast_snooping=False))
    snooping.compile()
    assert snooping.flows == other.flows


def test_a_change_compiles_only_what_it_concerns() -> None:
    """A listener more on a host that has one already concerns no other host; the first of a host, its group alone."""
    compiler = compiled(NETWORK, *(listener(number, "xen2", GROUP, f"239.2.0.{number}") for number in range(1, 50)))
    for binding, most in ((listener(1, "xen2", "239.2.0.1"), 0), (listener(50, "xen3", GROUP), 4)):
        before = compiler.recomputed
        compiler.inputs.set_binding(binding)
        changes = compiler.compile()
        assert compiler.recomputed - before <= most
        assert {change.source.name for change in changes if change.source.category is Category.LISTENERS} <= {GROUP}


def test_too_many_groups_are_flooded() -> None:
    groups = [f"239.5.{number // 256}.{number % 256}" for number in range(MAX_GROUPS_OF_NETWORK + 1)]
    bindings = [
        listener(number, "xen2", *groups[number * 60 : number * 60 + 60]) for number in range(1 + len(groups) // 60)
    ]
    compiler = compiled(NETWORK, *bindings)
    assert not any(source.category is Category.LISTENERS for source in compiler.flows)
    compiler.inputs.set_binding(replace(bindings[0], listening=Listening(tuple(groups[1:60]))))
    compiler.compile()
    assert compiler.flows == compile_flows(compiler.view)
    assert sum(source.category is Category.LISTENERS for source in compiler.flows) == MAX_GROUPS_OF_NETWORK


@pytest.mark.parametrize("known", [None, Listening((GROUP,))], ids=["unknown", "all listen"])
def test_many_vifs_get_what_is_theirs_once(known: Listening | None) -> None:
    """More than fit one flow: 520 VIFs of which nothing is known, or which all listen."""
    vifs = {f"vm{n}/0": Vif(f"vm{n}/0", "lan", mac(n), host=ME) for n in range(MANY)}
    bindings = {(id, ME): Binding(id, ME, "lan", vif.mac, 1, listening=known) for id, vif in vifs.items()}
    hosts = {ME: Host(ME, "10.0.0.1")}
    state = PoolState(hosts=hosts, networks={"lan": NETWORK}, vifs=vifs, bindings=bindings)
    pool = SimPool.of(state, claim=False)
    frame = bytes(Ether(src=mac(0), dst="01:00:5e:01:01:01") / IP(src="10.0.0.1", dst=GROUP) / UDP())
    receivers = sorted(item.to for item in pool.send("vm0/0", frame).items)
    assert receivers == sorted(f"vm{n}/0" for n in range(1, MANY))
