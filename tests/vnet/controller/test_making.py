"""What a toolstack may not make, as decisions: the same that a document may not say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.vnet.controller.pools import pool
from vnet import api
from vnet.controller import making
from vnet.controller.bodies import decode_body
from vnet.controller.errors import Conflict, Invalid, Refused
from vnet.model import Subnet
from vnet.pool.view import PoolView

SUBNETS = {
    "four": Subnet("four", "tenant", "10.1.0.0/24", "10.1.0.1"),
    "six": Subnet("six", "tenant", "fd00:1::/64"),
}


def view() -> PoolView:
    state = replace(pool(()).state, subnets=SUBNETS)
    return PoolView.of(state, state.hosts)


@pytest.mark.parametrize(
    ("address", "kind", "text"),
    [
        ("10.2.0.9", Invalid, "in no subnet of tenant (10.1.0.0/24, fd00:1::/64)"),
        ("10.1.0.0", Invalid, "10.1.0.0 is the subnet's own address (10.1.0.0/24)"),
        ("10.1.0.255", Invalid, "10.1.0.255 is the subnet's broadcast address"),
        ("fd00:1::", Invalid, "fd00:1:: is the subnet's own address"),
        ("10.1.0.1", Conflict, "10.1.0.1 is the gateway of subnet four"),
    ],
)
def test_an_address_that_no_vif_may_have(address: str, kind: type[Refused], text: str) -> None:
    with pytest.raises(kind) as caught:
        making.make_vif(view(), "a", api.VifSpec(network="tenant", addresses=[address]))
    assert text in caught.value.message


def test_addresses_of_subnets_and_any_where_there_is_none() -> None:
    both = ["10.1.0.254", "fd00:1::ffff"]
    assert making.make_vif(view(), "a", api.VifSpec(network="tenant", addresses=both)).changes
    assert making.make_vif(view(), "a", api.VifSpec(network="lab", addresses=["10.1.0.1"])).changes


TRUNK0 = api.Uplink(name="trunk0", members=["eth1"])


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"address": "fd00::9"}, "IPv6, and host xen1 has 10.99.0.1"),
        ({}, "network tenant may be on it and needs one"),
        ({"uplinks": []}, "network prod may be on it and needs uplink trunk0"),
        ({"uplinks": [api.Uplink(name="trunk0", members=["eth1"], mtu=1400)]}, "uplink trunk0 carries 1400"),
    ],
)
def test_a_host_has_what_the_networks_that_may_be_on_it_need(spec: dict[str, Any], text: str) -> None:
    given = {"uplinks": [TRUNK0], **({} if spec == {} else {"address": "10.99.0.9"}), **spec}
    with pytest.raises(Invalid) as caught:
        making.make_host(view(), "xen9", api.HostSpec(**given))
    assert text in caught.value.message
    elsewhere = {n.name: replace(n, hosts=frozenset({"xen1"})) for n in view().state.networks.values()}
    limited = replace(view().state, networks=elsewhere)
    if "address" not in spec:
        assert making.make_host(PoolView.of(limited, ()), "xen9", api.HostSpec(**given)).changes


@pytest.mark.parametrize("more", [{"tag": 5}, {"uplink": "trunk0"}])
@pytest.mark.parametrize("kind", ["internal", "vxlan"])
def test_only_a_vlan_has_a_tag_or_an_uplink(kind: Any, more: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=f"{kind} networks have no {next(iter(more))}"):
        making.make_network(view(), "n", api.NetworkSpec(type=kind, **more))


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (api.NetworkSpec(type="gre"), "exists with type vxlan, not gre"),
        (api.NetworkSpec(type="vxlan", hosts=["xen2", "xen1"]), "exists with hosts none, not xen1, xen2"),
    ],
)
def test_a_difference_is_spelled_as_a_call_spells_it(asked: api.NetworkSpec, text: str) -> None:
    with pytest.raises(Conflict) as caught:
        making.make_network(view(), "tenant", asked)
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("body", "code", "where", "text"),
    [
        (b'{"type": "gre", "key": 3, "key": 4}', "duplicate-key", "key", "stands twice"),
        (b'{"type": "gre", "kei": 3}', "body", "kei", "did you mean key?"),
        (b'{"type": "gre", "colour": 3}', "body", "colour", "there are type, key, tag, uplink, hosts, mtu"),
        (b'{"type": "private"}', "body", "type", "it is one of internal, vlan, vxlan, gre, geneve"),
        (b'{"type": "gre", "key": "3"}', "body", "key", "Expected `int | null`, got `str`"),
        (b"", "body", "type", "missing required field `type`"),
        (b'{"type"', "json", "", "no JSON"),
    ],
)
def test_a_body_that_is_not_as_its_type(body: bytes, code: str, where: str, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode_body(body, api.NetworkSpec)
    assert (caught.value.code, caught.value.where) == (code, where)
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("uplink", "text"),
    [
        (b'{"name": "a", "members": [], "mod": 1}', "did you mean mode?"),
        (b'{"name": "a", "members": [], "mode": "802.3ad"}', "it is one of active-backup, balance-slb, lacp"),
        (b'{"name": "a", "members": [], "name": "b"}', "name: stands twice"),
    ],
)
def test_a_body_within_a_body(uplink: bytes, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode_body(b'{"uplinks": [' + uplink + b"]}", api.HostSpec)
    assert text in caught.value.message
