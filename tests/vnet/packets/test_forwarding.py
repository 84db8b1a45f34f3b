"""Who gets a frame: exactly those who should, once, and nobody else. On every network type and both drivers."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.vnet.packets.pools import NETWORKS, every_type, vm_of
from vnet.lab import Driver, Lab
from vnet.objects import Vif

BROADCAST = "ff:ff:ff:ff:ff:ff"
POOL = every_type()
TRUNKS = {"some/0": {10, 120}, "all/0": set(range(1, 4095))}


def vif(name: str) -> Vif:
    return POOL.vifs[name]


def first(network: str, host: str = "xen1") -> Vif:
    return vif(f"{vm_of(network, host, 0)}/0")


def udp(source: Vif, to: str, **ethernet: str) -> Packet:
    return (
        Ether(src=source.mac, dst=to, **ethernet)
        / IP(src=source.addresses[0], dst="10.200.0.1")
        / UDP()
        / Raw(b"?" * 20)
    )


def members(network: str, sender: Vif) -> list[str]:
    """Everybody on a network but the sender; of an internal one, those on the sender's host."""
    local_only = network == "lab"
    tag = NETWORKS[network].tag
    found = {v.id for v in POOL.vifs.values() if v.network == network and not (local_only and v.host != sender.host)}
    if tag:
        found |= {trunk for trunk, tags in TRUNKS.items() if tag in tags}
    return sorted(found - {sender.id})


@pytest.mark.parametrize("network", list(NETWORKS))
def test_unicast_reaches_its_vif_and_nobody_else(lab: Lab, network: str) -> None:
    sender = first(network)
    others = [v for v in POOL.vifs.values() if v.network == network and v.id != sender.id and not v.trunk]
    got = lab.send(sender.id, [udp(sender, receiver.mac) for receiver in others])
    for receiver in others:
        expected = network != "lab" or receiver.host == sender.host
        assert got.at(receiver.id) == [bytes(udp(sender, receiver.mac))] * expected, receiver.id
    assert {*got.to} <= {receiver.id for receiver in others}


@pytest.mark.parametrize("to", [BROADCAST, "01:00:5e:00:00:fb", "33:33:00:00:00:01"])
@pytest.mark.parametrize("network", list(NETWORKS))
def test_broadcast_and_multicast_reach_every_member_once(lab: Lab, network: str, to: str) -> None:
    sender = first(network)
    assert lab.send(sender.id, udp(sender, to)).to == members(network, sender)


@pytest.mark.parametrize("network", list(NETWORKS))
def test_unknown_unicast_reaches_only_who_could_own_it(lab: Lab, network: str) -> None:
    sender = first(network)
    expected = ["free/0"] if network == "vy" else []
    assert lab.send(sender.id, udp(sender, "0a:00:00:00:99:99")).to == expected


@pytest.mark.parametrize("network", list(NETWORKS))
def test_a_locked_vif_speaks_only_for_itself(lab: Lab, network: str) -> None:
    me = first(network)
    forged: list[Packet] = [
        udp(me, BROADCAST) / b"",
        Ether(src="0a:00:00:00:99:98", dst=BROADCAST) / IP(src=me.addresses[0]) / UDP(),
        Ether(src=me.mac, dst=BROADCAST) / IP(src="10.250.0.1") / UDP(),
        Ether(src=me.mac, dst=BROADCAST) / ARP(op=2, hwsrc=me.mac, psrc="10.250.0.1", pdst="10.250.0.1"),
        Ether(src=me.mac, dst=BROADCAST) / ARP(op=2, hwsrc="0a:00:00:00:99:98", psrc=me.addresses[0]),
        Ether(src=me.mac, dst=BROADCAST) / Dot1Q(vlan=120) / IP(src=me.addresses[0]) / UDP(),
        Ether(src=me.mac, dst="01:80:c2:00:00:00") / Raw(b"\x42" * 50),
    ]
    assert lab.send(me.id, forged[0]).to == members(network, me)
    passed = [item.packet.summary() for item in lab.send(me.id, forged[1:])]
    assert passed == []


