"""Traces say who decided what, and change nothing; expectations that fail come with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import wrpcap

from tests.vnet.sim.pools import TWO_HOSTS, talk, two_hosts
from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.main import cli
from vnet.objects import Protocol
from vnet.sim import PacketError, SimPool
from vnet.sim.conversation import outside, party, trace
from vnet.sim.packet_text import frame_of, parse_packet
from vnet.sim.trace import trace_packet
from vnet.topology import load
from vnet.verify.expectations import check

ROOT = Path(__file__).parents[3]


def steps(pool: SimPool, source: str, frame: bytes) -> list[tuple[str, str, str]]:
    return [(hop.switch, s.name, s.source) for hop in trace_packet(pool, source, frame).hops for s in hop.steps]


def test_every_table_and_its_source_across_two_hosts() -> None:
    pool = two_hosts()
    assert steps(pool, "web1/0", talk(pool, "web1/0", "db1/0").frame()) == [
        ("xen1 br-int", "CLASSIFY", "VIF web1/0"),
        ("xen1 br-int", "SERVICES", "every network"),
        ("xen1 br-int", "GUARD", "VIF web1/0"),
        ("xen1 br-int", "SENT", "VIF web1/0"),
        ("xen1 br-int", "LOOKUP", "location of VIF db1/0"),
        ("xen2 br-int", "CLASSIFY", "network tenant"),
        ("xen2 br-int", "GUARD", "every network"),
        ("xen2 br-int", "LOOKUP", "location of VIF db1/0"),
        ("xen2 br-int", "DELIVER", "VIF db1/0"),
    ]


def test_places_point_into_the_document() -> None:
    leg = trace_packet(two_hosts(), "web1/0", talk(two_hosts(), "web1/0", "db1/0").frame())
    line = (
        TWO_HOSTS.decode()
        .splitlines()
        .index(next(line for line in TWO_HOSTS.decode().splitlines() if line.startswith("  web1:")))
    )
    assert leg.hops[0].steps[0].place.startswith(f"two-hosts.vnet.yaml:{line + 1}:")


def test_forged_mac_says_who_dropped_it() -> None:
    pool = two_hosts()
    frame = talk(pool, "web1/0", "db1/0").frame()
    leg = trace_packet(pool, "web1/0", frame[:6] + b"\x0a\0\0\0\0\x63" + frame[12:])
    assert leg.to == []
    assert leg.verdict.startswith("dropped by xen1 br-int in GUARD")
    assert leg.hops[-1].sent == ()


def test_trace_changes_nothing() -> None:
    pool = two_hosts()
    trace(pool, party(pool, pool.vif("web1/1")), party(pool, pool.vif("db1/1")))
    assert not any(switch.macs or switch.learned for switch in pool.switches())


def test_way_back_and_encapsulation_are_in_it() -> None:
    pool = two_hosts()
    found = trace(pool, party(pool, pool.vif("web1/0")), party(pool, pool.vif("db1/0")), Protocol.TCP, 443)
    assert found.reached
    text = found.render(full=True)
    assert "encapsulated with key 5001 to 10.99.0.2" in text
    assert "encapsulated with key 5001 to 10.99.0.1" in text
    assert len(found.legs) == 5
    assert len(found.render()) < len(text)
    assert json.loads(json.dumps(found.as_dict()))["reached"] is True


def test_what_does_not_fit_says_so() -> None:
    pool = two_hosts()
    pool.underlay_mtu = 100
    assert (
        "over the underlay's MTU"
        in trace_packet(pool, "web1/0", talk(pool, "web1/0", "db1/0").frame(payload=b"x" * 100)).verdict
    )


def test_outside_is_reached_where_there_is_an_outside() -> None:
    pool = two_hosts()
    station = outside(pool, pool.vif("web1/1"))
    assert station is not None
    assert trace(pool, party(pool, pool.vif("web1/1")), station).reached
    assert outside(pool, pool.vif("web1/0")) is None


EXPECTATIONS = b"""
expectations:
  - {from: web1/0, to: db1, protocol: tcp, port: 443, expect: reachable}
  - {from: web1, to: outside, expect: reachable}
  - {from: outside, to: prod, expect: reachable}
  - {from: tenant, to: prod, expect: unreachable}
  - {name: wrong, from: web2, to: db1, expect: unreachable}
  - {from: web1/0, to: outside, expect: reachable}
  - {from: web2/1, to: free2/2, expect: reachable}
  - {from: off, to: web1/0, expect: reachable}
