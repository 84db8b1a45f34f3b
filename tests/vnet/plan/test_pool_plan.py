"""Plans as people read them: what changes, why, and what it disrupts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.vnet.plan.pools import BASE, apply, plugged
from vnet.db.changes import state_changes
from vnet.db.history import Author, decoded, record_of
from vnet.objects import Pool, PoolState, Verdict
from vnet.plan import (
    Disruption,
    NothingToExport,
    PlanAction,
    desired_state,
    export_document,
    plan_dict,
    plan_pool,
    render_plan,
)
from vnet.plan.pool import costs_of
from vnet.topology import load


def change(*pairs: tuple[str, str]) -> str:
    """BASE with each text replaced by another."""
    text = BASE
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def plan_text(*pairs: tuple[str, str], used: bool = True) -> list[str]:
    current = plugged(apply(BASE)) if used else apply(BASE)
    return render_plan(plan_pool(current, apply(change(*pairs), current))).splitlines()[:-2]


def test_a_first_apply() -> None:
    text = render_plan(plan_pool(PoolState(), apply(BASE)))
    assert (
        text
        == """\
+ pool lab            underlay mtu 1600, VIFs locked   (new in the document; disrupts nothing)
+ host xen1           10.99.0.1   (new in the document; disrupts nothing)
+ host xen2           10.99.0.2   (new in the document; disrupts nothing)
+ uplink xen1/bond0   lacp eth1+eth2   (new in the document; disrupts nothing)
+ uplink xen2/bond0   eth1   (new in the document; disrupts nothing)
+ network prod        vlan tag 120 uplink bond0 mtu 1500   (new in the document; disrupts nothing)
+ network wire        vlan untagged uplink bond0 mtu 1500   (new in the document; disrupts nothing)
+ network tenant-a    vxlan vni 5001 mtu 1550   (new in the document; disrupts nothing)
+ network spare       gre key 5001 mtu 1558   (new in the document; disrupts nothing)
+ subnet tenant-a-v4  10.1.0.0/24 on tenant-a gateway 10.1.0.1   (new in the document; disrupts nothing)
+ vm web1             on xen1   (new in the document; disrupts nothing)
+ vm web2             on xen2   (new in the document; disrupts nothing)
+ vm fw1              on xen2   (new in the document; disrupts nothing)
+ vif web1/0          tenant-a 2a:2f:49:8a:8e:93 10.1.0.2   (new in the document; disrupts nothing)
+ vif web1/1          prod b2:51:23:94:fc:5b   (new in the document; disrupts nothing)
+ vif web2/0          tenant-a 2e:ae:d5:9d:04:84 10.1.0.3   (new in the document; disrupts nothing)
+ vif fw1/0           wire de:8b:e1:c3:43:a7 trunk [10, 20]   (new in the document; disrupts nothing)