def test_an_unlocked_vif_may_be_anybody(lab: Lab) -> None:
    free = vif("free/0")
    packet = Ether(src="0a:00:00:00:99:97", dst=first("vy").mac) / IP(src="10.250.0.1") / UDP()
    assert lab.send(free.id, packet).to == [first("vy").id]


def test_networks_with_equal_keys_and_internal_networks_of_hosts_stay_apart(lab: Lab) -> None:
    sender = first("gnv")
    assert lab.send(sender.id, udp(sender, first("vx", "xen2").mac)).to == []
    inside = first("lab")
    assert lab.send(inside.id, udp(inside, first("lab", "xen2").mac)).to == []


def test_a_trunk_vif_carries_its_tags_and_no_others(lab: Lab) -> None:
    some, every = vif("some/0"), vif("all/0")

    def tagged(source: Vif, tag: int, to: str) -> Packet:
        return Ether(src=source.mac, dst=to) / Dot1Q(vlan=tag) / IP(src=source.addresses[0], dst="10.200.0.1") / UDP()

    assert lab.send(some.id, tagged(some, 10, every.mac)).at(every.id) == [bytes(tagged(some, 10, every.mac))]
    assert lab.send(every.id, tagged(every, 10, some.mac)).at(some.id) == [bytes(tagged(every, 10, some.mac))]
    assert lab.send(every.id, tagged(every, 11, BROADCAST)).to == []
    assert lab.send(some.id, tagged(some, 11, BROADCAST)).to == []
    untagged = lab.send(some.id, udp(some, BROADCAST))
    assert untagged.to == sorted([*members("native", some)])
    # On tag 120 a trunk meets the VIFs of the VLAN network: they see no tag.
    with_network = lab.send(some.id, tagged(some, 120, BROADCAST))
    assert with_network.to == sorted({*members("vlan", some)})
    access = first("vlan", "xen2")
    assert with_network.at(access.id) == [bytes(Ether(src=some.mac, dst=BROADCAST) / tagged(some, 120, BROADCAST)[IP])]


@pytest.mark.parametrize("lab", [Driver.NETNS], indirect=True)  # stations stand on the underlay's bridges
def test_an_outside_station_meets_the_vlan_and_only_it(lab: Lab) -> None:
    outside = lab.station("trunk0", 120)
    wire = lab.station("trunk0")
    mac = "0c:00:00:00:00:01"
    out = Ether(src=mac, dst=BROADCAST) / IP(dst="10.200.0.1") / UDP()
    everyone = sorted(v.id for v in POOL.vifs.values() if v.network == "vlan") + list(TRUNKS)
    assert [name for name in lab.send(outside, out).to if name != wire.name] == sorted(everyone)
    target = first("vlan", "xen3")
    assert [n for n in lab.send(outside, Ether(src=mac, dst=target.mac) / IP() / UDP()).to if n != wire.name] == [
        target.id
    ]
    back = lab.send(target.id, udp(target, mac))
    assert back.at(outside.name) == [bytes(udp(target, mac))]
    assert back.to == [outside.name]
    (seen,) = lab.send(target.id, udp(target, BROADCAST)).at(wire.name)
    assert Ether(seen)[Dot1Q].vlan == 120
    for network in ("vx", "gre", "gnv", "lab"):
        sender = first(network)
        assert lab.send(sender.id, udp(sender, BROADCAST)).at(wire.name) == []


def test_a_network_is_not_on_hosts_it_is_kept_from(lab: Lab) -> None:
    assert not any(v.host == "xen3" for v in POOL.vifs.values() if v.network == "two")
    text = lab.ovs("xen3").ofctl("dump-flows", "br-int")
    assert "tun_id=0x138b" not in text
