"""Open vSwitch's userspace datapath in memory: OpenFlow tables, groups and the connection tracker, applied to frames."""

from ovsctl.datapath.bridge import Emitted, EmulatedBridge, PuntedFrame
from ovsctl.datapath.conntrack import Tracker
from ovsctl.datapath.errors import DatapathError, FrameError, UnsupportedFlowError
from ovsctl.datapath.meters import TokenBucketMeter
from ovsctl.datapath.ofproto import EmulatedPort
from ovsctl.datapath.xlate import Passed, Tunnel

__all__ = [
    "DatapathError",
    "Emitted",
    "EmulatedBridge",
    "EmulatedPort",
    "FrameError",
    "Passed",
    "PuntedFrame",
    "TokenBucketMeter",
    "Tracker",
    "Tunnel",
    "UnsupportedFlowError",
]
