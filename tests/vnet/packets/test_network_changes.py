"""Running VIFs are put on another network, by each door: their ports stay, and no frame sees both networks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.labs import new_name
from tests.polling import wait_until
from vnet.api import VifChange
from vnet.client import Client
from vnet.lab import Driver, Lab
from vnet.lab.streams import EXPERIMENTAL, RunningStream
from vnet.objects import Owner, PoolState
from vnet.plan import desired_state
from vnet.topology import load

pytestmark = pytest.mark.usefixtures("ovs", "netns")
DOCUMENT = """
apiVersion: vnet/v1
pool: changes
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks: {one: {type: vxlan}, two: {type: vlan, tag: 7, uplink: trunk0}, jail: {type: geneve}}
security-groups: {open: {default: {ingress: allow, egress: allow}}}
vms:
  doc: {host: xen1, vifs: [{network: NETWORK, mac: "0a:00:00:00:00:10", addresses: [], security-groups: [open]}]}
"""
WEB = b"""\
  web: {host: xen1, vifs: [{network: one, mac: "0a:00:00:00:00:01", addresses: [], security-groups: [open]}]}
"""
PEERS = ["one", "two"]
for number, (network, host) in enumerate([("one", 1), ("one", 2), ("two", 1), ("two", 2), ("jail", 2)], 2):
    vifs = f'[{{network: {network}, mac: "0a:00:00:00:00:0{number}", addresses: []}}]'
    DOCUMENT += f"  {network}{host}: {{host: xen{host}, vifs: {vifs}}}\n"
RECEIVERS = {f"{network}{host}/0": network for network in PEERS for host in (1, 2)} | {"jail2/0": "jail"}
SLOW = 100  # frames
FRESH = 20  # frames of each stream that come after a change before the next one


def document(network: str) -> bytes:
    return DOCUMENT.replace("NETWORK", network).encode()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One of the two VIFs is as if a toolstack had made it."""
    state = desired_state(load(document("one") + WEB, "test.vnet.yaml"), PoolState())
    vms = state.vms | {"web": replace(state.vms["web"], owner=Owner.TOOLSTACK)}
    vifs = state.vifs | {"web/0": replace(state.vifs["web/0"], owner=Owner.TOOLSTACK)}
    with Lab.up(replace(state, vms=vms, vifs=vifs), name=new_name(), driver=Driver.NETNS, daemons=True) as lab:
        lab.start_all()
        lab.wait_ready()
        lab.daemons.settle()
        yield lab


def broadcast(lab: Lab, vm: str) -> RunningStream:
    frame = Ether(src=lab.vif(vm).mac, dst="ff:ff:ff:ff:ff:ff", type=EXPERIMENTAL)
    return lab.stream(vm, packet=frame, period_ms=2)


def steps(client: Client, vm: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """The networks that a VIF is put on, each with the call that does it."""
    if vm == "doc":
        for network in ("two", "one", "jail", "one"):
            yield network, partial(client.apply, document(network))
        return
    for network in ("two", "one"):
        yield network, partial(client.change_vif, "web/0", VifChange(network=network))
    yield "jail", partial(client.quarantine_vif, "web/0", "jail")
    yield "one", partial(client.release_vif, "web/0")


@contextmanager
def slow_database(lab: Lab, own: RunningStream) -> Iterator[None]:
    """The database of the switch takes its time for what begins inside, and so does each new port."""
    pid = lab.ovs("xen1").pid("ovsdb-server")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
        enough = own.progress().sent + SLOW
        wait_until(lambda: own.progress().sent >= enough, "frames are sent meanwhile")
    finally:
        os.kill(pid, signal.SIGCONT)


def ofport(lab: Lab, vm: str) -> str:
    found = lab.ovs("xen1").vsctl("--bare", "--columns=ofport", "find", "Interface", f"external_ids:iface-id={vm}/0")
    return found.strip()


def visited(arrived: list[str]) -> list[str]:
    """The networks in order, of the frames that came. Open vSwitch judges flows that it has cached anew one after the other, so frames of the last network may still come among the first ones of the next."""
    found, fresh, late = arrived[:1], 0, 0
    for network in arrived:
        if network == found[-1]:
            fresh += 1
        elif network in found[-2:-1] and fresh < FRESH and late < FRESH:
            late += 1
        else:
            found.append(network)
            fresh, late = 1, 0
    return found


@pytest.mark.parametrize("vm", ["web", "doc"])
def test_a_running_vif_is_never_on_two_networks(lab: Lab, vm: str) -> None:
    """It hears the broadcasts of one network at a time, from its own host and from another one, and none is lost of what it sends."""
    port, visits = ofport(lab, vm), ["one"]

    def connections() -> int:
        return lab.ovs("xen1").appctl("dpctl/dump-conntrack").count(f"zone={port}\n")

    with ExitStack() as stack:
        client = stack.enter_context(Client(f"unix:{lab.daemons.controller_socket}"))
        own = stack.enter_context(broadcast(lab, vm))
        peers = {vif: stack.enter_context(broadcast(lab, vif.removesuffix("/0"))) for vif in RECEIVERS}
        for network, change in steps(client, vm):
            visits.append(network)
            # No VIF of xen1 was on a network with the jail's type of tunnel. A document takes long to apply on a busy machine.
            with slow_database(lab, own) if (vm, network) == ("web", "jail") else nullcontext():
                change()
            for stream in (stream for vif, stream in peers.items() if RECEIVERS[vif] == network):
                enough = stream.progress().frames(f"{vm}/0") + FRESH
                wait_until(lambda s=stream, n=enough: s.progress().frames(f"{vm}/0") >= n, network)  # type: ignore[misc]
            assert connections() == 0, "what the tracker knew of the last network"
            if network == "one":
                layers = IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=1000, dport=2000)
                lab.send("one1", Ether(src=lab.vif("one1").mac, dst=lab.vif(vm).mac) / layers)
                assert connections() == 1
    assert ofport(lab, vm) == port

    arrived = sorted((at, RECEIVERS[vif]) for vif, s in peers.items() for _, at in s.report.at(f"{vm}/0").arrivals)
    assert visited([network for _, network in arrived]) == visits
    went: dict[int, set[str]] = {}
    for vif, network in RECEIVERS.items():
        for number, _ in own.report.at(vif).arrivals:
            went.setdefault(number, set()).add(network)
    assert {len(networks) for networks in went.values()} == {1}
    assert went.keys() == set(range(len(own.report.sent)))
