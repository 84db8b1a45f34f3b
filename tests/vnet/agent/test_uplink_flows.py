"""Which ports of an uplink's bridge bring frames of the physical network."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from vnet.agent.uplink_flows import Nic, nics_of, uplink_ports
from vnet.compile import UplinkPorts
from vnet.objects import Uplink

MAC = "0a:00:00:00:00:01"
GUESTS = {"vif4.0": {"xs-vif-uuid": "web1/0"}, "tap4": {"iface-id": "web1/0"}}
THEIRS = Uplink("trunk0", bridge="xenbr0")
NONE: dict[str, Any] = {"tag": None, "trunks": frozenset(), "vlan_mode": None, "bond_mode": None, "lacp": None}
PATCH = ("phy-trunk0", {}, ("phy-trunk0",))


def _tables(*ports: tuple[str, dict[str, Any], tuple[str, ...]]) -> Any:
    """A switch whose bridge xenbr0 has these ports, as (name, columns, interfaces); ofports count up from 1."""
    interfaces = [name for _, _, names in ports for name in names]
    row = {
        "external_ids": {}, "mtu_request": None, "mtu": 1500, "error": None, "mac_in_use": MAC, "link_state": "up", "lacp_current": None,
    }  # fmt: skip
    return MappingProxyType(
        {
            "Bridge": {"b": {"name": "xenbr0", "ports": [name for name, *_ in ports]}},
            "Port": {name: NONE | columns | {"interfaces": names} for name, columns, names in ports},
            "Interface": {
                name: row | {"name": name, "ofport": at, "external_ids": GUESTS.get(name, {})}
                for at, name in enumerate(interfaces, 1)
            },
        }
    )


def test_of_the_hosts_own_bridge_only_ports_whose_tags_are_on_count() -> None:
    """A frame without a tag that an access port brings is of that port's VLAN, and one of a port with `trunks` may have to be dropped."""
    found = _tables(
        PATCH,
        ("eth0", {}, ("eth0",)),
        ("vif1.0", {"tag": 7}, ("vif1.0",)),
        ("vif2.0", {"trunks": frozenset({7})}, ("vif2.0",)),
        ("vif3.0", {"vlan_mode": "access"}, ("vif3.0",)),
    )
    assert uplink_ports(found, THEIRS) == UplinkPorts((2,), 1)


def test_the_hosts_own_bond_is_balanced_by_mac_if_the_switch_says_so() -> None:
    for columns, by_mac in (
        ({"bond_mode": "balance-slb"}, True),
        ({"bond_mode": "balance-slb", "lacp": "active"}, False),
        ({"bond_mode": "active-backup"}, False),
    ):
        found = _tables(PATCH, ("bond0", columns, ("eth0", "eth1")))
        assert uplink_ports(found, THEIRS) == UplinkPorts((2, 3), 1, by_mac)


def test_without_the_patch_there_is_nothing_to_steer() -> None:
    assert uplink_ports(_tables(("eth0", {}, ("eth0",))), THEIRS) is None


def test_guests_on_the_hosts_own_bridge_are_no_nics() -> None:
    """They are sent no hellos and no LLDP, and none of theirs is heard."""
    found = _tables(PATCH, ("eth0", {}, ("eth0",)), ("vif4.0", {}, ("vif4.0",)), ("tap4", {}, ("tap4",)))
    assert nics_of(found, THEIRS) == {"eth0": Nic(2, MAC)}
