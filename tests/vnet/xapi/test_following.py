"""A XenServer pool takes its networks from vnet: what xapi has becomes vnet's, and its VMs move as xapi moves them."""

from __future__ import annotations

import itertools
import json
import random
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from ovsctl.ovsdb import Tls
from tests.authorities import TestAuthority
from tests.labs import new_name
from tests.polling import wait_until
from tests.xenserver.xapi import PASSWORD, USER, Failure, XenPool, serving
from vnet.api import Vif
from vnet.cli.main import cli
from vnet.client import Client, NetworkSpec, Rule, SecurityGroupSpec, Unit
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load
from vnet.xapi import claim, follower
from vnet.xapi.follower import Follower
from vnet.xapi.publishing import publish, unpublish
from vnet.xapi.session import Credentials, XapiError, XapiSession, master_session

HOSTS = ("xen1", "xen2", "xen3")
DOCUMENT = b"""\
apiVersion: vnet/v1
pool: xen
hosts:
  xen1: {address: 10.99.0.1, uplinks: {xenbr0: {bridge: xenbr0}, xapi5: {bridge: xapi5}}}
  xen2: {address: 10.99.0.2, uplinks: {xenbr0: {bridge: xenbr0}, xapi5: {bridge: xapi5}}}
  xen3: {address: 10.99.0.3}
  xen4: {address: 10.99.0.4}
underlay: {mtu: 1600}
networks:
  blue: {type: vxlan}
  tenant-a: {type: vxlan}
  dmz: {type: vlan, tag: 10, uplink: xenbr0, hosts: [xen1, xen2]}
  private: {type: vlan, tag: untagged, uplink: xapi5, hosts: [xen1, xen2]}
"""
PAGE = Path(__file__).parents[3] / "docs/xenserver.md"
ADDRESSES = {host: f"127.0.0.{n}" for n, host in enumerate(HOSTS, 2)}
ANOTHER_POOL = {"xen4": "127.0.0.5"}


GAP = 100  # frames: what is lost while a port is taken from one bridge to another, on a busy machine
PAUSED = (
    20  # frames, of one each millisecond: xapi says nothing when it pauses a guest, so what comes meanwhile is lost
)


def page_commands() -> list[str]:
    """The commands of the page's blocks, all of which are run here."""
    return [line for line in PAGE.read_text().splitlines() if line.startswith("vnet xapi ")]


class Setting:
    """A lab whose hosts are a XenServer pool, followed; network blue is published."""

    follower: Follower

    def __init__(self, lab: Lab, pool: XenPool, client: Client, credentials: Credentials, tls: Tls) -> None:
        self._numbers = itertools.count(1)
        self.lab, self.pool, self.client, self.credentials, self.tls = lab, pool, client, credentials, tls
        with self.opened() as session:
            self.blue = publish(client, session, "blue", "Bl\u00fc\u00e9 \U0001f600")
        for host in HOSTS:
            wait_until(lambda h=host: self.blue.bridge in lab.ovs(h).vsctl("list-br").split(), "the bridge")  # type: ignore[misc]

    def session(self, address: str) -> XapiSession:
        return XapiSession(address, self.credentials)

    def start(self) -> None:
        """The follower that is there in all tests."""
        self._running = ExitStack()
        self.follower = self._running.enter_context(self.followed())

    def stop(self) -> None:
        self._running.close()

    def on_the_page(self, name: str, secret: Path, address: str) -> list[str]:
        """The arguments of `vnet` that the page has for a command of `vnet xapi`, for this pool of xapi."""
        [line] = [line for line in page_commands() if line.split()[2] == name]
        line = line.partition(" > ")[0].replace("10.0.0.11", address)
        line = line.replace("/etc/vnet/xapi.password", str(secret)).replace(
            "/etc/vnet/xapi.pem", str(self.credentials.ca)
        )
        return ["--controller", f"unix:{self.lab.daemons.controller_socket}", *shlex.split(line)[1:]]

    @contextmanager
    def followed(self, pool: XenPool | None = None) -> Iterator[Follower]:
        """One more follower, of another pool if one is named."""
        with Client(f"unix:{self.lab.daemons.controller_socket}") as client:
            name = f"machine {next(self._numbers)}"
            follower = Follower(
                client, self.session, (pool or self.pool).addresses.values(), time.monotonic, caller=name
            )
            thread = threading.Thread(target=follower.run)
            thread.start()
            try:
                yield follower
            finally:
                follower.stop()
                thread.join()

    @contextmanager
    def opened(self) -> Iterator[XapiSession]:
        session = master_session(self.pool.addresses.values(), self.credentials)
        yield session
        session.close()

    def vm(self, number: int, label: str = "a VM", emulated: bool = False, **more: object) -> str:
        vm = self.pool.create_vm(label, emulated)
        self.pool.create_vif(vm, self.blue.ref, "0", f"0a:00:00:00:00:{number:02x}", **more)
        return vm

    def uuid(self, vm: str) -> str:
        return str(self.pool.record("vm", vm)["uuid"])

    def vifs(self, vm: str) -> list[Vif]:
        """The VM's VIFs as vnet has them."""
        return [vif for vif in self.client.vifs() if vif.vm == self.uuid(vm)]

    def settled(self, vm: str, host: str | None) -> None:
        """vnet has the VM where xapi has it."""

        def there() -> bool:
            vifs = self.vifs(vm)
            return bool(vifs) and all(
                (vif.host, vif.incoming) == (host, None) and (host is None or (vif.place.state, vif.place.host) == ("ready", host))
                for vif in vifs
            )  # fmt: skip

        try:
            wait_until(there, f"{vm} to be settled on {host}")
        except TimeoutError as error:
            raise AssertionError(
                f"{error}: {self.follower.state}, {self.vifs(vm)}, {self.client.status().problems}"
            ) from None

    def prepared(self, vm: str) -> None:
        """Copying memory takes seconds: meanwhile hosts get ready."""
        unit = Unit.of_vm(self.uuid(vm))
        wait_until(lambda: self.client.migration(unit).phase == "prepared", f"{unit.id} to be prepared")

    def reached(self, source: str, to: str) -> bool:
        a, b = (self.lab.vif(self.uuid(vm)) for vm in (source, to))
        frame: Packet = Ether(src=a.mac, dst=b.mac) / IP(src="10.1.0.1", dst="10.1.0.2") / UDP() / Raw(b"?" * 20)
        sent = self.lab.send(self.uuid(source), frame)
        return [item.to for item in sent if item.frame == bytes(frame)] == [f"{self.uuid(to)}/0"]


