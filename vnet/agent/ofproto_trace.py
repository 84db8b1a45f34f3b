"""Answers how the local switch would treat a frame, by ofproto/trace (ovs-vswitchd(8)): nothing is sent, nothing is learned.

One rule: a question that cannot be answered is answered with the reason, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from ipaddress import ip_address
from typing import Final

from ovsctl.appctl import Appctl, AppctlError, control_socket
from ovsctl.ovsdb import Change, Client, Monitor, OvsdbError, Replica, Update
from vnet.compile import HostView
from vnet.compile.flows import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, TCP, UDP
from vnet.db.probes import MAX_TEXT_BYTES, Answer, Probe
from vnet.db.rows import from_row
from vnet.objects import InvalidValue
from vnet.objects.limits import SCTP

log = logging.getLogger(__name__)

MAX_WAITING = 256  # questions; more than these at once are not answered
TRACE_TIMEOUT_S = 5.0
MAX_TRACE_BYTES = 4 * 1024 * 1024
SCHEMA_PERIOD_S = 5.0
ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}


class Prober:
    """Watches the questions to this host in the pool database and answers them one after another."""

    def __init__(self, view: HostView, client: Client, ovs_rundir: str, bridge: str) -> None:
        self._view: Final = view
        self._client: Final = client
        self._rundir: Final = ovs_rundir
        self._bridge: Final = bridge
        self._waiting: deque[Probe] = deque(maxlen=MAX_WAITING)
        self._refused: deque[tuple[str, str]] = deque(maxlen=MAX_WAITING)
        self._work = asyncio.Event()

    async def run(self) -> None:
        """Answers until cancelled."""
        replica = await self._monitor()
        replica.subscribe(self._asked)
        self._asked(tuple(Change("Probe", uuid, None, row) for uuid, row in replica["Probe"].items()))
        while True:
            await self._work.wait()
            self._work.clear()
            while self._refused:
                id, reason = self._refused.popleft()
                await self._write(id, Answer(problem=reason))
            while self._waiting:
                probe = self._waiting.popleft()
                await self._write(probe.id, await self._answer(probe))

    async def _monitor(self) -> Replica:
        mine = (("host", "==", self._view.me),)
        while True:
            # The controller brings the database up to date; agents may be newer than it for a while.
            if "Probe" in self._client.schema.tables:
                try:
                    return await self._client.monitor({"Probe": Monitor(where=mine)})
                except OvsdbError as error:
                    log.info("not asked for probes yet: %s", error)
            await asyncio.sleep(SCHEMA_PERIOD_S)

    def _asked(self, batch: tuple[Change, ...]) -> None:
        for change in batch:
            if change.new is None or change.old is not None or change.new["answer"]:
                continue
            try:
                self._waiting.append(from_row(Probe, change.new))
            except InvalidValue as error:
                self._refused.append((change.new["id"], str(error)))
        self._work.set()

    async def _write(self, id: str, answer: Answer) -> None:
        try:
            await self._client.transact(Update("Probe", (("id", "==", id),), {"answer": answer.encode()}))
        except OvsdbError as error:
            log.info("a probe is left unanswered: %s", error)

    async def _answer(self, probe: Probe) -> Answer:
        view = self._view
        ofport = view.plugged(probe.vif) if probe.vif else view.devices.get(probe.device)
        if ofport is None:
            port = f"port for VIF {probe.vif}" if probe.vif else f"port {probe.device} on {self._bridge}"
            return Answer(problem=f"host {view.me} has no {port}")
        try:
            switch = Appctl(control_socket(self._rundir), TRACE_TIMEOUT_S, MAX_TRACE_BYTES)
            tracked = (word for state in probe.tracked.split() for word in ("--ct-next", state.replace("+", ",")))
            frame = bytes.fromhex(probe.frame)
            match = metadata(probe, ofport)
            if "rpl" in probe.tracked:
                match += answered(frame)
            text = await switch.ofproto_trace(self._bridge, match, *tracked, packet=frame)
        except AppctlError as error:
            return Answer(problem=f"Open vSwitch of host {view.me}: {error.reason}")
        if len(text) > MAX_TEXT_BYTES:
            return Answer(problem=f"the trace on host {view.me} is longer than {MAX_TEXT_BYTES} bytes")
        vifs = {str(ofport): vif for vif, ofport in view.ports.items()}
        devices = {str(ofport): name for name, ofport in view.devices.items()}
        return Answer(text, vifs, devices)


def metadata(probe: Probe, ofport: int) -> str:
    """A frame's metadata as a match for ofproto/trace."""
    if not probe.tun_src:
        return f"in_port={ofport}"
    names = ("tun_src", "tun_dst") if ip_address(probe.tun_src).version == 4 else ("tun_ipv6_src", "tun_ipv6_dst")
    return f"in_port={ofport},tun_id={probe.tun_id},{names[0]}={probe.tun_src},{names[1]}={probe.tun_dst}"


def answered(frame: bytes) -> str:
    """The first packet of a connection as its tracker keeps it, by a packet that answers: fields of a match for ofproto/trace.

    ofproto/trace asks no tracker and keeps the fields that it is given. Empty for a packet with extension headers.
    """
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    eth_type, at = int.from_bytes(frame[at : at + 2], "big"), at + 2
    if eth_type == ETH_IPV4:
        version, field, size, proto, addresses = "ip", "ct_nw", 4, frame[at + 9], at + 12
        ports = at + (frame[at] & 15) * 4
    elif eth_type == ETH_IPV6:
        version, field, size, proto, addresses, ports = "ipv6", "ct_ipv6", 16, frame[at + 6], at + 8, at + 40
    else:
        return ""
    src, dst = (ip_address(frame[start : start + size]) for start in (addresses, addresses + size))
    first = f",ct_state=trk|est,{version},{field}_src={dst},{field}_dst={src},ct_nw_proto={proto}"
    if proto in (TCP, UDP, SCTP):
        source_port, port = (int.from_bytes(frame[start : start + 2], "big") for start in (ports, ports + 2))
        return f"{first},ct_tp_src={port},ct_tp_dst={source_port}"
    if proto in ECHO_REQUEST:
        return f"{first},ct_tp_src={ECHO_REQUEST[proto]},ct_tp_dst=0"  # type and code
    return first
