"""The origin of a compiled flow, for people: its source, its rule, and the position of both in the document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vnet.compile import Category, FlowSource
from vnet.compile.inputs import Input
from vnet.compile.origin import BY_CATEGORY, OF_A_VIF, origin, rule_of
from vnet.sim.fabric import Fabric

if TYPE_CHECKING:
    from vnet.topology import Document, Place


def describe(pool: Fabric, source: FlowSource | None, cookie: int = 0) -> str:
    """The origin of a flow in words. cookie: the flow's."""
    name = ""
    if source is not None and OF_A_VIF & {*BY_CATEGORY[source.category].of} and source.name in pool.state.vifs:
        name = pool.label(pool.state.vifs[source.name])
    return origin(source, cookie, pool.state.groups, name)


def position_of(pool: Fabric, source: FlowSource | None, cookie: int = 0) -> str:
    """The position of a flow's origin in the pool's document, as file:line:column; "" without one."""
    document = pool.document
    if document is None or source is None:
        return ""
    found = _place(document, pool, source, cookie)
    return document.source.position(found) if found is not None else ""


def _place(document: Document, pool: Fabric, source: FlowSource, cookie: int) -> Place | None:
    of = {*BY_CATEGORY[source.category].of}
    if Input.NETWORK in of:
        return document.place("network", source.name)
    if OF_A_VIF & of:
        return document.place("vif", source.name)
    if source.category is Category.GROUP:
        rule = rule_of(source, cookie, pool.state.groups)
        if rule is None:
            return document.place("security-group", source.name)
        return document.place("security-group", source.name, "rules", (rule.name,))
    if source.category is Category.MIRROR:
        return document.place("mirror", source.name)
    if Input.UPLINK in of:
        having = [name for name, host in document.state.hosts.items() if host.uplink(source.name) is not None]
        return document.place("host", having[0], "uplinks", (source.name,)) if having else None
    return None
