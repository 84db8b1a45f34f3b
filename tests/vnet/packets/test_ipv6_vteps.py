"""Tunnels whose ends are IPv6 addresses carry the same frames as those over IPv4, up to the same MTU."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.labs import new_name
from tests.vnet.packets.pools import HOSTS, every_type, vm_of
from vnet.lab import Driver, Lab
from vnet.objects import PoolState, default_mtu, mtu_capacity

pytestmark = pytest.mark.usefixtures("netns")
TUNNELS = ("vx", "gre", "gnv")


def over_ipv6() -> PoolState:
    """One VM on each host and tunnel network, the MTUs as computed over IPv6."""
    pool = every_type(per_host=1)
    hosts = {name: replace(host, address=f"fd00:99::{n}") for n, (name, host) in enumerate(HOSTS.items(), 1)}
    networks = {}
    for name in TUNNELS:
        network = pool.networks[name]
        capacity = mtu_capacity(network.type, 1600, "fd00:99::1")
        networks[name] = replace(network, mtu=default_mtu(network.type, capacity))
    vifs = {id: vif for id, vif in pool.vifs.items() if vif.network in TUNNELS and not vif.trunk}
    vms = {vif.vm: pool.vms[vif.vm] for vif in vifs.values() if vif.vm is not None}
    return replace(pool, hosts=hosts, networks=networks, vifs=vifs, vms=vms)


@pytest.mark.parametrize("driver", list(Driver), ids=lambda driver: driver.value)
def test_tunnels_over_ipv6(driver: Driver) -> None:
    pool = over_ipv6()
    with Lab.up(pool, name=new_name(), driver=driver, daemons=True) as lab:
        lab.start_all()
        lab.daemons.settle()
        for name in TUNNELS:
            vifs = [pool.vifs[f"{vm_of(name, host, 0)}/0"] for host in HOSTS]
            for source in vifs:
                others = [vif for vif in vifs if vif is not source]

                def frame(to: str, size: int = 100, source: object = source) -> bytes:
                    header = Ether(src=source.mac, dst=to) / IP(src=source.addresses[0], dst="10.200.0.1") / UDP()  # type: ignore[attr-defined]
                    return bytes(header / (b"x" * (size - len(header))))

                for to in others:
                    assert lab.send(source.id, frame(to.mac)).to == [to.id], (name, source.id)
                assert lab.send(source.id, frame("ff:ff:ff:ff:ff:ff")).to == sorted(vif.id for vif in others)
            full = frame(others[0].mac, pool.networks[name].mtu + 14)
            assert lab.send(source.id, full).at(others[0].id) == [full], name
