"""Desired values as rows. Rule: this is the only place that knows which table and columns a value becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from ovsctl.vswitch.values import (
    Bridge,
    Controller,
    Interface,
    Ipfix,
    Manager,
    Mirror,
    NetFlow,
    Port,
    Qos,
    Queue,
    SampleSet,
    Sflow,
    VSwitch,
)


class RowId(msgspec.Struct, frozen=True):
    """The identity of a row apart from its uuid: its table, and names within it."""

    table: str
    key: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.table, "/".join(map(str, self.key)))).strip()


ROOT = RowId("Open_vSwitch")

Scalar: TypeAlias = str | int | float | bool | RowId
Value: TypeAlias = (
    Scalar | frozenset[str] | frozenset[int] | frozenset[RowId] | Mapping[str, str] | Mapping[int, RowId] | None
)
Columns: TypeAlias = Mapping[str, Value]


class WantedRow(msgspec.Struct, frozen=True):
    """A row as it should be. `columns` are owned whole; of `external_ids` only the keys named here are ours."""

    id: RowId
    columns: Columns
    external_ids: Mapping[str, str]


class RowUnit(msgspec.Struct, frozen=True):
    """Rows that come or stay away together: a port with its interfaces and QoS, a set of collectors with its IPFIX, or one row of another table.

    `head` belongs into `column` of `parent`, a set in which others may have rows too; with "" it is what refers to `parent`.
    """

    head: WantedRow
    parent: RowId
    column: str
    parts: tuple[WantedRow, ...] = ()

    @property
    def rows(self) -> tuple[WantedRow, ...]:
        return (self.head, *self.parts)


# Rows that hang in a bridge: the column they hang in. Their keys start with the bridge's name.
BRIDGE_PARTS = {
    "Mirror": "mirrors",
    "Controller": "controller",
    "NetFlow": "netflow",
    "sFlow": "sflow",
    "IPFIX": "ipfix",
}
SAMPLE_SETS = "Flow_Sample_Collector_Set"  # refers to its bridge, and outlives it
EXACT: Mapping[str, tuple[str, ...]] = {
    "Manager": ("target", "connection_mode", "max_backoff", "inactivity_probe", "other_config"),
    "Bridge": (
        *("name", "datapath_type", "fail_mode", "protocols", "stp_enable", "rstp_enable"),
        *("mcast_snooping_enable", "flood_vlans", "other_config"),
    ),
    "Controller": (
        *("target", "type", "connection_mode", "max_backoff", "inactivity_probe", "enable_async_messages"),
        *("controller_rate_limit", "controller_burst_limit", "controller_queue_size", "other_config"),
    ),
    "NetFlow": ("targets", "engine_type", "engine_id", "add_id_to_interface", "active_timeout"),
    "sFlow": ("targets", "sampling", "polling", "header", "agent"),
    "IPFIX": (
        *("targets", "sampling", "obs_domain_id", "obs_point_id", "cache_active_timeout"),
        *("cache_max_flows", "other_config"),
    ),
    SAMPLE_SETS: ("id",),
    "Mirror": ("name", "select_all", "select_vlan", "output_vlan", "snaplen"),
    "Port": (
        *("name", "tag", "trunks", "cvlans", "vlan_mode", "bond_mode", "bond_updelay", "bond_downdelay"),
        *("lacp", "mac", "protected", "other_config"),
    ),
    "Interface": (
        *("name", "type", "options", "mtu_request", "ofport_request", "mac", "ingress_policing_rate"),
        *("ingress_policing_burst", "ingress_policing_kpkts_rate", "ingress_policing_kpkts_burst"),
        *("bfd", "cfm_mpid", "lldp", "other_config"),
    ),
    "QoS": ("type", "other_config"),
    "Queue": ("dscp", "other_config"),
}
"""Columns that are a field of the same name, taken over as they are. Those that refer to rows are made below."""

REFERENCES: Mapping[str, tuple[str, ...]] = {
    "Open_vSwitch": ("bridges", "manager_options"),
    "Bridge": ("ports", *BRIDGE_PARTS.values()),
    "Port": ("interfaces", "qos"),
    "QoS": ("queues",),
    "Mirror": ("select_src_port", "select_dst_port", "output_port"),
    SAMPLE_SETS: ("bridge", "ipfix"),
}


_SCALARS = frozenset(
    (
        *("id", "type", "datapath_type", "stp_enable", "rstp_enable", "mcast_snooping_enable", "protected"),
        *("select_all", "add_id_to_interface", "active_timeout", "bond_updelay", "bond_downdelay"),
        *("ingress_policing_rate", "ingress_policing_burst"),
        *("ingress_policing_kpkts_rate", "ingress_policing_kpkts_burst"),
    )
)
"""Columns that always hold a value. In all others 0 and False are values too, and differ from an empty column."""


def is_default(column: str, value: object) -> bool:
    """Whether a new row has this value without being told, also where its schema lacks the column."""
    empty = value is None or (isinstance(value, frozenset | Mapping) and not value)
    return empty or (column in _SCALARS and not value)


def wanted_units(desired: VSwitch) -> Iterator[RowUnit]:
    """All rows of `desired`, each unit after the one that it hangs in."""
    for manager in desired.managers:
        row = _row(RowId("Manager", (manager.target,)), manager)
        yield RowUnit(row, ROOT, "manager_options")
    for bridge in desired.bridges:
        row = _row(bridge_id(bridge.name), bridge)
        yield RowUnit(row, ROOT, "bridges")
        yield from _ports(bridge.name, bridge.ports)
        yield from _bridge_parts(bridge)
    for attachment in desired.attachments:
        yield from _ports(attachment.bridge, attachment.ports)
        yield from _controllers(attachment.bridge, attachment.controllers)


def bridge_id(name: str) -> RowId:
    return RowId("Bridge", (name,))


def port_id(name: str) -> RowId:
    return RowId("Port", (name,))


def _row(
    row_id: RowId,
    value: Manager
    | Bridge
    | Controller
    | NetFlow
    | Sflow
    | Ipfix
    | SampleSet
    | Mirror
    | Port
    | Interface
    | Qos
    | Queue,
    **references: Value,
) -> WantedRow:
    columns = {name: _plain(getattr(value, name)) for name in EXACT[row_id.table]}
    if columns.get("options", ()) is None:
        del columns["options"]  # left as it is
    return WantedRow(row_id, columns | references, value.external_ids)


def _plain(value: Value) -> Value:
    """Without our enums, as a replica has it."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, frozenset):
        return frozenset(map(str, value)) if any(isinstance(atom, StrEnum) for atom in value) else value
    return value


