"""The objects of a pool: each is declared once, in its own module, as a frozen value that is valid by construction.

Objects refer to each other by name (a VIF by its id), as in the document, the API and the pool database: the same word finds
the same thing everywhere, and a reference can be written before its target is read.
"""

from vnet.grammar.declare import InvalidValue
from vnet.objects.address_set import AddressSet
from vnet.objects.binding import AgentStatus, Binding, Event, Location
from vnet.objects.carriers import NetworkType, Way
from vnet.objects.encryption import TunnelKey
from vnet.objects.enums import (
    BindingState,
    BondHash,
    BondMode,
    Encryption,
    IcmpType,
    LacpTime,
    LldpMode,
    LockingMode,
    Owner,
    Protocol,
)
from vnet.objects.expectation import Expectation, Reach
from vnet.objects.flow_collector import FlowCollector, FlowProtocol
from vnet.objects.host import Host, Uplink
from vnet.objects.mirror import FrameMirror, MirrorDirection, MirrorPoint, MirrorTarget, TargetType
from vnet.objects.mtu import default_mtu, mtu_arithmetic, mtu_capacity, overhead_bytes
from vnet.objects.network import Network
from vnet.objects.plug_bridge import PlugBridge
from vnet.objects.pool import Pool
from vnet.objects.qos import QosClass
from vnet.objects.security import Direction, PolicyMode, Rule, SecurityGroup, Verdict
from vnet.objects.state import PoolState
from vnet.objects.subnet import Subnet
from vnet.objects.values import PortRange, Trunk
from vnet.objects.vif import Vif
from vnet.objects.vm import Vm

__all__ = [
    "AddressSet",
    "AgentStatus",
    "Binding",
    "BindingState",
    "BondHash",
    "BondMode",
    "Direction",
    "Encryption",
    "Event",
    "Expectation",
    "FlowCollector",
    "FlowProtocol",
    "FrameMirror",
    "Host",
    "IcmpType",
    "InvalidValue",
    "LacpTime",
    "LldpMode",
    "Location",
    "LockingMode",
    "MirrorDirection",
    "MirrorPoint",
    "MirrorTarget",
    "Network",
    "NetworkType",
    "Owner",
    "PlugBridge",
    "PolicyMode",
    "Pool",
    "PoolState",
    "PortRange",
    "Protocol",
    "QosClass",
    "Reach",
    "Rule",
    "SecurityGroup",
    "Subnet",
    "TargetType",
    "Trunk",
    "TunnelKey",
    "Uplink",
    "Verdict",
    "Vif",
    "Vm",
    "Way",
    "default_mtu",
    "mtu_arithmetic",
    "mtu_capacity",
    "overhead_bytes",
]
