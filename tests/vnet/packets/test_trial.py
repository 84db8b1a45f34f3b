"""A revision on trial that nobody confirms, with streams between real VIFs: whom it concerns gets back what it had, and bystanders lose nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ovsctl.ovsdb import OvsdbClient, Update
from tests.labs import new_name
from tests.polling import wait_until
from vnet.client import Client
from vnet.db.rows import SCHEMA_NAME
from vnet.lab import Driver, Lab
from vnet.lab.streams import RunningStream
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

pytestmark = pytest.mark.usefixtures("ovs", "netns")
DOCUMENT = b"""
apiVersion: vnet/v1
pool: trials
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks: {one: {type: vxlan}, two: {type: vlan, tag: 7, uplink: trunk0}}
security-groups:
  web: {rules: [{name: any, direction: ingress}]}
vms:
  a1: {host: xen1, vifs: [{network: one, addresses: [10.1.0.1]}]}
  a2: {host: xen2, vifs: [{network: one, addresses: [10.1.0.2]}]}
  b1: {host: xen1, vifs: [{network: two, addresses: [10.2.0.1]}]}
  b2: {host: xen2, vifs: [{network: two, addresses: [10.2.0.2]}]}
  web: {host: xen2, vifs: [{network: one, addresses: [10.1.0.3], security-groups: [web]}]}
"""
TRIED = DOCUMENT.replace(b"web: {rules: [{name: any, direction: ingress}]}", b"web: {rules: []}") + (
    b"  new: {host: xen1, vifs: [{network: one}]}\n"
)
FRAMES = 100


@pytest.fixture
def lab() -> Iterator[Lab]:
    state = desired_state(load(DOCUMENT, "test.vnet.yaml"), PoolState())
    with Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True) as lab:
        lab.start_all()
        lab.wait_ready()
        lab.daemons.settle()
        yield lab


def test_nobody_confirms_and_the_controller_dies(lab: Lab) -> None:
    """The time ends while no controller is there; the next one takes it back as it starts."""
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        before = client.export()
        bystanders = {"a2/0": lab.stream("a1", "a2"), "b2/0": lab.stream("b1", "b2")}
        with bystanders["a2/0"], bystanders["b2/0"], lab.stream("a1", "web") as concerned:
            wait_until(lambda: concerned.progress().frames("web/0") >= FRAMES, "frames come to web")
            applied = client.apply(TRIED, try_s=3600)
            assert not applied.waiting
            sends(concerned, FRAMES)
            came = concerned.progress().frames("web/0")
            sends(concerned, FRAMES)
            assert concerned.progress().frames("web/0") == came, "what is tried cuts it off"
            lab.daemons.kill("controller")
            asyncio.run(end(f"unix:{lab.daemons.pool_socket}"))
            lab.daemons.start_controller()
            wait_until(lambda: concerned.progress().frames("web/0") >= came + FRAMES, "frames come to web again")
            lab.daemons.settle()
        assert client.export() == before
        for receiver, stream in bystanders.items():
            got = stream.report.at(receiver)
            assert (got.lost, got.duplicated) == (0, 0), receiver


def sends(stream: RunningStream, frames: int) -> None:
    enough = stream.progress().sent + frames
    wait_until(lambda: stream.progress().sent >= enough, "frames are sent")


async def end(remote: str) -> None:
    """The time of the trial is over."""
    async with OvsdbClient([remote], SCHEMA_NAME) as pool:
        await pool.transact(Update("Trial", (), {"ends": 1}))
