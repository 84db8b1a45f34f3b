"""Ports that toolstacks plug into the bridges of networks: they are moved to br-int, each in one transaction.

One rule: a port is moved only if it names a VIF, and only from a bridge of ours, or from one that is taken over if the VIF is on that network and wanted here. No frame
passes a bridge of ours; one that is taken over goes on to forward. What was taken from there says so, and is put back, under the number that it had, once the bridge is
taken over no more: the toolstack's own flows for it are of that number.

A number of a port is one of its bridge. The database has the old bridge's for a while after a move, which may be another VIF's on br-int; so until
ovs-vswitchd is done with the move, a moved port has only the number that the switch says.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

from ovsctl import vswitch
from ovsctl.ovsdb import Change, OvsdbClient, OvsdbError, Select
from ovsctl.vswitch.snapshot import AnyRow, Tables
from vnet.agent.local_ports import vif_of
from vnet.objects import Vif

log = logging.getLogger(__name__)

RETRY_S = 0.5
OWNER = vswitch.OwnerMark()
TAKEN = "vnet-taken"  # external_ids of a port that was taken from a toolstack's own bridge: its name, and the port's number there
_TAKEN = re.compile(r"(\S{1,15}) ([0-9]{1,5})")


def moves(tables: Tables, integration: str, bridges: Set[str]) -> Iterator[vswitch.MoveRow]:
    """The VIFs' ports on these bridges, as far as the bridges are ours, as moves to the integration bridge."""
    found = {row["name"]: (uuid, row) for uuid, row in tables["Bridge"].items()}
    for name in sorted(bridges & found.keys() if integration in found else ()):
        uuid, row = found[name]
        for port in row["ports"] if OWNER.owns(row) else ():
            if any(vif_of(interface["external_ids"]) for _, interface in _interfaces(tables, port)):
                yield vswitch.MoveRow(
                    _ref("Port", tables["Port"][port]["name"], port), _ref("Bridge", name, uuid),
                    _ref("Bridge", integration, found[integration][0]), "ports",
                )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Segment:
    """A toolstack's own bridge: the switch's bridge that it is, or a part of one, whose ports have a tag (ovs-vsctl(8), `add-br BRIDGE PARENT VLAN`)."""

    uuid: str
    bridge: str
    ports: frozenset[str]
    tag: int | None

    @classmethod
    def of(cls, tables: Tables, name: str) -> Segment | None:
        """The bridge of that name; None where there is none, or where it is one of ours."""
        for uuid, row in tables["Bridge"].items():
            if row["name"] == name:
                return None if OWNER.owns(row) else cls(uuid, name, row["ports"], None)
            for port in row["ports"]:
                found = tables["Port"].get(port)
                if found is not None and found["name"] == name and found["tag"] is not None:
                    return cls(uuid, row["name"], row["ports"], found["tag"])
        return None


Wanted = Callable[[str, str], tuple[Vif, int | None] | None]


def taken(tables: Tables, integration: str, bridges: Mapping[str, str], wanted: Wanted) -> Iterator[vswitch.Change]:
    """What takes VIFs' ports from the toolstacks' bridges, which are given with their networks.

    wanted: a VIF, by its id and network, that is to be here, with the number that is reserved for its port.
    """
    into = next((uuid for uuid, row in tables["Bridge"].items() if row["name"] == integration), None)
    for name, network in sorted(bridges.items()):
        segment = Segment.of(tables, name)
        if segment is None or into is None or segment.bridge == integration:
            continue
        for port in sorted(segment.ports & tables["Port"].keys(), key=lambda port: str(tables["Port"][port]["name"])):
            interfaces = _interfaces(tables, port)
            if tables["Port"][port]["tag"] != segment.tag or len(interfaces) != 1:
                continue
            vif = vif_of(interfaces[0][1]["external_ids"])
            found = wanted(vif, network) if vif is not None else None
            if found is not None:
                mark = f"{name} {interfaces[0][1]['ofport'] or 0}"
                yield from _moved(tables, port, segment.uuid, into, None, found[1], set_ids=((TAKEN, mark),))


