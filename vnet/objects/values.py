"""The objects of a pool, as frozen values. A value that exists is valid: constructors refuse the rest.

Objects refer to each other by name (a VIF by its id), as in the document, the API and the pool database:
the same word finds the same thing everywhere, and a reference can be written before its target is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address, ip_network

from vnet.objects.carriers import Carrier, NetworkType

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
VIF_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

# A bridge is named br-<uplink>, and a Linux device name has at most 15 bytes (IFNAMSIZ - 1).
UPLINK_NAME_MAX = 12
DEVICE_NAME_MAX = 15
MIN_MTU, MAX_MTU = 576, 9216
MAX_NETWORK_NUMBER = 2**24 - 1  # below any VLAN segment of the pipeline
MAX_TAG = 4094  # 802.1Q: 4095 is reserved, 0 means "no VLAN"
# ovs-vswitchd gives ports numbers below these by itself, and these only to whom asks (ovs-vswitchd.conf.db(5), ofport_request).
MIN_RESERVED_OFPORT, MAX_RESERVED_OFPORT = 32768, 65279


class InvalidValue(ValueError):
    """A value that no pool may hold. `field` names the attribute at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class LockingMode(Enum):
    """What a VIF may send: as its own MAC and addresses only, anything, or nothing (and receive nothing)."""

    LOCKED = "locked"
    UNLOCKED = "unlocked"
    DISABLED = "disabled"


class BondMode(Enum):
    ACTIVE_BACKUP = "active-backup"
    BALANCE_SLB = "balance-slb"
    LACP = "lacp"


class LacpTime(Enum):
    SLOW = "slow"  # a LACPDU every 30 s (802.1AX-2020 §6.4.4)
    FAST = "fast"  # every 1 s


class BondHash(Enum):
    """What an LACP bond spreads its frames by."""

    SOURCE_MAC = "source-mac"
    TCPUDP_PORTS = "tcpudp-ports"


class Protocol(Enum):
    """What expectations, policy and probes tell packets apart by."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


class Owner(Enum):
    """Who made an object: `apply` takes away what the document no longer has, and only that."""

    DOCUMENT = "document"
    TOOLSTACK = "toolstack"


class BindingState(Enum):
    """What a VIF's port on one host may do.

    awaited: both, once it is there: it has not come yet, or has gone. On the way here from another host, held: nothing in,
    nothing out but the announcement; receiving: in. active: both.
    """

    AWAITED = "awaited"
    HELD = "held"
    RECEIVING = "receiving"
    ACTIVE = "active"

    @property
    def moving(self) -> bool:
        """Whether the VIF is on its way to the host, and another may still run it."""
        return self in (BindingState.HELD, BindingState.RECEIVING)


def check_name(where: str, value: str) -> None:
    if not NAME.fullmatch(value):
        raise InvalidValue(where, f"{value!r} is no name: letters, digits, '.', '_', '-', at most 63, no '-' at an end")


def check_range(where: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidValue(where, f"{value} is outside {low}..{high}")


def _mac(where: str, value: str) -> None:
    if not MAC.fullmatch(value):
        raise InvalidValue(
            where, f"{value!r} is no MAC address: six lower-case hexadecimal pairs, as 0a:00:00:00:00:01"
        )
    if int(value[:2], 16) & 1:
        raise InvalidValue(where, f"{value} is a multicast address: a VIF needs a unicast one (first byte even)")
    if value == "00:00:00:00:00:00":
        raise InvalidValue(where, f"{value} is reserved")


def _address(where: str, value: str) -> None:
    try:
        canonical = str(ip_address(value))
    except ValueError:
        raise InvalidValue(where, f"{value!r} is no IPv4 or IPv6 address") from None
    if canonical != value:
        raise InvalidValue(where, f"write {value!r} as {canonical}")


@dataclass(frozen=True, slots=True)
class Uplink:
    """A host's way to the physical network: one NIC, or several as a bond. `mtu` is in bytes, None for the NIC's own.

    members are kept in alphabetical order, so that equal uplinks are equal values.
    """

    name: str
    members: tuple[str, ...]
    mode: BondMode | None = None
    lacp_time: LacpTime = LacpTime.SLOW
    hash: BondHash = BondHash.SOURCE_MAC
    mtu: int | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if len(self.name) > UPLINK_NAME_MAX:
            raise InvalidValue("name", f"{self.name!r} is longer than {UPLINK_NAME_MAX}: its bridge is br-{self.name}")
        if self.name == "int":
            raise InvalidValue("name", "'int' would make its bridge br-int, which is the pool's own")
        if not self.members:
            raise InvalidValue("members", "an uplink needs a NIC")
        for nic in self.members:
            if not 0 < len(nic) <= DEVICE_NAME_MAX or not NAME.fullmatch(nic):
                raise InvalidValue("members", f"{nic!r} is no device name")
        if tuple(sorted(set(self.members))) != self.members:
            raise InvalidValue("members", "NICs stand once each, in order")
        if self.mode is not None and len(self.members) < 2:
            raise InvalidValue(
                "members", f"a bond ({self.mode.value}) needs at least two NICs; for one, leave out 'mode'"
            )
        if self.mode is None and len(self.members) > 1:
            raise InvalidValue("mode", f"{len(self.members)} NICs are a bond: say 'mode'")
        if self.mtu is not None:
            check_range("mtu", self.mtu, MIN_MTU, MAX_MTU)


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool itself. Every configuration write raises `revision`; an apply also raises `generation`, which agents acknowledge."""

    name: str
    underlay_mtu: int = 1500
    locking_mode: LockingMode = LockingMode.LOCKED
    revision: int = 0
    generation: int = 0

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_range("underlay_mtu", self.underlay_mtu, MIN_MTU, MAX_MTU)


