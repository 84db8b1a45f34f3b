"""The twin of a pool and the same pool on real Open vSwitch, run by its own agents, deliver the same frames to the same VIFs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.labs import new_name
from tests.vnet.sim.pools import TWO_HOSTS, talk
from vnet.lab import Driver, Lab
from vnet.objects import PoolState, Protocol
from vnet.plan import desired_state
from vnet.sim import SimPool
from vnet.sim.packets import Part, resolve
from vnet.topology import load
from vnet.util.frames import BROADCAST, ethernet, rarp


@pytest.fixture(scope="module")
def state() -> PoolState:
    return desired_state(load(TWO_HOSTS, "two-hosts.vnet.yaml"), PoolState())


@pytest.fixture(scope="module")
def lab(ovs: None, state: PoolState) -> Iterator[Lab]:
    with Lab.up(state, name=new_name(), driver=Driver.DUMMY, daemons=True) as lab:
        lab.start_all()
        lab.wait_ready()
        yield lab


@pytest.fixture
def pool(state: PoolState) -> SimPool:
    return SimPool.of(state)


PAIRS = [
    ("web1/0", "db1/0", 4), ("web1/0", "db1/0", 6), ("web1/0", "web2/0", 4), ("web1/1", "db1/1", 4), ("web1/2", "db1/2", 4),
    ("web2/1", "free2/2", 4), ("web1/0", "db1/1", 4),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "version"), PAIRS)
def test_conversations(lab: Lab, pool: SimPool, source: str, target: str, version: int) -> None:
    ends = (source, target)
    if version == 6 or target != "db1/1":
        there = talk(pool, *ends, Protocol.TCP, 443, version)
    else:
        there = talk(pool, *ends, Protocol.UDP, 53)
    asked, told = resolve(there)
    for sender, frame in (
        (source, asked), (target, told), (source, there.frame()), (target, there.frame(Part.ANSWER)),
        (source, there.frame(payload=bytes(range(256)) * 5)), (target, there.frame()),
    ):  # fmt: skip
        ours = pool.send(sender, frame)
        real = lab.send(sender, frame)
        assert sorted((item.to, item.frame) for item in real) == sorted((item.to, item.frame) for item in ours)


def test_what_guests_send_wrong(lab: Lab, pool: SimPool) -> None:
    mac = pool.vif("free1/0").mac
    frames = [
        ("web1/0", rarp(pool.vif("web1/0").mac)),
        ("web1/0", rarp("02:00:00:00:00:42")),
        ("free1/0", ethernet("02:00:00:00:00:77", mac, 0x1234, b"unknown")),
        ("free2/0", ethernet("02:00:00:00:00:77", pool.vif("free2/0").mac, 0x1234, b"unknown")),
        ("free1/1", ethernet(BROADCAST, pool.vif("free1/1").mac, 0x8100, b"\0\x09\x12\x34tagged")),
        ("web1/0", ethernet(BROADCAST, pool.vif("web1/0").mac, 0x8100, b"\0\x09\x12\x34tagged")),
        ("free1/0", ethernet("01:80:c2:00:00:0e", mac, 0x88CC, b"lldp")),
    ]
    for sender, frame in frames:
        ours = sorted((item.to, item.frame) for item in pool.send(sender, frame))
        real = sorted((item.to, item.frame) for item in lab.send(sender, frame))
        assert real == ours, f"{sender}: {frame.hex()}"


def test_stations(lab: Lab, pool: SimPool) -> None:
    for uplink, tag in (("trunk0", 120), ("trunk0", None)):
        ours, real = pool.station(uplink, tag), lab.station(uplink, tag)
        frame = ethernet(pool.vif("db1/1").mac, "02:00:00:00:00:77", 0x1234, b"x" * 50)
        for sent in (frame, ethernet(BROADCAST, "02:00:00:00:00:77", 0x1234, b"y" * 50)):
            got = sorted((item.to, item.frame) for item in pool.send(ours, sent))
            assert sorted((item.to, item.frame) for item in lab.send(real, sent)) == got
