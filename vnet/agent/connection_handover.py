"""The tracked connections of a VIF that moves go along: the host that it leaves writes them into the pool database, the one that it comes to takes
them in (docs/adr/0033-connections-move-with-the-vm.md).

One rule: a host has picked up what it did not see begin (ADR 8) until all connections are in; whatever fails, that goes on, and the binding says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from ovsctl.ovsdb import Change, Delete, Insert, Monitor, OvsdbClient, OvsdbError, Replica
from vnet.agent import kernel_tracker, transactions
from vnet.agent.pool_replica import PoolReplica
from vnet.agent.shell import Shell
from vnet.agent.status_writer import StatusWriter
from vnet.compile.ovs import Switch
from vnet.db.handovers import HANDED_MS, MAX_HANDED, Handover, TrackedConnection, decoded, encoded
from vnet.db.rows import from_row, to_columns
from vnet.objects import Binding, BindingState, InvalidValue
from vnet.util.logs import about

log = logging.getLogger(__name__)

WAIT_S = 30.0  # for what the other host gives, from a VIF's arrival
SCHEMA_PERIOD_S = 5.0
TABLE = Handover.NOUN.table
PICKED_UP = "picked up as they go on: {}"


@dataclass(frozen=True, slots=True)
class _Given:
    """What this host has listed of a VIF's connections, for which claim of another host, and the zone that they are in."""

    to: str
    epoch: int
    zone: int
    lacks: bool = False  # connections that it has not seen begin, and that were silent since, are not among them


