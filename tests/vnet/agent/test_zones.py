"""Zones of the tracker: emptied if they may hold another VIF's connections, at whatever instant agent and switch end; else left alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ovsctl.appctl import DaemonUnreachable
from ovsctl.ovsdb import NotConnected, OvsdbClient
from tests.polling import until
from vnet.agent import zones
from vnet.agent.zones import BLOCK, NOBODY, TrackerZones

VIFS = [0x11, 0x22]
# Two of one block, one of the next, one that an awaited VIF has.
ZONES = [1, 2, BLOCK + 1, 40000]


@dataclass
class Database:
    """external_ids of the one row. ends: how the next transactions end, the first first."""

    ids: dict[str, str] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)

    async def transact(self, *operations: Any) -> list[Any]:
        end = self.ends.pop() if self.ends else "done"
        if end == "lost":
            raise NotConnected("lost")
        for operation in operations:
            if (mutations := getattr(operation, "mutations", None)) is None:
                return [[{"external_ids": dict(self.ids)}]]
            for _, mutator, value in mutations:
                if mutator == "insert":
                    self.ids = {**value, **self.ids}
                else:
                    self.ids = {key: text for key, text in self.ids.items() if key not in value}
        if end == "answer lost":
            raise NotConnected("answer lost")
        return []


@dataclass
class HostModel:
    """An agent and its switch, as far as zones go: whose connections the tracker holds, and whose flows the switch has."""

    database: Database = field(default_factory=Database)
    tracked: dict[int, int] = field(default_factory=dict)
    flows: dict[int, int] = field(default_factory=dict)
    emptied: int = 0
    network: int = 5  # of all zones' VIFs
    zones: TrackerZones = field(init=False)
    writer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.zones = TrackerZones(
            cast(OvsdbClient, self.database), self._used, lambda: dict.fromkeys(ZONES, self.network)
        )
        await self.zones.load()
        self.zones.found(self.flows)
        self.writer = asyncio.create_task(self.zones.run())

    async def _used(self) -> set[int]:
        return {zone for zone in self.tracked if zone}

    async def end(self) -> None:
        assert self.writer is not None
        self.writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.writer

    async def use(self, zone: int, vif: int, *, until: str) -> None:
        """A VIF takes a zone. until: how far it comes before the agent ends: "taken", "sent" or "held"."""
        owners = {zone: vif}
        empty = self.zones.to_empty(owners)
        await self.zones.take(owners)
        if until == "taken":
            await passes()
            return
        for other in empty:
            self.emptied += 1
            self.tracked.pop(other, None)
        assert self.tracked.get(zone, vif) == vif, "inherits another VIF's connections"
        self.tracked[zone] = self.flows[zone] = vif
        if until == "held":
            self.zones.hold(owners)

    def leave(self, zone: int) -> None:
        self.zones.leave([zone])
        self.flows.pop(zone, None)


STEPS = st.one_of(
    st.tuples(
        st.just("use"), st.sampled_from(ZONES), st.sampled_from(VIFS), st.sampled_from(["taken", "sent", "held"])
    ),
    st.tuples(st.just("leave"), st.sampled_from(ZONES)),
    st.tuples(st.just("written"), st.sampled_from(["lost", "answer lost", "done"])),
    st.tuples(st.just("restart"), st.booleans()),
)


async def passes() -> None:
    """Lets the writer write."""
    for _ in range(8):
        await asyncio.sleep(0)


ONE, OTHER = ("use", 1, 0x11, "held"), ("use", 1, 0x22, "sent")
BOTH = ("restart", True)


@given(st.lists(STEPS, max_size=12))
@example([ONE, ("written", "done"), ("leave", 1), OTHER, BOTH, ONE])
@example([ONE, ("written", "answer lost"), ("leave", 1), OTHER, BOTH, ONE])
@example([ONE, ("written", "done"), ("leave", 1), ("use", 1, 0x22, "taken"), BOTH, ("use", 1, 0x22, "held")])
def test_no_vif_inherits_connections_whenever_agent_and_switch_end(steps: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        host = HostModel()
        await host.start()
        for step, *values in steps:
            if step == "use":
                await host.use(values[0], values[1], until=values[2])
                if values[2] == "held":
                    continue
            elif step == "leave":
                host.leave(values[0])
                continue
            elif step == "written":  # all that may be written later; the first attempt ends so
                host.database.ends = ["done"] if values[0] == "done" else ["lost"] * 8 + values
                await passes()
                host.database.ends = []
                continue
            await host.end()  # also where a step was cut short
            if step == "restart" and values[0]:
                host.flows = {}  # with ovs-vswitchd; a kernel's tracker stays
            await host.start()
        await host.end()

    before, zones.DELAY_S = zones.DELAY_S, 0  # type: ignore[misc]
    try:
        asyncio.run(play())
    finally:
        zones.DELAY_S = before  # type: ignore[misc]


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HostModel]:
    monkeypatch.setattr(zones, "DELAY_S", 0)
    made = HostModel()
    await made.start()
    yield made
    await made.end()


async def both_restart(host: HostModel) -> None:
    def remembered() -> bool:
        return host.flows.items() <= {zone: owner for zone, (owner, _) in host.zones._kept.items()}.items()

    await until(remembered, "its zones are remembered")
    await host.end()
    host.flows = {}
    await host.start()


async def test_a_zone_is_emptied_where_it_may_hold_anothers_connections_and_nowhere_else(host: HostModel) -> None:
    for zone in ZONES:
        await host.use(zone, 0x11, until="held")
    assert host.emptied == 0, "a tracker that held nothing"
    await both_restart(host)
    for zone in ZONES:
        await host.use(zone, 0x11, until="held")
    await host.use(3 * BLOCK, 0x22, until="held")
    assert host.emptied == 0, "the same VIFs, and a zone of a block that was never used"
    await both_restart(host)
    await host.use(1, 0x22, until="held")
    await host.use(3, 0x22, until="held")
    assert host.emptied == 2, "another VIF, and a zone of which nothing is known"
    host.leave(1)
    await host.use(1, 0x22, until="held")
    assert host.emptied == 3, "a VIF that was away"
    await both_restart(host)
    host.network += 1
    await host.use(1, 0x22, until="held")
    assert host.emptied == 4, "a VIF that is on another network"


async def test_a_record_of_another_boot_or_that_is_damaged_counts_for_nothing(host: HostModel) -> None:
    await host.use(1, 0x11, until="held")
    good = None
    for damage in ("another-boot 1", "nonsense", ""):
        await both_restart(host)
        await host.end()
        good = good or host.database.ids[zones.BLOCKS]
        host.database.ids[zones.BLOCKS] = damage
        await host.start()
        assert host.database.ids.get(f"{zones.OWNER}1") is None
        host.emptied = 0
        await host.use(1, 0x11, until="held")
        assert host.emptied == 1
        await until(lambda: host.database.ids.get(f"{zones.OWNER}1") == "11 5", "a new record")
        assert host.database.ids[zones.BLOCKS] == good


async def test_a_switch_that_does_not_say_has_every_zone_emptied_at_its_first_use(host: HostModel) -> None:
    async def silent() -> set[int]:
        raise DaemonUnreachable("ovs-vswitchd", (), "no answer")  # type: ignore[arg-type]

    await host.end()
    host.database.ids.clear()
    host._used = silent  # type: ignore[method-assign]
    await host.start()
    await host.use(1, 0x11, until="held")
    await host.use(1, 0x11, until="held")
    assert host.emptied == 1
    assert zones.BLOCKS not in host.database.ids
    assert NOBODY not in host.tracked.values()
