"""Plans without a database: views with holes, rows in the way, what came before us."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ovsctl.ovsdb import Schema
from ovsctl.vswitch import (
    COLUMNS,
    Attachment,
    Bridge,
    Change,
    IncompleteSnapshot,
    Interface,
    OwnerMark,
    Port,
    Qos,
    Queue,
    RowId,
    UpdateRow,
    VSwitch,
    monitors,
    plan,
    transaction,
)
from tests.servers import VSWITCH_SCHEMA

Rows = dict[str, dict[str, dict[str, Any]]]

OURS = {"vnet-owner": "agent"}
SCHEMA = Schema.parse(VSWITCH_SCHEMA.read_text())


class Database:
    """Tables to fill by hand, each row with its schema's defaults."""

    def __init__(self, *, synced: bool = True) -> None:
        self.synced = synced
        self.tables: Rows = {table: {} for table in COLUMNS}
        self.add("Open_vSwitch", "root")

    def __getitem__(self, table: str) -> Mapping[str, Mapping[str, Any]]:
        return self.tables[table]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def add(self, table: str, uuid: str, **columns: Any) -> str:
        defaults = {name: SCHEMA.table(table).column(name).type.default for name in COLUMNS[table]}
        self.tables[table][uuid] = defaults | columns
        return uuid

    def port(self, name: str, *, ids: dict[str, str] | None = None, **columns: Any) -> str:
        interface = self.add("Interface", f"interface-{name}", name=name, external_ids=ids or {})
        row = {"interfaces": frozenset({interface})} | columns
        return self.add("Port", f"port-{name}", name=name, external_ids=ids or {}, **row)

    def bridge(self, name: str, *ports: str, ids: dict[str, str] | None = None, **columns: Any) -> str:
        members = frozenset({self.port(name, ids=ids), *ports})
        uuid = self.add("Bridge", f"bridge-{name}", name=name, ports=members, external_ids=ids or {}, **columns)
        root = self.tables["Open_vSwitch"]["root"]
        root["bridges"] |= {uuid}
        return uuid


def texts(changes: tuple[Change, ...]) -> list[str]:
    return [str(change) for change in changes]


@pytest.mark.parametrize("table", COLUMNS)
def test_a_table_that_is_missing_is_no_empty_table(table: str) -> None:
    database = Database()
    del database.tables[table]
    with pytest.raises(IncompleteSnapshot, match=f"table '{table}' is not monitored"):
        plan(VSwitch(), database)


def test_a_replica_out_of_sync_is_refused() -> None:
    with pytest.raises(IncompleteSnapshot, match="not in sync"):
        plan(VSwitch(), Database(synced=False))


def test_a_database_that_is_not_set_up_is_refused() -> None:
    database = Database()
    database.tables["Open_vSwitch"].clear()
    with pytest.raises(IncompleteSnapshot, match="0 rows in Open_vSwitch"):
        plan(VSwitch(), database)


@pytest.mark.parametrize(
    ("table", "column"), [("Bridge", "Bridge"), ("Port", "Port"), ("Interface", "Interface"), ("QoS", "QoS")]
)
def test_a_reference_to_what_is_not_there_is_refused(table: str, column: str) -> None:
    database = Database()
    qos = database.add("QoS", "qos", external_ids=OURS)
    database.bridge("br0", database.port("a", ids=OURS, qos=qos), ids=OURS)
    database.tables[table].popitem()
    with pytest.raises(IncompleteSnapshot, match=rf"refers to {column} \S+, which is not there"):
        plan(VSwitch(), database)


@pytest.mark.parametrize(
    ("table", "column"), [("Port", "interfaces"), ("Bridge", "ports"), ("Interface", "name"), ("Port", "external_ids")]
)
def test_a_column_that_ties_rows_together_has_to_be_there(table: str, column: str) -> None:
    database = Database()
    database.bridge("br0", ids=OURS)
    for row in database.tables[table].values():
        del row[column]
    with pytest.raises(IncompleteSnapshot, match=f"{table}.{column} is not monitored"):
        plan(VSwitch(), database)


def test_an_older_schema_lacks_columns_that_nobody_asks_for() -> None:
    text = json.loads(VSWITCH_SCHEMA.read_text())
    del text["tables"]["Interface"]["columns"]["ingress_policing_kpkts_rate"]
    wanted = monitors(Schema.parse(json.dumps(text)))["Interface"].columns
    assert wanted is not None
    assert set(COLUMNS["Interface"]) - set(wanted) == {"ingress_policing_kpkts_rate"}
    database = Database()
    database.bridge("br0", database.port("a", ids=OURS), ids=OURS)
    for row in database.tables["Interface"].values():
        del row["ingress_policing_kpkts_rate"]
    for rate, changes in ((0, []), (5, ["update Interface a: ingress_policing_kpkts_rate none -> 5"])):
        port = Port("a", (Interface("a", ingress_policing_kpkts_rate=rate),))
        todo = plan(VSwitch((Bridge("br0", (port,), datapath_type="", fail_mode=None),)), database)
        assert [text for text in texts(todo.additions) if "Interface br0" not in text] == changes


def test_a_bridge_of_ours_that_goes_takes_no_ports() -> None:
    database = Database()
    database.bridge("br0", ids=OURS)
    todo = plan(VSwitch(attachments=(Attachment("br0", (Port("p"),)),)), database)
    assert [str(conflict) for conflict in todo.conflicts] == [
        "Port p: Bridge br0 is ours and goes away: list it among the bridges, or leave its ports out"
    ]