"""


def test_expectations_hold_or_say_why() -> None:
    document = load(TWO_HOSTS + EXPECTATIONS, "e.vnet.yaml")
    results = check(SimPool.from_document(document), document)
    assert [result.holds for result in results] == [True, True, True, True, False, False, False, False]
    wrong = results[4]
    assert wrong.name == "wrong"
    assert wrong.reason == "web2/0 reaches db1/0"
    assert wrong.position.startswith("e.vnet.yaml:31:")
    assert wrong.trace is not None
    assert wrong.trace.reached
    assert "does not meet the physical one" in results[5].reason
    assert results[6].trace is not None
    assert not results[6].trace.reached
    assert "give its VM a host" in results[7].reason


def test_ends_without_a_common_ip_version_are_the_reason() -> None:
    text = TWO_HOSTS.decode().replace("10.3.0.1", "'fd00::1'")
    expectations = "expectations: [{name: versions, from: web1/2, to: db1/2, expect: reachable}]\n"
    document = load((text + expectations).encode(), "versions.vnet.yaml")
    (result,) = check(SimPool.from_document(document), document)
    assert result.reason == "web1/2 does not reach db1/2: they have no IP version in common"


def test_an_expectation_of_a_group_is_about_each_of_its_vifs() -> None:
    text = TWO_HOSTS.decode().replace("{network: tenant}", "{network: tenant, security-groups: [all]}")
    groups = "security-groups: {all: {default: {ingress: allow}}, nobody: {}}\n"
    ends = (("all", "all"), ("all", "outside"), ("nobody", "web1/0"))
    asked = "".join(f"  - {{from: {a}, to: {b}, expect: reachable}}\n" for a, b in ends)
    document = load((text + groups + "expectations:\n" + asked).encode(), "e.vnet.yaml")
    assert document.endpoint("all") == document.endpoint("tenant") == ("web1/0", "web2/0", "db1/0", "off/0")
    every, out, none = check(SimPool.from_document(document), document)
    assert (every.holds, out.holds, none.holds) == (True, False, True)
    assert "does not meet the physical one" in out.reason


def test_a_trace_names_the_rule_and_where_it_stands() -> None:
    text = TWO_HOSTS.decode().replace(
        "db1: {host: xen2, vifs: [{network: tenant}",
        "db1: {host: xen2, vifs: [{network: tenant, security-groups: [db]}",
    )
    rules = """\
security-groups:
  db:
    rules:
      - {name: from-web, direction: ingress, protocol: tcp, ports: [5432]}
      - {name: not-8, direction: ingress, protocol: tcp, ports: [8], action: drop}