17 to create. Disruption: none."""
    )


def test_nothing_to_do() -> None:
    state = apply(BASE)
    assert render_plan(plan_pool(state, state)) == "Nothing to change: the pool is as the document says."


def test_everything_goes_in_reverse() -> None:
    current = plugged(apply(BASE))
    desired = apply("apiVersion: vnet/v1\npool: lab\nunderlay: {mtu: 1600}\n", current)
    plan = plan_pool(current, desired)
    assert {c.action for c in plan.changes} == {PlanAction.DELETE}
    order = ["vif", "vm", "subnet", "network", "uplink", "host"]
    assert list(dict.fromkeys(c.noun for c in plan.changes)) == order
    assert not desired.bindings
    assert plan.disruption is Disruption.UPLINK


HOST2 = "  xen2: {address: 10.99.0.2, uplinks: {bond0: {members: [eth1]}}}\n"
TENANT = "tenant-a: {type: vxlan}"
WEB2 = "web2: {host: xen2, vifs: [{network: tenant-a}]}"

# What one edit of BASE says, with every VIF plugged.
EDITS: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
    "vni": (
        [(TENANT, "tenant-a: {type: vxlan, vni: 7001}")],
        [
            "~ network tenant-a  vni 5001 -> 7001   (hosts drop each other's frames until all have the new one: 2 VIFs plugged; "
            "VIF interrupted)"
        ],
    ),
    "mtu lower": (
        [(TENANT, "tenant-a: {type: vxlan, mtu: 1400}")],
        ["~ network tenant-a  mtu 1550 -> 1400   (VMs lose larger frames until they are told; VIF interrupted)"],
    ),
    "mtu higher by the underlay": (
        [("{mtu: 1600}", "{mtu: 1700}")],
        [
            "~ pool lab          underlay-mtu 1600 -> 1700   (networks whose MTU follows are listed themselves; disrupts nothing)",
            "~ network tenant-a  mtu 1550 -> 1650   (ports take larger frames; VMs send them once they are told; disrupts nothing)",
            "~ network spare     mtu 1558 -> 1658   (no VIF is plugged; disrupts nothing)",
        ],
    ),
    "tag": (
        [("tag: 120", "tag: 121")],
        [
            "~ network prod  tag 120 -> 121   (it becomes another VLAN of the physical network: 1 VIF plugged; VIF interrupted)"
        ],
    ),
    "type": (
        [(TENANT, "tenant-a: {type: geneve}")],
        ["~ network tenant-a  type vxlan -> geneve   (its frames travel another way: 2 VIFs plugged; VIF interrupted)"],
    ),
    "hosts": (
        [(TENANT, "tenant-a: {type: vxlan, hosts: [xen1, xen2]}")],
        ["~ network tenant-a  hosts everywhere -> [xen1, xen2]   (no VIF is where it leaves; flows only)"],
    ),
    "a network nobody uses": (
        [("spare:    {type: gre}", "spare:    {type: gre, key: 9}")],
        ["~ network spare  key 5001 -> 9   (no VIF is plugged; disrupts nothing)"],
    ),
    "a network goes": (
        [("  spare:    {type: gre}\n", "")],
        ["- network spare  gre key 5001 mtu 1558   (no longer in the document; no VIF is plugged; disrupts nothing)"],
    ),
    "host address": (
        [("10.99.0.2", "10.99.0.9")],
        [
            "~ host xen2  address 10.99.0.2 -> 10.99.0.9   (tunnels to it are cut until every host has its new address: "
            "1 VIF plugged; VIF interrupted)"
        ],
    ),
    "bond gets a member": (
        [("[eth1, eth2]", "[eth1, eth2, eth3]")],
        [
            "~ uplink xen1/bond0  members [eth1, eth2] -> [eth1, eth2, eth3]   (the bond gets a member; the others carry on; "
            "disrupts nothing)"
        ],
    ),
    "bond mode": (
        [("mode: lacp", "mode: balance-slb")],
        ["~ uplink xen1/bond0  mode lacp -> balance-slb   (the bond is set up anew; uplink interrupted)"],
    ),
    "NIC becomes bond": (
        [("{members: [eth1]}", "{members: [eth1, eth2], mode: lacp}")],
        [
            "~ uplink xen2/bond0  members [eth1] -> [eth1, eth2], mode none -> lacp   (other NICs carry it; the bond is set up anew; "
            "uplink interrupted)"
        ],
    ),
    "VM moves in the document": ([("web2: {host: xen2", "web2: {host: xen1")], []),
    "VIF gets another address": (
        [(WEB2, "web2: {host: xen2, vifs: [{network: tenant-a, addresses: [10.1.0.99]}]}")],
        [
            "~ vif web2/0  addresses [10.1.0.3] -> [10.1.0.99]   (what it sends from 10.1.0.3 is dropped; VIF interrupted)"
        ],
    ),
    "VIF is unlocked": (
        [(WEB2, "web2: {host: xen2, vifs: [{network: tenant-a, locking-mode: unlocked}]}")],
        ["~ vif web2/0  locking-mode locked -> unlocked   (nothing that passed is dropped; flows only)"],
    ),
    "VIF is disabled": (
        [(WEB2, "web2: {host: xen2, vifs: [{network: tenant-a, locking-mode: disabled}]}")],
        ["~ vif web2/0  locking-mode locked -> disabled   (it sends and receives nothing any more; VIF interrupted)"],
    ),
    "VIF gets another MAC": (
        [(WEB2, "web2: {host: xen2, vifs: [{network: tenant-a, mac: 0a:00:00:00:00:01}]}")],
        [
            "~ vif web2/0  mac 2e:ae:d5:9d:04:84 -> 0a:00:00:00:00:01   (the VM has the old MAC until it is told; VIF interrupted)"
        ],
    ),
    "VIF moves": (
        [(WEB2, "web2: {host: xen2, vifs: [{network: prod}]}")],
        [
            "~ vif web2/0  network tenant-a -> prod, addresses [10.1.0.3] -> []   (it leaves tenant-a for prod; "
            "what it sends from 10.1.0.3 is dropped; VIF interrupted)"
        ],
    ),
    "trunk grows": (
        [("[10, 20]", "all")],
        ["~ vif fw1/0  trunk [10, 20] -> all   (it gets tags and loses none; flows only)"],
    ),
    "trunk shrinks": (
        [("[10, 20]", "[10]")],
        ["~ vif fw1/0  trunk [10, 20] -> [10]   (it loses tags; VIF interrupted)"],
    ),
    "VM goes": (
        [(f"  {WEB2}\n", "")],
        [
            "- vif web2/0  tenant-a 2e:ae:d5:9d:04:84 10.1.0.3   (no longer in the document; it is plugged; VIF interrupted)",
            "- vm web2     on xen2   (no longer in the document; disrupts nothing)",
        ],
    ),
    "VM comes": (
        [(WEB2, WEB2 + "\n  web3: {vifs: [{network: tenant-a, mac: 0a:00:00:00:00:01}]}")],
        [
            "+ vm web3   (new in the document; disrupts nothing)",
            "+ vif web3/0  tenant-a 0a:00:00:00:00:01 10.1.0.4   (new in the document; disrupts nothing)",
        ],
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit(edit: str) -> None:
    pairs, expected = EDITS[edit]
    assert plan_text(*pairs) == expected


POLICY = (
    BASE.replace(WEB2, "web2: {host: xen2, vifs: [{network: tenant-a, security-groups: [web]}]}")
    + """\
