"""The inputs of compile: one host's part of the pool and the ofports of its switch, as rows with their indexes.

One rule: `HostInputs` alone changes them, and notes each input that differs since the compiler last asked. A change that makes no
difference to any flow notes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple

from vnet.compile.pipeline import TAG_BITS, VLAN_SEGMENT
from vnet.objects import Binding, Host, Network, Pool, PoolState, QosClass, SecurityGroup, Vif, Way
from vnet.objects.devices import patch_device
from vnet.objects.limits import MAX_REMOTE_GROUPS


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
    EVERYTHING = 15  # all of it: what reads this is compiled again at any change


InputKey = tuple[Input, str, str]
THIS_HOST: InputKey = (Input.HOST, "", "")
EVERYTHING: InputKey = (Input.EVERYTHING, "", "")


class LocalUplink(NamedTuple):
    """An uplink of this host: the segment of its untagged VLAN, and the ofport of the patch to its bridge."""

    base: int
    patch: int | None


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


@dataclass(slots=True)
class NetworkIndex:
    """What is known of a network's VIFs. bindings: of each VIF that has any, in order of their hosts."""

    bindings: dict[str, tuple[Binding, ...]] = field(default_factory=dict)
    members: Counter[str] = field(default_factory=Counter)  # bindings by host
    unlocked: Counter[str] = field(default_factory=Counter)  # bindings of unlocked VIFs by host
    unsettled: set[str] = field(default_factory=set)  # VIFs that move, or have just moved
    vifs: dict[str, Vif] = field(default_factory=dict)  # those this host has rows of
    trunks: set[str] = field(default_factory=set)
    groups: Counter[str] = field(default_factory=Counter)  # how many VIFs here are in each
    peer_bits: dict[str, int] = field(default_factory=dict)

    def count(self, binding: Binding, step: int) -> None:
        """Adds a binding to its host's counts, or takes it off."""
        _count(self.members, binding.host, step)
        if binding.unlocked:
            _count(self.unlocked, binding.host, step)

    def has(self, host: str) -> tuple[bool, bool]:
        """Whether a host has members, and unlocked ones."""
        return host in self.members, host in self.unlocked


NOTHING = NetworkIndex()


def _count(counts: Counter[str], key: str, step: int) -> None:
    counts[key] += step
    if not counts[key]:
        del counts[key]


class StateIndex:
    """A whole pool by what the inputs of one host are taken from: made once for many hosts."""

    def __init__(self, state: PoolState) -> None:
        self.bindings: dict[str, list[Binding]] = defaultdict(list)  # by network
        self.wanted: dict[str, set[str]] = defaultdict(set)  # host to the networks of the VIFs that are to be there
        for binding in state.bindings.values():
            self.bindings[binding.network].append(binding)
        for vif in state.vifs.values():
            for host in (vif.incoming, vif.host):
                if host is not None:
                    self.wanted[host].add(vif.network)


