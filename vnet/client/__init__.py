"""The controller's API in Python, blocking and asyncio, typed: for toolstacks and scripts.

with Client("unix:/run/vnet/controller.sock") as client:
    client.put_vif("web1/0", VifSpec(network="prod", vm="web1"))
    client.migrate(Unit.of_vm("web1"), "xen3")
"""

# --- generated: begin
from vnet.api import (
    AddressSetChange,
    AddressSetSpec,
    ExpectationChange,
    ExpectationSpec,
    FlowCollectorChange,
    FlowCollectorSpec,
    FrameMirrorChange,
    FrameMirrorSpec,
    HostChange,
    HostSpec,
    Identity,
    NetworkChange,
    NetworkSpec,
    NewExpectation,
    NewVif,
    PlugBridgeChange,
    PlugBridgeSpec,
    QosClassChange,
    QosClassSpec,
    Rule,
    SecurityGroupChange,
    SecurityGroupSpec,
    SubnetChange,
    SubnetSpec,
    Unit,
    Uplink,
    VifChange,
    VifSpec,
    VmChange,
    VmSpec,
)

# --- generated: end
from vnet.api.errors import (
    BadAnswer,
    ClientError,
    Conflict,
    Forbidden,
    Invalid,
    NoRoom,
    NotFound,
    PreconditionFailed,
    Refused,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from vnet.client.aio import AsyncClient
from vnet.client.blocking import Client

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "Client",
    "ClientError",
    "Conflict",
    "Forbidden",
    "Invalid",
    "NoRoom",
    "NotFound",
    "PreconditionFailed",
    "Refused",
    "TimedOut",
    "Unauthorized",
    "Unreachable",
]
# --- generated: begin
__all__ += [
    "AddressSetChange",
    "AddressSetSpec",
    "ExpectationChange",
    "ExpectationSpec",
    "FlowCollectorChange",
    "FlowCollectorSpec",
    "FrameMirrorChange",
    "FrameMirrorSpec",
    "HostChange",
    "HostSpec",
    "Identity",
    "NetworkChange",
    "NetworkSpec",
    "NewExpectation",
    "NewVif",
    "PlugBridgeChange",
    "PlugBridgeSpec",
    "QosClassChange",
    "QosClassSpec",
    "Rule",
    "SecurityGroupChange",
    "SecurityGroupSpec",
    "SubnetChange",
    "SubnetSpec",
    "Unit",
    "Uplink",
    "VifChange",
    "VifSpec",
    "VmChange",
    "VmSpec",
]
# --- generated: end
