"""The metrics of one host, as Prometheus reads them (docs/monitoring.md).

One rule: a scrape asks the switch five times, for what grows with its ports, networks and rules and not with its flows, and those that come within a second share one answer. Series of VIFs and of
rules are bounded: what is left out is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from ovsctl.openflow import Flow
from ovsctl.openflow import actions as act
from ovsctl.openflow.errors import OpenFlowError
from ovsctl.openflow.messages import PortStats
from vnet.agent.agent import Agent
from vnet.agent.rule_counters import ANY_OBJECT
from vnet.compile import (
    COOKIE_CATEGORY_SHIFT,
    COOKIE_MARK,
    OF_FLOODED,
    OF_NETWORK,
    OF_VIF,
    Category,
    Table,
)
from vnet.db.accounting import WAYS
from vnet.db.rule_queries import RuleCounter
from vnet.util.certificate_ends import certificate_end_s
from vnet.util.exposition import MetricFamily, Sample, counter, exposition, gauge, histogram, value

MAX_VIFS = 2000  # with series of their own
MAX_RULES = 5000
MAX_TUNNELS = 256  # paths to peers with series of their own
SHARED_S = 1.0  # scrapes within this time get one answer
SWITCH_S = 5.0  # after which a scrape goes without what the switch has not said
FLOOD = COOKIE_MARK | Category.FLOOD << COOKIE_CATEGORY_SHIFT
BASE = COOKIE_MARK | Category.BASE << COOKIE_CATEGORY_SHIFT
T = Table
# What a frame was dropped for, by the table that it ended in. Of the others, those that only answer other tables drop nothing.
REASONS: Final[dict[Table, str]] = {
    **dict.fromkeys((T.CLASSIFY, T.TAG_TYPE, T.TAGGED, T.SERVICE_TAGGED), "network"),
    **dict.fromkeys((T.ADMIT, T.GATED), "held"),
    **dict.fromkeys((T.SERVICES, T.GUARD), "guard"),
    **dict.fromkeys((T.FROM_ISOLATION, T.TO_ISOLATION), "isolation"),
    **dict.fromkeys(
        (
            T.EGRESS,
            T.EGRESS_NEIGHBOUR,
            T.EGRESS_STATE,
            T.EGRESS_VERDICT,
            T.EGRESS_COMMITTED,
            T.INGRESS,
            T.INGRESS_NEIGHBOUR,
            T.INGRESS_STATE,
            T.INGRESS_VERDICT,
            T.INGRESS_COMMITTED,
        ),
        "rule",
    ),
    **dict.fromkeys((T.LOOKUP, T.UNKNOWN, T.FLOOD), "unknown"),
    T.DELIVER: "port",
}
METER = "meter"
Counted = Callable[[PortStats], tuple[int | None, int | None]]  # what a port received, and what it sent
PACKETS: Final[Counted] = lambda stats: (stats.rx_packets, stats.tx_packets)  # noqa: E731
BYTES: Final[Counted] = lambda stats: (stats.rx_bytes, stats.tx_bytes)  # noqa: E731
DROPPED: Final[Counted] = lambda stats: (stats.rx_dropped, stats.tx_dropped)  # noqa: E731


@dataclass(frozen=True, slots=True)
class SwitchCounters:
    """What the switch has counted: of ports by ofport, of drops by reason, of meters by their numbers, of groups' rules."""

    ports: dict[int, PortStats] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)
    meters: dict[int, int] = field(default_factory=dict)
    rules: dict[str, tuple[RuleCounter, ...]] = field(default_factory=dict)