@pytest.fixture(scope="module")
def setting(netns: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    state = desired_state(load(DOCUMENT, "xen.vnet.yaml"), PoolState())
    tls = TestAuthority(tmp_path_factory.mktemp("pki")).at(*ADDRESSES.values(), *ANOTHER_POOL.values())
    with Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True) as lab:
        pool = XenPool(lab, ADDRESSES)
        with serving(pool, tls), Client(f"unix:{lab.daemons.controller_socket}") as client:
            made = Setting(lab, pool, client, Credentials(USER, PASSWORD, str(tls.ca_certificate)), tls)
            made.start()
            try:
                yield made
            finally:
                made.stop()


def test_vms_start_move_and_stop_as_xapi_does_it(setting: Setting) -> None:
    a, b = setting.vm(1, "web \u0631 1"), setting.vm(2)
    setting.pool.start(a, "xen1")
    setting.pool.start(b, "xen2")
    setting.settled(a, "xen1")
    setting.settled(b, "xen2")
    assert setting.client.vm(setting.uuid(a)).title == "web \u0631 1"
    assert setting.reached(a, b)
    assert setting.reached(b, a)

    setting.lab.daemons.settle()
    with setting.lab.stream(f"{setting.uuid(b)}/0", f"{setting.uuid(a)}/0") as stream:
        setting.pool.migrate(a, "xen3", lambda: setting.prepared(a))
        setting.settled(a, "xen3")
        with pytest.raises(Failure, match="VM_MIGRATE_FAILED"):
            setting.pool.migrate(a, "xen2", fails=True)
        setting.settled(a, "xen3")
    arrived = stream.report.at(f"{setting.uuid(a)}/0")
    assert (arrived.lost <= PAUSED, arrived.duplicated) == (True, 0)
    assert setting.reached(b, a)

    setting.pool.shutdown(a)
    setting.settled(a, None)
    setting.pool.shutdown(b)
    for vm in (a, b):
        setting.pool.destroy_vm(vm)
    wait_until(lambda: setting.client.vms() == [], "both to be gone")
    assert setting.follower.state.problems == {}


def test_a_guest_whose_drivers_start_loses_nothing(setting: Setting) -> None:
    """Until then an emulated NIC's tap is beside its vif: two ports of one VIF, of which the active one counts. Nobody calls the other one a second port."""
    a, b = setting.vm(41, emulated=True), setting.vm(42)
    setting.pool.start(a, "xen1")
    setting.pool.start(b, "xen2")
    setting.settled(a, "xen1")
    setting.settled(b, "xen2")
    assert setting.reached(a, b)
    copied = []
    setting.pool.migrate(a, "xen3", lambda: copied.append((setting.prepared(a), setting.client.status().problems)))
    assert copied == [(None, [])]
    setting.settled(a, "xen3")
    to, ovs = setting.uuid(a), setting.lab.ovs("xen3")
    vif = next(device for device in ovs.vsctl("list-ports", "br-int").split() if device.startswith("vif"))

    def counts() -> bool:
        number = ovs.vsctl("get", "interface", vif, "ofport").strip()
        return f"output:{number}" in ovs.ofctl("dump-flows", "br-int")

    with setting.lab.stream(f"{setting.uuid(b)}/0", f"{to}/0") as stream:
        wait_until(lambda: stream.progress().frames(f"{to}/0") > 20, "frames to the tap")
        assert not counts()
        setting.pool.start_drivers(a, lambda: wait_until(counts, "the vif to be the port that counts"))
        counted = stream.progress().sent
        wait_until(lambda: stream.progress().latest(f"{to}/0") > counted + 20, "frames to the vif")
    arrived = stream.report.at(f"{to}/0")
    # Lost is what came while the guest had no NIC, until the vif counted; from then on frames wait there for the frontend.
    assert arrived.duplicated == 0
    assert [number for number in arrived.lost_numbers if number >= counted] == []
    assert setting.reached(a, b)
    assert setting.client.status().problems == []
    for vm in (a, b):
        setting.pool.shutdown(vm)
        setting.pool.destroy_vm(vm)


