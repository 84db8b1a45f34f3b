"""Pool database rows to values and back. One rule: a table's columns are the fields of its value, by the same name.

The exceptions are written out here: an uplink's row names its host, a trunk is a set of strings, enums are their values,
a group's rules are a map from their names to JSON, beside the names of the groups in them, by which references are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import Enum
from importlib.resources import files
from typing import Any, Protocol, TypeVar

import msgspec

from vnet import objects
from vnet.objects import (
    AgentStatus,
    Binding,
    BindingState,
    BondHash,
    BondMode,
    Direction,
    Event,
    Host,
    InvalidValue,
    LacpTime,
    LockingMode,
    Network,
    NetworkType,
    Owner,
    Pool,
    PortRange,
    Rule,
    SecurityGroup,
    Subnet,
    Trunk,
    Uplink,
    Verdict,
    Vif,
    Vm,
)

SCHEMA_NAME = "Vnet"
SCHEMA_TEXT = files("vnet.db").joinpath("vnet.ovsschema").read_text()

Value = Pool | Host | Network | Subnet | SecurityGroup | Vm | Vif | Binding | AgentStatus | Event


class Row(Protocol):
    """What ovsctl hands out, or a dict: values are str, int, bool, frozenset, dict, None for an empty optional."""

    def __getitem__(self, column: str, /) -> Any: ...


V = TypeVar("V", Pool, Network, Subnet, SecurityGroup, Vm, Vif, Binding, AgentStatus, Event)
Columns = dict[str, Any]
Key = tuple[tuple[str, str], ...]  # ((column, value), ...): what names a row

TABLE_OF: dict[type, str] = {
    Pool: "Pool",
    Host: "Host",
    Network: "Network",
    Subnet: "Subnet",
    SecurityGroup: "SecurityGroup",
    Vm: "Vm",
    Vif: "Vif",
    Binding: "Binding",
    AgentStatus: "Agent",
    Event: "Event",
}
KEY_COLUMNS: dict[str, tuple[str, ...]] = {
    "Pool": (),
    "Host": ("name",),
    "Uplink": ("host", "name"),
    "Network": ("name",),
    "Subnet": ("name",),
    "SecurityGroup": ("name",),
    "Vm": ("name",),
    "Vif": ("id",),
    "Binding": ("vif", "host"),
    "Agent": ("host",),
}


def _ordered(values: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(values))


def _trunk(values: frozenset[str]) -> Trunk | None:
    if not values:
        return None
    return Trunk() if "all" in values else Trunk(tuple(sorted(int(value) for value in values)))


class _RuleText(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A rule as the JSON that its row holds; its name is the key there. What any host of the pool reads, hosts can write."""

    direction: Direction
    action: Verdict = Verdict.ALLOW
    protocol: objects.Protocol | int | None = None
    ports: tuple[tuple[int, int], ...] = ()
    cidr: str | None = None
    group: str | None = None


_RULE = msgspec.json.Decoder(_RuleText)


def _rules(texts: Mapping[str, str]) -> tuple[Rule, ...]:
    return tuple(_rule(name, texts[name]) for name in sorted(texts))


def _rule(name: str, text: str) -> Rule:
    try:
        said = _RULE.decode(text)
        ports = tuple(PortRange(*span) for span in said.ports)
        return Rule(name, said.direction, said.action, said.protocol, ports, said.cidr, said.group)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError, InvalidValue) as error:
        raise InvalidValue("rules", f"rule {name!r}: {error}") from None


def _rule_text(rule: Rule) -> str:
    ports = tuple((span.first, span.last) for span in rule.ports)
    said = _RuleText(rule.direction, rule.action, rule.protocol, ports, rule.cidr, rule.group)
    return msgspec.json.encode(said).decode()


# How a column becomes a field, where it is not already one.
_DECODE: dict[type, dict[str, Callable[[Any], Any]]] = {
    Pool: {"locking_mode": LockingMode},
    Network: {"type": NetworkType, "hosts": frozenset, "owner": Owner},
    Subnet: {"owner": Owner},
    SecurityGroup: {"ingress": Verdict, "egress": Verdict, "rules": _rules, "owner": Owner},
    Vm: {"owner": Owner},
    Vif: {"addresses": _ordered, "groups": _ordered, "locking_mode": LockingMode, "trunk": _trunk, "owner": Owner},
    Binding: {"state": BindingState, "addresses": _ordered, "acked": frozenset, "groups": _ordered},
    AgentStatus: {"problems": dict},
    Event: {},
}
_FIELDS: dict[type, tuple[tuple[str, Callable[[Any], Any] | None], ...]] = {
    kind: tuple((f.name, decode.get(f.name)) for f in fields(kind)) for kind, decode in _DECODE.items()
}


_COLUMNS: dict[type, tuple[str, ...]] = {
    kind: tuple(f.name for f in fields(kind) if f.name != "uplinks") for kind in (*_DECODE, Host, Uplink)
}


def from_row(kind: type[V], row: Row) -> V:
    """The value that a row of its table holds. Raises InvalidValue for a row no pool may hold."""
    values = {name: row[name] if decode is None else decode(row[name]) for name, decode in _FIELDS[kind]}
    return kind(**values)


def uplink_from_row(row: Row) -> Uplink:
    """The uplink that a row of table Uplink holds; its column `host` says whose it is."""
    return Uplink(
        name=row["name"],
        members=_ordered(row["members"]),
        mode=None if row["mode"] is None else BondMode(row["mode"]),
        lacp_time=LacpTime(row["lacp_time"]),
        hash=BondHash(row["hash"]),
        mtu=row["mtu"],
    )


def host_from_rows(row: Row, uplinks: tuple[Uplink, ...]) -> Host:
    """A host from its row and its uplinks, which are rows of their own."""
    ordered = tuple(sorted(uplinks, key=lambda uplink: uplink.name))
    return Host(row["name"], row["address"], ordered, Owner(row["owner"]))


def _encode(value: object) -> Any:
    match value:
        case Enum():
            return value.value
        case Trunk():
            return frozenset(map(str, value.tags)) or frozenset({"all"})
        case tuple():
            return frozenset(value)
        case _:
            return value


def to_columns(value: Value | Uplink) -> Columns:
    """The columns of a value's row, as ovsctl takes them. A host's uplinks, and an uplink's host, are left out."""
    columns = {name: _encode(getattr(value, name)) for name in _COLUMNS[type(value)]}
    if isinstance(value, Vif) and value.trunk is None:
        columns["trunk"] = frozenset()
    if isinstance(value, SecurityGroup):
        columns["rules"] = {rule.name: _rule_text(rule) for rule in value.rules}
        columns["remotes"] = value.remotes()
    return columns


def key_of(value: Value) -> Key:
    """What names a value's row: the columns of its table's index. Empty for the one row of Pool."""
    return tuple((column, getattr(value, column)) for column in KEY_COLUMNS[TABLE_OF[type(value)]])
