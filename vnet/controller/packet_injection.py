"""Sending marked frames while every host that could get them watches (docs/live.md).

One rule: nothing is sent before all of them have said that they watch, and whatever happens the watch is taken away.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from uuid import uuid4

from ovsctl.ovsdb import Delete, Insert, Select, Update, Wait, WaitTimedOut
from vnet import api
from vnet.api.errors import Invalid
from vnet.controller.admission import find
from vnet.controller.endpoint import Call
from vnet.controller.ofproto_trace_rpc import MAX_WAIT_S
from vnet.controller.service import refusing_pool_errors
from vnet.controller.vif_status import host_problem
from vnet.db.database import WRITE_TIMEOUT_S, PoolDatabase, now_ms
from vnet.db.errors import PoolError
from vnet.db.view import PoolView
from vnet.db.watches import Marked, Report, columns_of, decode_report, watch_from_row
from vnet.objects import InvalidValue, Network, Vif, Way

TABLE = "Watch"
# Not seen so long after it was sent, a frame is lost: an agent on a busy host may say late what it has seen.
LOST_AFTER_S = 1.5
LOST_AFTER_ROUND_TRIPS = 3  # or so many times what hosts took to say that they watch: a slow pool reports as late


async def send(call: Call[api.PacketsCall]) -> api.Packets:
    """Send marked frames, which no guest gets, and list where they came out.

    Raises Invalid, NotFound, Unavailable.
    """
    view, packets = call.service.view(), call.body.packets
    senders = [find("vif", packet.vif, view.state.vifs) for packet in packets]
    networks = [find("network", vif.network, view.state.networks) for vif in senders]
    homes = [_home(view, vif) for vif in senders]
    watch = _Watch(call.service.database, sorted({*homes, *watchers(view, networks)}))
    _check(watch, packets)
    silent = [reason.text for host in watch.hosts if (reason := host_problem(view, host)) is not None]
    if silent:
        return _answer(watch, packets, silent)
    wait_s = min(max(call.body.wait_s, 0.0), MAX_WAIT_S)
    with refusing_pool_errors():
        try:
            problems = await watch.open(packets, wait_s)
            if not problems:
                await _rounds(watch, packets, homes, wait_s)
        finally:
            await watch.close()
    return _answer(watch, packets, problems)


def watchers(view: PoolView, networks: Collection[Network]) -> set[str]:
    """The hosts that frames of these networks may come to: those with members, and where they meet the physical network all that
    do: trunks carry other networks' tags, and two uplinks may be one physical network."""
    names = {network.name for network in networks}
    if any(network.carrier.way is Way.UPLINK for network in networks):
        names |= {network.name for network in view.state.networks.values() if network.carrier.way is Way.UPLINK}
    return {host for name in names for host in view.members.get(name, ())}


def _home(view: PoolView, vif: Vif) -> str:
    current = view.location(vif.id).current
    if current is None:
        raise Invalid("packet", f"VIF {vif.id} does not run on any host")
    return current.host


def _check(watch: _Watch, packets: Sequence[api.PacketCall]) -> None:
    try:
        watch_from_row({**watch.columns(watch.hosts[0] if watch.hosts else "", packets), "report": ""})
    except InvalidValue as error:
        raise Invalid("packet", str(error)) from None
    for number, packet in enumerate(packets):
        if packet.after is not None and not 0 <= packet.after < number:
            raise Invalid("packet", f"packet {number} is to go after packet {packet.after}, which is not before it")


