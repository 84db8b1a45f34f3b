"""Looks at the VLANs of this host's uplinks when a controller asks all hosts to.

One rule: uplinks' bridges have flows for hellos only while hosts look. All are asked at once, so each sends and listens in the same seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from ovsctl.openflow.messages import PacketIn
from vnet.agent.shell import Shell
from vnet.agent.uplink_flows import UplinkFlows
from vnet.compile import HostView
from vnet.db.health import StatedUplink
from vnet.health.vlan_check import ROUNDS, VlanCheck
from vnet.util.frames import vlan_of
from vnet.util.hello_frames import pool_mark, read_hello

FLOWS_S = 2.0  # for the flows that listen
ROUND_S = 0.8
LAST_S = 1.0  # for frames of hosts that began later
MOST_COMING = 1000  # frames a second, of all other hosts together
TAG_BYTES = 4


class VlanProbes:
    """stated: what came of each uplink when hosts last looked."""

    def __init__(self, view: HostView, uplinks: UplinkFlows, agent: Shell) -> None:
        self.stated: tuple[StatedUplink, ...] = ()
        self._view: Final = view
        self._uplinks: Final = uplinks
        self._agent: Final = agent
        self._check: VlanCheck | None = None

    async def look(self, vlans: Mapping[str, Mapping[int, int]]) -> None:
        """Sends on these VLANs, by uplink and tag with the MTU, and listens for as long as others do."""
        view, host = self._view, self._view.host
        mine = {name: mtus for name, mtus in vlans.items() if host is not None and host.uplink(name) is not None}
        if view.pool is None or not mine:
            return
        links = {name: tuple(sorted(self._uplinks.nics(name))) for name in mine}
        self._check = check = VlanCheck(view.me, mine, links)
        self._uplinks.listen(mine)
        try:
            try:
                async with asyncio.timeout(FLOWS_S):
                    await self._agent.programmed()
            except TimeoutError:
                pass  # another bridge is away: what is not programmed hears nothing
            frames = list(check.frames(pool_mark(view.pool.id)))
            round_s = max(ROUND_S, len(frames) * max(1, len(view.hosts) - 1) / MOST_COMING)
            loop = asyncio.get_running_loop()
            for _ in range(ROUNDS):
                began_s = loop.time()
                for number, (uplink, link, frame) in enumerate(frames):
                    await self._uplinks.send(uplink, link, frame)
                    await asyncio.sleep(max(0.0, began_s + round_s * number / len(frames) - loop.time()))
                await asyncio.sleep(max(0.0, began_s + round_s - loop.time()))
            await asyncio.sleep(LAST_S)
        finally:
            self._check = None
            self._uplinks.listen(())
            self._agent.wake()
        if (found := check.stated()) != self.stated:
            self.stated = found
            self._agent.wake()

    def packet_in(self, message: PacketIn, uplink: str) -> None:
        """Takes a frame that came by an uplink."""
        hello, pool = read_hello(message.data), self._view.pool
        if self._check is None or hello is None or pool is None or hello.pool != pool_mark(pool.id):
            return
        if hello.host in self._view.hosts:
            tag = vlan_of(message.data)
            self._check.hear(uplink, hello, tag, message.full_length - (TAG_BYTES if tag else 0))
