"""What a document may not take from the toolstack: names it uses, and what its objects stand on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from vnet.objects import Host, Network, Owner, PoolState, SecurityGroup, Subnet, Vif, Vm
from vnet.topology import Document
from vnet.topology.record import Record
from vnet.topology.source import Source

NAMED_MAX = 8
Objects = (
    Mapping[str, Host] | Mapping[str, Network] | Mapping[str, Subnet] | Mapping[str, SecurityGroup] | Mapping[str, Vm]
)


def check_owners(document: Document, current: PoolState, others: PoolState, source: Source) -> None:
    """Add to the source: another pool's document, names that are the toolstack's, and removals that it still needs."""
    _same_pool(document, current, source)
    _names("host", document.hosts, others.hosts, source)
    _names("network", document.networks, others.networks, source)
    _names("subnet", document.subnets, others.subnets, source)
    _names("security group", document.security_groups, others.groups, source)
    _names("VM", document.vms, others.vms, source)
    _removed_networks(document, current, others, source)
    _removed_groups(document, current, others, source)
    _removed_hosts(document, current, others, source)
    _removed_vms(document, current, others, source)
    _hosts_of_networks(document, current, others, source)


def _same_pool(document: Document, current: PoolState, source: Source) -> None:
    """Applied to another pool, a document would take away all that is there."""
    if current.pool is None or current.pool.name == document.pool:
        return
    objects: tuple[Objects, ...] = (current.hosts, current.networks, current.subnets, current.groups, current.vms)
    if any(value.owner is Owner.DOCUMENT for values in objects for value in values.values()):
        message = f"this document is for pool {document.pool}, and the database holds pool {current.pool.name}"
        hint = "applied here, it would remove all that the other pool's document made"
        source.add("other-pool", message, document.at("pool"), hint)


def _names(what: str, specs: Mapping[str, Record], theirs: Objects, source: Source) -> None:
    for name in sorted(specs.keys() & theirs.keys()):
        message = f"{what} {name} is there already, made by the toolstack"
        source.add("owned-by-toolstack", message, specs[name].at(), "another name; or delete it in the toolstack first")


def _gone(before: Objects, specs: Mapping[str, Record]) -> set[str]:
    return {name for name, value in before.items() if value.owner is Owner.DOCUMENT and name not in specs}


def _removed_networks(document: Document, current: PoolState, others: PoolState, source: Source) -> None:
    gone = _gone(current.networks, document.networks)
    vifs: dict[str, list[str]] = defaultdict(list)
    for vif in others.vifs.values():
        if vif.network in gone:
            vifs[vif.network].append(f"VIF {vif.id}")
    for subnet in others.subnets.values():
        if subnet.network in gone:
            vifs[subnet.network].append(f"subnet {subnet.name}")
    for name, holders in vifs.items():
        _in_use(document, source, f"network {name}", "networks", holders)


def _removed_groups(document: Document, current: PoolState, others: PoolState, source: Source) -> None:
    gone = _gone(current.groups, document.security_groups)
    if not gone:
        return
    users: dict[str, list[str]] = defaultdict(list)
    for vif in others.vifs.values():
        for name in gone.intersection(vif.groups):
            users[name].append(f"VIF {vif.id}")
    for group in others.groups.values():
        for name in gone & group.remotes():
            users[name].append(f"a rule of security group {group.name}")
    for name, holders in sorted(users.items()):
        _in_use(document, source, f"security group {name}", "security-groups", holders)


def _removed_hosts(document: Document, current: PoolState, others: PoolState, source: Source) -> None:
    gone = _gone(current.hosts, document.hosts)
    if not gone:
        return
    users: dict[str, list[str]] = defaultdict(list)
    for vm in others.vms.values():
        if vm.host in gone:
            users[vm.host].append(f"VM {vm.name}")
    for network in others.networks.values():
        for host in sorted(network.hosts & gone):
            users[host].append(f"network {network.name}")
    for vif, hosts in _places(others.vifs.values(), current).items():
        for host in sorted(hosts & gone):
            users[host].append(f"VIF {vif}")
    for name, holders in users.items():
        _in_use(document, source, f"host {name}", "hosts", holders)


def _removed_vms(document: Document, current: PoolState, others: PoolState, source: Source) -> None:
    gone = _gone(current.vms, document.vms)
    vifs: dict[str, list[str]] = defaultdict(list)
    for vif in others.vifs.values():
        if vif.vm is not None and vif.vm in gone:
            vifs[vif.vm].append(f"VIF {vif.id}")
    for name, holders in vifs.items():
        _in_use(document, source, f"VM {name}", "vms", holders)


def _hosts_of_networks(document: Document, current: PoolState, others: PoolState, source: Source) -> None:
    """A network may not leave a host where the toolstack's VIFs are on it; a VIF with a trunk needs its network's kind."""
    limited = {name: frozenset(spec.hosts) for name, spec in document.networks.items() if spec.hosts is not None}
    users: dict[tuple[str, str], list[str]] = defaultdict(list)
    on_limited = [vif for vif in others.vifs.values() if vif.network in limited]
    for vif_id, hosts in _places(on_limited, current).items():
        network = others.vifs[vif_id].network
        for host in sorted(hosts - limited[network]):
            users[network, host].append(f"VIF {vif_id}")
    for (network, host), holders in users.items():
        place = document.networks[network].at("hosts")
        message = f"network {network} cannot leave host {host}: the toolstack's {_some(holders)} there"
        source.add("in-use", message, place, "migrate or delete those first")
    for vif in others.vifs.values():
        spec = document.networks.get(vif.network)
        if vif.trunk is not None and spec is not None and spec.tag != 0:
            message = f"network {vif.network} has the toolstack's trunk VIF {vif.id}, so it stays VLAN and untagged"
            source.add("in-use", message, spec.at("type"), "unplug and delete that VIF first")


def _places(vifs: Iterable[Vif], current: PoolState) -> dict[str, set[str]]:
    """The hosts where each VIF is, or is wanted, or is going."""
    places = {vif.id: {host for host in (vif.host, vif.incoming) if host is not None} for vif in vifs}
    if places:
        for vif_id, host in current.bindings:
            if vif_id in places:
                places[vif_id].add(host)
    return places


def _in_use(document: Document, source: Source, what: str, section: str, holders: list[str]) -> None:
    place = document.at_key(section)
    message = f"{what} is not in the document, and cannot go: the toolstack still has {_some(holders)} there"
    source.add("in-use", message, place, "delete or move those first, or put it back into the document")


def _some(names: list[str]) -> str:
    shown = sorted(names)[:NAMED_MAX]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
