"""The events that tell of row changes. One rule: what is told follows from the change alone, so no call forgets to tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vnet.db.changes import Delete, Insert, RowChange, Update
from vnet.objects import Binding, Event, Host, Network, SecurityGroup, Vif, Vm


def events_of(changes: Iterable[RowChange], now_ms: int) -> list[Event]:
    """The events of these changes, in their order."""
    return [event for change in changes for event in _events(change, now_ms)]


def _events(change: RowChange, now: int) -> Iterator[Event]:
    match change:
        case Insert(new=Vif() as vif):
            yield Event(now, "vif-created", f"VIF {vif.id} on network {vif.network}", network=vif.network, vif=vif.id)
        case Delete(old=Vif() as vif):
            yield Event(now, "vif-deleted", f"VIF {vif.id} of network {vif.network}", network=vif.network, vif=vif.id)
        case Update(old=Vif() as old, new=Vif() as new):
            yield from _vif(old, new, now)
        case Update(old=Binding() as before, new=Binding() as after) if before.state is not after.state:
            text = f"VIF {after.vif} on host {after.host}: {after.state.value}, as asked"
            yield Event(now, "vif-" + after.state.value, text, after.host, after.network, after.vif)
        case Insert(new=Network() as net):
            yield Event(now, "network-created", f"network {net.name} ({net.type.value})", network=net.name)
        case Delete(old=Network() as net):
            yield Event(now, "network-deleted", f"network {net.name}", network=net.name)
        case Insert(new=SecurityGroup() as group):
            yield Event(now, "security-group-created", f"security group {group.name}")
        case Update(new=SecurityGroup() as group):
            yield Event(now, "security-group-changed", f"security group {group.name}: {len(group.rules)} rules")
        case Delete(old=SecurityGroup() as group):
            yield Event(now, "security-group-deleted", f"security group {group.name}")
        case Insert(new=Host() as host):
            yield Event(now, "host-created", f"host {host.name}", host=host.name)
        case Delete(old=Host() as host):
            yield Event(now, "host-deleted", f"host {host.name}", host=host.name)
        case Insert(new=Vm() as vm):
            yield Event(now, "vm-created", f"VM {vm.name}")
        case Delete(old=Vm() as vm):
            yield Event(now, "vm-deleted", f"VM {vm.name}")
        case _:
            return


def _vif(old: Vif, new: Vif, now: int) -> Iterator[Event]:
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
        kind, text = "migration-started", f"VIF {new.id} goes from host {new.host} to {new.incoming}"
    elif new.host == old.incoming:
        kind, text = "migration-finished", f"VIF {new.id} is on host {new.host}"
    else:
        kind, text = "migration-aborted", f"VIF {new.id} does not go to host {old.incoming}"
    yield Event(now, kind, text, new.incoming or new.host or "", new.network, new.id)
