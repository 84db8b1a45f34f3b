"""The origin of a compiled flow, for people: its source, its rule, and the position of both in the document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vnet.compile import FEATURES, Category, Source
from vnet.compile.inputs import Input
from vnet.compile.security import rule_cookie
from vnet.objects import Rule
from vnet.sim.fabric import Fabric

if TYPE_CHECKING:
    from vnet.topology import Document, Place

_FEATURES = {feature.category: feature for feature in FEATURES}
_OF_A_VIF = frozenset({Input.VIF, Input.BINDINGS, Input.PEER})


def describe(pool: Fabric, source: Source | None, cookie: int = 0) -> str:
    """The origin of a flow in words. A flow without a source was learned by the bridge. cookie: the flow's."""
    if source is None:
        return "learned by the switch from an announcement"
    name = source.name
    feature = _FEATURES[source.category]
    vif = pool.state.vifs.get(name)
    if vif is not None and _OF_A_VIF & {*feature.of}:
        name = pool.label(vif)
    rule = rule_of(pool, source, cookie)
    return feature.origin.format(name) + (f", rule {rule.name}" if rule is not None else "")


def rule_of(pool: Fabric, source: Source, cookie: int) -> Rule | None:
    """The rule of a security group with a flow's cookie; None for the group's default."""
    group = pool.state.groups.get(source.name) if source.category is Category.GROUP else None
    if group is None:
        return None
    return next((rule for rule in group.rules if rule_cookie(group, rule) == cookie), None)


def position_of(pool: Fabric, source: Source | None, cookie: int = 0) -> str:
    """The position of a flow's origin in the pool's document, as file:line:column; "" without one."""
    document = pool.document
    if document is None or source is None:
        return ""
    found = _place(document, pool, source, cookie)
    return f"{document.source.filename}:{found.line}:{found.column}" if found is not None else ""


def _place(document: Document, pool: Fabric, source: Source, cookie: int) -> Place | None:
    of = {*_FEATURES[source.category].of}
    if Input.NETWORK in of:
        return document.place("network", source.name)
    if _OF_A_VIF & of:
        return document.place("vif", source.name)
    if source.category is Category.GROUP:
        rule = rule_of(pool, source, cookie)
        if rule is None:
            return document.place("security-group", source.name)
        return document.place("security-group", source.name, "rules", (rule.name,))
    if Input.UPLINK in of:
        having = [name for name, host in document.state.hosts.items() if host.uplink(source.name) is not None]
        return document.place("host", having[0], "uplinks", (source.name,)) if having else None
    return None
