"""Migration, as decisions: how far it is, and which rows each call changes. No effects here.

One rule: everything follows from the rows as they are now, so every call may be repeated and any controller may take over.
A unit is what moves as one: the VIFs of a VM, or one VIF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from vnet.api import Unit
from vnet.api.errors import Conflict
from vnet.controller.admission import find
from vnet.controller.vif_status import host_problem, place_problem
from vnet.db.changes import DeleteObject, RowChange, UpdateObject
from vnet.db.view import PoolView
from vnet.objects import Binding, BindingState, Location, Vif, Vm, Way


class Phase(IntEnum):
    """How far a migration is; a unit is as far as the last of its VIFs."""

    NONE = 0  # none under way
    PREPARING = 1
    PREPARED = 2  # the toolstack may let the VM switch
    RECEIVING = 3  # the guest is paused; what arrives waits in the destination's port
    ACTIVE = 4  # it runs at the destination; finish is due

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Migration:
    """A unit's migration. waiting: what is missing before the next phase. not_waited: dead hosts that nobody waits for."""

    phase: Phase
    source: str | None = None
    destination: str | None = None
    waiting: tuple[str, ...] = ()
    not_waited: tuple[str, ...] = ()


def vif_migration(view: PoolView, vif: Vif) -> Migration:
    """How far the migration of one VIF is."""
    at = view.location(vif.id)
    if vif.incoming is None:
        return Migration(Phase.NONE, source=at.current.host if at.current else None)
    source = _source(at, vif)
    if at.current is not None and at.current.host == vif.incoming:
        return Migration(Phase.ACTIVE, source, vif.incoming)
    held = _held(at, vif)
    if held is not None and held.state is BindingState.RECEIVING:
        return Migration(Phase.RECEIVING, source, vif.incoming)
    missing, dead = _missing_acks(view, vif, held)
    waiting = _waiting(view, vif, held, missing)
    return Migration(Phase.PREPARING if waiting else Phase.PREPARED, source, vif.incoming, waiting, dead)


def unit_of(vif: Vif) -> Unit:
    """The unit that a VIF moves with."""
    return Unit.of_vm(vif.vm) if vif.vm is not None else Unit.of_vif(vif.id)


def vifs_of(view: PoolView, unit: Unit) -> tuple[Vif, ...]:
    """A unit's VIFs now; raises NotFound, and Conflict for a VM without any."""
    if unit.plural == "vifs":
        return (find("vif", unit.id, view.state.vifs),)
    find("vm", unit.id, view.state.vms)
    vifs = view.vifs(unit.id)
    if not vifs:
        raise Conflict("no-vifs", f"{unit} has no VIFs", unit.id)
    return vifs


def unit_migration(view: PoolView, unit: Sequence[Vif]) -> Migration:
    """How far the migration of a unit is. VIFs that run nowhere come along at the end and hold nobody up."""
    parts = [vif_migration(view, vif) for vif in unit if _plugged(view, vif)]
    if not parts:
        return Migration(Phase.NONE)
    phase = min(part.phase for part in parts)
    behind = [part for part in parts if part.phase == phase]
    return Migration(
        phase,
        next((part.source for part in parts if part.source is not None), None),
        next((part.destination for part in parts if part.destination is not None), None),
        tuple(dict.fromkeys(text for part in behind for text in part.waiting)),
        tuple(sorted({host for part in parts for host in part.not_waited})),
    )


def prepare(view: PoolView, unit: Sequence[Vif], to: str, *, force: bool = False) -> tuple[RowChange, ...]:
    """The rows that make `to` an incoming host of the whole unit; none if it is, or if the unit already runs there.

    A VIF is pinned to where it runs, so that an abort leaves it there, and no host that it is not asked for on takes it from there.
    Raises Conflict if the unit runs nowhere, another migration is under way, or `to` cannot take it
    (`force`: a dead destination is accepted; it may come up later).
    """
    here = {vif.id: view.location(vif.id) for vif in unit}
    if not any(at.current and at.current.plugged for at in here.values()):
        raise Conflict("not-running", f"{_names(unit)}: runs on no host, so there is nothing to migrate")
    if runs_on(view, unit, to):
        return ()
    for vif in unit:
        if vif.incoming not in (None, to):
            raise Conflict("migrating", f"VIF {vif.id} is on its way to host {vif.incoming}: abort that first", "to")
        reason = place_problem(view, vif, to) or (None if force else host_problem(view, to))
        if reason is not None:
            raise Conflict(reason.code, f"VIF {vif.id} cannot go to host {to}: {reason.text}", "to")
    return tuple(
        UpdateObject(vif, replace(vif, incoming=to, host=_host(here[vif.id].current) or vif.host))
        for vif in unit
        if vif.incoming != to
    )


