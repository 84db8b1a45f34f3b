"""The pool's values as the API answers them: fields by their declarations, and what follows from other objects. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, TypeVar

import msgspec

from vnet import api
from vnet.controller import old_agents
from vnet.controller.migration_state import Migration, unit_migration, unit_of
from vnet.controller.vif_status import Presence, host_problem, whereabouts
from vnet.db.health import HostHealth
from vnet.db.view import PoolView
from vnet.grammar.declare import Declared, plain
from vnet.health.findings import findings, stated, stated_by
from vnet.objects import AgentStatus, Binding, Event, Host, Network, Pool, SecurityGroup, Vif, Vm
from vnet.objects.multicast import words_of
from vnet.objects.tiers import all_obeyed
from vnet.objects.trial import Trial
from vnet.util.suggest import nearest

A = TypeVar("A", bound=api.AnswerStruct)


def timestamp(milliseconds: int | None) -> str | None:
    """RFC 3339 in UTC; None for no time, or one that no clock can show."""
    if not milliseconds:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _answer(type: type[A], value: object, **derived: object) -> A:
    """A runtime object's answer: the fields of its names, and those that are shown otherwise or follow from other objects."""
    return msgspec.convert({**msgspec.to_builtins(value), **derived}, type)


def show_pool(pool: Pool) -> api.Pool:
    return _answer(api.Pool, pool)


MAX_ROWS = 100  # rows that cannot be read, in a status


def show_migration(migration: Migration) -> api.Migration:
    return _answer(api.Migration, migration, phase=migration.phase.word)


def show_neighbours(host: str, health: HostHealth) -> list[api.LinkNeighbour]:
    """The stations at the other ends of a host's cables."""
    return [
        api.LinkNeighbour(
            host=host, uplink=it.uplink, nic=it.nic, place=it.place, chassis=it.chassis, port=it.port, port_description=it.port_description,
            system=it.system, address=it.address, vlan=it.vlan or None, ttl_s=it.ttl_s,
        )
        for it in health.neighbours
    ]  # fmt: skip


class Presenter:
    """Answers about objects of one view. since: when a VIF came to be, or lost its host, by its id; None for unknown."""

    def __init__(self, view: PoolView, since: Callable[[str], int | None] = lambda _: None) -> None:
        self.view = view
        self._since = since

    def show(self, value: Declared) -> dict[str, Any]:
        """An object as its struct in vnet.api has it."""
        shown = plain(value, document=False)
        match value:
            case Host(name=name):
                neighbours = show_neighbours(name, stated_by(self.view, name))
                shown |= {"agent": self._agent(name), "vifs": self._runs[name], "neighbours": neighbours}
            case Network(name=name):
                shown["vifs"] = self._on_network[name]
            case SecurityGroup(name=name):
                shown["vifs"] = self._in_group[name]
            case Vm(name=name):
                vifs = self.view.vifs(name)
                shown["vifs"] = [self.show(vif) for vif in vifs]
                shown["migration"] = show_migration(unit_migration(self.view, vifs))
            case Vif() as vif:
                shown["place"] = self._place(vif)
                moves = vif.incoming is not None
                shown["migration"] = show_migration(unit_migration(self.view, [vif])) if moves else None
        return shown

    @cached_property
    def _runs(self) -> Counter[str]:
        currents = (self.view.location(vif).current for vif in self.view.bindings_of)
        return Counter(current.host for current in currents if current is not None)

    @cached_property
    def _on_network(self) -> Counter[str]:
        return Counter(vif.network for vif in self.view.state.vifs.values())

    @cached_property
    def _in_group(self) -> Counter[str]:
        return Counter(name for names in all_obeyed(self.view.state).values() for name in names)

    def _agent(self, host: str) -> api.Agent:
        state = self.view.state
        agent = state.agents.get(host)
        if agent is None:
            return api.Agent(alive=False)
        wanted = state.pool.generation if state.pool is not None else 0
        return _answer(
            api.Agent,
            agent,
            alive=host in self.view.live,
            behind=max(0, wanted - agent.generation),
            started=timestamp(agent.started),
            elsewhere=agent.elsewhere,
        )

    def _place(self, vif: Vif) -> api.Place:
        at = whereabouts(self.view, vif)
        return api.Place(
            state=at.presence.value,
            host=at.host,
            since=timestamp(at.since if at.host is not None else self._since(vif.id)),
            why=[api.Reason(code=reason.code, text=reason.text, host=reason.host) for reason in at.reasons],
            ofport=at.ofport,
            link_locals=list(at.link_locals),
            connections=at.connections,
            picks_up=at.picks_up,
            masters=list(at.masters),
        )


def show_binding(binding: Binding, view: PoolView) -> api.Binding:
    return api.Binding(  # field by field: a pool has many, and _answer takes twice the time
        vif=binding.vif,
        host=binding.host,
        network=binding.network,
        mac=binding.mac,
        addresses=list(binding.addresses),
        epoch=binding.epoch,
        state=binding.state.value,
        ready=binding.ready,
        acked=sorted(view.acked(binding)),
        since=timestamp(binding.since),
        security_groups=list(binding.groups),
        moved=binding.moved,
        connections=binding.connections,
        ofport=binding.ofport or None,
        link_locals=[entry.address for entry in binding.link_locals],
        behind=[entry.mac for entry in binding.behind],
        listening=words_of(binding.listening),
    )