"""
    document = load((text + rules).encode(), "e.vnet.yaml")
    line = (text + rules).splitlines().index(rules.splitlines()[3]) + 1
    run = SimPool.from_document(document)
    ends = party(run, run.vif("web1/0")), party(run, run.vif("db1/0"))
    passed, dropped, unmatched = (trace(run, *ends, Protocol.TCP, port).render() for port in (5432, 8, 81))
    assert f"security group db, rule from-web  [e.vnet.yaml:{line}:9]" in passed
    assert f"security group db, rule not-8  [e.vnet.yaml:{line + 1}:9]" in dropped
    assert f"security group db  [e.vnet.yaml:{line - 1}:5]" in unmatched
    assert f"INGRESS_VERDICT: security group db, rule not-8 at e.vnet.yaml:{line + 1}:9 drops (" in dropped
    assert f"INGRESS_VERDICT: security group db at e.vnet.yaml:{line - 1}:5 drops by default (" in unmatched


@pytest.mark.parametrize("file", sorted((ROOT / "topologies").glob("*.vnet.yaml")), ids=lambda path: path.name)
def test_shipped_topologies_keep_their_expectations(file: Path) -> None:
    document = load(file.read_bytes(), file.name)
    assert [str(result) for result in check(SimPool.from_document(document), document) if not result.holds] == []


# ---- packets as text ----


def test_packet_text_is_what_scapy_makes_of_it() -> None:
    text = (
        "Ether(src='0a:00:00:00:00:01', dst='0a:00:00:00:00:02')/Dot1Q(vlan=5)/IP(dst='10.0.0.1')/TCP(dport=443)/b'x'"
    )
    packet = Ether(src="0a:00:00:00:00:01", dst="0a:00:00:00:00:02") / Dot1Q(vlan=5) / IP(dst="10.0.0.1")
    assert frame_of(parse_packet(text)) == bytes(packet / TCP(dport=443) / b"x")
    assert (
        frame_of(parse_packet("Ether(src='0a:00:00:00:00:01', dst='0a:00:00:00:00:02')/Raw(b'ab' * 3)"))[14:]
        == b"ababab"
    )


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__",
        "Ether()/open('/etc/passwd')",
        "Ether(src=open('x'))",
        "IP(dst=[x for x in ()])",
        "Ether(**{})",
        "Ether()/Nope()",
        "Ether(nope=1)",
        "Ether(",
        "1/0",
        "b'x'",
        "Raw(b'x' * 9999999)",
        "IP(ttl=9 ** 9 ** 9)",
        "Ether()" + "/IP()" * 200,
        "f'{1}'",
        "lambda: 1",
        "(" * 500,
        "Ether()\0",
    ],
)
def test_packet_text_refuses_all_else(text: str) -> None:
    with pytest.raises(PacketError):
        parse_packet(text)


# ---- the commands ----


def run(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, args, standalone_mode=False)
    if isinstance(done.exception, CommandError):
        return done.exception.exit, done.exception.message
    if done.exception is not None:
        raise done.exception
    return int(done.return_value or 0), done.output


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "two.vnet.yaml"
    path.write_bytes(TWO_HOSTS + EXPECTATIONS)
    return str(path)


def test_trace_command(file: str, tmp_path: Path) -> None:
    code, text = run("trace", "web1/0", "db1/0", "--tcp", "443", "--file", file)
    assert (code, "tcp 443: reached" in text) == (ExitCode.OK, True)
    code, text = run("trace", "web1/0", "db1/1", "--file", file, "-o", "json")
    assert (code, json.loads(text)["reached"]) == (ExitCode.EXPECTATION_FAILED, False)
    pool = two_hosts()
    written = f"Ether()/IP(src='{pool.vif('web1/0').addresses[0]}', dst='10.1.0.9')/TCP(dport=80)"
    code, text = run("trace", "web1/0", "db1/0", "--packet", written, "--file", file)
    assert (code, "delivered to db1/0" in text) == (ExitCode.OK, True)
    frame = talk(pool, "web1/0", "db1/0").frame()
    wrpcap(str(tmp_path / "x.pcap"), [Ether(b"\0" * 60), Ether(frame)])
    code, text = run("trace", "web1/0", "--pcap", f"{tmp_path}/x.pcap:2", "--file", file)
    assert (code, "delivered to db1/0" in text) == (ExitCode.OK, True)
    assert run("trace", "web1/0", "--pcap", f"{tmp_path}/x.pcap:3", "--file", file)[0] == ExitCode.INVALID_INPUT
    code, text = run("trace", "web1", "web2", "--file", file)
    assert (code, "web1/0 to web2/0, ping: reached" in text) == (ExitCode.OK, True)
    code, text = run("trace", "web1", "db1", "--packet", written, "--file", file)
    assert (code, "name one of web1/0 (tenant), web1/1 (prod)" in text) == (ExitCode.INVALID_INPUT, True)
    code, text = run("trace", "web1", "--packet", written, "--file", file)
    assert (code, "name one of web1/0 (tenant), web1/1 (prod)" in text) == (ExitCode.INVALID_INPUT, True)
    assert run("trace", "wbe1/0", "db1/0", "--file", file) == (
        ExitCode.INVALID_INPUT, "no VIF 'wbe1/0' in this pool; did you mean 'web1/0'?",
    )  # fmt: skip


def test_check_command(file: str) -> None:
    code, text = run("check", file)
    assert code == ExitCode.EXPECTATION_FAILED
    assert "FAIL" in text
    code, text = run("check", str(ROOT / "topologies/quickstart.vnet.yaml"), "-o", "json")
    assert code == ExitCode.OK
    assert all(row["holds"] for row in json.loads(text))


@pytest.mark.parametrize("form", ["table", "json", "svg", "html"])
def test_matrix_command(file: str, form: str) -> None:
    code, text = run("matrix", file, "-o", form)
    assert code == ExitCode.OK
    assert "off/0" in text


def test_matrix_since_another_document(file: str, tmp_path: Path) -> None:
    changed = tmp_path / "new.vnet.yaml"
    changed.write_bytes(TWO_HOSTS.replace(b"  off: {vifs", b"  off: {host: xen2, vifs"))
    code, text = run("matrix", str(changed), "--since", file)
    assert (code, text.splitlines()) == (
        ExitCode.OK,
        [
            "+ db1/0, web1/0, web2/0 reaches off/0 (ping; tcp; udp)",
            "+ off/0 reaches db1/0, web1/0, web2/0 (ping; tcp; udp)",
        ],
    )
    code, text = run("matrix", str(changed), "--since", file, "-o", "json")
    assert {row["gained"] for row in json.loads(text)["differences"]} == {True}
    assert run("matrix", file, "--since", file) == (ExitCode.OK, "")
