"""A station of the physical network that has the MAC of a VIF is found; a VIF that is alone with it is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from scapy.layers.l2 import ARP, Dot1Q, Ether

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.lab.pools import mac, pool
from vnet.client import Client
from vnet.health.mac_table import flapping, learned, moves, outside
from vnet.lab import Lab, links
from vnet.lab.names import underlay_netns
from vnet.objects import Network, NetworkType, Vif, Vm

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
            f"vif-{number}", "prod", mac(number), vm=f"vm{number}", addresses=(f"10.7.0.{number}",), host=host
        )
    with Lab.up(made, name=new_name(), daemons=True) as lab:
        lab.start_all()
        yield lab


def test_a_mac_that_a_station_outside_has_too(lab: Lab) -> None:
    arp = ARP(op=2, hwsrc=mac(9), psrc="10.7.0.9", hwdst=mac(8), pdst="10.7.0.8")
    frame = bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=mac(9)) / Dot1Q(vlan=TAG) / arp)

    def forge() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.bind(("sw0", 0))
            link.send(frame)

    with Client(f"unix:{lab.daemons.controller_socket}") as client:

        def stated() -> dict[str, str]:
            return {it.text: it.code for it in client.health().findings if it.code.startswith("mac")}

        def found() -> dict[str, str]:
            links.within(underlay_netns(lab.spec.name), forge)
            return stated()

        lab.send("vif-9", Ether(dst=mac(8), src=mac(9)) / arp)
        expected = f"MAC {mac(9)} of VIF vif-9 on host xen1 comes from outside too, on VLAN 7 of uplink trunk0: two stations have it"
        assert wait_until(found, "the MAC is named") == {expected: "mac-twice"}
        # Alone again, the VIF speaks: bridges learn from flows' statistics too, some frames late.
        with lab.stream("vif-9", "vif-8", period_ms=250):
            wait_until(lambda: not stated(), "it is forgotten")


def test_what_a_bridge_tells_is_read() -> None:
    table = learned(FDB)
    assert table == {(7, "0a:00:00:00:00:09"): "1", (0, "02:00:00:00:00:01"): "LOCAL"}
    assert outside(table, {(7, "0a:00:00:00:00:09"): "v"}, 2) == {(7, "0a:00:00:00:00:09", "v")}
    assert outside(table, {(7, "0a:00:00:00:00:09"): "v", (9, "0a:00:00:00:00:09"): "w"}, 1) == set()
    assert flapping([table, table | {(0, "02:00:00:00:00:01"): "3"}]) == {(0, "02:00:00:00:00:01")}
    assert learned("nonsense\n a b c\n\n x 1") == {}
    assert moves("  Total number of port moved MAC entries  : 12") == 12
    assert moves("") is None
