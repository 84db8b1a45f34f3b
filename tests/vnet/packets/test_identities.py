"""What a VIF may be besides its own MAC: other identities, and virtual routers (RFC 9568). On every engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vrrp import VRRPv3
from scapy.packet import Packet, Raw

from tests.polling import wait_until
from tests.vnet.packets.arrivals import Move
from tests.vnet.packets.engines import ENGINES, receivers_of_each, running
from vnet.client import Client
from vnet.compile.guard import CLAIM_BURST
from vnet.lab import Driver, Lab
from vnet.objects import Vif
from vnet.objects.link_local import link_local
from vnet.sim import SimPool
from vnet.testing import PoolUnderTest

ALSO, VIRTUAL, VIRTUAL6 = "0a:00:00:00:00:77", "00:00:5e:00:01:0a", "00:00:5e:00:02:0a"
DOCUMENT = f"""
apiVersion: vnet/v1
pool: identities
hosts:
  xen1: {{address: 10.99.0.1, uplinks: {{trunk0: {{members: [eth1]}}}}}}
  xen2: {{address: 10.99.0.2, uplinks: {{trunk0: {{members: [eth1]}}}}}}
networks:
  lan: {{type: vxlan}}
  prod: {{type: vlan, tag: 120, uplink: trunk0}}
subnets:
  lan-v4: {{network: lan, cidr: 10.1.0.0/24, gateway: 10.1.0.254}}
  lan-v6: {{network: lan, cidr: "fd00:1::/64"}}
vms:
  near: {{host: xen1, vifs: [{{network: lan, addresses: [10.1.0.1, "fd00:1::1"]}}, {{network: prod, addresses: [10.2.0.1]}}]}}
  far: {{host: xen2, vifs: [{{network: lan, addresses: [10.1.0.2, "fd00:1::2"]}}, {{network: prod, addresses: [10.2.0.2]}}]}}
  multi:
    host: xen1
    vifs:
      - {{network: lan, addresses: [10.1.0.3, "fd00:1::3"], also: [{{mac: "{ALSO}", addresses: [10.1.0.77, "fd00:1::77"]}}]}}
      - {{network: prod, addresses: [10.2.0.3], also: [{{mac: "{ALSO}", addresses: [10.2.0.77]}}]}}
  rt1:
    host: xen1
    vifs:
      - {{network: lan, addresses: [10.1.0.4, "fd00:1::4"], vrrp: [10], also: [{{mac: "{VIRTUAL}", addresses: [10.1.0.254]}}]}}
      - {{network: prod, addresses: [10.2.0.4], vrrp: [10]}}
  rt2:
    host: xen2
    vifs:
      - {{network: lan, addresses: [10.1.0.5, "fd00:1::5"], vrrp: [10], also: [{{mac: "{VIRTUAL}", addresses: [10.1.0.254]}}]}}
      - {{network: prod, addresses: [10.2.0.5], vrrp: [10]}}
