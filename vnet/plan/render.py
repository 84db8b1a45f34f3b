"""A plan in words and as plain data. One rule: the text has one line per change, the data has all that the text has."""

from __future__ import annotations

from typing import Any

from vnet.grammar.declare import Spelling, attrs_of, json_word, plain
from vnet.objects import Network, Rule
from vnet.objects.impact import Disruption
from vnet.plan.pool import FieldChange, ObjectChange, PlanAction, PoolPlan

NOTHING = "Nothing to change: the pool is as the document says."
SIGN = {PlanAction.CREATE: "+", PlanAction.UPDATE: "~", PlanAction.DELETE: "-"}


def render_plan(plan: PoolPlan, nothing: str = NOTHING) -> str:
    """One line per change and a sum, without a newline at the end: '+ network tenant-a  vxlan vni 5001 mtu 1450   (...)'. nothing: the text
    of an empty plan."""
    if not plan:
        return nothing
    width = min(36, max(len(_title(change)) for change in plan.changes))
    lines = [_line(change, width) for change in plan.changes]
    counts = plan.counts
    total = ", ".join(f"{counts[action]:,} to {action.value}" for action in PlanAction if counts[action])
    return "\n".join([*lines, "", f"{total}. Disruption: {plan.disruption}."])


def plan_dict(plan: PoolPlan) -> dict[str, object]:
    """The plan for JSON: strings, numbers, booleans, lists and dicts only."""
    return {
        "base_revision": plan.base_revision,
        "disruption": plan.disruption.name.lower(),
        "counts": {action.value: count for action, count in plan.counts.items()},
        "changes": [change_dict(change) for change in plan.changes],
    }


def change_dict(change: ObjectChange) -> dict[str, object]:
    """One change for JSON. `old` and `new` are None where there is no such object."""
    return {
        "action": change.action.value,
        "kind": change.noun,
        "name": change.name,
        "fields": {f.field: {"old": _plain(change, f, f.old), "new": _plain(change, f, f.new)} for f in change.fields},
        "old": None if change.old is None else plain(change.old, document=False),
        "new": None if change.new is None else plain(change.new, document=False),
        "reason": change.reason,
        "disruption": change.disruption.name.lower(),
    }


def _spelling(change: ObjectChange, changed: FieldChange) -> Spelling:
    """The field's word as the changed object has it."""
    variant = getattr(change.new, change.type.VARIANT).value if change.type.VARIANT is not None else None
    spellings = attrs_of(change.type)[changed.field].spellings
    return next((s for s in spellings if not s.only or variant in s.only), spellings[0])


def _plain(change: ObjectChange, changed: FieldChange, value: Any) -> Any:
    return None if value is None else _spelling(change, changed).type.plain(value)


def _title(change: ObjectChange) -> str:
    return f"{change.noun} {change.name}".rstrip()


def _line(change: ObjectChange, width: int) -> str:
    shown = change.new if change.new is not None else change.old
    words = ", ".join(_field(change, f) for f in change.fields) if change.fields else shown.summary
    cost = "disrupts nothing" if change.disruption is Disruption.NONE else str(change.disruption)
    reason = f"{change.reason}; {cost}" if change.reason else cost
    return f"{SIGN[change.action]} {_title(change):{width}}  {words}".rstrip() + f"   ({reason})"


def _field(change: ObjectChange, changed: FieldChange) -> str:
    if changed.field == change.type.NOUN.key:
        return f"renamed from {changed.old}"
    if changed.field == "rules":
        return _rules(changed.old, changed.new)
    spelling = _spelling(change, changed)
    word = json_word(attrs_of(change.type)[changed.field], spelling).replace("_", "-")
    if changed.field == "key" and isinstance(change.new, Network):
        word = change.new.carrier.key_word or word
    empty = "everywhere" if word == "hosts" else "[]"
    old, new = (_word(_plain(change, changed, value), empty) for value in (changed.old, changed.new))
    return f"{word} {old} -> {new}"


def _rules(old: tuple[Rule, ...], new: tuple[Rule, ...]) -> str:
    """'rules +www (ingress tcp [80]), ~http (ports [80] -> [81])': the rules that come, change and go."""
    before, after = {rule.name: rule for rule in old}, {rule.name: rule for rule in new}
    parts = [f"-{name} ({_rule(rule)})" for name, rule in before.items() if name not in after]
    parts += [f"+{name} ({_rule(rule)})" for name, rule in after.items() if name not in before]
    parts += [f"~{name} ({_differences(before[name], rule)})" for name, rule in after.items() if name in before]
    return "rules " + ", ".join(sorted((part for part in parts if not part.endswith("()")), key=lambda part: part[1:]))


def _rule(rule: Rule) -> str:
    words = plain(rule, document=True)
    return " ".join(_word(value) for key, value in words.items() if key != "name")


def _differences(old: Rule, new: Rule) -> str:
    was, now = plain(old, document=False), plain(new, document=False)
    fields = [f"{key} {_word(was[key], 'any')} -> {_word(now[key], 'any')}" for key in now if was[key] != now[key]]
    return ", ".join(fields)


def _word(value: object, empty: str = "[]") -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]" if value else empty
    return str(value)
