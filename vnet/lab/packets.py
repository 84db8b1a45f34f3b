"""Packets into a lab and out of it, from VIFs and from outside stations."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from vnet.lab import netns
from vnet.lab.deliveries import Deliveries, Delivery, Station, frames_of
from vnet.lab.errors import GuestPausedInLab, LabError, NotInLab, NotPluggedInLab, WiresError
from vnet.lab.guests import LabGuests
from vnet.lab.spec import Spec
from vnet.lab.streams import LEAST_PERIOD, RunningStream, packet_between
from vnet.util.frames import MINIMUM_FRAME_BYTES
from vnet.util.pcapng import CaptureDirection, PcapngWriter

SETTLE_S = 0.03  # where frames wait for no processor; longer where they do and many processes wait for one
MAX_SETTLE_S = 1.0
IN_KERNEL_S = 0.3  # there the first frames of a kind wait for threads that no main loop answers for
LIMIT_S = 10.0  # a switch that waits for the kernel forwards nothing meanwhile
ANSWER_LIMIT_S = 30.0  # only names a failure
TAG_TYPE = b"\x81\x00"
ETHERTYPE = slice(12, 14)


class LabPackets(LabGuests):
    """The part of a lab that is about packets."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.stations: list[Station] = []
        self._capture: PcapngWriter | None = None

    def station(self, uplink: str, tag: int | None = None) -> Station:
        """An outside station on the physical switch of an uplink; on one VLAN if a tag is given."""
        names = sorted(netns.switch_ports(self.spec))
        if uplink not in names:
            raise NotInLab("uplink", uplink, names)
        station = Station(f"{uplink}" if tag is None else f"{uplink}.{tag}", uplink, tag)
        if station not in self.stations:
            self.driver.station(self._station_port(station), uplink)
            self.stations.append(station)
        return station

    def send(
        self,
        source: str | Station,
        packets: Any,
        *,
        settle_s: float | None = None,
        limit_s: float = LIMIT_S,
        awaited: Iterable[bytes] = (),
    ) -> Deliveries:
        """Send a packet (scapy or bytes) or several from a VIF ('web1/0') or a station; everything that anyone got.

        Collects until the switches have forwarded what they had and nothing came for `settle_s` (by default 30 ms, and more on a busy machine),
        at most `limit_s`. Guests
        neither send nor receive meanwhile. awaited: answers that the sender must get, without which it does not end: what agents
        answer waits for a processor.
        """
        frames, answers = frames_of(packets), list(awaited)
        padded = {frame for frame in frames if len(frame) == MINIMUM_FRAME_BYTES}
        if isinstance(source, Station):
            wire_id = self._station_port(source)
            if source.tag is not None:
                frames, answers = ([_tagged(frame, source.tag) for frame in some] for some in (frames, answers))
        else:
            wire_id = self.vif(source).id
        settle_s = self.settled_after_s() if settle_s is None else settle_s
        limit_s = max(limit_s, 2 * settle_s, ANSWER_LIMIT_S if answers else 0.0)
        sent_ns, sent_us = time.monotonic_ns(), time.time_ns() // 1000
        encoded, expected = ([base64.b64encode(frame).decode() for frame in some] for some in (frames, answers))
        request: dict[str, Any] = {"from": wire_id, "frames": encoded, "settle_s": settle_s, "limit_s": limit_s}
        request |= {"awaited": expected, "switches": self.driver.forwarding()}
        try:
            answer = self.wires.call("send", timeout_s=limit_s + 20, **request)
        except WiresError as error:
            raise self._refusal(source) or error from None
        if answer["lost"]:
            raise LabError(f"{answer['lost']} more frames came than a send keeps: is there a loop?")
        deliveries = Deliveries(tuple(self._deliveries(answer["records"], sent_ns)))
        if self.spec.datapath_type == "system":
            deliveries = Deliveries(
                tuple(replace(item, frame=_with_padding(item.frame, padded)) for item in deliveries.items)
            )
        if self._capture is not None:
            self._record(self._capture, source, frames, deliveries, sent_us)
        return deliveries

    def _refusal(self, source: str | Station) -> LabError | None:
        """The reason why the wires take no frame from a VIF, if it is the VIF's state."""
        if isinstance(source, Station):
            return None
        vif = self.vif(source)
        state = self.wires.call("status")["vifs"].get(vif.id)
        if state is None or state["host"] not in state["plugged"]:
            return NotPluggedInLab(self.label(vif))
        return GuestPausedInLab(self.label(vif)) if state["paused"] else None

    @contextmanager
    def capture(self, file: IO[bytes] | str | Path) -> Iterator[None]:
        """Write the frames that `send` and `connect` put in and bring out to a pcapng file.

        An interface per port of a VIF or a station, a direction per frame, as the simulator names them.
        """
        if isinstance(file, str | Path):
            with Path(file).open("wb") as opened, self.capture(opened):
                yield
            return
        self._capture = PcapngWriter(file)
        try:
            yield
        finally:
            self._capture = None

    def _record(
        self, capture: PcapngWriter, source: str | Station, frames: list[bytes], deliveries: Deliveries, sent_us: int
    ) -> None:
        vifs = self.wires.call("status")["vifs"]
        uplinks = {station.name: station.uplink for station in self.stations}

        def interface(receiver: str) -> str:
            if receiver in uplinks:
                return f"physical {uplinks[receiver]} {receiver}"
            return f"{vifs[self.vif(receiver).id]['host']} br-int {receiver}"

        entrance = interface(source.name if isinstance(source, Station) else self.label(self.vif(source)))
        for frame in frames:
            capture.write(entrance, frame, CaptureDirection.IN, sent_us)
        for item in deliveries:
            capture.write(interface(item.to), item.frame, CaptureDirection.OUT, sent_us + round(1000 * item.after_ms))

    def stream(
        self, source: str | Station, to: str | None = None, *, packet: Any = None, period_ms: float = 1.0
    ) -> RunningStream:
        """Numbered frames every `period_ms` from a VIF or station to a VIF, or as `packet` (scapy; they become its payload).

        Whoever gets them is counted; no guest sees them. A source that is paused sends nothing.
        """
        if packet is None:
            if to is None or isinstance(source, Station):
                raise LabError("a stream needs a VIF at both ends, or the packet to send")
            packet = packet_between(self.vif(source), self.vif(to))
        if isinstance(source, Station):
            if source.tag is not None:
                raise LabError("a station's stream takes an untagged station, and a packet with its tag")
            return RunningStream(self, self._station_port(source), packet, period_ms)
        return RunningStream(self, self.vif(source).id, packet, period_ms)

    @cached_property
    def _forwards_in_real_time(self) -> bool:
        """Whether frames wait for no processor: so in a lab that root started."""
        return os.sched_getscheduler(self.wires.call("status")["pid"]) == os.SCHED_RR

    def settled_after_s(self) -> float:
        """How long nothing must come before all has come, on a machine as busy as this one is now."""
        slow = LEAST_PERIOD in os.environ  # a virtual machine does not see how busy its own host is
        if slow and self.spec.encrypted:  # WireGuard is a process there, which no switch answers for
            return MAX_SETTLE_S
        if self._forwards_in_real_time:
            return IN_KERNEL_S if self.spec.datapath_type == "system" else SETTLE_S
        if slow:
            return MAX_SETTLE_S
        waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
        return min(MAX_SETTLE_S, SETTLE_S * max(1.0, waiting))

    def receiver(self, wire: str) -> str:
        """The name in reports of the receiver at a wire; the id of a VIF whose VM was removed."""
        station = {self._station_port(station): station for station in self.stations}.get(wire)
        if station is not None:
            return station.name
        known = (vif for guest in self.spec.guests for vif in guest.vifs if vif.id == wire)
        return next(map(self.label, known), wire)

    def _station_port(self, station: Station) -> str:
        return _station_port(station, sorted(netns.switch_ports(self.spec)))

    def _deliveries(self, records: list[tuple[int, str, str]], sent_ns: int) -> Iterator[Delivery]:
        stations = {self._station_port(station): station for station in self.stations}
        for at, who, encoded in records:
            frame, after_ms = base64.b64decode(encoded), (at - sent_ns) / 1e6
            if (station := stations.get(who)) is None:
                yield Delivery(self.label(self.vif(who)), frame, after_ms)
            elif station.tag is None:
                yield Delivery(station.name, frame, after_ms)
            elif frame[ETHERTYPE] == TAG_TYPE and int.from_bytes(frame[14:16]) & 0xFFF == station.tag:
                yield Delivery(station.name, frame[:12] + frame[16:], after_ms)


def _station_port(station: Station, names: list[str]) -> str:
    return f"station{names.index(station.uplink)}" + ("" if station.tag is None else f".{station.tag}")


def _with_padding(frame: bytes, padded: set[bytes]) -> bytes:
    """A frame as it was sent: a kernel's connection tracker cuts off what fills a short frame up, and a NIC would fill it up again."""
    whole = frame.ljust(MINIMUM_FRAME_BYTES, b"\0")
    return whole if whole in padded else frame


def _tagged(frame: bytes, tag: int) -> bytes:
    return frame[:12] + TAG_TYPE + tag.to_bytes(2) + frame[12:]
