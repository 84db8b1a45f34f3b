"""Guests with real kernels that choose their link-local addresses reach each other by them: addr_gen_mode 2 and 3 (ip-sysctl, Linux)."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.labs import new_name
from tests.polling import wait_until
from vnet.client import Client
from vnet.db.view import PoolView
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.objects.link_local import link_local
from vnet.plan import desired_state
from vnet.topology import load

DOCUMENT = b"""
apiVersion: vnet/v1
pool: kernels
hosts:
  xen1: {address: 10.99.0.1}
  xen2: {address: 10.99.0.2}
networks:
  lan: {type: vxlan}
security-groups:
  quiet:
    default: {ingress: drop, egress: drop}
    rules:
      - {name: ping-in, direction: ingress, action: allow, protocol: icmp, remote: quiet}
      - {name: ping-out, direction: egress, action: allow, protocol: icmp, remote: quiet}
vms:
  stable: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"], security-groups: [quiet]}]}
  random: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.2, "fd00:1::2"], security-groups: [quiet]}]}
  thief: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"], security-groups: [quiet]}]}
"""
MODES = {"stable": "2", "random": "3"}
LINK_LOCAL = re.compile(r"inet6 (fe80:\S+)/64")


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    state = desired_state(load(DOCUMENT, "test.vnet.yaml"), PoolState())
    with Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True) as running:
        running.start_all()
        for vm, mode in MODES.items():
            choose(running, vm, mode)
        yield running


def choose(lab: Lab, vm: str, mode: str) -> None:
    """Has a guest's kernel make a new link-local address, and look whether it is another's."""
    settings = {"disable_ipv6": "1", "accept_dad": "1", "addr_gen_mode": mode}
    if mode == "2":
        settings = {"stable_secret": "2001:db8::1", **settings}
    for key, value in [*settings.items(), ("disable_ipv6", "0")]:
        lab.run_in_vm(vm, "sysctl", "-qw", f"net.ipv6.conf.eth0.{key}={value}")


def address(lab: Lab, vm: str) -> str:
    """A guest's link-local address, once its kernel uses it."""

    def found() -> str:
        text = lab.run_in_vm(vm, "ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link")
        match = LINK_LOCAL.search(text)
        return match[1] if match and "tentative" not in text and "dadfailed" not in text else ""

    return str(wait_until(found, f"{vm} has a link-local address"))


PING = "ping -6 -q -n -i 0.02 -W 2 -c {count} {source} {to}%eth0"
COUNTED = re.compile(r"(\d+) packets transmitted, (\d+) received")


def lost(lab: Lab, vm: str, to: str, source: str = "") -> int:
    """How many of a guest's pings got no answer."""
    command = PING.format(count=3, source=f"-I {source}%eth0" if source else "", to=to)
    return in_report(lab.run_in_vm(vm, "sh", "-c", f"{command} 2>&1 || true"))


def in_report(text: str) -> int:
    match = COUNTED.search(text)
    assert match, text
    return int(match[1]) - int(match[2])


@contextmanager
def pinging(lab: Lab, vm: str, to: str, report: Path) -> Iterator[None]:
    """A guest pings, 50 times a second, until the end; then none of its pings was lost."""
    command = PING.format(count=100_000, source="", to=to)
    process = lab.popen_in_vm(vm, "sh", "-c", f"exec {command} > {report} 2>&1")
    try:
        time.sleep(0.5)
        yield
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGINT)  # ping reports what it has counted
        process.wait()
    text = report.read_text()
    assert in_report(text) <= 1, text  # the last one may have been on its way
    assert "+" not in text.rpartition("packets transmitted")[2].partition("time")[0], text  # no errors, nothing twice


def test_they_reach_each_other_across_hosts(lab: Lab) -> None:
    stable, random = address(lab, "stable"), address(lab, "random")
    assert stable != link_local(lab.vif("stable/0").mac)
    assert random != link_local(lab.vif("random/0").mac)
    assert lost(lab, "stable", random) == 0
    assert lost(lab, "random", stable) == 0
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        assert client.vif("stable/0").place.link_locals == [stable]
        assert client.vif("random/0").place.link_locals == [random]


def test_a_neighbours_address_is_refused(lab: Lab) -> None:
    """Whether or not its guest looks first; what the thief sends as its own goes on, and so does its neighbour."""
    stable, random = address(lab, "stable"), address(lab, "random")
    for theirs in (stable, link_local(lab.vif("stable/0").mac)):
        lab.run_in_vm("thief", "ip", "addr", "add", f"{theirs}/64", "dev", "eth0", "nodad")
        assert lost(lab, "thief", random, theirs) == 3
        lab.run_in_vm("thief", "ip", "addr", "del", f"{theirs}/64", "dev", "eth0")
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            wait_until(lambda its=theirs: refused(client, its), "the thief is told")  # type: ignore[misc]
    assert lost(lab, "thief", random) == 0
    assert lost(lab, "random", stable) == 0


def test_a_kernel_that_looks_first_learns_whose_it_is(lab: Lab) -> None:
    """Duplicate address detection fails, though the neighbour hears nothing of it."""
    stable = address(lab, "stable")
    lab.run_in_vm("thief", "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=1")
    lab.run_in_vm("thief", "ip", "addr", "add", f"{stable}/64", "dev", "eth0")
    show = ("ip", "-6", "-o", "addr", "show", "dev", "eth0", "to", stable)
    wait_until(lambda: "dadfailed" in lab.run_in_vm("thief", *show), "its kernel does not use it")
    lab.run_in_vm("thief", "ip", "addr", "del", f"{stable}/64", "dev", "eth0")
    assert address(lab, "stable") == stable
    assert lost(lab, "random", stable) == 0


def refused(client: Client, address: str) -> bool:
    why = client.vif("thief/0").place.why
    return any(f"chose {address}, which VIF stable/0 has" in reason.text for reason in why)


def started(lab: Lab, host: str) -> int:
    """When the agent that reports for a host started, in ms since 1970."""
    found: list[int] = []

    def reports(view: PoolView) -> bool:
        found.append(view.state.agents[host].started)
        return True

    lab.daemons.wait(reports, "a report")
    return found[-1]


def test_what_they_chose_outlives_agents_and_moves(lab: Lab, tmp_path: Path) -> None:
    stable, random = address(lab, "stable"), address(lab, "random")
    with pinging(lab, "random", stable, tmp_path / "restarts"):
        for host in ("xen1", "xen2"):
            before = started(lab, host)
            lab.daemons.kill(host)
            time.sleep(0.2)
            lab.daemons.start_agent(host, lab.ovs(host))
            wait_until(lambda h=host, at=before: started(lab, h) > at, "the agent reports")  # type: ignore[misc]
            lab.daemons.settle()
    with pinging(lab, "random", stable, tmp_path / "moves"):
        lab.migrate("stable", "xen2")
        lab.daemons.settle()
        lab.migrate("stable", "xen1")
        lab.daemons.settle()
    assert address(lab, "stable") == stable
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        assert client.vif("stable/0").place.link_locals == [stable]
        wait_until(lambda: {b.host for b in client.bindings(vif="stable/0")} == {"xen1"}, "xen2 lets it go")
        assert client.vif("stable/0").place.link_locals == [stable]
    assert lost(lab, "stable", random) == 0
