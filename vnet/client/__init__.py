"""The controller's API in Python, blocking and asyncio, typed: what a toolstack or a script holds.

with Client("unix:/run/vnet/controller.sock") as client:
    client.put_vif("web1/0", VifSpec(network="prod", vm="web1"))
    client.migrate(Unit.of_vm("web1"), "xen3")
"""

from vnet.api import HostSpec, NetworkSpec, NewVif, Rule, SecurityGroupSpec, VifSpec, VmSpec
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
    "HostSpec",
    "Invalid",
    "NetworkSpec",
    "NewVif",
    "NotFound",
    "Refused",
    "Rule",
    "SecurityGroupSpec",
    "TimedOut",
    "Unauthorized",
    "Unit",
    "Unreachable",
    "VifSpec",
    "VmSpec",
]
