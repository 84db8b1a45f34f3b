"""The schema is made from the declarations, and takes over the databases of releases."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from ovsctl.ovsdb import Schema, Select
from ovsctl.ovsdb.schema import TableSchema
from tests.vnet.controller.databases import opened, pool_server
from vnet.db import schema
from vnet.db.probes import Probe
from vnet.db.rows import SCHEMA_TEXT, to_columns
from vnet.db.tables import RUNTIME
from vnet.db.watches import WatchRow
from vnet.grammar.declare import Declared
from vnet.objects import (
    AgentStatus,
    Binding,
    BondMode,
    Direction,
    Event,
    Host,
    LockingMode,
    Network,
    NetworkType,
    Pool,
    PoolState,
    PortRange,
    Protocol,
    Rule,
    SecurityGroup,
    Subnet,
    Trunk,
    Uplink,
    Vif,
    Vm,
)
from vnet.objects.state import CONFIGURED

OLD_TEXT = files("tests.vnet.db").joinpath("vnet-1.6.0.ovsschema").read_text()  # as in v0.1.0
OLD: dict[str, Any] = json.loads(OLD_TEXT)

UPLINKS = (Uplink("bulk", ("eth2",), mtu=9000), Uplink("trunk0", ("eth0", "eth1"), BondMode.LACP))
RULES = (
    Rule("peers", Direction.INGRESS, remote=("web",)),
    Rule("ssh", Direction.INGRESS, protocol=Protocol.TCP, ports=(PortRange(22, 22),), remote=("10.0.0.0/8",)),
)
STATE = PoolState(
    Pool("old", 9000, LockingMode.UNLOCKED, revision=7, generation=3),
    hosts={"xen1": Host("xen1", "10.99.0.1", UPLINKS)},
    networks={
        "tenant": Network("tenant", NetworkType.GRE, 1, 1450, key=0),
        "prod": Network("prod", NetworkType.VLAN, 2, 1500, 9, 0, "trunk0", frozenset({"xen1"})),
    },
    subnets={"s": Subnet("s", "tenant", "10.1.0.0/24", "10.1.0.1")},
    vms={"web1": Vm("web1", "xen1")},
    vifs={
        "web1/0": Vif(
            "web1/0", "tenant", "0a:00:00:00:00:01", "web1", 0, ("10.1.0.10", "fd00::10"), groups=("web",), epoch=2
        ),
        "web1/1": Vif("web1/1", "prod", "0a:00:00:00:00:02", "web1", 1, trunk=Trunk((5, 6)), host="xen1", awaited=True),
    },
    bindings={("web1/0", "xen1"): Binding("web1/0", "xen1", "tenant", "0a:00:00:00:00:01", 2, ofport=40_000)},
    agents={"xen1": AgentStatus("xen1", 3, started=5, version="0.1.0", problems={"vif web1/0": "odd"})},
    groups={"web": SecurityGroup("web", 1, rules=RULES)},
)


def test_the_file_is_made_from_the_declarations() -> None:
    assert schema.text() == SCHEMA_TEXT, "run: python -m vnet.db.schema"
    Schema.parse(SCHEMA_TEXT)


def test_every_column_of_the_release_is_there_unchanged() -> None:
    """Its agents monitor them and write them beside ours, and a conversion refuses rows that no longer fit. A choice may have grown:
    an agent leaves out a row with a word that it does not know. GROWN: what may be empty now is written so on hosts of newer agents only."""
    new = schema.schema()
    for name, table in OLD["tables"].items():
        ours = dict(new["tables"][name])
        theirs = dict(table)
        columns = ours.pop("columns")
        for column, released in theirs.pop("columns").items():
            was, now = choices(released), choices(columns[column])
            assert was <= now, (name, column)
            assert (
                columns[column] == released
                or (name, column) in GROWN
                or (was and without_choices(columns[column]) == without_choices(released))
            )
        assert ours == theirs, name


GROWN = {("Uplink", "members")}  # of an uplink that is the host's own bridge


def test_a_set_has_one_member_at_most_or_any_number() -> None:
    """Of a set with another bound ovsdb-server writes changes into its file that it cannot read again (3.1), and serves what stood before."""
    for name, table in schema.schema()["tables"].items():
        for column, declared in table["columns"].items():
            most = declared["type"].get("max", 1) if isinstance(declared["type"], dict) else 1
            assert most in (1, "unlimited"), (name, column)


def choices(column: dict[str, Any]) -> set[str]:
    """The words that a column may have; none for one that may have any content."""
    key = column["type"].get("key") if isinstance(column["type"], dict) else None
    return set(key["enum"][1]) if isinstance(key, dict) and "enum" in key else set()


def without_choices(column: dict[str, Any]) -> dict[str, Any]:
    key = {name: value for name, value in column["type"]["key"].items() if name != "enum"}
    return column | {"type": column["type"] | {"key": key}}


def values_of(state: PoolState) -> list[tuple[Declared, dict[str, str]]]:
    """The objects of a state, each with the columns that only its row has."""
    found: list[tuple[Declared, dict[str, str]]] = [(state.pool, {})] if state.pool is not None else []
    for declared in (*CONFIGURED, *RUNTIME):
        if declared.NOUN.state:
            found += [(value, {}) for value in getattr(state, declared.NOUN.state).values()]
    return found + [(uplink, {"host": host.name}) for host in state.hosts.values() for uplink in host.uplinks]


@pytest.mark.usefixtures("ovs")
async def test_a_database_of_the_release_is_converted_with_rows_in_every_table() -> None:
    old = Schema.parse(OLD_TEXT)
    event = Event(1, "vm-created", "VM web1", host="xen1")
    probe = Probe("p", "xen1", 5, "00" * 14, vif="web1/0")
    watch = WatchRow("w", "xen1", 6, "{}", frozenset({1}))
    rows = [*values_of(STATE), (event, {}), (probe, {}), (watch, {}), (schema.Leadership("t"), {})]
    with pool_server(OLD) as server:
        assert {table_name(value) for value, _ in rows} == set(OLD["tables"])
        operations = [old_row(old.table(table_name(value)), {**to_columns(value), **more}) for value, more in rows]
        answer = json.loads(server.client("transact", json.dumps(["Vnet", *operations])))
        assert all("uuid" in item for item in answer), answer
        async with opened(server.remote, filled=False, convert=True) as pool:
            assert pool.mirror.problems == {}
            assert pool.mirror.state == STATE
            assert list(pool.mirror.events.values()) == [event]
            found = await pool.transact(*(Select(name, (), ()) for name in ("Probe", "Watch", "Leader")))
            assert [len(selected) for selected in found] == [1, 1, 1]


def old_row(table: TableSchema, columns: dict[str, Any]) -> dict[str, Any]:
    """The insertion of a row in a database that does not have every column yet."""
    return {
        "op": "insert",
        "table": table.name,
        "row": table.encode_row({c: columns[c] for c in columns if c in table.columns}),
    }


def table_name(value: Declared) -> str:
    return type(value).NOUN.table
