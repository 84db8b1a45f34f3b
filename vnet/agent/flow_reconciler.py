"""The flows of ours on a bridge: kept as desired over reconnects, restarts and changes by others.

One rule: only flows with our cookie mark are ours, and meters and groups with numbers of ours. Changes go in as one bundle, with
new meters before it and old ones deleted after it; on a new connection the switch's flows are read back and only the difference is sent. A
switch that has none gets them the most urgent first. Flows that the switch refuses are kept away with all others of their VIF, and
nobody else's. A zone of the connection tracker is emptied before another VIF uses it, which inherits no connections from the one
that had its port before, and before a VIF uses it that was away from it. It is not emptied because ovs-vswitchd or the agent is
new: a kernel's tracker outlives them (zones.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from ovsctl.openflow import (
    Action,
    Add,
    Flow,
    FlowMod,
    FlowTable,
    Group,
    Match,
    Meter,
    MeterAction,
    Modify,
    Output,
    ReservedPort,
)
from ovsctl.openflow.client import OpenFlowClient
from ovsctl.openflow.errors import ChannelLost, ModError, OpenFlowError, PeerError, TooLong
from ovsctl.openflow.flow import FULL_COOKIE, MATCH_ALL, FlowEntry
from ovsctl.openflow.messages import (
    FlowEvent,
    FlowRemoved,
    FlowUpdate,
    FlushZone,
    GroupMod,
    MeterMod,
    MeterStats,
    PacketIn,
    PortReason,
    PortStats,
    PortStatus,
)
from ovsctl.openflow.session import Sendable
from vnet.agent.reconciler import Reconciler, Retry, Revisions
from vnet.agent.switch_access import SwitchAccess
from vnet.agent.zones import NOBODY, TrackerZones
from vnet.compile import (
    COOKIE_CATEGORY_SHIFT,
    COOKIE_MARK,
    COOKIE_MARK_MASK,
    COOKIE_OBJECT_MASK,
    LEARNED_PRIORITY,
    OURS,
    REG_PORT,
    Category,
    FlowKey,
    Key,
    RejectReply,
    SourceChange,
    Table,
    cookie,
    key_of,
    segments_of,
    zones_of,
)

log = logging.getLogger(__name__)

# The pause between attempts to connect, as a share of how long the bridge has not listened: an ovs-vswitchd that restarts comes
# back within tenths of a second and is found at once, and one that stays away costs little.
RETRY_SHARE, RETRY_LEAST_S, RETRY_MOST_S = 0.02, 0.003, 0.05
REFUSED_RETRY_S = 1.0
REFUSED_AGAIN_S = 60.0  # till flows are sent again that have not changed: the switch may have room by then
READ_BACK_S = 10.0  # of a switch that does not tell of changes by others
PIECE = 4000  # flows in a bundle for a switch that has none: some 20 ms
DRIFT_DELAY_S = 0.05  # a person's `ovs-ofctl del-flows` is many events and one repair
MAX_NAME = 15  # characters in an OpenFlow message: a name that fills it may be the beginning of a longer one
OF_A_PORT = frozenset({Category.VIF, Category.LOOKUP, Category.FLOOD})
# Flows that are named by a VIF: without them nothing passes to or from it, and nobody else misses them.
OF_ONE_VIF = frozenset(
    {Category.VIF, Category.LOOKUP, Category.PEER, Category.RATE, Category.REJECT, Category.LOG, Category.MONITOR}
)
LEARNED = cookie(Category.LEARNED, "")


def no_longer_gated(changes: Sequence[SourceChange]) -> list[FlowKey]:
    """The flows that the switch learned for ports that no longer ask GATE: the next VIF on such a port starts closed."""
    gated = {_port(f) for c in changes for f in _flows(c.old) if f.table == Table.GATED and REG_PORT in f.match}
    still = {_port(f) for c in changes for f in _flows(c.new) if f.table == Table.GATED and REG_PORT in f.match}
    return [(Table.GATE, LEARNED_PRIORITY, Match(reg2=(ofport, 0xFFFF))) for ofport in sorted(gated - still)]


def most_urgent_first(mods: Sequence[FlowMod]) -> Iterator[Sequence[FlowMod]]:
    """The flows for a switch that has none, in bundles: all that this host's own VIFs need; then the ways to VIFs elsewhere,
    piece by piece; at last those of unknown unicast, so that no frame is taken for one whose destination is only not in yet.

    ovs-vswitchd takes some 5 us for a flow. Till a way is in, frames that would go it are dropped.
    """
    unknown = [mod for mod in mods if mod.flow.table == Table.UNKNOWN]
    known = [mod for mod in mods if mod.flow.table != Table.UNKNOWN]
    yield [mod for mod in known if not _leads_away(mod.flow)]
    away = [mod for mod in known if _leads_away(mod.flow)]
    for start in range(0, len(away), PIECE):
        yield away[start : start + PIECE]
    yield unknown


def _leads_away(flow: Flow) -> bool:
    return flow.table == Table.LOOKUP and bool(flow.actions) and isinstance(flow.actions[-1], Output)


def _flows(entries: Iterable[Flow | Meter]) -> Iterator[Flow]:
    return (entry for entry in entries if isinstance(entry, Flow))


def vif_number(flow_cookie: int) -> int:
    """What cookies have of the VIF that they are of, the same in each category; 0 for flows that are not of one VIF."""
    return flow_cookie & COOKIE_OBJECT_MASK if flow_cookie >> COOKIE_CATEGORY_SHIFT & 0xFF in OF_ONE_VIF else 0


def _category(flow: Flow) -> int:
    return flow.cookie >> 40 & 0xFF


def _port(flow: Flow) -> int:
    return flow.match[REG_PORT].value


class SwitchObserver(Protocol):
    """Receives the messages of a bridge."""

    def ports_changed(self, bridge: str) -> None:
        """A port came or went, or a connection: `ports` has the numbers that hold now."""

    def connection_changed(self, bridge: str) -> None:
        """The bridge's flows are kept as desired from now on, or its connection is lost, or flows of others came or went."""

    def connection_lost(self, bridge: str) -> None:
        """The connection has just ended: the switch may have none of the flows any more that it had."""

    def flow_removed(self, bridge: str, message: FlowRemoved) -> None:
        """A flow that has SEND_FLOW_REM went, with its counters."""

    def packet_in(self, message: PacketIn) -> None:
        """A flow sent a packet to the agent."""

    def is_wanted(self, learned: Flow) -> bool:
        """Whether a flow that the switch learned by itself is to stay."""

    def refusals_changed(self, vifs: Set[int]) -> None:
        """The switch refused flows of these VIFs, as `vif_number` has them, or they are tried again: see `refusal`."""

    def event(self, topic: str, text: str) -> None:
        """Records an event for people to read later."""


