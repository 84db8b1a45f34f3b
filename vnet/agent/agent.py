"""The agent of one host: what the pool and the local switch say goes in; flows, rows and bindings come out.

One loop does all deciding: wake, decide claims, compile what changed, push one bundle, report. Callbacks only fold and wake
it, so every step sees one consistent view. Nothing is deleted before the first complete desired state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from ovsctl.openflow import Flow
from ovsctl.openflow.messages import PacketIn
from ovsctl.ovsdb import Change, Client, NotConnected, Patience, Replica
from vnet.agent.binding_controller import Bindings
from vnet.agent.flow_reconciler import FlowKeeper
from vnet.agent.local_ports import MONITORS, read_ports, vif_ports
from vnet.agent.ofproto_trace import Prober
from vnet.agent.ovs_config_reconciler import CACHES_S, RowKeeper
from vnet.agent.packet_capture import Watcher
from vnet.agent.pool_replica import (
    PoolFold,
    Where,
    group_condition,
    monitors,
    network_conditions,
    next_asked,
    vif_condition,
)
from vnet.agent.rarp import rarp
from vnet.agent.status_writer import Reporter
from vnet.agent.uplink_flows import UplinkKeeper
from vnet.compile import ANNOUNCEMENT, Compiler, Role, Switch, gate_flow, to_uplink
from vnet.db.view import SWITCH
from vnet.objects import AgentStatus, BindingState
from vnet.objects.values import MIN_RESERVED_OFPORT

T = TypeVar("T")

HEARTBEAT_S = 5.0
TRIM_AFTER_S = 2.0
# How long what nobody waits for stays undone: the port of an awaited VIF has come, and what it takes is forwarding.
LEISURE_S = 0.01
ANNOUNCE_AGAIN_S = (0.02, 0.1, 0.4)  # within the time that the source relays, see bindings.RELAY_S


@dataclass(frozen=True, slots=True)
class Options:
    """How an agent is run: its host, where the databases and the switch are, how the switch is to be set up."""

    host: str
    pool: tuple[str, ...]
    ovs_db: str
    ovs_rundir: str
    switch: Switch
    version: str = ""


class Agent:
    """One host's agent. `now_ms` is the clock: milliseconds since 1970."""

    def __init__(self, options: Options, now_ms: Callable[[], int]) -> None:
        self.options = options
        self.me = options.host
        self.compiler = Compiler(self.me)
        self.pool = PoolFold(self.me, self.compiler)
        self.pool_client = Client(list(options.pool), "Vnet", shuffle=True, connect_timeout_s=None, patience=Patience())
        self.ovs_client = Client([options.ovs_db], "Open_vSwitch", connect_timeout_s=None)
        self.flows = FlowKeeper(
            f"unix:{options.ovs_rundir}/{options.switch.bridge}.mgmt",
            self._packet_in,
            lambda count: self._drifted(options.switch.bridge, count),
            self._wake,
            self._ports_told,
            self._compile_for_new_ports,
            self._still_moving,
            lambda text: self._refused(options.switch.bridge, text),
        )
        self.uplinks = UplinkKeeper(
            self.compiler.view, options.ovs_rundir, self._spawn, self._drifted, self._wake, self._refused
        )
        self.rows = RowKeeper(self.ovs_client, self.compiler.view, options.switch, self._rows_drifted, self._wake)
        self.bindings = Bindings(
            self.pool, self.pool_client, self._spawn, self._wake, self._written, self._problem, now_ms
        )
        status = AgentStatus(self.me, started=now_ms(), heartbeat=now_ms(), version=options.version)
        self.reports = Reporter(
            self.pool, self.bindings, self.pool_client, status, lambda: self.rows.settled, self._other_problems, now_ms,
            lambda: self.flows.connected,
        )  # fmt: skip
        self.prober = Prober(self.compiler.view, self.pool_client, options.ovs_rundir, options.switch.bridge)
        self.watcher = Watcher(self.compiler, self.flows, self.pool_client, self._wake)
        self.complete = False
        self.started = asyncio.Event()  # complete, and the switch has been compared for the first time
        self.conditions_set = 0  # each makes the server look at a whole table; for tests to count
        self._replica: Replica | None = None
        self._ovs: Replica | None = None
        self._at_once = False  # the flows are for a new port
        self._work = asyncio.Event()
        self._look = asyncio.Event()
        self._trim_due = False
        self._trim_timer: asyncio.TimerHandle | None = None
        self._group: asyncio.TaskGroup | None = None

    @property
    def ovs(self) -> Replica:
        """The local switch's database."""
        if self._ovs is None:
            raise NotConnected("Open vSwitch's database was not reached yet")
        return self._ovs

    @property
    def rows_held(self) -> int:
        """How many rows of the pool this agent has a copy of."""
        return sum(len(self._replica[table]) for table in self._replica) if self._replica is not None else 0

    # Life

    async def run(self) -> None:
        """Runs until cancelled. Whatever is down is waited for; packets keep flowing meanwhile."""
        async with self.ovs_client, self.pool_client, asyncio.TaskGroup() as self._group:
            self._ovs = await self.ovs_client.monitor(MONITORS)
            self._ovs.subscribe(self._ovs_changed)
            self.rows.start(self._ovs)
            self._read_ports()
            self.pool.asked = frozenset(self.bindings.ports)
            tables = monitors(self.me, self.pool.asked)
            self._replica = await self.pool_client.monitor(tables)
            self._replica.subscribe(self._pool_changed)
            self.pool.start(self._replica)
            while await self._follow():
                pass
            self.bindings.look_again()
            self._everything_touched()
            await self.watcher.start()
            self.complete = True
            self._wake()
            for job in (self.flows.run(), self.rows.run(), self.reports.run(), self.reports.heartbeat(HEARTBEAT_S)):
                self._spawn(job)
            self._spawn(self._follow_always())
            self._spawn(self.prober.run())
            self._spawn(self.watcher.run())
            await self._loop()

    def _spawn(self, job: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        if self._group is None:
            raise RuntimeError("the agent is not running")
        return self._group.create_task(job)

    def _wake(self) -> None:
        self._work.set()

    async def _loop(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            for vif in self.bindings.decide_touched():
                self._place(vif)
            await asyncio.sleep(0)  # what the switch has said of a new port meanwhile is worked out along with the rest
            at_once, self._at_once = self._at_once, False
            if not at_once:
                self.bindings.send_decided()
            if self.bindings.releases and self.bindings.releases.keys().isdisjoint(self.bindings.ports):
                self.reports.soon()  # a port that is gone needs no flows to be silent
            taken, watches = self.reports.take(), self.watcher.take()
            left, self.bindings.left = self.bindings.left, {}
            mods = self.flows.want(self.compiler.compile())
            self.flows.start()
            pushing = self._spawn(self.flows.push(mods, at_once=at_once))
            self._look.set()
            if at_once:
                await asyncio.sleep(0)  # the flows leave first: the switch will soon be done with the port
                self.bindings.send_decided()
            on_uplinks = self.uplinks.want(self.ovs)
            pushed = await pushing
            self.rows.kick(self.bindings.ports)
            if pushed:
                self.started.set()
            if pushed and await self.uplinks.push(on_uplinks):
                await self._announce()
                if left:
                    asyncio.get_running_loop().call_later(CACHES_S, self.bindings.give_up, left)
                self.reports.programmed(taken)
                self.watcher.programmed(watches)
            else:
                self.bindings.left = left | self.bindings.left
                self.reports.not_programmed(taken)

    async def _announce(self) -> None:
        """Tells the network where VIFs are that moved here."""
        view = self.compiler.view
        while self.bindings.announce:
            vif = view.vifs.get(self.bindings.announce.pop())
            if vif is not None and view.role(vif) is Role.ACTIVE:
                await self.flows.send_packet(rarp(vif.mac), view.ports[vif.id])
        while self.bindings.arrived:
            self._spawn(self._tell_switches(self.bindings.arrived.pop()))

    async def _tell_switches(self, vif_id: str) -> None:
        """Announces a VIF to the physical network some more times: the source's last frames may have told it otherwise."""
        view = self.compiler.view
        for pause_s in ANNOUNCE_AGAIN_S:
            await asyncio.sleep(pause_s)
            vif = view.vifs.get(vif_id)
            network = view.networks.get(vif.network) if vif else None
            if vif is None or network is None or view.role(vif) is not Role.ACTIVE:
                return
            if (uplink := view.uplink_port(network)) is not None:
                await self.flows.send_packet(rarp(vif.mac), view.ports[vif_id], to_uplink(uplink, network.tag or 0))

    # What changed

    def _everything_touched(self) -> None:
        view = self.compiler.view
        self.bindings.touched.update(view.vifs, self.bindings.ports, self.pool.mine)
        self.reports.changed.update((b.network, b.vif) for network in view.networks for b in view.bindings(network))

    def _pool_changed(self, batch: tuple[Change, ...]) -> None:
        for change in batch:
            self._note_activation(change)
        self.pool.fold(batch)
        for change in batch:
            for row in (change.old, change.new):
                if row is not None:
                    self._note(change, row)
        self._wake()

    def _note(self, change: Change, row: Any) -> None:
        """Remembers whom a changed row concerns."""
        view, bindings = self.compiler.view, self.bindings
        if change.table == "Binding":
            bindings.touched.add(row["vif"])
            self.reports.changed.add((row["network"], row["vif"]))
        elif change.table == "Vif":
            bindings.touched.add(row["id"])
            self.reports.changed.add((row["network"], row["id"]))
        elif change.table == "Network":
            local = [vif.id for vif in view.local(row["name"])]
            bindings.touched.update(local)
            self.reports.changed.update((row["name"], vif) for vif in local)
        elif change.table == "SecurityGroup":
            members = [vif for vif in view.vifs.values() if row["name"] in vif.groups]
            bindings.touched.update(vif.id for vif in members)
            self.reports.changed.update((vif.network, vif.id) for vif in members)

    def _note_activation(self, change: Change) -> None:
        """The toolstack's word, by the database, makes our binding active: the guest may not have told the network."""
        new = change.new
        if (
            change.table != "Binding"
            or new is None
            or new["host"] != self.me
            or new["state"] != BindingState.ACTIVE.value
        ):
            return
        known = self.compiler.view.binding(new["network"], new["vif"], self.me)
        if known is not None and known.state.moving:
            self.bindings.announce.add(new["vif"])
            self.bindings.arrived.add(new["vif"])

    def _ovs_changed(self, batch: tuple[Change, ...]) -> None:
        self.rows.changed(batch)
        for change in batch:
            if change.table == "Interface" and change.new is None and change.old is not None:
                # The next port of that name may be another VIF's: its number is not known until the switch says it.
                self.flows.ports.pop(change.old["name"], None)
        if any(change.table in ("Bridge", "Port", "Interface") for change in batch):
            self._wake_for_ports()

    def _ports_told(self) -> None:
        """The switch has a new port, before it is done with it: flows that are sent at once arrive before its first packet."""
        self._at_once = self._wake_for_ports() or self._at_once

    def _wake_for_ports(self) -> bool:
        """Reads the ports anew and has everything else follow; whether that is urgent."""
        urgent = self._read_ports()
        if urgent:
            self._wake()
        else:
            asyncio.get_running_loop().call_later(LEISURE_S, self._wake)
        return urgent

    def _compile_for_new_ports(self) -> None:
        """A switch has come: its flows are compared with those of the ports that it says it has."""
        self._read_ports()
        self.flows.want(self.compiler.compile())
        self._wake()

    def _read_ports(self) -> bool:
        """Folds what the switch says of its ports into the compiler. False if all that it says is that awaited VIFs' have come or
        gone, for which nothing is to be programmed."""
        if self._ovs is None:
            return False
        found = read_ports(self._ovs, self.options.switch.bridge, self.flows.ports)
        vifs = vif_ports(found)
        before, taken = self.bindings.ports, self.bindings.taken
        self.bindings.ports = vifs
        self.bindings.taken = frozenset(port.ofport for port in found if port.ofport is not None)
        others = changed = False
        for vif in before.keys() | vifs.keys():
            if before.get(vif) != vifs.get(vif):
                changed = True
                others |= self._place(vif) or vif not in self.compiler.view.ports
                self.bindings.touched.add(vif)
                if (known := self.compiler.view.vifs.get(vif)) is not None:
                    self.reports.changed.add((known.network, vif))
        if any(ofport >= MIN_RESERVED_OFPORT for ofport in taken ^ self.bindings.taken):
            for vif in self.pool.mine:  # a port may have taken a number that another VIF's was to have
                others |= self._place(vif)
        self.uplinks.changed()
        devices = {port.name: port.ofport for port in found if port.vif is None}
        if devices != self.compiler.view.devices:
            self.reports.wait_for_push()
            others = True
        for name in self.compiler.view.devices.keys() | devices.keys():
            self.compiler.set_device(name, devices.get(name))
        return others or not changed

    def _place(self, vif: str) -> bool:
        """Folds under which number a VIF is here: its port's, or while that is not known the one it is awaited under. Whether that
        is another than before."""
        port, before = self.bindings.ports.get(vif), self.compiler.view.ports.get(vif)
        known = port.ofport if port is not None else None
        ofport = self.bindings.awaited_ofport(vif) if known is None else known
        self.compiler.set_port(vif, ofport)
        return ofport != before

    def _packet_in(self, message: PacketIn) -> None:
        """A moving VIF announced itself: the switch has opened its port already, now everybody else hears. Or it is a probe."""
        if message.userdata != ANNOUNCEMENT:
            self.watcher.packet_in(message)
            return
        vif = next((v for v, ofport in self.compiler.view.ports.items() if ofport == message.in_port), None)
        if vif is not None:
            self.bindings.set_state(vif, BindingState.ACTIVE, announced=True)

    async def open(self, vifs: Sequence[str], state: BindingState) -> list[str]:
        """Opens the ports of VIFs that are moving here, ahead of all else there is to compile; which are here or on their way."""
        view = self.compiler.view
        gated = [vif for id in vifs if (vif := view.vifs.get(id)) is not None and view.role(vif) is Role.INCOMING]
        found = [vif for vif in vifs if self.bindings.set_state(vif, state, announced=False)]
        await self.flows.at_once([gate_flow(vif, view.ports[vif.id], state) for vif in gated])
        return found

    def _still_moving(self, flow: Flow) -> bool:
        """Whether a port that the switch opened by itself is that of a VIF on its way here; if so it runs here by now."""
        opened, view = flow.match.get("reg2"), self.compiler.view
        for vif, ofport in view.ports.items():
            if opened is not None and opened.value == ofport and vif in view.vifs:
                moving = view.role(view.vifs[vif]) is Role.INCOMING
                if moving:
                    self.bindings.set_state(vif, BindingState.ACTIVE, announced=True)
                return moving
        return False

    def _drifted(self, bridge: str, count: int) -> None:
        self.reports.event("drift", f"{count} flows of {bridge} differed and were put back")

    def _refused(self, bridge: str, text: str) -> None:
        self.reports.event("refused", f"{bridge} did not take its flows: {text}")

    def _rows_drifted(self, text: str) -> None:
        self.reports.event("drift", f"put back: {text}")

    def _written(self, kind: str, text: str, binding: Any) -> None:
        self.reports.event(kind, text, binding)

    def _problem(self, vif: str, text: str) -> None:
        self.reports.event("problem", text, vif=vif)

    def _other_problems(self) -> dict[str, str]:
        away = {} if self.flows.connected else {SWITCH: f"does not answer at {self.flows.remote}"}
        return away | self.rows.problems | {f"row {uuid}": text for uuid, text in self.pool.bad_rows.items()}

    # Following what this host needs

    async def _follow(self, *, trim: bool = False) -> bool:
        """Asks for the rows that are needed by now, with `trim` for no others; whether that was anything new."""
        if self._replica is None:
            return False
        useful, networks, groups = self._useful()
        needed = {vif for vif in useful if self.pool.must_ask(vif)}
        asked = next_asked(self.pool.asked, needed, useful, trim=trim)
        asked_networks = next_asked(self.pool.asked_networks, networks, networks, trim=trim)
        asked_groups = next_asked(self.pool.asked_groups, groups, groups, trim=trim)
        changed: dict[str, Where] = {}
        if asked != self.pool.asked:
            changed["Vif"] = vif_condition(self.me, asked)
        if asked_networks != self.pool.asked_networks:
            changed["Network"], changed["Binding"] = network_conditions(self.me, asked_networks)
        if asked_groups != self.pool.asked_groups:
            changed["SecurityGroup"] = group_condition(asked_groups)
        self.conditions_set += len(changed)
        await asyncio.gather(*(self._replica.set_condition(table, where) for table, where in changed.items()))
        self.pool.asked, self.pool.asked_networks, self.pool.asked_groups = asked, asked_networks, asked_groups
        return bool(changed)

    def _useful(self) -> tuple[Set[str], Set[str], Set[str]]:
        """The VIFs, networks and security groups that conditions may name."""
        here = self.bindings.ports.keys() | self.pool.mine.keys()
        return here, self.pool.wanted_networks(), self.pool.wanted_groups()

    async def _follow_always(self) -> None:
        while True:
            await self._look.wait()
            self._look.clear()
            trim, self._trim_due = self._trim_due, False
            while await self._follow(trim=trim):
                self._wake()
            if settled := self.pool.settle_doubts() | self.pool.settle_waiting():
                self.bindings.touched |= settled
                self.reports.changed.update(
                    (vif.network, vif.id) for name in settled if (vif := self.compiler.view.vifs.get(name)) is not None
                )
                self._wake()
            if self.bindings.incomplete:
                self.bindings.look_again()
            self._trim_later()

    def _trim_later(self) -> None:
        """Has what conditions name without need taken out of them in a while, once for many unplugs."""
        pool = self.pool
        asked = (pool.asked, pool.asked_networks, pool.asked_groups)
        unneeded = any(named - useful for named, useful in zip(asked, self._useful(), strict=True))
        if self._trim_timer is None and unneeded:
            self._trim_timer = asyncio.get_running_loop().call_later(TRIM_AFTER_S, self._trim_now)

    def _trim_now(self) -> None:
        self._trim_timer, self._trim_due = None, True
        self._look.set()
