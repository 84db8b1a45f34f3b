"""Every error of RFC 7047 that ovsdb-server gives, as the real server gives it: the kind, and its place."""

from __future__ import annotations

import resource
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ovsctl.ovsdb import (
    Abort,
    Aborted,
    Assert,
    BadValue,
    Canceled,
    Comment,
    Commit,
    ConnectFailed,
    ConstraintViolation,
    Delete,
    DomainError,
    DuplicateUuid,
    DuplicateUuidName,
    InputOutputError,
    Insert,
    Monitor,
    Mutate,
    NamedUuid,
    NotAllowed,
    NotOwner,
    NotSupported,
    Operation,
    OutcomeUnknown,
    OvsdbClient,
    RangeError,
    ReferentialIntegrityViolation,
    RequestError,
    ResourcesExhausted,
    TransactError,
    UnknownDatabase,
    UnknownTable,
    UnmonitoredColumn,
    Update,
    Wait,
    WaitTimedOut,
)
from ovsctl.ovsdb.connection import _refusal
from ovsctl.ovsdb.errors import transact_error
from ovsctl.ovsdb.schema import INT_MAX
from tests.ovsctl.ovsdb.schemas import REQUIRED, SCHEMA_JSON
from tests.servers import ovsdb_server

UUID = "11111111-2222-4333-8444-555555555555"
KIND = Insert("Kind", REQUIRED)


@pytest_asyncio.fixture
async def client(ovs: None) -> AsyncIterator[OvsdbClient]:
    with ovsdb_server(SCHEMA_JSON) as server:
        async with OvsdbClient(server.remote, "Kinds") as connected:
            yield connected


@pytest.mark.parametrize(
    ("operations", "kind", "index", "table", "column"),
    [
        ((KIND, Abort()), Aborted, 1, None, None),
        ((Comment("x"), Assert("mine")), NotOwner, 1, None, None),
        ((Insert("Kind", REQUIRED, "n"), Insert("Kind", REQUIRED, "n")), DuplicateUuidName, 1, "Kind", None),
        ((Insert("Kind", REQUIRED, None, UUID), Insert("Kind", REQUIRED, None, UUID)), DuplicateUuid, 1, "Kind", None),
        ((KIND, Mutate("Kind", (), (("i", "/=", 0),))), DomainError, 1, "Kind", "i"),
        ((KIND, Mutate("Kind", (), (("i", "+=", INT_MAX), ("i", "+=", 1)))), RangeError, 1, "Kind", "i"),
        ((KIND, Mutate("Kind", (), (("range", "+=", 6),))), ConstraintViolation, 1, "Kind", "range"),
        ((Wait("Other", (), ("name",), ({"name": "x"},)),), WaitTimedOut, 0, "Other", None),
        (
            (KIND, Insert("Other", {"name": "a"}), Insert("Other", {"name": "a"})),
            ConstraintViolation,
            None,
            "Other",
            "name",
        ),
        (
            (KIND, Insert("Other", {"name": "a", "strong": [UUID]})),
            ReferentialIntegrityViolation,
            1,
            "Other",
            "strong",
        ),
    ],
)
async def test_refused_transactions(
    client: OvsdbClient,
    operations: tuple[Operation, ...],
    kind: type[TransactError],
    index: int | None,
    table: str | None,
    column: str | None,
) -> None:
    with pytest.raises(kind) as caught:
        await client.transact(*operations)
    error = caught.value
    assert type(error) is kind
    assert error.table == table
    assert error.column == column
    if index is not None:
        assert (error.index, error.operation) == (index, operations[index])
        assert f"operation {index} ({type(operations[index]).__name__})" in str(error)
    assert await client.transact(Delete("Other", ()), Delete("Kind", ())) == [0, 0]


async def test_delete_of_a_row_that_is_referred_to_names_the_row(client: OvsdbClient) -> None:
    kind, _ = await client.transact(
        Insert("Kind", REQUIRED, "k"), Insert("Other", {"name": "a", "strong": [NamedUuid("k")]})
    )
    with pytest.raises(ReferentialIntegrityViolation) as caught:
        await client.transact(Delete("Kind", ()))
    assert (caught.value.table, caught.value.row) == ("Kind", kind)


