"""A document's objects beside those that the toolstack made, in one shape, for the checks. Built once, never written to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from vnet.objects import NetworkType, Owner, PoolState, mtu_capacity
from vnet.topology.document import Document, HostSpec, NetworkSpec, SubnetSpec
from vnet.topology.errors import Place
from vnet.topology.record import Record
from vnet.topology.source import Source
from vnet.topology.tree import Map


@dataclass(frozen=True, slots=True)
class HostView:
    """A host. spec: None where the toolstack made it."""

    name: str
    address: str | None
    uplinks: Mapping[str, int | None]  # to the MTU that it states
    spec: HostSpec | None


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A network. hosts: None for everywhere, empty where what the document says is wrong; key, mtu: None where the document leaves them out."""

    name: str
    type: NetworkType
    tag: int | None
    uplink: str | None
    key: int | None
    mtu: int | None
    hosts: frozenset[str] | None
    spec: NetworkSpec | None

    def at(self, view: View, key: str) -> Place | None:
        """Where a key of it stands; for a network of the toolstack, where the document's networks are."""
        return self.spec.at(key) if self.spec is not None else view.document.at_key("networks")


@dataclass(frozen=True, slots=True)
class Range:
    """A subnet, with its addresses as numbers. first and last are included."""

    name: str
    cidr: str
    version: int
    first: int
    last: int
    gateway: int | None
    spec: SubnetSpec | None

    @classmethod
    def of(cls, name: str, cidr: str, gateway: str | None, spec: SubnetSpec | None) -> Range:
        net: IPv4Network | IPv6Network = ip_network(cidr)
        first, last = int(net.network_address), int(net.broadcast_address)
        return cls(name, cidr, net.version, first, last, None if gateway is None else int(ip_address(gateway)), spec)

    def reserved(self, address: int) -> str:
        """Why no interface may have an address of the range, '' if one may (RFC 1122 §3.2.1.3, RFC 4291 §2.6.1)."""
        if self.last - self.first < 2:
            return ""
        if address == self.first:
            return "the subnet's own address"
        if self.version == 4 and address == self.last:
            return "the subnet's broadcast address"
        return ""


class View:
    """What the checks look things up in."""

    def __init__(self, document: Document, source: Source, others: PoolState) -> None:
        self.document = document
        self.source = source
        self.others = others
        self.hosts: dict[str, HostView] = {
            name: HostView(name, host.address, {u.name: u.mtu for u in host.uplinks}, None)
            for name, host in others.hosts.items()
            if host.owner is Owner.TOOLSTACK
        }
        self.hosts.update(
            (name, HostView(name, spec.address, _uplinks(spec), spec)) for name, spec in document.hosts.items()
        )
        self.networks: dict[str, NetworkView] = {
            name: NetworkView(name, net.type, net.tag, net.uplink, net.key, net.mtu, net.hosts or None, None)
            for name, net in others.networks.items()
            if net.owner is Owner.TOOLSTACK
        }
        self.networks.update((name, _network(name, spec)) for name, spec in document.networks.items())
        self.host_names = self.declared("hosts", document.hosts)
        self.network_names = self.declared("networks", document.networks)
        self.vm_names = self.declared("vms", document.vms)
        self.group_names = self.declared("security-groups", document.security_groups)
        self.vtep = next((host.address for host in self.hosts.values() if host.address is not None), None)

        self.uplink_hosts: dict[str, set[str]] = defaultdict(set)
        self.uplink_mtus: dict[str, set[int | None]] = defaultdict(set)
        for host in self.hosts.values():
            for uplink, mtu in host.uplinks.items():
                self.uplink_hosts[uplink].add(host.name)
                self.uplink_mtus[uplink].add(mtu)

    def declared(self, section: str, read: Mapping[str, Record]) -> set[str]:
        """The names of a section, of refused objects too."""
        names = set(read)
        if self.document.node is not None and self.source.problems:
            for key, value in self.document.node.entries:
                if key.text == section and isinstance(value, Map):
                    names.update(name.text for name, _ in value.entries)
        return names

    def hosts_of(self, network: NetworkView) -> Iterable[HostView]:
        """The hosts a network may be on, as far as they are known."""
        if network.hosts is None:
            return self.hosts.values()
        return [self.hosts[name] for name in sorted(network.hosts) if name in self.hosts]

    def stated_mtus(self, network: NetworkView) -> set[int | None]:
        """What the hosts of a VLAN network state as its uplink's MTU; empty for other networks."""
        if network.uplink is None:
            return set()
        if network.hosts is None:
            return self.uplink_mtus.get(network.uplink, set())
        return {host.uplinks.get(network.uplink) for host in self.hosts_of(network)}

    def capacity(self, network: NetworkView) -> int:
        """The largest MTU that the network can have."""
        return mtu_capacity(network.type, self.document.underlay.mtu, self.vtep, self.stated_mtus(network))


def _uplinks(spec: HostSpec) -> dict[str, int | None]:
    """A host's uplinks, with those that were refused: other objects may refer to them."""
    uplinks = {name: uplink.mtu for name, uplink in spec.uplinks.items()}
    for key, value in spec.node.entries if spec.node is not None else ():
        if key.text == "uplinks" and isinstance(value, Map) and len(value.entries) > len(uplinks):
            uplinks.update((name.text, None) for name, _ in value.entries if name.text not in uplinks)
    return uplinks


def _network(name: str, spec: NetworkSpec) -> NetworkView:
    key = spec.gre_key if spec.type.carrier.document_key == "key" else spec.vni
    hosts = None if spec.hosts is None and not spec.unclear("hosts") else frozenset(spec.hosts or ())
    return NetworkView(name, spec.type, spec.tag, spec.uplink, key, spec.mtu, hosts, spec)


def where(spec: Record | None, key: str | None = None) -> str:
    """How a message points at another object: 'on line 12', or who made it."""
    if spec is None:
        return "made by the toolstack"
    place = spec.at(key)
    return "in this document" if place is None else f"on line {place.line}"
