"""What the twin of a pool delivers: across hosts, to the outside, while VMs move, and when something is cut."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether

from tests.vnet.sim.pools import talk, two_hosts
from vnet.objects import Protocol
from vnet.sim import NotPlugged, PacketError, SimError, SimPool, UnknownName
from vnet.sim.packets import Part, resolve
from vnet.util.frames import BROADCAST, ethernet


@pytest.fixture
def pool() -> SimPool:
    return two_hosts()


@pytest.mark.parametrize(("source", "target"), [("web1/0", "db1/0"), ("web1/2", "db1/2"), ("web1/0", "web2/0")])
def test_unicast_arrives_once_and_unchanged(pool: SimPool, source: str, target: str) -> None:
    there = talk(pool, source, target, Protocol.TCP, 443)
    for frame, sender, receiver in ((there.frame(), source, target), (there.frame(Part.ANSWER), target, source)):
        got = pool.send(sender, frame)
        assert [(item.to, item.frame) for item in got] == [(receiver, frame)]
        assert got.lost == ()


def test_ipv6_and_neighbour_discovery(pool: SimPool) -> None:
    there = talk(pool, "web1/0", "db1/0", version=6)
    ask, answer = resolve(there)
    assert pool.send("web1/0", ask).to == ["db1/0", "web2/0"]
    assert pool.send("db1/0", answer).to == ["web1/0"]
    assert pool.send("web1/0", there.frame()).to == ["db1/0"]


def test_path_names_every_port(pool: SimPool) -> None:
    got = pool.send("web1/0", talk(pool, "web1/0", "db1/0").frame())
    assert got[0].path == ("web1/0", "xen1 vnet-vxlan", "xen2 vnet-vxlan", "db1/0")


def test_scapy_in_and_out(pool: SimPool) -> None:
    a, b = pool.vif("web1/0"), pool.vif("db1/0")
    packet = Ether(src=a.mac, dst=b.mac) / IP(src=a.addresses[0], dst=b.addresses[0]) / TCP(dport=443)
    got = pool.send("web1/0", [packet, packet])
    assert got.counts == {"db1/0": 2}
    assert got[0].packet[TCP].dport == 443


def test_broadcast_reaches_every_vif_of_its_network_once(pool: SimPool) -> None:
    ask, _ = resolve(talk(pool, "web1/0", "db1/0"))
    assert pool.send("web1/0", ask).to == ["db1/0", "web2/0"]


def test_forged_mac_is_dropped(pool: SimPool) -> None:
    frame = talk(pool, "web1/0", "db1/0").frame()
    assert pool.send("web1/0", frame[:6] + b"\x0a\0\0\0\0\x63" + frame[12:]).to == []


def test_vlan_network_meets_stations_tagged_on_the_wire(pool: SimPool) -> None:
    inside, wire = pool.station("trunk0", 120), pool.station("trunk0")
    ask, answer = resolve(talk(pool, "web1/1", "db1/1"))
    got = pool.send("web1/1", ask)
    assert got.to == ["db1/1", "trunk0", "trunk0.120"]
    assert Ether(got.at("trunk0")[0])[Dot1Q].vlan == 120
    assert got.at("trunk0.120") == [ask]
    assert pool.send("db1/1", answer).to == ["web1/1"]
    station = ethernet(pool.vif("web1/1").mac, "02:00:00:00:00:77", 0x1234, b"x")
    assert pool.send(inside, station).to == ["web1/1"]
    assert pool.send(wire, station).to == []
    tagged = station[:12] + b"\x81\0\0\x78" + station[12:]
    assert pool.send(wire, tagged).at("web1/1") == [station]


def test_trunk_vif_gets_tags(pool: SimPool) -> None:
    wire = pool.station("bond0")
    tagged = ethernet(BROADCAST, "02:00:00:00:00:77", 0x8100, b"\0\x07\x12\x34x")
    assert pool.send(wire, tagged).at("free1/1") == [tagged]


def test_bond_survives_one_member_and_not_both(pool: SimPool) -> None:
    station, frame = pool.station("bond0"), ethernet(BROADCAST, pool.vif("free2/1").mac, 0x1234, b"x")
    pool.cut("xen2", "eth2")
    assert station.name in pool.send("free2/1", frame).to
    pool.cut("xen2", "eth3")
    got = pool.send("free2/1", frame)
    assert got.to == []
    assert "every NIC" in got.lost[0].reason
    pool.heal("xen2", "eth3")
    assert station.name in pool.send("free2/1", frame).to


def test_internal_network_stays_on_its_host(pool: SimPool) -> None:
    there = talk(pool, "web2/1", "free2/2")
    assert pool.send("web2/1", there.frame()).to == []
    assert pool.send("web2/1", resolve(there)[0]).to == []


def test_what_does_not_fit_the_underlay_is_reported(pool: SimPool) -> None:
    there = talk(pool, "web1/0", "db1/0")
    mtu = pool.state.networks["tenant"].mtu
    fits = there.frame(payload=b"x" * (mtu - 28))
    assert pool.send("web1/0", fits).to == ["db1/0"]
    pool.underlay_mtu -= 1
    assert "over the underlay's MTU of 1599" in pool.send("web1/0", fits).lost[0].reason


def test_what_does_not_fit_the_port_is_reported(pool: SimPool) -> None:
    there = talk(pool, "web1/0", "web2/0")
    got = pool.send("web1/0", there.frame(payload=b"x" * (pool.state.networks["tenant"].mtu - 27)))
    assert got.to == []
    assert "over the port's MTU" in got.lost[0].reason


def test_cut_underlay_loses_frames_and_says_so(pool: SimPool) -> None:
    frame = talk(pool, "web1/0", "db1/0").frame()
    pool.cut("xen2")
    assert [loss.reason for loss in pool.send("web1/0", frame).lost] == ["the underlay is cut"]
    pool.heal("xen2")
    assert pool.send("web1/0", frame).to == ["db1/0"]


def test_paused_guest_gets_what_waited(pool: SimPool) -> None:
    frame = talk(pool, "web1/0", "db1/0").frame()
    pool.pause("db1")
    assert pool.send("web1/0", frame).to == []
    with pytest.raises(SimError, match="paused"):
        pool.send("db1/0", frame)
    assert pool.resume("db1").at("db1/0") == [frame]


@pytest.mark.parametrize("vif", ["web1/0", "web1/1", "web1/2"])
def test_migration_never_doubles_and_never_loses_after_the_switch(pool: SimPool, vif: str) -> None:
    peer = vif.replace("web1", "db1")
    frame = talk(pool, peer, vif).frame()
    pool.send(vif, talk(pool, vif, peer).frame())  # physical switches learn where it is
    pool.prepare("web1", "xen2")
    assert pool.send(peer, frame).counts == {vif: 1}, "held: the guest still runs on xen1"
    pool.pause("web1")
    pool.switch("web1")
    assert pool.send(peer, frame).to == []
    got = pool.run("web1", "xen2", announce=False)
    assert len(got) == 0, "still paused"
    assert pool.resume("web1").at(vif) == [frame], "what arrived at xen2 while it was paused"
    pool.run("web1", "xen2", announce=True)
    assert pool.send(peer, frame).counts == {vif: 1}, "the announcement opened the port in the switch"
    pool.activate("web1")
    assert pool.send(peer, frame).counts == {vif: 1}
    pool.finish("web1")
    assert pool.send(peer, frame).counts == {vif: 1}
    assert pool.send(vif, talk(pool, vif, peer).frame()).counts == {peer: 1}


def test_aborted_migration_leaves_things_as_they_were(pool: SimPool) -> None:
    frame = talk(pool, "db1/0", "web1/0").frame()
    pool.prepare("web1", "xen2")
    pool.abort("web1")
    assert pool.send("db1/0", frame).counts == {"web1/0": 1}
    assert "web1/0" not in pool.hosts["xen2"].ports


def test_errors_say_what_to_do(pool: SimPool) -> None:
    with pytest.raises(UnknownName, match="did you mean 'web1/0'"):
        pool.send("wbe1/0", b"\0" * 60)
    with pytest.raises(NotPlugged, match="give its VM a host"):
        pool.send("off/0", b"\0" * 60)
    with pytest.raises(PacketError, match="no Ethernet frame"):
        pool.send("web1/0", b"abc")
    with pytest.raises(PacketError, match="give bytes, a scapy packet"):
        pool.send("web1/0", "Ether()")
    with pytest.raises(UnknownName, match="trunk0"):
        pool.station("trunk")


def test_what_is_undone_is_forgotten(pool: SimPool) -> None:
    frame = talk(pool, "web1/1", "db1/1").frame()
    with pool.undone():
        pool.send("web1/1", frame)
        assert any(switch.macs for switch in pool.switches())
    assert not any(switch.macs for switch in pool.switches())


def test_scapy_is_not_imported_until_it_is_needed() -> None:
    code = "import sys, vnet.sim; sys.exit('scapy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
