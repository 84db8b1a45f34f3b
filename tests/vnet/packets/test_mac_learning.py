"""MACs behind unlocked VIFs: frames to them go where they were heard, and nowhere else. On the twin and in namespaces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.polling import wait_until
from tests.vnet.packets.engines import ENGINES, receivers, running
from vnet.lab import Lab
from vnet.sim import SimPool
from vnet.testing import PoolUnderTest

DOCUMENT = b"""
apiVersion: vnet/v1
pool: learning
hosts: {xen1: {address: 10.99.0.1}, xen2: {address: 10.99.0.2}, xen3: {address: 10.99.0.3}}
networks: {lan: {type: vxlan}}
vms:
  peer: {host: xen1, vifs: [{network: lan, mac: "0a:00:00:00:00:01", addresses: []}]}
  box: {host: xen2, vifs: [{network: lan, mac: "0a:00:00:00:00:02", locking-mode: unlocked, learn: 2, addresses: []}]}
  other: {host: xen3, vifs: [{network: lan, mac: "0a:00:00:00:00:03", locking-mode: unlocked, learn: 4, addresses: []}]}
"""
PEER, INNER, SECOND, THIRD = "0a:00:00:00:00:01", "0a:ee:00:00:00:01", "0a:ee:00:00:00:02", "0a:ee:00:00:00:03"


@pytest.fixture(scope="module", params=[ENGINES[0], ENGINES[2]])
def pool(request: pytest.FixtureRequest) -> Iterator[PoolUnderTest]:
    with running(request.param, DOCUMENT) as pool:
        yield pool


def frame(source: str, target: str) -> Packet:
    return Ether(src=source, dst=target) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / source


def settle(pool: PoolUnderTest) -> None:
    if isinstance(pool, Lab):
        pool.daemons.settle()


def goes_to(pool: PoolUnderTest, mac: str, *vifs: str) -> None:
    """Waits until a frame to a MAC reaches these VIFs only: agents learn one after the other."""
    want = sorted(vifs)
    if isinstance(pool, SimPool):
        assert receivers(pool, "peer", frame(PEER, mac)) == want
    else:
        wait_until(lambda: receivers(pool, "peer", frame(PEER, mac)) == want, f"{mac} is at {want}")


def test_what_was_heard_behind_a_vif_is_flooded_no_more(pool: PoolUnderTest) -> None:
    """It goes with the VIF, and to another one that is heard with it later. A VIF has as many as it may; a VIF's own MAC stays that VIF's."""
    goes_to(pool, INNER, "box/0", "other/0")
    for mac in (INNER, SECOND, THIRD):
        assert receivers(pool, "box", frame(mac, PEER)) == ["peer/0"]
        settle(pool)
    goes_to(pool, INNER, "box/0")
    goes_to(pool, SECOND, "box/0")
    goes_to(pool, THIRD, "box/0", "other/0")
    receivers(pool, "other", frame(PEER, "0a:00:00:00:00:02"))
    settle(pool)
    assert receivers(pool, "box", frame(INNER, PEER)) == ["peer/0"]
    pool.migrate("box", "xen1")
    goes_to(pool, INNER, "box/0")
    receivers(pool, "other", frame(INNER, PEER))
    goes_to(pool, INNER, "other/0")
    pool.migrate("box", "xen2")
    goes_to(pool, SECOND, "box/0")
