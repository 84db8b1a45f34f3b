"""VMs, their VIFs, and expectations: what they name is there, and no two VIFs have one MAC, address or id."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from vnet.objects import Owner, Protocol, Way
from vnet.topology.document import Expectation, VifSpec, VmSpec
from vnet.topology.errors import Place
from vnet.topology.tree import List, Map, Text
from vnet.topology.view import NetworkView, Range, View, where

Holder = tuple[str, VifSpec | None]  # a VIF's id, and where it stands


@dataclass(slots=True)
class _Taken:
    """Who has what already. The toolstack's VIFs come first, so that the document's are those that clash."""

    ids: dict[str, Holder] = field(default_factory=dict)
    macs: dict[tuple[str, str], Holder] = field(default_factory=dict)
    addresses: dict[tuple[str, str], Holder] = field(default_factory=dict)


def check_vms(view: View, ranges: Mapping[str, list[Range]]) -> None:
    """Every VM and VIF of the document."""
    taken = _Taken()
    for vif in view.others.vifs.values():
        if vif.owner is Owner.TOOLSTACK:
            taken.ids[vif.id] = (vif.id, None)
            taken.macs[vif.network, vif.mac] = (vif.id, None)
            for address in vif.addresses:
                taken.addresses[vif.network, address] = (vif.id, None)
                _gateway_of(view, vif.id, address, ranges.get(vif.network, []))
    for name, vm in view.document.vms.items():
        if vm.host is not None and vm.host not in view.host_names:
            view.source.unknown("host", vm.host, view.host_names, vm.at("host"))
        for index, vif_id, spec in vm.vif_ids(name):
            _identity(view, f"{name}/{index}", vif_id, spec, taken)
            _vif(view, vm, name, vif_id, spec, taken, ranges)


def _gateway_of(view: View, vif_id: str, address: str, ranges: list[Range]) -> None:
    """A subnet of the document cannot give the toolstack's VIF's address to a router."""
    parsed = ip_address(address)
    found = range_of(ranges, parsed.version, int(parsed))
    if found is not None and found.gateway == int(parsed) and found.spec is not None:
        message = f"gateway {address} of subnet {found.name} is taken by VIF {vif_id}, made by the toolstack"
        view.source.add(
            "address-taken", message, found.spec.at("gateway"), "another gateway, or another address for it"
        )


def _identity(view: View, position: str, vif_id: str, spec: VifSpec, taken: _Taken) -> None:
    """An id is one VIF's; and so is VM/INDEX, which names a VIF with another id as well, in expectations."""
    for word in (position,) if vif_id == position else (vif_id, position):
        other = taken.ids.setdefault(word, (vif_id, spec))
        if other[1] is not spec:
            message = f"VIF id {word} is taken, {where(other[1], 'id')}"
            view.source.add("duplicate-id", message, spec.at("id"), "an id is one VIF's in the whole pool")


def _vif(
    view: View, vm: VmSpec, vm_name: str, vif_id: str, spec: VifSpec, taken: _Taken, ranges: Mapping[str, list[Range]]
) -> None:
    source = view.source
    net = view.networks.get(spec.network)
    if spec.network not in view.network_names:
        source.unknown("network", spec.network, view.network_names, spec.at("network"))
    elif net is not None:
        if vm.host is not None and net.hosts and vm.host not in net.hosts and vm.host in view.host_names:
            message = f"VM {vm_name} is on host {vm.host}, and network {net.name} is not"
            hint = f"the network is on {', '.join(sorted(net.hosts)[:8])} ({where(net.spec, 'hosts')})"
            source.add("not-on-host", message, spec.at("network"), hint)
        if spec.trunk is not None:
            _trunk(view, net, spec)
    if spec.security_groups:
        _groups(view, spec)
    if spec.mac is not None:
        holder = taken.macs.setdefault((spec.network, spec.mac), (vif_id, spec))
        if holder[1] is not spec:
            message = f"MAC {spec.mac} is that of VIF {holder[0]} on the same network, {where(holder[1], 'mac')}"
            source.add("duplicate-mac", message, spec.at("mac"), "leave 'mac' out and one is allocated")
    if spec.addresses:
        _addresses(view, vif_id, spec, taken, ranges.get(spec.network, []))


def _groups(view: View, spec: VifSpec) -> None:
    for at, name in enumerate(spec.security_groups):
        if name not in view.group_names:
            view.source.unknown("security group", name, view.group_names, spec.at("security-groups", at))
    if spec.trunk is not None:
        message = "a trunk VIF cannot be in security groups"
        hint = "its tags are networks of their own; filter where they end"
        view.source.add("trunk", message, spec.at("security-groups"), hint)


