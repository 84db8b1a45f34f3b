"""What the ports of this host's VIFs have received and sent, and what went to each peer, for a controller that asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from ovsctl.openflow.errors import OpenFlowError
from ovsctl.openflow.messages import PortStats
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.compile import COOKIE_MARK, COOKIE_MARK_MASK, HostView, copies_by_tunnel, tunnel_ends, tunnels_here
from vnet.db.traffic_queries import MAX_COUNTED, PeerTraffic, PortTraffic, TrafficQuery, TrafficReply


class TrafficCounters:
    """Answers with the counters of ports. now_ms: milliseconds since 1970."""

    def __init__(self, view: HostView, flows: BridgeFlows, now_ms: Callable[[], int]) -> None:
        self._view: Final = view
        self._flows: Final = flows
        self._now_ms: Final = now_ms

    async def answer(self, query: TrafficQuery) -> TrafficReply:
        """The answer to a question."""
        view = self._view
        here = sorted((vif, ofport) for vif, ofport in view.ports.items() if vif in view.vifs)
        if query.vif:
            here = [port for port in here if port[0] == query.vif]
        if not self._flows.connected:
            return TrafficReply(problem=f"Open vSwitch of host {view.me} does not answer")
        try:
            found = await (self._flows.port_counters(here[0][1]) if len(here) == 1 else self._flows.port_counters())
            peers = await self._peers() if not query.vif else ()
        except OpenFlowError as error:
            return TrafficReply(problem=f"Open vSwitch of host {view.me}: {error}")
        ports = tuple(_counted(vif, found[ofport]) for vif, ofport in here[:MAX_COUNTED] if ofport in found)
        return TrafficReply(ports, self._now_ms(), max(0, len(here) - MAX_COUNTED), peers=peers)

    async def _peers(self) -> tuple[PeerTraffic, ...]:
        """What went to each peer, by the flows that lead there: a tunnel's port is one for all peers. Raises OpenFlowError."""
        ends, tunnels = tunnel_ends(self._view), tunnels_here(self._view)
        packets: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for tunnel in tunnels:
            for flow, count, size in await self._flows.counted(COOKIE_MARK, COOKIE_MARK_MASK, out_port=tunnel):
                for end in copies_by_tunnel(flow.actions, tunnel):
                    if (host := ends.get(end)) is not None:
                        packets[host] += count
                        sizes[host] += size
        return tuple(PeerTraffic(host, packets[host], sizes[host]) for host in sorted(packets))


def _counted(vif: str, stats: PortStats) -> PortTraffic:
    """The switch receives what the VM sends. A count that it does not keep is 0."""
    counts = (stats.rx_packets, stats.rx_bytes, stats.rx_dropped, stats.tx_packets, stats.tx_bytes, stats.tx_dropped)
    return PortTraffic(vif, *(count or 0 for count in counts))
