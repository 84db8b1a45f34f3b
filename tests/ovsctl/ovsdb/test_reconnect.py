"""Lost connections: nothing is sent twice, replicas end up equal and report the true difference."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ovsctl.ovsdb import (
    Batch,
    Commit,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    Delete,
    Insert,
    Monitor,
    NotConnected,
    OutcomeUnknown,
    OvsdbClient,
    Replica,
    Schema,
    UnknownColumn,
    Update,
    Wait,
)
from tests.ovsctl.ovsdb.schemas import REQUIRED, SCHEMA_JSON
from tests.servers import OvsdbServer, ovsdb_server

GONE = "12345678-1234-1234-1234-123456789abc"


@pytest.fixture
def server(ovs: None) -> Iterator[OvsdbServer]:
    with ovsdb_server(SCHEMA_JSON) as running:
        yield running


@pytest_asyncio.fixture
async def client(server: OvsdbServer) -> AsyncIterator[OvsdbClient]:
    async with OvsdbClient(server.remote, "Kinds", probe_interval_s=0.2, backoff_s=(0.01, 0.05)) as connected:
        yield connected


async def lost(client: OvsdbClient) -> None:
    gone = asyncio.Event()
    end = client.on_connection_change(lambda connected: gone.set())
    if client.connected:
        await gone.wait()
    end()


async def restart(client: OvsdbClient, server: OvsdbServer) -> None:
    server.stop()
    await lost(client)
    server.start()
    await client.wait_connected(10)


async def test_replica_reports_the_difference_over_a_restart(client: OvsdbClient, server: OvsdbServer) -> None:
    names = [Insert("Other", {"name": name}) for name in "abc"]
    a, b, c = await client.transact(*names)
    replica = await client.monitor({"Other": Monitor(("name",))})
    kept = replica["Other"][a]
    batches: list[Batch] = []
    replica.subscribe(batches.append)
    stream = replica.changes()
    server.stop(signal.SIGTERM)
    await lost(client)
    assert not replica.synced
    assert set(replica["Other"]) == {a, b, c}  # readable meanwhile
    with pytest.raises(NotConnected):
        await client.transact(*names)
    server.start()
    # Before our client is back, another one writes.
    async with OvsdbClient(server.remote, "Kinds") as other:
        (d,) = (await other.transact(Insert("Other", {"name": "d"}), Delete("Other", (("name", "==", "b"),))))[:1]
        await other.transact(Update("Other", (("name", "==", "c"),), {"name": "e"}))
    await client.wait_connected(10)
    await client.transact(Insert("Other", {"name": "last"}))
    difference: dict[str, tuple[str | None, str | None]] = {}
    for change in (change for batch in batches for change in batch):
        old = change.old and change.old.name
        difference[change.uuid] = (difference.get(change.uuid, (old,))[0], change.new and change.new.name)
    last = next(uuid for uuid, row in replica["Other"].items() if row.name == "last")
    assert difference == {b: ("b", None), c: ("c", "e"), d: (None, "d"), last: (None, "last")}
    assert replica["Other"][a] is kept
    assert [batch for batch in batches for _ in batch][:1]
    assert await anext(stream) == batches[0]


async def test_state_callbacks(client: OvsdbClient, server: OvsdbServer) -> None:
    states: list[bool] = []
    end = client.on_connection_change(states.append)
    assert client.server is not None
    server.stop()
    await lost(client)
    assert client.server is None
    server.start()
    await client.wait_connected(10)
    assert states == [False, True]
    end()
    await restart(client, server)
    assert states == [False, True]


async def test_a_transaction_in_flight_has_an_unknown_outcome(client: OvsdbClient, server: OvsdbServer) -> None:
    server.pause()
    sent = asyncio.create_task(client.transact(Insert("Other", {"name": "a"})))
    await asyncio.sleep(0.05)
    server.restart()
    with pytest.raises(OutcomeUnknown):
        await sent
    await client.wait_connected(10)
    assert await client.transact(Delete("Other", ())) == [0]


async def test_an_outcome_is_unknown_when_the_server_does_not_answer(server: OvsdbServer) -> None:
    async with OvsdbClient(server.remote, "Kinds", probe_interval_s=None) as client:
        server.pause()
        with pytest.raises(OutcomeUnknown, match="within"):
            await client.transact(Insert("Other", {"name": "a"}), timeout_s=0.05)
        server.resume()
        assert await client.transact(Delete("Other", ())) == [1]


async def test_a_cancelled_caller_gives_up_at_the_server(client: OvsdbClient) -> None:
    wait = Wait("Other", (), ("name",), ({"name": "x"},), timeout_ms=None)
    waiting = asyncio.create_task(client.transact(wait, Insert("Kind", REQUIRED)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await client.transact(Insert("Other", {"name": "x"}))
    assert await client.transact(Delete("Kind", ())) == [0]


async def test_a_silent_server_is_left(client: OvsdbClient, server: OvsdbServer) -> None:
    server.pause()
    await asyncio.wait_for(lost(client), 10)
    server.resume()
    await client.wait_connected(10)
    assert await client.transact(Delete("Other", ())) == [0]


async def test_conditions_are_kept_and_may_change_while_disconnected(client: OvsdbClient, server: OvsdbServer) -> None:
    await client.transact(*(Insert("Other", {"name": name}) for name in "abc"))

    def names(replica: Replica) -> set[str]:
        return {row.name for row in replica["Other"].values()}

    replica = await client.monitor({"Other": Monitor(("name",), where=(("name", "==", "a"), ("name", "==", "b")))})
    assert names(replica) == {"a", "b"}
    await replica.set_condition("Other", (("name", "==", "c"),))
    assert names(replica) == {"c"}
    await restart(client, server)
    assert names(replica) == {"c"}
    server.stop()
    await lost(client)
    changing = asyncio.create_task(replica.set_condition("Other", None))
    await asyncio.sleep(0.02)
    server.start()
    await asyncio.wait_for(changing, 10)
    assert names(replica) == {"a", "b", "c"}
    server.pause()
    changing = asyncio.create_task(replica.set_condition("Other", (("name", "==", "a"),)))
    await asyncio.sleep(0.02)
    server.restart()
    await asyncio.wait_for(changing, 10)
    assert names(replica) == {"a"}
    await replica.set_condition("Other", False)
    assert names(replica) == set()


async def test_conditions_changed_at_once_and_over_a_restart_all_hold(client: OvsdbClient, server: OvsdbServer) -> None:
    await client.transact(
        *(Insert("Other", {"name": name}) for name in "abc"), Insert("Kind", {**REQUIRED, "i": 5}), Commit()
    )
    replica = await client.monitor({"Other": Monitor(where=False), "Kind": Monitor(where=False)})

    def change(name: str) -> list[Coroutine[Any, Any, None]]:
        return [
            replica.set_condition("Other", (("name", "==", name),)),
            replica.set_condition("Kind", (("i", "==", 5),)),
            replica.set_condition("Other", (("name", "!=", name),)),
        ]

    await asyncio.gather(*change("a"))
    assert {row.name for row in replica["Other"].values()} == {"b", "c"}
    assert len(replica["Kind"]) == 1
    changing = asyncio.gather(*change("b"))
    await asyncio.sleep(0)
    server.restart()
    await asyncio.wait_for(changing, 10)
    assert {row.name for row in replica["Other"].values()} == {"a", "c"}
    assert len(replica["Kind"]) == 1


async def test_callbacks_that_raise_are_reported_and_harm_nobody(client: OvsdbClient, server: OvsdbServer) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def broken(_: object) -> None:
        raise RuntimeError("mine")

    client.on_connection_change(broken)
    client.lock("lock").on_change(broken)
    async with client.lock("lock"):
        pass
    await restart(client, server)
    assert await client.transact(Delete("Other", ())) == [0]
    assert [str(context["exception"]) for context in reported] == ["mine"] * 4


async def test_whatever_goes_wrong_with_one_remote_the_next_is_tried(server: OvsdbServer) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with OvsdbClient(["tcp:a..b:1", server.remote], "Kinds") as client:
        assert client.server is not None
        assert client.server.remote == server.remote
    assert [type(context["exception"]) for context in reported] == [UnicodeError]


async def test_closing_ends_whoever_waits(client: OvsdbClient, server: OvsdbServer) -> None:
    replica = await client.monitor({"Other": Monitor()})
    server.stop()
    await lost(client)
    waiting = [
        asyncio.create_task(replica.set_condition("Other", False)),
        asyncio.create_task(client.wait_connected()),
        asyncio.create_task(client.monitor({"Kind": Monitor()})),
    ]
    await asyncio.sleep(0.02)
    await client.close()
    for task in waiting:
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(task, 5)


async def test_monitors_asked_for_while_disconnected_come_with_the_connection(
    client: OvsdbClient, server: OvsdbServer
) -> None:
    await client.transact(Insert("Other", {"name": "a"}))
    server.stop()
    await lost(client)
    monitoring = asyncio.create_task(client.monitor({"Other": Monitor()}))
    await asyncio.sleep(0.02)
    server.start()
    replica = await asyncio.wait_for(monitoring, 10)
    assert len(replica["Other"]) == 1


async def test_a_server_that_breaks_the_protocol_is_left(tmp_path: Path) -> None:
    """A fake, since no real server does it: it answers everything with what does not fit."""
    answers = [b"nonsense", b"{}", b'{"method":"update3","params":5}', b'{"id":1,"result":5,"error":null}']
    answers += [b'{"id":1,"result":[false,"x",{"Database":{"x":{}}}],"error":null}', b'{"id":' * 2000]
    answers += [b'{"id":"e","method":"echo","params":[]}', b'{"method":"locked","params":[]}']
    given = iter(answers)
    all_given = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = next(given, None)
        if answer is None:
            all_given.set()
        writer.write(answer or b"")
        while await reader.read(65536):
            pass
        writer.close()

    path = tmp_path / "s"
    fake = await asyncio.start_unix_server(serve, path)
    client = OvsdbClient(
        f"unix:{path}", "Kinds", connect_timeout_s=None, probe_interval_s=0.05, backoff_s=(0.001, 0.002)
    )
    async with fake:
        opening = asyncio.create_task(client.open())
        await asyncio.wait_for(all_given.wait(), 30)
        assert not client.connected
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


async def test_a_cancelled_monitor_gets_nothing_more(client: OvsdbClient) -> None:
    replica = await client.monitor({"Other": Monitor()})
    stream = replica.changes()
    await client.cancel(replica)
    await client.transact(Insert("Other", {"name": "a"}))
    assert not replica["Other"]
    assert [batch async for batch in stream] == []
    with pytest.raises(NotConnected):
        await replica.set_condition("Other", None)


async def test_another_schema_is_taken_up(client: OvsdbClient, server: OvsdbServer) -> None:
    (uuid,) = await client.transact(Insert("Other", {"name": "a"}))
    all_columns = await client.monitor({"Other": Monitor()})
    gone = await client.monitor({"Other": Monitor(("strong",))})
    batches: list[Batch] = []
    all_columns.subscribe(batches.append)
    schema = json.loads(json.dumps(SCHEMA_JSON))
    schema["version"] = "3.0.0"
    schema["tables"]["Other"]["columns"]["added"] = {"type": "integer"}
    del schema["tables"]["Other"]["columns"]["strong"]
    file = server.dir / "new.ovsschema"
    file.write_text(json.dumps(schema))
    server.client("convert", str(file))
    await lost(client)
    await client.wait_connected(10)
    assert client.schema.version_tuple == (3, 0, 0)
    assert all_columns["Other"][uuid].as_dict() == {"name": "a", "added": 0}
    assert [change.new and change.new.added for batch in batches for change in batch] == [0]
    with pytest.raises(UnknownColumn):
        await gone.wait_synced()
    await client.transact(Update("Other", (), {"added": 5}))
    assert all_columns["Other"][uuid].added == 5


async def test_locks_come_back_after_a_restart(client: OvsdbClient, server: OvsdbServer) -> None:
    lock = client.lock("lock")
    states: list[bool] = []
    lock.on_change(states.append)
    await lock.acquire()
    await restart(client, server)
    await lock.acquire()
    assert states == [True, False, True]


async def test_a_closed_client_says_so(server: OvsdbServer) -> None:
    client = OvsdbClient(server.remote, "Kinds")
    with pytest.raises(NotConnected):
        _ = client.schema
    with pytest.raises(NotConnected):
        await client.wait_connected()
    async with client:
        replica = await client.monitor({"Other": Monitor()})
        stream = replica.changes()
    assert [batch async for batch in stream] == []
    with pytest.raises(NotConnected):
        await client.transact(Delete("Other", ()))
    with pytest.raises(ConnectionLost):
        await replica.wait_synced()


async def test_no_server_at_all(server: OvsdbServer) -> None:
    server.stop()
    remotes = [server.remote, "tcp:127.0.0.1:1"]
    with pytest.raises(ConnectFailed) as caught:
        async with OvsdbClient(remotes, "Kinds", connect_timeout_s=0.1):
            pass
    assert set(caught.value.reasons) == set(remotes)
    patient = OvsdbClient(remotes, "Kinds", connect_timeout_s=None, backoff_s=(0.01, 0.01))
    opening = asyncio.create_task(patient.open())
    await asyncio.sleep(0.05)
    server.start()
    await asyncio.wait_for(opening, 10)
    await patient.close()


async def test_rows_of_before_are_held_before_a_server_is_reached(client: OvsdbClient, server: OvsdbServer) -> None:
    """A program that kept the rows of a server goes on with them: the server's first answer is the difference."""
    a, b, _ = await client.transact(*(Insert("Other", {"name": name}) for name in "abc"))
    monitors = {"Other": Monitor(("name",))}
    server.stop()
    rows = {"Other": {uuid: {"name": name} for uuid, name in ((a, "a"), (b, "before"), (GONE, "gone"))}}
    later = OvsdbClient(server.remote, "Kinds", backoff_s=(0.01, 0.05), connect_timeout_s=None)
    replica = later.preload(client.schema, monitors, rows)
    batches: list[Batch] = []
    replica.subscribe(batches.append)
    kept = replica["Other"][a]
    assert {row["name"] for row in replica["Other"].values()} == {"a", "before", "gone"}
    assert not replica.synced
    server.start()
    async with later:
        await replica.wait_synced()
        found = {tuple(row and row["name"] for row in (change.old, change.new)) for change in batches[0]}
        assert (len(batches), found) == (1, {("before", "b"), ("gone", None), (None, "c")})
        assert replica["Other"][a] is kept
        await later.transact(Insert("Other", {"name": "d"}))
        assert {row["name"] for row in replica["Other"].values()} == {"a", "b", "c", "d"}


async def test_rows_that_do_not_fit_the_schema_are_refused_before_any_server_is_reached(client: OvsdbClient) -> None:
    later = OvsdbClient("unix:/nowhere", "Kinds")
    for rows in ({"Other": {"no UUID": {"name": "a"}}}, {"Other": {GONE: {"name": 1}}}):
        with pytest.raises(DecodeError):
            later.preload(client.schema, {"Other": Monitor(("name",))}, rows)


async def test_rows_of_before_end_with_a_server_that_lacks_what_is_monitored(server: OvsdbServer) -> None:
    schema = json.loads(json.dumps(SCHEMA_JSON))
    schema["tables"]["Other"]["columns"]["newer"] = {"type": "string"}
    schema["version"] = "99.0.0"
    later = OvsdbClient(server.remote, "Kinds")
    replica = later.preload(Schema.parse(json.dumps(schema)), {"Other": Monitor(("name", "newer"))}, {})
    async with later:
        with pytest.raises(UnknownColumn):
            await replica.wait_synced()
