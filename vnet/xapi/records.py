"""The records of XenAPI that are followed, as values. Whatever xapi answers is judged here.

One rule: a record that cannot be read costs itself only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

NULL = "OpaqueRef:NULL"
# Keys of a network's other_config by which it is one of vnet's (`vnet xapi publish`).
POOL_KEY, NETWORK_KEY = "vnet-pool", "vnet-network"
# of a network that is being taken over or given back: VIFs of it become vnet's, or xapi's again, one by one, and not by following.
GOING_KEY = "vnet-take-over"
GROUPS_KEY = "vnet-security-groups"  # of a VIF's other_config: names, with commas
HOST_KEY = "vnet-host"  # of a host's other_config: its name in vnet, if that is not its hostname


class UnreadableRecord(ValueError):
    """A record that xapi should not have."""


class XenHost(msgspec.Struct, frozen=True):
    """A host, as far as it is followed."""

    uuid: str
    hostname: str
    address: str
    other_config: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The host's name in vnet."""
        return self.other_config.get(HOST_KEY) or self.hostname


class XenNetwork(msgspec.Struct, frozen=True):
    """A network, as far as it is followed."""

    uuid: str
    name_label: str
    bridge: str
    default_locking_mode: str
    mtu: int = msgspec.field(name="MTU", default=1500)
    managed: bool = True  # whether its bridge is xapi's
    other_config: dict[str, str] = {}

    def published_from(self, pool: str) -> str:
        """The network of that pool of vnet that it is, "" if it is none."""
        return self.other_config.get(NETWORK_KEY, "") if self.other_config.get(POOL_KEY) == pool else ""

    @property
    def is_going(self) -> bool:
        """Whether it is being taken over, or given back."""
        return GOING_KEY in self.other_config


class XenVm(msgspec.Struct, frozen=True):
    """A VM, as far as it is followed."""

    uuid: str
    name_label: str
    power_state: str
    resident_on: str
    scheduled_to_be_resident_on: str
    tags: tuple[str, ...] = ()
    is_a_template: bool = False
    is_a_snapshot: bool = False
    is_control_domain: bool = False

    @property
    def live(self) -> bool:
        """Whether it has a domain."""
        return self.power_state in ("Running", "Paused")

    @property
    def is_followed(self) -> bool:
        """Whether it is a VM that runs, and not what others are made of."""
        return not (self.is_a_template or self.is_a_snapshot or self.is_control_domain)


class XenVif(msgspec.Struct, frozen=True):
    """A VIF, as far as it is followed."""

    uuid: str
    device: int
    network: str
    locking_mode: str
    vm: str = msgspec.field(name="VM")
    mac: str = msgspec.field(name="MAC")
    ipv4_allowed: tuple[str, ...] = ()
    ipv6_allowed: tuple[str, ...] = ()
    trunks: tuple[int, ...] = ()
    qos_algorithm_type: str = ""
    qos_algorithm_params: dict[str, str] = {}
    other_config: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not (self.rate or "1").isdecimal():
            raise ValueError(f"qos_algorithm_params:kbps is {self.rate[:20]!r}")

    @property
    def rate(self) -> str:
        """Kilobytes of 1,024 bytes a second from the VM (xenopsd's `kbps`), "" for no limit."""
        return self.qos_algorithm_params.get("kbps", "") if self.qos_algorithm_type == "ratelimit" else ""

    @property
    def groups(self) -> tuple[str, ...]:
        names = self.other_config.get(GROUPS_KEY, "").split(",")
        return tuple(name.strip() for name in names if name.strip())


Found: TypeAlias = XenHost | XenNetwork | XenVm | XenVif
TYPES: Mapping[str, type[Found]] = {"host": XenHost, "network": XenNetwork, "vif": XenVif, "vm": XenVm}


class XapiEvent(msgspec.Struct, frozen=True):
    """An object that came, changed (snapshot: its record), or went."""

    table: str = msgspec.field(name="class")
    operation: str
    ref: str
    snapshot: Any = None


class EventBatch(msgspec.Struct, frozen=True):
    """The answer of event.from. valid_ref_counts: how many objects of each class there are."""

    events: list[XapiEvent]
    token: str
    valid_ref_counts: dict[str, int] = {}


def read(table: str, record: object) -> Found:
    """A record of a class that is followed as its value. Raises UnreadableRecord."""
    return read_as(TYPES[table], record)


def read_as(struct: type[S], record: object) -> S:
    """A record as a value. Raises UnreadableRecord."""
    try:
        return msgspec.convert(record, struct, strict=False)  # an int64 travels as a text
    except msgspec.ValidationError as error:
        raise UnreadableRecord(str(error)) from None
