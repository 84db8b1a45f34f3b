"""Watches for marked frames of probes, and sends those that are this host's to send (docs/live.md).

One rule: a watch ends by itself: soon after its row goes, and after a minute whether the database can be reached or not.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from ovsctl.openflow import Match
from ovsctl.openflow.messages import PacketIn
from ovsctl.ovsdb import Change, Monitor, OvsdbClient, OvsdbError, Row, Update
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.questions import SCHEMA_PERIOD_S, follow_rows
from vnet.agent.shell import Shell
from vnet.compile import REG_PORT, Compiler, VifRole, WatchPoint, bare, marked_fields, read_note, refusal
from vnet.db.watches import MAX_SEEN, Report, Seen, Watch, watch_from_row
from vnet.objects import InvalidValue

log = logging.getLogger(__name__)

TABLE = "Watch"
FORGOTTEN_AFTER_S = 60.0
LINGER_S = 2.0  # a frame that was lost may only be late, and must not reach a guest then
MAX_WATCHED = 4096  # frames, of all watches together


class WatchState(Enum):
    """BEGINNING: its flows are not answered by a barrier yet. ENDED: its row is gone."""

    BEGINNING = auto()
    PROGRAMMED = auto()
    ENDED = auto()


@dataclass
class Watching:
    """A watch that this host takes part in. released: the frames that were to be sent so far."""

    watch: Final[Watch]
    matches: Final[frozenset[Match]]
    report: Final[Report] = field(default_factory=Report)
    released: Final[set[int]] = field(default_factory=set)
    state: WatchState = WatchState.BEGINNING


class Watcher:
    """The watches of this host. Callbacks only fold and wake; `run` sends and writes."""

    def __init__(self, compiler: Compiler, flows: BridgeFlows, client: OvsdbClient, shell: Shell) -> None:
        self._compiler: Final = compiler
        self._flows: Final = flows
        self._client: Final = client
        self._shell: Final = shell
        self._watches: Final[dict[str, Watching]] = {}
        self._due: list[tuple[Watching, int]] = []
        self._unwritten: dict[str, Report] = {}
        self._work: Final = asyncio.Event()

    async def start(self) -> bool:
        """Takes up the watches there are, so that an agent which starts anew finds their flows desired; whether it could."""
        mine = Monitor(
            columns=("id", "host", "created", "plan", "release"), where=(("host", "==", self._compiler.view.me),)
        )
        return await follow_rows(self._client, TABLE, mine, self._changed)

    async def run(self, *, started: bool) -> None:
        """Sends what is released and writes what was seen, until cancelled."""
        while True:
            if started or await self.start():
                break
            await asyncio.sleep(SCHEMA_PERIOD_S)
        while True:
            await self._work.wait()
            self._work.clear()
            due, self._due = self._due, []
            for watching, number in due:
                await self._send(watching, number)
            await self._write()

    # Beginning and end

    def _changed(self, batch: tuple[Change, ...]) -> None:
        for change in batch:
            if change.new is None:
                if change.old is not None:
                    self._end(change.old["id"])
            elif change.old is None:
                self._begin(change.new)
            else:
                self._release(change.new)

    def _begin(self, row: Row) -> None:
        """A row without a plan is older than the database server, which keeps none of it on disk."""
        if row["plan"] and row["id"] not in self._watches:
            try:
                self._take_up(watch_from_row(row))
                self._watches[row["id"]].released.update(row["release"])  # by whoever was this host's agent before
            except InvalidValue as error:
                self._tell(row["id"], Report(f"host {self._compiler.view.me}: {error}"))

    def _take_up(self, watch: Watch) -> None:
        known = frozenset[Match]().union(*(watching.matches for watching in self._watches.values()))
        new = frozenset(Match(**marked_fields(frame)) for frame in watch.frames)
        if len(known) + len(new) > MAX_WATCHED:
            raise InvalidValue("frames", "it watches for as many frames as it can: try again in some seconds")
        if len(new) < len(watch.frames) or known & new:  # two watches with one flow would end together
            raise InvalidValue("frames", "it watches for such a frame already: try again")
        self._watches[watch.id] = Watching(watch, new)
        self._compiler.inputs.set_probe(watch.id, watch.frames)
        asyncio.get_running_loop().call_later(FORGOTTEN_AFTER_S, self._forget, watch.id)
        self._shell.spawn(self._program(self._watches[watch.id]))

    def _end(self, id: str) -> None:
        if (watching := self._watches.get(id)) is not None:
            watching.state = WatchState.ENDED
            asyncio.get_running_loop().call_later(LINGER_S, self._forget, id)

    def _forget(self, id: str) -> None:
        if (watching := self._watches.pop(id, None)) is not None:
            watching.state = WatchState.ENDED
            self._compiler.inputs.set_probe(id, ())
            self._shell.wake()

    async def _program(self, watching: Watching) -> None:
        await self._shell.programmed()
        if watching.state is WatchState.BEGINNING:
            watching.state = WatchState.PROGRAMMED
        self._tell(watching.watch.id, watching.report)

    # Sending

    def _release(self, row: Row) -> None:
        watching = self._watches.get(row["id"])
        if watching is not None:
            for number in sorted(row["release"] - watching.released):
                watching.released.add(number)
                self._due.append((watching, number))
            self._work.set()

    async def _send(self, watching: Watching, number: int) -> None:
        watch, report, view = watching.watch, watching.report, self._compiler.view
        reason = self._refusal(watching, number)
        if reason is None:
            sent = await self._flows.send_packet(watch.frames[number], view.ports[watch.senders[number]])
            reason = None if sent else f"the switch of host {view.me} did not take it"
        if reason is None:
            report.sent.append(number)
        else:
            report.refused[number] = reason
        self._tell(watch.id, report)

    def _refusal(self, watching: Watching, number: int) -> str | None:
        """The reason for which a frame must not be sent now, by the members of the network that this host's own flows know."""
        watch, view = watching.watch, self._compiler.view
        if watching.state is not WatchState.PROGRAMMED or not 0 <= number < len(watch.frames):
            return f"host {view.me} does not watch for it"
        vif = view.vifs.get(watch.senders[number])
        if vif is None or view.role(vif) is not VifRole.ACTIVE or view.plugged(vif.id) is None:
            return f"VIF {watch.senders[number]} does not run on host {view.me}"
        unwatched = sorted(set(view.members(vif.network)) - watch.hosts)
        if unwatched:
            return f"host {unwatched[0]} has VIFs of network {vif.network} by now, and does not watch"
        return refusal(view.networks[vif.network], vif, watch.frames[number])

    # Seeing

    def packet_in(self, message: PacketIn) -> None:
        """A marked frame came in or was caught; nothing else comes here."""
        note = read_note(message.userdata)
        watching = self._watches.get(note.probe) if note is not None else None
        if note is None or watching is None:
            return
        view, report = self._compiler.view, watching.report
        port = message.match.get(REG_PORT) if note.stage is WatchPoint.CAUGHT else message.match.get("in_port")
        ofport = port.value if port is not None else 0
        if note.stage is WatchPoint.CAUGHT and ofport == message.in_port:
            return  # a switch sends no frame back to where it came from
        names = view.ports if note.stage is WatchPoint.CAUGHT else {**view.devices, **view.ports}
        port_name = next((name for name, number in names.items() if number == ofport), f"port {ofport}")
        if len(report.came) + len(report.caught) >= MAX_SEEN:
            report.left_off += 1
        else:
            same = bare(watching.watch.frames[note.number]) == bare(message.data)
            seen = Seen(note.number, port_name, "" if same else message.data.hex())
            (report.caught if note.stage is WatchPoint.CAUGHT else report.came).append(seen)
        self._tell(note.probe, report)

    def _tell(self, id: str, report: Report) -> None:
        self._unwritten[id] = report
        self._work.set()

    async def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        mine = ("host", "==", self._compiler.view.me)
        updates = [
            Update(TABLE, (("id", "==", id), mine), {"report": report.encode()}) for id, report in unwritten.items()
        ]
        try:
            if updates:
                await self._client.transact(*updates)
        except OvsdbError as error:
            log.info("the reports of probes are not written: %s", error)
