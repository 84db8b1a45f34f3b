"""One fault has one code behind both doors: every refused document is sent object by object as REST calls, and back.

The pool that the calls meet has the document's own pool row; objects are made in the order in which they refer to each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml

from tests.vnet.topology.test_refused import CASES, LINE
from tests.vnet.topology.test_schema import Words
from vnet.api.errors import Refused
from vnet.controller.admission import admitted, check_name, read_object, words_without_name
from vnet.db.changes import InsertObject, UpdateObject
from vnet.db.view import PoolView
from vnet.grammar.declare import Declared
from vnet.objects import (
    AddressSet,
    FlowCollector,
    Host,
    Network,
    Owner,
    Pool,
    PoolState,
    QosClass,
    SecurityGroup,
    Subnet,
    Vif,
    Vm,
)
from vnet.objects.expectation import Expectation
from vnet.plan import decide
from vnet.topology import TopologyErrors, load

# Cases about the text of a document, or about maps that no call has: a JSON body cannot say them.
DOCUMENT_ONLY = re.compile(
    r"yaml-|duplicate-key|control-character|long-line|number-|only-comments|not-a-map|not-supported|version-|wrong-type-"
    r"|unknown-key-(at-the-top|of-another-product|underscore)|name-|all-at-once|missing-key|mtu-nothing-left"
    r"|mtu-out-of-range|locking-mode"  # of `underlay` and `defaults`, which are the pool's
    r"|vif-id-twice"  # a second call for one id is about the VIF that is there
)


def objects_of(text: str) -> Iterator[tuple[type[Declared], str, dict[str, Any]]]:
    """The document's objects as bodies of calls."""
    document = yaml.load(text, Words)  # a SafeLoader
    for name, host in (document.get("hosts") or {}).items():
        uplinks = [{"name": uplink, **(words or {})} for uplink, words in ((host or {}).get("uplinks") or {}).items()]
        yield Host, name, {**(host or {}), "uplinks": uplinks}
    for name, qos in (document.get("qos") or {}).items():
        yield QosClass, name, qos or {}
    for name, network in (document.get("networks") or {}).items():
        yield Network, name, network or {}
    for name, subnet in (document.get("subnets") or {}).items():
        yield Subnet, name, subnet or {}
    for name, found in (document.get("address-sets") or {}).items():
        yield AddressSet, name, {"addresses": found} if isinstance(found, list) else found or {}
    for name, group in (document.get("security-groups") or {}).items():
        words = dict(group or {})
        yield SecurityGroup, name, {**words.pop("default", {}), **words}
    for name, vm in (document.get("vms") or {}).items():
        yield Vm, name, {key: value for key, value in (vm or {}).items() if key != "vifs"}
        for index, vif in enumerate((vm or {}).get("vifs") or []):
            host = {"host": vm["host"]} if "host" in vm else {}
            yield Vif, vif.get("id", f"{name}/{index}"), {**vif, "vm": name, "index": index, **host}
    for name, collector in (document.get("flow-export") or {}).items():
        yield FlowCollector, name, collector
    for at, words in enumerate(document.get("expectations") or []):
        yield Expectation, words.get("name", f"e{at}"), {key: value for key, value in words.items() if key != "name"}


def codes_of_calls(text: str) -> set[str]:
    """The codes with which the calls are refused; a call that waits for another one is repeated after it."""
    underlay = (yaml.load(text, Words).get("underlay") or {}).get("mtu", 1500)
    state = PoolState(pool=Pool("lab", underlay_mtu=underlay))
    left = list(objects_of(text))
    while True:
        refused: list[tuple[tuple[type[Declared], str, dict[str, Any]], Refused]] = []
        for declared, name, body in left:
            try:
                state = made(state, declared, name, body)
            except Refused as error:
                refused.append(((declared, name, body), error))
        if len(refused) == len(left):
            return {problem.code for _, error in refused for problem in error.problems} or {e.code for _, e in refused}
        left = [item for item, _ in refused]