def test_the_local_port_of_a_bridge_that_has_to_stay_is_not_taken() -> None:
    database = Database()
    database.bridge("old", database.port("vif"), ids=OURS)
    todo = plan(VSwitch((Bridge("br0", (Port("old"),)),)), database)
    assert sorted(map(str, todo.conflicts)) == [
        "Bridge old: is to be removed, but holds ports that have to stay: old, vif",
        "Port old: Port old is still Bridge old's own, which has to stay: it holds old, vif",
    ]
    assert todo.removals == ()


def test_an_interface_is_not_taken_from_a_port_in_conflict() -> None:
    database = Database()
    database.bridge("br0", ids=OURS)
    ours = database.port("bond", ids=OURS, interfaces=frozenset({database.add("Interface", "i", name="eth0")}))
    database.add("Interface", "interface-bond", name="unused")
    database.bridge("br1", ours, database.port("eth1"))
    bond = Port("bond", (Interface("eth1"), Interface("eth2")))
    todo = plan(VSwitch((Bridge("br0", (bond, Port("eth0"))),)), database)
    assert sorted(map(str, todo.conflicts)) == [
        "Port bond: Interface eth1 is not ours (it is in Port eth1): remove it, or choose another name",
        "Port eth0: Interface eth0 is still in Port bond, which is in conflict",
    ]


def test_qos_that_others_use_stays() -> None:
    database = Database()
    queue = database.add("Queue", "queue", external_ids=OURS)
    database.add("QoS", "qos", external_ids=OURS, queues={0: queue})
    theirs = database.add("QoS", "theirs", queues={0: queue})
    database.bridge("br0", database.port("vif", qos="qos"), database.port("vif2", qos=theirs))
    todo = plan(VSwitch(), database)
    assert sorted(map(str, todo.conflicts)) == [
        "QoS qos: is to be removed, but is used by Port vif",
        "Queue queue: is to be removed, but is used by QoS qos, row theirs",
    ]
    assert not todo


def test_a_port_moves_as_the_row_it_is() -> None:
    database = Database()
    database.bridge("br0", database.port("a", ids=OURS), ids=OURS)
    database.bridge("br1", ids=OURS)
    todo = plan(VSwitch((Bridge("br0"), Bridge("br1", (Port("a"),)))), database)
    assert [text for text in texts(todo.additions) if " a" in text] == ["move Port a from Bridge br0 to Bridge br1"]
    assert todo.removals == ()
    gone = plan(VSwitch((Bridge("br1", (Port("b"),)),)), database)
    assert sorted(texts(gone.removals)) == [
        "remove Bridge br0",
        "remove Port a from Bridge br0",
        "remove Port br0 from Bridge br0",
    ]
    assert str(gone.removals[-1]) == "remove Bridge br0"


def test_two_ports_do_not_share_our_qos_for_long() -> None:
    database = Database()
    database.add("QoS", "qos", type="linux-htb", external_ids=OURS)
    ports = [database.port(name, ids=OURS, qos="qos") for name in ("a", "b")]
    database.bridge("br0", *ports, ids=OURS)
    qos = Qos(type="linux-htb", queues={0: Queue()})
    desired = VSwitch((Bridge("br0", (Port("a", qos=qos), Port("b", qos=qos))),))
    added = [text for text in texts(plan(desired, database).additions) if "QoS" in text or "qos" in text]
    assert added == [
        "update QoS a: queues {} -> {0=a/0}",
        "add QoS b: type=linux-htb, queues={0=b/0}, external_ids={vnet-owner=agent}",
        "update Port b: qos a -> b",
    ]


@pytest.mark.parametrize("noted", ["", "no JSON", '{"a": 1}', "[1]", '"a"', "[" * 100_000])
def test_a_spoilt_note_of_our_keys_is_written_anew(noted: str) -> None:
    database = Database()
    database.bridge("br0", ids=OURS | {"vnet-owner-keys": noted, "theirs": "1"})
    todo = plan(VSwitch((Bridge("br0", datapath_type="", fail_mode=None, external_ids={"a": "b"}),)), database)
    (update,) = [change for change in todo if isinstance(change, UpdateRow) and change.row.id.table == "Bridge"]
    assert (dict(update.set_ids), update.delete_ids) == ({"a": "b", "vnet-owner-keys": '["a"]'}, ())


def test_controllers_of_one_target_are_one() -> None:
    database = Database()
    rows = [database.add("Controller", uuid, target="tcp:1", external_ids=OURS) for uuid in ("c1", "c2")]
    database.bridge("br0", ids=OURS, controller=frozenset(rows))
    todo = plan(VSwitch((Bridge("br0"),)), database)
    assert [change.row.id for change in todo.removals] == [
        RowId("Controller", ("br0", "tcp:1", "c2")),
        RowId("Controller", ("br0", "tcp:1")),
    ]


def test_whose_mark_is_it() -> None:
    database = Database()
    database.bridge("br0", ids={"vnet-owner": "somebody"})
    assert not plan(VSwitch(), database)
    assert plan(VSwitch(), database, OwnerMark(name="somebody")).removals


def test_nothing_to_do_is_no_transaction() -> None:
    assert transaction(plan(VSwitch(), Database())) == ()
