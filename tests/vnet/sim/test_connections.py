"""Connections through security groups while rules and groups change: the verdict at each moment, on the twin and on a real switch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP as ICMP4
from scapy.layers.inet import IP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether

from tests.ovsctl.datapath.real_bridge import SENTINEL, RealBridge, real_bridge
from tests.vnet.sim.both import PORTS, Both
from tests.vnet.sim.test_policy import DROP, IN, OUT, group, ports
from vnet.compile import flat
from vnet.objects import Protocol, Rule, SecurityGroup, Verdict
from vnet.sim import SimPool
from vnet.sim.packets import End, Part, Talk

ALLOW = Verdict.ALLOW
UDP, TCP, ICMP = Protocol.UDP, Protocol.TCP, Protocol.ICMP
SHUT = group("shut", egress=DROP)
QUARANTINE = group(
    "quarantine", Rule("in", IN, DROP), Rule("out", OUT, DROP), ingress=ALLOW
)  # which drops whatever else allows


@pytest.fixture(scope="module")
def bridge(ovs: None) -> Iterator[RealBridge]:
    with real_bridge(PORTS) as running:
        yield running


def service(protocol: Protocol) -> Rule:
    return Rule("service", IN, protocol=protocol, ports=() if protocol is ICMP else ports(80))


def begin(both: Both, talk: Talk) -> None:
    """Begins a conversation of cli with srv, and answers."""
    assert both.passes("cli", talk.frame())
    assert both.passes("srv", talk.frame(Part.ANSWER))
    if talk.protocol is TCP:
        assert both.passes("cli", talk.frame(Part.CONFIRM))


def later(talk: Talk) -> tuple[bytes, bytes]:
    """What the client and the server of an established conversation send."""
    if talk.protocol is not TCP:
        return talk.frame(), talk.frame(Part.ANSWER)
    back = Talk(talk.target, talk.source, TCP, talk.source_port, talk.port)
    answer = bytearray(back.frame(Part.CONFIRM))
    at = 14 + (20 if ":" not in talk.source.address else 40)
    answer[at + 4 : at + 12] = (301).to_bytes(4, "big") + (101).to_bytes(4, "big")
    return talk.frame(Part.CONFIRM), bytes(answer)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [UDP, TCP, ICMP])
@pytest.mark.parametrize("change", ["revoked", "shut", "quarantined"])
def test_what_is_forbidden_ends_at_once_in_both_directions(
    bridge: RealBridge, change: str, protocol: Protocol, version: int
) -> None:
    """Whoever sends next: the answers of a server whose client is silent end as well, and go on once allowed again."""
    both = Both(bridge, group("web", service(protocol)), SHUT, QUARANTINE, srv=("web",))
    talk = both.talk("cli", "srv", protocol, 0 if protocol is ICMP else 80, version)
    begin(both, talk)
    there, back = later(talk)
    assert both.passes("srv", back)
    changes: dict[str, tuple[tuple[SecurityGroup, ...], tuple[str, ...]]] = {
        "revoked": ((group("web"),), ("web",)),
        "shut": ((), ("shut",)),
        "quarantined": ((), ("quarantine", "web")),
    }
    groups, member = changes[change]
    both.change(*groups, srv=member)
    for _ in range(2):
        assert not both.passes("srv", back)
    assert not both.passes("cli", there)
    assert not both.passes("srv", back)
    both.change(group("web", service(protocol)), srv=("web",))
    assert both.passes("srv", back)
    assert both.passes("cli", there)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [UDP, TCP])
def test_what_a_vif_began_ends_when_it_may_begin_it_no_longer(
    bridge: RealBridge, protocol: Protocol, version: int
) -> None:
    out = Rule("out", OUT, protocol=protocol, ports=ports(80), remote=("10.0.0.0/24" if version == 4 else "fd00::/64",))
    both = Both(bridge, group("client", out, egress=DROP), cli=("client",))
    talk = both.talk("cli", "srv", protocol, 80, version)
    begin(both, talk)
    there, back = later(talk)
    both.change(group("client", Rule("out", OUT, protocol=protocol, ports=ports(81)), egress=DROP))
    assert not both.passes("srv", back)
    assert not both.passes("cli", there)


def test_a_member_that_leaves_its_group_is_forbidden_at_once(bridge: RealBridge) -> None:
    """The rule names the other side's group."""
    both = Both(bridge, group("web", Rule("ops", IN, remote=("ops",))), group("ops"), srv=("web",), cli=("ops",))
    talk = both.talk("cli", "srv", UDP, 80)
    begin(both, talk)
    both.change(cli=())
    assert not both.passes("srv", talk.frame(Part.ANSWER))
    assert not both.passes("cli", talk.frame())


def fresh(both: Both) -> None:
    """The flows are those of a pool that has had no other rules and groups."""
    state = both.pool.state
    assert set(flat(SimPool.of(state).hosts["h0"].compiled)) == set(flat(both.pool.hosts["h0"].compiled))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [UDP, TCP])
