"""The metrics of a pool as its controllers see it: sums, never a series for each VIF; hosts' agents have those (docs/monitoring.md).

One rule: VIFs are gone through in slices with turns of the loop between them, and so are families of series. Scrapes that come within some seconds share one answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from vnet.controller.event_delivery import EventDelivery
from vnet.controller.vif_status import Presence, host_problem, whereabouts
from vnet.db.view import PoolView
from vnet.health.findings import findings, stated
from vnet.objects import Event, Host
from vnet.util.certificate_ends import certificate_end_s
from vnet.util.exposition import Histogram, MetricFamily, Sample, counter, exposition, gauge, histogram, value

SLICE = 100  # VIFs in a turn of the loop: 1.7 ms (docs/benchmarks.md)
SHARED_S = 5.0
MAX_HOSTS, MAX_NETWORKS, MAX_CODES, MAX_KINDS, MAX_CERTIFICATES = 1000, 1000, 50, 64, 1000
OTHER = "other"


@dataclass(frozen=True, slots=True)
class ControllerMeasures:
    """What a controller measures as it works: writes to the pool database, plugs that callers waited for, the lag of its loop, and events by kind."""

    writes: Histogram = field(default_factory=Histogram)
    plugs: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    events: Counter[str] = field(default_factory=Counter)

    def event(self, event: Event) -> None:
        """Counts an event. Any host may write any kind: of more than MAX_KINDS the rest is one."""
        topic = event.kind if event.kind in self.events or len(self.events) < MAX_KINDS else OTHER
        self.events[topic] += 1


@dataclass(slots=True)
class PoolSums:
    """Sums over VIFs: by state, by the host where they run, by network, by the code of what is wrong; and those that move."""

    states: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    networks: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    moving: int = 0


async def sums_of(view: PoolView) -> PoolSums:
    """The sums of a view. The pool may change meanwhile: a VIF counts as it is when it is looked at."""
    found = PoolSums(Counter({presence.value: 0 for presence in Presence}))
    vifs = list(view.state.vifs.values())
    for start in range(0, len(vifs), SLICE):
        for vif in vifs[start : start + SLICE]:
            at = whereabouts(view, vif)
            found.states[at.presence.value] += 1
            found.networks[vif.network] += 1
            found.moving += vif.incoming is not None
            if at.host is not None:
                found.hosts[at.host] += 1
            found.problems.update({reason.code for reason in at.reasons})
        await asyncio.sleep(0)
    return found


class PoolMetrics:
    """Answers scrapes. view: the pool now. directory: where certificates are, None for none. clock: seconds that only grow."""

    def __init__(
        self,
        view: Callable[[], PoolView],
        measures: ControllerMeasures,
        directory: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.leads: Callable[[], bool] = lambda: False
        self.connections: Mapping[str, int] = {}  # of the API, by what became of them
        self.deliveries: Sequence[EventDelivery] = ()
        self._view: Final = view
        self._measures: Final = measures
        self._directory: Final = directory
        self._clock: Final = clock
        self._answer: tuple[float, asyncio.Task[str]] | None = None

    async def text(self) -> str:
        """The answer to a scrape. Raises Unavailable while the database is away."""
        now_s = self._clock()
        if self._answer is None or (self._answer[1].done() and now_s - self._answer[0] >= SHARED_S):
            self._answer = now_s, asyncio.ensure_future(self._read(self._view()))
        return await asyncio.shield(self._answer[1])

    async def _read(self, view: PoolView) -> str:
        sums = await sums_of(view)
        days = await asyncio.to_thread(lambda: list(self._days()))
        texts = []
        for family in self._families(view, sums, days):
            texts.append(exposition([family]))
            await asyncio.sleep(0)
        return "".join(texts)

    def _families(self, view: PoolView, sums: PoolSums, days: list[Sample]) -> Iterator[MetricFamily]:
        state, measures = view.state, self._measures
        yield value("vnet_controller_leads", "Whether this controller does the leader's duties.", self.leads())
        yield value("vnet_hosts", "Hosts of the pool.", len(state.hosts))
        yield value("vnet_networks", "Networks of the pool.", len(state.networks))
        generation = state.pool.generation if state.pool is not None else 0
        yield value("vnet_pool_generation", "The newest generation of the pool.", generation)
        yield value("vnet_pool_revision", "Its revision.", state.pool.revision if state.pool is not None else 0)
        yield gauge("vnet_pool_vifs", "VIFs by state.", _by("state", sums.states, MAX_CODES))
        yield gauge(
            "vnet_pool_vif_problems", "VIFs that are not as desired, by code.", _by("code", sums.problems, MAX_CODES)
        )
        yield value("vnet_pool_vifs_moving", "VIFs that migrate.", sums.moving)
        yield gauge("vnet_network_vifs", "VIFs by network.", _by("network", sums.networks, MAX_NETWORKS))
        hosts = [state.hosts[name] for name in sorted(state.hosts)[:MAX_HOSTS]]
        yield gauge("vnet_host_up", "Whether a host's agent reports and has its switch.", list(_up(view, hosts)))
        yield gauge(
            "vnet_host_vifs", "VIFs that run on a host.", [({"host": it.name}, sums.hosts[it.name]) for it in hosts]
        )
        agents = [(host.name, state.agents.get(host.name)) for host in hosts]
        behind = [({"host": name}, max(0, generation - it.generation)) for name, it in agents if it is not None]
        yield gauge("vnet_host_behind_generations", "Generations that a host has not programmed yet.", behind)
        problems = [({"host": name}, len(it.problems)) for name, it in agents if it is not None]
        yield gauge("vnet_host_problems", "Problems that a host reports.", problems)
        wrong = Counter(found.code for found in findings(view, stated(view)))
        yield gauge(
            "vnet_health_findings",
            "What is wrong with the network between hosts, by code (docs/health.md).",
            _by("code", wrong, MAX_CODES),
        )
        yield counter(
            "vnet_pool_events_total",
            "Events since this controller started, by kind.",
            _by("kind", measures.events, MAX_KINDS + 1),
        )
        yield counter(
            "vnet_api_connections_total",
            "Connections to the API, by what became of them.",
            _by("outcome", Counter(self.connections), MAX_CODES),
        )
        yield counter(
            "vnet_events_delivered_total",
            "Events for each receiver that this controller was told of, by outcome.",
            [
                ({"to": it.receiver.address, "outcome": outcome}, count)
                for it in self.deliveries
                for outcome, count in (("sent", it.sent), ("missed", it.missed), ("failed-attempts", it.failed))
            ],
        )
        yield histogram(
            "vnet_write_seconds", "A write to the pool database, until it is on disk and shown.", measures.writes
        )
        yield histogram(
            "vnet_plug_wait_seconds", "Calls that plug a VIF, until it was ready or they gave up.", measures.plugs
        )
        yield histogram("vnet_loop_lag_seconds", "By how much timers of the controller are late.", measures.lag)
        yield gauge("vnet_certificate_days", "Days until a certificate ends.", days)

    def _days(self) -> Iterator[Sample]:
        """Of the certificates here, and of those that the CA beside them has issued."""
        if self._directory is None:
            return
        now_s = datetime.now(UTC).timestamp()
        paths = [*sorted(self._directory.glob("*.pem")), *sorted((self._directory / "issued").glob("*.pem"))]
        for path in paths[:MAX_CERTIFICATES]:
            if (end_s := certificate_end_s(path)) is not None:
                yield {"certificate": path.stem}, round((end_s - now_s) / 86400, 2)


def _by(name: str, counts: Counter[str], most: int) -> list[Sample]:
    """A sample for each of the most frequent, and what is left as one."""
    ranked = counts.most_common()
    shown: list[Sample] = [({name: text}, count) for text, count in sorted(ranked[:most])]
    rest = sum(count for _, count in ranked[most:])
    return [*shown, ({name: OTHER}, rest)] if rest else shown


def _up(view: PoolView, hosts: list[Host]) -> Iterator[Sample]:
    for host in hosts:
        yield {"host": host.name}, float(host_problem(view, host.name) is None)
