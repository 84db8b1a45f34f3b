"""The life of a VIF's binding on one host, as a table of transitions. Pure: the binding controller carries them out.

One rule: nobody fights. A host claims a VIF that is moving to it, one it was asked to run, or one that nobody runs and that is asked for on no
other host; else its port stays silent and the host says why. A VIF that is awaited here is claimed before its port is there, unless another host runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from vnet.objects import Binding, BindingState, Location, LockingMode, Network, Vif
from vnet.objects.binding import asked_of, published


class Situation(Enum):
    """The place of a VIF, as seen from one host, apart from the host's own binding."""

    UNWANTED = "no port here, and none is awaited"
    EXPECTED = "no port here yet: it is awaited, and no other host runs the VIF"
    UNNUMBERED = "as EXPECTED, and no number is reserved for the port"
    EXPECTED_LATER = "no port here yet: it is awaited, and another host runs the VIF"
    ARRIVING = "a port here, and a migration brings the VIF"
    RETURNING = "as ARRIVING, and the host's own binding is of an earlier stay, which another host has ended"
    HOME = "a port here, and no other host runs the VIF"
    DEPARTING = "a port here, and a migration takes the VIF to another host, which does not run it yet"
    WANTED = "a port here, and another host runs the VIF though it is asked for here"
    LEAVING = "a port here; another host runs the VIF, and a migration is not finished"
    LEFT = "a port here; a migration has taken the VIF to another host"
    ELSEWHERE = "a port here; another host runs the VIF, and nobody asks for it here"
    UNASKED = "a port here; no host runs the VIF, and it is asked for on another one"


class Life(Enum):
    """The state of the host's own binding of a VIF."""

    NONE = "none"
    AWAITED = "awaited"
    MOVING = "moving"  # held or receiving
    ACTIVE = "active"


class Act(Enum):
    KEEP = "keep"
    CLAIM = "claim"  # insert the binding, with a new epoch
    RENEW = "renew"  # give the binding a new epoch: the VIF is asked for here, and another host runs it
    ACTIVATE = "activate"  # the binding becomes active: the VIF has moved here
    BECOME = "become"  # the binding changes its state under its epoch: awaited or no longer
    COPY = "copy"  # bring the binding's copy of the VIF up to date
    RELEASE = "release"  # delete the binding


@dataclass(frozen=True, slots=True)
class Decision:
    """A transition. `state` is the binding's next; `problem` is "" where the VIF is as it should be; `departs`: a migration takes
    the VIF away, or has taken it."""

    act: Act = Act.KEEP
    state: BindingState = BindingState.ACTIVE
    problem: str = ""
    departs: bool = False


TAKEN = "VIF {vif} runs on host {host}; its port here stays silent until it is moved or unplugged there"
UNASKED = "VIF {vif} is asked for on host {host}; its port here stays silent until it is asked for here ('vnet vif plug {vif} --host {me}')"
KEEP, CLAIM, RENEW, RELEASE = Decision(), Decision(Act.CLAIM), Decision(Act.RENEW), Decision(Act.RELEASE)
HOLD = Decision(Act.CLAIM, BindingState.HELD)
ACTIVATE, BECOME_ACTIVE = Decision(Act.ACTIVATE), Decision(Act.BECOME)
AWAIT, NUMBER, AWAIT_AGAIN = (Decision(act, BindingState.AWAITED) for act in (Act.CLAIM, Act.RENEW, Act.BECOME))
SILENT, LET_GO = Decision(problem=TAKEN), Decision(Act.RELEASE, problem=TAKEN)
REFUSED, GIVEN_UP = Decision(problem=UNASKED), Decision(Act.RELEASE, problem=UNASKED)
DEPARTS, DEPARTED = Decision(departs=True), Decision(Act.RELEASE, departs=True)

# By situation, for a binding that is: none, awaited, moving, active.
_ROWS = {
    Situation.UNWANTED: (KEEP, RELEASE, RELEASE, RELEASE),
    Situation.EXPECTED: (AWAIT, KEEP, RELEASE, AWAIT_AGAIN),
    Situation.UNNUMBERED: (AWAIT, NUMBER, NUMBER, NUMBER),
    Situation.EXPECTED_LATER: (KEEP, RELEASE, RELEASE, RELEASE),
    Situation.ARRIVING: (HOLD, KEEP, KEEP, KEEP),
    Situation.RETURNING: (HOLD, RELEASE, RELEASE, RELEASE),
    Situation.HOME: (CLAIM, BECOME_ACTIVE, ACTIVATE, KEEP),
    Situation.DEPARTING: (CLAIM, BECOME_ACTIVE, ACTIVATE, DEPARTS),
    Situation.WANTED: (CLAIM, RENEW, ACTIVATE, RENEW),
    Situation.LEAVING: (SILENT, KEEP, LET_GO, DEPARTS),
    Situation.LEFT: (DEPARTS, DEPARTED, DEPARTED, DEPARTED),
    Situation.ELSEWHERE: (SILENT, LET_GO, LET_GO, LET_GO),
    Situation.UNASKED: (REFUSED, GIVEN_UP, GIVEN_UP, GIVEN_UP),
}
TRANSITIONS = {row: dict(zip(Life, decisions, strict=True)) for row, decisions in _ROWS.items()}