def test_reboots_suspensions_moved_and_new_vifs_and_reverted_snapshots(setting: Setting) -> None:
    pool, reached = setting.pool, setting.reached
    a, b = setting.vm(51), setting.vm(52)
    for vm, host in ((a, "xen1"), (b, "xen2")):
        pool.start(vm, host)
        setting.settled(vm, host)
    pool.reboot(a)  # a domain of another number
    setting.settled(a, "xen1")
    assert reached(b, a)
    pool.suspend(a)
    setting.settled(a, None)
    pool.resume(a, "xen3")
    setting.settled(a, "xen3")
    assert reached(b, a)

    with setting.opened() as session:
        red = publish(setting.client, session, "tenant-a")
        wait_until(lambda: red.bridge in setting.lab.ovs("xen3").vsctl("list-br").split(), "the bridge")
        [(vif, _)] = pool.vifs(a)
        pool.move_vif(vif, red.ref)
        wait_until(lambda: [found.network for found in setting.vifs(a)] == ["tenant-a"], "the VIF to be moved")
        setting.settled(a, "xen3")
        assert not reached(b, a)
        pool.move_vif(vif, setting.blue.ref)
        wait_until(lambda: [found.network for found in setting.vifs(a)] == ["blue"], "the VIF to be back")
        setting.settled(a, "xen3")
        assert reached(b, a)

        second = pool.create_vif(a, red.ref, "1", "0a:00:00:00:01:51")
        pool.plug_vif(second)
        wait_until(lambda: len(setting.vifs(a)) == 2, "the second VIF")
        setting.settled(a, "xen3")
        pool.unplug_vif(second)
        pool.call(pool.addresses[pool.master], "VIF.destroy", [next(iter(pool.sessions)), second])
        wait_until(lambda: len(setting.vifs(a)) == 1, "the second VIF to go")
        unpublish(setting.client, session, "tenant-a", [red])

    pool.shutdown(a)
    [before] = setting.vifs(a)
    pool.revert(a)
    wait_until(
        lambda: [(vif.id == before.id, vif.mac) for vif in setting.vifs(a)] == [(False, before.mac)],
        "a VIF in its place",
    )
    pool.start(a, "xen1")
    setting.settled(a, "xen1")
    assert reached(b, a)
    for vm in (a, b):
        pool.shutdown(vm)
        pool.destroy_vm(vm)
    wait_until(lambda: setting.client.vms() == [], "both to be gone")
    assert setting.follower.state.problems == {}


def test_moves_go_on_when_xapi_restarts_or_the_follower_dies(setting: Setting) -> None:
    """While memory is copied: what was prepared stays, and the guest opens its own port at the destination."""
    pool = setting.pool
    a, b = setting.vm(53), setting.vm(54)
    for vm, host in ((a, "xen1"), (b, "xen2")):
        pool.start(vm, host)
        setting.settled(vm, host)

    late = Follower(setting.client, setting.session, (), time.monotonic, caller=setting.follower.name)
    late._session = setting.session(pool.addresses[pool.master])
    late._session.open()
    late.state.pool, late._vnet_pool = setting.follower.state.pool, setting.client.pool().id
    late._inventory.fold(late._session.batch(0))

    def xapi_restarts() -> None:
        setting.prepared(a)
        late._due = {a}
        late._carry_out()  # by what it knows, the VM moves nowhere
        assert (late.state.behind, late.state.problems) == (1, {})
        assert setting.client.migration(Unit.of_vm(setting.uuid(a))).phase == "prepared"
        pool.restart()

    def follower_dies() -> None:
        setting.prepared(a)
        follower.stop()
        pool.restart()  # so that it ends at once

    streams = []
    with setting.lab.stream(f"{setting.uuid(b)}/0", f"{setting.uuid(a)}/0") as stream:
        pool.migrate(a, "xen3", xapi_restarts)
        setting.settled(a, "xen3")
        streams.append(stream)
    setting.stop()
    with setting.followed() as follower, setting.lab.stream(f"{setting.uuid(b)}/0", f"{setting.uuid(a)}/0") as stream:
        pool.migrate(a, "xen1", follower_dies)
        streams.append(stream)
        wait_until(
            lambda: stream.progress().latest(f"{setting.uuid(a)}/0") > stream.progress().sent - 20,
            "frames to the destination",
        )
    setting.start()
    setting.settled(a, "xen1")
    for stream in streams:
        arrived = stream.report.at(f"{setting.uuid(a)}/0")
        assert (arrived.lost <= PAUSED, arrived.duplicated) == (True, 0)
    for vm in (a, b):
        pool.shutdown(vm)
        pool.destroy_vm(vm)
    wait_until(lambda: setting.client.vms() == [], "both to be gone")


