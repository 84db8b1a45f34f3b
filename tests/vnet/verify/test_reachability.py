"""Reachability by classes is what trying every pair gives; a change is told as what it changes."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.vnet.sim.pools import two_hosts
from tests.vnet.sim.random_pools import random_groups, random_state
from vnet.objects import Direction, LockingMode, PoolState, PortRange, Protocol, Rule, SecurityGroup
from vnet.sim import SimPool
from vnet.sim.bindings import bound, settled
from vnet.sim.conversation import party, reaches
from vnet.verify import picture
from vnet.verify.change_scope import affected
from vnet.verify.differential_reachability import differences
from vnet.verify.reachability import Reachability


def brute(pool: SimPool, protocol: Protocol, port: int) -> dict[tuple[str, str], bool]:
    vifs = list(pool.state.vifs.values())
    return {
        (a.id, b.id): reaches(pool, party(pool, a), party(pool, b), protocol, port)
        for a in vifs
        for b in vifs
        if a.id != b.id
    }


def moved(rng: Random, pool: SimPool) -> SimPool:
    """The pool, perhaps with a VM on its way."""
    vms = [vif.vm for vif in pool.state.vifs.values() if vif.vm and pool.runs_on(vif)]
    if vms and rng.random() < 0.5:
        vm = rng.choice(vms)
        others = [host for host in pool.hosts if host != pool.runs_on(pool.vifs_of(vm)[0])]
        if others:
            pool.prepare(vm, rng.choice(others))
            for step in [pool.switch, pool.activate][: rng.randint(0, 2)]:
                step(vm)
    return SimPool.of(pool.state)


@examples(60)
@given(st.randoms(use_true_random=False), st.sampled_from(((Protocol.ICMP, 0), (Protocol.TCP, 443))))
def test_classes_equal_brute_force(rng: Random, what: tuple[Protocol, int]) -> None:
    pool = moved(rng, SimPool.of(random_state(rng)))
    reach = Reachability(pool, *what)
    by_class = {
        (a.id, b.id): reach.reaches(a, b)
        for a in pool.state.vifs.values()
        for b in pool.state.vifs.values()
        if a.id != b.id
    }
    assert by_class == brute(SimPool.of(pool.state), *what)


def expanded(state: PoolState, other: PoolState, protocol: Protocol, port: int) -> set[tuple[bool, str, str]]:
    before, after = (brute(SimPool.of(s), protocol, port) for s in (state, other))
    pairs = before.keys() | after.keys()
    return {(after.get(pair, False), *pair) for pair in pairs if before.get(pair, False) is not after.get(pair, False)}


def changed(rng: Random, state: PoolState) -> PoolState:
    """The pool with one thing changed."""
    what = rng.choice(("vif", "gone", "network", "host", "binding", "groups", "members", "members"))
    if what == "groups":
        groups = {name: group for name, group in random_groups(rng).items() if name in state.groups}
        return replace(state, groups={**state.groups, **groups})
    if what == "network":
        name = rng.choice(list(state.networks))
        return replace(state, networks={**state.networks, name: replace(state.networks[name], mtu=600)})
    if what == "host":
        name = rng.choice(list(state.hosts))
        return replace(state, hosts={**state.hosts, name: replace(state.hosts[name], address=None)})
    if what == "binding" and state.bindings:
        lost = rng.choice(list(state.bindings))
        return replace(state, bindings={key: b for key, b in state.bindings.items() if key != lost})
    vifs = dict(state.vifs)
    name = rng.choice(list(vifs))
    if what == "gone":
        del vifs[name]
    elif what == "members":
        groups = sorted(rng.sample(sorted(state.groups), rng.randint(0, len(state.groups))))
        vifs[name] = replace(vifs[name], groups=tuple(groups) if vifs[name].trunk is None else ())
    else:
        vifs[name] = replace(vifs[name], locking_mode=rng.choice(list(LockingMode)), host=rng.choice(list(state.hosts)))
    return replace(state, vifs=vifs)


def told_of(what: str, protocol: Protocol, port: int) -> bool:
    """Whether what a difference says is about this port."""
    name, _, ports = what.partition(" ")
    if name != ("ping" if protocol is Protocol.ICMP else protocol.value):
        return False
    return not ports or any(int(span.split("-")[0]) <= port <= int(span.split("-")[-1]) for span in ports.split(", "))


@examples(80)
@given(st.randoms(use_true_random=False))
def test_differences_are_exact(rng: Random) -> None:
    state = random_state(rng)
    other = changed(rng, state)
    # Bindings follow their VIFs, as they do once agents have heard.
    told = differences(bound(state), settled(bound(other)))
    for protocol, port in ((Protocol.ICMP, 0), (Protocol.TCP, rng.choice((21, 22, 443, 444))), (Protocol.UDP, 53)):
        said = [d for d in told if any(told_of(what, protocol, port) for what in d.services)]
        pairs = [(d.gained, a, b) for d in said for a in d.sources for b in d.targets if a != b]
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == expanded(bound(state), settled(bound(other)), protocol, port)


def test_what_did_not_change_is_not_looked_at() -> None:
    state = two_hosts().configured
    name = "web1/0"
    vifs = {**state.vifs, name: replace(state.vifs[name], locking_mode=LockingMode.DISABLED)}
    before, after = affected(state, replace(state, vifs=vifs))
    assert set(before.networks) == set(after.networks) == {state.vifs[name].network}
    assert affected(state, state)[0].vifs == {}


def test_equal_vifs_are_one_class() -> None:
    pool = two_hosts()
    sizes = {group.name: len(group.vifs) for group in Reachability(pool).classes}
    assert sizes["tenant (3: db1/0, ...)"] == 3


def test_difference_says_who_and_what() -> None:
    pool = two_hosts()
    off = dict(pool.state.vifs)
    off["db1/0"] = replace(off["db1/0"], locking_mode=LockingMode.DISABLED)
    told = differences(pool.state, replace(pool.state, vifs=off))
    assert sorted(map(str, told)) == [
        "- db1/0 no longer reaches web1/0, web2/0 (ping; tcp; udp)",
        "- web1/0, web2/0 no longer reaches db1/0 (ping; tcp; udp)",
    ]


def test_difference_names_the_ports() -> None:
    pool = two_hosts()
    vifs = {name: replace(vif, groups=("g",)) if name == "db1/0" else vif for name, vif in pool.configured.vifs.items()}

    def with_rules(*ports: PortRange) -> PoolState:
        rule = Rule("r", Direction.INGRESS, protocol=Protocol.TCP, ports=ports)
        return replace(pool.configured, vifs=vifs, groups={"g": SecurityGroup("g", 1, rules=(rule,))})

    told = differences(
        with_rules(PortRange(80, 90)), with_rules(PortRange(80, 80), PortRange(85, 99), PortRange(443, 443))
    )
    assert sorted(map(str, told)) == [
        "+ web1/0, web2/0 reaches db1/0 (tcp 91-99, 443)",
        "- web1/0, web2/0 no longer reaches db1/0 (tcp 81-84)",
    ]


def test_pictures_say_what_the_matrix_says() -> None:
    reach = Reachability(two_hosts())
    yes = sum(map(sum, reach.matrix()))
    root = ElementTree.fromstring(picture.svg(reach))
    fills = [cell.get("fill") for cell in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert fills.count(picture.YES) == yes
    assert len(fills) == len(reach.classes) ** 2
    rows = picture.table(reach).splitlines()[1:]
    assert sum(row.split()[-len(rows) :].count("+") for row in rows) == yes
    assert "<svg" in picture.html(reach, "lab & co")
    assert "lab &amp; co" in picture.html(reach, "lab & co")
