"""Security groups on the simulator: what they let VIFs send and receive, in words of packets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from vnet.objects import (
    Direction,
    Host,
    Network,
    NetworkType,
    Pool,
    PoolState,
    PortRange,
    Protocol,
    Rule,
    SecurityGroup,
    Verdict,
    Vif,
    Vm,
)
from vnet.sim import SimPool
from vnet.sim.bindings import settled

IN, OUT, ALLOW, DROP = Direction.INGRESS, Direction.EGRESS, Verdict.ALLOW, Verdict.DROP
HOSTS = {name: Host(name, f"10.99.0.{n}") for n, name in enumerate(("xen1", "xen2"), 1)}
WHERE = {"web": "xen1", "db": "xen2", "ops": "xen1", "any": "xen2"}


def ports(first: int, last: int | None = None) -> tuple[PortRange, ...]:
    return (PortRange(first, last or first),)


def pool(*groups: SecurityGroup, **members: tuple[str, ...]) -> SimPool:
    """web and ops on xen1, db and any on xen2, one network; each in the groups that `members` says."""
    networks = {"lan": Network("lan", NetworkType.VXLAN, 1, 1450, key=5001)}
    vms = {name: Vm(name, host) for name, host in WHERE.items()}
    vifs = {
        f"{name}/0": Vif(
            f"{name}/0", "lan", f"0a:00:00:00:00:0{n}", name, addresses=(f"10.0.0.{n}", f"fd00::{n}"), host=host,
            groups=members.get(name, ()),
        )
        for n, (name, host) in enumerate(WHERE.items(), 1)
    }  # fmt: skip
    state = PoolState(Pool("p", 1600), HOSTS, networks, {}, vms, vifs, groups={group.name: group for group in groups})
    return SimPool.of(state)


def group(name: str, *rules: Rule, ingress: Verdict = DROP, egress: Verdict = ALLOW) -> SecurityGroup:
    return SecurityGroup(name, sum(name.encode()), ingress, egress, tuple(sorted(rules, key=lambda rule: rule.name)))


HTTP = Rule("http", IN, protocol=Protocol.TCP, ports=(PortRange(80, 80), PortRange(443, 443)))


def packet(pool: SimPool, source: str, target: str, *layers: Packet) -> Packet:
    a, b = pool.vif(source), pool.vif(target)
    built: Packet = Ether(src=a.mac, dst=b.mac) / IP(src=a.addresses[0], dst=b.addresses[0])
    for layer in layers:
        built /= layer
    return built


def gets(pool: SimPool, source: str, target: str, *layers: Packet) -> bool:
    return f"{target}/0" in pool.send(f"{source}/0", packet(pool, f"{source}/0", f"{target}/0", *layers)).to


def reached(pool: SimPool, source: str, target: str, **what: int) -> bool:
    return pool.connect(f"{source}/0", f"{target}/0", **what).reached


def test_a_vif_in_no_group_is_not_filtered() -> None:
    run = pool(group("web", HTTP))
    assert reached(run, "db", "web", tcp=81)


@pytest.mark.parametrize("source", ["ops", "db"])  # on the same host, and through a tunnel
def test_only_what_a_rule_allows_comes_in_and_answers_pass(source: str) -> None:
    run = pool(group("web", HTTP), web=("web",))
    assert reached(run, source, "web", tcp=80)
    assert reached(run, source, "web", tcp=443)
    assert not reached(run, source, "web", tcp=81)
    assert not reached(run, source, "web", udp=80)
    assert not reached(run, source, "web")
    assert reached(run, "web", source, tcp=22)
    assert reached(run, "web", source)


def test_what_goes_out_is_judged_too() -> None:
    run = pool(
        group("web", Rule("dns", OUT, protocol=Protocol.UDP, ports=ports(53)), egress=DROP, ingress=ALLOW), web=("web",)
    )
    assert reached(run, "web", "db", udp=53)
    assert not reached(run, "web", "db", udp=54)
    assert not reached(run, "web", "db")
    assert reached(run, "db", "web", tcp=9)


def test_drop_wins_over_allow_whatever_their_order_and_group() -> None:
    allow = Rule("allow", IN, ALLOW, Protocol.TCP, ports(1, 1000))
    drop = Rule("drop", IN, DROP, Protocol.TCP, ports(80))
    for groups in (
        (group("one", allow, drop),),
        (group("one", allow), group("two", drop)),
        (group("one", drop), group("two", allow)),
    ):
        run = pool(*groups, web=tuple(g.name for g in groups))
        assert reached(run, "db", "web", tcp=81)
        assert not reached(run, "db", "web", tcp=80)


def test_of_two_groups_one_that_drops_by_default_decides() -> None:
    run = pool(group("closed", HTTP), group("open", ingress=ALLOW), web=("closed", "open"), db=("open",))
    assert reached(run, "ops", "web", tcp=80)
    assert not reached(run, "ops", "web", tcp=81)
    assert reached(run, "ops", "db", tcp=81)


@pytest.mark.parametrize("first", [1, 80, 81, 1023, 32768])
def test_port_ranges_are_exact(first: int) -> None:
    last = min(first + 1000, 65535)
    run = pool(group("web", Rule("r", IN, protocol=Protocol.TCP, ports=ports(first, last))), web=("web",))
    for port, inside in ((first, True), (last, True), (first + 500, True), (first - 1, False), (last + 1, False)):
        if 0 < port <= 65535:
            assert reached(run, "db", "web", tcp=port) is inside, port


def test_the_other_side_is_a_cidr() -> None:
    run = pool(
        group("web", Rule("r", IN, remote=("10.0.0.2/32",)), Rule("s", IN, remote=("fd00::4/128",))), web=("web",)
    )
    assert reached(run, "db", "web", tcp=9)  # 10.0.0.2
    assert not reached(run, "any", "web", tcp=9)
    assert not reached(run, "ops", "web", tcp=9)
    assert gets6(run, "any", "web")
    assert not gets6(run, "db", "web")


def gets6(pool: SimPool, source: str, target: str) -> bool:
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6

    a, b = pool.vif(f"{source}/0"), pool.vif(f"{target}/0")
    echo = Ether(src=a.mac, dst=b.mac) / IPv6(src=a.addresses[1], dst=b.addresses[1]) / ICMPv6EchoRequest()
    return f"{target}/0" in pool.send(f"{source}/0", echo).to


def test_the_other_side_is_a_group_wherever_its_members_are() -> None:
    rules = (Rule("from-ops", IN, remote=("ops",)), Rule("to-db", OUT, remote=("db",)))
    run = pool(group("web", *rules, egress=DROP), group("ops", ingress=ALLOW), group("db", ingress=ALLOW),
               web=("web",), ops=("ops",), db=("db",))  # fmt: skip
    assert reached(run, "ops", "web", tcp=9)
    assert not reached(run, "db", "web", tcp=9)
    assert reached(run, "web", "db", tcp=9)
    assert not reached(run, "web", "ops", tcp=9)
    assert not reached(run, "web", "any", tcp=9)


def test_what_a_member_forwards_for_others_is_not_the_members() -> None:
    run = pool(group("web", Rule("from-ops", IN, remote=("ops",))), group("ops"), web=("web",), ops=("ops",))
    ops = run.state.vifs["ops/0"]
    unlocked = replace(ops, locking_mode=type(ops.locking_mode).UNLOCKED)
    run.update(replace(run.state, vifs={**run.state.vifs, "ops/0": unlocked}))
    sent = packet(run, "ops/0", "web/0", UDP(dport=9))
    assert run.send("ops/0", sent).to == ["web/0"]
    sent[IP].src = "192.0.2.7"
    assert run.send("ops/0", sent).to == []


def test_arp_and_dhcp_pass_whatever_the_groups_say() -> None:
    run = pool(group("shut", egress=DROP), web=("shut",), db=("shut",))
    web = run.vif("web/0")
    ask = Ether(src=web.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=web.mac, psrc="10.0.0.1", pdst="10.0.0.2")
    assert "db/0" in run.send("web/0", ask).to
    discover = (
        Ether(src=web.mac, dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67) / BOOTP() / DHCP(options=[("message-type", "discover"), "end"])
    )  # fmt: skip
    assert "any/0" in run.send("web/0", discover).to
    assert "db/0" not in run.send("web/0", discover).to
    server = replace(run.state.vifs["any/0"], dhcp_server=True)
    assert not gets(run, "any", "web", UDP(sport=67, dport=68))
    run.update(settled(replace(run.state, vifs={**run.state.vifs, "any/0": server})))
    assert gets(run, "any", "web", UDP(sport=67, dport=68))
    assert not gets(run, "any", "web", UDP(sport=67, dport=69))


def test_protocols_without_connections_are_judged_packet_by_packet() -> None:
    run = pool(group("web", Rule("gre", IN, protocol=47)), web=("web",))
    assert gets(run, "db", "web", GRE())
    run = pool(group("web", HTTP), web=("web",))
    assert not gets(run, "db", "web", GRE())


def test_a_rule_that_goes_ends_the_connections_it_allowed() -> None:
    run = pool(group("web", HTTP), web=("web",))
    there, back = TCP(sport=5555, dport=80), TCP(sport=80, dport=5555)
    assert gets(run, "db", "web", TCP(sport=5555, dport=80, flags="S"))
    assert gets(run, "web", "db", TCP(sport=80, dport=5555, flags="SA"))
    there.flags = back.flags = "A"
    assert gets(run, "db", "web", there)
    assert gets(run, "web", "db", back)
    run.update(replace(run.state, groups={"web": group("web")}))
    assert not gets(run, "db", "web", there)
    assert not gets(run, "web", "db", back)
    run.update(replace(run.state, groups={"web": group("web", HTTP)}))
    assert gets(run, "db", "web", there)


def test_answers_to_what_may_be_begun_no_longer_do_not_pass_either() -> None:
    run = pool(group("web", Rule("out", OUT, protocol=Protocol.UDP, ports=ports(9)), egress=DROP), web=("web",))
    there, back = UDP(sport=5555, dport=9), UDP(sport=9, dport=5555)
    assert gets(run, "web", "db", there)
    assert gets(run, "db", "web", back)
    run.update(replace(run.state, groups={"web": group("web", egress=DROP)}))
    assert not gets(run, "db", "web", back)
    assert not gets(run, "web", "db", there)
    assert not gets(run, "db", "web", back)
    run.update(replace(run.state, groups={"web": group("web", Rule("out", OUT), egress=DROP)}))
    assert gets(run, "web", "db", there)
    assert gets(run, "db", "web", back)


def test_errors_about_what_was_sent_pass() -> None:
    run = pool(group("web"), web=("web",))
    asked = UDP(sport=5555, dport=9)
    assert gets(run, "web", "db", asked)
    quoted = IP(bytes(packet(run, "web/0", "db/0", asked)[IP]))
    assert gets(run, "db", "web", ICMP(type=3, code=3), quoted)
    assert not gets(run, "ops", "web", ICMP(type=3, code=3), IP(src="10.0.0.1", dst="10.0.0.3") / UDP(sport=1, dport=2))


def test_connections_go_on_where_their_vif_moves_and_no_others_begin() -> None:
    """The guest is a client behind a group that lets nothing in; the other side sends first after the move."""
    run = pool(group("client", egress=ALLOW), web=("client",))
    begun = TCP(sport=5555, dport=80, flags="S")
    assert gets(run, "web", "db", begun)
    assert gets(run, "db", "web", TCP(sport=80, dport=5555, flags="SA"))
    run.prepare("web", "xen2")
    assert gets(run, "db", "web", TCP(sport=80, dport=5555, flags="A"))
    run.run("web", "xen2", announce=True)
    run.activate("web")
    for _ in range(2):
        assert gets(run, "db", "web", TCP(sport=80, dport=5555, flags="A"))
        assert gets(run, "web", "db", TCP(sport=5555, dport=80, flags="A"))
    assert not gets(run, "db", "web", TCP(sport=81, dport=22, flags="S"))
    assert not gets(run, "db", "web", UDP(sport=81, dport=22))
    run.finish("web")
    bindings = {key: replace(binding, moved=False) for key, binding in run.state.bindings.items()}
    run.update(replace(run.state, bindings=bindings))  # as its agent says some minutes later
    assert gets(run, "db", "web", TCP(sport=80, dport=5555, flags="A"))
    assert not gets(run, "db", "web", TCP(sport=80, dport=5556, flags="A"))


def test_what_was_tracked_for_a_port_is_not_the_next_vifs() -> None:
    run = pool(group("web", HTTP), web=("web",), ops=("web",))
    assert gets(run, "db", "web", TCP(sport=5555, dport=80, flags="S"))
    run.prepare("web", "xen2")
    run.run("web", "xen2", announce=True)
    run.activate("web")
    run.finish("web")
    assert run.hosts["xen1"].bridge.tracker.connections  # nobody has looked at them yet
    run.prepare("any", "xen1")
    assert not run.hosts["xen1"].bridge.tracker.connections


def test_a_vif_whose_group_is_not_known_is_silent() -> None:
    run = pool(web=("lost",))
    assert not reached(run, "web", "db", tcp=80)
    assert not gets(run, "db", "web", UDP())
