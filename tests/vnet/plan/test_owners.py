"""Documents and the toolstack's objects: what stays, what is refused, and how that reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.vnet.plan.pools import BASE, apply, plugged, with_toolstack_vif
from vnet.objects import (
    Binding,
    BindingState,
    Direction,
    Host,
    Network,
    NetworkType,
    Owner,
    PoolState,
    Rule,
    SecurityGroup,
    Subnet,
    Trunk,
    Uplink,
    Vif,
    Vm,
)
from vnet.plan import export_document, plan_pool
from vnet.topology import TopologyErrors

THEIRS = Owner.TOOLSTACK
VIF = Vif("9a-uuid", "tenant-a", "0e:00:00:00:00:01", addresses=("10.1.0.50",), owner=THEIRS)
EMPTY = "apiVersion: vnet/v1\npool: lab\n"


def refusal(text: str, current: PoolState) -> str:
    with pytest.raises(TopologyErrors) as caught:
        apply(text, current)
    return str(caught.value)


def without(*lines: str) -> str:
    """BASE without lines that begin so."""
    kept = [line for line in BASE.splitlines() if not line.strip().startswith(lines)]
    return "\n".join(kept) + "\n"


def test_what_the_toolstack_made_stays() -> None:
    base = apply(BASE)
    state = replace(
        with_toolstack_vif(base, VIF),
        networks={**base.networks, "theirs": Network("theirs", NetworkType.VXLAN, 99, 1400, 6000, owner=THEIRS)},
        hosts={**base.hosts, "xen9": Host("xen9", "10.99.0.9", (Uplink("bond0", ("eth0",)),), THEIRS)},
        vms={**base.vms, "vm9": Vm("vm9", "xen9", owner=THEIRS)},
        subnets={**base.subnets, "s9": Subnet("s9", "theirs", "10.9.0.0/24", owner=THEIRS)},
    )
    assert not plan_pool(state, apply(BASE, state))
    assert apply(BASE, state) == state
    assert "9a-uuid" not in export_document(state)
    assert "theirs" not in export_document(state)
    assert export_document(state).startswith(
        "# Left out, since they are the toolstack's and stay when this is applied: "
    )


def test_a_network_with_vifs_cannot_go() -> None:
    state = with_toolstack_vif(
        with_toolstack_vif(apply(BASE), VIF), replace(VIF, id="8b-uuid", mac="0e:00:00:00:00:02")
    )
    text = without("tenant-a:", "tenant-a-v4:", "web1:", "web2:")
    assert refusal(text, state) == (
        "lab.vnet.yaml:7:1: network tenant-a is not in the document, and cannot go: "
        "the toolstack still has VIF 8b-uuid, VIF 9a-uuid there\n"
        "   7 | networks:\n"
        "     | ^^^^^^^^\n"
        "       = delete or move those first, or put it back into the document"
    )
    assert "network tenant-a is not in the document" in refusal(EMPTY, state)


def test_a_network_with_only_the_documents_vifs_goes_with_them() -> None:
    state = plugged(apply(BASE))
    after = apply(without("tenant-a:", "tenant-a-v4:", "web1:", "web2:"), state)
    assert set(after.vifs) == {"fw1/0"}
    assert set(after.bindings) == {("fw1/0", "xen2")}


def test_a_host_the_toolstack_uses_cannot_go() -> None:
    state = with_toolstack_vif(apply(BASE), VIF)
    text = without("xen2:", "web2:", "fw1:")
    assert set(apply(text, state).hosts) == {"xen1"}
    binding = Binding(VIF.id, "xen2", VIF.network, VIF.mac, 1)
    assert "the toolstack still has VIF 9a-uuid there" in refusal(
        text, replace(state, bindings={(VIF.id, "xen2"): binding})
    )
    assert "VIF 9a-uuid" in refusal(text, with_toolstack_vif(state, replace(VIF, host="xen2")))
    assert "VIF 9a-uuid" in refusal(text, with_toolstack_vif(state, replace(VIF, incoming="xen2")))
    assert "VM vm9" in refusal(text, replace(state, vms={**state.vms, "vm9": Vm("vm9", "xen2", owner=THEIRS)}))
    theirs = Network("theirs", NetworkType.VXLAN, 99, 1400, 6000, hosts=frozenset({"xen2"}), owner=THEIRS)
    assert "network theirs" in refusal(text, replace(state, networks={**state.networks, "theirs": theirs}))


def test_a_subnet_cannot_leave_the_address_of_a_vif_of_the_toolstack() -> None:
    state = with_toolstack_vif(apply(without("web")), replace(VIF, vm=None))
    text = without("web").replace("cidr: 10.1.0.0/24", "cidr: 10.1.0.0/27")
    assert "address 10.1.0.50 of VIF 9a-uuid is in no subnet of network tenant-a" in refusal(text, state)


def test_a_vm_with_the_toolstacks_vifs_cannot_go() -> None:
    state = with_toolstack_vif(apply(BASE), replace(VIF, vm="web2", index=1))
    assert "VM web2 is not in the document, and cannot go: the toolstack still has VIF 9a-uuid" in refusal(
        without("web2:"), state
    )


def test_a_network_cannot_leave_a_host_under_the_toolstack() -> None:
    state = with_toolstack_vif(apply(without("web2:")), replace(VIF, host="xen2"))
    text = without("web2:").replace("tenant-a: {type: vxlan}", "tenant-a: {type: vxlan, hosts: [xen1]}")
    assert "network tenant-a cannot leave host xen2: the toolstack's VIF 9a-uuid there" in refusal(text, state)


def migrating() -> tuple[str, PoolState]:
    """web1, the document's, is prepared to move from xen1 to xen2, where nothing else is."""
    text = without("web2:", "fw1:")
    state = plugged(apply(text))
    vifs = {id: replace(vif, host="xen1", incoming="xen2") for id, vif in state.vifs.items()}
    held = {
        (id, "xen2"): Binding(id, "xen2", vif.network, vif.mac, 2, BindingState.HELD, ready=True)
        for id, vif in vifs.items()
    }
    return text, replace(state, vifs=vifs, bindings={**state.bindings, **held})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  xen2: {", "  xen3: {", "host xen2 is not in the document, and cannot go"),
        ("  xen1: {", "  xen3: {", "host xen1 is not in the document, and cannot go"),
        ("{type: vxlan}", "{type: vxlan, hosts: [xen1]}", "network tenant-a cannot leave host xen2: VIF web1/0 there"),
        ("{type: vxlan}", "{type: vxlan, hosts: [xen2]}", "network tenant-a cannot leave host xen1: VIF web1/0 there"),
        ("tag: 120, uplink: bond0", "tag: 120, uplink: bond0, hosts: [xen1]", "network prod cannot leave host xen2"),
        (", uplinks: {bond0: {members: [eth1]}}", "", "network prod may be on host xen2, which has no uplink bond0"),
        ("xen2: {address: 10.99.0.2, ", "xen2: {", "host xen2 has no 'address'"),
        ("{network: tenant-a}", "{network: spare}", "VIF web1/0 is migrating to host xen2, so it stays on network"),
    ],
    ids=lambda text: text if "{" not in text else "",
)
def test_a_document_cannot_take_an_end_of_a_migration_away(old: str, new: str, message: str) -> None:
    text, state = migrating()
    assert apply(text, state) == state
    assert old in text
    moved = text.replace(old, new)
    if "xen1" in old or "[xen2]" in new:  # the document starts the VM elsewhere, which is no fault
        moved = moved.replace("host: xen1", "host: xen2")
    assert message in refusal(moved, state)


