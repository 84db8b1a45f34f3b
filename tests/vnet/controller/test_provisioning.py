"""What a toolstack may not make, as decisions: the same that a document may not say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.vnet.controller.pools import pool
from vnet import api
from vnet.controller import provisioning, security_groups
from vnet.controller.body_decoder import decode_body
from vnet.controller.errors import Conflict, Invalid, Refused
from vnet.db.view import PoolView
from vnet.objects import Direction, Owner, Rule, SecurityGroup, Subnet, Vif

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
        provisioning.make_vif(view(), "a", api.VifSpec(network="tenant", addresses=[address]))
    assert text in caught.value.message


def test_addresses_of_subnets_and_any_where_there_is_none() -> None:
    both = ["10.1.0.254", "fd00:1::ffff"]
    assert provisioning.make_vif(view(), "a", api.VifSpec(network="tenant", addresses=both)).changes
    assert provisioning.make_vif(view(), "a", api.VifSpec(network="lab", addresses=["10.1.0.1"])).changes


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
        provisioning.make_host(view(), "xen9", api.HostSpec(**given))
    assert text in caught.value.message
    elsewhere = {n.name: replace(n, hosts=frozenset({"xen1"})) for n in view().state.networks.values()}
    limited = replace(view().state, networks=elsewhere)
    if "address" not in spec:
        assert provisioning.make_host(PoolView.of(limited, ()), "xen9", api.HostSpec(**given)).changes


@pytest.mark.parametrize("more", [{"tag": 5}, {"uplink": "trunk0"}])
@pytest.mark.parametrize("kind", ["internal", "vxlan"])
def test_only_a_vlan_has_a_tag_or_an_uplink(kind: Any, more: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=f"{kind} networks have no {next(iter(more))}"):
        provisioning.make_network(view(), "n", api.NetworkSpec(type=kind, **more))


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (api.NetworkSpec(type="gre"), "exists with type vxlan, not gre"),
        (api.NetworkSpec(type="vxlan", hosts=["xen2", "xen1"]), "exists with hosts none, not xen1, xen2"),
    ],
)
def test_a_difference_is_spelled_as_a_call_spells_it(asked: api.NetworkSpec, text: str) -> None:
    with pytest.raises(Conflict) as caught:
        provisioning.make_network(view(), "tenant", asked)
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


def crowded(count: int) -> PoolView:
    """A pool in which the rules of VIFs on one network name so many groups."""
    base = view().state
    groups = {
        f"g{n}": SecurityGroup(
            f"g{n}", n + 1, rules=(Rule("r", Direction.INGRESS, group=f"g{n}"),), owner=Owner.TOOLSTACK
        )
        for n in range(130)
    }
    vifs = [
        Vif(f"v{n}", "tenant", f"0a:00:00:00:01:{n:02x}", groups=(f"g{n}",), owner=Owner.TOOLSTACK)
        for n in range(count)
    ]
    return PoolView.of(replace(base, groups=groups, vifs={vif.id: vif for vif in vifs}))


def test_a_network_has_as_many_groups_in_rules_as_packets_have_bits() -> None:
    full = crowded(128)
    spec = api.VifSpec(network="tenant", security_groups=["g129"])
    with pytest.raises(Conflict, match="would name 129 groups as remote: 128 at most"):
        provisioning.make_vif(full, "one-more", spec)
    assert provisioning.make_vif(full, "one-more", api.VifSpec(network="prod", security_groups=["g129"])).changes
    assert provisioning.make_vif(full, "one-more", api.VifSpec(network="tenant", security_groups=["g7"])).changes
    assert provisioning.make_vif(crowded(127), "one-more", spec).changes
    with pytest.raises(Conflict, match="129 groups"):
        security_groups.set_groups(full, "v0", ["g0", "g128"])
    rules = [api.Rule(name=name, direction="egress", remote=name) for name in ("g7", "g128")]
    with pytest.raises(Conflict, match="129 groups"):
        security_groups.make_group(full, "g7", api.SecurityGroupSpec(rules=rules))
    assert security_groups.make_group(full, "g128", api.SecurityGroupSpec(rules=rules)).changes


def test_what_the_document_made_is_changed_there() -> None:
    theirs = SecurityGroup("web", 1)
    vif = Vif("v", "tenant", "0a:00:00:00:01:01")
    made = PoolView.of(replace(view().state, groups={"web": theirs}, vifs={"v": vif}))
    assert security_groups.make_group(made, "web", api.SecurityGroupSpec()).changes == ()
    with pytest.raises(Conflict, match="security group web is the document's"):
        security_groups.make_group(made, "web", api.SecurityGroupSpec(egress="drop"))
    with pytest.raises(Conflict, match="VIF v is the document's"):
        security_groups.set_groups(made, "v", ["web"])
