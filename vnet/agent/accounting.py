"""What VIFs have sent and got on this host: read from the counters of their own flows (vnet/compile/accounting.py), and kept in the pool database.

One rule: a counter counts once. What is written says up to where its flows had counted, in the same transaction; a flow that goes tells its last counters.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from ovsctl.openflow import Flow
from ovsctl.openflow.errors import OpenFlowError
from ovsctl.openflow.flow import FlowEntry, FlowFlags, FlowStats
from ovsctl.openflow.messages import FlowRemoved
from ovsctl.ovsdb import Delete, Insert, Mutate, Operation, OvsdbClient, OvsdbError, Select, Update, WaitTimedOut
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.compile import COOKIE_MARK, COOKIE_MARK_MASK, Category, FlowKey, HostView, Table, cookie, lane_of
from vnet.db.accounting import FIELDS, ZERO, Counts, HostAccount, encoded, exchanged, minus, plus
from vnet.db.rows import from_row, to_columns
from vnet.objects import InvalidValue

log = logging.getLogger(__name__)

READ_S = 10.0
WRITE_S = 60.0
GONE_S = 1.0  # after flows went, so that those of many VIFs are written together
TABLES = (Table.SENT, Table.DELIVER)
TABLE = HostAccount.NOUN.table


@dataclass(frozen=True, slots=True)
class CountedFlow:
    """A flow as it was read last. number: its VIF's cookie."""

    number: int
    counts: Counts


def counts_of(flow: Flow, stats: FlowStats) -> Counts:
    """What a flow has counted, in the place of what it counts."""
    at, found = 2 * lane_of(flow), list(ZERO)
    found[at : at + 2] = stats.packets or 0, stats.bytes or 0
    return tuple(found)


def grown(before: Counts, now: Counts) -> Counts:
    """What has come to counters that may have begun anew. Those that have, and have come further than before, count too little."""
    found: list[int] = []
    for at in range(0, len(FIELDS), 2):
        (packets, size), (first, second) = before[at : at + 2], now[at : at + 2]
        anew = first < packets or second < size
        found += (first, second) if anew else (first - packets, second - size)
    return tuple(found)


class Ledger:
    """The counts of this host's VIFs by their cookies. pending: what is not in the database yet."""

    def __init__(self) -> None:
        self.pending: Final[dict[int, Counts]] = {}
        self._flows: Final[dict[FlowKey, CountedFlow]] = {}
        self._gone: Final[set[FlowKey]] = set()  # since the read that is under way began
        self._found: dict[int, Counts] | None = None  # by the first read: the database may have some of it

    def begin(self) -> None:
        """The switch is asked now."""
        self._gone.clear()

    def read(self, entries: Iterable[FlowEntry], *, anew: bool) -> None:
        """Takes what the switch has answered. anew: it has none of the flows any more that it had at the read before."""
        if anew:
            self._flows.clear()
        seen: dict[FlowKey, CountedFlow] = {}
        for flow, stats in entries:
            if not flow.flags & FlowFlags.SEND_FLOW_REM or flow.key in self._gone:
                continue
            # A flow that was added anew under its key, also as another VIF's, has the counts of the former.
            now, before = CountedFlow(flow.cookie, counts_of(flow, stats)), self._flows.get(flow.key)
            self._add(now.number, grown(before.counts, now.counts) if before is not None else now.counts)
            seen[flow.key] = now
        self._flows.clear()
        self._flows.update(seen)
        if self._found is None:
            self._found = dict(self.pending)
            self.pending.clear()

    def removed(self, flow: Flow, stats: FlowStats) -> None:
        """A flow went, with these counters."""
        self._gone.add(flow.key)
        before = self._flows.pop(flow.key, None)
        last = counts_of(flow, stats)
        self._add(flow.cookie, grown(before.counts, last) if before is not None else last)

    def _add(self, number: int, counts: Counts) -> None:
        if any(counts):
            self.pending[number] = plus(self.pending.get(number, ZERO), counts)

    def begun_from(self, known: Mapping[int, Counts]) -> None:
        """Of what the first read found the database has this, from before this agent. Only the first call says it."""
        found, self._found = self._found or {}, {}
        for number, counts in found.items():
            self._add(number, grown(known.get(number, ZERO), counts))

    @property
    def has_begun(self) -> bool:
        """Whether the switch was read."""
        return self._found is not None

    @property
    def counters(self) -> dict[int, Counts]:
        """What the flows that are there have counted, by VIF."""
        found: dict[int, Counts] = {}
        for it in self._flows.values():
            found[it.number] = plus(found.get(it.number, ZERO), it.counts)
        return found

    def written(self, counts: Mapping[int, Counts]) -> None:
        """The database has these of what was pending."""
        for number, written in counts.items():
            left = minus(self.pending.get(number, ZERO), written)
            self.pending.pop(number, None)
            self._add(number, left)


