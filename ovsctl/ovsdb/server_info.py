"""The facts that a server publishes about itself and its databases in its `_Server` database (ovsdb-server(5))."""

from __future__ import annotations

from dataclasses import dataclass

from .replica import Monitor, Replica
from .schema import AtomType, BaseType, ColumnSchema, ColumnType, Schema, TableSchema
from .values import Uuid

SERVER_DATABASE = "_Server"


def _optional(atom: AtomType) -> ColumnType:
    return ColumnType(BaseType(atom), None, 0, 1)


# Not `index`: it changes with every transaction of anybody, and each client would be told each time.
_TYPES = {
    "name": ColumnType(BaseType(AtomType.STRING)),
    "model": ColumnType(BaseType(AtomType.STRING)),
    "connected": ColumnType(BaseType(AtomType.BOOLEAN)),
    "leader": ColumnType(BaseType(AtomType.BOOLEAN)),
    "cid": _optional(AtomType.UUID),
    "sid": _optional(AtomType.UUID),
}
SERVER_SCHEMA = Schema(
    SERVER_DATABASE,
    "1.0.0",
    {"Database": TableSchema("Database", {name: ColumnSchema(name, type_) for name, type_ in _TYPES.items()})},
)
SERVER_MONITORS = {"Database": Monitor()}


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server in use: its remote, and its row of `_Server.Database` for our database.

    `model` is standalone, clustered or relay.
    """

    remote: str
    name: str
    model: str
    connected: bool
    leader: bool
    cid: Uuid | None = None
    sid: Uuid | None = None
    exists: bool = True

    @classmethod
    def plain(cls, remote: str, name: str) -> ServerInfo:
        """A server that is too old to have a `_Server` database: alone, so its own leader."""
        return cls(remote, name, "standalone", connected=True, leader=True)


def server_info(replica: Replica, remote: str, name: str) -> ServerInfo:
    """The facts about the database in the replica of `_Server`."""
    for row in replica["Database"].values():
        if row.name == name:
            return ServerInfo(remote, name, row.model, row.connected, row.leader, row.cid, row.sid)
    return ServerInfo(remote, name, "", connected=False, leader=False, exists=False)


def unfit(info: ServerInfo, leader_only: bool) -> str | None:
    """Why this server will not do; None if it will."""
    if not info.exists:
        return f"the server has no database {info.name}"
    if not info.connected:
        return f"the server is not in touch with the cluster of {info.name}"
    if leader_only and not info.leader:
        return f"the server is not the leader of {info.name}"
    return None