def given_back(
    tables: Tables, integration: str, bridges: Iterable[str]
) -> Iterator[tuple[str, str, tuple[vswitch.Change, ...]]]:
    """The ports that were taken from bridges which are none of these any more: name, bridge, and what puts each back. One whose bridge is gone stays."""
    kept = frozenset(bridges)
    for uuid, row in tables["Bridge"].items():
        for port in sorted(row["ports"] & tables["Port"].keys()) if row["name"] == integration else ():
            mark = _TAKEN.fullmatch(tables["Port"][port]["external_ids"].get(TAKEN, ""))
            segment = Segment.of(tables, mark[1]) if mark is not None and mark[1] not in kept else None
            if mark is not None and segment is not None and segment.bridge != integration:
                steps = _moved(tables, port, uuid, segment.uuid, segment.tag, int(mark[2]) or None, delete_ids=(TAKEN,))
                yield str(tables["Port"][port]["name"]), segment.bridge, tuple(steps)


def _moved(
    tables: Tables, port: str, out_of: str, into: str, tag: int | None, ofport: int | None, **ids: Any
) -> Iterator[vswitch.Change]:
    """What moves a port, which gets this tag, and asks for this number."""
    row = tables["Port"][port]
    ref, (uuid, interface) = _ref("Port", row["name"], port), _interfaces(tables, port)[0]
    change = (vswitch.ColumnChange("tag", row["tag"], tag),) if row["tag"] != tag else ()
    old, new = (_ref("Bridge", tables["Bridge"][bridge]["name"], bridge) for bridge in (out_of, into))
    yield vswitch.MoveRow(ref, old, new, "ports")
    yield vswitch.UpdateRow(ref, change, **ids)
    asked = (vswitch.ColumnChange("ofport_request", None, ofport),)
    yield vswitch.UpdateRow(_ref("Interface", interface["name"], uuid), asked)


def _interfaces(tables: Tables, port: str) -> list[tuple[str, AnyRow]]:
    rows, found = tables["Interface"], tables["Port"].get(port)
    return [(uuid, rows[uuid]) for uuid in found["interfaces"] if uuid in rows] if found is not None else []


def _ref(table: str, name: str, uuid: str) -> vswitch.Ref:
    return vswitch.Ref(vswitch.RowId(table, (name,)), uuid)


class PlugBridges:
    """Moves ports from the host's plug bridges. bridges: their names, as they are to be now; taken_over: the toolstacks' own, with their networks, None while that is
    not known; wanted: as for `taken`; on_move: called once moved ports have their numbers; on_return: called with a bridge and a port that is back there.

    unnumbered: the moved ports whose numbers in the database are not known to be br-int's.
    """

    def __init__(
        self,
        client: OvsdbClient,
        tables: Callable[[], Tables],
        integration: str,
        bridges: Callable[[], Set[str]],
        taken_over: Callable[[], Mapping[str, str] | None],
        wanted: Wanted,
        on_move: Callable[[], None],
        on_return: Callable[[str, str], None],
    ) -> None:
        self.unnumbered: Final[set[str]] = set()
        self._client: Final = client
        self._tables: Final = tables
        self._integration: Final = integration
        self._bridges: Final = bridges
        self._taken_over: Final = taken_over
        self._wanted: Final = wanted
        self._on_move: Final = on_move
        self._on_return: Final = on_return
        self._look: Final = asyncio.Event()
        self._took: Final = asyncio.Event()  # there may be ports that were taken

    def changed(self, batch: tuple[Change, ...]) -> None:
        """Rows changed in the switch's database: looks at the bridges if any port may have come."""
        if any(change.table in ("Bridge", "Port", "Interface") for change in batch):
            self.look()

    def look(self) -> None:
        """Looks at the bridges, if ports are moved from any: a VIF may be wanted by now, or a bridge taken over no more."""
        if self._bridges() or self._taken_over() or self._took.is_set():
            self._look.set()

    async def run(self) -> None:
        """Moves ports until cancelled."""
        self._took.set()  # by an agent before
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
        tables, taken_over = self._tables(), self._taken_over()
        found: list[vswitch.Change] = list(moves(tables, self._integration, self._bridges()))
        returned: list[tuple[str, str]] = []
        if taken_over is not None:
            found += taken(tables, self._integration, taken_over, self._wanted)
            for port, bridge, steps in given_back(tables, self._integration, taken_over):
                found += steps
                returned.append((bridge, port))
            (self._took.set if taken_over else self._took.clear)()
        if not found:
            return
        back = {port for _, port in returned}
        moved = {str(step.row.id.key[0]) for step in found if isinstance(step, vswitch.MoveRow)}
        self.unnumbered.update(moved - back)
        for bridge, port in returned:
            self._on_return(bridge, port)
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
