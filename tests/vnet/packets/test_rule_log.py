"""Rules that log: what has a line and what has none, in the agents' logs, and in the twin's traces."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet

from tests.polling import wait_until
from tests.vnet.packets.engines import ENGINES, running
from vnet.cli import main
from vnet.client.local import call_agent
from vnet.lab import Lab
from vnet.objects.limits import LOGGED_OF_RULE, LOGGED_OF_VIF
from vnet.sim import SimPool
from vnet.sim.trace import trace_packet

DOCUMENT = b"""
apiVersion: vnet/v1
pool: logged
hosts:
  xen1: {address: 10.99.0.1}
  xen2: {address: 10.99.0.2}
networks:
  lan: {type: vxlan}
security-groups:
  web:
    rules:
      - {name: http, direction: ingress, protocol: tcp, ports: [80], log: true}
      - {name: quiet, direction: ingress, protocol: tcp, ports: [81]}
      - {name: no-ssh, direction: ingress, action: reject, protocol: tcp, ports: [22], log: true}
      - {name: no-dns, direction: egress, action: drop, protocol: udp, ports: [53], log: true}
      - {name: no-ping, direction: ingress, action: drop, protocol: icmp, log: true}
      - {name: tunnels, direction: ingress, protocol: gre, log: true}
  watch: {mode: monitor, rules: [{name: no-ssh, direction: ingress, action: reject, protocol: tcp, ports: [22]}]}
vms:
  web: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.1, "fd00:1::1"], security-groups: [web]}]}
  far: {host: xen2, vifs: [{network: lan, addresses: [10.1.0.3, "fd00:1::3"]}]}
  seen: {host: xen1, vifs: [{network: lan, addresses: [10.1.0.4, "fd00:1::4"], security-groups: [watch]}]}
"""


@pytest.fixture(scope="module", params=ENGINES[1:])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with running(request.param, DOCUMENT) as made:
        assert isinstance(made, Lab)
        yield made


def packet(pool: Lab | SimPool, source: str, target: str, payload: Packet, *, ipv6: bool = False) -> bytes:
    a, b = pool.vif(f"{source}/0"), pool.vif(f"{target}/0")
    if not ipv6:
        return bytes(Ether(src=a.mac, dst=b.mac) / IP(src=a.addresses[0], dst=b.addresses[0]) / payload)
    return bytes(Ether(src=a.mac, dst=b.mac) / IPv6(src=a.addresses[1], dst=b.addresses[1]) / payload)


def lines(lab: Lab) -> list[dict[str, str]]:
    """The lines of xen1's agent about packets."""
    found = [json.loads(line) for line in lab.daemons.log("xen1").read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line["logger"] == "vnet.agent.rule_log"]


def counts(lab: Lab) -> dict[str, int]:
    counters = call_agent("status", {}, str(lab.daemons.agent_socket("xen1")))["counters"]
    return {"written": 0, "left out": 0, **counters["rule_log"]}


