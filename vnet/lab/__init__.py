"""Pools on one machine: hosts with real Open vSwitch, their network, their VMs, and what came out when something was sent."""

from vnet.lab.deliveries import Deliveries, Delivery, Station
from vnet.lab.errors import (
    CommandFailed,
    LabError,
    LabExists,
    LabUnsupported,
    NoSuchLab,
    NotInLab,
    WiresError,
)
from vnet.lab.lab import Lab, remove
from vnet.lab.spec import Driver, labs
from vnet.lab.streams import Received, RunningStream, StreamReport

__all__ = [
    "CommandFailed",
    "Deliveries",
    "Delivery",
    "Driver",
    "Lab",
    "LabError",
    "LabExists",
    "LabUnsupported",
    "NoSuchLab",
    "NotInLab",
    "Received",
    "RunningStream",
    "Station",
    "StreamReport",
    "WiresError",
    "labs",
    "remove",
]
