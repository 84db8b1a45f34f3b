"""A plan in words and as plain data. One rule: the text has one line per change, the data has all that the text has."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import cast

from vnet.objects import (
    Host,
    Network,
    Pool,
    PortRange,
    Rule,
    SecurityGroup,
    Subnet,
    Trunk,
    Uplink,
    Vif,
    Vm,
    Way,
)
from vnet.plan.disruption import Disruption
from vnet.plan.pool import Action, Change, FieldChange, Object, PoolPlan

SIGN = {Action.CREATE: "+", Action.UPDATE: "~", Action.DELETE: "-"}


def render_plan(plan: PoolPlan) -> str:
    """One line per change and a sum, without a newline at the end: '+ network tenant-a  vxlan vni 5001 mtu 1450   (...)'."""
    if not plan:
        return "Nothing to change: the pool is as the document says."
    width = min(36, max(len(_title(change)) for change in plan.changes))
    lines = [_line(change, width) for change in plan.changes]
    counts = plan.counts
    total = ", ".join(f"{counts[action]:,} to {action.value}" for action in Action if counts[action])
    return "\n".join([*lines, "", f"{total}. Disruption: {plan.disruption}."])


def plan_dict(plan: PoolPlan) -> dict[str, object]:
    """The plan for JSON: strings, numbers, booleans, lists and dicts only."""
    return {
        "base_revision": plan.base_revision,
        "disruption": plan.disruption.name.lower(),
        "counts": {action.value: count for action, count in plan.counts.items()},
        "changes": [change_dict(change) for change in plan.changes],
    }


def change_dict(change: Change) -> dict[str, object]:
    """One change for JSON. `old` and `new` are None where there is no such object."""
    return {
        "action": change.action.value,
        "kind": change.kind.value,
        "name": change.name,
        "fields": {f.field: {"old": plain(f.old), "new": plain(f.new)} for f in change.fields},
        "old": None if change.old is None else _object(change.old),
        "new": None if change.new is None else _object(change.new),
        "reason": change.reason,
        "disruption": change.disruption.name.lower(),
    }


def _object(value: Object) -> dict[str, object]:
    return {name: plain(getattr(value, name)) for name in _NAMES[type(value)]}


_NAMES: dict[type, tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind) if field.name != "uplinks")
    for kind in (Pool, Host, Uplink, Network, Subnet, SecurityGroup, Vm, Vif)
}


def plain(value: object) -> object:
    """A field's value for JSON."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Trunk):
        return list(value.tags) or "all"
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Rule):
        return rule_dict(value)
    if isinstance(value, PortRange):
        return str(value)
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def rule_dict(rule: Rule) -> dict[str, object]:
    """A rule in the document's words: what it leaves out is left out."""
    said: dict[str, object] = {"name": rule.name, "direction": rule.direction.value}
    if rule.protocol is not None:
        said["protocol"] = plain(rule.protocol)
    if rule.ports:
        said["ports"] = [span.first if span.first == span.last else str(span) for span in rule.ports]
    return {**said, "remote": rule.remote, "action": rule.action.value}


def _title(change: Change) -> str:
    return f"{change.kind.value} {change.name}".rstrip()


def _line(change: Change, width: int) -> str:
    what = ", ".join(_field(change, f) for f in change.fields) if change.fields else summary(change.new or change.old)
    cost = "disrupts nothing" if change.disruption is Disruption.NONE else str(change.disruption)
    why = f"{change.reason}; {cost}" if change.reason else cost
    return f"{SIGN[change.action]} {_title(change):{width}}  {what}".rstrip() + f"   ({why})"


def _field(change: Change, changed: FieldChange) -> str:
    if changed.field == "rules":
        return _rules(cast(tuple[Rule, ...], changed.old), cast(tuple[Rule, ...], changed.new))
    name = "security-groups" if changed.field == "groups" else changed.field.replace("_", "-")
    if name == "key" and isinstance(change.new, Network):
        name = change.new.carrier.key_word
    empty = "everywhere" if name == "hosts" else "[]"
    return f"{name} {_word(changed.old, empty)} -> {_word(changed.new, empty)}"


def _rules(old: tuple[Rule, ...], new: tuple[Rule, ...]) -> str:
    """'+http, ~ssh, -ping': the rules that come, change and go."""
    before, after = {rule.name: rule for rule in old}, {rule.name: rule for rule in new}
    signs = [(name, "~" if name in before else "+") for name, rule in after.items() if before.get(name) != rule]
    signs += [(name, "-") for name in before.keys() - after.keys()]
    return "rules " + ", ".join(f"{sign}{name}" for name, sign in sorted(signs))


def _word(value: object, empty: str = "[]") -> str:
    shown = plain(value)
    if shown is None:
        return "none"
    if isinstance(shown, list):
        return "[" + ", ".join(map(str, shown)) + "]" if shown else empty
    return str(shown)


def summary(value: Object | None) -> str:
    """An object in a few words: 'vxlan vni 5001 mtu 1450'."""
    match value:
        case Pool():
            return f"underlay mtu {value.underlay_mtu}, VIFs {value.locking_mode.value}"
        case Host():
            return value.address or "no address"
        case Uplink():
            mode = f"{value.mode.value} " if value.mode is not None else ""
            mtu = f" mtu {value.mtu}" if value.mtu is not None else ""
            return f"{mode}{'+'.join(value.members)}{mtu}"
        case Network():
            return _network(value)
        case Subnet():
            return f"{value.cidr} on {value.network}" + (f" gateway {value.gateway}" if value.gateway else "")
        case SecurityGroup():
            count = f"{len(value.rules)} rule{'s' if len(value.rules) != 1 else ''}"
            return f"{count}, else ingress {value.ingress.value}, egress {value.egress.value}"
        case Vm():
            return f"on {value.host}" if value.host else ""
        case Vif():
            trunk = f" trunk {_word(value.trunk)}" if value.trunk is not None else ""
            groups = f" in {', '.join(value.groups)}" if value.groups else ""
            return " ".join([f"{value.network} {value.mac}", *value.addresses]) + trunk + groups
        case None:
            return ""


def _network(network: Network) -> str:
    words = [network.type.value]
    if network.carrier.way is Way.UPLINK:
        words += [f"tag {network.tag}" if network.tag else "untagged", f"uplink {network.uplink}"]
    elif network.key is not None:
        words.append(f"{network.carrier.key_word} {network.key}")
    words.append(f"mtu {network.mtu}")
    if network.hosts:
        words.append(f"on {', '.join(sorted(network.hosts))}")
    return " ".join(words)
