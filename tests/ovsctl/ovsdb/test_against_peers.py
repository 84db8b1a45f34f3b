"""After anything at all the replica holds what ovsdb-client dumps and what the ovs package's IDL holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import ovs.db.idl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovsctl.ovsdb import (
    Batch,
    Commit,
    Delete,
    Insert,
    Monitor,
    Mutate,
    Operation,
    OvsdbClient,
    Replica,
    Row,
    Update,
    by_uuid,
)
from tests.ovsctl.ovsdb.schemas import REQUIRED, SCHEMA, SCHEMA_JSON, rows, values
from tests.servers import OvsdbServer, ovsdb_server

KIND = SCHEMA.tables["Kind"]
# The IDL cannot hold columns whose names it or Python uses itself.
IDL_COLUMNS = [name for name in KIND.columns if name not in ("class", "uuid")]
Content = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def server(ovs: None) -> Iterator[OvsdbServer]:
    # It writes what changed of a set, up to twice as many members as it may have, and then cannot read its own file (3.1).
    with ovsdb_server(SCHEMA_JSON, options=["--disable-file-column-diff"]) as running:
        yield running


def mutations() -> st.SearchStrategy[tuple[str, str, Any]]:
    sets = [n for n, c in KIND.columns.items() if c.type.max is None and n not in ("weak", "some")]
    return st.sampled_from(sets).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(["insert", "delete"]), values(KIND.columns[name].type))
    )


# A number stands for one of the rows that there are.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), rows()),
        st.tuples(st.just("update"), st.integers(0, 20), rows()),
        st.tuples(st.just("mutate"), st.integers(0, 20), st.lists(mutations(), max_size=3)),
        st.tuples(st.just("delete"), st.integers(0, 20)),
        st.tuples(st.just("condition"), st.sampled_from([None, False, "i", "b"])),
        st.tuples(st.sampled_from(["commit", "commit", "disconnect", "restart"])),
    ),
    min_size=3,
    max_size=25,
)


class World:
    """One client with a whole and a conditional replica, and the mirrors that their changes give."""

    def __init__(self, server: OvsdbServer, client: OvsdbClient, whole: Replica, some: Replica) -> None:
        self.server, self.client, self.whole, self.some = server, client, whole, some
        self.condition: Any = None
        self.pending: list[Operation] = []
        self.mirrors: list[dict[str, Row]] = []
        self.marks = 0
        self.folded = asyncio.Event()
        for replica in (whole, some):
            mirror = dict(replica["Kind"])
            self.mirrors.append(mirror)
            replica.subscribe(lambda batch, mirror=mirror: self.follow(mirror, batch))

    def follow(self, mirror: dict[str, Row], batch: Batch) -> None:
        """A subscriber who believes only the changes: old must be what it has."""
        for change in batch:
            if change.table == "Kind":
                assert mirror.pop(change.uuid, None) == change.old
                if change.new is not None:
                    mirror[change.uuid] = change.new
        self.folded.set()

    async def do(self, step: tuple[Any, ...]) -> None:
        uuids = sorted(self.whole["Kind"])
        match step:
            case ("insert", row):
                self.pending.append(Insert("Kind", row))
            case ("update", number, row) if uuids:
                self.pending.append(Update("Kind", by_uuid(uuids[number % len(uuids)]), row))
            case ("mutate", number, changes) if uuids:
                self.pending.append(Mutate("Kind", by_uuid(uuids[number % len(uuids)]), changes))
            case ("delete", number) if uuids:
                self.pending.append(Delete("Kind", by_uuid(uuids[number % len(uuids)])))
            case ("condition", where):
                self.condition = {"i": (("i", ">", 0),), "b": (("b", "==", True), ("i", "==", 0))}.get(where, where)
                await self.some.set_condition("Kind", self.condition)
            case ("commit",):
                await self.commit()
            case ("disconnect",):
                self.server.appctl("ovsdb-server/reconnect")
                await self.back()
            case ("restart",):
                self.server.restart()
                await self.back()

    async def back(self) -> None:
        gone = asyncio.Event()
        end = self.client.on_connection_change(lambda connected: gone.set())
        if self.client.connected:
            await asyncio.wait_for(gone.wait(), 10)
        end()
        await self.client.wait_connected(10)

    async def commit(self) -> None:
        """Send what is pending with a mark, and wait until both replicas have seen it."""
        self.marks += 1
        mark = Insert("Other", {"name": f"mark {self.marks}"})
        await self.client.transact(*self.pending, mark, Commit())  # or a killed server forgets it
        self.pending.clear()
        for replica in (self.whole, self.some):
            while not any(row.name == mark.row["name"] for row in replica["Other"].values()):
                self.folded.clear()
                await asyncio.wait_for(self.folded.wait(), 10)


def content(replica: Replica) -> Content:
    return {uuid: row.as_dict() for uuid, row in replica["Kind"].items()}


def dumped(server: OvsdbServer) -> Content:
    """What ovsdb-client dumps, as values."""
    table = json.loads(server.client("dump", "Kinds", "Kind", options=["-f", "json"]))
    found = {}
    for cells in table["data"]:
        row = KIND.decode_row(dict(zip(table["headings"], cells, strict=True)))
        found[str(row.pop("_uuid"))] = row
    return found


def held_by_idl(server: OvsdbServer, mark: str) -> Content:
    """What the ovs package's IDL holds once it has seen the mark, as values."""
    helper = ovs.db.idl.SchemaHelper(schema_json=json.loads(json.dumps(SCHEMA_JSON)))
    helper.register_columns("Kind", IDL_COLUMNS)
    helper.register_columns("Other", ["name"])
    idl = ovs.db.idl.Idl(server.remote, helper)
    try:
        while not any(row.name == mark for row in idl.tables["Other"].rows.values()):
            idl.run()
        return {
            str(uuid): {name: KIND.decode(name, row._data[name].to_json()) for name in IDL_COLUMNS}
            for uuid, row in idl.tables["Kind"].rows.items()
        }
    finally:
        idl.close()


def chosen(all_rows: Content, condition: Any) -> Content:
    def holds(row: dict[str, Any]) -> bool:
        tests = {">": row["i"] > 0}
        return any(tests[f] if f == ">" else row[column] == value for column, f, value in condition)

    if condition is None:
        return all_rows
    return {uuid: row for uuid, row in all_rows.items() if condition is not False and holds(row)}


async def play(server: OvsdbServer, script: list[tuple[Any, ...]]) -> None:
    async with OvsdbClient(server.remote, "Kinds", backoff_s=(0.005, 0.02)) as client:
        await client.transact(Delete("Other", ()), Delete("Kind", ()), Insert("Kind", {**REQUIRED, "i": 1}), Commit())
        both = {"Kind": Monitor(), "Other": Monitor()}
        world = World(server, client, await client.monitor(both), await client.monitor(both))
        for step in script:
            await world.do(step)
        await world.commit()
        expected = dumped(server)
        assert content(world.whole) == expected
        assert content(world.some) == chosen(expected, world.condition)
        held = {uuid: {name: row[name] for name in IDL_COLUMNS} for uuid, row in expected.items()}
        assert held_by_idl(server, f"mark {world.marks}") == held
        assert world.mirrors == [dict(world.whole["Kind"]), dict(world.some["Kind"])]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps)
def test_replica_equals_dump_and_idl(server: OvsdbServer, script: list[tuple[Any, ...]]) -> None:
    asyncio.run(play(server, script))
