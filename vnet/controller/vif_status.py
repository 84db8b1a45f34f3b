"""The place of a VIF, and the reasons why it is not ready: for answers about VIFs and for the status of the pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from vnet.db.view import PoolView
from vnet.objects import Binding, Location, Vif
from vnet.objects.binding import POOL, SWITCH
from vnet.objects.rules import place_fault
from vnet.objects.tiers import obeyed_in


class Presence(Enum):
    """defined: a row; awaited: a host has a number for its port and lacks the port; claimed: a host has its port; ready: that host's
    flows are in, so packets can reach it."""

    DEFINED = "defined"
    AWAITED = "awaited"
    CLAIMED = "claimed"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason why an object is not as desired. code: for programs; host: the host at fault, if there is one."""

    code: str
    text: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """since: milliseconds since 1970, None where nobody knows any more. reasons: empty when all is as desired. ofport: the number
    that its port on the host is to ask for, if there is one. link_locals: the addresses that its guest has chosen. connections: what became of its tracked
    connections when it came to the host. picks_up: whether the host picks up TCP connections of it that it has not seen begin (docs/adr/0008). masters: the numbers of the virtual routers that it is the master of, by its advertisements of the last
    seconds."""

    presence: Presence
    host: str | None
    since: int | None
    reasons: tuple[Reason, ...]
    ofport: int | None = None
    link_locals: tuple[str, ...] = ()
    connections: str = ""
    picks_up: bool = False
    masters: tuple[int, ...] = ()


def whereabouts(view: PoolView, vif: Vif, location: Location | None = None) -> Whereabouts:
    """The place of a VIF now. `since` of a VIF that no host has is left to the caller, which has the events."""
    at = view.location(vif.id) if location is None else location
    current = at.current
    if current is None:
        return Whereabouts(Presence.DEFINED, None, None, tuple(_why_unclaimed(view, vif)))
    presence = Presence.READY if current.ready else Presence.CLAIMED if current.plugged else Presence.AWAITED
    reasons = tuple(_why_not_ready(view, vif, current))
    link_locals = tuple(entry.address for entry in current.link_locals)
    agent = view.state.agents.get(current.host) if vif.vrrp else None
    reported = agent.masters.get(vif.id, "").split() if agent is not None else ()
    masters = tuple(router for router in vif.vrrp if str(router) in reported)
    return Whereabouts(
        presence,
        current.host,
        current.since,
        reasons,
        current.ofport or None,
        link_locals,
        current.connections,
        _picks_up(view, vif, current),
        masters,
    )


def _picks_up(view: PoolView, vif: Vif, current: Binding) -> bool:
    """Whether the host of a VIF picks up connections that it has not seen begin: for 300 s where none came along."""
    if not current.moved:
        return False
    groups = (view.state.groups.get(name) for name in obeyed_in(view.state, vif))
    return any(group is not None and group.decides_tracked for group in groups)


def place_problem(view: PoolView, vif: Vif, host: str) -> Reason | None:
    """The reason why a VIF cannot be on a host by configuration alone; None if it can."""
    network = view.state.networks.get(vif.network)
    if network is None:
        return Reason("unknown-network", f"network {vif.network} does not exist", host)
    fault = place_fault(view.state, network, host)
    return Reason(*fault, host) if fault is not None else None


def host_problem(view: PoolView, host: str) -> Reason | None:
    """The reason why a host does not act for now; None if its agent is alive and has its switch."""
    if host not in view.state.hosts:
        return Reason("unknown-host", f"host {host} is not in the pool any more", host)
    if host in view.live:
        return None
    if (agent := view.state.agents.get(host)) is None:
        return Reason("no-agent", f"no agent of host {host} has ever reported", host)
    if (text := agent.problems.get(POOL)) is not None:
        return Reason("host-down", f"host {host}: {text}", host)
    if (text := agent.problems.get(SWITCH)) is not None:
        return Reason("host-down", f"host {host}: {SWITCH} {text}", host)
    return Reason("host-down", f"the agent of host {host} does not report", host)


def _agent_problem(view: PoolView, vif: Vif, host: str) -> Reason | None:
    agent = view.state.agents.get(host)
    text = agent.problems.get(f"vif {vif.id}") if agent is not None else None
    return Reason("agent-problem", f"host {host}: {text}", host) if text else None


def _why_unclaimed(view: PoolView, vif: Vif) -> Iterator[Reason]:
    hosts = [vif.host] if vif.host is not None else list(view.state.hosts)
    problems = [problem for host in hosts if (problem := _agent_problem(view, vif, host)) is not None]
    if problems:
        yield from problems
    elif vif.host is None:
        yield Reason("no-port", f"no host has a port with external_ids:iface-id={vif.id}")
    elif (reason := place_problem(view, vif, vif.host) or host_problem(view, vif.host)) is not None:
        yield reason
    else:
        yield Reason("no-port", f"host {vif.host} has no port with external_ids:iface-id={vif.id}", vif.host)


def _why_not_ready(view: PoolView, vif: Vif, binding: Binding) -> Iterator[Reason]:
    host = binding.host
    problem = host_problem(view, host) or _agent_problem(view, vif, host)
    if problem is not None:
        yield problem
    elif not binding.plugged:
        text = f"host {host} awaits a port with external_ids:iface-id={vif.id} and ofport_request={binding.ofport}"
        yield Reason("no-port", text, host)
    elif not binding.ready:
        yield Reason("programming", f"host {host} has the port and is programming it", host)
    if vif.host not in (None, host) and vif.incoming is None:
        yield Reason("elsewhere", f"it is wanted on host {vif.host} and runs on {host}", host)
