"""The transactions an agent makes on the pool database. Pure: operations out, nothing sent.

Each may be repeated after a lost answer: what it waits for then no longer holds, or it writes what is there already.
"""

from __future__ import annotations

from collections.abc import Mapping

from ovsctl.ovsdb import Delete, Insert, Mutate, Operation, Update, Wait
from vnet.model import AgentStatus, Binding, Event
from vnet.pool.rows import to_columns


def bind(decided: Binding, actual: Binding | None) -> list[Operation]:
    """Makes this host's binding what was decided; `actual` is the row the database has.

    A binding with a new epoch takes it from the VIF, so of two hosts that claim at once one is refused.
    """
    mine = (("vif", "==", decided.vif), ("host", "==", decided.host))
    if actual is not None and actual.epoch == decided.epoch:
        state = {"state": decided.state.value, "since": decided.since}
        return [Update("Binding", (*mine, ("epoch", "==", decided.epoch)), state)]
    vif = (("id", "==", decided.vif),)
    take: list[Operation] = [
        Wait("Vif", vif, ("epoch",), ({"epoch": decided.epoch - 1},)),
        Update("Vif", vif, {"epoch": decided.epoch}),
    ]
    columns = to_columns(decided)
    if actual is None:
        return [*take, Insert("Binding", columns)]
    return [*take, Update("Binding", mine, columns)]


def release(binding: Binding) -> list[Operation]:
    """Takes this host's binding away, unless it has been renewed since."""
    where = (("vif", "==", binding.vif), ("host", "==", binding.host), ("epoch", "==", binding.epoch))
    return [Delete("Binding", where)]


def ready(binding: Binding, now_ms: int) -> Operation:
    """The host's flows for a binding were answered by a barrier."""
    where = (("vif", "==", binding.vif), ("host", "==", binding.host), ("epoch", "==", binding.epoch))
    return Update("Binding", where, {"ready": True, "since": now_ms})


def acknowledge(binding: Binding, host: str) -> Operation:
    """`host` has programmed another host's binding."""
    where = (("vif", "==", binding.vif), ("host", "==", binding.host), ("epoch", "==", binding.epoch))
    return Mutate("Binding", where, (("acked", "insert", frozenset({host})),))


def status(new: AgentStatus, known: bool) -> Operation:
    """What the agent says of itself."""
    columns = to_columns(new)
    return Update("Agent", (("host", "==", new.host),), columns) if known else Insert("Agent", columns)


def some_status(host: str, columns: Mapping[str, object]) -> Operation:
    """A part of what the agent says of itself."""
    return Update("Agent", (("host", "==", host),), dict(columns))


def event(happened: Event) -> Operation:
    return Insert("Event", to_columns(happened))
