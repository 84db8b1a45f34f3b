"""What runs on hosts of libvirt as a document: what the pool has stays, and the rest is new."""

from __future__ import annotations

import pytest

from tests.vnet.libvirt.domains import domain_xml, interface_xml
from vnet.libvirt.domain import Domain, read_domain
from vnet.libvirt.importing import imported_document
from vnet.objects import PoolState
from vnet.plan import desired_state, plan_pool
from vnet.topology import load

POOL = """\
apiVersion: vnet/v1
pool: kvm
hosts:
  kvm1: {address: 10.99.0.1, uplinks: {trunk0: {bridge: ovsbr0}}}
  kvm2: {address: 10.99.0.2}
underlay: {mtu: 1600}
networks:
  blue: {type: vxlan}
  prod: {type: vlan, uplink: trunk0, tag: 42, hosts: [kvm1]}
plug-bridges:
  vn-blue: {network: blue}
vms:
  web: {vifs: [{id: known, network: blue, mac: "0a:00:00:00:00:09"}]}
"""
UUIDS = [f"7a1f8d1e-0000-4000-8000-00000000000{n}" for n in range(4)]
VLAN = "<vlan><tag id='{}'/></vlan>"
TRUNK = "<vlan trunk='yes'><tag id='20'/><tag id='10'/></vlan>"


def domain(number: int, *interfaces: str) -> Domain:
    return read_domain(domain_xml(f"vm {number}", UUIDS[number], *interfaces))


def guest_interface(number: int, bridge: str = "br-int", profile: str = "", vlan: str = "") -> str:
    return interface_xml(f"vif-{number}", f"0a:00:00:00:01:0{number}", bridge, profile, [vlan] if vlan else [])


def test_guests_that_the_pool_does_not_know_are_new_and_then_the_plan_is_empty() -> None:
    running = {
        "kvm1": [
            domain(0, interface_xml("known", "0a:00:00:00:00:09"), guest_interface(1, profile="blue")),
            domain(1, guest_interface(2, "ovsbr0", vlan=VLAN.format(42)), guest_interface(3, "ovsbr0", vlan=TRUNK)),
        ],
        "kvm2": [
            domain(2, guest_interface(4, "vn-blue"), guest_interface(5)),
            domain(3, guest_interface(6, "ovsbr1", vlan=VLAN.format(7))),
        ],
    }
    current = desired_state(load(POOL.encode(), "pool"), PoolState())
    text, left_out = imported_document(POOL, running, set())
    assert left_out == ["VIF vif-5 of vm 2 on host kvm2: bridge br-int says no network"]
    assert text.startswith(f"# Left out: {left_out[0]}.\n")
    after = desired_state(load(text.encode(), "imported"), current)
    assert {id: (vif.network, vif.vm, vif.trunk.tags if vif.trunk else ()) for id, vif in after.vifs.items()} == {
        "known": ("blue", "web", ()),
        "vif-1": ("blue", UUIDS[0], ()),
        "vif-2": ("prod", UUIDS[1], ()),
        "vif-3": ("trunk0-untagged", UUIDS[1], (10, 20)),
        "vif-4": ("blue", UUIDS[2], ()),
        "vif-6": ("ovsbr1-7", UUIDS[3], ()),
    }
    assert after.vms[UUIDS[1]].title == "vm 1"
    assert after.vifs["known"] == current.vifs["known"]
    changed = {(change.noun, change.name) for change in plan_pool(current, after).changes}
    assert ("uplink", "kvm2/ovsbr1") in changed
    assert not {("host", "kvm1"), ("network", "blue"), ("network", "prod"), ("vif", "known")} & changed
    again, _ = imported_document(text.partition("\n")[2], running, set())
    assert again == text
    assert not plan_pool(after, desired_state(load(again.encode(), "again"), after))


def test_what_the_toolstack_made_stays_its_own() -> None:
    running = {
        "kvm1": [domain(0, guest_interface(1, profile="blue")), domain(1, guest_interface(2, profile="blue"))],
        "kvm9": [domain(2, guest_interface(3, "ovsbr0"))],
    }
    text, left_out = imported_document(POOL, running, {"vif-1", UUIDS[1], "kvm9"})
    assert left_out == [
        "VIF vif-2 of vm 1 on host kvm1: its VM is the toolstack's",
        "VIF vif-3 of vm 2 on host kvm9: bridge ovsbr0 says no network",
    ]
    current = desired_state(load(POOL.encode(), "pool"), PoolState())
    assert not plan_pool(current, desired_state(load(text.encode(), "imported"), current))


@pytest.mark.parametrize(
    ("vlan", "expected"),
    [
        ("", (None, ())),
        (VLAN.format(42), (42, ())),
        (TRUNK, (None, (10, 20))),
        ("<vlan trunk='yes'><tag id='42' nativeMode='untagged'/><tag id='10'/></vlan>", (42, (10,))),
        ("<vlan><tag id='x'/></vlan>", (None, ())),
    ],
    ids=["none", "access", "trunk", "native", "wrong"],
)
def test_the_vlan_of_an_interface(vlan: str, expected: tuple[int | None, tuple[int, ...]]) -> None:
    (found,) = domain(0, guest_interface(1, vlan=vlan)).interfaces
    assert (found.tag, found.trunk) == expected
