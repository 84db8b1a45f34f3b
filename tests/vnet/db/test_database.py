"""Writes on a real ovsdb-server: what holds, what is refused, and what a refusal leaves behind (nothing)."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ovsctl.ovsdb import Update as UpdateOp
from tests.polling import until
from tests.servers import OvsdbServer
from tests.vnet.controller.databases import SCHEMA, FakeAgent, opened, pool_server
from vnet.db.changes import DeleteObject, InsertObject, RowChange, UpdateObject, state_changes
from vnet.db.database import PoolDatabase
from vnet.db.errors import PoolUnreachable, SchemaMismatch, WriteConflict
from vnet.db.writes import configuration_write, runtime_write
from vnet.objects import (
    Direction,
    Event,
    Expectation,
    Host,
    Network,
    NetworkType,
    Pool,
    PoolState,
    PortRange,
    Protocol,
    Reach,
    Rule,
    SecurityGroup,
    Subnet,
    Uplink,
    Verdict,
    Vif,
    Vm,
)

VIF = Vif("web1/0", "tenant", "0a:00:00:00:00:01", vm="web1", host="xen1", stays="xen1", addresses=("10.1.0.10",))
NETWORK = Network("extra", NetworkType.GENEVE, 9, 1450, key=9)


@pytest.fixture(scope="module")
def server(ovs: None) -> Iterator[OvsdbServer]:
    with pool_server() as server:
        yield server


@pytest.fixture
async def pool(server: OvsdbServer) -> AsyncIterator[PoolDatabase]:
    """The pool of three hosts; what a test adds is taken away after it."""
    async with opened(server.remote) as database:
        yield database
        state = database.mirror.state
        assert state.pool is not None
        for table in ("Binding", "Vif", "Vm", "Subnet", "SecurityGroup", "Expectation", "Agent", "Event"):
            server.client("transact", f'["Vnet",{{"op":"delete","table":"{table}","where":[]}}]')
        extra = [DeleteObject(n) for n in state.networks.values() if n.name not in ("tenant", "prod")]
        extra += [DeleteObject(h) for h in state.hosts.values() if h.name not in ("xen1", "xen2", "xen3")]
        if extra:
            await database.write(configuration_write(extra, state.pool))


async def write(pool: PoolDatabase, *changes: RowChange, **options: Any) -> None:
    await pool.write(configuration_write(changes, pool.mirror.state.pool, rows=pool.mirror, **options))


def copy_of(state: PoolState) -> PoolState:
    return PoolState(state.pool, *(dict(getattr(state, f)) for f in PoolState.__slots__[1:]))


async def refused(pool: PoolDatabase, code: str, *changes: RowChange) -> WriteConflict:
    before = copy_of(pool.mirror.state)
    with pytest.raises(WriteConflict) as caught:
        await write(pool, *changes)
    assert caught.value.code == code
    assert pool.mirror.state == before
    return caught.value


async def test_what_is_written_is_read_back_by_another(pool: PoolDatabase, server: OvsdbServer) -> None:
    host = Host("xen9", "10.99.0.9", (Uplink("bulk", ("eth2",), mtu=9000), Uplink("trunk0", ("eth1",))))
    subnet = Subnet("s", "extra", "10.1.0.0/24", "10.1.0.1")
    reach = Expectation("out", "web1", "outside", Reach.UNREACHABLE, Protocol.TCP, 25)
    before = copy_of(pool.mirror.state)
    after = copy_of(pool.mirror.state)
    for mapping, value in (
        (after.hosts, host), (after.networks, NETWORK), (after.subnets, subnet), (after.expectations, reach),
        (after.vms, Vm("web1")), (after.vifs, VIF),
    ):  # fmt: skip
        mapping[value.name] = value  # type: ignore[index]  # a copy's are dicts
    await write(pool, *state_changes(before, after))
    async with opened(server.remote) as other:
        assert other.mirror.state == pool.mirror.state
        assert other.mirror.state.hosts["xen9"] == host
        assert other.mirror.state.subnets["s"] == subnet
        assert other.mirror.state.expectations == {"out": reach}
        assert other.mirror.state.vifs["web1/0"] == VIF
        assert other.mirror.problems == {}


async def test_an_update_touches_only_what_differs(pool: PoolDatabase) -> None:
    await write(pool, InsertObject(Vm("web1")), InsertObject(VIF))
    seen = pool.mirror.state.vifs["web1/0"]
    await FakeAgent(pool, "xen1").claim("web1/0")  # raises the epoch behind the writer's back
    await write(pool, UpdateObject(seen, replace(seen, host="xen2")))
    now = pool.mirror.state.vifs["web1/0"]
    assert (now.host, now.epoch) == ("xen2", 1)


async def test_a_hosts_uplinks_follow_it(pool: PoolDatabase) -> None:
    host = Host("xen9", None, (Uplink("a", ("eth1",)), Uplink("b", ("eth2",))))
    await write(pool, InsertObject(host))
    other = Host("xen9", "10.0.0.9", (Uplink("b", ("eth3",), mtu=9000), Uplink("c", ("eth1",))))
    await write(pool, UpdateObject(host, other))
    assert pool.mirror.state.hosts["xen9"] == other
    await write(pool, DeleteObject(other))
    assert "xen9" not in pool.mirror.state.hosts


async def test_a_plan_of_an_older_revision_is_refused(pool: PoolDatabase) -> None:
    old = pool.mirror.state.pool
    assert old is not None
    await write(pool, InsertObject(NETWORK))
    with pytest.raises(WriteConflict, match="the pool has changed since this was planned") as caught:
        await pool.write(configuration_write([InsertObject(Vm("late"))], old))
    assert caught.value.code == "stale-revision"
    assert "late" not in pool.mirror.state.vms


async def test_revision_and_generation(pool: PoolDatabase) -> None:
    before = pool.mirror.state.pool
    assert before is not None
    await write(pool, InsertObject(Vm("a")))
    await write(pool, InsertObject(Vm("b")), generation=True)
    after = pool.mirror.state.pool
    assert after == replace(before, revision=before.revision + 2, generation=before.generation + 1)
    await pool.write(runtime_write([UpdateObject(Vm("a"), Vm("a", host="xen1"))]))
    assert pool.mirror.state.vms["a"].host == "xen1"
    assert pool.mirror.state.pool == after


async def test_references_hold(pool: PoolDatabase) -> None:
    error = await refused(
        pool, "missing-reference", InsertObject(Vm("web1")), InsertObject(replace(VIF, network="nowhere"))
    )
    assert error.message == "vif web1/0: network nowhere does not exist"
    await refused(pool, "missing-reference", InsertObject(VIF))  # its VM
    await refused(pool, "missing-reference", InsertObject(Subnet("s", "nowhere", "10.0.0.0/8")))
    await write(pool, InsertObject(NETWORK), InsertObject(Vm("web1")), InsertObject(replace(VIF, network="extra")))
    error = await refused(pool, "in-use", DeleteObject(NETWORK))
    assert error.message == "network extra still has a vif"
    await refused(pool, "in-use", DeleteObject(Vm("web1")))
    await write(pool, DeleteObject(NETWORK), DeleteObject(Vm("web1")), DeleteObject(replace(VIF, network="extra")))
    assert "extra" not in pool.mirror.state.networks


HTTP = Rule("http", Direction.INGRESS, protocol=Protocol.TCP, ports=(PortRange(80, 80), PortRange(443, 445)))
MAIL = Rule("mail", Direction.EGRESS, Verdict.DROP, 132, remote=("fd00::/8",))
WEB = SecurityGroup("web", 1, Verdict.DROP, Verdict.DROP, (HTTP, MAIL))
DB = SecurityGroup(
    "db", 2, rules=(Rule("peers", Direction.INGRESS, remote=("db",)), Rule("web", Direction.INGRESS, remote=("web",)))
)


async def test_security_groups_are_read_back_and_referred_to(pool: PoolDatabase, server: OvsdbServer) -> None:
    member = replace(VIF, vm=None, groups=("db", "web"))
    error = await refused(pool, "missing-reference", InsertObject(DB))
    assert error.message == "security group db: security group web does not exist"
    await refused(pool, "missing-reference", InsertObject(WEB), InsertObject(member))
    await write(pool, InsertObject(DB), InsertObject(member), InsertObject(WEB))
    async with opened(server.remote) as other:
        assert other.mirror.state.groups == {"web": WEB, "db": DB}
        assert other.mirror.state.vifs["web1/0"] == member
    error = await refused(pool, "in-use", DeleteObject(DB))
    assert error.message == "a vif still names security group db"
    lone = replace(member, groups=("web",))
    await write(pool, UpdateObject(member, lone))
    await refused(pool, "missing-reference", UpdateObject(lone, replace(lone, groups=("nobody", "web"))))
    await write(pool, DeleteObject(lone))
    error = await refused(pool, "in-use", DeleteObject(WEB))
    assert error.message == "a security group still names security group web"
    alone = replace(DB, rules=DB.rules[:1])
    await refused(
        pool, "missing-reference", UpdateObject(DB, replace(DB, rules=(Rule("x", Direction.INGRESS, remote=("y",)),)))
    )
    await write(pool, UpdateObject(DB, alone), DeleteObject(WEB))
    await write(pool, DeleteObject(alone))  # that it names itself is in nobody's way
    assert pool.mirror.state.groups == {}


async def test_bindings_go_with_their_vif_and_with_their_host(pool: PoolDatabase) -> None:
    host, other = Host("xen9", "10.0.0.9"), replace(VIF, id="web1/1", mac="0a:00:00:00:00:02", addresses=())
    await write(pool, InsertObject(host), InsertObject(Vm("web1")), InsertObject(VIF), InsertObject(other))
    await FakeAgent(pool, "xen9").beat()
    for id in ("web1/0", "web1/1"):
        await FakeAgent(pool, "xen9").claim(id)
    await write(pool, DeleteObject(VIF))
    assert set(pool.mirror.state.bindings) == {("web1/1", "xen9")}
    await write(pool, DeleteObject(host))
    assert (pool.mirror.state.bindings, pool.mirror.state.agents) == ({}, {})


async def test_equal_keys_are_refused(pool: PoolDatabase) -> None:
    await write(pool, InsertObject(NETWORK))
    await refused(pool, "exists", InsertObject(NETWORK))
    await refused(pool, "exists", InsertObject(replace(NETWORK, name="other")))  # its number


async def test_a_row_changed_meanwhile_is_not_overwritten(pool: PoolDatabase) -> None:
    await write(pool, InsertObject(Vm("web1")), InsertObject(VIF))
    await pool.write(runtime_write([UpdateObject(VIF, replace(VIF, incoming="xen2"))]))
    with pytest.raises(WriteConflict, match="vif web1/0 has changed"):
        await pool.write(runtime_write([UpdateObject(VIF, replace(VIF, incoming="xen3"))]))
    agent = FakeAgent(pool, "xen2")
    await agent.claim("web1/0")
    held = pool.mirror.state.bindings["web1/0", "xen2"]
    await pool.transact(UpdateOp("Binding", [("host", "==", "xen2")], {"state": "active"}))
    with pytest.raises(WriteConflict, match="binding web1/0 on xen2 has changed"):
        await pool.write(runtime_write([DeleteObject(held)]))
    assert ("web1/0", "xen2") in pool.mirror.state.bindings


async def test_what_is_asked_for_elsewhere_may_stay_where_it_runs(pool: PoolDatabase) -> None:
    async def asked(**fields: str | None) -> str:
        known = pool.mirror.state.vifs["web1/0"]
        await write(pool, UpdateObject(known, replace(known, **fields)))  # type: ignore[arg-type]
        await until(lambda: pool.mirror.state.vifs["web1/0"] is not known, "the VIF")
        return pool.mirror.state.vifs["web1/0"].stays

    await write(pool, InsertObject(Vm("web1")), InsertObject(replace(VIF, host="xen1")))
    assert pool.mirror.state.vifs["web1/0"].stays == "xen1"
    assert await asked(host=None) == ""
    agent = FakeAgent(pool, "xen2")
    await agent.claim("web1/0")
    assert await asked(host="xen1") == "xen1 xen2"
    assert await asked(mac="0a:00:00:00:00:77") == "xen1 xen2"
    assert await asked(host="xen2") == "xen2"
    assert await asked(incoming="xen3") == "xen2"
    await FakeAgent(pool, "xen3").claim("web1/0")
    await pool.transact(UpdateOp("Binding", [("host", "==", "xen3")], {"state": "active"}))
    await until(lambda: (it := pool.mirror.location("web1/0").current) and it.host == "xen3", "it has moved")
    assert await asked(host="xen3", incoming=None) == "xen3 xen2"
    assert "stays" not in "".join(record["changes"] for record in await pool.records((), ("changes",)))


async def test_events_are_written_with_what_they_tell_of(pool: PoolDatabase) -> None:
    event = Event(1, "vm-created", "VM a", vif="")
    await pool.write(configuration_write([InsertObject(Vm("a"))], pool.mirror.state.pool), [event])
    assert list(pool.mirror.events.values()) == [event]
    with pytest.raises(WriteConflict):
        await pool.write(configuration_write([InsertObject(Vm("a"))], pool.mirror.state.pool), [event])
    assert len(pool.mirror.events) == 1


@pytest.mark.usefixtures("ovs")
async def test_an_empty_pool_takes_a_first_document_once() -> None:
    with pool_server() as server:
        async with opened(server.remote, filled=False) as pool:
            with pytest.raises(WriteConflict, match="apply a document first"):
                configuration_write([InsertObject(Vm("a"))], None)
            first = configuration_write([InsertObject(Pool("lab", 1600))], None)
            await pool.write(first)
            made = pool.mirror.state.pool
            assert made is not None
            assert len(made.id) == 32
            assert made == Pool("lab", 1600, id=made.id, revision=1, generation=1)
            with pytest.raises(WriteConflict, match="the pool has changed"):
                await pool.write(first)


def with_version(version: str, **tables: Any) -> dict[str, Any]:
    schema = copy.deepcopy(SCHEMA)
    schema["version"] = version
    schema["tables"].update(tables)
    return schema


@pytest.mark.usefixtures("ovs")
async def test_a_newer_schema_is_refused() -> None:
    newer = pytest.raises(SchemaMismatch, match=r"has schema 99.0.0, this vnet knows .*: upgrade vnet")
    with pool_server(with_version("99.0.0")) as server, newer:
        async with opened(server.remote, convert=True):
            pass


@pytest.mark.usefixtures("ovs")
async def test_an_older_schema_is_converted_by_a_controller_and_refused_to_others() -> None:
    old = with_version("0.9.0")
    del old["tables"]["Event"]
    with pool_server(old) as server:
        with pytest.raises(SchemaMismatch, match="start a controller of this version"):
            async with opened(server.remote):
                pass
        async with opened(server.remote, convert=True) as pool:
            assert pool.mirror.state.pool is not None
        async with opened(server.remote):
            pass


@pytest.mark.usefixtures("ovs")
async def test_a_database_without_security_groups_gets_them_and_keeps_the_rest() -> None:
    old = with_version("1.3.0")
    del old["tables"]["SecurityGroup"]
    with pool_server(old) as server:
        rows = [
            {"op": "insert", "table": "Pool", "row": {"name": "kept", "underlay_mtu": 1500, "locking_mode": "locked"}}
        ]
        server.client("transact", json.dumps(["Vnet", *rows]))
        async with opened(server.remote, convert=True) as pool:
            assert pool.mirror.state.pool == Pool("kept")
            await write(pool, InsertObject(WEB))
            assert pool.mirror.state.groups == {"web": WEB}


async def test_no_database_is_unreachable_and_says_where() -> None:
    pool = PoolDatabase(["unix:/nonexistent/pool.sock"])
    with pytest.raises(PoolUnreachable, match=r"unix:/nonexistent/pool.sock"):
        await pool.open(timeout_s=0.3)


async def test_a_database_that_goes_away_is_found_again(pool: PoolDatabase, server: OvsdbServer) -> None:
    server.stop()
    await pool.wait_for(lambda _: not pool.connected, 10)
    with pytest.raises(PoolUnreachable):
        await write(pool, InsertObject(Vm("a")))
    server.start()
    assert await pool.wait_for(lambda _: pool.connected, 10)
    await write(pool, InsertObject(Vm("a")))
    assert "a" in pool.mirror.state.vms