security-groups:
  web:
    rules:
      - {name: http, direction: ingress, protocol: tcp, ports: [80]}
      - {name: peers, direction: ingress, remote: web}
      - {name: no-mail, direction: egress, protocol: tcp, ports: [25], remote: 10.0.0.0/8, action: drop}
  idle: {}
"""
)
CUT = "(connections that it no longer allows are cut: 1 VIF plugged; VIF interrupted)"
KEPT = "(nothing that passed is dropped; flows only)"

# What one edit of POLICY says, with every VIF plugged.
POLICY_EDITS: dict[str, tuple[str, str, list[str]]] = {
    "a port more": ("[80]", "[80, 443]", [f"~ security-group web  rules ~http (ports [80] -> [80, 443])   {KEPT}"]),
    "another port": ("[80]", "[81]", [f"~ security-group web  rules ~http (ports [80] -> [81])   {CUT}"]),
    "from fewer": ("ports: [80]", "ports: [80], remote: 10.0.0.0/8", [f"~ security-group web  rules ~http (remote any -> 10.0.0.0/8)   {CUT}"]),
    "another name": ("name: http", "name: www", [f"~ security-group web  rules -http (ingress tcp [80]), +www (ingress tcp [80])   {KEPT}"]),
    "less is dropped": ("remote: 10.0.0.0/8", "remote: 10.1.0.0/16", [f"~ security-group web  rules ~no-mail (remote 10.0.0.0/8 -> 10.1.0.0/16)   {KEPT}"]),
    "more is dropped": (", remote: 10.0.0.0/8", "", [f"~ security-group web  rules ~no-mail (remote 10.0.0.0/8 -> any)   {CUT}"]),
    "a rule goes": (
        "      - {name: peers, direction: ingress, remote: web}\n", "", [f"~ security-group web  rules -peers (ingress web)   {CUT}"],
    ),
    "another default": (
        "  web:\n", "  web:\n    default: {egress: drop}\n", [f"~ security-group web  egress allow -> drop   {CUT}"],
    ),
    "nobody is in it": (
        "idle: {}", "idle: {default: {ingress: allow}}",
        ["~ security-group idle  ingress drop -> allow   (no VIF in it is plugged; disrupts nothing)"],
    ),
    "it comes": (
        "idle: {}", "idle: {}\n  new: {}",
        ["+ security-group new  0 rules, else ingress drop, egress allow   (new in the document; disrupts nothing)"],
    ),
    "it goes": (
        "  idle: {}\n", "",
        [
            "- security-group idle  0 rules, else ingress drop, egress allow   (no longer in the document; VIFs that leave it "
            "are listed themselves; disrupts nothing)"
        ],
    ),
    "a VIF leaves": (
        ", security-groups: [web]", "",
        ["~ vif web2/0  security-groups [web] -> []   (it is not filtered any more; flows only)"],
    ),
    "a VIF joins": (
        "[web]", "[idle, web]",
        ["~ vif web2/0  security-groups [web] -> [idle, web]   (connections that its groups do not allow are cut; VIF interrupted)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", POLICY_EDITS)
def test_an_edit_of_a_policy(edit: str) -> None:
    old, new, expected = POLICY_EDITS[edit]
    assert old in POLICY
    current = plugged(apply(POLICY))
    plan = plan_pool(current, apply(POLICY.replace(old, new, 1), current))
    assert render_plan(plan).splitlines()[:-2] == expected


def test_a_policy_as_data_and_as_a_document() -> None:
    state = apply(POLICY)
    changes = plan_dict(plan_pool(PoolState(), state))["changes"]
    assert isinstance(changes, list)
    web = next(change["new"] for change in changes if change["name"] == "web")
    assert web["rules"] == [
        {"name": "http", "direction": "ingress", "protocol": "tcp", "ports": [80], "remote": "any", "icmp": [], "action": "allow", "log": False, "source_ports": [], "mandatory": False},
        {"name": "no-mail", "direction": "egress", "protocol": "tcp", "ports": [25], "remote": "10.0.0.0/8", "icmp": [], "action": "drop", "log": False, "source_ports": [], "mandatory": False},
        {"name": "peers", "direction": "ingress", "protocol": None, "ports": [], "remote": "web", "icmp": [], "action": "allow", "log": False, "source_ports": [], "mandatory": False},
    ]  # fmt: skip
    exported = export_document(state)
    assert (
        """
