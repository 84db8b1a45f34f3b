"""The flows of ours on the integration bridge: kept as desired over reconnects, restarts and other people's hands.

One rule: only flows with our cookie mark are ours. Changes go in as one bundle; on a new connection the switch's flows are
read back and only the difference is sent. A switch that has none gets them the most urgent first. Before a zone of the connection
tracker is used anew it is emptied: what a VIF that had the port before was allowed is not what the next one is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress

from ovsctl.openflow import Action, Flow, FlowMod, FlowTable, Match, Output, Port
from ovsctl.openflow.client import OpenFlowClient
from ovsctl.openflow.errors import ConnectionLost, ModError, OpenFlowError
from ovsctl.openflow.flow import FULL_COOKIE
from ovsctl.openflow.messages import FlowEvent, FlowUpdate, PacketIn, PortReason, PortStatus
from ovsctl.openflow.session import Sendable
from vnet.compile import (
    COOKIE_MARK,
    COOKIE_MARK_MASK,
    LEARNED_PRIORITY,
    REG_PORT,
    Category,
    Change,
    Table,
    cookie,
    zones_of,
)

FlowKey = tuple[int, int, Match]  # table, priority, match

log = logging.getLogger(__name__)

# How long a bridge that does not listen is left alone: a part of how long it has not, so that ovs-vswitchd, which comes back within
# tenths of a second, is found at once, and one that stays away costs little.
RETRY_SHARE, RETRY_LEAST_S, RETRY_MOST_S = 0.02, 0.003, 0.05
REFUSED_RETRY_S = 1.0
PIECE = 4000  # flows in a bundle for a switch that has none: some 20 ms
DRIFT_DELAY_S = 0.05  # a person's `ovs-ofctl del-flows` is many events and one repair
MAX_NAME = 15  # characters in an OpenFlow message: a name that fills it may be the beginning of a longer one
OF_A_PORT = frozenset({Category.VIF, Category.LOOKUP, Category.FLOOD})
LEARNED = cookie(Category.LEARNED, "")


def forget_learned(changes: Sequence[Change]) -> list[FlowMod]:
    """Deletes what the switch learned for ports that no longer ask GATE: the next VIF on such a port starts closed."""
    gated = {_port(f) for c in changes for f in c.old if f.table == Table.GATED and REG_PORT in f.match}
    still = {_port(f) for c in changes for f in c.new if f.table == Table.GATED and REG_PORT in f.match}
    return [
        FlowMod.delete(Flow(Match(reg2=(ofport, 0xFFFF)), table=Table.GATE, priority=LEARNED_PRIORITY))
        for ofport in sorted(gated - still)
    ]


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


def _category(flow: Flow) -> int:
    return flow.cookie >> 40 & 0xFF


def _port(flow: Flow) -> int:
    return flow.match[REG_PORT].value


class FlowKeeper:
    """Keeps the switch at `remote` to the desired flows, from the moment `start` has been called.

    on_packet_in: a packet that a flow sent to us. on_drift: how many flows somebody else had changed. on_change: the
    connection came or went. on_ports: one of `ports` came or went. bring_up_to_date: makes the desired flows those for
    `ports`, before they are compared with a switch's. keep_learned: whether a flow that the switch learned is still wanted. on_refused: why the switch did not take what
    it was sent.
    """

    def __init__(
        self,
        remote: str,
        on_packet_in: Callable[[PacketIn], None],
        on_drift: Callable[[int], None],
        on_change: Callable[[], None],
        on_ports: Callable[[], None],
        bring_up_to_date: Callable[[], None],
        keep_learned: Callable[[Flow], bool],
        on_refused: Callable[[str], None],
    ) -> None:
        self.remote = remote
        self.connected = False
        self.messages = 0  # flow modifications sent, for tests to count
        self.desired: dict[FlowKey, FlowMod] = {}  # what adds each flow
        self.ports: dict[str, int] = {}  # name to ofport, as the switch says on the connection that is open
        self._compared = 0  # how often the switch's flows were, with the desired ones
        self._ports_changed = False
        self._on_packet_in = on_packet_in
        self._on_drift = on_drift
        self._on_change = on_change
        self._on_ports = on_ports
        self._bring_up_to_date = bring_up_to_date
        self._keep_learned = keep_learned
        self._on_refused = on_refused
        self._refusals = False  # of what was sent last: not to be repeated at once
        self._client: OpenFlowClient | None = None
        self._lock = asyncio.Lock()
        self._started = asyncio.Event()
        self._drift: asyncio.TimerHandle | None = None
        self._begun: set[int] = set()  # zones that flows not sent yet are the first to use
        self._foreign: dict[FlowKey, Flow] = {}  # what somebody else changed, as it was told last
        self._untold = False

    def start(self) -> None:
        """The desired flows are complete: from now on the switch is held to them."""
        self._started.set()

    def want(self, changes: Sequence[Change]) -> list[FlowMod]:
        """Takes sources' changes into the desired flows; the modifications that carry them out."""
        mods: dict[FlowKey, FlowMod] = {}
        removed: dict[FlowKey, Flow] = {}
        added: dict[FlowKey, Flow] = {}
        for change in changes:
            removed |= {flow.key: flow for flow in change.old}
            added |= {flow.key: flow for flow in change.new}
        self._begun |= zones_of(added.values()) - zones_of(removed.values())
        for key, flow in removed.items():
            if key not in added:
                self.desired.pop(key, None)
                mods[key] = FlowMod.delete(flow)
        for key, flow in added.items():
            mod = FlowMod.add(flow)
            if self.desired.get(key) != mod:
                self.desired[key] = mods[key] = mod
        return [*mods.values(), *forget_learned(changes)]

    async def push(self, mods: list[FlowMod], *, at_once: bool = False) -> bool:
        """Sends modifications as one bundle; True once the switch has answered for it, False while there is no connection.

        What could not be sent is made up for by the comparison on the next connection. at_once: in one round trip, so that
        flows of a new port are there in time for its first packet, unless there are others among them.
        """
        compared = self._compared
        async with self._lock:
            if self._client is None or not self.connected:
                return False
            if compared != self._compared:
                return True  # they were wanted before the comparison, which has done what was still right about them
            at_once = at_once and all(_category(mod.flow) in OF_A_PORT for mod in mods)
            try:
                zones, self._begun = self._begun, set()
                await self._send(self._client, mods, zones, at_once)
            except OpenFlowError as error:
                if at_once and isinstance(error, ModError):
                    await self._close(self._client, mods)
                await self._give_up(self._client, error)
                return False
            return True

    async def _close(self, client: OpenFlowClient, mods: Sequence[FlowMod]) -> None:
        """Of what was sent at once, all but what was refused was applied: the VIFs that it was about get silent, so that no port
        is open without all that guards it."""
        vifs = {mod.flow.cookie for mod in mods if _category(mod.flow) == Category.VIF}
        with suppress(OpenFlowError):
            await client.bundle([FlowMod.delete_all(cookie=one, cookie_mask=FULL_COOKIE) for one in vifs])

    async def _give_up(self, client: OpenFlowClient, error: OpenFlowError) -> None:
        """What the switch holds is not known any more: the next connection compares. A refusal is not repeated at once."""
        self.connected = False
        if not isinstance(error, ConnectionLost):
            log.error("the switch did not take the flows: %s", error)
            self._refusals = True
            self._on_refused(str(error))
        await client.close()

    async def _send(
        self, client: OpenFlowClient, mods: Sequence[Sendable], zones: Set[int] = frozenset(), at_once: bool = False
    ) -> None:
        self.messages += len(mods)
        if zones and at_once:  # the switch does one after the other, so the flows need not wait for the answer
            await asyncio.gather(client.flush_zones(sorted(zones)), client.bundle(mods, at_once=True))
            return
        await client.flush_zones(sorted(zones))
        if len(mods) == 1:
            await client.send_flow_mods(mods)  # one is all or none by itself, and takes one round trip less
        elif mods:
            await client.bundle(mods, at_once=at_once)

    async def run(self) -> None:
        """Connects, for ever, and holds the switch to the desired flows."""
        await self._started.wait()
        loop = asyncio.get_running_loop()
        lost_at = loop.time()
        while True:
            try:
                await self._serve()
                lost_at = loop.time()
            except ConnectionLost as error:
                log.debug("no OpenFlow connection to %s: %s", self.remote, error)
            except (OpenFlowError, OSError) as error:
                log.error("no OpenFlow connection to %s: %s", self.remote, error)
                self._refusals = True
                self._on_refused(str(error))
            self.ports = {}
            if self.connected:
                self.connected = False
                self._on_change()
            away_s = loop.time() - lost_at
            patience_s = min(max(RETRY_LEAST_S, RETRY_SHARE * away_s), RETRY_MOST_S)
            await asyncio.sleep(REFUSED_RETRY_S if self._refusals else patience_s)
            self._refusals = False

    async def _serve(self) -> None:
        lost = asyncio.Event()
        client = OpenFlowClient(self.remote)
        client.on_packet_in(self._on_packet_in)
        client.on_port_status(self._port_changed)
        client.on_disconnect(lambda _: lost.set())
        async with client:
            self._client = client
            self.ports = await self._ask_ports(client)
            await client.on_flow_change(self._flow_changed)
            async with self._lock:
                self._bring_up_to_date()  # after a restart of ovs-vswitchd ports may have other numbers
                await self._reconcile(client)
                self.connected = True
            self._on_change()
            await lost.wait()

    async def _ask_ports(self, client: OpenFlowClient) -> dict[str, int]:
        while True:
            self._ports_changed = False
            found = await client.ports()
            if not self._ports_changed:  # else it may be from before the change
                return {port.name: port.number for port in found if len(port.name) < MAX_NAME}

    def _port_changed(self, status: PortStatus) -> None:
        self._ports_changed = True
        name = status.port.name
        if status.reason is PortReason.ADD and len(name) < MAX_NAME:
            self.ports[name] = status.port.number
        elif status.reason is PortReason.DELETE and self.ports.get(name) == status.port.number:
            del self.ports[name]
        else:
            return
        self._on_ports()

    async def _reconcile(self, client: OpenFlowClient) -> int:
        """Makes the switch's flows of ours the desired ones; how many differed."""
        actual = await client.dump_flows(cookie=COOKIE_MARK, cookie_mask=COOKIE_MARK_MASK)
        self._compared += 1
        self._begun.clear()
        if not actual:  # ovs-vswitchd has just started, and packets wait
            mods = list(self.desired.values())
            for bundle in most_urgent_first(mods):
                await self._send(client, bundle, zones_of(mod.flow for mod in bundle))
            return len(mods)
        found = [entry.flow for entry in actual]
        kept = [flow for flow in found if not (flow.cookie == LEARNED and self._keep_learned(flow))]
        changes = FlowTable.diff(FlowTable(mod.flow for mod in self.desired.values()), FlowTable(kept))
        wanted = zones_of(mod.flow for mod in self.desired.values())
        await self._send(client, changes, wanted - zones_of(found))
        return sum(change.flow.cookie != LEARNED for change in changes)

    def _flow_changed(self, update: FlowUpdate) -> None:
        """Somebody else's change concerns us if it touches a flow of ours, or if there were too many to be told."""
        if update.event is FlowEvent.OWN:
            return
        flow = update.flow
        if flow is None:
            self._untold = True
        elif update.event is FlowEvent.REMOVED and flow.key not in self.desired:
            self._foreign.pop(flow.key, None)
            return
        elif flow.cookie & COOKIE_MARK_MASK == COOKIE_MARK or flow.key in self.desired:
            self._foreign[flow.key] = flow
        else:
            return
        if self._drift is None:
            loop = asyncio.get_running_loop()
            self._drift = loop.call_later(DRIFT_DELAY_S, lambda: loop.create_task(self._repair()))

    async def _repair(self) -> None:
        """Puts back what somebody else changed: what was told, or everything if not all could be told."""
        self._drift = None
        foreign, self._foreign = self._foreign, {}
        untold, self._untold = self._untold, False
        async with self._lock:
            if self._client is None or not self.connected:
                return
            try:
                repaired = await (self._reconcile(self._client) if untold else self._put_back(self._client, foreign))
            except OpenFlowError as error:
                await self._give_up(self._client, error)
                return
        if repaired:
            self._on_drift(repaired)

    async def _put_back(self, client: OpenFlowClient, foreign: Mapping[FlowKey, Flow]) -> int:
        """Restores the flows that somebody else changed; how many. A flow that the switch learned is nobody's change."""
        mods, learned = [], []
        for key, flow in foreign.items():
            if key in self.desired:
                mods.append(self.desired[key])
            elif flow.cookie != LEARNED:
                mods.append(FlowMod.delete(flow))
            elif not self._keep_learned(flow):
                learned.append(FlowMod.delete(flow))
        await self._send(client, [*mods, *learned])
        return len(mods)

    async def at_once(self, flows: Sequence[Flow]) -> None:
        """Adds flows that are to be among the desired ones in a moment, ahead of them; returns after a barrier."""
        if self._client is not None and self.connected:
            with suppress(OpenFlowError):  # the desired flows follow, and tell of it
                await self._client.send_flow_mods([FlowMod.add(flow) for flow in flows])

    async def send_packet(self, frame: bytes, ofport: int, actions: Sequence[Action] = (Output(Port.TABLE),)) -> bool:
        """Sends a frame as if it had come in by a port: through the pipeline, or straight through `actions`. Whether it did."""
        if self._client is None or not self.connected:
            return False
        with suppress(OpenFlowError):  # whoever waits for the frame hears the next one
            await self._client.packet_out(frame, in_port=ofport, actions=actions)
            return True
        return False

    async def counted(self, object_cookie: int, mask: int) -> list[tuple[Flow, int, int]]:
        """The switch's flows with these cookie bits, each with its packets and bytes."""
        if self._client is None:
            return []
        found = await self._client.dump_flows(cookie=object_cookie, cookie_mask=mask)
        return [(entry.flow, entry.stats.packets or 0, entry.stats.bytes or 0) for entry in found]
