"""The Open vSwitch rows of ours: bridges, tunnels, patches, bonds, and the MTU of VIF ports. Kept as desired.

One rule: additions first, removals only once the pool's desired state is complete. Rows that others made stay as they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec import structs

from ovsctl import vswitch
from ovsctl.ovsdb import Change, Mutate, OvsdbClient, OvsdbError, Replica, Select, Update, Uuid, by_uuid
from ovsctl.vswitch.rows import SAMPLE_SETS
from ovsctl.vswitch.snapshot import Tables
from vnet.agent import nic_guard
from vnet.agent.local_ports import LocalPort
from vnet.agent.reconciler import Reconciler, Retry, Revisions
from vnet.compile import HostView, Switch, ovs_rows, vif_mtus, way_out
from vnet.compile.ovs import SYSTEM, crowded_out
from vnet.objects.carriers import GRE

log = logging.getLogger(__name__)

RETRY_S = 0.5
# After flows changed, till Open vSwitch has surely looked at its cached ones, which may use a port that goes.
CACHES_S = 0.2
LOOK_AGAIN_S = 2.0  # whether the host still uses a NIC that waits for it not to
CROWDED_OUT = (
    "nothing is sent to its collector from here: the host has GRE networks, and Open vSwitch's userspace datapath takes ERSPAN for them; "
    "a mirror to {gre: ADDRESS, key: N} works beside them"
)
NUMBER_TAKEN = (
    "it has no uplink here: the kernel's datapath does not tell its tag from the service tag of network {}, which has the same number; "
    "give one of the two another number, or another uplink"
)
SIMULATED = "dummy"  # the datapath whose NICs are not the host's
OWNER = vswitch.OwnerMark()
UNREACHED = "open vswitch"  # the problem where its database does not take rows
ALL = "rows"  # the one key: the rows are planned and written together


@dataclass(frozen=True, slots=True)
class DesiredRows:
    """The rows of ours, and (VIF, its port, MTU in bytes) for each VIF port whose MTU is to change. problems: why others are left out."""

    rows: vswitch.VSwitch
    mtus: tuple[tuple[str, str, int], ...]
    problems: dict[str, str]


class OvsConfig:
    """Keeps the local Open_vSwitch database to the rows that the view asks for.

    replica: the database's. on_drift: called with the changes of somebody else that were undone. on_change: called when problems changed.
    """

    def __init__(
        self,
        client: OvsdbClient,
        replica: Callable[[], Replica],
        view: HostView,
        switch: Switch,
        revisions: Revisions,
        on_drift: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self.problems: dict[str, str] = {}
        self._client: Final = client
        self._view: Final = view
        self._switch: Final = switch
        self._on_drift: Final = on_drift
        self._on_change: Final = on_change
        self._replica: Final = replica
        self._rows: Final[Reconciler[str, DesiredRows]] = Reconciler(self, revisions, partial(revisions.holds, None))
        self._to_reconnect: Final[set[str]] = set()  # bridges
        self._leftovers: frozenset[Uuid] = frozenset()  # controllers that agents before this one have left behind
        self._blocked = False  # something that is to be ours is somebody else's
        self._applied: vswitch.VSwitch | None = (
            None  # the rows that the database was last brought to, removals included
        )

    @property
    def settled(self) -> bool:
        """Whether all that is desired is in the switch, or is known to have failed."""
        return self._rows.settled

    def begin(self) -> None:
        """This agent is the host's: controllers that others have set up so far are none any more."""
        self._leftovers = frozenset(self._others())

    @property
    def rival(self) -> str:
        """The target of an agent that has set itself up as the bridges' controller since, "" for none: it has taken this host over."""
        return next((target for uuid, target in self._others().items() if uuid not in self._leftovers), "")

    def reconnect(self, bridge: str) -> None:
        """Has a bridge connect to this agent now. It tries ever more seldom by itself, with Open vSwitch 3.1 each 8 s whatever max_backoff says; a
        controller that is new is tried at once."""
        self._to_reconnect.add(bridge)
        self._rows.again([ALL])

    async def _take_off_controllers(self) -> None:
        """Takes the controllers of bridges that are to connect anew off; the plan puts them on again. Raises OvsdbError, VSwitchError."""
        names, tables = set(self._to_reconnect), self._replica()
        self._to_reconnect.clear()
        own = frozenset(
            u for u, row in tables["Controller"].items() if OWNER.owns(row) and row["target"] == self._switch.target
        )
        bridges = {u: row["controller"] & own for u, row in tables["Bridge"].items() if row["name"] in names}
        if any(bridges.values()):
            self._applied = None  # what is put on again was not changed by somebody else
            gone = (
                Mutate("Bridge", by_uuid(u), (("controller", "delete", rows),)) for u, rows in bridges.items() if rows
            )
            await vswitch.reconfigure(self._client, *gone)

    def _others(self) -> dict[Uuid, str]:
        """The controllers of ours that are other agents, by row."""
        own, rows = self._switch.target, self._replica()["Controller"]
        return {uuid: row["target"] for uuid, row in rows.items() if own and OWNER.owns(row) and row["target"] != own}

    async def run(self) -> None:
        """Applies what is desired, for ever."""
        await self._rows.run()

    def changed(self, batch: tuple[Change, ...]) -> None:
        """Rows changed in the switch's database: looks again if any of ours did, or one that may be in their way."""
        deleted = {change.uuid for change in batch if change.new is None}
        if any(self._concerns_us(change, deleted) for change in batch):
            self._rows.again([ALL])

    def _concerns_us(self, change: Change, deleted: Set[Uuid]) -> bool:
        if change.table == SAMPLE_SETS:
            return self._blocked or any(row is not None and OWNER.owns(row) for row in (change.old, change.new))
        if change.table not in ("Bridge", "Port", "Interface"):
            return False
        if _only_ports(change, deleted):
            return False
        if self._blocked and (change.old is not None or change.table == "Bridge"):  # given up; or the one that we lack
            return True
        ours = self._switch.bridge
        return any(row is not None and (OWNER.owns(row) or row["name"] == ours) for row in (change.old, change.new))

    def want(self, ports: Mapping[str, LocalPort]) -> None:
        """Takes up the rows that the view asks for, with the VIFs' ports."""
        problems = {f"mirror {mirror.name}": CROWDED_OUT for mirror in crowded_out(self._view, self._switch)}
        problems |= {f"network {name}": NUMBER_TAKEN.format(by) for name, by in self._view.numbers_taken.items()}
        desired = DesiredRows(ovs_rows(self._view, self._switch), self._mtus(ports), problems)
        self._rows.want({ALL: desired} if desired != self._rows.desired.get(ALL) else {})

    def awaits(self, network: str) -> bool:
        """Whether the port by which a network's frames leave this host is still to come. One that Open vSwitch does not take is not awaited."""
        row = self._view.networks.get(network)
        device = way_out(self._view, row) if row is not None else None
        if device is None or device in self._view.devices or UNREACHED in self.problems:
            return False
        wanted, applied = ovs_rows(self._view, self._switch), self._applied
        return device in _ports(wanted) and (applied is None or device not in _ports(applied))

    def _mtus(self, ports: Mapping[str, LocalPort]) -> tuple[tuple[str, str, int], ...]:
        """The MTUs to set. A device that has its MTU already, or has not said, is not asked for it: setting it makes ovs-vswitchd
        go over all its ports again, while a new one waits to be finished."""
        known = {vif: mtu for vif, port in ports.items() if (mtu := port.mtu_request or port.mtu) is not None}
        return tuple((vif, ports[vif].name, mtu) for vif, mtu in sorted(vif_mtus(self._view, known).items()))

    # The verbs of the reconciler: what is to be changed follows from the replica, so both plan anew

    async def change(self, changes: Mapping[str, DesiredRows | None]) -> None:
        for desired in changes.values():
            if desired is not None:
                await self._apply(desired)

    async def prune(self, desired: Callable[[], Mapping[str, DesiredRows]]) -> None:
        for value in desired().values():
            await self._apply(value)

    async def _apply(self, desired: DesiredRows) -> None:
        if self.rival:
            raise Retry(RETRY_S)
        try:
            wanted = desired.rows if self._switch.is_kernel else _after_erspan(desired.rows, self._replica())
            rows, held = self._hold_back(wanted)
            await self._write(rows, held, desired)
        except (OvsdbError, vswitch.VSwitchError, OSError) as error:
            self._problem({UNREACHED: str(error)})
            raise Retry(RETRY_S) from error
        if held or rows != desired.rows:
            asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._rows.again, [ALL])

    def _hold_back(self, rows: vswitch.VSwitch) -> tuple[vswitch.VSwitch, dict[str, str]]:
        """The rows without the NICs that would cut the host off, and why. Raises OSError."""
        if self._switch.datapath_type == SIMULATED:
            return rows, {}
        present = nic_guard.in_place(self._replica())
        new = frozenset(nic for nic, bridge in nic_guard.nics(rows).items() if (nic, bridge) not in present)
        if self._switch.target:
            return nic_guard.hold_back_unseen(rows, new)
        return nic_guard.hold_back(rows, new, nic_guard.carried()) if new else (rows, {})

    async def _write(self, rows: vswitch.VSwitch, held: dict[str, str], desired: DesiredRows) -> None:
        """One round. held: the NICs that are left out, and why. A difference from rows that the database was brought to already is somebody else's change."""
        changes = self._rows.changes
        if self._to_reconnect:
            await self._take_off_controllers()
        if desired.mtus:
            await self._client.transact(
                *(Update("Interface", (("name", "==", p),), {"mtu_request": m}) for _, p, m in desired.mtus)
            )
        plan = vswitch.plan(rows, self._replica(), OWNER)
        self._blocked = bool(plan.conflicts)
        problems = {str(conflict.row): conflict.reason for conflict in plan.conflicts} | held | desired.problems
        problems |= _unjoined(rows, self._replica())
        if plan.additions:
            applied = await vswitch.apply(self._client, plan.additions)
            problems |= {f"interface {name}": text for name, text in dict(applied.errors if applied else {}).items()}
        if plan.removals:
            await asyncio.sleep(CACHES_S)
            if self._rows.changes > changes:  # the next round plans anew
                self._applied = None
                return
            await vswitch.apply(self._client, plan.removals)
        if plan:
            # The server may answer before it tells of the ofports that ovs-vswitchd gave; what it answers next comes after.
            await self._client.transact(Select("Open_vSwitch", (), ("cur_cfg",)))
        self._problem(problems | nic_guard.errors(rows, self._replica()))
        if plan and self._applied == rows:
            self._on_drift("; ".join(str(change) for change in plan))
        self._applied = rows

    def _problem(self, problems: dict[str, str]) -> None:
        if problems != self.problems:
            self.problems = problems
            self._on_change()


