"""Objects survive their rows, and a row with any content is an object or InvalidValue."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.ovsdb import Schema
from ovsctl.ovsdb.schema import AtomType, BaseType, ColumnType
from tests.vnet.db.test_schema import STATE, values_of
from vnet.db.probes import Probe
from vnet.db.rows import SCHEMA_TEXT, from_row, new_columns, to_columns
from vnet.db.tables import TABLES
from vnet.grammar.declare import Declared, InvalidValue
from vnet.grammar.value_types import ValueRefused
from vnet.objects import (
    AddressSet,
    Binding,
    Direction,
    Expectation,
    FlowCollector,
    FlowProtocol,
    FrameMirror,
    Host,
    IcmpType,
    MirrorTarget,
    Network,
    PlugBridge,
    PortRange,
    Protocol,
    QosClass,
    Reach,
    Rule,
    SecurityGroup,
    TargetType,
    TunnelKey,
)
from vnet.objects.follower import ToolstackFollower
from vnet.objects.retired import RetiredNumber
from vnet.objects.token import ApiRole, Token
from vnet.objects.trial import Trial
from vnet.objects.words import ADDRESS, MAC_KIND

SCHEMA = Schema.parse(SCHEMA_TEXT)
EXPECTATIONS = (
    Expectation("web to db", "web", "db", Reach.REACHABLE, Protocol.TCP, 5432),
    Expectation("never", "outside", "db", Reach.UNREACHABLE),
)
VALUES = [
    *(value for value, _ in values_of(STATE)),
    *EXPECTATIONS,
    AddressSet("offices", ("10.0.0.0/8", "fd00::/8")),
    PlugBridge("xapi-blue", "tenant"),
    FlowCollector("flows", FlowProtocol.IPFIX, "10.0.0.9:4739", 64, of=("group:db", "web/0")),
    FrameMirror("ids", ("group:web", "web/0"), MirrorTarget(TargetType.VIF, "ids/0"), 77, filter="tcp port 80"),
    FrameMirror(
        "span",
        ("label:app=shop",),
        MirrorTarget(TargetType.ERSPAN, "10.0.0.9", 7, 2),
        78,
        expires="2026-12-24T18:00:00Z",
    ),
    FrameMirror("rspan", ("network:a",), MirrorTarget(TargetType.VLAN, "trunk0", 99), 79),
    FlowCollector("all", FlowProtocol.NETFLOW, "[fd00::9]:2055"),
    QosClass("silver", 10**8, 819_200, packets=20_000, dscp=10),
    QosClass("all", from_vm=10**9, burst=10**7, aggregate=True),
    SecurityGroup(
        "pings",
        2,
        rules=(
            Rule(
                "ping",
                Direction.INGRESS,
                protocol=Protocol.ICMP,
                icmp=(IcmpType.ECHO_REQUEST, IcmpType.TIMESTAMP_REQUEST),
            ),
        ),
    ),
    SecurityGroup(
        "each",
        3,
        stateful=False,
        rules=(
            Rule("dns", Direction.EGRESS, protocol=Protocol.UDP, source_ports=(PortRange(53, 54), PortRange(443, 443))),
            Rule(
                "icmp",
                Direction.INGRESS,
                protocol=Protocol.ICMP,
                icmp=tuple(sorted(IcmpType, key=lambda kind: kind.value)),
            ),
        ),
    ),
    RetiredNumber("vxlan", 6000, "tenant", 7),
    ToolstackFollower("xapi-1", "machine a", 5, "machine b", 1),
    Trial(7, 1_000, "token ci", "10.0.0.9", "a try"),
    Token("ci", "00", ApiRole.OPERATOR, networks=frozenset({"shop-*"}), max_vifs=5, made=1, ends=2),
    TunnelKey("xen1", 1, "A" * 43 + "=", 3),
    Probe("p", "xen1", 5, "00" * 14, vif="web1/0"),
]


def parts(value: Declared) -> dict[str, Any]:
    return {"uplinks": value.uplinks[::-1]} if isinstance(value, Host) else {}


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_an_object_survives_its_row(value: Declared) -> None:
    table = SCHEMA.table(type(value).NOUN.table)
    columns = to_columns(value)
    read = table.decode_row(json.loads(json.dumps(table.encode_row(columns))))
    assert from_row(type(value), read, **parts(value)) == value
    assert set(columns) == set(table.columns) - ({"host"} if type(value).NOUN.table == "Uplink" else set())


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_new_row_leaves_out_what_its_columns_have_anyway(value: Declared) -> None:
    columns, given = to_columns(value), new_columns(value)
    types = {name: column.type for name, column in SCHEMA.table(type(value).NOUN.table).columns.items()}
    assert given == {name: content for name, content in columns.items() if content != types[name].default}


def contents(column: ColumnType) -> st.SearchStrategy[Any]:
    """Any content that the server may send in a column."""

    def atoms(base: BaseType) -> st.SearchStrategy[Any]:
        if base.type is AtomType.STRING:
            words = st.sampled_from(sorted(map(str, base.enum or ())) or [""])
            tricky = st.sampled_from(["any", "10.0.0.1", "::ffff:1.2.3.4", "9" * 5000, "fe80::1%eth0", "٣", "all"])
            return st.text(max_size=20) | words | tricky
        if base.type is AtomType.INTEGER:
            return st.integers(-(2**63), 2**63 - 1)
        return st.booleans()

    if column.value is not None:
        texts = st.sampled_from(['{"direction": "ingress"}', "[" * 9999, '{"direction": "ingress", "protocol": 1e999}'])
        return st.dictionaries(atoms(column.key), atoms(column.value) | texts, max_size=3)
    if column.max is None:
        return st.frozensets(atoms(column.key), max_size=40)
    return atoms(column.key) if column.is_scalar else st.none() | atoms(column.key)


@given(st.data())
def test_a_row_of_any_content_is_an_object_or_refused(data: st.DataObject) -> None:
    value = data.draw(st.sampled_from(VALUES))
    row = to_columns(value)
    table = SCHEMA.table(type(value).NOUN.table)
    for column in data.draw(st.sets(st.sampled_from(sorted(row)), min_size=1)):
        row[column] = data.draw(contents(table.column(column).type))
    try:
        made = from_row(type(value), row)
    except InvalidValue:
        return
    assert replace(made) == made  # type: ignore[type-var]  # its constructor takes it too; every object is a dataclass


@pytest.mark.parametrize(
    ("column", "content"),
    [("mac", "01:00:00:00:00:01"), ("host", "a b"), ("addresses", frozenset({"10.1.0.999"})), ("state", "gone"),
     ("epoch", -1), ("ofport", 5), ("acked", frozenset({""})), ("groups", frozenset({"any"}))],
)  # fmt: skip
def test_the_field_at_fault_is_named(column: str, content: object) -> None:
    row = {**to_columns(STATE.bindings["web1/0", "xen1"]), column: content}
    with pytest.raises(InvalidValue) as caught:
        from_row(Binding, row)
    assert caught.value.field == column


def test_fields_of_an_object_are_held_against_each_other() -> None:
    row = {**to_columns(STATE.networks["tenant"]), "key": None}
    with pytest.raises(InvalidValue, match="gre networks need a key"):
        from_row(Network, row)


def test_uplinks_of_a_host_are_held_against_each_other() -> None:
    (host,) = STATE.hosts.values()
    twice = (host.uplinks[0], host.uplinks[0].__class__("more", host.uplinks[0].members))
    with pytest.raises(InvalidValue, match="in uplink bulk already"):
        from_row(Host, to_columns(host), uplinks=twice)


ADDRESSES = st.ip_addresses().map(str) | st.ip_addresses(v=6).map(lambda address: address.exploded)


NO_INTERFACE = [
    ip_network(span)
    for span in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255", "::/96", "::ffff:0:0/96", "ff00::/8")
]


@given(ADDRESSES | ADDRESSES.map(str.upper) | st.from_regex(r"[0-9a-f:.]{2,20}", fullmatch=True))
def test_the_cheap_look_at_an_address_takes_no_other_than_the_close_one(text: str) -> None:
    try:
        address = ip_address(text)
    except ValueError:
        close = False
    else:
        close = str(address) == text and not any(address in span for span in NO_INTERFACE)
    try:
        ADDRESS.check(text)
    except ValueRefused:
        assert not close
    else:
        assert close


@pytest.mark.parametrize(
    "text",
    ["00:00:00:00:00:00", "01:00:00:00:00:00", "0A:00:00:00:00:01", "0a:00:00:00:00:01\n", "0a:00:00:00:00", "ff:ff:ff:ff:ff:ff"],
)  # fmt: skip
def test_macs_that_no_interface_has(text: str) -> None:
    with pytest.raises(ValueRefused):
        MAC_KIND.check(text)


def test_every_stored_table_has_an_object_here() -> None:
    assert {type(value).NOUN.table for value in VALUES} >= set(TABLES) - {"Event"}
