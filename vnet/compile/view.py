"""What one host knows of the pool: the input of compile, and the only place that indexes it.

A HostView holds the rows a host needs (its networks, their bindings, its VIFs) and what its Open vSwitch says (ofports).
The agent folds changes into it; compile only reads it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from enum import Enum

from vnet.compile.pipeline import TAG_BITS, VLAN_SEGMENT
from vnet.objects import (
    Binding,
    BindingState,
    Host,
    Location,
    LockingMode,
    Network,
    Pool,
    PoolState,
    SecurityGroup,
    Vif,
)

MAX_PEER_GROUPS = 128  # on one network, bits of REG_PEER


def patch_device(uplink: str) -> str:
    """The name of br-int's end of the patch to an uplink's bridge."""
    return f"int-{uplink}"


class Role(Enum):
    """What a VIF is to this host, derived from its bindings alone."""

    ABSENT = "absent"  # no port here that may carry it, or its security groups are not known
    ACTIVE = "active"  # it runs here
    INCOMING = "incoming"  # it is moving here
    CLOSED = "closed"  # it ran here, or has a port here that another host's claim keeps shut


class StateIndex:
    """A whole pool by what a host's view asks of it: made once for the views of many hosts."""

    def __init__(self, state: PoolState) -> None:
        self.bindings: dict[str, list[Binding]] = defaultdict(list)  # by network
        self.wanted: dict[str, set[str]] = defaultdict(set)  # host to the networks of the VIFs that are to be there
        for binding in state.bindings.values():
            self.bindings[binding.network].append(binding)
        for vif in state.vifs.values():
            for host in (vif.incoming, vif.host):
                if host is not None:
                    self.wanted[host].add(vif.network)


