"""What each rule of the security groups on this host has matched: the counters of the switch's flows, by the rules' cookies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ovsctl.openflow.errors import OpenFlowError
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.compile import (
    COOKIE_CATEGORY_SHIFT,
    COOKIE_MARK,
    COOKIE_OBJECT_MASK,
    DIRECTIONS,
    FIRST,
    MONITORS,
    REG_GROUP,
    Category,
    HostView,
    Table,
    counted_of,
    rule_cookie,
)
from vnet.db.rule_queries import MonitoredConnection, MonitoredCounter, RuleCounter, RuleQuery, RuleReply
from vnet.objects import Direction, Rule, SecurityGroup, Verdict
from vnet.objects.limits import MONITORED_OF_GROUP

GROUPS = COOKIE_MARK | Category.GROUP << COOKIE_CATEGORY_SHIFT
MONITORED = COOKIE_MARK | Category.MONITOR << COOKIE_CATEGORY_SHIFT
ANY_OBJECT = ~COOKIE_OBJECT_MASK & 2**64 - 1


class RuleCounters:
    """Reads the counters of rules. It raises OpenFlowError where the switch does not answer."""

    def __init__(
        self, view: HostView, flows: BridgeFlows, connections: Callable[[str], tuple[MonitoredConnection, ...]]
    ) -> None:
        """connections: what a group would have forbidden in monitor mode."""
        self._view: Final = view
        self._flows: Final = flows
        self._connections: Final = connections

    async def read(self, groups: Iterable[SecurityGroup]) -> dict[str, tuple[RuleCounter, ...]]:
        """The counters of groups by their names: of each rule, and of each default that does not allow."""
        packets: Counter[tuple[int, Direction]] = Counter()
        sizes: Counter[tuple[int, Direction]] = Counter()
        for flow, count, size in await self._flows.counted(GROUPS, ANY_OBJECT):
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

    async def monitored(self, group: SecurityGroup) -> tuple[MonitoredCounter, ...]:
        """What a group in monitor mode would have forbidden the VIFs here, since their flows are as they are."""
        found: dict[tuple[str, Direction], list[int]] = {}
        members = counted_of(self._view, group)
        for flow, packets, _ in await self._flows.counted(MONITORED, ANY_OBJECT):
            side, number = MONITORS.get(Table(flow.table)), flow.match.get(REG_GROUP)
            vif = members.get(flow.cookie)
            if side is None or vif is None or number is None or number.value != group.number:
                continue
            found.setdefault((vif, side), [0, 0])[flow.priority != FIRST] += packets
        rows = [MonitoredCounter(vif, side, *counts) for (vif, side), counts in found.items()]
        rows.sort(key=lambda row: (-row.begun - row.running, row.vif, row.direction.value))
        return tuple(rows[:MONITORED_OF_GROUP])

    async def answer(self, query: RuleQuery) -> RuleReply:
        """The answer to a controller's question."""
        group = self._view.groups.get(query.group)
        if group is None:
            return RuleReply(problem=f"host {self._view.me} has no VIF in security group {query.group}")
        if not self._flows.connected:
            return RuleReply(problem=f"Open vSwitch of host {self._view.me} does not answer")
        try:
            counters = (await self.read([group]))[group.name]
            if group.enforces:
                return RuleReply(counters)
            connections = self._connections(group.name)
            return RuleReply(counters, await self.monitored(group), connections)
        except OpenFlowError as error:
            return RuleReply(problem=f"Open vSwitch of host {self._view.me}: {error}")


def _judging(group: SecurityGroup) -> Iterator[tuple[Rule | None, Direction, int]]:
    """A group's rules, then for each direction its default unless that allows, with the cookies of their flows."""
    for rule in group.rules:
        yield rule, rule.direction, rule_cookie(group, rule)
    for direction in Direction:
        if group.default(direction) is not Verdict.ALLOW:
            yield None, direction, rule_cookie(group)
