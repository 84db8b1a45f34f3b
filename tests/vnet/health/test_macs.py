"""A station of the physical network that has the MAC of a VIF, or its address, is found; a VIF that is alone with it is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.lab.pools import mac, pool
from vnet.client import Client
from vnet.health.mac_table import flapping, learned, moves, outside
from vnet.lab import Lab, links
from vnet.lab.names import underlay_netns
from vnet.objects import LockingMode, Network, NetworkType, Subnet, Vif, Vm

TAG = 7
FDB = """ port  VLAN  MAC                Age
    1     7  0a:00:00:00:00:09    2
LOCAL     0  02:00:00:00:00:01   12
"""


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    made = pool(hosts=2)
    made.networks["prod"] = Network("prod", NetworkType.VLAN, 2, 1500, key=7, tag=TAG, uplink="trunk0")
    for number, host in ((8, "xen2"), (9, "xen1")):
        made.vms[f"vm{number}"] = Vm(f"vm{number}", host)
        made.vifs[f"vif-{number}"] = Vif(
            f"vif-{number}",
            "prod",
            mac(number),
            vm=f"vm{number}",
            addresses=(f"10.7.0.{number}", f"fd07::{number}"),
            host=host,
            locking_mode=LockingMode.UNLOCKED,
        )
    made.subnets["prod-v4"] = Subnet("prod-v4", "prod", "10.7.0.0/24", "10.7.0.1")
    with Lab.up(made, name=new_name(), daemons=True) as lab:
        lab.start_all()
        yield lab


def stated(lab: Lab, sort: str = "mac") -> dict[str, str]:
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        return {it.text: it.code for it in client.health().findings if it.code.startswith(sort)}


def from_outside(lab: Lab, frame: Packet) -> None:
    """A station of the physical network sends a frame."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.bind(("sw0", 0))
            link.send(bytes(frame))

    links.within(underlay_netns(lab.spec.name), send)


def test_a_mac_that_a_station_outside_has_too(lab: Lab) -> None:
    arp = ARP(op=2, hwsrc=mac(9), psrc="10.7.0.9", hwdst=mac(8), pdst="10.7.0.8")
    lab.send("vif-9", Ether(dst=mac(8), src=mac(9)) / arp)
    frame = Ether(dst="ff:ff:ff:ff:ff:ff", src=mac(9)) / Dot1Q(vlan=TAG) / arp

    def found() -> dict[str, str]:
        from_outside(lab, frame)
        return stated(lab)

    expected = f"MAC {mac(9)} of VIF vif-9 on host xen1 comes from outside too, on VLAN 7 of uplink trunk0: two stations have it"
    assert wait_until(found, "the MAC is named") == {expected: "mac-twice"}
    # Alone again, the VIF speaks: bridges learn from flows' statistics too, some frames late.
    with lab.stream("vif-9", "vif-8", period_ms=250):
        wait_until(lambda: not stated(lab), "it is forgotten")


