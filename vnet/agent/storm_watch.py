"""Names the VIFs that send more to everybody, to groups and to unknown addresses than their QoS classes let them.

One rule: the switch's meters are asked, and only where a VIF here has such a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from vnet.agent.flow_reconciler import BridgeFlows
from vnet.compile import Flooded, HostView, storm_meters

PERIOD_S = 2.0
WORDS = {
    Flooded.BROADCAST: "broadcast frames",
    Flooded.MULTICAST: "multicast frames",
    Flooded.UNKNOWN: "frames to addresses that no VIF has",
}


class StormWatch:
    """Watches the meters. problems: of VIFs that were above a limit in the last period. on_change: called when those changed."""

    def __init__(self, view: HostView, flows: BridgeFlows, on_change: Callable[[], None]) -> None:
        self._view: Final = view
        self._flows: Final = flows
        self._on_change: Final = on_change
        self._dropped: Final[dict[int, int]] = {}  # by meter, as last seen
        self.problems: Final[dict[str, str]] = {}

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        """Compares what the meters have dropped with what they had the last time."""
        limits = dict(self._limits())
        if not limits and not self.problems:
            return
        stats = (
            {meter.meter_id: found.bands[0].n_packets for meter, found in await self._flows.metered()} if limits else {}
        )
        before = dict(self._dropped)
        self._dropped.clear()
        self._dropped.update({meter: stats[meter] for meter in limits.keys() & stats.keys()})
        found: dict[str, str] = {}
        for meter, dropped in sorted(self._dropped.items()):
            if more := dropped - before.get(meter, dropped):
                vif, text = limits[meter]
                found[vif] = "; ".join(filter(None, (found.get(vif), f"{text}: {more} were dropped in {PERIOD_S:g} s")))
        if found != self.problems:
            self.problems.clear()
            self.problems.update(found)
            self._on_change()

    def _limits(self) -> Iterator[tuple[int, tuple[str, str]]]:
        """The meters of VIFs here, each with the VIF and the limit in words."""
        for id, ofport in self._view.ports.items() if self._view.qos_classes else ():
            vif = self._view.vifs.get(id)
            qos = self._view.qos_of(vif) if vif is not None else None
            if qos is not None:
                for flooded, meter in storm_meters(qos, ofport).items():
                    limit = f"the {meter.bands[0].rate} {WORDS[flooded]} a second of QoS class {qos.name}"
                    yield meter.meter_id, (id, f"sends more than {limit}")
