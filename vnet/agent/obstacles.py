"""The obstacles that keep an agent from its work. Pure.

One rule: of several the first in the order of a start is named, for the others mostly follow from it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vnet.util.service_status import Obstacle
from vnet.util.suggest import listing, nearest


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """The state of an agent's connections and of what came over them.

    ovs, pool: None while connected, else by remote the reason why it could not be used. objection: to the pool database, "" for none. holder: the agent that is this host's, while this one stands by. hosts: of the pool, None while it has
    no document. switch: where ovs-vswitchd does not answer, "" if it does. programmed: whether the switch holds a complete state. copy: the copy of the pool that
    the agent runs on, in words, "" for none.
    """

    host: str
    ovs: Mapping[str, str] | None
    pool: Mapping[str, str] | None
    objection: str
    holder: str
    hosts: Collection[str] | None
    switch: str
    programmed: bool
    copy: str = ""


def obstacle(facts: AgentFacts) -> Obstacle | None:
    """The first thing that this agent waits for; None if it works."""
    if facts.ovs is not None:
        text = f"Open vSwitch's database does not answer ({_reasons(facts.ovs)}): is openvswitch-switch running?"
        return Obstacle("open vswitch", text)
    if facts.objection:
        hint = (
            "it is not followed, and nothing changes here; if it is the right one, run `vnet host leave` on this host"
        )
        return _without_database(facts, "objection", f"the pool database {facts.objection}: {hint}")
    if facts.pool is not None:
        return _without_database(facts, "pool database", f"the pool database does not answer ({_reasons(facts.pool)})")
    if facts.holder:
        return Obstacle("rival", f"stands by: host {facts.host} is that of {facts.holder}")
    if facts.hosts is None:
        return Obstacle("empty pool", "the pool has no document yet: `vnet apply` one that has this host")
    if facts.host not in facts.hosts:
        return Obstacle("unknown host", unknown_host(facts.host, facts.hosts))
    if facts.switch:
        return Obstacle("switch", f"ovs-vswitchd does not answer at {facts.switch}")
    if not facts.programmed:
        return Obstacle("flows", "the switch does not hold all flows and rows yet")
    return None


def _without_database(facts: AgentFacts, topic: str, text: str) -> Obstacle:
    """An agent that has programmed its host by its own copy of the pool does its work, but for what is new."""
    if not facts.copy:
        return Obstacle(topic, text)
    return Obstacle(topic, f"runs on its own {facts.copy}; {text}", works=facts.programmed and not facts.switch)


def unknown_host(host: str, hosts: Collection[str]) -> str:
    """The problem of an agent whose host is not in the pool."""
    near = nearest(host, hosts)
    hint = f": is this {near}? Then start it with --host {near}" if near is not None else ""
    return f"the pool has no host {host}, which this agent was started as; it has {listing(hosts) or 'none'}{hint}"


def _reasons(by_remote: Mapping[str, str]) -> str:
    return "; ".join(f"{remote}: {reason}" for remote, reason in by_remote.items()) or "no answer yet"
