"""Rows that no pool may have, written past the API into a running pool: each costs its object, is told, and is gone once it is mended.

One rule: what may be wrong with a column follows from its declaration. A content is damage where the database takes it and the
object does not.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from ovsctl.ovsdb import (
    Change,
    Delete,
    Insert,
    Monitor,
    NotConnected,
    OvsdbClient,
    Replica,
    Select,
    Update,
    Uuid,
    by_uuid,
)
from ovsctl.ovsdb.errors import ConnectionLost, ConstraintViolation
from tests.polling import until
from tests.servers import vswitchd
from tests.vnet.agent.pool import HostUnderTest, vif
from tests.vnet.controller.daemons import Controller, controller
from vnet.agent.conditions import monitors
from vnet.agent.ofproto_trace import answered as answered_packet
from vnet.agent.pool_replica import TABLES as AGENTS_TABLES
from vnet.agent.pool_replica import PoolReplica
from vnet.agent.questions import Questions
from vnet.client import AsyncClient, Unreachable
from vnet.compile import Compiler, compile_flows
from vnet.db.captures import CaptureRow
from vnet.db.mirror import PoolMirror
from vnet.db.probes import Probe
from vnet.db.rows import SCHEMA_NAME, SCHEMA_TEXT, from_row, to_columns
from vnet.db.rule_queries import RuleQuery, RuleReply
from vnet.db.tables import TABLES, ObjectTable, table_of
from vnet.db.traffic_queries import TrafficQuery
from vnet.db.watches import WatchRow
from vnet.grammar.declare import Declared
from vnet.objects import (
    AgentStatus,
    Binding,
    Direction,
    Host,
    Network,
    NetworkType,
    Pool,
    QosClass,
    Rule,
    SecurityGroup,
    Subnet,
    TunnelKey,
    Uplink,
    Vm,
)
from vnet.objects.follower import ToolstackFollower
from vnet.objects.retired import RetiredNumber
from vnet.objects.token import ApiRole, Token
from vnet.objects.trial import Trial

Rows = dict[tuple[str, Uuid], "PlainRow"]

STEPS = 80  # of random contents in a running pool
module_wide = pytest.mark.asyncio(loop_scope="module")

DOCUMENT = b"""\
apiVersion: vnet/v1
pool: damaged
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2}
underlay: {mtu: 1600}
qos: {gold: {from-vm: 10mbit}, silver: {from-vm: 5mbit}}
networks:
  tenant: {type: vxlan, hosts: [xen1, xen2]}
  bystander: {type: geneve}
  prod: {type: vlan, tag: 120, uplink: trunk0, hosts: [xen1]}
subnets: {front: {network: tenant, cidr: 10.1.0.0/24, gateway: 10.1.0.1}}
address-sets: {offices: [10.1.0.0/16]}
plug-bridges: {xapi-tenant: {network: tenant}}
mirrors: {ids: {from: [vm1/0, {group: web}], to: vm2/0, filter: tcp port 80, expires: "2100-01-01T00:00:00Z"}}
flow-export: {flows: {protocol: ipfix, to: "10.0.0.9:4739", sample: 64, of: [vm1/0, {group: web}]}}
security-groups:
  web: {rules: [{name: http, direction: ingress, protocol: tcp, ports: [80], remote: offices}]}
vms:
  vm1: {vifs: [{network: tenant, security-groups: [web], qos: gold}]}
  vm2: {vifs: [{network: tenant}]}
  vm3: {vifs: [{network: bystander}]}
  vm4: {vifs: [{network: bystander}]}
