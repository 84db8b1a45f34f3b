"""VLANs that the physical switch of a lab does not carry: what all hosts find when they look at once."""

from __future__ import annotations

import re
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

TAGS = (0, 30, 40, 50, 60, 70)
BOND = Uplink("trunk0", ("eth1", "eth2"), BondMode.ACTIVE_BACKUP)
# The physical switch's ports, in the underlay's namespace: h<host>n<NIC>.
XEN2, XEN3, XEN3_SECOND = "h1n0", "h2n0", "h2n1"


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    made = pool(uplink=BOND)
    for number, tag in enumerate(TAGS, 2):
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
        (host, ["eth1", "eth2"], list(TAGS), sorted({"xen1", "xen2", "xen3"} - {host}))
        for host in ("xen1", "xen2", "xen3")
    ]
    for host in ("xen1", "xen2", "xen3"):  # a bridge switches by MAC alone again
        flows = lab.ovs(host).ofctl("dump-flows", "br-trunk0")
        assert "controller" not in flows.lower(), flows


def test_each_fault_of_a_vlan_is_named_beside_the_others_and_stated(lab: Lab) -> None:
    """A look takes seconds, so each VLAN has another fault."""
    with switch(
        lab,
        *both(XEN3_SECOND, "vlan id 30"),
        *both(XEN3, "vlan id 40"),
        *both(XEN3_SECOND, "vlan id 40"),
        *(f'iifname "{port}" vlan id 50' for port in (XEN3, XEN3_SECOND)),
        *(f'iifname "{port}" vlan id 60 meta length > 1400' for port in (XEN3, XEN3_SECOND)),
        "vlan id 70",
    ):
        texts = {f"{code} {next(iter(re.findall('VLAN [0-9]+', text)))}": text for code, text in found(lab)}
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            assert set(texts.values()) <= {it.text for it in client.health().findings}
            assert set(texts.values()) <= {it.text for it in client.status().problems}
    one_way, mtu = texts.pop("vlan-one-way VLAN 50"), texts.pop("vlan-mtu VLAN 60")
    assert texts == {
        "vlan-missing VLAN 30": "VLAN 30 is missing on the switch port of xen3's eth2, a member of uplink trunk0",
        "vlan-missing VLAN 40": "VLAN 40 is missing on xen3's switch port (uplink trunk0, eth1 and eth2)",
        "vlan-missing VLAN 70": "VLAN 70 of uplink trunk0: no frame passes between xen1, xen2, xen3",
    }
    assert "xen3" in one_way
    assert "leaves it to no other host" in one_way
    assert "from xen3 to xen1, xen2" in mtu
    assert found(lab) == []


def test_an_uplink_without_a_switch(lab: Lab) -> None:
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