def test_a_group_is_made_anew_with_its_name_and_other_members(
    bridge: RealBridge, protocol: Protocol, version: int
) -> None:
    """In one change: who was in it is forbidden at once, its live connection too, and who is in it now is allowed."""
    web = group("web", Rule("ops", IN, protocol=protocol, ports=ports(80), remote=("ops",)), egress=DROP)
    both = Both(bridge, web, group("ops"), srv=("web",), cli=("ops",))
    talk, other = (both.talk(name, "srv", protocol, 80, version) for name in ("cli", "third"))
    begin(both, talk)
    assert not both.passes("third", other.frame())
    both.change(replace(group("ops"), number=9), cli=(), third=("ops",))
    fresh(both)
    there, back = later(talk)
    for _ in range(2):
        assert not both.passes("srv", back)
        assert not both.passes("cli", there)
    assert both.passes("third", other.frame())
    assert both.passes("srv", other.frame(Part.ANSWER))
    both.change(replace(group("ops"), number=10), cli=("ops",), third=())
    fresh(both)
    assert both.passes("cli", there)
    assert both.passes("srv", back)
    assert not both.passes("third", other.frame())


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [UDP, TCP])
def test_groups_are_taken_off_and_put_back(bridge: RealBridge, protocol: Protocol, version: int) -> None:
    """Without groups all passes; with them again what they allow goes on, and what began meanwhile and is forbidden ends."""
    both = Both(bridge, group("web", service(protocol), egress=DROP), srv=("web",))
    allowed, forbidden = (both.talk("cli", "srv", protocol, port, version) for port in (80, 81))
    begin(both, allowed)
    assert not both.passes("cli", forbidden.frame())
    both.change(srv=())
    fresh(both)
    begin(both, forbidden)
    for sender, frame in zip(("cli", "srv"), later(allowed), strict=True):
        assert both.passes(sender, frame)
    both.change(srv=("web",))
    fresh(both)
    for sender, frame in zip(("cli", "srv"), later(allowed), strict=True):
        assert both.passes(sender, frame)
    for _ in range(2):
        for sender, frame in zip(("srv", "cli"), later(forbidden)[::-1], strict=True):
            assert not both.passes(sender, frame)


def test_megaflows_of_answers_are_bounded_by_rules(bridge: RealBridge) -> None:
    both = Both(bridge, group("web", service(TCP), Rule("dns", IN, protocol=UDP, ports=ports(53))), srv=("web",))
    port = both.pool.hosts["h0"].ports["srv/0"]
    talks = [replace(both.talk("cli", "srv", UDP, 53), source_port=20000 + n) for n in range(40)]
    for talk in talks:
        begin(both, talk)
    bridge.appctl("revalidator/purge")
    for talk in talks:
        bridge.appctl("netdev-dummy/receive", f"p{port}", talk.frame(Part.ANSWER).hex())
    megaflows = [line for line in bridge.appctl("dpctl/dump-flows").splitlines() if "eth_type(0x0800)" in line]
    assert len(megaflows) == 2, "one to the tracker, one after it"


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_for_many_is_judged_and_takes_nobodys_share_of_the_tracker(bridge: RealBridge, version: int) -> None:
    """A flood of such packets leaves no connection with its sender or its receivers, and one megaflow. What its fragments are is the tracker's to say."""
    both = Both(bridge, group("web", service(UDP)), srv=("web",), cli=("web",))
    zones = [both.pool.hosts["h0"].ports[f"{name}/0"] for name in ("srv", "cli")]
    mac, to = ("ff:ff:ff:ff:ff:ff", "10.0.0.255") if version == 4 else ("33:33:00:00:00:fb", "ff02::fb")
    targets = [End(mac, to), End("01:00:5e:00:00:fb", "224.0.0.251")] if version == 4 else [End(mac, to)]

    def reached(talk: Talk) -> list[str]:
        return sorted(name for name, _ in both.send("cli", talk.frame()))

    for target in targets:
        talk = replace(both.talk("cli", "srv", UDP, 80, version), target=target)
        talks = [replace(talk, source_port=20000 + n) for n in range(40)]
        assert [reached(each) for each in talks] == [["srv", "third"]] * len(talks)
        assert reached(replace(talk, port=81)) == ["third"], "it is in no group"
        bridge.appctl("revalidator/purge")
        for each in talks:
            bridge.appctl("netdev-dummy/receive", f"p{zones[1]}", each.frame().hex())
        ip = "eth_type(0x0800)" if version == 4 else "eth_type(0x86dd)"
        assert bridge.appctl("dpctl/dump-flows").count(ip) == 1
        bridge.send(PORTS[0], SENTINEL)  # those have arrived
    assert not [zone for zone in zones if f"zone={zone}" in bridge.appctl("dpctl/dump-conntrack")]
    # An address of one host in a frame for many is tracked, as clusters of servers need it.
    shared = both.talk("cli", "srv", UDP, 80, version)
    assert reached(replace(shared, target=End("03:bf:0a:00:00:01", shared.target.address))) == ["srv", "third"]
    assert f"zone={zones[0]}" in bridge.appctl("dpctl/dump-conntrack")