expectations: [{name: front, from: vm1, to: vm2, expect: reachable}]
"""
PORTS = {"xen1": ("vm1/0", "vm3/0"), "xen2": ("vm2/0", "vm4/0")}
BYSTANDERS = ("bystander", "vm3/0", "vm4/0")
# Tables whose rows agents own and rewrite; the controller's leader writes events and clears up.
VICTIMS = {
    "Host": "xen2", "QosClass": "gold", "Network": "tenant", "Vm": "vm1", "Vif": "vm1/0", "Binding": "vm2/0", "Agent": "xen2",
}  # fmt: skip

ATOMS: Mapping[str, tuple[Any, ...]] = {
    "string": ("", "-1", "no such thing", "\x01", "x" * 300),
    "integer": (-1, -(2**63), 2**63 - 1, 0),
    "boolean": (),
}


def contents(type_: Any) -> Iterator[Any]:
    """Contents of a column by its <type> (RFC 7047 §3.2) that people would not give it: at the bounds, empty, or nonsense."""
    shape = type_ if isinstance(type_, dict) else {"key": type_}
    key = shape["key"] if isinstance(shape["key"], dict) else {"type": shape["key"]}
    low, high = key.get("minInteger", -(2**63)), key.get("maxInteger", 2**63 - 1)
    atoms = key["enum"][1] if "enum" in key else ATOMS[key["type"]] + ((low, high) if key["type"] == "integer" else ())
    fitting = [atom for atom in atoms if not isinstance(atom, int) or low <= atom <= high]
    if "value" in shape:
        value = shape["value"] if isinstance(shape["value"], str) else shape["value"]["type"]
        yield from ({atom: content} for atom in fitting for content in ATOMS[value][:2])
        yield {}
    elif shape.get("max") == "unlimited":
        yield from (frozenset({atom}) for atom in fitting)
        yield frozenset(map(str, range(200))) if key["type"] == "string" else frozenset(range(200))
        if shape.get("min") == 0:
            yield frozenset()
    else:
        yield from fitting
        if shape.get("min") == 0:
            yield None


def columns_of(table: ObjectTable) -> Iterator[tuple[str, Any]]:
    """The columns of a table that objects are read from, with their types."""
    for cell in table.cells:
        if cell.field:
            yield cell.column, cell.type


def is_refused(table: ObjectTable, row: Mapping[str, Any]) -> bool:
    try:
        from_row(table.declared, row)
    except ValueError:
        return True
    return False


@dataclass
class PoolUnderDamage:
    """A controller with its database, the agents of two hosts, and a client that writes past both."""

    controller: Controller
    api: AsyncClient
    client: OvsdbClient
    replica: Replica
    mirror: PoolMirror
    hosts: dict[str, HostUnderTest]
    marks: int = 0
    log_read: int = 0

    def row(self, table: str) -> tuple[Uuid, dict[str, Any]]:
        """The row of a table that is damaged."""
        key = TABLES[table].key[-1:] if table in ("Uplink", "RetiredNumber") else TABLES[table].key[:1]
        wanted = VICTIMS.get(table)
        return next(
            (uuid, row.as_dict())
            for uuid, row in sorted(self.replica[table].items())
            if wanted is None or row[key[0]] == wanted
        )

    async def seen_by_leader(self) -> None:
        """Returns once the leader has had a round that began after the call."""

        async def beat() -> int:
            ((row,),) = await self.client.transact(Select("Leader", (), ("beat",)))
            return int(row["beat"])

        before = await beat()

        async def beaten() -> bool:
            return await beat() > before + 1

        await until(beaten, "two rounds of the leader")

    async def find(self, table: str, **wanted: str) -> Uuid:
        """The UUID of a row."""
        return next(
            uuid
            for uuid, row in self.replica[table].items()
            if all(row[column] == content for column, content in wanted.items())
        )

    async def write(self, table: str, uuid: Uuid, **columns: Any) -> None:
        await self.write_all([(table, uuid, columns)])

    async def write_all(self, edits: Sequence[tuple[str, Uuid, Mapping[str, Any]]]) -> None:
        """Writes columns of rows, and in the same transaction those of a bystander; returns once everybody has taken that in."""
        self.marks += 1
        operations = [Update(table, by_uuid(uuid), dict(columns)) for table, uuid, columns in edits]
        operations.append(Update("QosClass", (("name", "==", "silver"),), {"dscp": self.marks % 64}))

        async def written() -> bool:
            try:
                await self.client.transact(*operations)
            except NotConnected:  # the server drops its clients some time after a conversion
                return False
            return True

        await until(written, "the database")
        await until(self.all_have_seen, f"{edits}: the rest of the transaction")

    def random_edit(self, random: Random) -> tuple[str, Uuid, str, Any]:
        """Table, row, column and a content for it. Some tables run empty: a number that is retired until generation 0 is free at once."""
        rows = {
            name: sorted(uuid for uuid, row in self.replica[name].items() if not self.is_mark(name, row))
            for name in TABLES
            if name != "Pool"
        }
        table = random.choice([name for name, uuids in rows.items() if uuids])
        uuid = random.choice(rows[table])
        column, type_ = random.choice([*columns_of(TABLES[table])])
        return table, uuid, column, random.choice([*contents(type_)] or [self.replica[table][uuid][column]])

    @staticmethod
    def is_mark(table: str, row: Any) -> bool:
        return table == "QosClass" and row["name"] == "silver"

    async def convert(self, schema: Mapping[str, Any]) -> None:
        with contextlib.suppress(ConnectionLost):  # the server drops its clients
            await self.client.request("convert", SCHEMA_NAME, schema)
        await self.client.wait_connected()
        await until(lambda: self.client.schema.version == schema["version"], "the new schema")
        await self.replica.wait_synced()
        for host in self.hosts.values():
            await until(lambda host=host: host.agent.pool_client.connected, "agents")  # type: ignore[misc]

    async def settled(self) -> None:
        await until(lambda: not differences(self), "no difference")

    async def wait_ready(self, vif: str) -> None:
        async def ready() -> bool:
            return any(binding.ready for binding in await self.api.bindings(vif=vif))

        await until(ready, f"{vif} ready")

    async def all_have_seen(self) -> bool:
        for host in self.hosts.values():
            assert host.task is not None
            assert not host.task.done(), host.task.result()
            silver = host.agent.compiler.inputs.qos.get("silver")
            if not host.agent.pool_client.connected or silver is None or silver.dscp != self.marks % 64:
                return False
        try:
            return (await self.api.qos_class("silver")).dscp == self.marks % 64
        except Unreachable:
            return False

    def told(self) -> str:
        """What the controller has logged since this was last called."""
        text = self.controller.log.read_text()
        new, self.log_read = text[self.log_read :], len(text)
        return new

    async def problems(self) -> str:
        return "\n".join(problem.text for problem in (await self.api.status()).problems)


@contextlib.asynccontextmanager
async def pool_under_damage() -> AsyncIterator[PoolUnderDamage]:
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(controller(document=DOCUMENT))
        switches = {name: stack.enter_context(vswitchd()) for name in PORTS}
        remote = daemon.database.remote
        async with OvsdbClient([remote], SCHEMA_NAME) as client, AsyncClient(daemon.address) as api:
            hosts = {name: HostUnderTest(name, switch, [remote]) for name, switch in switches.items()}
            try:
                for host in hosts.values():
                    host.start()
                    await until(lambda host=host: host.agent.flows.connected and host.agent.rows.settled, "agents")  # type: ignore[misc]
                    for number, vif in enumerate(PORTS[host.name]):
                        host.add_port(f"p{number}", vif)

                async def ready() -> bool:
                    return [binding.ready for binding in await api.bindings()] == [True] * 4

                await until(ready, "VIFs ready")
                # Agents that are there have not acknowledged its generation, so it stays.
                await client.transact(Insert("Token", to_columns(Token("ci", "0" * 64, ApiRole.VIEWER))))
                await client.transact(Insert("RetiredNumber", to_columns(RetiredNumber("vxlan", 7, "gone", 2**40))))
                # Of a revision without a record, so it is not taken back.
                await client.transact(Insert("Trial", to_columns(Trial(2**40, 2**60, "ci"))))
                await client.transact(Insert("Follower", to_columns(ToolstackFollower("xapi-1", "machine a"))))
                await client.transact(Insert("TunnelKey", to_columns(TunnelKey("xen2", 0, "A" * 43 + "="))))
                replica = await client.monitor({table: Monitor() for table in TABLES})
                mirror = PoolMirror()
                mirror.fold(_whole(replica))
                replica.subscribe(lambda batch: mirror.fold(batch) and None)
                pool = PoolUnderDamage(daemon, api, client, replica, mirror, hosts)
                pool.told()
                yield pool
            finally:
                for host in hosts.values():
                    await host.stop()


def _whole(replica: Replica) -> list[Any]:
    return [Change(table, uuid, None, row) for table in TABLES for uuid, row in replica[table].items()]


def of_a_fresh_start(host: HostUnderTest) -> list[str]:
    """What an agent has of the pool that one which reads the same rows at its start would not have, or otherwise."""
    agent = host.agent
    if agent._replica is None or not agent.complete:
        return [f"{agent.me} has not started"]
    fresh = PoolReplica(Compiler(agent.me), lambda _: None)
    fresh.named = agent.pool.named
    fresh.start(agent._replica)
    mine, theirs = agent.compiler.inputs, fresh.compiler.inputs
    for id, ofport in mine.ports.items():
        theirs.set_port(id, ofport)
    for device, number in mine.devices.items():
        theirs.set_device(device, number)
    lines = [
        f"{agent.me}: {name}: {getattr(mine, name)} and not {getattr(theirs, name)}"
        for name in (
            "pool",
            "hosts",
            "networks",
            "vifs",
            "groups",
            "qos",
            "address_sets",
            "plug_bridges",
            "flow_collectors",
            "mirrors",
            "local_networks",
            "local_uplinks",
        )
        if getattr(mine, name) != getattr(theirs, name)
    ]
    compiled = compile_flows(fresh.compiler.view)
    for source in sorted(compiled.keys() | agent.compiler.flows.keys()):
        if compiled.get(source) != agent.compiler.flows.get(source):
            lines.append(f"{agent.me}: flows of {source}")
    lines += [f"{agent.me}: {problem}" for problem in agent.pool.problems.values()]
    return lines


def of_a_fresh_mirror(pool: PoolUnderDamage) -> list[str]:
    fresh = PoolMirror()
    fresh.fold(_whole(pool.replica))
    lines = [
        f"mirror: {name}: {mine.keys() ^ theirs.keys()} {[key for key in mine if mine[key] != theirs.get(key)]}"
        for name, mine in pool.mirror._tables.items()
        if (theirs := fresh._tables[name]) != mine
    ]
    same = (pool.mirror._uuids, pool.mirror._bindings_of, pool.mirror._members, pool.mirror.problems) == (
        fresh._uuids, fresh._bindings_of, fresh._members, fresh.problems
    )  # fmt: skip
    return lines if same else [*lines, "mirror: indexes"]


def differences(pool: PoolUnderDamage) -> list[str]:
    return [line for host in pool.hosts.values() for line in of_a_fresh_start(host)] + of_a_fresh_mirror(pool)


async def damage(pool: PoolUnderDamage, table: str, column: str, content: Any) -> set[str]:
    """Damages a column, checks what must hold meanwhile, and mends it. Returns the agents that refused the row."""
    uuid, row = pool.row(table)
    before = {name: (host.agent.pool.rows_refused, bystanders(host)) for name, host in pool.hosts.items()}
    await pool.write(table, uuid, **{column: content})
    told = pool.told()
    assert str(uuid) in told, f"{table}.{column}: the controller does not tell"
    assert "Traceback" not in told, told
    refused = set()
    for name, host in pool.hosts.items():
        refusals, flows = before[name]
        assert bystanders(host) == flows, f"{table}.{column} {content}: {name}: bystanders"
        seen = host.agent._replica[table].get(uuid) if table in host.agent._replica else None
        if host.agent.pool.rows_refused > refusals:
            refused.add(name)
        else:
            assert seen is None or column not in seen.as_dict() or seen[column] != content, f"{name} took {content} in"
    await pool.write(table, uuid, **{column: row[column]})
    await until(lambda: not differences(pool), f"{table}.{column} {content} mended")
    return refused


def bystanders(host: HostUnderTest) -> dict[Any, Any]:
    """The flows of what is never damaged."""
    return {source: flows for source, flows in host.agent.compiler.flows.items() if source.name in BYSTANDERS}


def refused_contents(table: str, row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for column, type_ in columns_of(TABLES[table]):
        found = [content for content in contents(type_) if is_refused(TABLES[table], {**row, column: content})]
        yield from ((column, content) for content in found[:2])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(ovs: None) -> AsyncIterator[PoolUnderDamage]:
    """One pool for all: each test leaves it as it was."""
    async with pool_under_damage() as made:
        assert not differences(made)
        yield made
        assert "Traceback" not in made.controller.log.read_text()


def monitored() -> set[tuple[str, str]]:
    """The columns that agents read, but for those by which they choose their rows: a row damaged there is not sent to them."""
    found = monitors("", ())
    chosen_by = {"Vif": ("id",), "Network": ("name",), "SecurityGroup": ("name",), "Uplink": ("host",)}
    return {
        (table, column.rstrip("_"))
        for table, monitor in found.items()
        for column in monitor.columns or TABLES[table].declared.__dataclass_fields__
        if column not in chosen_by.get(table, ())
    }


@module_wide
async def test_every_column_of_every_table_damaged_in_turn(pool: PoolUnderDamage) -> None:
    flows = {name: host.flows() for name, host in pool.hosts.items()}
    damaged, refused = set(), set()
    for table in TABLES:
        for column, content in refused_contents(table, pool.row(table)[1]):
            damaged.add((table, column))
            if await damage(pool, table, column, content):
                refused.add((table, column))
    assert {table for table, _ in damaged} == TABLES.keys()
    assert refused == damaged & monitored()
    await until(lambda: flows == {name: host.flows() for name, host in pool.hosts.items()}, "flows as before")


@module_wide
@pytest.mark.parametrize("mac", ["", "garbage"])
@pytest.mark.parametrize("of", ["vm1/0", "vm2/0"])
async def test_an_agent_starts_with_a_bindings_mac_that_is_none(pool: PoolUnderDamage, mac: str, of: str) -> None:
    """Its own is claimed anew; a peer's is left out, and told, until that host puts it back."""
    me = pool.hosts["xen1"]
    await pool.hosts["xen2"].stop()
    await me.stop()
    uuid = await pool.find("Binding", vif=of)
    await pool.client.transact(Update("Binding", by_uuid(uuid), {"mac": mac}))
    me.start()
    await until(lambda: me.agent.rows.settled and me.agent.flows.connected, "an agent that starts")
    if of == "vm1/0":
        await pool.wait_ready(of)
    else:
        assert str(uuid) in me.agent.pool.problems
        assert "vm3/0" in me.agent.pool.mine
    pool.hosts["xen2"].start()
    await pool.settled()


