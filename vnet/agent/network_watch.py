"""What this host finds out about the network to the others: by hellos through tunnels and on VLANs, by what stations claim, and by what its bridges have learned.

One rule: what it states is what it has heard itself. Who is at fault follows from what all hosts state (vnet/health/findings.py).
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ovsctl.openflow.messages import PacketIn
from vnet.agent.address_watch import AddressWatch
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.lldp import Lldp
from vnet.agent.mac_watch import MacWatch
from vnet.agent.reconciler import Revisions
from vnet.agent.shell import Shell
from vnet.agent.tunnel_probes import TunnelProbes
from vnet.agent.uplink_flows import UplinkFlows
from vnet.agent.vlan_probes import VlanProbes
from vnet.compile import CLAIM_BY, HELLO, HELLO_BY, LLDP_BY, HostView
from vnet.db.health import HealthQuery, HostHealth, gateways_of, vlans_of
from vnet.health.address_claims import AddressClaims
from vnet.health.link_neighbours import LinkNeighbours
from vnet.health.tunnel_mesh import TunnelMesh


class NetworkWatch:
    """hello_s: the interval of hellos to each peer."""

    def __init__(
        self,
        view: HostView,
        flows: BridgeFlows,
        uplinks: UplinkFlows,
        revisions: Revisions,
        shell: Shell,
        hello_s: float,
    ) -> None:
        self.mesh: Final = TunnelMesh(view.me, hello_s, time.monotonic, lambda: time.time_ns() // 1000)
        self._uplinks: Final = uplinks
        self._tunnels: Final = TunnelProbes(view, flows, self.mesh, shell.wake)
        self._vlans: Final = VlanProbes(view, uplinks, shell)
        self._macs: Final = MacWatch(view, uplinks, shell)
        self._addresses: Final = AddressWatch(view, uplinks, revisions, shell, AddressClaims(time.monotonic))
        self._lldp: Final = Lldp(view, uplinks, shell, LinkNeighbours(time.monotonic), time.monotonic)

    async def run(self) -> None:
        """Sends and looks for ever."""
        async with asyncio.TaskGroup() as tasks:
            for job in (self._tunnels.run(), self._macs.run(), self._addresses.run(), self._lldp.run()):
                tasks.create_task(job)

    def packet_in(self, message: PacketIn) -> bool:
        """Takes a hello, or a copy of a frame that came by an uplink; whether it was one."""
        if message.userdata == HELLO:
            self._tunnels.packet_in(message)
            return True
        for mark, part in ((HELLO_BY, self._vlans), (LLDP_BY, self._lldp), (CLAIM_BY, self._addresses)):
            if message.userdata.startswith(mark):
                part.packet_in(message, message.userdata.removeprefix(mark).decode())
                return True
        return False

    async def look(self, query: HealthQuery) -> HostHealth:
        """Looks anew, with all other hosts."""
        self._addresses.ask(gateways_of(query))
        await self._vlans.look(vlans_of(query))
        return self.stated(measured=True)

    def stated(self, *, measured: bool) -> HostHealth:
        """What this host has found out. measured: with figures; else only what is a finding."""
        return HostHealth(
            True,
            self.mesh.health(measured=measured),
            self._vlans.stated,
            self._macs.stated,
            self._addresses.stated,
            self._lldp.stated,
            self._uplinks.idle(),
        )
