"""Incremental compilation: each flow comes from one named source, and a change recompiles only the sources it touches.

Tests hold that what is compiled step by step equals what is compiled at once. A change that no rule covers recompiles
everything and is counted with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from ovsctl.openflow import Flow
from vnet.compile.flows import Flows
from vnet.compile.l2 import base_flows, flood_flows, lookup_flows, network_flows, trunk_flows
from vnet.compile.pipeline import Category
from vnet.compile.probe import probe_flows
from vnet.compile.security import group_flows, peer_flows, policy_flows
from vnet.compile.view import HostView, patch_device
from vnet.compile.vif import vif_flows
from vnet.objects import Binding, Host, Network, Pool, SecurityGroup, Vif


class Source(NamedTuple):
    """What a flow comes from. name: the network, the VIF's id, the uplink, the group or the probe; network: whose LOOKUP, GROUP
    or PEER."""

    category: Category
    name: str = ""
    network: str = ""


class Change(NamedTuple):
    """One source's flows before and after."""

    source: Source
    old: Flows
    new: Flows


def sources(view: HostView) -> set[Source]:
    """Every source there is for a view."""
    found = {Source(Category.BASE), *(Source(Category.PROBE, probe) for probe in view.probes)}
    for name in view.networks:
        found |= network_sources(view, name)
    if view.host:
        found |= {Source(Category.TRUNK, uplink.name) for uplink in view.host.uplinks}
    return found


def network_sources(view: HostView, network: str) -> set[Source]:
    """The sources that belong to one network: itself, its flood, its VIFs."""
    local = {vif.id for vif in view.local(network)}
    return {
        Source(Category.NETWORK, network),
        Source(Category.FLOOD, network),
        *(Source(Category.VIF, vif) for vif in local),
        *(Source(Category.LOOKUP, vif, network) for vif in local.union(view.bound(network))),
        *policy_sources(view, network),
    }


def policy_sources(view: HostView, network: str) -> Iterator[Source]:
    """The rules that VIFs of a network here obey, and the peers that those name."""
    yield from (Source(Category.GROUP, name, network) for name in view.used(network))
    if view.peer_bits(network):
        yield from (Source(Category.PEER, vif, network) for vif in view.bound(network))


def compile_source(view: HostView, source: Source) -> Flows:
    """The flows of one source; none where what it names is not here."""
    category, name, network_name = source
    if category is Category.BASE:
        return (*base_flows(), *policy_flows())
    if category is Category.TRUNK:
        return trunk_flows(view, name)
    if category is Category.PROBE:
        return probe_flows(name, view.probes.get(name, ()))
    if category is Category.VIF:
        vif = view.vifs.get(name)
        network = view.networks.get(vif.network) if vif else None
        return vif_flows(view, network, vif) if vif and network else ()
    network = view.networks.get(network_name or name)
    if network is None:
        return ()
    if category is Category.LOOKUP:
        return lookup_flows(view, network, name)
    if category is Category.GROUP:
        return group_flows(view, network, name)
    if category is Category.PEER:
        return peer_flows(view, network, name)
    return (network_flows if category is Category.NETWORK else flood_flows)(view, network)


def compile_flows(view: HostView) -> dict[Source, Flows]:
    """Everything at once: what an incremental compiler must arrive at as well. Sources without flows are left out."""
    compiled = {source: compile_source(view, source) for source in sources(view)}
    return {source: flows for source, flows in compiled.items() if flows}


