"""Writes a line of the agent's log for a packet that a rule logs (vnet/compile/rule_log.py).

One rule: a rule writes at most LOGGED_OF_RULE lines a second; its next line says how many were left out.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from ovsctl.openflow.messages import PacketIn
from vnet.agent.token_bucket import TokenBucket
from vnet.agent.traced_frames import TracedFrames
from vnet.compile import REG_LOG, HostView, LogEntry, Logged, entry_of
from vnet.objects.limits import LOGGED_OF_RULE
from vnet.util.logs import about

log = logging.getLogger(__name__)

MAX_KNOWN = 4096  # rules whose lines are limited; rules come and go


class RuleLog:
    """The lines about packets. counts: those that were written, and those that were left out. clock: nanoseconds."""

    def __init__(self, view: HostView, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._view: Final = view
        self._clock: Final = clock
        self._buckets: Final[dict[tuple[str, str], TokenBucket]] = {}
        self._left_out: Final[Counter[tuple[str, str]]] = Counter()
        self.traced: Final = TracedFrames()
        self.counts: Final[Counter[str]] = Counter()

    def packet_in(self, message: PacketIn) -> None:
        """Takes a packet that a rule logs."""
        tag = message.match.get(REG_LOG)
        if tag is None or self.traced.takes(message.data):
            return
        entry = entry_of(self._view, Logged(message.userdata, tag.value, message.data))
        if entry is not None:
            self.write(entry)

    def write(self, entry: LogEntry) -> None:
        """Writes a line, unless its rule has had so many of late."""
        rule = (entry.group, entry.rule)
        if len(self._buckets) >= MAX_KNOWN:
            self._buckets.clear()
            self._left_out.clear()
        if not self._buckets.setdefault(rule, TokenBucket(LOGGED_OF_RULE, self._clock)).admits():
            self._left_out[rule] += 1
            self.counts["left out"] += 1
            return
        self.counts["written"] += 1
        left_out = self._left_out.pop(rule, 0)
        text = "%s %s: %s %s > %s"
        log.info(
            text, entry.direction, entry.action, entry.protocol, entry.source, entry.target,
            extra=about(vif=entry.vif, network=entry.network, vm=entry.vm, group=entry.group, tier=entry.tier, rule=entry.rule,
                        place=entry.place, left_out=left_out or None),
        )  # fmt: skip
