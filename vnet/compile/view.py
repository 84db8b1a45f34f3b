"""What one host knows of the pool, as compile reads it.

One rule: a source of flows reads its host through the methods of HostView and nothing else. While a source is compiled each read
is recorded, so a change of the input compiles the source again; a read that names no input depends on every change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum
from typing import Self

from vnet.compile.inputs import EVERYTHING, HostInputs, Input, InputKey, LocalNetwork, LocalUplink, StateIndex
from vnet.compile.pipeline import TAG_MASK
from vnet.objects import (
    Binding,
    BindingState,
    Host,
    Location,
    LockingMode,
    Network,
    Pool,
    PoolState,
    QosClass,
    SecurityGroup,
    Vif,
)
from vnet.objects.link_local import chosen


class Role(Enum):
    """What a VIF is to this host, derived from its bindings alone."""

    ABSENT = "absent"  # no port here that may carry it, or its security groups are not known
    ACTIVE = "active"  # it runs here
    INCOMING = "incoming"  # it is moving here
    CLOSED = "closed"  # it ran here, or has a port here that another host's claim keeps shut


class HostView:
    """A host's inputs to read. reads: the set that every read is recorded in, None for nobody's."""

    __slots__ = ("_inputs", "_reads", "me")

    def __init__(self, inputs: HostInputs, reads: set[InputKey] | None = None) -> None:
        self.me = inputs.me
        self._inputs = inputs
        self._reads = reads

    @classmethod
    def of(
        cls,
        state: PoolState,
        me: str,
        ports: dict[str, int],
        devices: dict[str, int],
        index: StateIndex | None = None,
    ) -> Self:
        """The view that a host would have of a whole pool."""
        return cls(HostInputs.of(state, me, ports, devices, index))

    def recorded(self, reads: set[InputKey]) -> HostView:
        """The same view, which records what is read."""
        return HostView(self._inputs, reads)

    def objects(self, of: Input) -> Iterator[tuple[str, str]]:
        """The objects, by name and network, that have a value of an input."""
        return self._inputs.objects(of)

    def _read(self, read: Input, name: str, network: str = "") -> None:
        if self._reads is not None:
            self._reads.add((read, name, network))

    def _all(self) -> HostInputs:
        """The inputs as a whole."""
        if self._reads is not None:
            self._reads.add(EVERYTHING)
        return self._inputs

    # Networks and the ways that their frames travel

    def network(self, name: str) -> LocalNetwork | None:
        """A network as this host carries it; None where its row is not known here."""
        self._read(Input.NETWORK, name)
        return self._inputs.local_networks.get(name)

    def uplink(self, name: str) -> LocalUplink | None:
        """An uplink of this host, None if it has no such uplink."""
        self._read(Input.UPLINK, name)
        return self._inputs.local_uplinks.get(name)

    def uplink_networks(self, uplink: str) -> list[Network]:
        """The networks on an uplink that are known here, by name."""
        self._read(Input.UPLINK_NETWORKS, uplink)
        return [self._inputs.networks[name] for name in sorted(self._inputs.on_uplink.get(uplink, ()))]

    def vtep(self, host: str) -> str | None:
        """The address of a host's tunnel endpoint."""
        self._read(Input.ADDRESS, host)
        known = self._inputs.hosts.get(host)
        return known.address if known else None

    # Bindings

    def bindings_of(self, network: str, vif: str) -> tuple[Binding, ...]:
        """All bindings of a VIF on a network, by their hosts."""
        self._read(Input.BINDINGS, vif, network)
        return self._inputs.index(network).bindings.get(vif, ())

    def binding(self, network: str, vif: str, host: str) -> Binding | None:
        return next((binding for binding in self.bindings_of(network, vif) if binding.host == host), None)

    def location(self, network: str, vif: str) -> Location:
        return Location.of(self.bindings_of(network, vif))

    def members(self, network: str) -> Collection[str]:
        """The hosts with bindings on a network, this one included."""
        self._read(Input.MEMBERS, network)
        return self._inputs.index(network).members.keys()

    def unlocked(self, network: str) -> Collection[str]:
        """The hosts with unlocked VIFs on a network."""
        self._read(Input.MEMBERS, network)
        return self._inputs.index(network).unlocked.keys()

    # VIFs and ports of this host

    def vif(self, vif: str, network: str) -> Vif | None:
        """A VIF's row, None where this host has none, or has it on another network."""
        self._read(Input.VIF, vif, network)
        return self._inputs.index(network).vifs.get(vif)

    def ofport(self, vif: Vif) -> int | None:
        """The number of a VIF's port, which may only be reserved for it."""
        self._read(Input.VIF, vif.id, vif.network)
        return self._inputs.ports.get(vif.id)

    def role(self, vif: Vif) -> Role:
        """What a VIF is to this host."""
        ofport, network = self.ofport(vif), self.network(vif.network)
        if ofport is None or network is None or vif.locking_mode is LockingMode.DISABLED:
            return Role.ABSENT
        if vif.groups and not self.judgeable(vif):
            return Role.ABSENT
        where = self.location(vif.network, vif.id)
        if where.current is not None and where.current.host == self.me:
            return Role.ACTIVE
        if where.incoming is not None and where.incoming.host == self.me:
            return Role.INCOMING
        return Role.CLOSED

    def state(self, vif: Vif) -> BindingState | None:
        """The state of this host's binding of a VIF, None without one."""
        binding = self.binding(vif.network, vif.id, self.me)
        return binding.state if binding else None

    def link_locals(self, vif: Vif) -> tuple[str, ...]:
        """The link-local addresses that a VIF's guest has chosen."""
        return tuple(entry.address for entry in chosen(self.bindings_of(vif.network, vif.id)))

    def plugged(self, vif_id: str) -> int | None:
        """The ofport of a VIF's port that is here; None where it is awaited, and its number is only reserved."""
        vif = self.vifs.get(vif_id)
        if vif is not None and self.state(vif) is BindingState.AWAITED:
            return None
        return self.ports.get(vif_id)

    def local(self, network: str) -> list[Vif]:
        """The VIFs of a network that this host has rows of."""
        self._read(Input.VIFS, network)
        found = self._inputs.index(network).vifs
        for vif in found if self._reads is not None else ():
            self._read(Input.VIF, vif, network)
        return list(found.values())

    def here(self, network: str) -> list[tuple[int, Vif]]:
        """The VIFs of a network that frames may be delivered to here, by ofport."""
        return self._deliverable(self.local(network))

    def trunks(self, uplink: str) -> list[tuple[int, Vif]]:
        """The trunk VIFs on an uplink's untagged networks that frames may be delivered to here, by ofport."""
        return self._deliverable(
            vif for network in self.uplink_networks(uplink) if network.tag == 0 for vif in self._trunks_of(network.name)
        )

    def _trunks_of(self, network: str) -> Iterator[Vif]:
        self._read(Input.TRUNKS, network)
        for id in self._inputs.index(network).trunks:
            if (vif := self.vif(id, network)) is not None:
                yield vif

    def _deliverable(self, vifs: Iterable[Vif]) -> list[tuple[int, Vif]]:
        usable = [
            (ofport, vif)
            for vif in vifs
            if self.role(vif) in (Role.ACTIVE, Role.INCOMING) and (ofport := self.ofport(vif)) is not None
        ]
        return sorted(usable, key=lambda found: (found[0], found[1].id))

    # Security groups

    def group(self, name: str, network: str) -> SecurityGroup | None:
        """A group that VIFs of a network here are in; None where there are none, or it is not known."""
        self._read(Input.GROUP, name, network)
        return self._inputs.groups.get(name) if name in self._inputs.index(network).groups else None

    def peer_bits(self, network: str) -> Mapping[str, int]:
        """The groups that rules for VIFs here name as the other side, each with its bit in REG_PEER."""
        self._read(Input.PEER_BITS, network)
        return self._inputs.index(network).peer_bits

    def peer(self, network: str, vif: str) -> tuple[Binding, int] | None:
        """Where a VIF is or is going, and its groups that rules here name as bits of REG_PEER; None without any."""
        self._read(Input.PEER, vif, network)
        index = self._inputs.index(network)
        where = Location.of(index.bindings.get(vif, ()))
        found = where.current or where.incoming
        bits = sum(1 << index.peer_bits[group] for group in found.groups if group in index.peer_bits) if found else 0
        return (found, bits) if found is not None and bits else None

    def judgeable(self, vif: Vif) -> bool:
        """Whether all that decides about a VIF's packets is known; else it must stay silent."""
        bits = self.peer_bits(vif.network)
        groups = [self.group(name, vif.network) for name in vif.groups]
        return all(group is not None and bits.keys() >= group.remotes() for group in groups)

    # QoS classes

    def qos(self, name: str) -> QosClass | None:
        """A QoS class; None where it is not known."""
        self._read(Input.QOS, name)
        return self._inputs.qos.get(name)

    def limited(self, vif: Vif) -> bool:
        """Whether a QoS class limits what a VIF sends or is sent: its own, or that of a network that it is on."""
        network = self.network(vif.network)
        if network is None or network.qos is not None or vif.qos is not None:
            return network is not None
        tagged = self.uplink_networks(network.uplink) if vif.trunk is not None and network.uplink is not None else ()
        return any(carried.qos is not None for carried in tagged)

    # Probes

    def probe_frames(self, probe: str) -> tuple[bytes, ...]:
        self._read(Input.PROBE, probe)
        return self._inputs.probes.get(probe, ())

    # Whole tables, and what is found only by looking through one

    @property
    def pool(self) -> Pool | None:
        return self._all().pool

    @property
    def host(self) -> Host | None:
        return self._all().hosts.get(self.me)

    @property
    def hosts(self) -> Mapping[str, Host]:
        return self._all().hosts

    @property
    def networks(self) -> Mapping[str, Network]:
        return self._all().networks

    @property
    def vifs(self) -> Mapping[str, Vif]:
        return self._all().vifs

    @property
    def groups(self) -> Mapping[str, SecurityGroup]:
        return self._all().groups

    @property
    def ports(self) -> Mapping[str, int]:
        """VIF id to ofport."""
        return self._all().ports

    @property
    def devices(self) -> Mapping[str, int]:
        """Tunnel or patch port to ofport."""
        return self._all().devices

    @property
    def probes(self) -> Mapping[str, tuple[bytes, ...]]:
        return self._all().probes

    def bindings(self, network: str) -> Iterator[Binding]:
        """Every binding of a network, on any host."""
        for of_vif in self._all().index(network).bindings.values():
            yield from of_vif

    def unsettled(self, network: str) -> list[Vif]:
        """The VIFs of a network that this host has rows of, and that are moving or have just moved, anywhere, by id."""
        index = self._all().index(network)
        return [index.vifs[vif] for vif in sorted(index.unsettled & index.vifs.keys())]

    def gone(self) -> set[tuple[str, str, frozenset[int]]]:
        """Uplink, MAC and tags of each VIF of a VLAN network that has left this host and of which it still has a binding."""
        return {
            (network.uplink, vif.mac, carried_tags(network, vif))
            for network in self.networks.values()
            if network.uplink is not None
            for vif in self.unsettled(network.name)
            if any(old.host == self.me for old in self.location(network.name, vif.id).superseded)
        }


ALL_TAGS = frozenset(range(TAG_MASK))  # 0xfff is reserved, 802.1Q-2018 table 9-2


def carried_tags(network: Network, vif: Vif) -> frozenset[int]:
    """The VLAN IDs that the frames of a VIF of a VLAN network have on the wire, 0 where they are untagged."""
    if vif.trunk is None:
        return frozenset((network.tag or 0,))
    return frozenset((0, *vif.trunk.tags)) if vif.trunk.tags else ALL_TAGS
