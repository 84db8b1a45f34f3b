"""Loading: what text is taken for what, what is refused before it is YAML, and that nothing hostile takes long or much."""

from __future__ import annotations

import gc
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.grammar.source import MAX_PROBLEMS, NEAREST_BUDGET
from vnet.objects import (
    BondHash,
    BondMode,
    Direction,
    IcmpType,
    LacpTime,
    LockingMode,
    NetworkType,
    PortRange,
    Protocol,
    Reach,
    Trunk,
    Verdict,
)
from vnet.topology import Document, Place, TopologyErrors, load
from vnet.topology.yaml_tree import MAX_BYTES
from vnet.util.suggest import edits, nearest

HEAD = "apiVersion: vnet/v1\npool: lab\n"


def read(text: str) -> Document:
    return load(text.encode(), "lab.vnet.yaml")


def refusal(data: bytes) -> TopologyErrors:
    with pytest.raises(TopologyErrors) as caught:
        load(data, "lab.vnet.yaml")
    return caught.value


def test_every_key_arrives_where_it_belongs() -> None:
    document = read(
        HEAD
        + """\
defaults: {vif: {locking-mode: unlocked}}
hosts:
  xen1:
    address: FD00::1
    uplinks:
      bond0: {mode: lacp, members: [eth3, eth2], lacp-time: fast, hash: tcpudp-ports, mtu: 9000}
underlay: {mtu: 1600}
networks:
  wire: {type: vlan, tag: untagged, uplink: bond0, hosts: [xen1], mtu: 1400}
  t:    {type: geneve, vni: 0x10}
  g:    {type: gre, key: 0}
subnets:
  w: {network: wire, cidr: 10.0.0.0/8, gateway: 10.0.0.1}
security-groups:
  web:
    default: {ingress: allow, egress: drop}
    rules:
      - {name: http, direction: ingress, protocol: tcp, ports: [443, "8000-8010", 80, 8005-8020, 81], remote: any}
      - {name: out, direction: egress, protocol: 132, remote: FD00::/8, action: drop}
      - {name: peers, direction: ingress, remote: web, action: allow}
  empty: {}
vms:
  fw:
    host: xen1
    vifs:
      - {network: wire, id: fw-eth0, mac: 0A:00:00:00:00:01, addresses: [10.0.0.2], locking-mode: disabled, trunk: [20, 10]}
      - {network: t, addresses: [], security-groups: [web, empty], trunk: }
expectations:
  - {name: ping, from: fw/0, to: outside, protocol: udp, port: 53, expect: unreachable}
""".replace(", trunk: }", "}")
    )
    state = document.state
    assert document.pool == "lab"
    assert state.pool is not None
    assert (state.pool.name, state.pool.locking_mode, state.pool.underlay_mtu) == ("lab", LockingMode.UNLOCKED, 1600)
    host = state.hosts["xen1"]
    assert host.address == "fd00::1"
    bond = host.uplink("bond0")
    assert bond is not None
    assert (bond.mode, bond.members, bond.mtu) == (BondMode.LACP, ("eth2", "eth3"), 9000)
    assert (bond.lacp_time, bond.hash) == (LacpTime.FAST, BondHash.TCPUDP_PORTS)
    wire = state.networks["wire"]
    assert (wire.type, wire.tag, wire.uplink) == (NetworkType.VLAN, 0, "bond0")
    assert (wire.hosts, wire.mtu) == ({"xen1"}, 1400)
    assert state.networks["t"].key == 16
    assert state.networks["g"].key == 0
    subnet = state.subnets["w"]
    assert (subnet.network, subnet.cidr, subnet.gateway) == ("wire", "10.0.0.0/8", "10.0.0.1")
    first, second = state.vifs["fw-eth0"], state.vifs["fw/1"]
    stated = document.stated("vif", "fw/1")
    assert stated is not None
    assert stated.values.keys() == {"network", "addresses", "groups", "id", "vm", "index"}
    assert (first.id, first.mac, first.addresses) == ("fw-eth0", "0a:00:00:00:00:01", ("10.0.0.2",))
    assert (first.locking_mode, first.trunk) == (LockingMode.DISABLED, Trunk((10, 20)))
    assert (second.addresses, second.trunk, second.locking_mode) == ((), None, LockingMode.UNLOCKED)
    assert (first.groups, second.groups) == ((), ("empty", "web"))
    web = state.groups["web"]
    assert (web.ingress, web.egress) == (Verdict.ALLOW, Verdict.DROP)
    http, out, peers = web.rules
    assert (http.name, http.direction, http.protocol, http.action) == (
        "http",
        Direction.INGRESS,
        Protocol.TCP,
        Verdict.ALLOW,
    )
    assert http.ports == (PortRange(80, 81), PortRange(443, 443), PortRange(8000, 8020))
    assert (out.direction, out.protocol, out.remote, out.action) == (Direction.EGRESS, 132, ("fd00::/8",), Verdict.DROP)
    assert (http.remote, peers.remote, peers.protocol, web.remotes()) == ((), ("web",), None, {"web"})
    empty = state.groups["empty"]
    assert (empty.ingress, empty.egress, empty.rules) == (Verdict.DROP, Verdict.ALLOW, ())
    expected = document.expectations[0]
    assert (expected.from_, expected.to, expected.expect) == ("fw/0", "outside", Reach.UNREACHABLE)
    assert (expected.protocol, expected.port, expected.name) == (Protocol.UDP, 53, "ping")
    assert document.endpoint("fw") == ("fw-eth0", "fw/1")
    assert document.endpoint("fw/0") == document.endpoint("wire") == ("fw-eth0",)
    assert document.endpoint("outside") == ()


