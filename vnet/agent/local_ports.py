"""The ports of the local Open vSwitch: which are VIFs', their ofports, MTUs and errors. Pure reading of a replica.

One rule: an ofport is the one that the switch announces on its OpenFlow connection, if it does. The database has it later, and
after a restart of ovs-vswitchd it has the old ones for a while.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from operator import attrgetter

from ovsctl.ovsdb import Monitor, Uuid
from ovsctl.vswitch import COLUMNS
from ovsctl.vswitch.snapshot import AnyRow, Tables
from vnet.objects.limits import VIF_ID

IFACE_ID = "iface-id"
XS_VIF_UUID = "xs-vif-uuid"  # XenServer's and XCP-ng's scripts name a VIF's port so
# Of a guest that emulates a NIC until it has a driver, they plug both devices, and ovs-xapi-sync says which of them is in use.
IFACE_STATUS = "iface-status"
IN_USE, UNSAID, NOT_IN_USE = range(3)
NO_OFPORT = 1 << 16  # more than any

# The columns that a plan of rows needs, and those that ovs-vswitchd fills; statistics, which change every few seconds, are left out.
_FILLED = {
    "Interface": ("ofport", "error", "mtu", "admin_state", "link_state", "lacp_current", "mac_in_use"),
    "Bridge": ("datapath_id",),
}
MONITORS = {table: Monitor(columns=(*columns, *_FILLED.get(table, ()))) for table, columns in COLUMNS.items()}


@dataclass(frozen=True, slots=True)
class LocalPort:
    """An interface on the integration bridge. ofport and mtu (bytes) are None until vswitchd has it; use: what its iface-status says;
    also: other ports that name the same VIF as much as this one does, and are not used."""

    name: str
    vif: str | None
    ofport: int | None
    mtu_request: int | None
    mtu: int | None
    error: str | None
    use: int = UNSAID
    also: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """The port's problem, "" for none."""
        if self.error:
            return f"port {self.name}: {self.error}"
        if self.also:
            return f"{' and '.join((self.name, *self.also))} name the same VIF: port {self.name} is used, it came first"
        return ""


@dataclass(frozen=True, slots=True)
class LocalPorts:
    """The ports of the integration bridge as last seen. vifs: by VIF id; devices: ofports of all others, by name; taken: the ofports
    of all."""

    vifs: Mapping[str, LocalPort] = field(default_factory=dict)
    devices: Mapping[str, int | None] = field(default_factory=dict)
    taken: Set[int] = frozenset()

    @classmethod
    def of(cls, found: Iterable[LocalPort]) -> LocalPorts:
        ports = list(found)
        return cls(
            vif_ports(ports),
            {port.name: port.ofport for port in ports if port.vif is None},
            frozenset(port.ofport for port in ports if port.ofport is not None),
        )


def vif_of(external_ids: Mapping[str, str]) -> str | None:
    """The VIF id that a port's external_ids name, None for none or nonsense."""
    found = external_ids.get(IFACE_ID) or external_ids.get(XS_VIF_UUID)
    return found if found and VIF_ID.fullmatch(found) else None


class PortReader:
    """Reads the ports of a bridge again and again: anew those whose row or number is another one than the last time."""

    def __init__(self) -> None:
        self._known: dict[Uuid, tuple[AnyRow, int | None, LocalPort]] = {}

    def read(
        self, tables: Tables, bridge: str, ofports: Mapping[str, int], unnumbered: Set[str] = frozenset()
    ) -> list[LocalPort]:
        """The interfaces on a bridge, in the order of their names; nothing where there is no such bridge. `ofports` by name are
        what the switch itself says, as far as it does; unnumbered: names whose number in the database may be of another bridge."""
        ports, interfaces = tables["Port"], tables["Interface"]
        before, self._known = self._known, {}
        for row in tables["Bridge"].values():
            if row["name"] != bridge:
                continue
            for port in row["ports"]:
                for uuid in ports[port]["interfaces"] if port in ports else ():
                    interface = interfaces.get(uuid)
                    if interface is None:
                        continue
                    name = interface["name"]
                    ofport = ofports.get(name, interface["ofport"] if name not in unnumbered else None)
                    known = before.get(uuid)
                    if known is None or known[0] is not interface or known[1] != ofport:
                        known = interface, ofport, _local_port(interface, ofport)
                    self._known[uuid] = known
        return sorted((port for _, _, port in self._known.values()), key=attrgetter("name"))


def read_ports(tables: Tables, bridge: str) -> list[LocalPort]:
    """The interfaces on a bridge as the database has them, in the order of their names."""
    return PortReader().read(tables, bridge, {})


def vif_ports(found: Iterable[LocalPort]) -> dict[str, LocalPort]:
    """The port of each VIF. Of several that name one VIF it is the one whose iface-status is active; else the one with the lowest
    ofport, which came first: a second one must not take over what runs."""
    naming: dict[str, list[LocalPort]] = defaultdict(list)
    for port in found:
        if port.vif is not None:
            naming[port.vif].append(port)
    chosen = {}
    for vif, ports in naming.items():
        if len(ports) == 1:  # as nearly all are
            chosen[vif] = ports[0]
            continue
        first, *others = sorted(_paired(ports), key=lambda port: (port.use, port.ofport or NO_OFPORT, port.name))
        chosen[vif] = replace(first, also=tuple(port.name for port in others if port.use == first.use))
    return chosen


def _paired(ports: Iterable[LocalPort]) -> list[LocalPort]:
    """The ports of one VIF, with what ovs-xapi-sync will say of a tap and the vif of the same number: the tap is in use while it is there."""
    by_name = {port.name: port for port in ports}
    for name, port in list(by_name.items()):
        tap = by_name.get("tap" + name.removeprefix("vif")) if name.startswith("vif") else None
        if tap is not None and port.use == tap.use == UNSAID:
            by_name |= {name: replace(port, use=NOT_IN_USE), tap.name: replace(tap, use=IN_USE)}
    return list(by_name.values())


def _local_port(row: AnyRow, ofport: int | None) -> LocalPort:
    usable = ofport if ofport is not None and ofport > 0 else None
    # -1: vswitchd could not add it (ovs-vswitchd.conf.db(5)); it does not always say why.
    error = row["error"] or ("ovs-vswitchd could not add it: see its log" if ofport == -1 else None)
    use = {"active": IN_USE, "inactive": NOT_IN_USE}.get(row["external_ids"].get(IFACE_STATUS, ""), UNSAID)
    return LocalPort(row["name"], vif_of(row["external_ids"]), usable, row["mtu_request"], row["mtu"], error, use)
