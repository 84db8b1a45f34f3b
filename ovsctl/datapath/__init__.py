"""Open vSwitch's userspace datapath in memory: OpenFlow tables, groups and the connection tracker, applied to frames."""

from ovsctl.datapath.conntrack import Tracker
from ovsctl.datapath.errors import DatapathError, FrameError, UnsupportedFlowError
from ovsctl.datapath.switch import Emitted, PacketIn, Port, Switch
from ovsctl.datapath.xlate import Passed, Tunnel

__all__ = [
    "DatapathError",
    "Emitted",
    "FrameError",
    "PacketIn",
    "Passed",
    "Port",
    "Switch",
    "Tracker",
    "Tunnel",
    "UnsupportedFlowError",
]
