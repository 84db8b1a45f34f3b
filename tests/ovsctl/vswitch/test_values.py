"""Values of a desired Open vSwitch refuse what its schema refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ovsctl.vswitch import (
    Attachment,
    Bridge,
    Controller,
    Interface,
    Ipfix,
    Manager,
    Mirror,
    NetFlow,
    Port,
    Qos,
    Queue,
    Sflow,
    VSwitch,
    internal_port,
    patch_port,
    tunnel_port,
)
from ovsctl.vswitch.rows import EXACT, REFERENCES, is_default
from ovsctl.vswitch.snapshot import COLUMNS
from tests.servers import VSWITCH_SCHEMA

TARGET = frozenset({"192.0.2.1:6343"})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Interface(""), "Interface name ''"),
        (lambda: Interface("a b"), "Interface name 'a b'"),
        (lambda: Port("a/b"), "Port name 'a/b'"),
        (lambda: Bridge("br\n"), "Bridge name"),
        (lambda: Interface("a", mtu_request=67), "Interface 'a' mtu_request: 67 is not in 68..65535"),
        (lambda: Interface("a", ofport_request=0), "ofport_request: 0 is not in 1..65279"),
        (lambda: Interface("a", ingress_policing_rate=-1), "ingress_policing_rate: -1"),
        (lambda: Port("a", tag=4096), "Port 'a' VLAN: 4096 is not in 0..4095"),
        (lambda: Port("a", trunks=frozenset({-1})), "Port 'a' VLAN: -1"),
        (lambda: Port("a", (Interface("b"), Interface("b"))), "Port 'a' interfaces: named twice: b"),
        (lambda: Mirror("m"), "Mirror 'm' needs either output_port or output_vlan"),
        (lambda: Mirror("m", output_port="p", output_vlan=1), "needs either"),
        (lambda: Mirror("m", output_port="p", select_vlan=frozenset({9999})), "select_vlan: 9999"),
        (lambda: NetFlow(frozenset()), "NetFlow: needs a target"),
        (lambda: Sflow(TARGET, sampling=-1), "sFlow sampling: -1"),
        (lambda: Ipfix(TARGET, sampling=0), "IPFIX sampling: 0"),
        (lambda: Controller(""), "Controller: needs a target"),
        (lambda: Manager("tcp:1", max_backoff=1), "Manager 'tcp:1' max_backoff: 1"),
        (lambda: Queue(dscp=64), "Queue dscp: 64"),
        (lambda: Qos(type="linux-htb", queues={-1: Queue()}), "Qos queue number: -1"),
        (lambda: Bridge("b", (Port("b"),)), "Bridge 'b': its local port has one interface of its name"),
        (lambda: Bridge("b", controllers=(Controller("tcp:1"), Controller("tcp:1"))), "named twice: tcp:1"),
        (lambda: VSwitch((Bridge("b"), Bridge("b"))), "VSwitch bridges: named twice: b"),
        (lambda: VSwitch((Bridge("b"),), (Attachment("b", ()),)), "VSwitch bridges: named twice: b"),
        (lambda: VSwitch((Bridge("b", (Port("p"),)), Bridge("c", (Port("p"),)))), "ports: named twice: p"),
        (
            lambda: VSwitch((Bridge("b", (Port("p"), Port("q", (Interface("p"),)))),)),
            "VSwitch interfaces: named twice: p",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_where(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("(", "\\(")):
        make()


def test_short_forms() -> None:
    assert Port("tap0").interfaces == (Interface("tap0"),)
    assert Bridge("br0").ports == (internal_port("br0"),)
    local = internal_port("br0", mtu_request=9000)
    assert Bridge("br0", (local, Port("tap0"))).ports == (local, Port("tap0"))
    assert patch_port("a", "b").interfaces[0].options == {"peer": "b"}
    options = {"remote_ip": "flow", "key": "flow", "csum": "true"}
    assert tunnel_port("gnv0", "geneve", csum="true").interfaces[0].options == options


def test_the_columns_are_those_of_the_schema() -> None:
    tables = json.loads(VSWITCH_SCHEMA.read_text())["tables"]
    for table, columns in COLUMNS.items():
        assert set(columns) <= tables[table]["columns"].keys(), table


def test_references_are_the_schema_s() -> None:
    """Every column of a table of ours that refers to a table of ours is read as a reference."""
    tables = json.loads(VSWITCH_SCHEMA.read_text())["tables"]
    for table in COLUMNS:
        refers = {
            name
            for name, column in tables[table]["columns"].items()
            if {_ref_table(column["type"], side) for side in ("key", "value")} & COLUMNS.keys()
        }
        assert refers == set(REFERENCES.get(table, ())), table


def test_defaults_are_the_schema_s() -> None:
    """0, false and "" go without saying in the columns that always have a value, and only there."""
    tables = json.loads(VSWITCH_SCHEMA.read_text())["tables"]
    empty: dict[str, object] = {"integer": 0, "boolean": False, "string": ""}
    for table, columns in EXACT.items():
        for name in set(columns) - {"name", "target"}:
            type_ = tables[table]["columns"][name]["type"]
            kind = type_ if isinstance(type_, str) else type_["key"]
            value = empty[kind if isinstance(kind, str) else kind["type"]]
            if (table, name) == ("Controller", "type"):
                continue  # optional there, and never "": it is an enumeration
            always = isinstance(type_, str) or (type_.get("min", 1), type_.get("max", 1)) == (1, 1)
            assert is_default(name, value) == always, (table, name)


def _ref_table(type_: Any, side: str) -> str | None:
    base = type_.get(side) if isinstance(type_, dict) else None
    return base.get("refTable") if isinstance(base, dict) else None
