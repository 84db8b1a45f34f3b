"""What agents make of MACs that they hear behind VIFs: the twin of vnet/agent/mac_learning.py.

One rule: who has a MAC is decided by vnet/objects/behind.py, in the twin as on a host. Nothing is forgotten.
"""

from __future__ import annotations

from dataclasses import replace

from ovsctl.datapath import EmulatedBridge
from vnet.compile import HEARD
from vnet.objects import PoolState, Vif
from vnet.objects.behind import with_heard


def take_heard(bridge: EmulatedBridge) -> bytes | None:
    """The frame by which a bridge has just told its agent of a MAC; None if it has not."""
    if bridge.punted and bridge.punted[-1].action.userdata == HEARD:
        return bridge.punted.pop().frame
    return None


def after_hearing(state: PoolState, vif: Vif, host: str, frame: bytes, now_us: int) -> PoolState:
    """The pool once the host has heard a frame of a VIF that is there."""
    mine = state.bindings.get((vif.id, host))
    if mine is None or mine.state.moving:
        return state
    on_network = (binding for binding in state.bindings.values() if binding.network == vif.network)
    behind = with_heard(mine.behind, frame, vif.learn, on_network, now_us // 1000)
    if behind == mine.behind:
        return state
    return replace(state, bindings={**state.bindings, (vif.id, host): replace(mine, behind=behind)})
