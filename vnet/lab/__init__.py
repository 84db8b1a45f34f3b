"""Pools on one machine: hosts with real Open vSwitch, their network, their VMs, and the deliveries of each frame that is sent.

A name of this package loads its module when it is first used: the packet bridge, which each lab starts, needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vnet.lab.deliveries import Deliveries, Delivery, Station
    from vnet.lab.errors import CommandFailed, LabError, LabExists, LabUnsupported, NoSuchLab, NotInLab, WiresError
    from vnet.lab.lab import Lab, remove
    from vnet.lab.spec import Driver, labs
    from vnet.lab.streams import Received, RunningStream, StreamReport

_NAMES = {
    "deliveries": ("Deliveries", "Delivery", "Station"),
    "errors": ("CommandFailed", "LabError", "LabExists", "LabUnsupported", "NoSuchLab", "NotInLab", "WiresError"),
    "lab": ("Lab", "remove"),
    "spec": ("Driver", "labs"),
    "streams": ("Received", "RunningStream", "StreamReport"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'vnet.lab' has no attribute {name!r}")
    return getattr(import_module(f"vnet.lab.{module}"), name)