def runs_on(view: PoolView, unit: Sequence[Vif], host: str) -> bool:
    """Whether all of a unit that runs, runs on `host`, with no migration under way."""
    currents = [view.location(vif.id).current for vif in unit]
    return any(currents) and all(
        vif.incoming is None and (current is None or current.host == host)
        for vif, current in zip(unit, currents, strict=True)
    )


def switch(view: PoolView, unit: Sequence[Vif], now_ms: int, *, force: bool = False) -> tuple[RowChange, ...]:
    """The rows that open the destination's ports to what arrives; the toolstack calls it as it pauses the guest."""
    return _advance(view, unit, BindingState.RECEIVING, now_ms, force=force)


def activate(view: PoolView, unit: Sequence[Vif], now_ms: int, *, force: bool = False) -> tuple[RowChange, ...]:
    """The rows that make the destination the place where the unit runs. `force`: even if not all hosts have prepared."""
    return _advance(view, unit, BindingState.ACTIVE, now_ms, force=force)


def finish(
    view: PoolView, unit: Sequence[Vif], now_ms: int, *, vm: Vm | None = None, force: bool = False
) -> tuple[RowChange, ...]:
    """The rows that end a migration at its destination; the source's agent then lets go of its ports.

    `force`, for a dead source: makes the destination active if it is not, and takes the source's bindings away.
    Raises Conflict if the destination is not active, or forced while the source's agent is alive. Nothing under way: no rows.
    """
    moving = [vif for vif in unit if vif.incoming is not None]
    changes: list[RowChange] = []
    for vif in moving:
        status = vif_migration(view, vif)
        if _plugged(view, vif) and status.phase < Phase.ACTIVE:
            changes += _take_over(view, vif, status, now_ms, force)
        elif force:
            changes += _forget_dead(view, vif)
        changes.append(UpdateObject(vif, replace(vif, host=vif.incoming, incoming=None)))
    if vm is not None and moving and vm.host is not None and vm.host != moving[0].incoming:
        changes.append(UpdateObject(vm, replace(vm, host=moving[0].incoming)))
    return tuple(changes)


def abort(view: PoolView, unit: Sequence[Vif]) -> tuple[RowChange, ...]:
    """The rows that end a migration at its source. Nothing under way: no rows. Raises Conflict once the destination is active."""
    moving = [vif for vif in unit if vif.incoming is not None]
    changes: list[RowChange] = []
    for vif in moving:
        if vif_migration(view, vif).phase is Phase.ACTIVE:
            raise Conflict("active", f"VIF {vif.id} runs on host {vif.incoming} already: finish it, or migrate it back")
        changes.append(UpdateObject(vif, replace(vif, incoming=None)))
        held = view.bindings_of.get(vif.id, {}).get(vif.incoming or "")
        if held is not None:
            changes.append(DeleteObject(held))
    return tuple(changes)


def plan_evacuation(view: PoolView, host: str, to: str | None = None) -> dict[tuple[str, ...], str]:
    """Which unit (its VIF ids) goes where, so that nothing runs on `host`: to `to`, or spread over the live hosts that can.

    Raises Conflict naming every unit that no host can take. The same pool always gives the same plan.
    """
    units = units_on(view, host)
    load = {name: 0 for name in view.state.hosts if name != host and name in view.live}
    for at in (view.location(vif) for vif in view.bindings_of):
        if at.current is not None and at.current.host in load:
            load[at.current.host] += 1
    plan: dict[tuple[str, ...], str] = {}
    stuck: list[str] = []
    for unit in units:
        under_way = next((vif.incoming for vif in unit if vif.incoming is not None), None)
        candidates = [under_way] if under_way else [to] if to is not None else sorted(load, key=lambda h: (load[h], h))
        fits = [h for h in candidates if h is not None and not any(_obstacle(view, vif, h) for vif in unit)]
        if fits:
            plan[tuple(vif.id for vif in unit)] = fits[0]
            load[fits[0]] = load.get(fits[0], 0) + len(unit)
        else:
            why = {_obstacle(view, vif, h) for vif in unit for h in candidates if h is not None} - {None}
            stuck.append(f"{_names(unit)} ({'; '.join(sorted(filter(None, why))) or 'no other host is alive'})")
    if stuck:
        raise Conflict("no-destination", f"no host can take {', '.join(stuck)}", "to")
    return plan


def units_on(view: PoolView, host: str) -> list[tuple[Vif, ...]]:
    """The units with a VIF that runs on `host`, by name."""
    found: dict[tuple[str, ...], tuple[Vif, ...]] = {}
    for id, bindings in view.bindings_of.items():
        vif = view.state.vifs.get(id)
        current = view.location(id).current if host in bindings else None
        if vif is None or current is None or current.host != host or not current.plugged:
            continue
        unit = view.vifs(vif.vm) if vif.vm is not None else (vif,)
        found[tuple(member.id for member in unit)] = unit
    return [found[key] for key in sorted(found)]


