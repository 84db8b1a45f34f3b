"""The flows that this host has for a VIF, with their counts and what they are for, for `vnet show flows`."""

from __future__ import annotations

from typing import Final

from ovsctl.openflow import Flow, Match, format_flow
from ovsctl.openflow.flow import FULL_COOKIE
from vnet.agent.agent import Agent
from vnet.compile import (
    COOKIE_CATEGORY_SHIFT,
    COOKIE_MARK,
    COOKIE_MARK_MASK,
    COOKIE_OBJECT_MASK,
    PIPELINE,
    REG_GROUP,
    Category,
    FlowKey,
    FlowSource,
    Table,
    cookie,
)
from vnet.compile.origin import asked, ends_step, origin, rule_of, sources_of_vif
from vnet.compile.pipeline import GROUP_NUMBER
from vnet.objects import Vif

Counted = tuple[Flow, int, int]
OF_A_GROUP: Final = COOKIE_MARK_MASK | 0xFF << COOKIE_CATEGORY_SHIFT


async def listed(agent: Agent, vif_id: str | None) -> list[dict[str, object]]:
    """The switch's flows of ours, by table and priority; of a VIF: its own, those of the groups that judge it, and of its network those that are there for it.

    asks: the groups whose rules a flow asks, in order.
    """
    view, flows = agent.compiler.view, agent.compiler.flows
    vif = view.vifs.get(vif_id) if vif_id is not None else None
    if vif_id is None:
        chosen, found = list(flows), await agent.flows.counted(COOKIE_MARK, COOKIE_MARK_MASK)
    else:
        chosen = list(sources_of_vif(view, flows, vif)) if vif is not None else []
        found = await _of_vif(agent, vif_id, vif, chosen)
    sources = {entry.key: source for source in chosen for entry in flows[source] if isinstance(entry, Flow)}
    return [
        _line(agent, flow, sources, packets, size)
        for flow, packets, size in sorted(found, key=lambda item: (item[0].table, -item[0].priority))
    ]


async def _of_vif(agent: Agent, vif_id: str, vif: Vif | None, chosen: list[FlowSource]) -> list[Counted]:
    """The flows with the VIF's cookies, and of the other sources what the switch has by their cookies, or the numbers of their groups."""
    own = COOKIE_MARK | cookie(Category.VIF, vif_id) & COOKIE_OBJECT_MASK
    found = await agent.flows.counted(own, COOKIE_MARK_MASK | COOKIE_OBJECT_MASK)
    if vif is None:
        return found
    segments = agent.compiler.view.network(vif.network)
    others: dict[int, None] = {}
    for source in chosen:
        entries = [entry for entry in agent.compiler.flows[source] if isinstance(entry, Flow)]
        if source.category is not Category.GROUP:
            others |= dict.fromkeys(entry.cookie for entry in entries if not _is_own(entry, own))
        elif segments is not None and segments.segment is not None:
            number = agent.compiler.view.groups[source.name].number
            match = Match(metadata=segments.segment, **{REG_GROUP: (number, GROUP_NUMBER)})
            found += await agent.flows.counted(COOKIE_MARK | Category.GROUP << COOKIE_CATEGORY_SHIFT, OF_A_GROUP, match)
    for other in others:
        found += await agent.flows.counted(other, FULL_COOKIE)
    return found


def _is_own(flow: Flow, own: int) -> bool:
    return flow.cookie & COOKIE_OBJECT_MASK == own & COOKIE_OBJECT_MASK


def _line(agent: Agent, flow: Flow, sources: dict[FlowKey, FlowSource], packets: int, size: int) -> dict[str, object]:
    view, known = agent.compiler.view, flow.table in PIPELINE
    source, category = sources.get(flow.key), Category(flow.cookie >> COOKIE_CATEGORY_SHIFT & 0xFF)
    words = category.name.lower()
    if source is not None or category is Category.LEARNED:
        words = origin(source, flow.cookie, view.groups)
    if source is not None and source.category is Category.GROUP and rule_of(source, flow.cookie, view.groups) is None:
        words += ", end of a step" if ends_step(flow) else ", default"
    return {
        "table": Table(flow.table).name.lower() if known else str(flow.table),
        "number": flow.table,
        "does": PIPELINE[Table(flow.table)].does if known else "",
        "source": words,
        "asks": asked(flow, view.groups.values()),
        "flow": format_flow(flow),
        "packets": packets,
        "bytes": size,
    }
