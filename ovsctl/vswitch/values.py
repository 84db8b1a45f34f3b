"""The desired state of an Open vSwitch as frozen values. Rule: a value that exists is one the schema accepts.

Field names are the column names of ovs-vswitchd.conf.db(5), and mean what they mean there. A field left out is an
empty column: these values describe whole rows. References between rows are nesting (a port holds its interfaces)
or names (a mirror names its ports), never uuids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

MAX_OFPORT = 65279  # 0xfeff: OpenFlow's reserved ports come after it
MAX_INT = 2**63 - 1  # of an OVSDB integer, RFC 7047 §3.1


class VlanMode(StrEnum):
    """`Port.vlan_mode`."""

    ACCESS = "access"
    TRUNK = "trunk"
    NATIVE_TAGGED = "native-tagged"
    NATIVE_UNTAGGED = "native-untagged"
    DOT1Q_TUNNEL = "dot1q-tunnel"


class PortBondMode(StrEnum):
    """`Port.bond_mode`."""

    ACTIVE_BACKUP = "active-backup"
    BALANCE_SLB = "balance-slb"
    BALANCE_TCP = "balance-tcp"


class Lacp(StrEnum):
    """`Port.lacp`."""

    ACTIVE = "active"
    PASSIVE = "passive"
    OFF = "off"


class FailMode(StrEnum):
    """`Bridge.fail_mode`: what a bridge does without a controller."""

    STANDALONE = "standalone"
    SECURE = "secure"


class OpenFlow(StrEnum):
    """`Bridge.protocols`."""

    V10 = "OpenFlow10"
    V11 = "OpenFlow11"
    V12 = "OpenFlow12"
    V13 = "OpenFlow13"
    V14 = "OpenFlow14"
    V15 = "OpenFlow15"


class ConnectionMode(StrEnum):
    """`Controller.connection_mode`, `Manager.connection_mode`."""

    IN_BAND = "in-band"
    OUT_OF_BAND = "out-of-band"


class ControllerType(StrEnum):
    """`Controller.type`: a service controller has no part in what a bridge does while it is away."""

    PRIMARY = "primary"
    SERVICE = "service"


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue of a `Qos`; its rates are `other_config` min-rate and max-rate, bit/s."""

    dscp: int | None = None
    other_config: Mapping[str, str] = msgspec.field(default_factory=dict)
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_range("Queue dscp", self.dscp, 0, 63)


class Qos(msgspec.Struct, frozen=True, kw_only=True):
    """The QoS of one port, with its queues by number."""

    type: str
    queues: Mapping[int, Queue] = msgspec.field(default_factory=dict)
    other_config: Mapping[str, str] = msgspec.field(default_factory=dict)
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in self.queues:
            _check_range("Qos queue number", number, 0, 2**32 - 1)


class Interface(msgspec.Struct, frozen=True):
    """One device of a port. Policing is in kbit/s and kbit, or thousands of packets/s and of packets.

    options None: whatever somebody has put there stays, such as what a DPDK NIC needs.
    """

    name: str
    type: str = ""
    options: Mapping[str, str] | None = msgspec.field(default_factory=dict)
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)
    mtu_request: int | None = None
    ofport_request: int | None = None
    mac: str | None = None
    ingress_policing_rate: int = 0
    ingress_policing_burst: int = 0
    ingress_policing_kpkts_rate: int = 0
    ingress_policing_kpkts_burst: int = 0
    bfd: Mapping[str, str] = msgspec.field(default_factory=dict)
    cfm_mpid: int | None = None
    lldp: Mapping[str, str] = msgspec.field(default_factory=dict)
    other_config: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("Interface", self.name)
        where = f"Interface {self.name!r}"
        _check_range(f"{where} mtu_request", self.mtu_request, 68, 65535)
        _check_range(f"{where} ofport_request", self.ofport_request, 1, MAX_OFPORT)
        _check_range(f"{where} ingress_policing_rate", self.ingress_policing_rate, 0, MAX_INT)
        _check_range(f"{where} ingress_policing_burst", self.ingress_policing_burst, 0, MAX_INT)
        _check_range(f"{where} ingress_policing_kpkts_rate", self.ingress_policing_kpkts_rate, 0, MAX_INT)
        _check_range(f"{where} ingress_policing_kpkts_burst", self.ingress_policing_kpkts_burst, 0, MAX_INT)
        _check_range(f"{where} cfm_mpid", self.cfm_mpid, 1, 8191)


