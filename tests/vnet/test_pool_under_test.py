"""The same calls on the simulator and on both drivers of the lab give the same results."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from tests.labs import new_name
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.sim import GuestPaused, NotPlugged, PacketError, SimPool, UnknownName
from vnet.testing import PoolUnderTest
from vnet.topology import load
from vnet.util.frames import BROADCAST, ethernet

DOCUMENT = b"""
apiVersion: vnet/v1
pool: same
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  tenant: {type: vxlan}
  prod: {type: vlan, tag: 120, uplink: trunk0}
security-groups:
  web:
    default: {ingress: drop, egress: allow}
    rules: [{name: http, direction: ingress, protocol: tcp, ports: [80], remote: any, action: allow}]
vms:
  web1: {host: xen1, vifs: [{network: tenant, addresses: [10.1.0.10], security-groups: [web]}]}
  db1: {host: xen2, vifs: [{network: tenant, addresses: [10.1.0.11]}, {network: prod, addresses: [10.2.0.11]}]}
  desk1: {host: xen1, vifs: [{network: prod, addresses: [10.2.0.10]}]}
  off: {vifs: [{network: tenant, addresses: [10.1.0.99]}]}
"""
ENGINES = [
    "sim",
    pytest.param("dummy", marks=pytest.mark.ovs),
    pytest.param("netns", marks=[pytest.mark.ovs, pytest.mark.netns]),
]


@contextmanager
def started(engine: str) -> Iterator[PoolUnderTest]:
    state = desired_state(load(DOCUMENT, "same.vnet.yaml"), PoolState())
    if engine == "sim":
        yield SimPool.of(state)
        return
    with Lab.up(state, name=new_name(), driver=Driver(engine), daemons=True) as lab:
        lab.start_all()
        lab.wait_ready()
        yield lab


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with started(request.param) as running:
        yield running


def to_db(pool: PoolUnderTest) -> bytes:
    """A frame from web1 to db1 that no policy concerns: an ARP answer."""
    web, db = pool.vif("web1"), pool.vif("db1/0")
    sender, target = (bytes.fromhex(vif.mac.replace(":", "")) for vif in (web, db))
    body = b"\0\x01\x08\0\x06\x04\0\x02" + sender + bytes((10, 1, 0, 10)) + target + bytes((10, 1, 0, 11))
    return ethernet(db.mac, web.mac, 0x0806, body)


def test_names(pool: PoolUnderTest) -> None:
    assert pool.vif("web1") == pool.vif("web1/0")
    assert pool.label(pool.vif("db1/1")) == "db1/1"
    assert (pool.location("db1"), pool.location("off")) == ("xen2", None)
    with pytest.raises(UnknownName, match="web1/0"):
        pool.vif("wbe1/0")
    with pytest.raises(UnknownName, match="web1/0"):
        pool.send("wbe1/0", to_db(pool))
    with pytest.raises(UnknownName, match="db1/0"):
        pool.vif("db1")
    with pytest.raises(UnknownName, match="trunk0"):
        pool.station("trunk9")
    with pytest.raises(UnknownName, match="eth1"):
        pool.cut("xen1", "eth9")


def test_send(pool: PoolUnderTest) -> None:
    got = pool.send("web1", to_db(pool))
    assert (got.to, got.at("db1/0")) == (["db1/0"], [to_db(pool)])
    with pytest.raises(NotPlugged, match="off/0 is not plugged"):
        pool.send("off", to_db(pool))
    with pytest.raises(PacketError, match="no Ethernet frame"):
        pool.send("web1", b"short")


def test_stations(pool: PoolUnderTest) -> None:
    station = pool.station("trunk0", 120)
    got = pool.send(station, ethernet(BROADCAST, "02:00:00:00:00:77", 0x0806, bytes(28)))
    assert got.to == ["db1/1", "desk1/0"]


def test_connect(pool: PoolUnderTest) -> None:
    assert pool.connect("db1/0", "web1", tcp=80).reached
    assert pool.connect("db1/0", "web1", tcp=80).reached
    refused = pool.connect("db1/0", "web1/0", tcp=22)
    assert not refused.reached
    assert (refused.legs[-1].title, refused.legs[-1].to) == ("tcp 22 from db1/0", [])
    assert "NOT reached: tcp 22 from db1/0" in repr(refused)
    assert pool.connect("web1", "db1/0", udp=53).reached
    assert not pool.connect("db1/0", "web1", udp=53).reached
    assert pool.connect("db1/1", "desk1").reached


def interfaces(data: bytes) -> list[tuple[str, int]]:
    return [(meta.ifname.decode(), meta.direction) for _, meta in RawPcapNgReader(io.BytesIO(data))]


def at_the_edge(seen: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return [(name, direction) for name, direction in seen if name.endswith("/0")]


def test_capture(pool: PoolUnderTest, tmp_path: Path) -> None:
    entered, left = ("xen1 br-int web1/0", 1), ("xen2 br-int db1/0", 2)
    file = io.BytesIO()
    with pool.capture(file):
        pool.send("web1", to_db(pool))
    assert at_the_edge(interfaces(file.getvalue())) == [entered, left]
    with pool.capture(tmp_path / "ping.pcapng"):
        assert pool.connect("web1", "db1/0").reached
    pool.send("web1", to_db(pool))
    back = [("xen2 br-int db1/0", 1), ("xen1 br-int web1/0", 2)]
    assert at_the_edge(interfaces((tmp_path / "ping.pcapng").read_bytes())) == [entered, left, *back] * 2


def test_pause_and_cut(pool: PoolUnderTest) -> None:
    pool.pause("web1")
    with pytest.raises(GuestPaused, match="web1/0 is paused"):
        pool.send("web1", to_db(pool))
    pool.resume("web1")
    pool.cut("xen2")
    assert pool.send("web1", to_db(pool)).to == []
    pool.heal("xen2")
    assert pool.send("web1", to_db(pool)).to == ["db1/0"]


@pytest.mark.parametrize("pause_s", [0.0, 0.02])
def test_migrate(pool: PoolUnderTest, pause_s: float) -> None:
    for host in ("xen2", "xen1"):
        pool.migrate("web1", host, pause_s=pause_s)
        assert pool.location("web1") == host
        assert pool.connect("db1/0", "web1", tcp=80).reached
