"""Objects that a toolstack may not make or change, judged without a database: with the document's codes, and the field at fault."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.vnet.controller.pools import pool
from vnet import api
from vnet.api.errors import Conflict, Invalid, Refused
from vnet.controller.admission import admitted, check_name, read_object, words_without_name
from vnet.controller.body_decoder import decode_body
from vnet.db.view import PoolView
from vnet.grammar.declare import Declared
from vnet.objects import Direction, Host, Network, Owner, Rule, SecurityGroup, Subnet, Vif, Vm
from vnet.objects.scope import Scope
from vnet.plan import decide
from vnet.plan.decide import Admission

SUBNETS = {
    "four": Subnet("four", "tenant", "10.1.0.0/24", "10.1.0.1"),
    "six": Subnet("six", "tenant", "fd00:1::/64"),
}


def view() -> PoolView:
    state = replace(pool(()).state, subnets=SUBNETS)
    return PoolView.of(state, state.hosts)


def put(declared: type[Declared], name: str, body: dict[str, Any] | bytes, view: PoolView) -> Admission:
    """The decision on a PUT."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    read = read_object(declared, data, words_without_name(declared), partial=False)
    check_name(declared, name, read)
    return admitted(read, name, lambda: decide.make(view, declared, name, read.stated))


def patch(declared: type[Declared], name: str, body: dict[str, Any], view: PoolView) -> Admission:
    """The decision on a PATCH."""
    read = read_object(declared, json.dumps(body).encode(), words_without_name(declared), partial=True)
    return admitted(read, name, lambda: decide.change(view, declared, name, read.stated))


@pytest.mark.parametrize(
    ("address", "kind", "code", "text"),
    [
        ("10.2.0.9", Invalid, "outside-subnet", "in no subnet of network tenant; there is: 10.1.0.0/24 (four)"),
        (
            "10.1.0.0",
            Invalid,
            "reserved-address",
            "10.1.0.0 of VIF a is the subnet's own address (10.1.0.0/24 of four)",
        ),
        ("10.1.0.255", Invalid, "reserved-address", "10.1.0.255 of VIF a is the subnet's broadcast address"),
        ("fd00:1::", Invalid, "reserved-address", "fd00:1:: of VIF a is the subnet's own address"),
        ("10.1.0.1", Conflict, "address-taken", "10.1.0.1 of VIF a is the gateway of subnet four"),
    ],
)
def test_an_address_that_no_vif_may_have(address: str, kind: type[Refused], code: str, text: str) -> None:
    with pytest.raises(kind) as caught:
        put(Vif, "a", {"network": "tenant", "addresses": [address]}, view())
    assert (caught.value.code, caught.value.where) == (code, "addresses[0]")
    assert text in caught.value.message


def test_addresses_of_subnets_and_any_where_there_is_none() -> None:
    both = ["10.1.0.254", "fd00:1::ffff"]
    assert put(Vif, "a", {"network": "tenant", "addresses": both}, view()).changes
    assert put(Vif, "a", {"network": "lab", "addresses": ["10.1.0.1"]}, view()).changes


NEAR = {"name": "near", "direction": "ingress", "remote": ["label:app=shop", "network:tenant"]}


def test_what_repeats_labels_and_ranges_changes_with_them() -> None:
    """A VM's labels are its VIFs', whoever made these; a group's row has the ranges of the networks that its rules name, the subnets'
    as they are. A tenant may give no VM a label: others' rules let it in by that."""
    state = view().state
    web = Vif("web/0", "tenant", "0a:00:00:00:09:01", "web")
    state = replace(state, vms={"web": Vm("web", owner=Owner.TOOLSTACK)}, vifs={"web/0": web})
    at = PoolView.of(state, state.hosts)
    labelled = patch(Vm, "web", {"labels": {"app": "shop"}}, at)
    assert [(type(c.new), getattr(c.new, "vm_labels", None)) for c in labelled.changes] == [
        (Vm, None),
        (Vif, ("app=shop",)),
    ]
    assert [change.name for change in labelled.plan.changes] == ["web", "web/0"]
    scope = Scope(networks=frozenset({"tenant"}), vms=frozenset({"web"}))
    assert list(scope.obstacles(state.vms["web"], labelled.changes[0].new, None, None)) == ["labels of VM web"]
    grouped = put(SecurityGroup, "near", {"rules": [NEAR]}, at).changes[0].new
    assert isinstance(grouped, SecurityGroup)
    assert grouped.network_ranges == ("tenant 10.1.0.0/24", "tenant fd00:1::/64")
    subnets = {name: replace(subnet, owner=Owner.TOOLSTACK) for name, subnet in SUBNETS.items()}
    at = PoolView.of(replace(state, groups={"near": grouped}, subnets=subnets), state.hosts)
    gone = decide.remove(at, Subnet, "six").changes
    assert [getattr(change.new, "network_ranges", None) for change in gone] == [None, ("tenant 10.1.0.0/24",)]
    with pytest.raises(decide.Inadmissible, match="a rule of security group near"):
        decide.remove(PoolView.of(replace(at.state, vifs={}, subnets={}), state.hosts), Network, "tenant")
    one = PoolView.of(replace(at.state, subnets={"six": subnets["six"]}), state.hosts)
    with pytest.raises(decide.Inadmissible, match="names network tenant, which has no subnet"):
        decide.remove(one, Subnet, "six")


