"""Who is at the other end of a host's cables, by LLDP. Pure, but for the clock that it is given.

One rule: a neighbour is one for as long as it said, and behind a NIC without a link for as long as that has none: which port the cable was in is then what people want to know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from vnet.db.health import StatedNeighbour
from vnet.util.lldp_frames import LldpUnit

MAX_NEIGHBOURS: Final = 4  # of a NIC: a switch that knows no LLDP forwards what others say


class LinkNeighbours:
    """clock_s: seconds that only grow."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s: Final = clock_s
        self._known: Final[
            dict[tuple[str, str], dict[tuple[str, str], tuple[float, LldpUnit]]]
        ] = {}  # by uplink and NIC

    def hear(self, uplink: str, nic: str, unit: LldpUnit) -> None:
        """A unit came by a NIC."""
        now_s, key = self._clock_s(), (unit.chassis, unit.port)
        old = self._known.get((uplink, nic), {})
        found = {it: (until_s, known) for it, (until_s, known) in old.items() if until_s > now_s and it != key}
        if unit.ttl_s and len(found) < MAX_NEIGHBOURS:
            found[key] = now_s + unit.ttl_s, unit
        self._known[uplink, nic] = found

    def stated(
        self, nics: Collection[tuple[str, str]], idle: Collection[tuple[str, str]]
    ) -> tuple[StatedNeighbour, ...]:
        """The neighbours of these NICs, each with its uplink. idle: those without a link."""
        now_s = self._clock_s()
        for gone in self._known.keys() - set(nics):
            del self._known[gone]
        return tuple(
            StatedNeighbour(
                *at, unit.chassis, unit.port, unit.ttl_s, unit.port_description, unit.system, unit.address, unit.vlan
            )
            for at, found in sorted(self._known.items())
            for _, (until_s, unit) in sorted(found.items())
            if until_s > now_s or at in idle
        )
