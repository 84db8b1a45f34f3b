"""The verdict of a frame that its own port's guard dropped names the field that was wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.vnet.sim.pools import talk, two_hosts
from vnet.objects import Protocol
from vnet.sim.packets import End, resolve
from vnet.sim.trace import trace_packet
from vnet.util.frames import BROADCAST, ethernet, mac_bytes

POOL = two_hosts()
WEB = POOL.vif("web1/0")
V4, V6 = (next(a for a in WEB.addresses if (":" in a) is version6) for version6 in (False, True))
OTHER_MAC = "02:00:00:00:00:09"
TALK, TALK6 = talk(POOL, "web1/0", "db1/0"), talk(POOL, "web1/0", "db1/0", version=6)


def as_sender(mac: str, address: str) -> bytes:
    return replace(TALK if ":" not in address else TALK6, source=End(mac, address)).frame()


def arp(mac: str, address: str) -> bytes:
    """A request with this sender, from the VIF's own MAC."""
    frame = resolve(replace(TALK, source=End(mac, address)))[0]
    return frame[:6] + mac_bytes(WEB.mac) + frame[12:]


FRAMES = {
    "MAC": (as_sender(OTHER_MAC, V4), f"GUARD: source MAC {OTHER_MAC} is not {WEB.mac}"),
    "IPv4": (as_sender(WEB.mac, "10.1.0.99"), f"GUARD: IPv4 source 10.1.0.99 is not {V4}"),
    "IPv6": (as_sender(WEB.mac, "fd00:1::99"), f"GUARD: IPv6 source fd00:1::99 is not {V6} or fe80::"),
    "ARP MAC": (arp(OTHER_MAC, V4), f"GUARD: ARP sender MAC {OTHER_MAC} is not {WEB.mac}"),
    "ARP address": (arp(WEB.mac, "10.1.0.99"), f"GUARD: ARP sender address 10.1.0.99 is not {V4} or 0.0.0.0"),
    "tag": (TALK.frame()[:12] + b"\x81\0\0\x07" + TALK.frame()[12:], "CLASSIFY: VLAN tag 7 is not none"),
    "type": (ethernet(BROADCAST, WEB.mac, 0x88B5, b""), "GUARD: Ethernet type 0x88b5 is not 0x8035 or"),
    "two": (
        as_sender(OTHER_MAC, "10.1.0.99"),
        f"source MAC {OTHER_MAC} is not {WEB.mac}; IPv4 source 10.1.0.99 is not {V4}",
    ),
}


def message(icmp_type: int) -> bytes:
    """An ICMPv6 message from the VIF's own address."""
    frame = resolve(TALK6)[0]
    return frame[:54] + bytes((icmp_type,)) + frame[55:]


SERVICES = {
    "router": (message(134), "SERVICES: ICMPv6 type 134 is for VIFs with router: true"),
    "DHCP server": (
        replace(TALK, protocol=Protocol.UDP, source_port=67, port=9).frame(),
        "SERVICES: UDP source port 67 is for VIFs with dhcp-server: true",
    ),
    "headers": (
        TALK6.frame()[:20] + b"\x87" + TALK6.frame()[21:],
        "SERVICES: IP protocol 135 is for unlocked VIFs",
    ),
}


@pytest.mark.parametrize("name", SERVICES)
def test_missing_privilege(name: str) -> None:
    frame, reason = SERVICES[name]
    assert reason in trace_packet(POOL, "web1/0", frame).verdict


@pytest.mark.parametrize("name", FRAMES)
def test_wrong_field(name: str) -> None:
    frame, reason = FRAMES[name]
    verdict = trace_packet(POOL, "web1/0", frame).verdict
    assert verdict.startswith("dropped by xen1 br-int in ")
    assert reason in verdict


def test_advertisement_for_another_address() -> None:
    reply = resolve(TALK6)[1]  # from db1/0, for its own address
    start = 14 + 40 + 8
    forged = reply[:start] + bytes.fromhex("fd000001" + 22 * "0" + "77") + reply[start + 16 :]
    verdict = trace_packet(POOL, "db1/0", forged).verdict
    assert "GUARD: ND target fd00:1::77 is not " in verdict
