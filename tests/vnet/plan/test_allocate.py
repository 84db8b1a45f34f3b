"""Allocation: what is given out, what never is, and when nothing is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vnet.plan.pools import BASE, apply
from vnet.objects import NetworkType, PoolState, Subnet
from vnet.objects.allocate import Exhausted, Ids, in_order
from vnet.objects.carriers import MAX_VNI
from vnet.objects.index import VifIndex


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
