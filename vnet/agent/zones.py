"""Whose connections each zone of the connection tracker holds: known over restarts of the agent, of ovs-vswitchd and of both.

One rule: a zone that may hold another VIF's connections is emptied before its use, and no other. Emptying one walks through the
connections of all zones, and ovs-vswitchd does nothing else meanwhile: 3 s with 100,000 connections on a slow machine.

The local Open vSwitch database remembers, in external_ids of its one row, of which VIF's connections a zone may hold, and which blocks
of zones were ever used since the machine booted. Before a zone is used its block is written, and that it is another VIF's is forgotten;
its VIF is written when the switch has emptied it and taken the flows. So at any instant the record claims too little, never too much,
and a zone that it does not know is emptied.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ovsctl.appctl import AppctlError
from ovsctl.ovsdb import Mutate, Operation, OvsdbClient, OvsdbError, Select

log = logging.getLogger(__name__)

NOBODY = 0  # no VIF's cookie
BLOCKS, OWNER = "vnet-zones", "vnet-zone-"  # in external_ids of the row of table Open_vSwitch
BLOCK = 16  # zones: the first use of one in so many waits for the database
DELAY_S = 0.2  # of what may be written later
TIMEOUT_S = 1.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

ELSEWHERE = "elsewhere"  # the boot of a machine that is not this one
ALL_ZONES = range(0, 1 << 16, BLOCK)  # one of each block

Kept = tuple[int, int]  # the cookie of a VIF, and the number of its network


def _blocks(zones: Iterable[int]) -> int:
    found = 0
    for zone in zones:
        found |= 1 << zone // BLOCK
    return found


def _kept(text: str) -> Kept:
    owner, network = text.split(" ")
    return int(owner, 16), int(network)


@dataclass(frozen=True, slots=True)
class UsedBlocks:
    """unknown: blocks of which a zone may hold anybody's connections; None: any may. kept: blocks that were ever used, as the database has it."""

    unknown: int | None = None
    kept: int = 0


