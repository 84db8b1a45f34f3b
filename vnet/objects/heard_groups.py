"""What a host has heard of the multicast groups of one of its VIFs, and till when that holds.

One rule: time is an argument. Agents and the twin take each frame by the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vnet.objects.enums import LockingMode
from vnet.objects.multicast import LAST_QUERY_MS, MAX_GROUPS, ROUTER_MS, Listening, is_flooded, kept_ms
from vnet.objects.vif import Vif
from vnet.util.membership_frames import Membership

LAST_CHANCES_MS = 3_000  # before a group is given up, in which it is asked for each second
STARTUP_QUERIES = 2  # a quarter of the interval apart (RFC 3376 §8.6, §8.7)


@dataclass(frozen=True, slots=True)
class HeardGroups:
    """What was heard of a VIF where it runs. Times are milliseconds: known_at, when it will have been asked for long enough; groups, router_until and
    every_until, till when that holds; ask_at, when it is asked next."""

    known_at: int
    ask_at: int
    asked: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)
    router_until: int = 0
    every_until: int = 0

    @classmethod
    def new(cls, known: Listening | None, now_ms: int, interval_s: int) -> HeardGroups:
        """Of a VIF that is here from now on. known: what it listens to, as was heard before or elsewhere."""
        if known is None:
            return cls(now_ms + interval_s * 1000, now_ms)
        until = now_ms + kept_ms(interval_s)
        return cls(
            now_ms,
            now_ms,
            groups=dict.fromkeys(known.groups, until),
            router_until=now_ms + ROUTER_MS if known.router else 0,
            every_until=until if known.every else 0,
        )

    def listening(self, now_ms: int) -> Listening | None:
        """What it listens to by now; None while that is not known."""
        if now_ms < self.known_at:
            return None
        router = now_ms < self.router_until
        if now_ms < self.every_until:
            return Listening((), router, True)
        return Listening(tuple(sorted(group for group, until in self.groups.items() if now_ms < until)), router)

    def after(self, report: Membership, now_ms: int, interval_s: int, vif: Vif) -> HeardGroups:
        """Once a frame was heard. Behind a locked VIF there is one listener, so what it leaves it no longer gets; behind others somebody else may answer."""
        until, groups, every = now_ms + kept_ms(interval_s), dict(self.groups), self.every_until
        for group in report.joined:
            if is_flooded(group):
                continue
            if group in groups or len(groups) < MAX_GROUPS:
                groups[group] = until
            else:
                every = until
        alone = vif.locking_mode is LockingMode.LOCKED
        for group in report.left if alone else ():
            groups.pop(group, None)
        for group in asked_again(report, vif):
            if group in groups:
                groups[group] = min(groups[group], now_ms + LAST_QUERY_MS)
        routes = report.router and (vif.router or not alone)
        router = now_ms + max(ROUTER_MS, kept_ms(interval_s)) if routes else self.router_until
        return replace(self, groups=groups, every_until=every, router_until=router)

    def aged(self, now_ms: int) -> HeardGroups:
        """Without the groups that nobody has reported for long."""
        if all(now_ms < until for until in self.groups.values()):
            return self
        return replace(self, groups={group: until for group, until in self.groups.items() if now_ms < until})

    def expiring(self, now_ms: int) -> tuple[str, ...]:
        """The groups that are given up soon: the VIF is asked for each. It may have kept quiet because it heard another one's report."""
        if now_ms < self.known_at:
            return ()
        return tuple(sorted(group for group, until in self.groups.items() if until - LAST_CHANCES_MS <= now_ms < until))

    def due(self, now_ms: int) -> int:
        """When something is to be done about it next, if nothing is heard till then."""
        found = [self.ask_at, *(at for at in (self.known_at, self.router_until, self.every_until) if at > now_ms)]
        for until in self.groups.values():
            soon = until - LAST_CHANCES_MS
            found.append(soon if soon > now_ms else min(until, now_ms + 1000))
        return min(found)

    def once_asked(self, now_ms: int, interval_s: int) -> HeardGroups:
        pause_ms = interval_s * (1000 if self.asked >= STARTUP_QUERIES - 1 else 250)
        return replace(self, asked=self.asked + 1, ask_at=now_ms + pause_ms)


def asked_again(report: Membership, vif: Vif) -> tuple[str, ...]:
    """The groups that a VIF may have left: it is asked for them."""
    return report.doubtful if vif.locking_mode is LockingMode.LOCKED else (*report.doubtful, *report.left)