class ConnectionHandovers:
    """Gives the connections of VIFs that leave, and takes those of VIFs that come."""

    def __init__(
        self,
        pool: PoolReplica,
        client: OvsdbClient,
        status: StatusWriter,
        switch: Switch,
        shell: Shell,
        now_ms: Callable[[], int],
    ) -> None:
        self._pool: Final = pool
        self._client: Final = client
        self._status: Final = status
        self._against: Final = partial(
            kernel_tracker.reason_against, switch.datapath_type, elsewhere=bool(switch.target)
        )
        self._shell: Final = shell
        self._now_ms: Final = now_ms
        self._given: Final[
            dict[str, _Given]
        ] = {}  # once for each claim, for as long as this host has a binding of the VIF
        # By VIF that comes: the epoch of its binding, set once it is known what came along.
        self._outcomes: Final[dict[str, tuple[int, asyncio.Event]]] = {}

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        self._shell.spawn(self._alone(job))

    async def _alone(self, job: Coroutine[Any, Any, None]) -> None:
        """A fault that nobody foresaw costs one VIF's connections, and no agent."""
        try:
            await job
        except Exception:
            log.exception("connections of a VIF that moves")

    # Given

    def settle(self, touched: Iterable[tuple[str, str]]) -> None:
        """Gives the connections of those VIFs, given as (network, VIF), whose guest has been paused, or runs elsewhere by now."""
        view = self._pool.compiler.view
        for network, vif_id in sorted(touched):
            mine, taker = view.binding(network, vif_id, view.me), self._taker(network, vif_id)
            if mine is None:
                self._given.pop(vif_id, None)
            if mine is None or taker is None or not self._is_tracked(vif_id):
                continue
            zone, known = view.ports.get(vif_id), self._given.get(vif_id)
            if zone is not None and (known is None or (known.to, known.epoch) != (taker.host, taker.epoch)):
                self._given[vif_id] = given = _Given(taker.host, taker.epoch, zone, mine.moved)
                self._start(self._give(network, vif_id, given))

    def _taker(self, network: str, vif_id: str) -> Binding | None:
        """The binding of another host that a VIF's guest is about to run on, or runs on by now."""
        at, me = self._pool.compiler.view.location(network, vif_id), self._pool.me
        if at.incoming is not None and at.incoming.state is BindingState.RECEIVING and at.incoming.host != me:
            return at.incoming
        return at.current if at.current is not None and at.current.host != me and at.current.plugged else None

    def _is_tracked(self, vif_id: str) -> bool:
        view = self._pool.compiler.view
        vif = view.vifs.get(vif_id)
        return vif is not None and any(view.groups[name].stateful for name in view.obeyed(vif) if name in view.groups)

    async def _give(self, network: str, vif_id: str, given: _Given) -> None:
        """Writes a VIF's connections, and takes them away again when nobody needs them any more: here too, unless it runs here again."""
        found: list[TrackedConnection] = []
        if not (problem := self._against()):
            try:
                found = await asyncio.to_thread(kernel_tracker.listed, given.zone, MAX_HANDED + 1)
            except OSError as error:
                problem = f"they cannot be listed: {error}"
        if len(found) > MAX_HANDED:
            problem, found = f"it has more than {MAX_HANDED}", found[:MAX_HANDED]
        text = await asyncio.to_thread(encoded, found)
        if given.lacks and not problem:
            problem = f"host {self._pool.me} was picking them up itself"
        row = Handover(vif_id, self._pool.me, given.to, given.epoch, self._now_ms(), problem, text)
        mine = (("vif", "==", vif_id), ("host", "==", self._pool.me))
        try:
            await self._client.transact(Delete(TABLE, mine), Insert(TABLE, to_columns(row)))
            log.info("%d connections go along to %s", len(found), given.to, extra=about(vif=vif_id))
            await asyncio.sleep(HANDED_MS / 1000)
            await self._client.transact(Delete(TABLE, mine))
        except OvsdbError as error:
            log.info("connections do not go along: %s", error, extra=about(vif=vif_id))
        view, at = self._pool.compiler.view, self._pool.compiler.view.location(network, vif_id)
        gone = (
            at.current is None or at.current.host != self._pool.me
        )  # of a network that has left this host nothing is known
        if found and gone and all(zone != given.zone for id, zone in view.ports.items() if id != vif_id):
            await self._take_out(given.zone, found)

    async def _take_out(self, zone: int, connections: list[TrackedConnection]) -> None:
        try:
            await asyncio.to_thread(kernel_tracker.take_out, zone, connections)
        except OSError as error:
            log.info("connections of zone %d stay until they time out: %s", zone, error)

    # Taken

    def arrived(self, vif_id: str) -> None:
        """Says of a VIF that has just come, if in a while its connections have not, that they are picked up as they go on."""
        self._start(self._await(vif_id))

    async def _await(self, vif_id: str) -> None:
        mine = self._mine(vif_id)
        if mine is None or not self._is_tracked(vif_id):
            return
        problem = self._against()
        try:
            if not problem:
                async with asyncio.timeout(WAIT_S):
                    await self._outcome(mine).wait()
                return
        except TimeoutError:
            problem = "the host that it left gave none"
        await self._state(vif_id, PICKED_UP.format(problem), carried=False)

    def _outcome(self, mine: Binding) -> asyncio.Event:
        epoch, outcome = self._outcomes.get(mine.vif, (0, None))
        if outcome is None or epoch != mine.epoch:
            outcome = asyncio.Event()
            self._outcomes[mine.vif] = (mine.epoch, outcome)
        return outcome

    async def run(self) -> None:
        """Takes what other hosts give until cancelled."""
        replica = await self._monitor()
        replica.subscribe(self._take)
        self._take(tuple(Change(TABLE, uuid, None, row) for uuid, row in replica[TABLE].items()))

    async def _monitor(self) -> Replica:
        for_me = (("to", "==", self._pool.me),)
        while True:
            if TABLE in self._client.schema.tables:  # agents may be newer than the controller for a while
                try:
                    await self._client.transact(Delete(TABLE, (("host", "==", self._pool.me),)))  # of an earlier life
                    return await self._client.monitor({TABLE: Monitor(where=for_me)})
                except OvsdbError as error:
                    log.info("%s: not read yet: %s", TABLE, error)
            await asyncio.sleep(SCHEMA_PERIOD_S)

    def _take(self, batch: tuple[Change, ...]) -> None:
        for change in batch:
            if change.new is None:
                continue
            try:
                row = from_row(Handover, change.new)
                if self._is_due(row):
                    self._start(self._take_in(row))
            except InvalidValue as error:
                log.warning("row %s of table %s: %s: it is left out", change.uuid, TABLE, error)
            except Exception:  # rows come from outside: a fault that nobody foresaw costs its row alone
                log.exception("row %s of table %s", change.uuid, TABLE)

    def _is_due(self, row: Handover) -> bool:
        """Whether a VIF is coming here, or has, by the claim that a row is for, from the host that wrote it."""
        mine, left = self._mine(row.vif), self._left(row.vif)
        moving = mine is not None and (mine.moved or mine.state.moving)
        return moving and mine is not None and mine.epoch == row.epoch and row.host in left

    def _mine(self, vif_id: str) -> Binding | None:
        view = self._pool.compiler.view
        vif = view.vifs.get(vif_id)
        return view.binding(vif.network, vif_id, view.me) if vif is not None else None

    def _left(self, vif_id: str) -> set[str]:
        """The hosts that a VIF which comes here leaves."""
        view = self._pool.compiler.view
        vif = view.vifs.get(vif_id)
        at = view.location(vif.network, vif_id) if vif is not None else None
        bindings = () if at is None else (*at.superseded, *([at.current] if at.current is not None else []))
        return {binding.host for binding in bindings} - {view.me}

    async def _take_in(self, row: Handover) -> None:
        await self._shell.programmed()  # the zone was emptied before its first use
        zone, refused, problem = self._pool.compiler.view.ports.get(row.vif), 0, row.problem
        try:
            connections = await asyncio.to_thread(decoded, row.connections)
            if against := self._against():
                problem = against
            elif zone is not None and connections:
                refused = await asyncio.to_thread(kernel_tracker.take_in, zone, connections)
        except (ValueError, OSError) as error:
            connections, problem = (), f"what host {row.host} gave was not taken in: {error}"
        if refused and not problem:
            problem = f"{refused} of {len(connections)} were not taken in"
        if zone is None or (mine := self._mine(row.vif)) is None or mine.epoch != row.epoch:
            return
        self._outcome(mine).set()
        text = PICKED_UP.format(problem) if problem else f"{len(connections)} came along from host {row.host}"
        await self._state(row.vif, text, carried=not problem)

    async def _state(self, vif_id: str, text: str, *, carried: bool) -> None:
        """Has the binding say what became of a VIF's connections; if all are here, nothing is picked up any more."""
        mine = self._mine(vif_id)
        if mine is None:
            return
        self._status.event("connections", text, mine)
        if carried:
            self._pool.set_overlay(replace(mine, moved=False))
            self._pool.touch([vif_id])
            self._shell.wake()
        try:
            await self._client.transact(transactions.connections(mine, self._pool.locate(mine), text))
        except OvsdbError as error:
            log.info("binding does not say it: %s", error, extra=about(vif=vif_id))
