"""What flows match so that the kernel's megaflows are no wider than they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import permutations

from ovsctl.openflow import Flow, Match
from tests.vnet.packets.arrivals import arrived
from tests.vnet.packets.test_guard import DOCUMENT
from tests.vnet.packets.test_service_tags import DOCUMENT as SERVICE_TAGS
from vnet.compile import Compiler, Table, flat
from vnet.compile.flows import goto
from vnet.compile.overheard import WatchedAddress, claim_flows
from vnet.objects import Network, PoolState
from vnet.plan import desired_state
from vnet.sim import SimPool
from vnet.topology import load

DISCOVERY = {"nd_target", "nd_sll", "nd_tll"}


def test_what_matches_a_field_of_neighbour_discovery_matches_its_code() -> None:
    """Else Open vSwitch before 3.1.4 leaves the field out of the megaflow (odp_flow_key_from_flow)."""
    pool = SimPool.of(desired_state(load(DOCUMENT, "test.vnet.yaml"), PoolState()))
    claims = claim_flows("trunk0", (1,), [WatchedAddress("fd00:1::1", 5, of_vif=True)])
    asked = set()
    with arrived(pool, "guest", "xen2"):
        for entry in (*claims, *(entry for host in pool.hosts.values() for entry in flat(host.compiled))):
            if isinstance(entry, Flow) and (fields := {it.field.name for it in entry.match.entries}) & DISCOVERY:
                asked.add(entry.table)
                assert "icmpv6_code" in fields, entry
    assert asked == {Table.CLASSIFY, Table.ADMIT, Table.SERVICES, Table.GUARD}


def compiled(pool: SimPool, networks: Iterable[Network]) -> Compiler:
    """Host xen1 of a pool on the kernel's datapath, with its networks in this order."""
    compiler, host = Compiler("xen1", kernel=True), pool.hosts["xen1"]
    for row in pool.state.hosts.values():
        compiler.inputs.set_host(row)
    for device, ofport in host.devices.items():
        compiler.inputs.set_device(device, ofport)
    for network in networks:
        compiler.inputs.set_network(network)
    for binding in pool.state.bindings.values():
        compiler.inputs.set_binding(binding)
    for vif, ofport in host.ports.items():
        compiler.inputs.set_vif(pool.state.vifs[vif])
        compiler.inputs.set_port(vif, ofport)
    compiler.compile()
    return compiler


def test_without_types_of_tags_a_number_is_of_one_network_on_an_uplink() -> None:
    """And that is the one with the service tag: VLANs lose their uplink, and trunks what they send with the number. Whichever row comes first, and until the service tag is gone."""
    pool = SimPool.of(desired_state(load(SERVICE_TAGS, "test.vnet.yaml"), PoolState()))
    networks = dict(pool.state.networks)
    prod = networks["prod"] = replace(networks["prod"], tag=40)
    trunk = pool.hosts["xen1"].ports[pool.vif("all").id]
    dropped = Match(in_port=trunk, vlan_tci=(0x1000 | 40, 0x1FFF))
    for order in permutations(networks.values()):
        compiler = compiled(pool, order)
        flows = [flow for flow in flat(compiler.flows) if isinstance(flow, Flow)]
        assert [flow.actions for flow in flows if flow.match == dropped] == [()]
        assert not any(flow.table == Table.CLASSIFY and goto(Table.TAG_TYPE) in flow.actions for flow in flows)
        assert compiler.view.numbers_taken == {"prod": "carrier"}
        patches = {name: local.patch for name, local in compiler.inputs.local_networks.items()}
        assert patches.pop("prod") is None
        assert None not in patches.values()
    compiler.inputs.drop_network("carrier")
    compiler.compile()
    assert compiler.view.numbers_taken == {}
    assert compiler.inputs.local_networks["prod"].patch is not None
    assert {*flat(compiler.flows)} == {*flat(compiled(pool, [prod, networks["native"]]).flows)}