security-groups:
  idle: {}
  web:
    rules:
    - {name: http, direction: ingress, protocol: tcp, ports: [80], remote: any, action: allow}
    - {name: no-mail, direction: egress, protocol: tcp, ports: [25], remote: 10.0.0.0/8, action: drop}
    - {name: peers, direction: ingress, remote: web, action: allow}
"""
        in exported
    )
    assert "addresses: [10.1.0.3], security-groups: [web]}" in exported


def test_unplugged_vifs_are_not_disrupted() -> None:
    assert plan_text((TENANT, "tenant-a: {type: vxlan, vni: 7001}"), used=False) == [
        "~ network tenant-a  vni 5001 -> 7001   (no VIF is plugged; disrupts nothing)"
    ]


def test_a_nic_that_changes_its_uplink_interrupts() -> None:
    lines = plan_text(
        ("{bond0: {mode: lacp, members: [eth1, eth2]}}", "{bond0: {members: [eth1]}, data0: {members: [eth2]}}")
    )
    assert lines == [
        "~ uplink xen1/bond0  members [eth1, eth2] -> [eth1], mode lacp -> none   (other NICs carry it; the bond is set up anew; "
        "uplink interrupted)",
        "+ uplink xen1/data0  eth2   (new in the document; eth2 comes from uplink bond0; uplink interrupted)",
    ]


def test_a_migrated_vm_stays_where_the_toolstack_has_it() -> None:
    """The document says where it starts; while it runs, an apply of the same document is still empty."""
    state = plugged(apply(BASE))
    moved = replace(state, vms={**state.vms, "web1": replace(state.vms["web1"], host="xen2")})
    moved = replace(moved, vifs={**moved.vifs, "web1/0": replace(moved.vifs["web1/0"], host="xen2", epoch=2)})
    assert not plan_pool(moved, apply(BASE, moved))
    stopped = replace(moved, bindings={})
    assert [c.name for c in plan_pool(stopped, apply(BASE, stopped)).changes] == ["web1"]


def test_what_runs_is_kept() -> None:
    state = plugged(apply(BASE))
    running = replace(state.vifs["web2/0"], host="xen2", incoming="xen1", epoch=7)
    state = replace(
        state,
        pool=Pool("lab", 1600, revision=9, generation=4),
        vifs={**state.vifs, "web2/0": running},
    )
    after = apply(change((TENANT, "tenant-a: {type: vxlan, mtu: 1400}")), state)
    assert after.vifs["web2/0"] is running
    assert after.bindings == state.bindings
    assert after.pool == state.pool
    assert plan_pool(state, after).base_revision == 9


def test_the_plan_as_data() -> None:
    current = plugged(apply(BASE))
    desired = apply(change((TENANT, "tenant-a: {type: vxlan, vni: 7001}"), (f"  {WEB2}\n", "")), current)
    data = plan_dict(plan_pool(current, desired))
    assert json.loads(json.dumps(data)) == data
    assert data["base_revision"] == 0
    assert data["disruption"] == "vif"
    assert data["counts"] == {"create": 0, "update": 1, "delete": 2}
    changes = data["changes"]
    assert isinstance(changes, list)
    assert changes[0]["fields"] == {"key": {"old": 5001, "new": 7001}}
    assert changes[0]["new"]["hosts"] == []
    assert changes[1]["new"] is None
    assert changes[1]["old"]["addresses"] == ["10.1.0.3"]


def test_a_pool_without_a_document_is_no_document() -> None:
    with pytest.raises(NothingToExport):
        export_document(PoolState())


def test_export_as_people_read_it() -> None:
    assert (
        export_document(apply(BASE))
        == """\