TRUNK0 = {"name": "trunk0", "members": ["eth1"]}


@pytest.mark.parametrize(
    ("body", "code", "path", "text"),
    [
        ({"address": "fd00::9", "uplinks": [TRUNK0]}, "mixed-families", "address", "host xen1 an IPv4 one"),
        ({"uplinks": [TRUNK0]}, "no-address", "address", "tenant"),
        ({"address": "10.99.0.9", "uplinks": []}, "no-uplink", "uplinks", "trunk0"),
        ({"address": "10.99.0.9", "uplinks": [{**TRUNK0, "mtu": 1400}]}, "mtu", "network prod", "uplink trunk0 carries 1400"),
        ({"address": "127.0.0.1", "uplinks": [TRUNK0]}, "wrong-address", "address", "127.0.0.1"),
        ({"address": "10.99.0.1", "uplinks": [TRUNK0]}, "duplicate-address", "address", "of host xen1"),
        ({"uplinks": [TRUNK0, TRUNK0]}, "twice", "uplinks[1]", "trunk0 stands twice"),
        ({"uplinks": [{**TRUNK0, "hash": "tcpudp-ports"}]}, "bond", "uplinks[0].hash", "is for 'mode: lacp' only"),
        ({"uplinks": [{"name": "a", "members": ["a"], "mod": 1}]}, "unknown-key", "uplinks[0].mod", "'mode'?"),
        ({"uplinks": [{"name": "a", "members": ["a", "b"], "mode": "802.3ad"}]}, "wrong-value", "uplinks[0].mode", "'lacp'?"),
        ({"uplinks": [{"name": "a", "members": []}]}, "empty-list", "uplinks[0].members", "an uplink needs a NIC"),
    ],
)  # fmt: skip
def test_a_host_that_does_not_fit(body: dict[str, Any], code: str, path: str, text: str) -> None:
    with pytest.raises(Refused) as caught:
        put(Host, "xen9", body, view())
    found = {problem.code: problem for problem in caught.value.problems}
    assert code in found, caught.value.problems
    assert text in found[code].message + found[code].hint
    assert found[code].path == path


def test_a_host_where_no_network_may_be_needs_nothing() -> None:
    elsewhere = {n.name: replace(n, hosts=frozenset({"xen1"})) for n in view().state.networks.values()}
    limited = PoolView.of(replace(view().state, networks=elsewhere))
    assert put(Host, "xen9", {}, limited).changes


