"""Answers of a twin for a caller with a scope. Pure, and never fast: call them in a thread.

One rule: an answer is made of what is the caller's own: its VIFs, and the steps of flows that come from them, from their networks, from its
security groups and from what holds for every network. Nothing is struck out of another answer, so nothing is forgotten in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from vnet import api
from vnet.api.errors import Invalid, NotFound
from vnet.compile import Category
from vnet.controller.twin_answers import conversation, target_of
from vnet.objects import Protocol, Vif
from vnet.sim import SimPool
from vnet.sim.conversation import ends_named
from vnet.sim.errors import AmbiguousVif
from vnet.sim.trace import Hop, Leg, TableStep, Trace, dropping_step, forbidding_steps
from vnet.verify.reachability import Reachability, ReachabilityClass

# What the flows of a step are of, of categories that tell a tenant nothing of others: neither mirrors, captures nor hosts' own affairs.
OF_ALL = frozenset([Category.BASE])
OF_NETWORKS = frozenset([Category.NETWORK, Category.FLOOD, Category.ROUTER, Category.NETWORK_RATE])
OF_VIFS = frozenset([Category.VIF, Category.LOOKUP, Category.PEER, Category.RATE, Category.REJECT])
ELSEWHERE = "elsewhere"


class Own(NamedTuple):
    """The objects of a caller, by their ids and names."""

    vifs: frozenset[str]
    vms: frozenset[str]
    networks: frozenset[str]
    groups: frozenset[str]


def traced(pool: SimPool, body: api.TraceCall, own: Own) -> api.Traced:
    """A conversation of two of the caller's VIFs, or of one and the outside. Raises Invalid, NotFound, SimError."""
    known = {
        "outside",
        *own.vms,
        *own.vifs,
        *(pool.label(pool.state.vifs[id]) for id in own.vifs & pool.state.vifs.keys()),
    }
    for name in (body.source, target_of(body)):
        if name not in known:
            raise _unknown(name)
    try:
        source, target = ends_named(pool, body.source, body.target)
    except AmbiguousVif:
        text = f"{body.source} and {body.target} have several VIFs to choose from: name two"
        raise Invalid("ambiguous", text, "source") from None
    ends = [vif for vif in (source, target) if vif is not None]
    if hidden := [vif for vif in ends if vif.id not in own.vifs]:
        raise _unknown(body.source if hidden[0] is source else body.target)
    return _TenantPart(pool, own, ends).trace(conversation(pool, body, source, target))


def _unknown(name: str) -> NotFound:
    return NotFound("unknown-vif", f"there is no VIF or VM {name[:80]}", name[:80])


class _TenantPart:
    """What a caller is shown of a trace. ends: the VIFs that it is of."""

    def __init__(self, pool: SimPool, own: Own, ends: Collection[Vif]) -> None:
        self._own = own
        self._hosts = {host for vif in ends if (host := pool.runs_on(vif)) is not None}
        self._labels = {pool.label(vif) for vif in ends}

    def trace(self, found: Trace) -> api.Traced:
        failed = found.legs[-1] if found.legs and not found.reached else None
        legs = [self._leg(leg) for leg in found.legs if leg is failed or not leg.aside]
        reason = "" if found.reached else legs[-1].verdict if legs else found.reason
        return api.Traced(title=found.title, reached=found.reached, legs=legs, reason=reason)

    def _leg(self, leg: Leg) -> api.TracedPacket:
        delivered = [name for name in leg.to if name in self._labels]
        answers = [api.TracedAnswer(to=it.to, frame=it.frame.hex()) for it in leg.answers if it.to in self._labels]
        hops = [] if leg.aside else [self._hop(hop, delivered) for hop in leg.hops if self._place(hop) != ELSEWHERE]
        return api.TracedPacket(
            title=leg.title,
            verdict=self._verdict(leg, delivered),
            delivered=delivered,
            hops=hops,
            answers=answers,
            aside=leg.aside,
        )

    def _verdict(self, leg: Leg, delivered: list[str]) -> str:
        if delivered:
            return f"delivered to {', '.join(delivered)}"
        if leg.deliveries:
            return "delivered outside"
        if leg.lost:
            return "lost between hosts"
        end = dropping_step(leg.hops)
        if end is None:
            return "delivered to nobody"
        hop, last = end
        rules = [rule.source for rule in forbidding_steps(last, hop.steps) if self._is_own(rule)]
        cause = " and ".join(rules) or last.wrong
        place = self._place(hop)
        on = f"on {place}" if place != ELSEWHERE else place
        return f"dropped {on} in {last.name}: {f'{cause} ({last.does})' if cause else last.does}"

    def _place(self, hop: Hop) -> str:
        """The host of a bridge that the caller knows of, since a VIF of its own runs there."""
        host = hop.switch.partition(" ")[0]
        return host if host in self._hosts else ELSEWHERE

    def _hop(self, hop: Hop, delivered: list[str]) -> api.TracedHop:
        sent = [
            f"delivered to {name}"
            for name in delivered
            if any(text.endswith(f": delivered to {name}") for text in hop.sent)
        ]
        return api.TracedHop(
            switch=self._place(hop),
            came_in="",
            frame=hop.frame.hex(),
            steps=list(self._steps(hop)),
            sent=sent or (["goes on"] if hop.sent else []),
        )

    def _steps(self, hop: Hop) -> Iterator[api.TracedStep]:
        for step in hop.steps:
            if self._is_own(step):
                yield api.TracedStep(
                    table=step.table,
                    name=step.name,
                    does=step.does,
                    match="",
                    priority=step.priority,
                    source=step.source,
                    place="",
                    wrong=step.wrong,
                    actions=[],
                )

    def _is_own(self, step: TableStep) -> bool:
        """Whether a step's flow comes from an object of the caller, or holds for all."""
        if step.origin is None:
            return False
        category, name, network = step.origin
        if category is Category.GROUP:
            return name in self._own.groups and network in self._own.networks
        if category in OF_NETWORKS:
            return name in self._own.networks
        return category in OF_ALL or (category in OF_VIFS and name in self._own.vifs)


def matrix(pool: SimPool, protocol: Protocol, port: int, own: Own) -> api.ReachabilityMatrix:
    """Who reaches whom among the caller's VIFs."""
    reach = Reachability(pool, protocol, port)
    vifs = {pool.label(vif): vif for vif in pool.state.vifs.values() if vif.id in own.vifs}
    parts = [
        (row, ReachabilityClass(found.network, _hosts(pool, [vifs[name] for name in names]), tuple(names)))
        for row, found in enumerate(reach.classes)
        if (names := [name for name in found.vifs if name in vifs])
    ]
    whole = reach.matrix()
    return api.ReachabilityMatrix(
        protocol=protocol.value,
        port=port,
        classes=[
            api.VifClass(name=part.name, network=part.network, hosts=list(part.hosts), vifs=list(part.vifs))
            for _, part in parts
        ],
        reaches=[[whole[a][b] or (a == b and len(part.vifs) == 1) for b, _ in parts] for a, part in parts],
    )


def _hosts(pool: SimPool, vifs: Collection[Vif]) -> tuple[str, ...]:
    return tuple(sorted({host for vif in vifs if (host := pool.runs_on(vif)) is not None}))
