"""Objects are renamed while their VMs talk: neither they nor bystanders lose a frame, and the way back is a rename too."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.labs import new_name
from tests.polling import wait_until
from vnet.client import Client
from vnet.lab import Driver, Lab
from vnet.lab.streams import RunningStream
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

pytestmark = pytest.mark.usefixtures("ovs", "netns")
DOCUMENT = """\
apiVersion: vnet/v1
pool: renames
hosts:
  xen1: {address: 10.99.0.1}
  xen2: {address: 10.99.0.2}
qos: {fast: {from-vm: 900mbit, to-vm: 900mbit}}
networks: {lan: {type: vxlan, vif-qos: fast}}
subnets: {lan-v4: {network: lan, cidr: 10.1.0.0/24}}
address-sets: {peers: [10.1.0.0/24]}
security-groups: {web: {rules: [{name: from-peers, direction: ingress, remote: peers}]}}
vms:
  a: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1]}]}
  web: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.2], security-groups: [web]}]}
  near: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.3], security-groups: [web]}]}
"""
MOVED = "moved: {vms: {web: shop, near: close}, qos: {fast: swift}, subnets: {lan-v4: lan-ip}, address-sets: {peers: friends}}\n"
WORDS = (("fast", "swift"), ("lan-v4", "lan-ip"), ("peers", "friends"), ("  web:", "  shop:"), ("near:", "close:"))
RENAMED = DOCUMENT
for old_word, new_word in WORDS:
    RENAMED = RENAMED.replace(old_word, new_word)
RENAMED += MOVED
FRAMES = 300


def sends(stream: RunningStream) -> None:
    enough = stream.progress().sent + FRAMES
    wait_until(lambda: stream.progress().sent >= enough, "frames are sent")


def test_who_is_renamed_loses_no_frame() -> None:
    state = desired_state(load(DOCUMENT.encode(), "test.vnet.yaml"), PoolState())
    with Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True, document=DOCUMENT) as lab:
        lab.start_all()
        lab.wait_ready()
        lab.daemons.settle()
        with Client(f"unix:{lab.daemons.controller_socket}") as client, ExitStack() as stack:
            before, exported = client.vifs(), client.export()
            streams = {
                receiver: stack.enter_context(lab.stream(sender, receiver, period_ms=2))
                for sender, receiver in (("a", "web"), ("web", "a"), ("a", "near"))
            }
            for stream in streams.values():
                sends(stream)
            first = client.pool().revision
            applied = client.apply(RENAMED.encode())
            assert not applied.waiting
            assert {change.action for change in applied.plan.changes} == {"update"}
            assert "~ vm shop" in applied.plan.text
            assert "renamed from web" in applied.plan.text
            renamed = [
                change for change in client.change(str(applied.revision)).changes or () if change.action == "rename"
            ]
            assert {change.name for change in renamed} == {"swift", "lan-ip", "friends", "shop", "close"}
            after = {vif.id: vif for vif in client.vifs()}
            for vif in before:
                now = after[vif.id]
                assert (now.mac, now.addresses, now.place.host) == (vif.mac, vif.addresses, vif.place.host)
            assert after["web/0"].vm == "shop"
            for stream in streams.values():
                sends(stream)
            assert not client.apply(RENAMED.encode()).plan.changes
            back = client.rollback(str(first))
            assert not back.waiting
            assert {change.action for change in back.plan.changes} == {"update"}
            assert client.export() == exported
            for stream in streams.values():
                sends(stream)
            lab.daemons.settle()
        for receiver, stream in streams.items():
            got = stream.report.at(f"{receiver}/0")
            assert (got.lost, got.duplicated) == (0, 0), receiver
