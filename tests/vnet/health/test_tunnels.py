"""Tunnels of a lab's hosts, broken as firewalls and switches break them: what `vnet doctor --pool`, the status, events and metrics say."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.lab.pools import MTU, mac, pool
from vnet.client import Client
from vnet.lab import Lab, links
from vnet.lab.names import underlay_netns
from vnet.util.hello_frames import HELLO_GROUP, HELLO_TYPE

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    with Lab.up(pool(hosts=3), name=new_name(), daemons=True) as lab:
        lab.start_all()
        yield lab


def doctor(lab: Lab) -> dict[str, tuple[str, str, str]]:
    command = [sys.executable, "-m", "vnet.cli.main", "doctor", "--pool", "-o", "json"]
    done = subprocess.run(command, cwd=ROOT, env=lab.daemons.env, capture_output=True, text=True, check=False)
    return {row["subject"]: (row["finding"], row["text"], row["remedy"]) for row in json.loads(done.stdout)}


def stated(lab: Lab) -> dict[str, tuple[str, ...]]:
    """What is wrong as every caller sees it at once, without asking hosts: hosts by code."""
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        return {found.code: tuple(found.hosts) for found in client.health().findings}


def drop(lab: Lab, host: str, source: str, *, heal: bool = False) -> None:
    """Has a host drop what comes through tunnels from an address, as a firewall does."""
    match = f"table=0,priority=65535,tun_src={source}"
    if heal:
        lab.ovs(host).ofctl("--strict", "del-flows", "br-int", match)
    else:
        lab.ovs(host).ofctl("add-flow", "br-int", f"{match},actions=drop")


def test_a_tunnel_that_brings_nothing_one_way(lab: Lab) -> None:
    sound = wait_until(lambda: all_pass(found := doctor(lab)) and found, "every tunnel passes")
    assert len(sound) == 6, sound
    drop(lab, "xen2", "10.99.0.1")
    wait_until(lambda: stated(lab) == {"tunnel-one-way": ("xen1", "xen2")}, "the direction is named")
    (wrong,) = [row for row in doctor(lab).values() if row[0] == "wrong"]
    assert "vxlan tunnel from host xen1 to host xen2 brings nothing, and the way back works" in wrong[1]
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        assert [problem.code for problem in client.status().problems if problem.code.startswith("tunnel")] == [
            "tunnel-one-way"
        ]
        assert 'vnet_health_findings{code="tunnel-one-way"} 1' in metrics(lab)
        drop(lab, "xen2", "10.99.0.1", heal=True)
        wait_until(lambda: not stated(lab), "nothing is wrong any more")
        assert wait_until(lambda: len(found := client.events(10, kind="health-good")) == 1 and found, "an event tells")
        assert len(client.events(10, kind="health")) == 1


def all_pass(rows: dict[str, tuple[str, str, str]]) -> bool:
    return len(rows) == 6 and all(finding == "ok" and "bytes" in text for finding, text, _ in rows.values())


def metrics(lab: Lab) -> str:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(lab.daemons.controller_socket))
        link.sendall(b"GET /metrics HTTP/1.1\r\nHost: vnet\r\nConnection: close\r\n\r\n")
        return link.makefile("rb").read().decode()


def test_a_host_that_is_cut_off_from_the_others_is_the_one_finding(lab: Lab) -> None:
    for host, source in (("xen3", "10.99.0.1"), ("xen3", "10.99.0.2"), ("xen1", "10.99.0.3"), ("xen2", "10.99.0.3")):
        drop(lab, host, source)
    wait_until(lambda: stated(lab) == {"tunnels-cut": ("xen3",)}, "the host is named")
    for host, source in (("xen3", "10.99.0.1"), ("xen3", "10.99.0.2"), ("xen1", "10.99.0.3"), ("xen2", "10.99.0.3")):
        drop(lab, host, source, heal=True)
    wait_until(lambda: not stated(lab), "nothing is wrong any more")


def test_a_way_that_is_too_narrow(lab: Lab) -> None:
    links.change(underlay_netns(lab.spec.name), lambda underlay: underlay.set("u2", mtu=1450))
    (found,) = wait_until(
        lambda: len(texts := narrow(lab)) == 1 and "tunnels of host xen3" in texts[0] and texts, "the host is named"
    )
    links.change(underlay_netns(lab.spec.name), lambda underlay: underlay.set("u2", mtu=MTU))
    # A bridge of Linux lets four bytes more through, for a tag (is_skb_forwardable).
    assert re.search("packets of up to 140[04] bytes arrive, and networks have an MTU of 1550", found)
    wait_until(lambda: not stated(lab), "nothing is wrong any more")


def narrow(lab: Lab) -> list[str]:
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        return [found.text for found in client.health().findings if found.code == "tunnel-mtu"]


def test_no_guest_gets_or_sends_a_hello(lab: Lab) -> None:
    """A guest that forges one reaches nobody: neither other guests nor agents, who would take it for a host's."""
    assert lab.send("vif-1", Ether(dst=HELLO_GROUP, src=mac(1), type=HELLO_TYPE) / Raw(bytes(60))).to == []
