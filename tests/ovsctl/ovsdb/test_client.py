"""The client against a real ovsdb-server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from ovsctl.ovsdb import (
    Batch,
    ConnectFailed,
    Insert,
    Monitor,
    Mutate,
    NamedUuid,
    OvsdbClient,
    OvsdbError,
    Select,
    Update,
)
from tests.servers import OvsdbServer, ovsdb_server

BRIDGE = (
    Insert("Open_vSwitch", {"bridges": {NamedUuid("bridge")}}),
    Insert("Bridge", {"name": "br0", "ports": [NamedUuid("port")], "external_ids": {"a": "b"}}, "bridge"),
    Insert("Port", {"name": "p1", "interfaces": NamedUuid("interface")}, "port"),
    Insert("Interface", {"name": "p1"}, "interface"),
)


@pytest.fixture
def server(ovs: None) -> Iterator[OvsdbServer]:
    with ovsdb_server() as running:
        yield running


@pytest_asyncio.fixture
async def client(server: OvsdbServer) -> AsyncIterator[OvsdbClient]:
    async with OvsdbClient(server.remote, "Open_vSwitch") as connected:
        yield connected


async def test_schema_and_server_are_known_once_connected(client: OvsdbClient) -> None:
    assert client.schema.name == "Open_vSwitch"
    assert client.server is not None
    assert (client.server.model, client.server.leader) == ("standalone", True)


async def test_results_are_plain_values(client: OvsdbClient) -> None:
    root, bridge, port, interface, rows = await client.transact(
        *BRIDGE, Select("Bridge", (), ("_uuid", "name", "ports", "external_ids", "fail_mode"))
    )
    assert len({root, bridge, port, interface}) == 4
    assert rows == [{"_uuid": bridge, "name": "br0", "ports": {port}, "external_ids": {"a": "b"}, "fail_mode": None}]


async def test_replica_follows_and_reports_old_and_new(client: OvsdbClient) -> None:
    _, bridge, port, _ = await client.transact(*BRIDGE)
    replica = await client.monitor({"Bridge": Monitor(("stp_enable", "external_ids", "ports"))})
    batches: list[Batch] = []
    replica.subscribe(batches.append)
    assert replica["Bridge"][bridge].ports == {port}
    await client.transact(
        Mutate("Bridge", (), [("external_ids", "insert", {"c": "d"}), ("external_ids", "delete", ["a"])]),
        Update("Bridge", (), {"stp_enable": True}),
    )
    ((change,),) = batches
    assert change.old is not None
    assert change.new is not None
    assert (change.old["stp_enable"], change.old["external_ids"]) == (False, {"a": "b"})
    assert (change.new["stp_enable"], change.new["external_ids"]) == (True, {"c": "d"})
    assert replica["Bridge"][bridge] is change.new


async def test_a_server_that_the_check_refuses_is_not_used(server: OvsdbServer) -> None:
    """Nor is one that a client has left, until the check has looked at it again."""
    refused = False

    async def check(transact: Callable[..., Awaitable[list[Any]]]) -> None:
        (rows,) = await transact(Select("Bridge"))
        if refused or not rows:
            raise OvsdbError("has no bridge")

    with ovsdb_server() as other:
        async with OvsdbClient(server.remote, "Open_vSwitch") as client:
            await client.transact(*BRIDGE)
        async with OvsdbClient([other.remote, server.remote], "Open_vSwitch", check=check) as client:
            assert client.server is not None
            assert client.server.remote == server.remote
            refused = True
            client.leave("another look")
            with pytest.raises(ConnectFailed, match="has no bridge"):
                await client.wait_connected(0.5)
            refused = False
            await client.wait_connected(10)