@module_wide
@pytest.mark.parametrize(("column", "content"), [("acked", frozenset({"", "xen1"})), ("since", -1)])
async def test_a_statement_that_makes_no_sense_takes_no_binding_away(
    pool: PoolUnderDamage, column: str, content: Any
) -> None:
    """Other hosts acknowledge a binding: one that writes nonsense does not unplug its VIF."""
    await pool.wait_ready("vm2/0")
    uuid, before = await pool.find("Binding", vif="vm2/0"), await pool.api.bindings(vif="vm2/0")
    kept = pool.replica["Binding"][uuid][column]
    await pool.write("Binding", uuid, **{column: content})
    (found,) = await pool.api.bindings(vif="vm2/0")
    assert (found.state, found.ready, found.epoch) == ("active", True, before[0].epoch)
    assert found.acked == (["xen1"] if column == "acked" else before[0].acked)
    assert column in await pool.problems()
    await pool.write("Binding", uuid, **{column: kept})
    await pool.settled()


@module_wide
async def test_an_agent_puts_its_own_status_back(pool: PoolUnderDamage) -> None:
    host, uuid = pool.hosts["xen2"], await pool.find("Agent", host="xen2")
    before = pool.replica["Agent"][uuid].as_dict()
    await pool.write("Agent", uuid, generation=-1, version="garbage")
    assert f"Agent row {uuid}: generation: -1 is outside" in await pool.problems()
    assert (await pool.api.host("xen2")).agent.alive  # its generation counts as not reached
    assert await host.agent.reports.beat(uuid)
    host.agent.reports.statements.again()
    await until(lambda: pool.replica["Agent"][uuid]["generation"] == before["generation"], "its generation")
    assert pool.replica["Agent"][uuid].as_dict() | {"heartbeat": 0} == before | {"heartbeat": 0}
    await pool.settled()


