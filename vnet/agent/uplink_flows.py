"""The flows of ours on the uplinks' bridges, which there are only while VIFs move, and what those bridges are to unlearn.

One rule: a bridge is held to its flows as br-int is, so that what an agent left behind is taken away by the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ovsctl.appctl import Appctl, AppctlError, control_socket
from ovsctl.openflow import FlowMod
from vnet.agent.flow_reconciler import FlowKeeper
from vnet.agent.local_ports import Tables, read_ports
from vnet.compile import Category, Change, HostView, Source, UplinkPorts, uplink_bridge, uplink_flows, uplink_patch
from vnet.objects import Uplink

log = logging.getLogger(__name__)

# Pauses between telling a bridge that a MAC has left: it learns it again from flows that it counted till then.
UNLEARN_AFTER_S = (0.0, 0.02, 0.1, 0.4, 0.6)
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


def uplink_ports(tables: Tables, uplink: Uplink) -> UplinkPorts | None:
    """The ofports of an uplink's bridge; None until ovs-vswitchd has the patch to br-int."""
    found = {port.name: port.ofport for port in read_ports(tables, uplink_bridge(uplink.name), {})}
    patch = found.get(uplink_patch(uplink.name))
    nics = tuple(ofport for nic in uplink.members if (ofport := found.get(nic)) is not None)
    return None if patch is None else UplinkPorts(nics, patch)


class UplinkKeeper:
    """A FlowKeeper for the bridge of each uplink of this host."""

    def __init__(
        self,
        view: HostView,
        rundir: str,
        spawn: Spawn,
        on_drift: Callable[[str, int], None],
        on_change: Callable[[], None],
        on_refused: Callable[[str, str], None],
    ) -> None:
        self._view = view
        self._rundir = rundir
        self._spawn = spawn
        self._on_drift = on_drift
        self._on_change = on_change
        self._on_refused = on_refused
        self._keepers: dict[str, FlowKeeper] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._gone: set[tuple[str, int, str]] = set()  # uplink, tag and MAC of each VIF that has left this host
        self._uplinks: tuple[Uplink, ...] = ()
        self._ports: dict[str, UplinkPorts | None] = {}

    def changed(self) -> None:
        """The switch's ports may be others by now."""
        self._ports.clear()

    def want(self, tables: Tables) -> Mapping[str, list[FlowMod]]:
        """What has to be sent to each bridge, with keepers for just the uplinks that there are."""
        uplinks = self._view.host.uplinks if self._view.host else ()
        if uplinks != self._uplinks or self._ports.keys() != self._keepers.keys():
            self._uplinks = uplinks
            self._ports = {uplink.name: uplink_ports(tables, uplink) for uplink in uplinks}
        for name in self._keepers.keys() - self._ports.keys():
            self._tasks.pop(name).cancel()
            del self._keepers[name]
        for name in self._ports.keys() - self._keepers.keys():
            self._keepers[name] = self._keep(uplink_bridge(name))
            self._tasks[name] = self._spawn(self._keepers[name].run())
        before, self._gone = self._gone, self._view.gone()
        for uplink, tag, mac in self._gone - before:
            self._spawn(self._unlearn(uplink, tag, mac))
        return {name: self._mods(name, keeper) for name, keeper in self._keepers.items()}

    async def _unlearn(self, uplink: str, tag: int, mac: str) -> None:
        """Has an uplink's bridge forget where a MAC was: a bond that is balanced by MAC takes what comes back in as its own
        for a loop, and drops it till the entry is five minutes old (ovs-vswitchd.conf.db(5), balance-slb)."""
        bridge, vlan = uplink_bridge(uplink), str(tag)
        for pause_s in UNLEARN_AFTER_S:
            await asyncio.sleep(pause_s)
            if (uplink, tag, mac) not in self._gone:
                return
            try:
                switch = Appctl(control_socket(self._rundir))
                # Only what was set by hand can be taken away by hand, so it is set first, where it is.
                await switch.call("fdb/add", bridge, uplink_patch(uplink), vlan, mac)
                await switch.call("fdb/del", bridge, vlan, mac)
            except AppctlError as error:
                log.info("%s was not told that %s has left: %s", bridge, mac, error)

    def _mods(self, name: str, keeper: FlowKeeper) -> list[FlowMod]:
        ports = self._ports[name]
        flows = uplink_flows(self._view, name, ports) if ports is not None else ()
        mods = keeper.want(
            [Change(Source(Category.NETWORK, name), tuple(mod.flow for mod in keeper.desired.values()), flows)]
        )
        keeper.start()
        return mods

    def _keep(self, bridge: str) -> FlowKeeper:
        return FlowKeeper(
            f"unix:{self._rundir}/{bridge}.mgmt",
            lambda _: None,
            lambda count: self._on_drift(bridge, count),
            self._on_change,
            lambda: None,
            lambda: None,
            lambda _: False,
            lambda text: self._on_refused(bridge, text),
        )

    async def push(self, mods: Mapping[str, list[FlowMod]]) -> bool:
        """Sends them; False if a bridge that is to have flows was not reached."""
        done = [await keeper.push(mods[name]) or not keeper.desired for name, keeper in self._keepers.items()]
        return all(done)
