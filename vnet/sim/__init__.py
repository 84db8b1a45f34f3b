"""The digital twin of a pool: packets through the compiled flows of every host, in memory."""

from vnet.sim.deliveries import Deliveries, Delivery, Loss, Station, frames_of
from vnet.sim.errors import Looped, NotPlugged, PacketError, SimError, UnknownName, Unsupported
from vnet.sim.pool import SimPool
from vnet.sim.switch import Emitted, PacketIn, Port, Switch
from vnet.sim.translate import Tunnel

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
