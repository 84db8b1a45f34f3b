"""The role of a host in the pool database, which ovsdb-server enforces (role-based access control, ovsdb-server(1)).

One rule: a host writes the rows that carry its name, and never the columns that name a row's host or object. Its name is the common name of
its certificate. A remote that has the role lets through what is permitted here; one without a role lets everything through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ovsctl.ovsdb import Delete, Insert, NamedUuid, Operation
from vnet.db.accounting import HostAccount
from vnet.db.captures import CaptureRow
from vnet.db.handovers import Handover
from vnet.db.health import HealthQuery
from vnet.db.probes import Probe
from vnet.db.rows import TABLE_OF
from vnet.db.rule_queries import RuleQuery
from vnet.db.tables import table_of
from vnet.db.traffic_queries import TrafficQuery
from vnet.db.watches import WatchRow
from vnet.grammar.declare import Declared
from vnet.objects import AgentStatus, Binding, Event, TunnelKey, Vif

HOST_ROLE = "host"
ROLES, PERMISSIONS = "RBAC_Role", "RBAC_Permission"  # the names that ovsdb-server looks for


@dataclass(frozen=True, slots=True)
class Permission:
    """What a host may do with rows whose column `whose` has its name, "" for all rows. update: the columns that it may change.

    insert_delete: whether it may make such rows and take them away.
    """

    whose: str
    update: frozenset[str] = frozenset()
    insert_delete: bool = False


def _own_rows(declared: type[Declared]) -> Permission:
    """All that there is to a table's rows, but for the columns that name a row."""
    table = table_of(declared)
    return Permission("host", frozenset(cell.column for cell in table.cells) - set(table.key), insert_delete=True)


# By table; a host writes no other one.
HOST_PERMISSIONS: Mapping[str, Permission] = {
    TABLE_OF[Binding]: _own_rows(Binding),
    TABLE_OF[AgentStatus]: _own_rows(AgentStatus),
    TABLE_OF[TunnelKey]: _own_rows(TunnelKey),
    TABLE_OF[Event]: Permission("host", insert_delete=True),
    # Each claim takes the next number of the VIF, so that of two hosts that claim at once one is refused.
    TABLE_OF[Vif]: Permission("", frozenset({"epoch"})),
    Handover.NOUN.table: _own_rows(Handover),
    HostAccount.NOUN.table: _own_rows(HostAccount),
    Probe.NOUN.table: Permission("host", frozenset({"answer"})),
    RuleQuery.NOUN.table: Permission("host", frozenset({"answer"})),
    HealthQuery.NOUN.table: Permission("host", frozenset({"answer"})),
    TrafficQuery.NOUN.table: Permission("host", frozenset({"answer"})),
    WatchRow.NOUN.table: Permission("host", frozenset({"report"})),
    CaptureRow.NOUN.table: Permission("host", frozenset({"number", "report"})),
}


def role_tables() -> dict[str, Any]:
    """The schema of the tables that ovsdb-server reads roles from."""
    name = {"type": "string"}
    names = {"type": {"key": "string", "min": 0, "max": "unlimited"}}
    refers = {"type": "uuid", "refTable": PERMISSIONS, "refType": "weak"}
    permissions = {"type": {"key": "string", "value": refers, "min": 0, "max": "unlimited"}}
    return {
        ROLES: {"columns": {"name": name, "permissions": permissions}, "indexes": [["name"]], "isRoot": True},
        PERMISSIONS: {
            "columns": {"table": name, "authorization": names, "insert_delete": {"type": "boolean"}, "update": names},
            "isRoot": True,
        },
    }


def role_operations() -> list[Operation]:
    """Has the pool database hold the role as it is here, and no other one."""
    made: list[Operation] = [Delete(ROLES, ()), Delete(PERMISSIONS, ())]
    for table, permission in HOST_PERMISSIONS.items():
        row = {
            "table": table,
            "authorization": frozenset({permission.whose}),
            "insert_delete": permission.insert_delete,
            "update": permission.update,
        }
        made.append(Insert(PERMISSIONS, row, uuid_name=f"of_{table}"))
    permissions = {table: NamedUuid(f"of_{table}") for table in HOST_PERMISSIONS}
    return [*made, Insert(ROLES, {"name": HOST_ROLE, "permissions": permissions})]
