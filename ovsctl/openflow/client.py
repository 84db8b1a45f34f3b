"""An asyncio OpenFlow 1.5 client for one connection to Open vSwitch.

One rule: a call returns only when the switch has done the work, and raises with the modification at fault when
it has not. Reconnecting is the caller's: `on_disconnect` and ChannelLost say when.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from . import messages as msg
from .actions import Action
from .connection import OpenFlowConnection, open_connection, wait
from .errors import BundleError, ChannelLost, InvalidValueError, ModError, OpenFlowError, PeerError
from .fields import ReservedPort
from .flow import ALL_TABLES, MATCH_ALL, FlowEntry
from .group import Group
from .match import Match
from .meter import Meter, MeterModCommand
from .packet_queue import PacketQueue
from .session import CHUNK_BYTES, Batch, OpenFlowSession, Sendable, Stray, bundle_chunks, mod_chunks

Remove = Callable[[], None]
T = TypeVar("T")

_WHOLE_PACKET = 0xFFFF
_ASYNC_KIND: dict[type, msg.AsyncKind] = {
    msg.PacketIn: msg.AsyncKind.PACKET_IN,
    msg.FlowRemoved: msg.AsyncKind.FLOW_REMOVED,
    msg.PortStatus: msg.AsyncKind.PORT_STATUS,
    msg.RoleStatus: msg.AsyncKind.ROLE_STATUS,
}


class OpenFlowClient:
    """One OpenFlow 1.5 connection: `async with OpenFlowClient("unix:/run/openvswitch/br-int.mgmt") as of:`.

    `remote` is `unix:PATH`, `tcp:HOST[:PORT]` or `ssl:HOST[:PORT]` (with `ssl`). `accepted` instead of that waits for a
    connection that the switch has made to us (listener.py); `remote` names it then. `timeout_s` bounds each request. `fragments` is the bridge's handling of fragments from then on; None leaves it. After `probe_s` seconds of silence an echo is asked for, after as long again the connection is
    given up; None turns that off. Every method may raise ChannelLost, RequestTimeout and PeerError.
    """

    def __init__(
        self,
        remote: str,
        *,
        ssl: ssl_module.SSLContext | None = None,
        timeout_s: float = 30.0,
        probe_s: float | None = 15.0,
        max_reply_bytes: int = 1 << 30,
        fragments: msg.FragmentHandling | None = None,
        accepted: Callable[[], Awaitable[OpenFlowConnection]] | None = None,
    ) -> None:
        self.remote = remote
        self.timeout_s = timeout_s
        self.unexpected: deque[Stray] = deque(maxlen=100)  # the latest messages that fit no request
        self.unexpected_count = 0
        self._ssl = ssl
        self._accepted = accepted
        self._probe_s = probe_s
        self._session = OpenFlowSession(max_reply_bytes=max_reply_bytes)
        self._connection: OpenFlowConnection | None = None
        self._handlers: dict[type, list[Callable[[Any], None]]] = {}
        self._on_disconnect: list[Callable[[ChannelLost], None]] = []
        self._bundle_id = 0
        self._monitor_id = 0
        self._monitors: dict[int, Callable[[msg.FlowUpdate], None]] = {}
        self._features: msg.FeaturesReply | None = None
        self._unnamed: asyncio.Future[OpenFlowError] | None = None  # an error that names no request, while one may come
        self._fragments: int | None = fragments

    # -- life --------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, agree on OpenFlow 1.5 and learn the switch's features. A client connects once."""
        if self._connection is not None:
            raise InvalidValueError("a client connects once; make another one")
        self._connection = await self._open()
        self._session = self._connection.session
        self._features = await self._call(msg.FeaturesRequest())
        config: msg.ConfigReply = await self._call(msg.GetConfigRequest())
        if self._fragments is None:
            self._fragments = config.flags
        elif self._fragments != config.flags:
            self._connection.write(self._session.send(msg.SetConfig(self._fragments, config.miss_send_len)))
        if self._handlers:
            self._configure_async()
            await self.barrier()
        if self._probe_s is not None:
            self._connection.start_probing(self._probe_s)

    async def _open(self) -> OpenFlowConnection:
        hear = self._notice, self._stray, self._lost
        if self._accepted is not None:
            connection = await self._accepted()
            connection.take(*hear)
            return connection
        session = self._session
        return await open_connection(self.remote, lambda: OpenFlowConnection(session, *hear), self._ssl, self.timeout_s)

    async def close(self) -> None:
        """Close the connection; what was sent and not answered may or may not have been done."""
        if self._connection is not None:
            self._connection.abort()
            await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.lost is None

    @property
    def features(self) -> msg.FeaturesReply:
        """The switch's answer about itself at connect; `features.datapath_id` is the bridge's."""
        if self._features is None:
            raise InvalidValueError("not connected yet")
        return self._features

    def on_disconnect(self, callback: Callable[[ChannelLost], None]) -> Remove:
        """Call back at once when the connection ends, by either side. Returns a function that takes it back."""
        self._on_disconnect.append(callback)
        return _remover(self._on_disconnect, callback)

    # -- changing flows, groups and meters ----------------------------------------------------------------

    async def bundle(
        self, mods: Iterable[Sendable], flags: msg.BundleFlags = msg.ATOMIC_ORDERED, *, at_once: bool = False
    ) -> None:
        """Apply flow-mods, group-mods and packet-outs in order, all of them or none.

        No packet sees a part of them. Raises BundleError, which names the modifications at fault, when the
        switch refuses one, and InvalidValueError for one that cannot be sent; in both cases nothing was
        applied. ChannelLost and RequestTimeout leave it unknown. Open vSwitch bundles no meters: see
        `apply`. (OpenFlow 1.5 §7.3.9.)

        at_once: the commit does not wait for refusals, which saves a round trip. Then BundleError may mean that
        all but those that it names were applied.
        """
        batch_mods = list(mods)
        for mod in batch_mods:
            if isinstance(mod, msg.MeterMod):
                raise InvalidValueError(f"Open vSwitch takes no meters in a bundle, use apply(): {mod}")
        if batch_mods:
            batch = self._session.open_batch(batch_mods)
            try:
                await self._bundle(batch, flags, at_once)
            finally:
                self._session.close_batch(batch)

    async def apply(self, changes: Iterable[Sendable]) -> None:
        """Like `bundle`, with meters too: added and changed ones go before the bundle, deleted ones after it.

        When any of it is refused (ModError for a meter, BundleError for the rest), meters that were added are
        deleted again; changed ones stay changed.
        """
        mods = list(changes)
        meters = [mod for mod in mods if isinstance(mod, msg.MeterMod)]
        try:
            await self.send_flow_mods(mod for mod in meters if mod.command is not MeterModCommand.DELETE)
            await self.bundle(mod for mod in mods if not isinstance(mod, msg.MeterMod))
        except ModError as error:
            await self.send_flow_mods(_undone(meters, error))
            raise
        await self.send_flow_mods(mod for mod in meters if mod.command is MeterModCommand.DELETE)

    async def send_flow_mods(self, mods: Iterable[Sendable]) -> None:
        """Send modifications one by one and a barrier: the fast path for one change.

        Raises ModError with those that the switch refused; all others were applied.
        """
        batch_mods = list(mods)
        if not batch_mods:
            return
        connection = self._connected()
        batch = self._session.open_batch(batch_mods)
        try:
            unsent = b""
            for chunk in mod_chunks(batch):
                if unsent:
                    connection.write(unsent)
                    await connection.drain()
                unsent = chunk
            done, barrier = connection.prepare(msg.BarrierRequest())
            connection.write(unsent + barrier)
            await wait(done, self.timeout_s)
        finally:
            self._session.close_batch(batch)
        if batch.refused:
            raise ModError(batch.errors, batch.refused)

    async def barrier(self) -> None:
        """Return when the switch has done everything sent before."""
        await self._call(msg.BarrierRequest())

    # -- asking ------------------------------------------------------------------------------------------

    async def dump_flows(
        self,
        table: int | None = None,
        match: Match = MATCH_ALL,
        *,
        cookie: int = 0,
        cookie_mask: int = 0,
        out_port: int = ReservedPort.NONE,
    ) -> list[FlowEntry]:
        """Flows that `match` covers, of one table or of all, whose cookie has these bits under the mask. out_port: only those that output to it.

        Each entry has `flow` and `stats` (packets, bytes, duration_s, idle_s). Raises MalformedMessage when one of
        them uses actions or fields that ovsctl does not support: narrow the dump to your own cookies.
        """
        chosen = ALL_TABLES if table is None else table
        return await self._multipart(msg.FlowStatsRequest(chosen, match, cookie, cookie_mask, out_port), FlowEntry)

    async def aggregate(
        self, table: int | None = None, match: Match = MATCH_ALL, *, cookie: int = 0, cookie_mask: int = 0
    ) -> msg.AggregateStats:
        """The number of flows that `dump_flows` would return, and their packets and bytes together."""
        chosen = ALL_TABLES if table is None else table
        request = msg.AggregateRequest(chosen, match, cookie, cookie_mask)
        return (await self._multipart(request, msg.AggregateStats))[0]

    async def groups(self) -> list[Group]:
        return await self._multipart(msg.GroupDescRequest(), Group)

    async def group_stats(self) -> list[msg.GroupStats]:
        return await self._multipart(msg.GroupStatsRequest(), msg.GroupStats)

    async def meters(self) -> list[Meter]:
        return await self._multipart(msg.MeterDescRequest(), Meter)

    async def meter_stats(self) -> list[msg.MeterStats]:
        return await self._multipart(msg.MeterStatsRequest(), msg.MeterStats)

    async def meter_features(self) -> msg.MeterFeatures:
        return (await self._multipart(msg.MeterFeaturesRequest(), msg.MeterFeatures))[0]

    async def ports(self) -> list[msg.PortDesc]:
        """Every port of the bridge, its local port included."""
        return await self._multipart(msg.PortDescRequest(), msg.PortDesc)

    async def port_stats(self, port: int = ReservedPort.NONE) -> list[msg.PortStats]:
        """Counters of one port, or of all of the bridge."""
        return await self._multipart(msg.PortStatsRequest(port), msg.PortStats)

    async def table_stats(self) -> list[msg.TableStats]:
        return await self._multipart(msg.TableStatsRequest(), msg.TableStats)

    async def table_descs(self) -> list[msg.TableDesc]:
        return await self._multipart(msg.TableDescRequest(), msg.TableDesc)

    async def switch_desc(self) -> msg.SwitchDesc:
        """Manufacturer, hardware, software, serial number and datapath description."""
        descriptions = await self._multipart(msg.SwitchDescRequest(), msg.SwitchDesc)
        return descriptions[0]

    async def role(
        self, role: msg.ControllerRole = msg.ControllerRole.NOCHANGE, generation_id: int = 0
    ) -> msg.RoleReply:
        """Take a role, or ask for the present one. PRIMARY and SECONDARY need a generation not seen before."""
        reply: msg.RoleReply = await self._call(msg.RoleRequest(role, generation_id))
        return reply

    async def packet_out(
        self,
        data: bytes,
        *,
        actions: Sequence[Action],
        in_port: int = ReservedPort.CONTROLLER,
        match: Match | None = None,
    ) -> None:
        """Send an Ethernet frame through `actions`, as if it came in by `in_port`.

        `match` instead of `in_port` gives all pipeline fields (in_port, tunnel, metadata, registers). Returns
        when the switch has done it; raises ModError when it refused.
        """
        await self.send_flow_mods([msg.PacketOut(data, tuple(actions), match or Match(in_port=in_port))])

    async def flush_zones(self, zones: Iterable[int]) -> None:
        """Forget the connections that are tracked in these zones (16 bits each). Returns when the switch has done it."""
        await self.begin([msg.FlushZone(zone) for zone in zones])

    def begin(self, mods: Sequence[Sendable]) -> Awaitable[None]:
        """Like `send_flow_mods`, sent before this returns; what is sent next the switch does afterwards. To be awaited for its end."""
        connection = self._connected()
        batch = self._session.open_batch(mods)
        done, barrier = connection.prepare(msg.BarrierRequest())
        connection.write(b"".join(mod_chunks(batch)) + barrier)
        return self._begun(batch, done)

    async def _begun(self, batch: Batch, done: asyncio.Future[Any]) -> None:
        try:
            await wait(done, self.timeout_s)
        finally:
            self._session.close_batch(batch)
        if batch.refused:
            raise ModError(batch.errors, batch.refused)

    # -- callbacks --------------------------------------------------------------------------------------

    def on_packet_in(self, callback: Callable[[msg.PacketIn], None]) -> Remove:
        """Call back with each packet sent to us, as soon as it is read. Returns a function that ends it."""
        return self._subscribe(msg.PacketIn, callback)

    def packet_ins(self, max_queue: int = 1000) -> PacketQueue:
        """Packets sent to us, from now on: `async for packet in of.packet_ins():`.

        At most `max_queue` wait to be taken, more are dropped and counted (`PacketQueue.dropped`). The loop
        ends with ChannelLost; `close()` the queue to stop earlier.
        """
        queue = PacketQueue(max_queue)
        queue.on_close = [self.on_packet_in(queue.put), self.on_disconnect(queue.end)]
        if self._connection is not None and self._connection.lost is not None:
            queue.end(self._connection.lost)
        return queue

    def on_port_status(self, callback: Callable[[msg.PortStatus], None]) -> Remove:
        """Call back when a port appears, changes or goes. Returns a function that ends it."""
        return self._subscribe(msg.PortStatus, callback)

    def on_role_status(self, callback: Callable[[msg.RoleStatus], None]) -> Remove:
        """Call back when another controller took our role."""
        return self._subscribe(msg.RoleStatus, callback)

    def on_flow_removed(self, callback: Callable[[msg.FlowRemoved], None]) -> Remove:
        """Call back when a flow with the SEND_FLOW_REM flag goes, by timeout, deletion or eviction."""
        return self._subscribe(msg.FlowRemoved, callback)

    async def on_flow_change(
        self,
        callback: Callable[[msg.FlowUpdate], None],
        *,
        table: int | None = None,
        match: Match = MATCH_ALL,
        initial: bool = False,
        own_in_full: bool = False,
    ) -> int:
        """Watch the flow tables: call back with each change, whoever makes it. Returns the monitor's id.

        Our own changes come as FlowEvent.OWN with the transaction id only (unless `own_in_full`, or while the
        switch has paused the monitor), so any other event is someone else's. With `initial` the flows already
        there come first. The switch merges several monitors of a connection: every callback gets all updates.
        """
        self._monitor_id += 1
        flags = msg.ALL_CHANGES
        flags |= msg.MonitorFlags.INITIAL if initial else msg.MonitorFlags(0)
        flags |= msg.MonitorFlags.OWN_IN_FULL if own_in_full else msg.MonitorFlags(0)
        chosen = ALL_TABLES if table is None else table
        request = msg.FlowMonitorRequest(self._monitor_id, flags, chosen, match)
        callbacks = self._handlers.setdefault(msg.FlowUpdate, [])
        callbacks.append(callback)
        try:
            for update in await self._asked(request):
                self._run(callback, update)
        except BaseException:
            callbacks.remove(callback)
            raise
        self._monitors[self._monitor_id] = callback
        return self._monitor_id

    async def _asked(self, request: msg.FlowMonitorRequest) -> list[msg.FlowUpdate]:
        """The answer to a flow monitor. Open vSwitch 2.17 knows none of OpenFlow 1.5, and says so in an error that names no request."""
        self._unnamed = unnamed = asyncio.get_running_loop().create_future()
        asked = asyncio.ensure_future(self._multipart(request, msg.FlowUpdate))
        try:
            await asyncio.wait({asked, unnamed}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise unnamed.result()
            return await asked
        finally:
            self._unnamed = None
            asked.cancel()

    async def cancel_flow_monitor(self, monitor_id: int) -> None:
        """End what `on_flow_change` began."""
        callback = self._monitors.pop(monitor_id, None)
        if callback is None:
            raise InvalidValueError(f"there is no flow monitor {monitor_id}")
        await self._multipart(msg.FlowMonitorCancel(monitor_id), msg.FlowUpdate)
        self._handlers[msg.FlowUpdate].remove(callback)

    # -- inside ------------------------------------------------------------------------------------------

    def _connected(self) -> OpenFlowConnection:
        if self._connection is None:
            raise InvalidValueError("not connected; use `async with` or connect()")
        return self._connection

    async def _call(self, message: Sendable) -> Any:
        return await self._connected().call(message, self.timeout_s)

    async def _multipart(self, request: Any, entry: type[T]) -> list[T]:
        return await self._connected().multipart(request, self.timeout_s)

    async def _bundle(self, batch: Batch, flags: msg.BundleFlags, at_once: bool) -> None:
        connection = self._connected()
        self._bundle_id += 1
        bundle_id = self._bundle_id

        def control(step: msg.BundleControlType) -> tuple[asyncio.Future[Any], bytes]:
            return connection.prepare(msg.BundleControl(bundle_id, step, flags))

        opened, unsent = control(msg.BundleControlType.OPEN_REQUEST)
        try:
            for chunk in bundle_chunks(batch, bundle_id, flags):
                unsent += chunk
                if len(chunk) >= CHUNK_BYTES:
                    connection.write(unsent)
                    unsent = b""
                    await connection.drain()
            # The answer to closing comes after every error for an addition; a commit would apply the rest.
            closed, close = control(msg.BundleControlType.CLOSE_REQUEST)
            if at_once:
                committed, commit = control(msg.BundleControlType.COMMIT_REQUEST)
                connection.write(unsent + close + commit)
            else:
                connection.write(unsent + close)
            await wait(closed, self.timeout_s)
            await wait(opened, self.timeout_s)
            if batch.refused and not at_once:
                raise BundleError(batch.errors, batch.refused)
        except BaseException as error:
            opened.cancel()
            if connection.lost is None:
                connection.fire(msg.BundleControl(bundle_id, msg.BundleControlType.DISCARD_REQUEST, flags))
            if isinstance(error, PeerError):
                raise BundleError(batch.errors or [error], batch.refused) from error
            raise
        if not at_once:
            committed, commit = control(msg.BundleControlType.COMMIT_REQUEST)
            connection.write(commit)
        try:
            await wait(committed, self.timeout_s)
        except PeerError as error:
            raise BundleError(batch.errors or [error], batch.refused) from error
        if batch.refused:
            raise BundleError(batch.errors, batch.refused)

    def _subscribe(self, message: type[T], callback: Callable[[T], None]) -> Remove:
        handlers = self._handlers.setdefault(message, [])
        handlers.append(callback)
        if self.connected and len(handlers) == 1:
            self._configure_async()
        return _remover(handlers, callback)

    def _configure_async(self) -> None:
        """Ask for exactly the asynchronous messages that somebody wants. Nobody waits for it: messages keep
        their order, so whatever is sent later happens under the new configuration."""
        connection = self._connected()
        kinds = [kind for message, kind in _ASYNC_KIND.items() if self._handlers.get(message)]
        if msg.AsyncKind.PACKET_IN in kinds:
            # A connection to the management socket gets no packets while its miss_send_len is 0. The flags of the
            # same message are the whole bridge's handling of fragments: they stay as they were.
            connection.write(self._session.send(msg.SetConfig(self._fragments or 0, _WHOLE_PACKET)))
            connection.write(self._session.send(msg.SetPacketInFormat()))
        connection.write(self._session.send(msg.SetAsync(msg.AsyncConfig.of(*kinds))))

    def _notice(self, value: Any) -> None:
        for item in value if isinstance(value, list) else (value,):
            for callback in tuple(self._handlers.get(type(item), ())):
                self._run(callback, item)

    def _stray(self, stray: Stray) -> None:
        self.unexpected_count += 1
        self.unexpected.append(stray)
        if stray.xid == 0 and self._unnamed is not None and not self._unnamed.done():
            self._unnamed.set_result(stray.error)

    def _lost(self, error: ChannelLost) -> None:
        for callback in tuple(self._on_disconnect):
            self._run(callback, error)

    def _run(self, callback: Callable[[Any], None], value: Any) -> None:
        """A callback that fails must not take the connection with it: the loop's exception handler gets it."""
        try:
            callback(value)
        except Exception as error:
            context = {"message": f"OpenFlow callback for {value} failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


def _remover(callbacks: list[Callable[[T], None]], callback: Callable[[T], None]) -> Remove:
    def remove() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return remove


def _undone(meters: Iterable[msg.MeterMod], error: ModError) -> list[msg.MeterMod]:
    """Deletions of the meters that were added: not of one refused because somebody else has its number."""
    if error.refused > len(error.errors):
        return []  # not every refused one is known
    refused = {id(one.request) for one in error.errors}
    added = [mod for mod in meters if mod.command is MeterModCommand.ADD and id(mod) not in refused]
    return [msg.MeterMod.delete(mod.meter_id) for mod in added]
