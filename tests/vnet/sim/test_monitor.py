"""Security groups in monitor mode: nothing is dropped, and what would be is seen. On the twin and on a real switch, which agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.ovsctl.datapath.real_bridge import RealBridge, real_bridge
from tests.vnet.sim.both import PORTS, Both
from tests.vnet.sim.test_connections import begin, later
from tests.vnet.sim.test_fragments import datagram, parts_of
from tests.vnet.sim.test_policy import DROP, IN, gets, group, pool, ports
from vnet.compile import Category
from vnet.objects import Direction, PolicyMode, Protocol, Rule, SecurityGroup, Verdict
from vnet.objects.security import Begun, judge
from vnet.plan.suggestion import SeenConnections, suggestion
from vnet.sim.trace import trace_packet

WEB = Rule("web", IN, protocol=Protocol.TCP, ports=ports(80))
NO_WEB = Rule("no-web", IN, DROP, protocol=Protocol.TCP, ports=ports(80))


@pytest.fixture(scope="module")
def bridge(ovs: None) -> Iterator[RealBridge]:
    with real_bridge(PORTS) as running:
        yield running


def watching(found: SecurityGroup) -> SecurityGroup:
    return replace(found, mode=PolicyMode.MONITOR)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
def test_switched_to_enforce_and_back_what_is_allowed_loses_nothing(
    bridge: RealBridge, protocol: Protocol, version: int
) -> None:
    """Connections that began while the group only watched: the allowed one goes on, the other one ends at once in both directions."""
    web = group("web", replace(WEB, protocol=protocol))
    both = Both(bridge, watching(web), srv=("web",))
    allowed, other = (both.talk("cli", "srv", protocol, port, version) for port in (80, 22))
    begin(both, allowed)
    begin(both, other)
    for mode in (PolicyMode.ENFORCE, PolicyMode.MONITOR) * 2:
        both.change(replace(web, mode=mode))
        for source, mine, forbidden in zip(("srv", "cli"), later(allowed)[::-1], later(other)[::-1], strict=True):
            assert both.passes(source, mine)
            assert both.passes(source, forbidden) is (mode is PolicyMode.MONITOR)


def test_who_is_only_watched_is_as_free_as_in_no_group(bridge: RealBridge) -> None:
    """What the tracker would keep or refuse passes: a fragment alone, a segment of no connection, one that is no answer."""
    both = Both(bridge, watching(group("web", NO_WEB)), srv=("web",), cli=("web",))
    for version in (4, 6):
        first, *_, last = parts_of(both, datagram(53), version)
        assert both.passes("cli", last)
        assert both.passes("cli", first)
    a, b = both.pool.vif("cli/0"), both.pool.vif("srv/0")
    for flags in ("A", "SA", "R", "PA"):
        packet = TCP(sport=40000, dport=81, flags=flags, seq=7, ack=9)
        assert both.passes(
            "cli", bytes(Ether(src=a.mac, dst=b.mac) / IP(src=a.addresses[0], dst=b.addresses[0]) / packet)
        )


@pytest.mark.parametrize(
    ("enforcing", "monitoring", "port", "passes", "would"),
    [
        # What the group that enforces allows by default, the one that watches forbids by default or by a rule.
        (group("e", ingress=Verdict.ALLOW), group("m"), 80, True, "security group m would drop it by default"),
        (group("e", ingress=Verdict.ALLOW), group("m", NO_WEB), 80, True, "security group m, rule no-web would drop it"),
        (group("e", ingress=Verdict.ALLOW), group("m", WEB), 80, True, ""),
        # What it allows by a rule, only a rule forbids.
        (group("e", WEB), group("m"), 80, True, ""),
        (group("e", WEB), group("m", NO_WEB), 80, True, "security group m, rule no-web would drop it"),
        # What it forbids stays forbidden, and is no doing of the other.
        (group("e"), group("m", WEB), 80, False, ""),
        (group("e", NO_WEB), group("m", NO_WEB), 80, False, ""),
        (group("e", ingress=Verdict.ALLOW), group("m", ingress=Verdict.REJECT), 80, True, "would reject it by default"),
    ],
)  # fmt: skip
def test_a_group_that_watches_changes_nothing_beside_one_that_enforces(
    bridge: RealBridge, enforcing: SecurityGroup, monitoring: SecurityGroup, port: int, passes: bool, would: str
) -> None:
    both = Both(bridge, enforcing, watching(monitoring), srv=("e", "m"))
    frame = both.talk("cli", "srv", Protocol.TCP, port).frame()
    assert both.passes("cli", frame) is passes
    verdict = trace_packet(both.pool, "cli/0", frame).verdict
    assert ("would" in verdict) is bool(would)
    assert would in verdict
    both.change(monitoring)  # which now enforces
    again = both.talk("cli", "srv", Protocol.TCP, port)
    changed = trace_packet(both.pool, "cli/0", replace(again, source_port=50001).frame()).verdict
    begun = Begun(Protocol.TCP, "10.0.0.2", port)
    assert changed.startswith("delivered") is (judge((enforcing, monitoring), IN, begun) is Verdict.ALLOW)
    assert changed.startswith("delivered") or bool(would) is passes


def test_who_is_watched_moves_and_is_watched_there_before_the_port_opens() -> None:
    """And once the group enforces on the new host, what began on the old one goes on."""
    web = group("web", WEB)
    run = pool(watching(web), web=("web",))
    begun, other = TCP(sport=5555, dport=80, flags="S"), TCP(sport=5556, dport=22, flags="S")
    for packet in (begun, other):
        assert gets(run, "db", "web", packet)
    assert gets(run, "web", "db", TCP(sport=80, dport=5555, flags="SA"))
    run.prepare("web", "xen2")
    arriving = [source for source in run.hosts["xen2"].compiled if source.name == "web/0"]
    assert Category.MONITOR in {source.category for source in arriving}
    run.run("web", "xen2", announce=True)
    run.activate("web")
    assert gets(run, "db", "web", TCP(sport=5556, dport=22, flags="A"))
    run.update(replace(run.state, groups={"web": web}))
    assert gets(run, "db", "web", TCP(sport=5555, dport=80, flags="A"))
    assert gets(run, "web", "db", TCP(sport=80, dport=5555, flags="A"))
    assert not gets(run, "db", "web", TCP(sport=5556, dport=22, flags="A"))


def seen(
    port: int, peer: str, *groups: str, protocol: int = 6, rule: str = "", direction: Direction = IN
) -> SeenConnections:
    return SeenConnections(direction, protocol, port, peer, frozenset(groups), rule, 3)


def test_a_suggestion_allows_what_was_seen_and_says_what_rules_cannot() -> None:
    web = group("web", Rule("seen-1", IN, protocol=47), NO_WEB)
    found = suggestion(
        web,
        [
            seen(443, "10.0.0.2", "lb", "ops"), seen(443, "10.0.0.3", "lb"), seen(8443, "10.0.0.2", "lb"),
            seen(8443, "10.0.0.3", "lb"), seen(22, "10.0.0.9"), seen(8, "10.0.0.9", protocol=1), seen(80, "10.0.0.2", rule="no-web"),
            seen(53, "fd00::9", protocol=17, direction=Direction.EGRESS), seen(0x88CC, "", protocol=-1),
        ],
    )  # fmt: skip
    words = {(rule.direction.value, rule.protocol, tuple(map(str, rule.ports)), rule.remote) for rule in found.rules}
    assert words == {
        ("egress", Protocol.UDP, ("53",), ("fd00::9/128",)),
        ("ingress", Protocol.ICMP, (), ("10.0.0.9/32",)),
        ("ingress", Protocol.TCP, ("22",), ("10.0.0.9/32",)),
        ("ingress", Protocol.TCP, ("443", "8443"), ("lb",)),
    }
    assert [rule.name for rule in found.rules] == ["seen-2", "seen-3", "seen-4", "seen-5"]
    assert [note.split(":")[0] for note in found.notes] == [
        "rule no-web forbids 3 of what was seen, and wins over any rule that allows", "3 frames are no IP",
    ]  # fmt: skip
