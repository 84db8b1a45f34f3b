"""What flows of security groups do is what their rules mean: random policies, every pair, against `vnet.objects.security.judge`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.vnet.sim.test_policy import HOSTS, WHERE
from vnet.objects import (
    Direction,
    IcmpType,
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
from vnet.objects.security import Begun, judge
from vnet.sim import SimPool
from vnet.verify.reachability import Reachability

GROUPS = ("a", "b", "c")
ASKED = ((Protocol.TCP, 80), (Protocol.TCP, 443), (Protocol.UDP, 80), (Protocol.ICMP, 0))
LAN = {"lan": Network("lan", NetworkType.VXLAN, 1, 1450, key=5001)}


@st.composite
def rules(draw: st.DrawFn, name: str) -> Rule:
    protocol = draw(st.sampled_from([None, Protocol.TCP, Protocol.UDP, Protocol.ICMP, 47]))
    ported = protocol in (Protocol.TCP, Protocol.UDP)
    spans = draw(st.sampled_from([(), ((80, 80),), ((81, 442),), ((1, 79), (443, 443)), ((79, 81),)])) if ported else ()
    remote = draw(st.sets(st.sampled_from(["10.0.0.0/31", "10.0.0.2/31", *GROUPS]), max_size=2))
    icmp = draw(st.sampled_from([(), *((kind,) for kind in IcmpType)])) if protocol is Protocol.ICMP else ()
    return Rule(
        name,
        draw(st.sampled_from(Direction)),
        draw(st.sampled_from(Verdict)),
        protocol,
        tuple(PortRange(*span) for span in spans),
        tuple(sorted(remote)),
        icmp,
        draw(st.booleans()),
    )


@st.composite
def states(draw: st.DrawFn) -> PoolState:
    """Four VIFs of one network on two hosts, each in some of three groups of a few rules."""
    groups = {
        name: SecurityGroup(
            name,
            number,
            draw(st.sampled_from(Verdict)),
            draw(st.sampled_from(Verdict)),
            tuple(draw(rules(word)) for word in "rst"[: draw(st.integers(0, 3))]),
        )
        for number, name in enumerate(GROUPS, 1)
    }
    vifs = {}
    for n, (name, host) in enumerate(WHERE.items(), 1):
        member = tuple(sorted(draw(st.sets(st.sampled_from(GROUPS), max_size=2))))
        mac = f"0a:00:00:00:00:0{n}"
        vifs[f"{name}/0"] = Vif(f"{name}/0", "lan", mac, name, addresses=(f"10.0.0.{n}",), host=host, groups=member)
    vms = {name: Vm(name, host) for name, host in WHERE.items()}
    return PoolState(Pool("p", 1600), HOSTS, LAN, {}, vms, vifs, groups=groups)


def means(state: PoolState, a: Vif, b: Vif, protocol: Protocol, port: int) -> bool:
    """Whether a connection from one VIF to another is allowed at both ends."""
    for vif, peer, direction in ((a, b, Direction.EGRESS), (b, a, Direction.INGRESS)):
        begun = Begun(protocol, peer.addresses[0], port, frozenset(peer.groups))
        groups = [state.groups[name] for name in vif.groups]
        if groups and judge(groups, direction, begun) is not Verdict.ALLOW:
            return False
    return True


@given(states())
def test_flows_do_what_the_rules_mean(state: PoolState) -> None:
    run = SimPool.of(state)
    for protocol, port in ASKED:
        reach = Reachability(run, protocol, port)
        for a in state.vifs.values():
            for b in state.vifs.values():
                if a is not b:
                    assert reach.reaches(a, b) == means(state, a, b, protocol, port), (a.id, b.id, protocol, port)
