"""Captures of VIFs' frames on all hosts where they are, as one stream of pcapng (docs/capture.md).

One rule: whatever ends the stream takes the rows away by which hosts capture. What a caller does not read in time is dropped at the
hosts, and counted there.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import uuid4

from ovsctl.ovsdb import Delete, Insert, Operation, Select, Update, Wait, WaitTimedOut, Where
from vnet import api
from vnet.api.errors import Conflict, Invalid, NotFound, Unavailable
from vnet.controller.admission import find
from vnet.controller.endpoint import AnswerStream, Call
from vnet.controller.service import refusing_pool_errors
from vnet.controller.vif_status import host_problem
from vnet.db.captures import (
    LEASE_S,
    MAX_FRAME_BYTES,
    MAX_RATE,
    MAX_SECONDS,
    MAX_VIFS,
    Captured,
    CapturedVif,
    CapturePlan,
    CaptureReport,
    CaptureRow,
    columns_of,
    decode_report,
    text_of,
    unpacked,
)
from vnet.db.database import WRITE_TIMEOUT_S, PoolDatabase, now_ms
from vnet.db.errors import PoolError
from vnet.db.view import PoolView
from vnet.grammar.packet_filter import FilterRefused, packet_filter
from vnet.objects import Vif
from vnet.util import pcapng
from vnet.util.frames import mac_bytes
from vnet.util.pcapng import CaptureDirection
from vnet.util.transport import leaves_in_cleartext

log = logging.getLogger("vnet.controller.captures")

TABLE = CaptureRow.NOUN.table
MEDIA = "application/x-pcapng"
MAX_CAPTURES = 16  # of a controller at once
MAX_KEPT = 4 << 20  # bytes for a caller that does not read
ROUND_S = 0.3  # between two looks at where the VIFs are, if nothing else is heard
LATE_S = 2.0  # frames wait so long for those of a host that is silent
ENDING_S = 5.0  # for hosts to report what is left
MEASURED = 3  # reports of a host, before its interfaces are written with what is known of its clock
RETRY_S = 5.0  # after which a host is asked again that could not
SILENT_S = 5.0  # a host that has said nothing for so long is named
NOT_CAPTURED = "not captured: "
DRIFT = 1e-4  # of a clock, at most; what was measured is so much worse with time
# Interfaces of a VIF, in the order of a plan: what it sends, and what it is sent.
SIDES = (("sent", CaptureDirection.OUT), ("received", CaptureDirection.IN))
_running: Final[dict[str, PacketCapture]] = {}  # of this controller, by their ids


class Offset(NamedTuple):
    """What a controller's clock is ahead of a host's, in nanoseconds; error: by how much that may be wrong. at_ns: when it was measured."""

    ahead: int
    error: int
    at_ns: int

    def worse(self, at_ns: int) -> float:
        """Its error by now."""
        return self.error + DRIFT * (at_ns - self.at_ns)


def measured(beat_us: int, report: CaptureReport, at_ns: int) -> Offset:
    """The offset by one beat and its report, as NTP has it (RFC 5905 §8): the error is half of the time that both were on their way."""
    sent_ns = 1000 * beat_us
    ahead = -((report.heard - sent_ns) + (report.made - at_ns)) // 2
    error = max(0, (at_ns - sent_ns) - (report.made - report.heard)) // 2
    return Offset(ahead, error, at_ns)


@dataclass
class CapturingHost:
    """A host's part. number: of the last report that came, acked: of the one that was told to be taken. until_ns: frames up to then have come, by our clock.

    interfaces: numbers in the file, by their place in the plan; counts and stated: what came to each and was dropped, by now and as it was written.
    """

    name: str
    plan: CapturePlan
    asked_ns: int
    beat: int
    number: int = 0
    acked: int = 0
    heard_ns: int = 0
    until_ns: int = 0
    offset: Offset | None = None
    problem: str = ""
    leaving: bool = False
    ended: bool = False
    complained: bool = False
    run: int = 0
    interfaces: dict[int, int] = field(default_factory=dict)
    before: dict[int, tuple[int, int]] = field(default_factory=dict)  # of the agent's former processes
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    stated: dict[int, tuple[int, int]] = field(default_factory=dict)

    def again(self, plan: CapturePlan, now_ns: int) -> CapturingHost:
        """The same host, which is asked anew."""
        kept = {
            "complained": self.complained,
            "interfaces": self.interfaces,
            "offset": self.offset,
            "counts": dict(self.counts),
            "stated": self.stated,
        }
        return CapturingHost(self.name, plan, now_ns, now_ns // 1000, before=dict(self.counts), **kept)  # type: ignore[arg-type]

    def take(self, number: int, report: CaptureReport, at_ns: int) -> list[Captured]:
        """Takes a report; its frames, by the host's clock."""
        self.number, self.heard_ns = number, at_ns
        self.problem, self.ended = report.problem, report.ended
        if report.beat:
            found = measured(report.beat, report, at_ns)
            if self.offset is None or found.error <= self.offset.worse(at_ns):
                self.offset = found
        if report.run != self.run:
            self.before, self.run = dict(self.counts) if self.run else self.before, report.run
        for place, found_now in enumerate(report.counts[: 2 * len(self.plan.vifs)]):
            came, dropped = self.before.get(place, (0, 0))
            self.counts[place] = (came + max(found_now.came, 0), dropped + max(found_now.dropped, 0))
        self.until_ns = report.until + self.ahead
        try:
            return unpacked(report.frames, 2 * len(self.plan.vifs))
        except ValueError as error:
            log.warning("host %s: the frames of a capture: %s", self.name, error)
            return []

    @property
    def ahead(self) -> int:
        return self.offset.ahead if self.offset is not None else 0

    @property
    def comment(self) -> str:
        """What is known of the times of its frames."""
        if self.offset is None:
            return f"times of host {self.name}, whose clock was not compared"
        moved, error = self.offset.ahead / 1e6, self.offset.error / 1e6
        return f"times of host {self.name}, moved by {moved:+.3f} ms to the controller's clock; wrong by {error:.3f} ms at most"


