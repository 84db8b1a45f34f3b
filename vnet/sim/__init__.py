"""The digital twin of a pool: packets through the compiled flows of every host, in memory.

What is named here is loaded when it is first used: the lab takes its `Deliveries` from here, and no simulator with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vnet.sim.deliveries import Deliveries, Delivery, Loss, Station, frames_of
    from vnet.sim.errors import Looped, NotPlugged, PacketError, SimError, UnknownName, Unsupported
    from vnet.sim.pool import SimPool
    from vnet.sim.switch import Emitted, PacketIn, Port, Switch
    from vnet.sim.translate import Tunnel

_WHERE = {
    "deliveries": ("Deliveries", "Delivery", "Loss", "Station", "frames_of"),
    "errors": ("Looped", "NotPlugged", "PacketError", "SimError", "UnknownName", "Unsupported"),
    "pool": ("SimPool",),
    "switch": ("Emitted", "PacketIn", "Port", "Switch"),
    "translate": ("Tunnel",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Deliveries",
    "Delivery",
    "Emitted",
    "Looped",
    "Loss",
    "NotPlugged",
    "PacketError",
    "PacketIn",
    "Port",
    "SimError",
    "SimPool",
    "Station",
    "Switch",
    "Tunnel",
    "UnknownName",
    "Unsupported",
    "frames_of",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'vnet.sim' has no attribute {name!r}")
    return getattr(import_module(f"vnet.sim.{module}"), name)
