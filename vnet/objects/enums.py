"""Words of which one is chosen: modes, states, owners."""

from __future__ import annotations

from enum import Enum


class LockingMode(Enum):
    """The frames that a VIF may send: as its own MAC and addresses only, anything, or nothing (and receive nothing)."""

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
    """The fields by which an LACP bond spreads its frames."""

    SOURCE_MAC = "source-mac"
    TCPUDP_PORTS = "tcpudp-ports"


class LldpMode(Enum):
    """Whether a host does more or less by LLDP (802.1AB) than to hear which switch ports its NICs are at: nothing, or tell the switch of itself as well."""

    OFF = "off"
    SEND = "send"


class Encryption(Enum):
    """Whether frames between hosts are encrypted; there is no word for "if possible"."""

    REQUIRED = "required"


class Protocol(Enum):
    """The protocols that expectations, policy and probes distinguish."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


class IcmpType(Enum):
    """The ICMP messages that rules name. Those that begin a conversation in Open vSwitch's connection tracker are for any group; answers and
    errors, which belong to a conversation there, for one that does not track."""

    ECHO_REQUEST = "echo-request"
    TIMESTAMP_REQUEST = "timestamp-request"
    ECHO_REPLY = "echo-reply"
    TIMESTAMP_REPLY = "timestamp-reply"
    DESTINATION_UNREACHABLE = "destination-unreachable"
    PACKET_TOO_BIG = "packet-too-big"
    TIME_EXCEEDED = "time-exceeded"
    PARAMETER_PROBLEM = "parameter-problem"

    @property
    def begins(self) -> bool:
        """Whether it begins a conversation."""
        return self in (IcmpType.ECHO_REQUEST, IcmpType.TIMESTAMP_REQUEST)


class Owner(Enum):
    """The maker of an object: `apply` takes away what the document no longer has, and only that."""

    DOCUMENT = "document"
    TOOLSTACK = "toolstack"


class BindingState(Enum):
    """The state of a VIF's port on one host.

    awaited: both, once it is there: it has not come yet, or has gone. On the way here from another host, held: nothing in,
    nothing out but the announcement; receiving: in. active: both.
    """

    AWAITED = "awaited"
    HELD = "held"
    RECEIVING = "receiving"
    ACTIVE = "active"

    def __init__(self, word: str) -> None:
        # Whether the VIF is on its way to the host, and another may still run it.
        self.moving = word in ("held", "receiving")


class TagType(Enum):
    """The Ethernet type of a VLAN tag (802.1Q-2018 table 9-1)."""

    CUSTOMER = "0x8100"
    SERVICE = "0x88a8"
