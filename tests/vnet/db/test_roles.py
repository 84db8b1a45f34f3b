"""A host that somebody has taken over, at every table and column of the pool database: it writes its own rows alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ovsctl.ovsdb import (
    AtomType,
    Delete,
    Insert,
    Mutate,
    Operation,
    OvsdbClient,
    PermissionDenied,
    RequestError,
    Schema,
    Select,
    Tls,
    Update,
)
from tests.authorities import TestAuthority, role_options
from tests.servers import free_port, ovsdb_server
from vnet.controller import role_remotes
from vnet.db.roles import HOST_PERMISSIONS, PERMISSIONS, ROLES, role_operations
from vnet.db.rows import SCHEMA_NAME, SCHEMA_TEXT

SCHEMA = Path("vnet/db/vnet.ovsschema")
TABLES = Schema.parse(SCHEMA_TEXT).tables
OWN = {table: permission for table, permission in HOST_PERMISSIONS.items() if permission.whose}
# A VIF's numbers are taken by whichever host its port comes to.
SHARED = {("Vif", "epoch")}


@dataclass
class Intruder:
    """A pool with a row of xen1 and one of xen2 in every table, a client that may do everything, and xen1's."""

    all: OvsdbClient
    xen1: OvsdbClient
    remote: str
    tls: Tls

    async def refused(self, *operations: Operation) -> bool:
        try:
            await self.xen1.transact(*operations)
        except PermissionDenied:
            return True
        return False


def row_of(table: str, host: str) -> dict[str, Any]:
    """A row with as little as the schema allows, of a host where the table has hosts."""
    number = int(host[-1])
    row: dict[str, Any] = {}
    for name, column in TABLES[table].columns.items():
        key = column.type.key
        if name.startswith("_") or not column.type.min:
            continue
        if key.enum is not None:
            value: Any = min(key.enum)
        elif key.type is AtomType.INTEGER:
            value = min(int(key.minimum or 0) + number, key.maximum or number)
        elif key.type is AtomType.STRING:
            value = host if name == "host" else f"{name} of {host}"
        else:
            continue
        row[name] = value if column.type.is_scalar else frozenset({value})
    return row


@pytest.fixture
async def pool(tmp_path: Path, ovs: None) -> AsyncIterator[Intruder]:
    directory, port = tmp_path, free_port()
    authority = TestAuthority(directory)
    options = role_options(authority.server(), port, directory)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(ovsdb_server(SCHEMA, options=options))
        client = await stack.enter_async_context(OvsdbClient(server.remote, SCHEMA_NAME))
        await client.transact(*role_operations())
        for table in sorted(TABLES.keys() - {ROLES, PERMISSIONS}):
            hosts = ["xen1", "xen2"] if table not in ("Pool", "Leader", "Trial") else ["xen2"]
            await client.transact(*(Insert(table, row_of(table, host)) for host in hosts))
        remote = f"ssl:127.0.0.1:{port}"
        tls = authority.host("xen1")
        xen1 = await stack.enter_async_context(OvsdbClient(remote, SCHEMA_NAME, tls=tls))
        yield Intruder(client, xen1, remote, tls)


Clauses = tuple[tuple[str, str, str], ...]


def rows(table: str, function: str) -> Clauses:
    """The rows of xen1 by "==", and of others by "!="; of a table that has no hosts, all rows are others'."""
    return (("host", function, "xen1"),) if "host" in TABLES[table].columns else ()


async def columns_of(pool: Intruder, table: str, where: Clauses) -> dict[str, Any]:
    """The columns of a row."""
    ((row, *_),) = await pool.all.transact(Select(table, where))
    return {name: content for name, content in row.items() if not name.startswith("_")}


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_it_writes_nothing_of_others(pool: Intruder, table: str) -> None:
    before = await pool.all.transact(Select(table))
    foreign = rows(table, "!=")
    assert await pool.refused(Insert(table, row_of(table, "xen3")))
    assert await pool.refused(Delete(table, foreign))
    assert await pool.refused(Delete(table, ()))
    for name, content in (await columns_of(pool, table, foreign)).items():
        if (table, name) in SHARED:
            assert name in HOST_PERMISSIONS[table].update
            continue
        assert await pool.refused(Update(table, foreign, {name: content})), name
        assert await pool.refused(Update(table, (), {name: content})), name
        if not TABLES[table].columns[name].type.is_scalar:
            assert await pool.refused(Mutate(table, foreign, ((name, "insert", content),))), name
    assert await pool.all.transact(Select(table)) == before


@pytest.mark.parametrize("table", sorted(OWN))
async def test_its_own_rows_are_never_anothers(pool: Intruder, table: str) -> None:
    mine, permission = rows(table, "=="), HOST_PERMISSIONS[table]
    for name, content in (await columns_of(pool, table, mine)).items():
        allowed = name in permission.update
        assert await pool.refused(Update(table, mine, {name: content})) is not allowed, name
    assert "host" not in permission.update
    again = {"Binding": {"vif": "another"}, "Handover": {"vif": "another"}, "TunnelKey": {"plane": 0}}.get(table, {})
    if table not in ("Agent", "HostAccount"):  # of which a host has one
        assert await pool.refused(Insert(table, row_of(table, "xen1") | again)) is not permission.insert_delete
    assert await pool.refused(Delete(table, mine)) is not permission.insert_delete


async def test_it_changes_no_schema_and_no_database_of_sockets(pool: Intruder, tmp_path: Path) -> None:
    assert pool.xen1.schema.version == Schema.parse(SCHEMA_TEXT).version
    with pytest.raises(RequestError, match="prohibit"):
        await pool.xen1.request("convert", SCHEMA_NAME, msgspec.json.decode(SCHEMA_TEXT))
    async with OvsdbClient(pool.remote, role_remotes.DATABASE, tls=pool.tls) as sockets:
        for table in sockets.schema.tables:
            for operation in (Insert(table), Delete(table, ()), Update(table, (), {})):
                if operation != Update(table, (), {}) or table in ("Listening", "Remote"):
                    with pytest.raises(PermissionDenied):
                        await sockets.transact(operation)


async def test_without_the_role_in_the_database_nothing_is_written(pool: Intruder) -> None:
    await pool.all.transact(Delete(ROLES, ()))
    try:
        for table in sorted(OWN):
            assert await pool.refused(Insert(table, row_of(table, "xen1")))
    finally:
        await pool.all.transact(*role_operations())
