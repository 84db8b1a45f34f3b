"""Declarative Open vSwitch: say what there should be, see what would change, change only that.

replica = await client.monitor(monitors(client.schema))
todo = plan(VSwitch(bridges=(Bridge("br-int"),)), replica)
await apply(client, todo.additions)
await apply(client, todo.removals)

The values load at once; what reads and writes a database loads with it, when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ovsctl.vswitch.values import (
    Attachment,
    Bridge,
    ConnectionMode,
    Controller,
    ControllerType,
    FailMode,
    Interface,
    Ipfix,
    Lacp,
    Manager,
    Mirror,
    NetFlow,
    OpenFlow,
    Port,
    PortBondMode,
    Qos,
    Queue,
    SampleSet,
    Sflow,
    VlanMode,
    VSwitch,
    internal_port,
    patch_port,
    tunnel_port,
)

if TYPE_CHECKING:
    from ovsctl.vswitch.changes import (
        AddRow,
        Change,
        ColumnChange,
        MoveRow,
        Ref,
        RemoveRow,
        RowConflict,
        RowPlan,
        Unresolved,
        UpdateRow,
    )
    from ovsctl.vswitch.errors import IncompleteSnapshot, NotConfigured, VSwitchError
    from ovsctl.vswitch.planner import plan
    from ovsctl.vswitch.rows import RowId
    from ovsctl.vswitch.snapshot import COLUMNS, OwnerMark, Snapshot, monitors
    from ovsctl.vswitch.transactions import Applied, Transactor, apply, reconfigure, transaction

_WHERE = {
    "transactions": ("Applied", "Transactor", "apply", "reconfigure", "transaction"),
    "changes": (
        "AddRow", "Change", "ColumnChange", "RowConflict", "MoveRow", "RowPlan", "Ref", "RemoveRow", "Unresolved", "UpdateRow",
    ),
    "errors": ("IncompleteSnapshot", "NotConfigured", "VSwitchError"),
    "planner": ("plan",),
    "rows": ("RowId",),
    "snapshot": ("COLUMNS", "OwnerMark", "Snapshot", "monitors"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "COLUMNS",
    "AddRow",
    "Applied",
    "Attachment",
    "Bridge",
    "Change",
    "ColumnChange",
    "ConnectionMode",
    "Controller",
    "ControllerType",
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
    "OwnerMark",
    "Port",
    "PortBondMode",
    "Qos",
    "Queue",
    "Ref",
    "RemoveRow",
    "RowConflict",
    "RowId",
    "RowPlan",
    "SampleSet",
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
    "reconfigure",
    "transaction",
    "tunnel_port",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'ovsctl.vswitch' has no attribute {name!r}")
    return getattr(import_module(f"ovsctl.vswitch.{module}"), name)