def test_a_host_is_evacuated_in_batches(setting: Setting) -> None:
    pool = setting.pool
    vms, far = [setting.vm(60 + n) for n in range(3)], setting.vm(64)
    for vm in vms:
        pool.start(vm, "xen1")
    pool.start(far, "xen2")
    for vm in (*vms, far):
        setting.settled(vm, "xen2" if vm == far else "xen1")
    to = [f"{setting.uuid(vm)}/0" for vm in vms]

    def copied(batch: list[str]) -> None:
        for vm in batch:
            setting.prepared(vm)

    with ExitStack() as stack:
        streams = [stack.enter_context(setting.lab.stream(f"{setting.uuid(far)}/0", one)) for one in to]
        pool.evacuate("xen1", "xen3", copied)
        for vm in vms:
            setting.settled(vm, "xen3")
    arrived = [stream.report.at(one) for stream, one in zip(streams, to, strict=True)]
    assert [(found.lost <= PAUSED, found.duplicated) for found in arrived] == [(True, 0)] * len(vms)
    for vm in (*vms, far):
        pool.shutdown(vm)
        pool.destroy_vm(vm)
    wait_until(lambda: setting.client.vms() == [], "all to be gone")


def test_a_vm_that_moves_to_another_pool_is_that_pools(setting: Setting) -> None:
    """Its records are in both pools while its disks are copied: it is the first one's till it runs in the other."""
    other = XenPool(setting.lab, ANOTHER_POOL)
    a, b = setting.vm(55), setting.vm(56)
    for vm, host in ((a, "xen1"), (b, "xen2")):
        setting.pool.start(vm, host)
        setting.settled(vm, host)
    to = f"{setting.uuid(a)}/0"
    with serving(other, setting.tls), setting.followed(other) as follower:
        session = master_session(other.addresses.values(), setting.credentials)
        there = publish(setting.client, session, "blue", setting.blue.label)
        wait_until(lambda: there.bridge in setting.lab.ovs("xen4").vsctl("list-br").split(), "the bridge")
        with setting.lab.stream(f"{setting.uuid(b)}/0", to) as stream:
            moved = setting.pool.migrate_to_pool(a, other, there.ref, "xen4", lambda _: setting.prepared(a))
            name = other.record("vm", moved)["uuid"]
            unit = Unit.of_vm(name)
            wait_until(lambda: setting.client.vm(name).origin == f"xapi-{follower.state.pool}" and setting.client.migration(unit).phase == "none", "its new pool")  # fmt: skip
            wait_until(lambda: {vif.place.host for vif in setting.client.vm(name).vifs} == {"xen4"}, "it to be there")
        arrived = stream.report.at(to)
        assert (arrived.lost <= PAUSED, arrived.duplicated) == (True, 0)
        other.shutdown(moved)
        other.destroy_vm(moved)
        setting.pool.shutdown(b)
        setting.pool.destroy_vm(b)
        wait_until(lambda: setting.client.vms() == [], "both to be gone")
        assert (setting.follower.state.problems, follower.state.problems) == ({}, {})
        session.call("network.destroy", there.ref)
        session.close()