class HostInputs:
    """One host's inputs. `revision` counts changes, also those that make no difference to flows."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.revision = 0
        self.pool: Pool | None = None
        self.hosts: dict[str, Host] = {}
        self.networks: dict[str, Network] = {}
        self.vifs: dict[str, Vif] = {}
        self.groups: dict[str, SecurityGroup] = {}
        self.qos: dict[str, QosClass] = {}
        self.ports: dict[str, int] = {}  # VIF id to ofport
        self.devices: dict[str, int] = {}  # tunnel or patch port to ofport
        self.probes: dict[str, tuple[bytes, ...]] = {}  # a probe's id to the marked frames to watch for
        self.local_networks: dict[str, LocalNetwork] = {}
        self.local_uplinks: dict[str, LocalUplink] = {}
        self.on_uplink: dict[str, set[str]] = {}
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
        inputs.hosts = dict(state.hosts)
        inputs.qos = dict(state.qos)
        inputs.devices = dict(devices)
        inputs.refresh_uplinks()
        here = index.wanted[me] | {state.vifs[vif].network for vif in ports if vif in state.vifs}
        for name in sorted(here):
            network = state.networks.get(name)
            if network is not None and network.on(me):
                inputs.set_network(network)
                for binding in index.bindings[name]:
                    inputs.set_binding(binding)
        for vif, ofport in ports.items():
            if vif in state.vifs:
                for group in state.vifs[vif].groups:
                    if group in state.groups and group not in inputs.groups:
                        inputs.set_group(state.groups[group])
                inputs.set_vif(state.vifs[vif])
                inputs.set_port(vif, ofport)
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
            case Input.VIF | Input.BINDINGS | Input.PEER | Input.GROUP:
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
            case Input.PEER:
                return index.bindings if index.peer_bits else ()
            case Input.GROUP:
                return index.groups
            case _:
                return ()

    def _forget_empty(self, network: str, index: NetworkIndex) -> None:
        if not index.bindings and not index.vifs:
            del self.indexes[network]

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
        self.refresh_uplinks()
        for network in self.networks.values():
            if (encapsulation := network.carrier.encapsulation) is not None and encapsulation.device == name:
                self._refresh_network(network.name)

    # Networks

    def set_network(self, network: Network) -> None:
        old = self.networks.get(network.name)
        self.networks[network.name] = network
        self._network_changed(network.name, old, network)

    def drop_network(self, name: str) -> None:
        self._network_changed(name, self.networks.pop(name, None), None)

    def _network_changed(self, name: str, old: Network | None, new: Network | None) -> None:
        self.revision += 1
        before = (old.uplink, old.tag) if old else (None, None)
        after = (new.uplink, new.tag) if new else (None, None)
        if before != after:
            if before[0] is not None:
                self.on_uplink[before[0]].discard(name)
                self._note(Input.UPLINK_NETWORKS, before[0])
            if after[0] is not None:
                self.on_uplink.setdefault(after[0], set()).add(name)
                self._note(Input.UPLINK_NETWORKS, after[0])
        self._refresh_network(name)

    def _refresh_network(self, name: str) -> None:
        row, old = self.networks.get(name), self.local_networks.get(name)
        if row is None:
            if old is not None:
                del self.local_networks[name]
                self._note(Input.NETWORK, name)
            return
        encapsulation, uplink = row.carrier.encapsulation, self.local_uplinks.get(row.uplink or "")
        tunnel = self.devices.get(encapsulation.device) if encapsulation is not None else None
        if row.uplink is None:
            segment: int | None = row.number
        else:
            segment = uplink.base | (row.tag or 0) if uplink is not None else None
        patch = uplink.patch if uplink is not None else None
        new = LocalNetwork(
            name, row.carrier.way, row.key, row.tag, row.uplink, segment, tunnel, patch, row.number, row.qos
        )
        if new != old:
            self.local_networks[name] = new
            self._note(Input.NETWORK, name)

    # Bindings

    def set_binding(self, binding: Binding) -> None:
        self.revision += 1
        index = self._index(binding.network)
        old = index.bindings.get(binding.vif, ())
        if not old or (len(old) == 1 and old[0].host == binding.host):  # as nearly all are
            new: tuple[Binding, ...] = (binding,)
        else:
            others = (other for other in old if other.host != binding.host)
            new = tuple(sorted((*others, binding), key=lambda found: found.host))
        self._replace_bindings(index, binding, old, new)

    def drop_binding(self, network: str, vif: str, host: str) -> None:
        self.revision += 1
        index = self.index(network)
        old = index.bindings.get(vif, ())
        dropped = next((binding for binding in old if binding.host == host), None)
        if dropped is not None:
            self._replace_bindings(index, dropped, old, tuple(binding for binding in old if binding is not dropped))

    def _replace_bindings(
        self, index: NetworkIndex, changed: Binding, old: tuple[Binding, ...], new: tuple[Binding, ...]
    ) -> None:
        """Takes a VIF's bindings, which differ in that of one host."""
        network, vif, host = changed.network, changed.vif, changed.host
        if new:
            index.bindings[vif] = new
        else:
            del index.bindings[vif]
        if len(old) == len(new) and all(map(_programs_the_same, old, new)):
            return
        had = index.has(host)
        for binding in old:
            if binding.host == host:
                index.count(binding, -1)
        for binding in new:
            if binding.host == host:
                index.count(binding, 1)
        if had != index.has(host):
            self._note(Input.MEMBERS, network)
        if len(new) > 1 or any(binding.state.moving for binding in new):
            index.unsettled.add(vif)
        else:
            index.unsettled.discard(vif)
        self._note(Input.BINDINGS, vif, network)
        if index.peer_bits:
            self._note(Input.PEER, vif, network)
        self._forget_empty(network, index)

    # VIFs here

    def set_vif(self, vif: Vif) -> None:
        old = self.vifs.get(vif.id)
        self._vif_changed(vif.id, old, vif)

    def drop_vif(self, vif: str) -> None:
        if (old := self.vifs.get(vif)) is not None:
            self._vif_changed(vif, old, None)

    def _vif_changed(self, vif: str, old: Vif | None, new: Vif | None) -> None:
        self.revision += 1
        if new is None:
            del self.vifs[vif]
        else:
            self.vifs[vif] = new
        if old is not None and new is not None and replace(old, epoch=new.epoch) == new:
            self._index(new.network).vifs[vif] = new
            return  # its bindings carry what a claim changes
        if old is not None and (new is None or new.network != old.network):
            self._replace_vif(old.network, vif, old, None)
        if new is not None:
            self._replace_vif(new.network, vif, old if old is not None and old.network == new.network else None, new)

    def _replace_vif(self, network: str, vif: str, old: Vif | None, new: Vif | None) -> None:
        index = self._index(network)
        self._note(Input.VIF, vif, network)
        if new is None:
            del index.vifs[vif]
        else:
            index.vifs[vif] = new
        if old is None or new is None:
            self._note(Input.VIFS, network)
        was_trunk, is_trunk = vif in index.trunks, new is not None and new.trunk is not None
        if was_trunk is not is_trunk:
            (index.trunks.add if is_trunk else index.trunks.discard)(vif)
            self._note(Input.TRUNKS, network)
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
        self._group_changed(group.name)

    def drop_group(self, name: str) -> None:
        self.groups.pop(name, None)
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
            if len(named | group.remotes()) <= MAX_REMOTE_GROUPS:
                named |= group.remotes()
        bits = {name: bit for bit, name in enumerate(sorted(named))}
        if bits != index.peer_bits:
            index.peer_bits = bits
            self._note(Input.PEER_BITS, network)
            for vif in index.bindings:
                self._note(Input.PEER, vif, network)

    # QoS classes

    def set_qos(self, qos: QosClass) -> None:
        self.revision += 1
        self.qos[qos.name] = qos
        self._note(Input.QOS, qos.name)

    def drop_qos(self, name: str) -> None:
        self.revision += 1
        self.qos.pop(name, None)
        self._note(Input.QOS, name)

    # Probes

    def set_probe(self, probe: str, frames: Sequence[bytes]) -> None:
        """Watch for these frames, which are marked (probe.py); for none is no more."""
        self.revision += 1
        if frames:
            self.probes[probe] = tuple(frames)
        else:
            self.probes.pop(probe, None)
        self._note(Input.PROBE, probe)


def _programs_the_same(old: Binding, new: Binding) -> bool:
    """Whether two bindings differ at most in what does not change flows."""
    return old is new or _programmed(old) == _programmed(new)


def _programmed(b: Binding) -> tuple[object, ...]:
    """The fields of a binding that flows depend on."""
    return b.host, b.mac, b.epoch, b.state, b.unlocked, b.moved, b.groups, b.addresses, b.dhcp_server, b.link_locals