class _Watch:
    """The rows of one watch, and what their hosts have reported of each frame by its number."""

    def __init__(self, database: PoolDatabase, hosts: list[str]) -> None:
        self.hosts = hosts
        self.lost_after_s = LOST_AFTER_S
        self.reports: dict[str, Report] = {}
        self.refused: dict[int, str] = {}
        self.sent: set[int] = set()
        self.released: dict[str, set[int]] = defaultdict(set)
        self.came: dict[int, list[api.Sighting]] = {}
        self.caught: dict[int, list[api.Sighting]] = {}
        self._database = database
        self._id = str(uuid4())
        self._mine = (("id", "==", self._id),)
        self._known: list[dict[str, str]] = [{"host": host, "report": ""} for host in hosts]

    def columns(self, host: str, packets: Sequence[api.PacketCall]) -> dict[str, object]:
        frames = [Marked(packet.frame, packet.vif) for packet in packets]
        return dict(columns_of(self._id, host, now_ms(), self.hosts, frames))

    async def open(self, packets: Sequence[api.PacketCall], wait_s: float) -> list[str]:
        """Have all hosts watch; why some do not."""
        began = asyncio.get_running_loop().time()
        await self._database.transact(*(Insert(TABLE, self.columns(host, packets)) for host in self.hosts))
        await self.wait(lambda: len(self.reports) == len(self.hosts), wait_s)
        self.lost_after_s = max(LOST_AFTER_S, LOST_AFTER_ROUND_TRIPS * (asyncio.get_running_loop().time() - began))
        late = f"did not say within {wait_s:g} s that it watches"
        found = [self.reports.get(host) or Report(f"the agent of host {host} {late}") for host in self.hosts]
        return [report.problem for report in found if report.problem]

    async def wait(self, done: Callable[[], bool], limit_s: float) -> None:
        """Follow the reports until `done`, at most `limit_s`. The database itself waits (RFC 7047 section 5.2.6)."""
        end = asyncio.get_running_loop().time() + limit_s
        while not done() and (left_s := end - asyncio.get_running_loop().time()) > 0:
            changed = Wait(TABLE, self._mine, ("host", "report"), tuple(self._known), "!=", int(left_s * 1000))
            with suppress(WaitTimedOut):
                await self._database.transact(changed, timeout_s=left_s + WRITE_TIMEOUT_S)
            (rows,) = await self._database.transact(Select(TABLE, self._mine, ("host", "report")))
            self._known = [
                {"host": row["host"], "report": row["report"]} for row in sorted(rows, key=itemgetter("host"))
            ]
            self._read()

    def _read(self) -> None:
        self.reports = {row["host"]: decode_report(row["report"]) for row in self._known if row["report"]}
        self.came, self.caught = defaultdict(list), defaultdict(list)
        for host, report in self.reports.items():
            self.sent.update(report.sent)
            self.refused |= report.refused
            for stage, sightings in ((self.came, report.came), (self.caught, report.caught)):
                for seen in sightings:
                    stage[seen.number].append(api.Sighting(host=host, where=seen.place, changed=seen.changed))

    async def release(self, due: Mapping[int, str]) -> None:
        """Let hosts send frames, each the ones that are its own."""
        for number, host in due.items():
            self.released[host].add(number)
        await self._database.transact(
            *(
                Update(TABLE, (*self._mine, ("host", "==", host)), {"release": frozenset(self.released[host])})
                for host in sorted(set(due.values()))
            )
        )

    async def close(self) -> None:
        with suppress(PoolError):  # what was seen counts; rows that stay are the leader's to delete
            await self._database.transact(Delete(TABLE, self._mine))

    def reached(self, number: int) -> set[str]:
        """The VIFs that would have got a frame."""
        return {seen.where for seen in self.caught.get(number, ())}


async def _rounds(watch: _Watch, packets: Sequence[api.PacketCall], homes: Sequence[str], wait_s: float) -> None:
    for now in sorted({packet.round for packet in packets}):
        due = {
            n: homes[n]
            for n, packet in enumerate(packets)
            if packet.round == now and (packet.after is None or packets[packet.after].to in watch.reached(packet.after))
        }
        if due:
            await watch.release(due)
            await watch.wait(partial(_all_sent, watch, due), wait_s)
            await watch.wait(partial(_all_seen, watch, packets, due), watch.lost_after_s)


def _all_sent(watch: _Watch, due: Iterable[int]) -> bool:
    return all(n in watch.sent or n in watch.refused for n in due)


def _all_seen(watch: _Watch, packets: Sequence[api.PacketCall], due: Iterable[int]) -> bool:
    return all(n in watch.refused or set(packets[n].expect) <= watch.reached(n) for n in due)


def _answer(watch: _Watch, packets: Sequence[api.PacketCall], problems: list[str]) -> api.Packets:
    found = [_packet(watch, number) for number in range(len(packets))]
    left_off = sum(report.left_off for report in watch.reports.values())
    return api.Packets(packets=found, hosts=watch.hosts, problems=problems, left_off=left_off)


def _packet(watch: _Watch, number: int) -> api.Packet:
    came, caught = watch.came.get(number, []), watch.caught.get(number, [])
    if number in watch.sent:
        return api.Packet(sent=True, came=came, caught=caught)
    released = any(number in numbers for numbers in watch.released.values())
    why = watch.refused.get(number) or ("its host did not say that it sent it" if released else "its turn did not come")
    return api.Packet(sent=False, why=why, came=came, caught=caught)
