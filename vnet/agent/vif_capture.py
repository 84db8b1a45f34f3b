"""Captures of the frames of VIFs here, for controllers (vnet/db/captures.py, docs/capture.md).

One rule: what a capture costs this host is bounded by meters in its switch and by a ring here, and ends by itself: soon after its row goes,
LEASE_S after its controller's last beat, and LEASE_S after this agent is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Self

from ovsctl.openflow import Flow
from ovsctl.openflow.errors import OpenFlowError
from ovsctl.openflow.messages import PacketIn
from ovsctl.ovsdb import Change, Monitor, OvsdbClient, OvsdbError, Row, Update
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.questions import SCHEMA_PERIOD_S, follow_rows
from vnet.agent.shell import Shell
from vnet.compile import (
    CAPTURES,
    CaptureTap,
    Category,
    Compiler,
    Flowing,
    FlowSource,
    Tapped,
    as_delivered,
    filtered_by_agent,
    meter_of_capture,
    tapped_here,
)
from vnet.db.captures import (
    LEASE_S,
    MAX_REPORTED,
    REPORT_S,
    Captured,
    CapturePlan,
    CaptureReport,
    CaptureRow,
    Counts,
    packed,
    plan_of,
)
from vnet.grammar.packet_filter import FilterRefused, PacketFilter, packet_filter
from vnet.objects import InvalidValue

log = logging.getLogger(__name__)

TABLE = CaptureRow.NOUN.table
RING_BYTES = 1 << 20  # of frames that wait to be reported, of each capture
OF_A_FRAME = 64  # bytes that a waiting frame takes besides its own
RENEWED_S = LEASE_S / 3
PAUSE_S = 0.1  # between two reports with frames: 1.3 MB a second at most
SETTLED_S = 0.05  # after the flows are gone: copies that the switch has made have come by then
MAX_NUMBER = 1 << 62  # of a report: integers of the database have 64 bits
MEASURED = 3  # reports before the first frames, by which the controller compares clocks


class Tally(Enum):
    """What is counted of an interface. COUNTED: by the meter that is there now; BEFORE: by those that were. RECEIVED: by this agent; of those LOST by
    the ring, and UNWANTED by the filter.
    """

    COUNTED = 1
    BEFORE = 2
    RECEIVED = 3
    LOST = 4
    UNWANTED = 5


Tallies = Counter[Tally]


def counts_of(tallies: Tallies) -> Counts:
    """An interface's counts, as they are reported."""
    received = tallies[Tally.RECEIVED]
    came = max(tallies[Tally.BEFORE] + tallies[Tally.COUNTED], received)
    return Counts(came - tallies[Tally.UNWANTED], came - received + tallies[Tally.LOST])


@dataclass(frozen=True, slots=True)
class CaptureTask:
    """A plan with its filter and the interfaces of its VIFs. Raises InvalidValue for a filter that is none here."""

    plan: CapturePlan
    wanted: PacketFilter | None
    interfaces: Mapping[str, int]

    @classmethod
    def of(cls, plan: CapturePlan) -> Self:
        try:
            wanted = packet_filter(plan.filter) if plan.filter else None
        except FilterRefused as error:
            raise InvalidValue("filter", str(error)) from None
        return cls(plan, wanted, {vif.id: 2 * place for place, vif in enumerate(plan.vifs)})

    def tap(self, slot: int, *, flowing: bool = True) -> CaptureTap:
        vifs = tuple((vif.id, vif.network) for vif in self.plan.vifs)
        rules = self.wanted.rules if self.wanted is not None else ()
        return CaptureTap(slot, vifs, self.plan.snap, self.plan.rate, rules, flowing)


@dataclass(frozen=True, slots=True)
class CaptureBeat:
    """What the controller last said. taken: the number of the report that it has taken. ns, s: when its beat came, by the clock and by time.monotonic().

    lapsed: that was LEASE_S ago, and nothing is captured until the next beat.
    """

    beat: int
    taken: int
    ns: int
    s: float
    lapsed: bool = False


