"""The inputs of compile: one host's part of the pool and the ofports of its switch, as rows with their indexes.

One rule: `HostInputs` alone changes them, and notes each input that differs since the compiler last asked. A change that makes no
difference to any flow notes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple, TypeVar

from vnet.compile.pipeline import SERVICE_SEGMENT, TAG_BITS, VLAN_SEGMENT
from vnet.grammar.packet_filter import FilterRule
from vnet.objects import (
    AddressSet,
    Binding,
    FlowCollector,
    FrameMirror,
    Host,
    Location,
    Network,
    PlugBridge,
    Pool,
    PoolState,
    QosClass,
    SecurityGroup,
    Vif,
    Way,
)
from vnet.objects.binding import NOWHERE, Asked, asked_of, followed
from vnet.objects.carriers import Encapsulation
from vnet.objects.devices import patch_device
from vnet.objects.encryption import PLANES, inner_address
from vnet.objects.isolation import ISOLATED, PROMISCUOUS, isolation_of
from vnet.objects.labels import LABEL, Labels, labels_of
from vnet.objects.limits import MAX_REMOTE_GROUPS
from vnet.objects.multicast import MAX_GROUPS_OF_NETWORK, listening_of
from vnet.objects.tiers import Tier, applied, obeyed


class Input(IntEnum):
    """The inputs of compile. Each has a value for each key; a key is a name and, where two objects make it, a network."""

    HOST = 0  # this host itself: one value, without a name
    UPLINK = 1  # of an uplink of this host: LocalUplink
    NETWORK = 2  # of a network: LocalNetwork
    VIF = 3  # of a VIF on a network: its row here, and its ofport
    BINDINGS = 4  # of a VIF on a network: its bindings
    PEER = 5  # of a VIF on a network: the bits of the groups it is in
    GROUP = 6  # of a group on a network: the group as VIFs here obey it
    PROBE = 7  # of a probe: its marked frames
    ADDRESS = 8  # of a host: its tunnel endpoint
    UPLINK_NETWORKS = 9  # of an uplink: its networks, with their tags
    VIFS = 10  # of a network: the VIFs this host has rows of
    TRUNKS = 11  # of a network: those of them that are trunks
    MEMBERS = 12  # of a network: the hosts with bindings, and those with unlocked VIFs
    PEER_BITS = 13  # of a network: the groups that rules for VIFs here name, each with its bit
    QOS = 14  # of a QoS class: its limits
    ROLES = 15  # of a network: the numbers of isolation, where VIFs here are kept apart from others
    INNER = 16  # of a host: its address inside WireGuard
    ROUTERS = 17  # of a network: its virtual routers, with the hosts of the VIFs that may be their masters
    BEHIND = 18  # of a MAC on a network: the VIFs that it is behind
    ADDRESS_SET = 19  # of an address set: its ranges
    SET_NAME = 20  # of an address set: whether it is known
    LISTENERS = 21  # of a multicast group on a network: the hosts of the VIFs that listen to it, and those VIFs here
    GETS_ALL = 22  # of a VIF on a network: whether it gets every multicast group
    ALL_GROUPS = 23  # of a network: the hosts of VIFs that get every multicast group
    MULTICAST_ROUTERS = 24  # of a network: the VIFs that are multicast routers
    CROWDED = 25  # of a network: whether it has too many multicast groups
    CAPTURE = 26  # of a capture: the VIFs that it taps
    MIRROR = 27  # of a mirror: its row
    MIRRORED = 28  # of a VIF on a network: the mirrors that it is a source of
    NETWORK_MIRRORS = 29  # of a network: the mirrors with sources on it, each with the hosts of those
    MIRROR_NAMES = 30  # of all: the mirrors that there are
    DEVICE = 31  # of a tunnel or patch port: its ofport
    SAMPLING = 32  # of all: the flow collectors of single VIFs
    EVERYTHING = 33  # all of it: what reads this is compiled again at any change


CAPTURES = 4  # at once on a host

K = TypeVar("K")
InputKey = tuple[Input, str, str]
THIS_HOST: InputKey = (Input.HOST, "", "")
EVERYTHING: InputKey = (Input.EVERYTHING, "", "")


class LocalUplink(NamedTuple):
    """An uplink of this host: the segment of its untagged VLAN, and the ofport of the patch to its bridge."""

    base: int
    patch: int | None


@dataclass(frozen=True, slots=True)
class CaptureTap:
    """What a host copies for a capture. slot: its number here, 0..CAPTURES-1. vifs: ids, each with its network. snap: bytes of each frame.

    rate: frames a second of all VIFs together. rules: of its filter, the first that holds decides; none for all frames. flowing: whether it copies still, else it
    only counts what has been.
    """

    slot: int
    vifs: tuple[tuple[str, str], ...]
    snap: int
    rate: int
    rules: tuple[FilterRule, ...] = ()
    flowing: bool = True


@dataclass(frozen=True, slots=True)
class LocalNetwork:
    """A network as this host carries it. segment: None where the host lacks its uplink.

    tunnel: the ofport of the tunnel to other hosts, on a network with an uplink that of the relay. patch: the ofport towards the
    physical network.
    """

    name: str
    way: Way
    key: int | None
    tag: int | None
    uplink: str | None
    segment: int | None
    tunnel: int | None
    patch: int | None
    number: int
    qos: str | None
    vif_qos: str | None
    isolation: str | None
    encrypted: bool
    service: bool
    snooping: bool
    labels: Labels


@dataclass(slots=True)
class NetworkIndex:
    """What is known of a network's VIFs. bindings: those that count of each VIF that has any, in order of their hosts."""

    bindings: dict[str, tuple[Binding, ...]] = field(default_factory=dict)
    unfollowed: dict[str, tuple[Binding, ...]] = field(default_factory=dict)  # those that do not count
    members: Counter[str] = field(default_factory=Counter)  # bindings by host
    unlocked: Counter[str] = field(default_factory=Counter)  # bindings of unlocked VIFs by host
    routers: dict[int, Counter[str]] = field(default_factory=dict)  # bindings by virtual router and host
    unsettled: set[str] = field(default_factory=set)  # VIFs that move, or have just moved
    vifs: dict[str, Vif] = field(default_factory=dict)  # those this host has rows of
    trunks: set[str] = field(default_factory=set)
    groups: Counter[str] = field(default_factory=Counter)  # how many VIFs here are in each
    peer_bits: dict[str, int] = field(default_factory=dict)
    names_labels: bool = False  # whether rules for VIFs here name labels
    behind: dict[str, set[str]] = field(default_factory=dict)  # by MAC: the VIFs that it is behind
    # Of multicast: hosts by group, the VIFs of this host by group, VIFs that get every group by host, and VIFs that are routers.
    listeners: dict[str, Counter[str]] = field(default_factory=dict)
    listening_here: dict[str, set[str]] = field(default_factory=dict)
    all_groups: Counter[str] = field(default_factory=Counter)
    multicast_routers: set[str] = field(default_factory=set)
    isolation: Counter[str | None] = field(default_factory=Counter)  # VIFs here by what they state of it
    roles: dict[str, int] = field(default_factory=dict)
    mirrored: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by VIF: the mirrors that it is a source of
    mirror_hosts: dict[str, Counter[str]] = field(default_factory=dict)  # by mirror: bindings of its sources by host

    def all_bindings(self, vif: str) -> tuple[Binding, ...]:
        """The bindings of a VIF, also those that do not count."""
        return (*self.bindings.get(vif, ()), *self.unfollowed.get(vif, ()))

    def count(self, binding: Binding, step: int) -> None:
        """Adds a binding to its host's counts, or takes it off."""
        _count(self.members, binding.host, step)
        if binding.unlocked:
            _count(self.unlocked, binding.host, step)
        for router in binding.vrrp:
            hosts = self.routers.setdefault(router, Counter())
            _count(hosts, binding.host, step)
            if not hosts:
                del self.routers[router]

    @property
    def crowded(self) -> bool:
        """Whether VIFs listen to more groups than are told apart."""
        return len(self.listeners) > MAX_GROUPS_OF_NETWORK

    def has(self, host: str) -> tuple[bool, bool]:
        """Whether a host has members, and unlocked ones."""
        return host in self.members, host in self.unlocked

    def routers_of(self, host: str) -> set[int]:
        """The virtual routers that VIFs of a host may be masters of."""
        return {router for router, hosts in self.routers.items() if host in hosts}