class FrameOrder:
    """Frames of several hosts in the order of their times: each waits until all hosts have told what was before it, at most LATE_S."""

    def __init__(self) -> None:
        self._heap: Final[list[tuple[int, int, int, Captured]]] = []
        self._count = 0

    def add(self, at_ns: int, interface: int, frame: Captured) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_ns, self._count, interface, frame))

    def until(self, limit_ns: int) -> Iterator[tuple[int, int, Captured]]:
        """Takes out the frames up to a time: their times, interfaces, and they themselves."""
        while self._heap and self._heap[0][0] <= limit_ns:
            at_ns, _, interface, frame = heapq.heappop(self._heap)
            yield at_ns, interface, frame


class PacketCapture:
    """One capture. `blocks` yields the file by and by; `close` ends it at once. view: the pool as its caller may see it. clock_ns: nanoseconds since 1970."""

    def __init__(
        self, database: PoolDatabase, call: api.CaptureCall, view: Callable[[], PoolView], *, in_clear: bool = False,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        self.id: Final = uuid4().hex
        self._database: Final = database
        self._call: Final = call
        self._view: Final = view
        self._in_clear: Final = in_clear
        self._clock_ns: Final = clock_ns
        self._mine: Final = (("id", "==", self.id),)
        self._hosts: Final[dict[str, CapturingHost]] = {}
        self._order: Final = FrameOrder()
        self._vifs: dict[str, Vif] = {}
        self._placed: Mapping[str, CapturePlan] = {}
        self._interfaces = 0
        self._begun_ns: Final = clock_ns()
        self._ending_ns: int | None = None
        self._written: Final[asyncio.Queue[bytes]] = asyncio.Queue()
        self._kept = 0  # bytes of those
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Starts; may be called once."""
        self._write(pcapng.section("vnet", self.id))
        _running[self.id] = self
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: _running.pop(self.id, None))

    async def blocks(self) -> AsyncIterator[bytes]:
        """The file, in pieces, to its end."""
        task = self._task
        while task is not None and not (self._written.empty() and task.done()):
            waiting = asyncio.ensure_future(self._written.get())
            try:
                await asyncio.wait((waiting, task), return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    pieces = [waiting.result()]
                    while not self._written.empty():
                        pieces.append(self._written.get_nowait())
                    data = b"".join(pieces)
                    self._kept -= len(data)
                    yield data
            finally:
                waiting.cancel()

    def close(self) -> None:
        """Ends it; the rows go in a moment."""
        if self._task is not None:
            self._task.cancel()

    def _write(self, data: bytes) -> None:
        self._kept += len(data)
        self._written.put_nowait(data)

    async def _run(self) -> None:
        following = asyncio.create_task(self._follow())
        try:
            while not self._is_over():
                try:
                    await self._hear()
                except PoolError as error:
                    log.info("capture %s: %s", self.id, error)
                    await asyncio.sleep(ROUND_S)
                self._write_frames()
                self._write_counts()
            self._write_frames(everything=True)
        except Exception:  # the hosts' rows go, and the caller has what came
            log.exception("capture %s", self.id)
        finally:
            following.cancel()
            await asyncio.wait([following])  # it inserts no row after they went
            with suppress(PoolError):
                await self._database.transact(Delete(TABLE, self._mine))

    async def _follow(self) -> None:
        """Asks hosts as the VIFs come to them, and looks each ROUND_S in any case."""
        while True:
            try:
                await self._place()
            except (PoolError, Unavailable) as error:
                log.info("capture %s: %s", self.id, error)
                await asyncio.sleep(ROUND_S)
            await self._database.wait_for(lambda view: self._wanted(view) != self._placed, ROUND_S)

    def _is_over(self) -> bool:
        if self._ending_ns is None:
            return False
        late = self._clock_ns() > self._ending_ns + ENDING_S * 1e9
        return late or all(host.ended for host in self._hosts.values())

    # Hosts

    def _found(self, view: PoolView) -> dict[str, Vif]:
        """The VIFs that are there, and may be captured."""
        found = {id: vif for id in self._call.vifs if (vif := view.state.vifs.get(id)) is not None}
        return {id: vif for id, vif in found.items() if not (self._in_clear and is_encrypted(view, vif))}

    def _wanted(self, view: PoolView) -> dict[str, CapturePlan]:
        """The hosts where the VIFs are, or on their way to, each with what it is to capture."""
        found = self._found(view)
        hosts: set[str | None] = set()
        for id, vif in found.items():
            hosts |= {*view.bindings_of.get(id, {}), vif.host, vif.incoming}
        vifs = [CapturedVif(id, found[id].network if id in found else "") for id in self._call.vifs]
        plan = CapturePlan(vifs, self._call.filter, self._call.snap, self._call.rate)
        return {host: plan for host in sorted(filter(None, hosts)) if host in view.state.hosts}

    async def _place(self) -> None:
        """Asks the hosts that VIFs have come to, and ends it on those that all have left, and in time everywhere."""
        now_ns = self._clock_ns()
        self._placed = self._wanted(self._database.view())
        if self._ending_ns is not None or not self._database.connected:
            return
        if now_ns > self._begun_ns + self._call.seconds * 1e9:
            await self.end()
            return
        view = self._view()
        self._vifs, wanted = self._found(view), self._wanted(view)
        changes: list[Operation] = []
        asked: list[CapturingHost] = []
        for name, plan in wanted.items():
            host = self._hosts.get(name)
            where = (*self._mine, ("host", "==", name))
            if host is None or (host.ended and not (host.problem and now_ns < host.heard_ns + RETRY_S * 1e9)):
                host = (
                    host.again(plan, now_ns) if host is not None else CapturingHost(name, plan, now_ns, now_ns // 1000)
                )
                asked.append(host)
                columns = dict(columns_of(self.id, name, now_ms(), plan, host.beat))
                changes += (Delete(TABLE, where), Insert(TABLE, columns))
            elif host.plan != plan:
                host.plan = plan
                changes.append(Update(TABLE, where, {"plan": text_of(plan)}))
            self._complain(view, host, now_ns)
        for name, host in self._hosts.items():
            if name not in wanted and not host.leaving and not host.ended:
                host.leaving = True
                changes.append(Update(TABLE, (*self._mine, ("host", "==", name)), {"beat": 0}))
        if changes:
            await self._database.transact(*changes)
        self._hosts.update({host.name: host for host in asked})  # of whom there are rows now

    async def end(self) -> None:
        """Has the hosts report what is left, and then ends it. Raises PoolUnreachable."""
        self._ending_ns = self._clock_ns()
        await self._database.transact(Update(TABLE, self._mine, {"beat": 0}))

    def _complain(self, view: PoolView, host: CapturingHost, now_ns: int) -> None:
        """Writes interfaces that say why nothing comes from a host, once that is known."""
        if host.interfaces or host.complained:
            return
        reason = host_problem(view, host.name)
        late = now_ns > max(host.asked_ns, host.heard_ns) + SILENT_S * 1e9
        text = host.problem or (reason.text if reason is not None else "")
        text = text or (f"the agent of host {host.name} does not say that it captures" if late else "")
        if text:
            host.complained = True
            for place, vif in enumerate(host.plan.vifs):
                if host.name in view.bindings_of.get(vif.id, {}):
                    self._add_interfaces(host, place, f"{NOT_CAPTURED}{text}")
            host.interfaces.clear()  # frames that come after all have others

    def _add_interfaces(self, host: CapturingHost, place: int, comment: str) -> None:
        """Writes the two interfaces of a VIF on a host."""
        id, snap, text = host.plan.vifs[place].id, host.plan.snap, host.plan.filter
        mac = mac_bytes(self._vifs[id].mac) if id in self._vifs else b""
        for side, (word, _) in enumerate(SIDES):
            name = f"{id} {word}, {host.name}"
            self._write(pcapng.interface(name, comment=comment, mac=mac, snap=snap, filter=text))
            host.interfaces[2 * place + side] = self._interfaces
            self._interfaces += 1

    # Reports

    async def _hear(self) -> None:
        """Waits for a report at most ROUND_S, and takes all that there are, unless the caller does not read."""
        known = tuple({"host": host.name, "number": host.number} for host in self._hosts.values() if not host.ended)
        if not known or self._kept > MAX_KEPT:
            await asyncio.sleep(ROUND_S)
        else:
            wait = Wait(TABLE, self._mine, ("host", "number"), known, "!=", int(ROUND_S * 1000))
            with suppress(WaitTimedOut):
                await self._database.transact(wait, timeout_s=ROUND_S + WRITE_TIMEOUT_S)
            (rows,) = await self._database.transact(Select(TABLE, self._mine, ("host", "number", "beat")))
            await self._take({row["host"]: row for row in rows})
        await self._acknowledge()

    async def _take(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        lost = [host for host in self._hosts.values() if not host.ended and host.name not in rows]
        lost += [host for host in self._hosts.values() if host.name in rows and rows[host.name]["number"] < host.number]
        for host in lost:  # the database server was restarted, or somebody took the row away
            host.ended = True
        staying = [host.name for host in self._hosts.values() if host.name in rows and not host.leaving]
        if self._ending_ns is None and not all(rows[name]["beat"] for name in staying):
            await self.end()  # another controller was asked to
        due = [host for host in self._hosts.values() if host.name in rows and rows[host.name]["number"] > host.number]
        if not due:
            return
        columns = ("number", "report")
        found = await self._database.transact(*(Select(TABLE, self._row(host), columns) for host in due))
        at_ns = self._clock_ns()
        for host, row in zip(due, (next(iter(rows), None) for rows in found), strict=True):
            if row is None:
                continue
            report = decode_report(row["report"])
            for frame in host.take(row["number"], report, at_ns):
                self._known(host, frame.interface // 2)
                self._order.add(frame.at_ns + host.ahead, host.interfaces[frame.interface], frame)
            if host.number >= MEASURED:
                for place, vif in enumerate(host.plan.vifs):
                    if vif.id in report.here:
                        self._known(host, place)

    def _known(self, host: CapturingHost, place: int) -> None:
        if 2 * place not in host.interfaces:
            self._add_interfaces(host, place, host.comment)

    def _row(self, host: CapturingHost) -> Where:
        return (*self._mine, ("host", "==", host.name))

    async def _acknowledge(self) -> None:
        """Tells hosts whose reports were taken, and those that have not heard for a while, that we are there. What has ended goes."""
        now_us = self._clock_ns() // 1000
        changes: list[Operation] = []
        for host in self._hosts.values():
            if host.ended:
                if host.acked >= 0:
                    changes.append(Delete(TABLE, self._row(host)))
                    host.acked = -1
            elif host.leaving or self._ending_ns is not None:
                if host.number > host.acked:
                    changes.append(Update(TABLE, self._row(host), {"taken": host.number}))
                    host.acked = host.number
            elif host.number > host.acked or now_us - host.beat > 1e6 * LEASE_S / 3:
                host.beat, host.acked = now_us, host.number
                changes.append(Update(TABLE, self._row(host), {"taken": host.number, "beat": now_us}))
        if changes:
            await self._database.transact(*changes)

    # The file

    def _write_frames(self, *, everything: bool = False) -> None:
        now_ns = self._clock_ns()
        heard = [host.until_ns for host in self._hosts.values() if not host.ended and host.interfaces]
        limit_ns = max(min(heard, default=now_ns), now_ns - int(LATE_S * 1e9))
        for at_ns, number, frame in self._order.until(1 << 63 if everything else limit_ns):
            direction = SIDES[frame.interface % 2][1]
            self._write(pcapng.packet(number, frame.frame, direction, max(at_ns, 0), frame.length))

    def _write_counts(self) -> None:
        at_ns = self._clock_ns()
        for host in self._hosts.values():
            for place, number in host.interfaces.items():
                counts = host.counts.get(place)
                if counts is not None and counts != host.stated.get(place):
                    host.stated[place] = counts
                    self._write(pcapng.statistics(number, at_ns, *counts))


def is_encrypted(view: PoolView, vif: Vif) -> bool:
    """Whether a VIF is on a network whose frames never leave a host in clear."""
    network = view.state.networks.get(vif.network)
    return network is not None and network.encryption is not None


async def capture(call: Call[api.CaptureCall]) -> AnswerStream:
    """Frames of VIFs as they come, on whatever hosts those are, as a file of pcapng; it ends when the caller goes.

    Raises Invalid, NotFound, Conflict, Unavailable, NoRoom.
    """
    body, view = call.body, call.service.seen()
    if not 0 < len(body.vifs) <= MAX_VIFS or len(set(body.vifs)) < len(body.vifs):
        raise Invalid("vifs", f"a capture has 1 to {MAX_VIFS} VIFs, each once", "vifs")
    if not 0 < body.seconds <= MAX_SECONDS:
        raise Invalid("seconds", f"a capture takes at most {MAX_SECONDS:g} seconds", "seconds")
    if not 14 <= body.snap <= MAX_FRAME_BYTES:
        raise Invalid("snap", f"of a frame 14 to {MAX_FRAME_BYTES} bytes are captured", "snap")
    if not 0 < body.rate <= MAX_RATE:
        raise Invalid("rate", f"a host captures 1 to {MAX_RATE} frames a second", "rate")
    try:
        packet_filter(body.filter or "ip")
    except FilterRefused as error:
        raise Invalid("filter", f"{error}\n{error.excerpt}", "filter") from None
    vifs = [find("vif", id, view.state.vifs) for id in body.vifs]
    in_clear = call.in_clear or any(map(leaves_in_cleartext, call.service.database.remotes))
    for vif in vifs:
        if in_clear and is_encrypted(view, vif):
            text = f"the frames of network {vif.network} are encrypted, and would travel in clear to you or in the pool database"
            raise Conflict("encrypted", text, vif.id)
    if len(_running) >= MAX_CAPTURES:
        raise Conflict("busy", f"this controller runs {MAX_CAPTURES} captures, and no more at once: try again later")
    where = f" of '{body.filter}'" if body.filter else ""
    await call.service.note(f"captures packets of {', '.join(body.vifs)}{where}, for {body.seconds:g} s at most")
    made = PacketCapture(call.service.database, body, call.service.seen, in_clear=in_clear)
    made.begin()
    return AnswerStream(made.blocks(), MEDIA, made.close)


async def end(call: Call[None]) -> api.Done:
    """End a capture: its hosts send what is left, and its file ends. The id is the comment of the file's first block.

    It may be another controller's. Raises NotFound, Unavailable.
    """
    with refusing_pool_errors():
        if (mine := _running.get(call.id)) is not None:
            await mine.end()
            return api.Done(done=True)
        (found,) = await call.service.database.transact(Update(TABLE, (("id", "==", call.id),), {"beat": 0}))
    if not found:
        raise NotFound("unknown-capture", f"there is no capture {call.id}", call.id)
    return api.Done(done=True)
