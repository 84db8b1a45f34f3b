"""The hook of libvirt and the events of its guests, in the order in which libvirt 9.0 was seen to call it, on hosts with real switches."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.faults import How, Part, ProcessFault
from tests.vnet.libvirt.domains import domain_xml, interface_xml
from vnet.cli.main import cli
from vnet.client import Client, Unit
from vnet.compile import Table
from vnet.lab import Driver, Lab
from vnet.libvirt.events import MigrationEvents, Virsh
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

HOOK = Path(__file__).parents[3] / "packaging" / "libvirt" / "hooks" / "qemu"
UUIDS = {vm: f"5a1f8d1e-0000-4000-8000-00000000000{n}" for n, vm in enumerate(("a", "b"), 1)}
DOMAIN = "7a1f8d1e-0000-4000-8000-000000000001"
DOCUMENT = f"""\
apiVersion: vnet/v1
pool: kvm
hosts: {{kvm1: {{address: 10.99.0.1}}, kvm2: {{address: 10.99.0.2}}}}
underlay: {{mtu: 1600}}
networks: {{blue: {{type: vxlan}}}}
plug-bridges: {{vn-blue: {{network: blue}}}}
vms:
  a: {{vifs: [{{id: {UUIDS["a"]}, network: blue, addresses: [10.1.0.1]}}]}}
  b: {{host: kvm2, vifs: [{{id: {UUIDS["b"]}, network: blue, addresses: [10.1.0.2]}}]}}
""".encode()
UNDER_WAY = (
    100  # frames of one each millisecond, when the port is opened: the datapath follows its flows a little later
)
# It answers as virsh does, and prints the lines of a pipe as events.
VIRSH = """#!/bin/sh
case "$*" in
*list*) echo 7a1f8d1e-0000-4000-8000-000000000001 ;;
*dumpxml*) cat {directory}/domain.xml ;;
*event*) exec cat {directory}/events ;;
esac
"""


class Hypervisors:
    """The two hosts, each with the hook; guest a is a domain there."""

    def __init__(self, lab: Lab, client: Client, directory: Path) -> None:
        self.lab, self.client, self.directory = lab, client, directory
        self.vif = lab.vif("a")
        self.xml = domain_xml("web 1", DOMAIN, interface_xml(self.vif.id, self.vif.mac))
        self.unit = Unit.of_vm("a")

    def hook(self, host: str, operation: str, part: str = "begin", xml: str | None = None) -> Result:
        """What `vnet libvirt hook` answers, which the script becomes."""
        agent = str(self.lab.daemons.agent_socket(host))
        return self.cli("libvirt", "hook", "--socket", agent, "web 1", operation, part, "-", given=xml or self.xml)

    def cli(self, *args: str, given: str = "") -> Result:
        return CliRunner().invoke(
            cli, ["--controller", f"unix:{self.lab.daemons.controller_socket}", *args], input=given
        )

    def script(self, host: str, operation: str, part: str = "begin") -> None:
        """Calls the script as libvirt does: with an environment of three variables."""
        conf = self.directory / f"{host}.conf"
        sockets = (self.lab.daemons.controller_socket, self.lab.daemons.agent_socket(host))
        conf.write_text("VNET_CONTROLLER=unix:{}\nVNET_AGENT_SOCKET={}\n".format(*sockets))
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        environment = {"HOME": "/root", "PATH": path, "LC_ALL": "C", "VNET_LIBVIRT_CONF": str(conf)}
        command = [HOOK, "web 1", operation, part, "-"]
        done = subprocess.run(command, input=self.xml, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def passes(self, host: str, operation: str, part: str = "begin", xml: str | None = None) -> str:
        """What the hook says on standard error; libvirt goes on."""
        done = self.hook(host, operation, part, xml)
        assert (done.exit_code, done.stdout) == (0, ""), done.output
        return done.stderr

    def start(self, host: str) -> None:
        self.passes(host, "prepare")
        self.lab.plug("a", host)
        self.passes(host, "start")
        assert (self.at.state, self.at.host) == ("ready", host)
        self.lab.run("a", host, announce=True)

    def end(self, host: str) -> None:
        self.lab.unplug("a", host)
        self.passes(host, "release", "end")

    @property
    def at(self) -> object:
        return self.client.vif(self.vif.id).place

    def comes(self, host: str) -> None:
        """All that libvirt does before it copies memory."""
        for operation in ("migrate", "prepare"):
            assert self.passes(host, operation) == ""
        self.lab.plug("a", host)
        self.passes(host, "start")
        assert self.client.migration(self.unit).phase == "prepared"

    def is_open(self, host: str) -> bool:
        """Whether what comes for the guest waits in its port there."""
        gate = self.lab.ovs(host).ofctl("dump-flows", "br-int", f"table={int(Table.GATE)},reg2=0/0")
        return "reg2=" in gate

    def settled(self, host: str) -> None:
        def there() -> bool:
            vif = self.client.vif(self.vif.id)
            return (vif.host, vif.incoming, vif.place.state, vif.place.host) == (host, None, "ready", host)

        wait_until(there, f"a to be on {host}")

    def reached(self) -> bool:
        frame: Packet = (
            Ether(src=self.lab.vif("b").mac, dst=self.vif.mac)
            / IP(src="10.1.0.2", dst="10.1.0.1")
            / UDP()
            / Raw(b"?" * 20)
        )
        return [item.to for item in self.lab.send("b", frame) if item.frame == bytes(frame)] == ["a/0"]

    @contextmanager
    def virsh(self, host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A host's libvirt has one domain, that of domain.xml in the directory that is given, and the events that are written there."""
        directory = self.directory / host
        directory.mkdir(exist_ok=True)
        (directory / "domain.xml").write_text(self.xml)
        os.mkfifo(directory / "events")
        virsh = directory / "virsh"
        virsh.write_text(VIRSH.format(directory=directory))
        virsh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        yield directory
        (directory / "events").unlink()

    @contextmanager
    def watched(self, host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """The events of a host's libvirt are followed; they are the lines written to the path that is given."""
        ready = threading.Event()
        with self.virsh(host, monkeypatch) as directory, Client(f"unix:{self.lab.daemons.controller_socket}") as client:
            events = MigrationEvents(client, str(self.lab.daemons.agent_socket(host)), Virsh(), ready.set)
            thread = threading.Thread(target=events.run)
            thread.start()
            try:
                assert ready.wait(30)
                yield directory / "events"
            finally:
                events.stop()
                thread.join()


@pytest.fixture(scope="module")
def hosts(netns: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisors]:
    state = desired_state(load(DOCUMENT, "kvm.vnet.yaml"), PoolState())
    with (
        Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True) as lab,
        Client(f"unix:{lab.daemons.controller_socket}") as client,
    ):
        lab.start_all()
        yield Hypervisors(lab, client, tmp_path_factory.mktemp("libvirt"))


