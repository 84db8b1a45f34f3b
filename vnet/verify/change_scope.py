"""The part of a pool that a change can affect. One rule: reachability outside of it is the same before and after.

Frames do not cross networks, so a network on which nothing changed keeps its answers. VLAN networks of one uplink and tag
are one network to a frame, and so are all of an uplink that a trunk VIF is on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import TypeVar

from vnet.objects import Network, PoolState, Vif
from vnet.objects.tiers import obeyed_in

T = TypeVar("T")


def affected(before: PoolState, after: PoolState) -> tuple[PoolState, PoolState]:
    """Both pools, reduced to the networks, VIFs and hosts that the change from one to the other can affect."""
    if _settings(before) != _settings(after):
        return before, after
    kept = joined_to(set(_touched(before, after)), before, after)
    return part_of(before, kept), part_of(after, kept)


def joined_to(networks: Set[str], *states: PoolState) -> set[str]:
    """These networks, and those that share a broadcast domain with one of them."""
    shared = domains(*states)
    kept_domains = {domain for name in networks for domain in shared.get(name, ())}
    return {name for name, of in shared.items() if of & kept_domains}


def _settings(state: PoolState) -> object:
    return replace(state.pool, revision=0, generation=0) if state.pool is not None else None


def domains(*states: PoolState) -> dict[str, set[object]]:
    """The broadcast domains of each network, by its name: frames may cross between networks that share one."""
    trunked = {
        network.uplink
        for state in states
        for vif in state.vifs.values()
        if vif.trunk is not None and (network := state.networks.get(vif.network)) is not None
    }
    found: dict[str, set[object]] = {}
    for state in states:
        for network in state.networks.values():
            found.setdefault(network.name, set()).add(_domain(network, trunked))
    return found


def _domain(network: Network, trunked: set[str | None]) -> object:
    if network.uplink is None:
        return network.name
    return (network.uplink,) if network.uplink in trunked else (network.uplink, network.tag)


def _changed(before: Mapping[str, T], after: Mapping[str, T]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _touched(before: PoolState, after: PoolState) -> Iterator[str]:
    """The networks that the change concerns."""
    yield from _changed(before.networks, after.networks)
    vifs = _changed(before.vifs, after.vifs)
    vms, hosts, groups = (
        _changed(getattr(before, table), getattr(after, table)) for table in ("vms", "hosts", "groups")
    )
    sets = _changed(before.address_sets, after.address_sets)
    for state in (before, after):
        groups |= {group.name for group in state.groups.values() if sets and not sets.isdisjoint(group.address_sets)}
    for state in (before, after):
        yield from (
            state.subnets[name].network for name in _changed(before.subnets, after.subnets) & state.subnets.keys()
        )
        yield from (vif.network for vif in state.vifs.values() if _concerned(state, vif, vifs, vms, hosts, groups))
        yield from (b.network for key, b in state.bindings.items() if b.host in hosts or _moved(before, after, key))


def _concerned(state: PoolState, vif: Vif, vifs: set[str], vms: set[str], hosts: set[str], groups: set[str]) -> bool:
    if vif.id in vifs or vif.vm in vms or (groups and not groups.isdisjoint(obeyed_in(state, vif))):
        return True
    vm = state.vms.get(vif.vm) if vif.vm else None
    return not hosts.isdisjoint((vif.host, vif.incoming, vm.host if vm else None))


def _moved(before: PoolState, after: PoolState, key: tuple[str, str]) -> bool:
    return before.bindings.get(key) != after.bindings.get(key)


def part_of(state: PoolState, networks: Set[str]) -> PoolState:
    """The state with these networks alone, their VIFs and the hosts of those."""
    vifs = {name: vif for name, vif in state.vifs.items() if vif.network in networks}
    named = {vif.vm for vif in vifs.values()}
    vms = {name: vm for name, vm in state.vms.items() if name in named}
    bindings = {key: binding for key, binding in state.bindings.items() if binding.network in networks}
    used = {host for vif in vifs.values() for host in (vif.host, vif.incoming)} | {vm.host for vm in vms.values()}
    used |= {binding.host for binding in bindings.values()}
    return replace(
        state,
        hosts={name: host for name, host in state.hosts.items() if name in used},
        networks={name: network for name, network in state.networks.items() if name in networks},
        vms=vms,
        vifs=vifs,
        bindings=bindings,
    )
