"""The agent's statements in the pool database: bindings ready, others' acknowledged, its own given up, events, its status.

One rule: nothing is stated before it is true in the switch: each statement has the revision that the switch must hold first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final

from ovsctl.ovsdb import Operation, OutcomeUnknown, OvsdbClient, OvsdbError, Uuid, WaitTimedOut
from vnet.agent import transactions
from vnet.agent.host_claim import HostClaim
from vnet.agent.measures import Measures
from vnet.agent.pool_identity import PoolIdentity
from vnet.agent.pool_replica import PoolReplica
from vnet.agent.reconciler import Reconciler, Retry, Revisions
from vnet.compile import VifRole
from vnet.objects import AgentStatus, Binding, BindingState, Event, NetworkType
from vnet.util.logs import about

log = logging.getLogger(__name__)

RETRY_S = 0.5
# After an answer that was lost: it may have been with the cluster's leader, and the next one does it at once.
AGAIN_S = 0.1
WARNINGS = ("drift", "problem", "refused")
EVENT_DELAY_S = 0.05  # an event waits for what is more urgent, and goes along with it
MAX_EVENTS = 200  # waiting to be written; older ones are dropped first
GENERATION = ("generation",)

Key = tuple[str | Event, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement about `subject`, made by `operation`. after: the revision that the flows must be at; rows: and the Open vSwitch
    rows too. once: not to be made again after a lost connection."""

    subject: object
    operation: Operation | None
    after: int = 0
    rows: bool = False
    once: bool = False


# What a status says that changes while an agent is the host's.
_changing = attrgetter("generation", "problems", "masters", "health")


