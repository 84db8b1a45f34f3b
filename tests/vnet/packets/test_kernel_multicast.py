"""Guests with real kernels on a network that snoops: they answer the queries of their hosts, of old and of new versions, and get their groups."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.packets.engines import receivers
from vnet.client import Client
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.objects.multicast import kept_ms
from vnet.plan import desired_state
from vnet.topology import load

INTERVAL_S = 1
DOCUMENT = b"""
apiVersion: vnet/v1
pool: kernels
hosts: {xen1: {address: 10.99.0.1}, xen2: {address: 10.99.0.2}}
networks: {lan: {type: vxlan, multicast-snooping: true, query-interval: 1, querier: 10.1.0.99}}
vms:
  source: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"]}]}
  new:    {host: xen2, vifs: [{network: lan, addresses: [10.1.0.2, "fd00:1::2"]}]}
  old:    {host: xen2, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"]}]}
"""
V4, V6 = "239.1.1.1", "ff05::1:3"


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    state = desired_state(load(DOCUMENT, "test.vnet.yaml"), PoolState())
    with Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True) as running:
        running.start_all()
        running.run_in_vm("old", "sysctl", "-qw", "net.ipv4.conf.eth0.force_igmp_version=2")
        running.run_in_vm("old", "sysctl", "-qw", "net.ipv6.conf.eth0.force_mld_version=1")
        running.wait_ready()
        yield running


def test_who_answers_keeps_its_groups(lab: Lab) -> None:
    """Longer than a group is kept that nobody reports; who leaves has them no more, and the other one goes on."""
    source = lab.vif("source").mac
    frames = [
        Ether(src=source, dst="01:00:5e:01:01:01") / IP(src="10.1.0.1", dst=V4) / UDP() / "four",
        Ether(src=source, dst="33:33:00:01:00:03") / IPv6(src="fd00:1::1", dst=V6) / UDP() / "six",
    ]
    for vm in ("new", "old"):
        for group, bits in ((V4, 32), (V6, 128)):
            lab.run_in_vm(vm, "ip", "addr", "add", f"{group}/{bits}", "dev", "eth0", "autojoin")

    def get(*vms: str) -> bool:
        return all(receivers(lab, "source", frame) == sorted(f"{vm}/0" for vm in vms) for frame in frames)

    with Client(f"unix:{lab.daemons.controller_socket}") as client:

        def known() -> bool:
            return all({V4, V6} <= {*(b.listening or ())} for b in client.bindings() if not b.vif.startswith("source"))

        wait_until(known, "both are heard")
        wait_until(lambda: get("new", "old"), "both get both groups")
        until = time.monotonic() + 2 * kept_ms(INTERVAL_S) / 1000
        while time.monotonic() < until:
            assert known(), client.bindings()
            time.sleep(0.2)
    assert get("new", "old")
    for group, bits in ((V4, 32), (V6, 128)):
        lab.run_in_vm("old", "ip", "addr", "del", f"{group}/{bits}", "dev", "eth0")
    wait_until(lambda: get("new"), "the other one goes on")
