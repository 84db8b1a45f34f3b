"""The agent of one host: what the pool and the local switch say goes in, flows, rows and bindings come out.

One loop does all deciding: wake, decide claims, compile what changed, push one bundle, report. Callbacks only fold and wake
it, so every step sees one consistent view. Nothing is deleted before the first complete desired state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from ovsctl.openflow import Flow, PacketIn
from ovsctl.ovsdb import Change as RowChange
from ovsctl.ovsdb import Client, ConnectionLost, Operation, OutcomeUnknown, OvsdbError, Replica, TransactError
from vnet.agent import writes
from vnet.agent.announce import rarp
from vnet.agent.claims import Act, Decision, decide
from vnet.agent.flows import FlowKeeper
from vnet.agent.pool import PoolFold, monitors, network_conditions, vif_condition
from vnet.agent.ports import MONITORS, LocalPort, read_ports
from vnet.agent.rows import RowKeeper
from vnet.compile import ANNOUNCEMENT, Compiler, Role, Switch
from vnet.model import AgentStatus, Binding, BindingState, LockingMode, Vif

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
CLAIM_RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Options:
    """How an agent is run: its host, where the databases and the switch are, and how the switch is to be set up."""

    host: str
    pool: tuple[str, ...]
    ovs_db: str
    ovs_rundir: str
    switch: Switch
    socket: str
    version: str = ""


class Agent:
    """One host's agent. `now_ms` is the clock: milliseconds since 1970."""

    def __init__(self, options: Options, now_ms: Callable[[], int]) -> None:
        self.options = options
        self.me = options.host
        self.now_ms = now_ms
        self.compiler = Compiler(self.me)
        self.pool = PoolFold(self.me, self.compiler)
        self.ports: dict[str, LocalPort] = {}  # by VIF id
        self.problems: dict[str, str] = {}
        self.complete = asyncio.Event()
        self.flows = FlowKeeper(
            f"unix:{options.ovs_rundir}/{options.switch.bridge}.mgmt",
            self._packet_in,
            self._flows_drifted,
            self._wake,
            self._learned_is_wanted,
        )
        self._pool_client = Client(list(options.pool), "Vnet")
        self._ovs_client = Client([options.ovs_db], "Open_vSwitch")
        self.rows = RowKeeper(self._ovs_client, self.compiler.view, options.switch, self._rows_drifted, self._wake)
        self._replica: Replica | None = None
        self._ovs: Replica | None = None
        self._work = asyncio.Event()
        self._conditions: dict[str, object] = {}
        self._claiming: set[str] = set()
        self._touched: set[tuple[str, str]] = set()  # (network, VIF) whose bindings changed since the last report
        self._announce: set[str] = set()
        self._acked: set[tuple[str, str, int, BindingState]] = set()
        self._ready: set[tuple[str, int]] = set()
        self._releases: set[str] = set()
        self._events: list[Operation] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._generation = 0

    # Life

    async def run(self) -> None:
        """Runs until cancelled. Whatever is down is waited for; packets keep flowing meanwhile."""
        async with self._ovs_client, self._pool_client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self.flows.run())
            self._ovs = await self._ovs_client.monitor(MONITORS)
            self._ovs.subscribe(self._ovs_changed)
            self.rows.start(self._ovs)
            self._read_ports()
            self._replica = await self._pool_client.monitor(monitors(self.me))
            self._replica.subscribe(self._pool_changed)
            self.pool.start(self._replica)
            self._touched.update((b.network, b.vif) for b in self.pool.mine.values())
            while await self._follow():
                pass
            await self._first_report()
            self.complete.set()
            self._wake()
            tasks.create_task(self.rows.run())
            tasks.create_task(self._follow_always())
            tasks.create_task(self._heartbeat())
            await self._loop()

    def _wake(self) -> None:
        self._work.set()

    async def _loop(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            self._decide_all()
            generation = self.pool.generation
            changes = self.compiler.compile()
            self.rows.kick()
            mods = self.flows.want(changes)
            self.flows.start()
            pushed = await self.flows.push(mods)
            if pushed:
                await self._announce_moved()
                self._report(generation)

    # What changed

    def _pool_changed(self, batch: tuple[RowChange, ...]) -> None:
        for change in batch:
            if change.table == "Binding":
                row = change.new if change.new is not None else change.old
                if row is not None:
                    self._touched.add((row["network"], row["vif"]))
                    self._note_activation(change)
        self.pool.fold(batch)
        self._touched.update((vif.network, vif.id) for vif in self._changed_vifs(batch))
        self._wake()

    def _changed_vifs(self, batch: tuple[RowChange, ...]) -> list[Vif]:
        ids = {row["id"] for c in batch if c.table == "Vif" for row in (c.old, c.new) if row is not None}
        return [self.compiler.view.vifs[vif] for vif in ids if vif in self.compiler.view.vifs]

    def _note_activation(self, change: RowChange) -> None:
        """The toolstack's word made our binding active: nobody else will tell the network that the VIF is here."""
        old, new = change.old, change.new
        if new is None or old is None or new["host"] != self.me or new["state"] != "active" or old["state"] == "active":
            return
        decided = self.pool.overlay.get(new["vif"])
        if decided is None or decided.state is not BindingState.ACTIVE:
            self._announce.add(new["vif"])

    def _ovs_changed(self, batch: tuple[RowChange, ...]) -> None:
        self.rows.changed(batch)
        if any(change.table in ("Bridge", "Port", "Interface") for change in batch):
            self._read_ports()
            self._wake()

    def _read_ports(self) -> None:
        """Folds what the switch says of its ports into the compiler."""
        assert self._ovs is not None  # noqa: S101 - only called once it is there
        found = read_ports(self._ovs, self.options.switch.bridge)
        vifs = {port.vif: port for port in found if port.vif is not None}
        for vif in self.ports.keys() | vifs.keys():
            port = vifs.get(vif)
            self.compiler.set_port(vif, port.ofport if port else None)
            if self.ports.get(vif) != port and (known := self.compiler.view.vifs.get(vif)) is not None:
                self._touched.add((known.network, vif))
        self.ports = vifs
        devices = {port.name: port.ofport for port in found if port.vif is None}
        for name in self.compiler.view.devices.keys() | devices.keys():
            self.compiler.set_device(name, devices.get(name))

    def _packet_in(self, message: PacketIn) -> None:
        """A moving VIF announced itself: the switch has opened its port already, now everybody else hears."""
        if message.userdata != ANNOUNCEMENT or message.in_port is None:
            return
        vif = next((v for v, ofport in self.compiler.view.ports.items() if ofport == message.in_port), None)
        if vif is not None:
            self.activate(vif, announced=True)

    def _flows_drifted(self, count: int) -> None:
        log.warning("flows changed by hand were put back", extra={"count": count})
        self._event("drift", f"{count} flows of {self.options.switch.bridge} differed and were put back")

    def _rows_drifted(self, text: str) -> None:
        log.warning("rows changed by hand were put back", extra={"rows": text})
        self._event("drift", text)

    def _learned_is_wanted(self, flow: Flow) -> bool:
        """Whether a port that the switch opened by itself is still that of a VIF on its way here."""
        field = flow.match.get("reg2")
        view = self.compiler.view
        for vif, ofport in view.ports.items():
            if field is not None and field.value == ofport and vif in view.vifs:
                return view.role(view.vifs[vif]) is Role.INCOMING
        return False

    # Following what this host needs

    async def _follow(self) -> bool:
        """Asks for the rows that are needed by now; whether that was anything new."""
        assert self._replica is not None  # noqa: S101 - only called once it is there
        networks, bindings = network_conditions(self.me, self.pool.wanted_networks())
        wanted = {"Vif": vif_condition(self.me, self.ports), "Network": networks, "Binding": bindings}
        changed = {table: where for table, where in wanted.items() if self._conditions.get(table) != where}
        for table in changed:
            self._conditions[table] = wanted[table]
        await asyncio.gather(*(self._replica.set_condition(table, where) for table, where in changed.items()))
        return bool(changed)

    async def _follow_always(self) -> None:
        follow = self._follow_event = asyncio.Event()
        while True:
            follow.clear()
            while await self._follow():
                self._wake()
            await follow.wait()

    # Deciding

    def _decide_all(self) -> None:
        """Claims, releases and activations, for the VIFs something changed about."""
        if hasattr(self, "_follow_event"):
            self._follow_event.set()
        touched, self._touched = self._touched, set()
        for _, vif_id in touched | {("", vif) for vif in self._claim_again()}:
            self._decide(vif_id)
        self._reported_touch = touched

    def _claim_again(self) -> set[str]:
        """Bindings decided on that the database has not got, because it was away."""
        return {vif for vif in self.pool.overlay if vif not in self._claiming}

    def _decide(self, vif_id: str) -> None:
        view = self.compiler.view
        key = f"vif {vif_id}"
        vif = view.vifs.get(vif_id)
        if vif is None:
            self.problems.pop(key, None)
            if vif_id in self.pool.mine and self.complete.is_set() and vif_id not in self.ports:
                self._releases.add(vif_id)
            return
        where, mine = view.location(vif.network, vif_id), view.binding(vif.network, vif_id, self.me)
        decision = decide(self.me, vif, view.networks.get(vif.network), where, mine, vif_id in self.ports)
        problem = decision.problem or self._port_problem(vif_id)
        if problem:
            self.problems[key] = problem
        else:
            self.problems.pop(key, None)
        self._carry_out(vif, mine, decision)

    def _port_problem(self, vif: str) -> str:
        port = self.ports.get(vif)
        return f"port {port.name}: {port.error}" if port is not None and port.error else ""

    def _carry_out(self, vif: Vif, mine: Binding | None, decision: Decision) -> None:
        match decision.act:
            case Act.CLAIM | Act.RENEW:
                known = self.compiler.view.location(vif.network, vif.id)
                top = max((b.epoch for b in (known.current, known.incoming) if b is not None), default=0)
                self.pool.set_overlay(self._new_binding(vif, max(vif.epoch, top) + 1, decision.state))
                self._start_claim(vif.id)
            case Act.ACTIVATE:
                self.activate(vif.id, announced=False)
            case Act.RELEASE if mine is not None:
                self.pool.overlay.pop(vif.id, None)
                self._releases.add(vif.id)
            case _:
                if vif.id in self.pool.overlay:
                    self._start_claim(vif.id)

    def _new_binding(self, vif: Vif, epoch: int, state: BindingState) -> Binding:
        return Binding(
            vif=vif.id,
            host=self.me,
            network=vif.network,
            mac=vif.mac,
            epoch=epoch,
            state=state,
            addresses=vif.addresses,
            unlocked=vif.locking_mode is LockingMode.UNLOCKED,
            since=self.now_ms(),
        )

    def activate(self, vif_id: str, *, announced: bool) -> bool:
        """The VIF runs here now: at once on this host, in the database as soon as it can be reached.

        Without an announcement of the guest's own the agent makes one. False if the VIF is not moving here.
        """
        return self._set_state(vif_id, BindingState.ACTIVE, announced=announced)

    def receive(self, vif_id: str) -> bool:
        """The toolstack's `switch`: the VIF's port takes frames from now on. False if the VIF is not moving here."""
        return self._set_state(vif_id, BindingState.RECEIVING, announced=True)

    def _set_state(self, vif_id: str, state: BindingState, *, announced: bool) -> bool:
        vif = self.compiler.view.vifs.get(vif_id)
        mine = self.compiler.view.binding(vif.network, vif_id, self.me) if vif else None
        if mine is None:
            return False
        if mine.state is state or mine.state is BindingState.ACTIVE:
            return True
        self.pool.set_overlay(replace(mine, state=state, since=self.now_ms()))
        if not announced:
            self._announce.add(vif_id)
        self._touched.add((mine.network, vif_id))
        self._start_claim(vif_id)
        self._wake()
        return True

    # Writing to the pool

    def _spawn(self, job: asyncio.coroutines) -> None:  # type: ignore[valid-type]
        task = asyncio.get_running_loop().create_task(job)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _start_claim(self, vif_id: str) -> None:
        if vif_id not in self._claiming:
            self._claiming.add(vif_id)
            self._spawn(self._claim(vif_id))

    async def _claim(self, vif_id: str) -> None:
        """Brings the database to what this host has decided about its binding of a VIF."""
        try:
            while (decided := self.pool.overlay.get(vif_id)) is not None:
                actual = self.pool.mine.get(vif_id)
                try:
                    await self._pool_client.transact(*writes.bind(decided, actual))
                except (ConnectionLost, OutcomeUnknown):
                    await self._pool_client.wait_connected()
                except TransactError as error:
                    # Somebody was faster: what they wrote arrives by the replica and is decided on anew.
                    log.info("claim refused", extra={"vif": vif_id, "error": str(error)})
                    self.pool.clear_overlay(vif_id)
                    await asyncio.sleep(CLAIM_RETRY_S)
                    self._touched.add((decided.network, vif_id))
                    self._wake()
                    return
                else:
                    if self.pool.overlay.get(vif_id) == decided:
                        self.pool.overlay.pop(vif_id)
                    self._event(decided.state.value, f"VIF {vif_id} is {decided.state.value} here", decided)
        finally:
            self._claiming.discard(vif_id)
