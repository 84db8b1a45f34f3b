"""What groups in monitor mode would have forbidden the VIFs of this host (vnet/compile/monitoring.py), by kinds of connections.

One rule: of a VIF a group keeps MONITORED_OF_VIF kinds; a new one takes the place of the one that was seen least, so that what floods costs no
memory, and what goes on is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from ovsctl.openflow.messages import PacketIn
from vnet.agent.rule_log import RuleLog
from vnet.agent.traced_frames import TracedFrames
from vnet.compile import REG_LOG, HostView, Logged, WouldForbid, would_forbid
from vnet.db.rule_queries import MonitoredConnection
from vnet.objects.limits import MONITORED_OF_GROUP, MONITORED_OF_VIF


@dataclass(frozen=True, slots=True)
class _Seen:
    found: WouldForbid
    count: int
    last: int


class Monitoring:
    """Keeps, and has logged, what groups in monitor mode would forbid. counts: packets that were taken, and kinds that were given up.
    now_ms: milliseconds since 1970."""

    def __init__(self, view: HostView, lines: RuleLog, now_ms: Callable[[], int]) -> None:
        self._view: Final = view
        self._lines: Final = lines
        self._now_ms: Final = now_ms
        self._seen: Final[dict[tuple[str, str], dict[tuple[object, ...], _Seen]]] = {}  # by group and VIF
        self.traced: Final = TracedFrames()
        self.counts: Final[Counter[str]] = Counter()

    def packet_in(self, message: PacketIn) -> None:
        """Takes a packet that a group in monitor mode would drop or reject."""
        tag, state = message.match.get(REG_LOG), message.match.get("ct_state")
        if self.traced.takes(message.data):
            return
        logged = Logged(message.userdata, tag.value if tag is not None else 0, message.data)
        found = would_forbid(self._view, logged, state.value if state is not None else 0)
        if found is None:
            return
        self.counts["taken"] += 1
        self._lines.write(found.line)
        self._keep(found)

    def _keep(self, found: WouldForbid) -> None:
        if (found.group, found.vif) not in self._seen:
            self._forget()
        of_vif = self._seen.setdefault((found.group, found.vif), {})
        kind = (found.rule, found.direction, found.protocol, found.port, found.peer, found.mac, found.answers)
        if (known := of_vif.get(kind)) is not None:
            of_vif[kind] = replace(known, count=known.count + 1, last=self._now_ms())
            return
        if len(of_vif) >= MONITORED_OF_VIF:
            least = min(of_vif, key=lambda each: (of_vif[each].count, of_vif[each].last))
            del of_vif[least]
            self.counts["given up"] += 1
        of_vif[kind] = _Seen(found, 1, self._now_ms())

    def of_group(self, group: str) -> tuple[MonitoredConnection, ...]:
        """What a group would have forbidden, the most frequent first."""
        self._forget()
        rows = sorted(self._rows(group), key=lambda row: row.rank)
        return tuple(rows[:MONITORED_OF_GROUP])

    def _rows(self, group: str) -> Iterator[MonitoredConnection]:
        for (name, vif), kinds in self._seen.items():
            for seen in kinds.values() if name == group else ():
                it = seen.found
                yield MonitoredConnection(
                    vif, it.direction, it.protocol, it.port, it.peer, it.mac, it.rule, seen.count, seen.last, it.answers
                )

    def _forget(self) -> None:
        """Forgets VIFs that are not here, or not in the group, any more."""
        vifs = self._view.vifs
        for group, vif in [
            (group, vif) for group, vif in self._seen if vif not in vifs or group not in self._view.obeyed(vifs[vif])
        ]:
            del self._seen[group, vif]
