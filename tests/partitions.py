"""A RAFT cluster whose servers are each in a network namespace of its own, so that the network between any two can be cut.

The one rule: frames that are cut are lost without a word, as on a wire, and each direction is cut by itself. Clients are not
concerned: they come by unix sockets. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import OvsdbCluster, OvsdbServer, ovsdb_cluster, run

NETNS_DIR = Path("/run/netns")
NOBODY = "02:00:00:00:de:ad"  # no NIC has it, so a frame to it is lost
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def _enter(netns: str) -> Callable[[], None]:
    def enter() -> None:
        with (NETNS_DIR / netns).open() as file:
            if _LIBC.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns({netns})")

    return enter


@dataclass(frozen=True, slots=True)
class Site:
    """Where a server is: its namespace, which `name` is that of, and its address there."""

    name: str
    address: str

    def ip(self, *args: str) -> None:
        run("ip", "-n", self.name, *args)

    def lose(self, to: Site) -> None:
        """What is sent from here to there is lost from now on."""
        self.ip("neigh", "replace", to.address, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent")

    def find(self, to: Site) -> None:
        self.ip("neigh", "del", to.address, "dev", "eth0")


@dataclass
class PartedCluster(OvsdbCluster):
    """Servers and, in the same order, the sites that they are at."""

    sites: tuple[Site, ...] = ()

    def site(self, server: OvsdbServer) -> Site:
        return self.sites[self.servers.index(server)]

    @contextlib.contextmanager
    def cut(self, *ways: tuple[OvsdbServer, OvsdbServer]) -> Iterator[None]:
        """Inside, nothing gets from the first to the second of each of these."""
        for source, to in ways:
            self.site(source).lose(self.site(to))
        try:
            yield
        finally:
            for source, to in ways:
                self.site(source).find(self.site(to))


@contextlib.contextmanager
def _sites(size: int) -> Iterator[tuple[Site, ...]]:
    """Namespaces at one Ethernet bridge, in one more."""
    name = f"part{os.getpid()}x{next(_numbers)}"
    middle, sites = Site(name, ""), tuple(Site(f"{name}-{n}", f"10.98.0.{n}") for n in range(1, size + 1))
    made: list[str] = []
    try:
        for site in (middle, *sites):
            run("ip", "netns", "add", site.name)
            made.append(site.name)
        middle.ip("link", "add", "name", "br0", "type", "bridge")
        middle.ip("link", "set", "br0", "up")
        for number, site in enumerate(sites):
            middle.ip("link", "add", "name", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", site.name)
            middle.ip("link", "set", f"p{number}", "up", "master", "br0")
            for device in ("lo", "eth0"):
                site.ip("link", "set", device, "up")
            site.ip("addr", "add", f"{site.address}/24", "dev", "eth0")
        yield sites
    finally:
        for netns in made:
            run("ip", "netns", "del", netns)


@contextlib.contextmanager
def parted_cluster(schema: dict[str, Any], *, size: int = 3, election_timer_ms: int = 500) -> Iterator[PartedCluster]:
    """A running cluster whose servers reach each other only by the network of their namespaces."""
    with _sites(size) as sites:
        places = [(f"tcp:{site.address}:6644", _enter(site.name)) for site in sites]
        with ovsdb_cluster(schema, size=size, election_timer_ms=election_timer_ms, places=places) as cluster:
            yield PartedCluster(cluster.servers, cluster.name, sites)


def committed(server: OvsdbServer) -> list[dict[str, Any]]:
    """What a server's log (ovsdb(5)) says was committed, in that order: of each entry the changed rows by table and UUID.

    The log must not have been compacted. An entry that was never committed may have been overwritten by a later leader's.
    """
    entries: dict[int, dict[str, Any]] = {}
    commit = 0
    lines = server.database.read_text().splitlines()
    for header, line in zip(lines[::2], lines[1::2], strict=True):
        assert header.startswith("OVSDB CLUSTER ")
        record = json.loads(line)
        commit = max(commit, record.get("commit_index", 0))
        if "index" in record:
            data = record.get("data")
            entries[record["index"]] = data[1] if data else {}
            for overwritten in [index for index in entries if index > record["index"]]:
                del entries[overwritten]
    return [entries[index] for index in sorted(entries) if index <= commit]