CASES = {
    "allowed": ("far", TCP(sport=40001, dport=80), False, "http", "ingress allow: tcp 10.1.0.3:40001 > 10.1.0.1:80"),
    "rejected": (
        "far",
        TCP(sport=40001, dport=22),
        False,
        "no-ssh",
        "ingress reject: tcp 10.1.0.3:40001 > 10.1.0.1:22",
    ),
    "dropped": ("web", UDP(sport=40001, dport=53), False, "no-dns", "egress drop: udp 10.1.0.1:40001 > 10.1.0.3:53"),
    "allowed, IPv6": (
        "far",
        TCP(sport=40002, dport=80),
        True,
        "http",
        "ingress allow: tcp [fd00:1::3]:40002 > [fd00:1::1]:80",
    ),
    "ping": ("far", ICMP(), False, "no-ping", "ingress drop: icmp 8/0 10.1.0.3 > 10.1.0.1"),
    "ping, IPv6": ("far", ICMPv6EchoRequest(), True, "no-ping", "ingress drop: icmpv6 128/0 fd00:1::3 > fd00:1::1"),
    "without connections": ("far", GRE() / IP(), False, "tunnels", "ingress allow: 47 10.1.0.3 > 10.1.0.1"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_line_names_vif_rule_and_packet(lab: Lab, case: str) -> None:
    source, payload, ipv6, rule, text = CASES[case]
    lab.send(f"{source}/0", packet(lab, source, "far" if source == "web" else "web", payload, ipv6=ipv6))
    found = wait_until(lambda: next((line for line in lines(lab) if text in line["message"]), None), "a line")
    assert found is not None
    about = {"vif": "web/0", "vm": "web", "network": "lan", "host": "xen1", "group": "web", "rule": rule}
    expected = about | {"place": f"security-groups.web.rules.{rule}"}
    assert {name: found[name] for name in expected} == expected


def test_what_goes_on_and_what_does_not_log_has_no_line(lab: Lab) -> None:
    """A connection has the line of its first packet; a rule that does not log has none."""
    before = len(lines(lab))
    lab.send("far/0", packet(lab, "far", "web", TCP(sport=40005, dport=80, seq=1)))
    lab.send("web/0", packet(lab, "web", "far", TCP(sport=80, dport=40005, flags="SA", seq=1, ack=2)))
    for number in range(3):
        lab.send("far/0", packet(lab, "far", "web", TCP(sport=40005, dport=80, flags="A", seq=2 + number, ack=2)))
    lab.send("far/0", packet(lab, "far", "web", TCP(sport=40006, dport=81)))
    lab.send("far/0", packet(lab, "far", "web", TCP(sport=40006, dport=22)))
    wait_until(lambda: any("40006" in line["message"] for line in lines(lab)), "the last line")
    assert [line["message"].split()[-3:] for line in lines(lab)[before:]] == [
        ["10.1.0.3:40005", ">", "10.1.0.1:80"], ["10.1.0.3:40006", ">", "10.1.0.1:22"],
    ]  # fmt: skip


def test_a_flood_has_so_many_lines_and_the_next_one_says_how_many_had_none(lab: Lab) -> None:
    before = counts(lab)
    flood = LOGGED_OF_VIF + 20
    lab.send("far/0", [packet(lab, "far", "web", TCP(sport=1000 + n, dport=22)) for n in range(flood)])

    def more(name: str) -> int:
        return counts(lab)[name] - before[name]

    wait_until(lambda: more("left out") > 0, "some are left out")
    assert more("written") + more("left out") <= flood

    def next_line() -> dict[str, str] | None:
        lab.send("far/0", packet(lab, "far", "web", TCP(sport=50000, dport=22)))
        return next((line for line in lines(lab) if ":50000" in line["message"] and "left_out" in line), None)

    assert int(wait_until(next_line, "a line that says it")["left_out"]) > 0


def test_probes_have_no_lines(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", lab.daemons.env["VNET_CONTROLLER"])
    before = counts(lab)
    for port in ("22", "80"):
        main.run(["trace", "far", "web", "--tcp", port, "--live"])
        assert "disagree" not in capsys.readouterr().out
    assert counts(lab) == before


def test_what_a_group_in_monitor_mode_would_forbid_has_a_line_and_a_live_trace_agrees(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", lab.daemons.env["VNET_CONTROLLER"])
    before = counts(lab)
    for port, words in (("22", ("rule no-ssh at ", " would reject it")), ("80", (" would drop it by default",))):
        main.run(["trace", "far", "seen", "--tcp", port, "--live"])
        assert "disagree" not in capsys.readouterr().out
        main.run(["trace", "far", "seen", "--tcp", port])
        out = capsys.readouterr().out
        assert all(word in out for word in words)
    assert counts(lab) == before
    for port, rule, verb in ((22, "no-ssh", "reject"), (80, "", "drop")):
        frame = packet(lab, "far", "seen", TCP(sport=40009, dport=port))
        assert "seen/0" in lab.send("far/0", frame).to
        text = f"ingress would {verb}: tcp 10.1.0.3:40009 > 10.1.0.4:{port}"
        found = wait_until(
            lambda text=text: next((line for line in lines(lab) if text in line["message"]), None), "a line"
        )  # type: ignore[misc]
        assert found is not None
        place = f"security-groups.watch.{'rules.no-ssh' if rule else 'default'}"
        assert (found["vif"], found["group"], found["place"]) == ("seen/0", "watch", place)


def test_the_twin_says_what_is_logged() -> None:
    with running("sim", DOCUMENT) as pool:
        assert isinstance(pool, SimPool)
        allowed, rejected = (packet(pool, "far", "web", TCP(sport=40001, dport=port)) for port in (80, 22))
        assert trace_packet(pool, "far/0", allowed).verdict == "delivered to web/0; logged"
        verdict = trace_packet(pool, "far/0", rejected).verdict
        assert "rule no-ssh" in verdict
        assert verdict.endswith("; logged; far/0 is answered: TCP reset")
        dropped = trace_packet(pool, "web/0", packet(pool, "web", "far", UDP(dport=53))).verdict
        assert dropped.startswith("dropped by xen1 br-int in EGRESS_VERDICT: security group web, rule no-dns drops")
        assert dropped.endswith("; logged")
        assert "logged" not in trace_packet(pool, "far/0", packet(pool, "far", "web", TCP(dport=81))).verdict


def test_lines_are_few_for_what_is_seen() -> None:
    assert LOGGED_OF_RULE < LOGGED_OF_VIF, "a rule that floods leaves others of the VIF their lines"
