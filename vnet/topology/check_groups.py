"""Security groups: what their rules name is there, each rule has a name of its own, and networks have few enough of them."""

from __future__ import annotations

from vnet.objects import Owner, Protocol
from vnet.objects.security import ANY, MAX_REMOTE_GROUPS, crowded_networks
from vnet.topology.document import GroupSpec, RuleSpec, is_group
from vnet.topology.view import View

EVERYBODY = ("all", "anyone", "anywhere", "everybody", "everyone", "everywhere", "internet", "world")


def check_groups(view: View) -> None:
    """Every group of the document, and what they come to on each network."""
    for spec in view.document.security_groups.values():
        _group(view, spec)
    _crowded(view)


def _group(view: View, spec: GroupSpec) -> None:
    first: dict[str, RuleSpec] = {}
    for rule in spec.rules:
        if (other := first.setdefault(rule.name, rule)) is not rule:
            line = place.line if (place := other.at("name")) is not None else 0
            message = f"rule {rule.name} is there already, on line {line}"
            view.source.add("twice", message, rule.at("name"), "each rule of a group has a name of its own")
        portless = rule.protocol is not None or not rule.unclear("protocol")
        if rule.ports and portless and rule.protocol not in (Protocol.TCP, Protocol.UDP):
            view.source.add("rule", "'ports' without 'protocol: tcp' or 'udp'", rule.at("ports"), "say which")
        if is_group(rule.remote) and rule.remote not in view.group_names:
            place = rule.at("remote")
            if rule.remote.casefold() in EVERYBODY:
                message = f"unknown security group '{rule.remote}'"
                view.source.add("unknown-security", message, place, f"did you mean '{ANY}'?")
            else:
                view.source.unknown("security group", rule.remote, view.group_names | {ANY}, place)


def _crowded(view: View) -> None:
    document = view.document
    remotes = {
        name: group.remotes() for name, group in view.others.groups.items() if group.owner is Owner.TOOLSTACK
    } | {name: spec.remotes() for name, spec in document.security_groups.items()}
    members = [(vif.network, vif.groups) for vif in view.others.vifs.values() if vif.owner is Owner.TOOLSTACK]
    members += [(vif.network, vif.security_groups) for vm in document.vms.values() for vif in vm.vifs]
    for network, count in sorted(crowded_networks(members, remotes).items()):
        net = view.networks.get(network)
        message = f"the rules of VIFs on network {network} name {count} security groups as 'remote'"
        place = net.spec.at() if net is not None and net.spec is not None else document.at_key("security-groups")
        view.source.add("too-many", message, place, f"at most {MAX_REMOTE_GROUPS}: put VIFs of one kind into one group")
