"""Frames that announce a MAC or an address, as scapy reads them."""

from __future__ import annotations

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from vnet.util.frames import MINIMUM_FRAME_BYTES, address_announcement

MAC = "0a:00:00:00:00:01"


def test_an_ipv4_address_is_announced_by_a_gratuitous_request() -> None:
    frame = address_announcement(MAC, "10.1.0.1")
    wanted = Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op="who-has", hwsrc=MAC, psrc="10.1.0.1", hwdst="00:00:00:00:00:00", pdst="10.1.0.1"
    )
    assert frame == bytes(wanted).ljust(MINIMUM_FRAME_BYTES, b"\0")


def test_an_ipv4_address_is_announced_where_a_gratuitous_request_would_do_harm() -> None:
    request = Ether(address_announcement(MAC, "10.1.0.1", plain=True))[ARP]
    assert (request.op, request.hwsrc, request.psrc, request.pdst) == (1, MAC, "10.1.0.1", "0.0.0.0")


@pytest.mark.parametrize("router", [False, True])
@pytest.mark.parametrize("address", ["fd00:1::1", "fe80::ffff:ffff:ffff:ffff"])
def test_an_ipv6_address_is_announced_by_an_unsolicited_advertisement(address: str, router: bool) -> None:
    advertisement = ICMPv6ND_NA(R=int(router), S=0, O=1, tgt=address) / ICMPv6NDOptDstLLAddr(lladdr=MAC)
    wanted = Ether(src=MAC, dst="33:33:00:00:00:01") / IPv6(src=address, dst="ff02::1", hlim=255) / advertisement
    assert address_announcement(MAC, address, router=router) == bytes(wanted)
