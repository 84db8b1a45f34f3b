"""The columns of tables, by noun. A noun without columns here has those of its fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from vnet.api import Place, Resource
from vnet.cli.output import Column, plain

COLUMNS: dict[str, list[Column]] = {
    "host": [
        ("HOST", lambda h: h.name),
        ("ADDRESS", lambda h: h.address),
        ("UPLINKS", lambda h: [uplink.name for uplink in h.uplinks]),
        ("AGENT", lambda h: "alive" if h.agent.alive else "silent"),
        ("GENERATION", lambda h: f"{h.agent.generation}{f' (-{h.agent.behind})' if h.agent.behind else ''}"),
        ("VIFS", lambda h: h.vifs),
        ("PROBLEMS", lambda h: len(h.agent.problems) or None),
        ("NEIGHBOURS", lambda h: [f"{it.nic} at {it.place}" for it in h.neighbours]),
    ],
    "network": [
        ("NETWORK", lambda n: n.name),
        ("TYPE", lambda n: n.type),
        ("KEY", lambda n: n.vni if n.vni is not None else n.key),
        ("TAG", lambda n: n.tag),
        ("UPLINK", lambda n: n.uplink),
        ("MTU", lambda n: n.mtu),
        ("HOSTS", lambda n: n.hosts or "all"),
        ("VIFS", lambda n: n.vifs),
        ("OWNER", lambda n: n.owner),
    ],
    "security-group": [
        ("SECURITY GROUP", lambda g: g.name),
        ("INGRESS", lambda g: g.ingress),
        ("EGRESS", lambda g: g.egress),
        ("RULES", lambda g: [rule.name for rule in g.rules]),
        ("VIFS", lambda g: g.vifs),
        ("OWNER", lambda g: g.owner),
    ],
    "vm": [
        ("VM", lambda v: v.name),
        ("TITLE", lambda v: v.title),
        ("WANTED ON", lambda v: v.host),
        ("RUNS ON", lambda v: sorted({vif.place.host for vif in v.vifs if vif.place.host is not None})),
        ("VIFS", lambda v: [vif.id for vif in v.vifs]),
        ("READY", lambda v: f"{sum(vif.place.state == 'ready' for vif in v.vifs)}/{len(v.vifs)}"),
        ("MIGRATION", lambda v: v.migration.phase if v.migration.phase != "none" else None),
    ],
    "account": [
        ("VIF", lambda it: it[0]),
        ("TO POOL", lambda it: it[1].from_vm_pool_bytes),
        ("TO OUTSIDE", lambda it: it[1].from_vm_outside_bytes),
        ("FROM POOL", lambda it: it[1].to_vm_pool_bytes),
        ("FROM OUTSIDE", lambda it: it[1].to_vm_outside_bytes),
        ("WRITTEN", lambda it: it[1].written),
    ],
    "vif": [
        ("VIF", lambda v: v.id),
        ("NETWORK", lambda v: v.network),
        ("MAC", lambda v: v.mac),
        ("ADDRESSES", lambda v: v.addresses),
        ("HOST", lambda v: v.place.host),
        ("STATE", lambda v: _state(v.place)),
        ("SINCE", lambda v: v.place.since),
        ("WHY", lambda v: "; ".join(reason.text for reason in v.place.why)),
    ],
}


def _state(place: Place) -> str:
    master = f", master of {', '.join(map(str, place.masters))}" if place.masters else ""
    return f"{place.state}{master}{', picks up connections' if place.picks_up else ''}"


def columns_of(resource: Resource) -> list[Column]:
    """The columns of a noun's table: the name first, then a column for each field."""
    return COLUMNS.get(resource.word) or _field_columns(resource)


def wide_columns_of(resource: Resource, rows: Sequence[Any]) -> list[Column]:
    """The columns of a noun's table, then one for each other field that is no object in any of the rows."""
    first = columns_of(resource)
    titles = {title for title, _ in first}
    more = [column for column in _field_columns(resource) if column[0] not in titles]
    return [
        *first,
        *(column for column in more if not any(hasattr(column[1](row), "__struct_fields__") for row in rows)),
    ]


def _field_columns(resource: Resource) -> list[Column]:
    """The name, then a column for each field."""
    fields = [name for name in resource.answer.__struct_fields__ if name != resource.key]
    titles = [resource.word.replace("-", " "), *(name.rstrip("_").replace("_", " ") for name in fields)]
    return [(title.upper(), _reader(name)) for title, name in zip(titles, [resource.key, *fields], strict=True)]


def _reader(name: str) -> Any:
    return lambda value: getattr(value, name)


def value_of(resource: Resource, found: Any, path: str) -> str:
    """A field as people write it; of an object inside it 'place.host'. Raises UsageError for one that there is not."""
    value = plain(found)
    for step in path.split("."):
        if not isinstance(value, dict) or step not in value:
            raise click.UsageError(
                f"a {resource.text} has no field {path}: 'vnet {resource.word} get -o json' prints them"
            )
        value = value[step]
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
