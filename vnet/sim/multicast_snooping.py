"""What agents make of what VIFs say of their multicast groups: the twin of vnet/agent/multicast_snooping.py.

One rule: frames are taken by vnet/objects/heard_groups.py, in the twin as on a host. Every VIF of the twin has been asked, nothing is
forgotten, and a group that a VIF may have left it has left.
"""

from __future__ import annotations

from dataclasses import replace

from ovsctl.datapath import EmulatedBridge
from vnet.compile import REPORT
from vnet.objects import Binding, PoolState, Vif
from vnet.objects.heard_groups import HeardGroups, asked_again
from vnet.objects.multicast import LAST_QUERY_MS, Listening
from vnet.util.membership_frames import membership


def asked(state: PoolState) -> PoolState:
    """The pool once agents have asked the VIFs of networks that snoop for their groups, and forgotten those of others."""
    changed = {
        key: replace(binding, listening=Listening() if is_asked else None)
        for key, binding in state.bindings.items()
        if (is_asked := _is_asked(state, binding)) is (binding.listening is None)
    }
    return replace(state, bindings={**state.bindings, **changed}) if changed else state


def _is_asked(state: PoolState, binding: Binding) -> bool:
    network, vif = state.networks.get(binding.network), state.vifs.get(binding.vif)
    return network is not None and network.multicast_snooping and vif is not None and vif.trunk is None


def take_report(bridge: EmulatedBridge) -> bytes | None:
    """The frame by which a bridge has just told its agent what a VIF listens to; None if it has not."""
    if bridge.punted and bridge.punted[-1].action.userdata == REPORT:
        return bridge.punted.pop().frame
    return None


def after_report(state: PoolState, vif: Vif, host: str, frame: bytes) -> PoolState:
    """The pool once the host has heard a frame of a VIF that is there."""
    mine, network = state.bindings.get((vif.id, host)), state.networks.get(vif.network)
    if mine is None or mine.state.moving or network is None:
        return state
    report = membership(frame)
    heard = HeardGroups.new(mine.listening, 0, network.interval_s).after(report, 0, network.interval_s, vif)
    listening = heard.listening(LAST_QUERY_MS if asked_again(report, vif) else 0)
    if listening is None or listening == mine.listening:
        return state
    return replace(state, bindings={**state.bindings, (vif.id, host): replace(mine, listening=listening)})
