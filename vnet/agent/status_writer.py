"""What an agent tells the pool once a barrier has answered: bindings ready, others' acknowledged, ones given up, events.

One rule: nothing is said before it is true in the switch. Each thing is said once; after a lost connection, again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from ovsctl.ovsdb import Client, Operation, OutcomeUnknown, OvsdbError, Uuid, Where
from vnet.agent import transactions
from vnet.agent.binding_controller import Bindings
from vnet.agent.pool_replica import PoolFold
from vnet.compile import Role
from vnet.objects import AgentStatus, Binding, BindingState, Event, Way
from vnet.util.logs import about

log = logging.getLogger(__name__)

# The (network, VIF) whose bindings changed, the pool's generation, the security groups whose rules are known.
Taken = tuple[set[tuple[str, str]], int, frozenset[str]]

RETRY_S = 0.5
AGAIN_S = (
    0.1  # after an answer that was lost: it may have been with the cluster's leader, and the next one does it at once
)
WARNINGS = ("drift", "problem", "refused")
EVENT_DELAY_S = 0.05  # an event waits for what is more urgent, and goes along with it
MAX_EVENTS = 200  # waiting to be written; older ones are dropped first


class Reporter:
    """Collects what is true after a push, and writes it in one transaction at a time.

    rows_settled: whether the switch's ports and bridges are as desired too. other_problems: what is wrong besides VIFs.
    switch_answers: whether the switch is there.
    """

    def __init__(
        self,
        pool: PoolFold,
        bindings: Bindings,
        client: Client,
        status: AgentStatus,
        rows_settled: Callable[[], bool],
        other_problems: Callable[[], dict[str, str]],
        now_ms: Callable[[], int],
        switch_answers: Callable[[], bool],
    ) -> None:
        self._pool = pool
        self._bindings = bindings
        self._client = client
        self._status = status
        self._rows_settled = rows_settled
        self._other_problems = other_problems
        self._now_ms = now_ms
        self._switch_answers = switch_answers
        self._events: list[Event] = []
        self._ready: dict[str, tuple[Where, int]] = {}  # VIF id to the row and the epoch that were reported
        self._acked: dict[tuple[str, str], tuple[int, BindingState]] = {}
        self._due: set[tuple[str, str]] = set()
        self._said: AgentStatus | None = None
        self._row: Uuid | None = None  # of the agent's status
        self._wake = asyncio.Event()
        self._programmed_generation = 0
        self._programmed_groups: frozenset[str] = frozenset()
        self.changed: set[tuple[str, str]] = set()  # (network, VIF) whose bindings changed and are not programmed yet
        self._under_way: set[tuple[str, str]] = set()  # those that a push is programming

    def event(self, kind: str, text: str, binding: Binding | None = None, vif: str = "") -> None:
        """Something happened that people should be able to read later."""
        network, vif = (binding.network, binding.vif) if binding else ("", vif)
        fields = about(network=network or None, vif=vif or None, generation=self._pool.generation)
        log.log(logging.WARNING if kind in WARNINGS else logging.INFO, "%s: %s", kind, text, extra=fields)
        self._events.append(Event(self._now_ms(), kind, text, self._pool.me, network, vif))
        del self._events[:-MAX_EVENTS]
        asyncio.get_running_loop().call_later(EVENT_DELAY_S, self._wake.set)

    def soon(self) -> None:
        """There is something to say that waits for no barrier."""
        self._wake.set()

    def take(self) -> Taken:
        """What a push that starts now will have programmed."""
        self._under_way, self.changed = self.changed, set()
        return self._under_way, self._pool.generation, frozenset(self._pool.compiler.view.groups)

    def wait_for_push(self) -> None:
        """A port that networks' frames go through came or went: what is due is true again after the next push."""
        self.changed |= self._due
        self._due = set()

    def programmed(self, taken: Taken) -> None:
        """The push that `taken` was for has been answered by a barrier."""
        self._due |= taken[0]
        self._under_way = set()
        self._programmed_generation = max(self._programmed_generation, taken[1])
        self._programmed_groups = taken[2]
        self._wake.set()

    def not_programmed(self, taken: Taken) -> None:
        """The push failed: what it was for is still to be done."""
        self.changed |= taken[0]
        self._under_way = set()

    async def run(self) -> None:
        """Writes for ever; what is not accepted is tried again."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._write()
            except OvsdbError as error:
                log.info("report not written yet: %s", error)
                self._ready.clear()
                self._acked.clear()
                self._said = self._row = None
                await asyncio.sleep(AGAIN_S if isinstance(error, OutcomeUnknown) else RETRY_S)
                await self._client.wait_connected()
                self._due |= {(b.network, b.vif) for b in self._pool.mine.values()}
                self._wake.set()

    async def _write(self) -> None:
        operations: list[Operation] = []
        later: set[tuple[str, str]] = set()
        # What changed since, such as a port that got its number, is in the view and not in the switch: the next push has it.
        self._due -= self.changed | self._under_way
        for network, vif in self._due:
            due = self._said_of(network, vif)
            if due is None:
                later.add((network, vif))
            else:
                operations += due
        self._due = later
        releases, events = dict(self._bindings.releases), tuple(self._events)
        for binding in releases.values():
            operations.append(transactions.release(binding, self._pool.locate(binding)))
        operations += [transactions.event(event) for event in events]
        status, row = self._current_status(), self._row
        if status != self._said:
            operations += transactions.status(status, row)
        if operations:
            results = await self._client.transact(*operations)
            if row is None:
                self._row = results[-1]
        # Only what was taken is forgotten: after a lost answer it is written again.
        self._said = status if self._row is not None else None
        del self._events[: len(events)]
        for vif, binding in releases.items():
            if self._bindings.releases.get(vif) == binding:
                del self._bindings.releases[vif]

    def _current_status(self) -> AgentStatus:
        problems = {f"vif {vif}": text for vif, text in self._bindings.problems.items()} | self._other_problems()
        generation = self._programmed_generation if self._rows_settled() else (self._said or self._status).generation
        return replace(self._status, generation=generation, problems=problems)

    def _said_of(self, network: str, vif_id: str) -> list[Operation] | None:
        """What can be said of a VIF now that the switch is programmed; None if it must wait for ports of ours."""
        view = self._pool.compiler.view
        operations: list[Operation] = []
        vif = view.vifs.get(vif_id)
        mine = self._pool.mine.get(vif_id)
        if mine is not None and mine.state is BindingState.AWAITED:
            self._ready.pop(vif_id, None)  # it is once its port has come
        elif vif is not None and mine is not None and view.role(vif) in (Role.ACTIVE, Role.INCOMING):
            if self._needs_devices(network):
                return None
            where = self._pool.locate(mine)
            said_before = self._ready.get(vif_id) == (
                where,
                mine.epoch,
            )  # one made anew under the same id has epoch 1 again
            # Without the rules of each of its groups it is silent; it is looked at again when they come.
            if not said_before and self._programmed_groups.issuperset(vif.groups):
                self._ready[vif_id] = where, mine.epoch
                operations.append(transactions.ready(mine, where, self._now_ms()))
        at = view.location(network, vif_id)
        moving = at.incoming if at.incoming else at.current if at.superseded else None
        if moving is not None and moving.host != self._pool.me:
            if self._needs_devices(network):
                return None
            said = (moving.epoch, moving.state)
            if self._acked.get((vif_id, moving.host)) != said:
                self._acked[vif_id, moving.host] = said
                operations.append(transactions.acknowledge(moving, self._pool.locate(moving), self._pool.me))
        if moving is None:
            for key in [key for key in self._acked if key[0] == vif_id]:
                del self._acked[key]
        return operations

    def _needs_devices(self, network: str) -> bool:
        """Whether a tunnel or patch port that the network needs is still on its way."""
        known = self._pool.compiler.view.networks.get(network)
        return known is not None and known.carrier.way is not Way.NONE and not self._rows_settled()

    async def heartbeat(self, period_s: float) -> None:
        """Says for ever that this host lives: not while its switch is away, since then it follows nothing and carries nothing."""
        while True:
            try:
                if self._row is not None and self._switch_answers():
                    beat = transactions.some_status(self._row, {"heartbeat": self._now_ms()})
                    if await self._client.transact(beat) == [0]:  # somebody removed the row
                        self._said = self._row = None
            except OvsdbError as error:
                log.debug("no heartbeat: %s", error)
            self._wake.set()
            await asyncio.sleep(period_s)
