"""Guests of QEMU that a real libvirt starts, moves and ends, over vnet: `make test-guests`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.guests.libvirt_hosts import LibvirtHost, guest_xml
from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.faults import How, Part, ProcessFault
from vnet.client import Client, Unit, VifSpec
from vnet.lab import Driver, Lab
from vnet.libvirt.domain import read_domain
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

NETWORKS = ("vlan", "vxlan", "gre", "geneve")
HOSTS = ("kvm1", "kvm2")
PAGE = Path(__file__).parents[2] / "docs/libvirt.md"
NAME, UUID = "web1", "7a1f8d1e-0000-4000-8000-000000000001"
DOCUMENT = """\
apiVersion: vnet/v1
pool: kvm
underlay: {mtu: 1600}
hosts:
  kvm1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  kvm2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
  far: {address: 10.99.0.3, uplinks: {trunk0: {members: [eth1]}}}
networks:
  vlan: {type: vlan, uplink: trunk0, tag: 42}
  vxlan: {type: vxlan}
  gre: {type: gre}
  geneve: {type: geneve}
security-groups:
  web:
    default: {ingress: drop}
    rules:
      - {name: ping, direction: ingress, protocol: icmp}
      - {name: echo, direction: ingress, protocol: tcp, ports: [7]}
vms:
""" + "".join(
    f"  p-{host}: {{host: {host}, vifs: ["
    + ", ".join(f"{{network: {network}, addresses: [10.{n}.0.{number}]}}" for n, network in enumerate(NETWORKS, 1))
    + "]}\n"
    for number, host in enumerate((*HOSTS, "far"), 1)
)
# Of pings of 2 ms: those between QEMU's pause and the opening of the ports, which waits for a processor on a machine that is busy.
LOST = 40
# Numbered lines to a guest's echo service (RFC 862), till standard input ends; prints how many came back, in their order.
ECHO = """
import select, socket, sys, time
for left in range(100, -1, -1):
    try:
        connection = socket.create_connection((sys.argv[1], 7), 20)
        break
    except ConnectionRefusedError:  # it listens soon again
        time.sleep(0.1 if left else sys.exit("refused"))
connection.settimeout(20)
number = 0
while not select.select([sys.stdin], [], [], 0.01)[0]:
    line, answer = b"%07d\\n" % number, b""
    connection.sendall(line)
    while len(answer) < len(line):
        received = connection.recv(8)
        assert received, "closed"
        answer += received
    assert answer == line, (answer, line)
    number += 1
