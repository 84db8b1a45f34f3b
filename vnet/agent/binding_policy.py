"""What an agent should do about a VIF whose port it sees, or no longer sees. Pure decisions; the agent carries them out.

One rule: nobody fights. A host claims a VIF that nobody runs, one that is moving to it, or one it was asked to run; else its
port stays silent and says why. A VIF that is awaited here is claimed before its port is there, unless another host runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from vnet.objects import Binding, BindingState, Location, LockingMode, Network, Vif


class Act(Enum):
    CLAIM = "claim"  # insert our binding, with a new epoch
    RENEW = "renew"  # give our binding a new epoch: we were asked to run what another host runs
    ACTIVATE = "activate"  # our binding becomes active, as the VIF has moved here
    BECOME = "become"  # our binding is as good as before, awaited or no longer
    COPY = "copy"  # our binding says of the VIF what no longer holds
    RELEASE = "release"  # delete our binding


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and what is wrong ("" if nothing is). `state` is what our binding gets."""

    act: Act | None = None
    state: BindingState = BindingState.ACTIVE
    problem: str = ""


def decide(
    me: str, vif: Vif, network: Network | None, where: Location, mine: Binding | None, plugged: bool
) -> Decision:
    """What to do about a VIF on host `me`. `mine` is this host's binding, `plugged` whether its port is here."""
    if not plugged and not awaited(me, vif):
        return Decision(Act.RELEASE if mine else None)
    if network is None:
        return Decision(problem=f"network {vif.network} is not in the pool")
    if not network.on(me):
        hosts = ", ".join(sorted(network.hosts))
        return Decision(
            Act.RELEASE if mine else None, problem=f"network {network.name} is not on host {me}, only on {hosts}"
        )
    if not plugged:
        decision = _awaiting(me, where, mine)
    elif vif.incoming == me and vif.host != me:
        decision = _arriving(mine)
    else:
        decision = _at_home(me, vif, where, mine)
    if decision == Decision() and mine is not None and copied(mine, vif) != mine:
        return Decision(Act.COPY)
    return decision


def awaited(me: str, vif: Vif) -> bool:
    """Whether a VIF's port is to come to host `me`, and is programmed before."""
    return vif.awaited and vif.host == me


def copied(binding: Binding, vif: Vif) -> Binding:
    """The binding with what it says of its VIF, for hosts that do not have the VIF's row, as the VIF is now."""
    unlocked = vif.locking_mode is LockingMode.UNLOCKED
    return replace(binding, mac=vif.mac, addresses=vif.addresses, unlocked=unlocked, groups=vif.groups)


def _awaiting(me: str, where: Location, mine: Binding | None) -> Decision:
    """Who has no port yet takes nothing from another host."""
    if where.current is not None and where.current.host != me:
        return Decision(Act.RELEASE if mine else None)
    if mine is None or mine.ofport == 0:
        return Decision(Act.CLAIM if mine is None else Act.RENEW, BindingState.AWAITED)
    if mine.state is BindingState.AWAITED:
        return Decision()
    return Decision(Act.RELEASE) if mine.state.moving else Decision(Act.BECOME, BindingState.AWAITED)


def _arriving(mine: Binding | None) -> Decision:
    """A migration's destination waits, held, for the guest or the toolstack to say that it runs here."""
    return Decision() if mine else Decision(Act.CLAIM, BindingState.HELD)


def _at_home(me: str, vif: Vif, where: Location, mine: Binding | None) -> Decision:
    current = where.current
    elsewhere = current is not None and current.host != me
    wanted = vif.host == me and vif.incoming is None
    if mine is None:
        if not elsewhere or wanted:
            return Decision(Act.CLAIM)
        return Decision(problem=_taken(vif, current))
    if mine.state is BindingState.AWAITED and not elsewhere:
        return Decision(Act.BECOME)
    if mine.state.moving:
        # No longer coming here: finished, and then it is ours; or aborted.
        if wanted or current is None:
            return Decision(Act.ACTIVATE)
        return Decision(Act.RELEASE, problem=_taken(vif, current))
    if elsewhere and wanted:
        return Decision(Act.RENEW)
    if elsewhere and vif.incoming is None:
        return Decision(Act.RELEASE, problem=_taken(vif, current))
    return Decision()


def _taken(vif: Vif, current: Binding | None) -> str:
    if current is None:
        return f"VIF {vif.id} is not expected here"
    return f"VIF {vif.id} runs on host {current.host}; its port here stays silent until it is moved or unplugged there"
