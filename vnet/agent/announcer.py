"""Announcements for guests that say nothing: of a VIF that moved here, and of the addresses that a VIF takes up here.

One rule: a frame is sent once the switch holds the flows for it, from the VIF's own port and through the pipeline.
"""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Final

from ovsctl.appctl import AppctlError
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.reconciler import Revisions
from vnet.agent.uplink_flows import UplinkFlows
from vnet.compile import AS_VIF, HostView, VifRole, announced_tags, announcements_out
from vnet.objects import Vif
from vnet.objects.identity import macs_of
from vnet.util.frames import address_announcement, gratuitous_arp, rarp

# Pauses between announcements to the physical network, within the time that the source relays (binding_controller.RELAY_S); and those
# before further ones where bonds are balanced by MAC: other hosts' have learned by then from all flows that they counted before the move.
ANNOUNCE_AGAIN_S = (0.02, 0.1, 0.4)
ANNOUNCE_LATE_S = (1.0, 2.0)
# An agent that was frozen for so long, or got no processor, first takes in what has come meanwhile: the VIF may have moved on. An
# announcement from the host that it has left would take its MAC back, till its guest speaks.
STOOD_STILL_S = 0.1
CATCH_UP_S = 0.2
# Between the addresses of VIFs that start at once: each announcement is a broadcast to all VIFs of the network.
PACE_S = 0.005


class Announcer:
    """Sends what tells the network where a VIF and its addresses are."""

    def __init__(self, view: HostView, flows: BridgeFlows, uplinks: UplinkFlows, revisions: Revisions) -> None:
        self._view: Final = view
        self._flows: Final = flows
        self._uplinks: Final = uplinks
        self._revisions: Final = revisions
        self._new: Final[dict[tuple[str, str], int]] = {}  # VIF and address: the revision that lets it send from there
        self._work: Final = asyncio.Event()

    def took_up(self, vif: Vif, addresses: tuple[str, ...]) -> None:
        """A VIF here may be reached at these addresses from this turn on. Neighbours may remember another MAC for them."""
        self._new.update({(vif.id, address): self._revisions.newest for address in addresses})
        self._work.set()

    async def run(self) -> None:
        """Announces addresses, one after the other."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._new:
                (vif_id, address), revision = next(iter(self._new.items()))
                await self._revisions.reached(revision)
                del self._new[vif_id, address]
                vif = self._view.vifs.get(vif_id)
                if vif is None or address not in vif.addresses or self._view.role(vif) is not VifRole.ACTIVE:
                    continue
                # A gratuitous ARP would have a bond that is balanced by MAC drop all frames of this MAC from its members, announcements of a
                # move as well, for the next 5 s (MAC_GRAT_ARP_LOCK_TIME, lib/mac-learning.h).
                network = self._view.network(vif.network)
                plain = network is not None and self._uplinks.balanced_by_mac(network.uplink)
                frame = address_announcement(vif.mac, address, router=vif.router, plain=plain)
                await self._flows.send_packet(frame, self._view.ports[vif_id], AS_VIF)
                await asyncio.sleep(PACE_S)

    async def moved(self, vif_id: str, *, announced: bool) -> None:
        """Announces a VIF that moved here, to the physical network some more times: the source's last frames may have taken the MAC
        back (docs/adr/0004-relay-after-the-move.md). announced: the guest has told the network so."""
        view = self._view
        vif = view.vifs.get(vif_id)
        if not announced and vif is not None and view.role(vif) is VifRole.ACTIVE:
            for mac in macs_of(vif):
                await self._flows.send_packet(rarp(mac), view.ports[vif_id], AS_VIF)
        untold = vif is not None and vif.trunk is not None  # on its tags, whatever the guest has said
        known = view.network(vif.network) if vif is not None else None
        # If here, then most likely on other hosts.
        by_mac = known is not None and self._uplinks.balanced_by_mac(known.uplink)
        for pause_s in (*([0.0] if untold else []), *ANNOUNCE_AGAIN_S, *(ANNOUNCE_LATE_S if by_mac else ())):
            await _pause(pause_s)
            vif = view.vifs.get(vif_id)
            network = view.network(vif.network) if vif else None
            if vif is None or network is None or view.role(vif) is not VifRole.ACTIVE:
                return
            if network.patch is not None and network.uplink is not None:
                learned = await self._learned(network.uplink, vif)
                for out in announcements_out(
                    network.patch, announced_tags(view, network, vif, learned), service=network.service
                ):
                    for mac, make in product(macs_of(vif), (rarp, gratuitous_arp) if by_mac else (rarp,)):
                        await self._flows.send_packet(make(mac), view.ports[vif_id], out)

    async def _learned(self, uplink: str, vif: Vif) -> set[int]:
        """The tags of a trunk for all tags on which this host has heard the VIF."""
        if vif.trunk is None or vif.trunk.tags:
            return set()
        try:
            return await self._uplinks.learned(uplink, vif.mac)
        except AppctlError:
            return set()  # the tags that are in use besides are not known


async def _pause(pause_s: float) -> None:
    """Sleep, and longer if this process stood still at the end of it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + pause_s
    await asyncio.sleep(pause_s)
    if loop.time() > end + STOOD_STILL_S:
        await asyncio.sleep(CATCH_UP_S)
