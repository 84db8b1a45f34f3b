"""Groups of tiers above the VIF's, on the twin and on a real switch: which rule decides, of packets and of connections that run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.ovsctl.datapath.real_bridge import RealBridge, real_bridge
from tests.vnet.sim.both import PORTS, Both
from tests.vnet.sim.test_connections import begin, later
from tests.vnet.sim.test_policy import ALLOW, DROP, IN, OUT, group, pool, ports
from vnet.compile import flat
from vnet.objects import PolicyMode, PoolState, Protocol, Rule, SecurityGroup
from vnet.objects.tiers import Tier
from vnet.plan import desired_state
from vnet.sim import SimPool
from vnet.sim.packets import End, Talk
from vnet.sim.trace import trace_packet
from vnet.topology import load
from vnet.verify.expectations import check

TCP = Protocol.TCP


def tiered(name: str, tier: Tier, *rules: Rule, number: int = 100, **more: object) -> SecurityGroup:
    return SecurityGroup(name, number, rules=tuple(sorted(rules, key=lambda rule: rule.name)), tier=tier, **more)


def rule(name: str, port: int, action: object = DROP, *, mandatory: bool = False, direction: object = IN) -> Rule:
    return Rule(name, direction, action, TCP, ports(port), mandatory=mandatory)


@pytest.fixture(scope="module")
def bridge(ovs: None) -> Iterator[RealBridge]:
    with real_bridge(PORTS) as running:
        yield running


def test_the_first_step_with_a_rule_decides(bridge: RealBridge) -> None:
    """Mandatory rules from the pool's down to the VM's, the VIF's own, the others from the VM's up to the pool's, the VIF's default."""
    pool_wide = tiered(
        "pool", Tier.POOL, rule("no", 1, mandatory=True), rule("yes", 2, ALLOW, mandatory=True), rule("low", 3), rule("last", 7, ALLOW)
    )  # fmt: skip
    of_network = tiered(
        "net", Tier.NETWORK, rule("no", 2, mandatory=True), rule("a", 4, mandatory=True), rule("b", 5), number=101
    )
    of_vm = tiered("vm", Tier.VM, rule("a", 4, ALLOW, mandatory=True), rule("b", 5, ALLOW), rule("c", 7), number=102)
    own = group("own", rule("a", 1, ALLOW), rule("b", 2), rule("c", 3, ALLOW))
    both = Both(bridge, pool_wide, of_network, of_vm, own, srv=("own",))
    state = both.pool.state
    network = replace(state.networks["lan"], groups=("net",))
    srv = replace(state.vifs["srv/0"], vm_groups=("vm",))
    both.pool.update(replace(state, networks={"lan": network}, vifs=state.vifs | {"srv/0": srv}))
    both.change()
    found = {port: both.passes("cli", both.talk("cli", "srv", TCP, port).frame()) for port in range(1, 9)}
    assert found == {1: False, 2: True, 3: True, 4: False, 5: True, 6: False, 7: False, 8: False}


@pytest.mark.parametrize("port", [1, 6])
def test_a_mandatory_rule_ends_what_runs_at_once_both_ways(bridge: RealBridge, port: int) -> None:
    """The VIF's own group allows it, or it is in none: then nobody has tracked the connection."""
    both = Both(bridge, group("own", rule("a", 1, ALLOW)), **({"srv": ("own",)} if port == 1 else {}))
    talk = both.talk("cli", "srv", TCP, port)
    begin(both, talk)
    there, back = later(talk)
    both.change(tiered("pool", Tier.POOL, rule("no", port, mandatory=True)))
    assert not both.passes("srv", back)
    assert not both.passes("cli", there)


def test_after_a_move_each_direction_is_judged_by_its_own_steps(bridge: RealBridge) -> None:
    """Both allow, or the end that listens is known and may: a mandatory rule of one direction says nothing of the other."""
    both = Both(bridge, tiered("pool", Tier.POOL, rule("yes", 80, ALLOW, mandatory=True), rule("yes2", 9000, ALLOW, mandatory=True)),
                group("own", egress=DROP), srv=("own",))  # fmt: skip
    both.set_moved("srv", True)
    both.set_moved("cli", True)

    def segment(port: int, client: int) -> bytes:
        return later(replace(both.talk("cli", "srv", TCP, port), source_port=client))[0]

    def answer(port: int, client: int) -> bytes:
        return later(replace(both.talk("cli", "srv", TCP, port), source_port=client))[1]

    assert both.passes("srv", answer(80, 40000))
    assert both.passes("cli", segment(80, 40000))
    assert not both.passes("cli", segment(9000, 9001))  # nobody knows which listens, and it may not begin one out
    both.change(replace(both.pool.state.groups["pool"], rules=(rule("no", 80, mandatory=True),)))
    assert not both.passes("srv", answer(80, 40001))
    assert not both.passes("cli", segment(80, 40001))


