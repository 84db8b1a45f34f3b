"""A group in monitor mode on running hosts: what it would drop is counted, logged and suggested, and a switch loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
import yaml
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.flowing import go_on
from tests.vnet.packets.arrivals import Move
from vnet.api import AddressSetChange, Rule, SecurityGroupChange
from vnet.cli import main
from vnet.client import Client
from vnet.client.local import call_agent
from vnet.lab import Driver, Lab
from vnet.objects import Owner, PoolState
from vnet.objects.limits import MONITORED_OF_VIF
from vnet.plan import desired_state
from vnet.topology import load

pytestmark = pytest.mark.usefixtures("ovs")
DOCUMENT = b"""
apiVersion: vnet/v1
pool: watched
hosts: {xen1: {address: 10.99.0.1}, xen2: {address: 10.99.0.2}}
networks: {lan: {type: geneve}}
address-sets: {clients: [10.1.0.0/24]}
security-groups:
  lb: {default: {ingress: allow}}
  fw: {mode: monitor, rules: [{name: dns, direction: ingress, protocol: udp, ports: [53]}]}
  each: {stateful: false, mode: monitor, default: {ingress: drop, egress: drop}}
vms:
  web: {host: xen1, vifs: [{network: lan, mac: "0a:00:00:00:00:01", addresses: [10.1.0.1], security-groups: [fw]}]}
  lb: {host: xen2, vifs: [{network: lan, mac: "0a:00:00:00:00:02", addresses: [10.1.0.2], security-groups: [lb]}]}
  other: {host: xen2, vifs: [{network: lan, mac: "0a:00:00:00:00:03", addresses: [10.1.0.3]}]}
  ns: {host: xen1, vifs: [{network: lan, mac: "0a:00:00:00:00:04", addresses: [10.1.0.4], security-groups: [each]}]}
"""


def pool() -> PoolState:
    """The document's pool, as if a toolstack had made its groups: a call may change them."""
    state = desired_state(load(DOCUMENT, "test.vnet.yaml"), PoolState())
    groups = {name: replace(group, owner=Owner.TOOLSTACK) for name, group in state.groups.items()}
    sets = {name: replace(found, owner=Owner.TOOLSTACK) for name, found in state.address_sets.items()}
    return replace(state, groups=groups, address_sets=sets)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(pool(), name=new_name(), driver=Driver.DUMMY, daemons=True) as lab:
        lab.start_all()
        lab.wait_ready()
        lab.daemons.settle()
        yield lab


def frame(lab: Lab, source: str, payload: Packet) -> Packet:
    a, b = lab.vif(source), lab.vif("web")
    return Ether(src=a.mac, dst=b.mac) / IP(src=a.addresses[0], dst=b.addresses[0]) / payload


def reach(lab: Lab, source: str, *payloads: Packet) -> int:
    return lab.send(f"{source}/0", [frame(lab, source, payload) for payload in payloads]).to.count("web/0")


def test_a_stateless_group_needs_rules_for_answers_too(lab: Lab) -> None:
    ends = lab.vif("ns"), lab.vif("other")
    for (source, target), payload in (
        (ends[::-1], UDP(sport=40000, dport=53)),
        (ends, UDP(sport=53, dport=40000)),
        (ends, ICMP(type=3, code=3)),
    ):
        addressed = IP(src=source.addresses[0], dst=target.addresses[0]) / payload
        assert lab.send(source.id, Ether(src=source.mac, dst=target.mac) / addressed).to == [target.id]
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        wait_until(lambda: len(client.monitored("each").suggested) == 3, "all was seen")
        rules = client.monitored("each").suggested
    assert {(r.direction, r.protocol, *r.ports, "from", *r.source_ports, *r.icmp) for r in rules} == {
        ("ingress", "udp", 53, "from"),
        ("egress", "udp", "from", 53),
        ("egress", "icmp", "from", "destination-unreachable"),
    }


