"""The packet bridge of a lab: one process that moves frames between guests and the ports that hosts have for them.

One rule: a guest is connected to at most one host, and changing that is one step between two frames.

A VIF has a guest end (a tap in the VM's namespace; none on the dummy driver) and one port on each host that has plugged it
(a tap in the host's namespace, or a dummy port's unix stream). Only the port on the host where the guest runs is read: on any
other, and while the guest is paused, frames wait in the port's own queue as they do for QEMU. During a `send` the guests are
silent, so that all recorded frames come from that send. On the dummy driver this process is also the physical network.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import itertools
import json
import os
import selectors
import socket
import sys
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vnet.lab.impairments import MAX_UNDER_WAY, Impairment, OneWay, UnderWay
from vnet.lab.main_loops import MainLoops
from vnet.lab.numbered import MAX_STREAM_FRAMES, STREAM_MAGIC, STREAM_TAIL, Stream, start_timer
from vnet.lab.ports import PhysicalSwitch, Port, Sink, StreamPort, Tap

Request = dict[str, Any]

# The share of a send's quiet time that must be quiet before it too, so that later frames are the send's.
DRAIN_SHARE = 0.3
DRAIN_LIMIT_S = 1.0
MAX_RECORDS = 200_000
MAX_REQUEST = 16 * 1024 * 1024


@dataclass
class Wire:
    """One VIF: the guest's end, the ports that hosts have for it, where the guest runs."""

    guest: Port | None = None
    ports: dict[str, Port] = field(default_factory=dict)
    host: str | None = None
    paused: bool = False

    @property
    def port(self) -> Port | None:
        """The port that the guest is connected to now."""
        return None if self.paused or self.host is None else self.ports.get(self.host)


@dataclass
class Pending:
    """A `send` under way. frames: those to send once earlier frames have arrived; None while the answer collects. awaited: frames that have yet
    to come, without which it is not quiet. switches: the control sockets of those that forward. forwarded: they have. late: when the last frame
    that an impaired link holds will have come."""

    client: BridgeClient
    out: Sink
    frames: list[bytes] | None
    settle_s: float
    limit_s: float
    deadline: float
    quiet_at: float
    awaited: list[bytes]
    switches: list[str]
    forwarded: bool = False
    late: float = 0.0

    @property
    def ends_at(self) -> float:
        waits = self.frames is None and (self.awaited or not self.forwarded)
        return self.deadline if waits else min(max(self.quiet_at, self.late), self.deadline)


@dataclass
class BridgeClient:
    socket: socket.socket
    left: bytes = b""


