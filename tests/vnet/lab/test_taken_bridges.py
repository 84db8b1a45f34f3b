"""VIFs that a toolstack has on bridges of its own are taken over while they run, host by host, and given back: a VLAN of xapi, and tunnels of Xen Orchestra's controller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import pytest

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.lab.test_plug_bridges import packet
from tests.xenserver.scripts import add_to_bridge, add_tunnel_port, external_ids
from vnet.client import Client, PlugBridgeChange, PlugBridgeSpec
from vnet.lab import Driver, Lab
from vnet.lab.streams import RunningStream
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

GAP = 100  # frames, of one each millisecond: a busy kernel holds up who takes devices away and adds them
HOSTS = ("xen1", "xen2", "xen3")
NETWORKS = {"xapi1": "dmz", "xapi5": "private", "xapi6": "private6"}
STARS = {"xapi5": ("vxlan", 5001), "xapi6": ("gre", 7)}  # with keys, by bridge: the first host is the centre
GUESTS = [(f"{name}{n}", name, host) for name in NETWORKS.values() for n, host in enumerate(HOSTS, 1)]
UPLINKS = "{xenbr0: {bridge: xenbr0}, xapi5: {bridge: xapi5}, xapi6: {bridge: xapi6}}"
DOCUMENT = f"""\
apiVersion: vnet/v1
pool: taken
hosts:
  xen1: {{address: 10.99.0.1, uplinks: {UPLINKS}}}
  xen2: {{address: 10.99.0.2, uplinks: {UPLINKS}}}
  xen3: {{address: 10.99.0.3, uplinks: {UPLINKS}}}
underlay: {{mtu: 1600}}
networks:
  dmz: {{type: vlan, tag: 10, uplink: xenbr0}}
  private: {{type: vlan, tag: untagged, uplink: xapi5, mtu: 1500}}
  private6: {{type: vlan, tag: untagged, uplink: xapi6, mtu: 1500}}
vms:
""" + "".join(
    f"  {vm}: {{vifs: [{{id: 5a1f8d1e-0000-4000-8000-00000000000{n}, network: {name}, addresses: [10.1.0.{n}]}}]}}\n"
    for n, (vm, name, _) in enumerate(GUESTS, 1)
)


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    state = desired_state(load(DOCUMENT.encode(), "taken.vnet.yaml"), PoolState())
    with Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True) as running:
        for host in HOSTS:
            running.ovs(host).vsctl("add-br", "xapi1", "xenbr0", "10")
            for bridge, (encapsulation, key) in STARS.items():
                running.ovs(host).vsctl("del-port", f"{bridge}-nic")
                for n in (1,) if host != HOSTS[0] else (2, 3):
                    add_tunnel_port(running, host, bridge, n, encapsulation, key)
        for vm, name, host in GUESTS:
            vif = running.vif(vm)
            bridge = next(bridge for bridge, network in NETWORKS.items() if network == name)
            add_to_bridge(running, vif, host, bridge, external_ids(vif.id, vm, "network", vif.mac))
            running.driver.plugged(vif, host)
            running.run(vm, host)
        yield running


def take(client: Client, bridge: str, hosts: Sequence[str]) -> None:
    if len(hosts) == 1 and not any(found.name == bridge for found in client.plug_bridges()):
        client.put_plug_bridge(bridge, PlugBridgeSpec(network=NETWORKS[bridge], taken_over=True, hosts=list(hosts)))
    elif hosts:
        client.change_plug_bridge(bridge, PlugBridgeChange(hosts=list(hosts)))
    else:
        client.delete_plug_bridge(bridge)


def reached(lab: Lab, source: str, to: str) -> bool:
    """Bridges that have not heard of a MAC send to all."""
    sent = packet(lab, source, to)
    return f"{to}/0" in [item.to for item in lab.send(source, sent) if item.frame == bytes(sent)]


def is_port_of(lab: Lab, host: str, device: str, bridge: str) -> bool:
    return lab.ovs(host).vsctl("port-to-br", device).strip() == bridge


def has_come(stream: RunningStream, vm: str, number: int) -> bool:
    return stream.progress().latest(f"{vm}/0") > number


@pytest.mark.parametrize("bridge", NETWORKS)
def test_vifs_are_taken_over_host_by_host_and_given_back(lab: Lab, bridge: str) -> None:
    """Those that were taken and those that were not reach each other over the toolstack's bridge all the while, and lose nothing. One that is taken loses what it sends
    while ovs-vswitchd takes its port from one bridge to the other, in one gap."""
    vms = {host: vm for vm, name, host in GUESTS if name == NETWORKS[bridge]}
    a, b, c = vms.values()
    wait_until(lambda: reached(lab, a, b) and reached(lab, b, c) and reached(lab, c, a), "the toolstack's network")
    before = numbers(lab, vms)
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        for host, vm in vms.items():
            client.plug_vif(lab.vif(vm).id, host, awaited=True, wait_s=20)
            assert client.vif(lab.vif(vm).id).place.state == "awaited"
        taken: Sequence[str] = ()
        for hosts in (HOSTS[:1], HOSTS, HOSTS[:1], ()):
            pairs = ((a, b), (b, c), (c, a))
            moving = [vms[host] for host in {*taken} ^ {*hosts}]
            with ExitStack() as stack:
                streams = [stack.enter_context(lab.stream(f"{x}/0", f"{y}/0")) for x, y in pairs]
                take(client, bridge, hosts)
                for host, vm in vms.items():
                    place, device = "br-int" if host in hosts else bridge, lab.spec.device(lab.vif(vm))
                    wait_until(partial(is_port_of, lab, host, device, place), f"the port of {vm}")
                    if host in hosts:
                        lab.wait_ready(vm)
                counted = [stream.progress().sent for stream in streams]
                for (_, y), stream, sent in zip(pairs, streams, counted, strict=True):
                    wait_until(partial(has_come, stream, y, sent + 50), f"frames to {y}")
            found = {pair: stream.report.at(f"{pair[1]}/0") for pair, stream in zip(pairs, streams, strict=True)}
            assert [report.duplicated for report in found.values()] == [0] * len(pairs)
            lost = {pair: report.lost for pair, report in found.items()}
            assert {lost[pair] for pair in pairs if not {*pair} & {*moving}} <= {0}
            assert max(lost.values()) < GAP, lost
            print(f"{bridge} on {' '.join(hosts) or 'none'}: {lost}")
            taken = hosts
        assert numbers(lab, vms) == before  # the toolstack's own flows there name them


def numbers(lab: Lab, vms: Mapping[str, str]) -> list[str]:
    return [lab.ovs(host).vsctl("get", "interface", lab.spec.device(lab.vif(vm)), "ofport") for host, vm in vms.items()]
