"""Says to the host that a VIF goes to that its guest is paused here, and hears it from the host that a VIF comes from.

One rule: a notice only hastens what the pool database says a little later. It is heeded if it came by a tunnel, from the address of the host that runs the VIF, encrypted
if the network is, and names the binding that waits here. One that is lost, doubled, late or not understood changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from ovsctl.openflow import ReservedPort
from ovsctl.openflow.messages import PacketIn
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.tunnel_probes import came_from
from vnet.compile import HELLO_KEY, HostView
from vnet.compile.flows import Actions
from vnet.compile.l2 import to_host
from vnet.objects import BindingState
from vnet.util.hello_frames import pool_mark
from vnet.util.pause_frames import PauseNotice, pause_frames, read_pause

log = logging.getLogger(__name__)


class PauseNotices:
    """on_pause: called with VIFs that come here and whose guests are paused where they run."""

    def __init__(self, view: HostView, flows: BridgeFlows, on_pause: Callable[[list[str]], object]) -> None:
        self._view: Final = view
        self._flows: Final = flows
        self._on_pause: Final = on_pause

    async def send(self, vifs: Iterable[str]) -> None:
        """Tells the destinations of those VIFs that leave this host."""
        view = self._view
        epochs: dict[tuple[str, bool], dict[str, int]] = {}
        ways: dict[tuple[str, bool], Actions] = {}
        for id in vifs:
            vif = view.vifs.get(id)
            network = view.network(vif.network) if vif is not None else None
            at = view.location(vif.network, id) if vif is not None else None
            if network is None or at is None or at.current is None or at.incoming is None or at.current.host != view.me:
                continue
            # On a network with an uplink this is the relay's tunnel.
            if actions := to_host(view, replace(network, key=HELLO_KEY), at.incoming.host):
                destination = at.incoming.host, network.encrypted
                ways.setdefault(destination, actions)
                epochs.setdefault(destination, {})[id] = at.incoming.epoch
        mark = pool_mark(view.pool.id) if view.pool is not None else b""
        frames = [
            (frame, ReservedPort.CONTROLLER, actions)
            for destination, actions in ways.items()
            for frame in pause_frames(PauseNotice(mark, view.me, epochs[destination]))
        ]
        if frames:
            await asyncio.gather(*(self._flows.send_packet(*each) for each in frames))

    def packet_in(self, message: PacketIn) -> bool:
        """Takes a frame of hosts from a tunnel port; whether it was a notice."""
        notice, pool = read_pause(message.data), self._view.pool
        if notice is None:
            return False
        if pool is not None and notice.pool == pool_mark(pool.id):
            paused = [vif for vif, epoch in notice.epochs.items() if self._holds(message, notice.host, vif, epoch)]
            if paused:
                self._on_pause(paused)
                log.info("paused on host %s: %s", notice.host, ", ".join(paused))
        return True

    def _holds(self, message: PacketIn, host: str, vif_id: str, epoch: int) -> bool:
        view = self._view
        vif = view.vifs.get(vif_id)
        network = view.network(vif.network) if vif is not None else None
        at = view.location(vif.network, vif.id) if vif is not None else None
        if network is None or at is None or at.current is None or at.incoming is None or at.current.host != host:
            return False
        awaits = at.incoming.host, at.incoming.epoch, at.incoming.state
        return awaits == (view.me, epoch, BindingState.HELD) and came_from(
            view, message, host, encrypted=network.encrypted
        )
