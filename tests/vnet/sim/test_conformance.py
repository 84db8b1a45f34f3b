"""The twin's switches and a real ovs-vswitchd with the compiled flows send the same frames, byte for byte, to the same ports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from random import Random

import pytest

from ovsctl.datapath import EmulatedBridge, EmulatedPort, Passed
from ovsctl.openflow import Flow, Meter
from ovsctl.openflow.messages import FragmentHandling
from tests.ovsctl.datapath.real_bridge import RealBridge, real_bridge
from tests.vnet.sim.pools import talk, two_hosts
from tests.vnet.sim.random_pools import random_groups, random_state
from vnet.compile import GROUPS, flat, meters_of
from vnet.objects import PoolState, Protocol, SecurityGroup
from vnet.sim import SimPool
from vnet.sim.conversation import party, plan
from vnet.sim.packets import Part, resolve
from vnet.util.frames import rarp


@pytest.fixture(scope="module")
def pool() -> SimPool:
    return two_hosts()


def compiled(pool: SimPool, host: str) -> tuple[list[Flow], list[Meter], EmulatedBridge]:
    """A host's flows and meters, and a switch with them whose tunnels are plain ports."""
    known = pool.hosts[host]
    flows, meters = flat(known.compiled), meters_of(known.compiled)
    ports = {n: EmulatedPort(port.name) for n, port in known.bridge.ports.items()}
    return (
        flows,
        meters,
        EmulatedBridge(flows, ports=ports, groups=GROUPS, meters=meters, fragments=FragmentHandling.NX_MATCH),
    )


@pytest.fixture(scope="module")
def host_bridge(ovs: None, pool: SimPool) -> Iterator[RealBridge]:
    with real_bridge(sorted(pool.hosts["xen1"].bridge.ports)) as running:
        yield running


OUTER_TAGS = (b"\x81\0\x60\x09", b"\x88\xa8\x60\x09", b"\x88\xa8\0\0")


def frames_from(pool: SimPool) -> list[tuple[int, bytes]]:
    """What guests and the physical network may send to a host, right and wrong, with the port that it comes in."""
    host = pool.hosts["xen1"]
    pairs = [
        ("web1/0", "db1/0"),
        ("web1/0", "web2/0"),
        ("web1/1", "db1/1"),
        ("web1/2", "db1/2"),
        ("free1/0", "free2/0"),
    ]
    sent: list[tuple[int, bytes]] = []
    for source, target in pairs:
        if not pool.vif(source).addresses:
            continue
        there = talk(pool, source, target, Protocol.TCP, 443)
        port = host.ports[pool.vif(source).id]
        sent += [
            (port, frame) for frame in (there.frame(), *resolve(there), there.back.frame(), rarp(there.source.mac))
        ]
        tagged = there.frame()[:12] + b"\x81\0\0\x78" + there.frame()[12:]
        sent += [(port, tagged), (port, there.frame()[:6] + b"\x02\0\0\0\0\x42" + there.frame()[12:])]
    uplinks = [number for name, number in host.devices.items() if name.startswith("int-")]
    for uplink in uplinks:
        for tag in (b"", b"\x81\0\0\x78", b"\x81\0\x60\x07"):
            for frame in (talk(pool, "db1/1", "web1/1").frame(Part.REQUEST), rarp("02:00:00:00:00:42")):
                sent.append((uplink, frame[:12] + tag + frame[12:]))
    trunk = host.ports[pool.vif("free1/1").id]
    broadcast = rarp(pool.vif("free1/1").mac)
    mpls = broadcast[:12] + b"\x88\x47\0\x10\x01\x40" + broadcast[14:]
    for frame in (
        broadcast,
        talk(pool, "db1/1", "web1/1").frame(Part.REQUEST)[:6] + broadcast[6:12] + broadcast[12:],
        mpls,
    ):
        sent += [
            (trunk, frame[:12] + tags + frame[12:])
            for tags in (b"", *OUTER_TAGS, *(tag + OUTER_TAGS[0] for tag in OUTER_TAGS))
        ]
    return sent


