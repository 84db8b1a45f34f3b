"""The deliveries of a frame: the same value as the simulator's, so that one test runs on either."""

from vnet.sim.deliveries import Deliveries, Delivery, Station, frames_of

__all__ = ["Deliveries", "Delivery", "Station", "frames_of"]