@pytest.mark.parametrize("version", [4, 6])
def test_errors_about_a_connection_pass_as_long_as_it_may_begin(bridge: RealBridge, version: int) -> None:
    both = Both(bridge, group("web", service(UDP), egress=DROP), srv=("web",))
    talk = both.talk("cli", "srv", UDP, 80, version)
    begin(both, talk)
    quoted = Ether(talk.frame())[IP if version == 4 else IPv6]
    head = Ether(src=talk.target.mac, dst=talk.source.mac)
    if version == 4:
        error = head / IP(src=talk.target.address, dst=talk.source.address) / ICMP4(type=3, code=3) / quoted
    else:
        error = head / IPv6(src=talk.target.address, dst=talk.source.address) / ICMPv6DestUnreach(code=4) / quoted
    assert both.passes("srv", bytes(error))
    both.change(group("web", egress=DROP))
    assert not both.passes("srv", bytes(error))


def segments(both: Both, port: int, version: int, source_port: int = 49152) -> tuple[bytes, bytes]:
    """What a client and the server of srv's send on a TCP connection that nobody saw begin."""
    return later(replace(both.talk("cli", "srv", TCP, port, version), source_port=source_port))


@pytest.mark.parametrize("version", [4, 6])
def test_a_live_connection_into_a_vif_that_joins_its_first_group(bridge: RealBridge, version: int) -> None:
    """It ends at once if it is forbidden, and goes on if it is allowed. Some time later a connection begins with SYN."""
    both = Both(bridge, group("web", service(TCP)), group("shut"))
    there, back = segments(both, 80, version)
    assert both.passes("cli", there)
    assert both.passes("srv", back)
    both.change(srv=("shut",))
    for _ in range(2):
        assert not both.passes("srv", back)
        assert not both.passes("cli", there)
    both.change(srv=("web",))
    assert both.passes("srv", back)
    both.set_moved("srv", False)
    for _ in range(2):
        assert not both.passes("srv", back)
        assert not both.passes("cli", there)


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("version", [4, 6])
def test_after_a_move_who_listens_decides(bridge: RealBridge, version: int, first: str) -> None:
    """The direction in which a connection began is told by its ports, whoever sends first."""
    both = Both(bridge, group("web", service(TCP)), srv=("web",))
    both.set_moved("srv", True)
    there, back = segments(both, 80, version)
    for sender, frame in (("cli", there), ("srv", back))[:: 1 if first == "client" else -1]:
        assert both.passes(sender, frame)
    for port in (81, 8080):
        for sender, frame in zip(("srv", "cli"), segments(both, port, version)[::-1], strict=True):
            assert not both.passes(sender, frame)
    both.change(group("web"))  # revoked, and the server goes on
    for _ in range(2):
        assert not both.passes("srv", back)
        assert not both.passes("cli", there)
    both.change(group("web", service(TCP)))
    assert both.passes("cli", there)
    both.set_moved("srv", False)
    assert both.passes("srv", back)
    assert both.passes("cli", there)


@pytest.mark.parametrize("ports_of", [(80, 5000), (8080, 49152), (1, 2000)])
def test_a_client_goes_on_after_its_move_and_nobody_else_gets_in(bridge: RealBridge, ports_of: tuple[int, int]) -> None:
    """The VIF that moved is the client; it lets nothing in. A segment that looks like an answer answers what it may begin."""
    both = Both(
        bridge, group("web", Rule("out", OUT, protocol=TCP, ports=ports(ports_of[0])), egress=DROP), cli=("web",)
    )
    both.set_moved("cli", True)
    there, back = segments(both, ports_of[0], 4, ports_of[1])
    for _ in range(2):
        assert both.passes("srv", back)
        assert both.passes("cli", there)
    for sender, frame in zip(("srv", "cli"), segments(both, 90, 4, ports_of[1])[::-1], strict=True):
        assert not both.passes(sender, frame)
    back_in = replace(both.talk("srv", "cli", TCP, 22), source_port=60000)
    assert not both.passes("srv", later(back_in)[0])


def test_where_nobody_knows_who_listens_both_directions_must_allow(bridge: RealBridge) -> None:
    both = Both(bridge, group("in", service(TCP), Rule("high", IN, protocol=TCP, ports=ports(5000)), egress=DROP),
                group("both", Rule("high", IN, protocol=TCP, ports=ports(5000))), srv=("in",))  # fmt: skip
    both.set_moved("srv", True)
    there, back = segments(both, 5000, 4, 6000)
    assert not both.passes("cli", there)
    assert not both.passes("srv", back)
    both.change(srv=("both",))
    assert both.passes("cli", there)
    assert both.passes("srv", back)
    both.change(srv=("in",))
    assert not both.passes("cli", there)
    assert not both.passes("srv", back)
