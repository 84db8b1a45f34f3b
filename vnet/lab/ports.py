"""The ports that the packet bridge connects: taps, dummy ports' streams, and the physical switches of the dummy driver."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Callable

Sink = Callable[[bytes], None]

MAX_FRAME = 65535
BURST = 64  # frames read from one port before the others have their turn
CONNECT_TRIES = 200
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


def leave() -> None:
    """Move this thread into a fresh network namespace, which ends with it unless it is given a name."""
    if _LIBC.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")


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
        """Remove the device. The kernel takes its time (an RCU grace period), in which the other wires must not stand still."""
        fd, self.fd = self.fd, -1  # a frame that comes late meets no other device of this number
        threading.Thread(target=os.close, args=(fd,)).start()


class StreamPort:
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
        self.written = 0  # frames

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
            self.written += 1

    def close(self) -> None:
        self._socket.close()


Port = Tap | StreamPort


class PhysicalSwitch:
    """A physical switch of the dummy driver: learns per VLAN, passes tags as they are, drops frames that are longer than its MTU."""

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
