"""What each rule of the security groups on this host has matched: the counters of the switch's flows, by the rules' cookies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from ovsctl.openflow.errors import OpenFlowError
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.compile import (
    COOKIE_CATEGORY_SHIFT,
    COOKIE_MARK,
    COOKIE_OBJECT_MASK,
    DIRECTIONS,
    Category,
    HostView,
    rule_cookie,
)
from vnet.db.rule_queries import RuleCounter, RuleQuery, RuleReply
from vnet.objects import Direction, Rule, SecurityGroup, Verdict

GROUPS = COOKIE_MARK | Category.GROUP << COOKIE_CATEGORY_SHIFT


class RuleCounters:
    """Reads the counters of rules. It raises OpenFlowError where the switch does not answer."""

    def __init__(self, view: HostView, flows: BridgeFlows) -> None:
        self._view: Final = view
        self._flows: Final = flows

    async def read(self, groups: Iterable[SecurityGroup]) -> dict[str, tuple[RuleCounter, ...]]:
        """The counters of groups by their names: of each rule, and of each default that does not allow."""
        packets: Counter[tuple[int, Direction]] = Counter()
        sizes: Counter[tuple[int, Direction]] = Counter()
        for flow, count, size in await self._flows.counted(GROUPS, ~COOKIE_OBJECT_MASK & 2**64 - 1):
            if (side := DIRECTIONS.get(flow.table)) is not None:
                packets[flow.cookie, side] += count
                sizes[flow.cookie, side] += size
        return {
            group.name: tuple(
                RuleCounter(rule.name if rule is not None else "", side, packets[mark, side], sizes[mark, side])
                for rule, side, mark in _judging(group)
            )
            for group in groups
        }

    async def answer(self, query: RuleQuery) -> str:
        """The answer to a controller's question, for its row."""
        group = self._view.groups.get(query.group)
        if group is None:
            return no_reply(f"host {self._view.me} has no VIF in security group {query.group}")
        if not self._flows.connected:
            return no_reply(f"Open vSwitch of host {self._view.me} does not answer")
        try:
            return RuleReply((await self.read([group]))[group.name]).encode()
        except OpenFlowError as error:
            return no_reply(f"Open vSwitch of host {self._view.me}: {error}")


def no_reply(problem: str) -> str:
    """The answer that there is none, and why, for its row."""
    return RuleReply(problem=problem).encode()


def _judging(group: SecurityGroup) -> Iterator[tuple[Rule | None, Direction, int]]:
    """A group's rules, then for each direction its default unless that allows, with the cookies of their flows."""
    for rule in group.rules:
        yield rule, rule.direction, rule_cookie(group, rule)
    for direction in Direction:
        if group.default(direction) is not Verdict.ALLOW:
            yield None, direction, rule_cookie(group)
