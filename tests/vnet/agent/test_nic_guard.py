"""What an agent leaves out of its rows because the host uses it. On plain values."""

from __future__ import annotations

from ovsctl.vswitch import Bridge, Interface, Port, PortBondMode, VSwitch
from vnet.agent.nic_guard import carried, hold_back, nics

PATCH = Port("phy-trunk0", (Interface("phy-trunk0", type="patch", options={"peer": "trunk0"}),))
BOND = Port("bond-b", (Interface("eth2"), Interface("eth3")), bond_mode=PortBondMode.ACTIVE_BACKUP)
ROWS = VSwitch((Bridge("br-trunk0", ports=(Port("eth1"), PATCH)), Bridge("br-b", ports=(BOND,))))
ALL = frozenset({"eth1", "eth2", "eth3"})


def ports(rows: VSwitch) -> dict[str, list[str]]:
    return {
        port.name: [i.name for i in port.interfaces]
        for bridge in rows.bridges
        for port in bridge.ports
        if port.name != bridge.name
    }


def test_nics_are_the_hosts_own_devices() -> None:
    assert nics(ROWS) == {"eth1": "br-trunk0", "eth2": "br-b", "eth3": "br-b"}


def test_only_what_is_new_and_used_is_held_back() -> None:
    used = {"eth1": ["10.0.0.5/24"], "eth3": ["fd05::5/64", "the default route"], "eth9": ["10.9.0.1/24"]}
    rows, why = hold_back(ROWS, ALL, used)
    assert ports(rows) == {"phy-trunk0": ["phy-trunk0"], "bond-b": ["eth2"]}
    assert why.keys() == {"interface eth1", "interface eth3"}
    assert why["interface eth1"].startswith("NIC eth1 carries 10.0.0.5/24: move it to br-trunk0 first")
    assert why["interface eth3"].startswith(
        "NIC eth3 carries fd05::5/64 and the default route: move them to br-b first"
    )
    assert hold_back(ROWS, frozenset({"eth2"}), used) == (ROWS, {})


def test_a_bond_of_which_nothing_is_left_is_left_out() -> None:
    rows, why = hold_back(ROWS, ALL, {"eth2": ["10.0.0.5/24"], "eth3": ["10.0.1.5/24"]})
    assert ports(rows) == {"eth1": ["eth1"], "phy-trunk0": ["phy-trunk0"]}
    assert len(why) == 2


def test_the_kernel_is_asked() -> None:
    assert "127.0.0.1/8" in carried()["lo"]
    assert not any(text.startswith("fe80:") for texts in carried().values() for text in texts)