def _plugged(view: PoolView, vif: Vif) -> bool:
    """Whether any host has the VIF's port."""
    return any(binding.plugged for binding in view.bindings_of.get(vif.id, {}).values())


def _obstacle(view: PoolView, vif: Vif, host: str) -> str | None:
    reason = place_problem(view, vif, host) or host_problem(view, host)
    return reason.text if reason is not None else None


def _host(binding: Binding | None) -> str | None:
    return binding.host if binding is not None else None


def _names(unit: Sequence[Vif]) -> str:
    vms = {vif.vm for vif in unit}
    if len(vms) == 1 and (vm := next(iter(vms))) is not None:
        return f"VM {vm}"
    return "VIF " + ", ".join(vif.id for vif in unit)


def _held(at: Location, vif: Vif) -> Binding | None:
    """The destination's binding while it is not active. A stale one, of an earlier stay there, is older and does not count."""
    return at.incoming if at.incoming is not None and at.incoming.host == vif.incoming else None


def _source(at: Location, vif: Vif) -> str | None:
    """Where it comes from: the active binding that is not the destination's, also once the destination has overtaken it."""
    for binding in (at.current, *at.superseded):
        if binding is not None and binding.host != vif.incoming:
            return binding.host
    return vif.host if vif.host != vif.incoming else None


def _missing_acks(view: PoolView, vif: Vif, held: Binding | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The live hosts that have not programmed a held binding yet, and the dead ones that are not waited for."""
    network = view.state.networks.get(vif.network)
    if network is not None and network.carrier.way is Way.NONE:
        return (), ()  # no other host can send to it
    acked = view.acked(held) if held is not None else frozenset()
    others = sorted(host for host in view.members.get(vif.network, ()) if host != vif.incoming and host not in acked)
    return tuple(h for h in others if h in view.live), tuple(h for h in others if h not in view.live)


def _waiting(view: PoolView, vif: Vif, held: Binding | None, missing: tuple[str, ...]) -> tuple[str, ...]:
    if vif.incoming is not None and (reason := place_problem(view, vif, vif.incoming)) is not None:
        return (reason.text,)  # whatever was programmed there goes, or went
    if held is not None and held.network != vif.network:
        return (f"host {vif.incoming} has VIF {vif.id} on network {held.network} still",)
    if held is None:
        agent = view.state.agents.get(vif.incoming or "")
        problem = agent.problems.get(f"vif {vif.id}") if agent is not None else None
        text = problem or f"no port with external_ids:iface-id={vif.id} there yet"
        return (f"host {vif.incoming}: {text}",)
    own = () if held.ready else (f"host {vif.incoming} is programming VIF {vif.id}",)
    return own + tuple(f"host {host} has not programmed the way to VIF {vif.id} on {vif.incoming}" for host in missing)


def _advance(
    view: PoolView, unit: Sequence[Vif], to: BindingState, now_ms: int, *, force: bool
) -> tuple[RowChange, ...]:
    goal = Phase.ACTIVE if to is BindingState.ACTIVE else Phase.RECEIVING
    status = unit_migration(view, unit)
    if status.phase is Phase.NONE:
        raise Conflict("not-migrating", f"{_names(unit)}: no migration is under way; prepare one first")
    changes: list[RowChange] = []
    for vif in unit:
        part = vif_migration(view, vif)
        held = _held(view.location(vif.id), vif)
        if vif.incoming is None or part.phase >= goal or not _plugged(view, vif):
            continue
        if held is None or (part.phase < Phase.PREPARED and not force):
            raise Conflict("not-prepared", f"VIF {vif.id} is not prepared: {'; '.join(part.waiting)}")
        changes.append(UpdateObject(held, replace(held, state=to, since=now_ms)))
    return tuple(changes)


def _take_over(view: PoolView, vif: Vif, status: Migration, now_ms: int, force: bool) -> list[RowChange]:
    if not force:
        raise Conflict("not-active", f"VIF {vif.id} is {status.phase.word} on host {vif.incoming}: activate it first")
    if status.source in view.live:
        raise Conflict("source-alive", f"host {status.source} is alive: activate VIF {vif.id} instead of forcing it")
    held = _held(view.location(vif.id), vif)
    changes: list[RowChange] = (
        [UpdateObject(held, replace(held, state=BindingState.ACTIVE, since=now_ms))] if held else []
    )
    return changes + _forget_dead(view, vif)


def _forget_dead(view: PoolView, vif: Vif) -> list[RowChange]:
    bindings = view.bindings_of.get(vif.id, {})
    return [DeleteObject(b) for host, b in sorted(bindings.items()) if host != vif.incoming and host not in view.live]
