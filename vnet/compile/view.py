"""What one host knows of the pool, as compile reads it.

One rule: a source of flows reads its host through the methods of HostView and nothing else. While a source is compiled each read
is recorded, so a change of the input compiles the source again; a read that names no input depends on every change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Self

from vnet.compile.flow_export import Sampling, sampling_of
from vnet.compile.inputs import (
    EVERYTHING,
    NOTHING,
    CaptureTap,
    HostInputs,
    Input,
    InputKey,
    LocalNetwork,
    LocalUplink,
    StateIndex,
)
from vnet.compile.pipeline import TAG_MASK, Passing, Path, Table, enter, onward
from vnet.objects import (
    Binding,
    BindingState,
    FlowCollector,
    FrameMirror,
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
from vnet.objects.behind import known_behind
from vnet.objects.carriers import Encapsulation
from vnet.objects.identity import macs_of
from vnet.objects.isolation import ISOLATED, isolation_of
from vnet.objects.labels import as_remotes
from vnet.objects.link_local import chosen
from vnet.objects.mirror import MirrorPoint
from vnet.objects.multicast import listening_of
from vnet.objects.tiers import Tier


class VifRole(Enum):
    """What a VIF is to this host, derived from its bindings alone."""

    ABSENT = "absent"  # no port here that may carry it, its security groups are not known, or its network is encrypted and nothing can be here
    ACTIVE = "active"  # it runs here
    INCOMING = "incoming"  # it is moving here
    CLOSED = "closed"  # it ran here, or has a port here that another host's claim keeps shut


_UNRECORDED: set[InputKey] = set()  # stays empty: what is read by nobody is taken out of it


class HostView:
    """A host's inputs to read. reads: the set that every read is recorded in, None for nobody's."""

    __slots__ = ("_inputs", "_read", "_reads", "me")

    def __init__(self, inputs: HostInputs, reads: set[InputKey] | None = None) -> None:
        self.me = inputs.me
        self._inputs = inputs
        self._reads = reads
        self._read: Callable[[InputKey], None] = reads.add if reads is not None else _UNRECORDED.discard

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

    def _all(self) -> HostInputs:
        """The inputs as a whole."""
        self._read(EVERYTHING)
        return self._inputs

    # Networks and the ways that their frames travel

    def network(self, name: str) -> LocalNetwork | None:
        """A network as this host carries it; None where its row is not known here."""
        self._read((Input.NETWORK, name, ""))
        return self._inputs.local_networks.get(name)

    def uplink(self, name: str) -> LocalUplink | None:
        """An uplink of this host, None if it has no such uplink."""
        self._read((Input.UPLINK, name, ""))
        return self._inputs.local_uplinks.get(name)

    def uplink_networks(self, uplink: str) -> list[Network]:
        """The networks on an uplink that are known here, by name."""
        self._read((Input.UPLINK_NETWORKS, uplink, ""))
        return [self._inputs.networks[name] for name in sorted(self._inputs.on_uplink.get(uplink, ()))]

    @property
    def knows_tag_types(self) -> bool:
        """Whether flows can tell the type of a tag: the kernel's megaflows leave that of a tag behind another one out (ADR 25)."""
        return not self._inputs.kernel  # an agent has one for life

    def tells_tag_types(self, uplink: str) -> bool:
        """Whether frames of an uplink are told apart by the type of their tag: where a network on it states one. It costs each tagged
        frame two more look-ups in the datapath."""
        return self.knows_tag_types and any(network.tpid is not None for network in self.uplink_networks(uplink))

    def numbers_of_service_tags(self, uplink: str | None) -> set[int]:
        """The numbers on an uplink that are no tags of 802.1Q, since service tags have them and the type of a tag is not known."""
        if uplink is None:
            return set()
        self._read((Input.UPLINK_NETWORKS, uplink, ""))
        return {tag for on, tag in self._inputs.service_tags if on == uplink}

    @property
    def numbers_taken(self) -> dict[str, str]:
        """The networks that have no uplink here, since a service tag takes their number, each with that tag's network."""
        inputs = self._all()
        if not inputs.service_tags:
            return {}
        return {name: by for name, network in sorted(inputs.networks.items()) if (by := inputs.taken_by(network))}

    def vtep(self, host: str) -> str | None:
        """The address of a host's tunnel endpoint."""
        self._read((Input.ADDRESS, host, ""))
        known = self._inputs.hosts.get(host)
        return known.address if known else None

    def inner(self, host: str) -> str | None:
        """The address inside WireGuard at which a host is reached; None while it is not. Of this host: None if it cannot encrypt."""
        self._read((Input.INNER, host, ""))
        return self._inputs.inner.get(host)

    # Bindings

    def bindings_of(self, network: str, vif: str) -> tuple[Binding, ...]:
        """The bindings of a VIF on a network that count, by their hosts."""
        self._read((Input.BINDINGS, vif, network))
        return self._inputs.indexes.get(network, NOTHING).bindings.get(vif, ())

    def binding(self, network: str, vif: str, host: str) -> Binding | None:
        """A host's binding of a VIF, also one that does not count."""
        self._read((Input.BINDINGS, vif, network))
        for binding in self._inputs.index(network).all_bindings(vif):
            if binding.host == host:
                return binding
        return None

    def location(self, network: str, vif: str) -> Location:
        return Location.of(self.bindings_of(network, vif))

    def members(self, network: str) -> Collection[str]:
        """The hosts with bindings on a network, this one included."""
        self._read((Input.MEMBERS, network, ""))
        return self._inputs.indexes.get(network, NOTHING).members.keys()

    def unlocked(self, network: str) -> Collection[str]:
        """The hosts with unlocked VIFs on a network."""
        self._read((Input.MEMBERS, network, ""))
        return self._inputs.indexes.get(network, NOTHING).unlocked.keys()

    def routers(self, network: str) -> Mapping[int, Collection[str]]:
        """The virtual routers of a network, each with the hosts of the VIFs that may be its master."""
        self._read((Input.ROUTERS, network, ""))
        return {router: hosts.keys() for router, hosts in self._inputs.indexes.get(network, NOTHING).routers.items()}

    # VIFs and ports of this host

    def vif(self, vif: str, network: str) -> Vif | None:
        """A VIF's row, in all groups that judge it; None where this host has none, or has it on another network."""
        self._read((Input.VIF, vif, network))
        return self._inputs.indexes.get(network, NOTHING).vifs.get(vif)

    def ofport(self, vif: Vif) -> int | None:
        """The number of a VIF's port, which may only be reserved for it."""
        self._read((Input.VIF, vif.id, vif.network))
        return self._inputs.ports.get(vif.id)

    def role(self, vif: Vif) -> VifRole:
        """What a VIF is to this host."""
        ofport, network = self.ofport(vif), self.network(vif.network)
        if ofport is None or network is None or vif.locking_mode is LockingMode.DISABLED:
            return VifRole.ABSENT
        if self.obeyed(vif) and not self.judgeable(vif):
            return VifRole.ABSENT
        if network.encrypted and self.inner(self.me) is None:
            return VifRole.ABSENT
        where = self.location(vif.network, vif.id)
        if where.current is not None and where.current.host == self.me:
            return VifRole.ACTIVE
        if where.incoming is not None and where.incoming.host == self.me:
            return VifRole.INCOMING
        return VifRole.CLOSED

    def state(self, vif: Vif) -> BindingState | None:
        """The state of this host's binding of a VIF, None without one."""
        binding = self.binding(vif.network, vif.id, self.me)
        return binding.state if binding else None

    def link_locals(self, vif: Vif) -> tuple[str, ...]:
        """The link-local addresses that a VIF's guest has chosen."""
        return tuple(entry.address for entry in chosen(self.bindings_of(vif.network, vif.id)))

    def behind(self, vif: Vif) -> tuple[str, ...]:
        """The MACs that are known behind a VIF."""
        return tuple(entry.mac for entry in known_behind(self.bindings_of(vif.network, vif.id)))

    def in_front_of(self, mac: str, network: str) -> str | None:
        """The unlocked VIF that a MAC was heard behind last; None where there is none."""
        self._read((Input.BEHIND, mac, network))
        index = self._inputs.indexes.get(network, NOTHING)
        heard = (
            (entry.since, vif)
            for vif in index.behind.get(mac, ())
            for binding in index.bindings.get(vif, ())
            for entry in binding.behind
            if binding.unlocked and entry.mac == mac
        )
        return max(heard, default=(0, None))[1]

    # Multicast groups, on networks that snoop

    def listeners(self, group: str, network: str) -> Collection[str]:
        """The hosts of the VIFs that listen to a group."""
        self._read((Input.LISTENERS, group, network))
        return self._inputs.indexes.get(network, NOTHING).listeners.get(group, {}).keys()

    def listening_here(self, group: str, network: str) -> list[tuple[int, Vif]]:
        """The VIFs that listen to a group and that its frames may be delivered to here, by ofport."""
        self._read((Input.LISTENERS, group, network))
        ids = self._inputs.indexes.get(network, NOTHING).listening_here.get(group, ())
        return self.deliverable(vif for id in sorted(ids) if (vif := self.vif(id, network)) is not None)

    def is_heard(self, vif: Vif) -> bool:
        """Whether it is heard which multicast groups a VIF listens to. A trunk's tags are networks of their own: it gets every group."""
        network = self.network(vif.network)
        return network is not None and network.snooping and vif.trunk is None

    def gets_all_groups(self, vif: Vif) -> bool:
        """Whether a VIF gets every multicast group: a router, one of which nothing is known, and one that listens to too many."""
        self._read((Input.GETS_ALL, vif.id, vif.network))
        known = listening_of(self._inputs.indexes.get(vif.network, NOTHING).bindings.get(vif.id, ()))
        return known is None or known.gets_all or vif.trunk is not None

    def hosts_of_all_groups(self, network: str) -> Collection[str]:
        """The hosts of VIFs that get every multicast group."""
        self._read((Input.ALL_GROUPS, network, ""))
        return self._inputs.indexes.get(network, NOTHING).all_groups.keys()

    def multicast_routers(self, network: str) -> list[str]:
        """The VIFs of a network that are multicast routers, by id."""
        self._read((Input.MULTICAST_ROUTERS, network, ""))
        return sorted(self._inputs.indexes.get(network, NOTHING).multicast_routers)

    def crowded(self, network: str) -> bool:
        """Whether the VIFs of a network listen to more groups than are told apart."""
        self._read((Input.CROWDED, network, ""))
        return self._inputs.indexes.get(network, NOTHING).crowded

    def plugged(self, vif_id: str) -> int | None:
        """The ofport of a VIF's port that is here; None where it is awaited, and its number is only reserved."""
        vif = self.vifs.get(vif_id)
        if vif is not None and self.state(vif) is BindingState.AWAITED:
            return None
        return self.ports.get(vif_id)

    def local(self, network: str) -> list[Vif]:
        """The VIFs of a network that this host has rows of."""
        self._read((Input.VIFS, network, ""))
        found = self._inputs.indexes.get(network, NOTHING).vifs
        for vif in found if self._reads is not None else ():
            self._read((Input.VIF, vif, network))
        return list(found.values())

    def here(self, network: str) -> list[tuple[int, Vif]]:
        """The VIFs of a network that frames may be delivered to here, by ofport."""
        return self.deliverable(self.local(network))

    def trunks(self, uplink: str) -> list[tuple[int, Vif]]:
        """The trunk VIFs on an uplink's untagged networks that frames may be delivered to here, by ofport."""
        return self.deliverable(
            vif for network in self.uplink_networks(uplink) if network.tag == 0 for vif in self._trunks_of(network.name)
        )

    def _trunks_of(self, network: str) -> Iterator[Vif]:
        self._read((Input.TRUNKS, network, ""))
        for id in self._inputs.indexes.get(network, NOTHING).trunks:
            if (vif := self.vif(id, network)) is not None:
                yield vif

    def deliverable(self, vifs: Iterable[Vif]) -> list[tuple[int, Vif]]:
        usable = [
            (ofport, vif)
            for vif in vifs
            if self.role(vif) in (VifRole.ACTIVE, VifRole.INCOMING) and (ofport := self.ofport(vif)) is not None
        ]
        return sorted(usable, key=lambda found: (found[0], found[1].id))

    # Security groups

    def group(self, name: str, network: str) -> SecurityGroup | None:
        """A group that VIFs of a network here are in; None where there are none, or it is not known."""
        self._read((Input.GROUP, name, network))
        return self._inputs.groups.get(name) if name in self._inputs.indexes.get(network, NOTHING).groups else None

    def obeyed(self, vif: Vif) -> tuple[str, ...]:
        """The groups that judge a VIF, by its row: those of its VM, its network and the pool as well as its own."""
        found = self.vif(vif.id, vif.network)
        return found.groups if found is not None else vif.groups

    def has_tiers(self, vif: Vif) -> bool:
        """Whether groups of a tier above the VIF's judge it."""
        groups = (self.group(name, vif.network) for name in vif.groups)
        return any(group is not None and group.tier is not Tier.VIF for group in groups)

    def peer_bits(self, network: str) -> Mapping[str, int]:
        """The groups that rules for VIFs here name as the other side, each with its bit in REG_PEER."""
        self._read((Input.PEER_BITS, network, ""))
        return self._inputs.indexes.get(network, NOTHING).peer_bits

    def named_sets(self, network: str) -> list[str]:
        """The address sets that rules for VIFs here name, by name."""
        return [name for name in self.peer_bits(network) if self.is_known_set(name)]

    def is_known_set(self, name: str) -> bool:
        """Whether there is an address set of that name, or rules name a network so: its ranges come with their group."""
        self._read((Input.SET_NAME, name, ""))
        return name in self._inputs.address_sets or name in self._inputs.network_ranges

    def addresses_of(self, name: str) -> tuple[str, ...]:
        """The ranges of an address set, or of a network that rules name."""
        self._read((Input.ADDRESS_SET, name, ""))
        found = self._inputs.address_sets.get(name)
        return found.addresses if found is not None else self._inputs.network_ranges.get(name, ())

    def peer(self, network: str, vif: str) -> tuple[Binding, int] | None:
        """Where a VIF is or is going, and its groups and labels that rules here name as bits of REG_PEER; None without any."""
        self._read((Input.PEER, vif, network))
        index, known = self._inputs.indexes.get(network, NOTHING), self.network(network)
        where = Location.of(index.bindings.get(vif, ()))
        found = where.current or where.incoming
        if found is None or known is None:
            return None
        named = as_remotes(found, known.labels) if index.names_labels else found.groups
        bits = sum(1 << index.peer_bits[name] for name in named if name in index.peer_bits)
        return (found, bits) if bits else None

    def judgeable(self, vif: Vif) -> bool:
        """Whether all that decides about a VIF's packets is known; else it must stay silent."""
        bits = self.peer_bits(vif.network)
        groups = [self.group(name, vif.network) for name in self.obeyed(vif)]
        return all(
            group is not None and bits.keys() >= group.named() and all(map(self.is_known_set, group.address_sets))
            for group in groups
        )

    # Isolation

    def roles(self, network: str) -> Mapping[str, int]:
        """The numbers of isolation on a network, from 0 for promiscuous; none where no VIF here is kept apart from others."""
        self._read((Input.ROLES, network, ""))
        return self._inputs.indexes.get(network, NOTHING).roles

    def role_number(self, network: str, isolation: str | None) -> int:
        """The number of what a VIF of a network states of its isolation."""
        roles = self.roles(network)
        if not roles:
            return 0
        known = self.network(network)
        return roles.get(
            isolation_of(isolation, known.isolation if known is not None else None), roles.get(ISOLATED, 0)
        )

    # The stages that are for a VIF

    def enter(self, path: Path, vif: Vif) -> Table:
        """The first stage of a path that is for a VIF."""
        return enter(path, vif, self._passing(vif))

    def onward(self, table: Table, vif: Vif) -> Table:
        """The stage after `table` on a VIF's path."""
        return onward(table, vif, self._passing(vif))

    def _passing(self, vif: Vif) -> Passing:
        apart = self.role_number(vif.network, vif.isolation) != 0
        if not self.has_mirrors(vif.network):
            return Passing(self.limited(vif), apart, self.is_heard(vif))
        mirrors = self.mirrors_of(vif.network, vif.id)
        before = [mirror.policy is MirrorPoint.BEFORE for mirror in mirrors]
        return Passing(
            self.limited(vif),
            apart,
            self.is_heard(vif),
            copied_sent=any(early and it.copies_sent for early, it in zip(before, mirrors, strict=True)),
            copied_passed=any(not early and it.copies_sent for early, it in zip(before, mirrors, strict=True))
            or bool(self.mirrors_to(vif.network)),
            copied_got=any(not early and it.copies_got for early, it in zip(before, mirrors, strict=True)),
        )

    # Mirrors

    def mirror(self, name: str) -> FrameMirror | None:
        """A mirror; None where there is none of that name."""
        self._read((Input.MIRROR, name, ""))
        return self._inputs.mirrors.get(name)

    def all_mirrors(self) -> list[FrameMirror]:
        """All mirrors of the pool, by name."""
        self._read((Input.MIRROR_NAMES, "", ""))
        return [found for name in sorted(self._inputs.mirrors) if (found := self.mirror(name)) is not None]

    def mirrors_of(self, network: str, vif: str) -> list[FrameMirror]:
        """The mirrors that a VIF is a source of, by name."""
        self._read((Input.MIRRORED, vif, network))
        names = self._inputs.indexes.get(network, NOTHING).mirrored.get(vif, ())
        return [found for name in names if (found := self.mirror(name)) is not None]

    def copies_got(self, network: str, vif: str) -> int:
        """How many mirrors copy what a VIF gets, after its policy."""
        mirrors = self.mirrors_of(network, vif)
        return sum(it.policy is MirrorPoint.AFTER and it.copies_got for it in mirrors)

    def has_mirrors(self, network: str) -> bool:
        """Whether frames on a network may be copied: there are sources of mirrors on it, or on the one whose trunks may carry its tag."""
        self._read((Input.NETWORK_MIRRORS, network, ""))
        if self._inputs.indexes.get(network, NOTHING).mirror_hosts:
            return True
        known = self._inputs.local_networks.get(network)
        return known is not None and bool(known.tag) and any(map(self.mirror_hosts, self._trunk_networks(network)))

    def _trunk_networks(self, network: str) -> list[str]:
        """The networks whose trunks may carry the tag of a network."""
        known = self.network(network)
        if known is None or known.uplink is None or known.service or not known.tag:
            return []
        return [each.name for each in self.uplink_networks(known.uplink) if each.tag == 0]

    def mirrors_to(self, network: str) -> list[FrameMirror]:
        """The mirrors that copy what enters for VIFs of a network, trunks that may carry its tag among them, by name."""
        if not self.has_mirrors(network):
            return []
        found = {name for each in (network, *self._trunk_networks(network)) for name in self.mirror_hosts(each)}
        mirrors = [mirror for name in sorted(found) if (mirror := self.mirror(name)) is not None]
        return [mirror for mirror in mirrors if mirror.policy is MirrorPoint.BEFORE and mirror.copies_got]

    def mirror_hosts(self, network: str) -> Mapping[str, Collection[str]]:
        """The mirrors with sources on a network, each with the hosts of those."""
        self._read((Input.NETWORK_MIRRORS, network, ""))
        return {name: hosts.keys() for name, hosts in self._inputs.indexes.get(network, NOTHING).mirror_hosts.items()}

    def target_network(self, mirror: FrameMirror) -> str | None:
        """The network of the VIF that gets a mirror's copies; None while its row is not known."""
        self._read((Input.MIRROR, mirror.name, ""))
        found = self._inputs.vifs.get(mirror.target) if mirror.target is not None else None
        return found.network if found is not None else None

    # Flow collectors

    def sampling(self, vif: Vif) -> Sampling | None:
        """How collectors of single VIFs are told of a VIF, None if none is of it."""
        self._read((Input.SAMPLING, "", ""))
        if not self._inputs.sampling:
            return None
        found, network = self.vif(vif.id, vif.network), self.network(vif.network)
        of_network = network.labels if network is not None else ()
        return sampling_of(self.me, found, of_network, self._inputs.sampling) if found is not None else None

    def samplings(self) -> dict[int, Sampling]:
        """The same of all VIFs with a port here, or a number reserved for one, by ofport."""
        inputs = self._all()
        rows = (
            (ofport, inputs.vifs.get(vif)) for vif, ofport in (sorted(inputs.ports.items()) if inputs.sampling else ())
        )
        return {ofport: found for ofport, row in rows if row is not None and (found := self.sampling(row)) is not None}

    def device(self, name: str) -> int | None:
        """The ofport of a tunnel or patch port."""
        self._read((Input.DEVICE, name, ""))
        return self._inputs.devices.get(name)

    # QoS classes

    def qos(self, name: str) -> QosClass | None:
        """A QoS class; None where it is not known."""
        self._read((Input.QOS, name, ""))
        return self._inputs.qos.get(name)

    def qos_of(self, vif: Vif) -> QosClass | None:
        """The QoS class of a VIF, its own or the one that its network gives each of its VIFs; None without one."""
        network = self.network(vif.network)
        name = vif.qos or (network.vif_qos if network is not None else None)
        return self.qos(name) if name is not None else None

    def limited(self, vif: Vif) -> bool:
        """Whether a QoS class limits what a VIF sends or is sent: its own, or that of a network that it is on."""
        network = self.network(vif.network)
        if network is None:
            return False
        if network.qos is not None or network.vif_qos is not None or vif.qos is not None:
            return True
        if vif.trunk is None or network.uplink is None:
            return False
        return any(carried.qos is not None for carried in self.uplink_networks(network.uplink))

    # Captures and probes

    def capture(self, capture: str) -> CaptureTap | None:
        self._read((Input.CAPTURE, capture, ""))
        return self._inputs.captures.get(capture)

    def probe_frames(self, probe: str) -> tuple[bytes, ...]:
        self._read((Input.PROBE, probe, ""))
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
    def qos_classes(self) -> Mapping[str, QosClass]:
        return self._all().qos

    @property
    def ports(self) -> Mapping[str, int]:
        """VIF id to ofport."""
        return self._all().ports

    @property
    def devices(self) -> Mapping[str, int]:
        """Tunnel or patch port to ofport."""
        return self._all().devices

    def encapsulation(self, network: Network) -> Encapsulation | None:
        """What carries a network's frames from this host through tunnels."""
        return self._all().encapsulation(network)

    @property
    def wireguard(self) -> str:
        """The MAC of this host's bridge before WireGuard, "" where there is none to be."""
        return self._all().wireguard

    @property
    def plug_bridges(self) -> Collection[str]:
        """The bridges that this host makes, for toolstacks to plug VIFs into."""
        found = self._all().plug_bridges.values()
        return {bridge.name for bridge in found if bridge.on(self.me) and not bridge.taken_over}

    @property
    def taken_bridges(self) -> Mapping[str, str]:
        """The toolstacks' own bridges that are taken over here, each with its network."""
        found = self._all().plug_bridges.values()
        return {bridge.name: bridge.network for bridge in found if bridge.on(self.me) and bridge.taken_over}

    @property
    def mirrors(self) -> Mapping[str, FrameMirror]:
        return self._all().mirrors

    @property
    def flow_collectors(self) -> Mapping[str, FlowCollector]:
        return self._all().flow_collectors

    @property
    def probes(self) -> Mapping[str, tuple[bytes, ...]]:
        return self._all().probes

    def bindings(self, network: str) -> Iterator[Binding]:
        """Every binding of a network that counts, on any host."""
        for of_vif in self._all().index(network).bindings.values():
            yield from of_vif

    def unsettled(self, network: str) -> list[Vif]:
        """The VIFs of a network that this host has rows of, and that are moving or have just moved, anywhere, by id."""
        index = self._all().index(network)
        return [index.vifs[vif] for vif in sorted(index.unsettled & index.vifs.keys())]

    def gone(self) -> set[tuple[str, str, frozenset[int]]]:
        """Uplink, MACs and tags of each VIF of a VLAN network that has left this host and of which it still has a binding."""
        return {
            (network.uplink, mac, carried_tags(network, vif))
            for network in self.networks.values()
            if network.uplink is not None
            for vif in self.unsettled(network.name)
            if any(old.host == self.me for old in self.location(network.name, vif.id).superseded)
            for mac in macs_of(vif)
        }


@cache  # it takes 250 kB, and few hosts have such a trunk
def all_tags() -> frozenset[int]:
    """The VLAN IDs of a trunk that names none, 0 for untagged frames; 0xfff is reserved, 802.1Q-2018 table 9-2."""
    return frozenset(range(TAG_MASK))


def carried_tags(network: Network, vif: Vif) -> frozenset[int]:
    """The VLAN IDs that the frames of a VIF of a VLAN network have on the wire, 0 where they are untagged."""
    if vif.trunk is None:
        return frozenset((network.tag or 0,))
    return frozenset((0, *vif.trunk.tags)) if vif.trunk.tags else all_tags()