apiVersion: vnet/v1
pool: lab

underlay: {mtu: 1600}

hosts:
  xen1:
    address: 10.99.0.1
    uplinks:
      bond0: {members: [eth1, eth2], mode: lacp}
  xen2:
    address: 10.99.0.2
    uplinks:
      bond0: {members: [eth1]}

networks:
  prod: {type: vlan, mtu: 1500, tag: 120, uplink: bond0}
  spare: {type: gre, mtu: 1558, key: 5001}
  tenant-a: {type: vxlan, mtu: 1550, vni: 5001}
  wire: {type: vlan, mtu: 1500, tag: untagged, uplink: bond0}

subnets:
  tenant-a-v4: {network: tenant-a, cidr: 10.1.0.0/24, gateway: 10.1.0.1}

vms:
  fw1:
    host: xen2
    vifs:
    - {network: wire, mac: "de:8b:e1:c3:43:a7", addresses: [], trunk: [10, 20]}
  web1:
    host: xen1
    vifs:
    - {network: tenant-a, mac: "2a:2f:49:8a:8e:93", addresses: [10.1.0.2]}
    - {network: prod, mac: "b2:51:23:94:fc:5b", addresses: []}
  web2:
    host: xen2
    vifs:
    - {network: tenant-a, mac: "2e:ae:d5:9d:04:84", addresses: [10.1.0.3]}