def decide(
    me: str,
    vif: Vif,
    network: Network | None,
    at: Location,
    mine: Binding | None,
    *,
    plugged: bool,
    departed: bool = False,
    tiers: bool = False,
) -> Decision:
    """The transition of host `me`'s binding `mine` of a VIF. plugged: the VIF's port is here; departed: as the last decision
    about the VIF says; tiers: groups judge it that are not its own."""
    here = situation(me, vif, at, mine, plugged=plugged, departed=departed)
    if here is not Situation.UNWANTED:
        if network is None:
            return Decision(problem=f"network {vif.network} is not in the pool")
        if not network.on(me):
            hosts = ", ".join(sorted(network.hosts))
            problem = f"network {network.name} is not on host {me}, only on {hosts}"
            return Decision(Act.RELEASE if mine else Act.KEEP, problem=problem)
    decision = TRANSITIONS[here][life(mine)]
    if decision.problem:
        host = at.current.host if at.current is not None else vif.host or vif.incoming
        return replace(decision, problem=decision.problem.format(vif=vif.id, host=host, me=me))
    if decision.act is Act.KEEP and mine is not None and copied(mine, vif, tiers=tiers) != mine:
        return replace(decision, act=Act.COPY)
    return decision


def taken_up(vif: Vif, mine: Binding | None, decision: Decision) -> tuple[str, ...]:
    """The addresses at which a VIF may be reached here by a decision about the host's own binding `mine`, and could not before.

    Those of a VIF that is not locked are its guest's own affair. A VIF that moves keeps its MAC, so its neighbours know its addresses.
    """
    match decision.act:
        case Act.CLAIM | Act.RENEW | Act.BECOME:
            state = decision.state
        case Act.COPY if mine is not None:
            state = mine.state
        case _:
            return ()
    if state is not BindingState.ACTIVE or vif.locking_mode is not LockingMode.LOCKED:
        return ()
    known = mine.addresses if mine is not None and mine.state is state and mine.mac == vif.mac else ()
    return tuple(address for address in vif.addresses if address not in known)


def situation(
    me: str, vif: Vif, at: Location, mine: Binding | None, *, plugged: bool, departed: bool = False
) -> Situation:
    """The row of the table that holds for a VIF on host `me`."""
    elsewhere = at.current is not None and at.current.host != me
    if not plugged:
        if not awaited(me, vif):
            return Situation.UNWANTED
        if elsewhere:
            return Situation.EXPECTED_LATER
        return Situation.EXPECTED if mine is not None and mine.ofport else Situation.UNNUMBERED
    if vif.incoming == me and vif.host != me:
        former = elsewhere and mine is not None and at.current is not None and mine.epoch < at.current.epoch
        return Situation.RETURNING if former else Situation.ARRIVING
    if not elsewhere:
        if not asked_of(vif).allows(me):
            return Situation.UNASKED
        return Situation.HOME if vif.incoming in (None, me) else Situation.DEPARTING
    if vif.incoming is not None:
        return Situation.LEAVING
    if vif.host == me:
        return Situation.WANTED
    return Situation.LEFT if departed else Situation.ELSEWHERE


def life(mine: Binding | None) -> Life:
    """The column of the table."""
    if mine is None:
        return Life.NONE
    if mine.state.moving:
        return Life.MOVING
    return Life.AWAITED if mine.state is BindingState.AWAITED else Life.ACTIVE


def awaited(me: str, vif: Vif) -> bool:
    """Whether a VIF's port is to come to host `me`, and is programmed before."""
    return vif.awaited and vif.host == me


def copied(binding: Binding, vif: Vif, *, tiers: bool) -> Binding:
    """The binding with the fields of its VIF as they are now. Its network stays: on another one it is another binding."""
    return replace(binding, **{**published(vif), "network": binding.network, "tiers": tiers})
