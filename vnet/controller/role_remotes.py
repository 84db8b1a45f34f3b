"""The sockets of a server of the pool database, with the role that clients of each have: a database beside it, of this server alone.

One rule: ovsdb-server takes a role from a row of a database only, and hosts can reach that database too: it has the tables of roles,
with none in them, so that nobody who has a role may write it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from vnet.db.roles import HOST_ROLE, role_tables

DATABASE = "VnetRemotes"
REMOTE = f"db:{DATABASE},Listening,remotes"


def schema_text() -> str:
    """The schema, with the columns that ovsdb-server looks for."""
    remotes = {"type": {"key": {"type": "uuid", "refTable": "Remote"}, "min": 0, "max": "unlimited"}}
    text = {"type": "string"}
    tables = {
        "Listening": {"columns": {"remotes": remotes}, "maxRows": 1, "isRoot": True},
        "Remote": {"columns": {"target": text, "role": text}, "indexes": [["target"]]},
        **role_tables(),
    }
    return json.dumps({"name": DATABASE, "version": "1.0.0", "tables": tables})


def transaction(hosts: Iterable[str], controllers: Iterable[str]) -> str:
    """Has the server listen there and nowhere else: for hosts, which have the role, and for others, who may do everything."""
    roles = {**dict.fromkeys(hosts, HOST_ROLE), **dict.fromkeys(controllers, "")}
    rows: list[dict[str, Any]] = [
        {"op": "insert", "table": "Remote", "uuid-name": f"r{n}", "row": {"target": target, "role": role}}
        for n, (target, role) in enumerate(roles.items())
    ]
    remotes = ["set", [["named-uuid", f"r{n}"] for n in range(len(rows))]]
    replaced = {"op": "delete", "table": "Listening", "where": []}
    return json.dumps([DATABASE, replaced, *rows, {"op": "insert", "table": "Listening", "row": {"remotes": remotes}}])