def test_an_address_that_another_station_claims_too_and_its_frames_go_on(lab: Lab) -> None:
    """One is a VIF that is not locked, one is outside."""
    other, to_all = "0c:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"
    nd = IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt="fd07::9")
    advertisement = Ether(dst="33:33:00:00:00:01", src=other) / Dot1Q(vlan=TAG) / nd
    # Nobody's address here, the VIF's own MAC, another VLAN: no finding.
    strangers = [
        Ether(dst=to_all, src=other) / Dot1Q(vlan=TAG) / ARP(hwsrc=other, psrc="10.7.0.77"),
        Ether(dst=to_all, src=mac(9)) / Dot1Q(vlan=TAG) / ARP(hwsrc=mac(9), psrc="10.7.0.9"),
        Ether(dst=to_all, src=other) / Dot1Q(vlan=TAG + 1) / ARP(hwsrc=other, psrc="10.7.0.9"),
    ]
    own = Ether(dst=to_all, src=mac(8)) / ARP(hwsrc=mac(8), psrc="10.7.0.8", pdst="10.7.0.8")
    claim = Ether(dst=to_all, src=mac(8)) / ARP(hwsrc=mac(8), psrc="10.7.0.9", pdst="10.7.0.1")

    def claims(host: str) -> list[str]:
        flows = lab.ovs(host).ofctl("dump-flows", "br-trunk0", "arp,arp_spa=10.7.0.9").splitlines()
        return [flow for flow in flows if "arp_spa" in flow]

    wait_until(lambda: claims("xen1"), "claims are heard")
    assert claims("xen2") == []  # it runs elsewhere
    for frame in strangers:
        from_outside(lab, frame)
    assert lab.send("vif-8", own).to == ["vm9/0"]
    assert stated(lab, "address") == {}
    assert lab.send("vif-8", claim).to == ["vm9/0"]
    from_outside(lab, advertisement)
    of, at = "VIF vif-9 on host xen1 is claimed", "on VLAN 7 of uplink trunk0"
    expected = {
        f"address 10.7.0.9 of {of} by {mac(9)} (VIF vif-9) and by {mac(8)} (VIF vif-8), {at}": "address-twice",
        f"address fd07::9 of {of} by {mac(9)} (VIF vif-9) and by {other}, {at}": "address-twice",
    }
    wait_until(lambda: stated(lab, "address") == expected, "the addresses are named")
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        assert {it.text for it in client.status().problems} >= expected.keys()


def test_a_gateway_whose_question_two_answer_and_a_hosts_own_address_that_two_claim_in_turns(lab: Lab) -> None:
    first, second, gateway, host = "0c:00:00:00:00:01", "0c:00:00:00:00:02", "10.7.0.1", "10.99.0.2"

    def claim(claimant: str) -> None:
        to_all = Ether(dst="ff:ff:ff:ff:ff:ff", src=claimant) / Dot1Q(vlan=TAG)
        from_outside(lab, to_all / ARP(hwsrc=claimant, psrc=host))

    def answer(claimant: str) -> None:
        to_asker = Ether(dst=mac(9), src=claimant) / Dot1Q(vlan=TAG)
        from_outside(lab, to_asker / ARP(op=2, hwsrc=claimant, psrc=gateway, hwdst=mac(9), pdst="10.7.0.9"))

    def hears() -> list[bool]:
        return ["10.7.0.1" in lab.ovs(host).ofctl("dump-flows", "br-trunk0") for host in ("xen1", "xen2")]

    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        client.look(wait_s=30)
    assert wait_until(lambda: any(found := hears()) and found, "the gateway is heard") == [True, False]
    claim(first)
    claim(second)
    assert not any("same time" in text for text in stated(lab, "address"))  # one may have taken over
    claim(first)
    answer(first)
    answer(second)
    expected = {
        f"{of} is claimed by {first} and by {second} at the same time, on VLAN 7 of uplink trunk0"
        for of in (f"gateway {gateway}", f"address {host} of host xen2")
    }
    wait_until(lambda: {text for text in stated(lab, "address") if "same time" in text} == expected, "they are named")


def test_what_a_bridge_tells_is_read() -> None:
    table = learned(FDB)
    assert table == {(7, "0a:00:00:00:00:09"): "1", (0, "02:00:00:00:00:01"): "LOCAL"}
    assert outside(table, {(7, "0a:00:00:00:00:09"): "v"}, 2) == {(7, "0a:00:00:00:00:09", "v")}
    assert outside(table, {(7, "0a:00:00:00:00:09"): "v", (9, "0a:00:00:00:00:09"): "w"}, 1) == set()
    assert flapping([table, table | {(0, "02:00:00:00:00:01"): "3"}]) == {(0, "02:00:00:00:00:01")}
    assert learned("nonsense\n a b c\n\n x 1") == {}
    assert moves("  Total number of port moved MAC entries  : 12") == 12
    assert moves("") is None