def _ports(rows: vswitch.VSwitch) -> set[str]:
    return {port.name for bridge in rows.bridges for port in bridge.ports}


def _after_erspan(rows: vswitch.VSwitch, tables: Tables) -> vswitch.VSwitch:
    """The rows without a new port for GRE while one for ERSPAN that is to go is there: the userspace datapath would give all GRE to that one, also once it
    is gone."""
    there = {row["name"]: row["type"] for row in tables["Interface"].values() if OWNER.owns(row)}
    going = {name for name, type in there.items() if type == "erspan"} - _ports(rows)
    if not going or GRE.device in there:
        return rows
    bridges = (
        structs.replace(bridge, ports=tuple(port for port in bridge.ports if port.name != GRE.device))
        for bridge in rows.bridges
    )
    return structs.replace(rows, bridges=tuple(bridges))


def _unjoined(rows: vswitch.VSwitch, tables: Tables) -> dict[str, str]:
    """Why the host's own bridges that uplinks name carry nothing, by 'bridge xenbr0'."""
    theirs = {row["name"]: row["datapath_type"] or SYSTEM for row in tables["Bridge"].values()}
    ours = next((bridge.datapath_type for bridge in rows.bridges), "") or SYSTEM
    found = {}
    for name in (attachment.bridge for attachment in rows.attachments):
        if name not in theirs:
            found[f"bridge {name}"] = (
                f"this host has no bridge {name}, which an uplink names: 'ovs-vsctl list-br' lists what there is"
            )
        elif theirs[name] != ours:
            found[f"bridge {name}"] = (
                f"its datapath_type is {theirs[name]}, and br-int's is {ours}: no frame passes between the two"
            )
    return found


def _only_ports(change: Change, deleted: Set[Uuid]) -> bool:
    """Whether all that changed of a bridge are ports that came or were deleted. They are VIFs': ours have rows that changed too."""
    old, new = change.old, change.new
    if change.table != "Bridge" or old is None or new is None or not old["ports"] - new["ports"] <= deleted:
        return False
    return {**old.as_dict(), "ports": new["ports"]} == new.as_dict()