class Wires:
    def __init__(self, path: Path) -> None:
        self.selector = selectors.EpollSelector()
        self.wires: dict[str, Wire] = {}
        self.stations: dict[str, Port] = {}
        self.switches: dict[str, PhysicalSwitch] = {}
        self.nics: dict[tuple[str, str], StreamPort] = {}
        self.cables: dict[str, tuple[Tap, Tap]] = {}
        self.impaired: dict[str, Impairment] = {}
        self.cut_links: set[str] = set()
        self.directions: dict[tuple[str, str], OneWay] = {}
        self.under_way: list[UnderWay] = []
        self.numbers = itertools.count()
        self.records: list[tuple[int, str, bytes]] = []
        self.lost_records = 0
        self.recording = False
        self.streams: dict[int, Stream] = {}
        self.pending: Pending | None = None
        self.queue: deque[tuple[BridgeClient, Request]] = deque()
        self.listener = socket.socket(socket.AF_UNIX)
        fresh = path.with_suffix(".new")
        self.listener.bind(str(fresh))
        self.listener.listen(16)
        fresh.rename(path)  # whoever sees the socket can connect to it
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.running = True

    # -- frames

    def listen(self, port: Port, sink: Sink) -> None:
        """Read `port` from now on, each frame into `sink`."""

        def ready() -> None:
            try:
                frames = port.read()
            except OSError:  # its other end is gone
                self.forget(port)
                return
            for frame in frames:
                sink(frame)

        self.ignore(port)
        self.selector.register(port.fd, selectors.EVENT_READ, ready)

    def ignore(self, port: Port) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(port.fd)

    def forget(self, port: Port) -> None:
        """Close a port whose other end is gone, or that is not wanted any more."""
        self.ignore(port)
        for wire in self.wires.values():
            wire.ports = {host: other for host, other in wire.ports.items() if other is not port}
            wire.guest = None if wire.guest is port else wire.guest
        self.nics = {key: other for key, other in self.nics.items() if other is not port}
        port.close()

    def rewire(self, vif: str) -> None:
        """Connect the guest and its ports as the wire says."""
        wire = self.wires[vif]
        for port in wire.ports.values():
            if port is not wire.port:
                self.ignore(port)
        if wire.port is not None:
            self.listen(wire.port, self.to_guest(vif, wire))
        if wire.guest is not None:
            self.listen(wire.guest, self.from_guest(vif, wire))

    def to_guest(self, vif: str, wire: Wire) -> Sink:
        def sink(frame: bytes) -> None:
            if self.streams and self.note(vif, frame):
                return
            if self.recording:
                self.record(vif, frame)
            elif wire.guest is not None:
                wire.guest.write(frame)

        return self.through(vif, "to", sink)

    def from_guest(self, vif: str, wire: Wire) -> Sink:
        out = None if wire.port is None else self.through(vif, "from", wire.port.write)

        def sink(frame: bytes) -> None:
            if out is not None and not self.recording:
                out(frame)

        return sink

    def through(self, link: str, towards: str, sink: Sink) -> Sink:
        """`sink` behind a link, which may be impaired at any time."""

        def passed(frame: bytes) -> None:
            if (impairment := self.impaired.get(link)) is None:
                sink(frame)
                return
            now = time.monotonic()
            due = self.directions[link, towards].due(impairment, frame, now)
            if due is None or len(self.under_way) >= MAX_UNDER_WAY:
                return
            heapq.heappush(self.under_way, UnderWay(due, next(self.numbers), frame, sink))
            if self.pending is not None:
                self.pending.late = max(self.pending.late, due + self.pending.settle_s)

        return passed

    def arrive(self) -> float | None:
        """Hand on the frames whose delay is over; how many seconds the next one has left."""
        while self.under_way:
            left_s = self.under_way[0].due - time.monotonic()
            if left_s > 0:
                return left_s
            item = heapq.heappop(self.under_way)
            item.sink(item.frame)
        return None

    def record(self, endpoint: str, frame: bytes) -> None:
        if self.pending is not None:
            early = self.pending.frames is not None
            self.pending.quiet_at = time.monotonic() + self.pending.settle_s * (DRAIN_SHARE if early else 1)
            if early:
                return
            with contextlib.suppress(ValueError):
                self.pending.awaited.remove(unpadded(frame))
        if len(self.records) < MAX_RECORDS:
            self.records.append((time.monotonic_ns(), endpoint, frame))
        else:
            self.lost_records += 1

    def note(self, endpoint: str, frame: bytes) -> bool:
        """Whether the frame is a stream's, and so for us and not for the guest."""
        at = frame.find(STREAM_MAGIC)
        if at < 0 or len(frame) < (tail := at + len(STREAM_MAGIC)) + STREAM_TAIL.size:
            return False
        number, seq, _ = STREAM_TAIL.unpack_from(frame, tail)
        if number in self.streams:
            self.streams[number].note(endpoint, seq)
        return True

    # -- requests

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        client = BridgeClient(connection)
        self.selector.register(connection, selectors.EVENT_READ, lambda: self.read_requests(client))

    def read_requests(self, client: BridgeClient) -> None:
        try:
            data = client.socket.recv(1 << 16)
        except OSError:
            data = b""
        client.left += data
        if not data or len(client.left) > MAX_REQUEST:
            self.hang_up(client)
            return
        *lines, client.left = client.left.split(b"\n")
        for line in lines:
            self.serve(client, line)

    def hang_up(self, client: BridgeClient) -> None:
        self.selector.unregister(client.socket)
        client.socket.close()
        self.queue = deque((waiting, request) for waiting, request in self.queue if waiting is not client)
        if self.pending is not None and self.pending.client is client:
            self.finish(answer=False)

    def serve(self, client: BridgeClient, line: bytes) -> None:
        try:
            request = json.loads(line)
            if request["op"] == "send":
                self.queue.append((client, request))
                self.next_send()
                return
            if request["op"] == "forward":
                MainLoops(self.selector, request["switches"], lambda: self.answer(client, {"result": None})).ask()
                return
            result = getattr(self, f"do_{request['op']}")(request)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.answer(client, {"error": f"{type(error).__name__}: {error}"})
        else:
            self.answer(client, {"result": result})

    def answer(self, client: BridgeClient, reply: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            client.socket.sendall(json.dumps(reply).encode() + b"\n")

    def next_send(self) -> None:
        while self.pending is None and self.queue:
            client, request = self.queue.popleft()
            try:
                frames = [base64.b64decode(frame) for frame in request["frames"]]
                awaited = [unpadded(base64.b64decode(frame)) for frame in request["awaited"]]
                out = self.way_out(request["from"])
                settle_s, limit_s = float(request["settle_s"]), float(request["limit_s"])
            except (KeyError, ValueError, TypeError) as error:
                self.answer(client, {"error": str(error)})
                continue
            now = time.monotonic()
            self.records, self.lost_records, self.recording = [], 0, True
            self.pending = Pending(
                client, out, frames, settle_s, limit_s, now + DRAIN_LIMIT_S, now + settle_s * DRAIN_SHARE, awaited,
                list(request["switches"]), late=max((item.due for item in self.under_way), default=0.0),
            )  # fmt: skip

    def turn(self) -> None:
        """The send under way has been quiet for long enough, or its time is over: send its frames, or answer."""
        pending = self.pending
        if pending is None or pending.frames is None:
            self.finish()
            return
        frames, pending.frames, now = pending.frames, None, time.monotonic()
        pending.quiet_at, pending.deadline = now + pending.settle_s, now + pending.limit_s
        for frame in frames:
            pending.out(frame)
        MainLoops(self.selector, pending.switches, lambda: self.forwarded(pending)).ask()

    def forwarded(self, pending: Pending) -> None:
        """What the frames of a send lead to has been through the switches."""
        pending.forwarded, pending.quiet_at = True, time.monotonic() + pending.settle_s

    def way_out(self, endpoint: str) -> Sink:
        """How a frame leaves a VIF's guest or a station. Raises ValueError if it has no way."""
        if endpoint in self.wires:
            port = self.wires[endpoint].port
            if port is None:
                raise ValueError(f"{endpoint} is {'paused' if self.wires[endpoint].paused else 'not plugged'}")
            return self.through(endpoint, "from", port.write)
        if endpoint in self.stations:
            return self.stations[endpoint].write
        if endpoint in self.switches_of_stations:
            switch = self.switches_of_stations[endpoint]
            return lambda frame: switch.receive(endpoint, frame)
        raise ValueError(f"no VIF or station {endpoint!r}")

    @property
    def switches_of_stations(self) -> dict[str, PhysicalSwitch]:
        return {
            port: switch for switch in self.switches.values() for port in switch.ports if port.startswith("station")
        }

    def finish(self, answer: bool = True) -> None:
        """End the send that collects: its records are the answer."""
        if self.pending is None:
            return
        client, self.pending, self.recording = self.pending.client, None, False
        if answer:
            got = [[at, endpoint, base64.b64encode(frame).decode()] for at, endpoint, frame in self.records]
            self.answer(client, {"result": {"records": got, "lost": self.lost_records}})
        self.records = []
        self.next_send()

    def do_settle(self, request: Request) -> None:
        """The send under way ends once nothing came for `settle_s`, however long it meant to collect."""
        if self.pending is not None:
            self.pending.settle_s = float(request["settle_s"])
            self.pending.quiet_at = time.monotonic() + self.pending.settle_s

    def do_guest(self, request: Request) -> None:
        """Make the guest's end of a VIF: a tap, or nothing where the driver has no guests."""
        wire = self.wires.setdefault(request["vif"], Wire())
        if request.get("netns") and wire.guest is None:
            wire.guest = Tap(request["netns"], request["device"])
            self.rewire(request["vif"])

    def do_forget(self, request: Request) -> None:
        """Take a VIF away whole."""
        wire = self.wires.pop(request["vif"], Wire())
        for port in [*wire.ports.values(), *([wire.guest] if wire.guest else [])]:
            self.ignore(port)
            port.close()

    def do_plug(self, request: Request) -> None:
        """Make the VIF's port on a host. Nothing reads it until the guest runs there."""
        wire, host = self.wires[request["vif"]], request["host"]
        if host not in wire.ports:
            wire.ports[host] = self.open(request)
            self.rewire(request["vif"])

    def open(self, request: Request) -> Port:
        return StreamPort(request["path"]) if "path" in request else Tap(request["netns"], request["device"])

    def do_unplug(self, request: Request) -> None:
        wire = self.wires[request["vif"]]
        port = wire.ports.pop(request["host"], None)
        if port is not None:
            self.ignore(port)
            port.close()
            if wire.host == request["host"]:
                wire.host = None
            self.rewire(request["vif"])

    def do_run(self, request: Request) -> None:
        """The guest runs on a host from now on (None: nowhere), all its VIFs at once, with `resume` also if it was paused.

        `announce` goes out from there first.
        """
        for vif in request["vifs"]:
            wire = self.wires[vif]
            self.drain(vif, wire)
            wire.host = request["host"]
            wire.paused = wire.paused and not request.get("resume", False)
            self.rewire(vif)
        for vif, frame in request.get("announce", {}).items():
            self.way_out(vif)(base64.b64decode(frame))

    def drain(self, vif: str, wire: Wire) -> None:
        """Hand the guest the frames that wait in its port: they arrived before the change that follows."""
        if wire.port is not None:
            sink = self.to_guest(vif, wire)
            with contextlib.suppress(OSError):
                for frame in wire.port.read():
                    sink(frame)

    def do_pause(self, request: Request) -> None:
        for vif in request["vifs"]:
            self.drain(vif, self.wires[vif])
            self.wires[vif].paused = bool(request["paused"])
            self.rewire(vif)

    def do_station(self, request: Request) -> None:
        """Open a station: a tap that is a port of a physical switch, or a port of our own."""
        name = request["name"]
        if "switch" in request:
            self.switches[request["switch"]].ports[name] = lambda frame: self.station_sent(name, frame)
        elif name not in self.stations:
            self.stations[name] = Tap(request["netns"], request["device"])
            self.listen(self.stations[name], lambda frame: self.station_sent(name, frame))

    def station_sent(self, station: str, frame: bytes) -> None:
        if not (self.streams and self.note(station, frame)) and self.recording:
            self.record(station, frame)

    def do_stream(self, request: Request) -> None:
        """Send a numbered frame every `period_s` from a VIF or station, as long as it can send."""
        template = base64.b64decode(request["frame"])
        at = template.index(STREAM_MAGIC) + len(STREAM_MAGIC)
        number, source = int(request["number"]), request["from"]
        self.way_out(source)
        stream = Stream(
            template[:at], number, template[at + STREAM_TAIL.size :], start_timer(float(request["period_s"]))
        )
        self.streams[number] = stream

        def due() -> None:
            for _ in range(int.from_bytes(os.read(stream.timer, 8), sys.byteorder)):
                with contextlib.suppress(ValueError):  # paused or unplugged: a guest that does not run sends nothing
                    out = self.way_out(source)
                    if len(stream.sent) < MAX_STREAM_FRAMES:
                        frame = stream.frame()
                        stream.sent.append(time.monotonic_ns())
                        out(frame)

        self.selector.register(stream.timer, selectors.EVENT_READ, due)

    def do_stop_sending(self, request: Request) -> None:
        """End a stream's sending; frames that are under way are still counted."""
        stream = self.streams[int(request["number"])]
        if stream.timer >= 0:
            self.selector.unregister(stream.timer)
            os.close(stream.timer)
            stream.timer = -1

    def do_stream_progress(self, request: Request) -> dict[str, Any]:
        """How many frames a stream has sent; of each receiver how many came and the number of the latest."""
        stream = self.streams[int(request["number"])]
        received = {receiver: [len(seqs), seqs[-1]] for receiver, (seqs, _) in stream.received.items()}
        return {"sent": len(stream.sent), "received": received}

    def do_stream_result(self, request: Request) -> dict[str, Any]:
        """The frames that a stream sent, and those that each receiver got; with `end` the stream is forgotten."""
        number = int(request["number"])
        stream = self.streams[number]
        if request["end"]:
            self.do_stop_sending(request)
            del self.streams[number]

        def text(values: array[int]) -> str:
            return base64.b64encode(values.tobytes()).decode()

        received = {endpoint: [text(seqs), text(times)] for endpoint, (seqs, times) in stream.received.items()}
        return {"sent": text(stream.sent), "received": received}

    def do_switch(self, request: Request) -> None:
        self.switches.setdefault(request["name"], PhysicalSwitch(request["mtu"]))

    def do_nic(self, request: Request) -> None:
        """Connect a dummy NIC to a switch of ours; again after its vswitchd was restarted."""
        key = (request["switch"], request["name"])
        if key in self.nics:
            return
        switch, port = self.switches[request["switch"]], StreamPort(request["path"])
        self.nics[key] = port
        link = request["name"]
        switch.ports[link] = self.through(link, "to", port.write)
        self.listen(port, self.through(link, "from", lambda frame: switch.receive(link, frame)))

    def do_cut(self, request: Request) -> None:
        cut = self.switches[request["switch"]].cut
        (cut.add if request["cut"] else cut.discard)(request["name"])

    def do_impair(self, request: Request) -> None:
        """Impair a link from now on, or not any more: a VIF, a NIC of ours, or a cable between two taps."""
        link, faults = request["link"], request["impairment"]
        if faults is None:
            self.impaired.pop(link, None)
            return
        self.impaired[link] = Impairment.of(faults)
        for towards in ("to", "from"):
            self.directions.setdefault((link, towards), OneWay())

    def do_note_cut(self, request: Request) -> None:
        """Remember for the status that somebody cut a link, or healed it."""
        (self.cut_links.add if request["cut"] else self.cut_links.discard)(request["link"])

    def do_cable(self, request: Request) -> None:
        """Carry frames between two taps, for a link of the kernel's that is impaired."""
        link = request["link"]
        if link in self.cables:
            return
        ends = [Tap(request["netns"], device) for device in (request["near"], request["far"])]
        near, far = self.cables[link] = (ends[0], ends[1])
        self.listen(near, self.through(link, "from", far.write))
        self.listen(far, self.through(link, "to", near.write))

    def do_uncable(self, request: Request) -> None:
        for end in self.cables.pop(request["link"], ()):
            self.ignore(end)
            end.close()

    def do_status(self, _request: Request) -> dict[str, Any]:
        vifs = {
            vif: {"host": wire.host, "plugged": sorted(wire.ports), "paused": wire.paused}
            for vif, wire in self.wires.items()
        }
        return {
            "pid": os.getpid(),
            "vifs": vifs,
            "collecting": self.pending is not None and self.pending.frames is None,
            "cables": sorted(self.cables),
            "cut": sorted(self.cut_links),
            "impaired": {link: faults.as_request() for link, faults in self.impaired.items()},
            "written": {name: nic.written for (_, name), nic in self.nics.items()},
        }

    # -- the loop

    def run(self) -> None:
        while self.running:
            timeout = self.arrive()
            if self.pending is not None:
                left_s = self.pending.ends_at - time.monotonic()
                if left_s <= 0:
                    self.turn()
                    continue
                timeout = left_s if timeout is None else min(timeout, left_s)
            for key, _ in self.selector.select(timeout):
                if key.fd in self.selector.get_map():  # an earlier callback may have closed it
                    key.data()


def unpadded(frame: bytes) -> bytes:
    """A frame without the zeros at its end: a kernel may cut off what fills a short one up."""
    return frame.rstrip(b"\0")


if __name__ == "__main__":
    Wires(Path(sys.argv[1])).run()