def test_what_was_seen_is_suggested_and_allowed_once_the_group_enforces(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", lab.daemons.env["VNET_CONTROLLER"])
    https = [TCP(sport=40000 + n, dport=443) for n in range(3)]
    assert reach(lab, "lb", *https) == 3
    # A scan takes nobody's place that goes on, and no more places than there are.
    scan = [TCP(sport=7, dport=port) for port in range(1000, 1000 + 2 * MONITORED_OF_VIF)]
    assert reach(lab, "other", *scan) == len(scan)
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        counted = wait_until(
            lambda: [v for v in client.monitored("fw").vifs if v.begun >= 3 + len(scan)], "it is counted"
        )
        assert [(each.vif, each.direction, each.begun) for each in counted] == [("web/0", "ingress", 3 + len(scan))]
        found = client.monitored("fw")
        assert len(found.connections) <= MONITORED_OF_VIF
        assert [(c.peer, c.port, c.count, c.rule) for c in found.connections if c.count > 1] == [("lb/0", 443, 3, "")]
        assert main.run(["policy", "show", "fw"]) == 0
        assert "lb/0" in capsys.readouterr().out
        assert main.run(["policy", "suggest", "fw"]) == 0
        rules = yaml.safe_load(capsys.readouterr().out)["security-groups"]["fw"]["rules"]
        assert {"name": "dns", "direction": "ingress", "protocol": "udp", "ports": [53]} in rules
        wanted = [rule for rule in rules if rule.get("remote") == "lb"]
        assert [(rule["ports"], rule["protocol"]) for rule in wanted] == [([443], "tcp")]
        log = lab.daemons.log("xen1").read_text()
        assert "ingress would drop: tcp 10.1.0.2:40000 > 10.1.0.1:443" in log
        change = SecurityGroupChange(
            mode="enforce", rules=[Rule(**rule) for rule in rules if rule["name"] == "dns" or rule in wanted]
        )
        client.change_security_group("fw", change)
        lab.daemons.settle()
        assert (reach(lab, "lb", https[0]), reach(lab, "other", scan[0])) == (1, 0)


def test_a_switch_to_enforce_and_back_loses_nothing_that_is_allowed(lab: Lab) -> None:
    """Streams of connections that began while the group watched; a destination's port, too, opens with the group as it is."""
    with ExitStack() as stack:
        client = stack.enter_context(Client(f"unix:{lab.daemons.controller_socket}"))
        client.change_security_group("fw", SecurityGroupChange(mode="monitor"))
        lab.daemons.settle()
        packets = (frame(lab, "other", UDP(sport=4000, dport=port)) for port in (53, 54))
        allowed, forbidden = (
            stack.enter_context(lab.stream("other", packet=packet, period_ms=2)) for packet in packets
        )
        both = {"allowed": (allowed, "web/0"), "forbidden": (forbidden, "web/0")}
        go_on(both)
        for _ in range(3):
            client.change_security_group("fw", SecurityGroupChange(mode="enforce"))
            lab.daemons.settle()
            go_on({"allowed": (allowed, "web/0")})  # what was on its way has arrived
            at = forbidden.progress().latest("web/0")
            go_on({"allowed": (allowed, "web/0")})
            assert forbidden.progress().latest("web/0") == at
            client.change_security_group("fw", SecurityGroupChange(mode="monitor"))
            lab.daemons.settle()
            go_on(both)
    found = allowed.report.at("web/0")
    assert (found.lost, found.duplicated) == (0, 0)
    assert forbidden.report.at("web/0").duplicated == 0


def test_a_change_of_an_address_set_costs_a_host_one_row_and_one_bundle(lab: Lab) -> None:
    """Fifty rules name it."""

    def counters(host: str) -> dict[str, int]:
        found: dict[str, int] = call_agent("status", {}, str(lab.daemons.agent_socket(host)))["counters"]
        return found

    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        rules = [
            Rule(name=f"r{n}", direction="ingress", protocol="tcp", ports=[2000 + n], remote="clients")
            for n in range(50)
        ]
        client.change_security_group("fw", SecurityGroupChange(mode="enforce", rules=rules))
        lab.daemons.settle()
        assert reach(lab, "lb", TCP(sport=7, dport=2049)) == 1
        before = {host: counters(host) for host in ("xen1", "xen2")}
        client.change_address_set("clients", AddressSetChange(addresses=["10.1.0.0/24", "10.2.0.0/16"]))
        lab.daemons.settle()
        spent = {
            host: (
                counters(host)["rows_read"] - then["rows_read"],
                counters(host)["flow_messages"] - then["flow_messages"],
            )
            for host, then in before.items()
        }
        assert spent == {"xen1": (2, 2), "xen2": (2, 0)}, "the set's row and the pool's generation; a flow each way"
        client.change_address_set("clients", AddressSetChange(addresses=["10.1.0.3/32"]))
        lab.daemons.settle()
        assert (reach(lab, "lb", TCP(sport=8, dport=2049)), reach(lab, "other", TCP(sport=8, dport=2049))) == (0, 1)


def test_a_vif_moves_while_its_group_watches_and_while_an_address_set_changes(lab: Lab) -> None:
    """Where it runs it is watched, and nothing is dropped; what the set says holds on both hosts, from before its port there opens."""
    dns, named = UDP(sport=5000, dport=53), TCP(sport=9, dport=2000)
    rules = [
        Rule(name="dns", direction="ingress", protocol="udp", ports=[53]),
        Rule(name="set", direction="ingress", protocol="tcp", ports=[2000], remote="clients"),
    ]

    def passing(payload: Packet) -> tuple[int, int]:
        return reach(lab, "lb", payload), reach(lab, "other", payload)

    with Client(f"unix:{lab.daemons.controller_socket}") as client:

        def counted() -> dict[str, int]:
            return {each.vif: each.begun for each in client.monitored("fw").vifs}

        def named_by_set(*addresses: str) -> None:
            client.change_address_set("clients", AddressSetChange(addresses=list(addresses)))
            lab.daemons.settle()

        client.change_security_group("fw", SecurityGroupChange(mode="monitor", rules=rules))
        named_by_set("10.1.0.2/32")
        move = Move(lab, "web", "xen2")
        move.prepare()
        assert passing(UDP(sport=5000, dport=54)) == (1, 1)
        move.arrive(announce=True)
        assert passing(UDP(sport=5001, dport=54)) == (1, 1)
        wait_until(lambda: counted().get("web/0", 0) >= 2, "it is counted where it is")
        assert "would drop: udp 10.1.0.2:5001 > 10.1.0.1:54" in lab.daemons.log("xen2").read_text()
        move.finish()
        client.change_security_group("fw", SecurityGroupChange(mode="enforce"))
        lab.daemons.settle()
        assert (passing(dns), passing(UDP(sport=5002, dport=54)), passing(named)) == ((1, 1), (0, 0), (1, 0))
        back = Move(lab, "web", "xen1")
        back.prepare()
        named_by_set("10.1.0.3/32")
        assert passing(TCP(sport=10, dport=2000)) == (0, 1)
        back.arrive(announce=True)
        assert passing(TCP(sport=11, dport=2000)) == (0, 1)
        named_by_set("10.1.0.2/32")
        assert passing(TCP(sport=12, dport=2000)) == (1, 0)
        back.finish()
