"""The transactions an agent makes on the pool database. Pure: operations out, nothing sent.

Each may be repeated after a lost answer: its condition no longer holds then, or it writes the same values again.
A row is found by its UUID: by anything else ovsdb-server looks at the whole table, which holds every VIF of the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ovsctl.ovsdb import Delete, Insert, Mutate, Operation, Row, Update, Uuid, Wait, Where, by_uuid
from vnet.agent.pool_replica import BINDING_COLUMNS
from vnet.db.rows import key_of, new_columns, to_columns
from vnet.objects import AgentStatus, Binding, BindingState, Event, Vif
from vnet.objects.binding import PUBLISHED, acknowledgement


def bind(
    decided: Binding, actual: Binding | None, vif: Where, mine: Where, still: Sequence[Operation]
) -> list[Operation]:
    """Makes this host's binding the decided one. actual: the one in row `mine` of the database; vif: the VIF's row; still: what a binding
    with a new epoch, or on another network, holds by."""
    if actual is not None and (actual.epoch, actual.network) == (decided.epoch, decided.network):
        columns = to_columns(decided)
        state = {
            "state": decided.state.value,
            "since": decided.since,
            "moved": decided.moved,
            "tiers": decided.tiers,
            "link_locals": columns["link_locals"],
            "behind": columns["behind"],
            "listening": columns["listening"],
        }
        if decided.state is BindingState.AWAITED:
            state["ready"] = False
        return [Update("Binding", _still(decided, mine), state)]
    take: list[Operation] = [*still, Update("Vif", vif, {"epoch": decided.epoch})]
    if actual is None:
        return [*take, Insert("Binding", new_columns(decided))]
    return [*take, Update("Binding", mine, _but_key(decided))]


def is_first(decided: Binding, vif: Where) -> Operation:
    """Of two hosts that claim a VIF at once one is refused: each takes the number that follows the one that it knows."""
    return Wait("Vif", vif, ("epoch",), ({"epoch": decided.epoch - 1},))


def is_asked(asked: Vif, vif: Where) -> Operation:
    """The VIF is asked for where it was: no other host takes it then, whatever it writes into `epoch`."""
    columns = to_columns(asked)
    return Wait("Vif", vif, ("host", "incoming"), ({name: columns[name] for name in ("host", "incoming")},))


def is_unrenewed(binding: Binding, row: Where) -> Operation:
    """The other host that a VIF is asked for on has claimed it no more."""
    return Wait("Binding", row, ("epoch",), ({"epoch": binding.epoch},))


def copy(binding: Binding, row: Where) -> Operation:
    """Brings a binding's copy of its VIF to that of `binding`, whatever state it is in by now."""
    columns = to_columns(binding)
    names = (name for name in (*PUBLISHED, "tiers") if name != "network")
    return Update("Binding", _still(binding, row), {name: columns[name] for name in names})


def restore(binding: Binding, row: Uuid) -> Operation:
    """Writes this host's binding anew into its row, which cannot be read any more: all that agents read of it, but for what names the row."""
    columns = _but_key(binding)
    return Update("Binding", by_uuid(row), {name: columns[name] for name in BINDING_COLUMNS if name in columns})


def settle(binding: Binding, row: Where) -> Operation:
    """The tracker knows the connections that it did not see begin."""
    return Update("Binding", _still(binding, row), {"moved": False})


def connections(binding: Binding, row: Where, text: str) -> Operation:
    """Says what became of a VIF's tracked connections when it came here."""
    return Update("Binding", _still(binding, row), {"connections": text})


def release(binding: Binding, row: Where) -> Operation:
    """Takes this host's binding away, unless it has been renewed since."""
    return Delete("Binding", _still(binding, row))


def ready(binding: Binding, row: Where, now_ms: int) -> Operation:
    """Marks a binding ready: a barrier has answered for the host's flows. A repetition, as by an agent that restarted, changes nothing."""
    return Update("Binding", (*_still(binding, row), ("ready", "==", False)), {"ready": True, "since": now_ms})


def acknowledge(binding: Binding, host: str) -> Operation:
    """`host` has programmed another host's binding. It says so in its own row: it may write no other host's."""
    acked = {binding.vif: acknowledgement(binding)}
    return Mutate("Agent", _of(host), (("acked", "delete", frozenset(acked)), ("acked", "insert", acked)))


def unacknowledge(vif: str, host: str) -> Operation:
    """A VIF moves no more, and nobody waits for `host`."""
    return Mutate("Agent", _of(host), (("acked", "delete", frozenset({vif})),))


def _of(host: str) -> Where:
    return (("host", "==", host),)


def _but_key(value: Binding | AgentStatus) -> dict[str, object]:
    """The columns of an object's row but for those that name it: a host may not change these."""
    named = {column for column, _ in key_of(value)}
    return {column: content for column, content in to_columns(value).items() if column not in named}


def _still(binding: Binding, row: Where) -> Where:
    """The binding's row, if its epoch is what we know."""
    return (*row, ("epoch", "==", binding.epoch))


def is_ours(status: AgentStatus) -> Operation:
    """Lets a transaction hold only while no agent of another switch is the host's."""
    others = (("host", "==", status.host), ("switch", "!=", status.switch))
    return Wait("Agent", others, ("host",), ())


def take_host(status: AgentStatus, seen: tuple[Uuid, str, int] | None) -> list[Operation]:
    """Makes an agent the host's: in the row whose UUID, switch and heartbeat were `seen`, if they are still that, or in a new one, whose UUID
    is then the last result."""
    columns = to_columns(status)
    if seen is None:
        return [Wait("Agent", (("host", "==", status.host),), ("host",), ()), Insert("Agent", columns)]
    row, switch, heartbeat = seen
    still = {"switch": switch} if switch in ("", status.switch) else {"switch": switch, "heartbeat": heartbeat}
    return [Wait("Agent", by_uuid(row), tuple(still), (still,)), Update("Agent", by_uuid(row), _but_key(status))]


# The columns of an agent's status that it reads again with its heartbeat.
REPORTED = ("rival", "host", "generation", "started", "version", "problems", "machine", "masters", "health")


def is_written(status: AgentStatus, row: Row) -> bool:
    """Whether an agent's own row has its status as it wrote it."""
    columns = to_columns(status)
    return all(row[name] == columns[name] for name in REPORTED if name != "rival")


def status(new: AgentStatus, row: Uuid) -> list[Operation]:
    """Writes the agent's status, as long as the host is its own."""
    columns = {name: content for name, content in _but_key(new).items() if name not in ("rival", "acked")}
    return [is_ours(new), Update("Agent", by_uuid(row), columns)]


def some_status(row: Uuid, columns: Mapping[str, object]) -> Operation:
    """Writes a part of the agent's status. The result is 1, or 0 if the row is gone."""
    return Update("Agent", by_uuid(row), dict(columns))


def event(happened: Event) -> Operation:
    return Insert("Event", to_columns(happened))