@module_wide
async def test_a_trunk_with_a_tag_that_is_none(pool: PoolUnderDamage) -> None:
    uuid = await pool.find("Vif", id="vm1/0")
    await pool.write("Vif", uuid, trunk=frozenset({"abc"}))
    assert any("trunk" in text for text in pool.hosts["xen1"].agent.pool.problems.values())
    assert "trunk" in await pool.problems()
    await pool.write("Vif", uuid, trunk=frozenset())
    await pool.settled()


@module_wide
async def test_a_vif_that_can_have_no_further_epoch(pool: PoolUnderDamage) -> None:
    """Till the leader puts its epoch back, its next claim cannot be written: it is a problem of that VIF, and others are claimed in the same
    turn."""
    host, uuid = pool.hosts["xen1"], await pool.find("Vif", id="vm1/0")
    await pool.seen_by_leader()
    before = pool.replica["Vif"][uuid]["epoch"]
    with pool.controller.paused():
        await pool.client.transact(Update("Vif", by_uuid(uuid), {"epoch": 2**63 - 1}))
        host.switch.server.vsctl("del-port", "br-int", "p0", "--", "del-port", "br-int", "p1")
        await until(lambda: not host.agent.pool.mine, "no VIFs")
        for port, vif in enumerate(PORTS["xen1"]):
            host.add_port(f"p{port}", vif)
        await until(lambda: "vm3/0" in host.agent.pool.mine, "vm3 claimed")
        await until(lambda: "epoch" in host.agent.problems.get("vif vm1/0", ""), "a problem of vm1")
    await pool.wait_ready("vm1/0")
    await until(lambda: pool.replica["Vif"][uuid]["epoch"] == before + 1, "the next epoch")
    await pool.settled()


