"""The controller's API in Python, blocking and asyncio, typed: for toolstacks and scripts.

with Client("unix:/run/vnet/controller.sock") as client:
    client.put_vif("web1/0", VifSpec(network="prod", vm="web1"))
    client.migrate(Unit.of_vm("web1"), "xen3")
"""

# --- generated: begin
from vnet.api import (
    ExpectationChange,
    ExpectationSpec,
    HostChange,
    HostSpec,
    NetworkChange,
    NetworkSpec,
    NewExpectation,
    NewVif,
    QosClassChange,
    QosClassSpec,
    Rule,
    SecurityGroupChange,
    SecurityGroupSpec,
    SubnetChange,
    SubnetSpec,
    Uplink,
    VifChange,
    VifSpec,
    VmChange,
    VmSpec,
)

# --- generated: end
from vnet.client.aio import AsyncClient
from vnet.client.blocking import Client
from vnet.client.errors import (
    BadAnswer,
    ClientError,
    Conflict,
    Invalid,
    NotFound,
    Refused,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from vnet.client.requests import Unit

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "Client",
    "ClientError",
    "Conflict",
    "Invalid",
    "NotFound",
    "Refused",
    "TimedOut",
    "Unauthorized",
    "Unit",
    "Unreachable",
]
# --- generated: begin
__all__ += [
    "ExpectationChange",
    "ExpectationSpec",
    "HostChange",
    "HostSpec",
    "NetworkChange",
    "NetworkSpec",
    "NewExpectation",
    "NewVif",
    "QosClassChange",
    "QosClassSpec",
    "Rule",
    "SecurityGroupChange",
    "SecurityGroupSpec",
    "SubnetChange",
    "SubnetSpec",
    "Uplink",
    "VifChange",
    "VifSpec",
    "VmChange",
    "VmSpec",
]
# --- generated: end
