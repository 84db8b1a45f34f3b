"""Multicast on a network that snoops: groups go to those who listen to them and to routers. On the twin and on the real switch, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from click.testing import CliRunner
from scapy.layers.igmp import IGMP, IGMPv3_MR, IGMPv3_MR_Group
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.polling import wait_until
from tests.vnet.packets.arrivals import Move
from tests.vnet.packets.engines import ENGINES, receivers, running
from vnet.cli.main import cli
from vnet.client import Client
from vnet.lab import Lab
from vnet.objects.link_local import link_local
from vnet.objects.multicast import MAX_GROUPS
from vnet.plan import desired_state
from vnet.sim import SimPool, Station
from vnet.sim.trace import trace_packet
from vnet.testing import PoolUnderTest
from vnet.topology import load

DOCUMENT = b"""
apiVersion: vnet/v1
pool: multicast
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  lan: {type: vxlan, multicast-snooping: true, query-interval: 1}
  wire: {type: vlan, tag: 7, uplink: trunk0, multicast-snooping: true, query-interval: 1}
  other: {type: vxlan, multicast-snooping: true, query-interval: 1}
security-groups:
  closed: {default: {ingress: drop, egress: drop}, rules: [{name: video, direction: ingress, protocol: udp, ports: [5000]}]}
vms:
  source: {host: xen1, vifs: [{network: lan, mac: "0a:00:00:00:00:01", addresses: [10.1.0.1, "fd00::1"]}]}
  near:   {host: xen1, vifs: [{network: lan, mac: "0a:00:00:00:00:02", addresses: [10.1.0.2, "fd00::2"]}]}
  far:    {host: xen2, vifs: [{network: lan, mac: "0a:00:00:00:00:03", addresses: [10.1.0.3, "fd00::3"]}]}
  bridge: {host: xen2, vifs: [{network: lan, mac: "0a:00:00:00:00:04", locking-mode: unlocked, addresses: []}]}
  jailed: {host: xen2, vifs: [{network: lan, mac: "0a:00:00:00:00:05", addresses: [10.1.0.5, "fd00::5"], security-groups: [closed]}]}
  router: {host: xen2, vifs: [{network: lan, mac: "0a:00:00:00:00:06", addresses: [10.1.0.6, "fd00::6"], router: true}]}
  wired1: {host: xen1, vifs: [{network: wire, mac: "0a:00:00:00:00:07", addresses: [10.2.0.1, "fd02::1"]}]}
  wired2: {host: xen2, vifs: [{network: wire, mac: "0a:00:00:00:00:08", addresses: [10.2.0.2, "fd02::2"]}]}
  stray:  {host: xen2, vifs: [{network: other, mac: "0a:00:00:00:00:09", addresses: [10.1.0.9]}]}