@module_wide
async def test_the_rest_of_a_transaction_is_taken_in(pool: PoolUnderDamage) -> None:
    """A VIF that is deleted along with a row that cannot be read leaves no flow."""
    host = pool.hosts["xen1"]
    network, other = await pool.find("Network", name="tenant"), await pool.find("Vif", id="vm3/0")
    deleted = pool.replica["Vif"][other].as_dict()
    await pool.client.transact(Update("Network", by_uuid(network), {"mtu": 1}), Delete("Vif", by_uuid(other)))
    await until(lambda: not any("=vm3/0" in text or deleted["mac"] in text for text in host.flows()), "no flow of it")
    assert await pool.api.vifs(network="bystander") == [await pool.api.vif("vm4/0")]
    await pool.client.transact(Insert("Vif", deleted | {"epoch": 0}))
    await pool.write("Network", network, mtu=1550)
    await pool.wait_ready("vm3/0")
    await pool.settled()


@module_wide
async def test_a_row_that_is_deleted_while_it_is_damaged(pool: PoolUnderDamage) -> None:
    """What was taken in of it goes, though its name is another by then."""
    host = pool.hosts["xen1"]
    added, taken = Host("xen3", "10.99.0.3"), Host("xen4", "10.99.0.4")
    results = await pool.client.transact(Insert("Host", to_columns(added)))
    await pool.write("Host", results[0], name="")
    assert "xen3" in host.agent.compiler.inputs.hosts
    (second,) = await pool.client.transact(Insert("Host", to_columns(added)))  # its name is free
    await pool.write("Host", results[0], name="xen4", address=taken.address)
    assert host.agent.compiler.inputs.hosts.keys() == {"xen1", "xen2", "xen3", "xen4"}
    await pool.write("Host", results[0], name="")
    await pool.client.transact(Delete("Host", by_uuid(results[0])), Delete("Host", by_uuid(second)))
    await pool.settled()
    assert host.agent.compiler.inputs.hosts.keys() == {"xen1", "xen2"}