@pytest.mark.parametrize("more", [{"tag": 5}, {"uplink": "trunk0"}])
@pytest.mark.parametrize("type_", ["internal", "vxlan"])
def test_only_a_vlan_has_a_tag_or_an_uplink(type_: str, more: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=f"{type_} networks have no '{next(iter(more))}'"):
        put(Network, "n", {"type": type_, **more}, view())


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [
        ({"type": "gre"}, "type", "exists with type vxlan, not gre"),
        ({"type": "vxlan", "hosts": ["xen2", "xen1"]}, "hosts", "exists with hosts none, not xen1, xen2"),
        ({"type": "vxlan", "vni": 7}, "vni", "5001, not 7"),
    ],
)
def test_a_difference_is_spelled_as_a_call_spells_it(body: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(Conflict) as caught:
        put(Network, "tenant", body, view())
    assert (caught.value.code, caught.value.where) == ("network-exists", field)
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("body", "code", "where", "text"),
    [
        (b'{"type": "gre", "key": 3, "key": 4}', "duplicate-key", "key", "stands twice"),
        (b'{"type": "gre", "kei": 3}', "unknown-key", "kei", "did you mean 'key'?"),
        (
            b'{"type": "gre", "colour": 3}',
            "unknown-key",
            "colour",
            "unknown key 'colour' in a network; there is: ",
        ),
        (b'{"type": "private"}', "wrong-value", "type", "internal, vlan, vxlan, gre, geneve"),
        (b'{"type": "gre", "key": "3"}', "wrong-type", "key", 'found the string "3"; leave out the quotes'),
        (b"", "missing-key", "", "a network needs 'type'"),
        (b'{"type"', "json", "", "no JSON"),
        (b'{"type": NaN}', "json", "", "no JSON"),
        (b"[1]", "wrong-type", "", "found a list"),
    ],
)
def test_a_body_that_is_not_as_declared(body: bytes, code: str, where: str, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        put(Network, "n", body, view())
    assert (caught.value.code, caught.value.where) == (code, where)
    assert text in caught.value.message


def test_all_errors_at_once_the_bodys_and_the_pools() -> None:
    body = {"network": "tennant", "mac": "0a-00-00-00-00-01", "security_groups": ["web"], "colour": 1, "index": 900}
    with pytest.raises(Invalid) as caught:
        put(Vif, "a b", body, view())
    assert {(problem.code, problem.path) for problem in caught.value.problems} == {
        ("wrong-name", "id"),
        ("unknown-key", "colour"),
        ("wrong-mac", "mac"),
        ("out-of-range", "index"),
        ("unknown-network", "network"),
        ("unknown-security-group", "security_groups[0]"),
    }
    assert caught.value.message.endswith("(and 5 more errors)")


def test_an_error_that_follows_from_an_unread_field_is_no_second_error() -> None:
    with pytest.raises(Invalid) as caught:
        put(Vif, "a", {"network": "lab", "awaited": True, "host": ["xen1"]}, view())
    assert [problem.path for problem in caught.value.problems] == ["host"]


def test_null_is_a_fields_default_and_leaves_an_allocated_one_out() -> None:
    limited = replace(
        view().state.networks["tenant"], name="mine", key=7, owner=Owner.TOOLSTACK, hosts=frozenset({"xen1"})
    )
    made = PoolView.of(replace(view().state, networks={"mine": limited}))
    (change,) = patch(Network, "mine", {"hosts": None, "vni": None}, made).plan.changes
    assert [(field.field, field.new) for field in change.fields] == [("hosts", frozenset())]


@pytest.mark.parametrize(
    ("body", "code", "where", "text"),
    [
        (b'{"to": "xen1", "to": "xen2"}', "duplicate-key", "to", "key 'to' stands twice"),
        (b'{"too": "xen1"}', "unknown-key", "too", "too: unknown key 'too'; did you mean 'to'?"),
        (b'{"colour": 1, "to": "xen1"}', "unknown-key", "colour", "there is: force, to"),
        (b'{"to": 3}', "wrong-type", "to", "to: wanted a string, found '3'"),
        (b'{"to": "xen1", "force": 1}', "wrong-type", "force", "wanted true or false, found '1'"),
        (b'{"to": null}', "wrong-type", "to", "wanted a string, found nothing"),
        (b"{}", "missing-key", "", "'to' is missing; it is a string"),
        (b"", "missing-key", "", "'to' is missing"),
        (b"[1]", "wrong-type", "", "wanted a map with force, to, found a list"),
        (b'{"to"', "json", "", "no JSON"),
        (b"\xff", "json", "", "no JSON"),
    ],
)
def test_a_call_that_is_not_as_its_type(body: bytes, code: str, where: str, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode_body(body, api.PrepareCall)
    assert (caught.value.code, caught.value.where) == (code, where)
    assert text in caught.value.message
    assert [problem.path for problem in caught.value.problems] == ([where] if code != "json" else [])


def test_all_errors_of_a_call_at_once() -> None:
    body = (
        b'{"wait_s": "5", "probes": [{"host": "xen1", "frame": 1}, {"host": "xen1", "frame": "00", "tracked": ["a", 2],'
        b' "tunnel": {"key": 1.5, "sourc": "10.0.0.1", "target": "10.0.0.2"}}, 7]}'
    )
    with pytest.raises(Invalid) as caught:
        decode_body(body, api.ProbesCall)
    assert [(problem.code, problem.path) for problem in caught.value.problems] == [
        ("wrong-type", "wait_s"),
        ("wrong-type", "probes[0].frame"),
        ("wrong-type", "probes[1].tracked[1]"),
        ("wrong-type", "probes[1].tunnel.key"),
        ("unknown-key", "probes[1].tunnel.sourc"),
        ("wrong-type", "probes[2]"),
    ]


@pytest.mark.parametrize(
    "call",
    [
        api.PlugCall(host="xen1", wait_s=2.5, awaited=True),
        api.PrepareCall(to="xen2", force=True),
        api.StepCall(),
        api.MigrateCall(to="xen2", timeout_s=3),
        api.EvacuateCall(to=None),
        api.InviteCall(url="https://10.0.0.1:8443", pool=["ssl:10.0.0.1:6640"], minutes=5),
        api.JoinCall(host="xen4", token="t", request="r"),
        api.TokenCall(role="operator", networks=["shop-*"], max_vifs=5, days=1.5),
        api.ProbesCall(
            probes=[api.ProbeCall(host="xen1", frame="00", tunnel=api.TunnelCall(key=1, source="a", target="b"))]
        ),
        api.PacketsCall(packets=[api.PacketCall(frame="00", vif="v", round=2, after=0, expect=["w"])]),
        api.CaptureCall(vifs=["v"], filter="tcp", seconds=5.0, snap=64, rate=10),
        api.FollowCall(caller="xapi-1", silent_at=3),
        api.TraceCall(source="v", target="w", protocol="tcp", port=80, at="41"),
    ],
    ids=lambda call: type(call).__name__,
)
def test_a_call_as_its_client_sends_it(call: api.CallStruct) -> None:
    assert decode_body(msgspec.json.encode(call), type(call)) == call


@pytest.mark.parametrize("number", [b"1e999", b"1" * 5000, b"true", b'"1"', b"[1]"])
def test_a_time_is_a_number(number: bytes) -> None:
    with pytest.raises(Invalid, match="wait_s: wanted a number, found"):
        decode_body(b'{"host": "xen1", "wait_s": ' + number + b"}", api.PlugCall)


def test_each_call_has_a_test() -> None:
    calls = {each.__name__ for each in api.CallStruct.__subclasses__()}
    assert calls == {
        *(
            "PlugCall",
            "PrepareCall",
            "StepCall",
            "MigrateCall",
            "EvacuateCall",
            "InviteCall",
            "JoinCall",
            "TokenCall",
            "TunnelCall",
            "ProbesCall",
            "ProbeCall",
        ),
        *("PacketsCall", "PacketCall", "CaptureCall", "FollowCall", "TraceCall"),
    }


def crowded(count: int) -> PoolView:
    """A pool in which the rules of VIFs on one network name so many groups."""
    base = view().state
    groups = {
        f"g{n}": SecurityGroup(
            f"g{n}", n + 1, rules=(Rule("r", Direction.INGRESS, remote=(f"g{n}",)),), owner=Owner.TOOLSTACK
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
    body = {"network": "tenant", "security_groups": ["g129"]}
    with pytest.raises(Conflict, match="name 129 security groups and address sets as 'remote'; at most 128"):
        put(Vif, "one-more", body, full)
    assert put(Vif, "one-more", {**body, "network": "prod"}, full).changes
    assert put(Vif, "one-more", {**body, "security_groups": ["g7"]}, full).changes
    assert put(Vif, "one-more", body, crowded(127)).changes
    with pytest.raises(Conflict, match="129 security groups"):
        patch(Vif, "v0", {"security_groups": ["g0", "g128"]}, full)
    rules = [{"name": name, "direction": "egress", "remote": name} for name in ("g7", "g128")]
    with pytest.raises(Conflict, match="129 security groups"):
        put(SecurityGroup, "g7", {"rules": rules}, full)
    assert put(SecurityGroup, "g128", {"rules": rules}, full).changes


def test_the_objects_of_the_document_are_changed_there() -> None:
    theirs = SecurityGroup("web", 1)
    vif = Vif("v", "tenant", "0a:00:00:00:01:01", vm="a")
    state = replace(view().state, groups={"web": theirs}, vifs={"v": vif}, vms={"a": Vm("a")})
    made = PoolView.of(state)
    assert put(SecurityGroup, "web", {}, made).changes == ()
    for asked in (
        lambda: put(SecurityGroup, "web", {"egress": "drop"}, made),
        lambda: patch(SecurityGroup, "web", {"egress": "drop"}, made),
        lambda: patch(Vif, "v", {"security_groups": ["web"]}, made),
    ):
        with pytest.raises(Conflict, match="is the document's; change it in the document") as caught:
            asked()
        assert caught.value.code == "owned-by-document"
    assert patch(Vif, "v", {"security_groups": []}, made).changes == ()