@dataclass(frozen=True, slots=True)
class Host:
    """A virtualization host. `address` is its tunnel endpoint (VTEP), None where no tunnel network may reach it."""

    name: str
    address: str | None = None
    uplinks: tuple[Uplink, ...] = ()
    owner: Owner = Owner.DOCUMENT

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if self.address is not None:
            _address("address", self.address)
        used: set[str] = set()
        for uplink in self.uplinks:
            if twice := used.intersection(uplink.members):
                raise InvalidValue("uplinks", f"NIC {min(twice)} is used twice")
            used.update(uplink.members)

    def uplink(self, name: str) -> Uplink | None:
        return next((uplink for uplink in self.uplinks if uplink.name == name), None)


@dataclass(frozen=True, slots=True)
class Network:
    """A layer 2 network of the pool.

    number: 1..2^24-1, unique in the pool. key: what tunnels carry: the VNI, the GRE key, and on a VLAN network the Geneve VNI
    of the relay that migrations use; None on an internal one. tag: 1..4094, 0 for untagged, VLAN networks only.
    hosts: where it may be; empty means everywhere. mtu: bytes, what a VM may use.
    """

    name: str
    type: NetworkType
    number: int
    mtu: int
    key: int | None = None
    tag: int | None = None
    uplink: str | None = None
    hosts: frozenset[str] = frozenset()
    owner: Owner = Owner.DOCUMENT

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_range("number", self.number, 1, MAX_NETWORK_NUMBER)
        check_range("mtu", self.mtu, MIN_MTU, MAX_MTU)
        carrier = self.carrier
        if (self.key is None) != (carrier.encapsulation is None):
            raise InvalidValue("key", f"{self.type.value} networks need {'no' if self.key is not None else 'a'} key")
        if self.key is not None and carrier.encapsulation is not None:
            check_range("key", self.key, carrier.encapsulation.keys[0], carrier.encapsulation.max_key)
        for name, value in (("tag", self.tag), ("uplink", self.uplink)):
            if (value is not None) != (name in carrier.fields):
                verb = "have no" if value is not None else "need"
                raise InvalidValue(name, f"{self.type.value} networks {verb} {name}")
        if self.tag is not None:
            check_range("tag", self.tag, 0, MAX_TAG)

    @property
    def carrier(self) -> Carrier:
        return self.type.carrier

    def on(self, host: str) -> bool:
        """Whether the network may have VIFs on this host."""
        return not self.hosts or host in self.hosts


@dataclass(frozen=True, slots=True)
class Subnet:
    """An address range of a network; addresses that VIFs leave out are taken from it."""

    name: str
    network: str
    cidr: str
    gateway: str | None = None
    owner: Owner = Owner.DOCUMENT

    def __post_init__(self) -> None:
        check_name("name", self.name)
        try:
            net = ip_network(self.cidr)
        except ValueError as error:
            raise InvalidValue("cidr", f"{self.cidr!r}: {error}") from None
        if self.gateway is not None:
            _address("gateway", self.gateway)
            if ip_address(self.gateway) not in net:
                raise InvalidValue("gateway", f"{self.gateway} is not in {self.cidr}")


@dataclass(frozen=True, slots=True)
class Vm:
    """A virtual machine: a group of VIFs that moves as one. `host`: where it should run, None where the toolstack decides."""

    name: str
    host: str | None = None
    owner: Owner = Owner.DOCUMENT

    def __post_init__(self) -> None:
        check_name("name", self.name)


