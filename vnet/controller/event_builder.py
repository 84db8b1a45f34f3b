"""Events of changed rows. One rule: an event follows from the change alone, so no call can forget it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vnet.db.changes import DeleteObject, InsertObject, RowChange, UpdateObject
from vnet.grammar.declare import Declared, attrs_of
from vnet.objects import Binding, Event, Vif
from vnet.objects.state import CONFIGURED


def events_of(changes: Iterable[RowChange], now_ms: int) -> list[Event]:
    """The events of these changes, in their order."""
    return [event for change in changes for event in _events(change, now_ms)]


def _events(change: RowChange, now: int) -> Iterator[Event]:
    match change:
        case UpdateObject(old=Vif() as old, new=Vif() as new):
            yield from _vif(old, new, now)
        case UpdateObject(old=Binding() as before, new=Binding() as after) if before.state is not after.state:
            text = f"VIF {after.vif} on host {after.host}: {after.state.value}, as asked"
            yield Event(now, "vif-" + after.state.value, text, after.host, after.network, after.vif)
        case InsertObject(new=value):
            yield from _event(value, "created", now)
        case UpdateObject(new=value):
            yield from _event(value, "changed", now)
        case DeleteObject(old=value):
            yield from _event(value, "deleted", now)


def _event(value: Any, verb: str, now: int) -> Iterator[Event]:
    """An object came, changed or went. Only configured ones have such events."""
    if type(value) not in CONFIGURED:
        return
    noun, summary = value.NOUN, "" if verb == "deleted" else value.summary
    name = getattr(value, noun.key)
    text = f"{noun.text} {name}: {summary}" if summary else f"{noun.text} {name}"
    yield Event(now, f"{noun.word}-{verb}", text, **_subjects(value, name))


def _subjects(value: Declared, name: str) -> dict[str, str]:
    """The fields of an event by which it is found."""
    word = value.NOUN.word
    found = {word: name} if word in ("host", "network", "vif") else {}
    network = getattr(value, "network", None)
    return {**found, "network": network} if network is not None else found


def _vif(old: Vif, new: Vif, now: int) -> Iterator[Event]:
    """A VIF's network, host, migration and groups have events of their own; `epoch` counts bindings, which have theirs."""
    special = {"network", "former_network", "former_addresses", "groups", "host", "awaited", "incoming", "epoch"}
    if old.network != new.network:
        special.add("addresses")  # they follow
        quarantined = f" in quarantine, from {new.former_network}" if new.former_network is not None else ""
        text = f"VIF {new.id} is on network {new.network}{quarantined}"
        yield Event(now, "vif-network", text, network=new.network, vif=new.id)
    if any(getattr(old, name) != getattr(new, name) for name in attrs_of(Vif) if name not in special):
        yield from _event(new, "changed", now)
    if old.groups != new.groups:
        text = f"VIF {new.id} is in security groups: {', '.join(new.groups) or 'none'}"
        yield Event(now, "vif-security-groups", text, network=new.network, vif=new.id)
    if old.incoming == new.incoming:
        if (old.host, old.awaited) != (new.host, new.awaited):
            word = "awaited" if new.awaited else "wanted"
            text = f"VIF {new.id} is {word} on {f'host {new.host}' if new.host else 'no host in particular'}"
            yield Event(now, "vif-wanted", text, new.host or "", new.network, new.id)
        return
    if new.incoming is not None:
        name, text = "migration-started", f"VIF {new.id} goes from host {new.host} to {new.incoming}"
    elif new.host == old.incoming:
        name, text = "migration-finished", f"VIF {new.id} is on host {new.host}"
    else:
        name, text = "migration-aborted", f"VIF {new.id} does not go to host {old.incoming}"
    yield Event(now, name, text, new.incoming or new.host or "", new.network, new.id)