def test_vifs_that_no_tier_judges_have_the_flows_that_they_had(bridge: RealBridge) -> None:
    """A group of the network's tier that no network names costs nothing; one that selects a label costs that VIF alone."""
    both = Both(bridge, group("own", rule("a", 1, ALLOW)), srv=("own",))
    before = set(flat(both.pool.hosts["h0"].compiled))
    both.change(tiered("net", Tier.NETWORK, rule("no", 1, mandatory=True)))
    assert set(flat(both.pool.hosts["h0"].compiled)) == before
    both.change(tiered("net", Tier.NETWORK, rule("no", 1, mandatory=True), selector=("app=shop",)))
    assert set(flat(both.pool.hosts["h0"].compiled)) == before
    state, sources = both.pool.state, dict(both.pool.hosts["h0"].compiled)
    both.pool.update(
        replace(state, vifs=state.vifs | {"third/0": replace(state.vifs["third/0"], labels=("app=shop",))})
    )
    both.change()
    assert both.passes("cli", both.talk("cli", "srv", TCP, 1).frame())
    assert not both.passes("cli", both.talk("cli", "third", TCP, 1).frame())
    now = both.pool.hosts["h0"].compiled
    assert {source.name for source in now if now[source] != sources.get(source)} == {"third/0", "net", "lan"}


def test_an_expectation_of_a_group_of_a_tier_is_of_the_vifs_that_it_judges() -> None:
    """As the group of a label: db is in none by name, and is judged with web."""
    text = b"""
apiVersion: vnet/v1
pool: tiers
hosts: {h0: {}}
networks: {lan: {type: internal}}
security-groups:
  shops: {tier: vm, selector: {app: shop}, rules: [{name: no, direction: ingress, action: drop, protocol: tcp, ports: [22], mandatory: true}]}
vms:
  web: {host: h0, labels: {app: shop}, vifs: [{network: lan, addresses: [10.0.0.1]}]}
  ops: {host: h0, vifs: [{network: lan, addresses: [10.0.0.2]}]}
expectations:
  - {name: open, from: ops, to: shops, protocol: tcp, port: 22, expect: reachable}
  - {name: shut, from: ops, to: shops, protocol: tcp, port: 22, expect: unreachable}
"""
    document = load(text, "tiers.vnet.yaml")
    found = check(SimPool.of(desired_state(document, PoolState())), document)
    assert [(result.name, result.holds) for result in found] == [("open", False), ("shut", True)]


def test_a_trace_says_the_tier_that_decided_and_what_monitoring_ones_would() -> None:
    """A group of a tier in monitor mode is asked at its place among the others: what an earlier step allows it would not drop."""
    run = pool(
        tiered("base", Tier.POOL, rule("no", 25, mandatory=True, direction=OUT), rule("yes", 80, ALLOW, mandatory=True)),
        tiered("watch", Tier.NETWORK, rule("no", 80, mandatory=True), rule("no2", 81, mandatory=True), number=101, mode=PolicyMode.MONITOR, selector=("app=shop",)),
        group("own", Rule("all", IN)), web=("own",),
    )  # fmt: skip
    state = run.state
    run.update(replace(state, vifs=state.vifs | {"web/0": replace(state.vifs["web/0"], labels=("app=shop",))}))
    a, b = run.vif("ops/0"), run.vif("web/0")

    def verdict(source: str, port: int) -> str:
        x, y = (a, b) if source == "ops" else (b, a)
        talk = Talk(End(x.mac, x.addresses[0]), End(y.mac, y.addresses[0]), TCP, port)
        return trace_packet(run, x.id, talk.frame()).verdict

    assert "security group base of tier pool, mandatory, rule no drops" in verdict("ops", 25)
    assert verdict("ops", 80) == "delivered to web/0"
    assert "security group watch of tier network, mandatory, rule no2 would drop it" in verdict("ops", 81)
