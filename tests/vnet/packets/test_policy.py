"""Security groups on real switches: what passes between guests, and connections that go on while their ends move."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet.client import Client
from vnet.lab import Driver, Lab
from vnet.objects import Direction, Pool, PoolState, PortRange, Protocol, Rule, SecurityGroup, Verdict, Vif, Vm

A, B, C = HOSTS
KINDS = ("vx", "vlan")
PORT = 5000
FROM_CLIENTS = Rule(
    "from-clients", Direction.INGRESS, protocol=Protocol.TCP, ports=(PortRange(PORT, PORT),), remote=("clients",)
)
# Neither may begin anything but what one rule allows: after a move, only what was established before can go on.
GROUPS = {
    "servers": SecurityGroup("servers", 1, Verdict.DROP, Verdict.DROP, (FROM_CLIENTS,)),
    "clients": SecurityGroup("clients", 2, Verdict.DROP, Verdict.ALLOW),
}

# The server never stops sending, the client never sends: so what comes first after a move goes the wrong way for any rule.
SERVER = f"""
import socket, time
listening = socket.create_server(("0.0.0.0", {PORT}))
peer, _ = listening.accept()
number = 0
while True:
    peer.sendall(b"%d\\n" % number)
    number += 1
    time.sleep(0.005)
"""
CLIENT = """
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
peer.settimeout(None)
for line in peer.makefile():
    print(line.strip(), flush=True)
"""


def vif(role: str, kind: str, host: str) -> Vif:
    n, place = KINDS.index(kind), ("server", "client", "other").index(role) + 1
    groups = () if role == "other" else (f"{role}s",)
    return Vif(f"{role}-{kind}/0", kind, f"0a:00:00:00:0{n}:0{place}", vm=f"{role}-{kind}", host=host,
               addresses=(f"10.{n + 1}.0.{place}",), groups=groups)  # fmt: skip


VIFS = [vif(role, kind, host) for kind in KINDS for role, host in (("server", A), ("client", C), ("other", C))]


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    networks = {kind: NETWORKS[kind] for kind in KINDS}
    vms = {str(one.vm): Vm(str(one.vm), one.host) for one in VIFS}
    vifs = {one.id: one for one in VIFS}
    state = PoolState(Pool("policy", underlay_mtu=1600), HOSTS, networks, {}, vms, vifs, groups=GROUPS)
    with Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True) as running:
        running.start_all()
        running.wait_ready()
        yield running


class Connection:
    """A TCP connection between two guests, by their kernels: the server counts, the client prints what it gets."""

    def __init__(self, lab: Lab, kind: str) -> None:
        server, client = lab.vif(f"server-{kind}/0"), lab.vif(f"client-{kind}/0")
        self._server = lab.popen_in_vm(str(server.vm), sys.executable, "-c", SERVER)
        time.sleep(0.5)  # till it listens
        argv = lab.vm_argv(str(client.vm), [sys.executable, "-c", CLIENT, server.addresses[0], str(PORT)])
        self._client = subprocess.Popen(argv, env=lab.vm_env(), stdout=subprocess.PIPE, text=True)
        self.got = -1

    def goes_on(self, lines: int = 100) -> None:
        """The client gets that much more, in order and without a gap, as TCP has it."""
        assert self._client.stdout is not None
        for _ in range(lines):
            line = self._client.stdout.readline()
            assert line, f"the connection broke after {self.got}"
            assert int(line) == self.got + 1
            self.got += 1

    def drained(self) -> int:
        """The last that the client got, once there is nothing more of it to be read."""
        assert self._client.stdout is not None
        while select.select([self._client.stdout], [], [], 0.2)[0]:
            self.goes_on(1)
        return self.got

    def close(self) -> None:
        for process in (self._client, self._server):
            process.kill()
            process.wait()


def syn(source: Vif, target: Vif, port: int) -> Packet:
    return (
        Ether(src=source.mac, dst=target.mac) / IP(src=source.addresses[0], dst=target.addresses[0]) / TCP(dport=port)
    )


def delivered(lab: Lab, source: Vif, target: Vif, port: int) -> bool:
    sent = syn(source, target, port)
    return any(item.to == target.id and item.frame == bytes(sent) for item in lab.send(source.id, sent))


def only_the_rule(lab: Lab, kind: str) -> None:
    """Who may begin a connection to whom, wherever they run."""
    server, client, other = (lab.vif(f"{role}-{kind}/0") for role in ("server", "client", "other"))
    assert delivered(lab, client, server, PORT)
    assert not delivered(lab, client, server, PORT + 1)
    assert not delivered(lab, other, server, PORT)
    assert not delivered(lab, server, client, PORT)
    assert not delivered(lab, other, client, PORT)
    assert delivered(lab, client, other, PORT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_goes_on_while_its_ends_move(lab: Lab, kind: str) -> None:
    only_the_rule(lab, kind)
    connection = Connection(lab, kind)
    try:
        connection.goes_on()
        for role, host in (("server", B), ("client", A), ("server", A), ("client", B)):
            lab.migrate(f"{role}-{kind}", host)
            connection.goes_on(200)
            only_the_rule(lab, kind)
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            for role in ("server", "client"):
                wait_until(lambda role=role: client.vif(f"{role}-{kind}/0").place.connections, "it is told")
                told = client.vif(f"{role}-{kind}/0").place.connections
                carried = lab.spec.datapath_type == "system"
                assert ("came along" if carried else "picked up as they go on: its userspace datapath") in told
    finally:
        connection.close()