def test_a_guest_starts_moves_and_ends(hosts: Hypervisors, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.start("kvm1")
    assert hosts.reached()
    with hosts.watched("kvm1", monkeypatch) as source, hosts.lab.stream("b/0", "a/0") as stream:
        for operation in ("migrate", "prepare"):
            hosts.script("kvm2", operation)
        hosts.lab.plug("a", "kvm2")
        for operation in ("start", "started"):
            hosts.script("kvm2", operation)
        assert hosts.client.migration(hosts.unit).phase == "prepared"
        assert not hosts.is_open("kvm2")
        with source.open("w") as events:
            hosts.lab.pause("a")
            print("event 'lifecycle' for domain 'web 1': Suspended Migrated", file=events, flush=True)
            wait_until(lambda: hosts.is_open("kvm2"), "the port to be open")
            opened = stream.progress().sent
            wait_until(lambda: stream.progress().sent > opened + 2 * UNDER_WAY, "a pause")
            hosts.lab.run("a", "kvm2", announce=True, resume=True)
            print("event 'lifecycle' for domain 'web 1': Stopped Migrated", file=events, flush=True)
            hosts.lab.unplug("a", "kvm1")
            hosts.script("kvm1", "stopped", "end")
            hosts.script("kvm1", "release", "end")
        hosts.settled("kvm2")
    arrived = stream.report.at("a/0")
    assert (arrived.lost > 0, arrived.duplicated) == (True, 0)  # those between the pause and libvirt's word
    assert max(arrived.lost_numbers) < opened + UNDER_WAY
    assert hosts.reached()
    hosts.end("kvm2")
    wait_until(lambda: hosts.client.vif(hosts.vif.id).place.state == "defined", "a VIF without a port")


@pytest.mark.parametrize(
    "standing", [ProcessFault(Part.CONTROLLER, How.STOPPED), ProcessFault(Part.AGENT, How.STOPPED, "kvm1")], ids=str
)
def test_a_pause_opens_the_port_by_the_agents_or_by_the_controller(
    hosts: Hypervisors, monkeypatch: pytest.MonkeyPatch, standing: ProcessFault
) -> None:
    hosts.start("kvm1")
    hosts.comes("kvm2")
    with hosts.watched("kvm1", monkeypatch) as source:
        standing.break_(hosts.lab)
        try:
            with source.open("w") as events:
                print("event 'lifecycle' for domain 'web 1': Suspended Migrated", file=events, flush=True)
                wait_until(lambda: hosts.is_open("kvm2"), "the port to be open")
        finally:
            standing.mend(hosts.lab)
    wait_until(lambda: hosts.client.migration(hosts.unit).phase == "receiving", "the pool to have it")
    hosts.lab.run("a", "kvm2", announce=True)
    hosts.end("kvm1")
    hosts.settled("kvm2")
    assert hosts.reached()
    hosts.end("kvm2")
    wait_until(lambda: hosts.client.vif(hosts.vif.id).place.state == "defined", "a VIF without a port")


def test_a_guest_that_announces_nothing_is_active_as_soon_as_libvirt_lets_it_run(
    hosts: Hypervisors, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.start("kvm2")
    with hosts.watched("kvm1", monkeypatch) as destination:
        hosts.comes("kvm1")
        hosts.lab.run("a", "kvm1")
        with destination.open("w") as events:
            for words in ("Resumed Unpaused", "Suspended Paused", "Resumed Post-copy"):
                print(f"event 'lifecycle' for domain 'web 1': {words}", file=events, flush=True)
            wait_until(lambda: hosts.client.migration(hosts.unit).phase == "active", "the port to be active")
    hosts.end("kvm2")
    hosts.settled("kvm1")

    hosts.comes("kvm2")  # and where nobody follows the events, once it has ended where it was
    hosts.lab.run("a", "kvm2")
    hosts.end("kvm1")
    hosts.settled("kvm2")
    assert hosts.reached()
    hosts.end("kvm2")


@pytest.mark.parametrize("announced", [False, True], ids=["copied", "announced"])
def test_a_migration_that_fails_leaves_the_guest_where_it_runs(hosts: Hypervisors, announced: bool) -> None:
    hosts.start("kvm1")
    hosts.comes("kvm2")
    if announced:  # QEMU does so before libvirt lets the guest run
        hosts.lab.run("a", "kvm2", announce=True)
        wait_until(lambda: hosts.client.migration(hosts.unit).phase == "active", "the port to be active")
        hosts.lab.run("a", "kvm1")
    hosts.end("kvm2")
    hosts.lab.run("a", "kvm1", announce=announced)
    hosts.settled("kvm1")
    assert hosts.reached()
    hosts.end("kvm1")


def test_what_must_not_start_or_come_is_refused(hosts: Hypervisors) -> None:
    hosts.start("kvm1")
    refused = hosts.hook("kvm2", "prepare")
    assert (refused.exit_code != 0, refused.stdout) == (True, "")
    assert "has its port on host kvm1: is web 1 running there?" in refused.stderr
    assert hosts.hook("kvm2", "prepare", xml="<domain>").exit_code != 0
    hosts.passes("kvm2", "migrate")
    hosts.client.abort(hosts.unit)
    hosts.passes("kvm2", "migrate")
    assert hosts.client.migration(hosts.unit).destination == "kvm2"
    hosts.passes("kvm2", "release", "end")
    assert hosts.client.migration(hosts.unit).phase == "none"
    hosts.end("kvm1")


def test_guests_that_run_are_imported_as_a_document_that_changes_nothing(
    hosts: Hypervisors, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.start("kvm1")
    new = interface_xml("5a1f8d1e-0000-4000-9000-000000000009", "0a:00:00:00:01:09", bridge="vn-blue")
    with hosts.virsh("kvm1", monkeypatch) as directory:
        known = hosts.cli("libvirt", "import", "--connect", "kvm1=qemu+unix:///system?socket=/run/a").stdout
        assert hosts.client.plan(known.encode()).disruption == "none"
        assert not hosts.client.plan(known.encode()).changes
        (directory / "domain.xml").write_text(domain_xml("db", UUIDS["b"], new))
        document = hosts.cli("libvirt", "import", "--connect", "kvm1=qemu+unix:///system?socket=/run/a").stdout
    assert [change.name for change in hosts.client.plan(document.encode()).changes] == [
        UUIDS["b"],
        "5a1f8d1e-0000-4000-9000-000000000009",
    ]
    hosts.end("kvm1")


def test_a_vif_is_made_where_the_interface_says_its_network(
    hosts: Hypervisors, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = [f"5a1f8d1e-0000-4000-9000-00000000000{n}" for n in range(4)]
    interfaces = (
        interface_xml(new[0], "0a:00:00:00:01:00", profile="blue"),
        interface_xml(new[1], "0a:00:00:00:01:01", bridge="vn-blue"),
        interface_xml(new[2], "0a:00:00:00:01:02"),
        interface_xml(hosts.vif.id, "0a:00:00:00:01:04"),
    )
    # On a network of libvirt, as it is before the port is there, and then.
    late = interface_xml(new[3], "0a:00:00:00:01:03", profile="blue")
    early = late.replace(" type='openvswitch'", "").replace(" profileid='blue'", "")
    text = hosts.passes("kvm1", "prepare", xml=domain_xml("db \u202e1", DOMAIN, *interfaces, early))
    assert new[3] not in {vif.id for vif in hosts.client.vifs()}
    monkeypatch.setattr("vnet.libvirt.hook.READY_S", 0.0)
    text += hosts.passes("kvm1", "start", xml=domain_xml("db \u202e1", DOMAIN, *interfaces, late))
    assert f"VIF {new[0]} is not ready on host kvm1, and its guest starts all the same: host kvm1 has no port" in text
    assert f"there is no VIF {new[2]}" in text
    assert f"VIF {hosts.vif.id} has MAC {hosts.vif.mac}" in text
    made = [vif for vif in hosts.client.vifs() if vif.id in new]
    assert [(vif.id, vif.network, vif.vm, vif.mac, vif.host) for vif in made] == [
        (new[n], "blue", DOMAIN, f"0a:00:00:00:01:0{n}", "kvm1") for n in (0, 1, 3)
    ]
    assert hosts.client.vm(DOMAIN).title == "db \N{REPLACEMENT CHARACTER}1"
    hosts.client.delete_vm(DOMAIN)
