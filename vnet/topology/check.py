"""What a document says, held against itself and against what the toolstack made: names that are not there, clashes, MTUs.

One rule: one pass per kind of object, with indexes; nothing here grows with the square of a pool. A reference to an object
that was itself refused is not reported again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from ipaddress import ip_address
from itertools import islice, pairwise

from vnet.objects import BondHash, BondMode, LacpTime, PoolState, Way, default_mtu, mtu_arithmetic
from vnet.objects.carriers import Encapsulation
from vnet.objects.values import MIN_MTU
from vnet.topology.check_groups import check_groups
from vnet.topology.check_vms import check_expectations, check_vms
from vnet.topology.document import Document, HostSpec, UplinkSpec
from vnet.topology.source import Source
from vnet.topology.view import HostView, NetworkView, Range, View, where
from vnet.util.suggest import LISTED_MAX


def check(document: Document, source: Source, others: PoolState | None = None) -> None:
    """Add to the source what is wrong between the parts of a document, and between them and the toolstack's objects (others)."""
    view = View(document, source, others or PoolState())
    _hosts(view)
    _networks(view)
    ranges = _subnets(view)
    check_groups(view)
    check_vms(view, ranges)
    check_expectations(view)


def _hosts(view: View) -> None:
    for name, spec in view.document.hosts.items():
        _uplinks(view.source, name, spec)
    addresses: dict[str, HostView] = {}
    families: Counter[int] = Counter()
    for host in view.hosts.values():
        if host.address is None:
            continue
        families[ip_address(host.address).version] += 1
        other = addresses.setdefault(host.address, host)
        if other is not host and host.spec is not None:
            message = f"host {host.name} has the address of host {other.name}, {where(other.spec, 'address')}"
            view.source.add("duplicate-address", message, host.spec.at("address"), "a tunnel endpoint is one host's")
    if len(families) > 1:
        _mixed_families(view, families.most_common(1)[0][0])


def _mixed_families(view: View, usual: int) -> None:
    example = next(h for h in view.hosts.values() if h.address and ip_address(h.address).version == usual)
    for host in view.hosts.values():
        if host.address is not None and ip_address(host.address).version != usual:
            message = f"host {host.name} has an IPv{10 - usual} address, host {example.name} an IPv{usual} one"
            place = host.spec.at("address") if host.spec is not None else view.document.at_key("hosts")
            view.source.add(
                "mixed-families", message, place, "a tunnel has one family at both ends: choose one for the pool"
            )


def _uplinks(source: Source, host: str, spec: HostSpec) -> None:
    used: dict[str, str] = {}
    for name, uplink in spec.uplinks.items():
        _bond(source, name, uplink)
        for at, nic in enumerate(uplink.members):
            if (other := used.setdefault(nic, name)) != name:
                place = uplink.at("members", at)
                source.add(
                    "nic-used-twice", f"{host}'s NIC {nic} is in uplink {other} already", place, "a NIC has one uplink"
                )


def _bond(source: Source, name: str, uplink: UplinkSpec) -> None:
    count = len(uplink.members)
    if uplink.mode is not None and count == 1:
        message = f"bond {name} has one member"
        source.add("bond", message, uplink.at("members"), "a bond has two or more; for a plain NIC leave out 'mode'")
    if uplink.mode is None and uplink.unclear("mode"):
        return
    if uplink.mode is None and count > 1:
        message = f"uplink {name} has {count} NICs but no 'mode'"
        source.add(
            "bond", message, uplink.at("members"), "that is a bond: 'mode' is active-backup, balance-slb or lacp"
        )
    if uplink.mode is not BondMode.LACP:
        for key, is_set in (
            ("lacp-time", uplink.lacp_time is not LacpTime.SLOW),
            ("hash", uplink.hash is not BondHash.SOURCE_MAC),
        ):
            if is_set:
                source.add(
                    "bond", f"'{key}' is for 'mode: lacp' only", uplink.at(key), "leave it out, or change 'mode'"
                )


def _networks(view: View) -> None:
    keys: dict[tuple[Encapsulation, int], NetworkView] = {}
    tags: dict[tuple[str, int], NetworkView] = {}
    for net in view.networks.values():
        if net.spec is not None:
            for at, name in enumerate(net.spec.hosts or ()):
                if name not in view.host_names and name not in view.hosts:
                    view.source.unknown("host", name, view.host_names, net.spec.at("hosts", at))
        _clash_of_keys(view, net, keys)
        if net.uplink is not None:
            _clash_of_tags(view, net, tags)
            _uplink_of(view, net)
        _mtu(view, net)
    _tunnel_hosts(view)


def _clash_of_keys(view: View, net: NetworkView, keys: dict[tuple[Encapsulation, int], NetworkView]) -> None:
    carrier = net.type.carrier
    if net.key is None or carrier.encapsulation is None:
        return
    other = keys.setdefault((carrier.encapsulation, net.key), net)
    if other is not net:
        word = "VNI" if carrier.key_word == "vni" else f"{carrier.encapsulation.name.upper()} {carrier.key_word}"
        message = f"{word} {net.key} is that of network {other.name}, {where(other.spec, carrier.key_word)}"
        hint = f"each {net.type.value} network has its own; leave it out and one is allocated"
        view.source.add("duplicate-key-or-vni", message, net.at(view, carrier.key_word), hint)


def _clash_of_tags(view: View, net: NetworkView, tags: dict[tuple[str, int], NetworkView]) -> None:
    other = tags.setdefault((net.uplink or "", net.tag or 0), net)
    if other is not net:
        tag = f"tag {net.tag}" if net.tag else "untagged"
        message = f"{tag} on uplink {net.uplink} is network {other.name}, {where(other.spec, 'tag')}"
        hint = "one VLAN of an uplink is one network: another tag, another uplink, or use that network"
        view.source.add("duplicate-tag", message, net.at(view, "tag"), hint)


