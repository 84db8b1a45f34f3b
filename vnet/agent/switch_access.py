"""How an agent reaches its host's ovs-vswitchd: over sockets of its own machine, or from another one.

One rule: on a host without an agent nothing is needed but Open vSwitch's database and OpenFlow. There the switch connects to the agent, bridge by bridge, and
a connection is taken for a bridge only with the datapath id that the host's own database has for it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ovsctl.appctl import MAX_REPLY_BYTES, Appctl, DaemonUnreachable, control_socket
from ovsctl.openflow.client import OpenFlowClient
from ovsctl.openflow.connection import OpenFlowConnection
from ovsctl.openflow.listener import OpenFlowListener
from ovsctl.openflow.messages import FragmentHandling
from ovsctl.ovsdb import OvsdbError
from ovsctl.vswitch.snapshot import Tables

TIMEOUT_S = 10.0  # of a command to ovs-vswitchd
LOOK_S = 0.05  # for a bridge that ovs-vswitchd has not made yet
LATE_S = 0.1  # a connection that has not come by then waits to be tried again
LOOK_AGAIN_S = 1.0  # whether a bridge has another datapath id by now
DATAPATH_ID = re.compile("[0-9a-f]{16}")  # what a host says of itself may be anything
ELSEWHERE = "its agent runs on another machine, and ovs-vswitchd's control socket is not reached from there"


# What a host lacks whose agent runs on another machine: parts of it that neither Open vSwitch's database nor OpenFlow has.
WITHOUT = {
    "connection limits": "a VIF's connections have no limit of their own in the tracker (dpctl/ct-set-limits)",
    "connections that move": "tracked connections do not move with a VM: they are picked up as they go on",
    "ofproto/trace": "'vnet trace --live' shows no path there; marked packets, 'vnet trace --live --send', work",
    "balance-slb": "a bond that is balanced by MAC keeps a VIF that left for up to 5 minutes, unless that sends gratuitous ARP: use active-backup or LACP",
    "encryption": "tunnels there are not encrypted: networks that ask for it have no VIFs there",
    "NICs": "an uplink names a bridge of the host; NICs are not put into one, nor looked at",
    "local copy": "while the pool database and ovs-vswitchd are both restarted, flows wait for the database",
}


@dataclass(frozen=True, slots=True)
class Doorway:
    """Where switches connect to. target: the same for a host's table Controller, as ssl:10.0.0.1:6653."""

    listener: OpenFlowListener
    target: str


class SwitchAccess(Protocol):
    """target: where bridges connect to; "" if the agent connects to them."""

    @property
    def target(self) -> str: ...

    def place(self, bridge: str) -> str:
        """Where a bridge's OpenFlow is, in words."""

    def client(self, bridge: str) -> OpenFlowClient:
        """A client that is not connected yet."""

    def control(self, timeout_s: float = ..., max_reply_bytes: int = ...) -> Appctl:
        """ovs-vswitchd's control socket. Raises AppctlError where there is none."""


@dataclass(frozen=True, slots=True)
class LocalAccess:
    """By the sockets in Open vSwitch's run directory."""

    rundir: str
    target: str = ""

    def place(self, bridge: str) -> str:
        return f"unix:{self.rundir}/{bridge}.mgmt"

    def client(self, bridge: str) -> OpenFlowClient:
        return OpenFlowClient(self.place(bridge), fragments=FragmentHandling.NX_MATCH)

    def control(self, timeout_s: float = TIMEOUT_S, max_reply_bytes: int = MAX_REPLY_BYTES) -> Appctl:
        return Appctl(control_socket(self.rundir), timeout_s, max_reply_bytes)


class RemoteAccess:
    """By connections that the switch of `host` makes. tables: its Open vSwitch database. reconnect: has a bridge try to connect at once."""

    def __init__(
        self, host: str, doorway: Doorway, tables: Callable[[], Tables], reconnect: Callable[[str], None]
    ) -> None:
        self.target: Final = doorway.target
        self._reconnect: Final = reconnect
        self._host: Final = host
        self._listener: Final = doorway.listener
        self._tables: Final = tables

    def place(self, bridge: str) -> str:
        return f"{self.target}, where bridge {bridge} is to connect to ('ovs-vsctl list controller' there says why not)"

    def client(self, bridge: str) -> OpenFlowClient:
        async def accepted() -> OpenFlowConnection:
            return await self._accepted(bridge)

        return OpenFlowClient(self.place(bridge), fragments=FragmentHandling.NX_MATCH, accepted=accepted)

    async def _accepted(self, bridge: str) -> OpenFlowConnection:
        tries = 0
        while True:
            datapath_id = datapath_ids(self._tables).get(bridge)
            if datapath_id is None:
                await asyncio.sleep(LOOK_S)
                continue
            try:
                async with asyncio.timeout(LOOK_AGAIN_S if tries else LATE_S):
                    return await self._listener.accept(datapath_id, self._host)
            except TimeoutError:
                if not tries:
                    self._reconnect(bridge)
                tries += 1

    def control(self, timeout_s: float = TIMEOUT_S, max_reply_bytes: int = MAX_REPLY_BYTES) -> Appctl:
        raise DaemonUnreachable(Path(f"host {self._host}"), (), ELSEWHERE)


def datapath_ids(tables: Callable[[], Tables]) -> Mapping[str, int]:
    """The datapath ids of bridges that ovs-vswitchd has made, by name."""
    try:
        rows = tables()["Bridge"].values()
    except OvsdbError:
        return {}
    return {row["name"]: int(row["datapath_id"], 16) for row in rows if DATAPATH_ID.fullmatch(row["datapath_id"] or "")}