class Compiler:
    """Folds changes into a host's view and recompiles what they touch.

    The setters return nothing; `compile` returns the sources whose flows changed since it was last called. `recomputed`
    counts sources compiled, `full` counts whole recompilations by reason.
    """

    def __init__(self, me: str) -> None:
        self.view = HostView(me)
        self.flows: dict[Source, Flows] = {}
        self.recomputed = 0
        self.full: Counter[str] = Counter()
        self._dirty: set[Source] = {Source(Category.BASE)}
        self._everything: str | None = None

    def compile(self) -> list[Change]:
        """The sources whose flows changed, with their flows before and after."""
        if self._everything is not None:
            self.full[self._everything] += 1
            self._dirty |= sources(self.view) | self.flows.keys()
            self._everything = None
        dirty, self._dirty = self._dirty, set()
        self.recomputed += len(dirty)
        changes = []
        for source in dirty:
            old, new = self.flows.get(source, ()), compile_source(self.view, source)
            if old == new:
                continue
            changes.append(Change(source, old, new))
            if new:
                self.flows[source] = new
            else:
                del self.flows[source]
        return changes

    def set_pool(self, pool: Pool | None) -> None:
        """The pool's own settings decide nothing in the flows."""
        self.view.pool = pool

    def set_host(self, host: Host) -> None:
        old = self.view.hosts.get(host.name)
        self.view.hosts[host.name] = host
        self._host_changed(host.name, old, host)

    def drop_host(self, name: str) -> None:
        self._host_changed(name, self.view.hosts.pop(name, None), None)

    def _host_changed(self, name: str, old: Host | None, new: Host | None) -> None:
        if name == self.view.me:
            # Segments of VLAN networks follow from the place of their uplink among the host's.
            if (old.uplinks if old else ()) != (new.uplinks if new else ()):
                self._everything = "uplinks of this host"
        elif (old.address if old else None) != (new.address if new else None):
            for network in self.view.networks_of(name):
                self._touch_network(network)

    def set_network(self, network: Network) -> None:
        old = self.view.networks.get(network.name)
        self.view.networks[network.name] = network
        self._touch_network(network.name)
        self._touch_uplinks(old, network)

    def drop_network(self, name: str) -> None:
        if name in self.view.networks:
            self._touch_network(name)
            self._touch_uplinks(self.view.networks.pop(name), None)

    def set_binding(self, binding: Binding) -> None:
        old = self.view.binding(binding.network, binding.vif, binding.host)
        if old is not None and _programs_the_same(old, binding):
            self.view.set_binding(binding)
            return
        before = self._membership(binding)
        self.view.set_binding(binding)
        self._binding_changed(binding, before)

    def drop_binding(self, network: str, vif: str, host: str) -> None:
        old = self.view.binding(network, vif, host)
        if old is not None:
            before = self._membership(old)
            self.view.drop_binding(network, vif, host)
            self._binding_changed(old, before)

    def _membership(self, binding: Binding) -> tuple[bool, bool]:
        """Whether the binding's host has members on its network, and unlocked ones."""
        members, unlocked = self.view.members(binding.network), self.view.unlocked(binding.network)
        return members[binding.host] > 0, unlocked[binding.host] > 0

    def _binding_changed(self, binding: Binding, before: tuple[bool, bool]) -> None:
        self._dirty.add(Source(Category.LOOKUP, binding.vif, binding.network))
        if self.view.peer_bits(binding.network):
            self._dirty.add(Source(Category.PEER, binding.vif, binding.network))
        vif = self.view.vifs.get(binding.vif)
        if vif is not None:
            self._touch_vif(vif)
        elif before != self._membership(binding):
            self._dirty.add(Source(Category.FLOOD, binding.network))

    def set_vif(self, vif: Vif) -> None:
        old = self.view.vifs.get(vif.id)
        if old is not None and replace(old, epoch=vif.epoch) == vif:
            self.view.set_vif(vif)
            return  # its bindings say what a claim changes
        if old is not None:
            self._touch_vif(old)
        with self._policy_of({vif.network} | ({old.network} if old is not None else set())):
            self.view.set_vif(vif)
        self._touch_vif(vif)

    def drop_vif(self, vif_id: str) -> None:
        if (old := self.view.vifs.get(vif_id)) is not None:
            self._touch_vif(old)
            with self._policy_of({old.network}):
                self.view.drop_vif(vif_id)

    def set_group(self, group: SecurityGroup) -> None:
        self._group_changed(group.name, group)

    def drop_group(self, name: str) -> None:
        if name in self.view.groups:
            self._group_changed(name, None)

    def _group_changed(self, name: str, group: SecurityGroup | None) -> None:
        using = {network for network in self.view.networks if self.view.uses(network, name)}
        with self._policy_of(using):
            if group is not None:
                self.view.set_group(group)
            else:
                self.view.drop_group(name)
        for network in using:
            self._dirty.add(Source(Category.GROUP, name, network))
            for vif in self.view.local(network):
                if name in vif.groups:
                    self._touch_vif(vif)

    @contextmanager
    def _policy_of(self, networks: set[str]) -> Iterator[None]:
        """Around a change of what VIFs here obey: rules that come or go with it, and all that name peers if bits of those move."""
        before = {network: self._policy(network) for network in networks}
        yield
        for network, (used, bits) in before.items():
            now_used, now_bits = self._policy(network)
            if bits != now_bits:
                self._touch_network(network)
                self._dirty |= {Source(Category.PEER, vif, network) for vif in self.view.bound(network)}
            self._dirty |= {Source(Category.GROUP, name, network) for name in used ^ now_used}

    def _policy(self, network: str) -> tuple[frozenset[str], dict[str, int]]:
        return frozenset(self.view.used(network)), self.view.peer_bits(network)

    def set_port(self, vif_id: str, ofport: int | None) -> None:
        """A VIF's port has this ofport, or with None is gone."""
        if self.view.ports.get(vif_id) == ofport:
            return
        if ofport is None:
            self.view.drop_port(vif_id)
        else:
            self.view.set_port(vif_id, ofport)
        if (vif := self.view.vifs.get(vif_id)) is not None:
            self._touch_vif(vif)

    def set_device(self, name: str, ofport: int | None) -> None:
        """A tunnel or patch port has this ofport, or with None is gone."""
        if self.view.devices.get(name) == ofport:
            return
        if ofport is None:
            del self.view.devices[name]
        else:
            self.view.devices[name] = ofport
        for network in self.view.networks.values():
            if name in devices_of(network):
                self._touch_network(network.name)
        if self.view.host:
            self._dirty |= {Source(Category.TRUNK, uplink.name) for uplink in self.view.host.uplinks}

    def set_probe(self, probe: str, frames: Sequence[bytes]) -> None:
        """Watch for these frames, which are marked (probe.py); for none is no more."""
        if frames:
            self.view.probes[probe] = tuple(frames)
        else:
            self.view.probes.pop(probe, None)
        self._dirty.add(Source(Category.PROBE, probe))

    def _touch_network(self, name: str) -> None:
        self._dirty |= network_sources(self.view, name)

    def _touch_uplinks(self, *networks: Network | None) -> None:
        for network in networks:
            if network is not None and network.uplink is not None:
                self._touch_uplink(network.uplink)

    def _touch_uplink(self, uplink: str) -> None:
        """Trunk VIFs take part in every VLAN of their uplink."""
        self._dirty.add(Source(Category.TRUNK, uplink))
        self._dirty |= {Source(Category.FLOOD, n.name) for n in self.view.networks.values() if n.uplink == uplink}

    def _touch_vif(self, vif: Vif) -> None:
        self._dirty |= {
            Source(Category.VIF, vif.id),
            Source(Category.LOOKUP, vif.id, vif.network),
            Source(Category.FLOOD, vif.network),
        }
        network = self.view.networks.get(vif.network)
        if vif.trunk is not None and network is not None and network.uplink is not None:
            self._touch_uplink(network.uplink)


def _programs_the_same(old: Binding, new: Binding) -> bool:
    """Whether two bindings differ only in what is said about them, not in what they make hosts do."""
    return (old.mac, old.epoch, old.state, old.unlocked, old.moved, old.groups, old.addresses) == (
        new.mac, new.epoch, new.state, new.unlocked, new.moved, new.groups, new.addresses
    )  # fmt: skip


def devices_of(network: Network) -> set[str]:
    """The tunnel and patch ports that a network's flows may name."""
    devices = {patch_device(network.uplink)} if network.uplink is not None else set()
    if (encapsulation := network.carrier.encapsulation) is not None:
        devices.add(encapsulation.device)
    return devices


def flat(compiled: dict[Source, Flows]) -> list[Flow]:
    """The flows of all sources together."""
    return [flow for flows in compiled.values() for flow in flows]
