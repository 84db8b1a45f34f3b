"""The agent of one host, in three stages.

- **Observe**: replicas of the pool database and of the local Open vSwitch, and the switch's own messages, are folded in as they
  come; each notes the VIFs it concerns and asks for a turn.
- **Decide**: a turn decides about the VIFs that were noted (binding_policy.py) and compiles what changed. Nothing waits in it.
- **Reconcile**: flows, Open vSwitch rows and the pool database are brought to what is desired, each by its own driver of one
  reconciler (reconciler.py). Each turn makes a revision; what is stated of it is true once the switch holds it.

A port becomes flows by these calls: BridgeFlows._port_changed and Agent.ports_changed note it; in the turn, Agent._turn has
BridgeFlows.want and Reconciler.want take up its flows; then the reconciler's Reconciler._round, BridgeFlows.change and
BridgeFlows._send send the bundle (tests/vnet/agent/test_structure.py follows them).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import Any, Final

from ovsctl.openflow import Flow
from ovsctl.openflow.errors import OpenFlowError
from ovsctl.openflow.messages import FlowRemoved, PacketIn, PortStats
from ovsctl.ovsdb import Change, ConnectFailed, NotConnected, OvsdbClient, OvsdbError, Patience, Replica, Schema, Tls
from vnet.agent import copy_keeper, zones
from vnet.agent.accounting import WRITE_S, Accounting
from vnet.agent.announcer import Announcer
from vnet.agent.binding_controller import Bindings
from vnet.agent.binding_policy import awaited
from vnet.agent.conditions import Conditions, asked_monitors, monitors, named_monitors
from vnet.agent.connection_handover import ConnectionHandovers
from vnet.agent.connection_limits import ConnectionLimits
from vnet.agent.copy_keeper import CopyKeeper, CopySource
from vnet.agent.datapath_parts import DatapathParts
from vnet.agent.encryption import EncryptedTunnels
from vnet.agent.flow_reconciler import BridgeFlows, vif_number
from vnet.agent.host_claim import DisplacedAgent, HostClaim
from vnet.agent.link_locals import LinkLocals
from vnet.agent.local_ports import MONITORS, LocalPorts, PortReader, vif_of
from vnet.agent.mac_learning import MacLearning
from vnet.agent.measures import Measures
from vnet.agent.monitoring import Monitoring
from vnet.agent.multicast_snooping import MulticastSnooping
from vnet.agent.network_watch import NetworkWatch
from vnet.agent.obstacles import AgentFacts
from vnet.agent.ofproto_trace import Prober
from vnet.agent.ovs_config_reconciler import OvsConfig
from vnet.agent.packet_capture import Watcher
from vnet.agent.pause_notices import PauseNotices
from vnet.agent.plug_bridges import PlugBridges
from vnet.agent.pool_identity import PoolIdentity
from vnet.agent.pool_replica import ConditionNames, PoolReplica
from vnet.agent.questions import Questions
from vnet.agent.reconciler import Revisions
from vnet.agent.rejections import Rejections
from vnet.agent.rule_counters import RuleCounters
from vnet.agent.rule_log import RuleLog
from vnet.agent.status_writer import StatusWriter
from vnet.agent.storm_watch import StormWatch
from vnet.agent.switch_access import Doorway, LocalAccess, RemoteAccess, SwitchAccess
from vnet.agent.traffic import TrafficCounters
from vnet.agent.uplink_flows import UplinkFlows
from vnet.agent.vif_capture import Captures
from vnet.agent.vrrp_masters import VrrpMasters
from vnet.agent.zones import TrackerZones
from vnet.compile import (
    ANNOUNCEMENT,
    CHOICE,
    GROUPS,
    HEARD,
    HELLO,
    REPORT,
    Category,
    Compiler,
    FlowSource,
    Switch,
    Table,
    VifRole,
    cookie,
    gate_flow,
    is_logged,
    is_monitored,
    is_rejection,
    read_tapped,
)
from vnet.db.health import HealthQuery, HostHealth
from vnet.db.probes import Answer, Probe
from vnet.db.rows import SCHEMA_TEXT
from vnet.db.rule_queries import RuleQuery, RuleReply
from vnet.db.traffic_queries import TrafficQuery, TrafficReply
from vnet.objects import AgentStatus, BindingState, Vif
from vnet.objects.binding import ELSEWHERE, POOL, SWITCH
from vnet.objects.identity import macs_of
from vnet.util.exposition import measure_lag
from vnet.util.transport import leaves_in_cleartext

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
# The delay of a turn that nothing waits for: the port of an awaited VIF has come, and forwards already.
LEISURE_S = 0.01
FAILED_TURN_S = 1.0
# Flows of groups' rules after which a turn compiles no more of them: some 50 ms. The rules of one group are compiled in one turn.
RULES_OF_A_TURN = 1000


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How an agent is run: its host, where the databases and the switch are, how the switch is to be set up.

    tls: the host's identity, for pool databases that are reached by ssl:. state_dir: where its copy of the pool is kept, None for none. wireguard: where the
    files of the host's WireGuard service are, None where there is none. doorway: where the switch connects to, if the agent runs on another machine;
    None if it runs on the host. hello_s: the interval of hellos to each peer. account_s: the interval in which what VIFs have sent and got is written to the pool database. ovs_tls: the agent's identity towards the switch's database, for one that is reached by ssl:.
    """

    host: str
    pool: tuple[str, ...]
    ovs_db: str
    ovs_rundir: str
    switch: Switch
    version: str = ""
    tls: Tls | None = None
    state_dir: Path | None = None
    wireguard: Path | None = None
    doorway: Doorway | None = None
    ovs_tls: Tls | None = None
    hello_s: float = 1.0
    account_s: float = WRITE_S


