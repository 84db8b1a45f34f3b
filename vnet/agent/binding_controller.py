"""This host's bindings: decides about VIFs whose port, row or location changed, and brings the database to it.

A decision holds here at once, as an overlay over the database's rows; the database follows as soon as it can be
reached. If another host was faster the database wins, and the VIF is decided on anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

from ovsctl.ovsdb import (
    ConnectionLost,
    Delete,
    InputOutputError,
    NotConnected,
    Operation,
    OutcomeUnknown,
    OvsdbClient,
    OvsdbError,
    ResourcesExhausted,
    Select,
    TransactError,
    Where,
    by_uuid,
)
from vnet.agent import transactions
from vnet.agent.binding_policy import Act, Decision, awaited, copied, decide, taken_up
from vnet.agent.local_ports import LocalPorts
from vnet.agent.ovs_config_reconciler import CACHES_S
from vnet.agent.pool_replica import PoolReplica
from vnet.agent.shell import Shell
from vnet.agent.status_writer import StatusWriter
from vnet.objects import Binding, BindingState, InvalidValue, Vif
from vnet.objects.behind import known_behind
from vnet.objects.binding import asked_of, published
from vnet.objects.limits import MAX_REMOTE_GROUPS, MAX_RESERVED_OFPORT, MIN_RESERVED_OFPORT
from vnet.objects.link_local import chosen
from vnet.objects.multicast import listening_of
from vnet.util.logs import about

log = logging.getLogger(__name__)

RETRY_S = 0.2
FULL_S = 1.0  # till the next attempt, where the database has no room on its disk
# How long a host that a VIF has left goes on relaying to it: till switches that learn MACs have heard the announcements.
RELAY_S = 1.0
# How long a VIF that moved here, or joined its first group, may go on with TCP connections that this host's tracker did not see begin.
PICKUP_S = 300.0
MOST_CLAIMS = 2**62  # of a VIF
RESERVED = MAX_RESERVED_OFPORT + 1 - MIN_RESERVED_OFPORT


@dataclass(frozen=True, slots=True)
class SentWrite:
    """A transaction on its way. decided: the binding that it writes; None where it brings the copy of the VIF up to date.

    before: the database's binding that `decided` replaces.
    """

    answer: Awaitable[list[Any]]
    decided: Binding | None = None
    before: Binding | None = None


class Bindings:
    """Decides and claims."""

    def __init__(
        self, pool: PoolReplica, client: OvsdbClient, status: StatusWriter, shell: Shell, now_ms: Callable[[], int]
    ) -> None:
        self.ports = LocalPorts()
        self.problems: Final[dict[str, str]] = {}  # by VIF id
        self.questions: Final[
            dict[str, bool]
        ] = {}  # VIFs here whose rows are missing, and whether the pool has answered
        self._pool: Final = pool
        self._client: Final = client
        self._status: Final = status
        self._shell: Final = shell
        self._now_ms: Final = now_ms
        self._reserved = now_ms()  # how many numbers were given before, which an agent that starts does not know
        self._departed: Final[set[str]] = set()  # VIFs with a port here that a migration takes away, or has taken
        self._under_way: Final[set[tuple[str, str]]] = set()  # (job, VIF): one of each at a time

    # Observed

    def see_ports(self, ports: LocalPorts) -> bool:
        """Folds the switch's ports in. False if all that changed is that the ports of awaited VIFs came or went: nothing is to be
        programmed for those."""
        before, self.ports = self.ports, ports
        view = self._pool.compiler.view
        changed = {
            vif for vif in before.vifs.keys() | ports.vifs.keys()
            if (was := before.vifs.get(vif)) is not (now := ports.vifs.get(vif)) and was != now
        }  # fmt: skip
        others = [self._place(vif) or vif not in view.ports for vif in sorted(changed)]
        self._pool.touch(changed)
        self._pool.needs_changed |= bool(changed)
        if any(ofport >= MIN_RESERVED_OFPORT for ofport in before.taken ^ ports.taken):
            # A port may have taken a number that another VIF's was to have.
            others += [self._place(vif) for vif in self._pool.mine]
        return any(others) or not changed

    def see_answers(self) -> None:
        """The pool has answered for all rows that were asked for: one that is missing now does not exist."""
        waiting = [vif for vif, answered in self.questions.items() if not answered]
        self.questions.update(dict.fromkeys(waiting, True))
        self._pool.touch(waiting)

    def _place(self, vif: str) -> bool:
        """Folds in the number under which a VIF is here: its port's, or while that is not known the one it is awaited under.
        Whether that is another than before."""
        port, before = self.ports.vifs.get(vif), self._pool.compiler.view.ports.get(vif)
        known = port.ofport if port is not None else None
        ofport = self.awaited_ofport(vif) if known is None else known
        self._pool.compiler.inputs.set_port(vif, ofport)
        return ofport != before

    def awaited_ofport(self, vif_id: str) -> int | None:
        """The ofport under which a VIF is programmed whose port is awaited here, or has not said its own yet."""
        vif = self._pool.compiler.view.vifs.get(vif_id)
        mine = self._pool.overlay.get(vif_id) or self._pool.mine.get(vif_id)
        if vif is None or mine is None or not awaited(self._pool.me, vif) or mine.ofport in self.ports.taken:
            return None
        return mine.ofport or None

    # Decided

    def decide(self, touched: set[tuple[str, str]]) -> None:
        """Decides about these VIFs, given as (network, VIF)."""
        vifs = sorted({vif for _, vif in touched})
        for vif in vifs:
            try:
                self._decide(vif)
            except Exception as error:  # a VIF about which nothing can be decided keeps no other waiting
                if not isinstance(error, InvalidValue):
                    log.exception("VIF %s", vif, extra=about(vif=vif))
                self.problems[vif] = f"nothing can be decided about it: {error}"
        for vif in vifs:
            self._place(vif)

    def _decide(self, vif_id: str) -> None:
        view = self._pool.compiler.view
        before = self.problems.pop(vif_id, None)
        vif = view.vifs.get(vif_id)
        named = self._pool.named.networks
        # A network's row comes before its bindings: claiming in between would take a VIF from the host that runs it.
        known = vif is not None and vif.network in view.networks and vif.network in named
        here = vif_id in self.ports.vifs or (vif is not None and awaited(self._pool.me, vif))
        if here and not known and not self.questions.get(vif_id):
            self.questions[vif_id] = False
            return
        self.questions.pop(vif_id, None)
        if vif is None:
            self._decide_unknown(vif_id)
        else:
            self._decide_known(vif)
        problem = self.problems.get(vif_id)
        if problem and problem != before:
            self._status.event("problem", problem, vif=vif_id)

    def _decide_known(self, vif: Vif) -> None:
        view, port = self._pool.compiler.view, self.ports.vifs.get(vif.id)
        mine = view.binding(vif.network, vif.id, self._pool.me)
        decision = decide(
            self._pool.me, vif, view.networks.get(vif.network), view.location(vif.network, vif.id), mine,
            plugged=port is not None, departed=vif.id in self._departed, tiers=self._has_tiers(vif),
        )  # fmt: skip
        (self._departed.add if decision.departs else self._departed.discard)(vif.id)
        found = (
            decision.problem,
            port.problem if port else "",
            self._unknown_group(vif),
            self._shell.refusal(vif.id),
        )
        if problem := next(filter(None, found), ""):
            self.problems[vif.id] = problem
        if addresses := taken_up(vif, mine, decision):
            self._shell.took_up(vif, addresses)
        self._carry_out(vif, mine, decision)
        if mine is not None and not mine.moved and decision.act is Act.KEEP and self._is_stateless(vif):
            self._pool.set_overlay(
                replace(mine, moved=True)
            )  # should its groups track connections one day, nobody has seen them begin
        former = self._pool.mine.get(vif.id)
        if former is not None and former.network != vif.network and vif.id not in self._pool.overlay:
            self._status.release(former)  # a claim on the new network would take the row over
        if self._pool.spoiled(vif.id) is not None and self._is_free("restore", vif.id):
            self._start("restore", vif.id, self._restore)
        if self._remembers_move(vif.id) is not None and self._is_free("forget the move", vif.id):
            self._start("forget the move", vif.id, self._forget_move)

    def _unknown_group(self, vif: Vif) -> str:
        """The problem of a VIF here that is in a group whose rules do not exist, or cannot be followed: it stays silent. Till that is
        known, they are waited for."""
        view = self._pool.compiler.view
        missing = [group for group in view.obeyed(vif) if group not in view.groups]
        if vif.id not in self.ports.vifs:
            return ""
        if not missing:
            too_many = f"its security groups name others, and the rules on network {vif.network} name more than {MAX_REMOTE_GROUPS}"
            return "" if view.judgeable(vif) else too_many
        if not self._pool.named.groups >= set(missing):
            self.questions[vif.id] = False
            return ""
        return f"the pool has no security group {missing[0]}"

    def _decide_unknown(self, vif_id: str) -> None:
        self._departed.discard(vif_id)
        if (port := self.ports.vifs.get(vif_id)) is not None:
            self.problems[vif_id] = f"the pool has no VIF {vif_id}, which port {port.name} names"
        elif (mine := self._pool.mine.get(vif_id)) is not None:
            self._status.release(mine)

    def _carry_out(self, vif: Vif, mine: Binding | None, decision: Decision) -> None:
        match decision.act:
            case Act.CLAIM | Act.RENEW:
                self._pool.set_overlay(self._binding(vif, decision.state))
            case Act.ACTIVATE:
                self.set_state(vif.id, BindingState.ACTIVE, announced=False)
            case Act.BECOME if mine is not None:
                self._pool.set_overlay(replace(mine, state=decision.state, since=self._now_ms()))
            case Act.COPY if mine is not None and not mine.moved and self._joins(vif, mine):
                # Nobody has tracked its connections: they are judged by the end that listens, as after a move.
                self._pool.set_overlay(
                    replace(copied(mine, vif, tiers=self._has_tiers(vif)), moved=True, since=self._now_ms())
                )
            case Act.COPY:
                self._bring(vif.id)
            case Act.RELEASE if mine is not None:
                self._release(mine)

    def _release(self, mine: Binding) -> None:
        superseded = self._is_superseded(mine)
        self._pool.clear_overlay(mine.vif)
        if superseded:
            if self._is_free("release", mine.vif):
                self._start("release", mine.vif, self._stop_relaying, mine, self._pool.locate(mine))
        elif mine.vif not in self.ports.vifs and self._is_free("release", mine.vif):
            # A port that is gone needs no flows to be silent: its release leaves before they are compiled.
            given_up = transactions.release(mine, self._pool.locate(mine))
            sent = self._client.send(self._status.claim.guard, given_up)
            self._start("release", mine.vif, self._give_up, mine, sent)
        else:
            self._status.release(mine, silent=mine.vif not in self.ports.vifs)

    async def _give_up(self, vif_id: str, mine: Binding, sent: Awaitable[list[Any]]) -> None:
        """Has a release that was sent stated again if it was not accepted."""
        try:
            await sent
        except OvsdbError as error:
            log.info("binding not released: %s", error, extra=about(vif=vif_id))
            self._status.release(mine, silent=True)

    async def _stop_relaying(self, vif_id: str, mine: Binding, row: Where) -> None:
        """Gives up the binding of a VIF that runs elsewhere by now. This host stops relaying first: once the binding is gone the
        destination takes nothing from a relay any more."""
        await asyncio.sleep(RELAY_S)
        if self._pool.mine.get(vif_id) != mine or self._pool.locate(mine) != row or not self._is_superseded(mine):
            self._pool.touch([vif_id])  # another binding by now, which may have been superseded in the meantime
            self._shell.wake()
            return
        self._pool.compiler.inputs.drop_binding(mine.network, vif_id, mine.host)
        await self._shell.programmed()
        await asyncio.sleep(CACHES_S)
        self._status.release(mine, silent=True)

    def _is_superseded(self, binding: Binding) -> bool:
        return binding in self._pool.compiler.view.location(binding.network, binding.vif).superseded

    def _binding(self, vif: Vif, state: BindingState) -> Binding:
        return Binding(
            vif=vif.id,
            host=self._pool.me,
            epoch=self._next_epoch(vif),
            state=state,
            moved=state is BindingState.HELD and bool(self._pool.compiler.view.obeyed(vif)),
            tiers=self._has_tiers(vif),
            since=self._now_ms(),
            ofport=self._reserve(vif) if awaited(self._pool.me, vif) else 0,
            link_locals=chosen(self._pool.compiler.view.bindings_of(vif.network, vif.id)),
            behind=known_behind(self._pool.compiler.view.bindings_of(vif.network, vif.id)),
            listening=listening_of(self._pool.compiler.view.bindings_of(vif.network, vif.id)),
            **published(vif),
        )

    def _next_epoch(self, vif: Vif) -> int:
        """The place of a claim among the VIF's bindings. Any host may write the column: where the VIF is asked for here, what is no count counts for nothing,
        nor does one that is behind the bindings of the hosts that it is asked for on."""
        hosts = asked_of(vif).hosts
        if self._pool.me not in hosts:
            return vif.epoch + 1
        epoch = vif.epoch if 0 <= vif.epoch <= MOST_CLAIMS else 0
        found = (self._pool.compiler.view.binding(vif.network, vif.id, host) for host in hosts)
        return max(epoch, *(it.epoch for it in found if it is not None), 0) + 1

    def _reserve(self, vif: Vif) -> int:
        """An ofport for a VIF's port to ask for: the one it has, or the next that is free. They go round, so that one that was
        given up is not another VIF's for long."""
        held = {**self._pool.mine, **self._pool.overlay}
        if (mine := held.get(vif.id)) is not None and mine.ofport:
            return mine.ofport
        unusable = self.ports.taken | {binding.ofport for binding in held.values()}
        for _ in range(RESERVED):
            self._reserved += 1
            ofport = MIN_RESERVED_OFPORT + self._reserved % RESERVED
            if ofport not in unusable:
                return ofport
        raise RuntimeError(f"this host has {RESERVED} VIFs awaited")

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
            self._pool.set_overlay(replace(mine, state=state, since=self._now_ms()))
            if state is BindingState.ACTIVE:
                self._shell.arrived(vif_id, announced=announced)
            self._shell.wake()
        return True

    # Written

    def send(self) -> None:
        """Sends all that was decided and is not on its way: other hosts wait for it."""
        for vif in sorted(self._pool.overlay):
            self._bring(vif)

    def _bring(self, vif: str) -> None:
        if self._is_free("write", vif) and (write := self._next_write(vif)) is not None:
            self._start("write", vif, self._write, write)

    def _is_free(self, job: str, vif: str) -> bool:
        return (job, vif) not in self._under_way

    def _start(self, job: str, vif: str, run: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        self._under_way.add((job, vif))
        self._shell.spawn(self._alone(job, vif, run, *args))

    async def _alone(self, job: str, vif: str, run: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        try:
            await run(vif, *args)
        finally:
            self._under_way.discard((job, vif))

    async def _write(self, vif_id: str, write: SentWrite | None) -> None:
        """Brings the database's binding of a VIF to what was decided, and to the VIF as it is, over lost connections. `write` is the
        first step, on its way."""
        while write is not None:
            try:
                changed = (await write.answer)[-1]
            except (ConnectionLost, NotConnected, OutcomeUnknown):
                await self._client.wait_connected()
                await asyncio.sleep(RETRY_S)  # what was written before the loss arrives first
            except (InputOutputError, ResourcesExhausted) as error:  # as if the database were away
                log.warning("binding not written: %s", error, extra=about(vif=vif_id))
                await asyncio.sleep(FULL_S)
            except TransactError as error:
                log.info("binding not written: %s", error, extra=about(vif=vif_id))
                await self._decide_anew(vif_id)
            else:
                if write.decided is not None and changed == 0:
                    log.info(
                        "binding not written: its row is gone", extra=about(vif=vif_id)
                    )  # as where a migration was aborted
                    await self._decide_anew(vif_id)
                elif write.decided is not None:
                    self._written(write.decided, write.before)
                else:
                    await asyncio.sleep(RETRY_S)  # by then the row that was written is here
            write = self._next_write(vif_id)

    async def _decide_anew(self, vif_id: str) -> None:
        """The database did not take what was decided: what it has holds."""
        self._pool.clear_overlay(vif_id)
        await asyncio.sleep(RETRY_S)
        self._pool.touch([vif_id])
        self._shell.wake()

    def _next_write(self, vif_id: str) -> SentWrite | None:
        """Sends what the database's binding of a VIF lacks; None if it lacks nothing."""
        if (decided := self._pool.overlay.get(vif_id)) is not None:
            return SentWrite(self._claim(decided), decided, self._pool.mine.get(vif_id))
        vif, mine = self._pool.compiler.view.vifs.get(vif_id), self._pool.mine.get(vif_id)
        if vif is None or mine is None or copied(mine, vif, tiers=self._has_tiers(vif)) == mine:
            return None
        return SentWrite(
            self._client.send(transactions.copy(copied(mine, vif, tiers=self._has_tiers(vif)), self._pool.locate(mine)))
        )

    def _written(self, decided: Binding, before: Binding | None) -> None:
        if self._pool.overlay.get(decided.vif) == decided:
            del self._pool.overlay[decided.vif]
        if before is not None and (before.epoch, before.state) == (decided.epoch, decided.state):
            return
        state = decided.state.value
        self._status.event(state, f"{state} on {decided.host}", decided)

    def _claim(self, decided: Binding) -> Awaitable[list[Any]]:
        known, mine = self._pool.compiler.view.vifs.get(decided.vif), self._pool.mine.get(decided.vif)
        vif = self._pool.locate(known) if known is not None else (("id", "==", decided.vif),)
        spoiled = self._pool.spoiled(decided.vif) if mine is None else None
        cleared = [Delete("Binding", by_uuid(spoiled))] if spoiled is not None else []
        still = [self._status.claim.guard, *self._undisputed(decided, known, vif)]
        return self._client.send(*cleared, *transactions.bind(decided, mine, vif, self._pool.locate(decided), still))

    def _undisputed(self, decided: Binding, known: Vif | None, row: Where) -> list[Operation]:
        """What a claim holds by. A host that the VIF is asked for on minds the other such host alone, so that none else holds it up."""
        if known is None or self._pool.me not in (hosts := asked_of(known).hosts):
            return [transactions.is_first(decided, row)]
        still = [transactions.is_asked(known, row)]
        for host in hosts:
            if host == self._pool.me:
                continue
            other = self._pool.compiler.view.binding(known.network, known.id, host)
            if other is None or other.epoch >= decided.epoch:
                return [transactions.is_first(decided, row)]
            still.append(transactions.is_unrenewed(other, self._pool.locate(other)))
        return still

    async def _restore(self, vif_id: str) -> None:
        """Puts this host's own binding of a VIF back into its row, which cannot be read any more: nobody else may."""
        while (row := self._pool.spoiled(vif_id)) is not None and (mine := self._pool.mine.get(vif_id)) is not None:
            try:
                await self._client.transact(self._status.claim.guard, transactions.restore(mine, row))
                self._status.event("drift", "put back: its binding, which could not be read", mine)
            except (ConnectionLost, NotConnected, OutcomeUnknown):
                await self._client.wait_connected()
            except TransactError as error:
                log.warning("binding not put back: %s", error, extra=about(vif=vif_id))
            await asyncio.sleep(RETRY_S)  # by then the row that was written is here

    def _has_tiers(self, vif: Vif) -> bool:
        """Whether groups judge a VIF that are not its own."""
        return set(self._pool.compiler.view.obeyed(vif)) > set(vif.groups)

    def _joins(self, vif: Vif, mine: Binding) -> bool:
        """Whether a VIF that no group has judged obeys one now."""
        return bool(self._pool.compiler.view.obeyed(vif)) and not mine.groups and not mine.tiers

    def _is_untracked(self, vif_id: str) -> bool:
        """Whether a VIF's groups judge none of its packets by their connections: all are in monitor mode, or stateless."""
        view = self._pool.compiler.view
        vif = view.vifs.get(vif_id)
        groups = [view.groups[name] for name in view.obeyed(vif) if name in view.groups] if vif is not None else []
        return bool(groups) and not any(group.decides_tracked for group in groups)

    def _is_stateless(self, vif: Vif) -> bool:
        """Whether none of a VIF's groups tracks connections."""
        view = self._pool.compiler.view
        groups = [view.groups[name] for name in view.obeyed(vif) if name in view.groups]
        return bool(groups) and not any(group.stateful for group in groups)

    def _remembers_move(self, vif_id: str) -> Binding | None:
        """This host's binding of a VIF that has moved here or joined its first group of late, as the database has it."""
        mine = self._pool.mine.get(vif_id)
        return mine if mine is not None and mine.moved and not mine.state.moving else None

    async def _forget_move(self, vif_id: str) -> None:
        """Takes back that a VIF has moved here or joined its first group of late, after PICKUP_S: its connections are known by then.

        When that was is asked of the database, so that a restart of this agent changes nothing. While a VIF's groups are in monitor mode, or
        stateless, it has what it needs to be judged by its connections at any time: one may be silent until then.
        """
        untracked, untracked_s = False, 0.0  # whether it was so when last looked at, and when that may have ended
        while (mine := self._remembers_move(vif_id)) is not None:
            row = self._pool.locate(mine)
            try:
                (rows,) = await self._client.transact(Select("Binding", row, ("since",)))
                since_s = rows[0]["since"] / 1000 if rows else 0  # without a row, there is nothing to wait for
                before, untracked = untracked, self._is_untracked(vif_id)
                if before or untracked:
                    untracked_s = self._now_ms() / 1000
                # Another's clock may have said it, so never wait longer than from now.
                left_s = min(max(since_s, untracked_s) + PICKUP_S - self._now_ms() / 1000, PICKUP_S)
                if left_s > 0:
                    await asyncio.sleep(left_s)
                    continue
                await self._client.transact(transactions.settle(mine, row))
            except (ConnectionLost, NotConnected, OutcomeUnknown):
                await self._client.wait_connected()
            except TransactError as error:
                log.warning("binding not settled: %s", error, extra=about(vif=vif_id))
            await asyncio.sleep(RETRY_S)  # by then the row that was written is here