class HostMetrics:
    """Answers scrapes. certificates: files with certificates of this host, by name. clock: seconds that only grow."""

    def __init__(
        self, agent: Agent, certificates: dict[str, Path] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.reads: Final[Counter[str]] = Counter()  # of the switch, and those without an answer
        self._agent: Final = agent
        self._certificates: Final = certificates or {}
        self._clock: Final = clock
        self._answer: tuple[float, asyncio.Task[str]] | None = None

    async def text(self) -> str:
        """The answer to a scrape."""
        now_s = self._clock()
        if self._answer is None or (self._answer[1].done() and now_s - self._answer[0] >= SHARED_S):
            self._answer = now_s, asyncio.ensure_future(self._read())
        return await asyncio.shield(self._answer[1])

    async def _read(self) -> str:
        counters = None
        try:
            async with asyncio.timeout(SWITCH_S):
                counters = await self._counters()
        except (OpenFlowError, TimeoutError):
            self.reads["failed"] += 1
        return exposition(self._families(counters))

    async def _counters(self) -> SwitchCounters | None:
        flows = self._agent.flows
        if not flows.connected:
            return None
        self.reads["made"] += 1
        base = await flows.counted(BASE, ANY_OBJECT)
        unknown = await flows.counted(FLOOD, ANY_OBJECT, table=Table.UNKNOWN)
        groups = self._agent.compiler.view.groups
        return SwitchCounters(
            await flows.port_counters(),
            drops_of((*base, *unknown)),
            await flows.meter_drops(),
            await self._agent.rule_counters.read([groups[name] for name in sorted(groups)]) if groups else {},
        )

    def _families(self, counters: SwitchCounters | None) -> Iterator[MetricFamily]:
        agent, measures = self._agent, self._agent.measures
        yield value("vnet_agent_ready", "Whether this host does its work.", agent.facts.programmed)
        yield value("vnet_switch_up", "Whether ovs-vswitchd answers.", counters is not None)
        yield value("vnet_pool_connected", "Whether the pool database answers.", agent.pool_client.connected)
        yield value("vnet_problems", "Things that are wrong on this host.", len(agent.problems))
        waiting = agent.revisions.newest - min(agent.revisions.flows, agent.revisions.rows)
        yield value("vnet_pending_revisions", "Decisions that the switch does not hold yet.", waiting)
        generation = agent.compiler.view.pool.generation if agent.compiler.view.pool is not None else 0
        yield value("vnet_generation", "The newest generation of the pool that this agent has seen.", generation)
        yield value("vnet_desired_flows", "Flows and meters that this host is to have.", len(agent.flows.desired))
        yield value("vnet_foreign_flows", "Flows on br-int that are not ours.", agent.flows.strangers)
        yield counter(
            "vnet_events_total",
            "Events of this host, by kind; drift is what somebody else changed and was put back.",
            [({"kind": topic}, count) for topic, count in sorted(measures.events.items())],
        )
        yield histogram("vnet_plug_seconds", "From a VIF's port to its flows.", measures.plugs)
        yield histogram(
            "vnet_apply_seconds", "From a decision to the switch's word that it holds it.", measures.changes
        )
        yield histogram("vnet_database_seconds", "A transaction of the pool database.", measures.database)
        yield histogram("vnet_loop_lag_seconds", "By how much timers of the agent are late.", measures.lag)
        yield gauge("vnet_certificate_days", "Days until a certificate ends.", self._days())
        yield from self._moves()
        yield from self._tunnels()
        if counters is not None:
            yield from self._traffic(counters)

    def _days(self) -> Iterator[Sample]:
        for name, path in self._certificates.items():
            if (end_s := certificate_end_s(path)) is not None:
                yield {"certificate": name}, round((end_s - time.time()) / 86400, 2)

    def _moves(self) -> Iterator[MetricFamily]:
        moves = self._agent.measures.moves
        pauses = [({"vif": vif}, round(move.pause_s, 4)) for vif, move in moves.items()]
        yield gauge("vnet_migration_pause_seconds", "Of a VIF's last move here: from `switch` until it ran.", pauses)
        waited = [({"vif": vif}, move.waited) for vif, move in moves.items() if move.waited is not None]
        yield gauge("vnet_migration_waited_packets", "Packets that waited at its port meanwhile.", waited)
        lost = [({"vif": vif}, move.lost) for vif, move in moves.items() if move.lost is not None]
        yield gauge("vnet_migration_lost_packets", "Packets that its port had no room for meanwhile.", lost)

    def _tunnels(self) -> Iterator[MetricFamily]:
        """Tunnel and patch ports; a tunnel has one port for all peers, and hellos say which of them it reaches."""
        agent, view = self._agent, self._agent.compiler.view
        up = [({"port": name}, float(ofport is not None)) for name, ofport in sorted(view.devices.items())]
        yield gauge("vnet_device_up", "Whether ovs-vswitchd has a tunnel or a patch port.", up)
        peers = sum(name != agent.me and view.vtep(name) is not None for name in view.hosts)
        yield value("vnet_tunnel_peers", "Hosts that this one may send tunnelled frames to.", peers)
        mesh = agent.network.mesh.health(measured=True)[:MAX_TUNNELS]
        labelled = [({"peer": it.peer, "via": it.via}, it) for it in mesh]
        both = [
            ({**of, "direction": way}, float(up))
            for of, it in labelled
            for way, up in (("in", it.hears), ("out", it.heard))
            if up is not None
        ]
        yield gauge("vnet_tunnel_up", "Whether hellos come from a peer (in), and there by what it says (out).", both)
        trips = [(of, it.round_trip_us / 1e6) for of, it in labelled if it.round_trip_us is not None]
        yield gauge("vnet_tunnel_round_trip_seconds", "The quickest of the last round trips of hellos.", trips)
        sizes = [(of, it.mtu) for of, it in labelled if it.mtu is not None]
        yield gauge(
            "vnet_tunnel_mtu_bytes",
            "The largest packet that is known to come to a peer, of those that networks need.",
            sizes,
        )
        clocks = [(of, it.ahead_ms / 1000) for of, it in labelled if it.ahead_ms is not None]
        yield gauge("vnet_clock_ahead_seconds", "By how much a peer's clock is ahead of this host's.", clocks)
        problem = "encryption" in agent.encryption.problems
        yield value("vnet_encryption_problem", "Whether encrypted frames do not reach every host.", problem)

    def _traffic(self, counters: SwitchCounters) -> Iterator[MetricFamily]:
        view = self._agent.compiler.view
        here = sorted((vif, ofport) for vif, ofport in view.ports.items() if vif in view.vifs)
        shown = [
            ({"vif": vif, "network": view.vifs[vif].network, "vm": view.vifs[vif].vm or ""}, counters.ports[ofport])
            for vif, ofport in here[:MAX_VIFS]
            if ofport in counters.ports
        ]
        devices = [
            ({"port": name}, counters.ports[ofport])
            for name, ofport in sorted(view.devices.items())
            if ofport in counters.ports
        ]
        yield value("vnet_vifs", "VIFs with a port here.", len(here))
        yield value("vnet_vifs_left_out", "VIFs without series of their own.", max(0, len(here) - MAX_VIFS))
        for unit, of in (("packets", PACKETS), ("bytes", BYTES), ("dropped_packets", DROPPED)):
            text = unit.replace("_", " ").capitalize()
            yield counter(
                f"vnet_vif_{unit}_total", f"{text} of a VIF, as its VM sees them.", _both(shown, "from-vm", "to-vm", of)
            )
            yield counter(
                f"vnet_device_{unit}_total", f"{text} of a tunnel or a patch port.", _both(devices, "in", "out", of)
            )
        yield from self._accounts([vif for vif, _ in here[:MAX_VIFS]])
        metered = Counter(dict.fromkeys(("vif", "network", "flooded"), 0))
        of_vif: Counter[int] = Counter()
        for number, dropped in counters.meters.items():
            if (owner := meter_of(number)) is not None:
                metered[owner[0]] += dropped
                of_vif[owner[1]] += dropped if owner[0] != "network" else 0
        limited = [({"vif": vif}, of_vif[port]) for vif, port in here[:MAX_VIFS] if of_vif[port]]
        yield counter("vnet_vif_limited_packets_total", "Packets over the limits of a VIF's QoS class.", limited)
        drops = {reason: counters.drops[reason] for reason in sorted({*REASONS.values()})}
        drops[METER] = sum(metered.values())
        yield counter(
            "vnet_dropped_packets_total",
            "Packets that this host dropped, by reason.",
            [({"reason": reason}, count) for reason, count in drops.items()],
        )
        rules = ((group, found) for group, counted in counters.rules.items() for found in counted)
        samples = [
            ({"group": group, "rule": found.rule, "direction": found.direction.value}, found.packets)
            for group, found in islice(rules, MAX_RULES)
        ]
        yield counter("vnet_rule_packets_total", "Packets that a rule, or a group's default, has judged here.", samples)

    def _accounts(self, vifs: Sequence[str]) -> Iterator[MetricFamily]:
        """What this host has counted of VIFs for their accounts; series of a VIF on several hosts add up to all of it."""
        view, totals = self._agent.compiler.view, self._agent.accounting.totals()
        found = [
            ({"vif": vif, "network": view.vifs[vif].network, "direction": way.rpartition("_")[0].replace("_", "-"), "with": way.rpartition("_")[2]}, counts[2 * at :])
            for vif in vifs
            if (counts := totals.get(vif)) is not None
            for at, way in enumerate(WAYS)
        ]  # fmt: skip
        for unit, at in (("packets", 0), ("bytes", 1)):
            yield counter(
                f"vnet_vif_accounted_{unit}_total",
                f"{unit.capitalize()} of a VIF that its policy let pass, with VIFs of the pool or stations outside.",
                [(labels, counts[at]) for labels, counts in found],
            )


def _both(found: Sequence[tuple[dict[str, str], PortStats]], received: str, sent: str, of: Counted) -> Iterator[Sample]:
    for labels, stats in found:
        for direction, count in zip((received, sent), of(stats), strict=True):
            if count is not None:
                yield {**labels, "direction": direction}, count


def drops_of(flows: Iterable[tuple[Flow, int, int]]) -> Counter[str]:
    """The packets that flows of no object have dropped, by reason. A flow that only makes copies, to log or to reject, drops the packet itself."""
    found: Counter[str] = Counter()
    for flow, packets, _ in flows:
        reason = REASONS.get(Table(flow.table))
        if reason is not None and all(isinstance(action, act.Clone) for action in flow.actions):
            found[reason] += packets
    return found


def meter_of(number: int) -> tuple[str, int] | None:
    """What a meter limits, vif, network or flooded, with the VIF's ofport or the network's number; None for those of the agent's own protection."""
    if OF_FLOODED <= number < OF_FLOODED + (1 << 18):
        return "flooded", number - OF_FLOODED >> 2
    if OF_VIF <= number < OF_VIF + (1 << 18):
        return "vif", number - OF_VIF >> 2
    if OF_NETWORK <= number < OF_NETWORK + (1 << 26):
        return "network", number - OF_NETWORK >> 2
    return None
