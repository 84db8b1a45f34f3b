"""The changes that make a pool the desired one. One rule: a plan is computed from two states alone, and says why and at what cost.

The order is make before break: what is new or changed first, each after what it stands on, then what goes, in reverse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from vnet.db.history import Costs
from vnet.grammar.declare import Attr, Declared, SetBy, attrs_of
from vnet.objects import Host, Owner, Pool, PoolState, Uplink
from vnet.objects.allocate import in_order
from vnet.objects.impact import Disruption, Usage, cost_of_field
from vnet.objects.index import VifIndex
from vnet.objects.proposal import Proposal
from vnet.objects.renames import renamed
from vnet.objects.state import CONFIGURED, Renames


class PlanAction(Enum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of an object, before and after."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """One object that comes, changes or goes. name: HOST/UPLINK for an uplink, the id for a VIF.

    old is None for CREATE, new for DELETE; fields: those that differ, for UPDATE. A host's uplinks are changes of their own.
    """

    action: PlanAction
    type: type[Declared]
    name: str
    old: Any
    new: Any
    fields: tuple[FieldChange, ...]
    reason: str
    disruption: Disruption

    @property
    def noun(self) -> str:
        return self.type.NOUN.word

    @property
    def key(self) -> tuple[str, ...]:
        """The key of the object's row in the pool database: empty for the pool, host and name for an uplink."""
        if self.type is Pool:
            return ()
        return tuple(self.name.split("/", 1)) if self.type is Uplink else (self.name,)


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Changes in the order to make them. base_revision: the pool's when the plan was made, None for an empty database."""

    base_revision: int | None
    changes: tuple[ObjectChange, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def disruption(self) -> Disruption:
        """The worst of its changes."""
        return max((change.disruption for change in self.changes), default=Disruption.NONE)

    @property
    def counts(self) -> dict[PlanAction, int]:
        counted = Counter(change.action for change in self.changes)
        return {action: counted[action] for action in PlanAction}


def costs_of(plan: PoolPlan) -> Costs:
    """The costs of a plan's changes, for the record of its write. Those of a host's uplinks are the host's there."""
    found: dict[tuple[str, str], tuple[str, Disruption]] = {}
    for change in plan.changes:
        at, reason = (change.noun, change.name), change.reason
        if change.type is Uplink:
            host, uplink = change.key
            at, reason = (Host.NOUN.word, host), f"uplink {uplink}: {reason}"
        before, worst = found.get(at, ("", change.disruption))
        found[at] = "; ".join(filter(None, (before, reason))), max(worst, change.disruption)
    lines = {at: (reason, disruption.name.lower()) for at, (reason, disruption) in found.items()}
    return Costs(plan.disruption.name.lower(), lines)


def plan_pool(current: PoolState, desired: PoolState) -> PoolPlan:
    """The changes from one state to the other. Empty if nothing that a document or the toolstack configures differs.

    Bindings, agents, revision and generation are no configuration: they are not compared.
    """
    before = renamed(current, desired.renames)
    return plan_proposal(Proposal.between(before, desired, VifIndex(), Owner.DOCUMENT), Usage(before))


def plan_proposal(proposal: Proposal, usage: Usage, source: str = "") -> PoolPlan:
    """The plan of a proposal. usage: of the pool before, in which what is renamed has its new names already. source: where it comes from, for its
    reasons; the document or the toolstack if left out."""
    before = proposal.before
    planner = _Planner(usage, source, before.renames)
    if (pool := proposal.changes.get("pool", {}).get("")) is not None:
        planner.compare(Pool, pool.name, before.pool, pool)
    for declared in CONFIGURED:
        state = declared.NOUN.state
        changed, old = proposal.changes.get(state, {}), getattr(before, state)
        removed = in_order(
            name for name, new in changed.items() if new is None and name in old
        )  # a database has no order
        for name in (name for name in before.renames.get(state, {}) if name not in changed):
            planner.compare(declared, name, old[name], old[name])
        for name, new in changed.items():
            if new is not None:
                planner.compare(declared, name, old.get(name), new)
        for name in reversed(removed):
            planner.compare(declared, name, old[name], None)
        if state == "hosts":
            planner.uplinks({name: (old.get(name), new) for name, new in changed.items()})
    base = None if before.pool is None else before.pool.revision
    return PoolPlan(base, (*planner.made, *reversed(planner.removed)))


class _Planner:
    def __init__(self, usage: Usage, source: str, renames: Renames) -> None:
        self.usage = usage
        self.source = source
        self.renames = renames
        self.made: list[ObjectChange] = []
        self.removed: list[ObjectChange] = []

    def compare(self, declared: type[Declared], name: str, old: Any, new: Any) -> None:
        if old is None:
            disruption, cost = new.cost_of_new(self.usage, name)
            reason = self._because("new in the document", new, cost)
            self.made.append(ObjectChange(PlanAction.CREATE, declared, name, None, new, (), reason, disruption))
        elif new is None:
            disruption, cost = old.cost_of_removal(self.usage, name)
            reason = self._because("no longer in the document", old, cost)
            self.removed.append(ObjectChange(PlanAction.DELETE, declared, name, old, None, (), reason, disruption))
        else:
            self._update(declared, name, old, new)

    def _because(self, document: str, value: Any, cost: str) -> str:
        theirs = getattr(value, "owner", Owner.DOCUMENT) is Owner.TOOLSTACK
        first = document.replace("in the document", "from the toolstack") if theirs else document
        if self.source:
            first = document.replace("the document", self.source)
        return f"{first}; {cost}" if cost else first

    def _update(self, declared: type[Declared], name: str, old: Any, new: Any) -> None:
        fields, costs = [], []
        if (former := self.renames.get(declared.NOUN.state, {}).get(name)) is not None:
            fields.append(FieldChange(declared.NOUN.key, former, name))
            costs.append((Disruption.NONE, "it stays the same one"))
        for field, found in attrs_of(declared).items():
            before, after = getattr(old, field), getattr(new, field)
            if before != after and is_configured(found) and found.stored:
                fields.append(FieldChange(field, before, after))
                costs.append(cost_of_field(self.usage, name, old, new, found.change))
        if fields:
            reason = "; ".join(dict.fromkeys(reason for _, reason in costs if reason))
            disruption = max(cost for cost, _ in costs)
            self.made.append(
                ObjectChange(PlanAction.UPDATE, declared, name, old, new, tuple(fields), reason, disruption)
            )

    def uplinks(self, hosts: Mapping[str, tuple[Any, Any]]) -> None:
        old = {f"{name}/{u.name}": u for name, (host, _) in hosts.items() if host is not None for u in host.uplinks}
        new = {f"{name}/{u.name}": u for name, (_, host) in hosts.items() if host is not None for u in host.uplinks}
        for name, uplink in new.items():
            if old.get(name) != uplink:
                self.compare(Uplink, name, old.get(name), uplink)
        for name in reversed([name for name in old if name not in new]):
            self.compare(Uplink, name, old[name], None)


def is_configured(found: Attr) -> bool:
    """Whether a document or a toolstack decides the field, its owner included. `awaited` is a plug's, not configuration."""
    return (found.set_by is not SetBy.RUNTIME or found.allocated or found.name == "owner") and found.name != "awaited"