class PoolLost(Exception):
    """The pool database was lost before all that the host needs had come: an agent that begins anew may go by its copy."""


class Agent:
    """One host's agent. `now_ms` is the clock: milliseconds since 1970."""

    def __init__(self, options: AgentOptions, now_ms: Callable[[], int]) -> None:
        self.options: Final = options
        self.ovs_client: Final = OvsdbClient(
            [options.ovs_db], "Open_vSwitch", connect_timeout_s=None, tls=options.ovs_tls
        )
        self.access: Final[SwitchAccess] = (
            RemoteAccess(options.host, options.doorway, lambda: self.ovs, self._reconnect)
            if options.doorway
            else LocalAccess(options.ovs_rundir)
        )
        switch = replace(options.switch, target=self.access.target)
        status = AgentStatus(
            options.host, started=now_ms(), heartbeat=now_ms(), version=options.version, machine=gethostname()
        )
        self.identity: Final = PoolIdentity(self.ovs_client, status, now_ms, self._place)
        self.pool_client: Final = OvsdbClient(
            list(options.pool), "Vnet", shuffle=True, connect_timeout_s=None, patience=Patience(),
            check=self.identity.check, tls=options.tls,
        )  # fmt: skip
        self.compiler: Final = Compiler(options.host, on_failure=self._not_compiled, kernel=switch.is_kernel)
        self.copies: Final = CopyKeeper(
            options.state_dir, options.host, Path(options.ovs_rundir) / "ovs-vswitchd.pid", self.identity, now_ms, self._is_sound
        )  # fmt: skip
        self.pool: Final = PoolReplica(
            self.compiler, partial(self.arrived, announced=False), self.copies.former,
            self._awaits_port,
        )  # fmt: skip
        self.measures: Final = Measures(time.monotonic)
        self.revisions: Final = Revisions(self._more_is_true)
        self.claim: Final = HostClaim(self.pool_client, status, now_ms, fenced=bool(self.access.target))
        self.reports: Final = StatusWriter(
            self.pool, self.pool_client, self.revisions, self.claim, self.identity, lambda: self.problems,
            lambda: dict(self.routers.masters), lambda: self.network.stated(measured=False).encode(), lambda: self.flows.connected,
            self.refusal, now_ms, self.measures,
        )  # fmt: skip
        self.bindings: Final = Bindings(self.pool, self.pool_client, self.reports, self, now_ms)
        self.conditions: Final = Conditions(self.pool, lambda: set(self.bindings.ports.vifs), self._answered)
        self.limits: Final = ConnectionLimits(self.compiler.view, self.access, switch, self.wake)
        self.zones: Final = TrackerZones(
            self.ovs_client, self._zones_in_use, self._networks_of_zones, zones.ELSEWHERE if switch.target else None
        )
        self.flows: Final = BridgeFlows(switch.bridge, self.access, self, self.revisions, GROUPS, self.zones)
        self.parts: Final = DatapathParts(self.flows, switch, self.access, self.ovs_client, self.wake)
        self.uplinks: Final = UplinkFlows(self.compiler.view, self.access, self, self.revisions, self.spawn)
        self.announcer: Final = Announcer(self.compiler.view, self.flows, self.uplinks, self.revisions)
        self.link_locals: Final = LinkLocals(self.pool, self.reports, self.flows, self.revisions, self, now_ms)
        self.handovers: Final = ConnectionHandovers(
            self.pool, self.pool_client, self.reports, switch, self, now_ms
        )  # fmt: skip
        self.learning: Final = MacLearning(self.pool, self.flows, self, now_ms)
        self.snooping: Final = MulticastSnooping(self.pool, self.flows, self, now_ms)
        self.rows: Final = OvsConfig(
            self.ovs_client, lambda: self.ovs, self.compiler.view, switch, self.revisions,
            lambda text: self.event("drift", f"put back: {text}"), self.wake,
        )  # fmt: skip
        self.plugs: Final = PlugBridges(
            self.ovs_client, lambda: self.ovs, switch.bridge, lambda: set(self.compiler.view.plug_bridges),
            lambda: self.compiler.view.taken_bridges if self.complete else None, self._taken_here,
            lambda: self.ports_changed(switch.bridge, announced=False), self._given_back,
        )  # fmt: skip
        self.rejections: Final = Rejections(self.compiler.view, self.flows, self)
        self.rule_log: Final = RuleLog(self.compiler.view)
        self.monitoring: Final = Monitoring(self.compiler.view, self.rule_log, now_ms)
        self.traffic: Final = TrafficCounters(self.compiler.view, self.flows, now_ms)
        self.accounting: Final = Accounting(
            self.compiler.view, self.flows, self.pool_client, time.monotonic, now_ms, options.account_s
        )
        self.rule_counters: Final = RuleCounters(self.compiler.view, self.flows, self.monitoring.of_group)
        traced = (self.rejections.traced, self.rule_log.traced, self.monitoring.traced)
        self._prober: Final = Prober(self.compiler.view, self.access, switch.bridge, traced)
        self.storms: Final = StormWatch(self.compiler.view, self.flows, self.wake)
        self.routers: Final = VrrpMasters(self.compiler.view, self.flows, self.wake)
        self.network: Final = NetworkWatch(
            self.compiler.view, self.flows, self.uplinks, self.revisions, self, options.hello_s
        )
        self.pauses: Final = PauseNotices(
            self.compiler.view, self.flows, lambda vifs: self.spawn(self._paused_there(vifs))
        )
        self.watcher: Final = Watcher(self.compiler, self.flows, self.pool_client, self)
        self.captures: Final = Captures(
            self.compiler, self.flows, self.pool_client, self, in_clear=any(map(leaves_in_cleartext, options.pool))
        )
        self.encryption: Final = EncryptedTunnels(self.pool, self.pool_client, options.wireguard, self.wake, now_ms)
        self._replica: Replica | None = None
        self._asked: Replica | None = None
        self._port_reader: Final = PortReader()
        self._ovs: Replica | None = None
        self._urgent = False  # the next turn is for a port that is new in the switch
        self._work: Final = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    @property
    def me(self) -> str:
        return self.options.host

    @property
    def _place(self) -> str:
        """What tells this agent from others of the same switch, which may be on other machines; "" for one on its host: others there are the same."""
        return f"{ELSEWHERE}{self.access.target}" if self.access.target else ""

    @property
    def ovs(self) -> Replica:
        """The local switch's database."""
        if self._ovs is None:
            raise NotConnected("Open vSwitch's database was not reached yet")
        return self._ovs

    @property
    def complete(self) -> bool:
        """Whether there has been a complete desired state."""
        return self.revisions.newest > 0

    @property
    def rows_held(self) -> int:
        """How many rows of the pool this agent has a copy of."""
        held = [it for it in (self._replica, self._asked) if it is not None]
        return sum(len(it[table]) for it in held for table in it)

    # Life

    async def run(self) -> None:
        """Runs until cancelled. Whatever is down is waited for; packets keep flowing meanwhile. Raises a group with DisplacedAgent, or PoolLost."""
        async with self.ovs_client, self._reaching_pool(), asyncio.TaskGroup() as self._group:
            self._ovs = await self.ovs_client.monitor(MONITORS)
            switch = str(next(iter(self._ovs["Open_vSwitch"]), "")) + self._place
            copied = await self._copied(switch)
            watch = None
            if copied is None:
                await self.pool_client.wait_connected()
                watch = self.spawn(self._watch_start())
                await self.claim.begin(switch)
            else:
                self.claim.presume(switch)
            self.rows.begin()
            self._ovs.subscribe(self._ovs_changed)
            self.ports_changed(self.flows.bridge, announced=False)
            # Before the bindings, which are followed by it. The host's own copy has none of it.
            asked = self._asked = self.pool_client.preload(
                Schema.parse(SCHEMA_TEXT), asked_monitors(self.pool.named.networks), {}
            )
            asked.subscribe(self._asked_changed)
            replica = copied or await self._monitored()
            replica.subscribe(self._pool_changed)
            self.pool_client.on_connection_change(self._pool_connected)
            await self._take_up(replica, asked, whole=copied is not None)
            if watch is not None:
                watch.cancel()
            self.pool.touch_everything(self.bindings.ports.vifs)
            self.encryption.begin()
            watches = copied is None and await self.watcher.start()
            captures = copied is None and await self.captures.start()
            self.wake()
            self.copies.follow(CopySource(replica, self.pool.held_rows, lambda: self.pool.named, switch))
            for job in (
                self.flows.run(), self.rows.run(), self.reports.run(), self.reports.heartbeat(HEARTBEAT_S),
                self.conditions.run(replica, asked), *self._answering(), self.watcher.run(started=watches),
                self.captures.run(started=captures),
                self.limits.run(), self.zones.run(), self.announcer.run(), replica.wait_synced(), self.copies.run(),
                self.encryption.run(), self.parts.run(), self.storms.run(), self.routers.run(), self.learning.run(),
                self.snooping.run(), self.handovers.run(), self.plugs.run(), self.network.run(), self.accounting.run(),
                measure_lag(self.measures.lag),
            ):  # fmt: skip
                self.spawn(job)
            try:
                await self._turns()
            finally:
                self.copies.flush()

    async def _watch_start(self) -> None:
        """Raises PoolLost once the pool database, which had answered, has been away for as long as one that never did. An agent that stands by goes on
        to wait."""
        lost = asyncio.Event()
        unwatch = self.pool_client.on_connection_change(lambda connected: None if connected else lost.set())
        try:
            if not self.pool_client.connected:
                lost.set()
            while True:
                await lost.wait()
                lost.clear()
                try:
                    await self.pool_client.wait_connected(copy_keeper.ALONE_AFTER_S)
                except ConnectFailed as error:
                    if not self.claim.holder:
                        raise PoolLost(str(error)) from None
        finally:
            unwatch()

    @asynccontextmanager
    async def _reaching_pool(self) -> AsyncIterator[None]:
        """Inside, the pool database is connected to as soon as it answers: nothing here waits for it."""
        opening = asyncio.create_task(self.pool_client.open())
        await asyncio.sleep(0)
        try:
            yield
        finally:
            opening.cancel()
            await asyncio.wait([opening])
            await self.pool_client.close()

    async def _copied(self, switch: str) -> Replica | None:
        """A replica with what the host's own copy of the pool has, as if a database had had it that was lost since; None if there is a
        database, or no copy that may be used."""
        copy = await self.copies.take(self.pool_client, switch)
        if copy is None:
            return None
        try:
            wanted = named_monitors(self.me, copy.named)
            replica = self.pool_client.preload(Schema.parse(SCHEMA_TEXT), wanted, copy.rows)
        except OvsdbError as error:
            self.copies.refuse(str(error))
            return None
        self.pool.named = copy.named
        return replica

    async def _monitored(self) -> Replica:
        """A replica with the database's rows that are known to be needed."""
        self.pool.named = ConditionNames(vifs=frozenset(self.bindings.ports.vifs))
        return await self.pool_client.monitor(monitors(self.me, self.pool.named.vifs))

    async def _take_up(self, replica: Replica, asked: Replica, *, whole: bool) -> None:
        """Takes in what the replica has, and unless that is the whole what is needed besides."""
        self._replica = replica
        if not whole:
            await self.identity.keep()
        self.pool.start(replica)
        while not whole and await self.conditions.follow(replica, asked):
            pass

    def _is_sound(self) -> bool:
        """Whether the replica holds all that was asked for, of the pool that this host follows."""
        identity = self.identity
        return not (self.conditions.waiting or identity.holds or identity.objection or identity.followed is None)

    def _answering(self) -> Iterator[Coroutine[Any, Any, None]]:
        """Answers controllers' questions, those of each table by itself: a trace takes longer than a counter."""
        yield Questions(Probe, self.me, self.pool_client, self._prober.answer, Answer).run()
        yield Questions(HealthQuery, self.me, self.pool_client, self.network.look, HostHealth).run()
        yield Questions(RuleQuery, self.me, self.pool_client, self.rule_counters.answer, RuleReply).run()
        yield Questions(TrafficQuery, self.me, self.pool_client, self.traffic.answer, TrafficReply).run()

    def _reconnect(self, bridge: str) -> None:
        self.rows.reconnect(bridge)

    async def _zones_in_use(self) -> Collection[int]:
        return zones.ALL_ZONES if self.access.target else await self.limits.zones_in_use()

    def _networks_of_zones(self) -> dict[int, int]:
        """The numbers of the networks of the VIFs here, by ofport."""
        networks, vifs = self.compiler.inputs.networks, self.compiler.view.vifs
        found = ((port, vifs[id].network) for id, port in self.compiler.view.ports.items() if id in vifs)
        return {port: networks[name].number for port, name in found if name in networks}

    def _taken_here(self, id: str, network: str) -> tuple[Vif, int | None] | None:
        """A VIF whose port is to be taken from its toolstack's bridge, with the number that is reserved for it. One that is awaited is once it has its number."""
        vif = self.compiler.view.vifs.get(id)
        if vif is None or vif.network != network or self.me not in (vif.host, vif.incoming):
            return None
        ofport = self.bindings.awaited_ofport(id)
        late = awaited(self.me, vif) and ofport is None and id not in self.bindings.ports.vifs
        return None if late else (vif, ofport)

    def _given_back(self, bridge: str, port: str) -> None:
        """A port goes back to its toolstack's bridge, which still has its VIF's MAC at br-int's end, as have switches."""
        ids: Mapping[str, str] = next(
            (row["external_ids"] for row in self.ovs["Interface"].values() if row["name"] == port), {}
        )
        vif = self.compiler.view.vifs.get(vif_of(ids) or "")
        if vif is not None:
            self.spawn(self.uplinks.announce(bridge, port, macs_of(vif)))

    def _awaits_port(self, network: str) -> bool:
        return self.rows.awaits(network)

    def spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._group is None:
            raise RuntimeError("the agent is not running")
        return self._group.create_task(job)

    def wake(self) -> None:
        self._work.set()

    async def programmed(self) -> None:
        self.wake()
        await self.revisions.reached(self.revisions.newest + 1)

    async def _turns(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            if self.complete or self.compiler.view.pool is not None:  # an empty database is no desired state
                self._attempt(self._turn)

    def _attempt(self, step: Callable[..., None], *args: object) -> None:
        """Runs a step of a turn; after a failure everything is decided on again."""
        try:
            step(*args)
        except Exception:
            log.exception("a turn failed: it is repeated in %g s", FAILED_TURN_S)
            self.pool.touch_everything(self.bindings.ports.vifs)
            asyncio.get_running_loop().call_later(FAILED_TURN_S, self.wake)

    def _turn(self) -> None:
        """Decides about all that changed. A claim leaves before the flows are compiled, and so does the release of a port that is gone. The
        flows of a new port go before claims: the switch will soon be done with the port."""
        self.revisions.newest += 1
        urgent, self._urgent = self._urgent, False
        touched, self.pool.touched = self.pool.touched, set()
        self.bindings.decide(touched)
        self.link_locals.settle(touched)
        self.learning.settle(touched)
        self.snooping.settle(touched)
        self.handovers.settle(touched)
        if not urgent:
            self.bindings.send()
        changes = self.compiler.compile(RULES_OF_A_TURN)
        self.measures.turned(self.revisions.newest, self._is_programmed, changed=bool(changes))
        self.flows.want(changes, urgent=urgent)
        if self.compiler.unfinished:
            # In the loop's next pass: what has come meanwhile goes first.
            asyncio.get_running_loop().call_soon(self.wake)
        # After the flows: the reconciler was woken before.
        asyncio.get_running_loop().call_soon(self._attempt, self._follow_up, touched)

    def _is_programmed(self, vif_id: str) -> bool:
        view = self.compiler.view
        vif = view.vifs.get(vif_id)
        return vif is not None and vif_id in view.ports and view.role(vif) in (VifRole.ACTIVE, VifRole.INCOMING)

    def _not_compiled(self, source: FlowSource, error: Exception) -> None:
        log.error("flows of %s stay as they are", self.compiler.origin(source), exc_info=error)

    def _follow_up(self, touched: set[tuple[str, str]]) -> None:
        """The rest of a turn, once the flows of br-int are on their way."""
        self.bindings.send()
        self.uplinks.want(self.ovs)
        self.rows.want(self.bindings.ports.vifs)
        self.reports.state(touched, whole=not self.compiler.unfinished)
        self.plugs.look()
        # VIFs that wait for a port have it by now, or know that it does not come. A row that is missing may not exist: the pool answers that.
        if self.pool.needs_changed or self.pool.waiting or False in self.bindings.questions.values():
            self.pool.needs_changed = False
            self.conditions.look()

    # Observed

    def _pool_changed(self, batch: tuple[Change, ...]) -> None:
        """Folds a transaction in, unless it makes the database one that this host may not follow: then it is left, and looked at again
        before it is used. What a database that was looked at just now differs in comes before the client is connected."""
        doubtful = self.pool_client.connected and self.identity.doubts(batch)
        if doubtful or self.identity.holds:
            self.identity.hold(batch)
            if doubtful:
                self.pool_client.leave("the pool's row is not the one it was")
            return
        if self.identity.joins(batch):
            self.spawn(self.identity.keep())
        self.copies.touch()
        # What this host has opened itself comes back here, and the guest may have announced itself since.
        paused = [vif for vif in _paused(batch, self.me) if vif not in self.pool.overlay]
        self.pool.fold(batch)
        self.encryption.changed(batch)
        if paused:
            self.spawn(self._open_paused(paused))
            # The flows leave before the turn, in the same pass of the loop.
            asyncio.get_running_loop().call_soon(self.wake)
        else:
            self.wake()

    def _asked_changed(self, batch: tuple[Change, ...]) -> None:
        """Folds in where VIFs are asked for, unless it may be of another pool: then it is looked at once that is known."""
        doubtful = self.pool_client.connected and self.identity.doubts(batch)
        if not (doubtful or self.identity.holds) and self.pool.fold_asked(batch):
            self.wake()

    def _pool_connected(self, connected: bool) -> None:
        if not connected:
            return
        self.copies.let_go()
        if self.identity.holds:
            if self._asked is not None:
                self.pool.start_asked(self._asked)
            self.pool.fold(self.identity.let_go())
            self.copies.touch()
            self.wake()

    def _answered(self) -> None:
        self.bindings.see_answers()
        if self.pool.touched:
            self.wake()

    async def _give_way(self, rival: str) -> None:
        raise DisplacedAgent(f"host {self.me} is that of the agent at {rival}: its bridges connect there")

    def _ovs_changed(self, batch: tuple[Change, ...]) -> None:
        if rival := self.rows.rival:
            self.spawn(self._give_way(rival))
            return
        self.rows.changed(batch)
        self.plugs.changed(batch)
        for change in batch:
            if change.table == "Interface" and change.new is None and change.old is not None:
                # The next port of that name may be another VIF's: its number is not known until the switch says it.
                self.flows.ports.pop(change.old["name"], None)
        if any(change.table in ("Bridge", "Port", "Interface") for change in batch):
            self.ports_changed(self.flows.bridge, announced=False)

    def ports_changed(self, bridge: str, *, announced: bool = True) -> None:
        """Reads the ports anew. announced: by the switch, which is not done with a new port yet: flows that are sent at once arrive
        before its first packet."""
        if bridge != self.flows.bridge:
            self.uplinks.bridge_ports_changed()
            return
        ports = LocalPorts.of(self._port_reader.read(self.ovs, bridge, self.flows.ports, self.plugs.unnumbered))
        self.measures.ports(self.bindings.ports.vifs, ports.vifs)
        to_program = self.bindings.see_ports(ports)
        self.uplinks.ports_changed()
        devices = self.compiler.view.devices
        if ports.devices != devices:
            self.reports.postpone()
            for name in devices.keys() | ports.devices.keys():
                self.compiler.inputs.set_device(name, ports.devices.get(name))
            to_program = True
        self._urgent = self._urgent or (announced and to_program)
        if to_program:
            self._work.set()
        else:
            asyncio.get_running_loop().call_later(LEISURE_S, self.wake)

    def connection_changed(self, bridge: str) -> None:
        self.wake()

    def connection_lost(self, bridge: str) -> None:
        if bridge == self.flows.bridge:
            self.accounting.lost()

    def flow_removed(self, bridge: str, message: FlowRemoved) -> None:
        if bridge == self.flows.bridge:
            self.accounting.removed(message)

    def refusals_changed(self, vifs: Set[int]) -> None:
        self.pool.touch([vif for vif in self.compiler.view.vifs if vif_number(cookie(Category.VIF, vif)) in vifs])
        self.wake()

    def refusal(self, vif: str) -> str:
        return self.flows.refusal(vif)

    def packet_in(self, message: PacketIn) -> None:
        """Takes a packet that is rejected, logged or monitored, or captured; a probe's frame; the announcement of a VIF that moves here: the switch has opened its port already, and
        the binding becomes active; a frame of a VIF whose guest has chosen a link-local address; or what a VIF says of its multicast groups."""
        if is_rejection(message.userdata):
            self.rejections.packet_in(message)
            return
        if is_logged(message.userdata):
            self.rule_log.packet_in(message)
            return
        if is_monitored(message.userdata):
            self.monitoring.packet_in(message)
            return
        if message.userdata == HELLO and self.pauses.packet_in(message):
            return
        if self.network.packet_in(message):
            return
        if (tapped := read_tapped(message.userdata)) is not None:
            self.captures.packet_in(message, tapped)
            return
        if message.userdata not in (ANNOUNCEMENT, CHOICE, HEARD, REPORT):
            self.watcher.packet_in(message)
            return
        view = self.compiler.view
        vif, ofport = next(((v, port) for v, port in view.ports.items() if port == message.in_port), ("", 0))
        if vif and message.userdata == ANNOUNCEMENT:
            self.bindings.set_state(vif, BindingState.ACTIVE, announced=True)
        elif vif in view.vifs and message.userdata == HEARD:
            self.learning.frame_from(view.vifs[vif], message.data)
        elif vif in view.vifs and message.userdata == REPORT:
            self.snooping.frame_from(view.vifs[vif], message.data)
        elif vif in view.vifs:
            self.link_locals.frame_from(view.vifs[vif], ofport, message.data)

    def is_wanted(self, learned: Flow) -> bool:
        """Whether what the switch learned still holds. A port that it opened by itself is that of a VIF on its way here: that runs here by now."""
        if learned.table == Table.MIRROR_MOVED:  # it is of one move alone, and goes by itself
            return True
        opened, view = learned.match.get("reg2"), self.compiler.view
        for vif, ofport in view.ports.items():
            if opened is not None and opened.value == ofport and vif in view.vifs:
                moving = view.role(view.vifs[vif]) is VifRole.INCOMING
                if moving:
                    self.bindings.set_state(vif, BindingState.ACTIVE, announced=True)
                return moving
        return False

    async def open(self, vifs: Sequence[str], state: BindingState) -> list[str]:
        """Opens the ports of VIFs that are moving here, ahead of the next turn; of those whose guests are paused here, has their destinations do so.
        Returns those that are here or on their way."""
        if state is BindingState.RECEIVING:
            await self.pauses.send(vifs)
        gated = self._gated(vifs)
        if state is BindingState.RECEIVING:
            await self._count(gated)
        found = [vif for vif in vifs if self.bindings.set_state(vif, state, announced=False)]
        # A guest may have announced itself meanwhile.
        await self._open_gates([vif for vif in gated if self.compiler.view.state(vif) is state], state)
        return found

    async def _paused_there(self, vifs: Sequence[str]) -> None:
        """The host that VIFs come from has said that their guests are paused."""
        await self.open(vifs, BindingState.RECEIVING)

    def _gated(self, vifs: Sequence[str]) -> list[Vif]:
        view = self.compiler.view
        return [vif for id in vifs if (vif := view.vifs.get(id)) is not None and view.role(vif) is VifRole.INCOMING]

    async def _count(self, vifs: Sequence[Vif]) -> None:
        """Asks the switch for the counters of ports before it opens them."""
        for vif in vifs:
            self.measures.opened(vif.id, asyncio.ensure_future(self._counters_of(vif.id)))
        await asyncio.sleep(0)

    async def _open_gates(self, vifs: Sequence[Vif], state: BindingState) -> None:
        ports = self.compiler.view.ports
        await self.flows.at_once([gate_flow(vif, ports[vif.id], state) for vif in vifs if vif.id in ports])

    async def _open_paused(self, vifs: Sequence[str]) -> None:
        """Opens the ports of VIFs whose guests are paused, unless that has been taken back: the next turn is to want the flows."""
        await self._count(self._gated(vifs))
        state, view = BindingState.RECEIVING, self.compiler.view
        await self._open_gates([vif for vif in self._gated(vifs) if view.state(vif) is state], state)

    # Announced and reported

    async def _counters_of(self, vif: str) -> PortStats | None:
        """The counters of a VIF's port; None where the switch does not say."""
        ofport = self.compiler.view.ports.get(vif)
        with suppress(OpenFlowError):
            return (await self.flows.port_counters(ofport)).get(ofport) if ofport is not None else None
        return None

    async def _measure_move(self, vif: str) -> None:
        self.measures.arrived(vif, await self._counters_of(vif))

    def arrived(self, vif: str, *, announced: bool) -> None:
        if self.measures.is_opened(vif):
            self.spawn(self._measure_move(vif))
        self.spawn(self._announce_move(vif, announced=announced))
        self.handovers.arrived(vif)

    async def _announce_move(self, vif: str, *, announced: bool) -> None:
        await self.programmed()
        await self.announcer.moved(vif, announced=announced)

    def took_up(self, vif: Vif, addresses: tuple[str, ...]) -> None:
        self.announcer.took_up(vif, addresses)

    def _more_is_true(self) -> None:
        self.measures.held(self.revisions.flows)
        if self.reports.statements.pending:
            self.reports.statements.again()

    def event(self, topic: str, text: str) -> None:
        self.reports.event(topic, text)

    @property
    def facts(self) -> AgentFacts:
        """The state of this agent's connections and of what came over them."""
        view = self.compiler.view
        return AgentFacts(
            self.me,
            ovs=None if self.ovs_client.connected else self.ovs_client.reasons,
            pool=None if self.pool_client.connected else self.pool_client.reasons,
            objection=self.identity.objection,
            holder=self.claim.holder,
            hosts=view.hosts.keys() if view.pool is not None else None,
            switch="" if self.flows.connected else self.flows.remote,
            programmed=bool(self.revisions.flows and self.revisions.rows),
            copy=self.copies.description,
        )

    @property
    def problems(self) -> dict[str, str]:
        """All that is wrong on this host, by object."""
        objection = self.identity.objection
        away = self._ovs is not None and not self.flows.connected
        of_vifs = (self.storms.problems, self.limits.problems, self.link_locals.problems, self.bindings.problems)
        of_parts = (
            ("agent", self.claim.problem),
            (SWITCH, f"does not answer at {self.flows.remote}" if away else ""),
            # On an uplink's bridge others have flows, ovs-vswitchd itself for one.
            (f"flows of {self.flows.bridge}", self.flows.stranger_problem),
            (POOL, f"the pool database {objection}" if objection else ""),
            ("copy", self.copies.problem),
        )
        found = {f"vif {vif}": text for problems in of_vifs for vif, text in problems.items()}
        found |= self.encryption.problems | self.snooping.problems | self.parts.problems | self.rows.problems
        found |= {part: text for part, text in of_parts if text}
        for source, text in self.compiler.failed.items():
            found[f"flows of {self.compiler.origin(source)}"] = text
        for uuid, text in self.pool.problems.items():
            found[f"row {uuid}"] = text
        return found


def _paused(batch: tuple[Change, ...], me: str) -> Iterator[str]:
    """The VIFs on their way to a host whose guests are paused from now on, by a toolstack's word."""
    for change in batch:
        old, new = change.old, change.new
        if change.table == "Binding" and old is not None and new is not None and new["host"] == me:
            states = old["state"], new["state"]
            if states == (BindingState.HELD.value, BindingState.RECEIVING.value):
                yield new["vif"]
