"""What the local Open vSwitch says: which ports are VIFs', their ofports, MTUs and errors. Pure reading of a replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ovsctl.ovsdb import Monitor
from ovsctl.vswitch import COLUMNS
from vnet.model.values import VIF_ID
from vnet.pool.rows import Row

IFACE_ID = "iface-id"
XS_VIF_UUID = "xs-vif-uuid"  # XenServer's and XCP-ng's scripts name a VIF's port so

# What a plan of rows needs, and what vswitchd answers; statistics, which change every few seconds, are left out.
MONITORS = {
    table: Monitor(columns=(*columns, *(("ofport", "error") if table == "Interface" else ())))
    for table, columns in COLUMNS.items()
}


class Tables(Protocol):
    """A replica, or plain dicts: table to uuid to row."""

    def __getitem__(self, table: str, /) -> Mapping[Any, Row]: ...


@dataclass(frozen=True, slots=True)
class LocalPort:
    """An interface on the integration bridge. ofport is None until vswitchd has it, mtu in bytes."""

    name: str
    vif: str | None
    ofport: int | None
    mtu_request: int | None
    error: str | None


def vif_of(external_ids: Mapping[str, str]) -> str | None:
    """The VIF id that a port's external_ids name, None for none or nonsense."""
    found = external_ids.get(IFACE_ID) or external_ids.get(XS_VIF_UUID)
    return found if found and VIF_ID.fullmatch(found) else None


def read_ports(tables: Tables, bridge: str) -> list[LocalPort]:
    """The interfaces on a bridge, in the order of their names; nothing where there is no such bridge."""
    ports, interfaces = tables["Port"], tables["Interface"]
    found = []
    for row in tables["Bridge"].values():
        if row["name"] != bridge:
            continue
        for port in row["ports"]:
            if port in ports:
                found += [_local_port(interfaces[i]) for i in ports[port]["interfaces"] if i in interfaces]
    return sorted(found, key=lambda port: port.name)


def _local_port(row: Row) -> LocalPort:
    ofport = row["ofport"]
    usable = ofport if ofport is not None and ofport > 0 else None  # -1: vswitchd could not add it
    return LocalPort(row["name"], vif_of(row["external_ids"]), usable, row["mtu_request"], row["error"])