def test_a_trunk_keeps_its_network_untagged() -> None:
    state = with_toolstack_vif(apply(without("fw1:")), replace(VIF, network="wire", trunk=Trunk(), addresses=()))
    text = without("fw1:").replace("tag: untagged", "tag: 7")
    assert "network wire has the toolstack's trunk VIF 9a-uuid, so it stays VLAN and untagged" in refusal(text, state)


WEB = "security-groups: {web: {rules: [{name: http, direction: ingress, protocol: tcp, ports: [80]}]}}\n"


def test_a_group_that_the_toolstack_uses_cannot_go() -> None:
    state = with_toolstack_vif(apply(BASE + WEB), replace(VIF, groups=("web",)))
    assert state.groups["web"].number == 1
    said = "security group web is not in the document, and cannot go: the toolstack still has VIF 9a-uuid there"
    assert said in refusal(BASE, state)
    peers = (Rule("peers", Direction.INGRESS, remote=("web",)),)
    theirs = {**apply(BASE + WEB).groups, "theirs": SecurityGroup("theirs", 7, rules=peers, owner=THEIRS)}
    state = replace(apply(BASE + WEB), groups=theirs)
    assert "the toolstack still has a rule of security group theirs there" in refusal(BASE, state)
    assert apply(BASE + WEB, state) == state
    assert "theirs" not in export_document(state)
    freed = replace(state, groups={**theirs, "theirs": replace(theirs["theirs"], rules=())})
    assert set(apply(BASE, freed).groups) == {"theirs"}
    assert apply(BASE + "security-groups: {other: {}}\n", freed).groups["other"].number == 2