""".encode()
BROADCAST = "ff:ff:ff:ff:ff:ff"
NETWORKS = ("lan", "prod")


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as made:
        yield made


def got(pool: PoolUnderTest, sender: str, *packets: Packet) -> list[list[str]]:
    """The VIFs that get each of these frames, byte for byte."""
    sent = [bytes(packet) for packet in packets]
    items = pool.send(sender, sent).items
    return [sorted(item.to for item in items if item.frame == frame and "/" in item.to) for frame in sent]


def ip(mac: str, address: str, dst: str) -> Packet:
    return Ether(src=mac, dst=dst) / IP(src=address, dst="10.9.0.1") / UDP() / Raw(b"?" * 20)


def arp(mac: str, sha: str, address: str) -> Packet:
    return Ether(src=mac, dst=BROADCAST) / ARP(op=2, hwsrc=sha, psrc=address, pdst=address)


def advertises(mac: str, address: str, lladdr: str) -> Packet:
    head = Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(src=address, dst="ff02::1", hlim=255)
    return head / ICMPv6ND_NA(tgt=address, R=0, S=0) / ICMPv6NDOptDstLLAddr(lladdr=lladdr)


def vrrp(mac: str, address: str) -> Packet:
    """An advertisement of a master (RFC 9568 §5.2)."""
    head = Ether(src=mac, dst="01:00:5e:00:00:12") / IP(src=address, dst="224.0.0.18", ttl=255, proto=112)
    return head / VRRPv3(vrid=10, priority=200, ipcount=1, adv=100, addrlist=["10.1.0.254"])


def test_a_vif_is_each_of_its_identities_and_no_mixture_of_them(pool: PoolUnderTest) -> None:
    me, other, far = pool.vif("multi/0"), pool.vif("near/0"), pool.vif("far/0")
    everyone = ["far/0", "near/0", "rt1/0", "rt2/0"]
    passing = [
        arp(me.mac, me.mac, "10.1.0.3"), arp(ALSO, ALSO, "10.1.0.77"),
        advertises(ALSO, "fd00:1::77", ALSO), advertises(ALSO, link_local(ALSO), ALSO),
    ]  # fmt: skip
    assert got(pool, "multi/0", *passing) == [everyone] * len(passing)
    assert got(pool, "multi/0", ip(ALSO, "10.1.0.77", far.mac), ip(ALSO, "10.1.0.77", other.mac)) == [
        ["far/0"],
        ["near/0"],
    ]
    mixed = [
        ip(me.mac, "10.1.0.77", far.mac), ip(ALSO, "10.1.0.3", far.mac), ip(ALSO, "10.1.0.2", far.mac),
        arp(ALSO, me.mac, "10.1.0.3"), arp(ALSO, ALSO, "10.1.0.3"), arp(ALSO, ALSO, "10.1.0.1"),
        advertises(ALSO, "fd00:1::3", ALSO), advertises(ALSO, "fd00:1::77", other.mac),
        ip("0a:00:00:00:00:78", "10.1.0.77", far.mac),
    ]  # fmt: skip
    assert got(pool, "multi/0", *mixed) == [[]] * len(mixed)
    theirs = [ip(ALSO, "10.1.0.77", far.mac), arp(other.mac, other.mac, "10.1.0.77")]
    assert got(pool, "near/0", *theirs) == [[]] * len(theirs)


@pytest.mark.parametrize("network", NETWORKS)
def test_unicast_to_an_identity_reaches_its_vif_alone_also_while_it_moves(pool: PoolUnderTest, network: str) -> None:
    at = NETWORKS.index(network)

    def reaches() -> None:
        for sender in ("near", "far"):
            peer = pool.vif(f"{sender}/{at}")
            assert got(pool, f"{sender}/{at}", ip(peer.mac, peer.addresses[0], ALSO)) == [[f"multi/{at}"]], sender

    reaches()
    if network == "lan":
        return
    move = Move(pool, "multi", "xen2")
    move.prepare()
    reaches()
    move.arrive(announce=True)
    for number, of in enumerate(NETWORKS):
        me, identity = pool.vif(f"multi/{number}"), f"10.{number + 1}.0.77"
        (found,) = got(pool, f"multi/{number}", ip(ALSO, identity, pool.vif(f"near/{number}").mac))
        assert found == [f"near/{number}"], of
        assert got(pool, f"multi/{number}", ip(ALSO, me.addresses[0], BROADCAST)) == [[]]
    move.finish()
    reaches()
    pool.migrate("multi", "xen1")
    reaches()


def test_a_virtual_router_may_use_its_virtual_mac_with_the_virtual_address_and_its_own(pool: PoolUnderTest) -> None:
    rt1, rt2, far = pool.vif("rt1/0"), pool.vif("rt2/0"), pool.vif("far/0")

    def others(name: str) -> list[str]:
        return sorted({"far/0", "multi/0", "near/0", "rt1/0", "rt2/0"} - {name})

    for me, name in ((rt1, "rt1/0"), (rt2, "rt2/0")):
        own4 = me.addresses[0]
        passing = [
            vrrp(VIRTUAL, own4),
            arp(VIRTUAL, VIRTUAL, "10.1.0.254"),
            advertises(VIRTUAL6, link_local(me.mac), VIRTUAL6),
        ]
        assert got(pool, name, *passing) == [others(name)] * len(passing)
        assert got(pool, name, ip(VIRTUAL, "10.1.0.254", far.mac)) == [["far/0"]]
        forged = [
            arp(VIRTUAL, VIRTUAL, "10.1.0.2"), ip(VIRTUAL, "10.1.0.2", far.mac), arp(me.mac, me.mac, "10.1.0.254"),
            arp(VIRTUAL, me.mac, "10.1.0.254"), vrrp("00:00:5e:00:01:0b", own4),
        ]  # fmt: skip
        assert got(pool, name, *forged) == [[]] * len(forged)
    near = pool.vif("near/0")
    theirs = [
        vrrp(VIRTUAL, near.addresses[0]),
        arp(VIRTUAL, VIRTUAL, "10.1.0.254"),
        arp(near.mac, near.mac, "10.1.0.254"),
    ]
    assert got(pool, "near/0", *theirs) == [[]] * len(theirs)
    assert receivers_of_each(pool, "near", [arp(near.mac, near.mac, near.addresses[0])]) == [
        ["far/0", "multi/0", "rt1/0", "rt2/0"]
    ]


def test_the_master_is_told_by_its_advertisements(pool: PoolUnderTest) -> None:
    if not isinstance(pool, Lab) or pool.spec.driver is not Driver.DUMMY:
        return  # agents count: how long it is told, tests/vnet/agent/test_vrrp_masters.py says
    with Client(f"unix:{pool.daemons.controller_socket}") as client:

        def masters() -> list[list[int]]:
            claim = vrrp(VIRTUAL, pool.vif("rt1/0").addresses[0])
            pool.send("rt1/0", [bytes(claim)])
            return [client.vif(f"{name}/0").place.masters for name in ("rt1", "rt2", "near")]

        wait_until(lambda: masters() == [[10], [], []], "rt1 is known to be the master")


def test_whoever_may_be_the_master_gets_what_is_for_the_virtual_mac_once(pool: PoolUnderTest) -> None:
    def sent(sender: Vif, mac: str) -> Packet:
        return Ether(src=sender.mac, dst=mac) / IP(src=sender.addresses[0], dst="10.9.0.1") / ICMP()

    for name in ("near", "far", "multi"):
        sender = pool.vif(f"{name}/0")
        assert got(pool, f"{name}/0", sent(sender, VIRTUAL), sent(sender, VIRTUAL6)) == [["rt1/0", "rt2/0"]] * 2, name
    rt1 = pool.vif("rt1/0")
    assert got(pool, "rt1/0", sent(rt1, VIRTUAL)) == [["rt2/0"]]
    assert got(pool, "near/0", sent(pool.vif("near/0"), "00:00:5e:00:01:0b")) == [[]]


def test_on_a_vlan_the_physical_network_finds_the_master_by_its_frames(pool: PoolUnderTest) -> None:
    near, far = pool.vif("near/1"), pool.vif("far/1")

    def asked(sender: Vif) -> Packet:
        return Ether(src=sender.mac, dst=VIRTUAL) / IP(src=sender.addresses[0], dst="10.9.0.1") / ICMP()

    # An uplink's bridge counts what a master sends again half a second late: in a lab the mastership is not handed on within that.
    for master in ("rt1", "rt2", "rt1") if isinstance(pool, SimPool) else ("rt1",):
        claim = vrrp(VIRTUAL, pool.vif(f"{master}/1").addresses[0])
        everyone = sorted({"far/1", "multi/1", "near/1", "rt1/1", "rt2/1"} - {f"{master}/1"})
        assert got(pool, f"{master}/1", claim) == [everyone]
        heard = {"near": got(pool, "near/1", asked(near))[0], "far": got(pool, "far/1", asked(far))[0]}
        assert all(f"{master}/1" in found and len(found) == len({*found}) for found in heard.values()), (master, heard)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_virtual_router_that_moves_is_reached_at_each_step(pool: PoolUnderTest, network: str) -> None:
    at = NETWORKS.index(network)
    near, me = pool.vif(f"near/{at}"), pool.vif(f"rt1/{at}")
    asked = Ether(src=near.mac, dst=VIRTUAL) / IP(src=near.addresses[0], dst="10.9.0.1") / ICMP()

    def once() -> None:
        (found,) = got(pool, f"near/{at}", asked)
        assert found.count(f"rt1/{at}") == 1, found
        assert len(found) == len({*found}), found

    once()
    if network == "prod":
        return  # both of its VIFs move at once
    move = Move(pool, "rt1", "xen2")
    move.prepare()
    once()
    move.arrive(announce=True)
    assert got(pool, f"rt1/{at}", vrrp(VIRTUAL, me.addresses[0])) != [[]]
    once()
    move.finish()
    once()
    pool.migrate("rt1", "xen1")


def test_a_storm_of_claims_is_limited_and_ends_nothing_else() -> None:
    with running("sim", DOCUMENT) as pool:
        rt1, far = pool.vif("rt1/0"), pool.vif("far/0")
        claim = vrrp(VIRTUAL, rt1.addresses[0])
        everyone = ["far/0", "multi/0", "near/0", "rt2/0"]
        heard = Counter(pool.send("rt1/0", [bytes(claim)] * (CLAIM_BURST + 50)).to)
        assert heard == dict.fromkeys(everyone, CLAIM_BURST)
        assert got(pool, "rt1/0", ip(VIRTUAL, "10.1.0.254", far.mac), arp(VIRTUAL, VIRTUAL, "10.1.0.254")) == [
            ["far/0"],
            everyone,
        ]
        others = ["far/0", "multi/0", "near/0", "rt1/0"]
        assert got(pool, "rt2/0", vrrp(VIRTUAL, pool.vif("rt2/0").addresses[0])) == [others]
