"""Asking hosts what the rules of a security group have matched, and adding it up. One rule: a host that is missing in the sum is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from uuid import uuid4

from vnet import api
from vnet.controller import questions
from vnet.controller.admission import find
from vnet.controller.endpoint import Call
from vnet.controller.ofproto_trace_rpc import MAX_WAIT_S
from vnet.controller.service import refusing_pool_errors
from vnet.db.database import now_ms
from vnet.db.rule_queries import RuleQuery, RuleReply
from vnet.db.view import PoolView
from vnet.objects import Direction, SecurityGroup, Verdict
from vnet.objects.tiers import all_obeyed

DEFAULT_WAIT_S = 5
Counted = tuple[str, Direction]  # a rule's name, or with an empty one a direction's default


async def count(call: Call[None]) -> api.GroupCounters:
    """What each rule has matched, summed over the hosts, with those that are missing in the sum.

    Raises Invalid, NotFound, Unavailable.
    """
    view = call.service.view()
    group = find("security-group", call.id, view.state.groups)
    replies, missing = await ask(call, view, group.name)
    return api.GroupCounters(
        security_group=group.name,
        rules=list(summed(group, replies)),
        hosts=sorted(replies.keys() - missing.keys()),
        missing=missing,
    )


async def ask(call: Call[None], view: PoolView, group: str) -> tuple[dict[str, RuleReply], dict[str, str]]:
    """What the hosts that have VIFs in a group answer about it, and the reasons of those that do not, by host. Raises Invalid, Unavailable."""
    wait_s = call.number("wait_s", DEFAULT_WAIT_S, 0, int(MAX_WAIT_S))
    queries = [RuleQuery(str(uuid4()), host, now_ms(), group) for host in hosts_of(view, group)]
    with refusing_pool_errors():
        async with call.service.counting:
            found = await questions.ask(call.service.database, view, queries, RuleReply, wait_s)
    replies = {query.host: reply for query, reply in zip(queries, found, strict=True)}
    return replies, {host: reply.problem for host, reply in replies.items() if reply.problem}


def hosts_of(view: PoolView, group: str) -> list[str]:
    """The hosts that count for a group: those with bindings of VIFs that are in it."""
    judging = all_obeyed(view.state)
    found = {at.host for at in view.state.bindings.values() if group in at.groups or group in judging.get(at.vif, ())}
    return sorted(found)


def summed(group: SecurityGroup, replies: Mapping[str, RuleReply]) -> Iterator[api.RuleCount]:
    """The sums of a group's rules, then of its defaults that do not allow."""
    packets: Counter[Counted] = Counter()
    sizes: Counter[Counted] = Counter()
    for counter in (counter for reply in replies.values() for counter in reply.counters):
        packets[counter.rule, counter.direction] += counter.packets
        sizes[counter.rule, counter.direction] += counter.bytes
    defaults = [("", side) for side in Direction if group.default(side) is not Verdict.ALLOW]
    for name, side in (*((rule.name, rule.direction) for rule in group.rules), *defaults):
        action = group.action(name, side).value
        yield api.RuleCount(
            rule=name,
            tier=group.step_of(name),
            direction=side.value,
            action=action,
            packets=packets[name, side],
            bytes=sizes[name, side],
        )
