"""Limits the connections of each VIF in security groups, so that one that floods leaves the others their share of the tracker.

One rule: the datapath is asked which limits it has. It forgets them when ovs-vswitchd restarts.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Final

from ovsctl.appctl import AppctlError
from vnet.agent.switch_access import SwitchAccess
from vnet.compile import HostView
from vnet.compile.ovs import Switch

log = logging.getLogger(__name__)

# The userspace datapath's tracker takes 3,000,000 connections, a kernel's usually 262,144 (nf_conntrack_max).
MAX_CONNECTIONS = 32768
PERIOD_S = 2.0
TIMEOUT_S = 5.0
_LIMIT = re.compile(r"zone=(\d+),limit=(\d+),count=(\d+)")  # a line of dpctl/ct-get-limits, ovs-vswitchd(8)
_ZONE = re.compile(r"\bzone=(\d+)")  # in a line of dpctl/dump-conntrack
FULL = "has {} connections, the most that it may have: answers to further ones do not pass"


class ConnectionLimits:
    """Keeps the limits of the zones in use. problems: of VIFs that are at their limit. on_change: called when those changed."""

    def __init__(self, view: HostView, access: SwitchAccess, switch: Switch, on_change: Callable[[], None]) -> None:
        self._view: Final = view
        self._access: Final = access
        # The name that ovs-vswitchd gives a datapath type's only datapath (dpif.c).
        self._datapath: Final = "{0}@ovs-{0}".format(switch.datapath_type or "system")
        self._on_change: Final = on_change
        self._limited: Final[set[int]] = set()  # zones with a limit of ours
        self.problems: Final[dict[str, str]] = {}

    async def run(self) -> None:
        """Looks after the limits until cancelled. Logs why it cannot, once."""
        reason = ""
        while True:
            try:
                await self._round()
                reason = ""
            except AppctlError as error:
                if error.reason != reason:
                    log.warning("limits of connections are not kept: %s", error.reason)
                reason = error.reason
            await asyncio.sleep(PERIOD_S)

    async def zones_in_use(self) -> set[int]:
        """The zones that hold connections, whosever. ovs-vswitchd does nothing else meanwhile. Raises AppctlError."""
        text = await self._access.control(TIMEOUT_S).call("dpctl/dump-conntrack", self._datapath)
        return {int(zone) for zone in _ZONE.findall(text)}

    async def _round(self) -> None:
        if not (self._view.groups or self._limited):
            return
        vifs = {
            ofport: id
            for id, ofport in self._view.ports.items()
            if (vif := self._view.vifs.get(id)) is not None and self._view.obeyed(vif)
        }
        if not vifs and not self._limited:
            return
        switch = self._access.control(TIMEOUT_S)
        text = await switch.call("dpctl/ct-get-limits", self._datapath)
        found = {int(zone): (int(limit), int(count)) for zone, limit, count in _LIMIT.findall(text)}
        lacking = [zone for zone in sorted(vifs) if zone not in found or found[zone][0] != MAX_CONNECTIONS]
        if lacking:
            limits = (f"zone={zone},limit={MAX_CONNECTIONS}" for zone in lacking)
            await switch.call("dpctl/ct-set-limits", self._datapath, *limits)
        if unused := sorted(self._limited & found.keys() - vifs.keys()):
            await switch.call("dpctl/ct-del-limits", self._datapath, "zone=" + ",".join(map(str, unused)))
        self._limited.clear()
        self._limited.update(vifs)
        full = {id for zone, id in vifs.items() if zone in found and found[zone][1] >= MAX_CONNECTIONS}
        if full != self.problems.keys():
            self.problems.clear()
            self.problems.update(dict.fromkeys(sorted(full), FULL.format(MAX_CONNECTIONS)))
            self._on_change()