class BridgeFlows:
    """Keeps the flows of one bridge. ports: name to ofport, as the switch says on the connection that is open.

    groups: those that flows may send frames to, each after the groups that its buckets name. zones: of the tracker, that flows use.
    """

    def __init__(
        self, bridge: str, access: SwitchAccess, observer: SwitchObserver, revisions: Revisions, groups: Sequence[Group] = (),
        zones: TrackerZones | None = None,
    ) -> None:  # fmt: skip
        self.bridge: Final = bridge
        self.remote: Final = access.place(bridge)
        self._access: Final = access
        self.ports: dict[str, int] = {}
        self.messages = 0  # flow modifications sent, for tests to count
        self.connected = False  # and compared
        self.strangers = 0  # flows that are not ours, which may take frames past them
        self._reconciler: Final[Reconciler[Key, FlowMod | Meter]] = Reconciler(
            self, revisions, partial(revisions.holds, bridge)
        )
        self._observer: Final = observer
        self._groups: Final = groups
        self._client: OpenFlowClient | None = None
        self._refused = False  # by the switch, on the last connection
        self._urgent = True  # all that is pending is of ports that are new
        self._zones: Final = zones or TrackerZones()
        self._meters: set[int] = set()  # of ours, that the switch has
        self._refusals: Final[dict[int, str]] = {}  # by VIF, whose flows are kept away until they change
        self._refused_meters: Final[set[int]] = set()
        self._foreign: dict[FlowKey, Flow] | None = {}  # changed by others; None: too many for the switch to say which
        revisions.holds(bridge, 0)

    @property
    def desired(self) -> dict[Key, FlowMod | Meter]:
        """The desired flows, each as the message that adds it, and the desired meters."""
        return self._reconciler.desired

    @property
    def stranger_problem(self) -> str:
        """The problem that flows of others are, "" for none."""
        if not self.strangers:
            return ""
        flows = "1 flow is" if self.strangers == 1 else f"{self.strangers} flows are"
        listing = f"ovs-ofctl dump-flows {self.bridge} | grep -v cookie=0x{COOKIE_MARK >> 48:x}"
        return f"{flows} not ours, and may take frames past ours: '{listing}' lists them; delete them, or use another bridge"

    def want(self, changes: Sequence[SourceChange], *, urgent: bool = False) -> None:
        """Takes sources' changes into the desired flows. urgent: they are for a new port, whose first packet is on its way."""
        removed: dict[Key, Flow | Meter] = {}
        added: dict[Key, Flow | Meter] = {}
        left: set[int] = (
            set()
        )  # zones; a source is a VIF on one network: on another one it inherits nothing from itself
        for change in changes:
            left |= zones_of(_flows(change.old)).keys() - zones_of(_flows(change.new)).keys()
            removed |= {key_of(entry): entry for entry in change.old}
            added |= {key_of(entry): entry for entry in change.new}
        delta: dict[Key, FlowMod | Meter | None] = {key: None for key in removed if key not in added}
        for key, entry in added.items():
            mod = FlowMod.add(entry) if isinstance(entry, Flow) else entry
            # The flows of a zone have it emptied when they are sent, so they are sent again where they stay the same.
            if self.desired.get(key) != mod or (left and left & zones_of(_flows((entry,))).keys()):
                delta[key] = mod
        delta |= dict.fromkeys(no_longer_gated(changes))
        self._zones.leave(left)
        if self._refusals:
            self._try_again({vif_number(entry.cookie) for c in changes for entry in _flows((*c.old, *c.new))})
        self._urgent = (self._urgent or not self._reconciler.pending) and urgent
        self._urgent = self._urgent and all(change.source.category in OF_A_PORT for change in changes)
        self._reconciler.want(delta)

    def renew(self, keys: Iterable[Key]) -> None:
        """Has flows sent again that the switch would take away by itself. Its counters stay (OpenFlow 1.5.1 §6.4)."""
        self._reconciler.again([key for key in keys if key in self.desired])

    # The verbs of the reconciler

    async def change(self, changes: Mapping[Key, FlowMod | Meter | None]) -> None:
        """Sends modifications of flows as one bundle; urgent ones in one round trip."""
        if self._client is None or not self.connected:
            if self.desired:
                raise Retry
            return
        urgent, self._urgent = self._urgent, True
        mods = [
            mod if isinstance(mod, FlowMod) else _deletion(key)
            for key, mod in changes.items()
            if isinstance(key, tuple) and self._may_send(mod)
        ]
        meters = [meter for meter in changes.values() if isinstance(meter, Meter) and self._may_send(meter)]
        obsolete = {key for key, mod in changes.items() if isinstance(key, int) and mod is None}
        try:
            owners = zones_of(mod.flow for mod in changes.values() if isinstance(mod, FlowMod) and self._may_send(mod))
            await self._send(self._client, mods, owners, urgent, meters)
            await self._delete_meters(self._client, obsolete)
        except OpenFlowError as error:
            if urgent and isinstance(error, ModError):
                await self._silence(self._client, mods)
            await self._give_up(self._client, error)
            raise Retry from error

    async def prune(self, desired: Callable[[], Mapping[Key, FlowMod | Meter]]) -> None:
        """Reads the switch's flows back and sends the difference."""
        client = self._client
        if client is None:
            if self.desired:
                raise Retry
            desired()
            return
        try:
            if self._groups and (missing := set(self._groups) - set(await client.groups())):
                await client.bundle([GroupMod.add_or_modify(group) for group in self._groups if group in missing])
            found = {meter.meter_id: meter for meter in await client.meters() if meter.meter_id in OURS}
            actual = await client.dump_flows(cookie=COOKIE_MARK, cookie_mask=COOKIE_MARK_MASK)
            await self._zones.load()
            self._zones.found(self._owners([entry.flow for entry in actual]))
            self._meters = set(found)
            both = [entry for entry in desired().values() if self._may_send(entry)]
            wanted = [mod for mod in both if isinstance(mod, FlowMod)]
            meters = [meter for meter in both if isinstance(meter, Meter) and found.get(meter.meter_id) != meter]
            if actual:
                await self._send_difference(client, wanted, [entry.flow for entry in actual], meters)
            else:  # ovs-vswitchd has just started, and packets wait
                for bundle in most_urgent_first(wanted):
                    await self._send(client, bundle, zones_of(mod.flow for mod in bundle), meters=meters)
                    meters = []
            await self._delete_meters(client, found.keys() - self.desired.keys())
            await self._count_strangers(client)
        except OpenFlowError as error:
            self._keep_away(error)  # what it needs of others, as groups that somebody had deleted, is there by now
            await self._give_up(client, error)
            raise Retry from error
        if not self.connected:
            self.connected = True
            self._observer.connection_changed(self.bridge)

    def _owners(self, actual: Sequence[Flow]) -> dict[int, int]:
        """The owner of each zone that flows on the switch use: nobody, where its VIF is on another network by now."""
        found, segments = zones_of(actual), segments_of(actual)
        wanted = segments_of(mod.flow for mod in self.desired.values() if isinstance(mod, FlowMod))
        changed = {zone for zone in found if zone in wanted and segments.get(zone) != wanted[zone]}
        return found | dict.fromkeys(changed, NOBODY)

    async def _count_strangers(self, client: OpenFlowClient) -> None:
        every = await client.aggregate()
        ours = await client.aggregate(cookie=COOKIE_MARK, cookie_mask=COOKIE_MARK_MASK)
        self._strangers_are(every.n_flows - ours.n_flows)

    def _strangers_are(self, count: int) -> None:
        if count != self.strangers:
            self.strangers = count
            self._observer.connection_changed(self.bridge)

    async def _send_difference(
        self, client: OpenFlowClient, wanted: Sequence[FlowMod], found: Sequence[Flow], meters: Sequence[Meter]
    ) -> None:
        kept = [flow for flow in found if not (flow.cookie == LEARNED and self._observer.is_wanted(flow))]
        mods = FlowTable.diff(FlowTable(mod.flow for mod in wanted), FlowTable(kept))
        await self._send(client, mods, zones_of(mod.flow for mod in wanted), meters=meters)
        if self._foreign is None:
            self._foreign = {}
            self._drifted(sum(mod.flow.cookie != LEARNED for mod in mods))

    async def _send(
        self,
        client: OpenFlowClient,
        mods: Sequence[Sendable],
        owners: Mapping[int, int],
        urgent: bool = False,
        meters: Sequence[Meter] = (),
    ) -> None:
        """Sends modifications, after meters and the emptying of zones that have another owner now."""
        self.messages += len(mods) + len(meters)
        others = self._zones.to_empty(owners)
        first: list[Sendable] = [FlushZone(zone) for zone in others]
        first += [MeterMod.modify(m) if m.meter_id in self._meters else MeterMod.add(m) for m in meters]
        await self._zones.take(owners)
        # The switch does one after the other, so the flows need not wait for the answer about zones and meters.
        begun = client.begin(first) if first else None
        try:
            try:
                if len(mods) == 1:
                    await client.send_flow_mods(mods)  # one is all or none by itself, and takes one round trip less
                else:
                    await client.bundle(mods, at_once=urgent)
            finally:
                if begun is not None:
                    await begun
        except OpenFlowError:
            self._zones.leave(others)
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from None  # what failed last would hide that this is to end
            raise
        self._zones.hold(owners)
        self._meters.update(meter.meter_id for meter in meters)

    async def _delete_meters(self, client: OpenFlowClient, meters: Set[int]) -> None:
        """Deletes meters that no flow uses any more."""
        mods = [MeterMod.delete(meter) for meter in sorted(meters & self._meters)]
        self.messages += len(mods)
        self._meters -= meters
        await client.send_flow_mods(mods)

    async def _silence(self, client: OpenFlowClient, mods: Sequence[FlowMod]) -> None:
        """Deletes the flows of the VIFs whose urgent flows were refused: the switch applied the rest, and no port may be open
        without all that guards it."""
        vifs = {mod.flow.cookie for mod in mods if _category(mod.flow) == Category.VIF}
        with suppress(OpenFlowError):
            await client.bundle([FlowMod.delete_all(cookie=vif, cookie_mask=FULL_COOKIE) for vif in sorted(vifs)])

    async def _give_up(self, client: OpenFlowClient, error: OpenFlowError) -> None:
        """Closes the connection: what the switch holds is not known any more. A refusal is not repeated at once."""
        self.connected = False
        if not isinstance(error, ChannelLost):
            self._refuse(str(error))
        await client.close()

    # Refused

    def refusal(self, vif: str) -> str:
        """The problem that the switch does not take a VIF's flows, "" for none. The VIF is silent then."""
        text = self._refusals.get(vif_number(cookie(Category.VIF, vif))) if self._refusals else None
        return f"{self.bridge} does not take its flows: {text}" if text else ""

    def _may_send(self, entry: FlowMod | Meter | None) -> bool:
        if isinstance(entry, Meter):
            return entry.meter_id not in self._refused_meters
        return not self._refusals or entry is None or vif_number(entry.flow.cookie) not in self._refusals

    def _keep_away(self, error: OpenFlowError) -> None:
        """Of VIFs whose flows or meters are at fault nothing is sent any more, and the next comparison deletes what the switch has of them."""
        found: dict[int, str] = {}
        for mod, text in _at_fault(error):
            if isinstance(mod, FlowMod | Add | Modify):
                found.setdefault(vif_number(mod.flow.cookie), text)
            elif isinstance(mod, MeterMod) and mod.meter is not None:
                uses = MeterAction(mod.meter.meter_id)
                flows = (each.flow for each in self.desired.values() if isinstance(each, FlowMod))
                users = {vif_number(flow.cookie) for flow in flows if uses in flow.actions}
                if 0 not in users:
                    self._refused_meters.add(mod.meter.meter_id)
                    found |= dict.fromkeys(users, text)
        found.pop(0, None)
        if found:
            self._refusals.update(found)
            self._observer.refusals_changed(found.keys())
            asyncio.get_running_loop().call_later(REFUSED_AGAIN_S, self._try_again, found.keys())

    def _try_again(self, vifs: Set[int]) -> None:
        """Of those of these VIFs that were kept away all flows are sent again, by a comparison."""
        if known := vifs & self._refusals.keys():
            for vif in known:
                del self._refusals[vif]
            self._refused_meters.clear()
            self._reconciler.distrust()
            self._observer.refusals_changed(known)

    def _refuse(self, text: str) -> None:
        log.error("%s did not take its flows: %s", self.bridge, text)
        self._refused = True
        self._observer.event("refused", f"{self.bridge} did not take its flows: {text}")

    # The connection

    async def run(self) -> None:
        """Keeps a connection to the bridge, for ever, and the bridge to the desired flows."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reconciler.run())
            tasks.create_task(self._connect_always())

    async def _connect_always(self) -> None:
        loop = asyncio.get_running_loop()
        lost_at = loop.time()
        while True:
            try:
                await self._serve()
                lost_at = loop.time()
            except ChannelLost as error:
                log.debug("no OpenFlow connection to %s: %s", self.remote, error)
            except (OpenFlowError, OSError) as error:
                self._refuse(str(error))
            self._client, self.ports = None, {}
            if not self._refused:  # another switch, or one that has room by now
                self._try_again(self._refusals.keys())
            if self.connected:
                self.connected = False
                self._observer.connection_changed(self.bridge)
            patience_s = min(max(RETRY_LEAST_S, RETRY_SHARE * (loop.time() - lost_at)), RETRY_MOST_S)
            await asyncio.sleep(REFUSED_RETRY_S if self._refused else patience_s)
            self._refused = False

    async def _serve(self) -> None:
        lost = asyncio.Event()
        statuses: list[PortStatus] = []
        client = self._access.client(self.bridge)
        client.on_packet_in(self._observer.packet_in)
        client.on_flow_removed(partial(self._observer.flow_removed, self.bridge))
        stop = client.on_port_status(statuses.append)
        client.on_disconnect(lambda _: self._observer.connection_lost(self.bridge))
        client.on_disconnect(lambda _: lost.set())
        async with client:
            while True:
                statuses.clear()
                found = await client.ports()
                if not statuses:  # else it may be from before the change
                    break
            stop()
            client.on_port_status(self._port_changed)
            self.ports = {port.name: port.number for port in found if len(port.name) < MAX_NAME}
            watched = await self._watch(client)
            self._client = client
            self._observer.ports_changed(self.bridge)  # after a restart of ovs-vswitchd ports may have other numbers
            self._reconciler.distrust()
            while not lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if watched else READ_BACK_S):
                        await lost.wait()
                    continue
                self._foreign = None
                self._reconciler.distrust()

    async def _watch(self, client: OpenFlowClient) -> bool:
        """Has the switch tell of changes of its flows. Open vSwitch before 3.0 does so in OpenFlow 1.0 only: there the flows are read back now
        and then."""
        try:
            await client.on_flow_change(self._flow_changed)
        except PeerError as error:
            log.info("%s does not tell of changes of its flows (%s): they are read back", self.bridge, error.name)
            return False
        return True

    def _port_changed(self, status: PortStatus) -> None:
        name = status.port.name
        if status.reason is PortReason.ADD and len(name) < MAX_NAME:
            self.ports[name] = status.port.number
        elif status.reason is PortReason.DELETE and self.ports.get(name) == status.port.number:
            del self.ports[name]
        else:
            return
        self._observer.ports_changed(self.bridge)

    # Changes by others

    def _flow_changed(self, update: FlowUpdate) -> None:
        """Notes a change by somebody else, or by the switch itself, of a flow of ours, and how many are not ours."""
        if update.event is FlowEvent.OWN:
            return
        flow, begun = update.flow, self._foreign == {}
        if flow is not None and flow.cookie & COOKIE_MARK_MASK != COOKIE_MARK and flow.key not in self.desired:
            came, went = update.event is FlowEvent.ADDED, update.event is FlowEvent.REMOVED
            self._strangers_are(max(0, self.strangers + came - went))
        if flow is None:
            self._foreign = None
        elif self._foreign is None:
            return
        elif update.event is FlowEvent.REMOVED and flow.key not in self.desired:
            self._foreign.pop(flow.key, None)
            return
        elif flow.cookie & COOKIE_MARK_MASK == COOKIE_MARK or flow.key in self.desired:
            self._foreign[flow.key] = flow
        if begun and self._foreign != {}:
            asyncio.get_running_loop().call_later(DRIFT_DELAY_S, self._repair)

    def _repair(self) -> None:
        """Restores the flows that somebody else changed. A flow that the switch learned is nobody's change."""
        if self._foreign is None:
            self._reconciler.distrust()
            return
        foreign, self._foreign = self._foreign, {}
        learned = {key for key, flow in foreign.items() if flow.cookie == LEARNED and key not in self.desired}
        unwanted = {key for key in learned if not self._observer.is_wanted(foreign[key])}
        self._reconciler.again(key for key in foreign if key not in learned or key in unwanted)
        self._drifted(len(foreign.keys() - learned))

    def _drifted(self, count: int) -> None:
        if count:
            self._observer.event("drift", f"{count} flows of {self.bridge} differed and were put back")

    # Besides the desired flows

    async def at_once(self, flows: Sequence[Flow]) -> None:
        """Adds flows that are to be among the desired ones in a moment, ahead of them; returns after a barrier."""
        if self._client is not None and self.connected:
            with suppress(OpenFlowError):  # the desired flows follow, and are refused likewise
                await self._client.send_flow_mods([FlowMod.add(flow) for flow in flows])

    async def send_packet(
        self, frame: bytes, ofport: int, actions: Sequence[Action] = (Output(ReservedPort.TABLE),)
    ) -> bool:
        """Sends a frame as if it had come in by a port: through the pipeline, or straight through `actions`. Whether it did."""
        if self._client is None or not self.connected:
            return False
        with suppress(OpenFlowError):  # a caller that waits for the frame gets the next one
            await self._client.packet_out(frame, in_port=ofport, actions=actions)
            return True
        return False

    async def send_reply(self, reply: RejectReply) -> None:
        """Sends the answer to a rejected packet. One that the switch does not take is lost, as any packet may be."""
        await self.send_packet(reply.frame, reply.in_port, reply.actions)

    async def has_meters(self) -> bool:
        """Whether the switch has meters at all. Raises OpenFlowError, ChannelLost where it is not connected to."""
        if self._client is None:
            raise ChannelLost(f"{self.bridge}: not connected")
        return (await self._client.meter_features()).max_meter > 0

    async def metered(self) -> list[tuple[Meter, MeterStats]]:
        """The desired meters that the switch has, each with what has come to it and what it dropped."""
        if self._client is None:
            return []
        stats = {found.meter_id: found for found in await self._client.meter_stats()}
        meters = (meter for meter in self.desired.values() if isinstance(meter, Meter))
        return [(meter, stats[meter.meter_id]) for meter in meters if meter.meter_id in stats]

    async def meter_drops(self) -> dict[int, int]:
        """The packets that each meter of ours has dropped, by its number."""
        if self._client is None:
            return {}
        stats = await self._client.meter_stats()
        return {
            found.meter_id: sum(band.n_packets for band in found.bands) for found in stats if found.meter_id in OURS
        }

    async def meter_packets(self) -> dict[int, int]:
        """The packets that have come to each meter of ours, by its number. Raises OpenFlowError."""
        if self._client is None:
            return {}
        return {found.meter_id: found.n_packets for found in await self._client.meter_stats() if found.meter_id in OURS}

    async def port_counters(self, ofport: int = ReservedPort.NONE) -> dict[int, PortStats]:
        """The counters of a port, or of all, by ofport."""
        if self._client is None:
            return {}
        return {stats.number: stats for stats in await self._client.port_stats(ofport)}

    async def entries(self, object_cookie: int, mask: int, table: Table) -> list[FlowEntry]:
        """The switch's flows of a table with these cookie bits. Raises OpenFlowError, ChannelLost where it is not connected to."""
        if self._client is None:
            raise ChannelLost(f"{self.bridge}: not connected")
        return await self._client.dump_flows(table, cookie=object_cookie, cookie_mask=mask)

    async def counted(
        self,
        object_cookie: int,
        mask: int,
        match: Match = MATCH_ALL,
        table: Table | None = None,
        out_port: int = ReservedPort.NONE,
    ) -> list[tuple[Flow, int, int]]:
        """The switch's flows with these cookie bits that `match` covers, of one table or of all, to one port or wherever, each with its packets
        and bytes."""
        if self._client is None:
            return []
        found = await self._client.dump_flows(table, match, cookie=object_cookie, cookie_mask=mask, out_port=out_port)
        return [(entry.flow, entry.stats.packets or 0, entry.stats.bytes or 0) for entry in found]


def _at_fault(error: OpenFlowError) -> Iterator[tuple[object, str]]:
    """The modifications that an error is about, each with the problem in short."""
    if isinstance(error, ModError):
        yield from ((each.request, each.name) for each in error.errors)
    elif isinstance(error, TooLong):
        yield error.mod, "a flow does not fit into an OpenFlow message"


def _deletion(key: FlowKey) -> FlowMod:
    table, priority, match = key
    return FlowMod.delete(Flow(match, table=table, priority=priority))
