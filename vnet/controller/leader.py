"""What one controller does for all: it prunes events, notices hosts that fall silent, and clears up after the dead.

One rule: decisions are functions of the pool; a leader that is none any more writes nothing. The lock alone cannot ensure that:
a server that stood still, or was cut off, goes on to grant it and to forward what it was sent before it hears that another
one leads. So who leads writes its term into the database, and each of its writes waits for that very term.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any
from uuid import uuid4

from ovsctl.ovsdb import (
    Assert,
    Delete,
    Insert,
    Lock,
    NotOwner,
    Operation,
    OvsdbError,
    Select,
    Update,
    Wait,
    WaitTimedOut,
    Where,
    by_uuid,
)
from vnet.controller.accounting import take_over
from vnet.controller.health_queries import ask_hosts, vlans_in_use
from vnet.controller.old_agents import first_agents
from vnet.controller.trial_guard import TrialGuard
from vnet.controller.trials import reverted, taking_back
from vnet.db.captures import MAX_SECONDS, CaptureRow
from vnet.db.changes import DeleteObject
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.errors import PoolError, WriteConflict
from vnet.db.handovers import Handover
from vnet.db.health import HealthQuery
from vnet.db.history import BOUNDED, KEPT, KEPT_BYTES, Author, Costs, HistoryRecord, beyond
from vnet.db.probes import FORGOTTEN_AFTER_MS
from vnet.db.roles import role_operations
from vnet.db.rows import TABLE_OF, by_key, to_columns
from vnet.db.view import HOST_DOWN_AFTER_S, PoolView
from vnet.db.writes import Step, configuration_write, new_keys, new_pool_id
from vnet.health.findings import NetworkFinding, by_subject, findings, health_events, stated
from vnet.objects import AgentStatus, Binding, BindingState, Event, Host, Location, Pool, PoolState, TunnelKey, Vif
from vnet.objects.binding import SWITCH, asked_of, stays
from vnet.objects.impact import Disruption
from vnet.objects.retired import RetiredNumber
from vnet.plan.decide import Inadmissible
from vnet.plan.pool import costs_of
from vnet.util.logs import about

LOCK = "vnet_leader"
EVENTS_KEPT = 1000
EVENTS_SLACK = 100  # pruned in bunches
INTERVAL_S = 1.0
SILENT_S = 10.0
KEYS_LAST_MS = 30 * 24 * 3600 * 1000  # of encrypted tunnels
MOST_CLAIMS = 1000  # of a VIF between two rounds
LOOK_EVERY, LOOK_FIRST, LOOK_WAIT_S = (
    300,
    270,
    30.0,
)  # rounds from one look at the VLANs to the next, less those before the first; and for answers
ACCOUNTS_EVERY, ACCOUNTS_FIRST = (
    600,
    540,
)  # rounds from one look at hosts' accounts to the next, less those before the first
RESTATED_AT_ONCE = 500  # VIFs, in a round
PROBES_EVERY = 60  # rounds; who asked takes its own question away, so this is for those who died before
TABLE = "Leader"  # of one row, which names the term of who leads

log = logging.getLogger("vnet.controller.leader")


def old_events(events: Mapping[str, Event], kept: int = EVENTS_KEPT, slack: int = EVENTS_SLACK) -> list[str]:
    """The UUIDs of the events beyond the newest `kept`; none before there are `slack` of them. Of one host half as many are kept: it
    writes as many as it likes."""
    if len(events) <= kept + slack:
        return []
    newest_first = sorted(events, key=lambda uuid: (events[uuid].time, uuid), reverse=True)
    of_host: Counter[str] = Counter()
    shared: list[str] = []
    beyond: list[str] = []
    for uuid in newest_first:
        host = events[uuid].host
        of_host[host] += 1
        (beyond if host and of_host[host] > kept // 2 else shared).append(uuid)
    return beyond + shared[kept:]


def orphans(view: PoolView) -> list[tuple[str, str]]:
    """(VIF id, host) of the bindings whose VIF is gone and whose host is not there to clear up."""
    state = view.state
    return [(vif, host) for vif, host in state.bindings if vif not in state.vifs and host not in view.live]


def forgotten_captures(at_ms: int) -> Iterator[Operation]:
    """Takes away captures whose controller beats no more, and those that were to end longer ago than any can last."""
    silent, over = at_ms - FORGOTTEN_AFTER_MS, at_ms - FORGOTTEN_AFTER_MS - int(1000 * MAX_SECONDS)
    yield Delete(CaptureRow.NOUN.table, (("beat", "!=", 0), ("beat", "<", 1000 * silent), ("created", "<", silent)))
    yield Delete(CaptureRow.NOUN.table, (("created", "<", over),))


def unheard(view: PoolView) -> list[Binding]:
    """The bindings that say which multicast groups a VIF listens to, of hosts where nobody hears it any more: it may listen to others by now."""
    if view.state.hosts.keys() <= view.live:
        return []
    networks = {name for name, network in view.state.networks.items() if network.multicast_snooping}
    if not networks:
        return []
    return [
        it for it in view.state.bindings.values()
        if it.listening is not None and it.network in networks and it.host in view.state.hosts and it.host not in view.live
    ]  # fmt: skip


def unfollowed(view: PoolView) -> list[Binding]:
    """The bindings of hosts that may not run a VIF, since it is asked for elsewhere, or its network may not be there. A host that keeps the rules lets go of it itself."""
    found: list[Binding] = []
    for id, bindings in view.bindings_of.items():
        vif = view.state.vifs.get(id)
        if vif is None:
            continue
        if len(bindings) == 1 and (vif.host is None or vif.host in bindings):  # as nearly all are
            network = view.state.networks.get(vif.network)
            if network is None or not network.hosts or network.hosts.issuperset(bindings):
                continue
        counting = view.state.followed(id, list(bindings.values()))
        found += [it for it in bindings.values() if it not in counting]
    return found


def restated(view: PoolView) -> Iterator[tuple[Vif, str]]:
    """The VIFs of which something else is to be stated of where they may stay, and what: nothing was, as by earlier versions; or they are claimed where they
    are wanted, and no other host has them any more."""
    for vif in view.state.vifs.values():
        if vif.stays == (vif.host or ""):  # as nearly all are
            continue
        asked, bindings, at = asked_of(vif), view.bindings_of.get(vif.id, {}), view.location(vif.id)
        settled = (
            at.current is not None and at.current.host in asked.hosts and not bindings.keys() & (asked.former or ())
        )
        if asked.former is None or settled:
            stated = stays(vif, vif, at)
            if stated != vif.stays:
                yield vif, stated


def usurpers(view: PoolView, known: Mapping[str, int]) -> list[Binding]:
    """The bindings by which a host draws a VIF to itself that runs on another one, as no agent does that keeps the rules.

    known: the epochs of VIFs whose column is wrong. Of an epoch that the VIF never gave; or where the VIF is asked for on the other host, which is alive and has its port.
    """
    found = []
    for id, bindings in view.bindings_of.items():
        vif = view.state.vifs.get(id)
        if len(bindings) < 2 or vif is None:
            continue
        current = Location.of(list(bindings.values())).current  # also one that hosts of this version do not follow
        if current is None or current.host == vif.incoming:
            continue
        others = [it for it in bindings.values() if it.host != current.host and it.state is BindingState.ACTIVE]
        epoch = known.get(id, vif.epoch)
        given = [it for it in others if it.epoch <= epoch]
        running = any(it.host == vif.host and it.ready and it.host in view.live for it in given)
        if (current.epoch > epoch and given) or running:
            found.append(current)
    return found


class Epochs:
    """The epochs of VIFs from round to round: any host may write the column, from which claims take their numbers."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Vif, Where]] = {}

    def wrong(self, vifs: Mapping[str, Vif], locate: Callable[[Vif], Where]) -> dict[str, int]:
        """Of the VIFs whose epoch is one that no claims came to since the last round, the one that they had then.

        locate: a VIF's row; a VIF that was made anew has another one.
        """
        found = {}
        for id, vif in vifs.items():
            before = self._known.get(id)
            if before is not None and before[0] is vif:
                continue
            row = locate(vif)
            if before is not None and before[1] == row and not 0 <= vif.epoch - before[0].epoch <= MOST_CLAIMS:
                found[id] = before[0].epoch
            else:
                self._known[id] = vif, row
        for id in self._known.keys() - vifs.keys():
            del self._known[id]
        return found


