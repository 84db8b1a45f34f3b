"""A XenServer pool as a document: its hosts, networks, VMs and VIFs, and what it leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.plan.pool import plan_pool
from vnet.topology import TopologyErrors, load
from vnet.xapi.importing import import_document

NULL = "OpaqueRef:NULL"


def network(uuid: str, label: str, bridge: str, **other_config: str) -> dict[str, Any]:
    return {
        "uuid": uuid * 8,
        "name_label": label,
        "bridge": bridge,
        "default_locking_mode": "unlocked",
        "MTU": "1500",
        "other_config": other_config,
    }


def pif(network: str, host: str, device: str, **more: Any) -> dict[str, Any]:
    return {"uuid": f"pif-{network}-{host}", "network": network, "host": host, "device": device, "VLAN": "-1", "management": False, "IP": "",
            "bond_slave_of": NULL, "tunnel_access_PIF_of": [], **more}  # fmt: skip


def vif(uuid: str, network: str, device: str, **more: Any) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "device": device,
        "network": network,
        "VM": "vm",
        "MAC": f"0A:00:00:00:00:0{device}",
        "locking_mode": "network_default",
        **more,
    }


def pool() -> dict[str, dict[str, Any]]:
    """Two hosts: management on eth0, a bond of eth1 and eth2 with VLANs, tunnels of Xen Orchestra, networks of all sorts, and a VM."""
    hosts = ("h1", "h2")
    pifs = {}
    for n, host in enumerate(hosts, 1):
        pifs |= {
            f"{host}0": pif("net0", host, "eth0", management=True, IP=f"10.0.0.{n}"),
            f"{host}1": pif("net1", host, "eth1", bond_slave_of="bond"),
            f"{host}2": pif("net2", host, "eth2", bond_slave_of="bond"),
            f"{host}b": pif("bond", host, "bond0"),
            f"{host}v": pif("vlan", host, "bond0", VLAN="10", VLAN_master_of="v"),
            f"{host}t": pif("tunnel", host, "tunnel0", tunnel_access_PIF_of=[f"tunnel-{host}"]),
            f"{host}m": pif("mixed", host, "eth0", VLAN=str(20 + n)),
        }
    pifs["h1o"] = pif("one", "h1", "eth0", VLAN="30")
    return {
        "host": {f"h{n}": {"uuid": f"{n}", "hostname": f"xen{n}", "address": f"192.0.2.{n}", "other_config": {}} for n in (1, 2)},
        "network": {
            "net0": network("0", "Pool-wide network associated with eth0", "xenbr0"),
            "net1": network("1", "Pool-wide network associated with eth1", "xenbr1"),
            "net2": network("2", "Pool-wide network associated with eth2", "xenbr2"),
            "bond": {**network("3", "Bond 1+2", "xapi0"), "MTU": "9000"},
            "vlan": network("4", "DMZ \u202e \U0001f600", "xapi1", **{"vnet-network": "dmz", "vnet-pool": "p"}),  # it is taken over
            "tunnel": network("5", "dmz", "xapi2", **{"xo:sdn-controller:vni": "77"}),
            "mixed": network("6", "mixed", "xapi3"),
            "one": network("7", "Of one host", "xapi4"),
            "inner": network("8", "\U0001f600", "xapi5"),
            "himn": network("9", "Host internal management network", "xenapi", is_host_internal_management_network="true"),
            "ours": {**network("a", "tenant", "vn-1", **{"vnet-network": "tenant", "vnet-pool": "p"}), "managed": False},
        },
        "pif": pifs,
        "tunnel": {f"tunnel-{host}": {"uuid": f"t{host}", "access_PIF": f"{host}t", "protocol": "vxlan"} for host in hosts},
        "vm": {
            "vm": {"uuid": "5a1f8d1e-0000-4000-8000-000000000001", "name_label": "web \u202e1\n", "power_state": "Running", "resident_on": "h2",
                   "scheduled_to_be_resident_on": NULL, "tags": ["web"]},
            "template": {"uuid": "t", "name_label": "t", "power_state": "Halted", "resident_on": NULL, "scheduled_to_be_resident_on": NULL,
                         "is_a_template": True},
        },
        "vif": {
            "a": vif("5a1f8d1e-0000-4000-8000-000000000002", "vlan", "0", locking_mode="locked", ipv4_allowed=["10.1.0.1"],
                     qos_algorithm_type="ratelimit", qos_algorithm_params={"kbps": "100"}),
            "b": vif("5a1f8d1e-0000-4000-8000-000000000003", "tunnel", "1", other_config={"vnet-security-groups": "web"}),
            "c": vif("5a1f8d1e-0000-4000-8000-000000000004", "himn", "2"),
            "d": {**vif("5a1f8d1e-0000-4000-8000-000000000005", "vlan", "3"), "MAC": 7},
        },
    }  # fmt: skip


EXPECTED = """\
# network pool-wide-network-associated-with-eth0: 'Pool-wide network associated with eth0' (00000000), bridge xenbr0
# network bond-1-2: 'Bond 1+2' (33333333), bridge xapi0
# network dmz-44444444: 'DMZ \ufffd \U0001f600' (44444444), bridge xapi1
# network dmz-55555555: 'dmz' (55555555), bridge xapi2
# network of-one-host: 'Of one host' (77777777), bridge xapi4
# network network-88888888: '\U0001f600' (88888888), bridge xapi5
# Left out: mtu 1500 of network 'dmz' (55555555): it is 1450, what fits into the underlay's 1500.
# Left out: mtu 9000 of network 'Bond 1+2' (33333333): it is 1500, what fits into the underlay's 1500.
# Left out: network 'Host internal management network' (99999999): it is xapi's own.
# Left out: network 'Pool-wide network associated with eth1' (11111111): its NICs are a bond's.
# Left out: network 'Pool-wide network associated with eth2' (22222222): its NICs are a bond's.
# Left out: network 'mixed' (66666666): it is another VLAN, or of other NICs, on some hosts than on others.
# Left out: network 'tenant' (aaaaaaaa): it is published from vnet.
# Left out: security groups web of VIF 5a1f8d1e-0000-4000-8000-000000000003, which xapi names and does not have.
# Left out: vif 5a1f8d1e-0000-4000-8000-000000000005, whose record cannot be read: Expected `str`, got `int` - at `$.MAC`.
"""


def test_a_pool_is_a_document_whose_plan_is_empty() -> None:
    text = import_document(pool(), "xen")
    comments = "".join(line + "\n" for line in text.splitlines() if line.startswith("#"))
    assert comments == EXPECTED
    applied = desired_state(load(text.encode(), "xen.vnet.yaml"), PoolState())
    again = desired_state(load(import_document(pool(), "xen").encode(), "xen.vnet.yaml"), applied)
    assert plan_pool(applied, again).changes == ()
    assert {host.name: (host.address, [uplink.bridge for uplink in host.uplinks]) for host in applied.hosts.values()} == {
        "xen1": ("10.0.0.1", ["xapi0", "xenbr0"]), "xen2": ("10.0.0.2", ["xapi0", "xenbr0"]),
    }  # fmt: skip
    assert {name: (found.type.value, found.tag, None if found.uplink else found.key, found.uplink, found.mtu, sorted(found.hosts)) for name, found in applied.networks.items()} == {
        "bond-1-2": ("vlan", 0, None, "xapi0", 1500, []),
        "dmz-44444444": ("vlan", 10, None, "xapi0", 1500, []),
        "dmz-55555555": ("vxlan", None, 77, None, 1450, []),
        "network-88888888": ("internal", None, None, None, 1500, []),
        "of-one-host": ("vlan", 30, None, "xenbr0", 1500, ["xen1"]),
        "pool-wide-network-associated-with-eth0": ("vlan", 0, None, "xenbr0", 1500, []),
    }  # fmt: skip
    (vm,) = applied.vms.values()
    assert (vm.title, vm.labels, vm.host) == ("web \ufffd1\ufffd", ("web=true",), "xen2")
    assert [(found.network, found.locking_mode.value, found.addresses, found.qos, found.index) for found in applied.vifs.values()] == [
        ("dmz-44444444", "locked", ("10.1.0.1",), "xapi-100kib", 0), ("dmz-55555555", "unlocked", (), None, 1),
    ]  # fmt: skip
    assert not desired_state(load(import_document(pool(), "xen", vms=False).encode(), "n"), PoolState()).vms


def test_tunnels_of_xen_orchestra_stay_and_their_bridges_are_uplinks() -> None:
    """So that their VIFs can be taken over."""
    state = desired_state(load(import_document(pool(), "xen", keep_tunnels=True).encode(), "n"), PoolState())
    found = state.networks["dmz-55555555"]
    assert (found.type.value, found.tag, found.uplink, found.mtu) == ("vlan", 0, "xapi2", 1500)
    assert {uplink.bridge for host in state.hosts.values() for uplink in host.uplinks} == {"xapi0", "xapi2", "xenbr0"}


def test_a_pool_that_contradicts_itself_is_refused() -> None:
    twice = pool()
    twice["vif"]["b"]["MAC"] = "01:00:00:00:00:01"
    with pytest.raises(TopologyErrors, match="mac"):
        import_document(twice, "xen")
