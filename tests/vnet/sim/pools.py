"""Pools that the simulator's tests use."""

from __future__ import annotations

from vnet.objects import Protocol
from vnet.sim import SimPool
from vnet.sim.packets import End, Talk
from vnet.topology import load

TWO_HOSTS = b"""
apiVersion: vnet/v1
pool: lab
underlay: {mtu: 1600}
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}, bond0: {mode: active-backup, members: [eth2, eth3]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth7]}, bond0: {mode: active-backup, members: [eth2, eth3]}}}
networks:
  tenant: {type: vxlan}
  legacy: {type: gre, key: 77}
  gnv: {type: geneve}
  prod: {type: vlan, tag: 120, uplink: trunk0}
  flat: {type: vlan, tag: untagged, uplink: bond0}
  island: {type: internal}
subnets:
  tenant-v4: {network: tenant, cidr: 10.1.0.0/24}
  tenant-v6: {network: tenant, cidr: "fd00:1::/64"}
vms:
  web1: {host: xen1, vifs: [{network: tenant}, {network: prod, addresses: [10.2.0.1]}, {network: legacy, addresses: [10.3.0.1]}]}
  web2: {host: xen1, vifs: [{network: tenant}, {network: island, addresses: [10.4.0.1]}]}
  db1: {host: xen2, vifs: [{network: tenant}, {network: prod, addresses: [10.2.0.2]}, {network: legacy, addresses: [10.3.0.2]}]}
  free1: {host: xen1, vifs: [{network: gnv, locking-mode: unlocked}, {network: flat, locking-mode: unlocked, trunk: all}]}
  free2: {host: xen2, vifs: [{network: gnv, addresses: [10.5.0.2]}, {network: flat, addresses: []}, {network: island, addresses: [10.4.0.2]}]}
  off: {vifs: [{network: tenant}]}
"""


def two_hosts() -> SimPool:
    return SimPool.from_document(load(TWO_HOSTS, "two-hosts.vnet.yaml"))


def talk(
    pool: SimPool, source: str, target: str, protocol: Protocol = Protocol.ICMP, port: int = 0, version: int = 4
) -> Talk:
    """A conversation between two VIFs by their own addresses of one IP version."""
    ends = []
    for name in (source, target):
        vif = pool.vif(name)
        address = next(a for a in vif.addresses if (":" in a) is (version == 6))
        ends.append(End(vif.mac, address))
    return Talk(*ends, protocol, port)
