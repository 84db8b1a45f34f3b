"""Declarative Open vSwitch: say what there should be, see what would change, change only that.

replica = await client.monitor(monitors(client.schema))
todo = plan(VSwitch(bridges=(Bridge("br-int"),)), replica)
await apply(client, todo.additions)
await apply(client, todo.removals)
"""

from ovsctl.vswitch.apply import Applied, Transactor, apply, transaction
from ovsctl.vswitch.changes import (
    AddRow,
    Change,
    ColumnChange,
    Conflict,
    MoveRow,
    Plan,
    Ref,
    RemoveRow,
    Unresolved,
    UpdateRow,
)
from ovsctl.vswitch.errors import IncompleteSnapshot, NotConfigured, VSwitchError
from ovsctl.vswitch.planner import plan
from ovsctl.vswitch.rows import RowId
from ovsctl.vswitch.snapshot import COLUMNS, Owner, Snapshot, monitors
from ovsctl.vswitch.values import (
    Attachment,
    BondMode,
    Bridge,
    ConnectionMode,
    Controller,
    FailMode,
    Interface,
    Ipfix,
    Lacp,
    Manager,
    Mirror,
    NetFlow,
    OpenFlow,
    Port,
    Qos,
    Queue,
    Sflow,
    VlanMode,
    VSwitch,
    internal_port,
    patch_port,
    tunnel_port,
)

__all__ = [
    "COLUMNS",
    "AddRow",
    "Applied",
    "Attachment",
    "BondMode",
    "Bridge",
    "Change",
    "ColumnChange",
    "Conflict",
    "ConnectionMode",
    "Controller",
    "FailMode",
    "IncompleteSnapshot",
    "Interface",
    "Ipfix",
    "Lacp",
    "Manager",
    "Mirror",
    "MoveRow",
    "NetFlow",
    "NotConfigured",
    "OpenFlow",
    "Owner",
    "Plan",
    "Port",
    "Qos",
    "Queue",
    "Ref",
    "RemoveRow",
    "RowId",
    "Sflow",
    "Snapshot",
    "Transactor",
    "Unresolved",
    "UpdateRow",
    "VSwitch",
    "VSwitchError",
    "VlanMode",
    "apply",
    "internal_port",
    "monitors",
    "patch_port",
    "plan",
    "transaction",
    "tunnel_port",
]