def test_words_stay_words() -> None:
    """What YAML 1.1 makes of on, no, 12:34:56 and 010 (a boolean, a boolean, a number, an octal number) stays as written."""
    document = read(
        HEAD
        + """\
hosts: {on: {address: 10.0.0.1}, 010: {address: 10.0.0.2}}
networks: {no: {type: vxlan}, 1e3: {type: vxlan}, yes: {type: internal}}
vms:
  12.5: {host: on, vifs: [{network: no, mac: 12:34:56:12:34:56}, {network: "1e3", mac: 06:00:00:00:00:00}]}
"""
    )
    assert list(document.state.hosts) == ["on", "010"]
    assert list(document.state.networks) == ["no", "1e3", "yes"]
    assert document.state.vifs["12.5/0"].mac == "12:34:56:12:34:56"


def test_sections_may_be_empty() -> None:
    document = read(HEAD + "hosts:\nnetworks: ~\nvms:\n  idle:\nexpectations: null\n")
    assert list(document.state.vms) == ["idle"]
    assert not document.state.vifs
    assert not document.state.hosts


def test_an_alias_repeats_a_value() -> None:
    document = read(HEAD + "hosts:\n  a: {uplinks: &same {trunk0: {members: [eth1]}}}\n  b: {uplinks: *same}\n")
    hosts = document.state.hosts
    assert hosts["a"].uplinks == hosts["b"].uplinks != ()


def test_values_know_their_place() -> None:
    document = read(HEAD + "networks:\n  a: {type: vxlan, vni: 7}\n")
    assert document.place("network", "a", "key") == Place(4, 25)
    assert document.place("network", "a", "mtu") == Place(4, 6)
    assert document.problem("x", "y", Place(4, 25)).text == "  a: {type: vxlan, vni: 7}"


def test_equal_documents_are_equal_wherever_they_were_read() -> None:
    assert read(HEAD + "networks: {a: {type: vxlan}}\n") == read(
        "# hello\n" + HEAD + "networks:\n  a:\n    type: vxlan\n"
    )


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nothing\n", b"---\n...\n", b"\xef\xbb\xbf", b"~"])
def test_empty(data: bytes) -> None:
    assert str(refusal(data)).startswith("lab.vnet.yaml: the document is empty\n")


def test_too_big() -> None:
    said = str(refusal(HEAD.encode() + b"#" * 10_000_000))
    assert said.startswith("lab.vnet.yaml: the document has 10,000,030 bytes; at most 8,388,608 (8 MiB) are read\n")


def test_the_largest_that_is_read() -> None:
    data = HEAD.encode()
    assert load(data + b"#" * (MAX_BYTES - len(data)), "f").pool == "lab"
    assert refusal(data + b"#" * (MAX_BYTES - len(data) + 1)).problems[0].code == "too-big"


def test_not_utf8_says_where() -> None:
    said = str(refusal(b"apiVersion: vnet/v1\npool: caf\xe9\n"))
    assert said == (
        "lab.vnet.yaml:2:10: not UTF-8: byte 0xe9 at offset 29 of the file\n"
        "   2 | pool: caf\N{REPLACEMENT CHARACTER}\n"
        "     |          ^\n"
        "       = save it as UTF-8"
    )
    assert "UTF-16" in str(refusal((HEAD * 2).encode("utf-16")))
    assert "binary" in str(refusal(b"\x7fELF\x00\x00\xff"))


def test_a_byte_order_mark_and_any_line_ends_are_read() -> None:
    assert load(b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode(), "f").pool == "lab"
    problem = refusal(b"apiVersion: vnet/v1\r\npool: lab\r\nhost: {}\r\n").problems[0]
    assert problem.place == Place(3, 1, 4)
    assert problem.text == "host: {}"