@dataclass(frozen=True, slots=True)
class LastReport:
    """Its number, and when it was made, by time.monotonic()."""

    number: int
    s: float = 0.0


@dataclass
class RunningCapture:
    """A capture on this host."""

    id: Final[str]
    slot: Final[int]
    task: CaptureTask
    beat: CaptureBeat
    last: LastReport
    ring_bytes: int = 0
    ring: Final[deque[Captured]] = field(default_factory=deque)
    tallies: Final[defaultdict[int, Tallies]] = field(default_factory=lambda: defaultdict(Counter))
    news: Final[asyncio.Event] = field(default_factory=asyncio.Event)

    @property
    def is_taken(self) -> bool:
        """Whether the last report was taken."""
        return max(self.beat.taken, 0) >= self.last.number


class Captures:
    """The captures of this host. Callbacks only fold and wake; each capture's task writes. in_clear: whether what is written can be read on its way. clock_ns: nanoseconds since 1970."""

    def __init__(
        self,
        compiler: Compiler,
        flows: BridgeFlows,
        client: OvsdbClient,
        shell: Shell,
        *,
        in_clear: bool = False,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._compiler: Final = compiler
        self._flows: Final = flows
        self._client: Final = client
        self._shell: Final = shell
        self._in_clear: Final = in_clear
        self._clock_ns: Final = clock_ns
        self._run: Final = clock_ns() // 1000
        self._running: Final[dict[str, RunningCapture]] = {}
        self._slots: Final[list[RunningCapture | None]] = [None] * CAPTURES

    async def start(self) -> bool:
        """Takes up the captures there are, so that an agent which starts anew finds their flows desired; whether it could."""
        mine = Monitor(
            columns=("id", "host", "plan", "beat", "taken", "number"), where=(("host", "==", self._compiler.view.me),)
        )
        return await follow_rows(self._client, TABLE, mine, self._changed)

    async def run(self, *, started: bool) -> None:
        """Keeps the flows of captures, until cancelled."""
        while True:
            if started or await self.start():
                break
            await asyncio.sleep(SCHEMA_PERIOD_S)
        while True:
            await asyncio.sleep(RENEWED_S)
            self._renew()

    def _renew(self) -> None:
        for id, running in self._running.items():
            tap = self._compiler.inputs.captures.get(id)
            if tap is not None and self._wanted(running, flowing=tap.flowing) != tap:  # a network is encrypted by now
                self._tap(running, flowing=tap.flowing)
            entries = self._compiler.flows.get(FlowSource(Category.CAPTURE, id), ())
            self._flows.renew(entry.key for entry in entries if isinstance(entry, Flow))

    # Rows

    def _changed(self, batch: tuple[Change, ...]) -> None:
        for change in batch:
            row = change.new or change.old
            if row is None:
                continue
            running = self._running.get(row["id"])
            if change.new is None or not row["plan"]:  # a row without a plan is older than the database server
                if running is not None:
                    self._end(running)
            elif change.old is None:
                self._begin(row)
            elif running is not None:
                self._hear(running, row, change.old)

    def _begin(self, row: Row) -> None:
        free = [slot for slot, taken in enumerate(self._slots) if taken is None]
        try:
            plan = plan_of(row)
            if not free:
                raise InvalidValue("captures", f"it runs {CAPTURES} captures, and no more at once: try again later")
            heard = CaptureBeat(row["beat"], row["taken"], self._clock_ns(), time.monotonic())
            number = row["number"] if 0 <= row["number"] < MAX_NUMBER else 0
            running = RunningCapture(row["id"], free[0], CaptureTask.of(plan), heard, LastReport(number))
        except InvalidValue as error:
            self._shell.spawn(self._refuse(row, f"host {self._compiler.view.me}: {error}"))
            return
        self._running[running.id] = self._slots[running.slot] = running
        self._shell.spawn(self._serve(running))

    def _hear(self, running: RunningCapture, row: Row, old: Row | None) -> None:
        if old is not None and old["plan"] != row["plan"]:
            with suppress(InvalidValue):
                running.task = CaptureTask.of(plan_of(row))
                self._tap(running)
        if row["beat"] != running.beat.beat:
            lapsed = running.beat.lapsed
            running.beat = CaptureBeat(row["beat"], row["taken"], self._clock_ns(), time.monotonic())
            if lapsed:
                self._tap(running)
        running.beat = replace(running.beat, taken=row["taken"])
        running.news.set()

    def _tap(self, running: RunningCapture, *, flowing: bool = True) -> None:
        self._compiler.inputs.set_capture(running.id, self._wanted(running, flowing=flowing))
        self._shell.wake()

    def _wanted(self, running: RunningCapture, *, flowing: bool = True) -> CaptureTap:
        """What is to be copied: nothing of encrypted networks where reports can be read on their way."""
        networks = self._compiler.view.networks
        secret = {name for name, network in networks.items() if network.encryption is not None and self._in_clear}
        tap = running.task.tap(running.slot, flowing=flowing)
        return replace(tap, vifs=tuple(vif for vif in tap.vifs if vif[1] not in secret))

    def _end(self, running: RunningCapture) -> None:
        self._compiler.inputs.set_capture(running.id, None)
        self._shell.wake()
        del self._running[running.id]
        self._slots[running.slot] = None
        running.news.set()

    # Reports

    async def _serve(self, running: RunningCapture) -> None:
        """Reports what is captured until the capture's end. Each report waits until the one before was taken."""
        await self._shell.programmed()  # an agent that has just started has no switch yet
        if (problem := await self._obstacle()) and self._running.get(running.id) is running:
            self._end(running)
            await self._send(
                running.id, running.last.number + 1, CaptureReport(run=self._run, problem=problem, ended=True)
            )
            return
        if self._running.get(running.id) is running:
            self._tap(running)
        await self._shell.programmed()
        while self._running.get(running.id) is running:
            if running.beat.beat == 0:
                await self._finish(running)
                return
            if not running.beat.lapsed and time.monotonic() - running.beat.s > LEASE_S:
                running.beat = replace(running.beat, lapsed=True)
                self._tap(running, flowing=False)
                log.info("capture %s: its controller is silent", running.id)
            if self._is_due(running):
                await self._count(running)
                await self._write(running, ended=False)
            await self._wait(running)

    async def _obstacle(self) -> str:
        """Why this host cannot capture, "" if it can: without meters nothing would bound it."""
        try:
            return (
                "" if await self._flows.has_meters() else f"the datapath of host {self._compiler.view.me} has no meters"
            )
        except OpenFlowError:
            return f"the switch of host {self._compiler.view.me} does not answer"

    def _is_due(self, running: RunningCapture) -> bool:
        """Whether there is something to report, and the report before was taken."""
        since_s = time.monotonic() - running.last.s
        some = running.last.number < MEASURED or since_s >= REPORT_S or (bool(running.ring) and since_s >= PAUSE_S)
        return some and running.is_taken and not running.beat.lapsed

    async def _wait(self, running: RunningCapture) -> None:
        """Waits until something may be due."""
        await asyncio.sleep(0)
        running.news.clear()
        left_s = running.last.s - time.monotonic() + (PAUSE_S if running.ring else REPORT_S)
        if not self._is_due(running):
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s if left_s > 0 else REPORT_S):
                    await running.news.wait()

    async def _finish(self, running: RunningCapture) -> None:
        """Copies no more, counts once the copies that are on their way have come, and reports all that is left."""
        self._tap(running, flowing=False)
        await self._shell.programmed()
        await asyncio.sleep(SETTLED_S)
        await self._count(running)
        while self._running.get(running.id) is running and time.monotonic() - running.beat.s < LEASE_S:
            if running.is_taken:
                await self._write(running, ended=True)
                if not running.ring:
                    return
            await self._wait(running)

    async def _count(self, running: RunningCapture) -> None:
        """Reads the meters: what has come to each interface."""
        view = self._compiler.view
        with suppress(OpenFlowError):
            counted = await self._flows.meter_packets()
            for vif, ofport in tapped_here(view, self._wanted(running)):
                for flowing in Flowing:
                    found = counted.get(meter_of_capture(running.slot, ofport, flowing))
                    if found is not None:
                        tallies = running.tallies[running.task.interfaces[vif.id] + flowing]
                        if found < tallies[Tally.COUNTED]:  # the VIF's port has a new meter
                            tallies[Tally.BEFORE] += tallies[Tally.COUNTED]
                        tallies[Tally.COUNTED] = found

    async def _write(self, running: RunningCapture, *, ended: bool) -> None:
        frames: list[Captured] = []
        size = 0
        while running.last.number >= MEASURED and running.ring and size < MAX_REPORTED:
            frame = running.ring.popleft()
            running.ring_bytes -= len(frame.frame) + OF_A_FRAME
            size += len(frame.frame)
            frames.append(frame)
        made = self._clock_ns()
        here = [vif.id for vif, _ in tapped_here(self._compiler.view, self._wanted(running))]
        report = CaptureReport(
            run=self._run,
            problem="" if self._flows.connected else f"the switch of host {self._compiler.view.me} does not answer",
            beat=running.beat.beat,
            heard=running.beat.ns,
            made=made,
            until=running.ring[0].at_ns - 1 if running.ring else made,
            here=here,
            counts=[counts_of(running.tallies[n]) for n in range(2 * len(running.task.plan.vifs))],
            ended=ended and not running.ring,
            frames=packed(frames),
        )
        before, now_s = running.last.number, time.monotonic()
        running.last = LastReport(before + 1, now_s)
        if not await self._send(running.id, before + 1, report):
            running.last = LastReport(before, now_s)
            for interface in (frame.interface for frame in frames):
                running.tallies[interface][Tally.LOST] += 1

    async def _refuse(self, row: Row, problem: str) -> None:
        await self._send(
            row["id"], max(0, row["number"] % MAX_NUMBER) + 1, CaptureReport(run=self._run, problem=problem, ended=True)
        )

    async def _send(self, id: str, number: int, report: CaptureReport) -> bool:
        mine = (("id", "==", id), ("host", "==", self._compiler.view.me))
        try:
            await self._client.transact(Update(TABLE, mine, {"number": number, "report": report.encode()}))
        except OvsdbError as error:
            log.info("capture %s: a report is not written: %s", id, error)
            return False
        return True

    # Frames

    def packet_in(self, message: PacketIn, tapped: Tapped) -> None:
        """Takes a captured frame."""
        at_ns = self._clock_ns()
        running = self._slots[tapped.slot] if tapped.slot < CAPTURES else None
        place = running.task.interfaces.get(tapped.vif) if running is not None else None
        if running is None or place is None:
            return
        tallies = running.tallies[place + tapped.flowing]
        tallies[Tally.RECEIVED] += 1
        vif, segment = self._compiler.view.vifs.get(tapped.vif), message.match.get("metadata")
        frame = message.data
        if vif is not None and filtered_by_agent(vif, tapped.flowing):
            frame = as_delivered(vif, tapped.flowing, frame, segment.value if segment is not None else 0)
            if running.task.wanted is not None and not _wants(running.task.wanted, frame):
                tallies[Tally.UNWANTED] += 1
                return
        length = message.full_length + len(frame) - len(message.data)
        frame = frame[: running.task.plan.snap]
        if running.ring_bytes + len(frame) + OF_A_FRAME > RING_BYTES:
            tallies[Tally.LOST] += 1
            return
        running.ring_bytes += len(frame) + OF_A_FRAME
        running.ring.append(Captured(place + tapped.flowing, at_ns, frame, length))
        if len(running.ring) == 1:
            running.news.set()


def _wants(wanted: PacketFilter, frame: bytes) -> bool:
    from vnet.compile.filtering import wants  # noqa: PLC0415 - it loads the emulated switch, for captures of trunks alone

    return wants(wanted, frame)