@dataclass(frozen=True, slots=True)
class Trunk:
    """The VLAN tags a VIF carries besides untagged frames. No tags means all of them."""

    tags: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for tag in self.tags:
            check_range("trunk", tag, 1, MAX_TAG)
        if tuple(sorted(set(self.tags))) != self.tags:
            raise InvalidValue("trunk", "tags stand once each, in order")


@dataclass(frozen=True, slots=True)
class Vif:
    """A VM's interface on a network, wherever the VM runs.

    id: what the OVS port says in external_ids:iface-id. host: where the toolstack wants it, None for wherever it is plugged.
    awaited: that host, and all others, program it before its port is there.
    incoming: the destination of a migration that was prepared and neither finished nor aborted.
    epoch: how many bindings the VIF has had; the next one takes epoch + 1.
    """

    id: str
    network: str
    mac: str
    vm: str | None = None
    index: int = 0
    addresses: tuple[str, ...] = ()
    locking_mode: LockingMode = LockingMode.LOCKED
    trunk: Trunk | None = None
    host: str | None = None
    incoming: str | None = None
    epoch: int = 0
    owner: Owner = Owner.DOCUMENT
    groups: tuple[str, ...] = ()
    awaited: bool = False

    def __post_init__(self) -> None:
        if not VIF_ID.fullmatch(self.id):
            raise InvalidValue("id", f"{self.id!r} is no VIF id: letters, digits and . _ : / -, at most 128")
        _mac("mac", self.mac)
        check_range("index", self.index, 0, 255)
        for address in self.addresses:
            _address("addresses", address)
        if tuple(sorted(set(self.addresses))) != self.addresses:
            raise InvalidValue("addresses", "addresses stand once each, in order")
        if tuple(sorted(set(self.groups))) != self.groups:
            raise InvalidValue("groups", "security groups stand once each, in order")
        if self.groups and self.trunk is not None:
            # Its tags share a connection tracking zone, where equal addresses on two of them would be one connection.
            raise InvalidValue("groups", "a trunk VIF cannot be in security groups")


@dataclass(frozen=True, slots=True)
class Binding:
    """A VIF on a host: the host's agent has claimed the port. Peers need no more than this row to reach the VIF.

    epoch orders a VIF's bindings: of the active ones the highest is where it runs; a higher one that is not active yet is a
    migration's destination. ready: the host's flows are in, answered by a barrier. acked: the hosts that have programmed
    this binding. since: milliseconds since 1970, of the last change of state. addresses and groups are the VIF's: rules of
    other VIFs on the network may name its groups. moved: it came here by a migration of late, so this host's connection
    tracking has not seen its TCP connections begin. ofport: the number that its port is to ask for, under which it is
    programmed while it is awaited; 0 for none.
    """

    vif: str
    host: str
    network: str
    mac: str
    epoch: int
    state: BindingState = BindingState.ACTIVE
    addresses: tuple[str, ...] = ()
    unlocked: bool = False
    ready: bool = False
    acked: frozenset[str] = frozenset()
    since: int = 0
    groups: tuple[str, ...] = ()
    moved: bool = False
    ofport: int = 0

    def __post_init__(self) -> None:
        if self.ofport:
            check_range("ofport", self.ofport, MIN_RESERVED_OFPORT, MAX_RESERVED_OFPORT)

    @property
    def plugged(self) -> bool:
        """Whether the VIF's port is on the host; else it is awaited there."""
        return self.state is not BindingState.AWAITED


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What a host's agent last said of itself. heartbeat and started: milliseconds since 1970.

    generation: the highest of the pool's that it has programmed. problems: object ("vif web1/0") to what is wrong with it.
    """

    host: str
    generation: int = 0
    heartbeat: int = 0
    started: int = 0
    version: str = ""
    ovs_version: str = ""
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. time: milliseconds since 1970; the object fields are empty where they do not apply."""

    time: int
    kind: str
    text: str
    host: str = ""
    network: str = ""
    vif: str = ""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a VIF is, derived from its bindings alone: never remembered."""

    current: Binding | None = None
    incoming: Binding | None = None
    superseded: tuple[Binding, ...] = ()

    @classmethod
    def of(cls, bindings: tuple[Binding, ...] | list[Binding]) -> Location:
        """The location that the bindings of one VIF amount to."""
        if len(bindings) == 1:  # as nearly all have
            return cls(None, bindings[0]) if bindings[0].state.moving else cls(bindings[0])
        ordered = sorted(bindings, key=lambda binding: binding.epoch, reverse=True)
        active = [binding for binding in ordered if not binding.state.moving]
        current = active[0] if active else None
        waiting = [b for b in ordered if b.state.moving and (current is None or b.epoch > current.epoch)]
        return cls(current, waiting[0] if waiting else None, tuple(active[1:]))