"""
    )


def test_a_rule_that_rejects_and_logs_is_exported_and_read_again() -> None:
    rule = b"{name: no-ssh, direction: ingress, action: reject, protocol: tcp, ports: [22], log: true}"
    text = (
        b"apiVersion: vnet/v1\npool: p\nhosts: {a: {address: 10.0.0.1}}\n"
        b"security-groups: {web: {default: {ingress: reject, egress: allow}, rules: [" + rule + b"]}}\n"
    )
    state = desired_state(load(text, "t"), PoolState())
    exported = export_document(state)
    assert "action: reject" in exported
    assert "log: true" in exported
    again = desired_state(load(exported.encode(), "t"), state)
    assert again.groups == state.groups
    group = state.groups["web"]
    quiet = replace(group, rules=(replace(group.rules[0], log=False, action=Verdict.DROP),))
    plan = plan_pool(state, replace(state, groups={"web": quiet}))
    assert [change.name for change in plan.changes] == ["web"]


def test_a_stateless_group_is_exported_and_read_again_and_what_becomes_of_connections_is_planned() -> None:
    text = b"""
apiVersion: vnet/v1
pool: p
hosts: {a: {address: 10.0.0.1}}
networks: {lan: {type: internal}}
security-groups:
  lb: {stateful: false, rules: [{name: dns, direction: egress, protocol: udp, source-ports: [53]}]}
vms: {v: {host: a, vifs: [{network: lan, security-groups: [lb]}]}}
"""
    state = plugged(desired_state(load(text, "t"), PoolState()))
    exported = export_document(state)
    assert "stateful: false" in exported
    assert "source-ports: [53]" in exported
    assert desired_state(load(exported.encode(), "t"), state).groups == state.groups
    tracking = replace(state.groups["lb"], stateful=True, rules=())
    for before, after, cut in (
        (
            replace(tracking, stateful=False),
            tracking,
            "TCP connections whose listening end the ports do not tell are cut",
        ),
        (tracking, replace(tracking, stateful=False), "what no rule allows in its direction is cut, answers too"),
    ):
        changed = plan_pool(replace(state, groups={"lb": before}), replace(state, groups={"lb": after}))
        assert f"stateful {before.stateful} -> {after.stateful}   ({cut}: 1 VIF plugged" in render_plan(changed)


def test_a_group_of_the_pools_tier_disrupts_what_is_plugged() -> None:
    wide = "\nsecurity-groups:\n  base: {tier: pool, rules: [{name: no-smtp, direction: egress, protocol: tcp, ports: [25], action: drop, mandatory: true}]}\n"
    current = plugged(apply(BASE))
    plan = plan_pool(current, apply(BASE + wide, current))
    (made,) = plan.changes
    assert (made.name, made.disruption) == ("base", Disruption.VIF)
    assert "connections that it forbids are cut: " in made.reason


@pytest.mark.parametrize("vms", [10, 1000])
def test_a_record_costs_what_changed_and_not_what_the_pool_has(vms: int) -> None:
    text = BASE.replace(
        "vms:\n", f'vms:\n  "n[0001-{vms:04}]": {{host: xen1, vifs: [{{network: tenant-a, addresses: []}}]}}\n'
    )
    before = apply(text)
    after = apply(
        text.replace(
            "web2: {host: xen2, vifs: [{network: tenant-a}]}",
            "web2: {host: xen2, vifs: [{network: tenant-a, addresses: [10.1.0.99]}]}",
        ),
        before,
    )
    record = record_of(state_changes(before, after), Author(), 2, costs_of(plan_pool(before, after)), 5)
    (change,) = decoded(record.changes)
    assert (change.name, change.new, change.disruption) == ("web2/0", {"addresses": ["10.1.0.99"]}, "none")
    assert record.size < 200