@pytest.mark.parametrize("carrier", ["vlan", "tunnels"])
def test_vifs_of_xapis_own_networks_are_taken_over_and_given_back(
    setting: Setting, carrier: str, tmp_path: Path
) -> None:
    """A VLAN, and tunnels of Xen Orchestra's controller. VMs migrate while their network is vnet's, and new ones are vnet's at once. xapi notices nothing."""
    pool, reached, lab = setting.pool, setting.reached, setting.lab
    network, bridge, label = ("dmz", "xapi1", "DMZ") if carrier == "vlan" else ("private", "xapi5", "Private")
    theirs = (
        pool.create_vlan(label, bridge, 10) if carrier == "vlan" else pool.create_tunnels(label, bridge, "vxlan", 5005)
    )
    a, b, c = (pool.create_vm(label) for label in "abc")
    for n, (vm, host) in enumerate(((a, "xen1"), (b, "xen2"), (c, "xen2")), 71 if carrier == "vlan" else 75):
        pool.create_vif(vm, theirs, "0", f"0a:00:00:00:00:{n}")
        if vm != c:
            pool.start(vm, host)
    wait_until(lambda: reached(a, b) and reached(b, a), "xapi's network")
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    page = setting.on_the_page("take-over", secret, pool.addresses[pool.master])
    at = page.index("--of")
    assert page[at - 1 : at + 2] == ["dmz", "--of", "DMZ"]
    command = [*page[: at - 1], network, *page[at + 2 :], "--of"]
    refused = CliRunner().invoke(cli, [*command, "Pool-wide network associated with eth0"])
    assert (refused.exit_code, "it is tag untagged of bridge xenbr0 there" in refused.output) == (1, True)
    to = f"{setting.uuid(a)}/0"
    with lab.stream(f"{setting.uuid(b)}/0", to) as stream:
        moved = CliRunner().invoke(cli, [*command, label])
        assert (moved.exit_code, moved.output.count("VIF ")) == (0, 2), moved.output
        assert CliRunner().invoke(cli, [*command, label]).exit_code == 0  # again
    arrived = stream.report.at(to)
    assert (arrived.duplicated, arrived.lost < GAP) == (0, True), arrived.lost_numbers
    for vm, host in ((a, "xen1"), (b, "xen2")):
        setting.settled(vm, host)
    assert reached(a, b)
    assert reached(b, a)

    pool.start(c, "xen2")
    setting.settled(c, "xen2")
    assert reached(a, c)
    pool.migrate(a, "xen2", lambda: setting.prepared(a))
    setting.settled(a, "xen2")
    wait_until(lambda: reached(c, a) and reached(a, c), "both on one host")
    pool.migrate(a, "xen1", lambda: setting.prepared(a))
    setting.settled(a, "xen1")
    listed = CliRunner().invoke(cli, setting.on_the_page("list", secret, pool.addresses["xen3"]))
    assert (listed.exit_code, label in listed.output) == (0, False), "it is not vnet's to destroy"

    [vif] = setting.vifs(a)
    wait_until(lambda: len(setting.client.bindings(vif=vif.id)) == 1, "the host that it left to relay no more")
    with lab.stream(f"{setting.uuid(b)}/0", to) as stream:
        moved = CliRunner().invoke(cli, [*command, label, "--back"])
        assert (moved.exit_code, moved.output.count("VIF ")) == (0, 3), moved.output
        wait_until(lambda: setting.vifs(a) == setting.vifs(b) == setting.vifs(c) == [], "the VIFs to be xapi's")
        wait_until(lambda: reached(a, b) and reached(b, a), "both ways")
    arrived = stream.report.at(to)
    assert (arrived.duplicated, arrived.lost < GAP) == (0, True), arrived.lost_numbers
    assert "vnet-network" not in pool.record("network", theirs)["other_config"]
    for vm in (a, b, c):
        pool.shutdown(vm)
        pool.destroy_vm(vm)
    wait_until(lambda: setting.client.vms() == [], "all to be gone")
    assert setting.follower.state.problems == {}


def test_what_changes_of_a_vif_there_changes_here(setting: Setting) -> None:
    pool = setting.pool
    vm = setting.vm(3, "first", qos_algorithm_type="ratelimit", qos_algorithm_params={"kbps": "100"})
    wait_until(lambda: setting.vifs(vm), "the VIF")
    [(ref, _)] = pool.vifs(vm)
    [vif] = setting.vifs(vm)
    assert (vif.mac, vif.locking_mode, vif.addresses, vif.qos) == ("0a:00:00:00:00:03", "unlocked", [], "xapi-100kib")
    assert setting.client.qos_class("xapi-100kib").from_vm == "819.2kbit"  # 100 x 1,024 x 8 bits
    setting.client.put_security_group("web", SecurityGroupSpec(rules=[Rule(name="all", direction="ingress")]))
    pool.write("vif", ref, locking_mode="locked", ipv4_allowed=["10.1.0.3"], ipv6_allowed=["fd00::3"], qos_algorithm_type="",
               other_config={"vnet-security-groups": "web"})  # fmt: skip
    pool.write("vm", vm, name_label="second\n", tags=["web", "app=shop", "for people"])
    second = pool.create_vif(vm, setting.blue.ref, "1", "0a:00:00:00:01:03")
    wait_until(
        lambda: len(setting.vifs(vm)) == 2 and setting.client.vm(setting.uuid(vm)).title == "second\ufffd", "both VIFs"
    )
    assert setting.client.vm(setting.uuid(vm)).labels == {"app": "shop", "web": "true"}
    vif = next(vif for vif in setting.vifs(vm) if vif.index == 0)
    assert (vif.locking_mode, vif.addresses, vif.qos, vif.security_groups) == (
        "locked",
        ["10.1.0.3", "fd00::3"],
        None,
        ["web"],
    )
    pool.call(pool.addresses[pool.master], "VIF.destroy", [next(iter(pool.sessions)), second])
    wait_until(lambda: len(setting.vifs(vm)) == 1, "the second to go")
    # One that no pool may have costs itself only.
    bad = setting.vm(4, "bad")
    pool.write("vif", pool.vifs(bad)[0][0], locking_mode="locked", ipv4_allowed=["224.0.0.1"])
    wait_until(lambda: f"vm {setting.uuid(bad)}" in setting.follower.state.problems, "the problem")
    good = setting.vm(5, "good")
    wait_until(lambda: setting.vifs(good), "the good one")
    pool.write("vif", pool.vifs(bad)[0][0], ipv4_allowed=["10.1.0.4"])
    wait_until(lambda: setting.follower.state.problems == {}, "nothing is wrong")
    for found in (vm, bad, good):
        pool.destroy_vm(found)
    wait_until(lambda: setting.client.vms() == [], "all to be gone")


