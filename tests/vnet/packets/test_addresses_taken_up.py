"""An address that another VIF takes up: neighbours, which remember the MAC of before, reach it at once although its guest says nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.labs import new_name
from tests.polling import wait_until
from vnet.client import Client
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

OLD, NEW = "0a:00:00:00:00:01", "0a:00:00:00:00:02"
HEAD = """
apiVersion: vnet/v1
pool: replaced
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks:
  tunnel: {type: vxlan}
  wire: {type: vlan, uplink: trunk0, tag: 7}
subnets:
  tunnel-v4: {network: tunnel, cidr: 10.1.0.0/24}
  tunnel-v6: {network: tunnel, cidr: "fd00:1::/64"}
  wire-v4: {network: wire, cidr: 10.2.0.0/24}
  wire-v6: {network: wire, cidr: "fd00:2::/64"}
security-groups:
  shut: {default: {egress: drop}}
vms:
"""
VM = """\
  {name}-{network}: {{host: {host}, vifs: [{{network: {network}, mac: "{mac}", addresses: [10.{n}.0.{last}, "fd00:{n}::{last}"]}}]}}
"""
NETWORKS = {"tunnel": 1, "wire": 2}


def document(server: str, host: str, mac: str) -> bytes:
    """On each network a server, a peer on xen1, and another VM on xen2."""
    text = HEAD
    for network, n in NETWORKS.items():
        text += VM.format(network=network, n=n, name="peer", host="xen1", mac=f"0a:00:00:00:01:0{n}", last=9)
        text += VM.format(network=network, n=n, name="other", host="xen2", mac=f"0a:00:00:00:02:0{n}", last=8)
        text += VM.format(network=network, n=n, name=server, host=host, mac=mac, last=1)
    return text.encode()


def state(text: bytes) -> PoolState:
    return desired_state(load(text, "test.vnet.yaml"), PoolState())


def ping(lab: Lab, vm: str, target: str) -> bool:
    argv = lab.vm_argv(vm, ["ping", "-c", "2", "-i", "0.2", "-W", "1", target])
    return subprocess.run(argv, env=lab.vm_env(), capture_output=True, timeout=60, check=False).returncode == 0


def targets(network: str) -> list[str]:
    return [f"10.{NETWORKS[network]}.0.1", f"fd00:{NETWORKS[network]}::1"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(state(document("old", "xen1", OLD)), name=new_name(), driver=Driver.NETNS, daemons=True) as lab:
        lab.start_all()
        lab.wait_ready()
        yield lab


@pytest.mark.usefixtures("netns")
def test_neighbours_reach_a_vif_that_has_the_address_of_another_one_that_is_gone(lab: Lab) -> None:
    text = document("new", "xen2", NEW)
    for network, n in NETWORKS.items():
        assert [ping(lab, f"peer-{network}", target) for target in targets(network)] == [True, True]
        # The userspace datapath drops the first frame to a host whose MAC it does not know.
        assert ping(lab, f"other-{network}", f"10.{n}.0.9")
        lab.remove_vm(f"old-{network}")
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        client.apply(text)
    for network in NETWORKS:
        lab.add_vm(f"new-{network}", [vif for vif in state(text).vifs.values() if vif.vm == f"new-{network}"])
        lab.start(f"new-{network}", "xen2")
    lab.wait_ready()
    for network in NETWORKS:
        # One announcement follows the other once the VIF is ready.
        known = lambda network=network: lab.run_in_vm(f"peer-{network}", "ip", "neigh")  # noqa: E731
        wait_until(lambda known=known: (known().count(NEW), known().count(OLD)) == (2, 0), "both are announced")  # type: ignore[misc]
        assert [ping(lab, f"peer-{network}", target) for target in targets(network)] == [True, True]