def test_many_problems_are_all_there_and_shown_in_part() -> None:
    text = HEAD + "hosts:\n" + "".join(f"  h{n}: {{adress: 10.0.0.1}}\n" for n in range(3000))
    errors = refusal(text.encode())
    assert len(errors.problems) == 3000
    assert [problem.place.line for problem in errors.problems if problem.place] == list(range(4, 3004))
    assert str(errors).endswith("and 2900 more problems")


def test_suggestions_stay_cheap_among_many_names() -> None:
    names = "".join(f"  network-{n:05}: {{type: internal}}\n" for n in range(NEAREST_BUDGET // 30))
    vms = "".join(f"  vm{n}: {{vifs: [{{network: netwrok-{n:05}}}]}}\n" for n in range(100))
    errors = refusal((HEAD + "networks:\n" + names + "vms:\n" + vms).encode())
    hints = [problem.hint for problem in errors.problems]
    assert hints[:30] == [f"did you mean 'network-{n:05}'?" for n in range(30)]
    assert hints[30:] == [""] * 70


def test_reading_stops_at_too_many_problems() -> None:
    assert len(refusal((HEAD + "hosts: {" + "a: {}, " * 12_000 + "}").encode()).problems) == MAX_PROBLEMS


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "{a: " * 200_000,
        "- " * 200_000,
        "? " * 100_000,
        "&a [" * 1000,
        "a: &a [*a, *a]",
        "!" * 10_000,
        "'" * 9_999,
        "%" * 10_000,
        "a: {}\n" * 12_000,
    ],
)
def test_hostile_text_is_refused(text: str) -> None:
    refusal(text.encode())
    refusal((HEAD + text).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_refused(data: bytes) -> None:
    with pytest.raises(TopologyErrors) as caught:
        load(data, "f")
    assert str(caught.value)


SAMPLE = (
    HEAD
    + """\
hosts: {a: {address: 10.0.0.1, uplinks: {u: {members: [e0, e1], mode: lacp}}}, b: {address: 10.0.0.2}}
networks: {n: {type: vxlan, vni: 7}, v: {type: vlan, tag: 5, uplink: u, hosts: [a]}}
subnets: {s: {network: n, cidr: 10.1.0.0/24, gateway: 10.1.0.1}}
vms: {w: {host: a, vifs: [{network: n, mac: "0a:00:00:00:00:01", addresses: [10.1.0.2]}, {network: v}]}}
expectations: [{from: w/0, to: outside, expect: unreachable}]
"""
)


@given(st.integers(0, 2**32))
def test_a_spoilt_document_is_read_or_refused(seed: int) -> None:
    """Words of a good document swapped, dropped, doubled: an answer with places, never another exception."""
    choose = random.Random(seed)
    words = SAMPLE.replace("{", " { ").replace("}", " } ").replace(", ", " , ").split(" ")
    for _ in range(choose.randint(1, 4)):
        at, other = choose.randrange(len(words)), choose.randrange(len(words))
        match choose.randrange(4):
            case 0:
                words[at], words[other] = words[other], words[at]
            case 1:
                del words[at]
            case 2:
                words.insert(at, words[other])
            case _:
                words[at] = choose.choice(["null", "[]", "{}", "-1", "*a", "''", "99999999999999999999", "é"])
    try:
        read(" ".join(words))
    except TopologyErrors as refused:
        errors = refused
    else:
        return
    assert all(problem.place is not None for problem in errors.problems)
    assert str(errors)


def test_the_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    read(HEAD)
    assert gc.isenabled()
    gc.disable()
    try:
        refusal(b"")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_nearest() -> None:
    names = ["tenant-a", "tenant-b", "prod", "legacy"]
    assert nearest("tenat-a", names) == "tenant-a"
    assert nearest("Prod", names) == "prod"
    assert nearest("prdo", names) == "prod"
    assert nearest("leg", names) == "legacy"
    assert nearest("xyzzy", names) is None
    assert nearest("tenant", names) == "tenant-a"
    assert nearest("", names) is None


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_edits_is_a_distance(a: str, b: str) -> None:
    count = edits(a, b, 10)
    assert (count == 0) == (a == b)
    assert count == edits(b, a, 10)
    assert abs(len(a) - len(b)) <= count <= max(len(a), len(b))
    assert edits(a, b, 1) == min(count, 2)


def test_several_icmp_messages_of_a_rule_are_in_the_order_of_their_words() -> None:
    rule = "{name: r, direction: ingress, protocol: icmp, icmp: [timestamp-request, echo-request]}"
    document = f"apiVersion: vnet/v1\npool: p\nsecurity-groups: {{web: {{rules: [{rule}]}}}}\n"
    (read,) = load(document.encode(), "p").state.groups["web"].rules
    assert read.icmp == (IcmpType.ECHO_REQUEST, IcmpType.TIMESTAMP_REQUEST)
