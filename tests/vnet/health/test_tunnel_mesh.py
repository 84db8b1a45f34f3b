"""Hosts find out which tunnels bring what: meshes that send each other their hellos, by a clock of the test's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from vnet.db.health import StatedTunnel
from vnet.health.tunnel_mesh import GRACE_S, HEADER_BYTES, LOST_AFTER, MOST_HELLOS_S, MeshPath, TunnelMesh
from vnet.util.hello_frames import hello_frame, read_hello

POOL = bytes(8)
MTU = 1550
SETTLED_S = GRACE_S + 2 * LOST_AFTER


@dataclass
class Meshes:
    """Hosts, each with every other one as its peer. passes: whether a frame of a size gets from a host to another one. ahead_us: by host, of its clock."""

    hosts: tuple[str, ...]
    passes: Callable[[str, str, int], bool] = lambda source, to, size: True
    ahead_us: dict[str, int] = field(default_factory=dict)
    now_s: float = 1000.0
    sent: int = 0

    def __post_init__(self) -> None:
        def wall(host: str) -> Callable[[], int]:
            return lambda: int(self.now_s * 1_000_000) + self.ahead_us.get(host, 0)

        self.of = {host: TunnelMesh(host, 1.0, lambda: self.now_s, wall(host)) for host in self.hosts}
        for host, mesh in self.of.items():
            mesh.follow({MeshPath(peer, "vxlan"): MTU + HEADER_BYTES for peer in self.hosts if peer != host})

    def run(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += 0.05
            for host, mesh in self.of.items():
                for path, hello, size in list(mesh.due(POOL)):
                    frame = hello_frame(hello, size)
                    self.sent += 1
                    if self.passes(host, path.peer, len(frame)):
                        found = read_hello(frame)
                        assert found is not None
                        self.of[path.peer].hear(MeshPath(host, "vxlan"), found, len(frame))

    def stated(self, host: str) -> tuple[StatedTunnel, ...]:
        return self.of[host].health(measured=False)

    def measured(self, host: str, peer: str) -> StatedTunnel:
        return next(it for it in self.of[host].health(measured=True) if it.peer == peer)


def test_a_sound_mesh_states_nothing_and_knows_everything() -> None:
    meshes = Meshes(("a", "b", "c"))
    meshes.run(SETTLED_S)
    assert [meshes.stated(host) for host in meshes.hosts] == [(), (), ()]
    found = meshes.measured("a", "b")
    assert (found.hears, found.heard, found.mtu, found.ahead_ms) == (True, True, MTU, 0)


def test_nothing_is_stated_while_it_is_too_early() -> None:
    meshes = Meshes(("a", "b"), lambda *_: False)
    meshes.run(GRACE_S)
    assert meshes.stated("a") == ()
    meshes.run(SETTLED_S)
    assert meshes.stated("a") == (StatedTunnel("b", "vxlan", hears=False),)


def test_a_tunnel_that_works_one_way_is_told_apart_by_both_ends() -> None:
    meshes = Meshes(("a", "b", "c"))
    meshes.run(SETTLED_S)
    meshes.passes = lambda source, to, size: (source, to) != ("a", "b")
    meshes.run(2 * LOST_AFTER)
    assert meshes.stated("a") == (StatedTunnel("b", "vxlan", heard=False),)
    assert meshes.stated("b") == (StatedTunnel("a", "vxlan", hears=False),)
    assert meshes.stated("c") == ()
    meshes.passes = lambda *_: True
    meshes.run(LOST_AFTER)
    assert meshes.stated("a") == meshes.stated("b") == ()


@pytest.mark.parametrize("mtu", [1549, 1450, 900, 576])
def test_the_largest_packet_that_passes_is_found_and_forgotten(mtu: int) -> None:
    meshes = Meshes(("a", "b"))
    meshes.run(SETTLED_S)
    meshes.passes = lambda source, to, size: source == "b" or size <= mtu + HEADER_BYTES
    meshes.run(60)
    assert meshes.stated("a") == (StatedTunnel("b", "vxlan", needs=MTU, mtu=mtu),)
    assert meshes.stated("b") == ()
    meshes.passes = lambda *_: True
    meshes.run(15)
    assert meshes.stated("a") == ()


def test_a_path_that_never_was_wide_enough() -> None:
    meshes = Meshes(("a", "b"), lambda source, to, size: size <= 1400 + HEADER_BYTES)
    meshes.run(60)
    assert meshes.measured("a", "b").mtu == meshes.measured("b", "a").mtu == 1400


def test_a_clock_that_is_off() -> None:
    meshes = Meshes(("a", "b", "c"), ahead_us={"b": 7_300_000})
    meshes.run(SETTLED_S)
    assert meshes.stated("a") == (StatedTunnel("b", "vxlan", ahead_ms=7000),)
    assert [it.ahead_ms for it in meshes.stated("b")] == [-7000, -7000]
    assert meshes.measured("c", "b").ahead_ms == 7300


def test_what_a_host_sends_does_not_grow_with_its_peers() -> None:
    meshes = Meshes(tuple(f"host{number}" for number in range(64)))
    meshes.run(3)
    before = meshes.sent
    meshes.run(20)
    assert (meshes.sent - before) / 20 / 64 <= 1.6 * MOST_HELLOS_S  # large ones are a quarter of it
    meshes.run(40)
    assert all(meshes.stated(host) == () for host in meshes.hosts)


def test_a_peer_that_is_none_any_more_is_forgotten() -> None:
    meshes = Meshes(("a", "b"), lambda *_: False)
    meshes.run(2 * SETTLED_S)
    assert meshes.stated("a")
    meshes.of["a"].follow({})
    assert meshes.stated("a") == ()
