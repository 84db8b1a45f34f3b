"""Who is the master of virtual routers (RFC 9568), by the advertisements that VIFs here send.

One rule: nobody is asked and nothing is sent: the flows of the source guard that limit advertisements count them. Of an unlocked VIF there are none.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from ovsctl.openflow.errors import OpenFlowError
from ovsctl.openflow.flow import FULL_COOKIE
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.compile import Category, HostView, Table, cookie
from vnet.compile.flows import VRRP

log = logging.getLogger(__name__)

PERIOD_S = 2.0
HEARD_FOR = 5  # looks without an advertisement after which a VIF is the master no more; a master sends one a second (RFC 9568 §5.2.7)


class VrrpMasters:
    """Reads the counters. masters: by VIF here, the numbers of the virtual routers that it is the master of, with spaces between. on_change: called when those changed."""

    def __init__(self, view: HostView, flows: BridgeFlows, on_change: Callable[[], None]) -> None:
        self._view: Final = view
        self._flows: Final = flows
        self._on_change: Final = on_change
        self._heard: Final[dict[tuple[str, int], tuple[int, int]]] = {}  # advertisements, and looks since the last one
        self.masters: Final[dict[str, str]] = {}

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except OpenFlowError as error:
                log.debug("advertisements of virtual routers are not counted: %s", error)
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        """Compares how many advertisements VIFs have sent with how many they had. Raises OpenFlowError."""
        view = self._view
        vifs = [id for id in view.ports if (vif := view.vifs.get(id)) is not None and vif.vrrp]
        if not vifs and not self.masters:
            return
        before = dict(self._heard)
        now: dict[tuple[str, int], tuple[int, int]] = {}
        for id in vifs:
            for router, count in (await self._claims(id)).items():
                had, looks = before.get((id, router), (count, HEARD_FOR))
                now[id, router] = count, 0 if count not in (0, had) else min(looks + 1, HEARD_FOR)
        self._heard.clear()
        self._heard.update(now)
        current = sorted(key for key, (_, looks) in now.items() if looks < HEARD_FOR)
        found = {vif: " ".join(str(router) for of, router in current if of == vif) for vif, _ in current}
        if found != self.masters:
            self.masters.clear()
            self.masters.update(found)
            self._on_change()

    async def _claims(self, vif: str) -> Counter[int]:
        """The advertisements that a VIF has sent, by the virtual router: the last byte of the virtual MAC (RFC 9568 §7.3)."""
        found: Counter[int] = Counter()
        for flow, packets, _ in await self._flows.counted(cookie(Category.VIF, vif), FULL_COOKIE):
            protocol, source = flow.match.get("nw_proto"), flow.match.get("eth_src")
            if flow.table == Table.GUARD and protocol is not None and protocol.value == VRRP and source is not None:
                found[source.value & 0xFF] += packets
        return found
