"""A number that a network gave up is no other network's while a host that is cut off still forwards by it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.l2 import ARP, Ether

from tests.labs import new_name
from vnet.client import Client, Refused
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import parse_document

HOSTS = """\
apiVersion: vnet/v1
pool: lab
underlay: {mtu: 1600}
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
"""
TUNNELS = ("type: vxlan, vni: 6000", "type: vxlan, vni: 6001")
VLANS = ("type: vlan, uplink: trunk0, tag: 120", "type: vlan, uplink: trunk0, tag: 130")


def document(**networks: str) -> bytes:
    """A pool with these networks and, on each, a VM on either host."""
    vms = [f"  {name}{i}: {{host: xen{i}, vifs: [{{network: {name}}}]}}" for name in networks for i in (1, 2)]
    lines = [f"  {name}: {{{number}}}" for name, number in networks.items()]
    return ("\n".join([HOSTS + "networks:", *lines, "vms:", *vms]) + "\n").encode()


@contextmanager
def cut_off(lab: Lab, host: str) -> Iterator[None]:
    """The host's agent hears nothing: its database is cut off or, where the lab cannot do that, the agent is frozen."""
    if lab.spec.driver is Driver.NETNS:
        lab.cut(host, "database")
    else:
        lab.daemons.signal(host, signal.SIGSTOP)
    yield
    if lab.spec.driver is Driver.NETNS:
        lab.heal(host, "database")
    else:
        lab.daemons.signal(host, signal.SIGCONT)
    lab.daemons.wait(lambda view: host in view.live, f"{host} reports again")


@pytest.mark.parametrize("driver", [Driver.NETNS, Driver.DUMMY], ids=lambda driver: driver.value)
@pytest.mark.parametrize("kind", [TUNNELS, VLANS], ids=["key", "tag"])
def test_a_host_that_is_cut_off_keeps_a_number_from_other_networks(
    netns: None, driver: Driver, kind: tuple[str, str]
) -> None:
    old, new = kind
    first = desired_state(parse_document(document(a=old, b=new), "first"), PoolState())

    def heard(lab: Lab, sender: str) -> list[str]:
        """The VIFs that get a frame for everyone."""
        mac = first.vifs[sender].mac
        request = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(
            op="who-has", hwsrc=mac, psrc="0.0.0.0", pdst="10.0.0.1"
        )
        return lab.send(sender, bytes(request)).to

    with Lab.up(first, name=new_name(), driver=driver, daemons=True) as lab:
        lab.start_all()
        lab.daemons.settle()
        assert heard(lab, "a2/0") == ["a1/0"]
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            with cut_off(lab, "xen2"):
                client.apply(document(b=new), "a goes", wait_s=0)
                for taking in (document(b=old), document(b=new, c=old)):
                    with pytest.raises(Refused, match=" was a's, and host xen2 may still use it"):
                        client.apply(taking, "another takes its number", wait_s=0)
                assert heard(lab, "a2/0") == []
                assert client.apply(document(a=old, b=new), "a comes back", wait_s=0).plan.changes
                client.apply(document(b=new), "a goes again", wait_s=0)
            lab.daemons.settle()
            client.apply(document(b=old), "b takes its number")
            lab.daemons.settle()
            assert heard(lab, "a2/0") == heard(lab, "a1/0") == []
            assert (heard(lab, "b2/0"), heard(lab, "b1/0")) == (["b1/0"], ["b2/0"])
        lab.daemons.wait(
            lambda view: [r.number for r in view.state.retired.values()] == [], "the numbers are forgotten"
        )
