"""The digital twin of a pool: packets through the compiled flows of every host, in memory.

A name of this package loads its module when it is first used: the lab uses `Deliveries` without the simulator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vnet.sim.deliveries import Deliveries, Delivery, Loss, Station, frames_of
    from vnet.sim.errors import AmbiguousVif, GuestPaused, Looped, NotPlugged, PacketError, SimError, UnknownName
    from vnet.sim.pool import SimPool

_NAMES = {
    "deliveries": ("Deliveries", "Delivery", "Loss", "Station", "frames_of"),
    "errors": ("AmbiguousVif", "GuestPaused", "Looped", "NotPlugged", "PacketError", "SimError", "UnknownName"),
    "pool": ("SimPool",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "AmbiguousVif",
    "Deliveries",
    "Delivery",
    "GuestPaused",
    "Looped",
    "Loss",
    "NotPlugged",
    "PacketError",
    "SimError",
    "SimPool",
    "Station",
    "UnknownName",
    "frames_of",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'vnet.sim' has no attribute {name!r}")
    return getattr(import_module(f"vnet.sim.{module}"), name)