@pytest.mark.parametrize("state", ["settled", "held", "receiving", "active", "left"])
def test_compiled_flows_in_every_state_of_a_migration(host_bridge: RealBridge, state: str) -> None:
    pool = two_hosts()
    frames = frames_from(pool)
    if state == "left":
        pool.prepare("web1", "xen2")
        pool.activate("web1")
    elif state != "settled":
        pool.run("db1", "xen2")
        pool.prepare("db1", "xen1")
        if state != "held":
            pool.switch("db1")
        if state == "active":
            pool.activate("db1")
    flows, meters, switch = compiled(pool, "xen1")
    host_bridge.set(flows, GROUPS, meters=meters, fragments=FragmentHandling.NX_MATCH)
    announcing = pool.hosts["xen1"].ports.get("db1/1")
    if announcing is not None and announcing in host_bridge.ports:
        frames.append((announcing, rarp(pool.vif("db1/1").mac)))
    frames = [(port, frame) for port, frame in frames if port in host_bridge.ports]
    for port, frame in [*frames, *frames]:
        real = sorted(host_bridge.send(port, frame))
        ours = sorted((out.port, out.frame) for out in switch.receive(frame, port) if out.port in host_bridge.ports)
        assert ours == real, f"{switch.port_name(port)}: {frame.hex()}"


def test_trace_names_the_flows_that_ofproto_trace_names(host_bridge: RealBridge, pool: SimPool) -> None:
    flows, meters, switch = compiled(pool, "xen1")
    host_bridge.set(flows, GROUPS, meters=meters, fragments=FragmentHandling.NX_MATCH)
    for port, frame in frames_from(pool):
        text = host_bridge.appctl("ofproto/trace", "br0", f"in_port={port}", frame.hex())
        theirs = [
            (int(found[1]), int(found[2]))
            for line in text.splitlines()
            if (found := re.match(r" *(\d+)\. .*priority (\d+)", line))
        ]
        notes: list[Passed] = []
        switch.receive(frame, port, notes=notes)
        # ofproto/trace ends where the frame is read anew.
        followed = takewhile(lambda note: note.text != "the frame is read anew", notes)
        ours = [(note.table, note.flow.priority) for note in followed if note.flow is not None]
        assert ours == theirs, f"{switch.port_name(port)}: {frame.hex()}"


# ---- policy ----

VIF_PORTS, DEVICE_PORTS = range(1, 9), range(0xF000, 0xF005)


@pytest.fixture(scope="module")
def policy_bridge(ovs: None) -> Iterator[RealBridge]:
    with real_bridge([*VIF_PORTS, *DEVICE_PORTS]) as running:
        yield running


def conversation(pool: SimPool, rng: Random) -> list[tuple[int, bytes]]:
    """What two VIFs say to each other, as it comes to host h0: by their ports, or by the uplink. Sometimes out of order."""
    host = pool.hosts["h0"]
    a, b = (party(pool, vif) for vif in rng.sample(sorted(pool.state.vifs.values(), key=lambda vif: vif.id), 2))
    packets = plan(a, b, rng.choice(list(Protocol)), rng.choice((443, 53, 22, 9)))
    if rng.random() < 0.3:
        rng.shuffle(packets)
    sent = []
    for _, sender, _, frame, _ in packets:
        vif = pool.vif(str(sender.endpoint))
        network = pool.state.networks[vif.network]
        if vif.id in host.ports:
            sent.append((host.ports[vif.id], frame))
        elif network.uplink is not None and (port := host.devices.get(f"int-{network.uplink}")) is not None:
            tag = b"\x81\0" + network.tag.to_bytes(2, "big") if network.tag else b""
            sent.append((port, frame[:12] + tag + frame[12:]))
    return sent


@pytest.mark.parametrize("seed", range(40))
def test_policy_in_random_pools(policy_bridge: RealBridge, seed: int) -> None:
    rng = Random(seed)
    pool = SimPool.of(random_state(rng))
    for _ in range(3):
        flows, meters, switch = compiled(pool, "h0")
        switch.tracker = pool.hosts["h0"].bridge.tracker
        policy_bridge.set(flows, GROUPS, meters=meters, keep_connections=True, fragments=FragmentHandling.NX_MATCH)
        for _ in range(5):
            for port, frame in conversation(pool, rng):
                real = sorted(policy_bridge.send(port, frame))
                ours = sorted((out.port, out.frame) for out in switch.receive(frame, port))
                assert ours == real, f"{switch.port_name(port)}: {frame.hex()}"
        pool.update(replace(pool.state, groups={**pool.state.groups, **changed_groups(rng, pool.state)}))
    policy_bridge.appctl("dpctl/flush-conntrack")


def changed_groups(rng: Random, state: PoolState) -> dict[str, SecurityGroup]:
    """Other rules for the groups of a pool."""
    return {name: group for name, group in random_groups(rng).items() if name in state.groups}
