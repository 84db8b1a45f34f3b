"""The event feed and the leader's decisions, as functions of what they are given."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from tests.vnet.controller.pools import bound, pool, vif
from vnet.controller import event_log
from vnet.controller.event_builder import events_of
from vnet.controller.event_log import BATCH, Entry, Feed
from vnet.controller.leader import host_events, old_events, orphans
from vnet.controller.presenters import show_event
from vnet.db.changes import DeleteObject, InsertObject, UpdateObject
from vnet.db.mirror import Delta
from vnet.db.view import PoolView
from vnet.objects import Event
from vnet.objects.binding import SWITCH


def event(time: int, **more: str) -> Event:
    return Event(time, more.pop("kind", "k"), str(time), **more)


def came(feed: Feed, *times: int) -> None:
    feed.take([Delta(f"u{time}", None, event(time)) for time in times], 0)


async def read(feed: Feed, position: int, count: int) -> list[int]:
    seen: list[Entry] = []
    async for batch in feed.follow(position, 5.0):
        assert 0 < len(batch) <= BATCH
        seen += batch
        if len(seen) >= count:
            break
    return [entry.event.time for entry in seen]


async def test_a_reader_gets_each_event_once_in_order() -> None:
    feed = Feed({"b": event(2), "a": event(1)})
    came(feed, 3)
    assert await read(feed, 0, 3) == [1, 2, 3]
    waiting = asyncio.create_task(read(feed, feed.end, 2))
    await asyncio.sleep(0)
    came(feed, 4)
    came(feed, 5)
    assert await asyncio.wait_for(waiting, 5) == [4, 5]


async def test_memory_is_bounded_and_a_slow_reader_misses_the_oldest() -> None:
    feed = Feed({}, kept=10)
    came(feed, *range(1, 101))
    assert len(feed.latest(1000)) == 10
    assert await read(feed, 0, 10) == list(range(91, 101))


def test_resuming_by_id_also_at_another_controller() -> None:
    rows = {f"u{time}": event(time) for time in (10, 20, 30)}
    one, other = Feed(rows), Feed({})
    for time in (20, 10, 30):  # as they came there
        came(other, time)
    ids = {entry.event.time: entry.id for entry in one.latest(3)}
    assert one.position_after(ids[20]) == 2
    assert [e.event.time for e in other.latest(3) if e.position > other.position_after(ids[20])] == [10, 30]
    pruned = Feed({"u30": event(30)})
    assert pruned.position_after(ids[20]) == 0
    assert pruned.position_after("nonsense") == pruned.end


async def test_a_quiet_feed_says_so() -> None:
    async for batch in Feed({}).follow(0, 0.01):
        assert batch == []
        break


def test_since_when_a_vif_is_defined() -> None:
    feed = Feed({"a": event(5, kind="vif-created", vif="v")})
    assert feed.defined_since("v") == 5
    feed.take([Delta(("v", "xen1"), bound(vif("v", 1), "xen1"), None)], 70)
    assert feed.defined_since("v") == 70
    feed.take([Delta("v", vif("v", 1), None)], 80)
    assert feed.defined_since("v") is None


def test_pruning_keeps_the_newest_and_waits_for_a_bunch() -> None:
    events = {str(n): event(n % 7) for n in range(20)}
    assert old_events(events, kept=10, slack=10) == []
    gone = old_events(events, kept=10, slack=9)
    assert len(gone) == 10
    assert max(events[uuid].time for uuid in gone) <= min(events[u].time for u in events.keys() - set(gone))


def test_one_host_does_not_drive_out_the_events_of_all_others() -> None:
    others = {f"other{n}": event(n, host=f"xen{n % 3}") for n in range(5)}
    flood = {f"flood{n}": event(100 + n, host="xen9") for n in range(100)}
    unnamed = {f"pool{n}": event(n) for n in range(3)}
    gone = set(old_events(others | flood | unnamed, kept=10, slack=0))
    assert flood.keys() - gone == {f"flood{n}" for n in range(95, 100)}
    assert len((others | unnamed).keys() - gone) == 5


def test_orphans_are_those_nobody_clears_up() -> None:
    here = vif("here", 1)
    gone = vif("gone", 2)
    view = pool([here], [bound(here, "xen1"), bound(gone, "xen1"), bound(gone, "xen2")], live=("xen2",))
    assert orphans(view) == [("gone", "xen1")]


def test_hosts_that_fall_silent_and_come_back() -> None:
    view = pool([], live=("xen1",))
    told = list(host_events(frozenset({"xen2", "stranger"}), view, 9))
    assert [(e.kind, e.host) for e in told] == [("host-down", "xen2"), ("host-up", "xen1")]
    assert list(host_events(view.live, view, 9)) == []
    away = pool([], live=(), xen1={SWITCH: "does not answer"})
    assert [e.text for e in host_events(view.live, away, 9)] == ["host xen1: ovs-vswitchd does not answer"]


def test_what_is_told_of_a_migration() -> None:
    still = vif("v", 1, host="xen1")
    moving = replace(still, incoming="xen2")
    steps = [
        (UpdateObject(still, moving), "migration-started"),
        (UpdateObject(moving, replace(still, host="xen2")), "migration-finished"),
        (UpdateObject(moving, still), "migration-aborted"),
        (UpdateObject(still, replace(still, host=None)), "vif-wanted"),
        (InsertObject(still), "vif-created"),
        (DeleteObject(still), "vif-deleted"),
    ]
    assert [events_of([change], 1)[0].kind for change, _ in steps] == [kind for _, kind in steps]
    assert all(told.vif == "v" for change, _ in steps for told in events_of([change], 1))
    assert "vm" not in {field for field, _ in PoolView.of(pool([still]).state).index.by_reference}


async def test_many_readers_of_a_long_backlog_hold_up_nobody_and_share_what_is_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded = Counter[str]()

    def counting(id: str, event: Event) -> object:
        encoded[id] += 1
        return show_event(id, event)

    monkeypatch.setattr(event_log, "show_event", counting)
    feed, readers = Feed({f"u{time}": event(time) for time in range(1000)}), 60
    read_in_a_turn, most = 0, 0

    async def reader() -> int:
        nonlocal read_in_a_turn
        count = 0
        async for batch in feed.follow(0, 5.0):
            count += len(batch)
            read_in_a_turn += len(batch)
            if count == 1000:
                break
        return count

    async def others() -> None:
        nonlocal read_in_a_turn, most
        while True:
            most, read_in_a_turn = max(most, read_in_a_turn), 0
            await asyncio.sleep(0)

    busy = asyncio.create_task(others())
    assert await asyncio.gather(*(reader() for _ in range(readers))) == [1000] * readers
    busy.cancel()
    assert set(encoded.values()) == {1}
    assert most <= 2 * BATCH