def _ports(bridge: str, ports: tuple[Port, ...]) -> Iterator[RowUnit]:
    for port in ports:
        head, *parts = _port_rows(port)
        yield RowUnit(head, bridge_id(bridge), "ports", tuple(parts))


def _port_rows(port: Port) -> Iterator[WantedRow]:
    interfaces = [RowId("Interface", (interface.name,)) for interface in port.interfaces]
    qos = RowId("QoS", (port.name,)) if port.qos else None
    yield _row(port_id(port.name), port, interfaces=frozenset(interfaces), qos=qos)
    for row_id, interface in zip(interfaces, port.interfaces, strict=True):
        yield _row(row_id, interface)
    if port.qos and qos:
        queues = {n: RowId("Queue", (port.name, n)) for n in port.qos.queues}
        yield _row(qos, port.qos, queues=queues)
        for number, queue in port.qos.queues.items():
            yield _row(RowId("Queue", (port.name, number)), queue)


def _controllers(bridge: str, controllers: tuple[Controller, ...]) -> Iterator[RowUnit]:
    for controller in controllers:
        row = _row(RowId("Controller", (bridge, controller.target)), controller)
        yield RowUnit(row, bridge_id(bridge), BRIDGE_PARTS["Controller"])


def _bridge_parts(bridge: Bridge) -> Iterator[RowUnit]:
    def unit(table: str, row: WantedRow) -> RowUnit:
        return RowUnit(row, bridge_id(bridge.name), BRIDGE_PARTS[table])

    yield from _controllers(bridge.name, bridge.controllers)
    if bridge.netflow:
        yield unit("NetFlow", _row(RowId("NetFlow", (bridge.name,)), bridge.netflow))
    if bridge.sflow:
        yield unit("sFlow", _row(RowId("sFlow", (bridge.name,)), bridge.sflow))
    if bridge.ipfix:
        yield unit("IPFIX", _row(RowId("IPFIX", (bridge.name,)), bridge.ipfix))
    for sample_set in bridge.sample_sets:
        key = (bridge.name, sample_set.id)
        ipfix = _row(RowId("IPFIX", key), sample_set.ipfix)
        refers: dict[str, Value] = {"bridge": bridge_id(bridge.name), "ipfix": ipfix.id}
        yield RowUnit(_row(RowId(SAMPLE_SETS, key), sample_set, **refers), bridge_id(bridge.name), "", (ipfix,))
    for mirror in bridge.mirrors:
        references: dict[str, Value] = {
            "select_src_port": frozenset(map(port_id, mirror.select_src_port)),
            "select_dst_port": frozenset(map(port_id, mirror.select_dst_port)),
            "output_port": port_id(mirror.output_port) if mirror.output_port else None,
        }
        yield unit("Mirror", _row(RowId("Mirror", (bridge.name, mirror.name)), mirror, **references))