NOTHING = NetworkIndex()


def inner_addresses(state: PoolState) -> dict[str, str]:
    """The addresses inside WireGuard of all hosts that may have tunnels, each with keys that all others know."""
    id = state.pool.id if state.pool is not None else ""
    return {host.name: inner_address(id, host.name, PLANES[0]) for host in state.hosts.values() if host.address}


def _count(counts: Counter[K], key: K, step: int) -> None:
    counts[key] += step
    if not counts[key]:
        del counts[key]


class StateIndex:
    """A whole pool by what the inputs of one host are taken from: made once for many hosts."""

    def __init__(self, state: PoolState) -> None:
        self.bindings: dict[str, list[Binding]] = defaultdict(list)  # by network
        self.wanted: dict[str, set[str]] = defaultdict(set)  # host to the networks of the VIFs that are to be there
        self.asked: dict[str, Asked] = {}  # as in HostInputs
        for binding in state.bindings.values():
            self.bindings[binding.network].append(binding)
        for vif in state.vifs.values():
            asked = asked_of(vif)
            if asked.hosts:
                self.asked[vif.id] = asked
            for host in asked.hosts:
                self.wanted[host].add(vif.network)


class HostInputs:
    """One host's inputs. `revision` counts changes, also those that make no difference to flows. kernel: its datapath is the kernel's."""

    def __init__(self, me: str, *, kernel: bool = False) -> None:
        self.me = me
        self.kernel = kernel
        self.revision = 0
        self.pool: Pool | None = None
        self.hosts: dict[str, Host] = {}
        self.networks: dict[str, Network] = {}
        self.vifs: dict[str, Vif] = {}
        self.groups: dict[str, SecurityGroup] = {}
        self._applied: dict[str, SecurityGroup] = {}  # those of them that apply to VIFs that do not name them
        self.qos: dict[str, QosClass] = {}
        self.address_sets: dict[str, AddressSet] = {}
        self.network_ranges: dict[
            str, tuple[str, ...]
        ] = {}  # of networks that rules of groups here name, as those name them
        self.plug_bridges: dict[str, PlugBridge] = {}
        self.flow_collectors: dict[str, FlowCollector] = {}
        self.sampling: tuple[FlowCollector, ...] = ()  # those of single VIFs, by name
        self.mirrors: dict[str, FrameMirror] = {}
        self.asked: dict[str, Asked] = {}  # by VIF id, wherever it is
        self.ports: dict[str, int] = {}  # VIF id to ofport
        self.devices: dict[str, int] = {}  # tunnel or patch port to ofport
        self.inner: dict[str, str] = {}  # a host to its address inside WireGuard; this one too, if it can encrypt
        self.wireguard = ""  # the MAC of this host's bridge before WireGuard, "" where there is none to be
        self.captures: dict[str, CaptureTap] = {}
        self.probes: dict[str, tuple[bytes, ...]] = {}  # a probe's id to the marked frames to watch for
        self.local_networks: dict[str, LocalNetwork] = {}
        self.local_uplinks: dict[str, LocalUplink] = {}
        self.on_uplink: dict[str, set[str]] = {}
        # Uplink and number to networks, where flows know no type of a tag.
        self.service_tags: dict[tuple[str, int], set[str]] = {}
        self.indexes: dict[str, NetworkIndex] = {}
        self._changed: dict[InputKey, None] = {THIS_HOST: None}

    @classmethod
    def of(
        cls,
        state: PoolState,
        me: str,
        ports: dict[str, int],
        devices: dict[str, int],
        index: StateIndex | None = None,
    ) -> HostInputs:
        """The inputs that a host would have of a whole pool: what `plan`, the simulator and the tests compile from."""
        inputs, index = cls(me), index or StateIndex(state)
        inputs.pool = state.pool
        inputs.asked = dict(index.asked)
        inputs.hosts = dict(state.hosts)
        inputs.qos = dict(state.qos)
        inputs.address_sets = dict(state.address_sets)
        inputs.plug_bridges = dict(state.plug_bridges)
        for collector in state.flow_collectors.values():
            inputs.set_flow_collector(collector)
        targets = [it.target for it in state.mirrors.values() if it.target is not None and it.target in state.vifs]
        for mirror in state.mirrors.values():
            inputs.set_mirror(mirror)
        inputs.devices = dict(devices)
        inputs.refresh_uplinks()
        for wide in state.groups.values():
            if wide.tier is not Tier.VIF:
                inputs.set_group(wide)
        here = index.wanted[me] | {state.vifs[vif].network for vif in (*ports, *targets) if vif in state.vifs}
        for name in sorted(here):
            network = state.networks.get(name)
            if network is not None and network.on(me):
                inputs.set_network(network)
                if network.encryption is not None and not inputs.inner:
                    inputs.inner = inner_addresses(state)
                for binding in index.bindings[name]:
                    inputs.set_binding(binding)
        for vif, ofport in ports.items():
            if vif in state.vifs:
                for group in state.vifs[vif].groups:
                    if group in state.groups and group not in inputs.groups:
                        inputs.set_group(state.groups[group])
                inputs.set_vif(state.vifs[vif])
                inputs.set_port(vif, ofport)
        for vif in targets:
            inputs.set_vif(state.vifs[vif])
        return inputs

    def take_changed(self) -> dict[InputKey, None]:
        """The inputs that differ since this was last called."""
        changed, self._changed = self._changed, {}
        return changed

    def objects(self, of: Input) -> Iterator[tuple[str, str]]:
        """The keys, as name and network, of all objects that have an input."""
        match of:
            case Input.HOST:
                yield "", ""
            case Input.UPLINK:
                yield from ((name, "") for name in self.local_uplinks)
            case Input.NETWORK:
                yield from ((name, "") for name in self.networks)
            case Input.PROBE:
                yield from ((probe, "") for probe in self.probes)
            case Input.CAPTURE:
                yield from ((capture, "") for capture in self.captures)
            case Input.DEVICE:
                yield from ((name, "") for name in self.devices)
            case Input.MIRROR:
                yield from ((name, "") for name in self.mirrors)
            case (
                Input.MIRRORED | Input.VIF | Input.BINDINGS | Input.PEER | Input.GROUP | Input.BEHIND | Input.LISTENERS
            ):
                yield from ((name, network) for network in self.indexes for name in self.objects_on(of, network))
            case _:
                raise ValueError(f"no source is of {of.name}")

    def objects_on(self, of: Input, network: str) -> Collection[str]:
        """The names of the objects on a network that have an input."""
        index = self.index(network)
        match of:
            case Input.VIF:
                return index.vifs
            case Input.BINDINGS:
                return index.bindings
            case Input.MIRRORED:
                return index.mirrored
            case Input.PEER:
                return index.bindings if index.peer_bits else ()
            case Input.GROUP:
                return index.groups
            case Input.BEHIND:
                return index.behind
            case Input.LISTENERS:
                return index.listeners
            case _:
                return ()

    def _forget_empty(self, network: str, index: NetworkIndex) -> None:
        if not index.bindings and not index.unfollowed and not index.vifs:
            self.indexes.pop(network, None)

    def index(self, network: str) -> NetworkIndex:
        """What is known of a network's VIFs, to read."""
        return self.indexes.get(network, NOTHING)

    def _index(self, network: str) -> NetworkIndex:
        found = self.indexes.get(network)
        if found is None:
            found = self.indexes[network] = NetworkIndex()
        return found

    def _note(self, changed: Input, name: str, network: str = "") -> None:
        self._changed[changed, name, network] = None

    def set_pool(self, pool: Pool | None) -> None:
        """The pool's own settings decide nothing in the flows."""
        self.revision += 1
        self.pool = pool

    def set_inner(self, host: str, address: str | None) -> None:
        """The address inside WireGuard at which a host is reached; None if it is not. Of this host: whether it can encrypt."""
        if self.inner.get(host) == address:
            return
        self.revision += 1
        if address is None:
            del self.inner[host]
        else:
            self.inner[host] = address
        self._note(Input.INNER, host)

    def set_wireguard(self, mac: str) -> None:
        """The MAC that this host's bridge before WireGuard has, "" where there is none to be."""
        self.revision += 1
        self.wireguard = mac

    # Hosts, and the uplinks of this one

    def set_host(self, host: Host) -> None:
        old = self.hosts.get(host.name)
        self.hosts[host.name] = host
        self._host_changed(host.name, old, host)

    def drop_host(self, name: str) -> None:
        self._host_changed(name, self.hosts.pop(name, None), None)

    def _host_changed(self, name: str, old: Host | None, new: Host | None) -> None:
        self.revision += 1
        if (old.address if old else None) != (new.address if new else None):
            self._note(Input.ADDRESS, name)
        if name == self.me:
            self.refresh_uplinks()
            for network in self.networks:
                self._refresh_network(network)

    def refresh_uplinks(self) -> None:
        """Segments of VLANs follow from the place of their uplink among the host's."""
        host, old = self.hosts.get(self.me), self.local_uplinks
        self.local_uplinks = {
            name: LocalUplink(VLAN_SEGMENT | place << TAG_BITS, self.devices.get(patch_device(name)))
            for place, name in enumerate(sorted(uplink.name for uplink in host.uplinks) if host else ())
        }
        for name in sorted(old.keys() | self.local_uplinks.keys()):
            if old.get(name) != self.local_uplinks.get(name):
                self._note(Input.UPLINK, name)
                for network in sorted(self.on_uplink.get(name, ())):
                    self._refresh_network(network)

    def set_device(self, name: str, ofport: int | None) -> None:
        """A tunnel or patch port has this ofport, or with None is gone."""
        self.revision += 1
        if self.devices.get(name) == ofport:
            return
        if ofport is None:
            del self.devices[name]
        else:
            self.devices[name] = ofport
        self._note(Input.DEVICE, name)
        self.refresh_uplinks()
        for network in self.networks.values():
            if (encapsulation := self.encapsulation(network)) is not None and encapsulation.device == name:
                self._refresh_network(network.name)

    # Networks

    def encapsulation(self, network: Network) -> Encapsulation | None:
        """What carries a network's frames from this host through tunnels."""
        found = network.carrier.encapsulation
        if not self.kernel or found is None or found.kernel_ipv6 is None:
            return found
        me = self.hosts.get(self.me)
        plain = network.encryption is None and (me is None or me.address is None or ":" not in me.address)
        return found if plain else found.kernel_ipv6

    def taken_by(self, network: Network) -> str:
        """The network whose service tag takes the number of this one's tag on its uplink, "" for none."""
        if network.is_service or not self.service_tags:
            return ""
        return min(self.service_tags.get((network.uplink or "", network.tag or 0), ()), default="")

    def _service_tag_changed(self, old: Network | None, new: Network | None) -> None:
        """A service tag's number is its own on the uplink, or is free again."""
        for network, note in ((old, set.discard), (new, set.add)):
            if network is not None and network.is_service and network.uplink and network.tag:
                numbered = self.service_tags.setdefault((network.uplink, network.tag), set())
                note(numbered, network.name)
                if not numbered:
                    del self.service_tags[network.uplink, network.tag]
                for other in sorted(self.on_uplink[network.uplink]):
                    self._refresh_network(other)

    def set_network(self, network: Network) -> None:
        old = self.networks.get(network.name)
        self.networks[network.name] = network
        self._network_changed(network.name, old, network)

    def drop_network(self, name: str) -> None:
        self._network_changed(name, self.networks.pop(name, None), None)

    def _network_changed(self, name: str, old: Network | None, new: Network | None) -> None:
        self.revision += 1
        before = (old.uplink, old.tag, old.tpid) if old else (None, None, None)
        after = (new.uplink, new.tag, new.tpid) if new else (None, None, None)
        if before != after:
            if before[0] is not None:
                self.on_uplink[before[0]].discard(name)
                self._note(Input.UPLINK_NETWORKS, before[0])
            if after[0] is not None:
                self.on_uplink.setdefault(after[0], set()).add(name)
                self._note(Input.UPLINK_NETWORKS, after[0])
            if self.kernel:
                self._service_tag_changed(old, new)
        self._refresh_network(name)
        if (old and old.hosts) != (new and new.hosts) and (index := self.indexes.get(name)) is not None:
            for vif in sorted(index.bindings.keys() | index.unfollowed.keys()):
                self._follow(name, index, vif, index.all_bindings(vif))
        if (old and (old.groups, old.labels, old.is_service)) != (new and (new.groups, new.labels, new.is_service)):
            self._rejudge(name)
        if (old and old.labels) != (new and new.labels):
            self._mirror_again(name)

    def _refresh_network(self, name: str) -> None:
        row, old = self.networks.get(name), self.local_networks.get(name)
        if row is None:
            if old is not None:
                del self.local_networks[name]
                self._note(Input.NETWORK, name)
            return
        encapsulation, uplink = self.encapsulation(row), self.local_uplinks.get(row.uplink or "")
        tunnel = self.devices.get(encapsulation.device) if encapsulation is not None else None
        if row.uplink is None:
            segment: int | None = row.number
        else:
            service = SERVICE_SEGMENT if row.is_service else 0
            segment = uplink.base | service | (row.tag or 0) if uplink is not None else None
        patch = uplink.patch if uplink is not None and not self.taken_by(row) else None
        new = LocalNetwork(
            name,
            row.carrier.way,
            row.key,
            row.tag,
            row.uplink,
            segment,
            tunnel,
            patch,
            row.number,
            row.qos,
            row.vif_qos,
            row.isolation,
            row.encryption is not None,
            row.is_service,
            row.multicast_snooping,
            row.labels,
        )
        if new != old:
            self.local_networks[name] = new
            self._note(Input.NETWORK, name)
            if name in self.indexes:
                self._refresh_roles(name, self.indexes[name])

    # Bindings

    def set_binding(self, binding: Binding) -> None:
        self.revision += 1
        index = self._index(binding.network)
        old = index.all_bindings(binding.vif)
        alone = not old or (len(old) == 1 and old[0].host == binding.host)  # as nearly all are
        counts = self._asked_for(binding.vif).allows(binding.host) and self._is_on(binding.network, binding.host)
        if alone and counts and binding.vif not in index.unfollowed:
            self._replace_bindings(index, binding, old, (binding,))
        else:
            others = (other for other in old if other.host != binding.host)
            self._follow(binding.network, index, binding.vif, (*others, binding))

    def drop_binding(self, network: str, vif: str, host: str) -> None:
        self.revision += 1
        index = self.index(network)
        old = index.all_bindings(vif)
        left = tuple(binding for binding in old if binding.host != host)
        if len(left) < len(old):
            self._follow(network, index, vif, left)

    def set_asked(self, vif: str, asked: Asked) -> list[str]:
        """Where a VIF is asked for, by its row. Returns the networks on which other bindings of it count now."""
        if asked == self.asked.get(vif, NOWHERE):
            return []
        self.revision += 1
        if asked.hosts:
            self.asked[vif] = asked
        else:
            del self.asked[vif]
        return self._asked_changed(vif)

    def _asked_changed(self, vif: str) -> list[str]:
        found = [
            (name, index) for name, index in self.indexes.items() if vif in index.bindings or vif in index.unfollowed
        ]
        return [name for name, index in found if self._follow(name, index, vif, index.all_bindings(vif))]

    def _asked_for(self, vif: str) -> Asked:
        asked, row = self.asked.get(vif, NOWHERE), self.vifs.get(vif)
        if row is None:
            return asked
        # It may come before, or after, what is known of all.
        return asked.and_also(asked_of(row))

    def _is_on(self, network: str, host: str) -> bool:
        """Whether a network may be on a host, as far as is known."""
        row = self.networks.get(network)
        return row is None or row.on(host)

    def _follow(self, network: str, index: NetworkIndex, vif: str, found: tuple[Binding, ...]) -> bool:
        """Takes all bindings of a VIF, and follows those that count; whether these are others now. Between two of them there is always one: what goes,
        goes last."""
        found_there = [binding for binding in found if self._is_on(network, binding.host)]
        new = {binding.host: binding for binding in followed(found_there, self._asked_for(vif))}
        before = index.bindings.get(vif, ())
        apart = tuple(binding for binding in found if binding.host not in new)
        if apart != index.unfollowed.get(vif, ()):
            self._note(Input.BINDINGS, vif, network)
        if apart:
            index.unfollowed[vif] = apart
        else:
            index.unfollowed.pop(vif, None)
        old = {binding.host: binding for binding in before}
        for binding in (*new.values(), *(it for it in old.values() if it.host not in new)):
            if new.get(binding.host) != old.get(binding.host):
                now = {host: it for host, it in old.items() if host != binding.host}
                if binding.host in new:
                    now[binding.host] = binding
                self._replace_bindings(index, binding, _by_host(old), _by_host(now))
                old = now
        self._forget_empty(network, index)
        return index.bindings.get(vif, ()) != before

    def _replace_bindings(
        self, index: NetworkIndex, changed: Binding, old: tuple[Binding, ...], new: tuple[Binding, ...]
    ) -> None:
        """Takes a VIF's bindings, which differ in that of one host."""
        network, vif, host = changed.network, changed.vif, changed.host
        if new:
            index.bindings[vif] = new
        else:
            del index.bindings[vif]
        self._mirror_vif(network, index, vif, old)
        self._note_listening(index, changed, old, new)
        if len(old) == len(new) and all(map(_programs_the_same, old, new)):
            return
        had, routers = index.has(host), index.routers_of(host)
        for binding in old:
            if binding.host == host:
                index.count(binding, -1)
        for binding in new:
            if binding.host == host:
                index.count(binding, 1)
        if had != index.has(host):
            self._note(Input.MEMBERS, network)
        if routers != index.routers_of(host):
            self._note(Input.ROUTERS, network)
        if len(new) > 1 or any(binding.state.moving for binding in new):
            index.unsettled.add(vif)
        else:
            index.unsettled.discard(vif)
        self._note(Input.BINDINGS, vif, network)
        self._note_behind(index, changed, old, new)
        if index.peer_bits:
            self._note(Input.PEER, vif, network)
        self._forget_empty(network, index)

    def _note_behind(
        self, index: NetworkIndex, changed: Binding, old: tuple[Binding, ...], new: tuple[Binding, ...]
    ) -> None:
        before, after = ({entry.mac for binding in found for entry in binding.behind} for found in (old, new))
        for mac in sorted(before | after):
            vifs = index.behind.setdefault(mac, set())
            (vifs.add if mac in after else vifs.discard)(changed.vif)
            if not vifs:
                del index.behind[mac]
            self._note(Input.BEHIND, mac, changed.network)

    def _note_listening(
        self, index: NetworkIndex, changed: Binding, old: tuple[Binding, ...], new: tuple[Binding, ...]
    ) -> None:
        """What a VIF listens to is on each of its hosts. Others need to know of it only which hosts those are."""
        network, vif = changed.network, changed.vif
        before, after = listening_of(old), listening_of(new)
        were, are = [binding.host for binding in old], [binding.host for binding in new]
        if before == after and were == are:
            return
        crowded, got_all = index.crowded, before is None or before.gets_all
        gets_all = after is None or after.gets_all
        all_groups = set(index.all_groups)
        for hosts, has_all, step in ((were, got_all, -1), (are, gets_all, 1)):
            for host in hosts if has_all else ():
                _count(index.all_groups, host, step)
        if all_groups != index.all_groups.keys():
            self._note(Input.ALL_GROUPS, network)
        if got_all is not gets_all:
            self._note(Input.GETS_ALL, vif, network)
        was_router, is_router = before is not None and before.router, after is not None and after.router
        if was_router is not is_router:
            (index.multicast_routers.add if is_router else index.multicast_routers.discard)(vif)
            self._note(Input.MULTICAST_ROUTERS, network)
        left, joined = (frozenset(found.groups) if found is not None else frozenset() for found in (before, after))
        for group in sorted(left | joined):
            hosts_of = index.listeners.setdefault(group, Counter())
            known = set(hosts_of)
            for hosts, has, step in ((were, group in left, -1), (are, group in joined, 1)):
                for host in hosts if has else ():
                    _count(hosts_of, host, step)
            is_here = group in joined and self.me in are
            here = index.listening_here.setdefault(group, set())
            if known != hosts_of.keys() or is_here is not (vif in here):
                self._note(Input.LISTENERS, group, network)
            (here.add if is_here else here.discard)(vif)
            if not hosts_of:
                del index.listeners[group], index.listening_here[group]
        if crowded is not index.crowded:
            self._note(Input.CROWDED, network)

    # VIFs here

    def set_vif(self, vif: Vif) -> None:
        old = self.vifs.get(vif.id)
        self._vif_changed(vif.id, old, vif)

    def drop_vif(self, vif: str) -> None:
        if (old := self.vifs.get(vif)) is not None:
            self._vif_changed(vif, old, None)

    def _vif_changed(self, vif: str, old: Vif | None, new: Vif | None) -> None:
        self.revision += 1
        for mirror in self.mirrors.values():
            if mirror.target == vif and (old and old.network) != (new and new.network):
                self._note(Input.MIRROR, mirror.name)
        if new is None:
            del self.vifs[vif]
        else:
            self.vifs[vif] = new
        if (old and (old.host, old.incoming, old.stays)) != (new and (new.host, new.incoming, new.stays)):
            self._asked_changed(vif)
        if old is not None and new is not None and replace(old, epoch=new.epoch, stays=new.stays) == new:
            self._index(new.network).vifs[vif] = self._judged(new)
            return  # its bindings carry what a claim changes, and where it may stay says which of them count
        if old is not None and (new is None or new.network != old.network):
            self._replace_vif(old.network, vif, self.index(old.network).vifs[vif], None)
            old = None
        if new is not None:
            known = self.index(new.network).vifs[vif] if old is not None else None
            self._replace_vif(new.network, vif, known, self._judged(new))

    def _judged(self, vif: Vif) -> Vif:
        """A VIF in all groups that judge it."""
        names = obeyed(vif, self.networks.get(vif.network), self._applied.values())
        return vif if names == vif.groups else replace(vif, groups=names)

    def _rejudge(self, network: str) -> None:
        """Other groups may judge the VIFs of a network."""
        for id, known in list(self.index(network).vifs.items()):
            if (new := self._judged(self.vifs[id])) != known:
                self._replace_vif(network, id, known, new)

    def _replace_vif(self, network: str, vif: str, old: Vif | None, new: Vif | None) -> None:
        index = self._index(network)
        self._note(Input.VIF, vif, network)
        if new is None:
            del index.vifs[vif]
        else:
            index.vifs[vif] = new
        self._mirror_vif(network, index, vif, index.bindings.get(vif, ()))
        if old is None or new is None:
            self._note(Input.VIFS, network)
        was_trunk, is_trunk = vif in index.trunks, new is not None and new.trunk is not None
        if was_trunk is not is_trunk:
            (index.trunks.add if is_trunk else index.trunks.discard)(vif)
            self._note(Input.TRUNKS, network)
        if old is not None:
            _count(index.isolation, old.isolation, -1)
        if new is not None:
            _count(index.isolation, new.isolation, 1)
        self._refresh_roles(network, index)
        before = set(index.groups)
        for group in old.groups if old is not None else ():
            _count(index.groups, group, -1)
        for group in new.groups if new is not None else ():
            _count(index.groups, group, 1)
        if before != index.groups.keys():
            for group in sorted(before ^ index.groups.keys()):
                self._note(Input.GROUP, group, network)
            self._refresh_peer_bits(network, index)
        self._forget_empty(network, index)

    def set_port(self, vif: str, ofport: int | None) -> None:
        """A VIF's port has this ofport, or with None is gone."""
        self.revision += 1
        if self.ports.get(vif) == ofport:
            return
        if ofport is None:
            del self.ports[vif]
        else:
            self.ports[vif] = ofport
        if (row := self.vifs.get(vif)) is not None:
            self._note(Input.VIF, vif, row.network)

    # Security groups

    def set_group(self, group: SecurityGroup) -> None:
        self.groups[group.name] = group
        self._apply(group.name, next(applied([group]), None))
        for name, ranges in group.ranges_of_networks().items():
            if self.network_ranges.get(name) != ranges:
                if name not in self.network_ranges:
                    self._note(Input.SET_NAME, name)
                self.network_ranges[name] = ranges
                self._note(Input.ADDRESS_SET, name)
        self._group_changed(group.name)

    def _apply(self, name: str, new: SecurityGroup | None) -> None:
        old = self._applied.pop(name, None)
        if new is not None:
            self._applied[name] = new
        if (old and (old.tier, old.selector)) != (new and (new.tier, new.selector)):
            for network in list(self.indexes):
                self._rejudge(network)

    def drop_group(self, name: str) -> None:
        self.groups.pop(name, None)
        self._apply(name, None)
        self._group_changed(name)

    def _group_changed(self, name: str) -> None:
        self.revision += 1
        for network, index in self.indexes.items():
            if name in index.groups:
                self._note(Input.GROUP, name, network)
                self._refresh_peer_bits(network, index)

    def _refresh_peer_bits(self, network: str, index: NetworkIndex) -> None:
        named: set[str] = set()
        for group in (self.groups[name] for name in sorted(index.groups) if name in self.groups):
            # A group that names more than there are bits for is not judged; it takes no bits from others.
            if len(named | group.named()) <= MAX_REMOTE_GROUPS:
                named |= group.named()
        bits = {name: bit for bit, name in enumerate(sorted(named))}
        if bits != index.peer_bits:
            index.peer_bits = bits
            index.names_labels = any(name.startswith(LABEL) for name in bits)
            self._note(Input.PEER_BITS, network)
            for vif in index.bindings:
                self._note(Input.PEER, vif, network)

    def _refresh_roles(self, network: str, index: NetworkIndex) -> None:
        """Numbers the isolation of VIFs here. A community that none of them is in is as good as isolated."""
        row = self.networks.get(network)
        stated = {isolation_of(own, row.isolation if row is not None else None) for own in index.isolation}
        communities = sorted(stated - {PROMISCUOUS, ISOLATED})
        apart = bool(stated - {PROMISCUOUS})
        roles = {name: number for number, name in enumerate((PROMISCUOUS, ISOLATED, *communities))} if apart else {}
        if roles != index.roles:
            index.roles = roles
            self._note(Input.ROLES, network)

    # QoS classes

    def set_qos(self, qos: QosClass) -> None:
        self.revision += 1
        self.qos[qos.name] = qos
        self._note(Input.QOS, qos.name)

    def drop_qos(self, name: str) -> None:
        self.revision += 1
        self.qos.pop(name, None)
        self._note(Input.QOS, name)

    # Address sets

    def set_address_set(self, found: AddressSet) -> None:
        self.revision += 1
        if found.name not in self.address_sets:
            self._note(Input.SET_NAME, found.name)
        self.address_sets[found.name] = found
        self._note(Input.ADDRESS_SET, found.name)

    def drop_address_set(self, name: str) -> None:
        self.revision += 1
        self.address_sets.pop(name, None)
        self._note(Input.SET_NAME, name)
        self._note(Input.ADDRESS_SET, name)

    # Plug bridges: rows of the switch follow from them, and no flow

    def set_plug_bridge(self, bridge: PlugBridge) -> None:
        self.revision += 1
        self.plug_bridges[bridge.name] = bridge

    def drop_plug_bridge(self, name: str) -> None:
        self.revision += 1
        self.plug_bridges.pop(name, None)

    # Flow collectors: as with plug bridges

    def set_flow_collector(self, collector: FlowCollector) -> None:
        self.revision += 1
        self.flow_collectors[collector.name] = collector
        self._sample_again()

    def drop_flow_collector(self, name: str) -> None:
        self.revision += 1
        self.flow_collectors.pop(name, None)
        self._sample_again()

    def _sample_again(self) -> None:
        after = tuple(it for _, it in sorted(self.flow_collectors.items()) if it.of)
        if after != self.sampling:
            self.sampling = after
            self._note(Input.SAMPLING, "")

    # Mirrors

    def set_mirror(self, mirror: FrameMirror) -> None:
        self._mirror_changed(mirror.name, mirror)

    def drop_mirror(self, name: str) -> None:
        self._mirror_changed(name, None)

    def _mirror_changed(self, name: str, new: FrameMirror | None) -> None:
        self.revision += 1
        known = name in self.mirrors
        if new is None:
            self.mirrors.pop(name, None)
        else:
            self.mirrors[name] = new
        if known is not (new is not None):
            self._note(Input.MIRROR_NAMES, "")
        self._note(Input.MIRROR, name)
        for network in list(self.indexes):
            self._mirror_again(network)

    def _mirror_again(self, network: str) -> None:
        """Other mirrors may be of the VIFs of a network."""
        index = self.index(network)
        for vif in {*index.bindings, *index.vifs}:
            self._mirror_vif(network, index, vif, index.bindings.get(vif, ()))

    def _mirror_vif(self, network: str, index: NetworkIndex, vif: str, had: tuple[Binding, ...]) -> None:
        """Notes the mirrors of a VIF. Every host takes its groups and labels from where it runs. had: its bindings before."""
        before, bindings = index.mirrored.get(vif, ()), index.bindings.get(vif, ())
        if not self.mirrors and not before:
            return
        where = Location.of(bindings) if bindings else Location()
        of = where.current or where.incoming or self.vifs.get(vif)
        known = self.networks.get(network)
        labels = labels_of(of, known.labels if known is not None else ()) if of is not None else ()
        after = tuple(
            name
            for name in sorted(self.mirrors)
            if of is not None and self.mirrors[name].selects(vif, network, of.groups, labels)
        )
        if after != before:
            self._note(Input.MIRRORED, vif, network)
        if after:
            index.mirrored[vif] = after
        else:
            index.mirrored.pop(vif, None)
        were, are = [it.host for it in had], [it.host for it in bindings]
        if before == after and were == are:
            return
        self._note(Input.NETWORK_MIRRORS, network)
        for names, hosts, step in ((before, were, -1), (after, are, 1)):
            for name in names:
                counted = index.mirror_hosts.setdefault(name, Counter())
                for host in hosts:
                    _count(counted, host, step)
                if not counted:
                    del index.mirror_hosts[name]

    # Captures and probes

    def set_capture(self, capture: str, tap: CaptureTap | None) -> None:
        """Tap the VIFs of a capture; None once it has ended."""
        self.revision += 1
        if tap is not None:
            self.captures[capture] = tap
        else:
            self.captures.pop(capture, None)
        self._note(Input.CAPTURE, capture)

    def set_probe(self, probe: str, frames: Sequence[bytes]) -> None:
        """Watch for these frames, which are marked (probe.py); for none is no more."""
        self.revision += 1
        if frames:
            self.probes[probe] = tuple(frames)
        else:
            self.probes.pop(probe, None)
        self._note(Input.PROBE, probe)


def _by_host(bindings: Mapping[str, Binding]) -> tuple[Binding, ...]:
    return tuple(bindings[host] for host in sorted(bindings))


def _programs_the_same(old: Binding, new: Binding) -> bool:
    """Whether two bindings differ at most in what does not change flows."""
    return old is new or _programmed(old) == _programmed(new)


def _programmed(b: Binding) -> tuple[object, ...]:
    """The fields of a binding that flows depend on."""
    return (
        *(b.host, b.mac, b.epoch, b.state, b.unlocked, b.moved, b.groups, b.addresses, b.dhcp_server, b.isolation),
        *(b.link_locals, b.also, b.vrrp, b.behind, b.labels, b.vm_labels),
    )