def made(state: PoolState, declared: type[Declared], name: str, body: dict[str, Any]) -> PoolState:
    """The pool after a PUT."""
    view = PoolView.of(state, state.hosts)
    data = json.dumps({key.replace("-", "_"): value for key, value in body.items()}).encode()
    read = read_object(declared, data, words_without_name(declared), partial=False)
    check_name(declared, name, read)
    decision = admitted(read, name, lambda: decide.make(view, declared, name, read.stated))
    for change in decision.changes:
        assert isinstance(change, (InsertObject, UpdateObject))
        noun = change.new.NOUN
        table = {**getattr(state, noun.state), getattr(change.new, noun.key): change.new}
        state = replace(state, **{noun.state: table})
    return state


@pytest.mark.parametrize(
    "case", [case for case in CASES if not DOCUMENT_ONLY.match(case.stem)], ids=lambda case: case.stem
)
def test_a_refused_document_is_refused_as_calls_with_the_same_code(case: Any) -> None:
    text = case.read_text().partition(LINE)[0]
    with pytest.raises(TopologyErrors) as caught:
        load(text.encode(), "pool.vnet.yaml")
    assert codes_of_calls(text) == {problem.code for problem in caught.value.problems}


def with_matches(*counts: int) -> dict[str, Any]:
    """A group with a rule of so many ports for each count. Ports with an even number of bits set do not share a match."""
    apart = [port for port in range(4096) if port.bit_count() % 2 == 0]
    tcp = {"direction": "ingress", "protocol": "tcp"}
    return {"rules": [{"name": f"r{at}", **tcp, "ports": apart[:count]} for at, count in enumerate(counts)]}


BASE: dict[str, Any] = {
    "hosts": {
        "xen1": {"address": "10.99.0.1", "uplinks": {"trunk0": {"members": ["eth1"]}}},
        "xen2": {"address": "10.99.0.2", "uplinks": {"trunk0": {"members": ["eth1"]}}},
    },
    "networks": {
        "prod": {"type": "vlan", "tag": 120, "uplink": "trunk0"},
        "tenant": {"type": "vxlan", "vni": 6000},
        "dmz": {"type": "vxlan", "hosts": ["xen1"]},
    },
    "subnets": {"v4": {"network": "tenant", "cidr": "10.1.0.0/24", "gateway": "10.1.0.1"}},
    "security-groups": {"web": {}},
    "vms": {"old": {"vifs": [{"network": "tenant", "mac": "0a:00:00:00:00:01", "addresses": ["10.1.0.9"]}]}},
}
TRUNK0 = {"name": "trunk0", "members": ["eth1"]}
NICS = [f"eth{number}" for number in range(17)]

