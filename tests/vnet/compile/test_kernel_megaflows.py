"""What flows match so that the kernel's megaflows are no wider than they are."""

from __future__ import annotations

from ovsctl.openflow import Flow
from tests.vnet.packets.arrivals import arrived
from tests.vnet.packets.test_guard import DOCUMENT
from vnet.compile import Table, flat
from vnet.compile.overheard import WatchedAddress, claim_flows
from vnet.objects import PoolState
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
