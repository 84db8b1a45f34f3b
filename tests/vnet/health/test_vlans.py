"""VLANs that the physical switch of a lab does not carry: what all hosts find when they look at once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.lab.pools import pool
from vnet import api
from vnet.client import Client
from vnet.lab import Lab, links
from vnet.lab.names import NETNS_DIR, underlay_netns
from vnet.objects import BondMode, Network, NetworkType, Uplink

BOND = Uplink("trunk0", ("eth1", "eth2"), BondMode.ACTIVE_BACKUP)
# The physical switch's ports, in the underlay's namespace: h<host>n<NIC>.
XEN2, XEN3, XEN3_SECOND = "h1n0", "h2n0", "h2n1"


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    made = pool(uplink=BOND)
    for number, tag in enumerate((0, 30, 40), 2):
        name = f"vlan{tag}"
        made.networks[name] = Network(name, NetworkType.VLAN, number, 1500, key=number, tag=tag, uplink="trunk0")
    with Lab.up(made, name=new_name(), daemons=True) as lab:
        lab.start_all()
        yield lab


def look(lab: Lab) -> api.Health:
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        return client.look(wait_s=30)


def found(lab: Lab) -> list[tuple[str, str]]:
    return [(it.code, it.text) for it in look(lab).findings if not it.code.startswith(("tunnel", "clock"))]


@contextmanager
def switch(lab: Lab, *rules: str) -> Iterator[None]:
    """The physical switch drops what these rules match, by nft(8)."""
    enter = ["nsenter", f"--net={NETNS_DIR / underlay_netns(lab.spec.name)}", "nft"]
    table = "".join(f"add rule bridge vlans drops {rule} drop\n" for rule in rules)
    chain = "add table bridge vlans\nadd chain bridge vlans drops { type filter hook forward priority 0; }\n"
    subprocess.run([*enter, "-f", "-"], input=chain + table, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*enter, "delete", "table", "bridge", "vlans"], check=True)


def both(port: str, match: str) -> tuple[str, str]:
    return f'iifname "{port}" {match}', f'oifname "{port}" {match}'


def test_a_sound_switch_carries_every_vlan_within_ten_seconds(lab: Lab) -> None:
    health = look(lab)
    assert not [it for it in health.findings if it.code.startswith(("vlan", "uplink"))], health.findings
    assert [(it.host, it.links, it.vlans, it.heard) for it in health.uplinks] == [
        (host, ["eth1", "eth2"], [0, 30, 40], sorted({"xen1", "xen2", "xen3"} - {host}))
        for host in ("xen1", "xen2", "xen3")
    ]
    for host in ("xen1", "xen2", "xen3"):  # a bridge switches by MAC alone again
        flows = lab.ovs(host).ofctl("dump-flows", "br-trunk0")
        assert "controller" not in flows.lower(), flows


def test_a_vlan_that_is_missing_on_a_hosts_ports_names_them_and_is_stated(lab: Lab) -> None:
    with switch(lab, *both(XEN3, "vlan id 40"), *both(XEN3_SECOND, "vlan id 40")):
        ((code, text),) = found(lab)
        assert (code, text) == (
            "vlan-missing",
            "VLAN 40 is missing on xen3's switch port (uplink trunk0, eth1 and eth2)",
        )
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            assert text in [it.text for it in client.health().findings]
            assert text in [it.text for it in client.status().problems]
    assert found(lab) == []


def test_a_vlan_that_is_missing_on_one_member_of_a_bond_names_the_member(lab: Lab) -> None:
    with switch(lab, *both(XEN3_SECOND, "vlan id 30")):
        assert found(lab) == [
            ("vlan-missing", "VLAN 30 is missing on the switch port of xen3's eth2, a member of uplink trunk0")
        ]


def test_a_vlan_that_comes_in_and_does_not_leave(lab: Lab) -> None:
    with switch(lab, f'iifname "{XEN3}" vlan id 40', f'iifname "{XEN3_SECOND}" vlan id 40'):
        ((code, text),) = found(lab)
    assert code == "vlan-one-way"
    assert "xen3" in text
    assert "leaves it to no other host" in text


def test_an_mtu_that_is_too_small_on_a_hosts_ports(lab: Lab) -> None:
    with switch(
        lab, f'iifname "{XEN3}" vlan id 40 meta length > 1400', f'iifname "{XEN3_SECOND}" vlan id 40 meta length > 1400'
    ):
        ((code, text),) = found(lab)
    assert (code, "from xen3 to xen1, xen2" in text) == ("vlan-mtu", True)


def test_a_vlan_that_no_port_has_and_an_uplink_without_a_switch(lab: Lab) -> None:
    with switch(lab, "vlan id 40"):
        ((code, text),) = found(lab)
    assert (code, text) == ("vlan-missing", "VLAN 40 of uplink trunk0: no frame passes between xen1, xen2, xen3")
    with switch(lab, *both(XEN3, ""), *both(XEN3_SECOND, "")):
        ((code, text),) = found(lab)
    assert (code, text) == ("uplink-cut", "uplink trunk0 of host xen3 brings nothing to other hosts, on no VLAN")


def test_a_member_of_a_bond_without_a_link(lab: Lab) -> None:
    def idle() -> list[str]:
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            return [it.text for it in client.health().findings if it.code == "nic-idle"]

    assert idle() == []
    links.change(underlay_netns(lab.spec.name), lambda underlay: underlay.set(XEN3_SECOND, state="down"))
    assert wait_until(idle, "the NIC is named") == ["eth2 of uplink trunk0 on host xen3 has no link"]
    links.change(underlay_netns(lab.spec.name), lambda underlay: underlay.set(XEN3_SECOND, state="up"))
    wait_until(lambda: not idle(), "it has a link again")
