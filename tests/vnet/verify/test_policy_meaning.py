"""What flows of security groups do is what their rules mean: random policies, every pair, against `vnet.objects.security.judge`."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from tests.vnet.sim.test_policy import HOSTS, WHERE
from vnet.objects import (
    AddressSet,
    Direction,
    IcmpType,
    Network,
    NetworkType,
    PolicyMode,
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
from vnet.objects.security import Begun, judge
from vnet.objects.tiers import Tier, obeyed_in
from vnet.sim import SimPool
from vnet.verify.equivalence_classes import EquivalenceClasses

GROUPS = ("a", "b", "c")
STATELESS = "c"
CLIENT_PORT = 49152
SETS = {
    "s": AddressSet("s", ("10.0.0.0/30", "10.0.0.2/32", "fd00::/8")),
    "t": AddressSet("t", ("10.0.0.0/8", "10.0.0.4/30")),
}
LABELS = ("label:app=shop", "label:env=prod")
OUT = ("out 10.0.0.0/31", "out 10.0.0.4/32")  # the ranges of network out
ASKED = ((Protocol.TCP, 80), (Protocol.TCP, 443), (Protocol.UDP, 80), (Protocol.ICMP, 0))
TIERED = ("x", "y")
BOTH = (Direction.EGRESS, Direction.INGRESS)
LAN = {"lan": Network("lan", NetworkType.VXLAN, 1, 1450, key=5001, labels=("env=prod",))}


@st.composite
def rules(draw: st.DrawFn, name: str, stateful: bool) -> Rule:
    protocol = draw(st.sampled_from([None, Protocol.TCP, Protocol.UDP, Protocol.ICMP, 47]))
    ported = protocol in (Protocol.TCP, Protocol.UDP)
    spans = draw(st.sampled_from([(), ((80, 80),), ((81, 442),), ((1, 79), (443, 443)), ((79, 81),)])) if ported else ()
    remote = draw(
        st.sets(st.sampled_from(["10.0.0.0/31", "10.0.0.2/31", *GROUPS, *SETS, *LABELS, "network:out"]), max_size=2)
    )
    kinds = [kind for kind in IcmpType if kind.begins or not stateful]
    icmp = draw(st.sampled_from([(), *((kind,) for kind in kinds)])) if protocol is Protocol.ICMP else ()
    sources = draw(st.sampled_from([(), ((80, 80),), ((49152, 65535),)])) if ported and not stateful else ()
    return Rule(
        name,
        draw(st.sampled_from(Direction)),
        draw(st.sampled_from(Verdict)),
        protocol,
        tuple(PortRange(*span) for span in spans),
        tuple(sorted(remote)),
        icmp,
        draw(st.booleans()),
        tuple(PortRange(*span) for span in sources),
    )


@st.composite
def states(draw: st.DrawFn) -> PoolState:
    """Four VIFs of one network on two hosts, each in some of three groups of a few rules; the last of them is stateless."""
    groups = {
        name: SecurityGroup(
            name,
            number,
            draw(st.sampled_from(Verdict)),
            draw(st.sampled_from(Verdict)),
            tuple(draw(rules(word, name != STATELESS)) for word in "rst"[: draw(st.integers(0, 3))]),
            mode=draw(st.sampled_from((PolicyMode.ENFORCE, PolicyMode.MONITOR))),
            stateful=name != STATELESS,
        )
        for number, name in enumerate(GROUPS, 1)
    }
    if draw(st.booleans()):
        groups |= {
            name: SecurityGroup(
                name,
                number,
                rules=tuple(replace(draw(rules(word, True)), mandatory=draw(st.booleans())) for word in "rst"[: draw(st.integers(0, 3))]),
                mode=draw(st.sampled_from((PolicyMode.ENFORCE, PolicyMode.ENFORCE, PolicyMode.MONITOR))),
                tier=draw(st.sampled_from((Tier.POOL, Tier.NETWORK, Tier.VM))),
                selector=draw(st.sampled_from(((), ("app=shop",)))),
            )
            for number, name in enumerate(TIERED, 10)
        }  # fmt: skip
    wide = any(group.tier is not Tier.VIF for group in groups.values())
    groups = {name: replace(found, network_ranges=OUT if found.networks() else ()) for name, found in groups.items()}
    vifs = {}
    for n, (name, host) in enumerate(WHERE.items(), 1):
        members = [(), ("a",), ("b",), ("a", "b"), *([(STATELESS,), (STATELESS,)] if not wide else [])]
        member = draw(st.sampled_from(members))
        mac = f"0a:00:00:00:00:0{n}"
        own, of_vm = (
            draw(st.sampled_from(((), ("app=bank",), ("app=shop",), ("app=shop", "env=prod")))) for _ in range(2)
        )
        vifs[f"{name}/0"] = Vif(
            f"{name}/0",
            "lan",
            mac,
            name,
            addresses=(f"10.0.0.{n}",),
            host=host,
            groups=member,
            labels=own,
            vm_labels=of_vm,
            vm_groups=draw(st.sampled_from(((), TIERED[:1]))) if wide else (),
        )
    vms = {name: Vm(name, host) for name, host in WHERE.items()}
    networks = {"lan": replace(LAN["lan"], groups=TIERED[1:] if wide and draw(st.booleans()) else ())}
    return PoolState(Pool("p", 1600), HOSTS, networks, {}, vms, vifs, groups=groups, address_sets=SETS)


def means(state: PoolState, a: Vif, b: Vif, protocol: Protocol, port: int) -> bool:
    """Whether a connection from one VIF to another is allowed at both ends, and its answers where they are judged by themselves."""
    source_port = CLIENT_PORT if port else 0
    for vif, peer, direction, other in ((a, b, *BOTH), (b, a, *BOTH[::-1])):
        sets = {name for name, found in state.address_sets.items() if found.has(peer.addresses[0])}
        sets |= {"network:out"} if peer.addresses[0] in ("10.0.0.1", "10.0.0.4") else set()
        labels = {label.split("=")[0]: label for label in (*LAN["lan"].labels, *peer.vm_labels, *peer.labels)}
        named = {*peer.groups, *sets, *(f"label:{label}" for label in labels.values())}
        asks = Begun(protocol, peer.addresses[0], port, frozenset(named), source_port)
        packets = [(direction, asks)]
        if STATELESS in vif.groups:
            packets.append((other, replace(asks, port=source_port, source_port=port, icmp=IcmpType.ECHO_REPLY)))
        groups = [state.groups[name] for name in obeyed_in(state, vif)]
        if groups and any(judge(groups, way, packet) is not Verdict.ALLOW for way, packet in packets):
            return False
    return True


@given(states())
def test_flows_do_what_the_rules_mean(state: PoolState) -> None:
    asked = [(a, b, service) for a, b in permutations(state.vifs.values(), 2) for service in ASKED]
    answers = EquivalenceClasses(SimPool.of(state)).answers(asked)  # all at once: the flows are compiled once
    for (a, b, service), reached in zip(asked, answers, strict=True):
        assert reached == means(state, a, b, *service), (a.id, b.id, service)