class Accounting:
    """Reads counters and keeps them. clock: seconds that only grow, those of the loop. now_ms: milliseconds since 1970. write_s: how often it writes."""

    def __init__(
        self,
        view: HostView,
        flows: BridgeFlows,
        client: OvsdbClient,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
        write_s: float = WRITE_S,
    ) -> None:
        self.ledger: Final = Ledger()
        self._view: Final = view
        self._flows: Final = flows
        self._client: Final = client
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._read_s: Final = min(READ_S, write_s)
        self._write_s: Final = write_s
        self._row = HostAccount(view.me)  # as it was last known
        self._sure = False  # whether it is so still
        self._attempts: Final[
            dict[tuple[int, int], Mapping[int, Counts]]
        ] = {}  # writes that are not known to be done or not
        self._lost_s: float | None = None  # when the connection was lost, since the last read
        self._vifs: Final[dict[int, str]] = {}  # by cookie
        self._departed: Final = asyncio.Event()

    def removed(self, message: FlowRemoved) -> None:
        """A flow that counts went."""
        if message.flow.table in TABLES:
            self._name(self._view.ports)
            self.ledger.removed(message.flow, message.stats)
            self._departed.set()

    def lost(self) -> None:
        """The connection to the switch is lost: it may have none of the flows any more that it had."""
        self._lost_s = self._clock()

    def _name(self, vifs: Iterable[str]) -> None:
        for vif in vifs:
            self._vifs.setdefault(cookie(Category.VIF, vif), vif)

    def _forget(self) -> None:
        """Forgets the names of VIFs that are not here and have no account here."""
        used = self.ledger.pending.keys() | self.ledger.counters.keys()
        for number, vif in list(self._vifs.items()):
            if number not in used and vif not in self._view.ports and vif not in self._row.counted:
                del self._vifs[number]

    def totals(self) -> dict[str, Counts]:
        """What this host has counted of VIFs, as far as it has read it, and no other row has taken it over."""
        found = {vif: self._row.of(vif)[0] for vif in self._row.counted}
        for number, counts in self.ledger.pending.items():
            if (vif := self._vifs.get(number)) is not None:
                found[vif] = plus(found.get(vif, ZERO), counts)
        return found

    async def run(self) -> None:
        """Reads and writes until cancelled."""
        write_at_s = self._clock() + self._write_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._read_s):
                    await self._departed.wait()
            departed = self._departed.is_set()
            if departed:
                await asyncio.sleep(GONE_S)
            self._departed.clear()
            await self.read()
            if departed or self._clock() >= write_at_s:
                if not await self.write():
                    self._departed.set()  # to be tried again soon
                write_at_s = self._clock() + self._write_s

    async def read(self) -> None:
        """Reads the counters, unless the switch is away."""
        begun_s, lost_s = self._clock(), self._lost_s
        self.ledger.begin()
        try:
            # Also the flow for frames that no VIF's flow counts, which stays while the switch runs.
            entries = [
                entry for table in TABLES for entry in await self._flows.entries(COOKIE_MARK, COOKIE_MARK_MASK, table)
            ]
        except OpenFlowError as error:
            log.debug("counters are not read: %s", error)
            return
        self._name(self._view.ports)
        anew = lost_s is not None and all(
            entry.stats.duration_s is not None and entry.stats.duration_s < begun_s - lost_s for entry in entries
        )
        if self._lost_s == lost_s:  # else it was lost again since this read began
            self._lost_s = None
        self.ledger.read(entries, anew=anew)
        self._forget()

    async def write(self) -> bool:
        """Writes what has come since, in one transaction. Whether that needs not be tried again soon."""
        if not self._client.connected or TABLE not in self._client.schema.tables or not self.ledger.has_begun:
            return True  # not reached yet, or a database of a former version: there is time
        try:
            if not self._sure:
                await self._load()
            row, operations, counts = self._next()
            if not operations:
                return True
            self._sure = False
            self._attempts[row.serial, row.written] = counts
            await self._client.transact(*operations)
        except WaitTimedOut:
            return False  # the leader has written the row, or an attempt has come late: it is read anew
        except OvsdbError as error:
            log.debug("counts are not written yet: %s", error)
            return True  # with the next ones
        self._is(row)
        return True

    async def _load(self) -> None:
        """Reads this host's row. Raises OvsdbError."""
        (rows,) = await self._client.transact(Select(TABLE, (("host", "==", self._view.me),)))
        row = HostAccount(self._view.me)
        try:
            row = from_row(HostAccount, rows[0]) if rows else row
        except InvalidValue as error:
            log.warning("this host's account is damaged, and begins anew: %s", error)
        self._name(row.counted)
        self._is(row)
        self.ledger.begun_from({cookie(Category.VIF, vif): minus(*row.of(vif)) for vif in row.counted})

    def _is(self, row: HostAccount) -> None:
        """The row is so in the database."""
        self._row, self._sure = row, True
        if (counts := self._attempts.get((row.serial, row.written))) is not None:
            self.ledger.written(counts)
        for attempt in [it for it in self._attempts if it[0] <= row.serial]:
            del self._attempts[attempt]

    def _next(self) -> tuple[HostAccount, list[Operation], dict[int, Counts]]:
        """The row as it is to be, the operations that make it so, and what of the pending counts it has then."""
        row, counters = self._row, self.ledger.counters
        for number in self.ledger.pending.keys() - self._vifs.keys() - counters.keys():
            self.ledger.pending.pop(number)  # of a VIF that came and went, and nobody knows
        pending = {number: it for number, it in self.ledger.pending.items() if number in self._vifs}
        counted: dict[str, str] = {}
        base: dict[str, str] = {}
        gone: set[str] = set()
        numbers = {cookie(Category.VIF, vif) for vif in row.counted} | pending.keys() | counters.keys()
        for number in sorted(numbers & self._vifs.keys()):
            vif, raw = self._vifs[number], counters.get(number, ZERO)
            total = plus(row.of(vif)[0], pending.get(number, ZERO))
            texts = encoded(total), encoded(minus(total, raw))
            if not any(total) and not any(raw):
                gone |= {vif} & row.counted.keys()
            elif texts != (row.counted.get(vif), row.base.get(vif)):
                counted[vif], base[vif] = texts
        if not counted and not gone:
            return row, [], {}
        serial, written = row.serial + 1, max(self._now_ms(), row.written + 1)
        left = {
            column: {**kept, **new}
            for column, kept, new in (("counted", row.counted, counted), ("base", row.base, base))
        }
        for column in left.values():
            for vif in gone:
                column.pop(vif, None)
        made = replace(row, serial=serial, written=written, counted=left["counted"], base=left["base"])
        mine = (("host", "==", row.host),)
        if not row.serial:  # there is none, or none that can be read
            return made, [Delete(TABLE, mine), Insert(TABLE, to_columns(made))], pending
        changes = tuple(exchanged(counted, base, frozenset(gone)))
        stamp = Update(TABLE, mine, {"serial": serial, "written": written})
        return made, [row.unchanged, Mutate(TABLE, mine, changes), stamp], pending