class Port(msgspec.Struct, frozen=True):
    """A port of a bridge: one interface, or several that make a bond. Without `interfaces`: one of the port's name."""

    name: str
    interfaces: tuple[Interface, ...] = ()
    tag: int | None = None
    trunks: frozenset[int] = frozenset()
    cvlans: frozenset[int] = frozenset()
    vlan_mode: VlanMode | None = None
    bond_mode: PortBondMode | None = None
    bond_updelay: int = 0  # ms
    bond_downdelay: int = 0  # ms
    lacp: Lacp | None = None
    mac: str | None = None
    protected: bool = False
    qos: Qos | None = None
    other_config: Mapping[str, str] = msgspec.field(default_factory=dict)
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("Port", self.name)
        if not self.interfaces:
            msgspec.structs.force_setattr(self, "interfaces", (Interface(self.name),))
        where = f"Port {self.name!r}"
        _check_unique(f"{where} interfaces", (interface.name for interface in self.interfaces))
        for tag in (self.tag, *self.trunks, *self.cvlans):
            _check_range(f"{where} VLAN", tag, 0, 4095)
        _check_range(f"{where} bond_updelay", self.bond_updelay, 0, MAX_INT)
        _check_range(f"{where} bond_downdelay", self.bond_downdelay, 0, MAX_INT)


class Mirror(msgspec.Struct, frozen=True):
    """Copies of a bridge's packets. Ports are named, and may be anybody's; those not there (yet) are left out."""

    name: str
    select_all: bool = False
    select_src_port: frozenset[str] = frozenset()
    select_dst_port: frozenset[str] = frozenset()
    select_vlan: frozenset[int] = frozenset()
    output_port: str | None = None
    output_vlan: int | None = None
    snaplen: int | None = None
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"Mirror {self.name!r}"
        for vlan in self.select_vlan:
            _check_range(f"{where} select_vlan", vlan, 0, 4095)
        _check_range(f"{where} output_vlan", self.output_vlan, 1, 4095)
        _check_range(f"{where} snaplen", self.snaplen, 14, 65535)
        if (self.output_port is None) == (self.output_vlan is None):
            raise ValueError(f"{where} needs either output_port or output_vlan")


class NetFlow(msgspec.Struct, frozen=True):
    """NetFlow v5 of a bridge; `active_timeout` in s, 0 for the default, -1 for never."""

    targets: frozenset[str]
    engine_type: int | None = None
    engine_id: int | None = None
    add_id_to_interface: bool = False
    active_timeout: int = 0
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_targets("NetFlow", self.targets)
        _check_range("NetFlow engine_type", self.engine_type, 0, 255)
        _check_range("NetFlow engine_id", self.engine_id, 0, 255)
        _check_range("NetFlow active_timeout", self.active_timeout, -1, MAX_INT)


class Sflow(msgspec.Struct, frozen=True):
    """sFlow of a bridge: one packet in `sampling`; counters each `polling` s; `header` bytes; `agent` a device."""

    targets: frozenset[str]
    sampling: int | None = None
    polling: int | None = None
    header: int | None = None
    agent: str | None = None
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_targets("sFlow", self.targets)
        for name in ("sampling", "polling", "header"):
            _check_range(f"sFlow {name}", getattr(self, name), 0, MAX_INT)


class Ipfix(msgspec.Struct, frozen=True):
    """IPFIX of a bridge: one packet in `sampling`; `cache_active_timeout` in s."""

    targets: frozenset[str]
    sampling: int | None = None
    obs_domain_id: int | None = None
    obs_point_id: int | None = None
    cache_active_timeout: int | None = None
    cache_max_flows: int | None = None
    other_config: Mapping[str, str] = msgspec.field(default_factory=dict)
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_targets("IPFIX", self.targets)
        _check_range("IPFIX sampling", self.sampling, 1, 2**32 - 1)
        _check_range("IPFIX obs_domain_id", self.obs_domain_id, 0, 2**32 - 1)
        _check_range("IPFIX obs_point_id", self.obs_point_id, 0, 2**32 - 1)
        _check_range("IPFIX cache_active_timeout", self.cache_active_timeout, 0, 4200)
        _check_range("IPFIX cache_max_flows", self.cache_max_flows, 0, 2**32 - 1)


class SampleSet(msgspec.Struct, frozen=True):
    """The IPFIX collectors of what a bridge's flows sample by the number `id`. Of `ipfix` its sampling, domain and point do not count there."""

    id: int
    ipfix: Ipfix
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_range("collector set", self.id, 0, 2**32 - 1)


class Controller(msgspec.Struct, frozen=True):
    """An OpenFlow controller of a bridge, by its target; times in ms."""

    target: str
    type: ControllerType | None = None
    connection_mode: ConnectionMode | None = None
    max_backoff: int | None = None
    inactivity_probe: int | None = None
    enable_async_messages: bool | None = None
    controller_rate_limit: int | None = None
    controller_burst_limit: int | None = None
    controller_queue_size: int | None = None
    other_config: Mapping[str, str] = msgspec.field(default_factory=dict)
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_targets("Controller", (self.target,))
        where = f"Controller {self.target!r}"
        _check_range(f"{where} max_backoff", self.max_backoff, 1000, MAX_INT)
        _check_range(f"{where} inactivity_probe", self.inactivity_probe, 0, MAX_INT)
        _check_range(f"{where} controller_rate_limit", self.controller_rate_limit, 100, MAX_INT)
        _check_range(f"{where} controller_burst_limit", self.controller_burst_limit, 25, MAX_INT)
        _check_range(f"{where} controller_queue_size", self.controller_queue_size, 1, 512)