def usurper_events(bindings: Iterable[Binding], now: int) -> Iterator[Event]:
    """What to tell of them."""
    for it in bindings:
        text = f"host {it.host} drew VIF {it.vif} to itself, which runs on another host, or may not run there: its binding is removed"
        yield Event(now, "problem", text, it.host, it.network, it.vif)


def host_events(before: frozenset[str], view: PoolView, now: int) -> Iterator[Event]:
    """What to tell of hosts that fell silent or came back. `before`: the hosts that were alive."""
    known = view.state.hosts.keys()
    for host in sorted((before - view.live) & known):
        agent = view.state.agents.get(host)
        away = agent.problems.get(SWITCH) if agent is not None else None
        text = f"host {host}: {f'{SWITCH} {away}' if away else f'its agent has not reported for {HOST_DOWN_AFTER_S:.0f} s'}"
        yield Event(now, "host-down", text, host=host)
    for host in sorted((view.live - before) & known):
        yield Event(now, "host-up", f"host {host}: its agent reports", host=host)


class Leader:
    """Runs the duties while it holds the lock, and waits for it while another controller does.

    Any client may take a lock, also a host. So who holds it and writes nothing as leader for `silent_s` is waited for no longer: what
    follows leads by its term alone, which no host can write.
    """

    def __init__(
        self, database: PoolDatabase, silent_s: float = SILENT_S, kept: int = KEPT, kept_bytes: int = KEPT_BYTES
    ) -> None:
        """kept, kept_bytes: the bounds of the history."""
        self._bounds = kept, kept_bytes
        self._database = database
        self._silent_s = silent_s
        self._beat = 0
        self._locked = True  # whether the term began with the lock
        self._lock: Lock = database.lock(LOCK)
        self._term = ""
        self._pool_id = ""  # as it was seen last
        self.duties = 0  # how often they were done
        self._known: set[tuple[str, str]] = set()  # VIF and host of the usurpers that the last round found
        self._unfollowed: list[Binding] = []  # in the last round
        self._epochs = Epochs()
        self._trials = TrialGuard(database)
        self._stuck = 0  # the revision on trial that cannot be taken back

    @property
    def leads(self) -> bool:
        return bool(self._term) and (self._lock.held or not self._locked)

    async def run(self) -> None:
        """Without end: lead when the lock is ours."""
        while True:
            try:
                await self.take()
                log.info("leads the pool")
                await self._lead()
            except (NotOwner, WaitTimedOut):
                log.info("another controller leads now")
            except (OvsdbError, PoolError) as error:
                log.warning("leader duties: %s", error)
            await asyncio.sleep(INTERVAL_S)

    async def take(self) -> None:
        """Wait for the lock and begin a term, with the roles as this version has them; who led before writes nothing from then on.

        Raises OvsdbError, PoolError."""
        self._term = ""
        self._locked = await self._turn()
        if not self._locked:
            log.error("leads without the lock %s: who holds it is no controller", LOCK)
        term = uuid4().hex
        begun = (Delete(TABLE, ()), Insert(TABLE, {"term": term, "beat": 1}))
        await self._database.transact(*self._assertion(), *begun, *role_operations())
        self._term, self._beat = term, 1

    async def _turn(self) -> bool:
        """Wait for the lock, True, or until nobody writes as leader though it is not ours, False."""
        waits = {asyncio.ensure_future(self._lock.acquire()), asyncio.ensure_future(self._silence())}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            return self._lock.held
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _silence(self) -> None:
        """Return once who leads has written nothing for so long."""
        clock = asyncio.get_running_loop().time
        seen, since = await self._leadership(), clock()
        while clock() - since < self._silent_s:
            await asyncio.sleep(self._silent_s / 5)
            found = await self._leadership()
            if found != seen or any(not row["beat"] for row in found):  # an earlier version does not count
                seen, since = found, clock()

    async def _leadership(self) -> list[dict[str, Any]]:
        """The leader's row; one that counts nothing while the database does not answer."""
        try:
            (rows,) = await self._database.transact(Select(TABLE, (), ("term", "beat")))
        except PoolError:
            return [{"beat": 0}]
        return list(rows)

    def _assertion(self) -> tuple[Operation, ...]:
        return (Assert(LOCK),) if self._locked else ()

    def guarded(self, *operations: Operation) -> tuple[Operation, ...]:
        """The operations, and before them what lets nobody do them but who leads in this term."""
        self._beat += 1
        mine = (Wait(TABLE, (), ("term",), ({"term": self._term},)), Update(TABLE, (), {"beat": self._beat}))
        return *self._assertion(), *mine, *operations

    async def write(self, *operations: Operation) -> None:
        """A write that only who leads may do. Raises NotOwner, WaitTimedOut when that is another one, PoolError."""
        await self._database.transact(*self.guarded(*operations))

    async def _lead(self) -> None:
        alive = self._database.view().live
        known_health: dict[str, NetworkFinding] = {}
        looking: asyncio.Task[object] | None = None
        while self.leads:
            view = self._database.view()
            mirror = self._database.mirror
            wrong = self._epochs.wrong(view.state.vifs, mirror.locate)
            taken = self._taken(view, wrong) if not mirror.lacks(Vif, Binding) else []
            news = [it for it in taken if (it.vif, it.host) not in self._known]
            self._known = {(it.vif, it.host) for it in taken}
            told = [*host_events(alive, view, now_ms()), *usurper_events(news, now_ms())]
            told += [
                Event(now_ms(), "problem", f"VIF {id}: its epoch was set to what it is not", vif=id) for id in wrong
            ]
            health = by_subject(findings(view, stated(view)))
            told += health_events(known_health, health, now_ms())
            for event in told:
                log.warning(event.text, extra=about(host=event.host))
            operations = [
                *(Insert("Event", to_columns(event)) for event in told),
                *(Delete("Binding", (*by_key(it), ("epoch", "==", it.epoch))) for it in taken),
                *(Update(TABLE_OF[Vif], mirror.locate(view.state.vifs[id]), {"epoch": wrong[id]}) for id in wrong),
                *self._restated(view),
                *self._unheard(view),
                *self._pruning(view),
                *await self._old_records(),
            ]
            await self.write(*operations)
            await self._end_trial()
            await self._end_mirrors()
            if (self.duties + ACCOUNTS_FIRST) % ACCOUNTS_EVERY == 0:
                await take_over(self._database, self.write)
            alive, known_health = view.live, health
            if (self.duties + LOOK_FIRST) % LOOK_EVERY == 0 and (looking is None or looking.done()):
                looking = asyncio.create_task(self._look(view))
            self.duties += 1
            await asyncio.sleep(INTERVAL_S)

    async def _look(self, view: PoolView) -> None:
        """Has hosts look at the VLANs between them; they state what they find themselves."""
        if vlans_in_use(view) and len(view.live) > 1:
            with suppress(PoolError):
                await ask_hosts(self._database, view, LOOK_WAIT_S)

    def _taken(self, view: PoolView, wrong: Mapping[str, int]) -> list[Binding]:
        """The bindings to remove: those by which a host draws a VIF to itself, or holds on to one that it may not run."""
        before, self._unfollowed = self._unfollowed, unfollowed(view)
        found = usurpers(view, wrong)
        old = first_agents(view)  # they would claim it again
        return found + [it for it in self._unfollowed if it in before and it not in found and it.host not in old]

    def _restated(self, view: PoolView) -> Iterator[Operation]:
        locate = self._database.mirror.locate
        for vif, text in islice(restated(view), RESTATED_AT_ONCE):
            columns = to_columns(vif)
            as_it_was = ((name, "==", columns[name]) for name in ("host", "incoming", "stays"))
            yield Update(TABLE_OF[Vif], (*locate(vif), *as_it_was), {"stays": text})

    def _unheard(self, view: PoolView) -> Iterator[Operation]:
        """Has the VIFs of silent hosts get every multicast group; not before a live one would have been heard."""
        if self.duties * INTERVAL_S > HOST_DOWN_AFTER_S:
            for it in unheard(view):
                yield Update("Binding", (*by_key(it), ("epoch", "==", it.epoch)), {"listening": frozenset()})

    async def _end_trial(self) -> None:
        """Takes a revision back that nobody has confirmed in time."""
        trial = self._database.mirror.trial
        if trial is None or now_ms() < trial.ends:
            return
        author = Author("controller", "", f"trial of {trial.caller}, not confirmed in time", "")
        try:
            write, admission = await taking_back(self._database, self._trials, trial, *self.guarded())
            await self._database.write(write, [reverted(trial)], author, costs_of(admission.plan))
            log.warning("%s", reverted(trial).text, extra=about(revision=write.revision))
        except WriteConflict as conflict:
            log.info("trial of revision %s: %s", trial.revision, conflict.message)
        except (Inadmissible, ValueError) as error:
            if self._stuck != trial.revision:
                self._stuck = trial.revision
                text = f"revision {trial.revision} cannot be taken back, and stays until it is confirmed: {error}"
                log.error("%s", text)
                await self.write(Insert("Event", to_columns(Event(now_ms(), "problem", text))))

    async def _end_mirrors(self) -> None:
        """Takes mirrors off that have expired. Those of a trial go with it, or after it."""
        ended = [it for it in self._database.view().state.mirrors.values() if it.ends_by(now_ms())]
        if not ended or self._database.mirror.trial is not None:
            return
        changes, told = [DeleteObject(it) for it in ended], []
        for it in ended:
            told.append(Event(now_ms(), "mirror-expired", f"mirror {it.name} has expired: it is taken off"))
            log.info(told[-1].text)
        rows = self._database.mirror
        write = configuration_write(changes, self._database.view().state.pool, generation=True, rows=rows)
        write = replace(write, steps=(*map(Step, self.guarded()), *write.steps))
        author = Author("controller", "", f"expired: {', '.join(it.name for it in ended)}", "")
        try:
            await self._database.write(write, told, author, Costs(Disruption.NONE.name.lower()))
        except WriteConflict as conflict:
            log.info("expired mirrors: %s", conflict.message)  # again in the next round

    async def _old_records(self) -> list[Operation]:
        """Takes away the history beyond its bounds, now and then."""
        if self.duties % PROBES_EVERY:
            return []
        rows = await self._database.records((), BOUNDED)
        trial = self._database.mirror.trial
        kept = trial.revision if trial is not None else None  # the record by which it is taken back
        gone = beyond([row for row in rows if row["revision"] != kept], *self._bounds)
        return [Delete(HistoryRecord.NOUN.table, by_uuid(uuid)) for uuid in gone]

    def _new_keys(self, state: PoolState) -> Iterator[Operation]:
        """Has hosts make new keys of encrypted tunnels, when theirs are old."""
        pool, now = state.pool, now_ms()
        if pool is None or not any(network.encryption is not None for network in state.networks.values()):
            return
        if not pool.keyed:
            yield Update(TABLE_OF[Pool], (), {"keyed": now})
        elif now - pool.keyed >= KEYS_LAST_MS:
            yield from new_keys(pool, now).operations

    def _pruning(self, view: PoolView) -> Iterator[Operation]:
        """What is of no more use. An object whose row cannot be read is not known to be gone."""
        mirror = self._database.mirror
        unreadable = mirror.unreadable(Event)
        for uuid in (*old_events(mirror.events), *(unreadable if len(unreadable) > EVENTS_SLACK else ())):
            yield Delete("Event", by_uuid(uuid))
        for vif, host in orphans(view) if not mirror.lacks(Vif) else ():
            yield Delete("Binding", (("vif", "==", vif), ("host", "==", host)))
        if view.state.pool is not None:
            self._pool_id = view.state.pool.id or self._pool_id
            if not view.state.pool.id:  # made by a version that gave none, unless it was there before
                self._pool_id = self._pool_id or new_pool_id()
                yield Update("Pool", (("id", "==", ""),), {"id": self._pool_id})
        for tunnel_key in view.state.tunnel_keys.values() if not mirror.lacks(Host) else ():
            if tunnel_key.host not in view.state.hosts:
                yield Delete(TABLE_OF[TunnelKey], by_key(tunnel_key))
        yield from self._new_keys(view.state)
        used = view.state.still_used()
        for key, number in view.state.retired.items() if not mirror.lacks(Host, AgentStatus) else ():
            if key not in used:
                yield Delete(TABLE_OF[RetiredNumber], (*by_key(number), ("generation", "==", number.generation)))
        if self.duties % PROBES_EVERY == 0:
            for table in ("Probe", "RuleQuery", HealthQuery.NOUN.table, "TrafficQuery", "Watch", Handover.NOUN.table):
                yield Delete(table, (("created", "<", now_ms() - FORGOTTEN_AFTER_MS),))
            yield from forgotten_captures(now_ms())