@module_wide
async def test_a_group_that_names_more_groups_than_a_network_has_bits(pool: PoolUnderDamage) -> None:
    rule = Rule("many", Direction.INGRESS, remote=tuple(f"g{number}" for number in range(100, 300)))
    uuid = await pool.find("SecurityGroup", name="web")
    before = pool.replica["SecurityGroup"][uuid].as_dict()
    wide = to_columns(SecurityGroup("web", before["number"], rules=(rule,)))  # type: ignore[arg-type]
    await pool.write("SecurityGroup", uuid, rules=wide["rules"], remotes=wide["remotes"])
    host = pool.hosts["xen1"]
    await until(lambda: "name more than" in host.agent.problems.get("vif vm1/0", ""), "a problem of its member")
    await pool.write("SecurityGroup", uuid, rules=before["rules"], remotes=before["remotes"])
    await pool.settled()


@module_wide
async def test_random_contents(pool: PoolUnderDamage) -> None:
    """Up to three columns of any rows at once, whether the contents are damage or not: mended, everything is as it was."""
    random = Random(12)
    for _ in range(STEPS):
        edits = [pool.random_edit(random) for _ in range(random.randint(1, 3))]
        before = [(table, uuid, column, pool.replica[table][uuid][column]) for table, uuid, column, _ in edits]
        try:
            await pool.write_all([(table, uuid, {column: content}) for table, uuid, column, content in edits])
        except ConstraintViolation:
            continue  # the name of another row
        await pool.write_all([(table, uuid, {column: content}) for table, uuid, column, content in reversed(before)])
        await pool.settled()