class Manager(msgspec.Struct, frozen=True):
    """An OVSDB manager of the whole switch, by its target; times in ms."""

    target: str
    connection_mode: ConnectionMode | None = None
    max_backoff: int | None = None
    inactivity_probe: int | None = None
    other_config: Mapping[str, str] = msgspec.field(default_factory=dict)
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_targets("Manager", (self.target,))
        where = f"Manager {self.target!r}"
        _check_range(f"{where} max_backoff", self.max_backoff, 1000, MAX_INT)
        _check_range(f"{where} inactivity_probe", self.inactivity_probe, 0, MAX_INT)


class Bridge(msgspec.Struct, frozen=True):
    """A bridge of ours. Its local port (the port of its name) is implied unless `ports` says how it should be."""

    name: str
    ports: tuple[Port, ...] = ()
    datapath_type: str = "netdev"
    fail_mode: FailMode | None = FailMode.SECURE
    protocols: frozenset[OpenFlow] = frozenset()
    controllers: tuple[Controller, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    netflow: NetFlow | None = None
    sflow: Sflow | None = None
    ipfix: Ipfix | None = None
    sample_sets: tuple[SampleSet, ...] = ()
    stp_enable: bool = False
    rstp_enable: bool = False
    mcast_snooping_enable: bool = False
    flood_vlans: frozenset[int] = frozenset()
    other_config: Mapping[str, str] = msgspec.field(default_factory=dict)
    external_ids: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("Bridge", self.name)
        where = f"Bridge {self.name!r}"
        _check_unique(f"{where} controllers", (controller.target for controller in self.controllers))
        _check_unique(f"{where} mirrors", (mirror.name for mirror in self.mirrors))
        _check_unique(f"{where} collector sets", (str(sample_set.id) for sample_set in self.sample_sets))
        for vlan in self.flood_vlans:
            _check_range(f"{where} flood_vlans", vlan, 0, 4095)
        local = [port for port in self.ports if port.name == self.name]
        if not local:
            msgspec.structs.force_setattr(self, "ports", (internal_port(self.name), *self.ports))
        elif [(i.name, i.type) for i in local[0].interfaces] != [(self.name, "internal")]:
            raise ValueError(f"{where}: its local port has one interface of its name, of type internal")


class Attachment(msgspec.Struct, frozen=True):
    """Ports and controllers of ours on a bridge that is not ours, such as a patch port on somebody's uplink bridge."""

    bridge: str
    ports: tuple[Port, ...]
    controllers: tuple[Controller, ...] = ()


class VSwitch(msgspec.Struct, frozen=True):
    """All rows that one owner wants in one Open vSwitch. Rows that the owner has there and that are not in here are removed."""

    bridges: tuple[Bridge, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    managers: tuple[Manager, ...] = ()

    def __post_init__(self) -> None:
        holders: tuple[Bridge | Attachment, ...] = (*self.bridges, *self.attachments)
        ports = [port for holder in holders for port in holder.ports]
        _check_unique("VSwitch bridges", [*(b.name for b in self.bridges), *(a.bridge for a in self.attachments)])
        _check_unique("VSwitch ports", (port.name for port in ports))
        _check_unique("VSwitch interfaces", (i.name for port in ports for i in port.interfaces))
        _check_unique("VSwitch managers", (manager.target for manager in self.managers))


def internal_port(name: str, *, mtu_request: int | None = None) -> Port:
    """A port the host itself can use: a device of that name appears on it."""
    return Port(name, (Interface(name, type="internal", mtu_request=mtu_request),))


def patch_port(name: str, peer: str) -> Port:
    """One end of a pair of patch ports; the other is `patch_port(peer, name)`."""
    return Port(name, (Interface(name, type="patch", options={"peer": peer}),))


def tunnel_port(name: str, type: str, *, remote_ip: str = "flow", key: str = "flow", **options: str) -> Port:
    """A tunnel port (`vxlan`, `geneve`, `gre`, ...) whose remote and key the flows choose, unless named here."""
    return Port(name, (Interface(name, type=type, options={"remote_ip": remote_ip, "key": key, **options}),))


def _check_name(noun: str, name: str) -> None:
    # ovs-vswitchd refuses '/' in a bridge's name, since it makes files named after it.
    if not name or "/" in name or not name.isprintable() or " " in name:
        raise ValueError(f"{noun} name {name!r}: want one or more printable characters without space or '/'")


def _check_range(subject: str, number: int | None, low: int, high: int) -> None:
    if number is not None and not low <= number <= high:
        raise ValueError(f"{subject}: {number} is not in {low}..{high}")


def _check_unique(subject: str, names: Iterable[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{subject}: named twice: {', '.join(twice)}")


def _check_targets(noun: str, targets: Iterable[str]) -> None:
    if not list(targets) or not all(targets):
        raise ValueError(f"{noun}: needs a target, such as tcp:192.0.2.1:6653")
