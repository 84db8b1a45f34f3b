"""Pools as values, for tests of decisions: three hosts, a tunnel network and a VLAN, a VM with a VIF on each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from vnet.db.changes import InsertObject, RowChange, UpdateObject
from vnet.db.view import PoolView
from vnet.objects import (
    AgentStatus,
    Binding,
    BindingState,
    Host,
    Network,
    NetworkType,
    Pool,
    PoolState,
    Uplink,
    Vif,
    Vm,
)

HOSTS = ("xen1", "xen2", "xen3")
NETWORKS = {
    "tenant": Network("tenant", NetworkType.VXLAN, 1, 1450, key=5001),
    "prod": Network("prod", NetworkType.VLAN, 2, 1500, key=5002, tag=120, uplink="trunk0"),
    "lab": Network("lab", NetworkType.INTERNAL, 3, 1500),
}


def mac(number: int) -> str:
    return f"0a:00:00:00:00:{number:02x}"


def vif(id: str, number: int, network: str = "tenant", **more: Any) -> Vif:
    return Vif(id, network, mac(number), **more)


def bound(vif: Vif, host: str, epoch: int = 1, **more: Any) -> Binding:
    return Binding(vif.id, host, vif.network, vif.mac, epoch, **{"ready": True, "since": 1000, **more})


def pool(
    vifs: Iterable[Vif], bindings: Iterable[Binding] = (), live: Iterable[str] = HOSTS, **problems: dict[str, str]
) -> PoolView:
    """A view of the pool with these VIFs and bindings; `problems` by host."""
    vifs = tuple(vifs)
    state = PoolState(
        pool=Pool("test"),
        hosts={
            name: Host(name, f"10.99.0.{index}", (Uplink("trunk0", ("eth1",)),)) for index, name in enumerate(HOSTS, 1)
        },
        networks=NETWORKS,
        vms={name: Vm(name) for vif in vifs if (name := vif.vm) is not None},
        vifs={vif.id: vif for vif in vifs},
        bindings={(binding.vif, binding.host): binding for binding in bindings},
        agents={name: AgentStatus(name, problems=problems.get(name, {})) for name in HOSTS},
    )
    return PoolView.of(state, live)


def after(view: PoolView, changes: Iterable[RowChange], **agents: Any) -> PoolView:
    """The pool once the changes are in. Checks that each starts from what is there."""
    vifs, bindings, vms = dict(view.state.vifs), dict(view.state.bindings), dict(view.state.vms)
    for change in changes:
        old, new = change.old, change.new
        match old if old is not None else new:
            case Vif(id=id):
                assert vifs.get(id) == old
                vifs[id] = new  # type: ignore[assignment]
            case Binding(vif=id, host=host):
                assert bindings.get((id, host)) == old
                if new is None:
                    del bindings[id, host]
                else:
                    bindings[id, host] = new  # type: ignore[assignment]
            case Vm(name=name):
                vms[name] = new  # type: ignore[assignment]
            case other:
                raise AssertionError(other)
    return PoolView.of(replace(view.state, vifs=vifs, bindings=bindings, vms=vms), view.live)


def plugged(view: PoolView, id: str, host: str, **more: Any) -> PoolView:
    """The pool once `host` has claimed VIF `id`'s port, as an agent does: held if it is a migration's destination."""
    vif = view.state.vifs[id]
    held = vif.incoming == host
    binding = bound(
        vif, host, vif.epoch + 1, state=BindingState.HELD if held else BindingState.ACTIVE, **{"ready": False, **more}
    )
    return after(view, [UpdateObject(vif, replace(vif, epoch=vif.epoch + 1)), InsertObject(binding)])


def changed(view: PoolView, id: str, host: str, **fields: Any) -> PoolView:
    """The pool once `host`'s agent has rewritten its binding."""
    old = view.state.bindings[id, host]
    return after(view, [UpdateObject(old, replace(old, **fields))])
