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


class Protocol(Enum):
    """The protocols that expectations, policy and probes distinguish."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


class IcmpType(Enum):
    """The ICMP messages that begin a conversation in Open vSwitch's connection tracker. Answers and errors belong to one."""

    ECHO_REQUEST = "echo-request"
    TIMESTAMP_REQUEST = "timestamp-request"


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

    @property
    def moving(self) -> bool:
        """Whether the VIF is on its way to the host, and another may still run it."""
        return self in (BindingState.HELD, BindingState.RECEIVING)
