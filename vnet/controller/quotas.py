"""Quotas of scopes. One rule: a change costs no walk through the pool, so what a scope has is counted once and kept as the pool changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from vnet.api.errors import Conflict
from vnet.db.changes import RowChange
from vnet.db.database import PoolDatabase
from vnet.db.mirror import Delta
from vnet.grammar.declare import Declared
from vnet.objects import PoolState, Vif, Vm
from vnet.objects.scope import Scope
from vnet.util.suggest import plural

KEPT = 1000  # scopes that are counted


class Quotas:
    """What each scope with a quota has by now."""

    def __init__(self, database: PoolDatabase) -> None:
        self._counts: Final[dict[Scope, dict[type[Declared], int]]] = {}
        database.subscribe(self._take)

    def check(self, scope: Scope, changes: Sequence[RowChange], state: PoolState) -> None:
        """Raises Conflict for changes after which the scope has more than its quota, and more than before."""
        for declared, most in ((Vif, scope.max_vifs), (Vm, scope.max_vms)):
            added = sum(_weight(scope, declared, change) for change in changes)
            if most is None or added <= 0:
                continue
            used = self._used(scope, state)[declared]
            if used + added > most:
                message = f"the quota is {most} {plural(declared.NOUN.text)}, and {used} are there"
                raise Conflict("over-quota", message, declared.NOUN.plural)

    def _used(self, scope: Scope, state: PoolState) -> dict[type[Declared], int]:
        if scope not in self._counts:
            if len(self._counts) >= KEPT:
                self._counts.clear()
            self._counts[scope] = {
                Vif: sum(_is_its(scope, vif) for vif in state.vifs.values()),
                Vm: sum(_is_its(scope, vm) for vm in state.vms.values()),
            }
        return self._counts[scope]

    def _take(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            value = delta.new if delta.new is not None else delta.old
            if not isinstance(value, Vif | Vm):
                continue
            for scope, counts in self._counts.items():
                counts[type(value)] += _is_its(scope, delta.new) - _is_its(scope, delta.old)


def _weight(scope: Scope, declared: type[Declared], change: RowChange) -> int:
    """What a change adds to the number of a scope's objects."""
    old, new = change.old, change.new
    if not isinstance(new if new is not None else old, declared):
        return 0
    return _is_its(scope, new) - _is_its(scope, old)


def _is_its(scope: Scope, value: Declared | None) -> bool:
    if isinstance(value, Vm):
        return scope.has_vm(value.name, value.labels)
    return value is not None and scope.sees(value)