class StatusWriter:
    """Writes statements, in one transaction at a time.

    problems: all that is wrong on this host, by object. masters: the virtual routers that VIFs here are the masters of. health: what it has found out about the network between the hosts. is_alive: whether the switch is there.
    refusal: the problem that it does not take a VIF's flows.
    """

    def __init__(
        self,
        pool: PoolReplica,
        client: OvsdbClient,
        revisions: Revisions,
        claim: HostClaim,
        identity: PoolIdentity,
        problems: Callable[[], dict[str, str]],
        masters: Callable[[], dict[str, str]],
        health: Callable[[], str],
        is_alive: Callable[[], bool],
        refusal: Callable[[str], str],
        now_ms: Callable[[], int],
        measures: Measures,
    ) -> None:
        self.statements: Final[Reconciler[Key, Statement]] = Reconciler(self, revisions, lambda _: None, self._is_due)
        self._pool: Final = pool
        self._client: Final = client
        self._revisions: Final = revisions
        self.claim: Final = claim
        self._identity: Final = identity
        self._problems: Final = problems
        self._masters: Final = masters
        self._health: Final = health
        self._is_alive: Final = is_alive
        self._refusal: Final = refusal
        self._now_ms: Final = now_ms
        self._measures: Final = measures
        self._written: AgentStatus | None = None
        self._row: Uuid | None = None  # of the agent's status; None while the host must be claimed anew

    # Stated

    def event(self, topic: str, text: str, binding: Binding | None = None, vif: str = "") -> None:
        """Records an event for people to read later."""
        self._measures.events[topic] += 1
        network, vif = (binding.network, binding.vif) if binding else ("", vif)
        fields = about(network=network or None, vif=vif or None, generation=self._pool.generation)
        log.log(logging.WARNING if topic in WARNINGS else logging.INFO, "%s: %s", topic, text, extra=fields)
        event = Event(self._now_ms(), topic, text, self._pool.me, network, vif)
        waiting = [key for key in self.statements.pending if isinstance(key[0], Event)]
        self.statements.forget(waiting[: max(0, len(waiting) + 1 - MAX_EVENTS)])
        self.statements.want({(event,): Statement(event, transactions.event(event), once=True)}, EVENT_DELAY_S)

    def release(self, binding: Binding, *, silent: bool = False) -> None:
        """Gives a binding up, once the switch no longer acts on it. silent: it does not any more."""
        after = 0 if silent else self._revisions.newest
        operation = transactions.release(binding, self._pool.locate(binding))
        self.statements.want({("release", binding.vif): Statement(binding, operation, after, once=True)})

    def state(self, touched: Iterable[tuple[str, str]], *, whole: bool) -> None:
        """States of these VIFs, given as (network, VIF), all that is true once the switch holds the newest revision. whole: whether that is
        all of the pool's generation."""
        for network, vif in touched:
            self._state(("ready", vif), self._ready(network, vif))
            self._state(("acked", vif), self._acked(network, vif))
        if whole:
            self._state(GENERATION, Statement(self._pool.generation, None, self._revisions.newest, rows=True))
        self.statements.again()

    def _state(self, key: Key, statement: Statement | None) -> None:
        known = self.statements.desired.get(key)
        if statement is None:
            self.statements.forget([key])
        elif known is None or known.subject != statement.subject or key in self.statements.pending:
            self.statements.want({key: statement})

    def postpone(self) -> None:
        """Has all statements that are not written yet wait for the next turn: a port that networks' frames go through came or went."""
        for key in self.statements.pending:
            if (known := self.statements.desired.get(key)) is not None and known.after:
                self.statements.desired[key] = replace(known, after=self._revisions.newest + 1)

    def _ready(self, network: str, vif_id: str) -> Statement | None:
        """This host's flows for its binding of a VIF are in."""
        view, mine = self._pool.compiler.view, self._pool.mine.get(vif_id)
        vif = view.vifs.get(vif_id)
        if vif is None or mine is None or mine.state is BindingState.AWAITED:  # that one is once its port has come
            return None
        if view.role(vif) not in (VifRole.ACTIVE, VifRole.INCOMING) or not view.groups.keys() >= set(view.obeyed(vif)):
            return None
        if self._refusal(vif_id):
            return None
        row = self._pool.locate(mine)  # a binding made anew under the same id has epoch 1 again
        operation = transactions.ready(mine, row, self._now_ms())
        return Statement((row, mine.epoch), operation, self._revisions.newest, self._needs_rows(network))

    def _acked(self, network: str, vif_id: str) -> Statement | None:
        """This host has programmed another host's binding of a VIF that moves, or has just moved."""
        at = self._pool.compiler.view.location(network, vif_id)
        moving = at.incoming if at.incoming else at.current if at.superseded else None
        if moving is None or moving.host == self._pool.me:
            if ("acked", vif_id) in self.statements.desired:
                gone = transactions.unacknowledge(vif_id, self._pool.me)
                self.statements.want({("unacked", vif_id): Statement(vif_id, gone, once=True)})
            return None
        self.statements.forget([("unacked", vif_id)])
        operation = transactions.acknowledge(moving, self._pool.me)
        subject = moving.host, moving.epoch, moving.state
        return Statement(subject, operation, self._revisions.newest, self._needs_rows(network))

    def _needs_rows(self, network: str) -> bool:
        known = self._pool.compiler.view.networks.get(network)
        return known is not None and known.type is not NetworkType.INTERNAL

    def _is_due(self, statement: Statement) -> bool:
        held = min(self._revisions.flows, self._revisions.rows) if statement.rows else self._revisions.flows
        return statement.after <= held

    # The verbs of the reconciler

    async def change(self, changes: Mapping[Key, Statement | None]) -> None:
        """Makes the statements that are due, with the status if that changed."""
        made = {key: statement for key, statement in changes.items() if statement is not None}
        operations = [statement.operation for statement in made.values() if statement.operation is not None]
        if self._row is None:
            self._row = await self.claim.take()
        status = self._status_with(made.get(GENERATION))
        if status != self._written:
            operations += transactions.status(status, self._row)
        try:
            if operations:
                await self._client.transact(*operations)
        except OvsdbError as error:
            log.info("statements not written yet: %s", error)
            self._written = self._row = None
            await asyncio.sleep(AGAIN_S if isinstance(error, OutcomeUnknown) else RETRY_S)
            await self._client.wait_connected()
            raise Retry(0) from error
        self._written = status
        desired = self.statements.desired
        self.statements.forget([key for key, it in made.items() if it.once and desired.get(key) is it])

    def _status_with(self, generation: Statement | None) -> AgentStatus:
        own, known = self.claim.status, self._written
        if generation is None and known is None and GENERATION not in self.statements.pending:
            generation = self.statements.desired.get(GENERATION)  # it was stated in a row that is gone
        reached = (known or own).generation
        if generation is not None and isinstance(generation.subject, int):
            reached = generation.subject
        problems, masters, health = self._problems(), self._masters(), self._health()
        if (
            known is not None
            and known.switch == own.switch
            and _changing(known) == (reached, problems, masters, health)
        ):
            return known
        return replace(own, generation=reached, problems=problems, masters=masters, health=health)

    async def prune(self, desired: Callable[[], Mapping[Key, Statement]]) -> None:
        """Has everything stated again: the database may have lost any of it."""
        self.statements.again(desired())

    async def run(self) -> None:
        """Writes for ever; a statement that is not accepted is made again."""
        await self.statements.run()

    async def heartbeat(self, period_s: float) -> None:
        """Says for ever that this host lives: not while its switch is away, since then it follows nothing and carries nothing."""
        while True:
            try:
                if self._row is not None and self._is_alive() and not await self.beat(self._row):
                    self._written = self._row = None
                    self.statements.again([key for key in self.statements.desired if key[0] == "acked"])  # gone with it
            except OvsdbError as error:
                log.debug("no heartbeat: %s", error)
            self.statements.again()
            await asyncio.sleep(period_s)

    async def beat(self, row: Uuid) -> bool:
        """Whether the row of this agent's status is there and its own."""
        before, begun_s = self.claim.rival, self._measures.clock()
        try:
            found, pool = await self.claim.beat(row)
            self._measures.database.observe(self._measures.clock() - begun_s)
        except WaitTimedOut:
            return False
        if self._identity.seen(pool):
            await self._identity.keep()
        else:
            self._client.leave("the pool is not the one that this host follows")
        if self.claim.rival and not before:
            self.event("problem", self.claim.problem)
        if found is not None and self._written is not None and not transactions.is_written(self._written, found):
            self.event("drift", "put back: the agent's own status")
            self._written = None
            self.statements.again([GENERATION])
        return found is not None
