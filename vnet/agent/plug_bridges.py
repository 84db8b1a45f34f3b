"""Ports that toolstacks plug into the bridges of networks: they are moved to br-int, each in one transaction.

One rule: a port is moved only from a bridge of ours, and only if it names a VIF. Such a bridge has no flow, so no frame passes before.

A number of a port is one of its bridge. The database has the old bridge's for a while after a move, which may be another VIF's on br-int; so until
ovs-vswitchd is done with the move, a moved port has only the number that the switch says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Set
from typing import Final

from ovsctl import vswitch
from ovsctl.ovsdb import Change, OvsdbClient, OvsdbError, Select
from ovsctl.vswitch.snapshot import Tables
from vnet.agent.local_ports import vif_of

log = logging.getLogger(__name__)

RETRY_S = 0.5
OWNER = vswitch.OwnerMark()


def moves(tables: Tables, integration: str, bridges: Set[str]) -> Iterator[vswitch.MoveRow]:
    """The VIFs' ports on these bridges, as far as the bridges are ours, as moves to the integration bridge."""
    found = {row["name"]: (uuid, row) for uuid, row in tables["Bridge"].items()}
    ports, interfaces = tables["Port"], tables["Interface"]
    for name in sorted(bridges & found.keys() if integration in found else ()):
        uuid, row = found[name]
        for port in row["ports"] if OWNER.owns(row) else ():
            of_port = ports[port]["interfaces"] if port in ports else ()
            if any(i in interfaces and vif_of(interfaces[i]["external_ids"]) is not None for i in of_port):
                yield vswitch.MoveRow(
                    _ref("Port", ports[port]["name"], port), _ref("Bridge", name, uuid),
                    _ref("Bridge", integration, found[integration][0]), "ports",
                )  # fmt: skip


def _ref(table: str, name: str, uuid: str) -> vswitch.Ref:
    return vswitch.Ref(vswitch.RowId(table, (name,)), uuid)


class PlugBridges:
    """Moves ports from the host's plug bridges. bridges: their names, as they are to be now; on_move: called once moved ports have their numbers.

    unnumbered: the moved ports whose numbers in the database are not known to be br-int's.
    """

    def __init__(
        self,
        client: OvsdbClient,
        tables: Callable[[], Tables],
        integration: str,
        bridges: Callable[[], Set[str]],
        on_move: Callable[[], None],
    ) -> None:
        self.unnumbered: Final[set[str]] = set()
        self._client: Final = client
        self._tables: Final = tables
        self._integration: Final = integration
        self._bridges: Final = bridges
        self._on_move: Final = on_move
        self._look: Final = asyncio.Event()

    def changed(self, batch: tuple[Change, ...]) -> None:
        """Rows changed in the switch's database: looks at the bridges if any port may have come."""
        if self._bridges() and any(change.table in ("Bridge", "Port", "Interface") for change in batch):
            self._look.set()

    async def run(self) -> None:
        """Moves ports until cancelled."""
        self._look.set()
        while True:
            await self._look.wait()
            self._look.clear()
            try:
                await self._move()
            except (OvsdbError, OSError) as error:
                log.warning("ports of plug bridges: %s", error)
                await asyncio.sleep(RETRY_S)
                self._look.set()
            if self.unnumbered:
                self.unnumbered.clear()
                self._on_move()

    async def _move(self) -> None:
        found = tuple(moves(self._tables(), self._integration, self._bridges()))
        if not found:
            return
        self.unnumbered.update(str(move.row.id.key[0]) for move in found)
        try:
            applied = await vswitch.apply(self._client, found)
            done = applied.next_cfg if applied is not None else 0
        except vswitch.NotConfigured as error:
            done = error.next_cfg
        # The server may answer before it tells of the numbers; what it answers next comes after.
        while True:
            ((root,),) = await self._client.transact(Select("Open_vSwitch", (), ("cur_cfg",)))
            if root["cur_cfg"] >= done:
                return
            await asyncio.sleep(RETRY_S)
