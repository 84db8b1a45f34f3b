"""Hears by LLDP (802.1AB) which switch ports this host's NICs are at, and tells the switch of the host where an uplink says so.

One rule: frames are copied to the agent and go on as the bridge would have them. Open vSwitch's own LLDP is left alone: it tells nobody what it hears, and takes the frames away from flows
(docs/adr/0051-lldp-is-the-agents.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ovsctl.openflow.messages import PacketIn
from vnet import VERSION
from vnet.agent.shell import Shell
from vnet.agent.uplink_flows import UplinkFlows
from vnet.compile import HostView
from vnet.db.health import StatedNeighbour
from vnet.health.link_neighbours import LinkNeighbours
from vnet.objects import LldpMode
from vnet.util.lldp_frames import lldp_frame, read_lldp

LOOK_S = 2.0  # between two looks at which NICs there are
SEND_S = 30.0  # between two frames by one NIC, and how long what they say holds: as 802.1AB-2016 §9.2.5 has it
TTL_S = 120


class Lldp:
    """Hears, and tells."""

    def __init__(
        self,
        view: HostView,
        uplinks: UplinkFlows,
        shell: Shell,
        neighbours: LinkNeighbours,
        clock_s: Callable[[], float],
    ) -> None:
        self._view: Final = view
        self._uplinks: Final = uplinks
        self._shell: Final = shell
        self._neighbours: Final = neighbours
        self._clock_s: Final = clock_s
        self._due_s: Final[dict[tuple[str, str], float]] = {}  # by uplink and NIC, of those that send

    @property
    def stated(self) -> tuple[StatedNeighbour, ...]:
        """The neighbours of the NICs that hear any."""
        uplinks = self._view.host.uplinks if self._view.host is not None else ()
        heard = {(it.name, nic) for it in uplinks if it.lldp is not LldpMode.OFF for nic in self._uplinks.nics(it.name)}
        return self._neighbours.stated(heard, {(uplink, nic) for uplink, nic, _ in self._uplinks.idle()})

    async def run(self) -> None:
        known = self.stated
        while True:
            await self._send()
            if self.stated != known:
                known = self.stated
                self._shell.wake()
            await asyncio.sleep(LOOK_S)

    async def _send(self) -> None:
        """Tells of the host by each NIC that is due, and by one that no longer does so that it is over."""
        uplinks = self._view.host.uplinks if self._view.host is not None else ()
        senders = {
            (uplink.name, nic)
            for uplink in uplinks
            if uplink.lldp is LldpMode.SEND
            for nic in self._uplinks.nics(uplink.name)
        }
        for uplink, nic in self._due_s.keys() - senders:
            del self._due_s[uplink, nic]
            await self._tell(uplink, nic, 0)
        for uplink, nic in sorted(senders):
            if self._due_s.get((uplink, nic), 0.0) <= self._clock_s() and await self._tell(uplink, nic, TTL_S):
                self._due_s[uplink, nic] = self._clock_s() + SEND_S

    async def _tell(self, uplink: str, nic: str, ttl_s: int) -> bool:
        host, mac = self._view.host, self._uplinks.mac(uplink, nic)
        if host is None or mac is None:
            return False
        return await self._uplinks.send(
            uplink, nic, lldp_frame(mac, host.name, nic, ttl_s, host.address, f"vnet {VERSION}")
        )

    def packet_in(self, message: PacketIn, uplink: str) -> None:
        """Takes a copy of a frame that came by an uplink."""
        nic = next((name for name, ofport in self._uplinks.nics(uplink).items() if ofport == message.in_port), None)
        unit = read_lldp(message.data)
        if nic is not None and unit is not None:
            before = self.stated
            self._neighbours.hear(uplink, nic, unit)
            if self.stated != before:
                self._shell.wake()
