"""The Open vSwitch rows of ours: bridges, tunnels, patches, bonds, and the MTU of VIF ports. Kept as desired.

One rule: additions first, removals only once the pool's desired state is complete. Rows that others made stay as they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ovsctl import vswitch
from ovsctl.ovsdb import Change, Client, OvsdbError, Replica, Select, Update
from vnet.agent import nic_guard
from vnet.agent.local_ports import LocalPort
from vnet.compile import HostView, Switch, ovs_rows, vif_mtus

log = logging.getLogger(__name__)

RETRY_S = 0.5
CACHES_S = (
    0.2  # after flows changed, till Open vSwitch has surely looked at its cached ones, which may use a port that goes
)
LOOK_AGAIN_S = 2.0  # whether the host still uses a NIC that waits for it not to
SIMULATED = "dummy"  # the datapath whose NICs are not the host's
OWNER = vswitch.Owner()


class RowKeeper:
    """Keeps the local Open_vSwitch database to the rows that the view asks for.

    on_drift: what somebody else had changed. on_change: something was applied, or failed differently.
    """

    def __init__(
        self,
        client: Client,
        view: HostView,
        switch: Switch,
        on_drift: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._client = client
        self._view = view
        self._switch = switch
        self._on_drift = on_drift
        self._on_change = on_change
        self._replica: Replica | None = None
        self._wanted: tuple[vswitch.VSwitch, tuple[tuple[str, str, int], ...]] | None = None
        self._ports: dict[str, LocalPort] = {}
        self._dirty = asyncio.Event()
        self._suspect = True
        self._changed = False
        self._failed = False
        self._held: dict[str, str] = {}  # NICs that the host uses, and what for
        self.problems: dict[str, str] = {}

    @property
    def settled(self) -> bool:
        """Whether everything that was asked for is in the switch, or is known to have failed."""
        return not (self._changed or self._suspect or self._dirty.is_set())

    def start(self, replica: Replica) -> None:
        self._replica = replica

    def changed(self, batch: tuple[Change, ...]) -> None:
        """Rows changed in the switch's database: looks again if any of ours did."""
        self._changed = self._changed or any(self._concerns_us(change) for change in batch)

    def _concerns_us(self, change: Change) -> bool:
        if change.table not in ("Bridge", "Port", "Interface") or _more_ports(change):
            return False
        ours = self._switch.bridge
        return any(row is not None and (OWNER.owns(row) or row["name"] == ours) for row in (change.old, change.new))

    def kick(self, ports: dict[str, LocalPort]) -> None:
        """The view or the rows may have changed: works if there is something to do. VIFs' flows are not kept waiting for it."""
        self._ports = ports
        wanted = (ovs_rows(self._view, self._switch), self._mtus())
        if self._changed or wanted != self._wanted:
            self._wanted = wanted
            self._changed, self._suspect = False, True
            self._dirty.set()

    def _mtus(self) -> tuple[tuple[str, str, int], ...]:
        """(VIF, its port, MTU in bytes) for each VIF port whose MTU is not the network's.

        A device that has it already, or has not said, is not asked for it: setting it makes ovs-vswitchd go over all its ports
        again, while a new one waits to be finished.
        """
        return tuple(
            (vif, port.name, mtu)
            for vif, mtu in sorted(vif_mtus(self._view).items())
            if (port := self._ports.get(vif)) is not None and (port.mtu_request or port.mtu) not in (None, mtu)
        )

    async def run(self) -> None:
        """Applies what is wanted, for ever."""
        planned: vswitch.VSwitch | None = None
        while True:
            in_time = await self._wait()
            if self._wanted is None or self._replica is None:
                continue
            wanted, mtus = self._wanted
            try:
                rows, held = self._hold_back(wanted)
                if not in_time and held == self._held:
                    continue
                self._held = held
                applied = await self._apply(rows, mtus)
            except (OvsdbError, vswitch.VSwitchError, OSError) as error:
                self._problem({"open vswitch": str(error)})
                await asyncio.sleep(RETRY_S)
                self._dirty.set()
                continue
            if applied and planned == rows:
                self._on_drift(applied)
            planned = rows
            if not self._dirty.is_set():
                self._suspect = False
            self._on_change()

    async def _wait(self) -> bool:
        """Returns once there is work, True, or it is time to look at NICs again, False."""
        try:
            async with asyncio.timeout(LOOK_AGAIN_S if self._held else None):
                await self._dirty.wait()
        except TimeoutError:
            return False
        self._dirty.clear()
        return True

    def _hold_back(self, rows: vswitch.VSwitch) -> tuple[vswitch.VSwitch, dict[str, str]]:
        """The rows without the NICs that would cut the host off, and why. Raises OSError."""
        if self._replica is None or self._switch.datapath_type == SIMULATED:
            return rows, {}
        present = nic_guard.in_place(self._replica)
        new = frozenset(nic for nic, bridge in nic_guard.nics(rows).items() if (nic, bridge) not in present)
        return nic_guard.hold_back(rows, new, nic_guard.carried()) if new else (rows, {})

    async def _apply(self, rows: vswitch.VSwitch, mtus: tuple[tuple[str, str, int], ...]) -> str:
        """One round; what was changed in rows of ours, as text."""
        assert self._replica is not None  # noqa: S101 - the caller looked
        if mtus:
            await self._client.transact(
                *(Update("Interface", (("name", "==", p),), {"mtu_request": m}) for _, p, m in mtus)
            )
        plan = vswitch.plan(rows, self._replica, OWNER)
        problems = {str(conflict.row): conflict.reason for conflict in plan.conflicts} | self._held
        if plan.additions:
            applied = await vswitch.apply(self._client, plan.additions)
            problems |= {f"interface {name}": text for name, text in dict(applied.errors if applied else {}).items()}
        if plan.removals:
            await asyncio.sleep(CACHES_S)
            if not self._dirty.is_set():  # else the next round decides anew
                await vswitch.apply(self._client, plan.removals)
        if plan:
            # The server may answer before it tells of the ofports that ovs-vswitchd gave; what it answers next comes after.
            await self._client.transact(Select("Open_vSwitch", (), ("cur_cfg",)))
        self._problem(problems | nic_guard.errors(rows, self._replica))
        return "; ".join(str(change) for change in plan)

    def _problem(self, problems: dict[str, str]) -> None:
        if problems != self.problems:
            self.problems = problems
            self._on_change()


def _more_ports(change: Change) -> bool:
    """Whether all that changed of a bridge are ports that came. They are VIFs': ours have rows that changed too."""
    old, new = change.old, change.new
    if change.table != "Bridge" or old is None or new is None or not old["ports"] < new["ports"]:
        return False
    return {**old.as_dict(), "ports": new["ports"]} == new.as_dict()
