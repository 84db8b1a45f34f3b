"""The claim of an agent to be its host's: of two agents that were started as one host, one is and the other stands by.

One rule: an agent touches neither its switch nor the pool before the host's row in table Agent names its switch. A row that names
another switch is taken over only once its agent has been silent; each write that claims anything holds only while the row is ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ovsctl.ovsdb import Operation, OvsdbClient, OvsdbError, Row, Select, Uuid, WaitTimedOut, by_uuid
from vnet.agent import transactions
from vnet.agent.pool_identity import AS_FOLLOWED
from vnet.objects import AgentStatus, Event
from vnet.util.logs import about

log = logging.getLogger(__name__)

LOOK_S = 5.0
# How long the agent of another switch must be silent before its host is taken over: one that died before this one was started, as
# when a machine was replaced, and one that this one has heard, which may only be cut off.
SILENT_S, HEARD_SILENT_S = 15.0, 60.0
QUIET_BEATS = 3  # heartbeats after which a rival that has written nothing is gone


class DisplacedAgent(Exception):
    """An agent of another switch is this host's now."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The row of the agent that is the host's. machine: the name of the machine that it runs on."""

    row: Uuid
    switch: str
    machine: str
    heartbeat: int

    def __str__(self) -> str:
        return f"switch {self.switch} on machine {self.machine}"


@dataclass(frozen=True, slots=True)
class ClaimState:
    """status: this agent's, without what changes while it is the host's. held: whether it has been the host's. holder: the agent that is, while this one stands by.
    presumed: whether its copy of the pool says that it was. note: the last that a rival wrote; quiet: heartbeats since."""

    status: AgentStatus
    held: bool = False
    presumed: bool = False
    holder: str = ""
    note: str = ""
    quiet: int = 0

    @property
    def rival(self) -> str:
        """Another agent that was started as this host, and stands by; "" for none."""
        return self.note.rpartition(" (")[0] if self.quiet < QUIET_BEATS else ""

    def heard(self, note: str) -> ClaimState:
        return replace(self, note=note, quiet=0 if note != self.note else self.quiet + 1)


class HostClaim:
    """Takes the host, and notices another agent that wants it. fenced: one that is only cut off from the pool learns from the switch that it is the host's no more."""

    def __init__(
        self, client: OvsdbClient, status: AgentStatus, now_ms: Callable[[], int], *, fenced: bool = False
    ) -> None:
        self._client: Final = client
        self._now_ms: Final = now_ms
        self._fenced: Final = fenced
        self._state = ClaimState(status)

    @property
    def status(self) -> AgentStatus:
        """This agent's, without what changes while it is the host's."""
        return self._state.status

    @property
    def rival(self) -> str:
        return self._state.rival

    @property
    def holder(self) -> str:
        """The agent that is this host's while this one stands by; "" if it does not."""
        return self._state.holder

    async def begin(self, switch: str) -> None:
        """Returns once the agent of this switch is the host's."""
        self._state = ClaimState(replace(self.status, switch=switch))
        await self.take()

    def presume(self, switch: str) -> None:
        """Takes the agent of this switch for the host's, as it was when it wrote its copy of the pool. If it is not, `take` says so."""
        self._state = ClaimState(replace(self.status, switch=switch), presumed=True)

    @property
    def guard(self) -> Operation:
        """Lets a transaction hold only while no agent of another switch is this host's."""
        return transactions.is_ours(self.status)

    async def take(self) -> Uuid:
        """The row of this agent's status, once it is this host's agent. Raises DisplacedAgent if it was and no longer is."""
        clock = asyncio.get_running_loop().time
        seen: Holder | None = None
        since, heard, looks = clock(), False, 0
        while True:
            try:
                holder = await self._holder()
                if holder is None or holder.switch in ("", self.status.switch):
                    return await self._write(holder)
                if self._state.held or self._state.presumed:
                    raise DisplacedAgent(f"host {self.status.host} is that of {holder}")
                if seen is None or holder.heartbeat != seen.heartbeat:
                    heard = heard or (seen is not None and holder.heartbeat != 0)  # 0: the database was restarted
                    seen, since = holder, clock()
                elif clock() - since >= (HEARD_SILENT_S if heard and not self._fenced else SILENT_S):
                    return await self._write(holder)
                await self._stand_by(holder, looks)
                looks += 1
            except WaitTimedOut:
                continue  # another agent was faster, or reports again
            except OvsdbError as error:
                log.info("host not claimed yet: %s", error)
                await self._client.wait_connected()
                since = clock()  # the other agent may not have reached the pool either
            await asyncio.sleep(LOOK_S)

    async def _holder(self) -> Holder | None:
        columns = ("_uuid", "switch", "machine", "heartbeat")
        (rows,) = await self._client.transact(Select("Agent", (("host", "==", self.status.host),), columns))
        return Holder(*(rows[0][name] for name in columns)) if rows else None

    async def _write(self, holder: Holder | None) -> Uuid:
        if holder is not None and self._state.held:
            return holder.row
        seen = None if holder is None else (holder.row, holder.switch, holder.heartbeat)
        operations = transactions.take_host(replace(self.status, heartbeat=self._now_ms()), seen)
        if holder is not None and holder.switch not in ("", self.status.switch):
            text = f"host {self.status.host} is that of {self.me} now: the agent of {holder} is silent"
            log.warning(text, extra=about(host=self.status.host))
            operations.insert(0, transactions.event(Event(self._now_ms(), "problem", text, self.status.host)))
        results = await self._client.transact(*operations)
        self._state = replace(self._state, held=True, holder="")
        row: Uuid = results[-1] if holder is None else holder.row
        return row

    async def _stand_by(self, holder: Holder, looks: int) -> None:
        """Writes to the agent that is the host's, which reports it."""
        self._state = replace(self._state, holder=str(holder))
        text = f"the agent of {self.me} stands by: host {self.status.host} is that of {holder}, whose agent reports"
        operations = [transactions.some_status(holder.row, {"rival": f"{self.me} ({looks})"})]
        if not looks:
            log.warning(text, extra=about(host=self.status.host))
            operations.append(transactions.event(Event(self._now_ms(), "refused", text, self.status.host)))
        await self._client.transact(*operations)

    @property
    def me(self) -> str:
        return f"switch {self.status.switch} on machine {self.status.machine}"

    @property
    def problem(self) -> str:
        """The problem that another agent wants to be this host's, "" for none."""
        return (
            f"another agent, of {self.rival}, was started as this host and stands by; this one is of {self.me}"
            if self.rival
            else ""
        )

    async def beat(self, row: Uuid) -> tuple[Row | None, list[Row]]:
        """Reports that this host lives, and reads whether another agent wants to be it. Returns the row, None if it is gone, and the pool's
        row."""
        beat = transactions.some_status(row, {"heartbeat": self._now_ms()})
        _, _, rows, pool = await self._client.transact(
            self.guard, beat, Select("Agent", by_uuid(row), transactions.REPORTED), AS_FOLLOWED
        )
        self._state = self._state.heard(rows[0]["rival"] if rows else "")
        ours = rows and rows[0]["host"] == self.status.host  # else no host may write the row
        return (rows[0] if ours else None), pool
