"""VLANs that the physical switch of a lab does not carry: what all hosts find when they look at once."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ovsctl.ovsdb import OvsdbClient, Update
from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.lab.pools import pool
from vnet import api
from vnet.client import Client
from vnet.db.rows import SCHEMA_NAME
from vnet.lab import Lab, links
from vnet.lab.names import NETNS_DIR, underlay_netns
from vnet.objects import BondMode, LldpMode, Network, NetworkType, Uplink
from vnet.objects.enums import TagType
from vnet.util.frames import SERVICE_VLAN
from vnet.util.hello_frames import HELLO_GROUP
from vnet.util.lldp_frames import LLDP_TYPE, LldpUnit, lldp_frame, read_lldp

TAGS = (0, 30, 40, 50, 60, 70)
BOND = Uplink("trunk0", ("eth1", "eth2"), BondMode.ACTIVE_BACKUP)
# The physical switch's ports, in the underlay's namespace: h<host>n<NIC>.
XEN2, XEN2_SECOND, XEN3, XEN3_SECOND = "h1n0", "h1n1", "h2n0", "h2n1"


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    made = pool(uplink=BOND)
    for number, tag in enumerate(TAGS, 2):
        name = f"vlan{tag}"
        made.networks[name] = Network(name, NetworkType.VLAN, number, 1500, key=number, tag=tag, uplink="trunk0")
    carrier = Network("carrier", NetworkType.VLAN, 9, 1500, key=9, tag=40, tpid=TagType.SERVICE, uplink="trunk0")
    made.networks["carrier"] = carrier
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


def says(lab: Lab, port: str, name: str, ttl_s: int = 120) -> None:
    """The physical switch says by LLDP which port of its a host is at."""
    frame = lldp_frame("0c:00:00:00:00:01", "sw1", name, ttl_s, "192.0.2.1", "a switch")

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.bind((port, 0))
            link.send(frame)

    links.within(underlay_netns(lab.spec.name), send)


def neighbours(lab: Lab) -> list[tuple[str, str, str]]:
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        return [(it.host, it.nic, it.place) for it in client.health().neighbours]


def test_a_sound_switch_carries_every_vlan_within_ten_seconds(lab: Lab) -> None:
    health = look(lab)
    assert not [it for it in health.findings if it.code.startswith(("vlan", "uplink"))], health.findings
    assert [(it.host, it.links, it.vlans, it.heard) for it in health.uplinks] == [
        (host, ["eth1", "eth2"], [*TAGS, SERVICE_VLAN | 40], sorted({"xen1", "xen2", "xen3"} - {host}))
        for host in ("xen1", "xen2", "xen3")
    ]
    for host in ("xen1", "xen2", "xen3"):  # a bridge switches by MAC alone again
        flows = lab.ovs(host).ofctl("dump-flows", "br-trunk0")
        assert HELLO_GROUP not in flows, flows


def test_each_fault_of_a_vlan_is_named_beside_the_others_and_stated(lab: Lab) -> None:
    """A look takes seconds, so each VLAN has another fault. Switch ports that have said where they are are named."""
    says(lab, XEN3, "Gi1/0/3")
    says(lab, XEN3_SECOND, "Gi1/0/4")
    known = [("xen3", "eth1", "sw1 Gi1/0/3"), ("xen3", "eth2", "sw1 Gi1/0/4")]
    wait_until(lambda: neighbours(lab) == known, "the neighbours are known")
    service = "ether type 8021ad vlan id 40"
    with switch(
        lab,
        *both(XEN3_SECOND, "vlan id 30"),
        *both(XEN3, "vlan id 40"),
        *both(XEN3_SECOND, "vlan id 40"),
        *(f'iifname "{port}" vlan id 50' for port in (XEN3, XEN3_SECOND)),
        *(f'iifname "{port}" vlan id 60 meta length > 1400' for port in (XEN3, XEN3_SECOND)),
        "vlan id 70",
        *both(XEN2, service),
        *both(XEN2_SECOND, service),
    ):
        texts = {
            f"{code} {next(iter(re.findall('(?:service )?VLAN [0-9]+', text)))}": text for code, text in found(lab)
        }
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            assert set(texts.values()) <= {it.text for it in client.health().findings}
            assert set(texts.values()) <= {it.text for it in client.status().problems}
            assert [(it.host, it.nic, it.place) for it in client.host("xen3").neighbours] == known
    one_way, mtu = texts.pop("vlan-one-way VLAN 50"), texts.pop("vlan-mtu VLAN 60")
    assert texts == {
        "vlan-missing VLAN 30": "VLAN 30 is missing on the switch port of xen3's eth2 at sw1 Gi1/0/4, a member of uplink trunk0",
        "vlan-missing VLAN 40": "VLAN 40 is missing on xen3's switch port (uplink trunk0, eth1 at sw1 Gi1/0/3 and eth2 at sw1 Gi1/0/4)",
        "vlan-missing service VLAN 40": "service VLAN 40 is missing on xen2's switch port (uplink trunk0, eth1 and eth2)",
        "vlan-missing VLAN 70": "VLAN 70 of uplink trunk0: no frame passes between xen1, xen2, xen3",
    }
    assert "xen3" in one_way
    assert "leaves it to no other host" in one_way
    assert "from xen3 to xen1, xen2" in mtu
    command = [sys.executable, "-m", "vnet.cli.main", "doctor", "--pool"]
    shown = subprocess.run(command, env=lab.daemons.env, capture_output=True, text=True, check=False).stdout
    assert re.search(r"eth2 of xen3 +ok +at sw1 Gi1/0/4 \(sw1 0c:00:00:00:00:01\), Gi1/0/4, 192.0.2.1", shown), shown
    assert re.search(r"wrong +[^\n]*VLAN", shown) is None, shown
    says(lab, XEN3, "Gi1/0/3", 0)
    says(lab, XEN3_SECOND, "Gi1/0/4", 0)
    wait_until(lambda: neighbours(lab) == [], "they are gone")


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


def test_a_host_tells_the_switch_of_itself_where_its_uplink_says_so_and_when_it_is_over(lab: Lab) -> None:
    def listening() -> socket.socket:
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(LLDP_TYPE))
        link.bind((XEN3, LLDP_TYPE))
        link.settimeout(20)
        return link

    with links.within(underlay_netns(lab.spec.name), listening) as link:
        asyncio.run(set_lldp(lab, LldpMode.SEND))
        unit = read_lldp(link.recv(2000))
        asyncio.run(set_lldp(lab, None))
        over = read_lldp(link.recv(2000))
    assert unit is not None
    assert (unit.system, unit.port_description, unit.address, unit.ttl_s) == ("xen3", "eth1", "10.99.0.3", 120)
    assert over == LldpUnit("xen3", unit.port, 0)
    says(lab, XEN3, "Gi1/0/3")
    wait_until(lambda: neighbours(lab), "a neighbour is known")
    asyncio.run(set_lldp(lab, LldpMode.OFF))
    wait_until(lambda: "dl_type=0x88cc" not in lab.ovs("xen3").ofctl("dump-flows", "br-trunk0"), "nothing is heard")
    wait_until(lambda: not neighbours(lab), "and nothing is known")
    asyncio.run(set_lldp(lab, None))


async def set_lldp(lab: Lab, mode: LldpMode | None) -> None:
    async with OvsdbClient([f"unix:{lab.daemons.pool_socket}"], SCHEMA_NAME) as client:
        await client.transact(Update("Uplink", (), {"lldp": mode.value if mode is not None else None}))