# Addresses that no interface can have, and ranges that reach into theirs. A scope is a host's own, control characters are nobody's.
NO_INTERFACE = (
    *("0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "239.255.255.250", "255.255.255.255"),
    *("::", "::1", "::10.0.0.1", "::ffff:10.0.0.1", "ff02::1", "fe80::1%eth0", "fe80::1%\x1b[2J", "10.0.0.1%eth0"),
)
NO_SUBNET = (
    *("0.0.0.0/0", "0.0.0.0/8", "126.0.0.0/7", "224.0.0.0/4", "192.0.0.0/2", "255.255.255.255/32"),
    *("::/0", "::1/128", "::ffff:0:0/96", "ff00::/8", "fe80::%eth0/64", "fe80::%\x1b[2J/64"),
)
NEVER_SENT = ("127.0.0.0/8", "::1/128", "::ffff:10.0.0.0/104", "fe80::%eth0/64", "fe80::%\x1b[2J/64")
NO_SOURCE = ("224.0.0.0/4", "255.255.255.255/32", "ff02::/16")
NO_DESTINATION = ("0.0.0.0/32", "::/128")


def allowing(direction: str, cidr: str, action: str = "allow") -> dict[str, Any]:
    return {"rules": [{"name": "r", "direction": direction, "remote": cidr, "action": action}]}


def with_nic(nic: str, *bonds: str) -> dict[str, Any]:
    """A host with a NIC of that name beside others. bonds: the names of its bonds."""
    uplinks = [{"name": name, "mode": "lacp", "members": [f"{name[-1]}0", f"{name[-1]}1"]} for name in bonds or ("b",)]
    return {"address": "10.99.0.9", "uplinks": [TRUNK0, {"name": "extra", "members": [nic]}, *uplinks]}


# Calls that are refused, with the code.
REFUSED: list[tuple[type[Declared], dict[str, Any], str]] = [
    *(
        (Host, {"address": address, "uplinks": [TRUNK0]}, "wrong-address")
        for address in (*NO_INTERFACE, "fe80::1", "febf::1")
    ),
    (Host, {"address": "10.99.0.1%eth0", "uplinks": [TRUNK0]}, "wrong-address"),
    (Host, {"address": "10.99.0.1", "uplinks": [TRUNK0]}, "duplicate-address"),
    (Host, {"address": "fd00::1", "uplinks": [TRUNK0]}, "mixed-families"),
    (Host, {"uplinks": [TRUNK0]}, "no-address"),
    (Host, {"address": "10.99.0.9"}, "no-uplink"),
    (Host, {"address": "10.99.0.9", "uplinks": [{**TRUNK0, "members": NICS, "mode": "lacp"}]}, "too-many"),
    (Host, {"address": "10.99.0.9", "uplinks": [{**TRUNK0, "members": []}]}, "empty-list"),
    (Host, {"address": "10.99.0.9", "uplinks": [{**TRUNK0, "members": ["a", "b"]}]}, "bond"),
    (
        Host,
        {
            "address": "10.99.0.9",
            "uplinks": [{**TRUNK0, "members": ["a", "b"], "mode": "active-backup", "hash": "tcpudp-ports"}],
        },
        "bond",
    ),
    (Host, {"address": "10.99.0.9", "uplinks": [TRUNK0, {"name": "u", "members": ["eth1"]}]}, "nic-used-twice"),
    *((Host, with_nic(nic), "wrong-name") for nic in ("br-int", "vnet-vxlan", "lo", "ovs-netdev")),
    *((Host, with_nic(nic), "wrong-name") for nic in ("br-trunk0", "int-trunk0", "phy-trunk0", "bond-b", "br-b")),
    (Host, with_nic("eth2", "bond-names-a", "bond-names-b"), "wrong-name"),
    (Network, {"type": "private"}, "wrong-value"),
    (Network, {"type": "vxlan", "key": 7}, "wrong-variant"),
    (Network, {"type": "vxlan", "vni": 6000}, "duplicate-key-or-vni"),
    (Network, {"type": "vlan", "tag": 120, "uplink": "trunk0"}, "duplicate-tag"),
    (Network, {"type": "vlan", "tag": 4095, "uplink": "trunk0"}, "out-of-range"),
    (Network, {"type": "vlan", "tag": 7, "uplink": "trunk1"}, "unknown-uplink"),
    (Network, {"type": "vlan", "tag": 7}, "missing-key"),
    (Network, {"type": "vxlan", "hosts": ["xen3"]}, "unknown-host"),
    (Network, {"type": "vxlan", "hosts": []}, "empty-list"),
    (Network, {"type": "vxlan", "mtu": 1500}, "mtu"),
    (Subnet, {"network": "tennant", "cidr": "10.2.0.0/24"}, "unknown-network"),
    (Subnet, {"network": "tenant", "cidr": "10.1.0.0/16"}, "overlap"),
    (Subnet, {"network": "tenant", "cidr": "10.2.0.0/24", "gateway": "10.3.0.1"}, "outside-subnet"),
    (Subnet, {"network": "tenant", "cidr": "10.2.0.1/24"}, "wrong-address"),
    *((Subnet, {"network": "dmz", "cidr": cidr}, "wrong-address") for cidr in NO_SUBNET),
    *((SecurityGroup, allowing("ingress", cidr), "wrong-address") for cidr in (*NEVER_SENT, *NO_SOURCE)),
    *((SecurityGroup, allowing("egress", cidr), "wrong-address") for cidr in (*NEVER_SENT, *NO_DESTINATION)),
    (SecurityGroup, {"ingress": "refuse"}, "wrong-value"),
    (SecurityGroup, {"rules": [{"name": "r", "direction": "in"}]}, "wrong-value"),
    (SecurityGroup, {"rules": [{"name": "r", "direction": "ingress", "ports": [80]}]}, "rule"),
    (SecurityGroup, {"rules": [{"name": "r", "direction": "ingress", "remote": "wbe"}]}, "unknown-security-group"),
    (SecurityGroup, {"rules": [{"name": "r", "direction": "ingress", "remote": "10.0.0.1"}]}, "wrong-address"),
    (SecurityGroup, {"rules": [{"name": "r", "direction": "ingress", "remote": "label:app"}]}, "wrong-value"),
    (SecurityGroup, {"rules": [{"name": "r", "direction": "ingress", "remote": "network:nowhere"}]}, "unknown-network"),
    (SecurityGroup, {"rules": [{"name": "r", "direction": "ingress", "remote": "network:dmz"}]}, "no-subnet"),
    (Vm, {"labels": {"app": "a b"}}, "wrong-name"),
    (SecurityGroup, {"rules": [{"name": "r", "direction": "ingress", "mandatory": True}]}, "tier"),
    (SecurityGroup, {"tier": "pool", "ingress": "drop"}, "tier"),
    (SecurityGroup, {"selector": {"app": "shop"}}, "tier"),
    (Network, {"type": "internal", "security_groups": ["web"]}, "tier"),
    (SecurityGroup, {"rules": [{"name": "r", "direction": "ingress"}] * 2}, "twice"),
    (SecurityGroup, with_matches(1025), "too-many"),
    (SecurityGroup, with_matches(1024, 1024, 1024, 1024, 1), "too-many"),
    *((Vif, {"network": "dmz", "addresses": [address]}, "wrong-address") for address in NO_INTERFACE),
    (Vif, {"network": "tenant", "addresses": ["10.1.0.9"]}, "address-taken"),
    (Vif, {"network": "tenant", "addresses": ["10.1.0.1"]}, "address-taken"),
    (Vif, {"network": "tenant", "addresses": ["10.1.0.255"]}, "reserved-address"),
    (Vif, {"network": "tenant", "addresses": ["10.9.0.1"]}, "outside-subnet"),
    (Vif, {"network": "tenant", "mac": "0a-00-00-00-00-02"}, "wrong-mac"),
    (Vif, {"network": "tenant", "mac": "0a:00:00:00:00:01"}, "duplicate-mac"),
    (Vif, {"network": "tenant", "security_groups": ["wbe"]}, "unknown-security-group"),
    (Vif, {"network": "tenant", "trunk": [10]}, "trunk"),
    (Vif, {"network": "tenant", "trunk": []}, "empty-list"),
    (Vif, {"network": "nope"}, "unknown-network"),
    (Vif, {"network": "dmz", "host": "xen2"}, "not-on-host"),
    (Vif, {"network": "tenant", "colour": "red"}, "unknown-key"),
    (Vm, {"host": "xen9"}, "unknown-host"),
    (Expectation, {"from": "old", "to": "nobody", "expect": "reachable"}, "unknown-vif"),
    (Expectation, {"from": "old", "to": "old", "expect": "reachable", "port": 80}, "expectation"),
]


def as_document(declared: type[Declared], body: dict[str, Any]) -> str:
    """BASE with one object more, in a document's words."""
    words = {key.replace("_", "-"): value for key, value in body.items()}
    document = json.loads(json.dumps(BASE))
    if "uplinks" in words:
        named = [{k.replace("_", "-"): v for k, v in uplink.items()} for uplink in words["uplinks"]]
        words["uplinks"] = {uplink.pop("name"): uplink for uplink in named}
    if declared is SecurityGroup:
        words = {"default": {k: words.pop(k) for k in ("ingress", "egress") if k in words}, **words}
    if declared is Vif:
        host = {"host": words.pop("host")} if "host" in words else {}
        document["vms"]["new"] = {**host, "vifs": [words]}
    elif declared.NOUN.listed:
        document[declared.NOUN.plural] = [words]
    else:
        document[declared.NOUN.plural]["new"] = words
    return _flow(document)


def _flow(document: dict[str, Any]) -> str:
    sections = [f"{name}: {json.dumps(objects)}" for name, objects in document.items()]
    return "\n".join(["apiVersion: vnet/v1", "pool: lab", *sections]) + "\n"


def base() -> PoolState:
    state = PoolState(pool=Pool("lab"))
    for declared, name, body in objects_of(_flow(BASE)):
        state = made(state, declared, name, body)
    return state


@pytest.mark.parametrize(
    ("declared", "body", "code"), REFUSED, ids=[f"{d.NOUN.word} {code} {at}" for at, (d, _, code) in enumerate(REFUSED)]
)
def test_a_refused_call_is_refused_in_a_document_with_the_same_code(
    declared: type[Declared], body: dict[str, Any], code: str
) -> None:
    with pytest.raises(Refused) as refused:
        made(base(), declared, "new/0" if declared is Vif else "new", body)
    assert refused.value.code == code
    with pytest.raises(TopologyErrors) as caught:
        load(as_document(declared, body).encode(), "pool.vnet.yaml")
    assert {problem.code for problem in refused.value.problems} == {problem.code for problem in caught.value.problems}


@pytest.mark.parametrize(
    "body",
    [
        *(allowing("egress", cidr) for cidr in (*NO_SOURCE, "0.0.0.0/0", "::/0")),
        *(allowing("ingress", cidr) for cidr in ("0.0.0.0/32", "0.0.0.0/0", "::/0")),
        *(allowing("ingress", cidr, "drop") for cidr in ("127.0.0.0/8", "224.0.0.0/4", "::1/128")),
    ],
    ids=str,
)
def test_both_doors_take_rules_of_addresses_that_packets_have(body: dict[str, Any]) -> None:
    assert "new" in made(base(), SecurityGroup, "new", body).groups
    assert "new" in load(as_document(SecurityGroup, body).encode(), "pool.vnet.yaml").state.groups


def test_the_groups_of_a_vif_take_a_bounded_number_of_matches() -> None:
    """Each of the groups is small enough; three of them are not, whether the VIF changes or a group does."""
    large, vif = with_matches(1024, 1024, 1000), {"network": "dmz", "security_groups": ["a", "b", "c"]}
    state = base()
    for name, rules in (("a", large), ("b", large), ("c", {})):
        state = made(state, SecurityGroup, name, rules)
    full = made(state, SecurityGroup, "c", large)
    for refuse in (
        lambda: made(full, Vif, "new/0", vif),
        lambda: made(made(state, Vif, "new/0", vif), SecurityGroup, "c", large),
    ):
        with pytest.raises(Refused) as refused:
            refuse()
        assert refused.value.code == "too-many"
    document = json.loads(json.dumps(BASE))
    document["security-groups"] |= dict.fromkeys("abc", large)
    document["vms"]["new"] = {"vifs": [{"network": "dmz", "security-groups": ["a", "b", "c"]}]}
    with pytest.raises(TopologyErrors) as caught:
        load(_flow(document).encode(), "pool.vnet.yaml")
    assert {problem.code for problem in caught.value.problems} == {"too-many"}


def test_both_doors_take_any_spelling_of_an_address_and_keep_one() -> None:
    state = made(base(), Vif, "new/0", {"network": "dmz", "addresses": ["FD00::1"]})
    document = load(as_document(Vif, {"network": "dmz", "addresses": ["FD00::1"]}).encode(), "pool.vnet.yaml")
    assert state.vifs["new/0"].addresses == document.state.vifs["new/0"].addresses == ("fd00::1",)
    assert state.vifs["new/0"].owner is Owner.TOOLSTACK