class HostView:
    """One host's part of the pool. Mutated only through its methods, which keep the indexes."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.pool: Pool | None = None
        self.hosts: dict[str, Host] = {}
        self.networks: dict[str, Network] = {}
        self.vifs: dict[str, Vif] = {}
        self.groups: dict[str, SecurityGroup] = {}
        self.ports: dict[str, int] = {}  # VIF id to ofport
        self.devices: dict[str, int] = {}  # tunnel or patch port to ofport
        self.probes: dict[str, tuple[bytes, ...]] = {}  # a probe's id to the marked frames to watch for
        self._bindings: dict[str, dict[str, dict[str, Binding]]] = defaultdict(lambda: defaultdict(dict))
        self._members: dict[str, Counter[str]] = defaultdict(Counter)
        self._unlocked: dict[str, Counter[str]] = defaultdict(Counter)
        self._local: dict[str, set[str]] = defaultdict(set)
        self._networks_of_host: dict[str, Counter[str]] = defaultdict(Counter)
        self._unsettled: dict[str, set[str]] = defaultdict(set)  # network to its VIFs that move, or have just moved
        self._used: dict[str, Counter[str]] = defaultdict(Counter)  # network to the groups of VIFs here
        self._peer_bits: dict[str, dict[str, int]] = {}

    @classmethod
    def of(
        cls,
        state: PoolState,
        me: str,
        ports: dict[str, int],
        devices: dict[str, int],
        index: StateIndex | None = None,
    ) -> HostView:
        """The view that a host would have of a whole pool: what `plan`, the simulator and the tests compile from."""
        view, index = cls(me), index or StateIndex(state)
        view.pool = state.pool
        view.hosts = dict(state.hosts)
        view.devices = dict(devices)
        here = index.wanted[me] | {state.vifs[vif].network for vif in ports if vif in state.vifs}
        for name in sorted(here):
            network = state.networks.get(name)
            if network is not None and network.on(me):
                view.networks[name] = network
                for binding in index.bindings[name]:
                    view.set_binding(binding)
        for vif, ofport in ports.items():
            if vif in state.vifs:
                view.set_vif(state.vifs[vif])
                view.set_port(vif, ofport)
                for group in view.vifs[vif].groups:
                    if group in state.groups and group not in view.groups:
                        view.set_group(state.groups[group])
        return view

    # Bindings

    def set_binding(self, binding: Binding) -> None:
        self.drop_binding(binding.network, binding.vif, binding.host)
        self._bindings[binding.network][binding.vif][binding.host] = binding
        self._members[binding.network][binding.host] += 1
        self._networks_of_host[binding.host][binding.network] += 1
        if binding.unlocked:
            self._unlocked[binding.network][binding.host] += 1
        self._settle(binding.network, binding.vif)

    def drop_binding(self, network: str, vif: str, host: str) -> Binding | None:
        """Forgets a binding; returns it, None if there was none."""
        of_vif = self._bindings[network].get(vif)
        binding = of_vif.pop(host, None) if of_vif else None
        if binding is None:
            return None
        if not of_vif:
            del self._bindings[network][vif]
        self._members[network] -= Counter({host: 1})
        self._networks_of_host[host] -= Counter({network: 1})
        if binding.unlocked:
            self._unlocked[network] -= Counter({host: 1})
        self._settle(network, vif)
        return binding

    def _settle(self, network: str, vif: str) -> None:
        states = [binding.state for binding in self._bindings[network].get(vif, {}).values()]
        if len(states) > 1 or any(state.moving for state in states):
            self._unsettled[network].add(vif)
        else:
            self._unsettled[network].discard(vif)

    def unsettled(self, network: str) -> list[Vif]:
        """The VIFs of a network that this host has rows of, and that are moving or have just moved, anywhere."""
        return [
            vif for id in self._unsettled[network] if (vif := self.vifs.get(id)) is not None and vif.network == network
        ]

    def bindings(self, network: str) -> Iterator[Binding]:
        """Every binding of a network, on any host."""
        for of_vif in self._bindings[network].values():
            yield from of_vif.values()

    def binding(self, network: str, vif: str, host: str) -> Binding | None:
        return self._bindings[network].get(vif, {}).get(host)

    def location(self, network: str, vif: str) -> Location:
        return Location.of(list(self._bindings[network].get(vif, {}).values()))

    def bound(self, network: str) -> Iterable[str]:
        """The ids of a network's VIFs that have a binding."""
        return self._bindings[network].keys()

    def members(self, network: str) -> Counter[str]:
        """The hosts with bindings on a network, this one included, and how many each has."""
        return self._members[network]

    def unlocked(self, network: str) -> Counter[str]:
        """The hosts with unlocked VIFs on a network."""
        return self._unlocked[network]

    def networks_of(self, host: str) -> list[str]:
        """The networks known here that a host has bindings on."""
        return list(self._networks_of_host[host])

    # Local VIFs and ports

    def set_vif(self, vif: Vif) -> None:
        self.drop_vif(vif.id)
        self.vifs[vif.id] = vif
        self._local[vif.network].add(vif.id)
        if vif.groups:
            self._used[vif.network] += Counter(vif.groups)
            self._peer_bits.pop(vif.network, None)

    def drop_vif(self, vif: str) -> None:
        old = self.vifs.pop(vif, None)
        if old is not None:
            self._local[old.network].discard(vif)
            if old.groups:
                self._used[old.network] -= Counter(old.groups)
                self._peer_bits.pop(old.network, None)

    def set_port(self, vif: str, ofport: int) -> None:
        self.ports[vif] = ofport

    def drop_port(self, vif: str) -> None:
        self.ports.pop(vif, None)

    def role(self, vif: Vif) -> Role:
        """What a VIF is to this host."""
        if vif.id not in self.ports or vif.network not in self.networks or vif.locking_mode is LockingMode.DISABLED:
            return Role.ABSENT
        if vif.groups and not self._judgeable(vif):
            return Role.ABSENT
        where = self.location(vif.network, vif.id)
        if where.current is not None and where.current.host == self.me:
            return Role.ACTIVE
        if where.incoming is not None and where.incoming.host == self.me:
            return Role.INCOMING
        return Role.CLOSED

    def state(self, vif: Vif) -> BindingState | None:
        """What this host's binding of a VIF says, None without one."""
        binding = self.binding(vif.network, vif.id, self.me)
        return binding.state if binding else None

    def plugged(self, vif_id: str) -> int | None:
        """The ofport of a VIF's port that is here; None where it is awaited, and its number is only reserved."""
        vif = self.vifs.get(vif_id)
        if vif is not None and self.state(vif) is BindingState.AWAITED:
            return None
        return self.ports.get(vif_id)

    def local(self, network: str) -> list[Vif]:
        """The VIFs of a network that this host has rows of."""
        return [self.vifs[vif] for vif in self._local[network]]

    def here(self, network: str) -> list[Vif]:
        """The VIFs of a network that frames may be delivered to here, by ofport."""
        return self._deliverable(self.local(network))

    def trunks(self, uplink: str) -> list[Vif]:
        """The trunk VIFs on an uplink's untagged network that frames may be delivered to here, by ofport."""
        return self._deliverable(
            vif
            for network in self.networks.values()
            if network.uplink == uplink and network.tag == 0
            for vif in self.local(network.name)
            if vif.trunk is not None
        )

    def _deliverable(self, vifs: Iterable[Vif]) -> list[Vif]:
        usable = [vif for vif in vifs if self.role(vif) in (Role.ACTIVE, Role.INCOMING)]
        return sorted(usable, key=lambda vif: self.ports[vif.id])

    def gone(self) -> set[tuple[str, int, str]]:
        """Uplink, tag and MAC of each VIF of a VLAN network that has left this host and of which it still has a binding."""
        return {
            (network.uplink, network.tag or 0, vif.mac)
            for network in self.networks.values()
            if network.uplink is not None
            for vif in self.unsettled(network.name)
            if any(old.host == self.me for old in self.location(network.name, vif.id).superseded)
        }

    # Security groups

    def set_group(self, group: SecurityGroup) -> None:
        self.groups[group.name] = group
        self._peer_bits.clear()

    def drop_group(self, name: str) -> None:
        if self.groups.pop(name, None) is not None:
            self._peer_bits.clear()

    def used(self, network: str) -> Iterable[str]:
        """The groups that VIFs of a network on this host are in, known or not."""
        return self._used[network].keys()

    def uses(self, network: str, group: str) -> bool:
        return group in self._used[network]

    def peer_bits(self, network: str) -> dict[str, int]:
        """The groups that rules for VIFs here name as the other side, each with its bit in REG_PEER."""
        found = self._peer_bits.get(network)
        if found is None:
            known = [self.groups[name] for name in self._used[network] if name in self.groups]
            named = {rule.group for group in known for rule in group.rules if rule.group is not None}
            found = {name: bit for bit, name in enumerate(sorted(named)[:MAX_PEER_GROUPS])}
            self._peer_bits[network] = found
        return found

    def _judgeable(self, vif: Vif) -> bool:
        """Whether all that decides about a VIF's packets is known; else it must stay silent."""
        bits = self.peer_bits(vif.network)
        groups = [self.groups.get(name) for name in vif.groups]
        return all(
            group is not None and all(rule.group is None or rule.group in bits for rule in group.rules)
            for group in groups
        )

    # Where a network's frames travel on this host

    @property
    def host(self) -> Host | None:
        return self.hosts.get(self.me)

    def uplink_index(self, uplink: str) -> int | None:
        """An uplink's place among this host's, None if it has no such uplink."""
        names = sorted(u.name for u in self.host.uplinks) if self.host else []
        return names.index(uplink) if uplink in names else None

    def segment(self, network: Network) -> int | None:
        """The segment of a network on this host, None if the host lacks its uplink."""
        if network.uplink is None:
            return network.number
        return self.vlan_segment(network.uplink, network.tag or 0)

    def vlan_segment(self, uplink: str, tag: int) -> int | None:
        index = self.uplink_index(uplink)
        return None if index is None else VLAN_SEGMENT | index << TAG_BITS | tag

    def uplink_port(self, network: Network) -> int | None:
        """The ofport towards a VLAN network's physical side."""
        return self.devices.get(patch_device(network.uplink)) if network.uplink else None

    def tunnel_port(self, network: Network) -> int | None:
        """The ofport of the tunnel that carries a network's frames, or on a VLAN network those of its relay."""
        encapsulation = network.carrier.encapsulation
        return self.devices.get(encapsulation.device) if encapsulation is not None else None

    def vtep(self, host: str) -> str | None:
        known = self.hosts.get(host)
        return known.address if known else None
