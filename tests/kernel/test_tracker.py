"""The kernel's connection tracker outlives ovs-vswitchd: what a restart leaves of connections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.polling import wait_until
from tests.vnet.packets.engines import running
from vnet.lab import Lab
from vnet.objects import Protocol
from vnet.sim.packets import End, Part, Talk

DOCUMENT = b"""
apiVersion: vnet/v1
pool: tracker
hosts: {xen1: {address: 10.99.0.1}, xen2: {address: 10.99.0.2}}
networks: {lan: {type: geneve}}
security-groups: {web: {default: {ingress: drop}}}
vms:
  srv: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1], security-groups: [web]}]}
  far: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.3]}]}
"""


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    with running("netns", DOCUMENT) as pool:
        assert isinstance(pool, Lab)
        yield pool


def talk(lab: Lab, port: int) -> tuple[bytes, bytes]:
    """A query of srv to far, and the answer, which passes only as an answer."""
    own, peer = lab.vif("srv/0"), lab.vif("far/0")
    ends = End(own.mac, own.addresses[0]), End(peer.mac, peer.addresses[0])
    exchange = Talk(*ends, Protocol.UDP, 53, port)
    return exchange.frame(), exchange.frame(Part.ANSWER)


def restart_both(lab: Lab) -> None:
    lab.daemons.kill("xen1")
    lab.restart_vswitchd("xen1")
    lab.daemons.start_agent("xen1", lab.ovs("xen1"))
    lab.wait_ready()
    lab.daemons.settle()


def test_connections_live_on_when_agent_and_switch_restart_together(lab: Lab) -> None:
    query, answer = talk(lab, 1024)
    assert lab.send("far/0", answer).to == []
    assert lab.send("srv/0", query).to == ["far/0"]
    for _ in range(2):
        # Repeated, for the machine may stand still longer than a send waits; what was emptied never comes back.
        wait_until(lambda: lab.send("far/0", answer).to == ["srv/0"], "the answer passes")
        restart_both(lab)
    wait_until(lambda: lab.send("far/0", answer).to == ["srv/0"], "the answer passes")
