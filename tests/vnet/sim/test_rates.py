"""Rate limits on the twin, and on a real ovs-vswitchd with the same flows, meters and clock: the same frames pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

from ovsctl.datapath import EmulatedBridge, EmulatedPort
from tests.ovsctl.datapath.real_bridge import RealBridge, real_bridge
from vnet.compile import GROUPS, OF_VIF, Limit, flat, meters_of
from vnet.objects import QosClass
from vnet.objects.qos import MIN_BURST_BITS
from vnet.sim import SimPool
from vnet.topology import load

DOCUMENT = b"""
apiVersion: vnet/v1
pool: lab
hosts:
  xen1: {address: 10.99.0.1, uplinks: {up: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {up: {members: [eth1]}}}
qos:
  slow: {from-vm: 1mbit, burst: 32kb}
  deaf: {to-vm: 1mbit, burst: 32kb}
  few: {packets: 20pps}
  marked: {dscp: 46}
  calm: {broadcast: 20pps, multicast: 40pps, unknown: 60pps}
  loud: {multicast: 20pps}
  shared: {from-vm: 2mbit, burst: 64kb, aggregate: true}
networks:
  tenant: {type: vxlan}
  crowd: {type: vxlan, qos: shared}
  quiet: {type: vxlan, vif-qos: calm}
  wire: {type: vlan, tag: untagged, uplink: up}
  v7: {type: vlan, tag: 7, uplink: up, qos: shared}
subnets:
  t4: {network: tenant, cidr: 10.1.0.0/24}
  c4: {network: crowd, cidr: 10.2.0.0/24}
security-groups:
  open: {rules: [{name: all, direction: ingress, remote: any, action: allow}]}
vms:
  slow: {host: xen1, vifs: [{network: tenant, qos: slow}]}
  deaf: {host: xen1, vifs: [{network: tenant, qos: deaf}]}
  few: {host: xen1, vifs: [{network: tenant, qos: few, security-groups: [open]}]}
  marked: {host: xen1, vifs: [{network: tenant, qos: marked, security-groups: [open]}]}
  free: {host: xen1, vifs: [{network: tenant}]}
  far: {host: xen2, vifs: [{network: tenant}]}
  one: {host: xen1, vifs: [{network: crowd}]}
  two: {host: xen1, vifs: [{network: crowd, qos: slow}]}
  three: {host: xen2, vifs: [{network: crowd}]}
  noisy: {host: xen1, vifs: [{network: quiet, addresses: [10.3.0.1]}]}
  loud: {host: xen1, vifs: [{network: quiet, qos: loud, addresses: [10.3.0.2]}]}
  any: {host: xen2, vifs: [{network: quiet, locking-mode: unlocked, addresses: [10.3.0.3]}]}
  trunk: {host: xen1, vifs: [{network: wire, trunk: [7, 8], qos: slow, locking-mode: unlocked}]}
  tagged: {host: xen1, vifs: [{network: v7, locking-mode: unlocked}]}
"""


@pytest.fixture
def pool() -> SimPool:
    return SimPool.from_document(load(DOCUMENT, "rates.vnet.yaml"))


def udp(pool: SimPool, source: str, target: str, size: int = 1000, tos: int = 0) -> bytes:
    sender, receiver = pool.vif(source), pool.vif(target)
    ends = [vif.addresses[0] if vif.addresses else "10.9.0.1" for vif in (sender, receiver)]
    packet = Ether(src=sender.mac, dst=receiver.mac) / IP(src=ends[0], dst=ends[1], tos=tos) / UDP(sport=1, dport=2)
    return bytes(packet / bytes(size - len(packet)))


def request(pool: SimPool, source: str, size: int) -> bytes:
    sender = pool.vif(source)
    packet = ARP(hwsrc=sender.mac, psrc=sender.addresses[0], pdst="10.1.0.99")
    return bytes(Ether(src=sender.mac, dst="ff:ff:ff:ff:ff:ff") / packet).ljust(size, b"\0")


def passed(pool: SimPool, source: str, target: str, count: int, pause_ms: float = 0.0) -> int:
    """How many of `count` frames of 1,000 bytes arrive."""
    got = 0
    for _ in range(count):
        pool.advance(pause_ms)
        got += len(pool.send(source, udp(pool, source, target)).at(f"{target}/0"))
    return got


def test_a_burst_passes_and_then_the_rate(pool: SimPool) -> None:
    assert passed(pool, "slow", "far", 100) == 32, "32 kB at once"
    pool.advance(80)
    assert passed(pool, "slow", "far", 100) == 10, "1 mbit is 125 bytes in a millisecond"
    assert passed(pool, "free", "deaf", 100) == 32
    assert passed(pool, "deaf", "free", 100) == 100, "the other way is not limited"
    assert passed(pool, "few", "far", 30) == 10, "half a second of 20 packets"
    meter = pool.hosts["xen1"].bridge.meters[OF_VIF | pool.hosts["xen1"].ports["slow/0"] << 2 | Limit.FROM_VM]
    assert (meter.packets, meter.bands[0].packets) == (200, 158)


FLOODED = {"broadcast": "ff:ff:ff:ff:ff:ff", "multicast": "01:00:5e:00:00:05", "unknown": "0a:ee:00:00:00:01"}


def flooded(pool: SimPool, source: str, what: str) -> bytes:
    """A frame that the switches flood: to everybody, to a group or to nobody's MAC."""
    sender = pool.vif(source)
    return bytes(
        Ether(src=sender.mac, dst=FLOODED[what]) / IP(src=sender.addresses[0], dst="10.3.0.9") / UDP() / b"flood"
    )


@pytest.mark.parametrize(
    ("source", "limits"), [("noisy", (10, 20, 30)), ("loud", (100, 10, 100)), ("any", (10, 20, 0))]
)
def test_a_vif_that_floods_harms_itself_only(pool: SimPool, source: str, limits: tuple[int, ...]) -> None:
    """Half a second of each rate passes at once; another VIF's frames, and its own to a known address, all do. Nobody but an unlocked VIF
    gets frames for unknown addresses."""
    peer = {"noisy": "loud", "loud": "any", "any": "noisy"}[source]
    to = "any/0" if source != "any" else "loud/0"
    got = dict.fromkeys(FLOODED, 0)
    for _ in range(100):
        for what in FLOODED:
            got[what] += to in pool.send(source, flooded(pool, source, what)).to
        assert passed(pool, source, peer, 1) == passed(pool, peer, source, 1) == 1
    assert tuple(got.values()) == limits
    assert (
        "loud/0"
        in pool.send(
            "noisy" if source != "noisy" else "any", flooded(pool, "noisy" if source != "noisy" else "any", "broadcast")
        ).to
    )


def test_a_full_meter_of_one_receiver_takes_nothing_from_the_others(pool: SimPool) -> None:
    deliveries = [pool.send("free", request(pool, "free", 1000)).to for _ in range(60)]
    assert sum("deaf/0" in to for to in deliveries) == 32
    assert sum("few/0" in to for to in deliveries) == 10
    assert all(vif in to for to in deliveries for vif in ("slow/0", "marked/0", "far/0"))


def test_dscp_is_written_and_ecn_stays(pool: SimPool) -> None:
    (frame,) = pool.send("marked", udp(pool, "marked", "far", tos=0b10)).at("far/0")
    assert Ether(frame)[IP].tos == 46 << 2 | 0b10
    (frame,) = pool.send("free", udp(pool, "free", "far", tos=0b10)).at("far/0")
    assert Ether(frame)[IP].tos == 0b10


def test_an_aggregate_is_split_over_the_hosts_and_shared_by_the_vifs_of_one(pool: SimPool) -> None:
    assert passed(pool, "one", "three", 25) == 25
    assert passed(pool, "two", "three", 100) == 7, "of the 32 kB that host xen1 has, after 25 of VIF one"
    assert passed(pool, "three", "one", 100) == 32, "host xen2 has its own half"


def test_a_trunk_is_limited_by_its_class_on_every_tag_and_by_the_network_of_a_tag(pool: SimPool) -> None:
    frame = udp(pool, "trunk", "tagged", 996)
    seven, eight = (frame[:12] + b"\x81\0\0" + bytes([tag]) + frame[12:] for tag in (7, 8))
    assert [pool.send("trunk", seven).to for _ in range(10)] == [["tagged/0"]] * 10
    for _ in range(40):
        pool.send("trunk", eight)
    host = pool.hosts["xen1"]
    meter = host.bridge.meters[OF_VIF | host.ports["trunk/0"] << 2 | Limit.FROM_VM]
    assert (meter.packets, meter.bands[0].packets) == (50, 18)
    assert passed(pool, "tagged", "trunk", 100) == 54, (
        "64 kB of v7, which is on one host, less what the trunk sent on it"
    )


def test_a_class_that_changes_changes_the_meter_alone(pool: SimPool) -> None:
    host = pool.hosts["xen1"]
    before = flat(host.compiled)
    pool.update(replace(pool.state, qos={**pool.state.qos, "slow": QosClass("slow", from_vm=10**7, burst=10**6)}))
    assert flat(host.compiled) == before
    assert passed(pool, "slow", "far", 200) == 125


@pytest.fixture(scope="module")
def bridge(ovs: None) -> Iterator[RealBridge]:
    known = SimPool.from_document(load(DOCUMENT, "rates.vnet.yaml"))
    with real_bridge(sorted(known.hosts["xen1"].bridge.ports)) as running:
        running.appctl("time/stop")
        yield running


@pytest.mark.usefixtures("ovs")
@pytest.mark.parametrize("seed", range(3))
def test_the_switch_passes_the_same_frames_at_the_same_time(bridge: RealBridge, pool: SimPool, seed: int) -> None:
    small = {name: replace(pool.state.qos[name], burst=MIN_BURST_BITS) for name in ("slow", "deaf", "shared")}
    pool.update(replace(pool.state, qos={**pool.state.qos, **small}))
    host, rng = pool.hosts["xen1"], Random(seed)
    flows, meters = flat(host.compiled), meters_of(host.compiled)
    bridge.set(flows, GROUPS, meters=meters)
    ports = {number: EmulatedPort(port.name) for number, port in host.bridge.ports.items()}
    emulated = EmulatedBridge(flows, ports=ports, meters=meters)
    pairs = [("slow", "far"), ("free", "deaf"), ("few", "slow"), ("one", "three"), ("two", "one"), ("tagged", "trunk")]
    now_ms = 0
    for _ in range(240):
        if elapsed_ms := rng.choice((0, 0, 0, 0, 0, 0, 1, 30)):
            bridge.appctl("time/warp", str(elapsed_ms))
            now_ms += elapsed_ms
        source, target = rng.choice(pairs)
        match rng.random():
            case chance if chance < 0.3:
                source, frame = "free", request(pool, "free", 1400)
            case chance if chance < 0.5:
                source = rng.choice(("noisy", "loud"))
                frame = flooded(pool, source, rng.choice([*FLOODED]))
            case _:
                frame = udp(pool, source, target, rng.choice((900, 1400)))
        port = host.ports[f"{source}/0"]
        real = sorted(bridge.send(port, frame))
        ours = sorted((out.port, out.frame) for out in emulated.receive(frame, port, now_us=1000 * now_ms))
        assert ours == real, (source, target)
    meters_used = [meter for meter in emulated.meters.values() if meter.packets]
    assert sum(band.packets for meter in meters_used for band in meter.bands) > 20