def _uplink_of(view: View, net: NetworkView) -> None:
    """Each host that a VLAN network may be on has its uplink."""
    uplink = net.uplink or ""
    having = view.uplink_hosts.get(uplink, set())
    if not having and net.spec is not None and view.hosts:
        if len(view.hosts) == len(view.host_names | view.hosts.keys()):  # else a refused host may have it
            view.source.unknown("uplink", uplink, view.uplink_hosts, net.spec.at("uplink"))
        return
    if net.hosts is None and len(having) == len(view.hosts):
        return
    lacking = [host.name for host in view.hosts_of(net) if host.name not in having]
    if lacking:
        those = "host" if len(lacking) == 1 else "hosts"
        verb = "has" if len(lacking) == 1 else "have"
        message = f"network {net.name} may be on {those} {_some(lacking)}, which {verb} no uplink {uplink}"
        hint = f"give it to {'that host' if len(lacking) == 1 else 'those hosts'}, or list in 'hosts' where the network may be"
        view.source.add("no-uplink", message, net.at(view, "uplink"), hint)


def _mtu(view: View, net: NetworkView) -> None:
    """What the network says, or would get, fits."""
    underlay = view.document.underlay.mtu
    capacity = view.capacity(net)
    if net.mtu is None:
        if default_mtu(net.type, capacity) < MIN_MTU:
            message = (
                f"nothing is left of the MTU for network {net.name}: {mtu_arithmetic(net.type, underlay, view.vtep)}"
            )
            view.source.add("mtu", message, view.document.underlay.at("mtu"), f"a network has at least {MIN_MTU}")
        return
    if net.mtu <= capacity:
        return
    message = f"mtu {net.mtu} of network {net.name} does not fit"
    if net.uplink is not None:
        source = "its own mtu" if capacity in view.stated_mtus(net) else "underlay.mtu"
        message += f": uplink {net.uplink} carries {capacity} ({source})"
    else:
        message += f": {mtu_arithmetic(net.type, underlay, view.vtep)}"
    place = net.spec.at("mtu") if net.spec is not None else view.document.underlay.at("mtu")
    view.source.add("mtu", message, place, f"at most {capacity}; or leave 'mtu' out and it is computed")


def _tunnel_hosts(view: View) -> None:
    """Each host that a tunnel network may be on has a tunnel endpoint."""
    without = {
        host.name
        for host in view.hosts.values()
        if host.address is None and (host.spec is None or not host.spec.unclear("address"))
    }
    if not without:
        return
    everywhere = [
        net.name for net in view.networks.values() if net.type.carrier.way is Way.TUNNEL and net.hosts is None
    ]
    limited: dict[str, list[str]] = defaultdict(list)
    for net in view.networks.values():
        if net.type.carrier.way is Way.TUNNEL and net.hosts is not None:
            for name in net.hosts & without:
                limited[name].append(net.name)
    for name in sorted(without):
        if nets := everywhere + limited[name]:
            spec = view.hosts[name].spec
            message = f"host {name} has no 'address', and tunnel networks may be on it: {_some(nets)}"
            place = spec.at() if spec is not None else view.document.at_key("networks")
            hint = "give it the address that its tunnels end at, or list in the networks' 'hosts' where they may be"
            view.source.add("no-address", message, place, hint)


def _some(names: list[str]) -> str:
    """The first names, without sorting thousands."""
    shown = ", ".join(islice(names, LISTED_MAX))
    return shown if len(names) <= LISTED_MAX else f"{shown} and {len(names) - LISTED_MAX} more"


def _subnets(view: View) -> dict[str, list[Range]]:
    """The ranges of each network, lowest first."""
    ranges: dict[str, list[Range]] = defaultdict(list)
    for name, spec in view.document.subnets.items():
        found = Range.of(name, spec.cidr, spec.gateway, spec)
        if spec.network not in view.network_names:
            view.source.unknown("network", spec.network, view.network_names, spec.at("network"))
        if spec.gateway is not None:
            _gateway(view.source, found, spec.gateway)
        ranges[spec.network].append(found)
    for name, subnet in view.others.subnets.items():
        if name not in view.document.subnets and subnet.network in view.networks:
            ranges[subnet.network].append(Range.of(name, subnet.cidr, subnet.gateway, None))
    for network, found_there in ranges.items():
        found_there.sort(key=lambda r: (r.version, r.first, r.last))
        for low, high in pairwise(found_there):
            if low.version == high.version and high.first <= low.last:
                _overlap(view, network, low, high)
    return ranges


def _overlap(view: View, network: str, low: Range, high: Range) -> None:
    if low.spec is None and high.spec is None:
        return
    blamed, other = (low, high) if high.spec is None else (high, low)
    spec = blamed.spec
    message = (
        f"{blamed.cidr} overlaps {other.cidr} of subnet {other.name}, {where(other.spec, 'cidr')}, on network {network}"
    )
    view.source.add(
        "overlap", message, spec.at("cidr") if spec else None, "an address belongs to one subnet of its network"
    )


def _gateway(source: Source, found: Range, gateway: str) -> None:
    address, spec = ip_address(gateway), found.spec
    place = spec.at("gateway") if spec is not None else None
    if address.version != found.version or not found.first <= int(address) <= found.last:
        source.add("outside-subnet", f"gateway {gateway} is not in {found.cidr}", place)
    elif why := found.reserved(int(address)):
        source.add("reserved-address", f"gateway {gateway} is {why} ({found.cidr})", place, "any other address of it")
