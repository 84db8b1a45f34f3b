"""A document and the pool as it is, to the pool as it should be.

One rule: the document owns what it made, the toolstack what it made. What the document no longer has goes; what the toolstack
made stays; a document that would take something from the toolstack is refused. Ids that a document leaves out are kept from
the pool as it is, or allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from vnet.objects import (
    Host,
    Network,
    Owner,
    Pool,
    PoolState,
    Rule,
    SecurityGroup,
    Subnet,
    Trunk,
    Uplink,
    Vif,
    Vm,
    default_mtu,
)
from vnet.objects.allocate import Exhausted, Ids, in_order
from vnet.objects.carriers import Encapsulation
from vnet.plan.owners import check_owners
from vnet.plan.subnets import SubnetsOf
from vnet.topology import Document, NetworkSpec, VifSpec
from vnet.topology.check import check
from vnet.topology.document import RuleSpec, is_group
from vnet.topology.record import Record
from vnet.topology.source import Source
from vnet.topology.view import NetworkView, View
from vnet.util.gc_pause import collector_held

T = TypeVar("T", Host, Network, Subnet, SecurityGroup, Vm, Vif)


def desired_state(document: Document, current: PoolState) -> PoolState:
    """What the pool should hold once the document is applied.

    Bindings, epochs, prepared migrations, revision and generation are kept; bindings of VIFs and hosts that go, and the agents
    of hosts that go, are left out. Raises TopologyErrors for clashes with what the toolstack made and with ids that were
    allocated before, and for networks, hosts and VMs that go while the toolstack still uses them.
    """
    with collector_held():
        return _desired_state(document, current)


def _desired_state(document: Document, current: PoolState) -> PoolState:
    source = document.source or Source("")
    source = Source(source.filename, source.text)
    others = toolstack_part(current)
    check_owners(document, current, others, source)
    if others.hosts or others.networks or others.subnets or others.groups or others.vifs:
        check(document, source, others)
    source.finish()
    try:
        state = _Builder(document, current, others, source).build()
    except Exhausted as error:
        source.add("exhausted", str(error))
    source.finish()
    return state


def toolstack_part(state: PoolState) -> PoolState:
    """The objects that the toolstack made."""
    return PoolState(
        hosts=_theirs(state.hosts),
        networks=_theirs(state.networks),
        subnets=_theirs(state.subnets),
        vms=_theirs(state.vms),
        vifs=_theirs(state.vifs),
        groups=_theirs(state.groups),
    )


def _theirs(objects: Mapping[str, T]) -> dict[str, T]:
    return {name: value for name, value in objects.items() if value.owner is Owner.TOOLSTACK}


class _Builder:
    """One run of `desired_state`. Problems go to the source; what was built is worth nothing if there are any."""

    def __init__(self, document: Document, current: PoolState, others: PoolState, source: Source) -> None:
        self.document = document
        self.current = current
        self.others = others
        self.source = source
        self.view = View(document, source, others)
        self.ids = Ids.of(document.pool, current)
        self.plugged = {current.vifs[vif].vm for vif, _ in current.bindings if vif in current.vifs}

    def build(self) -> PoolState:
        current, document = self.current, self.document
        hosts = dict(self.others.hosts) | {name: self._host(name) for name in document.hosts}
        networks = self._networks()
        subnets = dict(self.others.subnets) | {
            name: _kept(current.subnets.get(name), Subnet(name, spec.network, spec.cidr, spec.gateway))
            for name, spec in document.subnets.items()
        }
        vms = dict(self.others.vms) | {
            name: _kept(current.vms.get(name), Vm(name, self._host_of_vm(name))) for name in document.vms
        }
        vifs = self._vifs(subnets)
        return PoolState(
            pool=self._pool(),
            hosts=hosts,
            networks=networks,
            subnets=subnets,
            vms=vms,
            vifs=vifs,
            bindings={key: binding for key, binding in current.bindings.items() if key[0] in vifs and key[1] in hosts},
            agents={host: agent for host, agent in current.agents.items() if host in hosts},
            groups=self._groups(),
        )

    def _pool(self) -> Pool:
        before, document = self.current.pool, self.document
        mode = document.defaults.vif.locking_mode
        if before is None:
            return Pool(document.pool, document.underlay.mtu, mode)
        after = replace(before, name=document.pool, underlay_mtu=document.underlay.mtu, locking_mode=mode)
        return before if before == after else after

    def _host(self, name: str) -> Host:
        spec = self.document.hosts[name]
        uplinks = tuple(
            Uplink(uplink, tuple(sorted(u.members)), u.mode, u.lacp_time, u.hash, u.mtu)
            for uplink, u in sorted(spec.uplinks.items())
        )
        return _kept(self.current.hosts.get(name), Host(name, spec.address, uplinks))

    def _host_of_vm(self, name: str) -> str | None:
        """Where a VM should be: the document says where it starts, and while it is plugged in, the toolstack where it is."""
        before = self.current.vms.get(name)
        if before is not None and before.host in self.document.hosts and name in self.plugged:
            return before.host
        return self.document.vms[name].host

    def _networks(self) -> dict[str, Network]:
        specs, current = self.document.networks, self.current.networks
        keys = self._keys()
        numbers = {name: current[name].number for name in specs if name in current}
        numbers.update((name, self.ids.number()) for name in in_order(specs.keys() - current.keys()))
        return dict(self.others.networks) | {
            name: _kept(current.get(name), self._network(name, spec, numbers[name], keys[name]))
            for name, spec in specs.items()
        }

    def _groups(self) -> dict[str, SecurityGroup]:
        specs, current = self.document.security_groups, self.current.groups
        numbers = {name: current[name].number for name in specs if name in current}
        numbers.update((name, self.ids.group_number()) for name in in_order(specs.keys() - current.keys()))
        return dict(self.others.groups) | {
            name: _kept(
                current.get(name),
                SecurityGroup(
                    name,
                    numbers[name],
                    spec.default.ingress,
                    spec.default.egress,
                    tuple(_rule(rule) for rule in sorted(spec.rules, key=lambda rule: rule.name)),
                ),
            )
            for name, spec in specs.items()
        }

    def _network(self, name: str, spec: NetworkSpec, number: int, key: int | None) -> Network:
        view: NetworkView = self.view.networks[name]
        mtu = spec.mtu if spec.mtu is not None else default_mtu(spec.type, self.view.capacity(view))
        return Network(name, spec.type, number, mtu, key, spec.tag, spec.uplink, frozenset(spec.hosts or ()))

    def _keys(self) -> dict[str, int | None]:
        """A key for each network of the document: what it says, else what it has, else a new one."""
        keys: dict[str, int | None] = {}
        kept: dict[tuple[Encapsulation | None, int], str] = {}
        open_names = []
        for name, spec in self.document.networks.items():
            stated, encapsulation = self.view.networks[name].key, spec.type.carrier.encapsulation
            before = self.current.networks.get(name)
            if stated is not None and encapsulation is not None:
                keys[name] = stated
                self.ids.keys[encapsulation].add(stated)
            elif before is not None and before.type is spec.type:
                keys[name] = before.key
                if before.key is not None:
                    kept[encapsulation, before.key] = name
            else:
                open_names.append(name)
        for name, spec in self.document.networks.items():
            stated, carrier = self.view.networks[name].key, spec.type.carrier
            if stated is not None and (holder := kept.get((carrier.encapsulation, stated))) is not None:
                word = carrier.key_word
                self._allocated(spec, word, f"{word} {stated}", f"network {holder}")
        for name in in_order(open_names):
            keys[name] = self.ids.key(self.document.networks[name].type)
        return keys

    def _allocated(self, spec: Record, key: str, what: str, holder: str, item: int | None = None) -> None:
        message = f"{what} was allocated to {holder}, and is kept for it"
        self.source.add(
            "allocated", message, spec.at(key, item), f"take another, or give {holder} its own in the document"
        )

    def _vifs(self, subnets: Mapping[str, Subnet]) -> dict[str, Vif]:
        specs = {
            vif_id: (name, index, spec)
            for name, vm in self.document.vms.items()
            for index, vif_id, spec in vm.vif_ids(name)
        }
        macs = self._macs({vif_id: spec for vif_id, (_, _, spec) in specs.items()})
        addresses = self._addresses({vif_id: spec for vif_id, (_, _, spec) in specs.items()}, subnets)
        default_mode = self.document.defaults.vif.locking_mode
        vifs = dict(self.others.vifs)
        for vif_id, (vm, index, spec) in specs.items():
            before = self.current.vifs.get(vif_id)
            stated: dict[str, Any] = {
                "id": vif_id,
                "network": spec.network,
                "mac": macs[vif_id],
                "vm": vm,
                "index": index,
                "addresses": addresses[vif_id],
                "locking_mode": spec.locking_mode or default_mode,
                "trunk": None if spec.trunk is None else Trunk(spec.trunk),
                "groups": tuple(sorted(spec.security_groups)),
                "owner": Owner.DOCUMENT,
            }
            if before is None:
                vifs[vif_id] = Vif(**stated)
            elif any(getattr(before, name) != value for name, value in stated.items()):
                vifs[vif_id] = _kept(before, replace(before, **stated))
            else:  # as nearly all are: a value is checked when it is made, which takes longer than all the rest
                vifs[vif_id] = before
        return vifs

    def _macs(self, specs: Mapping[str, VifSpec]) -> dict[str, str]:
        """A MAC for each VIF of the document: what it says, else what it has, else a new one."""
        macs = {vif_id: spec.mac for vif_id, spec in specs.items() if spec.mac is not None}
        self.ids.macs.update(macs.values())
        stated = {(specs[vif_id].network, mac): vif_id for vif_id, mac in macs.items()}
        kept: set[tuple[str, str]] = {(vif.network, vif.mac) for vif in self.others.vifs.values()}
        for vif_id in in_order(specs.keys() - macs.keys()):
            spec, before = specs[vif_id], self.current.vifs.get(vif_id)
            if before is None or (spec.network, before.mac) in kept:
                macs[vif_id] = self.ids.mac(vif_id)
                continue
            macs[vif_id] = before.mac
            kept.add((spec.network, before.mac))
            if (other := stated.get((spec.network, before.mac))) is not None:
                self._allocated(specs[other], "mac", f"MAC {before.mac}", f"VIF {vif_id}")
        return macs

    def _addresses(self, specs: Mapping[str, VifSpec], subnets: Mapping[str, Subnet]) -> dict[str, tuple[str, ...]]:
        """Addresses for each VIF of the document: what it says, else those it has in its network's subnets, else new ones."""
        pools = SubnetsOf(subnets)
        addresses: dict[str, tuple[str, ...]] = {}
        stated: dict[tuple[str, str], tuple[VifSpec, int]] = {}
        for vif_id, spec in specs.items():
            if spec.addresses is not None:
                addresses[vif_id] = tuple(sorted(spec.addresses))
                stated.update(((spec.network, a), (spec, at)) for at, a in enumerate(spec.addresses))
                self.ids.addresses[spec.network].update(spec.addresses)
        for network, gateways in pools.gateways.items():
            self.ids.addresses[network].update(gateways)
        taken = {(vif.network, a) for vif in self.others.vifs.values() for a in vif.addresses}
        waiting: list[tuple[str, list[str]]] = []
        for vif_id in in_order(specs.keys() - addresses.keys()):
            spec, before = specs[vif_id], self.current.vifs.get(vif_id)
            had = before.addresses if before is not None and before.network == spec.network else ()
            keep = [a for a in had if (spec.network, a) not in taken and pools.usable(spec.network, a)]
            taken.update((spec.network, a) for a in keep)
            for address in keep:
                if (holder := stated.get((spec.network, address))) is not None:
                    self._allocated(holder[0], "addresses", f"address {address}", f"VIF {vif_id}", holder[1])
            waiting.append((vif_id, keep))
        for vif_id, keep in waiting:
            spec = specs[vif_id]
            new = [self._address(vif_id, spec, subnet) for subnet in pools.missing(spec.network, keep)]
            addresses[vif_id] = tuple(sorted([*keep, *filter(None, new)]))
        return addresses

    def _address(self, vif_id: str, spec: VifSpec, subnet: Subnet) -> str | None:
        try:
            return self.ids.address(subnet)
        except Exhausted:
            message = f"subnet {subnet.name} ({subnet.cidr}) has no free address for VIF {vif_id}"
            self.source.add(
                "exhausted", message, spec.at(), "a larger subnet; or 'addresses: []' for a VIF without one"
            )
            return None


def _rule(spec: RuleSpec) -> Rule:
    cidr = spec.remote if "/" in spec.remote else None
    group = spec.remote if is_group(spec.remote) else None
    return Rule(spec.name, spec.direction, spec.action, spec.protocol, spec.ports, cidr, group)


def _kept(before: T | None, after: T) -> T:
    """The value as it was, where it is the same: so that a plan finds it unchanged at once."""
    return before if before is not None and before == after else after