@module_wide
async def test_a_word_of_a_newer_schema(pool: PoolUnderDamage) -> None:
    newer = json.loads(SCHEMA_TEXT)
    newer["version"] = "1.999.0"
    for table, column in (("Network", "type"), ("Vif", "locking_mode"), ("Binding", "state")):
        newer["tables"][table]["columns"][column]["type"]["key"]["enum"][1].append("newer")
    await pool.convert(newer)
    for table, column in (("Network", "type"), ("Vif", "locking_mode"), ("Binding", "state")):
        await damage(pool, table, column, "newer")
    await pool.convert(json.loads(SCHEMA_TEXT))
    await pool.settled()


QUESTIONS: tuple[Declared, ...] = (
    Probe("q", "xen1", 1, "0a" * 12 + "0800", vif="vm1/0", tracked="rpl+trk"),  # a header, and nothing in it
    RuleQuery("q", "xen1", 1, "web"),
    TrafficQuery("q", "xen1", 1, "vm1/0"),
    WatchRow("q", "xen1", 1, '{"hosts": ["xen1"], "frames": [{"frame": "0a", "vif": "vm1/0"}]}'),
    CaptureRow("q", "xen1", 1, '{"vifs": [["vm1/0", "n1"]], "filter": "tcp"}', 1),
)


@module_wide
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.NOUN.word)
async def test_questions_that_make_no_sense(pool: PoolUnderDamage, question: Declared) -> None:
    """Each is answered, and none ends an agent."""
    table, base = table_of(type(question)), to_columns(question)
    edits = [(column, content) for column, type_ in columns_of(table) for content in contents(type_)]
    rows = [base, *(base | {column: content} for column, content in edits if column not in ("id", "host"))]
    numbered = [row | {"id": f"q{number}"} for number, row in enumerate(rows)]
    await pool.client.transact(*(Insert(table.name, row) for row in numbered))
    answer = "report" if table.name in ("Watch", "Capture") else "answer"
    open_ones = [row["id"] for row in numbered if not row[answer] and row.get("plan", True)]

    async def answered() -> bool:
        (found,) = await pool.client.transact(Select(table.name))
        return {row["id"] for row in found if row[answer]} >= {*open_ones}

    await until(answered, "answers")
    await pool.client.transact(Delete(table.name, ()))
    await pool.settled()


async def test_a_question_whose_answer_fails_is_answered_with_that() -> None:
    async def answer(query: RuleQuery) -> RuleReply:
        raise IndexError(query.group)

    questions = Questions(RuleQuery, "xen1", OvsdbClient(["unix:/nowhere"], SCHEMA_NAME), answer, RuleReply)
    reply = await questions.reply_to(RuleQuery("q", "xen1", 1, "web"))
    assert reply == RuleReply(problem="IndexError: web")


@pytest.mark.parametrize("eth_type", ["0800", "86dd", "8100"])
def test_no_frame_is_too_short_for_a_question(eth_type: str) -> None:
    for size in range(60):
        answered_packet(bytes.fromhex("0a" * 12 + eth_type) + b"\x45" + bytes(size))


# The same without processes, and with rows that pass their keys on


class PlainRow(dict[str, Any]):
    """A row of a replica."""

    uuid: Uuid = ""


OBJECTS: tuple[tuple[str, Declared], ...] = (
    ("", Pool("test", id="a")),
    *(("", Host(name, f"10.99.0.{number}")) for number, name in enumerate(("xen1", "xen2", "xen3"), 1)),
    *(("xen1", Uplink(name, (f"eth{number}",))) for number, name in enumerate(("a", "b", "c"))),
    *(("", QosClass(name, dscp=1)) for name in ("gold", "silver")),
    *(("", Network(name, NetworkType.VXLAN, number, 1450, key=number)) for number, name in enumerate(("n1", "n2"), 1)),
    ("", Network("n3", NetworkType.VLAN, 3, 1500, key=3, tag=3, uplink="a")),
    *(("", SecurityGroup(name, number)) for number, name in enumerate(("web", "db"), 1)),
    *(("", vif(number, network, host="xen1", epoch=2)) for number, network in enumerate(("n1", "n2", "n3"), 1)),
    *(("", Binding(f"vm{number}/0", host, "n1", f"0a:00:00:00:00:{number:02x}", 1)) for number in (1, 2, 3) for host in ("xen1", "xen2")),
    *(("", AgentStatus(name)) for name in ("xen1", "xen2")),
    ("", Subnet("front", "n1", "10.1.0.0/24")),
    ("", Vm("vm1")),
)  # fmt: skip