print(number)
"""

# Pings of 2 ms, answered or not (ping(8) waits 10 ms where no answer comes), till standard input ends; prints how many were sent, lost and doubled, and the longest time in ms.
PINGS = """
import os, select, socket, struct, sys, time
line = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
line.connect((sys.argv[1], 0))
sent, came, doubled, longest = [], set(), 0, 0.0
due = time.monotonic()
end = None
while end is None or time.monotonic() < end:
    if end is None and due <= time.monotonic():
        packet = struct.pack("!BBHHHI", 8, 0, 0, os.getpid() & 0xFFFF, 0, len(sent))
        total = sum(struct.unpack("!6H", packet))
        total = (total & 0xFFFF) + (total >> 16)
        line.send(packet[:2] + (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big") + packet[4:])
        sent.append(time.monotonic())
        due += 0.002
    ready, _, _ = select.select([line] if end else [line, sys.stdin], [], [], 0.1 if end else max(due - time.monotonic(), 0))
    if sys.stdin in ready:
        end = time.monotonic() + 1
    if line in ready:
        kind, _, _, identity, _, number = struct.unpack_from("!BBHHHI", line.recv(100), 20)
        if (kind, identity) == (0, os.getpid() & 0xFFFF):
            doubled += number in came
            came.add(number)
            longest = max(longest, time.monotonic() - sent[number])
print(len(sent), len(sent) - len(came), doubled, round(longest * 1000))
"""


@dataclass(slots=True)
class Guest:
    """A guest with a VIF on each network, and where it is."""

    lab: Lab
    client: Client
    hosts: dict[str, LibvirtHost]
    at: str
    console: Path
    vifs: dict[str, tuple[str, str]]

    @property
    def elsewhere(self) -> str:
        return next(host for host in HOSTS if host != self.at)

    @property
    def xml(self) -> str:
        return (self.hosts[self.at].directory / "domain.xml").read_text()

    def answers(self, host: str, network: int) -> bool:
        return subprocess.run(self.lab.vm_argv(f"p-{host}", ["ping", "-q", "-c1", "-W2", f"10.{network}.0.9"]),
                              stdout=subprocess.DEVNULL, check=False).returncode == 0  # fmt: skip

    def settled(self, host: str) -> None:
        def there() -> bool:
            found = [self.client.vif(id) for id in self.vifs]
            return all(
                (vif.host, vif.incoming, vif.place.state, vif.place.host) == (host, None, "ready", host)
                for vif in found
            )

        wait_until(there, f"the guest to be on {host}")
        self.at = host

    def has_no_obstacle(self) -> None:
        """QEMU without KVM breaks virtio's rings now and then, which looks as if the network had gone."""
        assert "is not a head" not in self.console.read_text(), "QEMU broke the guest's virtio ring: run it again"


@pytest.fixture(scope="module")
def guest(netns: None, image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    state = desired_state(load(DOCUMENT.encode(), "kvm.vnet.yaml"), PoolState())
    with (
        Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True) as lab,
        Client(f"unix:{lab.daemons.controller_socket}") as client,
    ):
        lab.start_all()
        vifs = {}
        for n, network in enumerate(NETWORKS, 1):
            id, mac, address = f"5a1f8d1e-0000-4000-8000-00000000000{n}", f"0a:00:00:00:00:0{n}", f"10.{n}.0.9"
            spec = VifSpec(network=network, vm=NAME, index=n - 1, mac=mac, addresses=[address], security_groups=["web"])
            client.put_vif(id, spec)
            vifs[id] = (mac, f"{address}/24")
        directory = tmp_path_factory.mktemp("libvirt")
        hosts: dict[str, LibvirtHost] = {}
        try:
            for host in HOSTS:
                hosts[host] = LibvirtHost.up(lab, host, directory / host)
            found = Guest(lab, client, hosts, HOSTS[0], directory / "console", vifs)
            hosts[HOSTS[0]].create(guest_xml(NAME, UUID, image, found.console, vifs))
            wait_until(
                lambda: found.console.exists() and "guest is up" in found.console.read_text(), "the guest to be up"
            )
            found.settled(HOSTS[0])
            yield found
        finally:
            for running in hosts.values():
                running.down()


@pytest.mark.parametrize("network", range(1, len(NETWORKS) + 1), ids=NETWORKS)
def test_a_guests_pause_is_a_delay_and_its_connections_live_on(guest: Guest, network: int) -> None:
    destination, address = guest.elsewhere, f"10.{network}.0.9"
    senders = {"the destination's own host": f"p-{destination}", "a third host": "p-far"}
    assert all(guest.answers(host, network) for host in (*HOSTS, "far"))
    echo = subprocess.Popen(guest.lab.vm_argv("p-far", [sys.executable, "-c", ECHO, address]),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    pings = {
        place: subprocess.Popen(
            guest.lab.vm_argv(vm, [sys.executable, "-c", PINGS, address]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for place, vm in senders.items()
    }
    try:
        guest.hosts[guest.at].migrate(NAME, guest.hosts[destination])
        guest.settled(destination)
    finally:
        found = {place: ping.communicate("\n", timeout=60)[0].split() for place, ping in pings.items()}
        answers, error = echo.communicate("\n", timeout=60)
    guest.has_no_obstacle()
    for place, (sent, lost, doubled, longest) in found.items():
        print(
            f"\n{NETWORKS[network - 1]}, from {place}: {lost} of {sent} pings lost, {doubled} doubled, the longest took {longest} ms"
        )
    assert int(answers or 0) > 0, error
    assert all(int(lost) <= LOST and doubled == "0" for _, lost, doubled, _ in found.values())


def test_a_migration_that_is_aborted_leaves_the_guest_where_it_runs(guest: Guest) -> None:
    source = guest.hosts[guest.at]
    source.virsh("migrate-setspeed", NAME, "1")
    destination = guest.hosts[guest.elsewhere]
    command = ["virsh", "--quiet", "--connect", source.uri, "migrate", "--live", NAME, destination.uri, "--migrateuri",
               f"tcp://{destination.address}"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as moving:
        wait_until(lambda: guest.client.migration(Unit.of_vm(NAME)).phase == "prepared", "all hosts to be prepared")
        wait_until(lambda: "Data" in source.virsh("domjobinfo", NAME), "memory to be copied")
        source.virsh("domjobabort", NAME)
        moving.communicate(timeout=60)
        assert moving.returncode != 0
    source.virsh("migrate-setspeed", NAME, "1000")
    guest.settled(guest.at)
    assert guest.answers(guest.at, 1)
    assert guest.answers("far", 2)


def test_nothing_starts_twice_and_nothing_moves_without_a_controller(guest: Guest) -> None:
    elsewhere = guest.hosts[guest.elsewhere]
    path = elsewhere.directory / "twice.xml"
    path.write_text(guest.hosts[HOSTS[0]].directory.joinpath("domain.xml").read_text())
    assert f"has its port on host {guest.at}" in elsewhere.refused("create", str(path))
    fault = ProcessFault(Part.CONTROLLER, How.STOPPED)
    fault.break_(guest.lab)
    refused = guest.hosts[guest.at].refused(
        "migrate", "--live", NAME, elsewhere.uri, "--migrateuri", f"tcp://{elsewhere.address}"
    )
    assert "Hook script execution failed" in refused
    fault.mend(guest.lab)
    guest.settled(guest.at)
    assert guest.answers("far", 1)


def test_what_runs_is_imported_as_a_document_that_changes_nothing(guest: Guest) -> None:
    connections = [word for name, host in guest.hosts.items() for word in ("--connect", f"{name}={host.uri}-ro")]
    command = ["vnet", "--controller", f"unix:{guest.lab.daemons.controller_socket}", "libvirt", "import", *connections]
    done = subprocess.run(command, env=guest.lab.ovs(guest.at).env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not guest.client.plan(done.stdout.encode()).changes


def test_an_interface_that_names_a_network_of_libvirt(guest: Guest, image: Path) -> None:
    """As docs/libvirt.md has it: libvirt hands on what the network's portgroup says, and the hook makes the VIF there."""
    (block,) = re.findall(r"^```xml\n(<network>.*?)^```", PAGE.read_text(), re.M | re.S)
    network, interface = block.replace("tenant-a", "vxlan").split("\n\n")
    uuid, id = "7a1f8d1e-0000-4000-8000-000000000002", "5a1f8d1e-0000-4000-8000-000000000009"
    interface = interface.replace("5a1f8d1e-0000-4000-8000-000000000001", id)
    host = guest.hosts[guest.elsewhere]
    (host.directory / "network.xml").write_text(network)
    host.virsh("net-create", str(host.directory / "network.xml"))
    xml = guest_xml("web2", uuid, image, host.directory / "console", {})
    host.create(xml.replace("<controller type='usb'", f"{interface}<controller type='usb'"))
    try:
        wait_until(lambda: guest.client.vif(id).place.state == "ready", "its VIF to be ready")
        found = guest.client.vif(id)
        assert (found.network, found.vm, found.place.host) == ("vxlan", uuid, host.host)
        running = read_domain(host.virsh("dumpxml", "web2"))
        assert [(it.id, it.bridge, it.profile) for it in running.interfaces] == [(id, "br-int", "vxlan")]
    finally:
        host.virsh("destroy", "web2")
        host.virsh("net-destroy", "vnet")
    guest.client.delete_vm(uuid)


def test_a_guest_that_ends_is_nowhere(guest: Guest) -> None:
    guest.hosts[guest.at].virsh("destroy", NAME)
    wait_until(
        lambda: {guest.client.vif(id).place.state for id in guest.vifs} == {"defined"}, "its VIFs to be plugged nowhere"
    )
