"""The wires of a lab: one process that moves frames between guests and the ports that hosts have for them.

One rule: a guest is connected to at most one host, and changing that is one step between two frames.

A VIF has a guest end (a tap in the VM's namespace; none on the dummy driver) and one port on each host that has plugged it
(a tap in the host's namespace, or a dummy port's unix stream). Only the port on the host where the guest runs is read: on any
other, and while the guest is paused, frames wait in the port's own queue as they do for QEMU. During a `send` the guests are
silent, so that what is recorded is what was sent. On the dummy driver this process is also the physical network.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Sink = Callable[[bytes], None]
Request = dict[str, Any]

MAX_FRAME = 65535
BURST = 64  # frames read from one port before the others have their turn
CONNECT_TRIES = 200
MAX_RECORDS = 200_000
MAX_REQUEST = 16 * 1024 * 1024
ETHERNET_HEADER = 14
VLAN_TAG_BYTES = 4
TAG_TYPES = (b"\x81\x00", b"\x88\xa8")  # 802.1Q, 802.1ad
LINK_LOCAL = b"\x01\x80\xc2\x00\x00"  # 802.1Q-2022 §8.6.3: a bridge relays none of 01-80-C2-00-00-00..0F
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def enter(path: str) -> None:
    """Move this thread into the network namespace at `path`."""
    with open(path, "rb") as netns:
        if _LIBC.setns(netns.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {path}")


def open_tap(netns: str, device: str) -> int:
    """A tap in the named namespace file; it goes away with the descriptor. It has no offloads: frames are whole."""
    home = f"/proc/self/task/{os.getpid()}/ns/net"
    with open(home, "rb") as back:
        enter(netns)
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            _LIBC.setns(back.fileno(), CLONE_NEWNET)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd


class Tap:
    """A tap device: a frame per read and write."""

    def __init__(self, netns: str, device: str) -> None:
        self.fd = open_tap(netns, device)

    def read(self) -> list[bytes]:
        frames = []
        for _ in range(BURST):
            try:
                frames.append(os.read(self.fd, MAX_FRAME))
            except BlockingIOError:
                break
        return frames

    def write(self, frame: bytes) -> None:
        # A device that is down refuses (EIO), as a cable without a link does.
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self.fd, frame)

    def close(self) -> None:
        os.close(self.fd)


class Stream:
    """A dummy port's unix stream: each frame behind its length as 16 bits, big-endian (OVS lib/netdev-dummy.c)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        for _ in range(CONNECT_TRIES):
            if self._socket.connect_ex(path) == 0:
                break
            time.sleep(0.001)  # bound, and not listening yet
        else:
            raise ConnectionRefusedError(errno.ECONNREFUSED, path)
        self._socket.setblocking(False)
        self._left = b""

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[bytes]:
        try:
            data = self._socket.recv(MAX_FRAME)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, self._path)
        frames, data = [], self._left + data
        while len(data) >= 2 and len(data) >= 2 + (size := int.from_bytes(data[:2])):
            frames.append(data[2 : 2 + size])
            data = data[2 + size :]
        self._left = data
        return frames

    def write(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            message = len(frame).to_bytes(2) + frame
            sent = self._socket.send(message)
            if sent < len(message):  # never leave half a frame: the rest of the stream would be garbage
                self._socket.setblocking(True)
                self._socket.sendall(message[sent:])
                self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()


Port = Tap | Stream


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


class Switch:
    """A physical switch of the dummy driver: learns per VLAN, passes tags as they are, drops what is longer than its MTU."""

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self.ports: dict[str, Sink] = {}
        self.cut: set[str] = set()
        self._learned: dict[tuple[bytes, bytes], str] = {}

    def receive(self, port: str, frame: bytes) -> None:
        tagged = frame[12:14] in TAG_TYPES
        room = self.mtu + ETHERNET_HEADER + (VLAN_TAG_BYTES if tagged else 0)
        if port in self.cut or not ETHERNET_HEADER <= len(frame) <= room or frame.startswith(LINK_LOCAL):
            return
        vlan = bytes((frame[14] & 0x0F, frame[15])) if tagged else b"\0\0"
        self._learned[vlan, frame[6:12]] = port
        known = None if frame[0] & 1 else self._learned.get((vlan, frame[:6]))
        for to in [known] if known in self.ports else list(self.ports):
            if to is not None and to != port and to not in self.cut:
                self.ports[to](frame)


@dataclass
class Pending:
    """A `send` that still collects."""

    client: Client
    settle_s: float
    deadline: float
    quiet_at: float


@dataclass
class Client:
    socket: socket.socket
    left: bytes = b""


class Wires:
    def __init__(self, path: Path) -> None:
        self.selector = selectors.EpollSelector()
        self.wires: dict[str, Wire] = {}
        self.stations: dict[str, Port] = {}
        self.switches: dict[str, Switch] = {}
        self.nics: dict[tuple[str, str], Port] = {}
        self.records: list[tuple[int, str, bytes]] = []
        self.lost_records = 0
        self.recording = False
        self.pending: Pending | None = None
        self.queue: deque[tuple[Client, Request]] = deque()
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
            self.listen(wire.guest, self.from_guest(wire))

    def to_guest(self, vif: str, wire: Wire) -> Sink:
        def sink(frame: bytes) -> None:
            if self.recording:
                self.record(vif, frame)
            elif wire.guest is not None:
                wire.guest.write(frame)

        return sink

    def from_guest(self, wire: Wire) -> Sink:
        port = wire.port

        def sink(frame: bytes) -> None:
            if port is not None and not self.recording:
                port.write(frame)

        return sink

    def record(self, who: str, frame: bytes) -> None:
        if self.pending is not None:
            self.pending.quiet_at = time.monotonic() + self.pending.settle_s
        if len(self.records) < MAX_RECORDS:
            self.records.append((time.monotonic_ns(), who, frame))
        else:
            self.lost_records += 1

    # -- requests

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        client = Client(connection)
        self.selector.register(connection, selectors.EVENT_READ, lambda: self.hear(client))

    def hear(self, client: Client) -> None:
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

    def hang_up(self, client: Client) -> None:
        self.selector.unregister(client.socket)
        client.socket.close()
        self.queue = deque((who, request) for who, request in self.queue if who is not client)
        if self.pending is not None and self.pending.client is client:
            self.finish(answer=False)

    def serve(self, client: Client, line: bytes) -> None:
        try:
            request = json.loads(line)
            if request["op"] == "send":
                self.queue.append((client, request))
                self.next_send()
                return
            result = getattr(self, f"do_{request['op']}")(request)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.answer(client, {"error": f"{type(error).__name__}: {error}"})
        else:
            self.answer(client, {"result": result})

    def answer(self, client: Client, reply: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            client.socket.sendall(json.dumps(reply).encode() + b"\n")

    def next_send(self) -> None:
        while self.pending is None and self.queue:
            client, request = self.queue.popleft()
            try:
                frames = [base64.b64decode(frame) for frame in request["frames"]]
                out = self.way_out(request["from"])
                settle_s, limit_s = float(request["settle_s"]), float(request["limit_s"])
            except (KeyError, ValueError, TypeError) as error:
                self.answer(client, {"error": str(error)})
                continue
            now = time.monotonic()
            self.records, self.lost_records, self.recording = [], 0, True
            self.pending = Pending(client, settle_s, now + limit_s, now + settle_s)
            for frame in frames:
                out(frame)

    def way_out(self, who: str) -> Sink:
        """How a frame leaves a VIF's guest or a station. Raises ValueError if it has no way."""
        if who in self.wires:
            port = self.wires[who].port
            if port is None:
                raise ValueError(f"{who} is {'paused' if self.wires[who].paused else 'not plugged'}")
            return port.write
        if who in self.stations:
            return self.stations[who].write
        if who in self.switches_of_stations:
            switch = self.switches_of_stations[who]
            return lambda frame: switch.receive(who, frame)
        raise ValueError(f"no VIF or station {who!r}")

    @property
    def switches_of_stations(self) -> dict[str, Switch]:
        return {
            port: switch for switch in self.switches.values() for port in switch.ports if port.startswith("station")
        }

    def finish(self, answer: bool = True) -> None:
        """End the send that collects: its records are the answer."""
        if self.pending is None:
            return
        client, self.pending, self.recording = self.pending.client, None, False
        if answer:
            got = [[at, who, base64.b64encode(frame).decode()] for at, who, frame in self.records]
            self.answer(client, {"result": {"records": got, "lost": self.lost_records}})
        self.records = []
        self.next_send()

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
        return Stream(request["path"]) if "path" in request else Tap(request["netns"], request["device"])

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
        """The guest runs on a host from now on (None: nowhere): all its VIFs at once. `announce` goes out from there first."""
        for vif in request["vifs"]:
            self.wires[vif].host = request["host"]
            self.rewire(vif)
        for vif, frame in request.get("announce", {}).items():
            self.way_out(vif)(base64.b64decode(frame))

    def do_pause(self, request: Request) -> None:
        for vif in request["vifs"]:
            self.wires[vif].paused = bool(request["paused"])
            self.rewire(vif)

    def do_station(self, request: Request) -> None:
        """Open a station: a tap that is a port of a physical switch, or a port of our own."""
        name = request["name"]
        if "switch" in request:
            self.switches[request["switch"]].ports[name] = lambda frame: self.heard(name, frame)
        elif name not in self.stations:
            self.stations[name] = Tap(request["netns"], request["device"])
            self.listen(self.stations[name], lambda frame: self.heard(name, frame))

    def heard(self, station: str, frame: bytes) -> None:
        if self.recording:
            self.record(station, frame)

    def do_switch(self, request: Request) -> None:
        self.switches.setdefault(request["name"], Switch(request["mtu"]))

    def do_nic(self, request: Request) -> None:
        """Connect a dummy NIC to a switch of ours; again after its vswitchd was restarted."""
        key = (request["switch"], request["name"])
        if key in self.nics:
            return
        switch, port = self.switches[request["switch"]], Stream(request["path"])
        self.nics[key] = port
        switch.ports[request["name"]] = port.write
        self.listen(port, lambda frame: switch.receive(request["name"], frame))

    def do_cut(self, request: Request) -> None:
        cut = self.switches[request["switch"]].cut
        (cut.add if request["cut"] else cut.discard)(request["name"])

    def do_status(self, _request: Request) -> dict[str, Any]:
        vifs = {
            vif: {"host": wire.host, "plugged": sorted(wire.ports), "paused": wire.paused}
            for vif, wire in self.wires.items()
        }
        return {"pid": os.getpid(), "vifs": vifs}

    # -- the loop

    def run(self) -> None:
        while self.running:
            timeout = None
            if self.pending is not None:
                until = min(self.pending.quiet_at, self.pending.deadline)
                timeout = until - time.monotonic()
                if timeout <= 0:
                    self.finish()
                    continue
            for key, _ in self.selector.select(timeout):
                if key.fd in self.selector.get_map():  # an earlier callback may have closed it
                    key.data()


if __name__ == "__main__":
    Wires(Path(sys.argv[1])).run()
