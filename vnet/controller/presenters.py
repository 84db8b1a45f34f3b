"""The pool's values as the API shows them. Pure: what is shown follows from the view and the time given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from vnet import api
from vnet.controller.migration_state import Migration, Phase, unit_migration
from vnet.controller.vif_status import Presence, host_problem, whereabouts
from vnet.db.view import PoolView
from vnet.objects import (
    Binding,
    Event,
    Host,
    Network,
    Pool,
    Protocol,
    Rule,
    SecurityGroup,
    Trunk,
    Uplink,
    Vif,
    Vm,
    Way,
)


def timestamp(milliseconds: int | None) -> str | None:
    """RFC 3339 in UTC; None for a time nobody knows, or that no clock can show."""
    if not milliseconds:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def show_pool(pool: Pool) -> api.Pool:
    return api.Pool(
        name=pool.name,
        underlay_mtu=pool.underlay_mtu,
        locking_mode=pool.locking_mode.value,
        revision=pool.revision,
        generation=pool.generation,
    )


def show_uplink(uplink: Uplink) -> api.Uplink:
    return api.Uplink(
        name=uplink.name,
        members=list(uplink.members),
        mode=uplink.mode.value if uplink.mode is not None else None,
        lacp_time=uplink.lacp_time.value,
        hash=uplink.hash.value,
        mtu=uplink.mtu,
    )


def _show_agent(view: PoolView, host: str) -> api.Agent:
    agent = view.state.agents.get(host)
    if agent is None:
        return api.Agent(alive=False)
    wanted = view.state.pool.generation if view.state.pool is not None else 0
    return api.Agent(
        alive=host in view.live,
        generation=agent.generation,
        behind=max(0, wanted - agent.generation),
        started=timestamp(agent.started),
        version=agent.version,
        ovs_version=agent.ovs_version,
        problems=dict(agent.problems),
    )


def show_host(view: PoolView, host: Host, vifs: int = 0) -> api.Host:
    return api.Host(
        name=host.name,
        address=host.address,
        uplinks=[show_uplink(uplink) for uplink in host.uplinks],
        owner=host.owner.value,
        agent=_show_agent(view, host.name),
        vifs=vifs,
    )


def show_hosts(view: PoolView) -> list[api.Host]:
    """All hosts by name, with how many VIFs run on each."""
    runs: dict[str, int] = {}
    for vif in view.bindings_of:
        current = view.location(vif).current
        if current is not None:
            runs[current.host] = runs.get(current.host, 0) + 1
    return [show_host(view, host, runs.get(name, 0)) for name, host in sorted(view.state.hosts.items())]


def show_network(network: Network, vifs: int = 0) -> api.Network:
    tag: int | str | None = network.tag
    return api.Network(
        name=network.name,
        type=network.type.value,
        number=network.number,
        # A VLAN network's key is only for the relay that a migration uses; nobody asked for it.
        key=network.key if network.carrier.way is not Way.UPLINK else None,
        tag="untagged" if tag == 0 else network.tag,
        uplink=network.uplink,
        hosts=sorted(network.hosts),
        mtu=network.mtu,
        owner=network.owner.value,
        vifs=vifs,
    )


def show_networks(view: PoolView) -> list[api.Network]:
    """All networks by name, with how many VIFs each has."""
    count: dict[str, int] = {}
    for vif in view.state.vifs.values():
        count[vif.network] = count.get(vif.network, 0) + 1
    return [show_network(network, count.get(name, 0)) for name, network in sorted(view.state.networks.items())]


def show_rule(rule: Rule) -> api.Rule:
    return api.Rule(
        name=rule.name,
        direction=rule.direction.value,
        protocol=rule.protocol.value if isinstance(rule.protocol, Protocol) else rule.protocol,
        ports=[span.first if span.first == span.last else str(span) for span in rule.ports],
        remote=rule.remote,
        action=rule.action.value,
    )


def show_groups(view: PoolView) -> list[api.SecurityGroup]:
    """All security groups by name, with how many VIFs each has."""
    count = Counter(name for vif in view.state.vifs.values() for name in vif.groups)
    return [show_group(group, count[name]) for name, group in sorted(view.state.groups.items())]


def show_group(group: SecurityGroup, vifs: int = 0) -> api.SecurityGroup:
    return api.SecurityGroup(
        name=group.name,
        number=group.number,
        ingress=group.ingress.value,
        egress=group.egress.value,
        rules=[show_rule(rule) for rule in group.rules],
        owner=group.owner.value,
        vifs=vifs,
    )


def show_trunk(trunk: Trunk | None) -> list[int] | api.Rest | None:
    if trunk is None:
        return None
    return list(trunk.tags) if trunk.tags else "all"


_PHASES: dict[Phase, api.Phase] = {
    Phase.NONE: "none",
    Phase.PREPARING: "preparing",
    Phase.PREPARED: "prepared",
    Phase.RECEIVING: "receiving",
    Phase.ACTIVE: "active",
}


def show_migration(migration: Migration) -> api.Migration:
    return api.Migration(
        phase=_PHASES[migration.phase],
        source=migration.source,
        destination=migration.destination,
        waiting=list(migration.waiting),
        not_waited=list(migration.not_waited),
    )


def show_vif(view: PoolView, vif: Vif, defined_since: int | None = None) -> api.Vif:
    """One VIF. `defined_since`: when it came to be, or lost its host, if anybody knows."""
    at = whereabouts(view, vif)
    place = api.Place(
        state=at.presence.value,
        host=at.host,
        since=timestamp(at.since if at.host is not None else defined_since),
        why=[api.Reason(code=reason.code, text=reason.text, host=reason.host) for reason in at.why],
        ofport=at.ofport,
    )
    return api.Vif(
        id=vif.id,
        network=vif.network,
        mac=vif.mac,
        vm=vif.vm,
        index=vif.index,
        addresses=list(vif.addresses),
        locking_mode=vif.locking_mode.value,
        trunk=show_trunk(vif.trunk),
        host=vif.host,
        awaited=vif.awaited,
        incoming=vif.incoming,
        owner=vif.owner.value,
        place=place,
        security_groups=list(vif.groups),
        migration=show_migration(unit_migration(view, [vif])) if vif.incoming is not None else None,
    )


def show_vm(view: PoolView, vm: Vm) -> api.Vm:
    vifs = view.vifs(vm.name)
    return api.Vm(
        name=vm.name,
        host=vm.host,
        owner=vm.owner.value,
        vifs=[show_vif(view, vif) for vif in vifs],
        migration=show_migration(unit_migration(view, vifs)),
    )


def show_binding(binding: Binding) -> api.Binding:
    return api.Binding(
        vif=binding.vif,
        host=binding.host,
        network=binding.network,
        mac=binding.mac,
        addresses=list(binding.addresses),
        epoch=binding.epoch,
        state=binding.state.value,
        ready=binding.ready,
        acked=sorted(binding.acked),
        since=timestamp(binding.since),
        security_groups=list(binding.groups),
        moved=binding.moved,
        ofport=binding.ofport or None,
    )


def show_event(id: str, event: Event) -> api.Event:
    return api.Event(
        id=id,
        time=timestamp(event.time) or "",
        kind=event.kind,
        text=event.text,
        host=event.host,
        network=event.network,
        vif=event.vif,
    )


def show_status(view: PoolView, database: Iterable[str], version: str, invalid: Iterable[str] = ()) -> api.Status:
    """The pool at a glance. `invalid`: rows that no pool may hold, each with why."""
    state = view.state
    places = {presence.value: 0 for presence in Presence}
    reasons = [api.Reason(code="invalid-row", text=text) for text in invalid]
    reasons += _host_reasons(view)
    down = {reason.host for reason in reasons if reason.code in ("host-down", "no-agent")}
    for _, vif in sorted(state.vifs.items()):
        at = whereabouts(view, vif)
        places[at.presence.value] += 1
        reasons += [
            api.Reason(code=reason.code, text=f"VIF {vif.id}: {reason.text}", host=reason.host)
            for reason in at.why
            if not (reason.code in ("host-down", "no-agent") and reason.host in down)  # said once, of the host
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
    )


def _told_with_vif(view: PoolView, host: str, what: str) -> bool:
    """Whether an agent's problem is one that is told with its VIF: not so that of a host where the VIF is not, and which has a
    port of it all the same."""
    vif = view.state.vifs.get(what.removeprefix("vif ")) if what.startswith("vif ") else None
    if vif is None:
        return False
    current = view.location(vif.id).current
    return host == (current.host if current is not None else vif.host or host)


def _host_reasons(view: PoolView) -> Iterator[api.Reason]:
    wanted = view.state.pool.generation if view.state.pool is not None else 0
    for name in sorted(view.state.hosts):
        problem = host_problem(view, name)
        if problem is not None:
            yield api.Reason(code=problem.code, text=problem.text, host=name)
            continue
        agent = view.state.agents[name]
        if agent.generation < wanted:
            text = f"host {name} has programmed generation {agent.generation} of {wanted}"
            yield api.Reason(code="behind", text=text, host=name)
        for what, text in sorted(agent.problems.items()):
            if not _told_with_vif(view, name, what):
                yield api.Reason(code="agent-problem", text=f"host {name}: {what}: {text}", host=name)
