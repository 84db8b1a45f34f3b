"""Watches for MACs of VIFs here that other stations of the physical network have too, and for MACs that keep moving between ports.

One rule: it reads what uplinks' bridges have learned, and no frame comes to it. At each look a table is read where VIFs run here; elsewhere only if MACs have moved since the last look.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ovsctl.appctl import AppctlError
from vnet.agent.shell import Shell
from vnet.agent.uplink_flows import UplinkFlows
from vnet.compile import HostView, VifRole
from vnet.compile.view import carried_tags
from vnet.db.health import MAX_STATED_MACS, StatedMac
from vnet.health.mac_table import flapping, learned, moves, outside
from vnet.objects.identity import macs_of

log = logging.getLogger(__name__)

PERIOD_S = 5.0
SAMPLES, SAMPLE_S = 3, 0.3
MANY_MOVES = 5  # of MACs in a period: a VIF that migrates moves twice
KEPT = 3  # looks that a finding is stated for after it was seen last: a station may send seldom


class MacWatch:
    """Looks now and then."""

    def __init__(self, view: HostView, uplinks: UplinkFlows, shell: Shell) -> None:
        self._view: Final = view
        self._uplinks: Final = uplinks
        self._shell: Final = shell
        self._moves: Final[dict[str, int]] = {}  # by uplink, as last seen
        self._seen: Final[dict[StatedMac, list[int]]] = {}  # how often in all, and looks since the last time

    @property
    def stated(self) -> tuple[StatedMac, ...]:
        """What was found of late, more than once."""
        return tuple(sorted(entry for entry, (count, _) in self._seen.items() if count > 1)[:MAX_STATED_MACS])

    async def run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await self.look()
            except AppctlError as error:
                log.debug("MACs of uplinks are not looked at: %s", error)

    async def look(self) -> None:
        """Reads what has changed. Raises AppctlError."""
        found: set[StatedMac] = set()
        before = self.stated
        host = self._view.host
        for uplink in host.uplinks if host is not None else ():
            found |= await self._of(uplink.name)
        for entry in found:
            self._seen[entry] = [self._seen.get(entry, [0, 0])[0] + 1, 0]
        for entry in [entry for entry in self._seen if entry not in found]:
            self._seen[entry][1] += 1
            if self._seen[entry][1] > KEPT:
                del self._seen[entry]
        if self.stated != before:
            self._shell.wake()

    async def _of(self, uplink: str) -> set[StatedMac]:
        own, patch = self._own(uplink), self._uplinks.patch(uplink)
        if patch is None or not self._uplinks.nics(uplink):
            return set()
        count = moves(await self._uplinks.ask("fdb/stats-show", uplink))
        before = self._moves.get(uplink)
        if count is not None:
            self._moves[uplink] = count
        table = learned(await self._uplinks.ask("fdb/show", uplink)) if own or count != before else {}
        found = {StatedMac(uplink, mac, tag, vif) for tag, mac, vif in outside(table, own, patch)}
        if count is not None and before is not None and count - before >= MANY_MOVES:
            tables = [table]
            for _ in range(SAMPLES):
                await asyncio.sleep(SAMPLE_S)
                tables.append(learned(await self._uplinks.ask("fdb/show", uplink)))
            moving = flapping(tables)
            found |= {
                StatedMac(uplink, mac, tag, vif) for each in tables for tag, mac, vif in outside(each, own, patch)
            }
            found |= {StatedMac(uplink, mac, tag) for tag, mac in sorted(moving - own.keys())}
        return found

    def _own(self, uplink: str) -> dict[tuple[int, str], str]:
        """The VIFs that run here and are not moving, by VLAN and MAC."""
        view = self._view
        found: dict[tuple[int, str], str] = {}
        for network in view.networks.values() if view.pool is not None else ():
            if network.uplink != uplink:
                continue
            for vif in view.local(network.name):
                place = view.location(network.name, vif.id)
                if view.role(vif) is VifRole.ACTIVE and place.incoming is None and not place.superseded:
                    found |= {(tag, mac): vif.id for tag in carried_tags(network, vif) for mac in macs_of(vif)}
        return found
