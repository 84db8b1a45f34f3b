"""This host's bindings: decides about VIFs whose port, row or location changed, and brings the database to it.

What was decided holds here at once, as an overlay over the database's rows; the database follows as soon as it can be
reached. If somebody else was faster the database wins, and the VIF is decided on anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Set
from dataclasses import replace
from typing import Any

from ovsctl.ovsdb import Client, ConnectionLost, NotConnected, OutcomeUnknown, Select, TransactError
from vnet.agent import transactions
from vnet.agent.binding_policy import Act, Decision, awaited, copied, decide
from vnet.agent.local_ports import LocalPort
from vnet.agent.pool_replica import PoolFold
from vnet.objects import Binding, BindingState, LockingMode, Vif
from vnet.objects.values import MAX_RESERVED_OFPORT, MIN_RESERVED_OFPORT
from vnet.util.logs import about

log = logging.getLogger(__name__)

RETRY_S = 0.2
# How long a host that a VIF has left goes on relaying to it: till switches that learn MACs have heard the announcements.
RELAY_S = 1.0
# How long a VIF that moved here may go on with TCP connections whose beginning this host's connection tracking has not seen.
PICKUP_S = 300.0
RESERVED = MAX_RESERVED_OFPORT + 1 - MIN_RESERVED_OFPORT

Spawn = Callable[[Coroutine[Any, Any, None]], object]
Note = Callable[[str, str, Binding], None]


class Bindings:
    """Decides and claims. `on_written(kind, text, binding)` hears what the database took, `on_problem(vif, text)`
    what became wrong; `wake` asks for another look."""

    def __init__(
        self,
        pool: PoolFold,
        client: Client,
        spawn: Spawn,
        wake: Callable[[], None],
        on_written: Note,
        on_problem: Callable[[str, str], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._client = client
        self._spawn = spawn
        self._wake = wake
        self._on_written = on_written
        self._on_problem = on_problem
        self._now_ms = now_ms
        self._writing: set[str] = set()
        self._deciding = False
        self._unsent: set[str] = set()  # VIFs that were decided about
        self._copying: set[str] = set()
        self._settling: set[str] = set()
        self._leaving: set[str] = set()
        self._departed: set[str] = set()  # VIFs with a port here that a migration takes away, or has taken
        self.ports: dict[str, LocalPort] = {}  # by VIF id
        self.taken: Set[int] = frozenset()  # the ofports of all ports on the bridge
        self._reserved = now_ms()  # how many numbers were given before, which an agent that starts does not know
        self.touched: set[str] = set()  # VIFs to decide about
        self.announce: set[str] = set()  # VIFs that moved here without a word of their own
        self.arrived: set[str] = set()  # VIFs that moved here, of which the physical network is to hear again
        self.releases: dict[str, Binding] = {}  # to give up, once the switch no longer acts on them
        self.left: dict[str, Binding] = {}  # to give up after the next push, which ends the relay
        self.problems: dict[str, str] = {}  # by VIF id
        self.incomplete: set[str] = set()  # VIFs that the pool was asked about and has not answered for
        self._asked: set[str] = set()

    def decide_touched(self) -> list[str]:
        """Decides about every VIF that something changed about, and says which those are."""
        touched, self.touched = sorted(self.touched), set()
        self._deciding = True
        for vif in touched:
            self._decide(vif)
        self._deciding = False
        return touched

    def send_decided(self) -> None:
        """Has the database hear what `decide_touched` decided."""
        unsent, self._unsent = self._unsent, set()
        for vif in sorted(unsent & self._pool.overlay.keys()):
            self._send(self._pool.overlay[vif])

    def look_again(self) -> None:
        """The pool has answered for all that was asked: what is missing now does not exist."""
        self._asked |= self.incomplete
        self.touched |= self.incomplete
        self.incomplete.clear()
        self._wake()

    def _decide(self, vif_id: str) -> None:
        view = self._pool.compiler.view
        before = self.problems.pop(vif_id, None)
        vif = view.vifs.get(vif_id)
        # A network's row comes before its bindings: claiming in between would take a VIF from the host that runs it.
        known = vif is not None and vif.network in view.networks and vif.network in self._pool.asked_networks
        here = vif_id in self.ports or (vif is not None and awaited(self._pool.me, vif))
        if here and not known and vif_id not in self._asked:
            self.incomplete.add(vif_id)
            return
        self._asked.discard(vif_id)
        if vif is None:
            self._decide_unknown(vif_id)
        else:
            self._decide_known(vif_id, vif)
        problem = self.problems.get(vif_id)
        if problem and problem != before:
            self._on_problem(vif_id, problem)

    def _decide_known(self, vif_id: str, vif: Vif) -> None:
        view = self._pool.compiler.view
        where = view.location(vif.network, vif_id)
        mine = view.binding(vif.network, vif_id, self._pool.me)
        decision = decide(
            self._pool.me, vif, view.networks.get(vif.network), where, mine,
            plugged=vif_id in self.ports, departed=vif_id in self._departed,
        )  # fmt: skip
        (self._departed.add if decision.departs else self._departed.discard)(vif_id)
        port = self.ports.get(vif_id)
        problem = decision.problem or (port.problem if port else "") or self._unknown_group(vif)
        if problem:
            self.problems[vif_id] = problem
        self._carry_out(vif, mine, decision)
        if vif_id not in self._settling and self._settles(vif_id) is not None:
            self._settling.add(vif_id)
            self._spawn(self._settle(vif_id))

    def _unknown_group(self, vif: Vif) -> str:
        """What to say of a VIF here that is in a group whose rules did not come: it stays silent. Till then, it is waited for."""
        missing = [group for group in vif.groups if group not in self._pool.compiler.view.groups]
        if not missing or vif.id not in self.ports:
            return ""
        if not self._pool.asked_groups >= set(missing):
            self.incomplete.add(vif.id)
            return ""
        return f"the pool has no security group {missing[0]}"

    def _decide_unknown(self, vif_id: str) -> None:
        self._departed.discard(vif_id)
        if vif_id in self.ports:
            self.problems[vif_id] = f"the pool has no VIF {vif_id}, which port {self.ports[vif_id].name} names"
        elif (mine := self._pool.mine.get(vif_id)) is not None:
            self.releases[vif_id] = mine

    def _carry_out(self, vif: Vif, mine: Binding | None, decision: Decision) -> None:
        if decision.act in (Act.CLAIM, Act.RENEW):
            self._decided(self._binding(vif, decision.state))
        elif decision.act is Act.ACTIVATE:
            self.set_state(vif.id, BindingState.ACTIVE, announced=False)
        elif decision.act is Act.BECOME and mine is not None:
            self._decided(replace(mine, state=decision.state, since=self._now_ms()))
        elif decision.act is Act.COPY and mine is not None:
            self._copy(vif.id)
        elif decision.act is Act.RELEASE and mine is not None:
            self._pool.clear_overlay(vif.id)
            self._release(mine, superseded=mine in self._pool.compiler.view.location(vif.network, vif.id).superseded)

    def _release(self, mine: Binding, *, superseded: bool) -> None:
        if not superseded:
            self.releases[mine.vif] = mine
        elif mine.vif not in self._leaving:
            self._leaving.add(mine.vif)
            self._spawn(self._release_later(mine))

    async def _release_later(self, mine: Binding) -> None:
        await asyncio.sleep(RELAY_S)
        self._leaving.discard(mine.vif)
        if self._pool.mine.get(mine.vif) == mine:
            # This host stops relaying first: once the binding is gone the destination takes nothing from a relay any more.
            self._pool.compiler.drop_binding(mine.network, mine.vif, mine.host)
            self.left[mine.vif] = mine
            self._wake()

    def give_up(self, left: dict[str, Binding]) -> None:
        """The switch does not act on these any more."""
        self.releases |= left
        self._wake()

    def _binding(self, vif: Vif, state: BindingState) -> Binding:
        return Binding(
            vif=vif.id,
            host=self._pool.me,
            network=vif.network,
            mac=vif.mac,
            epoch=vif.epoch + 1,
            state=state,
            addresses=vif.addresses,
            groups=vif.groups,
            moved=state is BindingState.HELD and bool(vif.groups),
            unlocked=vif.locking_mode is LockingMode.UNLOCKED,
            since=self._now_ms(),
            ofport=self._reserve(vif) if awaited(self._pool.me, vif) else 0,
        )

    def _reserve(self, vif: Vif) -> int:
        """An ofport for a VIF's port to ask for: the one it has, or the next that is free. They go round, so that one that was
        given up is not another VIF's for long."""
        held = {**self._pool.mine, **self._pool.overlay}
        if (mine := held.get(vif.id)) is not None and mine.ofport:
            return mine.ofport
        unusable = self.taken | {binding.ofport for binding in held.values()}
        for _ in range(RESERVED):
            self._reserved += 1
            ofport = MIN_RESERVED_OFPORT + self._reserved % RESERVED
            if ofport not in unusable:
                return ofport
        raise RuntimeError(f"this host has {RESERVED} VIFs awaited")

    def awaited_ofport(self, vif_id: str) -> int | None:
        """The ofport under which a VIF is programmed whose port is awaited here, or has not said its own yet."""
        vif = self._pool.compiler.view.vifs.get(vif_id)
        mine = self._pool.overlay.get(vif_id) or self._pool.mine.get(vif_id)
        if vif is None or mine is None or not awaited(self._pool.me, vif) or mine.ofport in self.taken:
            return None
        return mine.ofport or None

    def set_state(self, vif_id: str, state: BindingState, *, announced: bool) -> bool:
        """Opens the port of a VIF that is moving here: at once on this host. False if it is not moving here.

        announced: the guest has told the network that it is here; otherwise the agent does once the port is open.
        """
        view = self._pool.compiler.view
        vif = view.vifs.get(vif_id)
        mine = view.binding(vif.network, vif_id, self._pool.me) if vif else None
        if mine is None:
            return False
        if mine.state.moving and mine.state is not state:
            if state is BindingState.ACTIVE:
                self.arrived.add(vif_id)
                if not announced:
                    self.announce.add(vif_id)
            self._decided(replace(mine, state=state, since=self._now_ms()))
            self._wake()
        return True

    def _decided(self, binding: Binding) -> None:
        self._pool.set_overlay(binding)
        if self._deciding:
            self._unsent.add(binding.vif)
        else:
            self._send(binding)

    def _send(self, binding: Binding) -> None:
        if binding.vif not in self._writing:
            self._writing.add(binding.vif)
            self._spawn(self._write(binding, self._claim(binding)))

    def _claim(self, decided: Binding) -> Awaitable[list[Any]]:
        """Sends at once what was decided: other hosts wait for it. Raises when it is awaited."""
        known = self._pool.compiler.view.vifs.get(decided.vif)
        vif = self._pool.locate(known) if known is not None else (("id", "==", decided.vif),)
        return self._client.send(
            *transactions.bind(decided, self._pool.mine.get(decided.vif), vif, self._pool.locate(decided))
        )

    def _copy(self, vif_id: str) -> None:
        if vif_id not in self._copying:
            self._copying.add(vif_id)
            self._spawn(self._write_copy(vif_id))

    async def _write_copy(self, vif_id: str) -> None:
        """Brings what the database's binding says of its VIF up to date. The state is not touched: it may change meanwhile."""
        try:
            while True:
                vif, mine = self._pool.compiler.view.vifs.get(vif_id), self._pool.mine.get(vif_id)
                if vif is None or mine is None or copied(mine, vif) == mine:
                    return
                try:
                    await self._client.transact(transactions.copy(copied(mine, vif), self._pool.locate(mine)))
                except (ConnectionLost, NotConnected, OutcomeUnknown):
                    await self._client.wait_connected()
                except TransactError as error:
                    log.warning("binding not brought up to date: %s", error, extra=about(vif=vif_id))
                await asyncio.sleep(RETRY_S)  # by then the row that was written is here
        finally:
            self._copying.discard(vif_id)

    def _settles(self, vif_id: str) -> Binding | None:
        """This host's binding of a VIF that has moved here of late, as the database has it."""
        mine = self._pool.mine.get(vif_id)
        return mine if mine is not None and mine.moved and not mine.state.moving else None

    async def _settle(self, vif_id: str) -> None:
        """Takes back that a VIF has moved here of late, PICKUP_S after it became active: its connections are known by then.

        When that was is asked of the database, so that a restart of this agent changes nothing.
        """
        try:
            while (mine := self._settles(vif_id)) is not None:
                row = self._pool.locate(mine)
                try:
                    (rows,) = await self._client.transact(Select("Binding", row, ("since",)))
                    since_s = rows[0]["since"] / 1000 if rows else 0  # without a row, there is nothing to wait for
                    # Another's clock may have said it, so never wait longer than from now.
                    left_s = min(since_s + PICKUP_S - self._now_ms() / 1000, PICKUP_S)
                    if left_s > 0:
                        await asyncio.sleep(left_s)
                        continue
                    await self._client.transact(transactions.settle(mine, row))
                except (ConnectionLost, NotConnected, OutcomeUnknown):
                    await self._client.wait_connected()
                except TransactError as error:
                    log.warning("binding not settled: %s", error, extra=about(vif=vif_id))
                await asyncio.sleep(RETRY_S)  # by then the row that was written is here
        finally:
            self._settling.discard(vif_id)

    async def _write(self, decided: Binding, sent: Awaitable[list[Any]]) -> None:
        """Brings the database to what was decided about a VIF, over lost connections. `sent` is the first try, on its way."""
        vif_id = decided.vif
        try:
            while True:
                try:
                    await sent
                except (ConnectionLost, NotConnected, OutcomeUnknown):
                    await self._client.wait_connected()
                    await asyncio.sleep(RETRY_S)  # what was written before the loss arrives first
                except TransactError as error:
                    log.info("somebody else was faster: %s", error, extra=about(vif=vif_id))
                    self._pool.clear_overlay(vif_id)
                    await asyncio.sleep(RETRY_S)
                    self.touched.add(vif_id)
                    self._wake()
                else:
                    if self._pool.overlay.get(vif_id) == decided:
                        del self._pool.overlay[vif_id]
                    self._on_written(decided.state.value, f"{decided.state.value} on {decided.host}", decided)
                if (now := self._pool.overlay.get(vif_id)) is None:
                    return
                decided, sent = now, self._claim(now)
        finally:
            self._writing.discard(vif_id)
