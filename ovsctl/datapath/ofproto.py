"""The OpenFlow state of an emulated bridge: flow tables, groups, meters, ports, and what packets made it learn.

One rule: every change that may alter the way of a packet calls `changed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ovsctl.datapath.classifier import FlowTables
from ovsctl.datapath.meters import TokenBucketMeter
from ovsctl.openflow import Bucket, Flow, Group, Meter
from ovsctl.openflow.fields import ReservedPort
from ovsctl.openflow.messages import FragmentHandling

MAC_TABLE_MAX = 8192  # Open vSwitch's default mac-table-size


@dataclass(frozen=True, slots=True)
class EmulatedPort:
    """A port of a bridge. mtu: the largest IP packet in bytes, None for no limit."""

    name: str
    is_tunnel: bool = False
    up: bool = True
    mtu: int | None = None


class Ofproto:
    """A bridge's flows, groups, meters and ports, and the MAC addresses and flows that it learned."""

    def __init__(
        self,
        flows: Iterable[Flow] = (),
        *,
        ports: Mapping[int, EmulatedPort] | None = None,
        groups: Iterable[Group] = (),
        meters: Iterable[Meter] = (),
        name: str = "br0",
        fragments: FragmentHandling = FragmentHandling.NORMAL,
    ) -> None:
        self.name = name
        self.fragments = fragments
        self.ports: dict[int, EmulatedPort] = dict(ports or {})
        self.groups = {group.group_id: group for group in groups}
        self.meters = {meter.meter_id: TokenBucketMeter(meter) for meter in meters}
        self.macs: dict[tuple[int, int], int] = {}  # (VLAN, MAC) to port
        self.learned: dict[object, Flow] = {}
        self.version = 0
        self._tables: FlowTables | None = FlowTables(flows)
        self._flows: Callable[[], Iterable[Flow]] = tuple

    def changed(self) -> None:
        """Packets may take another way from now on."""
        self.version += 1

    def set_port(self, number: int, port: EmulatedPort) -> None:
        """Add or replace a port."""
        self.ports[number] = port
        self.changed()

    @property
    def tables(self) -> FlowTables:
        """The flow tables, built when they are first used."""
        if self._tables is None:
            self._tables = FlowTables([*self._flows(), *self.learned.values()])
        return self._tables

    def replace_flows(self, flows: Callable[[], Iterable[Flow]]) -> None:
        """Install these flows in place of all but the learned ones. `flows` is called when the tables are next used."""
        self._tables, self._flows = None, flows
        self.changed()

    def replace_meters(self, meters: Iterable[Meter]) -> None:
        """Install these meters in place of all others. A meter that stays keeps its tokens and counters."""
        before = self.meters
        self.meters = {
            meter.meter_id: known
            if (known := before.get(meter.meter_id)) is not None and known.meter == meter
            else TokenBucketMeter(meter)
            for meter in meters
        }
        if self.meters.keys() != before.keys():
            self.changed()

    def port_name(self, number: int) -> str:
        """A port's name, for messages."""
        port = self.ports.get(number)
        if port is not None:
            return port.name
        return ReservedPort(number).name if number in ReservedPort._value2member_map_ else f"port {number}"

    def is_live(self, bucket: Bucket) -> bool:
        """Whether the port or group that a bucket watches is up; a bucket that watches nothing is live."""
        watched = bucket.watch_port
        if watched is not None and watched in self.ports and self.ports[watched].up:
            return True
        group = self.groups.get(bucket.watch_group) if bucket.watch_group is not None else None
        if group is not None and any(self.is_live(inner) for inner in group.buckets):
            return True
        return watched is None and bucket.watch_group is None

    def may_learn(self, flow: Flow, limit: int) -> bool:
        """Whether a learn action may add a flow: `limit` flows of its cookie in its table at most, 0 for any number."""
        if not limit or flow.key in self.learned:
            return True
        return sum(1 for f in self.tables if f.table == flow.table and f.cookie == flow.cookie) < limit

    def learn(self, flow: Flow, limit: int = 0) -> None:
        """Add the flow of a learn action, if its limit allows it."""
        if self.may_learn(flow, limit):
            self.learned[flow.key] = flow
            if self.tables.add(flow):
                self.changed()

    def learn_mac(self, vlan: int, mac: int, port: int) -> None:
        """Enter the source address of a packet into the MAC table."""
        if self.macs.get((vlan, mac)) != port:
            if len(self.macs) >= MAC_TABLE_MAX:
                del self.macs[next(iter(self.macs))]
            self.macs[vlan, mac] = port
            self.changed()

    def restore_learned(self, macs: dict[tuple[int, int], int], learned: dict[object, Flow]) -> None:
        """Return to an earlier MAC table and earlier learned flows."""
        if macs == self.macs and learned == self.learned:
            return
        for key in self.learned.keys() - learned.keys():
            self.tables.discard(self.learned[key])
        for flow in learned.values():
            self.tables.add(flow)
        self.macs, self.learned = macs, learned
        self.changed()
