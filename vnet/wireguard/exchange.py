"""What a host's agent and its WireGuard service tell each other: each has one file that it writes and the other reads.

One rule: a file is the whole of what its writer wants or knows. So either may restart at any time, and nothing changes meanwhile.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from vnet.util.files import replace_file

WANTED, REPORT = "wanted.json", "report.json"
MAX_BYTES = 16 * 1024 * 1024  # some 50,000 hosts


class WireguardPeer(msgspec.Struct, frozen=True):
    """Another host. endpoint: its address on the underlay. addresses: inside WireGuard, by plane. keys: public ones by plane."""

    endpoint: str
    addresses: dict[int, str]
    keys: dict[int, str]


class WireguardOrder(msgspec.Struct, frozen=True):
    """The agent's word. addresses: this host's inside WireGuard, by plane; networks: the planes', mtu: inside WireGuard, in bytes. epoch: the pool's of keys. sending: by peer, the plane that frames take.
    kernel: the kernel ends tunnels."""

    epoch: int
    addresses: dict[int, str]
    networks: dict[int, str]
    mtu: int
    peers: dict[str, WireguardPeer]
    sending: dict[str, int] = {}
    kernel: bool = False


class PublicKey(msgspec.Struct, frozen=True):
    """The public part of a key of this host, and the pool's epoch in which it was made."""

    public: str
    epoch: int


class WireguardReport(msgspec.Struct, frozen=True):
    """The service's word. keys: this host's, by plane. mac: the one that the bridge with the addresses inside WireGuard is to have; it is a secret of the host:
    the userspace datapath takes a packet for one of a tunnel by it, from wherever it comes. linked: the link to WireGuard is there to be plugged in. ready: what takes it leaves encrypted.
    handshakes: by a peer's public key, when WireGuard last agreed with it on session keys, in seconds since 1970, 0 for never. problem: why it
    does not work, "" if it does. userspace: WireGuard is a process, since this kernel has none."""

    keys: dict[int, PublicKey] = {}
    mac: str = ""
    linked: bool = False
    ready: bool = False
    handshakes: dict[str, int] = {}
    problem: str = ""
    userspace: bool = False


T = TypeVar("T", WireguardOrder, WireguardReport)


class Mailbox:
    """One of the two files, as its reader sees it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None

    def read(self, content: type[T]) -> T | None:
        """The content, if the file is another one than at the last call; else None. Raises ValueError for a file that nobody wrote whole."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if (found.st_ino, found.st_mtime_ns) == self._seen:
                    return None
                text = file.read(MAX_BYTES)
        except FileNotFoundError:
            return None
        self._seen = found.st_ino, found.st_mtime_ns
        return msgspec.json.decode(text, type=content)


def write(path: Path, content: WireguardOrder | WireguardReport) -> None:
    """Replaces the file in one step. It is for its owner alone: a report has a secret of the host."""
    replace_file(path, msgspec.json.encode(content), 0o600)