def show_event(id: str, event: Event) -> api.Event:
    return _answer(api.Event, event, id=id, time=timestamp(event.time) or "")


def show_trial(trial: Trial, now: int) -> api.Trial:
    """A trial, with the seconds that it has left. now: milliseconds since 1970."""
    return _answer(api.Trial, trial, ends=timestamp(trial.ends) or "", seconds=max((trial.ends - now) // 1000, 0))


def show_status(
    view: PoolView,
    database: Iterable[str],
    version: str,
    invalid: Iterable[str] = (),
    certificates: Iterable[str] = (),
    trial: api.Trial | None = None,
) -> api.Status:
    """The pool at a glance. invalid: the errors of rows that no pool may hold. certificates: the problems of certificates."""
    state = view.state
    places = {presence.value: 0 for presence in Presence}
    rows = list(invalid)
    if len(rows) > MAX_ROWS:
        rows[MAX_ROWS:] = [f"{len(rows) - MAX_ROWS} more rows"]
    reasons = [api.Reason(code="invalid-row", text=text) for text in rows]
    reasons += [api.Reason(code="certificate-ends", text=text) for text in certificates]
    reasons += _host_reasons(view)
    reasons += _health_reasons(view)
    down = {reason.host for reason in reasons if reason.code in ("host-down", "no-agent")}
    picking_up = []
    for _, vif in sorted(state.vifs.items()):
        at = whereabouts(view, vif)
        places[at.presence.value] += 1
        if at.picks_up:
            text = at.connections or "picked up as they go on"
            picking_up.append(
                api.Reason(code="picking-up", text=f"VIF {vif.id} on host {at.host}: {text}", host=at.host or "")
            )
        reasons += [
            api.Reason(code=reason.code, text=f"VIF {vif.id}: {reason.text}", host=reason.host)
            for reason in at.reasons
            if not (reason.code in ("host-down", "no-agent") and reason.host in down)  # listed once, with the host
        ]
    return api.Status(
        pool=show_pool(state.pool) if state.pool is not None else None,
        controller=version,
        database=list(database),
        hosts=len(state.hosts),
        live_hosts=len(view.live & state.hosts.keys()),
        networks=len(state.networks),
        vifs=places,
        problems=reasons,
        moving=_moving(view),
        picking_up=picking_up,
        elsewhere={
            host: agent.elsewhere
            for host, agent in sorted(state.agents.items())
            if agent.elsewhere and host in state.hosts
        },
        trial=trial,
    )


def _moving(view: PoolView) -> list[api.Move]:
    """The migrations that are under way, by unit."""
    units: dict[str, list[Vif]] = {}
    for _, vif in sorted(view.state.vifs.items()):
        if vif.incoming is not None:
            units.setdefault(str(unit_of(vif)), []).append(vif)
    return [
        api.Move(unit=unit, migration=show_migration(unit_migration(view, vifs)))
        for unit, vifs in sorted(units.items())
    ]


def _shown_with_vif(view: PoolView, host: str, subject: str) -> bool:
    """Whether a problem of an agent is listed with its VIF. A host that has a port of a VIF which is elsewhere lists its own."""
    vif = view.state.vifs.get(subject.removeprefix("vif ")) if subject.startswith("vif ") else None
    if vif is None:
        return False
    current = view.location(vif.id).current
    return host == (current.host if current is not None else vif.host or host)


def _host_reasons(view: PoolView) -> Iterator[api.Reason]:
    for name in sorted(view.live - view.state.hosts.keys()):
        near = nearest(name, view.state.hosts)
        hint = f": is it {near}?" if near is not None else ""
        text = f"an agent was started as host {name}, which the pool does not have{hint}"
        yield api.Reason(code="agent-of-no-host", text=text, host=name)
    wanted = view.state.pool.generation if view.state.pool is not None else 0
    in_clear = dict(old_agents.problems(view))
    for name in sorted(view.state.hosts):
        problem = host_problem(view, name)
        if problem is not None:
            yield api.Reason(code=problem.code, text=problem.text, host=name)
            continue
        agent = view.state.agents[name]
        if name in in_clear:
            yield api.Reason(code="agent-too-old", text=in_clear[name], host=name)
        if agent.generation < wanted:
            text = f"host {name} has programmed generation {agent.generation} of {wanted}"
            yield api.Reason(code="behind", text=text, host=name)
        yield from _agent_problems(agent, partial(_shown_with_vif, view, name))


def _health_reasons(view: PoolView) -> Iterator[api.Reason]:
    """What is wrong with the network between hosts."""
    for found in findings(view, stated(view)):
        yield api.Reason(code=found.code, text=found.text, host=found.hosts[0] if len(found.hosts) == 1 else "")


def _agent_problems(agent: AgentStatus, left_out: Callable[[str], bool]) -> Iterator[api.Reason]:
    """A host's problems as it wrote them, but for those of some subjects."""
    for subject, text in sorted(agent.problems.items()):
        if not left_out(subject):
            yield api.Reason(code="agent-problem", text=f"host {agent.host}: {subject}: {text}", host=agent.host)


def problems_of_hosts(view: PoolView, hosts: Iterable[str]) -> list[api.Reason]:
    """The problems of live hosts themselves, without those of single VIFs."""
    agents = [agent for host in hosts if host in view.live and (agent := view.state.agents.get(host)) is not None]
    return [reason for agent in agents for reason in _agent_problems(agent, lambda subject: subject.startswith("vif "))]
