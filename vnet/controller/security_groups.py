"""Security groups for a toolstack, as decisions: their making and removal, and who is in them.

One rule: a group is what the last call said it is, so that its rules can change under the VIFs that obey them. What the
document made, a group or who is in it, is changed there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from vnet import api
from vnet.controller.admission import Outcome, checked, find, reference
from vnet.controller.errors import Conflict, Invalid
from vnet.db.changes import Delete, Insert, Update
from vnet.db.view import PoolView
from vnet.objects import Direction, Owner, PoolState, PortRange, Protocol, Rule, SecurityGroup, Verdict, Vif
from vnet.objects.allocate import Exhausted, Ids
from vnet.objects.security import ANY, MAX_REMOTE_GROUPS, crowded_networks
from vnet.topology.document import MAX_GROUPS_OF_VIF, MAX_RULES, is_group
from vnet.topology.grammar import Refused
from vnet.topology.kinds import REMOTE
from vnet.util.suggest import listing

_SPAN = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


def make_group(view: PoolView, name: str, spec: api.SecurityGroupSpec) -> Outcome:
    """The row of a group, made or changed. Raises Invalid, Conflict."""
    state = view.state
    have = state.groups.get(name)
    try:
        number = have.number if have is not None else Ids.of("", state).group_number()
    except Exhausted as error:
        raise Conflict("exhausted", str(error)) from None
    rules = _rules(spec.rules)
    after = checked(
        lambda: SecurityGroup(name, number, Verdict(spec.ingress), Verdict(spec.egress), rules, Owner.TOOLSTACK)
    )
    if have is not None and replace(after, owner=have.owner) == have:
        return Outcome(name)
    if have is not None and have.owner is Owner.DOCUMENT:
        raise Conflict("owned-by-document", f"security group {name} is the document's: change it there", name)
    groups = {**state.groups, name: after}
    for remote in sorted(after.remotes()):
        reference("security group", "rules", remote, groups)
    here = {vif.network for vif in state.vifs.values() if name in vif.groups}
    _check_crowded(state.vifs.values(), groups, here, "rules")
    return Outcome(name, (Insert(after) if have is None else Update(have, after),))


def drop_group(view: PoolView, name: str) -> Outcome:
    """The row to delete for a group to be gone. Raises Conflict while VIFs are in it or rules name it, and names them."""
    group = view.state.groups.get(name)
    if group is None:
        return Outcome(name)
    vifs = [vif.id for vif in view.state.vifs.values() if name in vif.groups]
    if vifs:
        raise Conflict("in-use", f"security group {name} still has VIFs: {listing(vifs)}", name)
    named = [other.name for other in view.state.groups.values() if other is not group and name in other.remotes()]
    if named:
        raise Conflict("in-use", f"security group {name} is named by rules of: {listing(named)}", name)
    return Outcome(name, (Delete(group),))


def set_groups(view: PoolView, id: str, names: Iterable[str]) -> Outcome:
    """The row of a VIF in other groups. Raises NotFound, Invalid, Conflict."""
    vif = find("vif", id, view.state.vifs)
    groups = tuple(sorted(set(names)))
    if groups == vif.groups:
        return Outcome(id)
    if vif.owner is Owner.DOCUMENT:
        raise Conflict("owned-by-document", f"VIF {id} is the document's: change its security-groups there", id)
    after = checked(lambda: replace(vif, groups=groups))
    check_groups(view.state, after)
    return Outcome(id, (Update(vif, after),))


def check_groups(state: PoolState, vif: Vif) -> None:
    """A VIF may be in its groups: they are there, and its network has few enough that rules name. Raises Invalid, Conflict."""
    if len(vif.groups) > MAX_GROUPS_OF_VIF:
        message = f"security_groups: {len(vif.groups)} groups: a VIF is in at most {MAX_GROUPS_OF_VIF}"
        raise Invalid("too-many", message, "security_groups")
    for name in vif.groups:
        reference("security group", "security_groups", name, state.groups)
    if vif.groups:
        vifs = {**state.vifs, vif.id: vif}
        _check_crowded(vifs.values(), state.groups, {vif.network}, "security_groups")


def _check_crowded(vifs: Iterable[Vif], groups: Mapping[str, SecurityGroup], networks: set[str], field: str) -> None:
    members = [(vif.network, vif.groups) for vif in vifs if vif.network in networks and vif.groups]
    remotes = {name: group.remotes() for name, group in groups.items()}
    for network, count in crowded_networks(members, remotes).items():
        message = (
            f"the rules of VIFs on network {network} would name {count} groups as remote: {MAX_REMOTE_GROUPS} at most"
        )
        raise Conflict("too-many", message, field)


def _rules(specs: list[api.Rule]) -> tuple[Rule, ...]:
    if len(specs) > MAX_RULES:
        raise Invalid("too-many", f"rules: {len(specs)} rules: at most {MAX_RULES}", "rules")
    names = [spec.name for spec in specs]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise Invalid("rule-twice", f"rules: rule {twice} stands there twice", "rules")
    return tuple(sorted(map(rule_of, specs), key=lambda rule: rule.name))


def rule_of(spec: api.Rule) -> Rule:
    """A rule as a value. Raises Invalid."""
    try:
        remote = REMOTE.parse(spec.remote)
    except Refused as refused:
        hint = f"; {refused.hint}" if refused.hint else ""
        raise Invalid("invalid-value", f"rules: rule {spec.name}: remote: {refused.message}{hint}", "rules") from None
    return checked(
        lambda: Rule(
            name=spec.name,
            direction=Direction(spec.direction),
            action=Verdict(spec.action),
            protocol=Protocol(spec.protocol) if isinstance(spec.protocol, str) else spec.protocol,
            ports=PortRange.merged(_span(spec, port) for port in spec.ports),
            cidr=None if remote == ANY or is_group(remote) else remote,
            group=remote if is_group(remote) else None,
        ),
        f"rules: rule {spec.name}: ",
    )


def _span(spec: api.Rule, port: int | str) -> PortRange:
    if isinstance(port, int):
        return PortRange(port, port)
    found = _SPAN.fullmatch(port)
    if found is None:
        message = (
            f"rules: rule {spec.name}: ports: {port[:20]!r} is no range; write a port as a number, a range as 443-445"
        )
        raise Invalid("invalid-value", message, "rules")
    return PortRange(int(found[1]), int(found[2]))
