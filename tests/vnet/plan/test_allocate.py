"""Allocation: what is given out, what never is, and when nothing is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vnet.plan.pools import BASE, apply
from vnet.objects import AgentStatus, Host, NetworkType, PoolState, Subnet
from vnet.objects.allocate import Exhausted, Ids, in_order
from vnet.objects.carriers import MAX_VNI
from vnet.objects.index import VifIndex
from vnet.objects.retired import RetiredNumber


def ids_of(pool: str) -> Ids:
    return Ids(pool, PoolState(), VifIndex())


def test_macs_are_local_unicast_and_depend_on_pool_and_vif_only() -> None:
    mac = ids_of("lab").mac("web1/0")
    assert int(mac[:2], 16) & 3 == 2
    assert ids_of("lab").mac("web1/0") == mac
    assert ids_of("prod").mac("web1/0") != mac
    assert ids_of("lab").mac("web1/1") != mac
    ids = ids_of("lab")
    ids.take_mac(mac)
    other = ids.mac("web1/0")
    assert other != mac
    assert int(other[:2], 16) & 3 == 2


def test_keys_are_unique_in_their_space() -> None:
    ids = ids_of("lab")
    assert [ids.key(NetworkType.VXLAN), ids.key(NetworkType.VXLAN)] == [5001, 5002]
    assert ids.key(NetworkType.GRE) == 5001
    assert ids.key(NetworkType.GENEVE) == 5001
    assert ids.key(NetworkType.VLAN) == MAX_VNI, "a relay's, from the other end of Geneve's VNIs"
    assert ids.key(NetworkType.INTERNAL) is None
    ids.take_key(NetworkType.GENEVE, MAX_VNI - 1)
    assert ids.key(NetworkType.VLAN) == MAX_VNI - 2


def test_a_key_is_not_allocated_while_a_host_may_still_use_it() -> None:
    """Of the hosts, xen1 has acknowledged the pool without the key, xen2 has not; xen9 has no agent, so it forwards nothing."""
    hosts = {name: Host(name, f"10.0.0.{n}") for n, name in enumerate(("xen1", "xen2", "xen9"), 1)}
    given_up = {("vxlan", 5001): RetiredNumber("vxlan", 5001, "old", generation=7)}

    def first_key(generation: int, network_type: NetworkType = NetworkType.VXLAN) -> int | None:
        agents = {"xen1": AgentStatus("xen1", generation=7), "xen2": AgentStatus("xen2", generation=generation)}
        return Ids("lab", PoolState(hosts=hosts, agents=agents, retired=given_up), VifIndex()).key(network_type)

    assert (first_key(6), first_key(7)) == (5002, 5001)
    assert first_key(6, NetworkType.GRE) == 5001, "another space"


@pytest.mark.parametrize(
    ("cidr", "gateway", "given_out"),
    [
        ("10.0.0.0/29", "10.0.0.1", ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]),
        ("10.0.0.0/30", None, ["10.0.0.1", "10.0.0.2"]),
        ("10.0.0.0/31", None, ["10.0.0.0", "10.0.0.1"]),  # RFC 3021
        ("10.0.0.5/32", None, ["10.0.0.5"]),
        ("fd00::/126", "fd00::1", ["fd00::2", "fd00::3"]),  # IPv6 has no broadcast
        ("fd00::/127", None, ["fd00::", "fd00::1"]),  # RFC 6164
    ],
)
def test_addresses(cidr: str, gateway: str | None, given_out: list[str]) -> None:
    ids, subnet = ids_of("lab"), Subnet("s", "n", cidr, gateway)
    assert [ids.address(subnet) for _ in given_out] == given_out
    with pytest.raises(Exhausted, match="no free address in subnet s"):
        ids.address(subnet)


def test_a_large_subnet_costs_nothing() -> None:
    assert ids_of("lab").address(Subnet("s", "n", "fd00::/64")) == "fd00::1"


def test_the_networks_of_a_document() -> None:
    state = apply(BASE)
    assert {name: (net.number, net.key, net.mtu) for name, net in state.networks.items()} == {
        "prod": (1, MAX_VNI, 1500),
        "spare": (2, 5001, 1558),
        "tenant-a": (3, 5001, 1550),
        "wire": (4, MAX_VNI - 1, 1500),
    }
    assert [state.vifs[vif].addresses for vif in ("web1/0", "web1/1", "web2/0")] == [("10.1.0.2",), (), ("10.1.0.3",)]


@given(st.permutations(["web1/0", "web2/0", "web10/0", "db", "a1b2", "a1b10", ""]))
def test_people_count_naturally(names: list[str]) -> None:
    assert in_order(names) == ["", "a1b2", "a1b10", "db", "web1/0", "web2/0", "web10/0"]