NAMES: dict[str, tuple[PoolState, str]] = {
    "host": (PoolState(hosts={"xen2": Host("xen2", owner=THEIRS)}), "host xen2"),
    "network": (
        PoolState(networks={"spare": Network("spare", NetworkType.INTERNAL, 1, 1500, owner=THEIRS)}),
        "network spare",
    ),
    "subnet": (
        PoolState(subnets={"tenant-a-v4": Subnet("tenant-a-v4", "x", "10.0.0.0/8", owner=THEIRS)}),
        "subnet tenant-a-v4",
    ),
    "security group": (
        PoolState(groups={"web": SecurityGroup("web", 1, owner=THEIRS)}),
        "security group web",
    ),
    "VM": (PoolState(vms={"web2": Vm("web2", owner=THEIRS)}), "VM web2"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_the_toolstack_are_not_taken(kind: str) -> None:
    state, who = NAMES[kind]
    said = refusal(BASE + WEB, state)
    assert f"{who} is there already, made by the toolstack\n" in said


def clash(text: str, **theirs: object) -> str:
    return refusal(text, replace(apply(EMPTY), **theirs))  # type: ignore[arg-type]


def test_clashes_with_the_toolstack() -> None:
    def net(kind: NetworkType, key: int | None, **more: object) -> dict[str, Network]:
        return {"theirs": Network("theirs", kind, 50, 1400, key, owner=THEIRS, **more)}  # type: ignore[arg-type]

    tenant = BASE.replace("{type: vxlan}", "{type: vxlan, vni: 6000}")
    assert "VNI 6000 is that of network theirs, made by the toolstack" in clash(
        tenant, networks=net(NetworkType.VXLAN, 6000)
    )
    assert "tag 120 on uplink bond0 is network theirs, made by the toolstack" in clash(
        BASE, networks=net(NetworkType.VLAN, 6000, tag=120, uplink="bond0")
    )
    other_host = {"xen9": Host("xen9", "10.99.0.1", (Uplink("bond0", ("eth0",)),), THEIRS)}
    assert "host xen1 has the address of host xen9, made by the toolstack" in clash(BASE, hosts=other_host)
    assert "host xen9 has no 'address', and tunnel networks may be on it: tenant-a, spare" in clash(
        BASE, hosts={"xen9": Host("xen9", None, (Uplink("bond0", ("eth0",)),), THEIRS)}
    )
    assert "network prod may be on host xen9, which has no uplink bond0" in clash(
        BASE, hosts={"xen9": Host("xen9", "10.99.0.9", (), THEIRS)}
    )
    theirs = {VIF.id: VIF}
    address = BASE.replace("web2: {host: xen2, vifs: [{network: tenant-a", "\\g<0>, addresses: [10.1.0.50]").replace(
        "\\g<0>", "web2: {host: xen2, vifs: [{network: tenant-a"
    )
    assert "address 10.1.0.50 on network tenant-a is taken by VIF 9a-uuid, made by the toolstack" in clash(
        address, vifs=theirs
    )
    mac = address.replace("addresses: [10.1.0.50]", "mac: 0e:00:00:00:00:01")
    assert "MAC 0e:00:00:00:00:01 is that of VIF 9a-uuid on the same network, made by the toolstack" in clash(
        mac, vifs=theirs
    )
    named = address.replace("addresses: [10.1.0.50]", "id: 9a-uuid")
    assert "VIF 9a-uuid is there already, made by the toolstack" in clash(named, vifs=theirs)


def test_what_the_document_sets_must_suit_the_toolstack() -> None:
    theirs = replace(VIF, addresses=("10.1.0.1",))
    assert "gateway 10.1.0.1 of subnet tenant-a-v4 is taken by VIF 9a-uuid, made by the toolstack" in clash(
        BASE, vifs={VIF.id: theirs}
    )
    large = Network("theirs", NetworkType.VXLAN, 50, 1450, 6000, owner=THEIRS)
    said = clash(BASE.replace("mtu: 1600", "mtu: 1450"), networks={"theirs": large})
    assert (
        "lab.vnet.yaml:6:17: mtu 1450 of network theirs does not fit: 1450 (underlay) - 50 (vxlan over IPv4) = 1400\n"
        in said
    )


def test_allocation_goes_around_the_toolstack() -> None:
    theirs = replace(VIF, addresses=("10.1.0.2",))
    state = with_toolstack_vif(apply(EMPTY), theirs)
    assert [apply(BASE, state).vifs[name].addresses for name in ("web1/0", "web2/0")] == [("10.1.0.3",), ("10.1.0.4",)]


def test_what_was_allocated_is_not_given_away() -> None:
    state = apply(BASE)
    text = BASE.replace("spare:    {type: gre}", "spare:    {type: gre}\n  late: {type: vxlan, vni: 5001}")
    assert refusal(text, state) == (
        "lab.vnet.yaml:12:28: VNI 5001 is that of network tenant-a, on line 10\n"
        "  12 |   late: {type: vxlan, vni: 5001}\n"
        "     |                            ^^^^\n"
        "       = each vxlan network has its own; leave it out and one is allocated"
    )
    mac = state.vifs["web1/0"].mac
    clashes = (
        (f"mac: '{mac}'", f"MAC {mac} is that of VIF web1/0 on the same network"),
        ("addresses: [10.1.0.2]", "address 10.1.0.2 on network tenant-a is taken by VIF web1/0"),
    )
    for words, message in clashes:
        text = BASE.replace(
            "web2: {host: xen2, vifs: [{network: tenant-a", f"web2: {{host: xen2, vifs: [{{network: tenant-a, {words}"
        )
        assert message in refusal(text, state)


def test_two_vifs_change_addresses_when_both_say_so() -> None:
    state = apply(BASE)
    text = BASE.replace(
        "web1: {host: xen1, vifs: [{network: tenant-a}",
        "web1: {host: xen1, vifs: [{network: tenant-a, addresses: [10.1.0.3]}",
    )
    text = text.replace(
        "web2: {host: xen2, vifs: [{network: tenant-a}",
        "web2: {host: xen2, vifs: [{network: tenant-a, addresses: [10.1.0.2]}",
    )
    assert apply(text, state).vifs["web1/0"].addresses == ("10.1.0.3",)


def test_a_subnet_that_is_full() -> None:
    text = BASE.replace("10.1.0.0/24", "10.1.0.0/30")
    assert "subnet tenant-a-v4 (10.1.0.0/30) has no free address for VIF web2/0" in refusal(text, PoolState())


def test_another_pools_document_is_refused() -> None:
    state = apply(BASE)
    said = refusal(BASE.replace("pool: lab", "pool: prod"), state)
    assert said.startswith("lab.vnet.yaml:2:7: this document is for pool prod, and the database holds pool lab\n")
    assert "would remove all that the other pool's document made" in said
    empty = apply(EMPTY)
    renamed = apply(EMPTY.replace("lab", "prod"), empty)
    assert renamed.pool is not None
    assert renamed.pool.name == "prod", "nothing would be lost"