def first_rows() -> Rows:
    rows = {}
    for number, (owner, value) in enumerate(OBJECTS):
        table = table_of(type(value))
        row = PlainRow(to_columns(value) | ({table.owner: owner} if table.owner else {}))
        row.uuid = f"{number:08}-0000-0000-0000-000000000000"
        rows[table.name, row.uuid] = row
    return rows


def changed(rows: Rows, random: Random) -> Rows:
    """The rows after a random transaction."""
    table, uuid = random.choice([*rows])
    row = rows[table, uuid]
    match random.randrange(8):
        case 0:
            return {key: found for key, found in rows.items() if key != (table, uuid)}
        case 1:
            made = PlainRow(row)
            made.uuid = f"{random.randrange(10**8):08}-1111-0000-0000-000000000000"
            return {key: found for key, found in rows.items() if key != (table, uuid)} | {(table, made.uuid): made}
        case 2 | 3:
            other = random.choice([found for of, found in rows if of == table])
            names = TABLES[table].key
            mine = {name: row[name] for name in names}
            theirs = {name: rows[table, other][name] for name in names}
            return rows | {(table, uuid): edited(row, theirs), (table, other): edited(rows[table, other], mine)}
        case _:
            column, type_ = random.choice([*columns_of(TABLES[table])])
            return rows | {(table, uuid): edited(row, {column: random.choice([row[column], *contents(type_)])})}


def edited(row: PlainRow, columns: Mapping[str, Any]) -> PlainRow:
    made = PlainRow({**row, **columns})
    made.uuid = row.uuid
    return made


def fits_indexes(rows: Rows) -> bool:
    """Whether the database would take the rows: a key is one row's."""
    keys = [(table, *(row[name] for name in TABLES[table].key)) for (table, _), row in rows.items()]
    return len(keys) == len(set(keys))


def between(before: Rows, after: Rows) -> tuple[Change, ...]:
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return tuple(Change(*key, before.get(key), after.get(key)) for key in keys)  # type: ignore[arg-type]


def folded(changes: Sequence[Change]) -> tuple[PoolReplica, PoolMirror]:
    replica, mirror = PoolReplica(Compiler("xen1"), lambda _: None), PoolMirror()
    replica.fold(change for change in changes if change.table in AGENTS_TABLES)
    mirror.fold(changes)
    return replica, mirror


def content_of(replica: PoolReplica, mirror: PoolMirror) -> dict[str, Any]:
    """All that both hold, once the VIFs that waited for rows are taken in."""
    replica.settle_waiting()
    inputs = replica.compiler.inputs
    names = ("pool", "hosts", "networks", "vifs", "groups", "qos", "local_networks", "local_uplinks", "indexes")
    held = {name: getattr(inputs, name) for name in names}
    index = {name: getattr(mirror, name) for name in ("_uuids", "_bindings_of", "_members", "problems", "_tables")}
    return held | index | {"bad": replica.problems, "mine": replica.mine, "rows": replica._rows}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_rows_were_before(seed: int) -> None:
    """Mended rows are read as if they had never been otherwise, whatever order they were damaged, swapped and replaced in."""
    random, first = Random(seed), first_rows()
    expected = content_of(*folded(between({}, first)))
    assert expected["bad"] == expected["problems"] == {}
    replica, mirror = folded(between({}, first))
    rows = first
    for step in range(150):
        after = changed(rows, random) if step % 15 else first
        if not fits_indexes(after):
            continue
        batch = between(rows, after)
        replica.fold(change for change in batch if change.table in AGENTS_TABLES)
        mirror.fold(batch)
        rows = after
        if rows is first:
            found = content_of(replica, mirror)
            assert {name for name in found if found[name] != expected[name]} == set()
