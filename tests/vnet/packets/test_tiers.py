"""Groups of tiers above the VIF's, between guests with kernels of their own: what begins, what runs, and on a destination whose agent stands still."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.polling import wait_until
from tests.vnet.faults import How, Part, ProcessFault
from tests.vnet.packets.engines import running
from tests.vnet.packets.test_policy import PORT, Connection
from vnet.client import Client, Unit
from vnet.lab import Lab

# As tests/vnet/sim/test_tiers.py has them on the twin and on one bridge: what decides about TCP ports 5001 to 5008.
DOCUMENT = """
apiVersion: vnet/v1
pool: tiers
hosts: {xen1: {address: 10.99.0.1}, xen2: {address: 10.99.0.2}}
networks: {lan: {type: geneve, security-groups: [net]}}
security-groups:
  base:
    tier: pool
    rules:
      - {name: no, direction: ingress, action: drop, protocol: tcp, ports: [5001REVOKED], mandatory: true}
      - {name: yes, direction: ingress, protocol: tcp, ports: [5002], mandatory: true}
      - {name: low, direction: ingress, action: drop, protocol: tcp, ports: [5003]}
      - {name: last, direction: ingress, protocol: tcp, ports: [5007]}
  net:
    tier: network
    rules:
      - {name: a, direction: ingress, action: drop, protocol: tcp, ports: [5002, 5004], mandatory: true}
      - {name: b, direction: ingress, action: drop, protocol: tcp, ports: [5005]}
  shops:
    tier: vm
    selector: {app: shop}
    rules:
      - {name: a, direction: ingress, protocol: tcp, ports: [5004], mandatory: true}
      - {name: b, direction: ingress, protocol: tcp, ports: [5005]}
      - {name: c, direction: ingress, action: drop, protocol: tcp, ports: [5007]}
  own:
    rules:
      - {name: a, direction: ingress, protocol: tcp, ports: [5000, 5001, 5003]}
      - {name: b, direction: ingress, action: drop, protocol: tcp, ports: [5002]}
vms:
  server-lan: {host: xen1, labels: {app: shop}, vifs: [{network: lan, addresses: [10.1.0.1], security-groups: [own]}]}
  client-lan: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.2]}]}
"""
PORTS = range(5001, 5009)
ALLOWED = {5002, 5003, 5005}
LISTEN = """
import signal, socket
listening = [socket.create_server(("0.0.0.0", port)) for port in range(5001, 5009)]  # the kernel answers
signal.pause()
"""
# Which ports answer within a second, asked at once.
CONNECT = """
import json, selectors, socket, sys, time
waiting, found = selectors.DefaultSelector(), []
for port in range(5001, 5009):
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex((sys.argv[1], port))
    waiting.register(one, selectors.EVENT_WRITE, port)
end = time.monotonic() + 1
while (left := end - time.monotonic()) > 0 and waiting.get_map():
    for key, _ in waiting.select(left):
        waiting.unregister(key.fileobj)
        if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            found.append(key.data)
print(json.dumps(found))
"""


def document(*revoked: int) -> bytes:
    """The pool; nobody may begin or continue anything to these ports either."""
    return DOCUMENT.replace("REVOKED", "".join(f", {port}" for port in revoked)).encode()


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    with running("netns", document()) as pool:
        assert isinstance(pool, Lab)
        yield pool


@pytest.fixture
def apply(lab: Lab) -> Iterator[Callable[[bytes], object]]:
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        yield client.apply


def test_the_first_step_with_a_rule_decides_between_guests(lab: Lab) -> None:
    server = lab.popen_in_vm("server-lan", sys.executable, "-c", LISTEN)
    try:
        address = lab.vif("server-lan/0").addresses[0]

        def answered() -> set[int]:
            return {*json.loads(lab.run_in_vm("client-lan", sys.executable, "-c", CONNECT, address))}

        wait_until(lambda: answered() == ALLOWED, "it listens")
    finally:
        server.kill()
        server.wait()


def test_a_mandatory_rule_ends_what_runs_at_once(lab: Lab, apply: Callable[[bytes], object]) -> None:
    """The server sends all the time: nothing of that, and nothing that the client acknowledges, passes any more until the rule is gone."""
    connection = Connection(lab, "lan")
    try:
        connection.goes_on()
        apply(document(PORT))
        lab.daemons.settle()
        silent = connection.drained()
        with Client(f"unix:{lab.daemons.controller_socket}") as client:

            def dropped() -> int:
                return next(rule.packets for rule in client.group_counters("base").rules if rule.rule == "no")

            before = dropped()
            wait_until(lambda: dropped() > before + 1, "the rule drops what they send again")
        assert connection.drained() == silent
        apply(document())
        connection.goes_on()
    finally:
        connection.close()


def syn(lab: Lab, port: int) -> Packet:
    source, target = lab.vif("client-lan/0"), lab.vif("server-lan/0")
    ends = IP(src=source.addresses[0], dst=target.addresses[0])
    return Ether(src=source.mac, dst=target.mac) / ends / TCP(sport=40000, dport=port)


def test_all_tiers_judge_on_a_destination_before_its_port_opens(lab: Lab) -> None:
    """It opens by itself, by the guest's announcement, while every agent and the controller stand still."""
    unit = Unit.of_vm("server-lan")
    still = [ProcessFault(Part.CONTROLLER, How.STOPPED)]
    still += [ProcessFault(Part.AGENT, How.STOPPED, host) for host in ("xen1", "xen2")]
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        client.prepare(unit, "xen2")
        lab.plug("server-lan", "xen2")
        wait_until(lambda: client.migration(unit).phase == "prepared", "prepared")
        for fault in still:
            fault.break_(lab)
        try:
            lab.run("server-lan", "xen2", announce=True)
            sent = {bytes(syn(lab, port)): port for port in PORTS}
            found = lab.send("client-lan/0", list(sent)).items
            got = {sent[item.frame] for item in found if item.to == "server-lan/0" and item.frame in sent}
        finally:
            for fault in still:
                fault.mend(lab)
        assert got == ALLOWED
        wait_until(lambda: client.migration(unit).phase == "active", "active")
        client.finish(unit)
    lab.unplug("server-lan", "xen1")
    lab.daemons.settle()
