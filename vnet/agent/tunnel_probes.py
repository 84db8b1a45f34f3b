"""Sends hellos through this host's tunnels, and hears those of its peers.

One rule: a hello is taken for a peer's only if it came from that peer's address, by a tunnel that this host uses to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ovsctl.openflow import ReservedPort
from ovsctl.openflow.messages import PacketIn
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.compile import HELLO_KEY, HostView, LocalNetwork
from vnet.compile.l2 import to_host
from vnet.health.tunnel_mesh import HEADER_BYTES, MeshPath, TunnelMesh
from vnet.objects import Way
from vnet.objects.encryption import in_first_plane
from vnet.util.hello_frames import hello_frame, pool_mark, read_hello

log = logging.getLogger(__name__)

FOLLOW_S = 2.0  # between two looks at which peers there are
ENCRYPTED = " encrypted"


class TunnelProbes:
    """on_change: called when what is stated of the tunnels has changed."""

    def __init__(self, view: HostView, flows: BridgeFlows, mesh: TunnelMesh, on_change: Callable[[], None]) -> None:
        self.mesh: Final = mesh
        self._view: Final = view
        self._flows: Final = flows
        self._on_change: Final = on_change
        self._carriers: Final[dict[MeshPath, LocalNetwork]] = {}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        followed_s, known = -FOLLOW_S, self.mesh.health(measured=False)
        while True:
            if loop.time() - followed_s >= FOLLOW_S:
                followed_s = loop.time()
                self._follow()
                if (stated := self.mesh.health(measured=False)) != known:
                    known = stated
                    self._on_change()
            await self._send()
            await asyncio.sleep(min(max(self.mesh.next_s() - loop.time(), 0.01), FOLLOW_S))

    def _follow(self) -> None:
        """Finds out which peers this host shares tunnel networks with."""
        view = self._view
        needs: dict[MeshPath, int] = {}
        self._carriers.clear()
        for name, row in view.networks.items():
            network = view.network(name)
            if (
                network is None
                or network.way is not Way.TUNNEL
                or network.tunnel is None
                or row.carrier.encapsulation is None
            ):
                continue
            via = row.carrier.encapsulation.name + (ENCRYPTED if network.encrypted else "")
            for peer in view.members(name):
                path = MeshPath(peer, via)
                if peer != view.me and to_host(view, network, peer):
                    needs[path] = max(needs.get(path, 0), row.mtu + HEADER_BYTES)
                    self._carriers.setdefault(path, replace(network, key=HELLO_KEY))
        self.mesh.follow(needs)

    async def _send(self) -> None:
        pool = self._view.pool
        if pool is None or not self._flows.connected:
            return
        for path, hello, size in list(self.mesh.due(pool_mark(pool.id))):
            actions = to_host(self._view, self._carriers[path], path.peer) if path in self._carriers else ()
            if actions:
                await self._flows.send_packet(hello_frame(hello, size), ReservedPort.CONTROLLER, actions)

    def packet_in(self, message: PacketIn) -> None:
        """Takes a frame from a tunnel port."""
        hello, pool = read_hello(message.data), self._view.pool
        if hello is None or pool is None or hello.pool != pool_mark(pool.id):
            return
        for path, network in self._carriers.items():
            if path.peer != hello.host or network.tunnel != message.in_port:
                continue
            if came_from(self._view, message, path.peer, encrypted=network.encrypted):
                self.mesh.hear(path, hello, message.full_length)
                return


def came_from(view: HostView, message: PacketIn, peer: str, *, encrypted: bool) -> bool:
    """Whether a frame came through a tunnel from where a peer sends."""
    v4, v6 = message.match.get("tun_src"), message.match.get("tun_ipv6_src")
    source = (
        str(IPv6Address(v6.value))
        if v6 is not None and v6.value
        else str(IPv4Address(v4.value))
        if v4 is not None
        else ""
    )
    if not encrypted:
        return source == view.vtep(peer)
    pool, inner = view.pool, view.inner(peer)
    return (
        pool is not None
        and inner is not None
        and ":" in source
        and (in_first_plane(pool.id, source) == in_first_plane(pool.id, inner))
    )