class TrackerZones:
    """The zones of one switch. ovs: where they are remembered, None for nowhere. used: asks the switch which zones hold connections; it
    raises AppctlError. networks: the number of the network of each zone's VIF: on another one it inherits nothing from itself. boot: names the boot of
    the switch's machine, None for this machine's; a machine that boots has empty zones, so a record of an earlier boot claims nothing that is wrong."""

    def __init__(
        self,
        ovs: OvsdbClient | None = None,
        used: Callable[[], Awaitable[Collection[int]]] | None = None,
        networks: Callable[[], Mapping[int, int]] = dict,
        boot: str | None = None,
    ) -> None:
        self._ovs: Final = ovs
        self._networks: Final = networks
        self._used: Final = used
        self._boot: Final = boot or _BOOT_ID.read_text().strip()
        self._owners: Final[dict[int, int]] = {}  # of what this agent has seen: zone to cookie of its VIF
        self._confirmed: Final[dict[int, int]] = {}  # of these: the switch has the flows
        self._blocks = UsedBlocks()
        self._kept: Final[dict[int, Kept]] = {}  # as the database has it
        self._work: Final = asyncio.Event()
        self._writing: Final = asyncio.Lock()

    # What the switch is told

    def to_empty(self, owners: Mapping[int, int]) -> list[int]:
        """The zones to empty before these VIFs use them."""
        networks = self._networks() if self._kept else {}
        return sorted(zone for zone, owner in owners.items() if not self._inherits(zone, owner, networks.get(zone, 0)))

    def _inherits(self, zone: int, owner: int, network: int) -> bool:
        """Whether what a zone holds is nothing, or its user's own."""
        if zone in self._owners:
            return self._owners[zone] == owner
        if zone in self._kept:
            return self._kept[zone] == (owner, network)
        unknown = self._blocks.unknown
        return unknown is not None and not unknown >> zone // BLOCK & 1

    async def take(self, owners: Mapping[int, int]) -> None:
        """VIFs use zones from now on. Returns once no record says otherwise, whatever ends after it."""
        if not owners:
            return
        self._owners.update(owners)  # before any wait: a VIF may leave its zone meanwhile
        async with self._writing:
            forgotten = self._outdated(owners)
            unknown, kept = self._blocks.unknown, self._blocks.kept
            used = 0 if unknown is None else unknown | _blocks(owners)
            if forgotten or used & ~kept:
                await self._write(forgotten, {}, used)

    def _outdated(self, owners: Mapping[int, int]) -> list[int]:
        """The zones that are remembered as another's than their owner's."""
        networks = self._networks() if self._kept else {}
        return [
            zone
            for zone, owner in owners.items()
            if zone in self._kept and self._kept[zone] != (owner, networks.get(zone, 0))
        ]

    def hold(self, owners: Mapping[int, int]) -> None:
        """The switch has emptied what was to be emptied, and has the flows."""
        self._confirmed.update((zone, owner) for zone, owner in owners.items() if self._owners.get(zone) == owner)
        if owners:
            self._work.set()

    def leave(self, zones: Iterable[int]) -> None:
        """Zones have no VIF any more, or it is not known what the switch has done."""
        for zone in zones:
            self._owners[zone] = NOBODY
            self._confirmed.pop(zone, None)
            self._work.set()

    def found(self, owners: Mapping[int, int]) -> None:
        """The switch has flows of these VIFs. An agent that has just started knows no owners yet."""
        self._owners.update({**owners, **self._owners})
        self._doubt(_blocks(owners))

    def _doubt(self, blocks: int) -> None:
        """Zones of these blocks may hold anybody's connections."""
        if self._blocks.unknown is not None:
            self._blocks = replace(self._blocks, unknown=self._blocks.unknown | blocks)

    # What is remembered

    async def load(self) -> None:
        """Reads what is remembered since the machine booted; where nothing is, asks the switch, which must answer OpenFlow by now. What
        cannot be known is tried again at the next call."""
        if self._ovs is None or self._blocks.unknown is not None:
            return
        try:
            (rows,) = await self._ovs.transact(Select("Open_vSwitch", (), ("external_ids",)))
            ids: Mapping[str, str] = rows[0]["external_ids"] if rows else {}
            if self._understood(ids):
                return
            await self._ovs.transact(*_external_ids("delete", frozenset(key for key in ids if key.startswith(OWNER))))
            if self._used is not None:
                self._blocks = UsedBlocks(_blocks(await self._used()))
        except (OvsdbError, AppctlError) as error:
            log.warning(
                "it is not known which zones hold connections, so each is emptied before its first use: %s", error
            )

    def _understood(self, ids: Mapping[str, str]) -> bool:
        """Whether a record is there, of this boot of the machine, and well-formed: then it is taken up."""
        boot, _, blocks = ids.get(BLOCKS, "").partition(" ")
        if boot != self._boot:
            return False
        try:
            kept = {int(key.removeprefix(OWNER)): _kept(text) for key, text in ids.items() if key.startswith(OWNER)}
            used = int(blocks, 16)
        except ValueError:
            return False
        self._blocks = UsedBlocks(used, used)
        self._kept.update(kept)
        return True

    async def run(self) -> None:
        """Remembers owners, soon after the switch has their flows, until cancelled."""
        while True:
            await self._work.wait()
            await asyncio.sleep(DELAY_S)
            self._work.clear()
            async with self._writing:
                forgotten, networks = self._outdated(self._owners), self._networks()
                now = {zone: (owner, networks.get(zone, 0)) for zone, owner in self._confirmed.items()}
                new = {zone: value for zone, value in now.items() if self._kept.get(zone) != value}
                if (forgotten or new) and not await self._write(forgotten, new):
                    self._work.set()

    async def _write(self, forgotten: list[int], new: Mapping[int, Kept], used: int = 0) -> bool:
        """Writes zones that are forgotten, zones with their VIFs, and blocks that are used. False if the database did not take it: then flows go
        all the same, and only an end of agent and switch before it answers may leave a VIF another's connections."""
        if self._ovs is None:
            return True
        keys = [f"{OWNER}{zone}" for zone in forgotten]
        ids = {f"{OWNER}{zone}": f"{owner:x} {network}" for zone, (owner, network) in new.items()}
        blocks = used | self._blocks.kept
        if self._blocks.unknown is not None:
            ids[BLOCKS] = f"{self._boot} {blocks:x}"
        delete, insert = _external_ids("delete", frozenset([*keys, *ids])), _external_ids("insert", ids)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._ovs.transact(*delete, *insert)
        except (OvsdbError, TimeoutError) as error:
            log.debug("zones are not remembered: %s", error)
            self._doubt(used)  # to be written the next time
            self._kept.update(dict.fromkeys(new, (NOBODY, 0)))  # the database may have them, or not
            return False
        if self._blocks.unknown is not None:
            self._blocks = replace(self._blocks, kept=blocks)
        for zone in forgotten:
            self._kept.pop(zone, None)
        self._kept.update(new)
        return True


def _external_ids(mutator: str, value: frozenset[str] | Mapping[str, str]) -> list[Operation]:
    return [Mutate("Open_vSwitch", (), (("external_ids", mutator, value),))] if value else []
