"""What a pool needs to become what it should be. One rule: a plan is computed from two states alone, and says why and at what cost.

The order is make before break: what is new or changed first, each after what it stands on, then what goes, in reverse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum

from vnet.objects import Host, Network, Owner, Pool, PoolState, SecurityGroup, Subnet, Uplink, Vif, Vm
from vnet.plan.disruption import Disruption, Usage, cost_of_field, cost_of_new, cost_of_removal

Object = Pool | Host | Uplink | Network | Subnet | SecurityGroup | Vm | Vif


class Action(Enum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Kind(Enum):
    """What a change is about, in the order in which things stand on each other."""

    POOL = "pool"
    HOST = "host"
    UPLINK = "uplink"
    NETWORK = "network"
    SUBNET = "subnet"
    GROUP = "security-group"
    VM = "vm"
    VIF = "vif"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of a value, before and after."""

    field: str
    old: object
    new: object


@dataclass(frozen=True, slots=True)
class Change:
    """One object that comes, changes or goes. name: HOST/UPLINK for an uplink, the id for a VIF.

    old is None for CREATE, new for DELETE; fields: what differs, for UPDATE. A host's uplinks are changes of their own.
    """

    action: Action
    kind: Kind
    name: str
    old: Object | None
    new: Object | None
    fields: tuple[FieldChange, ...]
    reason: str
    disruption: Disruption

    @property
    def key(self) -> tuple[str, ...]:
        """What names the object's row in the pool database: empty for the pool, host and name for an uplink."""
        if self.kind is Kind.POOL:
            return ()
        return tuple(self.name.split("/", 1)) if self.kind is Kind.UPLINK else (self.name,)


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Changes in the order to make them. base_revision: the pool's when the plan was made, None for an empty database."""

    base_revision: int | None
    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def disruption(self) -> Disruption:
        """The worst of its changes."""
        return max((change.disruption for change in self.changes), default=Disruption.NONE)

    @property
    def counts(self) -> dict[Action, int]:
        counted = Counter(change.action for change in self.changes)
        return {action: counted[action] for action in Action}


def plan_pool(current: PoolState, desired: PoolState) -> PoolPlan:
    """The changes from one state to the other. Empty if nothing that a document or the toolstack configures differs.

    Bindings, agents, revision and generation are no configuration: they are not compared.
    """
    planner = _Planner(current)
    if desired.pool is not None:
        _compare(planner, Kind.POOL, _one(current.pool), _one(desired.pool))
    _compare(planner, Kind.HOST, current.hosts, desired.hosts)
    _compare(planner, Kind.UPLINK, _uplinks(current, desired), _uplinks(desired, current))
    _compare(planner, Kind.NETWORK, current.networks, desired.networks)
    _compare(planner, Kind.SUBNET, current.subnets, desired.subnets)
    _compare(planner, Kind.GROUP, current.groups, desired.groups)
    _compare(planner, Kind.VM, current.vms, desired.vms)
    _compare(planner, Kind.VIF, current.vifs, desired.vifs)
    base = None if current.pool is None else current.pool.revision
    return PoolPlan(base, (*planner.made, *reversed(planner.removed)))


def _one(pool: Pool | None) -> dict[str, Pool]:
    return {} if pool is None else {"": pool}


def _uplinks(state: PoolState, other: PoolState) -> dict[str, Uplink]:
    """The uplinks of the hosts that differ, by HOST/UPLINK."""
    return {
        f"{name}/{uplink.name}": uplink
        for name, host in state.hosts.items()
        if other.hosts.get(name) is not host
        for uplink in host.uplinks
    }


class _Planner:
    def __init__(self, current: PoolState) -> None:
        self.usage = Usage(current)
        self.made: list[Change] = []
        self.removed: list[Change] = []

    def create(self, kind: Kind, name: str, new: Object) -> None:
        disruption, cost = cost_of_new(self.usage, name, new)
        reason = _because("new in the document", new, cost)
        self.made.append(Change(Action.CREATE, kind, name, None, new, (), reason, disruption))

    def update(self, kind: Kind, name: str, old: Object, new: Object) -> None:
        changed = tuple(
            FieldChange(f.name, before, after)
            for f in fields(old)
            if f.name not in NOT_CONFIGURED
            if (before := getattr(old, f.name)) != (after := getattr(new, f.name))
        )
        if not changed:
            return
        costs = [cost_of_field(self.usage, name, old, new, change.field) for change in changed]
        disruption = max(cost for cost, _ in costs)
        why = "; ".join(dict.fromkeys(reason for cost, reason in costs if reason))
        self.made.append(Change(Action.UPDATE, kind, name, old, new, changed, why, disruption))

    def remove(self, kind: Kind, name: str, old: Object) -> None:
        disruption, cost = cost_of_removal(self.usage, name, old)
        reason = _because("no longer in the document", old, cost)
        self.removed.append(Change(Action.DELETE, kind, name, old, None, (), reason, disruption))


NOT_CONFIGURED = frozenset({"uplinks", "revision", "generation", "epoch", "incoming", "awaited"})


def _because(document: str, value: Object, cost: str) -> str:
    theirs = getattr(value, "owner", Owner.DOCUMENT) is Owner.TOOLSTACK
    first = document.replace("in the document", "from the toolstack") if theirs else document
    return f"{first}; {cost}" if cost else first


def _compare(planner: _Planner, kind: Kind, old: Mapping[str, Object], new: Mapping[str, Object]) -> None:
    for name, value in new.items():
        before = old.get(name)
        if before is None:
            planner.create(kind, name if name else value_name(value), value)
        elif before is not value:
            planner.update(kind, name if name else value_name(value), before, value)
    for name in reversed([name for name in old if name not in new]):
        planner.remove(kind, name, old[name])


def value_name(value: Object) -> str:
    return getattr(value, "name", "")
