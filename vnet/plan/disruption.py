"""What a change costs those who are on the network while it is made. One rule: decided per field, with the reason in words.

none: nobody notices. flows: hosts replace flows, each in one bundle, and no frame is lost. VIF: VIFs lose frames, or their
place on a network. uplink: all that a host sends through one uplink stops for a moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from ipaddress import ip_network
from typing import cast

from vnet.objects import (
    Host,
    LockingMode,
    Network,
    Pool,
    PoolState,
    Rule,
    SecurityGroup,
    Subnet,
    Uplink,
    Verdict,
    Vif,
    Vm,
    Way,
)
from vnet.objects.security import ANY

NAMED_MAX = 5


class Disruption(IntEnum):
    """What a change costs, from least to most."""

    NONE = 0
    FLOWS = 1
    VIF = 2
    UPLINK = 3

    def __str__(self) -> str:
        return ("none", "flows only", "VIF interrupted", "uplink interrupted")[self]


Cost = tuple[Disruption, str]
Object = Pool | Host | Uplink | Network | Subnet | SecurityGroup | Vm | Vif


class Usage:
    """Who is plugged where, in the pool as it is."""

    def __init__(self, current: PoolState) -> None:
        self.hosts = current.hosts
        self.networks = current.networks
        plugged = [binding for binding in current.bindings.values() if binding.plugged]
        self.plugged = {binding.vif for binding in plugged}
        self.on_host: Counter[str] = Counter(binding.host for binding in plugged)
        self.on_network: Counter[str] = Counter(binding.network for binding in plugged)
        self.in_group: Counter[str] = Counter(
            group for vif in current.vifs.values() if vif.id in self.plugged for group in vif.groups
        )
        self.on_network_host: Counter[tuple[str, str]] = Counter((binding.network, binding.host) for binding in plugged)

    def networks_of_uplink(self, host: str, uplink: str) -> list[str]:
        """The VLAN networks that a host carries through an uplink."""
        return sorted(net.name for net in self.networks.values() if net.uplink == uplink and net.on(host))


def cost_of_new(usage: Usage, name: str, new: Object) -> Cost:
    """The cost of an object that comes."""
    if isinstance(new, Uplink):
        host = usage.hosts.get(name.split("/", 1)[0])
        if host is not None:
            used = {nic: uplink.name for uplink in host.uplinks for nic in uplink.members}
            moved = [nic for nic in new.members if nic in used]
            if moved:
                return Disruption.UPLINK, f"{', '.join(moved)} comes from uplink {used[moved[0]]}"
    return Disruption.NONE, ""


def cost_of_removal(usage: Usage, name: str, old: Object) -> Cost:
    """The cost of an object that goes."""
    match old:
        case Vif():
            return (
                (Disruption.VIF, "it is plugged") if old.id in usage.plugged else (Disruption.NONE, "it is not plugged")
            )
        case Network():
            count = usage.on_network[old.name]
            return (Disruption.VIF, _plugged(count)) if count else (Disruption.NONE, "no VIF is plugged")
        case Host():
            count = usage.on_host[old.name]
            cost = Disruption.VIF if count else Disruption.FLOWS
            return cost, _plugged(count) if count else "others drop their flows towards it"
        case Uplink():
            nets = usage.networks_of_uplink(name.split("/", 1)[0], old.name)
            return Disruption.UPLINK, f"it carries {_some(nets)}" if nets else "its NIC leaves the bridge"
        case SecurityGroup():
            return Disruption.NONE, "VIFs that leave it are listed themselves"
        case Pool() | Subnet() | Vm():
            return Disruption.NONE, ""


def cost_of_field(usage: Usage, name: str, old: Object, new: Object, field: str) -> Cost:
    """The cost of one field that changes."""
    match old:
        case Network():
            return _network(usage, old, cast(Network, new), field)
        case Vif():
            return _vif(usage, old, cast(Vif, new), field)
        case Uplink():
            return _uplink(old, cast(Uplink, new), field)
        case Host():
            return _host(usage, old, field)
        case SecurityGroup():
            return _group(usage, old, cast(SecurityGroup, new), field)
        case Pool() | Subnet() | Vm():
            return _REST.get((type(old), field), (Disruption.NONE, ""))


_REST: dict[tuple[type, str], Cost] = {
    (Pool, "name"): (Disruption.NONE, "only a name"),
    (Pool, "underlay_mtu"): (Disruption.NONE, "networks whose MTU follows are listed themselves"),
    (Pool, "locking_mode"): (Disruption.NONE, "VIFs whose mode follows are listed themselves"),
    (Subnet, "network"): (Disruption.NONE, "VIFs whose addresses follow are listed themselves"),
    (Subnet, "cidr"): (Disruption.NONE, "VIFs whose addresses follow are listed themselves"),
    (Subnet, "gateway"): (Disruption.NONE, "only kept from being given to a VIF"),
    (Vm, "host"): (Disruption.NONE, "where it is started next; a running VM stays where it is"),
}


def _host(usage: Usage, old: Host, field: str) -> Cost:
    if field != "address":
        return Disruption.FLOWS, ""
    count = sum(
        count
        for (network, host), count in usage.on_network_host.items()
        if host == old.name and (net := usage.networks.get(network)) is not None and net.carrier.way is Way.TUNNEL
    )
    if not count:
        return Disruption.FLOWS, "others send to its new address; no VIF on it uses a tunnel"
    return Disruption.VIF, f"tunnels to it are cut until every host has its new address: {_plugged(count)}"


def _network(usage: Usage, old: Network, new: Network, field: str) -> Cost:
    count = usage.on_network[old.name]
    if not count and field != "hosts":
        return Disruption.NONE, "no VIF is plugged"
    if field == "hosts":
        lost = [
            host
            for (network, host), _ in sorted(usage.on_network_host.items())
            if network == old.name and not new.on(host)
        ]
        if lost:
            return Disruption.VIF, f"VIFs on {_some(lost)} lose the network"
        return Disruption.FLOWS if count else Disruption.NONE, "no VIF is where it leaves"
    if field == "mtu":
        if new.mtu > old.mtu:
            return Disruption.NONE, "ports take larger frames; VMs send them once they are told"
        return Disruption.VIF, "VMs lose larger frames until they are told"
    if field == "key" and new.carrier.way is old.carrier.way is Way.UPLINK:
        return Disruption.FLOWS, "only migrations use it"
    words = {
        "type": "its frames travel another way",
        "key": "hosts drop each other's frames until all have the new one",
        "tag": "it becomes another VLAN of the physical network",
        "uplink": "it moves to another physical network",
    }
    if field in words:
        return Disruption.VIF, f"{words[field]}: {_plugged(count)}"
    return Disruption.FLOWS, ""


def _group(usage: Usage, old: SecurityGroup, new: SecurityGroup, field: str) -> Cost:
    count = usage.in_group[old.name]
    if field == "owner" or not count:
        return Disruption.NONE, "no VIF in it is plugged"
    if field == "rules":
        narrower = not (_covered(_allows(old), _allows(new)) and _covered(_drops(new), _drops(old)))
    else:
        narrower = getattr(new, field) is Verdict.DROP
    if narrower:
        return Disruption.VIF, f"connections that it no longer allows are cut: {_plugged(count)}"
    return Disruption.FLOWS, "nothing that passed is dropped"


def _allows(group: SecurityGroup) -> list[Rule]:
    return [rule for rule in group.rules if rule.action is Verdict.ALLOW]


def _drops(group: SecurityGroup) -> list[Rule]:
    return [rule for rule in group.rules if rule.action is Verdict.DROP]


def _covered(rules: list[Rule], by: list[Rule]) -> bool:
    """Whether each of the rules matches nothing that one of the others does not match too."""
    return all(any(_covers(wide, rule) for wide in by) for rule in rules)


def _covers(wide: Rule, rule: Rule) -> bool:
    if wide.direction is not rule.direction or wide.protocol not in (None, rule.protocol):
        return False
    if wide.ports and not (
        rule.ports and all(any(w.first <= r.first and r.last <= w.last for w in wide.ports) for r in rule.ports)
    ):
        return False
    if wide.remote in (ANY, rule.remote):
        return True
    if wide.cidr is None or rule.cidr is None:
        return False
    outer, inner = ip_network(wide.cidr), ip_network(rule.cidr)
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version


def _vif(usage: Usage, old: Vif, new: Vif, field: str) -> Cost:
    if field in ("vm", "index", "host", "owner"):
        return Disruption.NONE, "its port stays as it is"
    if old.id not in usage.plugged:
        return Disruption.NONE, "it is not plugged"
    rule = _VIF_FIELDS.get(field)
    return (Disruption.FLOWS, "") if rule is None else rule(old, new)


def _addresses(old: Vif, new: Vif) -> Cost:
    lost = sorted(set(old.addresses) - set(new.addresses))
    if lost and new.locking_mode is LockingMode.LOCKED:
        return Disruption.VIF, f"what it sends from {_some(lost)} is dropped"
    return Disruption.FLOWS, "it may use the new ones at once"


def _locking_mode(old: Vif, new: Vif) -> Cost:
    if new.locking_mode is LockingMode.DISABLED:
        return Disruption.VIF, "it sends and receives nothing any more"
    if new.locking_mode is LockingMode.LOCKED:
        return Disruption.FLOWS, "only frames with another MAC or address than its own are dropped"
    return Disruption.FLOWS, "nothing that passed is dropped"


def _trunk(old: Vif, new: Vif) -> Cost:
    if old.trunk is None or new.trunk is None:
        lost = old.trunk is not None
    else:
        lost = bool(new.trunk.tags) and (not old.trunk.tags or bool(set(old.trunk.tags) - set(new.trunk.tags)))
    if lost:
        return Disruption.VIF, "it loses tags"
    return Disruption.FLOWS, "it gets tags and loses none"


def _groups(old: Vif, new: Vif) -> Cost:
    if not new.groups:
        return Disruption.FLOWS, "it is not filtered any more"
    return Disruption.VIF, "connections that its groups do not allow are cut"


_VIF_FIELDS: dict[str, Callable[[Vif, Vif], Cost]] = {
    "network": lambda old, new: (Disruption.VIF, f"it leaves {old.network} for {new.network}"),
    "mac": lambda old, new: (Disruption.VIF, "the VM has the old MAC until it is told"),
    "addresses": _addresses,
    "locking_mode": _locking_mode,
    "trunk": _trunk,
    "groups": _groups,
}


def _uplink(old: Uplink, new: Uplink, field: str) -> Cost:
    if field == "members":
        if old.mode is None or new.mode is None or not set(old.members) & set(new.members):
            return Disruption.UPLINK, "other NICs carry it"
        if set(old.members) - set(new.members):
            return Disruption.FLOWS, "the remaining members take over what the leaving one carried"
        return Disruption.NONE, "the bond gets a member; the others carry on"
    words: dict[str, Cost] = {
        "mode": (Disruption.UPLINK, "the bond is set up anew"),
        "mtu": (Disruption.UPLINK, "NICs restart their link for another MTU"),
        "hash": (Disruption.FLOWS, "flows are spread anew over the members"),
        "lacp_time": (Disruption.NONE, "only how often LACP speaks"),
    }
    return words.get(field, (Disruption.FLOWS, ""))


def _plugged(count: int) -> str:
    return f"{count:,} VIF{'s' if count != 1 else ''} plugged"


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