"""
LISTENERS = ("near", "far", "bridge", "jailed", "router")
V4, V6 = "239.1.1.1", "ff05::1:3"
STATION = "0c:00:00:00:00:01"


@pytest.fixture(scope="module", params=ENGINES[:2])
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as pool:
        if isinstance(pool, Lab):
            with Client(f"unix:{pool.daemons.controller_socket}") as client:
                wait_until(lambda: all(b.listening == ["asked"] for b in client.bindings()), "all were asked")
            # Guests that answer no queries are not forgotten meanwhile.
            apply(pool, DOCUMENT.replace(b"query-interval: 1}", b"query-interval: 600}"))
        yield pool


def group_mac(group: str) -> str:
    octets = ip_address(group).packed
    return (bytes((1, 0, 0x5E, octets[1] & 0x7F)) + octets[2:] if len(octets) == 4 else b"\x33\x33" + octets[12:]).hex(
        ":"
    )


def data(pool: PoolUnderTest, sender: str, group: str) -> Packet:
    mac, ip = pool.vif(sender).mac, IPv6(src="fd00::1", dst=group) if ":" in group else IP(src="10.1.0.1", dst=group)
    return Ether(src=mac, dst=group_mac(group)) / ip / UDP(sport=5000, dport=5000) / group


def igmp(pool: PoolUnderTest, sender: str, message: Packet, to: str) -> Packet:
    vif = pool.vif(sender)
    source = next((address for address in vif.addresses if ":" not in address), "0.0.0.0")
    return Ether(src=vif.mac, dst=group_mac(to)) / IP(src=source, dst=to, ttl=1) / message


def mld(pool: PoolUnderTest, sender: str, message: Packet, to: str) -> Packet:
    mac = pool.vif(sender).mac
    head = IPv6(src=link_local(mac), dst=to, hlim=1) / IPv6ExtHdrHopByHop(options=RouterAlert())
    return Ether(src=mac, dst=group_mac(to)) / head / message


def joining(pool: PoolUnderTest, sender: str, group: str) -> Packet:
    """A report of the old version."""
    if ":" in group:
        return mld(pool, sender, ICMPv6MLReport(mladdr=group), group)
    return igmp(pool, sender, IGMP(type=0x16, gaddr=group, mrcode=0), group)


def leaving(pool: PoolUnderTest, sender: str, group: str) -> Packet:
    if ":" in group:
        return mld(pool, sender, ICMPv6MLDone(mladdr=group), "ff02::2")
    return igmp(pool, sender, IGMP(type=0x17, gaddr=group, mrcode=0), "224.0.0.2")


def recording(pool: PoolUnderTest, sender: str, group: str, sort: int) -> Packet:
    """A report of the new version, of one record."""
    if ":" in group:
        return mld(pool, sender, ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(rtype=sort, dst=group)]), "ff02::16")
    return igmp(pool, sender, IGMPv3_MR(records=[IGMPv3_MR_Group(rtype=sort, maddr=group)]), "224.0.0.22")


def goes_to(pool: PoolUnderTest, group: str, *vms: str, sender: str = "source") -> None:
    """Waits until a frame to a group reaches these VMs only: agents hear one after the other."""
    want, frame = sorted(f"{vm}/0" for vm in vms), data(pool, sender, group)
    if isinstance(pool, SimPool):
        assert receivers(pool, sender, frame) == want
    else:
        wait_until(lambda: receivers(pool, sender, frame) == want, f"{group} goes to {want}")


def all_groups(pool: PoolUnderTest) -> list[str]:
    """The VMs that get every group, after the tests before."""
    return [name.removesuffix("/0") for name in receivers(pool, "source", data(pool, "source", "239.8.8.8"))]


@pytest.mark.parametrize("group", [V4, V6])
def test_a_group_goes_to_those_who_listen_to_it(pool: PoolUnderTest, group: str) -> None:
    """Near and far, by reports of both versions, which nobody gets where no router is. Not who says so as another, nor on another network. Who has security groups gets what they let in, though they keep its
    own report from others. A locked VIF gets a group no longer once it leaves it; an unlocked one once nobody behind it answers."""
    stolen = joining(pool, "router", group)
    stolen.payload.src = pool.vif("near").addresses[1] if ":" in group else pool.vif("near").addresses[0]
    for vm, frame in (("router", stolen), ("stray", joining(pool, "stray", group))):
        receivers(pool, vm, frame)
    frames = [joining(pool, vm, group) for vm in ("near", "bridge", "jailed")] + [recording(pool, "far", group, 4)]
    for vm, frame in zip(("near", "bridge", "jailed", "far"), frames, strict=True):
        assert receivers(pool, vm, frame) == []
    goes_to(pool, group, "near", "bridge", "jailed", "far")
    assert receivers(pool, "source", data(pool, "source", "ff05::9" if ":" in group else "239.9.9.9")) == []
    barred = data(pool, "source", group)
    barred[UDP].dport = 5001
    assert receivers(pool, "source", barred) == ["bridge/0", "far/0", "near/0"]
    for vm, frame in (("near", leaving(pool, "near", group)), ("far", recording(pool, "far", group, 3))):
        assert receivers(pool, vm, frame) == []
    for vm in ("bridge", "jailed"):
        assert receivers(pool, vm, leaving(pool, vm, group)) == []
    goes_to(pool, group)


def test_what_is_for_the_link_goes_to_everybody(pool: PoolUnderTest) -> None:
    """RFC 4541 §2.1.2 and §3: 224.0.0.0/24, all nodes, mDNS, solicited nodes. And what is no IP."""
    sent = [data(pool, "source", group) for group in ("224.0.0.251", "ff02::1", "ff02::fb", "ff02::1:ff00:2")]
    for frame in sent:
        reached = {"near/0", "far/0", "bridge/0", "router/0"}
        assert set(receivers(pool, "source", frame)) >= reached, frame.summary()
    bare = Ether(src=pool.vif("bridge").mac, dst=group_mac(V4), type=0x88B5) / "no IP"
    assert receivers(pool, "bridge", bare) == ["far/0", "near/0", "router/0", "source/0"]


def test_a_router_gets_every_group_and_the_reports(pool: PoolUnderTest) -> None:
    """A VIF that may not be one becomes none by its queries, which reach everybody."""
    assert set(receivers(pool, "near", igmp(pool, "near", IGMP(type=0x11, gaddr="0.0.0.0"), "224.0.0.1"))) >= {
        "far/0",
        "bridge/0",
    }
    goes_to(pool, V4)
    receivers(pool, "router", mld(pool, "router", ICMPv6MLQuery(), "ff02::1"))
    for group in (V4, V6):
        goes_to(pool, group, "router")
        reports = [joining(pool, "near", group), leaving(pool, "near", group), recording(pool, "near", group, 4)]
        assert [receivers(pool, "near", frame) for frame in reports] == [["router/0"]] * 3
        goes_to(pool, group, "near", "router")
    asked = igmp(pool, "router", IGMP(type=0x11, gaddr=V4), V4)  # one that looks like a report to a flow
    assert "near/0" in receivers(pool, "router", asked)
    for group in (V4, V6):
        receivers(pool, "near", leaving(pool, "near", group))
        goes_to(pool, group, "router")


def test_the_physical_network_gets_every_group_and_the_reports(pool: PoolUnderTest) -> None:
    """Of what it sends only listeners get groups. A report of IGMP looks like a query for a group: from there it reaches VIFs."""
    station = pool.station("trunk0", 7)
    assert receivers(pool, "wired2", joining(pool, "wired2", V4)) == [station.name, "wired1/0"]
    assert receivers(pool, "wired2", joining(pool, "wired2", V6)) == [station.name]
    goes_to_station(pool, "wired1", station, "wired2/0")
    arriving = Ether(src=STATION, dst=group_mac(V4)) / IP(src="10.2.0.9", dst=V4) / UDP() / "x"
    assert from_station(pool, station, arriving) == ["wired2/0"]
    query = Ether(src=STATION, dst=group_mac(V4)) / IP(src="10.2.0.9", dst=V4, ttl=1) / IGMP(type=0x11, gaddr=V4)
    assert from_station(pool, station, query) == ["wired1/0", "wired2/0"]
    for group in (V4, V6):
        assert receivers(pool, "wired2", leaving(pool, "wired2", group)) == [station.name]
    goes_to_station(pool, "wired1", station)


def goes_to_station(pool: PoolUnderTest, sender: str, station: Station, *vifs: str) -> None:
    want, frame = sorted((*vifs, station.name)), data(pool, sender, V4)
    frame[IP].src = "10.2.0.1"
    wait_until(lambda: receivers(pool, sender, frame) == want, f"it goes to {want}")


def from_station(pool: PoolUnderTest, station: Station, frame: Packet) -> list[str]:
    return sorted(
        item.to for item in pool.send(station, [bytes(frame)]).items if item.frame == bytes(frame) and "/" in item.to
    )


def test_listening_goes_with_the_vm(pool: PoolUnderTest) -> None:
    """At no step of a move does a group miss it: its port there has its groups before it opens. Its leave is heard where it is."""
    receivers(pool, "far", joining(pool, "far", V4))
    others = all_groups(pool)
    goes_to(pool, V4, "far", *others)
    want, frame = sorted(f"{vm}/0" for vm in ("far", *others)), data(pool, "source", V4)
    move = Move(pool, "far", "xen1")
    move.prepare()
    assert receivers(pool, "source", frame) == want
    move.arrive(announce=True)
    assert receivers(pool, "source", frame) == want
    move.finish()
    assert receivers(pool, "source", frame) == want
    receivers(pool, "far", leaving(pool, "far", V4))
    goes_to(pool, V4, *others)
    pool.migrate("far", "xen2")


def test_a_vif_that_joins_too_much_gets_everything_and_nobody_else_does(pool: PoolUnderTest) -> None:
    groups = [f"239.2.{n // 256}.{n % 256}" for n in range(MAX_GROUPS + 1)]
    others = all_groups(pool)
    records = [IGMPv3_MR_Group(rtype=4, maddr=group) for group in groups]
    receivers(pool, "near", igmp(pool, "near", IGMPv3_MR(records=records), "224.0.0.22"))
    for group in ("239.3.3.3", "ff05::3"):
        goes_to(pool, group, "near", *others)
    if isinstance(pool, Lab):
        with Client(f"unix:{pool.daemons.controller_socket}") as client:
            text = f"more than {MAX_GROUPS} multicast groups"
            wait_until(lambda: any(text in problem.text for problem in client.status().problems), "it is in status")


def test_what_is_joined_outlives_the_agent(pool: PoolUnderTest) -> None:
    """An agent that was killed, and its successor, cost no group; the successor hears of more. The command line lists them."""
    others = all_groups(pool)
    receivers(pool, "far", joining(pool, "far", "239.4.4.4"))
    goes_to(pool, "239.4.4.4", "far", *others)
    frame, want = data(pool, "source", "239.4.4.4"), sorted(f"{vm}/0" for vm in ("far", *others))
    if isinstance(pool, Lab):
        pool.daemons.kill("xen2")
        assert receivers(pool, "source", frame) == want
        pool.daemons.start_agent("xen2", pool.ovs("xen2"))
        pool.daemons.settle()
    assert receivers(pool, "source", frame) == want
    receivers(pool, "far", joining(pool, "far", "239.4.4.5"))
    goes_to(pool, "239.4.4.5", "far", *others)
    if isinstance(pool, Lab):
        asked = ["--controller", pool.daemons.env["VNET_CONTROLLER"], "show", "multicast", "--network", "lan"]
        shown = CliRunner().invoke(cli, asked)
        assert re.search(r"lan +239\.4\.4\.5 +far/0 +xen2", shown.output), shown.output


def test_a_network_that_begins_to_snoop_floods_first(pool: PoolUnderTest) -> None:
    """What was known before is not believed any more. Every VIF of the twin has been asked."""
    off = DOCUMENT.replace(b"multicast-snooping: true, query-interval: 1", b"multicast-snooping: false")
    on = DOCUMENT.replace(b"query-interval: 1}", b"query-interval: 600}")
    apply(pool, off)
    goes_to(pool, V4, *LISTENERS)
    if isinstance(pool, Lab):
        with Client(f"unix:{pool.daemons.controller_socket}") as client:
            wait_until(lambda: not any(b.listening for b in client.bindings()), "all is forgotten")
    apply(pool, on)
    want = [] if isinstance(pool, SimPool) else sorted(f"{vm}/0" for vm in LISTENERS)
    assert receivers(pool, "source", data(pool, "source", V4)) == want


def apply(pool: PoolUnderTest, document: bytes) -> None:
    if isinstance(pool, Lab):
        with Client(f"unix:{pool.daemons.controller_socket}") as client:
            client.apply(document.decode())
        pool.daemons.settle()
    elif isinstance(pool, SimPool):
        pool.update(desired_state(load(document, "test.vnet.yaml"), pool.state))


def test_a_trace_says_why() -> None:
    with running("sim", DOCUMENT) as pool:
        assert isinstance(pool, SimPool)
        receivers(pool, "far", joining(pool, "far", V4))
        leg = trace_packet(pool, "source/0", bytes(data(pool, "source", V4)))
        assert leg.to == ["far/0"]
        steps = [(step.name, step.source) for hop in leg.hops for step in hop.steps]
        assert ("MULTICAST", f"listeners of multicast group {V4}") in steps