def test_nothing_that_runs_is_taken_away(setting: Setting) -> None:
    """A VM that has a port stays, though xapi should no longer know it; and nothing goes that may only seem gone."""
    pool, reached = setting.pool, setting.reached
    a, b = setting.vm(31), setting.vm(32)
    for vm, host in ((a, "xen1"), (b, "xen2")):
        pool.start(vm, host)
        setting.settled(vm, host)
    [(ref, row)], name = pool.vifs(a), setting.uuid(a)
    pool.write("vif", ref, MAC=7)
    record = f"record {ref}"
    wait_until(lambda: record in setting.follower.state.problems, "the record that cannot be read")
    halted = setting.vm(33)
    wait_until(lambda: setting.vifs(halted), "another VM")
    assert reached(b, a)
    pool.write("vif", ref, MAC=row["MAC"])
    wait_until(lambda: record not in setting.follower.state.problems, "it to be read")

    kept = pool.tables["vm"].rows[a], pool.tables["vif"].rows[ref]
    for table, gone in (("vif", ref), ("vm", a)):  # as if a database of before was restored
        pool._drop(table, gone)
    wait_until(lambda: f"vm {name}" in setting.follower.state.problems, "the VM that is gone")
    assert "host xen1 has its port: it stays" in setting.follower.state.problems[f"vm {name}"]
    assert [vif.place.state for vif in setting.client.vm(name).vifs] == ["ready"]
    a = pool._add("vm", **kept[0])
    pool._add("vif", **{**kept[1], "VM": a})
    wait_until(lambda: not setting.follower.state.problems, "both are there again")
    assert reached(b, a)
    for vm in (a, b):
        pool.shutdown(vm)
    for vm in (a, b, halted):
        pool.destroy_vm(vm)
    wait_until(lambda: setting.client.vms() == [], "all to go")


def test_a_session_that_ends_lost_events_and_another_master(setting: Setting) -> None:
    pool = setting.pool
    vm = setting.vm(6)
    wait_until(lambda: setting.vifs(vm), "the VIF")
    pool.sessions.clear()
    pool.write("vm", vm, name_label="after the session")
    wait_until(lambda: setting.client.vm(setting.uuid(vm)).title == "after the session", "the new session")
    pool.lose_events()
    other = setting.vm(7)
    wait_until(lambda: setting.vifs(other), "everything to be read anew")
    pool.become_master("xen2")
    pool.write("vm", other, name_label="of xen2")
    wait_until(lambda: setting.client.vm(setting.uuid(other)).title == "of xen2", "the new master")
    assert setting.follower.state.master == pool.addresses["xen2"]
    for found in (vm, other):
        pool.destroy_vm(found)
    wait_until(lambda: setting.client.vms() == [], "both to go")


def test_wrong_credentials_a_pool_in_maintenance_dropped_events_and_unknown_networks(setting: Setting) -> None:
    """Each is named, forwards nothing wrongly and costs nobody else, and is over once its cause is."""
    pool, problems = setting.pool, setting.follower.state.problems
    a, b = setting.vm(101), setting.vm(102)
    for vm, host in ((a, "xen1"), (b, "xen2")):
        pool.start(vm, host)
        setting.settled(vm, host)
    with setting.lab.stream(f"{setting.uuid(b)}/0", f"{setting.uuid(a)}/0") as stream:
        pool.password = "another one"
        pool.restart()
        wait_until(lambda: "refuses the user or the password" in problems.get("xapi", ""), "the wrong password")
        pool.write("vm", a, name_label="renamed meanwhile")
        pool.password = PASSWORD
        wait_until(lambda: setting.client.vm(setting.uuid(a)).title == "renamed meanwhile", "the right one")

        for code in ("HOST_STILL_BOOTING", "HOST_IN_EMERGENCY_MODE"):
            pool.refuses = code
            pool.restart()
            wait_until(lambda code=code: code in problems.get("xapi", ""), code)  # type: ignore[misc]
        pool.refuses = ""
        pool.write("vm", a, name_label="after the maintenance")
        wait_until(lambda: setting.client.vm(setting.uuid(a)).title == "after the maintenance", "the end of it")

        pool.drops_events = True
        pool.write("vm", b, name_label="so that it asks again")
        wait_until(lambda: not pool.drops_events, "it to be told so")
        pool.write("vm", a, name_label="after lost events")
        wait_until(lambda: setting.client.vm(setting.uuid(a)).title == "after lost events", "all to be read anew")

        config = {"vnet-network": "nowhere", "vnet-pool": setting.client.pool().id}
        theirs = pool._add("network", name_label="of another day", name_description="", MTU="1500", other_config=config, bridge="vn-x",
                           managed=False, tags=[], default_locking_mode="unlocked")  # fmt: skip
        lost = pool.create_vm("on a network that vnet has not")
        pool.create_vif(lost, theirs, "0", "0a:00:00:00:01:03")
        wait_until(lambda: "nowhere" in problems.get(f"vm {setting.uuid(lost)}", ""), "the unknown network")
        pool.write("vm", b, name_label="others go on")
        wait_until(lambda: setting.client.vm(setting.uuid(b)).title == "others go on", "the others")
        setting.client.put_network("nowhere", NetworkSpec(type="vxlan"))
        wait_until(lambda: len(setting.vifs(lost)) == 1, "the network to be there")
    arrived = stream.report.at(f"{setting.uuid(a)}/0")
    assert (arrived.lost_numbers, arrived.duplicated) == ((), 0), f"of {len(stream.report.sent)}"
    for vm in (a, b):
        pool.shutdown(vm)
    for vm in (a, b, lost):
        pool.destroy_vm(vm)
    wait_until(lambda: setting.client.vms() == [], "all to be gone")
    pool._drop("network", theirs)
    setting.client.delete_network("nowhere")
    wait_until(lambda: setting.follower.state.problems == {}, "nothing is wrong")