def _trunk(view: View, net: NetworkView, spec: VifSpec) -> None:
    if net.type.carrier.way is not Way.UPLINK:
        message = f"a trunk on {net.name}, a network of type {net.type.value}"
    elif net.tag:
        message = f"a trunk on {net.name}, which is tag {net.tag} itself"
    else:
        return
    hint = f"a trunk VIF is on a VLAN network with 'tag: untagged'; {net.name} is {where(net.spec, 'type')}"
    view.source.add("trunk", message, spec.at("trunk"), hint)


def _addresses(view: View, vif_id: str, spec: VifSpec, taken: _Taken, ranges: list[Range]) -> None:
    source = view.source
    for at, address in enumerate(spec.addresses or ()):
        holder = taken.addresses.setdefault((spec.network, address), (vif_id, spec))
        if holder[1] is not spec:
            message = f"address {address} on network {spec.network} is taken by VIF {holder[0]}, {where(holder[1], 'addresses')}"
            source.add(
                "address-taken", message, spec.at("addresses", at), "leave 'addresses' out and a free one is taken"
            )
        if not ranges:
            continue
        parsed = ip_address(address)
        found = range_of(ranges, parsed.version, int(parsed))
        if found is None:
            there = ", ".join(f"{r.cidr} ({r.name})" for r in ranges[:8])
            message = f"address {address} is in no subnet of network {spec.network}"
            source.add("outside-subnet", message, spec.at("addresses", at), f"there is: {there}")
        elif found.gateway == int(parsed):
            message = f"address {address} is the gateway of subnet {found.name}, {where(found.spec, 'gateway')}"
            source.add("address-taken", message, spec.at("addresses", at))
        elif why := found.reserved(int(parsed)):
            message = f"address {address} is {why} ({found.cidr} of {found.name})"
            source.add("reserved-address", message, spec.at("addresses", at), "any other address of it")


def range_of(ranges: list[Range], version: int, address: int) -> Range | None:
    """The range, of ranges in order, that an address is in."""
    at = bisect_right(ranges, (version, address), key=lambda r: (r.version, r.first)) - 1
    found = ranges[at] if at >= 0 else None
    return found if found is not None and found.version == version and address <= found.last else None


def check_expectations(view: View) -> None:
    """What expectations name is there; a port has a protocol."""
    if not view.document.expectations:
        return
    vifs = {
        word
        for name, vm in view.document.vms.items()
        for index, vif_id, _ in vm.vif_ids(name)
        for word in (vif_id, f"{name}/{index}")
    }
    if view.source.problems:
        vifs |= _declared_vifs(view)
    for spec in view.document.expectations:
        _endpoint(view, spec, "from", spec.from_, vifs)
        _endpoint(view, spec, "to", spec.to, vifs)
        if spec.from_ == spec.to == "outside":
            view.source.add("expectation", "from outside to outside says nothing about this pool", spec.at("to"))
        if spec.port is not None and spec.protocol not in (Protocol.TCP, Protocol.UDP):
            view.source.add("expectation", "a port without 'protocol: tcp' or 'udp'", spec.at("port"), "say which")
        if spec.port is None and spec.protocol in (Protocol.TCP, Protocol.UDP):
            message = f"'protocol: {spec.protocol.value}' without 'port'"
            view.source.add("expectation", message, spec.at("protocol"), "say which port, 1..65535")


def _endpoint(view: View, spec: Expectation, key: str, word: str, vifs: set[str]) -> None:
    place: Place | None = spec.at(key)
    if word == "outside" or word in vifs:
        return
    names = {"a VM": view.vm_names, "a network": view.network_names, "a security group": view.group_names}
    kinds = [kind for kind, known in names.items() if word in known]
    if len(kinds) > 1:
        message = f"'{word}' is {'both ' * (len(kinds) == 2)}{' and '.join(kinds)}"
        vm = f"say {word}/0 for the VM's first VIF, or " if word in view.vm_names else ""
        view.source.add("ambiguous", message, place, f"{vm}rename one of them")
    elif not kinds:
        known = {"outside"}.union(vifs, *names.values())
        view.source.unknown("VIF, VM, network or security group", word, known, place)


def _declared_vifs(view: View) -> set[str]:
    """Ids of all VIFs of the document, of refused ones too."""
    ids: set[str] = set()
    root = view.document.node
    vms = next((value for key, value in root.entries if key.text == "vms"), None) if root is not None else None
    for name, vm in vms.entries if isinstance(vms, Map) else ():
        for key, value in vm.entries if isinstance(vm, Map) else ():
            if key.text == "vifs" and isinstance(value, List):
                ids.update(f"{name.text}/{index}" for index in range(len(value.items)))
                for item in value.items:
                    said = [v for k, v in item.entries if k.text == "id"] if isinstance(item, Map) else []
                    ids.update(v.text for v in said if isinstance(v, Text))
    return ids