async def test_two_rows_with_one_index_name_the_row_that_was_inserted(client: OvsdbClient) -> None:
    await client.transact(Insert("Other", {"name": "a"}))
    with pytest.raises(ConstraintViolation) as caught:
        await client.transact(Comment("x"), Insert("Other", {"name": "a"}))
    assert (caught.value.index, caught.value.table, caught.value.column) == (1, "Other", "name")
    assert caught.value.row is not None


async def test_the_server_gives_up_a_transaction_that_waits_too_long(client: OvsdbClient) -> None:
    wait = Wait("Other", (), ("name",), ({"name": "x"},), timeout_ms=None)
    with pytest.raises(OutcomeUnknown):
        await client.transact(wait, KIND, timeout_s=0.05)
    await client.transact(Insert("Other", {"name": "x"}))
    assert await client.transact(Delete("Kind", ())) == [0]


async def test_unknown_databases_and_methods(client: OvsdbClient) -> None:
    with pytest.raises(UnknownDatabase) as unknown:
        await client.request("get_schema", "Nothing")
    assert unknown.value.error == "unknown database"
    with pytest.raises(RequestError, match="no_such_method"):
        await client.request("no_such_method")
    assert await client.request("list_dbs") == ["Kinds", "_Server"]


async def test_our_mistakes_never_reach_the_server(client: OvsdbClient) -> None:
    with pytest.raises(BadValue, match=r"Kind\.i"):
        await client.transact(Update("Kind", (), {"i": "x"}))
    with pytest.raises(UnknownTable):
        await client.monitor({"Nothing": Monitor()})
    replica = await client.monitor({"Kind": Monitor()})
    with pytest.raises(BadValue):
        await replica.set_condition("Kind", (("i", "==", "x"),))
    some = await client.monitor({"Kind": Monitor(columns=("s",))})
    for clauses in ((("s", "==", "x"), ("i", "==", 1)), [("i", "==", 1)]):
        with pytest.raises(UnmonitoredColumn, match="does not have column 'i'"):
            await some.set_condition("Kind", clauses)
    assert client.connected


@pytest.mark.usefixtures("ovs")
async def test_reserved_database_is_read_only() -> None:
    with ovsdb_server(SCHEMA_JSON) as server:
        async with OvsdbClient(server.remote, "_Server") as client:
            with pytest.raises(NotAllowed):
                await client.transact(Delete("Database", ()))


@pytest.mark.usefixtures("ovs")
async def test_a_server_that_cannot_write_says_so() -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    big = {"name": "x" * 30_000}
    with ovsdb_server(SCHEMA_JSON, prepare=limit) as server:
        async with OvsdbClient(server.remote, "Kinds") as client:
            with pytest.raises(InputOutputError):  # noqa: PT012 - at one of them
                for number in range(5):
                    await client.transact(Insert("Other", big | {"name": f"{number}" * 30_000}), Commit())


@pytest.mark.usefixtures("ovs")
async def test_a_database_that_is_not_there() -> None:
    with ovsdb_server(SCHEMA_JSON) as server, pytest.raises(ConnectFailed, match="no database Nothing") as caught:
        async with OvsdbClient(server.remote, "Nothing", connect_timeout_s=2):
            pass
    assert list(caught.value.reasons) == [server.remote]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("resources exhausted", ResourcesExhausted), ("not supported", NotSupported), ("new error", TransactError)],
)
def test_errors_that_this_server_never_gives(name: str, kind: type[TransactError]) -> None:
    error = transact_error(name, "some details", 0, [KIND], {})
    assert type(error) is kind
    assert (error.error, error.details, error.operation) == (name, "some details", KIND)


@pytest.mark.parametrize(
    ("error", "name", "details"),
    [
        ({"error": "canceled"}, "canceled", ""),
        ({"error": "x", "details": "why"}, "x", "why"),
        ("canceled", "canceled", ""),
        (5, "error", "5"),
        ({}, "error", "{}"),
    ],
)
def test_errors_of_requests_in_any_form(error: Any, name: str, details: str) -> None:
    refusal = _refusal(error, "transact")
    assert (refusal.error, refusal.details) == (name, details)
    assert isinstance(refusal, Canceled) == (name == "canceled")