def test_a_vm_whose_host_died_starts_elsewhere(setting: Setting) -> None:
    a, b = setting.vm(8), setting.vm(9)
    setting.pool.start(a, "xen3")
    setting.pool.start(b, "xen1")
    setting.settled(a, "xen3")
    setting.settled(b, "xen1")
    setting.pool.crash(a)
    setting.pool.start(a, "xen2")
    setting.settled(a, "xen2")
    assert setting.reached(b, a)
    setting.pool.shutdown(a)
    setting.pool.shutdown(b)
    for vm in (a, b):
        setting.pool.destroy_vm(vm)


def test_networks_are_published_by_commands(setting: Setting, tmp_path: Path) -> None:
    """As a person does it; twice is once. What xapi refuses is said."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    address = setting.pool.addresses["xen3"]  # a slave: the master is found
    options = ["--host", address, "--password-file", str(secret), "--xapi-ca", str(setting.credentials.ca)]
    root = ["--controller", f"unix:{setting.lab.daemons.controller_socket}"]

    def vnet(*args: str) -> Result:
        return CliRunner().invoke(cli, [*root, "xapi", *args])

    secret.chmod(0o644)
    assert "may be read by others" in vnet("list", *options).output
    secret.chmod(0o600)

    def run(name: str, *more: str) -> Result:
        """As the page has it."""
        return CliRunner().invoke(cli, [*setting.on_the_page(name, secret, address), *more])

    first, second = (run("publish") for _ in range(2))
    assert (first.exit_code, first.output) == (second.exit_code, second.output) == (0, first.output)
    shown = json.loads(run("list", "-o", "json").output)
    assert [(one["network"], one["label"]) for one in shown] == [("blue", setting.blue.label), ("tenant-a", "Tenant A")]
    # As one that an older version made. ovs-xapi-sync would open the bridge of such a network.
    setting.pool.write(
        "network", shown[1]["ref"], other_config={"vnet-network": "tenant-a", "vnet-pool": setting.client.pool().id}
    )
    assert run("publish").exit_code == 0
    assert setting.pool.record("network", shown[1]["ref"])["other_config"]["vswitch-controller-fail-mode"] == "secure"
    # Renamed there, as another one is called already.
    setting.pool.write("network", shown[1]["ref"], name_label=setting.blue.label + "\u202e")
    wait_until(lambda: setting.client.plug_bridge(shown[1]["bridge"]).title != "Tenant A", "the new label")
    lines = CliRunner().invoke(cli, [*root, "show", "plug-bridges"]).output.splitlines()
    assert [line.split()[1:-1] for line in lines[1:]] == [
        ["blue", "False", "-", "Bl\u00fc\u00e9", "\U0001f600"],
        ["tenant-a", "False", "-", "Bl\u00fc\u00e9", "\U0001f600\ufffd"],
    ]
    imported = run("import").stdout
    assert "Left out: network 'Tenant" not in imported
    assert "xenbr0: {bridge: xenbr0}" in imported
    assert load(imported.encode(), "imported").pool == "xen"
    assert vnet("unpublish", "tenant-a", "--yes", *options).exit_code == 0
    assert [found.name for found in setting.client.plug_bridges()] == [setting.blue.bridge]

    vm = setting.vm(10)
    with pytest.raises(Failure, match="NETWORK_NOT_SHARED"):
        setting.pool.assert_agile(vm)
    for _ in range(2):
        assert vnet("publish", "blue", "--agile", *options).exit_code == 0
    setting.pool.assert_agile(vm)
    pifs = [pif for pif in setting.pool.tables["pif"].rows.values() if pif["network"] == setting.blue.ref]
    assert [pif["managed"] for pif in pifs] == [False] * len(HOSTS)
    setting.pool.start(vm, "xen1")
    refused = vnet("unpublish", "blue", "--yes", *options)
    setting.pool.assert_agile(vm)
    assert (refused.exit_code, "NETWORK_CONTAINS_VIF" in refused.output) == (1, True)
    setting.pool.shutdown(vm)
    setting.pool.destroy_vm(vm)
    assert vnet("unpublish", "blue", "--yes", *options).output == "network blue is no more there\n"
    assert [pif for pif in setting.pool.tables["pif"].rows.values() if pif["network"] == setting.blue.ref] == []
    with setting.opened() as session:
        setting.blue = publish(setting.client, session, "blue", setting.blue.label)
    for host in HOSTS:
        wait_until(lambda h=host: setting.blue.bridge in setting.lab.ovs(h).vsctl("list-br").split(), "the bridge")  # type: ignore[misc]
    secret.write_text("another one")
    assert "refuses the user or the password" in vnet("list", *options).output
    with pytest.raises(XapiError, match="certificate verify failed"):
        master_session([address], Credentials(USER, PASSWORD))


def test_vms_that_come_go_and_move_at_random_cost_bystanders_nothing(setting: Setting) -> None:
    pool, picked = setting.pool, random.Random(7)
    still = [setting.vm(11 + n) for n in range(2)]
    busy = [setting.vm(21 + n) for n in range(2)]
    for vm, host in zip(still, HOSTS, strict=False):
        pool.start(vm, host)
        setting.settled(vm, host)
    place: dict[str, str | None] = dict.fromkeys(busy)
    a, b = (f"{setting.uuid(vm)}/0" for vm in still)
    # Two followers on different machines, of which one stands by.
    with setting.followed() as second, setting.lab.stream(a, b) as there, setting.lab.stream(b, a) as back:
        for _ in range(8):
            vm, host = picked.choice(busy), picked.choice(HOSTS)
            at, ends = place[vm], host
            if at is None:
                pool.start(vm, host)
            elif host == at:
                pool.shutdown(vm)
                ends = ""
            elif picked.random() < 0.3:
                with pytest.raises(Failure, match="VM_MIGRATE_FAILED"):
                    pool.migrate(vm, host, fails=True)
                ends = at
            else:
                pool.migrate(vm, host, lambda v=vm: setting.prepared(v))  # type: ignore[misc]
            place[vm] = ends or None
            setting.settled(vm, ends or None)
    for stream, to in ((there, b), (back, a)):
        assert (stream.report.at(to).lost, stream.report.at(to).duplicated) == (0, 0)
    for vm in (*still, *(vm for vm, host in place.items() if host is not None)):
        pool.shutdown(vm)
    for vm in (*still, *busy):
        pool.destroy_vm(vm)
    wait_until(lambda: setting.client.vms() == [], "all to be gone")
    wait_until(lambda: setting.follower.state.problems == second.state.problems == {}, "nothing is wrong")


def test_of_two_followers_one_stands_by_and_follows_when_the_other_is_silent(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are named: by themselves, in the pool's status and in an event. One that was taken over, and lives after all, writes nothing more."""
    monkeypatch.setattr(claim, "BEAT_S", 0.1)
    monkeypatch.setattr(claim, "SILENT_S", 4.0)
    monkeypatch.setattr(follower, "PATIENCE_S", 0.2)
    first, origin = setting.follower, f"xapi-{setting.follower.state.pool}"
    begun = setting.client.status().followers[0].beat
    wait_until(lambda: setting.client.status().followers[0].beat > begun + 3, "it to say so often")
    with setting.followed() as second:
        wait_until(lambda: second.state.holder == first.name and first.state.standby == second.name, "both to know")
        [row] = setting.client.status().followers
        assert (row.name, row.holder, row.standby) == (origin, first.name, second.name)
        vm = setting.vm(81)
        setting.pool.start(vm, "xen1")
        setting.settled(vm, "xen1")
        assert second.state.read is None
        # It is frozen: its thread waits, and holds what it knew.
        frozen = threading.Event()
        asked = first._claim.held
        monkeypatch.setattr(first._claim, "held", lambda name: frozen.wait(30) and asked(name))
        wait_until(lambda: second.state.holder == "" and second.state.read is not None, "the second one to follow")
        setting.pool.migrate(vm, "xen2", lambda: setting.prepared(vm))
        setting.settled(vm, "xen2")
        frozen.set()
        wait_until(lambda: first.state.holder == second.name, "the first one to stand by")
        texts = [event.text for event in setting.client.events() if event.kind == "follower"]
        assert f"{origin} is followed by {first.name}; {second.name} stands by" in texts
        assert f"{origin} is followed by {second.name}: {first.name} is silent" in texts
    # It has ended, and says so.
    wait_until(lambda: first.state.holder == "", "the first one to follow again")
    setting.pool.shutdown(vm)
    setting.pool.destroy_vm(vm)
    wait_until(lambda: setting.client.vms() == [], "it to be gone")
    assert first.state.problems == {}


def test_the_service_says_how_far_it_is_and_is_the_only_one(setting: Setting, tmp_path: Path) -> None:
    secret, state = tmp_path / "password", tmp_path / "state.json"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    page = setting.on_the_page("follow", secret, setting.pool.addresses["xen1"])
    command = [sys.executable, "-m", "vnet.cli.main", *page, "--state", str(state)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        try:
            wait_until(lambda: state.exists() and json.loads(state.read_text())["pool"], "its state")
            second = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            assert (second.returncode, f"another follower has {state}" in second.stderr) == (1, True)
            shown = CliRunner().invoke(cli, [*setting.on_the_page("status", secret, ""), "--state", str(state)])
            assert (shown.exit_code, "0 VMs are not carried out yet" in shown.output) == (0, True)
            assert (
                f"followed by {setting.follower.name}; machine " in shown.output
            )  # on this machine too, one stands by
        finally:
            first.terminate()
    assert first.returncode == 0
