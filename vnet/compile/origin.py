"""The origin of a compiled flow in words: its source, its rule, and the groups that it asks, step by step.

One rule: what is said of a flow follows from the flow and the objects that it was compiled from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ovsctl.openflow import Action, Flow
from ovsctl.openflow import actions as act
from vnet.compile.features import FEATURES, FlowSource
from vnet.compile.inputs import Input
from vnet.compile.pipeline import GROUP_NUMBER, MANDATORY, REG_GROUP, STEP_ENDS, Category
from vnet.compile.security import rule_cookie
from vnet.compile.view import HostView
from vnet.objects import Rule, SecurityGroup, Vif
from vnet.objects.tiers import Tier

Groups = Mapping[str, SecurityGroup]

BY_CATEGORY = {feature.category: feature for feature in FEATURES}
LEARNED = "learned by the switch from an announcement"
OF_A_VIF = frozenset({Input.VIF, Input.BINDINGS, Input.PEER})


def origin(source: FlowSource | None, cookie: int, groups: Groups, name: str = "") -> str:
    """The origin of a flow in words; a flow without a source was learned by the switch. name: of the source's object, for people."""
    if source is None:
        return LEARNED
    name = name or source.name
    rule, group = rule_of(source, cookie, groups), _group_of(source, groups)
    if group is not None and group.tier is not Tier.VIF:
        name = f"{name} of tier {group.step_of(rule.name if rule is not None else '')}"
    return BY_CATEGORY[source.category].origin.format(name) + (f", rule {rule.name}" if rule is not None else "")


def rule_of(source: FlowSource, cookie: int, groups: Groups) -> Rule | None:
    """The rule of a security group with a flow's cookie; None for the group's default, and where a step ends."""
    group = _group_of(source, groups)
    return (
        next((rule for rule in group.rules if rule_cookie(group, rule) == cookie), None) if group is not None else None
    )


def _group_of(source: FlowSource, groups: Groups) -> SecurityGroup | None:
    return groups.get(source.name) if source.category is Category.GROUP else None


def sources_of_vif(view: HostView, sources: Iterable[FlowSource], vif: Vif) -> Iterator[FlowSource]:
    """The sources whose flows a VIF's frames meet because of what it is: its own, the groups that judge it, and what its network has for VIFs such as it."""
    groups, behind = view.obeyed(vif), view.behind(vif)
    mirrors = [*view.mirrors_of(vif.network, vif.id), *(it for it in view.all_mirrors() if it.target == vif.id)]
    of_network = {
        Category.NETWORK_RATE: True,
        Category.ROUTER: bool(vif.vrrp),
        Category.MULTICAST: view.is_heard(vif),
        Category.ADDRESS_SET: bool(groups),
        Category.MIRRORED_NETWORK: True,
    }
    for source in sources:
        category, name, network = source
        match category:
            case Category.MIRROR:
                its = any(name == mirror.name for mirror in mirrors)
            case Category.GROUP:
                its = network == vif.network and name in groups
            case Category.BEHIND:
                its = network == vif.network and name in behind
            case Category.LISTENERS:
                its = network == vif.network and any(
                    each.id == vif.id for _, each in view.listening_here(name, network)
                )
            case _ if category in of_network:
                its = name == vif.network and of_network[category]
            case _:
                its = name == vif.id and bool(OF_A_VIF & {*BY_CATEGORY[category].of})
        if its:
            yield source


def asked(flow: Flow, groups: Iterable[SecurityGroup]) -> list[str]:
    """The groups whose rules a flow asks, in order, as "mandatory rules of base (pool)". The first step with a rule that matches decides."""
    names = {group.number: group for group in groups}
    return list(dict.fromkeys(_asked(flow.actions, names)))


def _asked(actions: Iterable[Action], groups: Mapping[int, SecurityGroup]) -> Iterator[str]:
    for action in actions:
        match action:
            case act.Clone(actions=inside):  # a group in monitor mode is asked beside the others, and named last
                if numbers := [number for each in inside if (number := _number(each)) is not None]:
                    yield from (f"in monitor mode {group.name}" for group in _known(numbers[-1], groups))
            case _ if (number := _number(action)) is not None and not number & STEP_ENDS:
                for group in _known(number, groups):
                    rules = "mandatory rules" if number & MANDATORY else "rules"
                    yield f"{rules} of {group.name}{'' if group.tier is Tier.VIF else f' ({group.tier.value})'}"


def ends_step(flow: Flow) -> bool:
    """Whether a flow of a group says that the rules of a step have decided, so that what is asked afterwards says nothing."""
    found = flow.match.get(REG_GROUP)
    return found is not None and bool(found.value & STEP_ENDS)


def _known(number: int, groups: Mapping[int, SecurityGroup]) -> Iterator[SecurityGroup]:
    if (group := groups.get(number & GROUP_NUMBER)) is not None:
        yield group


def _number(action: Action) -> int | None:
    return action.value if isinstance(action, act.SetField) and action.field.name == REG_GROUP else None
