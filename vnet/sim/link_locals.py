"""What agents make of link-local addresses that guests choose: the twin of vnet/agent/link_locals.py.

One rule: who may have an address is decided by vnet/objects/link_local.py, in the twin as on a host. How often a guest may choose is not modelled.
"""

from __future__ import annotations

from dataclasses import replace
from socket import AF_INET6, inet_ntop

from ovsctl.datapath import EmulatedBridge
from vnet.compile import CHOICE
from vnet.objects import PoolState, Vif
from vnet.objects.link_local import chosen, is_link_local, link_local, owner, with_another
from vnet.util.frames import is_detection, neighbor_advertisement, used_address


def take_choice(bridge: EmulatedBridge) -> bytes | None:
    """The frame that a bridge has just sent to its agent because of a link-local address; None if it has not."""
    if bridge.punted and bridge.punted[-1].action.userdata == CHOICE:
        return bridge.punted.pop().frame
    return None


def with_choice(state: PoolState, vif: Vif, host: str, frame: bytes, now_us: int) -> PoolState | bytes | None:
    """The pool once the VIF has the link-local address that its frame uses; or the answer of the VIF that has it, to who asks whether
    anybody does; None where there is neither."""
    octets = used_address(frame)
    mine = state.bindings.get((vif.id, host))
    if octets is None or not is_link_local(octets) or mine is None:
        return None
    address = inet_ntop(AF_INET6, octets)
    before = chosen(binding for binding in state.bindings.values() if binding.vif == vif.id)
    if address in (link_local(vif.mac), *vif.addresses, *(entry.address for entry in before)):
        return None
    on_network = (binding for binding in state.bindings.values() if binding.network == vif.network)
    if (holder := owner(address, vif.id, on_network)) is not None:
        return neighbor_advertisement(holder.mac, address, router=False) if is_detection(frame) else None
    granted = replace(mine, link_locals=with_another(before, address, now_us // 1000))
    return replace(state, bindings={**state.bindings, (vif.id, host): granted})
